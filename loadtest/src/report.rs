//! What a run says: a few lines for a person, then each figure with its target and verdict.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write},
};

use crate::{
    figures::{Figure, complaints, quantile},
    play::Played,
};

/// Differences of one kind shown; the rest is counted.
const SHOWN: usize = 10;

/// The report of a run.
///
/// # Errors
/// None: text has always room.
pub fn report(played: &Played, figures: &[Figure]) -> Result<String, fmt::Error> {
    let (scenario, seen, findings) = (&played.scenario, &played.seen, &played.findings);
    let mut text = String::new();
    writeln!(text, "{}: {}", scenario.name, scenario.about)?;
    let (buyers, sellers) = (scenario.buyers, scenario.sellers.count);
    writeln!(
        text,
        "seed {} · {buyers} buyers · {sellers} sellers · {} ms of load",
        played.seed,
        seen.load_micros / 1000
    )?;
    let all: Vec<u64> = seen.samples.iter().map(|sample| sample.took_micros).collect();
    writeln!(text, "purchase, from when it was due   {}", Quantiles::of(&all))?;
    writeln!(text, "paid call, from when it was sent {}", Quantiles::of(&seen.paid_call_micros))?;
    let codes: Vec<_> = codes(played).iter().map(|(code, count)| format!("{count} × {code}")).collect();
    writeln!(text, "answers {}", codes.join(" · "))?;
    if !seen.outages.is_empty() {
        let times: Vec<u64> = seen.outages.iter().map(|outage| outage.first_200_micros).collect();
        writeln!(text, "first 200 after the gateway was ended, {} times: {}", times.len(), Quantiles::of(&times))?;
    }
    writeln!(
        text,
        "books: {} ledger rows and {} request rows; spent {} = earned {} + fees {} micro-units",
        findings.ledger_rows,
        findings.request_rows,
        findings.spent_micros,
        findings.earned_micros,
        findings.fees_micros
    )?;
    show(&mut text, "complaint", complaints(played))?;
    show(&mut text, "lost", played.facts_lost.iter())?;
    show(&mut text, "not refused", seen.hostile_accepted.iter())?;
    show(&mut text, "books", findings.wrong.iter().map(|finding| format!("{:?}: {}", finding.fault, finding.text)))?;
    if let Some(restored) = &played.restored {
        show(&mut text, "lost in the copy", restored.facts_lost.iter())?;
        let wrong = restored.findings.wrong.iter();
        show(&mut text, "books of the copy", wrong.map(|finding| format!("{:?}: {}", finding.fault, finding.text)))?;
        show(&mut text, "proof of the copy", restored.proof.as_ref().err().into_iter())?;
    }
    for figure in figures {
        writeln!(text, "{figure}")?;
    }
    Ok(text)
}

fn show(text: &mut String, what: &str, mut lines: impl Iterator<Item = impl Display>) -> fmt::Result {
    for line in lines.by_ref().take(SHOWN) {
        writeln!(text, "  {what}: {line}")?;
    }
    match lines.count() {
        0 => Ok(()),
        more => writeln!(text, "  {what}: and {more} more"),
    }
}

/// How many answers there were of each status and code.
#[must_use]
pub fn codes(played: &Played) -> BTreeMap<&str, u64> {
    let mut codes = BTreeMap::new();
    for (code, count) in played.seen.codes.values().flatten() {
        *codes.entry(code.as_str()).or_default() += count;
    }
    codes
}

/// Some quantiles of times.
pub struct Quantiles([u64; 5]);

impl Quantiles {
    /// p50, p90, p99, p99.9 and the largest of some times in microseconds; zeros when there are none.
    #[must_use]
    pub fn of(micros: &[u64]) -> Self {
        let mut sorted = micros.to_vec();
        sorted.sort_unstable();
        Self([500, 900, 990, 999, 1000].map(|permille| quantile(&sorted, permille)))
    }
}

impl Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99, p999, max] = self.0.map(|micros| format!("{}.{:02}", micros / 1000, micros % 1000 / 10));
        write!(f, "p50 {p50} · p90 {p90} · p99 {p99} · p99.9 {p999} · max {max} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_thousand_and_of_none() {
        let times: Vec<u64> = (1..=1000).rev().collect();
        assert_eq!(Quantiles::of(&times).0, [500, 900, 990, 999, 1000]);
        let none = "p50 0.00 · p90 0.00 · p99 0.00 · p99.9 0.00 · max 0.00 ms";
        assert_eq!(Quantiles::of(&[]).to_string(), none);
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        let mut text = String::new();
        show(&mut text, "lost", 0..12).unwrap();
        assert_eq!(text.lines().count(), SHOWN + 1);
        assert!(text.ends_with("lost: and 2 more\n"), "{text}");
    }
}
