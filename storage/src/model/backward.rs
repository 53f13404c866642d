//! Money that goes back: taken by a rail, or sent to its payer by the operator. As pure as the transitions forward, and
//! written the same way: what moved stands in the payment's postings, together with the state it belongs to.
//!
//! A reversal is kept as evidence below zero, so that the evidence of a rail always sums to what it holds of a payment,
//! refunds aside, and so that one which has to wait for the end of a claim waits in the record itself.

use serde::{Deserialize, Serialize};

use super::{
    ids::{PaymentId, PostingId, ProfileId},
    ledger::{Account, Direction, Posting, PostingKind, Unbalanced},
    money::Micros,
    payment::{Evidence, Payment, PaymentState},
    quote::Rail,
    time::UnixMillis,
};

/// A refund's reference is so many characters at most.
pub const REFERENCE_MAX: usize = 200;

/// What `Payment::take_back` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenBack {
    /// Recorded, and posted against those who held the money.
    Posted,
    /// Recorded; it is posted when the running call ends.
    Waits,
    /// The same reversal was recorded before; nothing changed.
    Known,
    /// More than this rail ever brought for this payment and still holds: nothing changed.
    TooMuch,
}

/// What has left, or will leave, in aggregates of their own: nobody can give it back any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// What an open refund of the payment sends.
    pub refund: Micros,
    /// What the seller had earned up to and with this event is paid out, or is being.
    pub paid_out: Option<PostingId>,
}

/// A refund, an aggregate of its own: the intent is durable before any money moves, and one is open per payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    /// Which payment's money.
    pub payment: PaymentId,
    /// Counts the payment's refunds, from 1.
    pub number: u32,
    /// Whose money it is.
    pub buyer: ProfileId,
    /// Where it came in, and goes back.
    pub rail: Rail,
    /// How much, above zero.
    pub amount: Micros,
    /// When the intent was written.
    pub intended_at: UnixMillis,
    /// How far it is.
    pub stage: RefundStage,
}

/// How far a refund is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefundStage {
    /// It stands in the file of transfers.
    Intended,
    /// The operator sent it.
    Sent {
        /// When that was told.
        at: UnixMillis,
        /// The rail's reference of the transfer.
        reference: String,
    },
    /// The rail's own record shows it, and the ledger does.
    Confirmed {
        /// When that was told.
        at: UnixMillis,
        /// The rail's reference of the transfer.
        reference: String,
    },
}

impl Refund {
    /// Not confirmed yet: its amount is bound, and no other refund of the payment is begun.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.stage, RefundStage::Confirmed { .. })
    }

    /// Under which reference it went out.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        match &self.stage {
            RefundStage::Intended => None,
            RefundStage::Sent { reference, .. } | RefundStage::Confirmed { reference, .. } => Some(reference),
        }
    }

    /// The operator sent it. `false`: it went out under another reference; nothing changed. Told twice it changes nothing.
    pub fn send(&mut self, reference: &str, now: UnixMillis) -> bool {
        if self.stage == RefundStage::Intended {
            self.stage = RefundStage::Sent { at: now, reference: reference.to_string() };
        }
        self.reference() == Some(reference)
    }
}

impl Payment {
    /// What stands on an account after this payment's postings: credits less debits.
    #[must_use]
    pub fn balance(&self, account: Account) -> i64 {
        let entries = self.progress.postings.iter().flat_map(Posting::entries);
        let signed = entries.filter(|entry| entry.account == account).map(|entry| match entry.direction {
            Direction::Credit => entry.amount.0,
            Direction::Debit => entry.amount.0.saturating_neg(),
        });
        signed.fold(0, i64::saturating_add)
    }

