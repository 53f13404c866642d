//! Words to write JSON schemas with. What has no parts carries an example, so that the example of a whole is put
//! together from its parts and cannot say anything else than the schema does.

use serde_json::{Map, Value, json};

/// Where schemas that have a name stand.
pub(super) const SCHEMAS: &str = "#/components/schemas/";

/// A schema that has a name.
pub(super) fn named(name: &str) -> Value {
    json!({ "$ref": format!("{SCHEMAS}{name}") })
}

/// A text.
pub(super) fn text(about: &str, example: &str) -> Value {
    json!({ "type": "string", "description": about, "examples": [example] })
}

/// A text of so many characters.
pub(super) fn text_of(shortest: u64, longest: u64, about: &str, example: &str) -> Value {
    let mut text = text(about, example);
    set(&mut text, "minLength", shortest.into());
    set(&mut text, "maxLength", longest.into());
    text
}

/// A text that a regular expression describes.
pub(super) fn pattern(pattern: &str, about: &str, example: &str) -> Value {
    let mut text = text(about, example);
    set(&mut text, "pattern", pattern.into());
    text
}

/// An id of an entity: a UUID that begins with the time.
pub(super) fn id(about: &str) -> Value {
    json!({ "type": "string", "format": "uuid", "description": about, "examples": ["01890a5d-ac96-774b-bcce-b302099a8057"] })
}

/// A moment: UTC with milliseconds.
pub(super) fn moment(about: &str) -> Value {
    json!({ "type": "string", "format": "date-time", "description": about, "examples": ["2026-01-31T12:00:00.000Z"] })
}

/// A whole number that is not negative.
pub(super) fn count(about: &str, example: u64) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": about, "examples": [example] })
}

/// A whole number in a range.
pub(super) fn number(least: u64, most: u64, about: &str, example: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most, "description": about, "examples": [example] })
}

/// A decimal number.
pub(super) fn decimal(about: &str, example: f64) -> Value {
    json!({ "type": "number", "minimum": 0, "description": about, "examples": [example] })
}

/// Yes or no.
pub(super) fn flag(about: &str, example: bool) -> Value {
    json!({ "type": "boolean", "description": about, "examples": [example] })
}

/// One of these words.
pub(super) fn word(about: &str, words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words, "description": about })
}

/// Always this word.
pub(super) fn just(about: &str, word: &str) -> Value {
    json!({ "type": "string", "const": word, "description": about })
}

/// Any JSON value.
pub(super) fn anything(about: &str, example: Value) -> Value {
    json!({ "description": about, "examples": [example] })
}

/// An object with members of any name.
pub(super) fn open_object(about: &str, example: Value) -> Value {
    json!({ "type": "object", "description": about, "additionalProperties": true, "examples": [example] })
}

/// A list.
pub(super) fn list(about: &str, items: Value) -> Value {
    json!({ "type": "array", "description": about, "items": items })
}

/// A list of so many things.
pub(super) fn list_of(fewest: u64, most: u64, about: &str, items: Value) -> Value {
    json!({ "type": "array", "description": about, "items": items, "minItems": fewest, "maxItems": most })
}

/// The same, or nothing.
pub(super) fn or_null(mut schema: Value) -> Value {
    if schema.get("$ref").is_some() {
        return json!({ "anyOf": [schema, { "type": "null" }] });
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
    if let Some(kind) = schema.get("type").cloned() {
        set(&mut schema, "type", json!([kind, "null"]));
    }
    schema
}

/// An object. A member whose name ends in `?` may be absent.
pub(super) fn object(about: &str, members: &[(&str, Value)]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, schema) in members {
        let bare = name.trim_end_matches('?');
        if bare == *name {
            required.push(Value::from(bare));
        }
        properties.insert(bare.into(), schema.clone());
    }
    let mut object = json!({ "type": "object", "description": about, "properties": properties });
    if !required.is_empty() {
        set(&mut object, "required", required.into());
    }
    object
}

/// An object that is sent to us: a member of another name is refused.
pub(super) fn input(about: &str, members: &[(&str, Value)]) -> Value {
    let mut object = object(about, members);
    set(&mut object, "additionalProperties", false.into());
    object
}

/// The members of `base`, and these besides.
pub(super) fn with(base: Value, about: &str, members: &[(&str, Value)]) -> Value {
    let more = object(about, members);
    let mut whole = base;
    for key in ["properties", "required"] {
        match (whole.get_mut(key), more.get(key)) {
            (Some(Value::Object(to)), Some(Value::Object(from))) => to.extend(from.clone()),
            (Some(Value::Array(to)), Some(Value::Array(from))) => to.extend(from.clone()),
            (None, Some(from)) => set(&mut whole, key, from.clone()),
            _ => {}
        }
    }
    set(&mut whole, "description", about.into());
    whole
}

/// Sets a member of a schema.
pub(super) fn set(schema: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = schema {
        members.insert(name.into(), value);
    }
}

/// What a schema describes, as an example. Members that may be absent are shown too.
pub(super) fn example(schema: &Value, schemas: &Map<String, Value>) -> Value {
    let first = |name: &str| schema.get(name).and_then(Value::as_array).and_then(|all| all.first()).cloned();
    if let Some(example) = first("examples").or_else(|| schema.get("const").cloned()).or_else(|| first("enum")) {
        return example;
    }
    if let Some(name) = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(SCHEMAS)) {
        return schemas.get(name).map_or(Value::Null, |schema| example(schema, schemas));
    }
    if let Some(first) = first("anyOf").or_else(|| first("oneOf")) {
        return example(&first, schemas);
    }
    if let Some(items) = schema.get("items") {
        return json!([example(items, schemas)]);
    }
    match schema.get("properties") {
        Some(Value::Object(members)) => {
            members.iter().map(|(name, schema)| (name.clone(), example(schema, schemas))).collect()
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_made_of_its_parts() {
        let mut schemas = Map::new();
        schemas.insert("Inner".into(), object("", &[("word", word("", &["a", "b"])), ("n?", count("", 5))]));
        let outer = object("", &[("all", list("", named("Inner"))), ("none", or_null(named("Inner")))]);
        let inner = json!({ "word": "a", "n": 5 });
        assert_eq!(example(&outer, &schemas), json!({ "all": [inner], "none": inner }));
        assert_eq!(schemas["Inner"]["required"], json!(["word"]));
    }

    #[test]
    fn what_may_be_nothing_says_so() {
        assert_eq!(or_null(count("", 1))["type"], json!(["integer", "null"]));
        assert_eq!(or_null(word("", &["a"]))["enum"], json!(["a", null]));
        assert_eq!(or_null(named("A"))["anyOf"][1], json!({ "type": "null" }));
    }
}
