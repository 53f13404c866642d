//! Money that goes back, and the proof of the books: every method that decides is one atomic step.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StepOutcome;
use crate::{
    error::StoreResult,
    model::{Discrepancy, Evidence, Payment, PaymentId, Payout, Refund, TakenBack, Totals, Waiting},
};

/// What `payment_take_back` found.
#[derive(Clone, Debug)]
pub enum TakeBackOutcome {
    /// What the reversal did, and the payment after the step.
    Recorded(TakenBack, Arc<Payment>),
    /// This proof was recorded for another payment: one proof, one payment.
    ProofUsed(PaymentId),
    /// No such payment.
    NotFound,
}

/// What `refund_begin` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefundBegun {
    /// The intent is durable.
    Begun,
    /// One was open before: that one stands.
    Open,
    /// Nothing is owed that could be sent.
    NothingOwed,
}

/// What telling something of a transfer out found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferTold {
    /// Written, or so before.
    Done,
    /// It went out under another reference: nothing changed.
    OtherReference,
    /// It was not sent yet: nothing changed.
    NotSent,
    /// There is no such transfer.
    NoTransfer,
}

/// One bounded part of the proof of the books.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksPage {
    /// Sums over the payments of this part.
    pub totals: Totals,
    /// What cannot be so.
    pub faults: Vec<Discrepancy>,
    /// The money that waits, and for what.
    pub waiting: Vec<Waiting>,
    /// Payouts that are not confirmed yet.
    pub payouts: Vec<Payout>,
    /// Rows that lead to payments, looked at in this part.
    pub pointers: u64,
    /// Where the next part begins; `None`: this was the last.
    pub next: Option<Vec<u8>>,
}

/// Reversals, refunds and the proof of the books.
#[async_trait]
pub trait MoneyStore: Send + Sync {
    /// Records once over all payments that a rail took money back: proof, posting and state in one step. While a call
    /// runs only the proof is written; the step that ends the claim posts it. Rules out a reversal that is remembered
    /// in memory until then.
    async fn payment_take_back(&self, id: PaymentId, reversal: Evidence) -> StoreResult<TakeBackOutcome>;

    /// Writes the intent to refund what is owed of this payment, before any money moves; one is open per payment. Rules
    /// out a look for an open one followed by an insert: two operators at once must send one transfer.
    async fn refund_begin(&self, id: PaymentId) -> StoreResult<StepOutcome<(RefundBegun, Option<Refund>)>>;

    /// The operator sent it, under this reference; the first reference stands.
    async fn refund_sent(
        &self,
        id: PaymentId,
        number: u32,
        reference: String,
    ) -> StoreResult<StepOutcome<TransferTold>>;

    /// The rail shows it: the refund's end, the posting and the payment's state in one step, once.
    async fn refund_confirm(&self, id: PaymentId, number: u32) -> StoreResult<StepOutcome<TransferTold>>;

    /// The refunds of a payment, oldest first.
    async fn refund_list(&self, id: PaymentId) -> StoreResult<Vec<Refund>>;

    /// Proves one part of the books: each payment by itself, its proofs, its pointers, the sandbox's own record; then
    /// each pointer's payment, then payouts. Reads beside the writer and takes no step; what looks wrong is looked at once more
    /// behind the steps under way before it is told. Rules out telling of a step half seen.
    async fn books_page(&self, after: Option<Vec<u8>>) -> StoreResult<BooksPage>;
}
