//! Paying sellers out: an aggregate of its own. A payout takes all that a seller earned up to one event of the ledger
//! and was not paid out before; that event is fixed before anything is added up, so nothing is ever counted twice.

use serde::{Deserialize, Serialize};

use super::{
    ids::{PostingId, ProfileId},
    ledger::{Account, Direction, EntryType, LedgerRow, Posting, PostingKind, Unbalanced},
    money::Micros,
    payment::Payment,
    quote::Rail,
    time::UnixMillis,
};

/// A payout to a seller. One is open per seller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payout {
    /// Whose money.
    pub seller: ProfileId,
    /// Counts the seller's payouts, from 1.
    pub number: u32,
    /// Where it goes: an address, as the operator's file shows it.
    pub to: String,
    /// What was earned up to and with this event was paid out before; `None`: nothing was.
    pub behind: Option<PostingId>,
    /// What was earned up to and with this event is paid out by it.
    pub until: PostingId,
    /// How much, by the rails that hold it.
    pub parts: Vec<(Rail, Micros)>,
    /// When the intent was written.
    pub intended_at: UnixMillis,
    /// How far it is.
    pub stage: PayoutStage,
}

/// How far a payout is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayoutStage {
    /// It is fixed what it takes, and being added up; nothing may be sent yet.
    Counting,
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
        /// The rail's reference of the transfer.
        reference: String,
        /// What moved.
        posting: Posting,
    },
}

impl Payout {
    /// The whole amount.
    #[must_use]
    pub fn amount(&self) -> Micros {
        Micros(self.parts.iter().map(|(_, part)| part.0).fold(0, i64::saturating_add))
    }

    /// Not confirmed yet: no other payout of the seller is begun.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.stage, PayoutStage::Confirmed { .. })
    }

    /// Under which reference it went out.
    #[must_use]
    pub fn reference(&self) -> Option<&str> {
        match &self.stage {
            PayoutStage::Counting | PayoutStage::Intended => None,
            PayoutStage::Sent { reference, .. } | PayoutStage::Confirmed { reference, .. } => Some(reference),
        }
    }

    /// What moved, once it is confirmed.
    #[must_use]
    pub fn posting(&self) -> Option<&Posting> {
        match &self.stage {
            PayoutStage::Confirmed { posting, .. } => Some(posting),
            PayoutStage::Counting | PayoutStage::Intended | PayoutStage::Sent { .. } => None,
        }
    }

    /// Whether an event of the ledger is among those that it pays for.
    #[must_use]
    pub fn covers(&self, event: PostingId) -> bool {
        event <= self.until && self.behind.is_none_or(|behind| event > behind)
    }

    /// It was added up. `false`: it had been before; nothing changed.
    pub fn counted(&mut self, parts: Vec<(Rail, Micros)>) -> bool {
        let is_counting = self.stage == PayoutStage::Counting;
        if is_counting {
            self.parts = parts;
            self.stage = PayoutStage::Intended;
        }
        is_counting
    }

    /// The operator sent it. `false`: it is not ready to be sent, or went out under another reference; nothing changed.
    /// Told twice it changes nothing.
    pub fn send(&mut self, reference: &str, now: UnixMillis) -> bool {
        if self.stage == PayoutStage::Intended {
            self.stage = PayoutStage::Sent { at: now, reference: reference.to_string() };
        }
        self.reference() == Some(reference)
    }

    /// The rail's own record shows it: posting and end together. `false`: it was not sent, or was confirmed before.
    ///
    /// # Errors
    /// `Unbalanced` never for a payout made by us; a damaged record is refused rather than posted.
    pub fn confirm(&mut self, posting: PostingId, now: UnixMillis) -> Result<bool, Unbalanced> {
        let PayoutStage::Sent { reference, .. } = &self.stage else { return Ok(false) };
        let credits: Vec<_> = self.parts.iter().map(|(rail, part)| (Account::Rail(*rail), *part)).collect();
        let debits = [(Account::Seller(self.seller), self.amount())];
        let posting = Posting::new(posting, PostingKind::PaidOut, now, &debits, &credits)?;
        self.stage = PayoutStage::Confirmed { reference: reference.clone(), posting };
        Ok(true)
    }

    /// The row that its seller sees; `None` until it is confirmed.
    #[must_use]
    pub fn ledger_row(&self) -> Option<LedgerRow> {
        let PayoutStage::Confirmed { reference, posting } = &self.stage else { return None };
        Some(LedgerRow {
            id: posting.id(),
            gateway_request_id: None,
            payment: None,
            listing: None,
            account: Account::Seller(self.seller),
            entry_type: EntryType::Payout,
            direction: Direction::Debit,
            amount: self.amount(),
            reference: Some(reference.clone()),
            created_at: posting.at(),
        })
    }

    /// What is wrong with it, as sentences; `earned` is what the ledger says that it had to pay.
    #[must_use]
    pub fn judge(&self, earned: Micros) -> Vec<String> {
        let mut faults = Vec::new();
        let name = format!("payout {} of {}", self.number, self.seller);
        if self.stage == PayoutStage::Counting {
            return faults;
        }
        let amount = self.amount();
        if amount != earned {
            faults.push(format!("{name} takes {amount} micros, and {earned} were earned for it"));
        }
        if self.parts.iter().any(|(_, part)| *part <= Micros::ZERO) || self.parts.is_empty() {
            faults.push(format!("{name} has a part that is nothing"));
        }
        if self.behind.is_some_and(|behind| behind >= self.until) {
            faults.push(format!("{name} ends before it begins"));
        }
        if let Some(posting) = self.posting() {
            let side = |side| {
                let entries = posting.entries().iter().filter(|entry| entry.direction == side);
                Micros(entries.map(|entry| entry.amount.0).fold(0, i64::saturating_add))
            };
            let (debits, credits) = (side(Direction::Debit), side(Direction::Credit));
            if (debits, credits) != (amount, amount) || posting.kind() != PostingKind::PaidOut {
                faults.push(format!("{name} is {amount} micros, and {debits} to {credits} are posted"));
            }
        }
        faults
    }
}

