//! What a run says: a few lines, and whether it passed.

use std::fmt::{self, Display, Write};

use crate::{
    auditor::Findings,
    workload::{Plan, Seen},
};

/// Differences shown; the rest is counted.
const WRONG_SHOWN: usize = 20;

/// The report of a run and its audit.
pub fn report(plan: Plan, seen: &Seen, findings: &Findings) -> Result<String, fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "seed {}: {} buyers, {} sellers, {} purchases a second for {} s; {} purchases ended",
        plan.seed,
        plan.buyers,
        plan.sellers,
        plan.rate,
        plan.seconds,
        seen.purchases.len()
    )?;
    writeln!(text, "purchase, from when it was due  {}", Quantiles::of(&seen.purchase_micros))?;
    writeln!(text, "paid call, from when it was sent {}", Quantiles::of(&seen.paid_call_micros))?;
    let codes: Vec<_> = seen.codes.iter().map(|(code, count)| format!("{count} × {code}")).collect();
    writeln!(text, "answers {}", codes.join(" · "))?;
    writeln!(
        text,
        "books {} ledger rows, {} request rows, spent {} and earned {} micro-units",
        findings.ledger_rows, findings.request_rows, findings.spent_micros, findings.earned_micros
    )?;
    for line in findings.wrong.iter().take(WRONG_SHOWN) {
        writeln!(text, "  {line}")?;
    }
    let verdict = if findings.wrong.is_empty() { "pass" } else { "fail" };
    writeln!(text, "books wrong {} ≤0 {verdict}", findings.wrong.len())?;
    Ok(text)
}

/// Some quantiles of times.
pub struct Quantiles([u64; 4]);

impl Quantiles {
    /// p50, p99, p99.9 and the largest of some times in microseconds; zeros when there are none.
    #[must_use]
    pub fn of(micros: &[u64]) -> Self {
        let mut sorted = micros.to_vec();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let at = |permille: usize| sorted.get(last * permille / 1000).copied().unwrap_or(0);
        Self([at(500), at(990), at(999), at(1000)])
    }
}

impl Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999, max] = self.0.map(|micros| format!("{}.{:02}", micros / 1000, micros % 1000 / 10));
        write!(f, "p50 {p50} · p99 {p99} · p99.9 {p999} · max {max} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_thousand() {
        let times: Vec<u64> = (0..=1000).rev().collect();
        assert_eq!(Quantiles::of(&times).0, [500, 990, 999, 1000]);
        assert_eq!(Quantiles::of(&[]).to_string(), "p50 0.00 · p99 0.00 · p99.9 0.00 · max 0.00 ms");
    }
}