    /// Records that a rail took money back; `reversal` says how much, above zero, under a proof key of its own. Posted
    /// at once, or when the call that runs has ended.
    ///
    /// # Errors
    /// `Unbalanced` when the amount is not above zero; nothing is changed then.
    pub fn take_back(
        &mut self,
        reversal: Evidence,
        outgoing: Outgoing,
        mint: &mut dyn FnMut() -> PostingId,
        now: UnixMillis,
    ) -> Result<TakenBack, Unbalanced> {
        let (rail, amount) = (reversal.rail, reversal.amount);
        if amount <= Micros::ZERO {
            return Err(Unbalanced);
        }
        if self.progress.evidence.iter().any(|known| known.proof_key == reversal.proof_key) {
            return Ok(TakenBack::Known);
        }
        let shown = self.progress.evidence.iter().filter(|known| known.rail == rail).map(|known| known.amount.0);
        if amount.0 > shown.fold(0, i64::saturating_add) {
            return Ok(TakenBack::TooMuch);
        }
        self.progress.evidence.push(Evidence { amount: Micros(-amount.0), ..reversal });
        self.progress.version += 1;
        if matches!(self.progress.state, PaymentState::Claimed(_)) {
            return Ok(TakenBack::Waits);
        }
        self.post_reversals(outgoing, mint, now)?;
        Ok(TakenBack::Posted)
    }

    /// The rail and the amount of a reversal that waits for the end of a claim; `None`: none does. Looked at when each
    /// claim ends, so it looks at the postings only when there is a reversal at all.
    #[must_use]
    pub fn reversal_waiting(&self) -> Option<(Rail, Micros)> {
        self.progress.evidence.iter().filter(|shown| shown.amount < Micros::ZERO).find_map(|reversal| {
            let rail = reversal.rail;
            let taken = self.progress.evidence.iter().filter(|shown| shown.rail == rail && shown.amount < Micros::ZERO);
            let taken = taken.map(|shown| shown.amount.0).fold(0, i64::saturating_sub);
            let posted = self.progress.postings.iter().filter(|posting| posting.kind() == PostingKind::TakenBack);
            let posted = posted.flat_map(Posting::entries).filter(|entry| entry.account == Account::Rail(rail));
            let open = posted.map(|entry| entry.amount.0).fold(taken, i64::saturating_sub);
            (open > 0).then_some((rail, Micros(open)))
        })
    }

    /// Posts the reversals that wait, as one posting a rail; nothing while the call runs. Returns whether it did.
    ///
    /// Who holds the money gives it: first what the buyer is owed and no refund is sending, then what waits for the
    /// call, then seller and marketplace in the proportion in which they hold it, and what has gone out already is the
    /// marketplace's loss. A price that is no longer whole buys nothing: its rest is the buyer's again.
    ///
    /// # Errors
    /// `Unbalanced` never for a payment made by us; a damaged record is refused rather than posted.
    pub fn post_reversals(
        &mut self,
        outgoing: Outgoing,
        mint: &mut dyn FnMut() -> PostingId,
        now: UnixMillis,
    ) -> Result<bool, Unbalanced> {
        if matches!(self.progress.state, PaymentState::Claimed(_)) {
            return Ok(false);
        }
        let mut posted = false;
        while let Some((rail, amount)) = self.reversal_waiting() {
            let debits = self.holders(amount, outgoing);
            let taken = Posting::new(mint(), PostingKind::TakenBack, now, &debits, &[(Account::Rail(rail), amount)])?;
            self.progress.postings.push(taken);
            posted = true;
        }
        if posted {
            self.progress.version += 1;
            self.leave_unfunded(mint, now)?;
        }
        Ok(posted)
    }

