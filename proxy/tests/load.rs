//! The load test's scenarios against the real gateway: short ones on every run, long ones in the nightly tier
//! (`CROCHET_NIGHTLY`). Every figure that is judged here is one of books and facts; times are judged generously.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use loadtest::{
    figures::{Figure, figures},
    play::{Place, play},
    report::report,
    scenario::{Scenario, Target},
};
use tempfile::TempDir;

/// Decides everything that chance decides; a failure prints it.
const SEED: u64 = 2026;
/// The first 200 after a kill comes within this, on a machine that is busy with everything else.
const BUSY_FIRST_200_MS: u64 = 20_000;

fn is_nightly() -> bool {
    std::env::var_os("CROCHET_NIGHTLY").is_some()
}

/// A release build that is to be played with, when one is named.
fn release() -> Option<PathBuf> {
    std::env::var_os("CROCHET_BIN").map(PathBuf::from)
}

/// What this starts, and where its stores and logs are.
struct Stage {
    binary: PathBuf,
    directory: TempDir,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let binary = release().unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_crochet")).to_owned());
        Self { binary, directory }
    }

    /// A gateway whose third start is on the store as it was before its second: what was acknowledged between is gone.
    fn forgetful() -> Self {
        let mut stage = Self::new();
        let script = format!(
            "#!/bin/sh\n\
             store=$CROCHET__STORAGE__PATH; folder=${{store%/*}}\n\
             starts=$(($(cat \"$folder/starts\" 2>/dev/null || echo 0) + 1)); echo $starts > \"$folder/starts\"\n\
             [ $starts = 2 ] && cp -r \"$store\" \"$folder/before\"\n\
             [ $starts = 3 ] && rm -r \"$store\" && mv \"$folder/before\" \"$store\"\n\
             exec \"{}\" \"$@\"\n",
            stage.binary.display()
        );
        stage.binary = stage.directory.path().join("forgetful");
        fs::write(&stage.binary, script).expect("written");
        fs::set_permissions(&stage.binary, fs::Permissions::from_mode(0o700)).expect("made executable");
        stage
    }

    /// Plays a scenario; its figures, and its report with them.
    async fn play(&self, name: &str, adapt: impl FnOnce(&mut Scenario)) -> (Vec<Figure>, String) {
        let mut scenario = Scenario::find(name).expect("a scenario");
        adapt(&mut scenario);
        let directory = self.directory.path().join("run");
        let place = Place::Own { binary: self.binary.clone(), directory: directory.clone() };
        let played = play(scenario, SEED, &place).await.unwrap_or_else(|error| {
            let log = fs::read_to_string(directory.join("gateway.log")).unwrap_or_default();
            panic!("seed {SEED}: {error:#}\n--- gateway's log ---\n{log}")
        });
        let figures = figures(&played).expect("figures");
        let told = report(&played, &figures).expect("a report");
        (figures, told)
    }
}

/// Plays a scenario on a gateway of its own and asks that every target is reached.
async fn reaches_its_targets(name: &str, adapt: impl FnOnce(&mut Scenario)) {
    let (figures, told) = Stage::new().play(name, adapt).await;
    // Times are told even where nobody judges them.
    eprintln!("{told}");
    assert!(figures.iter().all(Figure::is_passed), "{told}");
    let judged = figures.iter().filter(|figure| figure.target.is_some()).count();
    assert!(judged >= 4, "{told}");
}

/// So many outages, and a target that says so.
fn set_outages(scenario: &mut Scenario, count: u32) {
    scenario.outages.as_mut().expect("outages").count = count;
    scenario.targets.insert("outages".into(), Target { at_least: Some(count.into()), at_most: None });
}

fn shortened(scenario: &mut Scenario, rate: u32, seconds: u32) {
    if !is_nightly() {
        scenario.phases.truncate(1);
        for phase in &mut scenario.phases {
            (phase.rate, phase.seconds) = (rate, seconds);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steady_load_leaves_right_books() {
    reaches_its_targets("steady", |scenario| shortened(scenario, 50, 5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hostile_is_refused_and_the_good_get_what_they_paid_for() {
    reaches_its_targets("hostile_mix", |scenario| shortened(scenario, 25, 5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_id_asked_for_by_every_client_is_one_seller_call_and_one_posting_each() {
    reaches_its_targets("idempotent", |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_lose_and_double_no_acknowledged_fact() {
    reaches_its_targets("kill", |scenario| {
        set_outages(scenario, if is_nightly() { 500 } else { 20 });
        if is_nightly() {
            // A quarter of an hour in all, where the machine is not busy with anything else.
            scenario.outages.as_mut().expect("outages").gap_ms = [0, 1500];
        } else {
            let most = Target { at_most: Some(BUSY_FIRST_200_MS), at_least: None };
            scenario.targets.insert("first_200_p99_ms".into(), most);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drains_under_load_cut_and_interrupt_nothing() {
    reaches_its_targets("drain", |scenario| set_outages(scenario, if is_nightly() { 20 } else { 4 })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_under_load_has_every_fact_that_was_acknowledged_before_it_began() {
    reaches_its_targets("backup", |scenario| {
        if !is_nightly() && release().is_none() {
            (scenario.phases[0].rate, scenario.phases[0].seconds) = (60, 15);
            scenario.copying.as_mut().expect("a copy").after_ms = 5_000;
            scenario.targets.insert("copied_purchases".into(), Target { at_least: Some(30), at_most: None });
        }
    })
    .await;
}

/// The other tests of this file can fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_forgets_what_it_acknowledged_is_found_out() {
    let (figures, told) = Stage::forgetful()
        .play("kill", |scenario| {
            set_outages(scenario, 3);
            // A payment that the provider was made to forget is pending for ever.
            scenario.patience_seconds = 10;
            let outages = scenario.outages.as_mut().expect("outages");
            (outages.gap_ms, outages.stumbling) = ([500, 1000], 0);
        })
        .await;
    let values: BTreeMap<&str, u64> = figures.iter().map(|figure| (figure.name.as_str(), figure.value)).collect();
    assert!(values["kill.facts_lost"] > 0, "{told}");
    let verdict = |name: &str| figures.iter().find(|figure| figure.name == name).expect("a figure").is_passed();
    assert!(!verdict("kill.facts_lost") && verdict("kill.outages"), "{told}");
}
