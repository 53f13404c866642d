//! Payments: every method that decides is one atomic step.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    error::StoreResult,
    model::{
        AttemptStatus, CallFacts, Claim, Claimed, Ended, Evidence, Intent, KeptResult, Micros, Owner, Payment,
        PaymentId, ProfileId, Quote, Settled, SpendCap,
    },
};

/// What `quote_open` found.
#[derive(Clone, Debug)]
pub enum QuoteOpened {
    /// This quote is the one.
    Opened(Arc<Payment>),
    /// The same question was asked before; that quote still stands.
    Exists(Arc<Payment>),
    /// The idempotency key names another purchase: other listing, body or currency.
    KeyReused(Arc<Payment>),
    /// The buyer has as many open quotes as it may.
    TooManyOpen,
    /// The key has agreed to so much today that this price is above its cap; nothing was opened.
    OverCap {
        /// What it has agreed to.
        spent: Micros,
    },
}

/// How much room this node has for results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultsRoom {
    /// Enough.
    Ample,
    /// None for results that are too large to be held; the others are kept all the same.
    Full,
    /// So little that no more calls should be sold.
    Exceeded,
}

/// What `payment_settle` found.
#[derive(Clone, Debug)]
pub enum SettleOutcome {
    /// What the money did, and what came of the claim when one was asked for and the money was enough (or had been).
    Recorded {
        /// What the money did.
        settled: Settled,
        /// What came of the claim.
        claimed: Option<Claimed>,
        /// The payment after the step.
        payment: Arc<Payment>,
    },
    /// This money was recorded for another payment: one proof, one payment.
    ProofUsed(PaymentId),
    /// No such payment.
    NotFound,
}

/// What `payment_intend` found.
#[derive(Clone, Debug)]
pub enum Intended {
    /// It is durable, and the provider may be asked to move the money. The payment after the step.
    Recorded(Arc<Payment>),
    /// The payment has an intent, this one or another: that one is to be settled first.
    Standing(Box<Intent>, Arc<Payment>),
    /// The same money, or the same name of the buyer's for it, belongs to another payment; nothing was written.
    Used(PaymentId),
    /// The payment is no longer awaited; nothing was written.
    Late(Arc<Payment>),
    /// No such payment.
    NotFound,
}

/// What a guarded step found.
#[derive(Clone, Debug)]
pub enum StepOutcome<T> {
    /// What happened, and the payment after it.
    Step(T, Arc<Payment>),
    /// No such payment.
    NotFound,
}

/// Who wants to claim, and for what.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest {
    /// Who will call the seller.
    pub owner: Owner,
    /// Size of the request body, for the row.
    pub request_bytes: u64,
}

/// Payments, their results and their claims.
#[async_trait]
pub trait PaymentStore: Send + Sync {
    /// Opens a quote by its identity: (buyer, listing, body, currency, key or none). While an equal one is open it is
    /// `Exists`; with a key, an equal one is in any state that may still buy or has bought (until its key is forgotten, 72 h after
    /// its end); one that expired unpaid, failed or was given back is replaced. Rules out
    /// a look followed by an insert: two equal questions at once must get one quote. `open_max`: open quotes per buyer.
    /// A quote on Relay is found by [`reference_key`] from then on, too.
    async fn quote_open(&self, quote: Quote, open_max: u32) -> StoreResult<QuoteOpened>;

    /// As `quote_open`, for a key whose spending is capped: the price counts towards the key's day (UTC), once for a
    /// quote however often it is asked for, by one compare-and-set on (key, day). A standing quote that another key
    /// opened counts as well. Rules out adding up what was spent and opening afterwards: two questions at once must not
    /// both fit into the last of a cap. A quote that expires unpaid gives its price back to its day, some seconds
    /// later; money that was paid counts for good, whatever became of the call; money that comes later than the
    /// giving back counts on the day when it comes.
    async fn quote_open_within(&self, quote: Quote, open_max: u32, cap: SpendCap) -> StoreResult<QuoteOpened>;

    /// The quote that is open for this identity, without opening one.
    async fn quote_find(&self, quote: &QuoteIdentity) -> StoreResult<Option<Arc<Payment>>>;

    /// A payment by id.
    async fn payment_get(&self, id: PaymentId) -> StoreResult<Option<Arc<Payment>>>;

    /// The purchase that an idempotency key of this buyer names.
    async fn payment_by_key(&self, buyer: ProfileId, key: &str) -> StoreResult<Option<Arc<Payment>>>;

    /// The payment that money, or a buyer's own name for it, was signed away or recorded for, or a provider's request was
    /// made for.
    async fn payment_by_proof(&self, proof_key: &str) -> StoreResult<Option<Arc<Payment>>>;

