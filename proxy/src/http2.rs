//! HTTP/2 towards clients. The library keeps frames, flow control and header compression; a request becomes the same
//! head, body and answer as over HTTP/1, and goes to the same handler.
//!
//! Each request is served by a task of its own: a client that resets its stream, or leaves, loses the answer and not
//! the call. Since such a stream no longer counts for the library, what is under way is counted here too.
//!
//! A head that comes in pieces has a deadline of its own on a new connection only; later it has the connection's
//! idle time-out.

mod incoming;
mod outgoing;
mod request;

use std::{
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use config::Http2;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    alarm::Alarm,
    body::RequestBody as _,
    http1::{Handler, Rules, request_id::RequestId},
    places::Place,
    reply::{Reply, ResponseSink as _},
    socket::Socket,
};
use incoming::Incoming;
use outgoing::Outgoing;

/// What a client that knows that it talks HTTP/2 sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What the protocol adds to the size of each field.
const FIELD_OVERHEAD: usize = 32;
/// How long a connection without requests may take to end once it was told to.
const GOODBYE: Duration = Duration::from_secs(1);
/// What is read of a connection after its end.
const LINGER_READ: usize = 4 << 10;
const LINGER_ROUNDS: usize = 256;
/// Ended streams whose late frames are still known for what they are.
const ENDED_KNOWN_MAX: usize = 50;

/// Serves a connection until it ends. When `stop` says so, no new request is taken and those under way are answered.
pub async fn serve<H, IO>(
    mut io: Socket<IO>,
    handler: Arc<H>,
    rules: Arc<Rules>,
    place: Place,
    peer: SocketAddr,
    mut stop: ShutdownWatch,
) where
    H: Handler,
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    let streams = Streams { handler, rules: rules.clone(), place: Arc::new(place), peer, counts: Arc::default() };
    if let Ok(Ok(mut connection)) = timeout(rules.head_timeout, builder(&rules).handshake(&mut io)).await {
        let stopped = pin!(async { stop.wait_for(|stop| *stop).await.is_ok() });
        let mut watch = Watch::new(&rules, connection.ping_pong(), stopped, streams.counts.clone());
        streams.take_requests(&mut connection, &mut watch).await;
    }
    linger(&mut io).await;
}

/// What the client still sends is read for a while, so that our last word is not lost to a reset.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut Socket<IO>) {
    let mut left = [0; LINGER_READ];
    let leaving = async {
        let mut rounds = LINGER_ROUNDS;
        let mut ended = io.shutdown().await.is_err();
        while !ended && rounds > 0 {
            ended = !matches!(io.read(&mut left).await, Ok(1..));
            rounds -= 1;
        }
    };
    // Who does not close in time is closed.
    let _ = timeout(GOODBYE, leaving).await;
}

fn builder(rules: &Rules) -> Builder {
    let Http2 { streams_max, stream_window_bytes, connection_window_bytes, .. } = rules.http2;
    let list_max = rules.head.max_bytes + FIELD_OVERHEAD * rules.head.max_fields;
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(streams_max)
        .initial_window_size(stream_window_bytes)
        .initial_connection_window_size(connection_window_bytes)
        .max_header_list_size(u32::try_from(list_max).unwrap_or(u32::MAX))
        .max_send_buffer_size(rules.http2.send_buffer_bytes)
        .max_concurrent_reset_streams(ENDED_KNOWN_MAX)
        .max_pending_accept_reset_streams(rules.http2.pending_resets_max)
        .max_local_error_reset_streams(Some(rules.http2.error_resets_max));
    builder
}

/// What a connection's requests share with it.
#[derive(Debug, Default)]
struct Counts {
    running: AtomicU32,
    /// Requests that were given up, or for which there was no room, since the window began.
    given_up: AtomicU32,
}

/// What happens next on a connection.
enum Event {
    Request(Box<Request<RecvStream>>, SendResponse<Bytes>),
    Stopping,
    /// Without requests for too long.
    Idle,
    /// The client opens streams only to give them up.
    Abused,
    /// Ended, or the client is gone.
    Over,
}

