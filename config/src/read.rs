//! Lays tables over each other and reads typed values from the result, noting every problem on the way.

use std::{cell::RefCell, net::SocketAddr, ops::RangeInclusive, path::Path, time::Duration};

use toml::{Table, Value};

use crate::{Problem, Secret, secret, units};

const PREFIX: &str = "CROCHET__";

/// Lays a file over `table`. The defaults are the schema: a key that they lack is unknown.
pub(crate) fn overlay_file(table: &mut Table, text: &str, problems: &mut Vec<Problem>) {
    match toml::from_str::<Table>(text) {
        Ok(over) => overlay(table, over, "", problems),
        Err(error) => problems.push(Problem {
            key: "--config".into(),
            value: String::new(),
            reason: format!("is not TOML: {}", error.message()),
        }),
    }
}

fn overlay(table: &mut Table, over: Table, path: &str, problems: &mut Vec<Problem>) {
    for (name, value) in over {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let is_secret = secret::is_secret(table, &name);
        match (table.get_mut(&name), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => overlay(inner, value, &key, problems),
            // As `crochet config` shows one that was not given.
            (Some(_), Value::String(none)) if is_secret && none.is_empty() => {}
            (Some(_), _) if is_secret => problems.push(Problem {
                reason: format!("a secret stands in the environment, or in a file that {key}_file names"),
                key,
                value: secret::HIDDEN.into(),
            }),
            (Some(known), value) if known.type_str() == value.type_str() => *known = value,
            (Some(known), value) => problems.push(Problem {
                key,
                value: value.to_string(),
                reason: format!("must be a {}, not a {}", known.type_str(), value.type_str()),
            }),
            (None, value) => problems.push(Problem {
                value: secret::shown(&name, value.to_string()),
                key,
                reason: format!("unknown key{}", nearest(table, &name)),
            }),
        }
    }
}

/// Lays the environment's `CROCHET__SECTION__KEY` variables over `table`; text is read as the type that stands there.
pub(crate) fn overlay_environment(
    table: &mut Table,
    environment: impl IntoIterator<Item = (String, String)>,
    problems: &mut Vec<Problem>,
) {
    for (variable, text) in environment {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        let path: Vec<&str> = rest.split("__").collect();
        if let Err(reason) = set(table, &path, &text) {
            let value = secret::shown(&variable, text);
            problems.push(Problem { key: variable, value, reason });
        }
    }
}

fn set(table: &mut Table, path: &[&str], text: &str) -> Result<(), String> {
    let [name, rest @ ..] = path else { return Err("names no key".into()) };
    // Environment names are upper case by custom; keys are found whatever their case.
    let known: Option<String> =
        table.keys().find(|key| key.replace('-', "_").eq_ignore_ascii_case(&name.replace('-', "_"))).cloned();
    let Some(value) = known.as_ref().and_then(|name| table.get_mut(name)) else {
        return Err(format!("unknown key{}", nearest(table, &name.to_lowercase())));
    };
    match (value, rest) {
        (Value::Table(inner), rest) if !rest.is_empty() => set(inner, rest, text),
        (Value::Table(_), _) => Err("is a section; name a key in it".into()),
        (_, rest) if !rest.is_empty() => Err("is a value, not a section".into()),
        (Value::String(value), _) => {
            *value = text.to_string();
            Ok(())
        }
        (Value::Integer(value), _) => {
            *value = text.parse().map_err(|_| "must be a whole number".to_string())?;
            Ok(())
        }
        (Value::Boolean(value), _) => {
            *value = text.parse().map_err(|_| "must be true or false".to_string())?;
            Ok(())
        }
        (Value::Array(value), _) => {
            *value = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| Value::String(item.into()))
                .collect();
            Ok(())
        }
        _ => Err("cannot be set from the environment".into()),
    }
}

fn nearest(table: &Table, name: &str) -> String {
    let shared = |key: &str| key.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    match table.keys().map(|key| (shared(key), key)).max() {
        Some((length, key)) if length >= 3 => format!("; did you mean {key}?"),
        _ => String::new(),
    }
}

