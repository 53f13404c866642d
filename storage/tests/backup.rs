//! A copy taken while the store serves becomes a store in which nothing is missing; a copy that is damaged becomes
//! nothing.
#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use storage::{Embedded, PaymentStore as _, StepOutcome, StoreError, model::*};
use support::{Bench, answer, assert_books, facts, kept, settings};

/// The payments of a test: completed, claimed and open ones, and what they must be after a restore.
struct Books {
    bench: Bench,
    buyer: ProfileId,
    seller: ProfileId,
}

impl Books {
    fn new() -> Self {
        let bench = Bench::embedded();
        let (buyer, seller) = (bench.profile(), bench.profile());
        Self { bench, buyer, seller }
    }

    async fn fill(&self, count: usize) -> Vec<Arc<Payment>> {
        let mut payments = Vec::new();
        for n in 0..count {
            self.bench.pass(1);
            let quote = self.bench.quote(self.buyer, self.seller);
            payments.push(match n % 3 {
                0 => self.completed(quote).await,
                1 => self.bench.claimed(quote).await.0,
                _ => self.bench.open_quote(quote).await,
            });
        }
        payments
    }

    async fn completed(&self, quote: Quote) -> Arc<Payment> {
        let (payment, claim) = self.bench.claimed(quote).await;
        let held = answer(payment.quote.id);
        self.complete(&payment, claim, kept(ResultPlace::Inline, &held, self.bench.now()), Some(held)).await
    }

    async fn complete(&self, payment: &Payment, claim: Claim, kept: KeptResult, held: Option<Bytes>) -> Arc<Payment> {
        let step = self.bench.store.payment_complete(payment.quote.id, claim, facts(200), kept, held).await;
        match step.expect("completed") {
            StepOutcome::Step(Ended::Done, payment) => payment,
            other => panic!("not completed: {other:?}"),
        }
    }

    async fn restored(&self, from: &Path) -> (tempfile::TempDir, Embedded) {
        let folder = tempfile::tempdir().expect("a folder");
        let config = settings(folder.path(), "");
        Embedded::restore(from, &config.path, &config).expect("restored");
        // The key is kept apart from the copy: whoever has one of them alone has no secret.
        fs::copy(self.bench.folder().join("store/master.key"), config.path.join("master.key")).expect("the key");
        let store = Embedded::open(&config, Clock::scripted(Arc::clone(&self.bench.clock))).expect("it opens");
        (folder, store)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_taken_under_writes_holds_all_that_was_acknowledged_before() {
    let books = Books::new();
    let before = books.fill(60).await;
    let copy = books.bench.folder().join("copy");
    let (done, written) = (AtomicBool::new(false), AtomicBool::new(false));
    let (report, later) = tokio::join!(
        async {
            let report = books.bench.store.backup(&copy).await.expect("copied");
            done.store(true, Ordering::Release);
            report
        },
        async {
            let mut later = Vec::new();
            while !done.load(Ordering::Acquire) || !written.swap(true, Ordering::AcqRel) {
                later.extend(books.fill(3).await);
            }
            later
        },
    );
    assert!(report.entries > 60 * 3 && !later.is_empty(), "{report:?}");
    let (_folder, restored) = books.restored(&copy).await;
    for payment in &before {
        let found = restored.payment_get(payment.quote.id).await.expect("read").expect("it is there");
        assert_eq!(found, *payment);
        if payment.progress.state == PaymentState::Completed {
            let result = restored.result_read(&found, 0).await.expect("read");
            assert_eq!(result, Some(answer(payment.quote.id)));
        }
    }
    for payment in &later {
        // In the copy or not, but never half of it.
        if let Some(found) = restored.payment_get(payment.quote.id).await.expect("read") {
            assert!(found.progress.version <= payment.progress.version);
            assert_books(&found);
        }
    }
    // It is a store like any other: it goes on.
    let page = restored.claims_overdue(1000).await.expect("overdue");
    assert!(page.len() >= 20, "claims of the copied life are overdue in the restored one: {}", page.len());
}

#[tokio::test]
async fn larger_results_come_along() {
    let books = Books::new();
    let (payment, claim) = books.bench.claimed(books.bench.quote(books.buyer, books.seller)).await;
    let (id, chunk) = (payment.quote.id, Bytes::from(vec![b'7'; 300_000]));
    let store = &books.bench.store;
    store.result_append(id, claim.attempt, 0, chunk.clone()).await.expect("kept");
    store.result_seal(id, claim.attempt).await.expect("sealed");
    books.complete(&payment, claim, kept(ResultPlace::Chunks, &chunk, books.bench.now()), None).await;
    let copy = books.bench.folder().join("copy");
    assert_eq!(store.backup(&copy).await.expect("copied").files, 1);
    let (_folder, restored) = books.restored(&copy).await;
    let found = restored.payment_get(id).await.expect("read").expect("there");
    assert_eq!(restored.result_read(&found, 0).await, Ok(Some(chunk)));
}

#[tokio::test]
async fn what_is_damaged_or_in_the_way_is_refused_and_leaves_nothing() {
    let books = Books::new();
    books.fill(30).await;
    let copy = books.bench.folder().join("copy");
    books.bench.store.backup(&copy).await.expect("copied");
    let again = books.bench.store.backup(&copy).await;
    assert!(matches!(again, Err(StoreError::Unavailable(text)) if text.contains("exists")));

    let folder = tempfile::tempdir().expect("a folder");
    let config = settings(folder.path(), "");
    let file = copy.join("store.crochet");
    let whole = fs::read(&file).expect("the copy");
    let mut cases = vec![("cut", whole[..whole.len() - 1].to_vec()), ("empty", Vec::new())];
    for place in [3, 9, 20, whole.len() / 2, whole.len() - 3] {
        let mut flipped = whole.clone();
        flipped[place] ^= 1;
        cases.push(("flipped", flipped));
    }
    for (what, bytes) in cases {
        fs::write(&file, bytes).expect("damaged");
        let refused = Embedded::restore(&copy, &config.path, &config);
        assert!(matches!(&refused, Err(StoreError::Corrupt(_))), "{what}: {refused:?}");
        assert!(!config.path.exists(), "{what}");
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 0, "{what}: nothing is left beside it");
    }
    fs::write(&file, &whole).expect("mended");
    fs::create_dir_all(&config.path).expect("a folder");
    fs::write(config.path.join("something"), "").expect("a file");
    let refused = Embedded::restore(&copy, &config.path, &config);
    assert!(matches!(refused, Err(StoreError::Unavailable(text)) if text.contains("not empty")));
    fs::remove_file(config.path.join("something")).expect("removed");
    let report = Embedded::restore(&copy, &config.path, &config).expect("restored into an empty folder");
    assert!(report.entries > 0);
}

#[tokio::test]
async fn a_folder_that_is_no_copy_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = settings(folder.path(), "");
    let refused = Embedded::restore(&folder.path().join("nowhere"), &config.path, &config);
    assert!(matches!(refused, Err(StoreError::Unavailable(text)) if text.contains("not a backup")));
}
