//! What is due though nobody asks, on a real store, the sandbox, and a clock that the test sets.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::Value;
use storage::{ClaimRequest, Intended, QuoteOpened, Store, model::*};
use tempfile::TempDir;

use super::*;
use crate::{
    history::RowWriter,
    payments::{
        Offered, Rails,
        sandbox::{Sandbox, SandboxPay},
    },
};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const PRICE: i64 = 1_000_000;

/// A rail on which transfers are signed beside the sandbox; it says what the test has it say.
struct Signed(Mutex<Result<Checked, ProviderError>>);

impl Signed {
    fn says(&self, found: Result<Checked, ProviderError>) {
        *self.0.lock() = found;
    }
}

#[async_trait]
impl PaymentProvider for Signed {
    fn rail(&self) -> Rail {
        Rail::X402
    }

    fn minimum(&self, _currency: OriginCurrency) -> Option<Micros> {
        None
    }

    fn payee(&self) -> &str {
        "signed:settlement"
    }

    fn joins(&self, _quote: &Quote) -> bool {
        true
    }

    async fn offer(&self, _quote: &Quote) -> Result<Offered, ProviderError> {
        Err(ProviderError::RouteUnavailable)
    }

    fn requirements(&self, _quote: &Quote, _site: &str) -> Value {
        Value::Null
    }

    async fn check(&self, _quote: &Quote) -> Result<Checked, ProviderError> {
        self.0.lock().clone()
    }
}

struct Bench {
    world: World,
    signed: Arc<Signed>,
    time: Arc<AtomicU64>,
    folder: TempDir,
}

impl Bench {
    fn new(has_sandbox: bool) -> Self {
        Self::at(TempDir::new().expect("a folder"), Arc::new(AtomicU64::new(1_795_500_000_000)), has_sandbox)
    }

    fn at(folder: TempDir, time: Arc<AtomicU64>, has_sandbox: bool) -> Self {
        let text = format!(
            "[storage]\npath = {:?}\ncache_bytes = \"16MiB\"\nmemtable_bytes = \"8MiB\"\njournal_bytes = \"64MiB\"\n\
             [payments.rereads]\npause = \"0s\"\n",
            folder.path().join("data")
        );
        let config = Arc::new(config::Config::from_parts(Some(&text), []).expect("a good configuration"));
        let clock = Clock::scripted(time.clone());
        let store: Arc<dyn Store> = storage::open(&config.storage, clock.clone()).expect("a store");
        let sandbox = Arc::new(Sandbox::new(store.clone(), clock.clone(), &config.payments));
        let rails = Rails::new(has_sandbox.then_some(sandbox), None, None, config::DefaultRail::Sandbox, String::new());
        let signed = Arc::new(Signed(Mutex::new(Ok(Checked::Pending(Duration::ZERO)))));
        let (rows, _) = RowWriter::new(store.clone());
        let world = World::new(config, store, clock, rails.and(signed.clone()), rows, Vec::new());
        Self { world, signed, time, folder }
    }

    /// Ends this life; the next one begins with or without the rail.
    async fn restart(self, has_sandbox: bool) -> Self {
        self.world.store.close().await.expect("closed");
        let Self { world, time, folder, .. } = self;
        drop(world);
        Self::at(folder, time, has_sandbox)
    }

    fn now(&self) -> UnixMillis {
        self.world.clock.now()
    }

    fn pass(&self, millis: u64) {
        self.time.fetch_add(millis, Ordering::Relaxed);
    }

    async fn quote(&self) -> Arc<Payment> {
        let now = self.now();
        let id = PaymentId::mint(now);
        let quote = Quote {
            id,
            buyer: ProfileId::mint(now),
            seller: ProfileId::mint(now),
            listing: ListingId::mint(now),
            body_sha256: [7; 32],
            price: Micros(PRICE),
            fee_rate: FeeRate(49_000),
            currency: OriginCurrency::Usdc,
            rail: Rail::Sandbox,
            provider_ref: id.to_string(),
            terms: Vec::new(),
            idempotency_key: None,
            created_at: now,
            expires_at: now.plus(self.world.config.payments.quote_ttl),
        };
        match self.world.store.quote_open(quote, 1_000).await.expect("quote") {
            QuoteOpened::Opened(payment) => payment,
            other => panic!("not opened: {other:?}"),
        }
    }

