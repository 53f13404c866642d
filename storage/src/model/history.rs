//! Rows of history: what a party sees of its calls.

use serde::{Deserialize, Serialize};

use super::{
    ids::{GatewayRequestId, ListingId, PaymentId, ProfileId},
    money::Split,
    payment::{Attempt, AttemptStatus, CallFacts, Payment},
    time::UnixMillis,
};

/// A call to a free listing: no payment, one attempt, written behind the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeCall {
    /// Its id.
    pub id: GatewayRequestId,
    /// Who called.
    pub buyer: ProfileId,
    /// Who was called.
    pub seller: ProfileId,
    /// What was called.
    pub listing: ListingId,
    /// Whether the seller handled it.
    pub status: AttemptStatus,
    /// Size of the request body.
    pub request_bytes: u64,
    /// What was seen.
    pub facts: CallFacts,
    /// When it began.
    pub started_at: UnixMillis,
    /// When it ended.
    pub ended_at: UnixMillis,
}

/// One attempt of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRequest {
    /// The call's id, the same for all its attempts.
    pub id: GatewayRequestId,
    /// Who called.
    pub buyer: ProfileId,
    /// Who was called.
    pub seller: ProfileId,
    /// What was called.
    pub listing: ListingId,
    /// The payment; `None` for a free call.
    pub payment: Option<PaymentId>,
    /// What was charged, when this attempt was billable.
    pub charged: Option<Split>,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Where it stands.
    pub status: AttemptStatus,
    /// Size of the request body.
    pub request_bytes: u64,
    /// What was seen; empty while it runs.
    pub facts: CallFacts,
    /// When it began.
    pub started_at: UnixMillis,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<UnixMillis>,
}

impl GatewayRequest {
    /// The row of one attempt of a payment.
    #[must_use]
    pub fn of_attempt(payment: &Payment, attempt: &Attempt) -> Self {
        let status = attempt.end.as_ref().map_or(AttemptStatus::InProgress, |end| end.status);
        let charged = status == AttemptStatus::Completed && payment.quote.price.0 > 0;
        Self {
            id: payment.quote.gateway_request_id(),
            buyer: payment.quote.buyer,
            seller: payment.quote.seller,
            listing: payment.quote.listing,
            payment: Some(payment.quote.id),
            charged: charged.then(|| payment.quote.split()),
            attempt: attempt.number,
            status,
            request_bytes: attempt.request_bytes,
            facts: attempt.end.as_ref().map(|end| end.facts.clone()).unwrap_or_default(),
            started_at: attempt.started_at,
            ended_at: attempt.end.as_ref().map(|end| end.at),
        }
    }

    /// The row of a free call.
    #[must_use]
    pub fn of_free_call(call: &FreeCall) -> Self {
        Self {
            id: call.id,
            buyer: call.buyer,
            seller: call.seller,
            listing: call.listing,
            payment: None,
            charged: None,
            attempt: 1,
            status: call.status,
            request_bytes: call.request_bytes,
            facts: call.facts.clone(),
            started_at: call.started_at,
            ended_at: Some(call.ended_at),
        }
    }
}

/// In which part a profile asks for its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Calls it made.
    Buyer,
    /// Calls it answered.
    Seller,
    /// Both.
    #[default]
    All,
}

/// What a history is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// In which part; the ledger ignores it.
    pub role: Role,
    /// Of one listing only.
    pub listing: Option<ListingId>,
    /// Of one status only; the ledger ignores it.
    pub status: Option<AttemptStatus>,
    /// From this moment on.
    pub from: Option<UnixMillis>,
    /// Before this moment.
    pub to: Option<UnixMillis>,
}

/// Where a page of a history ended: opaque, stable while rows are being added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub Vec<u8>);

/// A page of rows, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}
