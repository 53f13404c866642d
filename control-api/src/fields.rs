//! JSON bodies, read field by field: every field that is wrong, unknown, missing or given twice is reported, all at
//! once. A number is read from its own digits, never through a float.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use actors::refusal::{Code, Refusal};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use storage::model::Micros;

/// Of what is wrong so many are named: a refusal is not larger by orders than what it refuses.
pub(crate) const REPORTED_MAX: usize = 64;
const NAME_MAX: usize = 64;

/// A field of a change: left as it is, cleared, or set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given<T> {
    /// Not mentioned.
    Absent,
    /// `null`.
    Null,
    /// A value.
    Value(T),
}

impl<T> Given<T> {
    /// Whether it was mentioned.
    pub(crate) fn is_given(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

impl<T: Clone> Given<T> {
    /// Changes `to` as given.
    pub(crate) fn apply(&self, to: &mut Option<T>) {
        match self {
            Self::Absent => {}
            Self::Null => *to = None,
            Self::Value(value) => *to = Some(value.clone()),
        }
    }
}

/// Fields that have not been read yet, and what is wrong with those that have.
#[derive(Debug)]
pub(crate) struct Fields {
    given: BTreeMap<String, Box<RawValue>>,
    wrong: BTreeMap<String, String>,
    /// Stands before the names of an inner object's fields in what is reported.
    path: String,
}

impl Fields {
    /// Reads a body with `read`, which takes fields by name and puts the parts together. An empty body is `{}`.
    ///
    /// # Errors
    /// `InvalidJson`; `ValidationFailed` that names every field that is wrong.
    pub(crate) fn read<T>(body: &[u8], read: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, Refusal> {
        let text = std::str::from_utf8(body).map_err(|_| Code::InvalidJson)?;
        let text = if text.trim().is_empty() { "{}" } else { text };
        serde_json::from_str::<&RawValue>(text).map_err(|_| Code::InvalidJson)?;
        let object: Object = serde_json::from_str(text)
            .map_err(|_| Refusal::from(Code::ValidationFailed).message("The body must be a JSON object."))?;
        let mut fields = Self::new(object, String::new());
        let taken = read(&mut fields);
        fields.report_unknown();
        if !fields.wrong.is_empty() {
            let refusal = Refusal::from(Code::ValidationFailed);
            let reported = fields.wrong.iter().take(REPORTED_MAX);
            return Err(reported.fold(refusal, |refusal, (name, reason)| refusal.field(name, reason)));
        }
        taken.ok_or_else(|| Code::Internal.into())
    }

    fn new(object: Object, path: String) -> Self {
        let mut fields = Self { given: object.given, wrong: BTreeMap::new(), path };
        for name in object.twice {
            fields.wrong(&name, "is given twice");
        }
        fields
    }

    fn report_unknown(&mut self) {
        for name in std::mem::take(&mut self.given).into_keys() {
            self.wrong(&name, "is not a field of this request");
        }
    }

    /// Notes that a field is wrong; the first reason stays.
    pub(crate) fn wrong(&mut self, name: &str, reason: impl Into<String>) {
        let name: String = name.chars().take(NAME_MAX).collect();
        let shown = if self.path.is_empty() { name } else { format!("{}.{name}", self.path) };
        self.wrong.entry(shown).or_insert_with(|| reason.into());
    }

    /// Whether a field was mentioned and is not read yet.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Notes which of these fields are missing.
    pub(crate) fn require(&mut self, names: &[&str]) {
        for name in names {
            if self.given.get(*name).is_none_or(|value| value.get() == "null") {
                self.given.remove(*name);
                self.wrong(name, "is required");
            }
        }
    }

    /// A field that may be left out or `null`, both meaning none.
    pub(crate) fn optional<T>(&mut self, name: &str, read: impl FnOnce(&RawValue) -> Read<T>) -> Option<T> {
        match self.given(name, read) {
            Given::Value(value) => Some(value),
            Given::Absent | Given::Null => None,
        }
    }

    /// A field that must be there.
    pub(crate) fn required<T>(&mut self, name: &str, read: impl FnOnce(&RawValue) -> Read<T>) -> Option<T> {
        self.require(&[name]);
        self.optional(name, read)
    }

    /// A field whose `null` means to clear it.
    pub(crate) fn given<T>(&mut self, name: &str, read: impl FnOnce(&RawValue) -> Read<T>) -> Given<T> {
        let Some(value) = self.given.remove(name) else { return Given::Absent };
        if value.get() == "null" {
            return Given::Null;
        }
        match read(&value) {
            Ok(value) => Given::Value(value),
            Err(reason) => {
                self.wrong(name, reason);
                Given::Absent
            }
        }
    }

    /// An inner object, read the same way; its fields are reported as `name.field`.
    pub(crate) fn object<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> Option<T>) -> Given<T> {
        let Some(value) = self.given.remove(name) else { return Given::Absent };
        if value.get() == "null" {
            return Given::Null;
        }
        let Ok(object) = serde_json::from_str::<Object>(value.get()) else {
            self.wrong(name, "must be an object");
            return Given::Absent;
        };
        let mut inner = Self::new(object, name.to_string());
        let taken = read(&mut inner);
        inner.report_unknown();
        let is_whole = inner.wrong.is_empty();
        for (name, reason) in inner.wrong {
            self.wrong.entry(name).or_insert(reason);
        }
        taken.filter(|_| is_whole).map_or(Given::Absent, Given::Value)
    }
}

/// A field's value, or why it is wrong.
pub(crate) type Read<T> = Result<T, String>;

/// How a text may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    /// On one line.
    One,
    /// Over several.
    Many,
}

fn raw_text(value: &RawValue) -> Read<String> {
    serde_json::from_str(value.get()).map_err(|_| "must be a text".to_string())
}

/// Exactly these characters: for values that are checked or compared, not shown.
pub(crate) fn exact(chars: RangeInclusive<usize>) -> impl Fn(&RawValue) -> Read<String> {
    move |value| within(raw_text(value)?, &chars)
}

/// Text for people: control and direction-override characters are left out, blanks at both ends too.
pub(crate) fn text(chars: RangeInclusive<usize>, lines: Lines) -> impl Fn(&RawValue) -> Read<String> {
    move |value| within(clean(&raw_text(value)?, lines), &chars)
}

fn within(text: String, chars: &RangeInclusive<usize>) -> Read<String> {
    if chars.contains(&text.chars().count()) {
        return Ok(text);
    }
    Err(format!("must have {} to {} characters", chars.start(), chars.end()))
}

/// Whether a character can hide or turn around what a text says.
pub(crate) fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

fn clean(text: &str, lines: Lines) -> String {
    let is_kept = |c: &char| !is_deceptive(*c) || (lines == Lines::Many && matches!(c, '\n' | '\t'));
    text.chars().filter(is_kept).collect::<String>().trim().to_string()
}

/// A whole number in a range, from its own digits.
pub(crate) fn number(range: RangeInclusive<u64>) -> impl Fn(&RawValue) -> Read<u64> {
    move |value| {
        let number = value.get().parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

/// As [`number`], for a range that fits.
pub(crate) fn small(range: RangeInclusive<u32>) -> impl Fn(&RawValue) -> Read<u32> {
    let read = number(u64::from(*range.start())..=u64::from(*range.end()));
    move |value| read(value).and_then(|number| u32::try_from(number).map_err(|_| "is too large".into()))
}

/// A decimal number of currency units from 0 to the highest price, as a number or as text.
pub(crate) fn price(value: &RawValue) -> Read<Micros> {
    let digits = value.get().trim_matches('"');
    let price = Micros::parse_units(digits).filter(|price| *price <= Micros::PRICE_MAX);
    price.ok_or_else(|| "must be a decimal number from 0.000001 to 10000 with at most 6 decimals".into())
}

/// One of these words.
pub(crate) fn choice<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(&RawValue) -> Read<T> {
    move |value| {
        let text = raw_text(value).unwrap_or_default();
        choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            format!("must be one of {}", words.join(", "))
        })
    }
}

/// A list of what `item` reads, without repeats.
pub(crate) fn list<T: PartialEq>(
    count: RangeInclusive<usize>,
    item: impl Fn(&RawValue) -> Read<T>,
) -> impl Fn(&RawValue) -> Read<Vec<T>> {
    move |value| {
        let items: Vec<Box<RawValue>> = serde_json::from_str(value.get()).map_err(|_| "must be a list".to_string())?;
        if !count.contains(&items.len()) {
            return Err(format!("must have {} to {} items", count.start(), count.end()));
        }
        let mut read = Vec::with_capacity(items.len());
        for (place, value) in items.iter().enumerate() {
            let value = item(value).map_err(|reason| format!("item {} {reason}", place + 1))?;
            if !read.contains(&value) {
                read.push(value);
            }
        }
        Ok(read)
    }
}

/// `true` or `false`.
pub(crate) fn flag(value: &RawValue) -> Read<bool> {
    value.get().parse().map_err(|_| "must be true or false".into())
}

/// Text that `parse` understands.
pub(crate) fn parsed<T>(parse: impl Fn(&str) -> Read<T>) -> impl Fn(&RawValue) -> Read<T> {
    move |value| parse(&raw_text(value)?)
}

/// An object's fields with the text of their values; names that came twice are kept apart.
#[derive(Debug, Default)]
struct Object {
    given: BTreeMap<String, Box<RawValue>>,
    twice: Vec<String>,
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Object, A::Error> {
                let mut object = Object::default();
                while let Some((name, value)) = members.next_entry::<String, Box<RawValue>>()? {
                    if object.given.insert(name.clone(), value).is_some() {
                        object.twice.push(name);
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields_of(refusal: &Refusal) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_slice(&refusal.body("")).expect("JSON");
        body["error"]["details"]["fields"].as_object().map(|f| f.keys().cloned().collect()).unwrap_or_default()
    }

    fn read_all(fields: &mut Fields) -> Option<(String, Option<u64>, Given<String>)> {
        let name = fields.required("name", text(2..=5, Lines::One));
        let count = fields.optional("count", number(1..=9));
        let label = fields.given("label", text(1..=5, Lines::One));
        let _ = fields.object("inner", |inner| inner.required("flag", number(1..=9)));
        Some((name?, count, label))
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let body = br#"{"count": 10, "label": 5, "typo": 1, "inner": {"flag": 0, "more": 1}, "count": 1}"#;
        let refusal = Fields::read(body, read_all).expect_err("wrong");
        assert_eq!(refusal.code(), Code::ValidationFailed);
        assert_eq!(fields_of(&refusal), ["count", "inner.flag", "inner.more", "label", "name", "typo"]);
    }

    #[test]
    fn null_clears_what_may_be_cleared_and_is_no_value_elsewhere() {
        let read = Fields::read(br#"{"name": "abc", "label": null, "count": null}"#, read_all).expect("good");
        assert_eq!(read, ("abc".to_string(), None, Given::Null));
        let refusal = Fields::read(br#"{"name": null}"#, read_all).expect_err("wrong");
        assert_eq!(fields_of(&refusal), ["name"]);
    }

    #[test]
    fn limits_count_characters_of_what_is_kept() {
        let read = |body: &str| Fields::read(body.as_bytes(), read_all).map(|(name, ..)| name);
        assert_eq!(read(r#"{"name": "äöüßé"}"#).expect("five"), "äöüßé");
        assert_eq!(read("{\"name\": \" a\\u202eb\\u0000 \"}").expect("cleaned"), "ab");
        assert!(read(r#"{"name": "abcdef"}"#).is_err());
        assert!(read(r#"{"name": " a "}"#).is_err());
        assert!(read(r#"{"name": "\ud800xx"}"#).is_err(), "a lone surrogate is no text");
    }

    #[test]
    fn prices_are_read_from_their_digits() {
        let read = |digits: &str| price(&RawValue::from_string(digits.into()).expect("JSON"));
        assert_eq!(read("0.1"), Ok(Micros(100_000)));
        assert_eq!(read("\"0.1\""), Ok(Micros(100_000)));
        assert_eq!(read("10000"), Ok(Micros::PRICE_MAX));
        for digits in ["10000.000001", "1e-3", "-1", "0.0000001", "\"\"", "true", "[1]", "\"1e3\"", "1E1"] {
            assert!(read(digits).is_err(), "{digits}");
        }
    }

    #[test]
    fn what_is_not_json_or_no_object_is_told_apart() {
        let code = |body: &[u8]| Fields::read(body, |_| Some(())).err().map(|refusal| refusal.code());
        assert_eq!(code(b""), None);
        assert_eq!(code(b"{}"), None);
        assert_eq!(code(b"{"), Some(Code::InvalidJson));
        assert_eq!(code(b"{} {}"), Some(Code::InvalidJson));
        assert_eq!(code(b"\xff"), Some(Code::InvalidJson));
        assert_eq!(code(b"[]"), Some(Code::ValidationFailed));
        assert_eq!(code(b"null"), Some(Code::ValidationFailed));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Fields::read(&body, read_all);
        }

        #[test]
        fn no_json_panics(name in "\\PC*", count in any::<i64>()) {
            let body = serde_json::json!({ "name": name, "count": count, "inner": { "flag": count } });
            let _ = Fields::read(body.to_string().as_bytes(), read_all);
        }
    }
}
