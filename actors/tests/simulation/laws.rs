//! What must be true of a payment after every step, each law by its name: a broken one says which promise it was.

use std::{collections::BTreeMap, sync::Arc};

use storage::model::*;

use super::{
    bank::Left,
    truth::{Truth, US, shown},
};

macro_rules! laws {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A promise about money. A planted bug must break its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Law { $($(#[$doc])* $name),* }

        impl Law {
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

laws! {
    /// Debits are credits, in each posting.
    Balanced,
    /// What the buyer pays is what the seller and the marketplace get, by the rate of the quote.
    Shared,
    /// No credit without money that the rail itself shows: ours, and so much.
    Verified,
    /// One proof, one payment.
    OneProof,
    /// All money that was verified stands in an account, and in the one that the state says.
    Accounted,
    /// What a rail took back is counted once, when no call runs, and it is what the rail took.
    TakenOnce,
    /// What was taken back is missed by who held it; what had left by then is the marketplace's loss.
    LossPlaced,
    /// Money leaves for an intent that is durable.
    IntentFirst,
    /// An intent is one transfer, and stays the one that it is.
    SentOnce,
    /// A buyer is sent no more than it is owed.
    OwedOnly,
    /// A seller is sent what it earned, each earning once, and nothing that was taken back before.
    EarnedOnly,
    /// It costs what was promised.
    PriceKept,
    /// At most one completed call a payment.
    OneCompletion,
    /// The seller handled what was completed.
    Handled,
    /// The seller is called under a claim, by its owner.
    ClaimBeforeCall,
    /// The seller is called once an attempt.
    CalledOnce,
    /// A payment's seller is not called by two at once.
    Alone,
    /// A completed call never calls again.
    ReplayNeverCalls,
    /// Postings, evidence and ended attempts only grow, and a quote never changes.
    AppendOnly,
    /// Nothing that was acknowledged is lost.
    Durable,
    /// The answer is the one that the seller gave to this payment.
    OwnAnswer,
    /// A payment buys for its buyer, its listing and its body alone.
    Binding,
    /// A payment fails only when the rail says no.
    FailedByRail,
    /// Nobody is asked to pay again for a call whose money has come.
    AskedOnce,
    /// What a refusal says of the money is so.
    Truthful,
    /// Whatever can finish finishes; what waits has a reason.
    Finishes,
    /// What parties are shown is what was written.
    Shown,
    /// Nobody who takes part dies of a fault.
    NoPanic,
}

impl Truth {
    /// Holds a payment, as it is kept now, against all that is true.
    pub fn look(&self, payment: &Arc<Payment>) {
        let name = self.name(payment.quote.id);
        let Some(before) = self.remember(payment) else { return };
        let progress = &payment.progress;
        self.note(format!(
            "{name} is {} v{} attempts {} postings {}",
            shown(Some(progress.state)),
            progress.version,
            progress.attempts.len(),
            progress.postings.len()
        ));
        let taken = |payment: &Payment| taken_back(payment).0;
        if taken(payment) > before.as_ref().map_or(0, |before| taken(before)) {
            self.is_taken_back(payment.quote.id);
            if progress.state == PaymentState::Completed {
                self.met("the rail took it back after the call");
            }
        }
        if matches!(progress.state, PaymentState::Claimed(_))
            && progress.evidence.iter().any(|shown| shown.amount.0 < 0)
        {
            self.met("the rail took it back while the call ran");
        }
        self.meet(payment);
        if let Some(before) = before {
            self.only_grows(&name, &before, payment);
        }
        if self.promised(payment.quote.id).is_some_and(|promised| promised != payment.quote.price) {
            self.breaks(Law::PriceKept, format!("{name} costs another price than was promised"));
        }
        self.completes_once(&name, payment);
        self.is_backed(&name, payment);
        self.balances(&name, payment);
    }

    fn only_grows(&self, name: &str, before: &Payment, after: &Payment) {
        let (old, new) = (&before.progress, &after.progress);
        let ended = |progress: &Progress| -> Vec<Attempt> {
            progress.attempts.iter().filter(|attempt| attempt.end.is_some()).cloned().collect()
        };
        let grows = new.postings.starts_with(&old.postings)
            && new.evidence.starts_with(&old.evidence)
            && ended(new).starts_with(&ended(old))
            && new.version >= old.version
            && before.quote == after.quote;
        if !grows {
            self.breaks(Law::AppendOnly, format!("{name} lost or changed what was written"));
        }
        if old.state == PaymentState::Completed && new.state != PaymentState::Completed {
            self.breaks(Law::AppendOnly, format!("{name} is no longer completed"));
        }
    }

    fn completes_once(&self, name: &str, payment: &Payment) {
        let progress = &payment.progress;
        let postings = progress.postings.iter().filter(|posting| posting.kind() == PostingKind::Completed).count();
        let attempts = ended_as(payment, AttemptStatus::Completed);
        let is_completed = progress.state == PaymentState::Completed;
        // What costs nothing moves nothing.
        let due = usize::from(is_completed && payment.quote.price > Micros::ZERO);
        if postings != due || attempts != usize::from(is_completed) {
            let state = progress.state.name();
            self.breaks(Law::OneCompletion, format!("{name} completed {attempts} times, paid {postings}, as {state}"));
        }
        if is_completed && self.handled(payment).is_none() {
            self.breaks(Law::Handled, format!("{name} is completed and its seller handled nothing"));
        }
        let open = progress.attempts.iter().filter(|attempt| attempt.end.is_none()).count();
        if open != usize::from(matches!(progress.state, PaymentState::Claimed(_))) {
            let state = progress.state.name();
            self.breaks(Law::ClaimBeforeCall, format!("{name} has {open} open attempts as {state}"));
        }
    }

    fn is_backed(&self, name: &str, payment: &Payment) {
        if payment.quote.rail == Rail::Free {
            return;
        }
        let paid = self.paid(payment.quote.id).filter(|paid| paid.recipient == US && is_success(paid));
        let evidence = &payment.progress.evidence;
        let is_true = evidence.iter().all(|evidence| {
            paid.as_ref().is_some_and(|paid| paid.reference == evidence.reference && evidence.rail == Rail::Sandbox)
        });
        let claimed: i64 = evidence.iter().map(|evidence| evidence.amount.0.max(0)).sum();
        let there = paid.as_ref().map_or(0, |paid| paid.amount.0);
        if !is_true || claimed > there {
            self.breaks(Law::Verified, format!("{name} has {claimed}, and the rail has {there} for it"));
        } else if !evidence.is_empty() && claimed < there {
            self.breaks(Law::Accounted, format!("{name} has {claimed} of the {there} that came"));
        }
        if evidence.iter().any(|evidence| self.is_money_of_another(payment.quote.id, &evidence.reference)) {
            self.breaks(Law::OneProof, format!("{name} was paid by money of another payment"));
        }
        if payment.progress.state == PaymentState::Failed && paid.is_some() && !self.said_no(payment.quote.id) {
            self.breaks(Law::FailedByRail, format!("{name} failed and the rail did not say no"));
        }
    }

    fn balances(&self, name: &str, payment: &Payment) {
        let mut sums: BTreeMap<Account, i64> = BTreeMap::new();
        for posting in &payment.progress.postings {
            let mut sum = 0;
            for entry in posting.entries() {
                let signed = if entry.direction == Direction::Credit { entry.amount.0 } else { -entry.amount.0 };
                sum += signed;
                *sums.entry(entry.account).or_default() += signed;
            }
            if sum != 0 {
                self.breaks(Law::Balanced, format!("{name} has a posting off by {sum}"));
            }
        }
        self.is_taken_once(name, payment);
        let sum = |account| sums.get(&account).copied().unwrap_or_default();
        let (quote, places) = (&payment.quote, Places::of(payment, &self.left(payment.quote.id)));
        let split = quote.split();
        let is_placed = sum(Account::Seller(quote.seller)) == places.seller && sum(Account::Marketplace) == places.kept;
        if split.seller.0 + split.fee.0 != quote.price.0 || !is_placed {
            let law = if places.gone > 0 { Law::LossPlaced } else { Law::Shared };
            self.breaks(law, format!("{name} is not shared as it must be: {sums:?}, {places:?}"));
        }
        let is_accounted = sum(Account::Rail(quote.rail)) == places.gone + places.refunded - places.came
            && sum(Account::Suspense(quote.id)) == places.held
            && sum(Account::Owed(quote.buyer)) == places.owed;
        if !is_accounted {
            self.breaks(
                Law::Accounted,
                format!("{name} postings do not tell where its money is: {sums:?}, {places:?}"),
            );
        }
    }

    /// What was taken back is what the rail took, and stands in the postings once nobody calls.
    fn is_taken_once(&self, name: &str, payment: &Payment) {
        let (progress, id) = (&payment.progress, payment.quote.id);
        let told: i64 = progress.evidence.iter().map(|evidence| evidence.amount.0.min(0)).sum();
        let (postings, posted) = taken_back(payment);
        let due = if matches!(progress.state, PaymentState::Claimed(_)) { 0 } else { -told };
        if posted != due || postings > 1 {
            self.breaks(Law::TakenOnce, format!("{name} has {due} to take back, and {posted} in {postings} postings"));
        }
        let took = self.paid(id).filter(|_| self.goes_back(id).is_some() && self.said_no(id));
        if told < 0 && took.is_none_or(|took| took.amount.0 != -told) {
            self.breaks(
                Law::TakenOnce,
                format!("{name} is told to have lost {}, and the rail did not take that", -told),
            );
        }
        if due > 0 && progress.state == PaymentState::Settled {
            self.breaks(Law::Accounted, format!("{name} may be called for, and its money is gone"));
        }
    }
}

/// How many postings took money back, and how much.
pub fn taken_back(payment: &Payment) -> (usize, i64) {
    let postings = payment.progress.postings.iter().filter(|posting| posting.kind() == PostingKind::TakenBack);
    let entries = postings.clone().flat_map(Posting::entries);
    let credits = entries.filter(|entry| entry.direction == Direction::Credit).map(|entry| entry.amount.0);
    (postings.count(), credits.sum())
}

/// Where a payment's money must be, by its evidence, its state, and what has left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places {
    pub came: i64,
    /// Taken back; of a call that runs when it ends.
    pub gone: i64,
    pub refunded: i64,
    pub held: i64,
    pub done: i64,
    pub owed: i64,
    pub seller: i64,
    /// The marketplace's: its fee, or its loss.
    pub kept: i64,
}

impl Places {
    /// A rail takes all that it brought, so nobody keeps anything then but what had left; and that is a loss.
    pub fn of(payment: &Payment, left: &Left) -> Self {
        let (price, split, state) = (payment.quote.price.0, payment.quote.split(), payment.progress.state);
        let shown = || payment.progress.evidence.iter().map(|evidence| evidence.amount.0);
        let came = shown().map(|amount| amount.max(0)).sum();
        let is_claimed = matches!(state, PaymentState::Claimed(_));
        let gone = if is_claimed { 0 } else { -shown().map(|amount| amount.min(0)).sum::<i64>() };
        let (refunded, under_way) = (left.refunded(), left.under_way());
        let done = if state == PaymentState::Completed { price } else { 0 };
        if gone > 0 {
            let seller = if left.is_kept { split.seller.0 } else { 0 };
            let kept = came - gone - refunded - under_way - seller;
            return Self { came, gone, refunded, held: 0, done, owed: under_way, seller, kept };
        }
        let held = if is_claimed || state == PaymentState::Settled { price } else { 0 };
        let (seller, kept) = if done > 0 { (split.seller.0, split.fee.0) } else { (0, 0) };
        Self { came, gone, refunded, held, done, owed: came - held - done - refunded, seller, kept }
    }
}

pub fn is_success(paid: &SandboxPayment) -> bool {
    paid.outcome == SandboxOutcome::Success
}

pub fn ended_as(payment: &Payment, status: AttemptStatus) -> usize {
    let is = |attempt: &&Attempt| attempt.end.as_ref().is_some_and(|end| end.status == status);
    payment.progress.attempts.iter().filter(is).count()
}
