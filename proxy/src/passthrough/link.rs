//! Connections to the control API, kept per thread: a socket belongs to the runtime that opened it.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use control_api::Listen;
use parking_lot::Mutex;
use tokio::time::timeout;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::exchange::Fault;

/// Shorter than the control API keeps a connection.
const IDLE: Duration = Duration::from_secs(3);
const KEPT_MAX: usize = 64;
const CONNECT: Duration = Duration::from_secs(2);

enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// One connection, and what came on it and was not taken yet.
pub(super) struct Link {
    socket: Socket,
    pub(super) buffer: BytesMut,
}

impl Link {
    /// Nothing came unasked, and the other side has not closed. Costs no system call while the socket is quiet.
    fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match &self.socket {
            Socket::Unix(socket) => socket.try_read(&mut byte),
            Socket::Tcp(socket) => socket.try_read(&mut byte),
        };
        self.buffer.is_empty() && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes some of `bytes`.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.socket {
            Socket::Unix(socket) => socket.write(bytes).await,
            Socket::Tcp(socket) => socket.write(bytes).await,
        }
    }

    /// Reads what is there; 0 at the end.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        self.buffer.reserve(8 << 10);
        match &mut self.socket {
            Socket::Unix(socket) => socket.read_buf(&mut self.buffer).await,
            Socket::Tcp(socket) => socket.read_buf(&mut self.buffer).await,
        }
    }
}

/// Where the control API is, and the connections that are kept.
pub(super) struct Links {
    address: Address,
    kept: Mutex<HashMap<ThreadId, Vec<(Link, Instant)>>>,
}

impl Links {
    pub(super) fn new(listen: &Listen) -> Self {
        let address = match listen {
            Listen::UnixSocket(path) => Address::Unix(path.clone()),
            Listen::Tcp(address) => Address::Tcp(*address),
        };
        Self { address, kept: Mutex::default() }
    }

    pub(super) fn take(&self) -> Option<Link> {
        let mut kept = self.kept.lock();
        let mine = kept.get_mut(&thread::current().id())?;
        while let Some((link, since)) = mine.pop() {
            if since.elapsed() > IDLE {
                // Those below are older.
                mine.clear();
            } else if link.is_quiet() {
                return Some(link);
            }
        }
        None
    }

    pub(super) fn keep(&self, link: Link) {
        let mut kept = self.kept.lock();
        let mine = kept.entry(thread::current().id()).or_default();
        if mine.len() < KEPT_MAX {
            mine.push((link, Instant::now()));
        }
    }

    pub(super) async fn open(&self) -> Result<Link, Fault> {
        let opening = async {
            Ok::<_, io::Error>(match &self.address {
                Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
                Address::Tcp(address) => {
                    let socket = TcpStream::connect(address).await?;
                    socket.set_nodelay(true)?;
                    Socket::Tcp(socket)
                }
            })
        };
        match timeout(CONNECT, opening).await {
            Ok(Ok(socket)) => Ok(Link { socket, buffer: BytesMut::new() }),
            Ok(Err(_)) | Err(_) => Err(Fault::Unreachable),
        }
    }
}
