//! A payment is one aggregate: the quote that never changes, and the progress that only these pure transitions
//! change. They take the time and the facts and return what happened; a backend makes the result durable in one
//! step, and nothing else may write a payment.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    ids::PostingId,
    ledger::{Account, Posting, PostingKind, Unbalanced},
    money::Micros,
    quote::{Quote, Rail},
    time::UnixMillis,
};

/// A payment: its quote, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Never changes.
    pub quote: Arc<Quote>,
    /// Changed by the transitions below only.
    pub progress: Progress,
}

/// All of a payment that changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What the call may do.
    pub state: PaymentState,
    /// Counts the steps; a step is written only onto the version that it was decided on.
    pub version: u64,
    /// What rails have shown us, all of it.
    pub evidence: Vec<Evidence>,
    /// The attempts to call the seller, in order.
    pub attempts: Vec<Attempt>,
    /// Where the money went, in order.
    pub postings: Vec<Posting>,
    /// The answer, once completed.
    pub result: Option<KeptResult>,
}

/// What the call may do. Where the money is stands in the postings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PaymentState {
    /// Promised; nothing seen yet. Past its expiry it is called expired.
    #[default]
    Quoted,
    /// The rail has seen the money and has not settled it.
    Pending,
    /// The rail's own record says paid; the seller may be called.
    Settled,
    /// One owner may call the seller once.
    Claimed(Claim),
    /// The seller handled the call. The end.
    Completed,
    /// The rail said no.
    Failed,
    /// The money is the buyer's again.
    Owed,
    /// The intent to refund is written.
    Refunding,
    /// The money went back.
    Refunded,
}

impl PaymentState {
    /// The name on the wire and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quoted => "quoted",
            Self::Pending => "pending",
            Self::Settled => "settled",
            Self::Claimed(_) => "claimed",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Owed => "owed",
            Self::Refunding => "refunding",
            Self::Refunded => "refunded",
        }
    }
}

/// A node, and which of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The node: drawn once and kept in its store.
    pub node: u64,
    /// Counts the node's starts.
    pub epoch: u64,
}

/// The right to call the seller once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who holds it.
    pub owner: Owner,
    /// Which attempt it is for, from 1.
    pub attempt: u32,
}

/// Money that a rail's own record shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Names the money, not the offer; unique over all payments.
    pub proof_key: String,
    /// Where it came in.
    pub rail: Rail,
    /// The rail's reference: a transaction or a request.
    pub reference: String,
    /// How much came in.
    pub amount: Micros,
    /// When it was recorded here.
    pub recorded_at: UnixMillis,
}

/// What a buyer signed, kept before anybody is asked to move the money: whatever dies then, it can be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Names the money that was signed away; unique over all payments, as in [`Evidence`].
    pub proof_key: String,
    /// The buyer's own name for it, unique like a proof; `None` when it gave none.
    pub identifier: Option<String>,
    /// On which rail.
    pub rail: Rail,
    /// What the rail wants to send again, opaque to all but the rail.
    pub signed: Vec<u8>,
    /// From then on nobody can move the money with it.
    pub expires_at: UnixMillis,
    /// When it was recorded here.
    pub recorded_at: UnixMillis,
}

/// One attempt to call the seller: a gateway request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// When the claim was taken.
    pub started_at: UnixMillis,
    /// Size of the request body.
    pub request_bytes: u64,
    /// How it ended; `None` while it runs.
    pub end: Option<AttemptEnd>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// When.
    pub at: UnixMillis,
    /// Completed, released or interrupted.
    pub status: AttemptStatus,
    /// What was seen.
    pub facts: CallFacts,
}

/// The status of a gateway request, as the wire names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    /// The seller is being called.
    InProgress,
    /// Handled.
    Completed,
    /// Not handled: the payment stays usable.
    Released,
    /// Its owner died: the payment stays usable.
    Interrupted,
}

/// What was seen of a call, for its row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallFacts {
    /// What the buyer was answered.
    pub http_status: u16,
    /// What the seller answered; `None` when it did not.
    pub seller_status_code: Option<u16>,
    /// The refusal's code; `None` when there was none.
    pub error_code: Option<String>,
    /// Size of the seller's answer.
    pub response_bytes: u64,
    /// From accept to outcome, milliseconds.
    pub total_ms: u32,
    /// From the first byte to the seller until its last, milliseconds.
    pub seller_ms: u32,
}

impl CallFacts {
    /// What is known of an attempt whose owner or request died.
    #[must_use]
    pub fn interrupted() -> Self {
        Self { error_code: Some("INTERRUPTED".into()), ..Self::default() }
    }
}

/// A completed call's answer, and where it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptResult {
    /// Where the bytes are.
    pub place: ResultPlace,
    /// How they stand in the envelope.
    pub encoding: ResultEncoding,
    /// The seller's status code.
    pub seller_status_code: u16,
    /// The seller's content type; empty when it gave none.
    pub content_type: String,
    /// How many bytes the seller sent.
    pub bytes: u64,
    /// SHA-256 of what the seller sent.
    pub sha256: [u8; 32],
    /// Until when the bytes are kept; only the digest stays after that.
    pub kept_until: UnixMillis,
}

