//! Metrics. Handles are made once, at the start: a look-up by name on every call would cost more than the call.

use std::time::Instant;

use metrics::{Gauge, Histogram, gauge, histogram};

use crate::model::PaymentState;

macro_rules! operations {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// An operation, as the metrics name it.
        #[derive(Clone, Copy)]
        pub(crate) enum Operation { $($variant),* }

        /// The names of all operations, as metrics have them.
        pub const OPERATIONS: &[&str] = &[$($name),*];
    };
}

operations!(
    QuoteOpen = "quote_open",
    QuoteOpenWithin = "quote_open_within",
    QuoteFind = "quote_find",
    PaymentGet = "payment_get",
    PaymentByKey = "payment_by_key",
    PaymentByProof = "payment_by_proof",
    PaymentIntend = "payment_intend",
    PaymentIntent = "payment_intent",
    PaymentSettle = "payment_settle",
    PaymentClaim = "payment_claim",
    PaymentComplete = "payment_complete",
    PaymentRelease = "payment_release",
    PaymentOwe = "payment_owe",
    PaymentFail = "payment_fail",
    PaymentTakeBack = "payment_take_back",
    RefundBegin = "refund_begin",
    RefundSent = "refund_sent",
    RefundConfirm = "refund_confirm",
    RefundList = "refund_list",
    PayoutOpen = "payout_open",
    PayoutSent = "payout_sent",
    PayoutConfirm = "payout_confirm",
    PayoutList = "payout_list",
    PayableList = "payable_list",
    BooksPage = "books_page",
    WorkDue = "work_due",
    WorkDone = "work_done",
    ClaimsOverdue = "claims_overdue",
    ResultAppend = "result_append",
    ResultSeal = "result_seal",
    ResultRead = "result_read",
    ResultResend = "result_resend",
    ResultResendReturn = "result_resend_return",
    GatewayRequestList = "gateway_request_list",
    GatewayRequestGet = "gateway_request_get",
    LedgerList = "ledger_list",
    FreeCallsWrite = "free_calls_write",
    RollUp = "roll_up",
    TallyGet = "tally_get",
    SumsGet = "sums_get",
    ReviewCreate = "review_create",
    ReviewGet = "review_get",
    ReviewList = "review_list",
    RatingsGet = "ratings_get",
    StandingGet = "standing_get",
    ScoreDue = "score_due",
    ScorePut = "score_put",
    ScoreGet = "score_get",
    ProfileScan = "profile_scan",
    ProfileCreate = "profile_create",
    ProfileGet = "profile_get",
    ProfileSuspend = "profile_suspend",
    WalletFind = "wallet_find",
    WalletList = "wallet_list",
    ApiKeyFind = "api_key_find",
    ApiKeyCreate = "api_key_create",
    ApiKeyList = "api_key_list",
    ApiKeyRevoke = "api_key_revoke",
    ProfileUpdate = "profile_update",
    AgentClaim = "agent_claim",
    AgentsClaimedBy = "agents_claimed_by",
    WalletLink = "wallet_link",
    WalletUpdate = "wallet_update",
    ApiKeyRecover = "api_key_recover",
    ApiKeysUsed = "api_keys_used",
    HumanCreate = "human_create",
    HumanFind = "human_find",
    HumanPasswordSet = "human_password_set",
    SessionCreate = "session_create",
    SessionFind = "session_find",
    SessionSeen = "session_seen",
    SessionEnd = "session_end",
    NonceUse = "nonce_use",
    ServerSecret = "server_secret",
    CategoryList = "category_list",
    ListingCreate = "listing_create",
    ListingGet = "listing_get",
    ListingBySlug = "listing_by_slug",
    ListingUpdate = "listing_update",
    EndpointUpdate = "endpoint_update",
    ListingDelete = "listing_delete",
    ListingScan = "listing_scan",
    ListingOfSeller = "listing_of_seller",
    ChallengePut = "challenge_put",
    ChallengeTake = "challenge_take",
    SandboxPay = "sandbox_pay",
    SandboxGet = "sandbox_get",
    SecretCount = "secret_count",
    SecretReseal = "secret_reseal",
    Housekeeping = "housekeeping",
);

/// The states of payments that are counted as open, as metrics name them: those that still may buy a call.
pub const OPEN_STATES: [&str; 4] = ["quoted", "pending", "settled", "claimed"];

/// The handles.
pub(crate) struct Measures {
    durations: Vec<Histogram>,
    group: Histogram,
    open: [Gauge; OPEN_STATES.len()],
}

impl Measures {
    /// Handles of the recorder that is installed now.
    pub(crate) fn new(backend: &'static str) -> Self {
        let duration = |name: &&'static str| histogram!("crochet_store_operation_duration_seconds", "backend" => backend, "operation" => *name);
        Self {
            durations: OPERATIONS.iter().map(duration).collect(),
            group: histogram!("crochet_store_group_commit_size", "backend" => backend),
            open: OPEN_STATES.map(|state| gauge!("crochet_payments_open", "state" => state)),
        }
    }

    /// Notes the time from here until the value that is returned goes.
    pub(crate) fn time(&self, operation: Operation) -> Timing<'_> {
        Timing { histogram: self.durations.get(operation as usize), begun: Instant::now() }
    }

    /// Notes how many payments are open, by the place of their state in [`OPEN_STATES`].
    pub(crate) fn open_payments(&self, counts: [u32; OPEN_STATES.len()]) {
        for (gauge, count) in self.open.iter().zip(counts) {
            gauge.set(f64::from(count));
        }
    }

    /// Notes how many steps one commit held.
    pub(crate) fn group(&self, steps: usize) {
        self.group.record(f64::from(u32::try_from(steps).unwrap_or(u32::MAX)));
    }
}

/// The place of a state in [`OPEN_STATES`]; `None`: it buys no call any more.
pub(crate) fn open_state(state: &PaymentState) -> Option<usize> {
    OPEN_STATES.iter().position(|name| *name == state.name())
}

/// An operation on its way; its end is noted by the drop.
pub(crate) struct Timing<'a> {
    histogram: Option<&'a Histogram>,
    begun: Instant,
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        if let Some(histogram) = self.histogram {
            histogram.record(self.begun.elapsed());
        }
    }
}
