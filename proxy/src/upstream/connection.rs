//! One connection to a seller: TCP, or TLS with the certificate and the name verified, always.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use rustls::ProtocolVersion;
use tokio::time::{error::Elapsed, timeout};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, Interest},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::alarm::Alarm;

/// A usual answer fits.
const BUFFER: usize = 8 << 10;
/// Room that a read wants to find, and that is made when there is less.
const READ: usize = 2 << 10;
const ROOM: usize = 16 << 10;
/// A buffer that a large answer made larger is not kept.
const BUFFER_KEPT_MAX: usize = 64 << 10;

pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A socket, and what came on it and was not taken yet.
pub(super) struct Connection {
    socket: Socket,
    pub(super) buffer: BytesMut,
    alarm: Alarm,
    /// The request was not taken whole: the answer came first.
    is_unfinished: bool,
}

/// How a read ended.
pub(super) enum Read {
    /// Something came.
    Bytes,
    /// The proper end of the stream.
    Ended,
    /// It broke off.
    Failed,
    /// Nothing came in time.
    Late,
}

/// How much of a request was taken.
pub(super) enum Written {
    /// Not a byte: it may be sent elsewhere.
    Nothing,
    /// Some, and then it took too long.
    Some,
    /// All, or so much that the answer is what counts now.
    All,
}

impl Written {
    /// How a write ended of which `taken` bytes were confirmed.
    fn of(written: Result<io::Result<()>, Elapsed>, taken: usize, is_tls: bool) -> Self {
        match written {
            Ok(Ok(())) => Self::All,
            // TLS sends records on before it confirms a byte: when that fails, what has left is not known.
            Ok(Err(_)) | Err(_) if taken == 0 && !is_tls => Self::Nothing,
            // A seller may answer and close before it has read everything: its answer, if any, is still to be read.
            Ok(Err(_)) => Self::All,
            Err(_) => Self::Some,
        }
    }
}

impl Connection {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, buffer: BytesMut::with_capacity(BUFFER), alarm: Alarm::default(), is_unfinished: false }
    }

    /// Nothing came unasked, and the other side has not closed. Costs no system call while the socket is quiet.
    pub(super) fn is_quiet(&self) -> bool {
        let socket = match &self.socket {
            Socket::Plain(stream) => stream,
            Socket::Tls(stream) => stream.get_ref().0,
        };
        let mut byte = [0];
        matches!(socket.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The version of TLS that it speaks, if it does.
    pub(super) fn tls_version(&self) -> Option<&'static str> {
        let Socket::Tls(stream) = &self.socket else { return None };
        match stream.get_ref().1.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            // No other is offered.
            _ => None,
        }
    }

    /// Whether it may serve another request after this one's proper end.
    pub(super) fn is_reusable(&self) -> bool {
        !self.is_unfinished && self.buffer.is_empty()
    }

    /// Gives back what a large answer took.
    pub(super) fn tidy(&mut self) {
        if self.buffer.capacity() > BUFFER_KEPT_MAX {
            self.buffer = BytesMut::with_capacity(BUFFER);
        }
    }

    /// Writes a request.
    pub(super) async fn write(&mut self, head: &[u8], body: &[u8], patience: Duration) -> Written {
        let mut taken = 0;
        let written = timeout(patience, self.write_counting(head, body, &mut taken)).await;
        self.is_unfinished = taken < head.len() + body.len();
        Written::of(written, taken, matches!(self.socket, Socket::Tls(_)))
    }

    async fn write_counting(&mut self, head: &[u8], body: &[u8], taken: &mut usize) -> io::Result<()> {
        while *taken < head.len() + body.len() {
            let body = body.get(taken.saturating_sub(head.len())..).unwrap_or_default();
            let head = head.get(*taken..).unwrap_or_default();
            let now = match &mut self.socket {
                // Short enough to be one piece.
                Socket::Plain(stream) if body.is_empty() => stream.write(head).await?,
                Socket::Plain(stream) => match write_or_hear(stream, head, body, &mut self.buffer).await? {
                    Some(now) => now,
                    None => return Ok(()),
                },
                Socket::Tls(stream) => {
                    let piece = if head.is_empty() { body } else { head };
                    match write_or_hear_tls(stream, piece, &mut self.buffer).await? {
                        Some(now) => now,
                        None => return Ok(()),
                    }
                }
            };
            if now == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            *taken += now;
        }
        match &mut self.socket {
            Socket::Plain(_) => Ok(()),
            Socket::Tls(stream) => stream.flush().await,
        }
    }

    /// Reads what is there, or what comes until `deadline`.
    pub(super) async fn read(&mut self, deadline: Instant) -> Read {
        let Self { socket, buffer, alarm, .. } = self;
        if buffer.capacity() - buffer.len() < READ {
            buffer.reserve(ROOM);
        }
        std::future::poll_fn(|cx| {
            let read = match socket {
                Socket::Plain(stream) => pin!(stream.read_buf(buffer)).poll(cx),
                Socket::Tls(stream) => pin!(stream.read_buf(buffer)).poll(cx),
            };
            match read {
                Poll::Ready(Ok(1..)) => Poll::Ready(Read::Bytes),
                Poll::Ready(Ok(0)) => Poll::Ready(Read::Ended),
                Poll::Ready(Err(_)) => Poll::Ready(Read::Failed),
                Poll::Pending => alarm.poll_past(deadline, cx).map(|()| Read::Late),
            }
        })
        .await
    }
}

/// Writes some of a large request. `None`: the seller answers already and takes no more; were we to insist, both sides
/// would wait for each other.
async fn write_or_hear(
    stream: &TcpStream,
    head: &[u8],
    body: &[u8],
    heard: &mut BytesMut,
) -> io::Result<Option<usize>> {
    loop {
        match stream.try_write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            written => return written.map(Some),
        }
        let ready = stream.ready(Interest::READABLE | Interest::WRITABLE).await?;
        if ready.is_readable() {
            heard.reserve(READ);
            match stream.try_read_buf(heard) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The same over TLS.
async fn write_or_hear_tls(
    stream: &mut TlsStream<TcpStream>,
    piece: &[u8],
    heard: &mut BytesMut,
) -> io::Result<Option<usize>> {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(written) = Pin::new(&mut *stream).poll_write(cx, piece) {
            return Poll::Ready(written.map(Some));
        }
        heard.reserve(READ);
        match pin!(stream.read_buf(heard)).poll(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(None)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_only_a_plain_connection_that_took_nothing_is_sure_to_have_sent_nothing() {
        let reset = || Ok(Err(io::ErrorKind::ConnectionReset.into()));
        assert!(matches!(Written::of(reset(), 0, false), Written::Nothing));
        assert!(matches!(Written::of(reset(), 1, false), Written::All));
        // A record of a large request may be out when the next one fails.
        assert!(matches!(Written::of(reset(), 0, true), Written::All));
        assert!(matches!(Written::of(Ok(Ok(())), 9, true), Written::All));
    }
}