/// Where a result's bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResultPlace {
    /// Nowhere: too large.
    NotKept,
    /// With the payment's last step.
    Inline,
    /// In chunks written on the way by this attempt.
    Chunks,
    /// Nowhere, and the one repetition of the call was taken: see [`Payment::take_resend`].
    Resent,
}

/// How a seller's bytes stand in the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResultEncoding {
    /// As they came: checked JSON.
    Json,
    /// As a JSON string.
    Text,
    /// As base64 in a JSON string.
    Base64,
    /// The seller sent no body: `null`.
    Nothing,
    /// As they came, in no envelope: events, and the receipt as the last of them.
    Events,
}

/// What `Payment::settle` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Paid in full: the seller may be called.
    InFull,
    /// Less than the price: recorded, and owed to the buyer in the same step.
    Underpaid {
        /// What is missing to the price.
        missing: Micros,
    },
    /// Money for a payment that was settled or closed before: recorded and owed.
    Again,
    /// The same money was recorded before; nothing changed.
    Known,
}

/// What `Payment::claim` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// This owner may call the seller once, as this attempt.
    Won(Claim),
    /// Somebody else is calling, or a life of this node that has ended.
    Held(Claim),
    /// Done before.
    Completed,
    /// The rail has not settled it.
    NotSettled,
    /// Owed, refunding or refunded.
    Closed,
}

/// Whether a guarded step of a claim's owner was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Written.
    Done,
    /// The claim is no longer this owner's for this attempt: nothing changed.
    NotOwner,
}

impl Payment {
    /// A payment that was just quoted.
    #[must_use]
    pub fn quoted(quote: Quote) -> Self {
        Self { quote: Arc::new(quote), progress: Progress::default() }
    }

    /// Unpaid, and no longer offered.
    #[must_use]
    pub fn is_expired(&self, now: UnixMillis) -> bool {
        matches!(self.progress.state, PaymentState::Quoted) && now >= self.quote.expires_at
    }

    /// Unpaid and still offered: asking again returns it.
    #[must_use]
    pub fn is_open(&self, now: UnixMillis) -> bool {
        matches!(self.progress.state, PaymentState::Quoted | PaymentState::Pending) && now < self.quote.expires_at
    }

    /// Records money. State and posting change together; verified money is always recorded, whatever the state.
    ///
    /// # Errors
    /// `Unbalanced` when the amount is not above zero, and the price is.
    pub fn settle(&mut self, evidence: Evidence, posting: PostingId, now: UnixMillis) -> Result<Settled, Unbalanced> {
        if self.progress.evidence.iter().any(|known| known.proof_key == evidence.proof_key) {
            return Ok(Settled::Known);
        }
        let (amount, price) = (evidence.amount, self.quote.price);
        let awaited =
            matches!(self.progress.state, PaymentState::Quoted | PaymentState::Pending | PaymentState::Failed);
        let (found, kept, state) = if !awaited {
            (Settled::Again, Micros::ZERO, self.progress.state)
        } else if amount < price {
            let missing = price.checked_sub(amount).ok_or(Unbalanced)?;
            (Settled::Underpaid { missing }, Micros::ZERO, PaymentState::Owed)
        } else {
            (Settled::InFull, price, PaymentState::Settled)
        };
        let surplus = amount.checked_sub(kept).ok_or(Unbalanced)?;
        // A price of nothing is paid by nothing, and then nothing moves; any other payment needs money.
        if (amount, price) != (Micros::ZERO, Micros::ZERO) {
            self.progress.postings.push(Posting::new(
                posting,
                PostingKind::Settled,
                now,
                &[(Account::Rail(evidence.rail), amount)],
                &[(Account::Suspense(self.quote.id), kept), (Account::Owed(self.quote.buyer), surplus)],
            )?);
        }
        self.progress.state = state;
        self.progress.evidence.push(evidence);
        self.progress.version += 1;
        Ok(found)
    }

    /// The buyer signed the money away and a provider is about to be asked to move it. Returns whether it was awaited.
    pub fn intend(&mut self) -> bool {
        let awaited = matches!(self.progress.state, PaymentState::Quoted | PaymentState::Pending);
        if awaited {
            self.progress.state = PaymentState::Pending;
            self.progress.version += 1;
        }
        awaited
    }

    /// Takes the right to call the seller once. Of any number of callers, one wins.
    pub fn claim(&mut self, owner: Owner, request_bytes: u64, now: UnixMillis) -> Claimed {
        match self.progress.state {
            PaymentState::Settled => {
                let number = u32::try_from(self.progress.attempts.len()).unwrap_or(u32::MAX).saturating_add(1);
                let claim = Claim { owner, attempt: number };
                self.progress.attempts.push(Attempt { number, started_at: now, request_bytes, end: None });
                self.progress.state = PaymentState::Claimed(claim);
                self.progress.version += 1;
                Claimed::Won(claim)
            }
            PaymentState::Claimed(claim) => Claimed::Held(claim),
            PaymentState::Completed => Claimed::Completed,
            PaymentState::Quoted | PaymentState::Pending | PaymentState::Failed => Claimed::NotSettled,
            PaymentState::Owed | PaymentState::Refunding | PaymentState::Refunded => Claimed::Closed,
        }
    }

