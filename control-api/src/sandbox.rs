//! The sandbox rail's own side: where a developer pays, and reads what the provider knows. There in dev mode only, and
//! only when it is on.

use std::{sync::Arc, time::Duration};

use actors::{
    keys::Caller,
    payments::sandbox::{Sandbox, SandboxPay},
    refusal::{Code, Refusal},
};
use serde::Serialize;
use storage::model::{Micros, PaymentId, SandboxOutcome, SandboxPayment, UnixMillis};

use crate::{
    extract::Ask,
    fields::{Fields, Lines, choice, number, text},
    reply::{AmountView, Reply, Shown},
};

const OUTCOMES: &[(&str, SandboxOutcome)] = &[
    ("success", SandboxOutcome::Success),
    ("failure", SandboxOutcome::Failure),
    ("refund", SandboxOutcome::Refund),
    ("reorg", SandboxOutcome::Reorg),
];
const DELAY_MAX_MS: u64 = 86_400_000;
const AMOUNT_MAX: u64 = 1_000_000_000_000;

#[derive(Serialize)]
struct RecordView {
    relay_request_id: Shown<PaymentId>,
    status: &'static str,
    reference: String,
    amount: AmountView,
    recipient: String,
    paid_at: Shown<UnixMillis>,
    settles_at: Shown<UnixMillis>,
}

impl RecordView {
    /// Seen from now, not from when the request came: what was paid at once has settled.
    fn new(sandbox: &Sandbox, record: SandboxPayment) -> Self {
        Self {
            relay_request_id: Shown(record.payment),
            status: sandbox.status(&record),
            reference: record.reference,
            amount: record.amount.into(),
            recipient: record.recipient,
            paid_at: Shown(record.paid_at),
            settles_at: Shown(record.settles_at),
        }
    }
}

/// The provider before anybody paid it.
#[derive(Serialize)]
struct WaitingView {
    relay_request_id: Shown<PaymentId>,
    status: &'static str,
}

fn sandbox(ask: &Ask) -> Result<&Sandbox, Refusal> {
    ask.door.actors.sandbox().filter(|_| ask.door.is_dev()).ok_or_else(|| Code::NotFound.into())
}

/// `POST /sandbox/payments/:id/pay`. Paying twice keeps the first payment.
pub(crate) async fn pay(ask: Ask, _caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let sandbox = sandbox(&ask)?;
    let id: PaymentId = ask.id("id", Code::PaymentNotFound)?;
    let pay = ask.fields(read_pay)?;
    let payment = ask.door.store.payment_get(id).await?.ok_or(Code::PaymentNotFound)?;
    let record = sandbox.pay(&payment, pay).await?;
    Reply::ok(RecordView::new(sandbox, record))
}

fn read_pay(f: &mut Fields) -> Option<SandboxPay> {
    let amount = f.optional("amount_micros", number(1..=AMOUNT_MAX));
    let delay = f.optional("delay_ms", number(0..=DELAY_MAX_MS)).unwrap_or(0);
    Some(SandboxPay {
        amount: amount.and_then(|amount| i64::try_from(amount).ok()).map(Micros),
        delay: Duration::from_millis(delay),
        outcome: f.optional("outcome", choice(OUTCOMES)).unwrap_or_default(),
        recipient: f.optional("recipient", text(1..=200, Lines::One)),
    })
}

/// `GET /sandbox/payments/:id`.
pub(crate) async fn show(ask: Ask, _caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let sandbox = sandbox(&ask)?;
    let id: PaymentId = ask.id("id", Code::PaymentNotFound)?;
    if let Some(record) = sandbox.record(id).await? {
        return Reply::ok(RecordView::new(sandbox, record));
    }
    ask.door.store.payment_get(id).await?.ok_or(Code::PaymentNotFound)?;
    Reply::ok(WaitingView { relay_request_id: Shown(id), status: "waiting" })
}
