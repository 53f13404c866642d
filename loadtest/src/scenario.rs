//! What a run does: a TOML file. Those in `scenarios/` are compiled in, and any other file may be given.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// Purchases of one run at most, so that books fit into memory.
const PURCHASES_MAX: u64 = 4_000_000;
/// Seconds of one run's load at most.
const SECONDS_MAX: u64 = 4 * 3600;

/// A gateway that stumbles on its way up is killed before it is so old, milliseconds: about as long as a start takes.
pub const STUMBLE_MS: u64 = 120;

/// The scenarios that are compiled in.
const BUILT_IN: [(&str, &str); 9] = [
    ("steady", include_str!("../scenarios/steady.toml")),
    ("spike", include_str!("../scenarios/spike.toml")),
    ("one_hot_listing", include_str!("../scenarios/one_hot_listing.toml")),
    ("slow_sellers", include_str!("../scenarios/slow_sellers.toml")),
    ("hostile_mix", include_str!("../scenarios/hostile_mix.toml")),
    ("kill", include_str!("../scenarios/kill.toml")),
    ("idempotent", include_str!("../scenarios/idempotent.toml")),
    ("drain", include_str!("../scenarios/drain.toml")),
    ("backup", include_str!("../scenarios/backup.toml")),
];

/// A run. Everything that chance decides in it, a seed decides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, first word of every figure.
    pub name: String,
    /// What it shows, one line.
    pub about: String,
    /// How many buyers.
    pub buyers: usize,
    /// A purchase without an answer is given up so long after it was due, seconds.
    pub patience_seconds: u64,
    /// What buyers do besides paying and calling once.
    pub habits: Habits,
    /// Of 100 purchases, how many go to the first seller; 0: all sellers are alike.
    #[serde(default)]
    pub hot_percent: u8,
    /// Acts a second that must be refused, beside the purchases.
    #[serde(default)]
    pub hostile_rate: u32,
    /// The load, one phase after the other.
    pub phases: Vec<Phase>,
    /// Who sells.
    pub sellers: Sellers,
    /// Ends the gateway again and again, and starts it again.
    pub outages: Option<Outages>,
    /// Copies the store under load, and asks a gateway on the copy for every fact again.
    pub copying: Option<Copying>,
    /// Instead of phases: every id asked for by every client.
    pub idempotent: Option<Idempotent>,
    /// Knobs of a gateway that is started here, beside its defaults.
    #[serde(default)]
    pub gateway: BTreeMap<String, String>,
    /// What figures must reach. A figure without a target is told, and judged by nobody.
    #[serde(default)]
    pub targets: BTreeMap<String, Target>,
}

/// What buyers do besides paying and calling once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Habits {
    /// Nothing.
    Plain,
    /// By seed: ask twice at once, ask again, hang up, use a payment for what it was not made, pay and forget.
    Mixed,
}

/// A load that is the same for some time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Purchases a second.
    pub rate: u32,
    /// For how long.
    pub seconds: u32,
}

/// Who sells.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sellers {
    /// How many, each with a server and a listing of its own.
    pub count: usize,
    /// `limits.max_concurrency` of each endpoint.
    pub max_concurrency: u32,
    /// How they answer.
    pub moods: Moods,
}

/// How sellers answer. The first four are of 100 calls each, together at most 100; the others get a plain 200.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moods {
    /// Fail with a 5xx on the first attempt, some on the second too.
    #[serde(default)]
    pub failing: u8,
    /// Are answered with a 4xx of the seller's own, which is billed.
    #[serde(default)]
    pub refusing: u8,
    /// Are answered late.
    #[serde(default)]
    pub slow: u8,
    /// Are answered after the endpoint's time-out, on the first attempt.
    #[serde(default)]
    pub stalled: u8,
    /// How late at most, milliseconds.
    #[serde(default)]
    pub slow_ms: u64,
    /// What every 200 takes, milliseconds.
    #[serde(default)]
    pub base_ms: u64,
    /// The endpoint's time-out, milliseconds; 0: the gateway's default.
    #[serde(default)]
    pub timeout_ms: u32,
}

/// Ends the gateway again and again under load.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outages {
    /// How.
    pub signal: EndBy,
    /// How often.
    pub count: u32,
    /// Between the first 200 after one, or when the load has caught up, and the next one: at least and at most so long,
    /// milliseconds, by seed.
    pub gap_ms: [u64; 2],
    /// Of 100, how many are followed by a kill on the way up, by seed within [`STUMBLE_MS`].
    #[serde(default)]
    pub stumbling: u8,
}

/// Copies the store under load.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copying {
    /// After so much of the load, milliseconds.
    pub after_ms: u64,
}

/// How a gateway is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndBy {
    /// `kill -9`: nothing is flushed, nothing is said.
    Kill,
    /// SIGTERM: work in flight must end first.
    Term,
}

/// Every id asked for by every client.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Idempotent {
    /// How many clients, each with a key and connections of its own.
    pub clients: usize,
    /// How many paid ids.
    pub ids: usize,
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// At most this.
    pub at_most: Option<u64>,
    /// At least this.
    pub at_least: Option<u64>,
}

