//! A run in numbers, each with its target where there is one.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

use anyhow::ensure;

use crate::{api::Lost, auditor::Fault, play::Played, report::codes, scenario::Target};

/// A purchase that took longer came late, microseconds.
const LATE_MICROS: u64 = 500_000;

/// One number of a run.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The scenario and what it is.
    pub name: String,
    /// How much.
    pub value: u64,
    /// What it must reach.
    pub target: Option<Target>,
}

impl Figure {
    /// Whether its target is reached; one without a target cannot fail.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.target.is_none_or(|target| target.is_reached(self.value))
    }
}

impl Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.name, self.value)?;
        let Some(target) = self.target else { return f.write_str("- told") };
        match (target.at_least, target.at_most) {
            (Some(least), Some(most)) => write!(f, "≥{least},≤{most}")?,
            (Some(least), None) => write!(f, "≥{least}")?,
            (None, most) => write!(f, "≤{}", most.unwrap_or_default())?,
        }
        f.write_str(if self.is_passed() { " pass" } else { " fail" })
    }
}

/// All figures of a run, in the order of their names.
///
/// # Errors
/// When the scenario has a target for a figure that this run does not have: it would never be judged.
pub fn figures(played: &Played) -> anyhow::Result<Vec<Figure>> {
    let values = values(played);
    for wanted in played.scenario.targets.keys() {
        let known = values.keys().copied().collect::<Vec<_>>().join(", ");
        ensure!(values.contains_key(wanted.as_str()), "targets.{wanted}: there is no such figure; there are {known}");
    }
    let figure = |(name, value): (&str, u64)| Figure {
        name: format!("{}.{name}", played.scenario.name),
        value,
        target: played.scenario.targets.get(name).copied(),
    };
    Ok(values.into_iter().map(figure).collect())
}

fn values(played: &Played) -> BTreeMap<&'static str, u64> {
    let Played { seen, findings, .. } = played;
    let count = |fault| findings.count(fault) as u64;
    let mut values = BTreeMap::from([
        ("purchases", seen.purchases.len() as u64),
        ("completed", seen.purchases.iter().filter(|one| one.answer.is_some()).count() as u64),
        ("gave_up", seen.purchases.iter().filter(|one| one.gave_up).count() as u64),
        ("complaints", complaints(played).count() as u64),
        ("facts", played.facts),
        ("facts_lost", played.facts_lost.len() as u64 + count(Fault::Lost)),
        ("facts_doubled", count(Fault::Doubled)),
        ("books_wrong", count(Fault::Wrong)),
        ("server_faults", seen.server_faults),
        ("cut_answers", seen.cut_answers),
        ("unanswered", codes(played).get(Lost::Unanswered.to_string().as_str()).copied().unwrap_or(0)),
        ("called_unanswered", seen.called_unanswered),
        ("interrupted", findings.interrupted as u64),
        ("seller_calls", findings.seller_calls as u64),
        ("load_ms", seen.load_micros / 1000),
    ]);
    let all: Vec<u64> = seen.samples.iter().map(|sample| sample.took_micros).collect();
    values.extend(["purchase_p50_ms", "purchase_p99_ms", "purchase_p999_ms"].into_iter().zip(millis(&all)));
    values.extend(["paid_call_p50_ms", "paid_call_p99_ms"].into_iter().zip(millis(&seen.paid_call_micros)));
    if played.scenario.hot_percent > 0 {
        let of = |is_hot| seen.samples.iter().filter(move |one| one.is_hot == is_hot).map(|one| one.took_micros);
        values.extend(["hot_p50_ms", "hot_p99_ms"].into_iter().zip(millis(&of(true).collect::<Vec<_>>())));
        values.extend(["others_p50_ms", "others_p99_ms"].into_iter().zip(millis(&of(false).collect::<Vec<_>>())));
    }
    if played.scenario.hostile_rate > 0 {
        values.extend([("hostile_acts", seen.hostile_acts), ("hostile_accepted", seen.hostile_accepted.len() as u64)]);
    }
    values.extend(outage_values(played));
    values.extend(copy_values(played));
    if let Some(repeats) = seen.repeats {
        values.extend([
            ("answers", repeats.answers),
            ("answers_differing", repeats.differing),
            ("answers_replayed", repeats.replayed),
            ("seller_calls_least", repeats.seller_calls.0),
            ("seller_calls_most", repeats.seller_calls.1),
        ]);
    }
    if played.scenario.phases.len() > 1 {
        values.insert("recovery_ms", recovery_micros(played) / 1000);
    }
    values
}

