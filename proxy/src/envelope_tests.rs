use proptest::prelude::*;
use serde_json::{Value, json};
use storage::model::UnixMillis;

use super::*;

fn facts(encoding: ResultEncoding) -> EnvelopeFacts {
    EnvelopeFacts {
        request_id: GatewayRequestId::mint(UnixMillis(1_795_500_623_007)),
        billable: true,
        split: FeeRate(49_000).split(Micros(1_000_000)),
        fee_rate: FeeRate(49_000),
        seller_status_code: 200,
        content_type: "application/json".into(),
        encoding,
    }
}

/// The envelope of an answer that is held whole, as a call makes it.
fn whole(facts: &mut EnvelopeFacts, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let (encoding, rendered) = render(facts.encoding, &Bytes::copy_from_slice(bytes))?;
    facts.encoding = encoding;
    Ok(enclose(facts, &rendered))
}

#[test]
fn the_envelope_is_the_contracts_to_the_byte() {
    let mut facts = facts(ResultEncoding::Json);
    let text = String::from_utf8(whole(&mut facts, b"{\"a\" : 1}").expect("JSON")).expect("text");
    let wanted = format!(
        "{{\"success\":true,\"data\":{{\"request_id\":\"{}\",\"billable\":true,\
         \"charged_amount\":{{\"amount_cents\":100,\"amount_micros\":1000000,\"currency\":\"USD\"}},\
         \"fees\":{{\"fee_rate\":0.049,\"fee_amount_cents\":5,\"fee_amount_micros\":49000,\
         \"seller_receives_cents\":95,\"seller_receives_micros\":951000}},\
         \"seller_status_code\":200,\"seller_content_type\":\"application/json\",\"seller_response\":{{\"a\" : 1}}}}}}",
        facts.request_id
    );
    assert_eq!(text, wanted);
}

#[test]
fn a_free_call_shows_zeros() {
    let mut facts = EnvelopeFacts { billable: false, ..facts(ResultEncoding::Json) };
    let value: Value = serde_json::from_slice(&whole(&mut facts, b"1").expect("JSON")).expect("JSON");
    assert_eq!(value["data"]["billable"], false);
    assert_eq!(value["data"]["charged_amount"], json!({"amount_cents": 0, "amount_micros": 0, "currency": "USD"}));
    assert_eq!(value["data"]["fees"]["seller_receives_micros"], 0);
}

#[test]
fn nothing_is_null_and_bad_text_becomes_base64() {
    let mut empty = facts(ResultEncoding::Json);
    let value: Value = serde_json::from_slice(&whole(&mut empty, b"").expect("null")).expect("JSON");
    assert_eq!((value["data"]["seller_response"].clone(), empty.encoding), (Value::Null, ResultEncoding::Nothing));
    let mut latin = EnvelopeFacts { content_type: "text/plain; x=\"\\é\u{1}".into(), ..facts(ResultEncoding::Text) };
    let value: Value = serde_json::from_slice(&whole(&mut latin, b"caf\xe9").expect("base64")).expect("JSON");
    assert_eq!(value["data"]["seller_response"], "Y2Fm6Q==");
    assert_eq!(value["data"]["seller_response_encoding"], "base64");
    assert_eq!(value["data"]["seller_content_type"], latin.content_type);
    assert_eq!(whole(&mut facts(ResultEncoding::Json), b"{"), Err(Malformed));
}

#[test]
fn a_receipt_is_the_envelope_without_the_answer() {
    let mut out = Vec::new();
    receipt(&facts(ResultEncoding::Text), &mut out);
    let value: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(value["data"]["seller_status_code"], 200);
    assert!(value["data"].get("seller_response").is_none());
}

#[test]
fn the_content_type_decides() {
    for (content_type, wanted) in [
        ("application/json", ResultEncoding::Json),
        ("Application/JSON; charset=\"UTF-8\"", ResultEncoding::Json),
        ("application/problem+json", ResultEncoding::Json),
        ("application/json;charset=utf-16", ResultEncoding::Base64),
        ("text/plain", ResultEncoding::Text),
        ("text/html; charset=utf-8; x=y", ResultEncoding::Text),
        ("text/html; charset=latin1", ResultEncoding::Base64),
        ("application/octet-stream", ResultEncoding::Base64),
        ("text", ResultEncoding::Base64),
        ("é", ResultEncoding::Base64),
        ("", ResultEncoding::Base64),
    ] {
        assert_eq!(encoding_for(200, content_type), wanted, "{content_type}");
    }
    assert_eq!(encoding_for(204, "application/json"), ResultEncoding::Nothing);
}

#[test]
fn a_beginning_tells_text_from_what_only_says_so() {
    use ResultEncoding::{Base64, Json, Text};
    assert_eq!(encoding_of_beginning(Text, b"caf\xe9 au lait"), Base64);
    assert_eq!(encoding_of_beginning(Text, "café".as_bytes()), Text);
    // A character that is cut may go on.
    assert_eq!(encoding_of_beginning(Text, b"caf\xc3"), Text);
    assert_eq!(encoding_of_beginning(Json, b"\xff"), Json);
}