/// Watches over a connection: its requests, its deadlines, the drain.
struct Watch<'c, F> {
    rules: &'c Rules,
    ping: Option<PingPong>,
    stopped: Pin<&'c mut F>,
    counts: Arc<Counts>,
    alarm: Alarm,
    is_draining: bool,
    is_first: bool,
    idle_since: Option<Instant>,
    pinged: Option<Instant>,
    heard: Instant,
    window_began: Instant,
}

impl<'c, F: Future<Output = bool>> Watch<'c, F> {
    fn new(rules: &'c Rules, ping: Option<PingPong>, stopped: Pin<&'c mut F>, counts: Arc<Counts>) -> Self {
        let now = Instant::now();
        Self {
            rules,
            ping,
            stopped,
            counts,
            alarm: Alarm::default(),
            is_draining: false,
            is_first: true,
            idle_since: Some(now),
            pinged: None,
            heard: now,
            window_began: now,
        }
    }

    /// No new request is taken from now on.
    fn drain<IO: AsyncRead + AsyncWrite + Unpin>(&mut self, connection: &mut Connection<IO, Bytes>) {
        connection.graceful_shutdown();
        self.drain_now();
    }

    fn drain_now(&mut self) {
        self.is_draining = true;
        self.idle_since = self.idle_since.map(|_| Instant::now());
    }

    async fn next<IO>(&mut self, connection: &mut Connection<IO, Bytes>) -> Event
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        std::future::poll_fn(|cx| self.poll_next(connection, cx)).await
    }

    fn poll_next<IO>(&mut self, connection: &mut Connection<IO, Bytes>, cx: &mut Context<'_>) -> Poll<Event>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                (self.is_first, self.idle_since) = (false, None);
                return Poll::Ready(Event::Request(Box::new(request), respond));
            }
            Poll::Ready(_) => return Poll::Ready(Event::Over),
            Poll::Pending => {}
        }
        if !self.is_draining && self.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Stopping);
        }
        if let Some(event) = self.abuse() {
            return Poll::Ready(event);
        }
        // Until its last byte has left, an answer is under way, whether or not its task has ended.
        let is_idle = self.counts.running.load(Ordering::Relaxed) == 0 && !connection.has_streams();
        self.poll_deadlines(is_idle, cx)
    }

    /// Whether too many requests were given up within the window.
    fn abuse(&mut self) -> Option<Event> {
        let given_up = self.counts.given_up.load(Ordering::Relaxed);
        if given_up == 0 || self.is_draining {
            return None;
        }
        if self.window_began.elapsed() > self.rules.http2.resets_window {
            self.window_began = Instant::now();
            self.counts.given_up.store(0, Ordering::Relaxed);
            return None;
        }
        (given_up > self.rules.http2.resets_max).then_some(Event::Abused)
    }

    fn poll_deadlines(&mut self, is_idle: bool, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            let pong = self.ping.as_mut().map_or(Poll::Pending, |ping| ping.poll_pong(cx));
            if self.pinged.is_some() && pong.is_ready() {
                (self.pinged, self.heard) = (None, Instant::now());
            }
            let due = if is_idle { self.idle_due() } else { self.ping_due() };
            if self.alarm.poll_past(due, cx).is_pending() {
                return Poll::Pending;
            }
            match (is_idle, self.pinged) {
                (true, _) => return Poll::Ready(Event::Idle),
                // It does not answer: nobody is there.
                (false, Some(_)) => return Poll::Ready(Event::Over),
                (false, None) => self.ask(),
            }
        }
    }

    fn idle_due(&mut self) -> Instant {
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        (self.pinged, self.heard) = (None, since);
        since
            + match (self.is_draining, self.is_first) {
                (true, _) => GOODBYE,
                (_, true) => self.rules.head_timeout,
                (_, false) => self.rules.idle_timeout,
            }
    }

    fn ping_due(&mut self) -> Instant {
        self.idle_since = None;
        match self.pinged {
            Some(pinged) => pinged + self.rules.http2.ping_timeout,
            None => self.heard + self.rules.http2.ping_interval,
        }
    }

    /// Asks the client whether it is there.
    fn ask(&mut self) {
        let sent = self.ping.as_mut().is_some_and(|ping| ping.send_ping(Ping::opaque()).is_ok());
        let now = Instant::now();
        // One that is still under way from before a pause counts as this one.
        self.pinged = Some(now);
        if !sent {
            tracing::debug!("a ping is under way already");
        }
    }
}

