//! HTTP/1.1 towards clients: one loop a connection, one buffer, one write an answer.
//!
//! A head must come whole in time; a body is read when it is asked for; what was sent ahead stays in the buffer. An
//! answer that is known before the body was read waits for the body (within its limits), so that the connection can be
//! used again; a client that waits for our word before it sends the body gets the answer at once instead, and is
//! closed.

pub mod chunked;
pub mod head;
mod host;
mod incoming;
mod outgoing;
pub mod request_id;
mod wire;

use std::{
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::AtomicBool},
    task::Poll,
    time::{Duration, Instant},
};

use actors::refusal::{Code, Refusal};
use bytes::BytesMut;
use config::{Config, Http2, Tls};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    body::{BodyPace, Budget, RequestBody},
    forwarded::Forwarding,
    http2::PREFACE,
    places::Place,
    reply::{Reply, ResponseSink},
};
use head::{Head, HeadRules};
use incoming::Incoming;
use outgoing::Outgoing;
use request_id::RequestId;
use wire::{Read, Wire};

/// A connection's buffer: a usual request fits, and an idle connection costs little more.
const BUFFER: usize = 8 << 10;
/// A buffer that a large request made larger is not kept.
const BUFFER_KEPT_MAX: usize = 64 << 10;
/// How long the first request of a connection that was accepted just before the drain may take to begin.
const FIRST_WHEN_STOPPING: Duration = Duration::from_millis(500);
/// After an answer that closes, what the client still sends is read for so long, so that the answer is not lost to a
/// reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Answers requests, whatever the protocol that carried them.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. An answer is always given to `out`.
    fn handle<B: RequestBody, S: ResponseSink>(
        &self,
        head: &Head,
        body: &mut B,
        out: &mut S,
        peer: SocketAddr,
    ) -> impl Future<Output = ()> + Send;
}

/// What every connection goes by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What a head may be.
    pub head: HeadRules,
    /// By then a head must have come whole.
    pub head_timeout: Duration,
    /// How long a kept connection may be without a request.
    pub idle_timeout: Duration,
    /// How long a client may take to take an answer.
    pub write_timeout: Duration,
    /// How fast a body must come.
    pub pace: BodyPace,
    /// The largest body that is read for the sake of the connection.
    pub body_max: u64,
    /// The memory of all held bodies.
    pub budget: Arc<Budget>,
    /// The public URL, for refusals.
    pub site: String,
    /// Who may say whom it asks for.
    pub forwarding: Forwarding,
    /// What `Strict-Transport-Security` says on every answer, when all of them go over TLS.
    pub hsts: Option<Box<str>>,
    /// The bounds of HTTP/2.
    pub http2: Http2,
}

impl Rules {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config, budget: Arc<Budget>, site: String) -> Self {
        Self {
            head: HeadRules::new(config),
            head_timeout: config.proxy.head_timeout,
            idle_timeout: config.proxy.idle_timeout,
            write_timeout: config.proxy.write_timeout,
            pace: BodyPace::new(&config.proxy),
            body_max: config.proxy.request_max_bytes,
            budget,
            site,
            forwarding: Forwarding::new(&config.proxy),
            hsts: hsts(&config.proxy.tls),
            http2: config.proxy.http2.clone(),
        }
    }
}

fn hsts(tls: &Tls) -> Option<Box<str>> {
    tls.enabled.then(|| format!("max-age={}", tls.hsts_max_age.as_secs()).into())
}

/// A connection whose client speaks HTTP/2 without having asked: the socket, and what was read from it.
pub type SpeaksHttp2<IO> = (IO, BytesMut);

/// Serves a connection until it ends. When `stop` says so, an idle connection is closed at once and a busy one after
/// its answer. A connection that begins with HTTP/2's preface comes back as it was.
pub async fn serve<H, IO>(
    io: IO,
    handler: &H,
    rules: &Rules,
    place: &Place,
    peer: SocketAddr,
    mut stop: ShutdownWatch,
) -> Option<SpeaksHttp2<IO>>
where
    H: Handler,
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    let stopping = AtomicBool::new(false);
    // Watched once a connection and polled only while we wait: a request costs nothing for it.
    let stopped = pin!(async { stop.wait_for(|stop| *stop).await.is_ok() });
    let mut connection = Connection {
        wire: Wire::new(io, rules.write_timeout),
        buffer: BytesMut::with_capacity(BUFFER),
        out: Vec::new(),
        rules,
        place,
        stopping: &stopping,
        stopped,
        is_first: true,
    };
    loop {
        let after = match connection.next_head().await {
            Next::Closed => return None,
            Next::Http2 => return Some((connection.wire.into_io(), connection.buffer)),
            Next::Refused(refusal) => connection.refuse(&refusal).await,
            Next::Head(head) => connection.exchange(handler, &head, peer).await,
        };
        match after {
            After::Keep => connection.tidy(),
            After::Close => {
                connection.wire.linger(&mut connection.buffer, LINGER, LINGER_BYTES).await;
                return None;
            }
            After::Cut => return None,
        }
    }
}

