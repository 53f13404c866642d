//! What goes out: the bank's own books, which know each transfer and what it was for; and what must be true of refunds
//! and payouts whenever one of them changed.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use storage::model::*;

use super::{
    laws::{Law, Places},
    truth::Truth,
};

/// Transfers as the bank made them, and intents as they were seen last.
#[derive(Default)]
pub struct Bank(Mutex<Books>);

#[derive(Default)]
struct Books {
    transfers: BTreeMap<String, Transfer>,
    left: BTreeMap<PaymentId, Left>,
    payouts: BTreeMap<ProfileId, Vec<Payout>>,
}

/// One transfer; the bank makes one for a purpose, however often it is asked.
#[derive(Clone)]
pub struct Transfer {
    pub reference: String,
    amount: Micros,
    shows_at: UnixMillis,
}

/// What has left a payment's accounts, or will.
#[derive(Clone, Default)]
pub struct Left {
    pub refunds: Vec<Refund>,
    /// The payout that takes what its seller earned.
    pub paid_out_by: Option<u32>,
    /// Its seller had been paid when the rail took the money back.
    pub is_kept: bool,
}

impl Left {
    fn sum(&self, is_open: bool) -> i64 {
        self.refunds.iter().filter(|refund| refund.is_open() == is_open).map(|refund| refund.amount.0).sum()
    }

    /// What refunds under way send.
    pub fn under_way(&self) -> i64 {
        self.sum(true)
    }

    /// What went back to the buyer.
    pub fn refunded(&self) -> i64 {
        self.sum(false)
    }
}

/// What a transfer is for.
pub fn refund_of(name: &str, number: u32) -> String {
    format!("refund {number} of {name}")
}

/// What a transfer is for.
pub fn payout_of(name: &str, number: u32) -> String {
    format!("payout {number} of {name}")
}

impl Truth {
    /// The bank is asked for a transfer; `kept` is what the intent that is kept for it says.
    pub fn send(&self, purpose: &str, amount: Micros, kept: Option<Micros>) -> Transfer {
        let known = self.bank.0.lock().transfers.get(purpose).cloned();
        if known.as_ref().is_some_and(|known| known.amount != amount) {
            self.breaks(Law::SentOnce, format!("{purpose} was sent, and is to be sent as {}", amount.0));
        }
        if let Some(known) = known {
            self.met("the bank was asked twice for one transfer");
            return known;
        }
        match kept {
            None => self.breaks(Law::IntentFirst, format!("{purpose} is sent and no intent is kept")),
            Some(kept) if kept != amount => {
                self.breaks(Law::SentOnce, format!("{purpose} is sent as {} and kept as {}", amount.0, kept.0));
            }
            Some(_) => {}
        }
        let mut books = self.bank.0.lock();
        let reference = format!("transfer-{}", books.transfers.len() + 1);
        let shows_at = UnixMillis(self.now().0 + self.dice.below(2_000));
        let made = Transfer { reference, amount, shows_at };
        books.transfers.insert(purpose.to_string(), made.clone());
        drop(books);
        self.note(format!("{purpose} is sent: {} as {}", amount.0, made.reference));
        made
    }

    /// Whether the bank's own record shows a transfer.
    pub fn is_shown_by_bank(&self, purpose: &str) -> bool {
        self.bank.0.lock().transfers.get(purpose).is_some_and(|known| known.shows_at <= self.now())
    }

    /// Whether the bank was not asked for a transfer yet.
    pub fn is_unsent(&self, purpose: &str) -> bool {
        !self.bank.0.lock().transfers.contains_key(purpose)
    }

    pub fn left(&self, id: PaymentId) -> Left {
        self.bank.0.lock().left.get(&id).cloned().unwrap_or_default()
    }

    /// The rail took a payment's money back: who was paid by then keeps it.
    pub fn is_taken_back(&self, id: PaymentId) {
        let mut books = self.bank.0.lock();
        let left = books.left.entry(id).or_default();
        left.is_kept = left.paid_out_by.is_some();
        let (is_kept, sent, refunded) = (left.is_kept, left.under_way() > 0, left.refunded() > 0);
        drop(books);
        for (situation, is_met) in [
            ("the rail took it back after a payout", is_kept),
            ("the rail took it back while a refund was under way", sent),
            ("the rail took it back after a refund", refunded),
        ] {
            if is_met {
                self.met(situation);
            }
        }
    }

