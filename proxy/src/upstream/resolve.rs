//! Where a name leads. We resolve by ourselves, behind one seam: what was vetted is what is dialled, and nobody between
//! the two asks again.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use config::{Config, Mode, Proxy};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};
use parking_lot::Mutex;
use tokio::time::timeout;

/// What a name led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// All of its addresses, of both families.
    pub addresses: Vec<IpAddr>,
    /// How long that may be believed.
    pub ttl: Duration,
}

/// Finds the addresses of a name: the system's name servers, or a test's script.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// Everything that this name leads to now; `None` when that is nothing, or cannot be found out.
    async fn resolve(&self, name: &str) -> Option<Resolved>;
}

/// The name servers of `proxy.name_servers`, else those that the system names when the process starts.
pub(super) struct NameServers(Option<TokioResolver>);

impl NameServers {
    /// Reads the system's settings.
    ///
    /// # Errors
    /// When there are no name servers; in dev mode only names of this machine are found then.
    pub(super) fn new(config: &Config) -> io::Result<Self> {
        match Self::build(&config.proxy) {
            Ok(resolver) => Ok(Self(Some(resolver))),
            Err(error) if config.mode == Mode::Dev => {
                tracing::warn!(%error, "no name servers: sellers on this machine only");
                Ok(Self(None))
            }
            Err(error) => Err(error),
        }
    }

    fn build(knobs: &Proxy) -> io::Result<TokioResolver> {
        let builder = if knobs.name_servers.is_empty() {
            TokioResolver::builder_tokio().map_err(io::Error::other)?
        } else {
            let servers = knobs.name_servers.iter().map(|address| {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                connections.iter_mut().for_each(|connection| connection.port = address.port());
                NameServerConfig::new(address.ip(), true, connections)
            });
            let servers = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
        };
        let mut builder = builder;
        set(builder.options_mut(), knobs);
        builder.build().map_err(io::Error::other)
    }
}

/// Both families are always asked for, so that no address goes unvetted; nothing is kept here, for `Names` does.
fn set(options: &mut ResolverOpts, knobs: &Proxy) {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Auto;
    options.timeout = knobs.resolve_timeout / 2;
    options.attempts = 1;
}

#[async_trait]
impl Resolver for NameServers {
    async fn resolve(&self, name: &str) -> Option<Resolved> {
        let Some(resolver) = &self.0 else {
            let addresses = vec![IpAddr::from([127, 0, 0, 1])];
            return (name == "localhost").then_some(Resolved { addresses, ttl: Duration::ZERO });
        };
        // The dot says that this is the whole name: the system's search list has no say.
        let found = resolver.lookup_ip(format!("{name}.")).await.ok()?;
        let ttl = found.valid_until().saturating_duration_since(Instant::now());
        let addresses: Vec<IpAddr> = found.iter().collect();
        (!addresses.is_empty()).then_some(Resolved { addresses, ttl })
    }
}

type Addresses = Arc<[IpAddr]>;

/// Names with their addresses, believed for a while.
pub(super) struct Names {
    resolver: Arc<dyn Resolver>,
    patience: Duration,
    ttl_max: Duration,
    names_max: usize,
    known: Mutex<HashMap<String, (Addresses, Instant)>>,
}

impl Names {
    pub(super) fn new(resolver: Arc<dyn Resolver>, knobs: &Proxy) -> Self {
        Self {
            resolver,
            patience: knobs.resolve_timeout,
            ttl_max: knobs.resolve_ttl,
            names_max: knobs.resolve_names_max,
            known: Mutex::default(),
        }
    }

