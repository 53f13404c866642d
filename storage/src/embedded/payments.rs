//! Payments, their claims and their results.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Draft, Embedded, Operation, Shared,
    codec::decode,
    codec::decode_id,
    engine::Engine,
    intents, keys,
    steps::{self, Rules},
};
use crate::{
    error::{StoreError, StoreResult},
    model::{
        Attempt, AttemptStatus, CallFacts, Claim, Claimed, Ended, Evidence, Intent, KeptResult, Payment, PaymentId,
        PaymentState, ProfileId, Progress, Quote, ResultPlace, SpendCap,
    },
    store::{
        ClaimRequest, Intended, PaymentStore, QuoteIdentity, QuoteOpened, ResultsRoom, SettleOutcome, StepOutcome,
    },
};

impl Shared {
    pub(super) fn rules(&self) -> Rules {
        let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Rules {
            attempts_max: self.config.attempts_max,
            key_kept_ms: millis(self.config.result_ttl),
            bucket_ms: millis(self.config.result_bucket),
            unpaid_kept_ms: millis(self.config.unpaid_kept),
        }
    }

    /// Looks how much results take, and how much the disk has left.
    pub(super) fn measure_results(&self, engine: &Engine) {
        self.files.measured(engine.results_bytes());
    }

    /// The payment that an index key names.
    fn payment_at(&self, index: &keys::Key) -> StoreResult<Option<Arc<Payment>>> {
        match self.engine()?.get(index)? {
            Some(bytes) => self.payment(PaymentId::from_bytes(decode_id("payment index", &bytes)?)),
            None => Ok(None),
        }
    }

    fn by_key(&self, buyer: ProfileId, key: &str) -> StoreResult<Option<Arc<Payment>>> {
        let found = self.payment_at(&keys::idempotency_key(buyer, key))?;
        Ok(found.filter(|payment| !steps::is_forgotten(payment, self.now(), self.rules())))
    }
}

#[async_trait]
impl PaymentStore for Embedded {
    async fn quote_open(&self, quote: Quote, open_max: u32) -> StoreResult<QuoteOpened> {
        let decide = move |draft: &mut Draft<'_>| steps::quote_open(draft, quote, open_max);
        self.shared.run(Operation::QuoteOpen, decide).await
    }

    async fn quote_open_within(&self, quote: Quote, open_max: u32, cap: SpendCap) -> StoreResult<QuoteOpened> {
        let decide = move |draft: &mut Draft<'_>| steps::quote_open_within(draft, quote, open_max, cap);
        self.shared.run(Operation::QuoteOpenWithin, decide).await
    }

    async fn quote_find(&self, identity: &QuoteIdentity) -> StoreResult<Option<Arc<Payment>>> {
        let _timing = self.shared.measures.time(Operation::QuoteFind);
        let found = match &identity.idempotency_key {
            Some(key) => self.shared.by_key(identity.buyer, key)?,
            None => self.shared.payment_at(&keys::quote_identity(identity))?,
        };
        let now = self.shared.now();
        let same = |quote: &Quote| {
            // With a key the currency does not matter: it is that purchase.
            let currency = quote.currency == identity.currency || identity.idempotency_key.is_some();
            quote.listing == identity.listing && quote.body_sha256 == identity.body_sha256 && currency
        };
        Ok(found.filter(|payment| payment.is_open(now) && same(&payment.quote)))
    }

    async fn payment_get(&self, id: PaymentId) -> StoreResult<Option<Arc<Payment>>> {
        let _timing = self.shared.measures.time(Operation::PaymentGet);
        self.shared.payment(id)
    }

    async fn payment_by_key(&self, buyer: ProfileId, key: &str) -> StoreResult<Option<Arc<Payment>>> {
        let _timing = self.shared.measures.time(Operation::PaymentByKey);
        self.shared.by_key(buyer, key)
    }

    async fn payment_by_proof(&self, proof_key: &str) -> StoreResult<Option<Arc<Payment>>> {
        let _timing = self.shared.measures.time(Operation::PaymentByProof);
        self.shared.payment_at(&keys::proof(proof_key))
    }

    async fn payment_intend(&self, id: PaymentId, intent: Intent) -> StoreResult<Intended> {
        self.shared.run(Operation::PaymentIntend, move |draft| intents::intend(draft, id, &intent)).await
    }

    async fn payment_intent(&self, id: PaymentId) -> StoreResult<Option<Intent>> {
        let _timing = self.shared.measures.time(Operation::PaymentIntent);
        self.shared.read(intents::WHAT, &keys::intent(id))
    }

    async fn payment_settle(
        &self,
        id: PaymentId,
        evidence: Evidence,
        claim: Option<ClaimRequest>,
    ) -> StoreResult<SettleOutcome> {
        let decide = move |draft: &mut Draft<'_>| steps::settle(draft, id, evidence, claim);
        self.shared.run(Operation::PaymentSettle, decide).await
    }

    async fn payment_claim(&self, id: PaymentId, claim: ClaimRequest) -> StoreResult<StepOutcome<Claimed>> {
        self.shared.run(Operation::PaymentClaim, move |draft| steps::claim(draft, id, claim)).await
    }

