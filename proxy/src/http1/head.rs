//! A request's head, strictly: httparse finds the parts, and everything that it or a peer behind us could read in two
//! ways is refused. What passes has one meaning.

use std::ops::Range;

use actors::refusal::{Code, Refusal};
use bytes::{Bytes, BytesMut};
use config::Config;
use httparse::Status;

pub use super::host::Hosts;
use super::{
    host::{Target, is_host},
    request_id::RequestId,
};

/// Room for httparse; what a head may have is configured and less.
const FIELDS_CAPACITY: usize = 257;

macro_rules! headers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $repeats:literal;)*) => {
        /// The headers that the gateway reads. Each is ASCII and, unless it is a list, there at most once.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Header { $($(#[$doc])* #[doc = concat!("`", $name, "`")] $variant),* }

        impl Header {
            const ALL: &'static [Self] = &[$(Self::$variant),*];
            const COUNT: usize = Self::ALL.len();

            /// Its name in lower case.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            fn may_repeat(self) -> bool {
                match self { $(Self::$variant => $repeats),* }
            }
        }
    };
}

headers! {
    Host = "host", false;
    Authorization = "authorization", false;
    ContentType = "content-type", false;
    ContentLength = "content-length", false;
    ContentEncoding = "content-encoding", false;
    TransferEncoding = "transfer-encoding", false;
    Connection = "connection", true;
    Upgrade = "upgrade", true;
    Expect = "expect", false;
    Accept = "accept", true;
    Prefer = "prefer", false;
    Cookie = "cookie", true;
    IdempotencyKey = "idempotency-key", false;
    Traceparent = "traceparent", false;
    XRequestId = "x-request-id", false;
    PaymentSignature = "payment-signature", false;
    PaymentAuthorization = "payment-authorization", false;
    RelayRequestId = "x-crochet-relay-request-id", false;
    OriginCurrency = "x-crochet-origin-currency", false;
    MaxPriceMicros = "x-crochet-max-price-micros", false;
    CrochetSignature = "x-crochet-signature", false;
}

const OURS: &[u8] = b"x-crochet-";

impl Header {
    /// The header with this name, in any case.
    fn named(name: &[u8]) -> Option<Self> {
        // The length decides nearly always, so that a header which nobody reads costs one comparison of numbers.
        let found = match name.len() {
            4 => Self::Host,
            6 if first(name) == b'e' => Self::Expect,
            6 if first(name) == b'a' => Self::Accept,
            6 if first(name) == b'p' => Self::Prefer,
            6 => Self::Cookie,
            7 => Self::Upgrade,
            10 => Self::Connection,
            11 => Self::Traceparent,
            12 if first(name) == b'c' => Self::ContentType,
            12 => Self::XRequestId,
            13 => Self::Authorization,
            14 => Self::ContentLength,
            15 => Self::IdempotencyKey,
            16 => Self::ContentEncoding,
            17 if first(name) == b't' => Self::TransferEncoding,
            17 => Self::PaymentSignature,
            19 => Self::CrochetSignature,
            21 => Self::PaymentAuthorization,
            25 => Self::OriginCurrency,
            26 if name.get(10).is_some_and(|b| b.eq_ignore_ascii_case(&b'r')) => Self::RelayRequestId,
            26 => Self::MaxPriceMicros,
            _ => return None,
        };
        name.eq_ignore_ascii_case(found.name().as_bytes()).then_some(found)
    }
}

fn first(name: &[u8]) -> u8 {
    name.first().map_or(0, |b| b | 0x20)
}

/// Where a part stands in the head. A head is at most 64 KiB, and nothing but the method begins at 0.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u16,
    len: u16,
}

impl Span {
    /// Where `part`, a slice of `whole`, stands in it.
    fn of(whole: &[u8], part: &[u8]) -> Option<Self> {
        let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
        let fits = start.checked_add(part.len())? <= whole.len();
        let span = Self { start: u16::try_from(start).ok()?, len: u16::try_from(part.len()).ok()? };
        fits.then_some(span)
    }

    fn range(self) -> Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.len)
    }
}

/// The protocol's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunks, no 100, closed after the answer.
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2: the connection's keeping is not the request's matter.
    Http2,
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What a head may be.
#[derive(Clone, Debug)]
pub struct HeadRules {
    /// Its size at most.
    pub max_bytes: usize,
    /// Its fields at most.
    pub max_fields: usize,
    /// Which hosts are served here.
    pub hosts: Hosts,
}

impl HeadRules {
    /// As configured.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            max_bytes: config.proxy.head_max_bytes.min(usize::from(u16::MAX)),
            max_fields: config.proxy.head_max_fields.min(FIELDS_CAPACITY - 1),
            hosts: Hosts::new(config.mode, &config.proxy.public_url, config.proxy.listen).with(&config.proxy.hosts),
        }
    }
}