    /// The addresses of a name, the first of each family in front; `None` when there are none, or not in time.
    pub(super) async fn addresses(&self, name: &str, left: Duration) -> Option<Addresses> {
        let now = Instant::now();
        if let Some((addresses, until)) = self.known.lock().get(name)
            && now < *until
        {
            return Some(addresses.clone());
        }
        let found = timeout(self.patience.min(left), self.resolver.resolve(name)).await.ok()??;
        let addresses: Addresses = by_turns(found.addresses).into();
        if addresses.is_empty() {
            return None;
        }
        let ttl = found.ttl.min(self.ttl_max);
        if !ttl.is_zero() {
            let mut known = self.known.lock();
            if known.len() >= self.names_max {
                known.clear();
            }
            known.insert(name.to_string(), (addresses.clone(), Instant::now() + ttl));
        }
        Some(addresses)
    }

    /// What was known of a name was of no use.
    pub(super) fn forget(&self, name: &str) {
        self.known.lock().remove(name);
    }
}

/// One address of each family first: where one family does not work, the other is the second try.
fn by_turns(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (fours, sixes): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv4);
    let firsts = fours.iter().take(1).chain(sixes.iter().take(1));
    firsts.chain(fours.iter().skip(1)).chain(sixes.iter().skip(1)).copied().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Script(AtomicUsize, Option<Resolved>);

    #[async_trait]
    impl Resolver for Script {
        async fn resolve(&self, _name: &str) -> Option<Resolved> {
            self.0.fetch_add(1, Ordering::SeqCst);
            self.1.clone()
        }
    }

    struct Never;

    #[async_trait]
    impl Resolver for Never {
        async fn resolve(&self, _name: &str) -> Option<Resolved> {
            std::future::pending().await
        }
    }

    fn knobs(text: &str) -> Proxy {
        Config::from_parts(Some(&format!("[proxy]\n{text}")), []).expect("good").proxy
    }

    #[tokio::test]
    async fn a8_names_are_believed_for_the_shorter_of_two_times() {
        let addresses = vec![IpAddr::from([1, 1, 1, 1])];
        for (ttl, max, asked) in [(3600, "60s", 1), (0, "60s", 3), (3600, "0s", 3)] {
            let found = Resolved { addresses: addresses.clone(), ttl: Duration::from_secs(ttl) };
            let script = Arc::new(Script(AtomicUsize::new(0), Some(found)));
            let names = Names::new(script.clone(), &knobs(&format!("resolve_ttl = \"{max}\"")));
            for _ in 0..3 {
                let got = names.addresses("seller.example.org", Duration::from_secs(5)).await.expect("addresses");
                assert_eq!(*got, *addresses);
            }
            assert_eq!(script.0.load(Ordering::SeqCst), asked, "{ttl} {max}");
            names.forget("seller.example.org");
            let _ = names.addresses("seller.example.org", Duration::from_secs(5)).await;
            assert_eq!(script.0.load(Ordering::SeqCst), asked + 1);
        }
    }

    #[tokio::test]
    async fn a8_a_name_that_is_not_found_in_time_is_not_found() {
        let names = Names::new(Arc::new(Never), &knobs("resolve_timeout = \"20ms\""));
        assert_eq!(names.addresses("seller.example.org", Duration::from_secs(60)).await, None);
        let names = Names::new(Arc::new(Never), &knobs(""));
        assert_eq!(names.addresses("seller.example.org", Duration::from_millis(5)).await, None);
    }

    #[tokio::test]
    async fn names_are_remembered_within_a_bound() {
        let found = Resolved { addresses: vec![IpAddr::from([1, 1, 1, 1])], ttl: Duration::from_secs(60) };
        let names = Names::new(Arc::new(Script(AtomicUsize::new(0), Some(found))), &knobs("resolve_names_max = 3"));
        for n in 0..20 {
            names.addresses(&format!("s{n}.example.org"), Duration::from_secs(5)).await.expect("addresses");
            assert!(names.known.lock().len() <= 3);
        }
    }

    #[test]
    fn both_families_are_tried_first() {
        let of = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>();
        assert_eq!(by_turns(of(&["::1", "::2", "1.1.1.1", "1.1.1.2"])), of(&["1.1.1.1", "::1", "1.1.1.2", "::2"]));
        assert_eq!(by_turns(of(&["::1", "::2"])), of(&["::1", "::2"]));
    }
}