#[test]
fn events_are_told_by_their_type_and_end_with_the_receipt() {
    for good in ["text/event-stream", "Text/Event-Stream; charset=UTF-8"] {
        assert!(is_event_stream(good), "{good}");
    }
    for bad in ["text/plain", "", "text/event-stream; charset=latin1", "text/event-streams"] {
        assert!(!is_event_stream(bad), "{bad}");
    }
    let event = String::from_utf8(receipt_event(&facts(ResultEncoding::Events))).expect("text");
    let data = event.strip_prefix("event: crochet.receipt\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
    let value: Value = serde_json::from_str(data.expect("one event")).expect("JSON");
    assert_eq!(value["data"]["billable"], true);
    assert!(!data.expect("one event").contains('\n'));
}

fn encoded(encoding: ResultEncoding, pieces: &[&[u8]]) -> Result<Vec<u8>, Malformed> {
    let (mut encoder, mut out) = (Encoder::new(encoding), Vec::new());
    for piece in pieces {
        encoder.push(piece, &mut out)?;
    }
    encoder.finish(&mut out)?;
    Ok(out)
}

fn cut(bytes: &[u8], size: usize) -> Vec<&[u8]> {
    bytes.chunks(size).collect()
}

/// What a stream makes of these pieces.
fn streamed(encoding: ResultEncoding, bytes: &[u8], cuts: &[usize]) -> Result<Vec<u8>, Malformed> {
    let (mut encoder, mut out, mut rest) = (Encoder::new(encoding), Vec::new(), Bytes::copy_from_slice(bytes));
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let piece = rest.split_to((*cut).min(rest.len()));
        out.extend_from_slice(&encoder.pass(piece)?);
    }
    encoder.finish(&mut out)?;
    Ok(out)
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\\ud83d", "\\ude00", "\\u00e9", "ü", "€", "🦀", "1.5e3", "true",
        " ", "\n", "\u{1}", "a",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 1..60),
        prop::collection::vec(parts, 1..30).prop_map(|parts| parts.concat().into_bytes()),
        any::<Vec<(String, f32, bool)>>().prop_map(|value| json!(value).to_string().into_bytes()),
    ]
}

proptest! {
    #[test]
    fn what_streams_is_what_would_be_held_however_it_is_cut(
        bytes in some_bytes(), cuts in prop::collection::vec(1usize..9, 1..6),
    ) {
        for encoding in [ResultEncoding::Json, ResultEncoding::Text, ResultEncoding::Base64] {
            let held = render(encoding, &Bytes::copy_from_slice(&bytes));
            match (held, streamed(encoding, &bytes, &cuts)) {
                (Ok((as_held, held)), Ok(streamed)) => {
                    prop_assert_eq!(as_held, encoding);
                    prop_assert_eq!(held, streamed);
                }
                // Held, text that is none is base64; a stream whose beginning told nothing is cut.
                (Ok((as_held, _)), Err(Malformed)) => {
                    prop_assert_eq!((encoding, as_held), (ResultEncoding::Text, ResultEncoding::Base64));
                    prop_assert!(std::str::from_utf8(&bytes).is_err());
                }
                (held, streamed) => prop_assert!(held.is_err() && streamed.is_err()),
            }
        }
    }

    #[test]
    fn rates_are_shown_as_the_model_shows_them(ppm in 0u32..2_000_000) {
        let mut out = Vec::new();
        push_rate(&mut out, FeeRate(ppm));
        prop_assert_eq!(String::from_utf8(out).expect("ASCII"), FeeRate(ppm).decimal());
    }

    #[test]
    fn text_is_the_json_string_of_itself_however_it_is_cut(text in ".{0,60}", controls in prop::collection::vec(0u8..32, 0..4), size in 1usize..9) {
        let text = text + std::str::from_utf8(&controls).expect("ASCII");
        let out = encoded(ResultEncoding::Text, &cut(text.as_bytes(), size)).expect("text");
        prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_however_it_is_cut(bytes in prop::collection::vec(any::<u8>(), 0..40), size in 1usize..9) {
        let good = std::str::from_utf8(&bytes).is_ok();
        prop_assert_eq!(encoded(ResultEncoding::Text, &cut(&bytes, size)).is_ok(), good);
    }

    #[test]
    fn base64_is_the_same_however_it_is_cut(bytes in prop::collection::vec(any::<u8>(), 0..80), size in 1usize..9) {
        let out = encoded(ResultEncoding::Base64, &cut(&bytes, size)).expect("always");
        prop_assert_eq!(out, format!("\"{}\"", STANDARD.encode(&bytes)).into_bytes());
    }

    #[test]
    fn every_envelope_is_json(bytes in prop::collection::vec(any::<u8>(), 0..80), content_type in ".{0,30}", status in 200u16..600) {
        let encoding = encoding_for(status, &content_type);
        let mut facts = EnvelopeFacts { content_type, seller_status_code: status, ..facts(encoding) };
        match whole(&mut facts, &bytes) {
            Ok(out) => prop_assert!(serde_json::from_slice::<Value>(&out).is_ok()),
            Err(Malformed) => prop_assert!(matches!(encoding, ResultEncoding::Json | ResultEncoding::Nothing)),
        }
    }
}
