//! A connection to exactly the address that was vetted. Each new connection asks anew where the name leads (within the
//! life of an answer), and in production every address that a name has must be one of the public internet's.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use actors::{
    seller::{SellerFault, Target},
    vetting::{Unfit, Vetting},
};
use config::Proxy;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{
    connection::{Connection, Socket},
    left,
    resolve::{Names, Resolver},
};

/// When one address does not answer, one other is tried; the first then has half of the time.
const TRIES: u32 = 2;
/// Second tries are at most a fifth of all first ones, with so many in hand: a failing seller is not asked twice as often
/// by everybody.
const FIRSTS_FOR_A_SECOND: u32 = 5;
const SECONDS_IN_HAND: u32 = 20;

pub(super) struct Dialer {
    vetting: Vetting,
    names: Names,
    tls: TlsConnector,
    patience: Duration,
    /// Fifths of second tries that may still be made.
    spare: AtomicU32,
}

impl Dialer {
    pub(super) fn new(vetting: Vetting, resolver: Arc<dyn Resolver>, tls: TlsConnector, knobs: &Proxy) -> Self {
        Self {
            vetting,
            names: Names::new(resolver, knobs),
            tls,
            patience: knobs.seller_connect_timeout,
            spare: AtomicU32::new(SECONDS_IN_HAND * FIRSTS_FOR_A_SECOND),
        }
    }

    /// A new connection. Nothing that fails here has sent a byte of a request.
    pub(super) async fn dial(&self, target: &Target, deadline: Instant) -> Result<Connection, SellerFault> {
        let addresses = match self.vetted(target, deadline).await {
            Ok(addresses) => addresses,
            Err(reason) => {
                tracing::debug!(listing = %target.listing, %reason, "a seller may not be dialled");
                return Err(SellerFault::Unreachable);
            }
        };
        let limit = deadline.min(Instant::now() + self.patience);
        self.earn();
        let tries = addresses.iter().take(TRIES as usize);
        let last = tries.len().saturating_sub(1);
        for (n, address) in tries.enumerate() {
            if n > 0 && !self.spend() {
                break;
            }
            let patience = if n < last { left(limit) / TRIES } else { left(limit) };
            match timeout(patience, self.open(target, *address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => tracing::debug!(listing = %target.listing, kind = %error.kind(), "a seller refused"),
                Err(_) => tracing::debug!(listing = %target.listing, "a seller did not answer the dialling"),
            }
        }
        self.names.forget(&target.host);
        Err(SellerFault::Unreachable)
    }

    async fn open(&self, target: &Target, address: IpAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(SocketAddr::new(address, target.port)).await?;
        stream.set_nodelay(true)?;
        if !target.is_tls {
            return Ok(Connection::new(Socket::Plain(stream)));
        }
        let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
        let stream = self.tls.connect(name, stream).await?;
        Ok(Connection::new(Socket::Tls(Box::new(stream))))
    }

    /// The addresses that may be dialled: a literal, or what the name says now. A single one that leads where no seller
    /// may be spoils the name: it is not a seller's.
    async fn vetted(&self, target: &Target, deadline: Instant) -> Result<Arc<[IpAddr]>, Unfit> {
        self.vetting.check_target(target)?;
        let addresses = match target.host.parse::<IpAddr>() {
            Ok(address) => Arc::from([address]),
            Err(_) => self.names.addresses(&target.host, left(deadline)).await.ok_or(Unfit::NoHost)?,
        };
        for address in addresses.iter() {
            self.vetting.check_address(*address)?;
            if self.vetting.refuses_this_machine() && is_this_machine(*address) {
                return Err(Unfit::ThisMachine);
            }
        }
        Ok(addresses)
    }

    fn earn(&self) {
        let more = |spare: u32| Some(spare.saturating_add(1).min(SECONDS_IN_HAND * FIRSTS_FOR_A_SECOND));
        let _ = self.spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn spend(&self) -> bool {
        let less = |spare: u32| spare.checked_sub(FIRSTS_FOR_A_SECOND);
        self.spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// Whether an address is one of this machine's own: the kernel would then speak to it from that same address. Nothing
/// is sent.
fn is_this_machine(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let asked = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(address, 9))?;
        socket.local_addr()
    });
    asked.is_ok_and(|local| local.ip() == address)
}

#[cfg(test)]
mod tests {
    use config::Config;
    use storage::model::{ListingId, UnixMillis};

    use super::*;
    use crate::upstream::{resolve::NameServers, trust};

    fn dialer(file: &str, site: &str) -> Dialer {
        let key = ("CROCHET__STORAGE__MASTER_KEY".to_string(), "07".repeat(32));
        let config = Config::from_parts(Some(file), [key]).expect("a good configuration");
        let resolver = Arc::new(NameServers::new(&config).expect("name servers"));
        let tls = trust::connector(&config.proxy.dev_ca).expect("a connector");
        Dialer::new(Vetting::new(&config, site), resolver, tls, &config.proxy)
    }

    #[tokio::test]
    async fn a4_a_private_literal_is_dialled_in_dev_mode_only() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let listing = ListingId::mint(UnixMillis(1));
        let target = Target::parse(listing, &format!("http://{address}/")).expect("a target");
        let deadline = Instant::now() + Duration::from_secs(5);
        let production = dialer(
            "mode = \"production\"\n[proxy]\npublic_url = \"https://g.example.org\"\nname_servers = \"127.0.0.1:9\"\n\
             [payments.sandbox]\nenabled = false\n",
            "https://g.example.org",
        );
        assert!(dialer("", "http://127.0.0.1:1").dial(&target, deadline).await.is_ok());
        assert_eq!(production.dial(&target, deadline).await.err(), Some(SellerFault::Unreachable));
        let named = Target::parse(listing, &format!("https://localhost:{}/", address.port())).expect("a target");
        assert_eq!(production.dial(&named, deadline).await.err(), Some(SellerFault::Unreachable));
        let ourselves = dialer("", &format!("http://{address}"));
        assert_eq!(ourselves.dial(&target, deadline).await.err(), Some(SellerFault::Unreachable), "A11");
    }

    #[test]
    fn a11_this_machine_is_known_by_its_addresses() {
        assert!(is_this_machine(IpAddr::from([127, 0, 0, 1])));
        assert!(!is_this_machine(IpAddr::from([192, 0, 2, 1])));
    }

    #[test]
    fn second_tries_have_a_budget() {
        let dialer = dialer("", "");
        let first = (0..1_000).filter(|_| dialer.spend()).count();
        assert_eq!(first, SECONDS_IN_HAND as usize);
        (0..50).for_each(|_| dialer.earn());
        assert_eq!((0..1_000).filter(|_| dialer.spend()).count(), 10);
    }
}
