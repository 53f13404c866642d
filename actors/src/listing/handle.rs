//! What a door does with a listing: find the payment, offer a quote, admit a call. The rows are those of the table of
//! checks in `ARCHITECTURE.md`.

use std::{sync::Arc, time::Duration};

use storage::{
    SettleOutcome, StepOutcome,
    model::{
        Evidence, ListingStatus, Micros, Payment, PaymentId, PaymentState, Rail, ResultPlace, Settled, UnixMillis,
    },
};

use super::{
    Question,
    entitlement::Resend,
    flights::Flight,
    gate::{Gate, Permit, Terms},
    purchase::ReadyPayment,
    signed::SignedPayment,
};
use crate::{
    keys::Caller,
    meters::PaymentMet,
    payments::{Checked, Verified, verify, x402::Signed},
    refusal::{Code, Refusal, SellerCalled},
    world::World,
};

/// What one request asks of a listing.
pub struct Ask<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// SHA-256 of the raw body.
    pub body_sha256: [u8; 32],
    /// Size of the raw body.
    pub body_bytes: u64,
    /// `X-Crochet-Relay-Request-Id`.
    pub payment_id: Option<&'a str>,
    /// `PAYMENT-SIGNATURE`.
    pub signature: Option<&'a str>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// `X-Crochet-Origin-Currency`.
    pub origin_currency: Option<&'a str>,
    /// `X-Crochet-Max-Price-Micros`.
    pub max_price: Option<Micros>,
    /// `Prefer: wait=n`.
    pub wait: Duration,
}

/// What rows 7 and 10 found.
pub enum PaymentFound {
    /// No payment yet.
    None,
    /// The call was completed before: its stored answer, and nothing else.
    Replay(Arc<Payment>),
    /// It was, and its answer was too large to be kept: the seller may be asked for it once more.
    Unkept(Arc<Payment>),
    /// The rail has not settled it: ask again after so long.
    Pending(Arc<Payment>, Duration),
    /// The money is there, and nobody else on this node is using it.
    Settled(ReadyPayment),
    /// The buyer signed the money away, and nobody else on this node is asking for it.
    Signed(SignedPayment),
}

/// One listing, as a call uses it.
#[derive(Clone)]
pub struct ListingHandle {
    pub(crate) world: Arc<World>,
    pub(crate) gate: Arc<Gate>,
    terms: Arc<Terms>,
}

impl ListingHandle {
    pub(crate) fn new(world: Arc<World>, gate: Arc<Gate>) -> Self {
        gate.touch(world.clock.now());
        let terms = gate.terms();
        Self { world, gate, terms }
    }

    /// The settings that this request sees, from its first look to its last.
    #[must_use]
    pub fn terms(&self) -> &Arc<Terms> {
        &self.terms
    }

    /// The largest request body that the seller takes.
    #[must_use]
    pub fn request_max_bytes(&self) -> u64 {
        self.terms.endpoint.as_ref().map_or(u64::MAX, |endpoint| endpoint.endpoint.limits.max_request_bytes)
    }

