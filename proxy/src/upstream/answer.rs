//! A seller's answer: a strict head, and a body that ends where it said it would.

use std::time::{Duration, Instant};

use actors::seller::{SellerBody, SellerFault};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use config::Proxy;
use memchr::memchr_iter;

use super::{
    connection::{Connection, Read},
    fuzzing::Seen,
    pool::Home,
    unpack::Packing,
};
use crate::http1::chunked::{Chunked, Decoded};

/// Room for the parser; what a head may have is configured and no more than this.
const FIELDS_CAPACITY: usize = 128;

/// What an answer's head may be: a larger one is broken.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadBounds {
    max_bytes: usize,
    max_fields: usize,
    /// Interim answers that are skipped before the answer.
    interim_max: usize,
}

impl HeadBounds {
    pub(super) fn new(knobs: &Proxy) -> Self {
        Self {
            max_bytes: knobs.seller_head_max_bytes,
            max_fields: knobs.seller_head_max_fields,
            interim_max: knobs.seller_interim_max,
        }
    }
}

/// What the head says.
#[derive(Debug)]
pub(super) struct AnswerHead {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) retry_after: Option<Duration>,
    pub(super) length: Option<u64>,
    pub(super) is_kept: bool,
    pub(super) packing: Option<Packing>,
    is_chunked: bool,
}

#[derive(Debug, Default)]
struct Fields {
    content_type: String,
    retry_after: Option<Duration>,
    length: Option<u64>,
    is_chunked: bool,
    packing: Option<Packing>,
    closes: bool,
}

impl AnswerHead {
    /// Reads the head, skipping interim answers. What came behind it stays in the connection's buffer.
    pub(super) async fn read(
        connection: &mut Connection,
        bounds: HeadBounds,
        deadline: Instant,
    ) -> Result<Self, SellerFault> {
        for _ in 0..=bounds.interim_max {
            let (status, version, fields) = loop {
                // A reused connection's buffer is empty: there is nothing to look at before the first read.
                if !connection.buffer.is_empty()
                    && let Some(parsed) = parse(&mut connection.buffer, bounds)?
                {
                    break parsed;
                }
                if connection.buffer.len() > bounds.max_bytes {
                    return Err(SellerFault::Broken);
                }
                match connection.read(deadline).await {
                    Read::Bytes => {}
                    Read::Ended | Read::Failed => return Err(SellerFault::BrokenOff),
                    Read::Late => return Err(SellerFault::TimedOut { answered: false }),
                }
            };
            if let Some(head) = Self::of(status, version, fields)? {
                return Ok(head);
            }
        }
        Err(SellerFault::Broken)
    }

    /// `None` for an interim answer, which is skipped.
    fn of(status: u16, version: u8, fields: Fields) -> Result<Option<Self>, SellerFault> {
        match status {
            // Nobody asked to switch protocols.
            101 => Err(SellerFault::Broken),
            100..=199 => Ok(None),
            200..=599 => Self::new(status, version, fields).map(Some),
            _ => Err(SellerFault::Broken),
        }
    }

    fn new(status: u16, version: u8, fields: Fields) -> Result<Self, SellerFault> {
        let Fields { content_type, retry_after, length, is_chunked, packing, closes } = fields;
        if is_chunked && (length.is_some() || version == 0) {
            return Err(SellerFault::Broken);
        }
        // These have no body. One that announces a body all the same may send it later, as if it were the next answer.
        let is_bodiless = matches!(status, 204 | 304);
        let is_doubtful = is_bodiless && (is_chunked || length.unwrap_or(0) > 0);
        let length = if is_bodiless { Some(0) } else { length };
        let is_framed = is_chunked || length.is_some();
        let is_kept = version == 1 && !closes && is_framed && !is_doubtful;
        // What is not there is not compressed either.
        let packing = packing.filter(|_| length != Some(0));
        Ok(Self { status, content_type, retry_after, length, is_kept, packing, is_chunked })
    }

    /// The length of the body as it is passed on, when it is known ahead.
    pub(super) fn plain_length(&self) -> Option<u64> {
        self.length.filter(|_| self.packing.is_none())
    }
}

/// As [`AnswerHead::read`], from bytes that are there.
pub(super) fn take_head(buffer: &mut BytesMut) -> Result<Option<Seen>, SellerFault> {
    // As `default.toml` has them.
    let bounds = HeadBounds { max_bytes: 64 << 10, max_fields: 128, interim_max: 8 };
    for _ in 0..=bounds.interim_max {
        match parse(buffer, bounds)? {
            None if buffer.len() > bounds.max_bytes => return Err(SellerFault::Broken),
            None => return Ok(None),
            Some((status, version, fields)) => {
                if let Some(head) = AnswerHead::of(status, version, fields)? {
                    let AnswerHead { status, content_type, length, is_kept, is_chunked, .. } = head;
                    return Ok(Some(Seen { status, content_type, length, is_chunked, is_kept }));
                }
            }
        }
    }
    Err(SellerFault::Broken)
}

