//! How an event becomes a line: one line an event, whatever is in it. Values are cut, and control characters and those
//! that turn the reading direction are escaped, so that no text from outside can forge a line or play with a terminal.

use std::fmt::{self, Write as _};

use config::LogFormat;
use storage::model::Clock;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// A value's bytes at most.
const VALUE_MAX: usize = 256;
/// What stands for the rest.
const CUT: char = '…';

/// Writes events as lines.
pub(super) struct Lines {
    format: LogFormat,
    clock: Clock,
}

impl Lines {
    /// In this format.
    pub(super) fn new(format: LogFormat) -> Self {
        Self { format, clock: Clock::system() }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line { message: String::new(), fields: String::new(), format: self.format };
        event.record(&mut line);
        let (now, meta) = (self.clock.now(), event.metadata());
        let (level, target, Line { message, fields, .. }) = (meta.level(), meta.target(), line);
        match self.format {
            LogFormat::Json => {
                let message = if message.is_empty() { "\"\"" } else { message.as_str() };
                writeln!(
                    writer,
                    "{{\"timestamp\":\"{now}\",\"level\":\"{level}\",\"target\":\"{target}\",\"message\":{message}{fields}}}"
                )
            }
            LogFormat::Pretty => writeln!(writer, "{now} {level:>5} {target}: {message}{fields}"),
        }
    }
}

struct Line {
    message: String,
    fields: String,
    format: LogFormat,
}

impl Line {
    fn add(&mut self, field: &Field, value: &str, is_text: bool) {
        let (name, is_message) = (field.name(), field.name() == "message");
        let out = if is_message { &mut self.message } else { &mut self.fields };
        match self.format {
            LogFormat::Json => {
                if !is_message {
                    let _ = write!(out, ",\"{name}\":");
                }
                if is_text { quoted(out, value) } else { out.push_str(value) }
            }
            LogFormat::Pretty => {
                if !is_message {
                    let _ = write!(out, " {name}=");
                }
                plain(out, value);
            }
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Bounded(String::new());
        // What is left out would be cut.
        let _ = write!(text, "{value:?}");
        self.add(field, &text.0, true);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value, true);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, &value.to_string(), false);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, &value.to_string(), false);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, if value { "true" } else { "false" }, false);
    }
}

/// Takes a little more than a value may have, and no more: a long one is not written down first.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (2 * VALUE_MAX).saturating_sub(self.0.len());
        let end = text.floor_char_boundary(room);
        self.0.push_str(text.get(..end).unwrap_or_default());
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// A value's characters, cut.
fn cut(value: &str) -> impl Iterator<Item = char> {
    let end = value.floor_char_boundary(VALUE_MAX);
    let rest = (end < value.len()).then_some(CUT);
    value.get(..end).unwrap_or_default().chars().chain(rest)
}

/// A character that does more than being read: controls, line separators, and those that turn the direction.
fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// As a JSON string.
fn quoted(out: &mut String, value: &str) {
    out.push('"');
    for character in cut(value) {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            active if is_active(active) => {
                let _ = write!(out, "\\u{:04x}", u32::from(active));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// For the eye: bare.
fn plain(out: &mut String, value: &str) {
    for character in cut(value) {
        if is_active(character) { out.extend(character.escape_default()) } else { out.push(character) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, work: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt().event_format(Lines::new(format)).with_writer(move || writer.clone());
        tracing::subscriber::with_default(lines.finish(), work);
        let bytes = sink.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    const HOSTILE: &str = "a\r\n2026-01-01 ERROR forged\u{1b}[2J\u{0}\u{7f}\u{9b}\u{202e}txt\u{2028}\"quote\\";

    fn hostile_events() {
        let long = "ä".repeat(4000);
        tracing::info!(who = HOSTILE, why = %HOSTILE, what = ?HOSTILE, long, bytes = ?[7u8; 4000], n = 7, ok = true, "{HOSTILE}");
        tracing::error!("{long}");
    }

    #[test]
    fn h_an_event_is_one_line_whatever_is_in_it() {
        for format in [LogFormat::Json, LogFormat::Pretty] {
            let text = logged(format, hostile_events);
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.ends_with('\n') && text.len() < 4 << 10, "values are cut: {} bytes", text.len());
            assert!(!text.replace('\n', "").chars().any(is_active), "{text:?}");
        }
    }

    #[test]
    fn h_json_lines_are_json_with_values_cut_at_256_bytes() {
        let text = logged(LogFormat::Json, hostile_events);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        for field in ["who", "why", "message"] {
            assert_eq!(first[field], HOSTILE, "{field}: escaped, not lost");
        }
        assert_eq!((&first["n"], &first["ok"], &first["level"]), (&7.into(), &true.into(), &"INFO".into()));
        for field in ["long", "bytes"] {
            let value = first[field].as_str().expect("text");
            assert!(value.ends_with(CUT) && value.len() <= VALUE_MAX + CUT.len_utf8(), "{field}: {value}");
        }
    }
}