    async fn pay(&self, payment: &Payment, outcome: SandboxOutcome, amount: i64) {
        let sandbox = self.world.rails.sandbox().expect("the sandbox is on");
        let pay = SandboxPay { amount: Some(Micros(amount)), outcome, ..SandboxPay::default() };
        sandbox.pay(payment, pay).await.expect("paid");
    }

    /// A transfer of the price was signed on the other rail, and nobody knows yet whether it moved.
    async fn sign(&self, payment: &Payment) -> RailRecord {
        let proof_key = format!("signed:{}", payment.quote.id);
        let intent = Intent {
            proof_key: proof_key.clone(),
            identifier: None,
            rail: Rail::X402,
            signed: Vec::new(),
            expires_at: self.now(),
            recorded_at: self.now(),
        };
        let intended = self.world.store.payment_intend(payment.quote.id, intent).await.expect("the store answers");
        assert!(matches!(intended, Intended::Recorded(_)));
        let (amount, payee) = (payment.quote.price, self.signed.payee().to_string());
        RailRecord { proof_key, reference: "0xabc".into(), amount, payee, rail: Rail::X402 }
    }

    /// Paid, settled by a buyer's request, and claimed.
    async fn claimed(&self, outcome: SandboxOutcome) -> (PaymentId, Claim) {
        let payment = self.quote().await;
        let id = payment.quote.id;
        self.pay(&payment, outcome, PRICE).await;
        let found = self.world.check_rail(&payment.quote).await.expect("the rail answers");
        let Checked::Settled(record) = found else { panic!("not settled: {found:?}") };
        let Verified::Ours(evidence) = verify(&payment.quote, "sandbox:settlement", record, self.now()) else {
            panic!("not ours")
        };
        let request = ClaimRequest { owner: self.world.store.owner(), request_bytes: 1 };
        match self.world.store.payment_settle(id, evidence, Some(request)).await.expect("settled") {
            SettleOutcome::Recorded { claimed: Some(Claimed::Won(claim)), .. } => (id, claim),
            other => panic!("not claimed: {other:?}"),
        }
    }

    async fn complete(&self, id: PaymentId, claim: Claim) {
        let result = KeptResult {
            place: ResultPlace::NotKept,
            encoding: ResultEncoding::Nothing,
            seller_status_code: 200,
            content_type: String::new(),
            bytes: 0,
            sha256: [0; 32],
            kept_until: self.now(),
        };
        self.world.store.payment_complete(id, claim, CallFacts::default(), result, None).await.expect("completed");
    }

    async fn round(&self) {
        while self.world.store.roll_up().await.expect("rolled up").more {}
        while round(&self.world).await.expect("a round") {}
    }

    async fn get(&self, id: PaymentId) -> Arc<Payment> {
        self.world.store.payment_get(id).await.expect("read").expect("there")
    }

