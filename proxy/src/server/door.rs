//! A worker: a pingora service of one thread that accepts connections and serves those that are put on its desk.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::{
    server::{ListenFds, ShutdownWatch},
    services::Service,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use crate::{
    body::RequestBody,
    gateway::{self, Gateway},
    http1::{self, Handler, Rules, head::Head},
    http2,
    places::{Place, Places},
    reply::ResponseSink,
    socket::Socket,
    tls::{self, Tls},
};

/// Out of descriptors, most likely: the next one may do better in a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections on their way from one worker to another.
const HANDED_OVER_MAX: usize = 1024;

impl Handler for Gateway {
    async fn handle<B: RequestBody, S: ResponseSink>(&self, head: &Head, body: &mut B, out: &mut S, peer: SocketAddr) {
        gateway::handle(self, head, body, out, peer).await;
    }
}

/// Waits until the drain begins.
async fn until(stopped: &mut ShutdownWatch) {
    // The guard of the watched value must not live across the next await.
    let _ = stopped.wait_for(|stopped| *stopped).await.map(|_| ());
}

/// What all workers share.
pub(super) struct App {
    pub(super) gateway: Arc<Gateway>,
    pub(super) rules: Arc<Rules>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) places: Arc<Places>,
    pub(super) stopped: ShutdownWatch,
    /// Counts the workers that accept.
    pub(super) started: watch::Sender<usize>,
}

impl App {
    /// Serves one connection until it ends.
    async fn serve(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        if let Some(tls) = &self.tls {
            // What only some connections need is not part of all of them.
            return Box::pin(self.serve_secured(tls, stream, peer, place)).await;
        }
        let stopped = self.stopped.clone();
        let speaks_http2 = http1::serve(stream, &*self.gateway, &self.rules, &place, peer, stopped).await;
        if let Some((stream, ahead)) = speaks_http2 {
            let socket = Socket::new(stream, ahead, self.rules.write_timeout);
            Box::pin(self.serve_http2(socket, peer, place)).await;
        }
    }

    async fn serve_secured(&self, tls: &Tls, stream: TcpStream, peer: SocketAddr, place: Place) {
        let Some(secured) = tls.accept(stream).await else { return };
        if tls::speaks_http2(&secured) {
            let socket = Socket::new(secured, BytesMut::new(), self.rules.write_timeout);
            return self.serve_http2(socket, peer, place).await;
        }
        // Who did not ask for HTTP/2 in the handshake does not get it: a preface there ends the connection.
        drop(http1::serve(secured, &*self.gateway, &self.rules, &place, peer, self.stopped.clone()).await);
    }

    async fn serve_http2<IO>(&self, socket: Socket<IO>, peer: SocketAddr, place: Place)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        http2::serve(socket, self.gateway.clone(), self.rules.clone(), place, peer, self.stopped.clone()).await;
    }
}

/// A connection that was accepted by one worker and belongs on the desk of another.
pub(super) struct Arrival {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    place: Place,
}

/// A worker's connections, as the others see them.
pub(super) struct Desk {
    open: AtomicUsize,
    give: mpsc::Sender<Arrival>,
}

impl Desk {
    /// A desk for each worker, and what comes to it.
    pub(super) fn row(workers: usize) -> (Arc<[Self]>, Vec<mpsc::Receiver<Arrival>>) {
        let desk = |_| {
            let (give, arrivals) = mpsc::channel(HANDED_OVER_MAX);
            (Self { open: AtomicUsize::new(0), give }, arrivals)
        };
        let (desks, arrivals): (Vec<Self>, Vec<_>) = (0..workers).map(desk).unzip();
        (desks.into(), arrivals)
    }
}

/// One worker.
pub(super) struct Door {
    pub(super) name: String,
    pub(super) number: usize,
    pub(super) desks: Arc<[Desk]>,
    /// Taken when the worker starts.
    pub(super) ways_in: Option<(std::net::TcpListener, mpsc::Receiver<Arrival>)>,
    pub(super) app: Arc<App>,
}

#[async_trait]
impl Service for Door {
    async fn start_service(&mut self, _fds: Option<ListenFds>, _shutdown: ShutdownWatch, _listeners_per_fd: usize) {
        let Some((listener, arrivals)) = self.ways_in.take() else { return };
        match TcpListener::from_std(listener) {
            Ok(listener) => self.work(listener, arrivals).await,
            Err(error) => tracing::error!(%error, worker = self.number, "a worker cannot listen"),
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(Vec::new())
    }
}

impl Door {
    async fn work(&self, listener: TcpListener, mut arrivals: mpsc::Receiver<Arrival>) {
        self.app.started.send_modify(|started| *started += 1);
        let mut stopped = self.app.stopped.clone();
        if let (0, Some(tls)) = (self.number, &self.app.tls) {
            tokio::spawn(tls.clone().watch(stopped.clone()));
        }
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.accept(stream, peer),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(arrival) = arrivals.recv() => self.receive(arrival),
                () = until(&mut stopped) => break,
            }
        }
        // Who connected before the drain began is served, if its request comes at once.
        let waiting = async {
            while let Ok((stream, peer)) = listener.accept().await {
                self.accept(stream, peer);
            }
        };
        let _ = tokio::time::timeout(Duration::ZERO, waiting).await;
        drop(listener);
        // Others may still put connections here; this ends with the runtime.
        while let Some(arrival) = arrivals.recv().await {
            self.receive(arrival);
        }
    }

    fn accept(&self, stream: TcpStream, peer: SocketAddr) {
        // No place: the connection is closed, which says all that can be said for so little.
        let Some(place) = self.app.places.take(peer.ip()) else { return };
        if self.app.rules.forwarding.is_proxy(peer.ip()) {
            // Everybody comes from there.
            place.caller_known();
        }
        let Some((idlest, desk)) = self.idlest() else { return self.serve(stream, peer, place) };
        if idlest == self.number {
            return self.serve(stream, peer, place);
        }
        // A socket belongs to the runtime that opened it: it has to be taken out of this one first.
        if let Ok(stream) = stream.into_std() {
            let _ = desk.give.try_send(Arrival { stream, peer, place });
        }
    }

    /// The desk with the fewest connections; this one unless another has at least two fewer.
    fn idlest(&self) -> Option<(usize, &Desk)> {
        let open = |desk: &Desk| desk.open.load(Ordering::Relaxed);
        let own = self.desks.get(self.number).map_or(0, open);
        let (number, desk) = self.desks.iter().enumerate().min_by_key(|(_, desk)| open(desk))?;
        if open(desk) + 1 < own { Some((number, desk)) } else { None }
    }

    fn receive(&self, Arrival { stream, peer, place }: Arrival) {
        if let Ok(stream) = TcpStream::from_std(stream) {
            self.serve(stream, peer, place);
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        let (app, desks, number) = (self.app.clone(), self.desks.clone(), self.number);
        if let Some(desk) = desks.get(number) {
            desk.open.fetch_add(1, Ordering::Relaxed);
        }
        // An answer leaves in one write: waiting for more would only delay it.
        let _ = stream.set_nodelay(true);
        // A short answer is written once the kernel has it; whether the buyer takes it, only the kernel sees.
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(app.rules.write_timeout));
        tokio::spawn(async move {
            app.serve(stream, peer, place).await;
            if let Some(desk) = desks.get(number) {
                desk.open.fetch_sub(1, Ordering::Relaxed);
            }
        });
    }
}