impl Scenario {
    /// The names of those that are compiled in.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The scenario of that name, or that file.
    ///
    /// # Errors
    /// When there is none, or it says what cannot be run.
    pub fn find(name: &str) -> anyhow::Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::read(text).with_context(|| format!("the scenario {name}"));
        }
        let known = Self::names().collect::<Vec<_>>().join(", ");
        let text = std::fs::read_to_string(Path::new(name))
            .with_context(|| format!("{name} is no scenario ({known}) and no file that can be read"))?;
        Self::read(&text).with_context(|| name.to_owned())
    }

    fn read(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Whether it can be run, also after something was set from outside.
    ///
    /// # Errors
    /// Says what cannot be, and the bound.
    pub fn check(&self) -> anyhow::Result<()> {
        let moods = &self.sellers.moods;
        let parts = [moods.failing, moods.refusing, moods.slow, moods.stalled].map(u32::from);
        ensure!(parts.iter().sum::<u32>() <= 100, "sellers.moods: more than 100 of 100 calls");
        ensure!(moods.stalled == 0 || moods.timeout_ms > 0, "sellers.moods.stalled needs a timeout_ms");
        ensure!(self.hot_percent <= 100, "hot_percent is more than 100");
        ensure!((1..=1000).contains(&self.buyers), "buyers: 1 to 1000");
        ensure!((1..=1000).contains(&self.sellers.count), "sellers.count: 1 to 1000");
        ensure!((1..=600).contains(&self.patience_seconds), "patience_seconds: 1 to 600");
        ensure!(self.phases.iter().all(|phase| (1..=20_000).contains(&phase.rate)), "a phase's rate: 1 to 20000");
        ensure!(self.hostile_rate <= 5_000, "hostile_rate: at most 5000");
        ensure!(self.seconds() <= SECONDS_MAX, "the phases last more than {SECONDS_MAX} s");
        ensure!(self.purchases() <= PURCHASES_MAX, "more than {PURCHASES_MAX} purchases");
        ensure!(self.idempotent.is_some() != (self.purchases() > 0), "phases, or idempotent: one of them");
        if let Some(outages) = &self.outages {
            let [least, most] = outages.gap_ms;
            ensure!((1..=10_000).contains(&outages.count), "outages.count: 1 to 10000");
            ensure!(least <= most && most <= 600_000, "outages.gap_ms: two numbers in order, at most 600000");
        }
        if let Some(Copying { after_ms }) = self.copying {
            ensure!(self.outages.is_none() && self.idempotent.is_none(), "copying: beside phases only");
            ensure!(after_ms < self.seconds() * 1000, "copying.after_ms is past the end of the load");
        }
        if let Some(Idempotent { clients, ids }) = self.idempotent {
            ensure!((1..=512).contains(&clients) && (1..=100_000).contains(&ids), "idempotent: 1 to 512, 1 to 100000");
        }
        let is_said = |target: &Target| target.at_most.is_some() || target.at_least.is_some();
        ensure!(self.targets.values().all(is_said), "a target says at_most, at_least, or both");
        Ok(())
    }

    /// How long the load lasts, seconds; with outages at most.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.phases.iter().map(|phase| u64::from(phase.seconds)).sum()
    }

    /// How many purchases there are; with outages at most.
    #[must_use]
    pub fn purchases(&self) -> u64 {
        self.phases.iter().map(|phase| u64::from(phase.rate) * u64::from(phase.seconds)).sum()
    }
}

impl Target {
    /// Whether `value` reaches it.
    #[must_use]
    pub fn is_reached(&self, value: u64) -> bool {
        self.at_most.is_none_or(|most| value <= most) && self.at_least.is_none_or(|least| value >= least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_can_be_run_and_is_named_as_its_file() {
        for name in Scenario::names() {
            assert_eq!(Scenario::find(name).unwrap().name, name);
        }
        assert_eq!(std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios")).unwrap().count(), 9);
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_its_name() {
        let steady = include_str!("../scenarios/steady.toml");
        let refused = |from: &str, to: &str| {
            assert!(steady.contains(from), "{from}");
            format!("{:#}", Scenario::read(&steady.replace(from, to)).unwrap_err())
        };
        assert!(refused("buyers = 8", "buyers = 0").contains("buyers"));
        assert!(refused("buyers = 8", "buiers = 8").contains("buiers"));
        assert!(refused("rate = 200", "rate = 0").contains("rate"));
        assert!(refused("failing = 4", "failing = 99").contains("moods"));
        assert!(refused("at_most = 0", "").contains("target"));
        assert!(format!("{:#}", Scenario::find("nosuch").unwrap_err()).contains("steady"));
    }

    #[test]
    fn a_target_is_reached_at_its_bound_and_missed_beyond_it() {
        let target = Target { at_most: Some(5), at_least: Some(3) };
        assert_eq!([2, 3, 5, 6].map(|value| target.is_reached(value)), [false, true, true, false]);
    }
}
