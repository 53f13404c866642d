//! A store that fails as stores fail, by a seed: for tests of those who must bear it. What is below stays whole, so that
//! every fault is one that a good backend may show.

use std::{
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    error::{StoreError, StoreResult},
    model::*,
    store::*,
};

/// Random numbers that one seed names for good.
#[derive(Debug)]
pub struct Dice(AtomicU64);

impl Dice {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or_default()
    }

    /// Whether a thing happens that happens so many times in a thousand.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

/// How often what goes wrong, in a thousand steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// `Unavailable`: nothing happened.
    pub unavailable: u64,
    /// `Unknown`, and it happened in every second case.
    pub unknown: u64,
    /// A wait before the step and one behind it: what is concurrent changes places.
    pub delayed: u64,
    /// The longest such wait, milliseconds.
    pub delay_max_ms: u64,
    /// The process dies over this write, counted from 1: it happened in every second case. 0: never.
    pub crash_at: u64,
    /// From this write on, counted from 1, no step is taken for a while. 0: never.
    pub outage_at: u64,
    /// How long that lasts, milliseconds.
    pub outage_ms: u64,
}

/// What went wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Steps that were not taken.
    pub unavailable: u64,
    /// Writes that happened, and nobody was told.
    pub lost_written: u64,
    /// Writes that did not happen, and nobody was told.
    pub lost_unwritten: u64,
    /// Waits before or behind a step.
    pub delayed: u64,
    /// Steps that came while none was taken.
    pub out: u64,
    /// The process died over a write that happened, or over one that did not.
    pub died: Option<bool>,
}

/// Whether a step changes anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

/// What a step's answer becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    Unavailable,
    Lost { happens: bool },
    Crash { happens: bool },
}

/// What the faults are over: some of a store's traits may lie behind something that a test put there.
#[derive(Clone)]
pub struct Parts {
    /// All that has no part of its own.
    pub base: Arc<dyn Store>,
    /// Payments.
    pub payments: Arc<dyn PaymentStore>,
    /// Reversals and refunds.
    pub money: Arc<dyn MoneyStore>,
    /// Payouts.
    pub payouts: Arc<dyn PayoutStore>,
    /// What is due though nobody asks.
    pub work: Arc<dyn WorkStore>,
    /// The sandbox rail's books.
    pub rail: Arc<dyn SandboxStore>,
}

impl From<Arc<dyn Store>> for Parts {
    fn from(base: Arc<dyn Store>) -> Self {
        let (payments, money, payouts) = (base.clone(), base.clone(), base.clone());
        Self { payments, money, payouts, work: base.clone(), rail: base.clone(), base }
    }
}

/// A store with faults over one without. A step runs at one moment, on the thread that asks for it: with a runtime of
/// one thread and a paused clock, a seed gives one history.
pub struct Faulty {
    parts: Parts,
    dice: Dice,
    odds: Odds,
    writes: AtomicU64,
    is_dead: AtomicBool,
    death: Notify,
    faults: Mutex<Faults>,
    out_until: Mutex<Option<Instant>>,
}

impl Faulty {
    /// Faults over these.
    #[must_use]
    pub fn new(parts: Parts, seed: u64, odds: Odds) -> Self {
        let (dice, writes, is_dead) = (Dice::new(seed), AtomicU64::new(0), AtomicBool::new(false));
        let (death, faults, out_until) = (Notify::new(), Mutex::default(), Mutex::default());
        Self { parts, dice, odds, writes, is_dead, death, faults, out_until }
    }

    /// Waits until the process is to die. Every later step is `Unavailable`; whoever starts it again does so over what
    /// is below.
    pub async fn died(&self) {
        while !self.is_dead.load(Ordering::Relaxed) {
            self.death.notified().await;
        }
    }

    /// What went wrong so far.
    pub fn faults(&self) -> Faults {
        *self.faults.lock()
    }

