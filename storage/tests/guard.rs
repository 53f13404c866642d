//! The guard rails: what the store does when the machine below it fails, and what it refuses to open.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use storage::{
    QuoteOpened, SettleOutcome, StepOutcome, Store, StoreError, StoreResult,
    embedded::{Embedded, Faults, GUARD_EXIT_CODE, Moment},
    model::*,
    store::{CatalogStore, IdentityStore, NonceUsed, PaymentStore},
};
use support::{BEGIN, DAY, HOUR, SECOND, answer, child, evidence, facts, kept, quote, settings, until};

/// A clock that tests set.
fn hand() -> (Arc<AtomicU64>, Clock) {
    let millis = Arc::new(AtomicU64::new(BEGIN));
    (Arc::clone(&millis), Clock::scripted(millis))
}

fn open(folder: &Path, clock: Clock) -> StoreResult<Embedded> {
    Embedded::open(&settings(folder, ""), clock)
}

/// A quote of its own, opened.
async fn open_quote(store: &dyn Store, now: UnixMillis) -> StoreResult<PaymentId> {
    let quote = quote(ProfileId::mint(now), ProfileId::mint(now), now);
    let id = quote.id;
    store.quote_open(quote, 9).await.map(|_| id)
}

/// A call from quote to result.
async fn call(store: &dyn Store, now: UnixMillis) -> PaymentId {
    let id = open_quote(store, now).await.expect("quoted");
    let request = storage::ClaimRequest { owner: store.owner(), request_bytes: 1 };
    let settled = store.payment_settle(id, evidence(id, Micros(1_000_000), now), Some(request)).await;
    let Ok(SettleOutcome::Recorded { claimed: Some(Claimed::Won(claim)), .. }) = settled else { panic!("{settled:?}") };
    let result = kept(ResultPlace::Inline, &answer(id), now);
    let done = store.payment_complete(id, claim, facts(200), result, Some(answer(id))).await;
    assert!(matches!(done, Ok(StepOutcome::Step(Ended::Done, _))));
    id
}

/// Everything told as acknowledged is in the store.
async fn assert_kept(folder: &Path, told: &[String]) -> usize {
    let store = open(folder, Clock::system()).expect("the store opens");
    let mut count = 0;
    for id in told.iter().filter_map(|line| line.strip_prefix("quoted ")) {
        let id: PaymentId = id.parse().expect("an id");
        assert!(store.payment_get(id).await.expect("readable").is_some(), "{id} was acknowledged");
        count += 1;
    }
    count
}

/// A hook that lets commits pass until it is told to hold them.
#[derive(Default)]
struct Gate {
    holding: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn faults(self: &Arc<Self>) -> Faults {
        let gate = Arc::clone(self);
        let interruption = move |moment| {
            if moment == Moment::BeforeCommit {
                let mut holding = gate.holding.lock().expect("gate");
                while *holding {
                    holding = gate.changed.wait(holding).expect("gate");
                }
            }
            Ok(())
        };
        Faults { interruption: Some(Arc::new(interruption)), ..Faults::default() }
    }

    fn hold(&self, hold: bool) {
        *self.holding.lock().expect("gate") = hold;
        self.changed.notify_all();
    }
}

