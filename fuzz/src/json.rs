//! JSON: what may be spliced into an answer of ours, and what comes out of it again.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use proxy::{
    envelope::{self, Encoder, EnvelopeFacts, Malformed},
    json_check::{DEPTH_MAX, JsonCheck, is_json},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use storage::model::{FeeRate, GatewayRequestId, Micros, ResultEncoding, UnixMillis};

use super::each_split;

/// What serde_json says: it finds where values end, whatever their numbers, and reads every string whole.
fn oracle(bytes: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(bytes).is_ok_and(|value| is_good(value.get(), usize::from(DEPTH_MAX)))
}

fn is_good(text: &str, depth: usize) -> bool {
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(text).is_ok(),
        Some(b'[') if depth > 0 => serde_json::from_str::<Vec<&RawValue>>(text)
            .is_ok_and(|items| items.iter().all(|item| is_good(item.get(), depth - 1))),
        Some(b'{') if depth > 0 => serde_json::from_str::<Members>(text)
            .is_ok_and(|Members(items)| items.iter().all(|item| is_good(item.get(), depth - 1))),
        Some(b'[' | b'{') => false,
        _ => true,
    }
}

/// All values of an object, also those whose name is there twice.
struct Members(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut all = Vec::new();
                while let Some((_, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    all.push(value);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// The check takes what serde_json takes, byte for byte, in any pieces.
pub fn json(data: &[u8]) {
    let expected = oracle(data);
    assert_eq!(is_json(data), expected, "serde_json says {expected}");
    each_split(data, |pieces| {
        let mut check = JsonCheck::default();
        let fed = pieces.iter().try_for_each(|piece| check.feed(piece));
        assert_eq!(fed.and_then(|()| check.finish()).is_ok(), expected, "how it arrives matters");
    });
}

const TYPES: [&str; 8] = [
    "application/json",
    "text/plain",
    "text/plain; charset=utf-8",
    "text/html; charset=latin1",
    "application/problem+json",
    "image/png",
    "",
    "text/\u{fffd}\"\\\u{7f}",
];

/// Any answer, in any pieces: what leaves is one JSON value, and the seller's bytes can be read from it again.
pub fn envelope(data: &[u8]) {
    let Some(([how, status], raw)) = data.split_first_chunk::<2>().map(|(head, raw)| (*head, raw)) else { return };
    let status = 200 + u16::from(status);
    let said = TYPES[usize::from(how) % TYPES.len()];
    let named = String::from_utf8_lossy(&raw[..raw.len().min(40)]);
    let content_type = if how & 0x80 == 0 { said } else { &*named };
    let encoding = envelope::encoding_for(status, content_type);
    let bytes = Bytes::copy_from_slice(raw);
    let rendered = envelope::render(encoding, &bytes);
    if let Ok((encoding, rendered)) = &rendered {
        let facts = EnvelopeFacts {
            request_id: GatewayRequestId::mint(UnixMillis(1)),
            billable: how & 0x40 == 0,
            split: FeeRate(u32::from(how) * 3_921).split(Micros(i64::try_from(raw.len()).unwrap_or(0) * 997)),
            fee_rate: FeeRate(u32::from(how) * 3_921),
            seller_status_code: status,
            content_type: content_type.to_string(),
            encoding: *encoding,
        };
        check_whole(&facts, raw, &envelope::enclose(&facts, rendered));
        let mut receipt = Vec::new();
        envelope::receipt(&facts, &mut receipt);
        serde_json::from_slice::<serde_json::Value>(&receipt).expect("a receipt is JSON");
    }
    each_split(raw, |pieces| check_stream(encoding, raw, pieces, &rendered));
}

fn check_whole(facts: &EnvelopeFacts, raw: &[u8], whole: &[u8]) {
    #[derive(Deserialize)]
    struct Outer {
        success: bool,
        data: Box<RawValue>,
    }
    #[derive(Deserialize)]
    struct Data {
        seller_content_type: String,
        seller_response_encoding: Option<String>,
        seller_response: Box<RawValue>,
    }
    assert!(is_json(whole) || facts.encoding == ResultEncoding::Json, "what leaves is one value");
    let outer: Outer = serde_json::from_slice(whole).expect("what leaves is JSON");
    let data: Data = serde_json::from_str(outer.data.get()).expect("with its fields, each once");
    assert!(outer.success);
    assert_eq!(data.seller_content_type, facts.content_type);
    let is_base64 = facts.encoding == ResultEncoding::Base64;
    assert_eq!(data.seller_response_encoding.as_deref(), is_base64.then_some("base64"));
    let response = data.seller_response.get();
    let text = || serde_json::from_str::<String>(response).expect("a text");
    match facts.encoding {
        ResultEncoding::Json => assert_eq!(response.as_bytes(), raw.trim_ascii(), "JSON stands as it came"),
        ResultEncoding::Text => assert_eq!(text().as_bytes(), raw),
        ResultEncoding::Base64 => assert_eq!(STANDARD.decode(text()).expect("base64"), raw),
        ResultEncoding::Nothing => assert!(response == "null" && raw.is_empty()),
        ResultEncoding::Events => unreachable!("events stand in no envelope"),
    }
}

/// A streamed answer is the held one, to the byte, but for two things: of an empty one nobody knew that it would be,
/// and text that turns out not to be UTF-8 is too late to become base64.
fn check_stream(
    encoding: ResultEncoding,
    raw: &[u8],
    pieces: &[&[u8]],
    held: &Result<(ResultEncoding, Bytes), Malformed>,
) {
    let (mut encoder, mut out) = (Encoder::new(encoding), Vec::new());
    let pushed = pieces.iter().try_for_each(|piece| encoder.push(piece, &mut out));
    let ended = pushed.and_then(|()| encoder.finish(&mut out));
    match held {
        Ok((seen, rendered)) if *seen == encoding => {
            assert!(ended.is_ok(), "held it is good, streamed it is not");
            assert_eq!(out, *rendered, "streamed and held differ");
        }
        Ok((ResultEncoding::Base64, _)) => assert!(ended.is_err() && encoding == ResultEncoding::Text),
        Ok(_) => assert!(raw.is_empty()),
        Err(Malformed) => assert!(ended.is_err(), "held it is malformed, streamed it is not"),
    }
}
