//! The money side of one call: settled, claimed, completed or released. Each step is durable before the next begins,
//! and each later value can only be made from the one before.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use storage::{
    ClaimRequest, SettleOutcome, StepOutcome, StoreError, StoreResult,
    model::{
        AttemptStatus, CallFacts, Claim, Claimed, Ended, Evidence, KeptResult, Owner, Payment, PaymentId, PaymentState,
    },
};

use super::{
    flights::Flight,
    gate::{Gate, Permit},
    handle::{in_progress, is_unkept},
};
use crate::{
    meters::PaymentMet,
    refusal::{Code, Refusal, SellerCalled},
    world::World,
};

/// How long a request waits for a store that does not confirm; after that the work goes on behind it.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(5);
/// Claims of earlier lives that are looked up at a time.
const OVERDUE_PAGE: usize = 256;
/// How long the work goes on behind it.
const CONFIRM_LIMIT: Duration = Duration::from_secs(600);

/// A payment whose money is there (or was verified just now), and which nobody else on this node is using.
pub struct ReadyPayment {
    world: Arc<World>,
    gate: Arc<Gate>,
    payment: Arc<Payment>,
    evidence: Option<Evidence>,
    flight: Flight,
}

/// What row 12 found.
pub enum ClaimFound {
    /// This request may call the seller, once.
    Claim(PaymentClaim),
    /// Another node completed the call meanwhile.
    Replay(Arc<Payment>),
}

impl ReadyPayment {
    pub(crate) fn new(
        world: Arc<World>,
        gate: Arc<Gate>,
        payment: Arc<Payment>,
        evidence: Option<Evidence>,
        flight: Flight,
    ) -> Self {
        Self { world, gate, payment, evidence, flight }
    }

    /// The payment as it was read.
    #[must_use]
    pub fn payment(&self) -> &Payment {
        &self.payment
    }

    /// Records verified money without a claim: it is never lost, whatever becomes of the call.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub(crate) async fn record(&self) -> Result<(), Refusal> {
        let Some(evidence) = &self.evidence else { return Ok(()) };
        self.gate.forget_quote(&self.payment);
        match self.world.store.payment_settle(self.payment.quote.id, evidence.clone(), None).await? {
            SettleOutcome::Recorded { .. } => Ok(()),
            SettleOutcome::ProofUsed(other) => Err(self.proof_used(other)),
            SettleOutcome::NotFound => Err(Code::PaymentNotFound.into()),
        }
    }

    /// Makes settled money the buyer's again: the call can never run. Returns what the payment is then: a call that
    /// another node has begun goes on.
    ///
    /// # Errors
    /// `PaymentNotFound`, `StoreUnavailable`.
    pub(crate) async fn owe(&self) -> Result<PaymentState, Refusal> {
        self.release_orphan(self.world.store.owner()).await?;
        match self.world.store.payment_owe(self.payment.quote.id).await? {
            StepOutcome::Step(_, payment) => Ok(payment.progress.state),
            StepOutcome::NotFound => Err(Code::PaymentNotFound.into()),
        }
    }

    /// Row 12: records the money and takes the right to call the seller, in one durable step. Demands the permit, so
    /// that nothing is claimed for a call that cannot run.
    ///
    /// # Errors
    /// `PaymentInProgress`, `PaymentClosed`, `PaymentNotFound`, `StoreUnavailable`.
    pub async fn settle_and_claim(self, _permit: &Permit, request_bytes: u64) -> Result<ClaimFound, Refusal> {
        let request = ClaimRequest { owner: self.world.store.owner(), request_bytes };
        self.gate.forget_quote(&self.payment);
        let (claimed, payment) = match self.step(request).await {
            Ok(found) => found,
            Err(StepFault::Refused(refusal)) => return Err(refusal),
            Err(StepFault::Store(error)) => self.look_after(error, request).await?,
        };
        match claimed {
            Claimed::Won(claim) => Ok(ClaimFound::Claim(PaymentClaim::new(self, payment, claim))),
            // Asked again, it is found as what it is.
            Claimed::Completed if is_unkept(&payment, self.world.clock.now()) => {
                Err(in_progress(payment.progress.state))
            }
            Claimed::Completed => Ok(ClaimFound::Replay(payment)),
            Claimed::Held(_) => Err(in_progress(payment.progress.state)),
            Claimed::NotSettled | Claimed::Closed => {
                Err(Refusal::from(Code::PaymentClosed).payment_state(payment.progress.state))
            }
        }
    }

    async fn step(&self, request: ClaimRequest) -> Result<(Claimed, Arc<Payment>), StepFault> {
        let id = self.payment.quote.id;
        if let Some(evidence) = &self.evidence {
            let outcome = self.world.store.payment_settle(id, evidence.clone(), Some(request)).await?;
            return match outcome {
                SettleOutcome::Recorded { claimed: Some(claimed), payment, .. } => Ok((claimed, payment)),
                SettleOutcome::Recorded { payment, .. } => Ok((Claimed::Closed, payment)),
                SettleOutcome::ProofUsed(other) => Err(StepFault::Refused(self.proof_used(other))),
                SettleOutcome::NotFound => Err(StepFault::Refused(Code::PaymentNotFound.into())),
            };
        }
        self.release_orphan(request.owner).await?;
        match self.world.store.payment_claim(id, request).await? {
            StepOutcome::Step(claimed, payment) => Ok((claimed, payment)),
            StepOutcome::NotFound => Err(StepFault::Refused(Code::PaymentNotFound.into())),
        }
    }

    /// This request holds the flight, so a claim of this node's present life is nobody's: its request died.
    async fn release_orphan(&self, us: Owner) -> StoreResult<()> {
        if let PaymentState::Claimed(orphan) = self.payment.progress.state
            && orphan.owner == us
        {
            let (id, facts) = (self.payment.quote.id, CallFacts::interrupted());
            self.world.store.payment_release(id, orphan, AttemptStatus::Interrupted, facts).await?;
        }
        Ok(())
    }

    /// The store did not confirm: reads again until it can tell. This request holds the flight, so a claim of this
    /// life that is found then is the one it asked for.
    async fn look_after(&self, error: StoreError, request: ClaimRequest) -> Result<(Claimed, Arc<Payment>), Refusal> {
        if matches!(error, StoreError::Corrupt(_)) {
            return Err(error.into());
        }
        let until = tokio::time::Instant::now() + CONFIRM_PATIENCE;
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Ok(Some(payment)) = self.world.store.payment_get(self.payment.quote.id).await else { continue };
            match payment.progress.state {
                PaymentState::Claimed(claim) if claim.owner == request.owner => {
                    return Ok((Claimed::Won(claim), payment));
                }
                PaymentState::Completed => return Ok((Claimed::Completed, payment)),
                _ => match self.step(request).await {
                    Ok(found) => return Ok(found),
                    Err(StepFault::Refused(refusal)) => return Err(refusal),
                    Err(StepFault::Store(_)) => {}
                },
            }
        }
        // As it was found: nothing that was asked for since is known to be written, and the seller was not called.
        Err(Refusal::from(error).payment_state(self.payment.progress.state))
    }

    fn proof_used(&self, other: PaymentId) -> Refusal {
        tracing::error!(payment = %self.payment.quote.id, %other, "one proof for two payments");
        Refusal::from(Code::PaymentClosed).message("The money was used for another payment.")
    }
}

