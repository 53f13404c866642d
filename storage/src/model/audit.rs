//! What proves the books: pure judgements of one payment, and sums over many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    backward::{Refund, RefundStage},
    ids::{PaymentId, PostingId},
    ledger::{Account, Direction, Posting, PostingKind},
    money::Micros,
    payment::{Intent, Payment, PaymentState},
    time::UnixMillis,
};

/// Something in the books that cannot be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discrepancy {
    /// Of which payment; `None`: of none that is known.
    pub payment: Option<PaymentId>,
    /// What is wrong, in a sentence.
    pub what: String,
}

/// Sums over payments, in micros. An account's kind stands for all accounts of that kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// How many payments.
    pub payments: u64,
    /// How many postings.
    pub postings: u64,
    /// What moved, by the kind of posting.
    pub moved: BTreeMap<String, i128>,
    /// What stands on the accounts, credits less debits, by their kind; rails by name.
    pub accounts: BTreeMap<String, i128>,
}

impl Totals {
    /// Adds a payment.
    pub fn count(&mut self, payment: &Payment) {
        self.payments += 1;
        payment.progress.postings.iter().for_each(|posting| self.count_posting(posting));
    }

    /// Adds a posting.
    pub fn count_posting(&mut self, posting: &Posting) {
        self.postings += 1;
        for entry in posting.entries() {
            let amount = i128::from(entry.amount.0);
            let signed = if entry.direction == Direction::Credit { amount } else { -amount };
            *self.accounts.entry(kind_of(entry.account)).or_default() += signed;
            if entry.direction == Direction::Debit {
                *self.moved.entry(name_of(posting.kind()).to_string()).or_default() += amount;
            }
        }
    }

    /// Adds other sums.
    pub fn add(&mut self, other: &Self) {
        self.payments += other.payments;
        self.postings += other.postings;
        for (into, from) in [(&mut self.moved, &other.moved), (&mut self.accounts, &other.accounts)] {
            for (name, amount) in from {
                *into.entry(name.clone()).or_default() += amount;
            }
        }
    }

    /// Whether settled = completed + in suspense + owed + refunded + taken back (and paid out), over all.
    #[must_use]
    pub fn add_up(&self) -> bool {
        let moved = |kind| self.moved.get(name_of(kind)).copied().unwrap_or_default();
        let here = ["seller", "marketplace", "suspense", "owed"];
        let here: i128 = here.iter().filter_map(|name| self.accounts.get(*name)).sum();
        let gone = moved(PostingKind::Refunded) + moved(PostingKind::TakenBack) + moved(PostingKind::PaidOut);
        moved(PostingKind::Settled) == here + gone
    }
}

fn kind_of(account: Account) -> String {
    match account {
        Account::Rail(_) | Account::Marketplace => account.to_string(),
        Account::Suspense(_) => "suspense".into(),
        Account::Owed(_) => "owed".into(),
        Account::Seller(_) => "seller".into(),
    }
}

fn name_of(kind: PostingKind) -> &'static str {
    match kind {
        PostingKind::Settled => "settled",
        PostingKind::Completed => "completed",
        PostingKind::Owed => "owed",
        PostingKind::Refunded => "refunded",
        PostingKind::PaidOut => "paid_out",
        PostingKind::TakenBack => "taken_back",
    }
}

/// What is wrong with a payment and its refunds, as sentences; none when its books are proven.
#[must_use]
pub fn judge(payment: &Payment, refunds: &[Refund]) -> Vec<String> {
    let mut judged = Judged { payment, refunds, faults: Vec::new() };
    judged.postings();
    judged.evidence();
    judged.state();
    judged.refunds();
    judged.faults
}

struct Judged<'a> {
    payment: &'a Payment,
    refunds: &'a [Refund],
    faults: Vec<String>,
}

