//! JSON for people: what fits on a line stays on it, the order of the members is the sender's, and no line is too long.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

const INDENT: usize = 2;
/// How much of the end of a text is shown that is too long for its line.
const END_SHOWN: usize = 16;

/// An object's members in the order in which they came.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// A value whose parts are known.
enum Node {
    Leaf(String),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn read(text: &str) -> serde_json::Result<Self> {
        Ok(match text.bytes().next() {
            Some(b'{') => {
                let Members(members) = serde_json::from_str(text)?;
                let read = |(name, value): (String, Box<RawValue>)| {
                    Ok((serde_json::Value::from(name).to_string(), Self::read(value.get())?))
                };
                Self::Object(members.into_iter().map(read).collect::<serde_json::Result<_>>()?)
            }
            Some(b'[') => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(text)?;
                Self::List(items.iter().map(|item| Self::read(item.get())).collect::<serde_json::Result<_>>()?)
            }
            _ => Self::Leaf(text.to_string()),
        })
    }

    fn on_one_line(&self) -> String {
        match self {
            Self::Leaf(text) => text.clone(),
            Self::List(items) => format!("[{}]", items.iter().map(Self::on_one_line).collect::<Vec<_>>().join(", ")),
            Self::Object(members) => {
                let member = |(name, value): &(String, Self)| format!("{name}: {}", value.on_one_line());
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Writes it behind `line`, which is begun, and whose lines below begin with `margin` spaces.
    fn write(&self, mut line: String, margin: usize, comma: &str, width: usize, out: &mut Vec<String>) {
        let whole = self.on_one_line();
        let room = width.saturating_sub(line.chars().count() + comma.len());
        if whole.chars().count() <= room {
            out.push(format!("{line}{whole}{comma}"));
            return;
        }
        let below = " ".repeat(margin + INDENT);
        let close = match self {
            Self::Leaf(text) => {
                out.push(format!("{line}{}{comma}", cut(text, room)));
                return;
            }
            Self::List(items) => {
                line.push('[');
                out.push(line);
                for (at, item) in items.iter().enumerate() {
                    let comma = if at + 1 < items.len() { "," } else { "" };
                    item.write(below.clone(), margin + INDENT, comma, width, out);
                }
                ']'
            }
            Self::Object(members) => {
                line.push('{');
                out.push(line);
                for (at, (name, value)) in members.iter().enumerate() {
                    let comma = if at + 1 < members.len() { "," } else { "" };
                    value.write(format!("{below}{name}: "), margin + INDENT, comma, width, out);
                }
                '}'
            }
        };
        out.push(format!("{}{close}{comma}", " ".repeat(margin)));
    }
}

/// A text's beginning and its end, which together tell it from others.
fn cut(text: &str, room: usize) -> String {
    let length = text.chars().count();
    let end = END_SHOWN.min(room / 2);
    let begin: String = text.chars().take(room.saturating_sub(end + 1)).collect();
    let end: String = text.chars().skip(length.saturating_sub(end)).collect();
    format!("{begin}\u{2026}{end}")
}

/// The lines of a body at most `width` wide; a body that is no JSON is shown as the text it is.
pub(crate) fn pretty(body: &[u8], width: usize) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    let node = serde_json::from_str::<&RawValue>(&text).and_then(|whole| Node::read(whole.get()));
    let Ok(node) = node else { return text.lines().map(str::to_string).collect() };
    let mut lines = Vec::new();
    node.write(String::new(), 0, "", width, &mut lines);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_and_the_digits() {
        let lines = pretty(br#"{"b":1.10,"a":{"z":[1,2],"y":"x"},"c":{}}"#, 24);
        assert_eq!(
            lines,
            ["{", "  \"b\": 1.10,", "  \"a\": {", "    \"z\": [1, 2],", "    \"y\": \"x\"", "  },", "  \"c\": {}", "}"]
        );
        assert_eq!(pretty(br#"{"b":1.10,"a":[true,null]}"#, 80), ["{\"b\": 1.10, \"a\": [true, null]}"]);
    }

    #[test]
    fn no_line_is_too_long() {
        let body = serde_json::json!({"long": "grün ".repeat(50), "list": ["a".repeat(90), {"deep": "b".repeat(90)}]});
        let lines = pretty(body.to_string().as_bytes(), 40);
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:#?}");
    }

    #[test]
    fn a_long_text_keeps_its_ends() {
        let text = format!("\"http://127.0.0.1/{}/pay\"", "x".repeat(100));
        assert_eq!(cut(&text, 40), "\"http://127.0.0.1/xxxxx…xxxxxxxxxxx/pay\"");
    }

    #[test]
    fn what_is_no_json_is_shown_all_the_same() {
        assert_eq!(pretty(b"not\nJSON", 40), ["not", "JSON"]);
        assert!(pretty(b"", 40).is_empty());
    }
}