    /// Whether a call costs nothing.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.terms.listing.price == Micros::ZERO
    }

    /// Rows 7 and 10: whose payment, for what, in which state; and, when it is unpaid, what the rail's own record says.
    ///
    /// # Errors
    /// `PaymentNotFound`, `PaymentRequestMismatch`, `IdempotencyKeyReused`, `PaymentInProgress`, `PaymentClosed`,
    /// `PaymentFailed`, `PaymentUnderpaid`, `PaymentProviderUnavailable`, `StoreUnavailable`.
    pub async fn payment(&self, ask: &Ask<'_>) -> Result<PaymentFound, Refusal> {
        let signed = self.read_signed(ask).await?;
        let mut id = match ask.payment_id {
            Some(text) => text.parse().map_err(|_| Code::PaymentNotFound)?,
            None => match self.find(ask, signed.as_ref()).await? {
                Some(payment) => payment.quote.id,
                None if signed.is_some() && !self.is_free() => self.quote_for_signed(ask).await?.quote.id,
                None => return Ok(PaymentFound::None),
            },
        };
        let began = tokio::time::Instant::now();
        loop {
            // The flight first, the look second: what is read before it is taken may be old by then.
            let flight = self.gate.flights.take(id);
            let payment = match self.find(ask, signed.as_ref()).await? {
                Some(payment) => payment,
                None if signed.is_some() => self.world.store.payment_get(id).await?.ok_or(Code::PaymentNotFound)?,
                None => return Err(Code::PaymentNotFound.into()),
            };
            if payment.quote.id != id {
                // What was signed was taken for another payment meanwhile.
                id = payment.quote.id;
                continue;
            }
            if let Some(found) = ended(&payment, self.world.clock.now())? {
                return Ok(found);
            }
            match flight {
                Ok(flight) => return self.check_rail(ask, signed, payment, flight).await,
                Err(landing) => {
                    let deadline = began + self.patience(ask, payment.progress.state);
                    if tokio::time::timeout_at(deadline, landing.wait()).await.is_err() {
                        return self.still_busy(id).await;
                    }
                }
            }
        }
    }

    /// How long a request waits for another one's work on its payment: as it wishes, while that one waits for the money;
    /// with a signature for as long as a settlement takes, for who signed may not come again.
    fn patience(&self, ask: &Ask<'_>, state: PaymentState) -> Duration {
        let patience = self.world.config.payments.in_progress_wait;
        if let (Some(_), Some(x402)) = (ask.signature, self.world.rails.x402()) {
            return patience.max(ask.wait).max(x402.patience());
        }
        match state {
            PaymentState::Quoted | PaymentState::Pending => patience.max(ask.wait),
            _ => patience,
        }
    }

    async fn still_busy(&self, id: PaymentId) -> Result<PaymentFound, Refusal> {
        let after = self.world.config.payments.pending_retry_after;
        let payment = self.world.store.payment_get(id).await?.ok_or(Code::PaymentNotFound)?;
        match payment.progress.state {
            PaymentState::Quoted | PaymentState::Pending => Ok(PaymentFound::Pending(payment, after)),
            state => Err(in_progress(state)),
        }
    }

    async fn find(&self, ask: &Ask<'_>, signed: Option<&Signed>) -> Result<Option<Arc<Payment>>, Refusal> {
        let buyer = ask.caller.profile.id;
        if let Some(text) = ask.payment_id {
            let id: PaymentId = text.parse().map_err(|_| Code::PaymentNotFound)?;
            let payment = self.world.store.payment_get(id).await?;
            // Unknown and somebody else's are one and the same answer.
            let payment = payment.filter(|payment| payment.quote.buyer == buyer).ok_or(Code::PaymentNotFound)?;
            if payment.quote.listing != self.gate.id() || payment.quote.body_sha256 != ask.body_sha256 {
                return Err(Code::PaymentRequestMismatch.into());
            }
            return Ok(Some(payment));
        }
        if let Some(signed) = signed
            && let Some(payment) = self.find_signed(ask, signed).await?
        {
            return Ok(Some(payment));
        }
        let Some(key) = ask.idempotency_key else { return Ok(None) };
        let Some(payment) = self.world.store.payment_by_key(buyer, key).await? else { return Ok(None) };
        if payment.quote.listing != self.gate.id() || payment.quote.body_sha256 != ask.body_sha256 {
            return Err(Code::IdempotencyKeyReused.into());
        }
        // Begun, and not settled because the process died there.
        if payment.quote.rail == Rail::Free {
            return Ok(Some(payment));
        }
        // Unpaid: the same offer again, unless the rail knows of money that nobody has told us of.
        let unpaid = payment.progress.state == PaymentState::Quoted && signed.is_none();
        if unpaid && !matches!(self.rail_says(&payment, Duration::ZERO).await?, Checked::Settled(_)) {
            return Ok(None);
        }
        Ok(Some(payment))
    }

    async fn rail_says(&self, payment: &Arc<Payment>, wait: Duration) -> Result<Checked, Refusal> {
        match self.world.check_rail(&payment.quote).await? {
            Checked::Pending(_) if !wait.is_zero() => {
                let question = |reply| Question::Settlement(payment.clone(), wait, reply);
                super::ask(&self.world, &self.gate, question).await?
            }
            found => Ok(found),
        }
    }

    async fn check_rail(
        &self,
        ask: &Ask<'_>,
        signed: Option<Signed>,
        payment: Arc<Payment>,
        flight: Flight,
    ) -> Result<PaymentFound, Refusal> {
        let ready = |payment, evidence, flight| {
            PaymentFound::Settled(ReadyPayment::new(self.world.clone(), self.gate.clone(), payment, evidence, flight))
        };
        if matches!(payment.progress.state, PaymentState::Settled | PaymentState::Claimed(_)) {
            return Ok(ready(payment, None, flight));
        }
        let now = self.world.clock.now();
        if payment.quote.rail == Rail::Free {
            let evidence = paid_by_nothing(payment.quote.id, now);
            return Ok(ready(payment, Some(evidence), flight));
        }
        let flight = match self.look_at_signed(ask, signed, &payment, flight).await? {
            Ok(signed) => return Ok(PaymentFound::Signed(signed)),
            Err(flight) => flight,
        };
        match self.rail_says(&payment, ask.wait).await? {
            Checked::Settled(record) => {
                let payee = self.world.rails.of(record.rail)?.payee_of(&payment.quote);
                match verify(&payment.quote, &payee, record, now) {
                    Verified::Ours(evidence) if evidence.amount >= payment.quote.price => {
                        Ok(ready(payment, Some(evidence), flight))
                    }
                    Verified::Ours(evidence) => self.underpaid(ask, &payment, evidence).await,
                    Verified::NotOurs => self.failed(ask, &payment).await,
                }
            }
            Checked::Failed => self.failed(ask, &payment).await,
            Checked::Pending(_) if payment.is_expired(now) => {
                self.gate.forget_quote(&payment);
                self.world.meters.payment(payment.quote.rail, PaymentMet::Expired);
                Err(self.fresh_quote(ask, Code::PaymentExpired).await.payment_expired())
            }
            Checked::Pending(after) => Ok(PaymentFound::Pending(payment, after)),
        }
    }

    async fn failed(&self, ask: &Ask<'_>, payment: &Payment) -> Result<PaymentFound, Refusal> {
        self.world.store.payment_fail(payment.quote.id).await?;
        self.world.meters.payment(payment.quote.rail, PaymentMet::Failed);
        self.gate.forget_quote(payment);
        Err(self.fresh_quote(ask, Code::PaymentFailed).await.payment_state(PaymentState::Failed))
    }

    pub(super) async fn underpaid(
        &self,
        ask: &Ask<'_>,
        payment: &Payment,
        evidence: storage::model::Evidence,
    ) -> Result<PaymentFound, Refusal> {
        self.gate.forget_quote(payment);
        match self.world.store.payment_settle(payment.quote.id, evidence, None).await? {
            SettleOutcome::Recorded { settled: Settled::Underpaid { missing }, payment, .. } => {
                self.world.meters.payment(payment.quote.rail, PaymentMet::Underpaid);
                let refusal = self.fresh_quote(ask, Code::PaymentUnderpaid).await;
                Err(refusal.payment_state(payment.progress.state).detail("missing_micros", missing.0))
            }
            _ => Err(in_progress(payment.progress.state)),
        }
    }

    /// Row 11 for the one repetition of a call whose answer was not kept. What can not be admitted now is not taken.
    ///
    /// # Errors
    /// As the gate says; `ResultNotKept` when the listing is no longer active.
    pub async fn admit_again(&self, payment: &Payment) -> Result<Permit, Refusal> {
        if self.terms.listing.status != ListingStatus::Active {
            return Err(not_kept(payment));
        }
        let admitted = self.gate.admit(self.terms.clone(), payment.quote.buyer, self.world.clock.now()).await;
        admitted.map_err(|refusal| refusal.payment_state(payment.progress.state).next_action("retry_same_payment"))
    }

    /// Row 12 for it: durable before the seller is asked, so that nothing gives a second one.
    ///
    /// # Errors
    /// `ResultNotKept` when it was taken before; `StoreUnavailable`, and then it may have been.
    pub async fn resend(&self, _permit: &Permit, payment: &Payment) -> Result<Resend, Refusal> {
        match self.world.store.result_resend(payment.quote.id).await? {
            StepOutcome::Step(true, payment) => Ok(Resend::new(self.world.clone(), payment)),
            StepOutcome::Step(false, payment) => Err(not_kept(&payment)),
            StepOutcome::NotFound => Err(Code::PaymentNotFound.into()),
        }
    }

    /// Row 11 for a paid call: the seller's rate, the circuit, a slot. Money that was verified is recorded even when
    /// the call cannot run now; when the listing is gone for good it becomes the buyer's again.
    ///
    /// # Errors
    /// As the gate says, with the payment's state; `PaymentClosed` when the listing is no longer active,
    /// `PaymentInProgress` when another node is calling its seller all the same.
    pub async fn admit_paid(&self, ready: &ReadyPayment) -> Result<Permit, Refusal> {
        if self.terms.listing.status != ListingStatus::Active {
            ready.record().await?;
            let state = ready.owe().await?;
            if state != PaymentState::Owed {
                return Err(in_progress(state));
            }
            self.world.meters.payment(ready.payment().quote.rail, PaymentMet::Owed);
            return Err(Refusal::from(Code::PaymentClosed).payment_state(state));
        }
        let now = self.world.clock.now();
        match self.gate.admit(self.terms.clone(), ready.payment().quote.buyer, now).await {
            Ok(permit) => Ok(permit),
            Err(refusal) => {
                ready.record().await?;
                Err(refusal.payment_state(PaymentState::Settled).next_action("retry_same_payment"))
            }
        }
    }

    /// Rows 8 and 11 for a call to a free listing.
    ///
    /// # Errors
    /// As [`Gate::look`] and the gate's limits say.
    pub async fn admit_free(&self, caller: &Caller) -> Result<Permit, Refusal> {
        let now = self.world.clock.now();
        self.gate.look(&self.terms, caller, now)?;
        self.gate.admit(self.terms.clone(), caller.profile.id, now).await
    }
}