/// Reads typed values by dotted key. A bad one is noted and a stand-in returned, so that all are found in one go.
pub(crate) struct Reader<'a> {
    table: &'a Table,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(table: &'a Table, problems: Vec<Problem>) -> Self {
        Self { table, problems: RefCell::new(problems) }
    }

    pub(crate) fn problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn find(&self, key: &str) -> Option<&'a Value> {
        let mut parts = key.split('.');
        let mut value = self.table.get(parts.next()?)?;
        for part in parts {
            value = value.as_table()?.get(part)?;
        }
        Some(value)
    }

    pub(crate) fn problem(&self, key: &str, value: impl ToString, reason: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { key: key.into(), value: value.to_string(), reason: reason.into() });
    }

    pub(crate) fn text(&self, key: &str) -> String {
        match self.find(key) {
            Some(Value::String(text)) => text.clone(),
            _ => {
                self.problem(key, "", "is missing from the defaults");
                String::new()
            }
        }
    }

    /// A secret: the knob's own text, which the environment may give, or what stands in the file that its twin
    /// `…_file` names; empty when neither is given. `check` says what would be right, and sees what nobody else does.
    pub(crate) fn secret(&self, key: &str, check: impl Fn(&str) -> Result<(), String>) -> Secret {
        let (given, file_key) = (Secret::new(self.text(key)), format!("{key}_file"));
        let file = self.text(&file_key);
        let (key, found) = match (given.is_empty(), file.is_empty()) {
            (true, true) => return given,
            (false, false) => {
                self.problem(&file_key, file, format!("give this or {key}, not both"));
                return given;
            }
            (false, true) => (key, Ok(given)),
            (true, false) => (file_key.as_str(), secret::read_file(Path::new(&file))),
        };
        let checked = found.and_then(|secret| match check(secret.expose()) {
            Ok(()) => Ok(secret),
            Err(wanted) => Err(format!("must be {wanted}")),
        });
        checked.unwrap_or_else(|reason| {
            self.problem(key, if file.is_empty() { secret::HIDDEN } else { &file }, reason);
            Secret::default()
        })
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.find(key).and_then(Value::as_bool).unwrap_or_default()
    }

    /// Text read by `parse`; its error says what would be right.
    pub(crate) fn parsed<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>, stand_in: T) -> T {
        let text = self.text(key);
        parse(&text).unwrap_or_else(|wanted| {
            self.problem(key, format!("{text:?}"), format!("must be {wanted}"));
            stand_in
        })
    }

    /// A list of texts, each read by `parse`.
    pub(crate) fn list<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let Some(Value::Array(items)) = self.find(key) else {
            self.problem(key, "", "is missing from the defaults");
            return Vec::new();
        };
        let read = |item: &Value| {
            let text = item.as_str().unwrap_or_default();
            parse(text).map_err(|wanted| self.problem(key, item, format!("must be {wanted}"))).ok()
        };
        items.iter().filter_map(read).collect()
    }

    pub(crate) fn address(&self, key: &str) -> SocketAddr {
        let wanted = |_| "an address and port such as \"127.0.0.1:8080\"".to_string();
        self.parsed(key, |text| text.parse().map_err(wanted), SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(crate) fn count(&self, key: &str, range: RangeInclusive<u64>) -> u64 {
        let value = self.find(key).and_then(Value::as_integer).unwrap_or_default();
        match u64::try_from(value).ok().filter(|value| range.contains(value)) {
            Some(value) => value,
            None => {
                self.problem(key, value, format!("must be from {} to {}", range.start(), range.end()));
                *range.start()
            }
        }
    }

    pub(crate) fn number(&self, key: &str, range: RangeInclusive<u32>) -> u32 {
        u32::try_from(self.count(key, u64::from(*range.start())..=u64::from(*range.end()))).unwrap_or(*range.start())
    }

    pub(crate) fn size(&self, key: &str, range: RangeInclusive<usize>) -> usize {
        let wide = u64::try_from(*range.start()).unwrap_or(0)..=u64::try_from(*range.end()).unwrap_or(u64::MAX);
        usize::try_from(self.count(key, wide)).unwrap_or(*range.start())
    }

    pub(crate) fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Duration {
        let value = self.parsed(key, units::duration, *range.start());
        if !range.contains(&value) {
            let (from, to) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
            self.problem(key, humantime::format_duration(value), format!("must be from {from} to {to}"));
        }
        value
    }

    pub(crate) fn bytes(&self, key: &str, range: RangeInclusive<u64>) -> u64 {
        let value = self.parsed(key, units::bytes, *range.start());
        if !range.contains(&value) {
            self.problem(key, value, format!("must be from {} to {} bytes", range.start(), range.end()));
        }
        value
    }

    pub(crate) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)], stand_in: T) -> T {
        let text = self.text(key);
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, choice)) => *choice,
            None => {
                let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
                self.problem(key, format!("{text:?}"), format!("must be {}", names.join(" or ")));
                stand_in
            }
        }
    }

    /// A section whose keys are names of the reader's choosing, each with a whole number from 0 on.
    pub(crate) fn numbers(&self, key: &str) -> Vec<(String, u64)> {
        let Some(Value::Table(section)) = self.find(key) else { return Vec::new() };
        section.keys().map(|name| (name.clone(), self.count(&format!("{key}.{name}"), 0..=1_000_000_000_000))).collect()
    }
}