enum StepFault {
    Refused(Refusal),
    Store(StoreError),
}

impl From<StoreError> for StepFault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The durable, single-winner right to call the seller once for a payment.
pub struct PaymentClaim {
    world: Arc<World>,
    payment: Arc<Payment>,
    claim: Claim,
    flight: Option<Flight>,
}

/// The answer of a completed call, as it is kept.
pub struct KeptAnswer {
    /// What is known of it.
    pub result: KeptResult,
    /// The seller's bytes as they stand in the envelope, when they are kept inline.
    pub held: Option<Bytes>,
}

impl PaymentClaim {
    fn new(ready: ReadyPayment, payment: Arc<Payment>, claim: Claim) -> Self {
        Self { world: ready.world, payment, claim, flight: Some(ready.flight) }
    }

    /// The payment as it was claimed.
    #[must_use]
    pub fn payment(&self) -> &Payment {
        &self.payment
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.claim.attempt
    }

    /// Appends a piece of an answer that is too large to be held.
    ///
    /// # Errors
    /// Why the store could not.
    pub async fn append(&self, n: u32, chunk: Bytes) -> StoreResult<()> {
        self.world.store.result_append(self.payment.quote.id, self.claim.attempt, n, chunk).await
    }

    /// Makes the pieces durable.
    ///
    /// # Errors
    /// Why the store could not.
    pub async fn seal(&self) -> StoreResult<()> {
        self.world.store.result_seal(self.payment.quote.id, self.claim.attempt).await
    }

    /// The seller handled the call: outcome, row, postings and result in one step. Returns the payment after it.
    ///
    /// # Errors
    /// `StoreUnavailable` when the store does not confirm in time (the work goes on behind), `PaymentInProgress` when
    /// the claim was taken over.
    pub async fn complete(self, facts: CallFacts, answer: KeptAnswer) -> Result<Arc<Payment>, Refusal> {
        self.finish(Finish::Complete(facts, answer)).await
    }

    /// The seller did not handle the call: the payment is usable again, or owed after its last attempt.
    ///
    /// # Errors
    /// As [`PaymentClaim::complete`].
    pub async fn release(self, facts: CallFacts) -> Result<Arc<Payment>, Refusal> {
        let world = self.world.clone();
        let payment = self.finish(Finish::Release(facts, AttemptStatus::Released)).await?;
        if payment.progress.state == PaymentState::Owed {
            world.meters.payment(payment.quote.rail, PaymentMet::Owed);
        }
        Ok(payment)
    }