    async fn state(&self, id: PaymentId) -> &'static str {
        self.get(id).await.progress.state.name()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_nobody_told_of_is_found_at_each_look_and_recorded_once() {
    let bench = Bench::new(true);
    let early = bench.quote().await;
    bench.pay(&early, SandboxOutcome::Success, PRICE).await;
    bench.round().await;
    assert_eq!(bench.state(early.quote.id).await, "quoted", "while it is offered the buyer asks");
    let quotes = [bench.quote().await, bench.quote().await, bench.quote().await];
    bench.pass(15 * MINUTE);
    bench.round().await;
    assert_eq!(bench.state(early.quote.id).await, "settled", "at its expiry");
    for (late, (payment, wait)) in quotes.iter().zip([HOUR, 23 * HOUR, 6 * DAY]).enumerate() {
        bench.pay(payment, SandboxOutcome::Success, PRICE).await;
        bench.pass(wait - 1);
        bench.round().await;
        assert_eq!(bench.state(payment.quote.id).await, "quoted", "look {late} is not due yet");
        bench.pass(1);
        bench.round().await;
        assert_eq!(bench.state(payment.quote.id).await, "settled", "look {late}");
        bench.round().await;
        assert_eq!(bench.get(payment.quote.id).await.progress.postings.len(), 1, "and once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_found_late_is_owed_and_a_failed_payment_fails() {
    let bench = Bench::new(true);
    let (short, failed, unpaid) = (bench.quote().await, bench.quote().await, bench.quote().await);
    bench.pay(&short, SandboxOutcome::Success, 1).await;
    bench.pay(&failed, SandboxOutcome::Failure, PRICE).await;
    bench.pass(15 * MINUTE);
    bench.round().await;
    assert_eq!(bench.state(short.quote.id).await, "owed");
    assert_eq!(bench.state(failed.quote.id).await, "failed");
    assert_eq!(bench.state(unpaid.quote.id).await, "quoted", "nothing is known of it, so nothing changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rails_no_at_a_look_ends_no_payment_for_which_money_was_signed_away_on_another() {
    let bench = Bench::new(true);
    let payment = bench.quote().await;
    let id = payment.quote.id;
    let record = bench.sign(&payment).await;
    bench.pay(&payment, SandboxOutcome::Failure, PRICE).await;
    bench.pass(15 * MINUTE);
    bench.round().await;
    assert_eq!(bench.state(id).await, "pending", "the transfer may have moved");
    bench.signed.says(Err(ProviderError::Unavailable));
    bench.pass(HOUR);
    bench.round().await;
    assert_eq!(bench.state(id).await, "pending", "and no answer is no no");
    bench.signed.says(Ok(Checked::Settled(record)));
    bench.pass(DAY);
    bench.round().await;
    assert_eq!(bench.state(id).await, "settled");
    assert_eq!(bench.get(id).await.progress.postings.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_fails_when_both_its_rail_and_that_of_what_was_signed_say_no() {
    let bench = Bench::new(true);
    let (alone, both) = (bench.quote().await, bench.quote().await);
    for payment in [&alone, &both] {
        bench.sign(payment).await;
    }
    bench.pay(&both, SandboxOutcome::Failure, PRICE).await;
    bench.signed.says(Ok(Checked::Failed));
    bench.pass(15 * MINUTE);
    bench.round().await;
    assert_eq!(bench.state(alone.quote.id).await, "pending", "its own rail may still bring the money");
    assert_eq!(bench.state(both.quote.id).await, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_a_reorg_after_completion_is_posted_against_those_who_hold_the_money() {
    let bench = Bench::new(true);
    let (id, claim) = bench.claimed(SandboxOutcome::Reorg).await;
    bench.complete(id, claim).await;
    bench.pass(5 * MINUTE);
    bench.round().await;
    assert_eq!(bench.get(id).await.progress.postings.len(), 2, "an hour after completion, not before");
    bench.pass(HOUR);
    bench.round().await;
    let payment = bench.get(id).await;
    assert_eq!(payment.progress.state, PaymentState::Completed, "the call stays handled");
    let accounts = [Account::Rail(Rail::Sandbox), Account::Seller(payment.quote.seller), Account::Marketplace];
    assert_eq!(accounts.map(|account| payment.balance(account)), [0, 0, 0]);
    bench.pass(DAY);
    bench.round().await;
    assert_eq!(bench.get(id).await.progress, payment.progress, "the last look changes nothing more");
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_a_reorg_before_completion_closes_the_payment_and_one_during_the_call_waits_for_its_end() {
    let bench = Bench::new(true);
    let (idle, claim) = bench.claimed(SandboxOutcome::Reorg).await;
    let status = AttemptStatus::Released;
    bench.world.store.payment_release(idle, claim, status, CallFacts::default()).await.expect("released");
    let (running, claim) = bench.claimed(SandboxOutcome::Reorg).await;
    bench.round().await;
    bench.pass(HOUR);
    bench.round().await;
    assert_eq!((bench.state(idle).await, bench.state(running).await), ("owed", "claimed"));
    assert_eq!(bench.get(running).await.progress.postings.len(), 1, "nothing is posted while the call runs");
    bench.complete(running, claim).await;
    let payment = bench.get(running).await;
    assert_eq!((payment.progress.state, payment.progress.postings.len()), (PaymentState::Completed, 3));
    assert_eq!(payment.balance(Account::Rail(Rail::Sandbox)), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_money_without_a_call_is_the_buyers_again_when_its_window_is_over() {
    let bench = Bench::new(true);
    let (id, claim) = bench.claimed(SandboxOutcome::Success).await;
    let status = AttemptStatus::Released;
    bench.world.store.payment_release(id, claim, status, CallFacts::default()).await.expect("released");
    let (running, _) = bench.claimed(SandboxOutcome::Success).await;
    bench.pass(7 * DAY - 1);
    bench.round().await;
    assert_eq!(bench.state(id).await, "settled");
    let (young, claim) = bench.claimed(SandboxOutcome::Success).await;
    bench.world.store.payment_release(young, claim, status, CallFacts::default()).await.expect("released");
    bench.pass(1);
    bench.round().await;
    assert_eq!(
        (bench.state(id).await, bench.state(running).await, bench.state(young).await),
        ("owed", "claimed", "settled")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rail_that_was_off_for_all_looks_is_read_until_it_answers() {
    let bench = Bench::new(true);
    let (paid, unpaid) = (bench.quote().await, bench.quote().await);
    bench.pay(&paid, SandboxOutcome::Success, PRICE).await;
    let bench = bench.restart(false).await;
    for _ in 0..3 {
        bench.pass(7 * DAY + 15 * MINUTE);
        bench.round().await;
    }
    assert_eq!(bench.state(paid.quote.id).await, "quoted", "no answer is no no");
    let bench = bench.restart(true).await;
    bench.round().await;
    assert_eq!(bench.state(paid.quote.id).await, "quoted", "it was put off for an hour");
    bench.pass(HOUR);
    bench.round().await;
    assert_eq!(bench.state(paid.quote.id).await, "settled");
    let gone = bench.world.store.payment_get(unpaid.quote.id).await.expect("read");
    assert!(gone.is_none(), "what the rail could say at last, long after its time, is deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fell_due_while_the_gateway_was_stopped_is_done_at_the_next_start() {
    let bench = Bench::new(true);
    let quotes = [bench.quote().await, bench.quote().await];
    bench.pass(15 * MINUTE);
    bench.round().await;
    for payment in &quotes {
        bench.pay(payment, SandboxOutcome::Success, PRICE).await;
    }
    bench.pass(40 * DAY);
    let bench = bench.restart(true).await;
    bench.round().await;
    for payment in &quotes {
        assert_eq!(bench.state(payment.quote.id).await, "settled");
    }
    bench.pass(8 * DAY);
    bench.round().await;
    assert_eq!(bench.state(quotes[0].quote.id).await, "owed", "its window began when it was found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_takes_some_of_each_kind_and_the_next_goes_on_there() {
    let bench = Bench::new(true);
    let count = PAGE * PAGES_MAX + 3;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(bench.quote().await);
    }
    for payment in &ids {
        bench.pay(payment, SandboxOutcome::Success, PRICE).await;
    }
    bench.pass(15 * MINUTE);
    assert!(round(&bench.world).await.expect("a round"), "more waits");
    let mut settled = 0;
    for payment in &ids {
        settled += usize::from(bench.state(payment.quote.id).await == "settled");
    }
    assert_eq!(settled, PAGE * PAGES_MAX);
    assert!(!round(&bench.world).await.expect("a round"));
    assert_eq!(bench.state(ids[count - 1].quote.id).await, "settled");
}
