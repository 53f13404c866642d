//! The store that fails on purpose: its faults are those that callers must bear, and a seed names them.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::time::Duration;

use storage::{
    PaymentStore, StoreError,
    faulty::{Faults, Faulty, Odds},
    model::*,
};
use support::Bench;

fn over(bench: &Bench, seed: u64, odds: Odds) -> Faulty {
    Faulty::new(bench.store.clone().into(), seed, odds)
}

/// Opens quotes through the faults: what each was told, and whether it is there.
async fn history(bench: &Bench, faulty: &Faulty, count: usize) -> Vec<(&'static str, bool)> {
    let mut told = Vec::new();
    for _ in 0..count {
        let quote = bench.quote(bench.profile(), bench.profile());
        let id = quote.id;
        let word = match faulty.quote_open(quote, 10).await {
            Ok(_) => "done",
            Err(StoreError::Unavailable(_)) => "unavailable",
            Err(StoreError::Unknown(_)) => "unknown",
            Err(error) => panic!("{error}"),
        };
        told.push((word, bench.store.payment_get(id).await.expect("read").is_some()));
    }
    told
}

#[tokio::test(start_paused = true)]
async fn a_seed_names_its_faults_and_each_tells_no_more_than_is_so() {
    let bench = Bench::embedded();
    let odds = Odds { unavailable: 200, unknown: 300, delayed: 300, delay_max_ms: 50, ..Odds::default() };
    let faulty = over(&bench, 7, odds);
    let told = history(&bench, &faulty, 200).await;
    assert_eq!(told, history(&bench, &over(&bench, 7, odds), 200).await, "the same seed, the same faults");
    assert_ne!(told, history(&bench, &over(&bench, 8, odds), 200).await);

    let count = |wanted| told.iter().filter(|found| **found == wanted).count();
    assert_eq!((count(("done", false)), count(("unavailable", true))), (0, 0), "done is there, unavailable is not");
    let (written, unwritten) = (count(("unknown", true)), count(("unknown", false)));
    assert!(written > 10 && unwritten > 10, "unknown is either: {written} and {unwritten}");
    let Faults { unavailable, lost_written, lost_unwritten, delayed, .. } = faulty.faults();
    assert_eq!(unavailable, u64::try_from(count(("unavailable", false))).expect("few"));
    assert_eq!((lost_written, lost_unwritten), (written as u64, unwritten as u64));
    assert!(delayed > 20, "{delayed}");
}

#[tokio::test]
async fn reads_are_never_in_doubt() {
    let bench = Bench::embedded();
    let faulty = over(&bench, 3, Odds { unknown: 1_000, ..Odds::default() });
    for _ in 0..20 {
        let found = faulty.payment_get(PaymentId::mint(bench.now())).await;
        assert!(matches!(found, Ok(None)), "{found:?}");
    }
}

#[tokio::test]
async fn a_process_dies_over_one_write_and_nothing_comes_after_it() {
    let mut ends = Vec::new();
    for seed in 0..20 {
        let bench = Bench::embedded();
        let faulty = over(&bench, seed, Odds { crash_at: 3, ..Odds::default() });
        let told = history(&bench, &faulty, 5).await;
        let (before, after) = (&told[..2], &told[3..]);
        assert!(before.iter().all(|found| *found == ("done", true)), "{told:?}");
        assert_eq!(told[2].0, "unknown");
        assert!(after.iter().all(|found| *found == ("unavailable", false)), "{told:?}");
        assert_eq!(faulty.faults().died, Some(told[2].1));
        faulty.died().await;
        ends.push(told[2].1);
    }
    assert!(ends.contains(&true) && ends.contains(&false), "the write in doubt is there or it is not: {ends:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_begins_with_a_write_and_ends_by_itself() {
    let bench = Bench::embedded();
    let faulty = over(&bench, 1, Odds { outage_at: 2, outage_ms: 1_000, ..Odds::default() });
    let told = history(&bench, &faulty, 4).await;
    assert_eq!(
        told.iter().map(|found| found.0).collect::<Vec<_>>(),
        ["done", "unavailable", "unavailable", "unavailable"]
    );
    assert!(faulty.payment_get(PaymentId::mint(bench.now())).await.is_err(), "nothing is read either");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(history(&bench, &faulty, 2).await, [("done", true), ("done", true)]);
    assert_eq!(faulty.faults().out, 4);
}