    async fn finish(mut self, finish: Finish) -> Result<Arc<Payment>, Refusal> {
        let (world, id, claim) = (self.world.clone(), self.payment.quote.id, self.claim);
        match finish.write(&world, id, claim).await {
            Ok(outcome) => {
                self.flight.take();
                finish.note_orphan(&world, &outcome, claim);
                read_end(outcome, claim)
            }
            Err(error) => {
                tracing::error!(payment = %id, %error, "outcome not confirmed; trying on");
                let flight = self.flight.take();
                let work = tokio::spawn(keep_trying(world, id, claim, finish, flight));
                match tokio::time::timeout(CONFIRM_PATIENCE, work).await {
                    Ok(Ok(Some(outcome))) => read_end(outcome, claim),
                    _ => Err(Refusal::from(error)
                        .payment_state(PaymentState::Claimed(claim))
                        .seller_called(SellerCalled::Yes)
                        .next_action("retry_same_payment")),
                }
            }
        }
    }
}

/// A claim that is dropped unfinished belongs to a request that died: the payment is usable again at once.
impl Drop for PaymentClaim {
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        let (world, id, claim) = (self.world.clone(), self.payment.quote.id, self.claim);
        let finish = Finish::Release(CallFacts::interrupted(), AttemptStatus::Interrupted);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            tracing::error!(payment = %id, "a call died with its claim; releasing it");
            runtime.spawn(async move {
                keep_trying(world, id, claim, finish, Some(flight)).await;
            });
        }
    }
}

enum Finish {
    Complete(CallFacts, KeptAnswer),
    Release(CallFacts, AttemptStatus),
}

type EndOutcome = StepOutcome<Ended>;

impl Finish {
    async fn write(&self, world: &World, id: PaymentId, claim: Claim) -> StoreResult<EndOutcome> {
        match self {
            Self::Complete(facts, answer) => {
                let (result, held) = (answer.result.clone(), answer.held.clone());
                world.store.payment_complete(id, claim, facts.clone(), result, held).await
            }
            Self::Release(facts, status) => world.store.payment_release(id, claim, *status, facts.clone()).await,
        }
    }

    /// An outcome that came after its claim was taken over changed nothing; what it knew is kept here, as evidence.
    fn note_orphan(&self, world: &World, outcome: &EndOutcome, claim: Claim) {
        let StepOutcome::Step(Ended::NotOwner, payment) = outcome else { return };
        if is_written(payment, claim) {
            return;
        }
        let (what, facts) = match self {
            Self::Complete(facts, _) => ("completed", facts),
            Self::Release(facts, _) => ("released", facts),
        };
        tracing::error!(
            payment = %payment.quote.id, attempt = claim.attempt, what, status = facts.seller_status_code,
            bytes = facts.response_bytes, "orphan evidence: a late outcome of a claim that was taken over"
        );
        world.meters.payment(payment.quote.rail, PaymentMet::Orphan);
    }
}

/// Writes an outcome until the store confirms it. `Unknown` may mean written: the guard makes a second write harmless,
/// and the record then tells whose it was.
async fn keep_trying(
    world: Arc<World>,
    id: PaymentId,
    claim: Claim,
    finish: Finish,
    flight: Option<Flight>,
) -> Option<EndOutcome> {
    let _flight = flight;
    let until = tokio::time::Instant::now() + CONFIRM_LIMIT;
    let mut pause = Duration::from_millis(50);
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
        match finish.write(&world, id, claim).await {
            Ok(outcome) => {
                finish.note_orphan(&world, &outcome, claim);
                return Some(outcome);
            }
            Err(StoreError::Corrupt(reason)) => {
                tracing::error!(payment = %id, %reason, "outcome cannot be written");
                return None;
            }
            Err(_) => {}
        }
    }
    tracing::error!(payment = %id, "outcome was never confirmed; the next start resolves the claim");
    None
}

fn read_end(outcome: EndOutcome, claim: Claim) -> Result<Arc<Payment>, Refusal> {
    match outcome {
        StepOutcome::Step(Ended::Done, payment) => Ok(payment),
        StepOutcome::Step(Ended::NotOwner, payment) if is_written(&payment, claim) => Ok(payment),
        StepOutcome::Step(Ended::NotOwner, payment) => Err(in_progress(payment.progress.state)),
        StepOutcome::NotFound => Err(Code::PaymentNotFound.into()),
    }
}

/// A first write was not confirmed, and was there all the same.
fn is_written(payment: &Payment, claim: Claim) -> bool {
    let ours = payment.progress.attempts.iter().find(|attempt| attempt.number == claim.attempt);
    let done = ours.and_then(|attempt| attempt.end.as_ref()).map(|end| end.status);
    matches!(done, Some(AttemptStatus::Completed | AttemptStatus::Released))
}

/// Releases claims of this node's earlier lives under their stable request ids: at start, before anything is served.
/// Returns how many there were.
pub(crate) async fn release_overdue(world: &World) -> StoreResult<usize> {
    let mut released = 0;
    loop {
        let overdue = world.store.claims_overdue(OVERDUE_PAGE).await?;
        if overdue.is_empty() {
            return Ok(released);
        }
        for (id, claim) in overdue {
            world.store.payment_release(id, claim, AttemptStatus::Interrupted, CallFacts::interrupted()).await?;
            released += 1;
        }
    }
}