/// A request's head. It owns its bytes; every accessor is a look.
#[derive(Debug)]
pub struct Head {
    bytes: Bytes,
    method: Span,
    path: Option<Span>,
    query: Option<Span>,
    fields_start: u16,
    known: [Option<Span>; Header::COUNT],
    framing: Framing,
    keep_alive: bool,
    request_id: RequestId,
    /// The protocol's version.
    pub version: Version,
}

impl Head {
    /// Takes a head off the front of `buffer`. `None` when it has not come whole.
    ///
    /// # Errors
    /// What is wrong with it; the connection must then be closed, for where the next request begins is unknown.
    pub fn parse(buffer: &mut BytesMut, rules: &HeadRules) -> Result<Option<Self>, Refusal> {
        let mut fields = [const { std::mem::MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_CAPACITY];
        let mut request = httparse::Request::new(&mut []);
        let config = httparse::ParserConfig::default();
        let end = match config.parse_request_with_uninit_headers(&mut request, buffer, &mut fields) {
            Ok(Status::Complete(end)) if end <= rules.max_bytes => end,
            Ok(Status::Partial) if buffer.len() < rules.max_bytes => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Code::HeadersTooLarge.into()),
            Err(error) => return Err(malformed(reason(error))),
        };
        if request.headers.len() > rules.max_fields {
            return Err(Code::HeadersTooLarge.into());
        }
        let mut reading = Reading::new(buffer, end, &request)?;
        reading.fields(request.headers)?;
        let head = reading.finish(rules)?;
        Ok(Some(Self { bytes: buffer.split_to(end).freeze(), ..head }))
    }

    /// The method, as it came.
    #[must_use]
    pub fn method(&self) -> &str {
        self.text(self.method)
    }

    /// The path, without the query, as it came.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.map_or("/", |span| self.text(span))
    }

    /// What follows the `?`, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.query.map(|span| self.text(span))
    }

    /// A header's value without the spaces around it; of a list, the first line of it.
    #[must_use]
    pub fn header(&self, header: Header) -> Option<&str> {
        let span = self.known.get(header as usize).copied().flatten()?;
        Some(self.text(span))
    }

    /// All fields as they came, in order: names and values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let fields = self.bytes.get(usize::from(self.fields_start)..).unwrap_or_default();
        fields.split(|byte| *byte == b'\n').filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            let (name, value) = line.split_at_checked(colon)?;
            Some((std::str::from_utf8(name).ok()?, value.get(1..)?.trim_ascii()))
        })
    }

    /// How the body is delimited.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client wants to use the connection again.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for our word before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.version != Version::Http10 && self.header(Header::Expect).is_some()
    }

    /// The request's id: the client's own where it is well-formed, else one of ours. It is on every answer.
    #[must_use]
    pub fn request_id(&self) -> &str {
        match self.header(Header::XRequestId) {
            Some(id) if RequestId::is_well_formed(id) => id,
            _ => self.request_id.text(),
        }
    }

    fn text(&self, span: Span) -> &str {
        // Every span was seen to be ASCII when it was made.
        self.bytes.get(span.range()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

fn malformed(reason: &'static str) -> Refusal {
    Refusal::from(Code::InvalidRequest).message(reason)
}

fn reason(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "A header's name is malformed.",
        httparse::Error::HeaderValue => "A header's value is malformed.",
        httparse::Error::Version => "The protocol's version is not HTTP/1.1.",
        _ => "The request line is malformed.",
    }
}

/// A head being read: what the fields said so far.
struct Reading<'a> {
    whole: &'a [u8],
    head: Head,
    length: Option<u64>,
    is_chunked: bool,
    authority: Option<&'a [u8]>,
}

impl<'a> Reading<'a> {
    fn new(buffer: &'a [u8], end: usize, request: &httparse::Request<'_, 'a>) -> Result<Self, Refusal> {
        let whole = buffer.get(..end).unwrap_or_default();
        // httparse takes a line feed alone for a line's end; others do not, and that difference is a smuggler's door.
        if memchr::memchr_iter(b'\n', whole).any(|at| at == 0 || whole.get(at - 1) != Some(&b'\r')) {
            return Err(malformed("A line does not end in CR LF."));
        }
        let version = match request.version {
            Some(1) => Version::Http11,
            _ => Version::Http10,
        };
        let method = request.method.unwrap_or_default();
        if matches!(method, "CONNECT" | "TRACE") {
            return Err(Code::MethodNotAllowed.into());
        }
        let target = Target::parse(request.path.unwrap_or_default())?;
        // The request line ends at the first CR LF after the target; blank lines before it were skipped.
        let line = Span::of(whole, target.last).ok_or_else(|| malformed("The request line is malformed."))?.range().end;
        let rest = whole.get(line..).unwrap_or_default();
        let fields_start = memchr::memchr(b'\n', rest).map_or(end, |at| line + at + 1);
        let head = Head {
            bytes: Bytes::new(),
            method: Span::of(whole, method.as_bytes()).unwrap_or_default(),
            path: target.path.and_then(|path| Span::of(whole, path.as_bytes())),
            query: target.query.and_then(|query| Span::of(whole, query.as_bytes())),
            fields_start: u16::try_from(fields_start).unwrap_or(u16::MAX),
            known: [None; Header::COUNT],
            framing: Framing::None,
            keep_alive: version == Version::Http11,
            request_id: RequestId::NONE,
            version,
        };
        let authority = target.authority.map(str::as_bytes);
        Ok(Self { whole, head, length: None, is_chunked: false, authority })
    }

