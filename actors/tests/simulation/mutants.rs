//! The store's payments as they are watched: after every step the payment is held against the truth. And the bugs that
//! are planted here, to see that each breaks its own law.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use storage::{faulty::at_once, model::*, *};

use super::{laws::Law, sellers::result_of, truth::Truth};

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident => $law:ident,)*) => {
        /// A promise that is broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant { $($(#[$doc])* $name),* }

        impl Mutant {
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The law that it breaks first.
            pub fn law(self) -> Law {
                match self { $(Self::$name => Law::$law),* }
            }
        }
    };
}

mutants! {
    /// A claim is won though somebody holds it.
    ClaimWithoutCompare => CalledOnce,
    /// A claim completes the call before the seller has.
    PostsBeforeOutcome => Handled,
    /// The rail said success, and nobody looks how much and to whom.
    SuccessAlone => Verified,
    /// Claims of earlier lives are held for ever.
    ForgetsEpoch => Finishes,
    /// A completed call may be claimed again.
    ReplayCalls => ReplayNeverCalls,
    /// A rail that does not answer said no.
    TimeoutIsFailure => FailedByRail,
    /// A proof is taken for a second payment.
    ProofTwice => OneProof,
    /// A proof is taken for its payment twice.
    SettlesTwice => Verified,
    /// Whoever wants a claim takes away another one's.
    ReleasesOthers => Alone,
    /// A claim lapses by the clock on the wall.
    LapsesByClock => Alone,
    /// An outcome that is written again is posted again.
    CompletesTwice => OneCompletion,
    /// What is kept is dearer than what was offered: the price of now, not of the quote.
    AnotherPrice => PriceKept,
    /// The outcome is acknowledged and not written.
    AcknowledgedEarly => Durable,
    /// A quote is acknowledged and not written.
    LostQuote => Durable,
    /// A release is acknowledged and not written.
    LostRelease => Finishes,
    /// What was paid above the price is not recorded.
    SurplusSwallowed => Accounted,
    /// The marketplace forgets its fee.
    FeeForgotten => Shared,
    /// A posting's debits are not its credits.
    Unbalanced => Balanced,
    /// Of several attempts the first is forgotten.
    HistoryRewritten => AppendOnly,
    /// A replay finds another payment's answer.
    StrangeAnswer => OwnAnswer,
    /// A payment is found by its id, whoever asks and for what.
    AnswersAnybody => Binding,
    /// Nobody looks for money that comes after its quote expired.
    LateMoneyUnseen => AskedOnce,
    /// Money is said to be owed, and nothing is written.
    OwedInWords => Truthful,
    /// A claim is acknowledged and not written.
    ClaimedInWords => ClaimBeforeCall,
    /// The one repetition of a call can be taken again.
    ResendsAgain => CalledOnce,
    /// A party is not shown its last row.
    RowForgotten => Shown,
    /// The file of transfers is made before its intents.
    SendsBeforeIntent => IntentFirst,
    /// A refund that is under way is begun anew.
    RefundsTwice => OwedOnly,
    /// An earning is added up twice.
    PayoutCountsTwice => EarnedOnly,
    /// A payout takes what was earned since it was begun.
    IntentChanges => SentOnce,
    /// The confirmation of a refund is acknowledged and not written.
    LostConfirm => Finishes,
    /// A rail takes money back while its call runs, and that is forgotten.
    ReversalForgotten => TakenOnce,
    /// What a rail took back is taken from its holders twice.
    ReversalTwice => TakenOnce,
    /// A rail takes money back, and nobody looks.
    ReversalUnseen => Finishes,
    /// A seller gives what it was paid already.
    PaidSellerGives => LossPlaced,
}

/// How long a planted bug lets claims stand, by the clock on the wall.
const LEASE: Duration = Duration::from_millis(200);

/// Payments under watch.
pub struct Watched {
    pub base: Arc<dyn Store>,
    pub truth: Arc<Truth>,
    /// Refunds that a planted bug begins.
    pub planted: Mutex<Vec<Refund>>,
    /// Reversals that came while a call ran.
    pub waited: Mutex<BTreeSet<PaymentId>>,
    completions: Mutex<BTreeMap<PaymentId, u32>>,
    first_answer: Mutex<Option<Bytes>>,
}