fn outage_values(played: &Played) -> BTreeMap<&'static str, u64> {
    let outages = &played.seen.outages;
    if played.scenario.outages.is_none() {
        return BTreeMap::new();
    }
    let times = |of: fn(&crate::run::Outage) -> u64| millis(&outages.iter().map(of).collect::<Vec<_>>());
    let mut values = BTreeMap::from([
        ("outages", outages.len() as u64),
        ("stumbles", outages.iter().filter(|outage| outage.has_stumbled).count() as u64),
        ("bad_exits", outages.iter().filter(|outage| !outage.is_good_exit).count() as u64),
    ]);
    values.extend(["end_p50_ms", "end_p99_ms"].into_iter().zip(times(|outage| outage.end_micros)));
    values.extend(["ready_p50_ms", "ready_p99_ms"].into_iter().zip(times(|outage| outage.ready_micros)));
    values.extend(["first_200_p50_ms", "first_200_p99_ms"].into_iter().zip(times(|outage| outage.first_200_micros)));
    let longest = outages.iter().map(|outage| outage.first_200_micros).max().unwrap_or(0);
    values.insert("first_200_max_ms", longest.div_ceil(1000));
    values
}

fn copy_values(played: &Played) -> BTreeMap<&'static str, u64> {
    let Some(restored) = &played.restored else { return BTreeMap::new() };
    let lost = restored.facts_lost.len() + restored.findings.count(Fault::Lost);
    BTreeMap::from([
        ("copy_ms", restored.copy_micros / 1000),
        ("copied_purchases", restored.purchases),
        ("copied_facts", restored.facts),
        ("copied_facts_lost", lost as u64),
        ("copied_books_wrong", (restored.findings.wrong.len() - restored.findings.count(Fault::Lost)) as u64),
        ("copied_proof_wrong", u64::from(restored.proof.is_err())),
    ])
}

/// When the last purchase of the last phase came due that came late, from the phase's beginning.
fn recovery_micros(played: &Played) -> u64 {
    let last = played.scenario.phases.last().map_or(0, |phase| u64::from(phase.seconds));
    let begins = (played.scenario.seconds() - last) * 1_000_000;
    let late = played.seen.samples.iter().filter(|sample| sample.took_micros > LATE_MICROS);
    late.filter_map(|sample| sample.due_micros.checked_sub(begins)).max().unwrap_or(0)
}

/// What buyers found wrong with answers.
pub fn complaints(played: &Played) -> impl Iterator<Item = String> {
    let told = |one: &crate::books::Purchase| one.complaint.as_ref().map(|text| format!("{}: {text}", one.payment));
    let buyers = played.seen.purchases.iter().filter_map(told);
    buyers.chain(played.seller_complaints.iter().cloned())
}

/// p50, p99 and p99.9 of some times, rounded up to whole milliseconds.
fn millis(micros: &[u64]) -> [u64; 3] {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    [500, 990, 999].map(|permille| quantile(&sorted, permille).div_ceil(1000))
}

/// The smallest of some sorted numbers that so many thousandths do not exceed; 0 of none.
#[must_use]
pub fn quantile(sorted: &[u64], permille: usize) -> u64 {
    let rank = (sorted.len() * permille).div_ceil(1000).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_nearest_rank() {
        let numbers: Vec<u64> = (1..=1000).collect();
        assert_eq!([500, 990, 999, 1000].map(|permille| quantile(&numbers, permille)), [500, 990, 999, 1000]);
        let twenty: Vec<u64> = (1..=20).collect();
        assert_eq!(quantile(&twenty, 990), 20, "of twenty, the worst one is beyond p95");
        assert_eq!(quantile(&[], 500), 0);
    }

    #[test]
    fn a_figure_is_a_line_with_its_target_and_verdict() {
        let figure = |value, at_most, at_least| {
            let target = Some(Target { at_most, at_least }).filter(|one| one.at_most.or(one.at_least).is_some());
            Figure { name: "kill.outages".into(), value, target }.to_string()
        };
        assert_eq!(figure(20, None, Some(20)), "kill.outages 20 ≥20 pass");
        assert_eq!(figure(19, None, Some(20)), "kill.outages 19 ≥20 fail");
        assert_eq!(figure(1, Some(0), None), "kill.outages 1 ≤0 fail");
        assert_eq!(figure(1, None, None), "kill.outages 1 - told");
    }
}