/// What comes next on a connection.
enum Next {
    Head(Head),
    Refused(Refusal),
    /// The client speaks HTTP/2.
    Http2,
    Closed,
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Keep,
    /// Close it so that the answer arrives.
    Close,
    /// Close it so that the answer does not look whole.
    Cut,
}

/// How waiting for bytes ended.
enum Waited {
    Read(Read),
    Stopping,
}

struct Connection<'c, IO, F> {
    wire: Wire<IO>,
    buffer: BytesMut,
    out: Vec<u8>,
    rules: &'c Rules,
    place: &'c Place,
    stopping: &'c AtomicBool,
    stopped: Pin<&'c mut F>,
    is_first: bool,
}

impl<IO, F> Connection<'_, IO, F>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = bool> + Send,
{
    async fn next_head(&mut self) -> Next {
        let mut deadline = None;
        let mut look = !self.buffer.is_empty();
        loop {
            if look && self.is_first && self.buffer.starts_with(PREFACE) {
                return Next::Http2;
            }
            // A preface that has not come whole is no head yet.
            if look && !(self.is_first && PREFACE.starts_with(&self.buffer)) {
                match Head::parse(&mut self.buffer, &self.rules.head) {
                    Ok(Some(head)) => return Next::Head(head),
                    Ok(None) => {}
                    Err(refusal) => return Next::Refused(refusal),
                }
            }
            let seen = self.buffer.len();
            let is_idle = seen == 0;
            // From its first bytes on. Most heads come whole, and then the clock is not asked.
            if !is_idle && deadline.is_none() {
                deadline = Some(Instant::now() + self.rules.head_timeout);
            }
            let patience = match deadline {
                _ if is_idle && self.is_stopping() && !self.is_first => return Next::Closed,
                _ if is_idle && self.is_stopping() => FIRST_WHEN_STOPPING,
                _ if is_idle && !self.is_first => self.rules.idle_timeout,
                _ if is_idle => self.rules.head_timeout,
                // Never, once there are bytes.
                None => self.rules.head_timeout,
                Some(deadline) => Instant::saturating_duration_since(&deadline, Instant::now()),
            };
            match self.wait(patience).await {
                Waited::Read(Read::Bytes(_)) => {}
                Waited::Stopping => continue,
                Waited::Read(Read::Late) if !is_idle => return Next::Refused(Code::RequestTimeout.into()),
                Waited::Read(Read::Ended | Read::Late) => return Next::Closed,
            }
            // A head that comes in drips is looked at again only where a line has ended.
            look = is_idle || self.buffer.get(seen..).is_some_and(|new| memchr::memchr(b'\n', new).is_some());
            look |= self.buffer.len() >= self.rules.head.max_bytes;
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits for bytes, and looks at the stop sign only while there are none.
    async fn wait(&mut self, patience: Duration) -> Waited {
        let Self { wire, buffer, stopping, stopped, .. } = self;
        let mut due = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(read) = wire.poll_read(buffer, patience, &mut due, cx) {
                return Poll::Ready(Waited::Read(read));
            }
            if !stopping.load(std::sync::atomic::Ordering::Relaxed) && stopped.as_mut().poll(cx).is_ready() {
                stopping.store(true, std::sync::atomic::Ordering::Relaxed);
                return Poll::Ready(Waited::Stopping);
            }
            Poll::Pending
        })
        .await
    }

    /// Answers a request whose head cannot be trusted: where the next one begins is unknown.
    async fn refuse(&mut self, refusal: &Refusal) -> After {
        let id = RequestId::mint();
        let reply = Reply::refusal(refusal, &self.rules.site);
        outgoing::write_last(&self.wire, &mut self.out, &reply, id.text(), self.rules.hsts.as_deref()).await;
        After::Close
    }

    async fn exchange<H: Handler>(&mut self, handler: &H, head: &Head, peer: SocketAddr) -> After {
        self.is_first = false;
        let (unread, must_close) = (AtomicBool::new(false), AtomicBool::new(false));
        let mut body = Incoming::new(&self.wire, &mut self.buffer, self.rules, head, &unread, &must_close);
        let mut out = Outgoing::new(
            &self.wire,
            &mut self.out,
            head,
            (&unread, &must_close, self.stopping),
            self.place,
            self.rules.hsts.as_deref(),
        );
        let client = self.rules.forwarding.client(head, peer);
        handler.handle(head, &mut body, &mut out, client).await;
        // The answer was known before the body was read.
        if body.is_unread() && (body.is_awaited() || body.discard().await.is_err()) {
            out.close();
        }
        out.conclude(&self.rules.site).await
    }

    /// Gives back what a large request or answer took.
    fn tidy(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_KEPT_MAX {
            self.buffer = BytesMut::with_capacity(BUFFER);
        }
        if self.out.capacity() > BUFFER_KEPT_MAX {
            self.out = Vec::new();
        }
    }
}
