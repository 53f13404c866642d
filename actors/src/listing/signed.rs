//! Payments that the buyer signs in the request itself. Nothing is taken from a wallet for a call that cannot run, what
//! was signed is durable before anybody moves money with it, and an answer that is lost is asked for again.

use std::{sync::Arc, time::Duration};

use storage::{
    Intended,
    model::{Intent, ListingStatus, Payment, PaymentState, Rail},
};

use super::{
    flights::Flight,
    gate::Permit,
    handle::{Ask, ListingHandle, in_progress},
    offer::check_price,
    purchase::{ClaimFound, ReadyPayment},
};
use crate::{
    meters::PaymentMet,
    payments::{
        PaymentProvider as _, Verified, verify,
        x402::{Settlement, Signed, Unusable, X402, wire::RESPONSE_HEADER},
    },
    refusal::{Code, Refusal},
};

/// A payment that was signed for, and which nobody else on this node is working on.
pub struct SignedPayment {
    payment: Arc<Payment>,
    intent: Intent,
    /// Nothing is durable of what was signed, and nobody was asked to move money with it.
    is_new: bool,
    flight: Flight,
}

/// What came of settling it.
pub enum SignedFound {
    /// The money is there, and row 12 was taken.
    Claim(Box<ClaimFound>),
    /// It is not known whether it moved: ask again after so long, with the payment's id.
    Pending(Arc<Payment>, Duration),
}

impl SignedPayment {
    /// The payment as it was read.
    #[must_use]
    pub fn payment(&self) -> &Payment {
        &self.payment
    }
}

impl ListingHandle {
    /// Reads what the buyer signed, when it did and the rail is on.
    pub(super) async fn read_signed(&self, ask: &Ask<'_>) -> Result<Option<Signed>, Refusal> {
        let (Some(header), Some(x402)) = (ask.signature, self.world.rails.x402()) else { return Ok(None) };
        match x402.read(header, ask.caller.profile.id) {
            Ok(signed) => Ok(Some(signed)),
            Err(Unusable::Garbage(refusal)) => Err(*refusal),
            Err(Unusable::Reason(_)) if self.is_free() => Ok(None),
            Err(Unusable::Reason(reason)) => Err(self.not_taken(ask, reason).await),
        }
    }

    /// The payment that the signed money, or the buyer's name for it, belongs to.
    pub(super) async fn find_signed(&self, ask: &Ask<'_>, signed: &Signed) -> Result<Option<Arc<Payment>>, Refusal> {
        let names = [Some(&signed.proof_key), signed.identifier.as_ref()];
        for name in names.into_iter().flatten() {
            let Some(payment) = self.world.store.payment_by_proof(name).await? else { continue };
            let quote = &payment.quote;
            let is_its = quote.buyer == ask.caller.profile.id
                && quote.listing == self.gate.id()
                && quote.body_sha256 == ask.body_sha256
                && (*name == signed.proof_key || self.is_of(&payment, signed).await?);
            return if is_its { Ok(Some(payment)) } else { Err(used()) };
        }
        Ok(None)
    }

    /// Whether the payment was, or is to be, paid with this very money.
    async fn is_of(&self, payment: &Payment, signed: &Signed) -> Result<bool, Refusal> {
        if payment.progress.evidence.iter().any(|evidence| evidence.proof_key == signed.proof_key) {
            return Ok(true);
        }
        let intent = self.world.store.payment_intent(payment.quote.id).await?;
        Ok(intent.is_some_and(|intent| intent.proof_key == signed.proof_key))
    }

    /// What was signed for a payment that is not paid yet: before, or just now and found good. `Err`: nothing was.
    pub(super) async fn look_at_signed(
        &self,
        ask: &Ask<'_>,
        signed: Option<Signed>,
        payment: &Arc<Payment>,
        flight: Flight,
    ) -> Result<Result<SignedPayment, Flight>, Refusal> {
        let Some(x402) = self.world.rails.x402() else { return Ok(Err(flight)) };
        if payment.progress.state != PaymentState::Quoted
            && let Some(intent) = self.world.store.payment_intent(payment.quote.id).await?
        {
            return Ok(Ok(SignedPayment { payment: payment.clone(), intent, is_new: false, flight }));
        }
        let Some(signed) = signed else { return Ok(Err(flight)) };
        self.gate.look(self.terms(), ask.caller, self.world.clock.now())?;
        check_price(ask, payment.quote.price)?;
        let found = match x402.check_signed(&signed, &payment.quote) {
            Ok(()) => self.verify(x402, &signed, payment).await?,
            Err(reason) => Err(reason),
        };
        if let Err(reason) = found {
            return Err(self.not_taken(ask, &reason).await);
        }
        let intent = x402.intent(signed, &payment.quote);
        Ok(Ok(SignedPayment { payment: payment.clone(), intent, is_new: true, flight }))
    }

    async fn verify(&self, x402: &X402, signed: &Signed, payment: &Payment) -> Result<Result<(), String>, Refusal> {
        let began = std::time::Instant::now();
        let found = x402.verify(signed, &payment.quote).await;
        self.world.meters.verified(Rail::X402, began.elapsed());
        found.map_err(|refusal| refusal.payment_state(payment.progress.state))
    }