impl Judged<'_> {
    fn demand(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.faults.push(fault());
        }
    }

    /// What postings of a kind moved: the sum of their debits.
    fn moved(&self, kind: PostingKind) -> i64 {
        let postings = self.payment.progress.postings.iter().filter(|posting| posting.kind() == kind);
        let entries = postings.flat_map(Posting::entries);
        let debits = entries.filter(|entry| entry.direction == Direction::Debit);
        debits.map(|entry| entry.amount.0).fold(0, i64::saturating_add)
    }

    fn postings(&mut self) {
        let payment = self.payment;
        let mut ids: Vec<PostingId> = Vec::new();
        for posting in &payment.progress.postings {
            let (id, entries) = (posting.id(), posting.entries());
            let side = |side| {
                let side = entries.iter().filter(|entry| entry.direction == side);
                side.map(|entry| i128::from(entry.amount.0)).sum::<i128>()
            };
            let (debits, credits) = (side(Direction::Debit), side(Direction::Credit));
            self.demand(debits == credits, || format!("posting {id} debits {debits} and credits {credits}"));
            let above = entries.iter().all(|entry| entry.amount > Micros::ZERO);
            self.demand(above && !entries.is_empty(), || format!("posting {id} has an entry that moves nothing"));
            self.demand(!ids.contains(&id), || format!("posting {id} stands twice"));
            ids.push(id);
            for entry in entries {
                let own = match entry.account {
                    Account::Suspense(of) => of == payment.quote.id,
                    Account::Owed(of) => of == payment.quote.buyer,
                    Account::Seller(of) => of == payment.quote.seller,
                    Account::Rail(_) | Account::Marketplace => true,
                };
                self.demand(own, || format!("posting {id} moves money of {}, which is not its own", entry.account));
            }
        }
        let count = |kind| payment.progress.postings.iter().filter(|posting| posting.kind() == kind).count();
        let completed = count(PostingKind::Completed);
        let expected = payment.progress.state == PaymentState::Completed && payment.quote.price > Micros::ZERO;
        self.demand(completed == usize::from(expected), || {
            format!("{completed} postings of a completed call in state {}", payment.progress.state.name())
        });
    }

    fn evidence(&mut self) {
        let shown = |above: bool| {
            let of_side = self.payment.progress.evidence.iter().filter(|shown| (shown.amount > Micros::ZERO) == above);
            of_side.map(|shown| shown.amount.0).fold(0, i64::saturating_add)
        };
        let (came, went) = (shown(true), shown(false).saturating_neg());
        let (settled, taken) = (self.moved(PostingKind::Settled), self.moved(PostingKind::TakenBack));
        self.demand(settled == came, || {
            format!("the evidence shows {came} micros and {settled} are posted as settled")
        });
        let waits = self.payment.reversal_waiting().is_some();
        self.demand(taken == went || waits, || {
            format!("rails took {went} micros back and {taken} are posted as taken back")
        });
        let claimed = matches!(self.payment.progress.state, PaymentState::Claimed(_));
        self.demand(!waits || claimed, || "a reversal waits for a call that does not run".into());
    }

    fn state(&mut self) {
        let (payment, state) = (self.payment, self.payment.progress.state);
        let suspense = payment.balance(Account::Suspense(payment.quote.id));
        let owed = payment.balance(Account::Owed(payment.quote.buyer));
        let seller = payment.balance(Account::Seller(payment.quote.seller));
        let waits = matches!(state, PaymentState::Settled | PaymentState::Claimed(_));
        let expected = if waits { payment.quote.price.0 } else { 0 };
        self.demand(suspense == expected, || {
            format!("{suspense} micros wait for the call in state {}, and {expected} should", state.name())
        });
        self.demand(owed >= 0, || format!("the buyer is owed {owed} micros"));
        self.demand(seller >= 0, || format!("the seller holds {seller} micros of it"));
        let refunded = state != PaymentState::Refunded || payment.moved_out();
        self.demand(refunded, || "it is called refunded and nothing was refunded".into());
        let gone =
            self.moved(PostingKind::Refunded) + self.moved(PostingKind::TakenBack) + self.moved(PostingKind::PaidOut);
        let here = suspense + owed + seller + payment.balance(Account::Marketplace);
        let settled = self.moved(PostingKind::Settled);
        self.demand(settled == here + gone, || {
            format!("{settled} micros were settled, {here} are on accounts and {gone} have gone out")
        });
    }

    fn refunds(&mut self) {
        let confirmed = self.refunds.iter().filter(|refund| matches!(refund.stage, RefundStage::Confirmed { .. }));
        let confirmed = confirmed.map(|refund| refund.amount.0).fold(0, i64::saturating_add);
        let posted = self.moved(PostingKind::Refunded);
        self.demand(confirmed == posted, || format!("{confirmed} micros of refunds are confirmed and {posted} posted"));
        let open = self.refunds.iter().filter(|refund| refund.is_open()).count();
        self.demand(open <= 1, || format!("{open} refunds are open at once"));
        let refunding = self.payment.progress.state == PaymentState::Refunding;
        self.demand(!refunding || open == 1, || "it is called refunding and no refund is open".into());
    }
}

