//! A roll-up whose commit is not confirmed: what happened is counted exactly once all the same.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use storage::{
    SettleOutcome, StoreError,
    embedded::{Embedded, Faults, Moment},
    model::*,
    store::{HistoryStore, PaymentStore, Store},
};
use support::{BEGIN, evidence, quote, settings, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_up_that_dies_at_any_moment_counts_exactly_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = Clock::scripted(Arc::new(AtomicU64::new(BEGIN)));
    // 0: none; 1: before the commit; 2: after it, when nobody knows.
    let fault = Arc::new(AtomicU8::new(0));
    let hand = Arc::clone(&fault);
    let interruption = move |moment| {
        let wanted = if moment == Moment::BeforeCommit { 1 } else { 2 };
        match hand.compare_exchange(wanted, 0, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Err("the disk went away".to_string()),
            Err(_) => Ok(()),
        }
    };
    let faults = Faults { interruption: Some(Arc::new(interruption)), ..Faults::default() };
    let store = Embedded::open_with(&settings(folder.path(), ""), clock.clone(), faults).expect("the store opens");
    let now = clock.now();
    let (buyer, seller) = (ProfileId::mint(now), ProfileId::mint(now));
    for round in 1..=6i64 {
        let quote = quote(buyer, seller, now);
        let id = quote.id;
        store.quote_open(quote, 100).await.expect("quoted");
        let settled = store.payment_settle(id, evidence(id, Micros(1_000_000), now), None).await.expect("settled");
        assert!(matches!(settled, SettleOutcome::Recorded { .. }));
        fault.store(u8::try_from(round % 3).expect("small"), Ordering::Relaxed);
        let rolled_up = store.roll_up().await;
        if round % 3 != 0 {
            assert!(matches!(rolled_up, Err(StoreError::Unknown(_))), "{rolled_up:?}");
            until("the store is open again", async || store.check().is_ok()).await;
            store.roll_up().await.expect("rolled up");
        }
        let sums = store.sums_get(buyer).await.expect("sums");
        assert_eq!((sums.paid.0, sums.in_suspense.0), (round * 1_000_000, round * 1_000_000), "round {round}");
    }
    store.close().await.expect("closed");
}
