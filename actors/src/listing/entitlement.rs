//! What entitles a call to reach its seller: money that was claimed, a listing that asks for none, or the one repetition
//! of a call whose answer was not kept. And what becomes of it when the call ends.

use std::sync::Arc;

use storage::model::{
    AttemptStatus, CallFacts, FreeCall, GatewayRequestId, ListingId, Micros, Payment, PaymentState, ProfileId,
    UnixMillis,
};

use super::{
    gate::Permit,
    purchase::{KeptAnswer, PaymentClaim},
};
use crate::{
    refusal::{Refusal, SellerCalled},
    world::World,
};

/// The right to call a free listing's seller: no money, a row behind the answer.
pub struct FreeRight {
    world: Arc<World>,
    id: GatewayRequestId,
    buyer: ProfileId,
    seller: ProfileId,
    listing: ListingId,
    request_bytes: u64,
    started_at: UnixMillis,
}

impl FreeRight {
    pub(crate) fn new(world: Arc<World>, permit: &Permit, buyer: ProfileId, request_bytes: u64) -> Self {
        let started_at = world.clock.now();
        let listing = &permit.terms().listing;
        let (seller, listing) = (listing.seller, listing.id);
        Self { world, id: GatewayRequestId::mint(started_at), buyer, seller, listing, request_bytes, started_at }
    }

    async fn finish(self, status: AttemptStatus, facts: CallFacts) {
        let row = FreeCall {
            id: self.id,
            buyer: self.buyer,
            seller: self.seller,
            listing: self.listing,
            status,
            request_bytes: self.request_bytes,
            facts,
            started_at: self.started_at,
            ended_at: self.world.clock.now(),
        };
        self.world.rows.write(row).await;
    }
}

/// The right to send a completed call to its seller once more, for nothing: its answer was too large to be kept. It
/// was taken for good; only when not a byte has reached the seller it is given back.
pub struct Resend {
    world: Arc<World>,
    payment: Arc<Payment>,
}

impl Resend {
    pub(crate) fn new(world: Arc<World>, payment: Arc<Payment>) -> Self {
        Self { world, payment }
    }

    async fn end(self, called: SellerCalled) -> PaymentState {
        let id = self.payment.quote.id;
        if called == SellerCalled::No
            && let Err(error) = self.world.store.result_resend_return(id).await
        {
            tracing::warn!(payment = %id, %error, "a repetition that did not reach the seller is spent");
        }
        self.payment.progress.state
    }
}

/// What entitles a call to reach the seller: money that was claimed, or a listing that asks for none.
pub enum Entitlement {
    /// A paid call.
    Paid(PaymentClaim),
    /// A free one.
    Free(FreeRight),
    /// A completed one, once more.
    Again(Resend),
}

impl Entitlement {
    /// The payment; `None` for a free call.
    #[must_use]
    pub fn payment(&self) -> Option<&Payment> {
        match self {
            Self::Paid(claim) => Some(claim.payment()),
            Self::Free(_) => None,
            Self::Again(resend) => Some(&resend.payment),
        }
    }

    /// Whether what the seller answers is the call's result, to be kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Paid(_))
    }

    /// Whether the call was completed before.
    #[must_use]
    pub fn is_again(&self) -> bool {
        matches!(self, Self::Again(_))
    }

    /// The id that the seller sees.
    #[must_use]
    pub fn request_id(&self) -> GatewayRequestId {
        match self {
            Self::Free(right) => right.id,
            Self::Paid(claim) => claim.payment().quote.gateway_request_id(),
            Self::Again(resend) => resend.payment.quote.gateway_request_id(),
        }
    }

    /// Which attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        match self {
            Self::Paid(claim) => claim.attempt(),
            Self::Free(_) => 1,
            // It has no row: to the seller it is one more attempt.
            Self::Again(resend) => {
                u32::try_from(resend.payment.progress.attempts.len()).unwrap_or(u32::MAX).saturating_add(1)
            }
        }
    }

    /// What is charged when the seller handles the call.
    #[must_use]
    pub fn charged(&self) -> Micros {
        match self {
            Self::Paid(claim) => claim.payment().quote.price,
            Self::Free(_) | Self::Again(_) => Micros::ZERO,
        }
    }

    /// The seller handled the call. Returns the payment after it; `None` for a free call.
    ///
    /// # Errors
    /// As [`PaymentClaim::complete`].
    pub async fn complete(self, facts: CallFacts, answer: KeptAnswer) -> Result<Option<Arc<Payment>>, Refusal> {
        match self {
            Self::Paid(claim) => claim.complete(facts, answer).await.map(Some),
            Self::Free(right) => {
                right.finish(AttemptStatus::Completed, facts).await;
                Ok(None)
            }
            Self::Again(resend) => Ok(Some(resend.payment)),
        }
    }

    /// It did not, `called` or not. Returns where the money is; `None` for a free call.
    ///
    /// # Errors
    /// As [`PaymentClaim::complete`].
    pub async fn release(self, facts: CallFacts, called: SellerCalled) -> Result<Option<PaymentState>, Refusal> {
        match self {
            Self::Paid(claim) => claim.release(facts).await.map(|payment| Some(payment.progress.state)),
            Self::Free(right) => {
                right.finish(AttemptStatus::Released, facts).await;
                Ok(None)
            }
            Self::Again(resend) => Ok(Some(resend.end(called).await)),
        }
    }
}