    fn fate(&self, kind: Kind) -> Fate {
        let happens = self.dice.chance(500);
        let write = if kind == Kind::Write { self.writes.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        if write > 0 && write == self.odds.crash_at {
            return Fate::Crash { happens };
        }
        if self.is_out(write) {
            self.faults.lock().out += 1;
            return Fate::Unavailable;
        }
        let drawn = self.dice.below(1_000);
        if drawn < self.odds.unavailable {
            Fate::Unavailable
        } else if kind == Kind::Write && drawn < self.odds.unavailable + self.odds.unknown {
            Fate::Lost { happens }
        } else {
            Fate::Well
        }
    }

    fn is_out(&self, write: u64) -> bool {
        let (mut until, now) = (self.out_until.lock(), Instant::now());
        if write > 0 && write == self.odds.outage_at {
            *until = Some(now + Duration::from_millis(self.odds.outage_ms));
        }
        until.is_some_and(|until| now < until)
    }

    async fn pause(&self) {
        if self.dice.chance(self.odds.delayed) {
            self.faults.lock().delayed += 1;
            tokio::time::sleep(Duration::from_millis(self.dice.below(self.odds.delay_max_ms) + 1)).await;
        }
    }

    async fn around<T>(&self, name: &str, kind: Kind, step: impl Future<Output = StoreResult<T>>) -> StoreResult<T> {
        self.pause().await;
        if self.is_dead.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the process died".into()));
        }
        let found = match self.fate(kind) {
            Fate::Well => at_once(step),
            Fate::Unavailable => {
                self.faults.lock().unavailable += 1;
                Err(StoreError::Unavailable(format!("{name} is not taken")))
            }
            Fate::Lost { happens } => {
                if happens {
                    drop(at_once(step));
                    self.faults.lock().lost_written += 1;
                } else {
                    self.faults.lock().lost_unwritten += 1;
                }
                Err(StoreError::Unknown(format!("{name} is not confirmed")))
            }
            Fate::Crash { happens } => {
                if happens {
                    drop(at_once(step));
                }
                self.faults.lock().died = Some(happens);
                self.is_dead.store(true, Ordering::Relaxed);
                self.death.notify_waiters();
                Err(StoreError::Unknown("the process died over it".into()))
            }
        };
        self.pause().await;
        found
    }
}

