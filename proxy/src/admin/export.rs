//! `crochet export --ndjson`: every record in words, a line of JSON each, from a stopped store or a running one.

use std::io::{IsTerminal as _, Write};

use anyhow::{Result, ensure};
use bytes::Bytes;
use config::Config;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    Hand, Way,
    bar::Bar,
    channel::PIECES,
    order::{Errand, Order},
};

/// Writes every record to the standard output.
///
/// # Errors
/// Why not; without its last line, `end`, what was written is not the whole.
pub fn export(config: &Config, user: Option<String>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let who = user.unwrap_or_else(|| "unknown".into());
        let hand = Hand { way: Way::find(config)?, who, why: "export".into() };
        let told = hand.export(std::io::stdout().lock()).await;
        hand.way.close().await?;
        told
    })
}

impl Hand {
    async fn export(&self, mut out: impl Write) -> Result<()> {
        let errand = Errand { who: self.who.clone(), why: self.why.clone(), order: Order::Export };
        let mut seen = Seen::default();
        let mut take = |piece: &[u8]| {
            seen.note(piece);
            Ok(out.write_all(piece)?)
        };
        match &self.way {
            Way::There(operator) => operator.export(&errand, take).await?,
            Way::Here(desk) => {
                let (lines, pieces) = mpsc::channel::<Bytes>(PIECES);
                let taken = async {
                    // It goes with this: whoever tells must learn that nobody listens.
                    let mut pieces = pieces;
                    while let Some(piece) = pieces.recv().await {
                        take(&piece)?;
                    }
                    anyhow::Ok(())
                };
                let (told, taken) = tokio::join!(desk.export(&errand, lines), taken);
                taken?;
                told?;
            }
        }
        out.flush()?;
        ensure!(seen.end(), "the gateway ended before the export did: what came is not the whole");
        Ok(())
    }
}

/// What has come so far.
#[derive(Default)]
struct Seen {
    /// Drawn where lines do not run over the same terminal.
    bar: Option<Bar>,
    /// The last line, when it came in one piece.
    last: Vec<u8>,
}

impl Seen {
    fn note(&mut self, piece: &[u8]) {
        let mut lines = piece.split_inclusive(|byte| *byte == b'\n');
        let mut about = None;
        if self.bar.is_none() && !std::io::stdout().is_terminal() {
            let first: Value = lines.next().and_then(|line| serde_json::from_slice(line).ok()).unwrap_or_default();
            about = first.get("about").and_then(Value::as_u64);
            self.bar = Some(Bar::new("records"));
        }
        if let Some(bar) = &mut self.bar {
            bar.advance(piece.iter().filter(|byte| **byte == b'\n').count() as u64, about);
        }
        let last = piece.split_inclusive(|byte| *byte == b'\n').next_back().unwrap_or_default();
        // A line may come in two pieces over a connection.
        if self.last.last() == Some(&b'\n') || piece.len() > last.len() {
            self.last.clear();
        }
        self.last.extend_from_slice(last);
    }

    /// Whether the last line says that nothing is missing.
    fn end(self) -> bool {
        self.bar.into_iter().for_each(Bar::end);
        let last: Value = serde_json::from_slice(&self.last).unwrap_or_default();
        last.get("kind").and_then(Value::as_str) == Some("end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_known_however_the_lines_are_cut() {
        let text = b"{\"kind\":\"export\"}\n{\"kind\":\"payment\"}\n{\"kind\":\"end\"}\n";
        for size in 1..=text.len() {
            let mut seen = Seen::default();
            text.chunks(size).for_each(|piece| seen.note(piece));
            assert!(seen.end(), "in pieces of {size}");
            let mut cut = Seen::default();
            text[..text.len() - 2].chunks(size).for_each(|piece| cut.note(piece));
            assert!(!cut.end(), "in pieces of {size}");
        }
    }
}
