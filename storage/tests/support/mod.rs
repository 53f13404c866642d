//! What the tests of this crate share: a store in a folder of its own, a clock they set, and values to put in.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod child;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use storage::{
    ClaimRequest, QuoteOpened, SettleOutcome, Store,
    faulty::{Faulty, Odds},
    model::*,
};

/// Where tests begin: 2026-11-24.
pub const BEGIN: u64 = 1_795_500_000_000;
pub const SECOND: u64 = 1000;
pub const HOUR: u64 = 3600 * SECOND;
pub const DAY: u64 = 24 * HOUR;
/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A configuration of a small store in `folder`; `more` are lines of its section.
pub fn settings(folder: &Path, more: &str) -> config::Storage {
    // What the store has to say stands beside a failure.
    drop(tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).try_init());
    let text = format!(
        "[storage]\npath = {:?}\ncache_bytes = \"16MiB\"\nmemtable_bytes = \"8MiB\"\njournal_bytes = \"64MiB\"\n{more}",
        folder.join("store")
    );
    config::Config::from_parts(Some(&text), []).expect("a good configuration").storage
}

/// A store, its clock, and how to open it again.
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub clock: Arc<AtomicU64>,
    open: Box<dyn Fn() -> Arc<dyn Store> + Send + Sync>,
    folder: tempfile::TempDir,
}

impl Bench {
    /// The embedded backend in a folder that goes with the test.
    pub fn embedded() -> Self {
        Self::embedded_with("")
    }

    pub fn embedded_with(more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(AtomicU64::new(BEGIN));
        let (config, hand) = (settings(folder.path(), more), Arc::clone(&clock));
        let open = move || {
            let clock = Clock::scripted(Arc::clone(&hand));
            storage::open(&config, clock).expect("the store opens")
        };
        Self { store: open(), clock, open: Box::new(open), folder }
    }

    /// The embedded backend behind the wrapper that can fail, and does not.
    pub fn faultless() -> Self {
        let Self { store, clock, open, folder } = Self::embedded();
        let wrap = |base: Arc<dyn Store>| -> Arc<dyn Store> { Arc::new(Faulty::new(base.into(), 1, Odds::default())) };
        Self { store: wrap(store), clock, open: Box::new(move || wrap(open())), folder }
    }

    /// Ends this life of the store and begins the next.
    pub async fn reopen(&mut self) {
        self.store.close().await.expect("closed");
        self.store = (self.open)();
    }

    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.load(Ordering::Relaxed))
    }

    pub fn pass(&self, millis: u64) {
        self.clock.fetch_add(millis, Ordering::Relaxed);
    }

    /// The clock goes back.
    pub fn back(&self, millis: u64) {
        self.clock.fetch_sub(millis, Ordering::Relaxed);
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn profile(&self) -> ProfileId {
        ProfileId::mint(self.now())
    }

    pub fn quote(&self, buyer: ProfileId, seller: ProfileId) -> Quote {
        quote(buyer, seller, self.now())
    }

    pub async fn open_quote(&self, quote: Quote) -> Arc<Payment> {
        match self.store.quote_open(quote, 1000).await.expect("quote") {
            QuoteOpened::Opened(payment) => payment,
            other => panic!("not opened: {other:?}"),
        }
    }

    /// A payment that is paid in full and claimed by this life.
    pub async fn claimed(&self, quote: Quote) -> (Arc<Payment>, Claim) {
        let payment = self.open_quote(quote).await;
        match self.settle(&payment, payment.quote.price, Some(self.request())).await {
            SettleOutcome::Recorded { claimed: Some(Claimed::Won(claim)), payment, .. } => (payment, claim),
            other => panic!("not claimed: {other:?}"),
        }
    }

    pub async fn settle(&self, payment: &Payment, amount: Micros, claim: Option<ClaimRequest>) -> SettleOutcome {
        let evidence = evidence(payment.quote.id, amount, self.now());
        self.store.payment_settle(payment.quote.id, evidence, claim).await.expect("settle")
    }

    pub fn request(&self) -> ClaimRequest {
        ClaimRequest { owner: self.store.owner(), request_bytes: 17 }
    }

    pub async fn get(&self, id: PaymentId) -> Arc<Payment> {
        self.store.payment_get(id).await.expect("read").expect("there")
    }
}

pub fn quote(buyer: ProfileId, seller: ProfileId, now: UnixMillis) -> Quote {
    let id = PaymentId::mint(now);
    Quote {
        id,
        buyer,
        seller,
        listing: ListingId::mint(now),
        body_sha256: Sha256::digest(id.bytes()).into(),
        price: Micros(1_000_000),
        fee_rate: FeeRate(49_000),
        currency: OriginCurrency::Usdc,
        rail: Rail::Sandbox,
        provider_ref: id.to_string(),
        terms: b"terms of the rail".to_vec(),
        idempotency_key: None,
        created_at: now,
        expires_at: now.plus(Duration::from_secs(900)),
    }
}

/// Money for a payment; the proof is named by payment and amount.
pub fn evidence(id: PaymentId, amount: Micros, now: UnixMillis) -> Evidence {
    Evidence {
        proof_key: format!("sandbox:{id}:{amount}"),
        rail: Rail::Sandbox,
        reference: "reference".into(),
        amount,
        recorded_at: now,
    }
}

pub fn facts(http_status: u16) -> CallFacts {
    CallFacts { http_status, seller_status_code: Some(http_status), ..CallFacts::default() }
}

pub fn kept(place: ResultPlace, bytes: &[u8], now: UnixMillis) -> KeptResult {
    KeptResult {
        place,
        encoding: ResultEncoding::Json,
        seller_status_code: 200,
        content_type: "application/json".into(),
        bytes: bytes.len() as u64,
        sha256: Sha256::digest(bytes).into(),
        kept_until: now.plus(Duration::from_secs(72 * 3600)),
    }
}

/// The held answer of a payment: its id, so that a mix-up shows.
pub fn answer(id: PaymentId) -> Bytes {
    Bytes::from(format!("{{\"answer\":\"{id}\"}}"))
}

/// What stands on an account after these postings: credits less debits.
pub fn balance(postings: &[Posting], account: impl Fn(Account) -> bool) -> i64 {
    let entries = postings.iter().flat_map(Posting::entries).filter(|entry| account(entry.account));
    entries.map(|entry| if entry.direction == Direction::Credit { entry.amount.0 } else { -entry.amount.0 }).sum()
}

/// Each posting sums to zero, and what came in is with the seller and the marketplace, in suspense, or owed.
pub fn assert_books(payment: &Payment) {
    let postings = &payment.progress.postings;
    for posting in postings {
        assert_eq!(balance(std::slice::from_ref(posting), |_| true), 0, "{posting:?}");
    }
    let settled = -balance(postings, |account| matches!(account, Account::Rail(_)));
    let completed = balance(postings, |account| matches!(account, Account::Seller(_) | Account::Marketplace));
    let suspense = balance(postings, |account| matches!(account, Account::Suspense(_)));
    let owed = balance(postings, |account| matches!(account, Account::Owed(_)));
    let paid: i64 = payment.progress.evidence.iter().map(|evidence| evidence.amount.0).sum();
    assert_eq!(settled, paid, "what the rails hold is what they showed");
    assert_eq!(settled, completed + suspense + owed, "{payment:?}");
    assert!(suspense >= 0 && owed >= 0 && completed >= 0);
}

/// Waits until something holds, for as long as a test has patience.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