impl Payment {
    fn moved_out(&self) -> bool {
        self.progress.postings.iter().any(|posting| posting.kind() == PostingKind::Refunded)
    }
}

/// Money that waits for somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Of which payment.
    pub payment: PaymentId,
    /// How much.
    pub amount: Micros,
    /// For what.
    pub reason: WaitReason,
    /// Since when.
    pub since: UnixMillis,
}

/// What money waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// For the rail to say whether what was signed has moved.
    Rail,
    /// For the buyer's call.
    Call,
    /// For the end of a call that runs, or whose owner died.
    Claim,
    /// For a refund to be begun.
    Refund,
    /// For the transfer of a refund.
    Transfer,
    /// For the rail to show the transfer of a refund.
    Confirmation,
    /// For a payout that was begun to be added up.
    Payout,
}

impl WaitReason {
    /// What to do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Rail => {
                "the rail is asked again by itself; when it stays silent, look the payer and the nonce up on the chain"
            }
            Self::Call => "the buyer may still call; when its window is over the money is owed",
            Self::Claim => "nothing while the call runs; a restart frees a claim whose owner died",
            Self::Refund => "begin a refund: crochet admin refund begin",
            Self::Transfer => "send the transfer, then tell its reference: crochet admin refund sent",
            Self::Confirmation => "check the rail's record, then: crochet admin refund confirm",
            Self::Payout => "go on with it: crochet admin payout begin --seller",
        }
    }
}

/// What was signed for a payment and may have moved, unknown to us: its rail did not say.
#[must_use]
pub fn waiting_for_rail(payment: &Payment, intent: &Intent) -> Option<Waiting> {
    (payment.progress.state == PaymentState::Pending).then(|| Waiting {
        payment: payment.quote.id,
        amount: payment.quote.price,
        reason: WaitReason::Rail,
        since: intent.recorded_at,
    })
}

/// The money of a payment that waits, and for what.
#[must_use]
pub fn waiting(payment: &Payment, refunds: &[Refund]) -> Vec<Waiting> {
    let last = payment.progress.postings.last().map_or(payment.quote.created_at, Posting::at);
    let row = |amount, reason, since| Waiting { payment: payment.quote.id, amount: Micros(amount), reason, since };
    let mut found = Vec::new();
    let suspense = payment.balance(Account::Suspense(payment.quote.id));
    if suspense > 0 {
        let claim = payment.progress.attempts.last().filter(|attempt| attempt.end.is_none());
        found.push(match claim {
            Some(attempt) => row(suspense, WaitReason::Claim, attempt.started_at),
            None => row(suspense, WaitReason::Call, last),
        });
    }
    let mut owed = payment.balance(Account::Owed(payment.quote.buyer));
    for refund in refunds.iter().filter(|refund| refund.is_open()) {
        let reason = if refund.reference().is_some() { WaitReason::Confirmation } else { WaitReason::Transfer };
        owed -= refund.amount.0;
        found.push(row(refund.amount.0, reason, refund.intended_at));
    }
    if owed > 0 {
        found.push(row(owed, WaitReason::Refund, last));
    }
    found
}