impl Payment {
    /// What this payment's seller had earned of it up to an event, after all that was taken back by then, and which
    /// rails hold that.
    #[must_use]
    pub fn earned_until(&self, until: PostingId) -> Vec<(Rail, Micros)> {
        let signed = |wanted: &dyn Fn(Account) -> bool| {
            let postings = self.progress.postings.iter().filter(|posting| posting.id() <= until);
            let entries = postings.flat_map(Posting::entries).filter(|entry| wanted(entry.account));
            let signed = entries.map(|entry| match entry.direction {
                Direction::Credit => entry.amount.0,
                Direction::Debit => entry.amount.0.saturating_neg(),
            });
            signed.fold(0, i64::saturating_add)
        };
        let mut left = signed(&|account| account == Account::Seller(self.quote.seller)).max(0);
        let mut rails: Vec<Rail> = Vec::new();
        for shown in &self.progress.evidence {
            if !rails.contains(&shown.rail) {
                rails.push(shown.rail);
            }
        }
        let mut parts = Vec::new();
        for rail in rails {
            // A rail's account is debited by what came in, so what it holds stands on the other side.
            let part = signed(&|account| account == Account::Rail(rail)).saturating_neg().clamp(0, left);
            if part > 0 {
                parts.push((rail, Micros(part)));
                left -= part;
            }
        }
        match parts.first_mut() {
            Some((_, part)) => part.0 += left,
            None => parts.extend((left > 0).then_some((self.quote.rail, Micros(left)))),
        }
        parts
    }

    /// The event of the ledger by which its call was completed.
    #[must_use]
    pub fn completed_by(&self) -> Option<PostingId> {
        let mut postings = self.progress.postings.iter();
        postings.find(|posting| posting.kind() == PostingKind::Completed).map(Posting::id)
    }
}