impl Watched {
    pub fn new(base: Arc<dyn Store>, truth: Arc<Truth>) -> Self {
        let (planted, waited) = (Mutex::default(), Mutex::default());
        Self { base, truth, planted, waited, completions: Mutex::default(), first_answer: Mutex::default() }
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.truth.mutant == Some(mutant)
    }

    /// What is kept, past all faults.
    pub fn kept(&self, id: PaymentId) -> Option<Arc<Payment>> {
        let found = at_once(self.base.payment_get(id)).expect("what is below is whole")?;
        Some(self.as_kept(found))
    }

    /// As a store with the planted bug would keep it.
    fn as_kept(&self, found: Arc<Payment>) -> Arc<Payment> {
        let mut payment = (*found).clone();
        let progress = &mut payment.progress;
        let done = progress.postings.iter().position(|posting| posting.kind() == PostingKind::Completed);
        match (self.truth.mutant, done) {
            (Some(Mutant::CompletesTwice), Some(done)) => {
                let times = self.completions.lock().get(&found.quote.id).copied().unwrap_or_default();
                if times > 1 {
                    progress.postings.push(progress.postings[done].clone());
                }
            }
            (Some(Mutant::FeeForgotten), Some(done)) => {
                let (quote, posting) = (&payment.quote, &progress.postings[done]);
                let debit = [(Account::Suspense(quote.id), quote.price)];
                let credit = [(Account::Seller(quote.seller), quote.price)];
                let forgotten = Posting::new(posting.id(), posting.kind(), posting.at(), &debit, &credit);
                progress.postings[done] = forgotten.expect("it balances");
            }
            (Some(Mutant::Unbalanced), Some(done)) => {
                let mut posting = serde_json::to_value(&progress.postings[done]).expect("JSON");
                posting["entries"][0]["amount"] = json!(quote_and_one(&found));
                progress.postings[done] = serde_json::from_value(posting).expect("a posting");
            }
            (Some(Mutant::HistoryRewritten), _) if progress.attempts.len() > 1 => _ = progress.attempts.remove(0),
            _ if self.as_taken_back(&mut payment) => {}
            _ => return found,
        }
        Arc::new(payment)
    }

    /// What a party is shown: its sums, and how many attempts of calls.
    pub fn shown(&self, party: ProfileId) -> (Sums, usize) {
        let sums = at_once(self.base.sums_get(party)).expect("sums");
        let rows =
            at_once(self.base.gateway_request_list(party, &HistoryFilter::default(), None, 10_000)).expect("rows");
        (sums, rows.rows.len() - usize::from(self.is(Mutant::RowForgotten)))
    }

    /// Holds a payment, as it is kept now, against all that is true.
    pub fn look(&self, id: PaymentId) {
        self.truth.look_at_refunds(id, self.kept_refunds(id));
        if let Some(payment) = self.kept(id) {
            self.truth.look(&payment);
        }
    }

    fn opened(&self, found: &QuoteOpened) {
        if let QuoteOpened::Opened(payment) | QuoteOpened::Exists(payment) = found {
            self.look(payment.quote.id);
        }
    }

    async fn take_away(&self, id: PaymentId, claim: Claim) -> StoreResult<()> {
        self.base.payment_release(id, claim, AttemptStatus::Interrupted, CallFacts::interrupted()).await.map(drop)
    }
}

fn quote_and_one(payment: &Payment) -> i64 {
    payment.quote.price.0 + 1
}

#[async_trait]
impl PaymentStore for Watched {
    async fn quote_open(&self, mut quote: Quote, open_max: u32) -> StoreResult<QuoteOpened> {
        if self.is(Mutant::LostQuote) && self.truth.dice.chance(200) {
            return Ok(QuoteOpened::Opened(Arc::new(Payment::quoted(quote))));
        }
        let price = quote.price;
        if self.is(Mutant::AnotherPrice) {
            quote.price = Micros(price.0 + 1_000);
        }
        let mut found = self.base.quote_open(quote, open_max).await?;
        if let (true, QuoteOpened::Opened(payment)) = (self.is(Mutant::AnotherPrice), &mut found) {
            let mut shown = (*payment.quote).clone();
            shown.price = price;
            *payment = Arc::new(Payment::quoted(shown));
        }
        self.opened(&found);
        Ok(found)
    }

