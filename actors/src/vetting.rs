//! May we connect there? One answer, asked when a private URL is written and again whenever a connection is opened: the
//! scheme, the form of the host, the name, the port, and every address that the name leads to. Pure: who resolves and
//! who dials hand the facts in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::{Config, Mode};
use url::{Host, Url};

use crate::seller::Target;

const LENGTH_MAX: usize = 2048;
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Names that lead inside, or nowhere.
const INSIDE: [&str; 13] = [
    "internal",
    "local",
    "localhost",
    "localdomain",
    "arpa",
    "onion",
    "invalid",
    "alt",
    "lan",
    "home",
    "corp",
    "intranet",
    "private",
];

/// Names of metadata services that have the look of public ones.
const METADATA: [&str; 4] = ["metadata.goog", "metadata.azure.com", "metadata.tencentyun.com", "metadata.packet.net"];

/// Why there is no seller. The reason never repeats what was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it means")]
pub enum Unfit {
    #[error("must have 1 to {LENGTH_MAX} bytes")]
    Length,
    #[error("must not hold blanks, control characters or backslashes")]
    Characters,
    #[error("must be a URL")]
    NoUrl,
    #[error("must begin with https://")]
    Scheme,
    #[error("must begin with https:// or http://")]
    SchemeInDev,
    #[error("must not hold a user name or password")]
    UserInfo,
    #[error("must not have a fragment")]
    Fragment,
    #[error("must have a host")]
    NoHost,
    #[error("must not be this machine")]
    ThisMachine,
    #[error("must name a host, not an address")]
    Literal,
    #[error("must have a public host name")]
    Name,
    #[error("must use port 443 or a port from 1024 on")]
    Port,
    #[error("must not be this gateway")]
    Ourselves,
    #[error("must lead to addresses of the public internet only")]
    Address,
}

/// What this deployment permits, and who it is.
#[derive(Clone, Debug)]
pub struct Vetting {
    is_dev: bool,
    /// Our public host and its port.
    site: Option<(Host, u16)>,
    /// Our other names, in lower case.
    own_names: Vec<String>,
    own_addresses: Vec<IpAddr>,
}

impl Vetting {
    /// The rules of a deployment whose public URL is `site`.
    #[must_use]
    pub fn new(config: &Config, site: &str) -> Self {
        let site = Url::parse(site).ok();
        let site = site.and_then(|url| Some((url.host()?.to_owned(), url.port_or_known_default()?)));
        let mut own_names = Vec::new();
        let mut own_addresses = Vec::new();
        for own in &config.proxy.own_hosts {
            match own.parse() {
                Ok(address) => own_addresses.push(address),
                Err(_) => own_names.push(own.to_ascii_lowercase()),
            }
        }
        if !config.proxy.listen.ip().is_unspecified() {
            own_addresses.push(config.proxy.listen.ip());
        }
        Self { is_dev: config.mode == Mode::Dev, site, own_names, own_addresses }
    }

    /// Reads a private URL. What is to be kept is the parser's own form, which is returned.
    ///
    /// # Errors
    /// Why nobody may be called there.
    pub fn read_url(&self, text: &str) -> Result<Url, Unfit> {
        if text.is_empty() || text.len() > LENGTH_MAX {
            return Err(Unfit::Length);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(Unfit::Characters);
        }
        let url = Url::parse(text).map_err(|_| Unfit::NoUrl)?;
        let is_tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(if self.is_dev { Unfit::SchemeInDev } else { Unfit::Scheme }),
        };
        if has_user_info(text) || !url.username().is_empty() || url.password().is_some() {
            return Err(Unfit::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(Unfit::Fragment);
        }
        let host = url.host().ok_or(Unfit::NoHost)?.to_owned();
        self.check_place(is_tls, &host, url.port_or_known_default().unwrap_or(0))?;
        if url.as_str().len() > LENGTH_MAX {
            return Err(Unfit::Length);
        }
        Ok(url)
    }

