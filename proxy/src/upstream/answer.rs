//! A seller's answer: a strict head, and a body that ends where it said it would.

use std::time::{Duration, Instant};

use actors::seller::{SellerBody, SellerFault};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use memchr::memchr_iter;
use pingora_timeout::timeout;

use super::{
    connection::Connection,
    left,
    pool::{Pool, PoolKey},
};
use crate::http1::chunked::{Chunked, Decoded};

/// A head longer than this, or with more fields, is broken.
const HEAD_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 128;
/// Interim answers that are skipped before the answer.
const INTERIM_MAX: usize = 8;
/// What a read makes room for.
const READ: usize = 16 << 10;

/// What the head says.
#[derive(Debug)]
pub(super) struct AnswerHead {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) retry_after: Option<Duration>,
    pub(super) length: Option<u64>,
    pub(super) is_kept: bool,
    is_chunked: bool,
}

#[derive(Debug, Default)]
struct Fields {
    content_type: String,
    retry_after: Option<Duration>,
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
}

impl AnswerHead {
    /// Reads the head, skipping interim answers. What came behind it stays in `buffer`.
    pub(super) async fn read(connection: &mut Connection, buffer: &mut BytesMut) -> Result<Self, SellerFault> {
        for _ in 0..=INTERIM_MAX {
            let (status, version, fields) = loop {
                if let Some(parsed) = parse(buffer)? {
                    break parsed;
                }
                if buffer.len() > HEAD_MAX {
                    return Err(SellerFault::Broken);
                }
                match connection.read(buffer).await {
                    Ok(0) | Err(_) => return Err(SellerFault::BrokenOff),
                    Ok(_) => {}
                }
            };
            match status {
                // Nobody asked to switch protocols.
                101 => return Err(SellerFault::Broken),
                100..=199 => {}
                200..=599 => return Self::new(status, version, fields),
                _ => return Err(SellerFault::Broken),
            }
        }
        Err(SellerFault::Broken)
    }

    fn new(status: u16, version: u8, fields: Fields) -> Result<Self, SellerFault> {
        let Fields { content_type, retry_after, length, is_chunked, closes } = fields;
        if is_chunked && (length.is_some() || version == 0) {
            return Err(SellerFault::Broken);
        }
        let length = if matches!(status, 204 | 304) { Some(0) } else { length };
        let is_framed = is_chunked || length.is_some();
        let is_kept = version == 1 && !closes && is_framed;
        Ok(Self { status, content_type, retry_after, length, is_kept, is_chunked })
    }
}

/// Takes one head off the buffer, if it is whole.
fn parse(buffer: &mut BytesMut) -> Result<Option<(u16, u8, Fields)>, SellerFault> {
    let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(SellerFault::Broken),
    };
    let head = buffer.get(..length).ok_or(SellerFault::Broken)?;
    // The parser takes bare line feeds; two readers of one stream must not.
    let is_strict = memchr_iter(b'\n', head).all(|at| at > 0 && head.get(at - 1) == Some(&b'\r'));
    if !is_strict || length > HEAD_MAX {
        return Err(SellerFault::Broken);
    }
    let (status, version) = (response.code.ok_or(SellerFault::Broken)?, response.version.unwrap_or(0));
    let fields = read_fields(response.headers)?;
    let _ = buffer.split_to(length);
    Ok(Some((status, version, fields)))
}

fn read_fields(headers: &[httparse::Header<'_>]) -> Result<Fields, SellerFault> {
    let mut fields = Fields::default();
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let length = plain_number(header.value).ok_or(SellerFault::Broken)?;
            if fields.length.is_some_and(|known| known != length) {
                return Err(SellerFault::Broken);
            }
            fields.length = Some(length);
        } else if is("transfer-encoding") {
            if fields.is_chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(SellerFault::Broken);
            }
            fields.is_chunked = true;
        } else if is("content-type") {
            fields.content_type = String::from_utf8_lossy(header.value).into_owned();
        } else if is("connection") {
            let value = header.value.to_ascii_lowercase();
            fields.closes |= value.split(|b| *b == b',').any(|token| token.trim_ascii() == b"close");
        } else if is("retry-after") {
            fields.retry_after = plain_number(header.value).map(Duration::from_secs);
        }
    }
    Ok(fields)
}

/// Digits and nothing else.
fn plain_number(value: &[u8]) -> Option<u64> {
    let is_plain = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_plain)?.parse().ok()
}

enum Framing {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Over,
}

/// The body of an answer. Read to its proper end it gives its connection back.
pub(super) struct AnswerBody {
    connection: Option<Connection>,
    buffer: BytesMut,
    framing: Framing,
    deadline: Instant,
    home: Option<(PoolKey, usize)>,
}

impl AnswerBody {
    pub(super) fn new(
        connection: Connection,
        buffer: BytesMut,
        head: &AnswerHead,
        deadline: Instant,
        home: Option<(PoolKey, usize)>,
    ) -> Self {
        let framing = match head.length {
            Some(length) => Framing::Length(length),
            None if head.is_chunked => Framing::Chunked(Chunked::default()),
            None => Framing::UntilClose,
        };
        Self { connection: Some(connection), buffer, framing, deadline, home }
    }

    /// The proper end: what is left over means that the two sides disagree, and then the connection is not kept.
    fn end(&mut self) {
        self.framing = Framing::Over;
        let Some((key, idle_max)) = self.home.take() else { return };
        if let Some(connection) = self.connection.take()
            && self.buffer.is_empty()
        {
            Pool::give_back(key, connection, idle_max);
        }
    }

    /// More bytes; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, SellerFault> {
        let connection = self.connection.as_mut().ok_or(SellerFault::Broken)?;
        self.buffer.reserve(READ);
        match timeout(left(self.deadline), connection.read(&mut self.buffer)).await {
            Ok(Ok(read)) => Ok(read > 0),
            Ok(Err(_)) => Err(SellerFault::Broken),
            Err(_) => Err(SellerFault::TimedOut { answered: true }),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, SellerFault> {
        loop {
            match &mut self.framing {
                Framing::Over => return Ok(None),
                Framing::Length(0) => {
                    self.end();
                    return Ok(None);
                }
                Framing::Length(left) if !self.buffer.is_empty() => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                    *left -= take as u64;
                    return Ok(Some(self.buffer.split_to(take).freeze()));
                }
                Framing::Length(_) => {
                    if !self.fill().await? {
                        return Err(SellerFault::Broken);
                    }
                }
                Framing::Chunked(decoder) => match decoder.decode(&mut self.buffer) {
                    Err(_) => return Err(SellerFault::Broken),
                    Ok(Decoded::Piece(bytes)) => return Ok(Some(bytes)),
                    Ok(Decoded::End) => {
                        self.end();
                        return Ok(None);
                    }
                    Ok(Decoded::NeedMore) => {
                        if !self.fill().await? {
                            return Err(SellerFault::Broken);
                        }
                    }
                },
                Framing::UntilClose => {
                    if !self.buffer.is_empty() {
                        return Ok(Some(self.buffer.split().freeze()));
                    }
                    if !self.fill().await? {
                        self.framing = Framing::Over;
                        self.connection = None;
                    }
                }
            }
        }
    }
}

#[async_trait]
impl SellerBody for AnswerBody {
    async fn chunk(&mut self) -> Result<Option<Bytes>, SellerFault> {
        let next = self.next().await;
        if next.is_err() {
            self.framing = Framing::Over;
            self.connection = None;
        }
        next
    }
}