    async fn quote_open_within(&self, quote: Quote, open_max: u32, cap: SpendCap) -> StoreResult<QuoteOpened> {
        let found = self.base.quote_open_within(quote, open_max, cap).await?;
        self.opened(&found);
        Ok(found)
    }

    async fn quote_find(&self, quote: &QuoteIdentity) -> StoreResult<Option<Arc<Payment>>> {
        self.base.quote_find(quote).await
    }

    async fn payment_get(&self, id: PaymentId) -> StoreResult<Option<Arc<Payment>>> {
        let found = self.base.payment_get(id).await?;
        Ok(found.map(|payment| match (self.truth.mutant, payment.progress.state, *self.truth.disguise.lock()) {
            (Some(Mutant::ReplayCalls), PaymentState::Completed, _) => {
                let mut payment = (*payment).clone();
                payment.progress.state = PaymentState::Settled;
                Arc::new(payment)
            }
            (Some(Mutant::AnswersAnybody), _, Some((asked, buyer, body_sha256))) if asked == id => {
                let mut payment = (*payment).clone();
                let quote = (*payment.quote).clone();
                payment.quote = Arc::new(Quote { buyer, body_sha256, ..quote });
                Arc::new(payment)
            }
            _ => payment,
        }))
    }

    async fn payment_by_key(&self, buyer: ProfileId, key: &str) -> StoreResult<Option<Arc<Payment>>> {
        self.base.payment_by_key(buyer, key).await
    }

    async fn payment_by_proof(&self, proof_key: &str) -> StoreResult<Option<Arc<Payment>>> {
        self.base.payment_by_proof(proof_key).await
    }

    async fn payment_intend(&self, id: PaymentId, intent: Intent) -> StoreResult<Intended> {
        self.base.payment_intend(id, intent).await
    }

    async fn payment_intent(&self, id: PaymentId) -> StoreResult<Option<Intent>> {
        self.base.payment_intent(id).await
    }

    async fn payment_settle(
        &self,
        id: PaymentId,
        mut evidence: Evidence,
        claim: Option<ClaimRequest>,
    ) -> StoreResult<SettleOutcome> {
        self.truth.tick();
        if self.is(Mutant::SurplusSwallowed)
            && let Some(payment) = self.kept(id)
        {
            evidence.amount = evidence.amount.min(payment.quote.price);
        }
        let mut found = self.base.payment_settle(id, evidence.clone(), claim).await?;
        if self.is(Mutant::ProofTwice) && matches!(found, SettleOutcome::ProofUsed(_)) {
            evidence.proof_key.push_str(&id.to_string());
            found = self.base.payment_settle(id, evidence.clone(), claim).await?;
        }
        if self.is(Mutant::SettlesTwice) && matches!(found, SettleOutcome::Recorded { .. }) {
            evidence.proof_key.push_str(" again");
            self.base.payment_settle(id, evidence, None).await?;
        }
        self.look(id);
        Ok(found)
    }

    async fn payment_claim(&self, id: PaymentId, request: ClaimRequest) -> StoreResult<StepOutcome<Claimed>> {
        self.truth.tick();
        let kept = self.kept(id);
        let state = kept.as_ref().map(|payment| payment.progress.state);
        match (self.truth.mutant, kept, state) {
            (Some(Mutant::ReplayCalls), Some(payment), Some(PaymentState::Completed)) => {
                let attempt = u32::try_from(payment.progress.attempts.len()).unwrap_or(u32::MAX) + 1;
                return Ok(StepOutcome::Step(Claimed::Won(Claim { owner: request.owner, attempt }), payment));
            }
            (Some(Mutant::ClaimWithoutCompare), Some(payment), Some(PaymentState::Claimed(claim))) => {
                return Ok(StepOutcome::Step(Claimed::Won(claim), payment));
            }
            (Some(Mutant::ForgetsEpoch), Some(payment), Some(PaymentState::Claimed(claim))) => {
                return Ok(StepOutcome::Step(Claimed::Held(claim), payment));
            }
            (Some(Mutant::ClaimedInWords), Some(payment), Some(PaymentState::Settled)) => {
                let attempt = u32::try_from(payment.progress.attempts.len()).unwrap_or(u32::MAX) + 1;
                return Ok(StepOutcome::Step(Claimed::Won(Claim { owner: request.owner, attempt }), payment));
            }
            (Some(Mutant::ReleasesOthers), _, Some(PaymentState::Claimed(claim))) => self.take_away(id, claim).await?,
            (Some(Mutant::LapsesByClock), Some(payment), Some(PaymentState::Claimed(claim))) => {
                let since = payment.progress.attempts.last().map(|attempt| attempt.started_at);
                if since.is_some_and(|since| self.truth.now().since(since) > LEASE) {
                    self.take_away(id, claim).await?;
                }
            }
            _ => {}
        }
        let found = self.base.payment_claim(id, request).await?;
        if let (Some(Mutant::PostsBeforeOutcome), StepOutcome::Step(Claimed::Won(claim), _)) =
            (self.truth.mutant, &found)
        {
            let result = result_of(b"{}", UnixMillis(u64::MAX));
            let held = Some(Bytes::from_static(b"{}"));
            self.base.payment_complete(id, *claim, CallFacts::default(), result, held).await?;
        }
        self.look(id);
        Ok(found)
    }

