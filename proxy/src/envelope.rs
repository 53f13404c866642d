//! The answer of a call: a head, the seller's bytes, a tail. The replay of a stored result is made by the same
//! functions, and so is equal to the byte.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use storage::model::{FeeRate, GatewayRequestId, Micros, ResultEncoding, Split};

pub use crate::json_check::Malformed;
use crate::{
    event_check::EventCheck,
    json_check::{JsonCheck, is_json, plain_prefix},
    utf8::Sequence,
};

/// What the envelope says about the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeFacts {
    /// The call's id.
    pub request_id: GatewayRequestId,
    /// Whether money moved; if not, every amount shown is zero.
    pub billable: bool,
    /// What was charged, and its parts.
    pub split: Split,
    /// The marketplace's share.
    pub fee_rate: FeeRate,
    /// What the seller answered.
    pub seller_status_code: u16,
    /// The seller's content type; empty when it gave none.
    pub content_type: String,
    /// How the seller's bytes stand in the envelope.
    pub encoding: ResultEncoding,
}

/// Everything before the seller's bytes.
pub fn head(facts: &EnvelopeFacts, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"success\":true,\"data\":");
    fields(facts, out);
    if facts.encoding == ResultEncoding::Base64 {
        out.extend_from_slice(b",\"seller_response_encoding\":\"base64\"");
    }
    out.extend_from_slice(b",\"seller_response\":");
}

/// Everything behind the seller's bytes.
#[must_use]
pub fn tail() -> &'static [u8] {
    b"}}"
}

/// The envelope without the seller's bytes: the last event of an event stream.
pub fn receipt(facts: &EnvelopeFacts, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"success\":true,\"data\":");
    fields(facts, out);
    out.extend_from_slice(tail());
}

/// The last event of a stream of events.
#[must_use]
pub fn receipt_event(facts: &EnvelopeFacts) -> Vec<u8> {
    let mut out = Vec::with_capacity(640);
    out.extend_from_slice(b"event: crochet.receipt\ndata: ");
    receipt(facts, &mut out);
    out.extend_from_slice(b"\n\n");
    out
}

/// A held answer's bytes as they stand in the envelope, and how. An answer without bytes becomes `null`, and text that
/// is not UTF-8 base64; JSON is checked and not copied.
///
/// # Errors
/// [`Malformed`] when the seller says JSON and it is not.
pub fn render(encoding: ResultEncoding, bytes: &Bytes) -> Result<(ResultEncoding, Bytes), Malformed> {
    let encoding = match encoding {
        _ if bytes.is_empty() => return Ok((ResultEncoding::Nothing, Bytes::from_static(b"null"))),
        ResultEncoding::Json if is_json(bytes) => return Ok((encoding, bytes.clone())),
        ResultEncoding::Json => return Err(Malformed),
        ResultEncoding::Text if std::str::from_utf8(bytes).is_err() => ResultEncoding::Base64,
        encoding => encoding,
    };
    let mut out = Vec::with_capacity(bytes.len() / 2 * 3 + 4);
    let mut encoder = Encoder::new(encoding);
    encoder.push(bytes, &mut out)?;
    encoder.finish(&mut out)?;
    Ok((encoding, out.into()))
}

/// The whole envelope around bytes that were rendered.
#[must_use]
pub fn enclose(facts: &EnvelopeFacts, rendered: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + facts.content_type.len() + rendered.len());
    head(facts, &mut out);
    out.extend_from_slice(rendered);
    out.extend_from_slice(tail());
    out
}

fn fields(facts: &EnvelopeFacts, out: &mut Vec<u8>) {
    let split = if facts.billable { facts.split } else { facts.fee_rate.split(Micros::ZERO) };
    out.extend_from_slice(b"{\"request_id\":\"");
    push_display(out, facts.request_id);
    out.extend_from_slice(if facts.billable { b"\",\"billable\":true" } else { b"\",\"billable\":false" });
    push_number(out, b",\"charged_amount\":{\"amount_cents\":", split.charged.cents());
    push_number(out, b",\"amount_micros\":", split.charged.0);
    out.extend_from_slice(b",\"currency\":\"USD\"},\"fees\":{\"fee_rate\":");
    push_rate(out, facts.fee_rate);
    push_number(out, b",\"fee_amount_cents\":", split.fee.cents());
    push_number(out, b",\"fee_amount_micros\":", split.fee.0);
    push_number(out, b",\"seller_receives_cents\":", split.seller_cents());
    push_number(out, b",\"seller_receives_micros\":", split.seller.0);
    push_number(out, b"},\"seller_status_code\":", i64::from(facts.seller_status_code));
    out.extend_from_slice(b",\"seller_content_type\":\"");
    escape_ascii(facts.content_type.as_bytes(), out);
    out.push(b'"');
}