/// What a payment in a final state means for the request; `None` when it can still buy its call.
fn ended(payment: &Arc<Payment>, now: UnixMillis) -> Result<Option<PaymentFound>, Refusal> {
    match payment.progress.state {
        PaymentState::Completed if is_unkept(payment, now) => Ok(Some(PaymentFound::Unkept(payment.clone()))),
        PaymentState::Completed => Ok(Some(PaymentFound::Replay(payment.clone()))),
        state @ (PaymentState::Owed | PaymentState::Refunding | PaymentState::Refunded) => {
            Err(Refusal::from(Code::PaymentClosed).payment_state(state))
        }
        _ => Ok(None),
    }
}

/// Its answer was not kept, and its seller was not asked for it again.
pub(crate) fn is_unkept(payment: &Payment, now: UnixMillis) -> bool {
    let result = payment.progress.result.as_ref();
    result.is_some_and(|result| result.place == ResultPlace::NotKept && now < result.kept_until)
}

/// The call is done and paid for, and its answer cannot be had again; its size and digest can.
#[must_use]
pub fn not_kept(payment: &Payment) -> Refusal {
    let refusal =
        Refusal::from(Code::ResultNotKept).seller_called(SellerCalled::Yes).payment_state(payment.progress.state);
    match &payment.progress.result {
        Some(result) => refusal.detail("bytes", result.bytes).detail("sha256", hex::encode(result.sha256)),
        None => refusal,
    }
}

/// What settles a price of nothing.
pub(super) fn paid_by_nothing(id: PaymentId, now: UnixMillis) -> Evidence {
    let proof_key = format!("free:{id}");
    Evidence { proof_key, rail: Rail::Free, reference: String::new(), amount: Micros::ZERO, recorded_at: now }
}

/// Somebody is using the payment; whether its seller was called yet cannot be told.
pub(crate) fn in_progress(state: PaymentState) -> Refusal {
    Refusal::from(Code::PaymentInProgress)
        .payment_state(state)
        .seller_called(SellerCalled::Unknown)
        .retry_after(Duration::from_secs(1))
}