    /// Nothing was taken from the wallet: the 402 again, and why.
    async fn not_taken(&self, ask: &Ask<'_>, reason: &str) -> Refusal {
        self.fresh_quote_because(ask, reason).await.detail("reason", reason)
    }

    /// Row 11, before anything is taken from a wallet.
    ///
    /// # Errors
    /// As the gate says, with the payment's state; `ListingUnavailable` when the listing is no longer active.
    pub async fn admit_signed(&self, signed: &SignedPayment) -> Result<Permit, Refusal> {
        let (state, buyer) = (signed.payment.progress.state, signed.payment.quote.buyer);
        if self.terms().listing.status != ListingStatus::Active {
            return Err(Refusal::from(Code::ListingUnavailable).payment_state(state));
        }
        let admitted = self.gate.admit(self.terms().clone(), buyer, self.world.clock.now()).await;
        admitted.map_err(|refusal| {
            let refusal = refusal.payment_state(state);
            if signed.is_new { refusal } else { refusal.next_action("retry_same_payment") }
        })
    }

    /// Rows 10 and 12: makes durable what was signed, has it settled, and takes the right to call the seller in the step
    /// that records the money.
    ///
    /// # Errors
    /// `PaymentRequestMismatch` when the same money was signed for another payment, `PaymentFailed` when it did not
    /// move, and as [`ReadyPayment::settle_and_claim`].
    pub async fn settle_signed(
        &self,
        ask: &Ask<'_>,
        mut signed: SignedPayment,
        permit: &Permit,
    ) -> Result<SignedFound, Refusal> {
        let x402 = self.world.rails.x402().ok_or(Code::PaymentProviderUnavailable)?;
        let is_first = signed.is_new && self.intend(&mut signed).await?;
        let (quote, payment) = (signed.payment.quote.clone(), signed.payment);
        let began = std::time::Instant::now();
        let settlement = x402.settle(&signed.intent, &quote, is_first).await;
        self.world.meters.verified(Rail::X402, began.elapsed());
        let record = match settlement {
            Settlement::Done(record) => record,
            Settlement::Unknown => return Ok(SignedFound::Pending(payment, self.retry_after())),
            Settlement::Refused(reason) => {
                return Err(self.refused(ask, x402, (&payment, &signed.intent), &reason).await);
            }
        };
        match verify(&quote, x402.payee(), record, self.world.clock.now()) {
            Verified::Ours(evidence) if evidence.amount >= quote.price => {
                let (world, gate) = (self.world.clone(), self.gate.clone());
                let ready = ReadyPayment::new(world, gate, payment, Some(evidence), signed.flight);
                let found = ready.settle_and_claim(permit, ask.body_bytes).await?;
                Ok(SignedFound::Claim(Box::new(found)))
            }
            Verified::Ours(evidence) => match self.underpaid(ask, &payment, evidence).await {
                Err(refusal) => Err(refusal),
                Ok(_) => Err(in_progress(payment.progress.state)),
            },
            Verified::NotOurs => Ok(SignedFound::Pending(payment, self.retry_after())),
        }
    }

    /// Makes what was signed durable. Returns whether nobody was asked to move money with it before.
    async fn intend(&self, signed: &mut SignedPayment) -> Result<bool, Refusal> {
        let id = signed.payment.quote.id;
        self.gate.forget_quote(&signed.payment);
        match self.world.store.payment_intend(id, signed.intent.clone()).await? {
            Intended::Recorded(payment) => {
                signed.payment = payment;
                Ok(true)
            }
            Intended::Standing(intent, payment) => {
                (signed.intent, signed.payment) = (*intent, payment);
                Ok(false)
            }
            Intended::Used(_) => Err(used()),
            Intended::Late(payment) => Err(in_progress(payment.progress.state)),
            Intended::NotFound => Err(Code::PaymentNotFound.into()),
        }
    }

    async fn refused(
        &self,
        ask: &Ask<'_>,
        x402: &X402,
        (payment, intent): (&Payment, &Intent),
        reason: &str,
    ) -> Refusal {
        let failed = self.world.store.payment_fail(payment.quote.id).await;
        if let Err(error) = failed {
            return Refusal::from(error).payment_state(payment.progress.state);
        }
        self.world.meters.payment(payment.quote.rail, PaymentMet::Failed);
        let refusal = self.not_taken(ask, reason).await.payment_state(PaymentState::Failed);
        refusal.header(RESPONSE_HEADER, x402.refused(intent, reason))
    }

    fn retry_after(&self) -> Duration {
        self.world.config.payments.pending_retry_after
    }
}

/// The money, or the buyer's name for it, belongs to another payment; nothing is told of that one.
fn used() -> Refusal {
    Refusal::from(Code::PaymentRequestMismatch)
        .message("What was signed, or its payment-identifier, was used for another call; sign a new payment.")
        .next_action("request_new_payment")
}