fn push_number(out: &mut Vec<u8>, name: &[u8], value: i64) {
    out.extend_from_slice(name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A rate below 1 as a decimal number, as [`FeeRate::decimal`] has it, written in place: every answer shows one.
fn push_rate(out: &mut Vec<u8>, FeeRate(ppm): FeeRate) {
    let mut places = [0; 6];
    let mut rest = ppm;
    for place in places.iter_mut().rev() {
        *place = u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    out.extend_from_slice(itoa::Buffer::new().format(rest).as_bytes());
    let shown = places.iter().rposition(|place| *place != 0).map_or(0, |last| last + 1);
    if shown > 0 {
        out.push(b'.');
        out.extend(places.iter().take(shown).map(|place| b'0' + place));
    }
}

fn push_display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    use std::io::Write as _;
    // Writing to a vector cannot fail.
    let _ = write!(out, "{value}");
}

/// Appends text as the inside of a JSON string. It must be UTF-8 as a whole; a piece may be cut anywhere.
fn escape_ascii(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while !rest.is_empty() {
        let run = plain_prefix(rest);
        let (plain, behind) = rest.split_at_checked(run).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let Some((byte, behind)) = behind.split_first() else { return };
        push_escaped(*byte, out);
        rest = behind;
    }
}

fn push_escaped(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0..=0x1f => {
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
        }
        _ => out.push(byte),
    }
}

/// How a seller's answer of this status and content type stands in the envelope, as far as they tell.
#[must_use]
pub fn encoding_for(status: u16, content_type: &str) -> ResultEncoding {
    if status == 204 {
        return ResultEncoding::Nothing;
    }
    let mut parts = content_type.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    let is = |prefix: &str| essence.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    let is_json = essence.eq_ignore_ascii_case("application/json")
        || (is("application/") && essence.len() > 5 && ends_with(essence, "+json"));
    if !(is_json || is("text/")) || !parts.all(is_unicode_or_no_charset) {
        return ResultEncoding::Base64;
    }
    if is_json { ResultEncoding::Json } else { ResultEncoding::Text }
}

/// The same, once an answer's beginning was seen: what says text and is not UTF-8 stands as base64. What turns out so
/// later only is broken.
#[must_use]
pub fn encoding_of_beginning(encoding: ResultEncoding, beginning: &[u8]) -> ResultEncoding {
    match std::str::from_utf8(beginning) {
        Err(error) if encoding == ResultEncoding::Text && error.error_len().is_some() => ResultEncoding::Base64,
        _ => encoding,
    }
}

/// Whether this content type is that of a stream of events.
#[must_use]
pub fn is_event_stream(content_type: &str) -> bool {
    let mut parts = content_type.split(';');
    let essence = parts.next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("text/event-stream") && parts.all(is_unicode_or_no_charset)
}

fn ends_with(text: &str, suffix: &str) -> bool {
    let start = text.len().checked_sub(suffix.len()).and_then(|start| text.get(start..));
    start.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

fn is_unicode_or_no_charset(parameter: &str) -> bool {
    match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            ["utf-8", "utf8", "us-ascii"].iter().any(|good| value.eq_ignore_ascii_case(good))
        }
        _ => true,
    }
}

/// Writes a seller's bytes as they come.
#[derive(Debug)]
pub struct Encoder {
    form: Form,
    begun: bool,
}

#[derive(Debug)]
enum Form {
    Json(Box<JsonCheck>),
    Text(Option<Sequence>),
    /// Bytes that wait for a third.
    Base64(Vec<u8>),
    Nothing,
    Events(EventCheck),
}