    /// Records what a buyer signed, before a provider is asked to move the money: intent, proof, the buyer's name for it
    /// and the state `Pending` in one step. One payment has one intent, and one proof or name leads to one payment.
    /// Rules out asking first: a provider's answer that is lost would leave money that nobody knows of.
    async fn payment_intend(&self, id: PaymentId, intent: Intent) -> StoreResult<Intended>;

    /// What was signed for a payment, while it is not known whether the money moved.
    async fn payment_intent(&self, id: PaymentId) -> StoreResult<Option<Intent>>;

    /// Records verified money once over all payments and, if asked, claims: proof, state, posting and claim in one
    /// step. Rules out recording the proof first and the state later. When the money is known already the claim is
    /// tried all the same.
    async fn payment_settle(
        &self,
        id: PaymentId,
        evidence: Evidence,
        claim: Option<ClaimRequest>,
    ) -> StoreResult<SettleOutcome>;

    /// Takes the right to call the seller once; one winner over threads and nodes. Rules out read, decide, write. A
    /// claim whose owner is gone (an earlier epoch of a node) is released as interrupted and taken in the same step.
    async fn payment_claim(&self, id: PaymentId, claim: ClaimRequest) -> StoreResult<StepOutcome<Claimed>>;

    /// State, attempt, posting, result (`held`, when it is kept inline) in one step, only for the claim's owner. Rules
    /// out posting first and completing later.
    async fn payment_complete(
        &self,
        id: PaymentId,
        claim: Claim,
        facts: CallFacts,
        result: KeptResult,
        held: Option<Bytes>,
    ) -> StoreResult<StepOutcome<Ended>>;

    /// The seller did not handle the call: usable again or, after the last attempt, owed. Only for the claim's owner.
    async fn payment_release(
        &self,
        id: PaymentId,
        claim: Claim,
        status: AttemptStatus,
        facts: CallFacts,
    ) -> StoreResult<StepOutcome<Ended>>;

    /// Settled money that can never buy its call is the buyer's again. `false`: it was not settled and unclaimed.
    async fn payment_owe(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>>;

    /// The rail said no. `false`: it was no longer unpaid.
    async fn payment_fail(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>>;

    /// Payments whose claim this owner's earlier lives hold, oldest first: by index, never a scan of all payments.
    async fn claims_overdue(&self, limit: usize) -> StoreResult<Vec<(PaymentId, Claim)>>;

    /// Writes chunk `n` of a result that is too large to be held, before `payment_complete`; named by attempt, so that
    /// a late writer harms nobody. Chunks that no completed payment names die by themselves.
    async fn result_append(&self, id: PaymentId, attempt: u32, n: u32, chunk: Bytes) -> StoreResult<()>;

    /// Makes the chunks of this attempt durable. Must return before `payment_complete` names them.
    async fn result_seal(&self, id: PaymentId, attempt: u32) -> StoreResult<()>;

    /// Takes the one repetition of a completed call whose answer was too large to be kept: one winner over threads and
    /// nodes, durable before the seller is called again. No money moves and no outcome changes. `false`: it was taken,
    /// or the result is kept, or its time is over. Rules out a mark that is made when the repetition has ended: a crash
    /// in between would give a second one.
    async fn result_resend(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>>;

    /// Gives it back, when not a byte of it had reached the seller. `false`: it was not taken.
    async fn result_resend_return(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>>;

    /// How much room there is for results: a look, cheap enough for every quote.
    fn results_room(&self) -> ResultsRoom;

    /// Chunk `n` of a completed payment's result (a held one is chunk 0); `None` past its end, or when it is no longer
    /// kept.
    async fn result_read(&self, payment: &Payment, n: u32) -> StoreResult<Option<Bytes>>;
}

/// The name by which [`PaymentStore::payment_by_proof`] finds the payment of a provider's own request.
#[must_use]
pub fn reference_key(provider_ref: &str) -> String {
    format!("relay:{}", provider_ref.to_ascii_lowercase())
}

/// What makes two questions the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QuoteIdentity {
    /// Who asks.
    pub buyer: ProfileId,
    /// For what.
    pub listing: crate::model::ListingId,
    /// With which body.
    pub body_sha256: [u8; 32],
    /// Paid in what.
    pub currency: crate::model::OriginCurrency,
    /// As which purchase.
    pub idempotency_key: Option<String>,
}

impl From<&Quote> for QuoteIdentity {
    fn from(quote: &Quote) -> Self {
        Self {
            buyer: quote.buyer,
            listing: quote.listing,
            body_sha256: quote.body_sha256,
            currency: quote.currency,
            idempotency_key: quote.idempotency_key.clone(),
        }
    }
}