    /// The seller handled the call: outcome, result and posting together, only for the claim's owner.
    ///
    /// # Errors
    /// `Unbalanced` never for a quote made by us; a damaged record is refused rather than posted.
    pub fn complete(
        &mut self,
        claim: Claim,
        facts: CallFacts,
        result: KeptResult,
        posting: PostingId,
        now: UnixMillis,
    ) -> Result<Ended, Unbalanced> {
        if self.progress.state != PaymentState::Claimed(claim) {
            return Ok(Ended::NotOwner);
        }
        let split = self.quote.split();
        if split.charged > Micros::ZERO {
            self.progress.postings.push(Posting::new(
                posting,
                PostingKind::Completed,
                now,
                &[(Account::Suspense(self.quote.id), split.charged)],
                &[(Account::Seller(self.quote.seller), split.seller), (Account::Marketplace, split.fee)],
            )?);
        }
        self.end_attempt(claim.attempt, AttemptStatus::Completed, facts, now);
        self.progress.state = PaymentState::Completed;
        self.progress.result = Some(result);
        self.progress.version += 1;
        Ok(Ended::Done)
    }

    /// The seller did not handle the call, or the owner died: the payment is usable again, until `attempts_max`
    /// attempts have failed; then the money is the buyer's again.
    ///
    /// # Errors
    /// `Unbalanced` never for a quote made by us; a damaged record is refused rather than posted.
    pub fn release(
        &mut self,
        claim: Claim,
        status: AttemptStatus,
        facts: CallFacts,
        attempts_max: u32,
        posting: PostingId,
        now: UnixMillis,
    ) -> Result<Ended, Unbalanced> {
        if self.progress.state != PaymentState::Claimed(claim) {
            return Ok(Ended::NotOwner);
        }
        self.end_attempt(claim.attempt, status, facts, now);
        self.progress.state = PaymentState::Settled;
        self.progress.version += 1;
        if claim.attempt >= attempts_max {
            self.owe(posting, now)?;
        }
        Ok(Ended::Done)
    }

    /// Gives settled money back to the buyer's account of debts. Returns whether it was settled and unclaimed.
    ///
    /// # Errors
    /// `Unbalanced` never for a quote made by us; a damaged record is refused rather than posted.
    pub fn owe(&mut self, posting: PostingId, now: UnixMillis) -> Result<bool, Unbalanced> {
        if self.progress.state != PaymentState::Settled {
            return Ok(false);
        }
        if self.quote.price > Micros::ZERO {
            self.progress.postings.push(Posting::new(
                posting,
                PostingKind::Owed,
                now,
                &[(Account::Suspense(self.quote.id), self.quote.price)],
                &[(Account::Owed(self.quote.buyer), self.quote.price)],
            )?);
        }
        self.progress.state = PaymentState::Owed;
        self.progress.version += 1;
        Ok(true)
    }

    /// The rail said that the money will not come. Only an unpaid payment fails. Returns whether it did.
    pub fn fail(&mut self) -> bool {
        let fails = matches!(self.progress.state, PaymentState::Quoted | PaymentState::Pending);
        if fails {
            self.progress.state = PaymentState::Failed;
            self.progress.version += 1;
        }
        fails
    }

    /// Takes the one repetition of a completed call whose answer was too large to be kept. Of any number of callers one
    /// gets it, before it calls the seller: should it die there the repetition is spent, for a seller must never be
    /// asked twice for nothing. No money moves and the outcome stays. Returns whether it was there to take.
    pub fn take_resend(&mut self, now: UnixMillis) -> bool {
        self.move_place(ResultPlace::NotKept, ResultPlace::Resent, |result| now < result.kept_until)
    }

    /// Gives the repetition back: not a byte of it had reached the seller. Returns whether it was taken.
    pub fn return_resend(&mut self) -> bool {
        self.move_place(ResultPlace::Resent, ResultPlace::NotKept, |_| true)
    }

    fn move_place(&mut self, from: ResultPlace, to: ResultPlace, may: impl Fn(&KeptResult) -> bool) -> bool {
        match &mut self.progress.result {
            Some(result) if result.place == from && may(result) => {
                result.place = to;
                self.progress.version += 1;
                true
            }
            _ => false,
        }
    }

    fn end_attempt(&mut self, number: u32, status: AttemptStatus, facts: CallFacts, now: UnixMillis) {
        if let Some(attempt) = self.progress.attempts.iter_mut().find(|attempt| attempt.number == number) {
            attempt.end = Some(AttemptEnd { at: now, status, facts });
        }
    }
}