    fn holders(&self, amount: Micros, outgoing: Outgoing) -> [(Account, Micros); 4] {
        let quote = &self.quote;
        let owed = self.balance(Account::Owed(quote.buyer)).saturating_sub(outgoing.refund.0).clamp(0, amount.0);
        let left = amount.0 - owed;
        let suspense = self.balance(Account::Suspense(quote.id)).clamp(0, left);
        let left = left - suspense;
        let is_paid_out = self.completed_by().is_some_and(|event| Some(event) <= outgoing.paid_out);
        let seller = if is_paid_out { 0 } else { self.balance(Account::Seller(quote.seller)).max(0) };
        let fee = self.balance(Account::Marketplace).max(0);
        let both = i128::from(seller) + i128::from(fee);
        // The seller gives what the marketplace's part, rounded down, leaves: never more than it holds.
        let from_both = i128::from(left).min(both);
        let from_fee = if both == 0 { 0 } else { from_both * i128::from(fee) / both };
        let seller = i64::try_from(from_both - from_fee).unwrap_or(0);
        let [owed, suspense, seller, rest] = [owed, suspense, seller, left - seller].map(Micros);
        [
            (Account::Owed(quote.buyer), owed),
            (Account::Suspense(quote.id), suspense),
            (Account::Seller(quote.seller), seller),
            (Account::Marketplace, rest),
        ]
    }

    /// Settled money that no longer makes up the price is the buyer's again.
    fn leave_unfunded(&mut self, mint: &mut dyn FnMut() -> PostingId, now: UnixMillis) -> Result<(), Unbalanced> {
        let rest = self.balance(Account::Suspense(self.quote.id));
        if self.progress.state != PaymentState::Settled || rest >= self.quote.price.0 {
            return Ok(());
        }
        if rest > 0 {
            self.progress.postings.push(Posting::new(
                mint(),
                PostingKind::Owed,
                now,
                &[(Account::Suspense(self.quote.id), Micros(rest))],
                &[(Account::Owed(self.quote.buyer), Micros(rest))],
            )?);
        }
        self.progress.state = PaymentState::Owed;
        Ok(())
    }

    /// Begins a refund of what is owed, to the rail that brought it last and still holds some. `None`: nothing is owed,
    /// no rail holds it, or a reversal waits that may take it. The caller sees to it that no other refund of this payment is open.
    pub fn refund_begin(&mut self, number: u32, now: UnixMillis) -> Option<Refund> {
        if self.reversal_waiting().is_some() {
            return None;
        }
        let owed = self.balance(Account::Owed(self.quote.buyer));
        let mut rails = self.progress.evidence.iter().rev().map(|shown| shown.rail);
        // A rail's account is debited by what came in, so what it holds stands on the other side.
        let held = |rail| self.balance(Account::Rail(rail)).saturating_neg();
        let rail = rails.find(|rail| held(*rail) > 0)?;
        let amount = Micros(owed.min(held(rail)));
        if amount <= Micros::ZERO {
            return None;
        }
        if matches!(self.progress.state, PaymentState::Owed | PaymentState::Refunded) {
            self.progress.state = PaymentState::Refunding;
            self.progress.version += 1;
        }
        Some(Refund {
            payment: self.quote.id,
            number,
            buyer: self.quote.buyer,
            rail,
            amount,
            intended_at: now,
            stage: RefundStage::Intended,
        })
    }

    /// The rail's own record shows that the refund went out: posting, state and the refund's end together. `false`: it
    /// was not sent, is another payment's, or was confirmed before; nothing changed.
    ///
    /// # Errors
    /// `Unbalanced` never for a refund made by us; a damaged record is refused rather than posted.
    pub fn refund_confirm(
        &mut self,
        refund: &mut Refund,
        posting: PostingId,
        now: UnixMillis,
    ) -> Result<bool, Unbalanced> {
        let RefundStage::Sent { reference, .. } = &refund.stage else { return Ok(false) };
        if refund.payment != self.quote.id {
            return Ok(false);
        }
        self.progress.postings.push(Posting::new(
            posting,
            PostingKind::Refunded,
            now,
            &[(Account::Owed(refund.buyer), refund.amount)],
            &[(Account::Rail(refund.rail), refund.amount)],
        )?);
        refund.stage = RefundStage::Confirmed { at: now, reference: reference.clone() };
        if self.progress.state == PaymentState::Refunding {
            let rest = self.balance(Account::Owed(self.quote.buyer));
            self.progress.state = if rest > 0 { PaymentState::Owed } else { PaymentState::Refunded };
        }
        self.progress.version += 1;
        Ok(true)
    }
}
