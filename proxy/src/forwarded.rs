//! Whom a connection speaks for: its peer, unless the peer is one of the configured proxies. A proxy says it in one
//! configured header, of which the last entries were written by proxies and the rest by anybody.

use std::net::{IpAddr, SocketAddr};

use config::{Network, Proxy, TrustedHeader};

use crate::http1::head::Head;

/// The proxies that are believed.
#[derive(Clone, Debug)]
pub struct Forwarding {
    proxies: Box<[Network]>,
    header: TrustedHeader,
}

impl Forwarding {
    /// As configured.
    #[must_use]
    pub fn new(config: &Proxy) -> Self {
        Self { proxies: config.trusted_proxies.clone().into(), header: config.trusted_proxies_header }
    }

    /// Whether `address` is a configured proxy's.
    #[must_use]
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|proxy| proxy.contains(address))
    }

    /// Where the client of a request is: the last address on its way that is not a configured proxy's.
    #[must_use]
    pub fn client(&self, head: &Head, peer: SocketAddr) -> SocketAddr {
        if self.proxies.is_empty() || !self.is_proxy(peer.ip()) {
            return peer;
        }
        let name = match self.header {
            TrustedHeader::XForwardedFor => "x-forwarded-for",
            TrustedHeader::Forwarded => "forwarded",
        };
        let lines: Vec<&[u8]> =
            head.fields().filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
        let entries = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        let mut client = peer;
        for entry in entries {
            let said = std::str::from_utf8(entry).ok().and_then(|entry| self.address(entry.trim()));
            // What cannot be read was not written by a proxy of ours, nor was anything before it.
            let Some(address) = said else { break };
            client = address;
            if !self.is_proxy(address.ip()) {
                break;
            }
        }
        client
    }

    fn address(&self, entry: &str) -> Option<SocketAddr> {
        match self.header {
            TrustedHeader::XForwardedFor => address(entry),
            TrustedHeader::Forwarded => {
                let is_for = |name: &str| name.trim().eq_ignore_ascii_case("for");
                let mut nodes = entry.rsplit(';').filter_map(|parameter| parameter.split_once('='));
                let (_, node) = nodes.find(|(name, _)| is_for(name))?;
                address(node.trim().trim_matches('"'))
            }
        }
    }
}

/// An address, with or without brackets and port; port 0 when there is none.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse().ok().or_else(|| bare.parse().ok().map(|address| SocketAddr::new(address, 0)))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use config::Config;

    use super::*;
    use crate::http1::head::HeadRules;

    fn client(header: &str, fields: &str, peer: &str) -> String {
        let file = format!(
            "[proxy]\ntrusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"]\ntrusted_proxies_header = \"{header}\"\n"
        );
        let config = Config::from_parts(Some(&file), []).expect("good");
        let text = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let head = Head::parse(&mut BytesMut::from(&text[..]), &HeadRules::new(&config)).expect("good").expect("whole");
        Forwarding::new(&config.proxy).client(&head, peer.parse().expect("an address")).ip().to_string()
    }

    #[test]
    fn b6_only_a_configured_proxy_says_whom_it_asks_for() {
        let forged = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=7.7.7.7\r\n";
        assert_eq!(client("x-forwarded-for", forged, "1.2.3.4:5"), "1.2.3.4");
        assert_eq!(client("x-forwarded-for", forged, "10.0.0.1:5"), "6.6.6.6");
        assert_eq!(client("forwarded", forged, "10.0.0.1:5"), "7.7.7.7");
        assert_eq!(client("x-forwarded-for", "", "10.0.0.1:5"), "10.0.0.1");
    }

    #[test]
    fn b6_what_a_client_wrote_before_the_proxies_did_is_not_believed() {
        let client_of = |fields: &str| client("x-forwarded-for", fields, "10.0.0.1:5");
        assert_eq!(client_of("X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.2\r\n"), "1.2.3.4");
        assert_eq!(client_of("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n"), "1.2.3.4");
        assert_eq!(client_of("X-Forwarded-For: 6.6.6.6, unknown\r\n"), "10.0.0.1");
        assert_eq!(client_of("X-Forwarded-For: 6.6.6.6,, 10.0.0.2\r\n"), "10.0.0.2");
        assert_eq!(client_of("X-Forwarded-For: [2001:db8::1]:443\r\n"), "2001:db8::1");
        assert_eq!(client_of("X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n"), "10.0.0.3");
    }

    #[test]
    fn b6_the_standard_header_is_read_by_its_grammar() {
        let client_of = |fields: &str| client("forwarded", fields, "10.0.0.1:5");
        assert_eq!(client_of("Forwarded: for=6.6.6.6, For=\"[2001:db8::1]:4711\";proto=https\r\n"), "2001:db8::1");
        assert_eq!(client_of("Forwarded: by=10.0.0.9;for=1.2.3.4:80;host=x\r\n"), "1.2.3.4");
        assert_eq!(client_of("Forwarded: for=_hidden\r\n"), "10.0.0.1");
    }
}
