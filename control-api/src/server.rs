//! Threads, listener, start and stop.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::{Server, ServerHandle},
};
use actors::Actors;
use config::Config;
use storage::{Store, StoreError, model::Clock};
use tokio::sync::oneshot;

use crate::{door::Door, routes};

/// What a connection copies ahead of what its client has taken, besides the piece that goes beyond it.
const WRITE_BUFFER: usize = 8 << 10;

/// Where the control API listens. Never a public address: it believes what the proxy says of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket; one that an earlier life left behind is replaced.
    UnixSocket(PathBuf),
    /// A TCP address; port 0 picks a free one.
    Tcp(SocketAddr),
}

/// Starting failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address cannot be listened on.
    #[error("the control API cannot listen: {0}")]
    Listen(#[from] io::Error),
    /// What must be known before the first request could not be read.
    #[error("the control API cannot start: {0}")]
    Store(#[from] StoreError),
    /// Its thread ended before it was ready.
    #[error("the control API's thread ended")]
    Thread,
}

/// A running control API.
pub struct ControlApi {
    address: Option<SocketAddr>,
    socket: Option<PathBuf>,
    handle: ServerHandle,
    ended: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl ControlApi {
    /// The address that was got; `None` on a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Takes no more connections, finishes what is in flight within `proxy.drain_grace`, and ends.
    pub async fn stop(self) {
        self.handle.stop(true).await;
        let _ = self.ended.await;
        // The thread's last act was to say that it ended; this does not wait.
        if self.thread.join().is_err() {
            tracing::error!("the control API's thread ended badly");
        }
        if let Some(socket) = self.socket {
            let _ = fs::remove_file(socket);
        }
    }
}

/// Starts the control API on threads of its own; returns when it accepts. `site` is the public URL without a slash at
/// its end. Reads the catalogue from the store first, and blocks meanwhile.
///
/// # Errors
/// [`ControlError`].
pub fn start(
    config: Arc<Config>,
    store: Arc<dyn Store>,
    actors: Actors,
    clock: Clock,
    site: String,
    listen: Listen,
) -> Result<ControlApi, ControlError> {
    let listener = Listener::open(&listen)?;
    let (address, socket) = (listener.address(), listener.path());
    let (tell, told) = mpsc::channel();
    let (end, ended) = oneshot::channel();
    let run = move || {
        let _end = end;
        actix_rt::System::new().block_on(serve(config, store, actors, clock, site, listener, tell));
    };
    let thread = thread::Builder::new().name("control-api".into()).spawn(run)?;
    let handle = told.recv().map_err(|_| ControlError::Thread)??;
    Ok(ControlApi { address, socket, handle, ended, thread })
}

type Told = Result<ServerHandle, ControlError>;

async fn serve(
    config: Arc<Config>,
    store: Arc<dyn Store>,
    actors: Actors,
    clock: Clock,
    site: String,
    listener: Listener,
    tell: mpsc::Sender<Told>,
) {
    let door = match Door::open(config, store, actors, clock, site).await {
        Ok(door) => Arc::new(door),
        Err(error) => {
            let _ = tell.send(Err(error.into()));
            return;
        }
    };
    let following = actix_rt::spawn(door.clone().follow_changes());
    let keeping = actix_rt::spawn(door.clone().keep());
    match server(&door, listener) {
        Ok(server) => {
            let _ = tell.send(Ok(server.handle()));
            if let Err(error) = server.await {
                tracing::error!(%error, "the control API ended");
            }
        }
        Err(error) => {
            let _ = tell.send(Err(error.into()));
        }
    }
    following.abort();
    keeping.abort();
}

fn server(door: &Arc<Door>, listener: Listener) -> io::Result<Server> {
    let knobs = &door.config;
    let app = {
        let door = door.clone();
        move || App::new().app_data(door.clone()).configure(routes::configure)
    };
    let server = HttpServer::new(app)
        .workers(knobs.control.workers)
        .disable_signals()
        .keep_alive(Duration::from_secs(75))
        .h1_write_buffer_size(WRITE_BUFFER)
        .client_request_timeout(knobs.proxy.head_timeout)
        .shutdown_timeout(knobs.proxy.drain_grace.as_secs().max(1));
    let server = match listener {
        Listener::Tcp(listener, _) => server.listen(listener)?,
        Listener::Unix(listener, _) => server.listen_uds(listener)?,
    };
    Ok(server.run())
}

enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    fn open(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                let got = listener.local_addr()?;
                Ok(Self::Tcp(listener, got))
            }
            Listen::UnixSocket(path) => {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(..) => None,
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(..) => None,
            Self::Unix(_, path) => Some(path.clone()),
        }
    }
}
