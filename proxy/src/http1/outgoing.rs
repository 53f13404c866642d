//! An answer as it goes over HTTP/1: head and body in one write where the body is small.

use std::{
    borrow::Cow,
    io::IoSlice,
    sync::atomic::{AtomicBool, Ordering},
};

use actors::refusal::{Code, Refusal};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    After,
    head::{Head, Version},
    wire::Wire,
};
use crate::{
    places::Place,
    reply::{Gone, RelayedHead, Reply, ReplyHead, ReplyHeader, ResponseSink},
};

/// Up to here copying is cheaper than a vectored write.
const COPIED_MAX: usize = 32 << 10;

enum State {
    /// No answer yet.
    Fresh,
    /// A whole answer that waits for the body to be read.
    Waiting(Reply),
    /// Pieces follow.
    Streaming(Delimiting),
    /// All is written.
    Done,
    /// It broke off, or cannot be written.
    Broken,
}

#[derive(Clone, Copy)]
enum Delimiting {
    Chunks,
    Length(u64),
    /// By the end of the connection, for HTTP/1.0.
    Close,
    /// No body follows; pieces are dropped.
    NoBody,
}

pub(super) struct Outgoing<'c, IO> {
    wire: &'c Wire<IO>,
    out: &'c mut Vec<u8>,
    head: &'c Head,
    unread: &'c AtomicBool,
    must_close: &'c AtomicBool,
    stopping: &'c AtomicBool,
    place: &'c Place,
    hsts: Option<&'c str>,
    state: State,
    closes: bool,
}

impl<'c, IO: AsyncRead + AsyncWrite + Unpin + Send> Outgoing<'c, IO> {
    pub(super) fn new(
        wire: &'c Wire<IO>,
        out: &'c mut Vec<u8>,
        head: &'c Head,
        (unread, must_close, stopping): (&'c AtomicBool, &'c AtomicBool, &'c AtomicBool),
        place: &'c Place,
        hsts: Option<&'c str>,
    ) -> Self {
        out.clear();
        let closes = !head.keep_alive();
        Self { wire, out, head, unread, must_close, stopping, place, hsts, state: State::Fresh, closes }
    }

    /// The connection ends with this answer.
    pub(super) fn close(&mut self) {
        self.closes = true;
    }

    /// Sees that an answer is given, and says what becomes of the connection.
    pub(super) async fn conclude(mut self, site: &str) -> After {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Waiting(reply) => {
                if self.write_whole(&reply).await.is_err() {
                    return After::Cut;
                }
            }
            State::Fresh => {
                tracing::error!(path = self.head.path(), "a request was left without an answer");
                self.closes = true;
                let reply = Reply::refusal(&Refusal::from(Code::Internal), site);
                if self.write_whole(&reply).await.is_err() {
                    return After::Cut;
                }
            }
            State::Streaming(_) | State::Broken => return After::Cut,
            State::Done => {}
        }
        if self.closes_now() { After::Close } else { After::Keep }
    }

    fn closes_now(&self) -> bool {
        self.closes || self.must_close.load(Ordering::Relaxed) || self.stopping.load(Ordering::Relaxed)
    }

    fn is_head_request(&self) -> bool {
        self.head.method() == "HEAD"
    }

    async fn write_whole(&mut self, reply: &Reply) -> Result<(), Gone> {
        let closes = self.closes_now();
        self.closes = closes;
        push_head(self.out, reply.status, &reply.headers, self.head.request_id(), self.hsts);
        if has_body(reply.status) {
            push_length(self.out, reply.body.len() as u64);
        }
        end_head(self.out, closes);
        let body: &[u8] = if self.is_head_request() || !has_body(reply.status) { &[] } else { &reply.body };
        write_parts(self.wire, self.out, body, &[]).await
    }

    async fn begin_stream(&mut self, how: Delimiting) -> Result<(), Gone> {
        // What comes behind an unread body is not the next request.
        self.closes |= self.closes_now() || self.unread.load(Ordering::Relaxed) || matches!(how, Delimiting::Close);
        match how {
            Delimiting::Chunks => self.out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Delimiting::Length(length) => push_length(self.out, length),
            Delimiting::Close | Delimiting::NoBody => {}
        }
        end_head(self.out, self.closes);
        // The head leaves with the first piece.
        self.state = State::Streaming(how);
        Ok(())
    }

    fn unknown_length(&self) -> Delimiting {
        match self.head.version {
            _ if self.is_head_request() => Delimiting::NoBody,
            Version::Http10 => Delimiting::Close,
            Version::Http11 | Version::Http2 => Delimiting::Chunks,
        }
    }

