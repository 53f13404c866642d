//! The process's front: pingora's `Server` with one service of one thread for each worker, all on one address; and the
//! drain.
//!
//! The listening socket is bound once, before anything else exists, and every worker accepts on a descriptor of its
//! own. (Pingora's own listening services share the *number* of one descriptor and each close it at the end: during a
//! drain that number may by then be somebody else's file.) A worker that has more than its share hands new connections
//! over to the idlest one; a connection stays where it was put.

mod door;
mod signals;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use config::{Config, Proxy};
use parking_lot::Mutex;
use pingora::server::{RunArgs, Server, configuration::ServerConf};
use tokio::sync::watch;

use crate::{gateway::Gateway, http1::Rules, places::Places, telemetry::operations::Readiness, tls::Tls};
use door::{App, Desk, Door};
use signals::Signals;

/// Connections that the kernel may hold for us.
const BACKLOG: i32 = 4096;
/// The longest that a listing may let its seller work.
const CALL_MAX: Duration = Duration::from_secs(300);
/// What is left when all connections have ended is nothing; tasks that forgot to end get this.
const RUNTIME_END: u64 = 1;

/// The public address, bound and listening, with nobody accepting yet.
pub struct Bound {
    listener: std::net::TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
}

impl Bound {
    /// Binds the public address; port 0 becomes a free one. Reads the certificate, if there shall be one.
    ///
    /// # Errors
    /// When it cannot be listened on, or the certificate cannot be used.
    pub fn bind(config: &Proxy) -> anyhow::Result<Self> {
        let tls = config.tls.enabled.then(|| Tls::load(&config.tls, config.write_timeout)).transpose()?;
        let listener = std::net::TcpListener::bind(config.listen)?;
        // The standard library's own backlog is short for a burst; listening again makes it longer.
        socket2::SockRef::from(&listener).listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address, tls })
    }

    /// The address that was got.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The public URL without a slash at its end: as configured, or the address that was got.
    #[must_use]
    pub fn site(&self, config: &Proxy) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        if config.public_url.is_empty() { format!("{scheme}://{}", self.address) } else { config.public_url.clone() }
    }
}

/// Serves until SIGTERM or SIGINT, then until what is under way has ended. `ready` is called once every worker accepts;
/// what it returns is set to false when the drain begins.
///
/// # Errors
/// When a worker cannot be started.
pub fn run<F>(bound: Bound, gateway: Arc<Gateway>, ready: F) -> anyhow::Result<()>
where
    F: FnOnce() -> Readiness + Send + 'static,
{
    let config = gateway.config.clone();
    let workers = workers(&config.proxy);
    let (stop, stopped) = watch::channel(false);
    let (started, all_started) = watch::channel(0);
    let places = Places::new(config.proxy.connections_max, per_address_max(&config));
    let mut rules = Rules::new(&config, gateway.budget.clone(), gateway.site.clone());
    rules.head.hosts.add(bound.address());
    let tls = bound.tls.clone();
    let app = Arc::new(App { gateway, rules: Arc::new(rules), tls, places: places.clone(), stopped, started });
    let mut server = Server::new_with_opt_and_conf(None, server_conf(bound.address()));
    server.bootstrap();
    let (desks, arrivals) = Desk::row(workers);
    for (number, arrivals) in arrivals.into_iter().enumerate() {
        let listener = bound.listener.try_clone().context("the listening socket cannot be shared")?;
        let ways_in = Some((listener, arrivals));
        let name = format!("gateway-{number}");
        server.add_service(Door { name, number, desks: desks.clone(), ways_in, app: app.clone() });
    }
    // The workers' own descriptors are the only ones: when they stop accepting, nobody listens.
    drop((bound.listener, app));
    let patience = CALL_MAX + config.proxy.drain_grace;
    let ready = Mutex::new(Some(ready));
    let signals = Signals { ready, stop, started: all_started, workers, places, patience };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    Ok(())
}

fn workers(config: &Proxy) -> usize {
    match config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    }
}

/// In dev mode everybody comes from one address.
fn per_address_max(config: &Config) -> usize {
    let max = u32::try_from(config.proxy.connections_per_address_max).unwrap_or(u32::MAX);
    config.limit(max) as usize
}

fn server_conf(address: SocketAddr) -> ServerConf {
    // Names of pingora's own files are unique to this address: its defaults are shared by every process on a machine.
    let name = format!("crochet-{}-{}", address.port(), std::process::id());
    let path = |ending: &str| std::env::temp_dir().join(format!("{name}.{ending}")).display().to_string();
    ServerConf {
        pid_file: path("pid"),
        upgrade_sock: path("upgrade"),
        threads: 1,
        work_stealing: false,
        // Slept in full whether or not there is anything to wait for: we wait ourselves, before.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(RUNTIME_END),
        ..ServerConf::default()
    }
}