impl Encoder {
    /// An encoder for one answer.
    #[must_use]
    pub fn new(encoding: ResultEncoding) -> Self {
        let form = match encoding {
            ResultEncoding::Json => Form::Json(Box::default()),
            ResultEncoding::Text => Form::Text(None),
            ResultEncoding::Base64 => Form::Base64(Vec::new()),
            ResultEncoding::Nothing => Form::Nothing,
            ResultEncoding::Events => Form::Events(EventCheck::default()),
        };
        Self { form, begun: false }
    }

    /// Writes the next piece.
    ///
    /// # Errors
    /// [`Malformed`] when it is not what the encoding needs.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.begin(out);
        match &mut self.form {
            Form::Json(check) => {
                check.feed(piece)?;
                out.extend_from_slice(piece);
                Ok(())
            }
            Form::Text(open) => push_text(open, piece, out),
            Form::Base64(waiting) => {
                push_base64(waiting, piece, out);
                Ok(())
            }
            Form::Events(check) => {
                check.feed(piece)?;
                out.extend_from_slice(piece);
                Ok(())
            }
            Form::Nothing if piece.is_empty() => Ok(()),
            Form::Nothing => Err(Malformed),
        }
    }

    /// As [`Encoder::push`], without a copy where the bytes stand as they came.
    ///
    /// # Errors
    /// [`Malformed`] when it is not what the encoding needs.
    pub fn pass(&mut self, piece: Bytes) -> Result<Bytes, Malformed> {
        match &mut self.form {
            Form::Json(check) => check.feed(&piece).map(|()| piece),
            Form::Events(check) => check.feed(&piece).map(|()| piece),
            Form::Text(_) | Form::Base64(_) | Form::Nothing => {
                let mut out = Vec::with_capacity(piece.len() / 2 * 3 + 4);
                self.push(&piece, &mut out)?;
                Ok(out.into())
            }
        }
    }

    /// Whether it is a stream of events.
    #[must_use]
    pub fn is_events(&self) -> bool {
        matches!(self.form, Form::Events(_))
    }

    /// Whether a comment may stand here: between two lines of a stream of events.
    #[must_use]
    pub fn is_between_lines(&self) -> bool {
        matches!(&self.form, Form::Events(check) if check.is_between_lines())
    }

    /// Ends the value.
    ///
    /// # Errors
    /// [`Malformed`] when it is not whole.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.begin(out);
        match &mut self.form {
            Form::Json(check) => check.finish(),
            Form::Text(Some(_)) => Err(Malformed),
            Form::Text(None) => {
                out.push(b'"');
                Ok(())
            }
            Form::Base64(waiting) => {
                append_base64(waiting, out);
                out.push(b'"');
                Ok(())
            }
            Form::Nothing => {
                out.extend_from_slice(b"null");
                Ok(())
            }
            Form::Events(check) => {
                out.extend_from_slice(check.finish()?);
                Ok(())
            }
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.begun && matches!(self.form, Form::Text(_) | Form::Base64(_)) {
            out.push(b'"');
        }
        self.begun = true;
    }
}

fn push_text(open: &mut Option<Sequence>, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut rest = piece;
    while !rest.is_empty() {
        let run = if open.is_some() { 0 } else { plain_prefix(rest) };
        let (plain, behind) = rest.split_at_checked(run).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let Some((byte, behind)) = behind.split_first() else { break };
        rest = behind;
        *open = match open.take() {
            Some(mut sequence) => match sequence.next(*byte).ok_or(Malformed)? {
                true => None,
                false => Some(sequence),
            },
            None if byte.is_ascii() => None,
            None => Some(Sequence::begin(*byte).ok_or(Malformed)?),
        };
        push_escaped(*byte, out);
    }
    Ok(())
}

fn push_base64(waiting: &mut Vec<u8>, piece: &[u8], out: &mut Vec<u8>) {
    let missing = if waiting.is_empty() { 0 } else { 3 - waiting.len() };
    let (front, rest) = piece.split_at_checked(missing).unwrap_or((piece, &[]));
    waiting.extend_from_slice(front);
    if waiting.len() == 3 {
        append_base64(waiting, out);
        waiting.clear();
    }
    let (triples, left) = rest.split_at_checked(rest.len() - rest.len() % 3).unwrap_or((rest, &[]));
    append_base64(triples, out);
    waiting.extend_from_slice(left);
}

fn append_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    if let Some(place) = out.get_mut(start..) {
        // The place has the length of the text.
        let _ = STANDARD.encode_slice(bytes, place);
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
