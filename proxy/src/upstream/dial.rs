//! Where a seller's name leads, and a connection to exactly that. Each new connection asks again (within the life of an
//! answer); in production every address that a name has must be one of the public internet's.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use actors::seller::{SellerFault, Target};
use config::Mode;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{
    connection::{Connection, Socket},
    left,
};

/// A connection must stand by then, or by the seller's own time-out.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// A name must be resolved by then.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a name's addresses are believed.
const ADDRESS_TTL: Duration = Duration::from_secs(60);
const NAMES_MAX: usize = 10_000;
/// When one address does not answer, one other is tried.
const TRIES: usize = 2;

type Addresses = Arc<[SocketAddr]>;

pub(super) struct Dialer {
    tls: TlsConnector,
    mode: Mode,
    known: Mutex<HashMap<String, (Addresses, Instant)>>,
}

impl Dialer {
    pub(super) fn new(mode: Mode) -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = match builder {
            Ok(builder) => builder.with_root_certificates(roots).with_no_client_auth(),
            // The provider is a constant that knows the default versions.
            Err(error) => unreachable!("{error}"),
        };
        Self { tls: TlsConnector::from(Arc::new(tls)), mode, known: Mutex::default() }
    }

    /// A new connection. Nothing that fails here has sent a byte of a request.
    pub(super) async fn dial(&self, target: &Target, deadline: Instant) -> Result<Connection, SellerFault> {
        let addresses = self.addresses(target, deadline).await.ok_or(SellerFault::Unreachable)?;
        let limit = deadline.min(Instant::now() + CONNECT_PATIENCE);
        for address in addresses.iter().take(TRIES) {
            match timeout(left(limit), self.open(target, *address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => tracing::debug!(listing = %target.listing, kind = %error.kind(), "a seller refused"),
                Err(_) => break,
            }
        }
        self.known.lock().remove(&target.authority);
        Err(SellerFault::Unreachable)
    }

    async fn open(&self, target: &Target, address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        if !target.is_tls {
            return Ok(Connection::new(Socket::Plain(stream)));
        }
        let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
        let stream = self.tls.connect(name, stream).await?;
        Ok(Connection::new(Socket::Tls(Box::new(stream))))
    }

    /// The addresses that may be dialled: a literal, or what the name says now. `None` when there is none, or when a
    /// single one leads where no seller may be: then the name is not a seller's.
    async fn addresses(&self, target: &Target, deadline: Instant) -> Option<Addresses> {
        if let Ok(address) = target.host.parse() {
            let address = SocketAddr::new(address, target.port);
            return self.may_dial(address.ip()).then(|| Arc::from([address]));
        }
        if let Some((addresses, since)) = self.known.lock().get(&target.authority)
            && since.elapsed() < ADDRESS_TTL
        {
            return Some(addresses.clone());
        }
        let looking = tokio::net::lookup_host((target.host.as_str(), target.port));
        let found = timeout(RESOLVE_PATIENCE.min(left(deadline)), looking).await.ok()?.ok()?;
        let addresses: Addresses = found.collect();
        if addresses.is_empty() || !addresses.iter().all(|address| self.may_dial(address.ip())) {
            return None;
        }
        let mut known = self.known.lock();
        if known.len() >= NAMES_MAX {
            known.clear();
        }
        known.insert(target.authority.clone(), (addresses.clone(), Instant::now()));
        Some(addresses)
    }

    fn may_dial(&self, address: IpAddr) -> bool {
        self.mode == Mode::Dev || is_public(address)
    }
}

/// Global unicast by the registries of special-purpose addresses; an address that carries another is none.
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
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocol assignments (Teredo among them), documentation, and what carries an IPv4 address (6to4).
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] => false,
        [0x2620, 0x4f, 0x8000, ..] => false,
        [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().expect("an address"))
    }

    #[test]
    fn a5_a6_only_the_public_internet_is_dialled_in_production() {
        for text in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700::1111", "2a00::1"] {
            assert!(public(text), "{text}");
        }
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:1.1.1.1",
            "::1.1.1.1",
            "::ffff:0:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:101:101::1",
            "3fff::1",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!public(text), "{text}");
        }
    }

    #[tokio::test]
    async fn a4_a_private_literal_is_dialled_in_dev_mode_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let listing = storage::model::ListingId::mint(storage::model::UnixMillis(1));
        let target = Target::parse(listing, &format!("http://{address}/")).expect("a target");
        let deadline = Instant::now() + Duration::from_secs(5);
        assert!(Dialer::new(Mode::Dev).dial(&target, deadline).await.is_ok());
        let refused = Dialer::new(Mode::Production).dial(&target, deadline).await.err();
        assert_eq!(refused, Some(SellerFault::Unreachable));
        let named = Target::parse(listing, &format!("http://localhost:{}/", address.port())).expect("a target");
        let refused = Dialer::new(Mode::Production).dial(&named, deadline).await.err();
        assert_eq!(refused, Some(SellerFault::Unreachable));
    }
}