    /// A payment's refunds as they are kept now; `place` names the payment before the step.
    pub fn look_at_refunds(&self, id: PaymentId, refunds: Vec<Refund>) {
        let left = self.left(id);
        if left.refunds == refunds {
            return;
        }
        let name = self.name(id);
        for (n, refund) in refunds.iter().enumerate() {
            let purpose = refund_of(&name, refund.number);
            match left.refunds.get(n) {
                Some(known) => {
                    let is_same =
                        (known.number, known.amount, known.rail) == (refund.number, refund.amount, refund.rail);
                    self.stays(&purpose, is_same, known.reference(), refund.reference());
                }
                None => {
                    self.note(format!("{purpose} takes {}", refund.amount.0));
                    let owed = self.seen(id).map_or(0, |payment| Places::of(&payment, &left).owed);
                    if refund.amount.0 > owed - left.under_way() {
                        let free = owed - left.under_way();
                        self.breaks(Law::OwedOnly, format!("{purpose} takes {} of {free}", refund.amount.0));
                    }
                }
            }
        }
        if refunds.len() < left.refunds.len() {
            self.breaks(Law::AppendOnly, format!("{name} lost a refund"));
        }
        self.bank.0.lock().left.entry(id).or_default().refunds = refunds;
    }

    fn stays(&self, purpose: &str, is_same: bool, known: Option<&str>, now: Option<&str>) {
        if !is_same || known.is_some() && known != now {
            self.breaks(Law::SentOnce, format!("{purpose} became another one"));
        }
    }

    /// A seller's payouts as they are kept now.
    pub fn look_at_payouts(&self, seller: ProfileId, name: &str, payouts: Vec<Payout>) {
        let known = self.bank.0.lock().payouts.get(&seller).cloned().unwrap_or_default();
        if known == payouts {
            return;
        }
        for (n, payout) in payouts.iter().enumerate() {
            let purpose = payout_of(name, payout.number);
            match known.get(n) {
                Some(known) => {
                    let is_same = (known.number, &known.parts, &known.to) == (payout.number, &payout.parts, &payout.to);
                    self.stays(&purpose, is_same, known.reference(), payout.reference());
                }
                None => self.takes_earnings(seller, &purpose, payout),
            }
        }
        if payouts.len() < known.len() || payouts.iter().rev().skip(1).any(Payout::is_open) {
            self.breaks(Law::AppendOnly, format!("the payouts of {name} are not one after the other"));
        }
        self.bank.0.lock().payouts.insert(seller, payouts);
    }

    /// All that was earned and not paid out is in it, each earning once.
    fn takes_earnings(&self, seller: ProfileId, purpose: &str, payout: &Payout) {
        self.note(format!("{purpose} takes {}", payout.amount().0));
        let (ids, earned) = self.unpaid_earnings(seller);
        if payout.amount().0 != earned {
            self.breaks(Law::EarnedOnly, format!("{purpose} takes {} of {earned}", payout.amount().0));
        }
        let mut books = self.bank.0.lock();
        for id in ids {
            books.left.entry(id).or_default().paid_out_by = Some(payout.number);
        }
    }

    /// What a seller has earned, was not taken back, and no payout takes.
    pub fn unpaid_earnings(&self, seller: ProfileId) -> (Vec<PaymentId>, i64) {
        let (mut ids, mut earned) = (Vec::new(), 0);
        for payment in self.payments().into_iter().filter_map(|id| self.seen(id)) {
            let left = self.left(payment.quote.id);
            let places = Places::of(&payment, &left);
            if payment.quote.seller == seller && left.paid_out_by.is_none() && places.seller > 0 {
                ids.push(payment.quote.id);
                earned += places.seller;
            }
        }
        (ids, earned)
    }

    /// What payouts to a seller took, and how much of it is confirmed.
    pub fn paid_out(&self, seller: ProfileId) -> i64 {
        let books = self.bank.0.lock();
        let payouts = books.payouts.get(&seller).into_iter().flatten();
        payouts.filter(|payout| !payout.is_open()).map(|payout| payout.amount().0).sum()
    }
}
