//! `GET /payments/:relay_request_id`: where a buyer's payment stands, and what to do next.

use std::sync::Arc;

use actors::{
    keys::Caller,
    refusal::{Code, Refusal},
};
use serde_json::{Value, json};
use storage::model::{
    Account, Direction, Payment, PaymentId, PaymentState, Posting, PostingKind, Refund, RefundStage, UnixMillis,
};

use crate::{extract::Ask, reply::Reply};

/// `GET /payments/:relay_request_id`. Others' payments and invented ones are answered alike.
pub(crate) async fn show(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let id: PaymentId = ask.id("id", Code::PaymentNotFound)?;
    let payment = ask.door.store.payment_get(id).await?;
    let own = payment.filter(|payment| payment.quote.buyer == caller.profile.id);
    let payment = own.ok_or(Code::PaymentNotFound)?;
    let mut view = ask.door.actors.payment_view(&payment);
    if let Value::Object(fields) = &mut view {
        let money = money(&payment);
        fields.extend(money.into_iter().map(|(name, micros)| (name.to_string(), micros.into())));
        fields.insert("refunds".into(), refunds(&ask, id).await?);
        fields.insert("listing_id".into(), payment.quote.listing.to_string().into());
        fields.insert("state".into(), state_of(&payment, ask.now).into());
        fields.insert("attempts".into(), payment.progress.attempts.len().into());
        fields.insert("created_at".into(), payment.quote.created_at.to_string().into());
        fields.insert("next".into(), next(&payment, ask.now, ask.door.config.payments.pending_retry_after.as_secs()));
    }
    Reply::ok(view)
}

/// Where the payment's money is, micro-units: what arrived, and what has become of it but for the call.
fn money(payment: &Payment) -> [(&'static str, i64); 5] {
    let shown = |is_in: bool| {
        let shown = payment.progress.evidence.iter().map(|shown| shown.amount.0);
        shown.filter(|amount| (*amount >= 0) == is_in).fold(0, i64::saturating_add)
    };
    let refunded = payment.progress.postings.iter().filter(|posting| posting.kind() == PostingKind::Refunded);
    let entries = refunded.flat_map(Posting::entries).filter(|entry| entry.direction == Direction::Debit);
    [
        ("paid_micros", shown(true)),
        ("in_suspense_micros", payment.balance(Account::Suspense(payment.quote.id))),
        ("owed_micros", payment.balance(Account::Owed(payment.quote.buyer))),
        ("refunded_micros", entries.map(|entry| entry.amount.0).fold(0, i64::saturating_add)),
        ("taken_back_micros", shown(false).saturating_neg()),
    ]
}

async fn refunds(ask: &Ask, id: PaymentId) -> Result<Value, Refusal> {
    let refunds = ask.door.store.refund_list(id).await?;
    let view = |refund: &Refund| {
        let status = match refund.stage {
            RefundStage::Intended => "intended",
            RefundStage::Sent { .. } => "sent",
            RefundStage::Confirmed { .. } => "confirmed",
        };
        json!({
            "amount_micros": refund.amount.0, "status": status, "reference": refund.reference(),
            "created_at": refund.intended_at.to_string(),
        })
    };
    Ok(refunds.iter().map(view).collect())
}

fn state_of(payment: &Payment, now: UnixMillis) -> &'static str {
    if payment.is_expired(now) { "expired" } else { payment.progress.state.name() }
}

/// What to do next, in the words that refusals use.
fn next(payment: &Payment, now: UnixMillis, wait_seconds: u64) -> Value {
    let preserve = json!(["X-Crochet-Relay-Request-Id", "request body"]);
    match payment.progress.state {
        PaymentState::Quoted if payment.is_expired(now) => json!({
            "next_action": "request_new_payment",
            "summary": "The quote has expired; send the gateway call without a payment id for a new one. Money that \
                        was sent for this one is honoured all the same.",
        }),
        PaymentState::Quoted => json!({
            "next_action": "complete_payment_then_retry",
            "summary": "Pay as requirements say, then send the same gateway call with X-Crochet-Relay-Request-Id.",
            "preserve": preserve,
        }),
        PaymentState::Pending => json!({
            "next_action": "retry_same_payment", "retry_after_seconds": wait_seconds,
            "summary": "The provider has not settled the money yet; send the same gateway call again.",
            "preserve": preserve,
        }),
        PaymentState::Settled => json!({
            "next_action": "retry_same_payment",
            "summary": "Paid; send the same gateway call with X-Crochet-Relay-Request-Id.",
            "preserve": preserve,
        }),
        PaymentState::Claimed(_) => json!({
            "next_action": "retry_same_payment", "retry_after_seconds": wait_seconds,
            "summary": "The seller is being called; send the same gateway call again for its result.",
            "preserve": preserve,
        }),
        PaymentState::Completed => json!({
            "next_action": "read_result",
            "summary": "Done; the same gateway call returns the stored result while it is kept.",
            "preserve": preserve,
        }),
        PaymentState::Failed => json!({
            "next_action": "request_new_payment",
            "summary": "The payment did not succeed; send the gateway call without a payment id for a new quote.",
            "discard": ["X-Crochet-Relay-Request-Id"],
        }),
        state @ (PaymentState::Owed | PaymentState::Refunding | PaymentState::Refunded) => json!({
            "next_action": "request_new_payment",
            "summary": match state {
                PaymentState::Refunding => "The money is on its way back to you; send the gateway call without a payment \
                                            id for a new quote.",
                PaymentState::Refunded => "The money went back to you; send the gateway call without a payment id for a \
                                           new quote.",
                _ => "The money is yours again and cannot buy this call any more.",
            },
            "discard": ["X-Crochet-Relay-Request-Id"],
        }),
    }
}