/// Acknowledges some quotes, then lets `fail` break the store, and asks on.
async fn child_that_stands_still(folder: &Path, faults: Faults, fail: impl FnOnce()) {
    let store = Embedded::open_with(&settings(folder, "commit_deadline = \"2s\""), Clock::system(), faults);
    let store = store.expect("the store opens");
    let now = Clock::system().now();
    for _ in 0..20 {
        let id = open_quote(&store, now).await.expect("quoted");
        child::tell(&format!("quoted {id}"));
    }
    fail();
    while let Ok(id) = open_quote(&store, now).await {
        child::tell(&format!("quoted {id}"));
    }
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn child_with_a_stuck_commit() {
    let Some(folder) = child::folder() else { return };
    let gate = Arc::new(Gate::default());
    child_that_stands_still(&folder, gate.faults(), || gate.hold(true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn child_with_a_stuck_flush() {
    let Some(folder) = child::folder() else { return };
    let percent = Arc::new(AtomicU64::new(0));
    let faults = Faults { memtable_percent: Some(Arc::clone(&percent)), ..Faults::default() };
    child_that_stands_still(&folder, faults, || percent.store(200, Ordering::Relaxed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn child_with_a_dead_writer() {
    let Some(folder) = child::folder() else { return };
    let dead = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dead);
    let interruption = move |_| {
        assert!(!flag.load(Ordering::Relaxed), "the writer dies");
        Ok(())
    };
    let faults = Faults { interruption: Some(Arc::new(interruption)), ..Faults::default() };
    child_that_stands_still(&folder, faults, || dead.store(true, Ordering::Relaxed)).await;
}

async fn assert_ends_by_guard(name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut running = child::start(name, folder.path());
    running.wait_told(20);
    let begun = std::time::Instant::now();
    let (status, told) = running.wait();
    assert_eq!(status.code(), Some(GUARD_EXIT_CODE), "{told:?}");
    // The deadline is two seconds; the rest is for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(assert_kept(folder.path(), &told).await >= 20);
}

#[tokio::test]
async fn a_stuck_commit_ends_the_process_and_nothing_is_lost() {
    assert_ends_by_guard("child_with_a_stuck_commit").await;
}

#[tokio::test]
async fn a_stuck_flush_ends_the_process_and_nothing_is_lost() {
    assert_ends_by_guard("child_with_a_stuck_flush").await;
}

#[tokio::test]
async fn a_dead_writer_ends_the_process_and_nothing_is_lost() {
    assert_ends_by_guard("child_with_a_dead_writer").await;
}

/// Lets this process write no file past `bytes`; `None`: any.
fn limit_files(bytes: Option<u64>) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).expect("a limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn child_with_a_full_disk() {
    let Some(folder) = child::folder() else { return };
    let kind = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // Handled, the signal no longer ends the process, and the write fails as on a full disk.
    let _handled = tokio::signal::unix::signal(kind).expect("a handler");
    let store = open(&folder, Clock::system()).expect("the store opens");
    let now = Clock::system().now();
    for round in 0..3 {
        for _ in 0..20 {
            child::tell(&format!("quoted {}", call(&store, now).await));
        }
        limit_files(Some(4096));
        let mut faults = Vec::new();
        while store.check().is_ok() || faults.is_empty() {
            match open_quote(&store, now).await {
                Ok(id) => child::tell(&format!("quoted {id}")),
                Err(error) => faults.push(error),
            }
        }
        assert!(matches!(faults[0], StoreError::Unknown(_)), "{faults:?}");
        assert!(matches!(open_quote(&store, now).await, Err(StoreError::Unavailable(_))));
        assert!(store.check().expect_err("not well").to_string().contains("reopened"));
        limit_files(None);
        until("the store is open again by itself", async || store.check().is_ok()).await;
        child::tell(&format!("round {round}"));
    }
    child::tell(&format!("quoted {}", call(&store, now).await));
    store.close().await.expect("closed");
    child::tell("done");
}

#[tokio::test]
async fn a_failed_sync_is_unknown_and_service_resumes_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let (status, told) = child::start("child_with_a_full_disk", folder.path()).wait();
    assert!(status.success() && told.last().is_some_and(|line| line == "done"), "{status:?}: {told:?}");
    assert_eq!(told.iter().filter(|line| line.starts_with("round")).count(), 3);
    assert!(assert_kept(folder.path(), &told).await >= 61);
}

/// A store whose next commit fails at this moment, once.
fn failing_at(folder: &Path, moment: Moment) -> (Embedded, Arc<AtomicBool>) {
    let armed = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&armed);
    let interruption = move |at| {
        if at == moment && flag.swap(false, Ordering::Relaxed) { Err("asked for".into()) } else { Ok(()) }
    };
    let faults = Faults { interruption: Some(Arc::new(interruption)), ..Faults::default() };
    (Embedded::open_with(&settings(folder, ""), hand().1, faults).expect("the store opens"), armed)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_commit_is_decided_by_the_replay() {
    for moment in [Moment::BeforeCommit, Moment::AfterCommit] {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, armed) = failing_at(folder.path(), moment);
        let now = UnixMillis(BEGIN);
        let before = call(&store, now).await;
        let owner = store.owner();
        let feed = store.changes_since(0).await.expect("feed");
        armed.store(true, Ordering::Relaxed);
        let asked = quote(ProfileId::mint(now), ProfileId::mint(now), now);
        let id = asked.id;
        assert!(matches!(store.quote_open(asked, 9).await, Err(StoreError::Unknown(_))));
        until("the store is open again", async || store.check().is_ok()).await;
        assert_eq!(store.owner(), owner, "the same life");
        let found = store.payment_get(id).await.expect("readable").is_some();
        assert_eq!(found, moment == Moment::AfterCommit);
        assert!(store.payment_get(before).await.expect("readable").is_some());
        assert!(store.changes_since(feed.next).await.expect("feed").gap, "caches must not trust what they have");
        call(&store, now).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_no_at_once_and_what_waits_is_answered() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Arc::new(Gate::default());
    let settings = settings(folder.path(), "commit_queue_max = 8");
    let store = Arc::new(Embedded::open_with(&settings, hand().1, gate.faults()).expect("the store opens"));
    gate.hold(true);
    let ask = || {
        let store = Arc::clone(&store);
        tokio::spawn(async move { open_quote(&*store, UnixMillis(BEGIN)).await })
    };
    let mut asked = Vec::new();
    // One batch is with the writer, one fills; then there is no room.
    until("the queue is full", async || {
        asked.push(ask());
        tokio::task::yield_now().await;
        open_quote_now(&store).await
    })
    .await;
    gate.hold(false);
    let (mut done, mut refused) = (0, 0);
    for task in asked {
        match task.await.expect("a task") {
            Ok(_) => done += 1,
            Err(StoreError::Unavailable(_)) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(done >= 1, "{done} done, {refused} refused");
    store.close().await.expect("closed");
    assert!(matches!(open_quote(&*store, UnixMillis(BEGIN)).await, Err(StoreError::Unavailable(_))));
    assert!(store.check().is_err() && store.payment_get(PaymentId::mint(UnixMillis(1))).await.is_err());
}

/// Whether a quote asked for now is refused at once.
async fn open_quote_now(store: &Embedded) -> bool {
    let asked = open_quote(store, UnixMillis(BEGIN));
    matches!(tokio::time::timeout(Duration::from_millis(1), asked).await, Ok(Err(StoreError::Unavailable(_))))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_retry_is_two_commits_and_reading_is_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), hand().1).expect("the store opens");
    let before = store.commits();
    let id = call(&store, UnixMillis(BEGIN)).await;
    assert_eq!(store.commits() - before, 3, "the quote, then two for the paid retry");
    let claim = storage::ClaimRequest { owner: store.owner(), request_bytes: 1 };
    for _ in 0..3 {
        store.payment_get(id).await.expect("read");
        assert!(matches!(store.payment_claim(id, claim).await, Ok(StepOutcome::Step(Claimed::Completed, _))));
    }
    assert_eq!(store.commits() - before, 3, "a step that writes nothing syncs nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_keeps_the_memtables_that_it_was_made_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = || hand().1;
    let larger = config::Storage { memtable_bytes: 8 << 20, ..settings(folder.path(), "") };
    let smaller = config::Storage { memtable_bytes: 1 << 20, ..larger.clone() };
    let store = Embedded::open(&larger, clock()).expect("new");
    let terms = vec![7; 100_000];
    let write = async |store: &Embedded| {
        for _ in 0..60 {
            let now = UnixMillis(BEGIN);
            let quote = Quote { terms: terms.clone(), ..quote(ProfileId::mint(now), ProfileId::mint(now), now) };
            store.quote_open(quote, 9).await.expect("quoted");
        }
    };
    write(&store).await;
    drop(store);
    // Judged by the smaller limit, six megabytes in a memtable would look like a flush that hangs.
    let store = Embedded::open(&smaller, clock()).expect("again");
    write(&store).await;
    store.check().expect("well");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_went_back_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (engine, copy) = (folder.path().join("store/engine"), folder.path().join("copy"));
    let store = open(folder.path(), hand().1).expect("new");
    call(&store, UnixMillis(BEGIN)).await;
    store.close().await.expect("closed");
    copy_folder(&engine, &copy);
    let store = open(folder.path(), hand().1).expect("again");
    let lost = call(&store, UnixMillis(BEGIN)).await;
    store.close().await.expect("closed");
    fs::remove_dir_all(&engine).expect("removed");
    copy_folder(&copy, &engine);
    let Err(StoreError::Corrupt(refused)) = open(folder.path(), hand().1) else { panic!("it opened") };
    let side_file = folder.path().join("store/commits");
    assert!(refused.contains("went back") && refused.contains(&*side_file.to_string_lossy()), "{refused}");
    fs::remove_file(side_file).expect("as the message says");
    let store = open(folder.path(), hand().1).expect("what is missing was given up");
    assert!(store.payment_get(lost).await.expect("readable").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_directory_has_one_owner() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), hand().1).expect("the first");
    let Err(StoreError::Unavailable(refused)) = open(folder.path(), hand().1) else { panic!("two owners") };
    assert!(refused.contains("another process") && refused.contains(&*folder.path().to_string_lossy()), "{refused}");
    drop(store);
    let second = open(folder.path(), hand().1).expect("the first one let go");
    assert_eq!(second.owner().epoch, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path(), hand().1).expect("new"));
    let file = folder.path().join("store/format");
    for (text, wanted) in [("4\n", "format 4"), ("new\n", "does not hold a format")] {
        fs::write(&file, text).expect("written");
        let Err(StoreError::Corrupt(refused)) = open(folder.path(), hand().1) else { panic!("it opened") };
        assert!(refused.contains(wanted), "{refused}");
    }
    fs::write(&file, "3\n").expect("written");
    open(folder.path(), hand().1).expect("as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_of_results_are_dropped_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clock, hand) = hand();
    let store = open(folder.path(), hand).expect("the store opens");
    let now = || UnixMillis(clock.load(Ordering::Relaxed));
    let inline = call(&store, now()).await;
    let chunked = open_quote(&store, now()).await.expect("quoted");
    let request = storage::ClaimRequest { owner: store.owner(), request_bytes: 1 };
    let money = evidence(chunked, Micros(1_000_000), now());
    store.payment_settle(chunked, money, Some(request)).await.expect("settled");
    store.result_append(chunked, 1, 0, Bytes::from(vec![7; 100_000])).await.expect("appended");
    store.result_seal(chunked, 1).await.expect("sealed");
    let results = || fs::read_dir(folder.path().join("store/results")).expect("folder").count();
    let keyspaces = || fs::read_dir(folder.path().join("store/engine/keyspaces")).expect("folder").count();
    let before = keyspaces();
    clock.fetch_add(72 * HOUR, Ordering::Relaxed);
    tokio::task::block_in_place(|| store.tidy()).expect("tidied");
    assert_eq!(results(), 1, "not before its time");
    clock.fetch_add(12 * HOUR, Ordering::Relaxed);
    tokio::task::block_in_place(|| store.tidy()).expect("tidied");
    assert_eq!(results(), 0);
    // The new bucket took the place of the old one, and may be there with the next.
    assert!(keyspaces() <= before + 2, "{} of {before}", keyspaces());
    let payment = store.payment_get(inline).await.expect("read").expect("the record stays");
    assert_eq!(store.result_read(&payment, 0).await.expect("read"), None);
    drop(store);
    let names = Clock::scripted(Arc::clone(&clock));
    open(folder.path(), names).expect("it opens without the dropped bucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_tidied_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clock, hand) = hand();
    let store = open(folder.path(), hand).expect("the store opens");
    let now = || UnixMillis(clock.load(Ordering::Relaxed));
    let party = ProfileId::mint(now());
    let keyed = |key: &str| Quote { idempotency_key: Some(key.into()), ..quote(party, party, now()) };
    let (unpaid, failed, paid) = (keyed("unpaid"), quote(party, party, now()), keyed("paid"));
    for quote in [&unpaid, &failed, &paid] {
        assert!(matches!(store.quote_open(quote.clone(), 9).await, Ok(QuoteOpened::Opened(_))));
    }
    store.payment_fail(failed.id).await.expect("failed");
    store.payment_settle(paid.id, evidence(paid.id, Micros(1), now()), None).await.expect("owed");
    let until = UnixMillis(now().0 + SECOND);
    store.nonce_use([1; 32], until).await.expect("used");
    clock.fetch_add(8 * DAY, Ordering::Relaxed);
    tokio::task::block_in_place(|| store.tidy()).expect("tidied");
    assert!(store.payment_get(unpaid.id).await.expect("read").is_some(), "8 days after its expiry, not its begin");
    assert!(store.payment_by_key(party, "paid").await.expect("read").is_none(), "forgotten");
    clock.fetch_add(900 * SECOND + 1, Ordering::Relaxed);
    tokio::task::block_in_place(|| store.tidy()).expect("tidied");
    for gone in [unpaid.id, failed.id] {
        assert!(store.payment_get(gone).await.expect("read").is_none());
    }
    assert!(store.payment_by_key(party, "unpaid").await.expect("read").is_none());
    assert!(store.payment_get(paid.id).await.expect("read").is_some(), "money is never tidied away");
    assert_eq!(store.nonce_use([1; 32], now()).await.expect("use"), NonceUsed::Fresh);
    let again = Quote { id: PaymentId::mint(now()), ..unpaid };
    assert!(matches!(store.quote_open(again, 9).await, Ok(QuoteOpened::Opened(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn open_payments_are_counted_by_their_state() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), hand().1).expect("the store opens");
    let now = UnixMillis(BEGIN);
    let counts = || {
        let counts = store.open_payments().expect("counted");
        storage::embedded::OPEN_STATES.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect::<Vec<_>>()
    };
    assert_eq!(counts(), []);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(open_quote(&store, now).await.expect("quoted"));
    }
    call(&store, now).await;
    assert_eq!(counts(), [("quoted", 5)], "what is completed is not open");
    let claim = storage::ClaimRequest { owner: store.owner(), request_bytes: 1 };
    store.payment_fail(ids[0]).await.expect("failed");
    for id in &ids[1..4] {
        store.payment_settle(*id, evidence(*id, Micros(1_000_000), now), None).await.expect("settled");
    }
    store.payment_claim(ids[1], claim).await.expect("claimed");
    assert_eq!(counts(), [("quoted", 1), ("settled", 2), ("claimed", 1)]);
    store.payment_owe(ids[2]).await.expect("owed");
    assert_eq!(counts(), [("quoted", 1), ("settled", 1), ("claimed", 1)], "what is owed buys no call any more");
    let intent = Intent {
        proof_key: "x402:signed".into(),
        identifier: None,
        rail: Rail::X402,
        signed: Vec::new(),
        expires_at: now,
        recorded_at: now,
    };
    store.payment_intend(ids[4], intent).await.expect("signed");
    assert_eq!(counts(), [("pending", 1), ("settled", 1), ("claimed", 1)], "what is pending is counted once");
}
