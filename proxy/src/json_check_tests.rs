use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

/// What serde_json says: its `Value` sees bad UTF-8 and lone surrogates, and refuses numbers that no float holds,
/// which are well-formed all the same.
fn oracle(bytes: &[u8]) -> bool {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(_) => true,
        Err(error) if error.to_string().starts_with("number out of range") => {
            serde_json::from_slice::<IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok()
        }
        Err(_) => false,
    }
}

fn in_pieces(bytes: &[u8], cuts: &[usize]) -> bool {
    let mut check = JsonCheck::default();
    let mut rest = bytes;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at((*cut).clamp(1, rest.len()));
        if check.feed(piece).is_err() {
            return false;
        }
        rest = behind;
    }
    check.finish().is_ok()
}

#[test]
fn d8_one_value_well_formed() {
    for good in [
        "{}",
        "[]",
        "0",
        "-0",
        "1.5e-7",
        "1e999",
        "\"\"",
        "null",
        " true ",
        "[1,{\"a\":[false]}]",
        "\"\\ud83d\\ude00\"",
        "{\"a\":1,\"a\":2}",
        "\"\u{10ffff}\u{e000}\u{7f}\"",
        "[\r\n\t 1 ]",
    ] {
        assert!(is_json(good.as_bytes()), "{good}");
    }
    for bad in [
        "",
        " ",
        "{",
        "[",
        "]",
        "}",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\"}",
        "{\"a\":}",
        "{1:2}",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x1",
        "NaN",
        "tru",
        "truee",
        "True",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\n\"",
        "\"\\ud800\\ud800\"",
        "\"\\udc00\"",
        "\"\n\"",
        "\"\0\"",
        "1 2",
        "{} {}",
        "[1 2]",
        "[}",
        "{]",
        "[1}",
        "\u{feff}{}",
        "1,",
        ",",
        ":",
        "'a'",
        "/**/1",
    ] {
        assert!(!is_json(bad.as_bytes()), "{bad}");
    }
    for bad in
        [&b"\"\xff\""[..], b"\"\xc0\x80\"", b"\"\xed\xa0\x80\"", b"\"\xf4\x90\x80\x80\"", b"\"\xe2\x82\"", b"\xe9"]
    {
        assert!(!is_json(bad), "{bad:x?}");
    }
}

#[test]
fn d8_depth_is_bounded() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(is_json(nested(128).as_bytes()));
    assert!(!is_json(nested(129).as_bytes()));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(is_json(objects(128).as_bytes()));
    assert!(!is_json(objects(129).as_bytes()));
}

#[test]
fn plain_runs_end_at_the_first_byte_that_is_not() {
    for length in 0..40 {
        for special in [0u8, 0x1f, b'"', b'\\', 0x80, 0xff] {
            let mut bytes = vec![b'a'; length];
            bytes.extend_from_slice(&[special, 0, b'"', 0xff]);
            bytes.extend_from_slice(&[b'b'; 9]);
            assert_eq!(plain_prefix(&bytes), length, "{special:x}");
        }
        let all: Vec<u8> = (0x20..=0x7f).filter(|b| *b != b'"' && *b != b'\\').cycle().take(length).collect();
        assert_eq!(plain_prefix(&all), length);
    }
}

/// Bytes that JSON is made of, mostly in an order in which it is.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let parts = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"a\":",
        "1",
        "0",
        "-",
        ".",
        "e",
        "E+",
        "true",
        "null",
        "false",
        " ",
        "\\",
        "\\u",
        "d83d",
        "\\ude00",
        "\\\"",
        "\u{e9}",
        "\u{1f600}",
        "\n",
        "abcdefgh",
        "\t",
    ]);
    prop::collection::vec(parts, 0..24).prop_map(|parts| parts.concat().into_bytes())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn it_agrees_with_serde_json_on_what_is_nearly_json(bytes in nearly_json(), cuts in prop::collection::vec(1usize..7, 1..5)) {
        prop_assert_eq!(is_json(&bytes), oracle(&bytes));
        prop_assert_eq!(in_pieces(&bytes, &cuts), oracle(&bytes));
    }

    #[test]
    fn it_agrees_with_serde_json_on_json_with_one_byte_changed(
        value in value(), pretty in any::<bool>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        cuts in prop::collection::vec(1usize..20, 1..5),
    ) {
        let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
        let mut bytes = text.expect("a value");
        prop_assert!(is_json(&bytes) && in_pieces(&bytes, &cuts));
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert_eq!(is_json(&bytes), oracle(&bytes));
        prop_assert_eq!(in_pieces(&bytes, &cuts), oracle(&bytes));
    }

    #[test]
    fn it_agrees_with_serde_json_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(is_json(&bytes), oracle(&bytes));
    }
}