    async fn payment_complete(
        &self,
        id: PaymentId,
        claim: Claim,
        facts: CallFacts,
        result: KeptResult,
        held: Option<Bytes>,
    ) -> StoreResult<StepOutcome<Ended>> {
        if self.is(Mutant::AcknowledgedEarly)
            && let Some(payment) = self.kept(id)
        {
            return Ok(StepOutcome::Step(Ended::Done, payment));
        }
        *self.completions.lock().entry(id).or_default() += 1;
        let found = self.base.payment_complete(id, claim, facts, result, held).await?;
        self.look(id);
        Ok(found)
    }

    async fn payment_release(
        &self,
        id: PaymentId,
        claim: Claim,
        status: AttemptStatus,
        facts: CallFacts,
    ) -> StoreResult<StepOutcome<Ended>> {
        if self.is(Mutant::LostRelease)
            && let Some(payment) = self.kept(id)
        {
            return Ok(StepOutcome::Step(Ended::Done, payment));
        }
        let found = self.base.payment_release(id, claim, status, facts).await?;
        self.look(id);
        Ok(found)
    }

    async fn payment_owe(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
        if self.is(Mutant::OwedInWords)
            && let Some(payment) = self.kept(id)
        {
            let mut payment = (*payment).clone();
            payment.progress.state = PaymentState::Owed;
            return Ok(StepOutcome::Step(true, Arc::new(payment)));
        }
        let found = self.base.payment_owe(id).await?;
        self.look(id);
        Ok(found)
    }

    async fn payment_fail(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
        let found = self.base.payment_fail(id).await?;
        self.look(id);
        Ok(found)
    }

    async fn claims_overdue(&self, limit: usize) -> StoreResult<Vec<(PaymentId, Claim)>> {
        if self.is(Mutant::ForgetsEpoch) || self.is(Mutant::LostRelease) {
            return Ok(Vec::new());
        }
        let mut overdue = self.base.claims_overdue(limit).await?;
        // Their ids are random where they are of one moment.
        overdue.sort_by_key(|(id, _)| self.truth.place(*id));
        Ok(overdue)
    }

    async fn result_append(&self, id: PaymentId, attempt: u32, n: u32, chunk: Bytes) -> StoreResult<()> {
        self.base.result_append(id, attempt, n, chunk).await
    }

    async fn result_seal(&self, id: PaymentId, attempt: u32) -> StoreResult<()> {
        self.base.result_seal(id, attempt).await
    }

    async fn result_resend(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
        let found = self.base.result_resend(id).await?;
        self.look(id);
        match found {
            StepOutcome::Step(_, payment) if self.is(Mutant::ResendsAgain) => Ok(StepOutcome::Step(true, payment)),
            found => Ok(found),
        }
    }

    async fn result_resend_return(&self, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
        let found = self.base.result_resend_return(id).await?;
        self.look(id);
        Ok(found)
    }

    fn results_room(&self) -> ResultsRoom {
        self.base.results_room()
    }

    async fn result_read(&self, payment: &Payment, n: u32) -> StoreResult<Option<Bytes>> {
        let found = self.base.result_read(payment, n).await?;
        if !self.is(Mutant::StrangeAnswer) || n > 0 {
            return Ok(found);
        }
        let mut first = self.first_answer.lock();
        if first.is_none() {
            first.clone_from(&found);
        }
        Ok(first.clone())
    }
}
