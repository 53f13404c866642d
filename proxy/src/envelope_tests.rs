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

proptest! {
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