    /// The same rules for what was stored, before it is dialled: they may have changed since it was written.
    ///
    /// # Errors
    /// Why nobody may be called there.
    pub fn check_target(&self, target: &Target) -> Result<(), Unfit> {
        let host = match target.host.parse() {
            Ok(IpAddr::V4(address)) => Host::Ipv4(address),
            Ok(IpAddr::V6(address)) => Host::Ipv6(address),
            Err(_) => Host::Domain(target.host.clone()),
        };
        self.check_place(target.is_tls, &host, target.port)
    }

    /// Whether an address may be dialled. One that may not spoils the whole name.
    ///
    /// # Errors
    /// Why not.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Unfit> {
        if self.is_dev && address.is_loopback() {
            return Ok(());
        }
        if !is_public(address) {
            return Err(Unfit::Address);
        }
        if self.own_addresses.contains(&address) {
            return Err(Unfit::Ourselves);
        }
        Ok(())
    }

    /// Whether what leads to this machine itself is refused: always, but in dev mode.
    #[must_use]
    pub fn refuses_this_machine(&self) -> bool {
        !self.is_dev
    }

    fn check_place(&self, is_tls: bool, host: &Host, port: u16) -> Result<(), Unfit> {
        if !is_tls && !self.is_dev {
            return Err(Unfit::Scheme);
        }
        let is_loopback = self.check_host(host)?;
        let is_plain = !is_tls && port == 80;
        if port != 443 && port < 1024 && !is_plain && !(is_loopback && port >= 1) {
            return Err(Unfit::Port);
        }
        if self.is_ourselves(host, port) { Err(Unfit::Ourselves) } else { Ok(()) }
    }

    /// Returns whether it is this machine, which only dev mode permits.
    fn check_host(&self, host: &Host) -> Result<bool, Unfit> {
        let is_loopback = match host {
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
            Host::Domain(name) if name == "localhost" => true,
            Host::Domain(name) => return check_name(name).map(|()| false),
        };
        match (is_loopback, self.is_dev) {
            (true, true) => Ok(true),
            (true, false) => Err(Unfit::ThisMachine),
            (false, _) => Err(Unfit::Literal),
        }
    }

    /// In dev mode sellers share our address, so there the port tells us apart; elsewhere a host of ours is ours on
    /// every port.
    fn is_ourselves(&self, host: &Host, port: u16) -> bool {
        let is_site =
            self.site.as_ref().is_some_and(|(own, own_port)| own == host && (!self.is_dev || *own_port == port));
        is_site || matches!(host, Host::Domain(name) if self.own_names.contains(name))
    }
}

/// An empty user name is no longer seen once it is parsed.
fn has_user_info(text: &str) -> bool {
    let rest = text.split_once(':').map_or(text, |(_, rest)| rest).trim_start_matches('/');
    rest.split(['/', '?', '#']).next().unwrap_or_default().contains('@')
}

/// At least two labels of letters, digits, hyphens and underscores, the last one not of those that lead inside.
fn check_name(name: &str) -> Result<(), Unfit> {
    let is_label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
    };
    let labels: Vec<&str> = name.split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    let is_public = labels.len() >= 2
        && name.len() <= NAME_MAX
        && labels.iter().all(|label| is_label(label))
        && last.bytes().any(|byte| byte.is_ascii_lowercase())
        && !INSIDE.contains(&last)
        && !METADATA.contains(&name);
    if is_public { Ok(()) } else { Err(Unfit::Name) }
}

/// Global unicast by the IANA registries of special-purpose addresses; an address that carries another is none.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 0, 0 | 2, _]
            | [192, 31, 196, _]
            | [192, 52, 193, _]
            | [192, 88, 99, _]
            | [192, 168, ..]
            | [192, 175, 48, _]
            | [198, 18..=19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            // In no registry: every machine of one large cloud finds its host's agent there.
            | [168, 63, 129, 16]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocol assignments (Teredo among them), documentation, and what carries an IPv4 address (6to4).
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] => false,
        [0x2620, 0x4f, 0x8000, ..] => false,
        [0x3fff, 0..=0xfff, ..] => false,
        // ISATAP: an IPv4 address as the interface's.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
#[path = "vetting_tests.rs"]
mod tests;
