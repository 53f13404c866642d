//! The knobs of the public address that are about protocols and about who stands before it.

use std::{net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use crate::{Problem, read::Reader};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// The bounds of HTTP/2 connections.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each knob is described where it is set: default.toml")]
pub struct Http2 {
    pub streams_max: u32,
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    pub send_buffer_bytes: usize,
    pub resets_max: u32,
    pub resets_window: Duration,
    pub pending_resets_max: usize,
    pub error_resets_max: usize,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
}

/// TLS at the public address.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each knob is described where it is set: default.toml")]
pub struct Tls {
    pub enabled: bool,
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
    pub handshake_timeout: Duration,
    pub reload_interval: Duration,
    pub hsts_max_age: Duration,
}

/// The header in which a trusted proxy says whom it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedHeader {
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `Forwarded`
    Forwarded,
}

/// An address, or all addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Whether `address` is one of it; an IPv4 address is the same however it is carried.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(32 - self.prefix).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(128 - self.prefix).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "an address or a network such as \"10.0.0.0/8\"".to_string();
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wanted())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(bits), str::parse).map_err(|_| wanted())?;
        if prefix > bits { Err(wanted()) } else { Ok(Self { address, prefix }) }
    }
}

impl Http2 {
    pub(crate) fn read(r: &Reader<'_>) -> Self {
        let window = |key| u32::try_from(r.bytes(key, 64 * KIB - 1..=64 * MIB)).unwrap_or(65_535);
        Self {
            streams_max: r.number("proxy.http2.streams_max", 1..=10_000),
            stream_window_bytes: window("proxy.http2.stream_window_bytes"),
            connection_window_bytes: window("proxy.http2.connection_window_bytes"),
            send_buffer_bytes: usize::try_from(r.bytes("proxy.http2.send_buffer_bytes", 16 * KIB..=16 * MIB))
                .unwrap_or(65_536),
            resets_max: r.number("proxy.http2.resets_max", 1..=1_000_000),
            resets_window: r.duration("proxy.http2.resets_window", SECOND..=600 * SECOND),
            pending_resets_max: r.size("proxy.http2.pending_resets_max", 1..=10_000),
            error_resets_max: r.size("proxy.http2.error_resets_max", 1..=10_000),
            ping_interval: r.duration("proxy.http2.ping_interval", 100 * MS..=600 * SECOND),
            ping_timeout: r.duration("proxy.http2.ping_timeout", 100 * MS..=600 * SECOND),
        }
    }
}

impl Tls {
    pub(crate) fn read(r: &Reader<'_>) -> Self {
        Self {
            enabled: r.flag("proxy.tls.enabled"),
            certificate_file: PathBuf::from(r.text("proxy.tls.certificate_file")),
            key_file: PathBuf::from(r.text("proxy.tls.key_file")),
            handshake_timeout: r.duration("proxy.tls.handshake_timeout", 100 * MS..=60 * SECOND),
            reload_interval: r.duration("proxy.tls.reload_interval", 100 * MS..=DAY),
            hsts_max_age: r.duration("proxy.tls.hsts_max_age", Duration::ZERO..=730 * DAY),
        }
    }

    /// What is wrong with these together, beside the public URL.
    pub(crate) fn contradictions(&self, public_url: &str) -> Vec<Problem> {
        let problem = |key: &str, value: &str, reason: &str| Problem {
            key: key.into(),
            value: value.into(),
            reason: reason.into(),
        };
        let files = [("proxy.tls.certificate_file", &self.certificate_file), ("proxy.tls.key_file", &self.key_file)];
        let missing = files.iter().filter(|(_, file)| self.enabled && file.as_os_str().is_empty());
        let missing = missing.map(|(key, _)| problem(key, "", "names the PEM file when proxy.tls.enabled is true"));
        let is_plain = self.enabled && public_url.starts_with("http://");
        let reason = "must begin with https:// when proxy.tls.enabled is true";
        missing.chain(is_plain.then(|| problem("proxy.public_url", public_url, reason))).collect()
    }
}

pub(crate) fn trusted_header(r: &Reader<'_>) -> TrustedHeader {
    let choices = [("x-forwarded-for", TrustedHeader::XForwardedFor), ("forwarded", TrustedHeader::Forwarded)];
    r.choice("proxy.trusted_proxies_header", &choices, TrustedHeader::XForwardedFor)
}

/// A host name or address, with its port where that is not the usual one.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let is_good = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
    if is_good { Ok(text.to_string()) } else { Err("a host such as \"gateway.example\" or \"10.0.0.7:8080\"".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn a_network_is_an_address_or_its_first_bits() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().expect("good").contains(address.parse().expect("an address"))
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.1.2.3", "10.1.2.3") && !contains("10.1.2.3", "10.1.2.4"));
        assert!(contains("10.1.2.3", "::ffff:10.1.2.3"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("::/0", "2001:db9::1"));
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "a/8", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tls_needs_its_files_and_an_https_url_and_lists_are_checked() {
        let file = "[proxy]\npublic_url = \"http://a.example\"\ntrusted_proxies = [\"10.0.0.0/8\", \"ten\"]\n\
                    hosts = [\"a b\"]\n[proxy.tls]\nenabled = true\n";
        let problems = Config::from_parts(Some(file), []).expect_err("bad").to_string();
        for key in ["proxy.trusted_proxies", "proxy.hosts"] {
            assert!(problems.contains(key), "{key}: {problems}");
        }
        let file = "[proxy]\npublic_url = \"http://a.example\"\n[proxy.tls]\nenabled = true\n";
        let problems = Config::from_parts(Some(file), []).expect_err("bad").to_string();
        for key in ["proxy.tls.certificate_file", "proxy.tls.key_file", "proxy.public_url"] {
            assert!(problems.contains(key), "{key}: {problems}");
        }
        let good = "[proxy]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
        let config = Config::from_parts(Some(good), []).expect("good");
        assert!(config.proxy.trusted_proxies.iter().any(|proxy| proxy.contains(IpAddr::from([10, 1, 1, 1]))));
    }
}