    async fn write_piece(&mut self, how: Delimiting, piece: &[u8]) -> Result<Delimiting, Gone> {
        match how {
            Delimiting::NoBody => Ok(how),
            Delimiting::Chunks => {
                let _ = std::io::Write::write_fmt(self.out, format_args!("{:x}\r\n", piece.len()));
                write_parts(self.wire, self.out, piece, b"\r\n").await.map(|()| how)
            }
            Delimiting::Close => write_parts(self.wire, self.out, piece, &[]).await.map(|()| how),
            Delimiting::Length(left) => {
                let left = left.checked_sub(piece.len() as u64).ok_or(Gone)?;
                write_parts(self.wire, self.out, piece, &[]).await.map(|()| Delimiting::Length(left))
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> ResponseSink for Outgoing<'_, IO> {
    async fn whole(&mut self, reply: Reply) -> Result<(), Gone> {
        if !matches!(self.state, State::Fresh) {
            return Err(Gone);
        }
        if self.unread.load(Ordering::Relaxed) {
            self.state = State::Waiting(reply);
            return Ok(());
        }
        let written = self.write_whole(&reply).await;
        self.state = if written.is_ok() { State::Done } else { State::Broken };
        written
    }

    async fn begin(&mut self, head: ReplyHead) -> Result<(), Gone> {
        if !matches!(self.state, State::Fresh) {
            return Err(Gone);
        }
        push_head(self.out, head.status, &head.headers, self.head.request_id(), self.hsts);
        self.begin_stream(self.unknown_length()).await
    }

    async fn relay(&mut self, head: RelayedHead) -> Result<(), Gone> {
        if !matches!(self.state, State::Fresh) {
            return Err(Gone);
        }
        push_head(self.out, head.status, &[], self.head.request_id(), self.hsts);
        self.out.extend_from_slice(&head.fields);
        let how = match head.length {
            _ if !head.has_body || self.is_head_request() => {
                if let Some(length) = head.length.filter(|_| has_body(head.status)) {
                    push_length(self.out, length);
                }
                Delimiting::NoBody
            }
            Some(length) => Delimiting::Length(length),
            None => self.unknown_length(),
        };
        self.begin_stream(how).await
    }

    async fn chunk(&mut self, piece: Bytes) -> Result<(), Gone> {
        let State::Streaming(how) = self.state else { return Err(Gone) };
        // An empty chunk would end the body.
        if piece.is_empty() {
            return Ok(());
        }
        let written = self.write_piece(how, &piece).await;
        self.state = written.map_or(State::Broken, State::Streaming);
        written.map(|_| ())
    }

    async fn end(&mut self) -> Result<(), Gone> {
        let State::Streaming(how) = self.state else { return Err(Gone) };
        if matches!(how, Delimiting::Chunks) {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        let is_whole = !matches!(how, Delimiting::Length(1..));
        let written = write_parts(self.wire, self.out, &[], &[]).await;
        self.state = if written.is_ok() && is_whole { State::Done } else { State::Broken };
        written
    }

    fn cut(&mut self) {
        self.state = State::Broken;
    }

    fn caller_known(&mut self) {
        self.place.caller_known();
    }
}

/// Writes an answer that ends its connection, without a request to go by.
pub(super) async fn write_last<IO>(
    wire: &Wire<IO>,
    out: &mut Vec<u8>,
    reply: &Reply,
    request_id: &str,
    hsts: Option<&str>,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    out.clear();
    push_head(out, reply.status, &reply.headers, request_id, hsts);
    push_length(out, reply.body.len() as u64);
    end_head(out, true);
    // The connection ends whether or not it was taken.
    let _ = write_parts(wire, out, &reply.body, &[]).await;
}

/// Writes what is gathered, then `body`, then `tail`; nothing is gathered afterwards.
async fn write_parts<IO>(wire: &Wire<IO>, out: &mut Vec<u8>, body: &[u8], tail: &[u8]) -> Result<(), Gone>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    let written = if body.len() <= COPIED_MAX {
        out.extend_from_slice(body);
        out.extend_from_slice(tail);
        wire.write(&mut [IoSlice::new(out)]).await
    } else {
        wire.write(&mut [IoSlice::new(out), IoSlice::new(body), IoSlice::new(tail)]).await
    };
    out.clear();
    written
}

fn push_head(out: &mut Vec<u8>, status: u16, headers: &[ReplyHeader], request_id: &str, hsts: Option<&str>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in headers {
        // A value with a control character would end its line or the head; it is left out. Constants have none.
        if matches!(value, Cow::Borrowed(_)) || !value.bytes().any(|b| b.is_ascii_control()) {
            push_field(out, name, value);
        }
    }
    push_field(out, "X-Request-Id", request_id);
    if let Some(hsts) = hsts {
        push_field(out, "Strict-Transport-Security", hsts);
    }
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.reserve(name.len() + value.len() + 4);
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn push_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn end_head(out: &mut Vec<u8>, closes: bool) {
    out.extend_from_slice(if closes { b"Connection: close\r\n\r\n" } else { b"\r\n" });
}

fn has_body(status: u16) -> bool {
    !matches!(status, 204 | 304)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}
