//! An answer as it goes over HTTP/2: each piece waits until the client has room for it, and not for ever.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use actors::refusal::{Code, Refusal};
use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::{
    http1::Rules,
    places::Place,
    reply::{Gone, RelayedHead, Reply, ReplyHead, ReplyHeader, ResponseSink},
};

enum State {
    /// No answer yet.
    Fresh,
    /// Pieces follow: so many bytes where that was said.
    Streaming(SendStream<Bytes>, Option<u64>),
    /// No body follows; pieces are dropped.
    Bodiless,
    /// All is written.
    Done,
    /// It broke off, or cannot be written.
    Broken,
}

pub(super) struct Outgoing<'r> {
    respond: &'r Mutex<SendResponse<Bytes>>,
    request_id: &'r str,
    is_head_request: bool,
    rules: &'r Rules,
    place: &'r Arc<Place>,
    state: State,
    was_given_up: bool,
}

impl<'r> Outgoing<'r> {
    pub(super) fn new(
        respond: &'r Mutex<SendResponse<Bytes>>,
        request_id: &'r str,
        is_head_request: bool,
        rules: &'r Rules,
        place: &'r Arc<Place>,
    ) -> Self {
        Self { respond, request_id, is_head_request, rules, place, state: State::Fresh, was_given_up: false }
    }

    /// Sees that an answer is given. Returns whether the client gave the request up before it was answered.
    pub(super) async fn conclude(mut self) -> bool {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Fresh if !self.is_given_up() => {
                tracing::error!(request_id = self.request_id, "a request was left without an answer");
                let reply = Reply::refusal(&Refusal::from(Code::Internal), &self.rules.site);
                // Who left meanwhile has no use for it.
                let _ = self.write_whole(reply).await;
            }
            State::Streaming(mut stream, _) => stream.send_reset(Reason::INTERNAL_ERROR),
            _ => {}
        }
        self.was_given_up
    }

    /// Whether the client has reset the stream, as far as is known now.
    fn is_given_up(&mut self) -> bool {
        let mut now = Context::from_waker(Waker::noop());
        self.was_given_up |= !matches!(self.respond.lock().poll_reset(&mut now), Poll::Pending);
        self.was_given_up
    }

    fn begin_answer(&mut self, status: u16, fields: HeaderMap, is_over: bool) -> Result<SendStream<Bytes>, Gone> {
        if !matches!(self.state, State::Fresh) || self.is_given_up() {
            self.state = State::Broken;
            return Err(Gone);
        }
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = fields;
        self.state = State::Broken;
        self.respond.lock().send_response(response, is_over).map_err(|_| Gone)
    }

    /// Our headers, the request's id, and what every answer carries.
    fn fields(&self, headers: &[ReplyHeader]) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(headers.len() + 4);
        for (name, value) in headers {
            push(&mut fields, name, value);
        }
        push(&mut fields, "x-request-id", self.request_id);
        if let Some(hsts) = &self.rules.hsts {
            push(&mut fields, "strict-transport-security", hsts);
        }
        fields
    }

    async fn write_whole(&mut self, reply: Reply) -> Result<(), Gone> {
        let mut fields = self.fields(&reply.headers);
        let may_have_body = !matches!(reply.status, 204 | 304);
        if may_have_body {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
        }
        let is_over = self.is_head_request || !may_have_body || reply.body.is_empty();
        let mut stream = self.begin_answer(reply.status, fields, is_over)?;
        if !is_over {
            write(&mut stream, reply.body, true, self.rules.write_timeout).await?;
        }
        self.state = State::Done;
        Ok(())
    }
}

impl ResponseSink for Outgoing<'_> {
    async fn whole(&mut self, reply: Reply) -> Result<(), Gone> {
        self.write_whole(reply).await
    }

    async fn begin(&mut self, head: ReplyHead) -> Result<(), Gone> {
        let fields = self.fields(&head.headers);
        let stream = self.begin_answer(head.status, fields, self.is_head_request)?;
        self.state = if self.is_head_request { State::Bodiless } else { State::Streaming(stream, None) };
        Ok(())
    }

    async fn relay(&mut self, head: RelayedHead) -> Result<(), Gone> {
        let mut fields = self.fields(&[]);
        for (name, value) in lines(&head.fields) {
            fields.append(name, value);
        }
        if let Some(length) = head.length.filter(|_| !matches!(head.status, 204 | 304)) {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let is_over = !head.has_body || self.is_head_request;
        let stream = self.begin_answer(head.status, fields, is_over)?;
        self.state = if is_over { State::Bodiless } else { State::Streaming(stream, head.length) };
        Ok(())
    }

    async fn chunk(&mut self, piece: Bytes) -> Result<(), Gone> {
        let (stream, left) = match &mut self.state {
            State::Bodiless => return Ok(()),
            State::Streaming(stream, left) => (stream, left),
            _ => return Err(Gone),
        };
        let is_too_long = left.is_some_and(|left| piece.len() as u64 > left);
        *left = left.map(|left| left.saturating_sub(piece.len() as u64));
        let written = match is_too_long {
            true => Err(Gone),
            false => write(stream, piece, false, self.rules.write_timeout).await,
        };
        if written.is_err() {
            self.cut();
            self.is_given_up();
        }
        written
    }

    async fn end(&mut self) -> Result<(), Gone> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Bodiless => Ok(()),
            State::Streaming(mut stream, None | Some(0)) => stream.send_data(Bytes::new(), true).map_err(|_| Gone),
            state => {
                self.state = state;
                self.cut();
                Err(Gone)
            }
        }
    }

    fn cut(&mut self) {
        if let State::Streaming(stream, _) = &mut self.state {
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        self.state = State::Broken;
    }

    fn caller_known(&mut self) {
        self.place.caller_known();
    }
}

/// Writes `bytes` as the client makes room; a client that makes none for `patience` loses the stream.
async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes, ends: bool, patience: Duration) -> Result<(), Gone> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = match timeout(patience, std::future::poll_fn(|cx| stream.poll_capacity(cx))).await {
            Ok(Some(Ok(room))) => room.min(bytes.len()),
            Ok(_) => return Err(Gone),
            Err(_) => {
                stream.send_reset(Reason::CANCEL);
                return Err(Gone);
            }
        };
        let piece = bytes.split_to(room);
        stream.send_data(piece, ends && bytes.is_empty()).map_err(|_| Gone)?;
    }
    Ok(())
}

/// Adds a field. A value with a control character is left out, as over HTTP/1.
fn push(fields: &mut HeaderMap, name: &'static str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
        fields.append(name, value);
    }
}

/// The fields in lines of `Name: value\r\n`.
fn lines(text: &[u8]) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        let (name, value) = line.split_at_checked(colon)?;
        let value = HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?;
        Some((HeaderName::from_bytes(name).ok()?, value))
    })
}
