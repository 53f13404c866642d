//! Who is asked, and for what: hosts and targets, with one spelling each.

use std::net::SocketAddr;

use actors::refusal::{Code, Refusal};
use config::Mode;

/// The hosts that are served here.
#[derive(Clone, Debug)]
pub struct Hosts {
    names: Vec<String>,
    any_loopback: bool,
}

impl Hosts {
    /// The public name and the address listened on; in dev mode every name of the loopback too.
    #[must_use]
    pub fn new(mode: Mode, public_url: &str, listen: SocketAddr) -> Self {
        let mut hosts = Self { names: Vec::new(), any_loopback: mode == Mode::Dev };
        hosts.add(listen);
        if let Some((_, rest)) = public_url.split_once("://") {
            let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
            hosts.names.push(without_default_port(authority).to_string());
        }
        hosts
    }

    /// Serves these too.
    #[must_use]
    pub fn with(mut self, hosts: &[String]) -> Self {
        self.names.extend(hosts.iter().map(|host| without_default_port(host).to_string()));
        self
    }

    /// Serves an address too: the one that was got for port 0.
    pub fn add(&mut self, address: SocketAddr) {
        self.names.push(without_default_port(&address.to_string()).to_string());
    }

    pub(super) fn serves(&self, host: &str) -> bool {
        let host = without_default_port(host);
        self.names.iter().any(|name| name.eq_ignore_ascii_case(host)) || (self.any_loopback && is_loopback(host))
    }
}

fn without_default_port(authority: &str) -> &str {
    authority.strip_suffix(":443").or_else(|| authority.strip_suffix(":80")).unwrap_or(authority)
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
        || name == "[::1]"
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// A name or an address, and perhaps a port; nothing else.
pub(super) fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.strip_prefix(b"[") {
        Some(rest) => match memchr::memchr(b']', rest).and_then(|at| rest.split_at_checked(at)) {
            Some((address, port)) if address.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) => {
                (address, port.get(1..).unwrap_or_default())
            }
            _ => return false,
        },
        None => {
            let at = memchr::memchr(b':', host).unwrap_or(host.len());
            host.split_at_checked(at).unwrap_or_default()
        }
    };
    let good_name =
        host.starts_with(b"[") || name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
    let good_port = match port {
        [] => true,
        [b':', digits @ ..] => (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !name.is_empty() && name.len() <= 255 && good_name && good_port
}

/// A request's target, taken apart.
pub(super) struct Target<'a> {
    pub(super) authority: Option<&'a str>,
    pub(super) path: Option<&'a str>,
    pub(super) query: Option<&'a str>,
    pub(super) last: &'a [u8],
}

impl<'a> Target<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Refusal> {
        let bad = || Refusal::from(Code::InvalidRequest).message("The target must be a path, or a URL of this host.");
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(bad());
        }
        let (authority, rest) = if text.starts_with('/') {
            (None, text)
        } else {
            let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
            if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
                return Err(bad());
            }
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at_checked(end).ok_or_else(bad)?;
            (Some(authority), rest)
        };
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        Ok(Self { authority, path: Some(path).filter(|path| !path.is_empty()), query, last: text.as_bytes() })
    }
}