    fn fields(&mut self, fields: &[httparse::Header<'a>]) -> Result<(), Refusal> {
        for (index, field) in fields.iter().enumerate() {
            let name = field.name.as_bytes();
            // Some peers read `_` as `-`: X_Crochet_… would become ours.
            if memchr::memchr(b'_', name).is_some() {
                return Err(malformed("A header's name has an underscore."));
            }
            let value = field.value.trim_ascii();
            if let Some(header) = Header::named(name) {
                self.known(header, value)?;
            } else if name.get(..OURS.len()).is_some_and(|prefix| prefix.eq_ignore_ascii_case(OURS)) {
                let before = fields.get(..index).unwrap_or_default();
                if before.iter().any(|other| other.name.eq_ignore_ascii_case(field.name)) {
                    return Err(repeated(field.name));
                }
            }
        }
        Ok(())
    }

    fn known(&mut self, header: Header, value: &[u8]) -> Result<(), Refusal> {
        if !value.is_ascii() {
            return Err(malformed("A header's value is not ASCII."));
        }
        let span = match value {
            [] => Span { start: u16::try_from(self.whole.len()).unwrap_or(u16::MAX), len: 0 },
            _ => Span::of(self.whole, value).ok_or_else(|| malformed("A header's value is malformed."))?,
        };
        match self.head.known.get_mut(header as usize) {
            Some(slot @ None) => *slot = Some(span),
            _ if header.may_repeat() => {}
            _ => return Err(repeated(header.name())),
        }
        match header {
            Header::ContentLength => self.length = Some(length(value)?),
            Header::TransferEncoding if value.eq_ignore_ascii_case(b"chunked") => self.is_chunked = true,
            Header::TransferEncoding => return Err(malformed("Transfer-Encoding may only be chunked.")),
            Header::Connection => self.connection(value)?,
            Header::Upgrade => return Err(malformed("Upgrade is not supported.")),
            Header::Expect if !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Code::ExpectationFailed.into());
            }
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for token in value.split(|byte| *byte == b',') {
            if token.trim_ascii().eq_ignore_ascii_case(b"close") {
                self.head.keep_alive = false;
            }
        }
        Ok(())
    }

    fn finish(mut self, rules: &HeadRules) -> Result<Head, Refusal> {
        let span = self.head.known.get(Header::Host as usize).copied().flatten();
        let host = span.and_then(|span| self.whole.get(span.range())).unwrap_or_default();
        if !is_host(host) {
            return Err(malformed("Host must be there once, as a name and perhaps a port."));
        }
        if self.authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
            return Err(malformed("The target names another host than Host does."));
        }
        if !rules.hosts.serves(std::str::from_utf8(host).unwrap_or_default()) {
            return Err(Code::MisdirectedRequest.into());
        }
        self.head.framing = match (self.is_chunked, self.length) {
            (true, Some(_)) => return Err(malformed("Both Content-Length and Transfer-Encoding are there.")),
            (true, None) if self.head.version == Version::Http10 => {
                return Err(malformed("HTTP/1.0 has no Transfer-Encoding."));
            }
            (true, None) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        };
        let id = self.head.known.get(Header::XRequestId as usize).copied().flatten();
        let given = id.and_then(|span| std::str::from_utf8(self.whole.get(span.range())?).ok());
        if !given.is_some_and(RequestId::is_well_formed) {
            self.head.request_id = RequestId::mint();
        }
        Ok(self.head)
    }
}

fn repeated(name: &str) -> Refusal {
    // The name is a token: httparse has seen to it.
    Refusal::from(Code::InvalidRequest).message(format!("The header {name} is there more than once."))
}

/// Reads a length: digits without a sign or a leading zero. One that no body can have is refused later, as too large.
fn length(value: &[u8]) -> Result<u64, Refusal> {
    let bad = || malformed("Content-Length is not a number.");
    if !value.iter().all(u8::is_ascii_digit) || (value.len() > 1 && value.first() == Some(&b'0')) {
        return Err(bad());
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