/// Wakes a thread that waits for a step.
struct Wakes(Thread);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a step to its end on this thread: other threads' speed decides nothing.
pub fn at_once<T>(step: impl Future<Output = T>) -> T {
    // A task's turn is not measured here: it would end before the step does, and never begin again.
    let mut step = pin!(tokio::task::unconstrained(step));
    let waker = Waker::from(Arc::new(Wakes(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match step.as_mut().poll(&mut context) {
            Poll::Ready(found) => return found,
            Poll::Pending => std::thread::park(),
        }
    }
}

macro_rules! forward {
    ($($noun:ident: $part:ident {
        $($kind:ident $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*
        $({ $($more:tt)* })?
    })*) => {$(
        #[async_trait]
        impl $noun for Faulty {
            $(async fn $name(&self, $($arg: $type),*) -> StoreResult<$out> {
                self.around(stringify!($name), Kind::$kind, self.parts.$part.$name($($arg),*)).await
            })*
            $($($more)*)?
        }
    )*};
}

forward! {
    IdentityStore: base {
        Write profile_create(profile: Profile, wallet: Wallet, key: ApiKey) -> ProfileCreated;
        Read profile_get(id: ProfileId) -> Option<Profile>;
        Write profile_update(profile: Profile) -> Changed;
        Write agent_claim(agent: ProfileId, wallet: WalletId, human: ProfileId) -> AgentClaimed;
        Read agents_claimed_by(human: ProfileId) -> Vec<Profile>;
        Write wallet_link(proven_by: WalletId, wallet: Wallet, most: usize) -> WalletLinked;
        Write wallet_update(profile: ProfileId, id: WalletId, proven_by: WalletId, change: WalletChange) -> Result<Wallet, WalletRefused>;
        Write profile_suspend(id: ProfileId, is_suspended: bool) -> Changed;
        Read wallet_find(family: ChainFamily, address: &[u8]) -> Option<Wallet>;
        Read wallet_list(profile: ProfileId) -> Vec<Wallet>;
        Read api_key_find(key_sha256: &[u8; 32]) -> Option<ApiKey>;
        Write api_key_create(key: ApiKey) -> ();
        Read api_key_list(profile: ProfileId) -> Vec<ApiKey>;
        Write api_key_revoke(profile: ProfileId, id: ApiKeyId, at: UnixMillis) -> Option<ApiKey>;
        Write api_key_recover(key: ApiKey, wallet: WalletId, revoke_others: bool) -> KeyRecovered;
        Write api_keys_used(used: Vec<([u8; 32], UnixMillis)>) -> ();
        Write human_create(profile: Profile, human: Human) -> HumanCreated;
        Read human_find(email: &str) -> Option<Human>;
        Write human_password_set(email: &str, password: String, at: UnixMillis) -> Option<Human>;
        Write session_create(session: Session) -> ();
        Read session_find(id_sha256: &[u8; 32]) -> Option<Session>;
        Write session_seen(id_sha256: [u8; 32], at: UnixMillis) -> ();
        Write session_end(id_sha256: [u8; 32]) -> ();
        Write nonce_use(nonce_sha256: [u8; 32], until: UnixMillis) -> NonceUsed;
        Write server_secret(name: &str) -> [u8; 32];
    }
    CatalogStore: base {
        Read category_list() -> Vec<Category>;
        Write listing_create(listing: Listing, endpoint: Option<Endpoint>) -> Listing;
        Read listing_get(id: ListingId) -> Option<Offer>;
        Read listing_by_slug(slug: &str) -> Option<Offer>;
        Write listing_update(listing: Listing, endpoint: Option<Endpoint>) -> Changed;
        Write endpoint_update(endpoint: Endpoint) -> Changed;
        Write listing_delete(id: ListingId, version: u64) -> Changed;
        Read listing_scan(after: Option<ListingId>, limit: usize) -> Vec<Listing>;
        Read listing_of_seller(seller: ProfileId) -> Vec<Listing>;
        Write challenge_put(seller: ProfileId, challenge: ListingChallenge) -> ();
        Write challenge_take(seller: ProfileId, now: UnixMillis) -> Option<ListingChallenge>;
        Read changes_since(cursor: u64) -> Changes;
    }
    PaymentStore: payments {
        Write quote_open(quote: Quote, open_max: u32) -> QuoteOpened;
        Write quote_open_within(quote: Quote, open_max: u32, cap: SpendCap) -> QuoteOpened;
        Read quote_find(quote: &QuoteIdentity) -> Option<Arc<Payment>>;
        Read payment_get(id: PaymentId) -> Option<Arc<Payment>>;
        Read payment_by_key(buyer: ProfileId, key: &str) -> Option<Arc<Payment>>;
        Read payment_by_proof(proof_key: &str) -> Option<Arc<Payment>>;
        Write payment_intend(id: PaymentId, intent: Intent) -> Intended;
        Read payment_intent(id: PaymentId) -> Option<Intent>;
        Write payment_settle(id: PaymentId, evidence: Evidence, claim: Option<ClaimRequest>) -> SettleOutcome;
        Write payment_claim(id: PaymentId, claim: ClaimRequest) -> StepOutcome<Claimed>;
        Write payment_complete(id: PaymentId, claim: Claim, facts: CallFacts, result: KeptResult, held: Option<Bytes>) -> StepOutcome<Ended>;
        Write payment_release(id: PaymentId, claim: Claim, status: AttemptStatus, facts: CallFacts) -> StepOutcome<Ended>;
        Write payment_owe(id: PaymentId) -> StepOutcome<bool>;
        Write payment_fail(id: PaymentId) -> StepOutcome<bool>;
        Read claims_overdue(limit: usize) -> Vec<(PaymentId, Claim)>;
        Write result_append(id: PaymentId, attempt: u32, n: u32, chunk: Bytes) -> ();
        Write result_seal(id: PaymentId, attempt: u32) -> ();
        Write result_resend(id: PaymentId) -> StepOutcome<bool>;
        Write result_resend_return(id: PaymentId) -> StepOutcome<bool>;
        Read result_read(payment: &Payment, n: u32) -> Option<Bytes>;
        { fn results_room(&self) -> ResultsRoom { self.parts.payments.results_room() } }
    }
    MoneyStore: money {
        Write payment_take_back(id: PaymentId, reversal: Evidence) -> TakeBackOutcome;
        Write refund_begin(id: PaymentId) -> StepOutcome<(RefundBegun, Option<Refund>)>;
        Write refund_sent(id: PaymentId, number: u32, reference: String) -> StepOutcome<TransferTold>;
        Write refund_confirm(id: PaymentId, number: u32) -> StepOutcome<TransferTold>;
        Read refund_list(id: PaymentId) -> Vec<Refund>;
        Read books_page(after: Option<Vec<u8>>) -> BooksPage;
    }
    PayoutStore: payouts {
        Write payout_open(seller: ProfileId, to: String) -> PayoutOpened;
        Write payout_sent(seller: ProfileId, number: u32, reference: String) -> TransferTold;
        Write payout_confirm(seller: ProfileId, number: u32) -> TransferTold;
        Read payout_list(seller: ProfileId) -> Vec<Payout>;
        Read payable_list(after: Option<ProfileId>, limit: usize) -> PayablePage;
    }
    WorkStore: work {
        Read work_due(work: Work, after: Option<Vec<u8>>, until: UnixMillis, limit: usize) -> WorkPage;
        Write work_done(work: Work, mark: Vec<u8>, put_off: Vec<(PaymentId, UnixMillis)>) -> ();
    }
    HistoryStore: base {
        Read gateway_request_list(party: ProfileId, filter: &HistoryFilter, after: Option<&Cursor>, limit: usize) -> Page<GatewayRequest>;
        Read gateway_request_get(party: ProfileId, id: GatewayRequestId) -> Vec<GatewayRequest>;
        Read ledger_list(party: ProfileId, filter: &HistoryFilter, after: Option<&Cursor>, limit: usize) -> Page<LedgerRow>;
        Write roll_up() -> RolledUp;
        Read tally_get(listing: ListingId) -> Tally;
        Read sums_get(party: ProfileId) -> Sums;
        Write free_calls_write(calls: Vec<FreeCall>) -> ();
    }
    TrustStore: base {
        Write review_create(review: Review, since: UnixMillis) -> ReviewCreated;
        Read review_get(listing: ListingId, reviewer: ProfileId) -> Option<Review>;
        Read review_list(listing: ListingId, skip: usize, limit: usize) -> Vec<Review>;
        Read ratings_get(listing: ListingId) -> Ratings;
        Read bought_get(listing: ListingId, buyer: ProfileId) -> Bought;
        Read standing_get(profile: ProfileId) -> Standing;
        Read score_due(after: Option<ProfileId>, limit: usize) -> Vec<ProfileId>;
        Write score_put(score: Score, standing_version: u64) -> Changed;
        Read score_get(profile: ProfileId) -> Option<Score>;
        Read profile_scan(after: Option<ProfileId>, limit: usize) -> Vec<Profile>;
    }
    SandboxStore: rail {
        Write sandbox_pay(payment: SandboxPayment) -> SandboxPayment;
        Read sandbox_get(id: PaymentId) -> Option<SandboxPayment>;
    }
    SecretStore: base {
        Read secret_count() -> u64;
        Write secret_reseal(after: Option<Vec<u8>>) -> Resealed;
    }
}

#[async_trait]
impl Store for Faulty {
    fn backend(&self) -> &'static str {
        self.parts.base.backend()
    }

    fn owner(&self) -> Owner {
        self.parts.base.owner()
    }

    fn check(&self) -> StoreResult<()> {
        self.parts.base.check()
    }

    async fn backup(&self, into: &Path) -> StoreResult<BackupReport> {
        self.parts.base.backup(into).await
    }

    async fn export(&self, out: mpsc::Sender<Bytes>) -> StoreResult<ExportReport> {
        self.parts.base.export(out).await
    }

    async fn close(&self) -> StoreResult<()> {
        self.parts.base.close().await
    }
}
