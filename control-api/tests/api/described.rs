//! Holds answers to what the OpenAPI document says of them: their status, media type, headers and every member of their
//! body. A member that the document does not name is as wrong as one that is missing.

use std::sync::OnceLock;

use serde_json::{Map, Value};

/// An answer, and the question to it.
pub struct Exchange<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub status: u16,
    pub content_type: &'a str,
    pub headers: &'a dyn Fn(&str) -> bool,
    pub body: &'a Value,
}

/// The document, as the code makes it.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::from_str(&control_api::openapi("http://gateway.test:8080")).expect("JSON"))
}

/// Panics with what is not as the document says.
#[track_caller]
pub fn check(exchange: &Exchange<'_>) {
    if let Err(wrong) = compare(exchange) {
        panic!("{} {} {}: {wrong}: {}", exchange.method, exchange.path, exchange.status, exchange.body);
    }
}

fn compare(exchange: &Exchange<'_>) -> Result<(), String> {
    let code = exchange.body["error"]["code"].as_str().unwrap_or_default();
    let Some(methods) = methods(exchange.path) else {
        // Nothing is there: framing and host are looked at before the path is.
        let expected = ["NOT_FOUND", "INVALID_REQUEST", "MISDIRECTED_REQUEST"].contains(&code);
        return if expected { Ok(()) } else { Err("a path that is not described".into()) };
    };
    let method = exchange.method.to_ascii_lowercase();
    let Some(operation) = methods.get(&method) else {
        // The gateway's own route is not served behind the data plane.
        let expected = method == "head" || exchange.status == 405 || code == "NOT_FOUND";
        return if expected { Ok(()) } else { Err("a method that is not described".into()) };
    };
    let response = operation["responses"].get(exchange.status.to_string()).ok_or("a status that is not described")?;
    let response = match response["$ref"].as_str() {
        Some(path) => document().pointer(path.trim_start_matches('#')).ok_or("a reference that leads nowhere")?,
        None => response,
    };
    for name in response["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
        let header = &document()["components"]["headers"][name];
        if header["required"] == true && !(exchange.headers)(name) {
            return Err(format!("without {name}"));
        }
    }
    let content = response["content"].as_object().ok_or("no content is described")?;
    let media = content.get(exchange.content_type).ok_or_else(|| format!("is {}", exchange.content_type))?;
    if exchange.content_type == "application/json" {
        matches(&media["schema"], exchange.body, true, "$")?;
    }
    Ok(())
}

/// The methods of the path in the document that this one is an instance of: the one with the fewest braces.
fn methods(path: &str) -> Option<&'static Map<String, Value>> {
    let path = path.split('?').next().unwrap_or_default();
    let is_instance = |template: &str| {
        let (wanted, given): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
        wanted.len() == given.len()
            && wanted
                .iter()
                .zip(&given)
                .all(|(wanted, given)| wanted == given || (wanted.starts_with('{') && !given.is_empty()))
    };
    let paths = document()["paths"].as_object().expect("paths");
    let found = paths.iter().filter(|(template, _)| is_instance(template));
    found.min_by_key(|(template, _)| template.matches('{').count()).and_then(|(_, methods)| methods.as_object())
}

/// Whether a value is as a schema says; `closed`: and has nothing else.
fn matches(schema: &Value, value: &Value, closed: bool, at: &str) -> Result<(), String> {
    if let Some(path) = schema["$ref"].as_str() {
        let named =
            document().pointer(path.trim_start_matches('#')).ok_or_else(|| format!("{at}: {path} leads nowhere"))?;
        return matches(named, value, closed, at);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().enumerate().try_for_each(|(n, part)| matches(part, value, closed && n == 0, at));
    }
    for name in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[name].as_array() {
            let tried: Vec<_> = choices.iter().map(|choice| matches(choice, value, closed, at)).collect();
            return if tried.iter().any(Result::is_ok) { Ok(()) } else { Err(format!("{at}: none of {tried:?}")) };
        }
    }
    if let Some(fixed) = schema.get("const")
        && fixed != value
    {
        return Err(format!("{at}: must be {fixed}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Err(format!("{at}: {value} is none of the words"));
    }
    if !has_type(&schema["type"], value) {
        return Err(format!("{at}: {value} is not {}", schema["type"]));
    }
    in_range(schema, value, at)?;
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        values.iter().enumerate().try_for_each(|(n, value)| matches(items, value, closed, &format!("{at}[{n}]")))?;
    }
    let Some(members) = value.as_object() else { return Ok(()) };
    has_members(schema, members, closed, at)
}

fn has_members(schema: &Value, members: &Map<String, Value>, closed: bool, at: &str) -> Result<(), String> {
    let Some(known) = schema["properties"].as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            return Err(format!("{at}: without {name}"));
        }
    }
    for (name, value) in members {
        match known.get(name) {
            Some(schema) => matches(schema, value, closed, &format!("{at}.{name}"))?,
            None if closed && schema["additionalProperties"] != true => {
                return Err(format!("{at}: {name} is not described"));
            }
            None => {}
        }
    }
    Ok(())
}

fn has_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    };
    match wanted {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

fn in_range(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(number) = value.as_f64() else { return Ok(()) };
    let above = schema["minimum"].as_f64().is_none_or(|least| number >= least);
    let below = schema["maximum"].as_f64().is_none_or(|most| number <= most);
    if above && below { Ok(()) } else { Err(format!("{at}: {number} is out of range")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Exchange, Value, compare};

    fn health(status: u16, content_type: &str, body: &Value) -> Result<(), String> {
        let headers = |_: &str| true;
        compare(&Exchange { method: "GET", path: "/api/v1/health", status, content_type, headers: &headers, body })
    }

    #[test]
    fn what_is_not_described_is_found() {
        let mut good = json!({ "success": true, "data": {
            "status": "ok", "version": "1", "mode": "dev", "uptime_seconds": 1,
            "checks": { "store": "ok", "payment_provider": "ok", "actors": "ok" },
        } });
        assert_eq!(health(200, "application/json", &good), Ok(()));
        assert!(health(200, "text/html", &good).is_err());
        assert!(health(418, "application/json", &good).is_err());
        for (pointer, wrong) in [
            ("/data/status", json!("fine")),
            ("/data/uptime_seconds", json!(-1)),
            ("/data/version", json!(1)),
            ("/success", json!(false)),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).expect("there") = wrong;
            assert!(health(200, "application/json", &bad).is_err(), "{pointer}");
        }
        good["data"]["checks"]["more"] = json!("ok");
        assert!(health(200, "application/json", &good).is_err_and(|wrong| wrong.contains("more is not described")));
        good["data"]["checks"] = json!({ "store": "ok", "actors": "ok" });
        assert!(health(200, "application/json", &good).is_err_and(|wrong| wrong.contains("without payment_provider")));
    }
}