/// What every request of a connection is served with.
struct Streams<H> {
    handler: Arc<H>,
    rules: Arc<Rules>,
    place: Arc<Place>,
    peer: SocketAddr,
    counts: Arc<Counts>,
}

impl<H: Handler> Streams<H> {
    async fn take_requests<IO, F>(&self, connection: &mut Connection<IO, Bytes>, watch: &mut Watch<'_, F>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        F: Future<Output = bool>,
    {
        loop {
            match watch.next(connection).await {
                Event::Request(request, respond) => self.begin(*request, respond),
                Event::Idle if watch.is_draining => return,
                Event::Stopping | Event::Idle => watch.drain(connection),
                Event::Abused => {
                    tracing::warn!(peer = %self.peer, "an HTTP/2 client gives up too many requests");
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    watch.drain_now();
                }
                Event::Over => return,
            }
        }
    }

    fn begin(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if self.counts.running.load(Ordering::Relaxed) >= self.rules.http2.streams_max {
            // Streams that were given up still work: to the library there is room, here there is none.
            self.counts.given_up.fetch_add(1, Ordering::Relaxed);
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let running = Running::new(&self.counts);
        let stream = Stream {
            handler: self.handler.clone(),
            rules: self.rules.clone(),
            place: self.place.clone(),
            peer: self.peer,
            running,
        };
        tokio::spawn(stream.serve(request, respond));
    }
}

/// A request under way, for as long as its task lives.
struct Running(Arc<Counts>);

impl Running {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.running.fetch_add(1, Ordering::Relaxed);
        Self(counts.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Stream<H> {
    handler: Arc<H>,
    rules: Arc<Rules>,
    /// Kept until the work is done, whoever has left: the drain waits for it.
    place: Arc<Place>,
    peer: SocketAddr,
    running: Running,
}

impl<H: Handler> Stream<H> {
    async fn serve(self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let Self { handler, rules, place, peer, running } = self;
        let (parts, stream) = request.into_parts();
        let respond = Mutex::new(respond);
        let was_given_up = match request::read(&parts, &rules.head) {
            Err(refusal) => {
                let id = RequestId::mint();
                let is_head_request = parts.method == http::Method::HEAD;
                let mut out = Outgoing::new(&respond, id.text(), is_head_request, &rules, &place);
                // Who left has no use for it. What it still sends is thrown away with the stream.
                let _ = out.whole(Reply::refusal(&refusal, &rules.site)).await;
                out.conclude().await
            }
            Ok(head) => {
                drop(parts);
                let mut body = Incoming::new(stream, &respond, &rules, &head);
                let is_head_request = head.method() == "HEAD";
                let mut out = Outgoing::new(&respond, head.request_id(), is_head_request, &rules, &place);
                let client = rules.forwarding.client(&head, peer);
                handler.handle(&head, &mut body, &mut out, client).await;
                let was_given_up = out.conclude().await;
                // The answer was known before the body was read. Some clients take a reset for a failure: the rest is
                // read within its limits, and only what is beyond them is thrown away with the stream.
                if !was_given_up {
                    let _ = body.discard().await;
                }
                was_given_up
            }
        };
        if was_given_up {
            running.0.given_up.fetch_add(1, Ordering::Relaxed);
        }
    }
}
