//! What the demo writes: numbered steps, requests behind `>`, answers behind `<`, in plain text of 100 columns.

use std::io::{self, Write};

use crate::client::{
    http::{Answer, Request},
    pretty::pretty,
};

const WIDTH: usize = 100;
/// How much of a secret is shown behind what it begins with.
const SECRET_SHOWN: usize = 6;
const SECRETS: [&str; 2] = ["am_k_", "whsec_"];

/// Writes, and knows which step it is at.
pub(super) struct Show<W> {
    out: W,
    number: u32,
    title: &'static str,
}

impl<W: Write> Show<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, number: 0, title: "begin" }
    }

    /// The step that is under way, in words.
    pub(super) fn place(&self) -> String {
        format!("step {} of the demo failed: {}", self.number, self.title)
    }

    /// Begins a step.
    pub(super) fn step(&mut self, title: &'static str) -> io::Result<()> {
        self.number += 1;
        self.title = title;
        let heading = format!("{:2}. {title} ", self.number);
        writeln!(self.out, "\n{heading:-<WIDTH$}")?;
        self.out.flush()
    }

    /// Lines of explanation.
    pub(super) fn note(&mut self, lines: &[&str]) -> io::Result<()> {
        writeln!(self.out)?;
        lines.iter().try_for_each(|line| writeln!(self.out, "  {line}"))
    }

    /// Lines that are to be copied: as they are, secrets too.
    pub(super) fn verbatim(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    /// A request as it is sent, its API key shortened.
    pub(super) fn request(&mut self, request: &Request<'_>) -> io::Result<()> {
        writeln!(self.out, "\n> {} {}", request.method, request.path)?;
        for (name, value) in request.fields() {
            writeln!(self.out, "> {}", without_secrets(&format!("{name}: {value}")))?;
        }
        self.body("> ", request.body.as_deref().unwrap_or_default().as_bytes())
    }

    /// An answer: status, the header fields that are the gateway's own, and the body.
    pub(super) fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        writeln!(self.out, "< {} {}", answer.status, answer.reason)?;
        for (name, value) in answer.fields.iter().filter(|(name, _)| is_ours(name)) {
            writeln!(self.out, "< {name}: {value}")?;
        }
        self.body("< ", &answer.body)?;
        self.out.flush()
    }

    fn body(&mut self, margin: &str, body: &[u8]) -> io::Result<()> {
        let shown = without_secrets(&String::from_utf8_lossy(body));
        for line in pretty(shown.as_bytes(), WIDTH - margin.len()) {
            writeln!(self.out, "{margin}{line}")?;
        }
        Ok(())
    }
}

fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("x-crochet-") || matches!(name.as_str(), "payment-required" | "retry-after")
}

/// The text with every API key and signing secret in it cut down to its beginning.
fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, mark)) = SECRETS.iter().filter_map(|mark| Some((rest.find(mark)?, *mark))).min() {
        let (before, secret) = rest.split_at(at + mark.len());
        let length = secret.find(|c: char| !c.is_ascii_alphanumeric() && !"+/=".contains(c)).unwrap_or(secret.len());
        let (secret, after) = secret.split_at(length);
        shown.push_str(before);
        shown.extend(secret.chars().take(SECRET_SHOWN));
        if length > SECRET_SHOWN {
            shown.push('\u{2026}');
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_cut() {
        let text = "{\"a\":\"whsec_abcdefgh+/=\",\"b\":\"Bearer am_k_0123456789\",\"c\":\"am_k_0123\"}";
        let shown = "{\"a\":\"whsec_abcdef…\",\"b\":\"Bearer am_k_012345…\",\"c\":\"am_k_0123\"}";
        assert_eq!(without_secrets(text), shown);
    }

    #[test]
    fn a_call_is_readable() {
        let mut out = Vec::new();
        let mut show = Show::new(&mut out);
        show.step("Ask").expect("written");
        let body = Some("{\"input\":\"x\"}".to_string());
        let key = Some("am_k_0123456789");
        show.request(&Request { method: "POST", path: "/a".into(), key, body, ..Request::default() }).expect("written");
        assert_eq!(show.place(), "step 1 of the demo failed: Ask");
        let heading = format!(" 1. Ask {}", "-".repeat(WIDTH - 8));
        let request =
            "> POST /a\n> Authorization: Bearer am_k_012345…\n> Content-Type: application/json\n> {\"input\": \"x\"}";
        assert_eq!(String::from_utf8(out).expect("text"), format!("\n{heading}\n\n{request}\n"));
    }
}