/// Takes one head off the buffer, if it is whole.
fn parse(buffer: &mut BytesMut, bounds: HeadBounds) -> Result<Option<(u16, u8, Fields)>, SellerFault> {
    let mut headers = [httparse::EMPTY_HEADER; FIELDS_CAPACITY];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(buffer) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(SellerFault::Broken),
    };
    let head = buffer.get(..length).ok_or(SellerFault::Broken)?;
    // The parser takes bare line feeds; two readers of one stream must not.
    let is_strict = memchr_iter(b'\n', head).all(|at| at > 0 && head.get(at - 1) == Some(&b'\r'));
    if !is_strict || length > bounds.max_bytes || response.headers.len() > bounds.max_fields {
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
        } else if is("content-encoding") {
            let packing = Packing::named(header.value);
            fields.packing = if fields.packing.is_some() && packing.is_some() {
                Some(Packing::Unknown)
            } else {
                packing.or(fields.packing)
            };
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

/// The body of an answer. As soon as its last byte has come its connection goes home.
pub(super) struct AnswerBody {
    /// The connection, and where it goes when it may be used again.
    connection: Option<(Connection, Option<Home>)>,
    /// The last piece, when it came with the head.
    last: Option<Bytes>,
    framing: Framing,
    deadline: Instant,
    /// How long it may stand still.
    stall: Duration,
}

impl AnswerBody {
    pub(super) fn new(
        connection: Connection,
        head: &AnswerHead,
        deadline: Instant,
        stall: Duration,
        home: Home,
    ) -> Self {
        let framing = match head.length {
            Some(length) => Framing::Length(length),
            None if head.is_chunked => Framing::Chunked(Chunked::default()),
            None => Framing::UntilClose,
        };
        let connection = Some((connection, head.is_kept.then_some(home)));
        let mut body = Self { connection, last: None, framing, deadline, stall };
        body.last = body.whole();
        body
    }

    /// The whole body, if it came with the head.
    fn whole(&mut self) -> Option<Bytes> {
        let Framing::Length(length) = self.framing else { return None };
        let (connection, _) = self.connection.as_mut()?;
        let length = usize::try_from(length).ok().filter(|length| *length <= connection.buffer.len())?;
        let whole = connection.buffer.split_to(length).freeze();
        self.end();
        Some(whole).filter(|whole| !whole.is_empty())
    }

    /// The proper end: what is left over means that the two sides disagree, and then the connection is not kept.
    fn end(&mut self) {
        self.framing = Framing::Over;
        if let Some((connection, Some(home))) = self.connection.take()
            && connection.is_reusable()
        {
            home.keep(connection);
        }
    }

    /// More bytes; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, SellerFault> {
        let (connection, _) = self.connection.as_mut().ok_or(SellerFault::Broken)?;
        match connection.read(self.deadline.min(Instant::now() + self.stall)).await {
            Read::Bytes => Ok(true),
            Read::Ended => Ok(false),
            Read::Failed => Err(SellerFault::Broken),
            Read::Late => Err(SellerFault::TimedOut { answered: true }),
        }
    }

    /// What can be taken without reading on.
    fn take(&mut self) -> Result<Option<Bytes>, SellerFault> {
        let Some((connection, _)) = self.connection.as_mut() else { return Ok(None) };
        let buffer = &mut connection.buffer;
        match &mut self.framing {
            Framing::Over => Ok(None),
            Framing::Length(_) | Framing::UntilClose if buffer.is_empty() => Ok(None),
            Framing::UntilClose => Ok(Some(buffer.split().freeze())),
            Framing::Length(left) => {
                let length = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                *left -= length as u64;
                let is_last = *left == 0;
                let piece = buffer.split_to(length).freeze();
                if is_last {
                    self.end();
                }
                Ok(Some(piece))
            }
            Framing::Chunked(decoder) => match decoder.decode(buffer).map_err(|_| SellerFault::Broken)? {
                Decoded::Piece(piece) => Ok(Some(piece)),
                Decoded::NeedMore => Ok(None),
                Decoded::End => {
                    self.end();
                    Ok(None)
                }
            },
        }
    }

    /// Nothing more is wanted, and the connection is of no more use.
    pub(super) fn abandon(&mut self) {
        self.framing = Framing::Over;
        self.connection = None;
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, SellerFault> {
        if let Some(last) = self.last.take() {
            return Ok(Some(last));
        }
        loop {
            if let Some(piece) = self.take()? {
                return Ok(Some(piece));
            }
            if matches!(self.framing, Framing::Over) {
                return Ok(None);
            }
            if self.fill().await? {
                continue;
            }
            if !matches!(self.framing, Framing::UntilClose) {
                return Err(SellerFault::Broken);
            }
            self.abandon();
        }
    }
}

#[async_trait]
impl SellerBody for AnswerBody {
    async fn chunk(&mut self) -> Result<Option<Bytes>, SellerFault> {
        let next = self.next().await;
        if next.is_err() {
            self.abandon();
        }
        next
    }

    fn extend(&mut self, by: Duration) {
        self.deadline += by;
    }
}
