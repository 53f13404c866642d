//! One request and one answer over a connection to the control API.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::timeout;

use super::link::Link;
use crate::http1::chunked::{Chunked, Decoded};

/// How long the control API may take for a head, and between two pieces.
const PATIENCE: Duration = Duration::from_secs(30);
const HEAD_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 64;

/// Fields of an answer that are about its connection, or that we say ourselves.
const DROPPED: [&str; 9] = [
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "trailer",
    "upgrade",
    "server",
    "x-request-id",
    "date",
];

/// How an exchange can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("it cannot be reached")]
    Unreachable,
    /// Not a byte of the request was taken.
    #[error("it takes no request")]
    Unsent,
    /// The connection ended before an answer began.
    #[error("it broke off")]
    BrokenOff,
    #[error("it did not answer in time")]
    TimedOut,
    #[error("its answer is malformed")]
    Malformed,
}

enum Framing {
    Length(u64),
    Chunks(Chunked),
    Close,
    Over,
}

/// An answer whose body is still to come.
pub(super) struct Answer {
    link: Link,
    framing: Framing,
    is_kept: bool,
    pub(super) status: u16,
    /// The fields that go on, as lines.
    pub(super) fields: Bytes,
    /// It says itself who may keep it.
    pub(super) has_cache_control: bool,
    pub(super) length: Option<u64>,
    pub(super) has_body: bool,
}

/// Sends a request and reads the head of its answer.
pub(super) async fn exchange(mut link: Link, request: &[u8], method: &str) -> Result<Answer, Fault> {
    send(&mut link, request).await?;
    loop {
        if let Some(head) = parse(&mut link.buffer)? {
            if (100..=199).contains(&head.status) && head.status != 101 {
                continue;
            }
            return answer(link, head, method);
        }
        let has_begun = !link.buffer.is_empty();
        match timeout(PATIENCE, link.read()).await {
            Ok(Ok(1..)) => {}
            Ok(_) if has_begun => return Err(Fault::Malformed),
            Ok(_) => return Err(Fault::BrokenOff),
            Err(_) => return Err(Fault::TimedOut),
        }
    }
}

async fn send(link: &mut Link, request: &[u8]) -> Result<(), Fault> {
    let mut rest = request;
    while !rest.is_empty() {
        let taken = match timeout(PATIENCE, link.write(rest)).await {
            Ok(Ok(taken @ 1..)) => taken,
            Ok(_) if rest.len() == request.len() => return Err(Fault::Unsent),
            Ok(_) => return Err(Fault::BrokenOff),
            Err(_) => return Err(Fault::TimedOut),
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    Ok(())
}

struct AnswerHead {
    status: u16,
    fields: BytesMut,
    length: Option<u64>,
    is_chunked: bool,
    is_kept: bool,
    has_cache_control: bool,
}

fn parse(buffer: &mut BytesMut) -> Result<Option<AnswerHead>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let end = match response.parse(buffer) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if buffer.len() < HEAD_MAX => return Ok(None),
        Ok(_) | Err(_) => return Err(Fault::Malformed),
    };
    let mut head = AnswerHead {
        status: response.code.unwrap_or_default(),
        fields: BytesMut::with_capacity(end),
        length: None,
        is_chunked: false,
        is_kept: response.version == Some(1),
        has_cache_control: false,
    };
    for field in response.headers.iter() {
        head.field(field.name, field.value)?;
    }
    let _ = buffer.split_to(end);
    Ok(Some(head))
}

impl AnswerHead {
    fn field(&mut self, name: &str, value: &[u8]) -> Result<(), Fault> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            self.length = Some(length.ok_or(Fault::Malformed)?);
        } else if is("transfer-encoding") {
            self.is_chunked = true;
        } else if is("connection") && value.to_ascii_lowercase().windows(5).any(|word| word == b"close") {
            self.is_kept = false;
        }
        self.has_cache_control |= is("cache-control");
        if !DROPPED.iter().any(|dropped| is(dropped)) {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                self.fields.put_slice(part);
            }
        }
        Ok(())
    }
}

fn answer(link: Link, head: AnswerHead, method: &str) -> Result<Answer, Fault> {
    if !(200..=599).contains(&head.status) || (head.is_chunked && head.length.is_some()) {
        return Err(Fault::Malformed);
    }
    let has_body = method != "HEAD" && !matches!(head.status, 204 | 304);
    let framing = match head.length {
        _ if !has_body => Framing::Over,
        None if head.is_chunked => Framing::Chunks(Chunked::default()),
        None => Framing::Close,
        Some(0) => Framing::Over,
        Some(length) => Framing::Length(length),
    };
    let is_kept = head.is_kept && !matches!(framing, Framing::Close);
    Ok(Answer {
        link,
        framing,
        is_kept,
        status: head.status,
        fields: head.fields.freeze(),
        has_cache_control: head.has_cache_control,
        length: head.length,
        has_body,
    })
}

impl Answer {
    /// The next piece of the body; `None` at its proper end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let buffer = &mut self.link.buffer;
            match &mut self.framing {
                Framing::Over => return Ok(None),
                Framing::Length(left) if !buffer.is_empty() => {
                    let here = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                    *left -= here as u64;
                    if *left == 0 {
                        self.framing = Framing::Over;
                    }
                    return Ok(Some(buffer.split_to(here).freeze()));
                }
                Framing::Chunks(decoder) => match decoder.decode(buffer).map_err(|_| Fault::Malformed)? {
                    Decoded::Piece(piece) => return Ok(Some(piece)),
                    Decoded::End => {
                        self.framing = Framing::Over;
                        continue;
                    }
                    Decoded::NeedMore => {}
                },
                Framing::Close if !buffer.is_empty() => return Ok(Some(buffer.split().freeze())),
                Framing::Length(_) | Framing::Close => {}
            }
            match timeout(PATIENCE, self.link.read()).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) if matches!(self.framing, Framing::Close) => self.framing = Framing::Over,
                Ok(_) => return Err(Fault::BrokenOff),
                Err(_) => return Err(Fault::TimedOut),
            }
        }
    }

    /// The connection, once the body was read to its proper end.
    pub(super) fn into_link(self) -> Option<Link> {
        let is_over = matches!(self.framing, Framing::Over) && self.link.buffer.is_empty();
        (self.is_kept && is_over).then_some(self.link)
    }
}