    async fn payment_complete(
        &self,
        id: PaymentId,
        claim: Claim,
        facts: CallFacts,
        result: KeptResult,
        held: Option<Bytes>,
    ) -> StoreResult<StepOutcome<Ended>> {
        if result.place == ResultPlace::NotKept {
            self.shared.files.let_go((id, claim.attempt));
        }
        let decide = move |draft: &mut Draft<'_>| steps::complete(draft, id, claim, (facts, result, held));
        self.shared.run(Operation::PaymentComplete, decide).await
    }

    async fn payment_release(
        &self,
        id: PaymentId,
        claim: Claim,
        status: AttemptStatus,
        facts: CallFacts,
    ) -> StoreResult<StepOutcome<Ended>> {
        self.shared.files.let_go((id, claim.attempt));
        let decide = move |draft: &mut Draft<'_>| steps::release(draft, id, claim, (status, facts));
        self.shared.run(Operation::PaymentRelease, decide).await
    }

    async fn payment_owe(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
        self.shared.run(Operation::PaymentOwe, move |draft| steps::owe(draft, id)).await
    }

    async fn payment_fail(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
        self.shared.run(Operation::PaymentFail, move |draft| steps::fail(draft, id)).await
    }

    async fn claims_overdue(&self, limit: usize) -> StoreResult<Vec<(PaymentId, Claim)>> {
        let _timing = self.shared.measures.time(Operation::ClaimsOverdue);
        let engine = self.shared.engine()?;
        let mut overdue = Vec::new();
        for found in engine.scan(&keys::deltas()) {
            let (key, value) = found?;
            let progress: Progress = decode("progress of a payment", &value)?;
            if let PaymentState::Claimed(claim) = progress.state
                && steps::is_overdue(claim, self.shared.owner)
            {
                let id = decode_id("key of a payment's progress", key.get(1..).unwrap_or_default())?;
                let begun = progress.attempts.last().map(|attempt| attempt.started_at);
                overdue.push((begun, PaymentId::from_bytes(id), claim));
            }
        }
        overdue.sort_unstable_by_key(|(begun, id, _)| (*begun, *id));
        Ok(overdue.into_iter().take(limit).map(|(_, id, claim)| (id, claim)).collect())
    }

    async fn result_append(&self, id: PaymentId, attempt: u32, n: u32, chunk: Bytes) -> StoreResult<()> {
        let _timing = self.shared.measures.time(Operation::ResultAppend);
        let payment = self.shared.payment(id)?;
        let known = payment.as_ref().and_then(|payment| attempt_of(payment, attempt));
        let Some(known) = known else {
            return Err(StoreError::Unavailable(format!("{id} has no attempt {attempt} whose result could be kept")));
        };
        self.shared.files.append((id, attempt), known.started_at, n, chunk).await
    }

    async fn result_seal(&self, id: PaymentId, attempt: u32) -> StoreResult<()> {
        let _timing = self.shared.measures.time(Operation::ResultSeal);
        self.shared.files.seal((id, attempt)).await
    }

    async fn result_resend(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
        self.shared.run(Operation::ResultResend, move |draft| steps::resend(draft, id)).await
    }

    async fn result_resend_return(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
        self.shared.run(Operation::ResultResendReturn, move |draft| steps::resend_return(draft, id)).await
    }

    fn results_room(&self) -> ResultsRoom {
        self.shared.files.room()
    }

    async fn result_read(&self, payment: &Payment, n: u32) -> StoreResult<Option<Bytes>> {
        let _timing = self.shared.measures.time(Operation::ResultRead);
        let (id, progress) = (payment.quote.id, &payment.progress);
        let Some(result) = progress.result.as_ref().filter(|result| self.shared.now() < result.kept_until) else {
            return Ok(None);
        };
        let completed =
            |attempt: &&Attempt| attempt.end.as_ref().is_some_and(|end| end.status == AttemptStatus::Completed);
        let Some(attempt) = progress.attempts.iter().rfind(completed) else {
            return Err(StoreError::Corrupt(format!("{id} has a result and no completed attempt")));
        };
        match (result.place, &attempt.end) {
            (ResultPlace::Inline, _) if n > 0 => Ok(None),
            (ResultPlace::Inline, Some(end)) => {
                for bucket in self.shared.engine()?.buckets_covering(end.at) {
                    if let Some(bytes) = bucket.get(id)? {
                        return Ok(Some(Bytes::copy_from_slice(&bytes)));
                    }
                }
                // An empty answer may have been handed in as nothing to keep.
                Ok((result.bytes == 0).then(Bytes::new))
            }
            (ResultPlace::Chunks, _) => self.shared.files.read((id, attempt.number), attempt.started_at, n).await,
            (ResultPlace::NotKept | ResultPlace::Resent | ResultPlace::Inline, _) => Ok(None),
        }
    }
}

fn attempt_of(payment: &Payment, number: u32) -> Option<&Attempt> {
    payment.progress.attempts.iter().find(|attempt| attempt.number == number)
}
