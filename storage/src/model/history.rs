//! Rows of history: what a party sees of its calls.

use serde::{Deserialize, Serialize};

use super::{
    ids::{GatewayRequestId, ListingId, PaymentId, ProfileId},
    ledger::{Account, Direction, LedgerRow, Posting, PostingKind},
    money::{Micros, Split},
    payment::{Attempt, AttemptStatus, CallFacts, Payment},
    time::UnixMillis,
};

/// A call to a free listing: no payment, one attempt, written behind the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreeCall {
    /// Its id.
    pub id: GatewayRequestId,
    /// Who called.
    pub buyer: ProfileId,
    /// Who was called.
    pub seller: ProfileId,
    /// What was called.
    pub listing: ListingId,
    /// Whether the seller handled it.
    pub status: AttemptStatus,
    /// Size of the request body.
    pub request_bytes: u64,
    /// What was seen.
    pub facts: CallFacts,
    /// When it began.
    pub started_at: UnixMillis,
    /// When it ended.
    pub ended_at: UnixMillis,
}

/// One attempt of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRequest {
    /// The call's id, the same for all its attempts.
    pub id: GatewayRequestId,
    /// Who called.
    pub buyer: ProfileId,
    /// Who was called.
    pub seller: ProfileId,
    /// What was called.
    pub listing: ListingId,
    /// The payment; `None` for a free call.
    pub payment: Option<PaymentId>,
    /// What was charged, when this attempt was billable.
    pub charged: Option<Split>,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Where it stands.
    pub status: AttemptStatus,
    /// Size of the request body.
    pub request_bytes: u64,
    /// What was seen; empty while it runs.
    pub facts: CallFacts,
    /// When it began.
    pub started_at: UnixMillis,
    /// When it ended; `None` while it runs.
    pub ended_at: Option<UnixMillis>,
}

impl GatewayRequest {
    /// The row of one attempt of a payment.
    #[must_use]
    pub fn of_attempt(payment: &Payment, attempt: &Attempt) -> Self {
        let status = attempt.end.as_ref().map_or(AttemptStatus::InProgress, |end| end.status);
        let charged = status == AttemptStatus::Completed && payment.quote.price.0 > 0;
        Self {
            id: payment.quote.gateway_request_id(),
            buyer: payment.quote.buyer,
            seller: payment.quote.seller,
            listing: payment.quote.listing,
            payment: Some(payment.quote.id),
            charged: charged.then(|| payment.quote.split()),
            attempt: attempt.number,
            status,
            request_bytes: attempt.request_bytes,
            facts: attempt.end.as_ref().map(|end| end.facts.clone()).unwrap_or_default(),
            started_at: attempt.started_at,
            ended_at: attempt.end.as_ref().map(|end| end.at),
        }
    }

    /// The row of a free call.
    #[must_use]
    pub fn of_free_call(call: &FreeCall) -> Self {
        Self {
            id: call.id,
            buyer: call.buyer,
            seller: call.seller,
            listing: call.listing,
            payment: None,
            charged: None,
            attempt: 1,
            status: call.status,
            request_bytes: call.request_bytes,
            facts: call.facts.clone(),
            started_at: call.started_at,
            ended_at: Some(call.ended_at),
        }
    }
}

/// In which part a profile asks for its history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Calls it made.
    Buyer,
    /// Calls it answered.
    Seller,
    /// Both.
    #[default]
    All,
}

/// What a history is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// In which part.
    pub role: Role,
    /// Of one listing only.
    pub listing: Option<ListingId>,
    /// Of one status only; the ledger ignores it.
    pub status: Option<AttemptStatus>,
    /// From this moment on.
    pub from: Option<UnixMillis>,
    /// Before this moment.
    pub to: Option<UnixMillis>,
}

impl LedgerRow {
    /// Whether it belongs to this part: what a seller earns stands on its own account; all else concerns a buyer.
    #[must_use]
    pub fn is_of_role(&self, role: Role) -> bool {
        let is_sellers = matches!(self.account, Account::Seller(_));
        match role {
            Role::All => true,
            Role::Seller => is_sellers,
            Role::Buyer => !is_sellers,
        }
    }
}

/// Where a page of a history ended: opaque, stable while rows are being added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor(pub Vec<u8>);

/// A page of rows, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// A party's money in sum. For a buyer: `paid = spent + in_suspense + owed + refunded + taken_back`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// What reached the rails from it.
    pub paid: Micros,
    /// What calls that sellers handled have cost it; less what it was refunded and a rail took back all the same.
    pub spent: Micros,
    /// Paid for calls that are not handled yet.
    pub in_suspense: Micros,
    /// Its again, and not refunded yet.
    pub owed: Micros,
    /// What went back to it.
    pub refunded: Micros,
    /// What a rail took back for it.
    pub taken_back: Micros,
    /// What it has earned, net of fees.
    pub earned: Micros,
    /// The marketplace's fees on what it sold.
    pub fees: Micros,
    /// What was paid out to it.
    pub paid_out: Micros,
}

impl Sums {
    /// What one of a payment's postings (by its place among them) does to a party's sums.
    #[must_use]
    pub fn of_posting(payment: &Payment, place: usize, party: ProfileId) -> Self {
        let mut sums = Self::default();
        let Some(posting) = payment.progress.postings.get(place) else { return sums };
        if party == payment.quote.buyer {
            sums.bought(payment, posting);
        }
        if party == payment.quote.seller {
            sums.sold(posting);
        }
        sums
    }

    fn bought(&mut self, payment: &Payment, posting: &Posting) {
        let buyer = payment.quote.buyer;
        for entry in posting.entries() {
            let (credit, amount) = (entry.direction == Direction::Credit, entry.amount);
            match (posting.kind(), entry.account) {
                (PostingKind::Settled, Account::Rail(_)) if !credit => add(&mut self.paid, amount),
                (PostingKind::Refunded, Account::Rail(_)) if credit => add(&mut self.refunded, amount),
                (PostingKind::TakenBack, Account::Rail(_)) if credit => add(&mut self.taken_back, amount),
                (_, Account::Suspense(_)) => {
                    add(&mut self.in_suspense, signed(credit, amount));
                    if posting.kind() == PostingKind::Completed {
                        add(&mut self.spent, amount);
                    }
                }
                (_, Account::Owed(owner)) if owner == buyer => add(&mut self.owed, signed(credit, amount)),
                // Taken from those who had earned it: the call costs its buyer nothing any more. What was refunded before,
                // it has twice.
                (PostingKind::TakenBack, Account::Seller(_) | Account::Marketplace) if !credit => {
                    add(&mut self.spent, signed(false, amount));
                }
                _ => {}
            }
        }
    }

    fn sold(&mut self, posting: &Posting) {
        for entry in posting.entries() {
            let amount = signed(entry.direction == Direction::Credit, entry.amount);
            match (posting.kind(), entry.account) {
                (PostingKind::PaidOut, Account::Seller(_)) => add(&mut self.paid_out, signed(false, amount)),
                (_, Account::Seller(_)) => add(&mut self.earned, amount),
                (PostingKind::Completed, Account::Marketplace) => add(&mut self.fees, amount),
                _ => {}
            }
        }
    }

    /// Adds other sums; past the range of `i64` a sum stays at its end.
    pub fn add(&mut self, other: &Self) {
        let parts = [
            (&mut self.paid, other.paid),
            (&mut self.spent, other.spent),
            (&mut self.in_suspense, other.in_suspense),
            (&mut self.owed, other.owed),
            (&mut self.refunded, other.refunded),
            (&mut self.taken_back, other.taken_back),
            (&mut self.earned, other.earned),
            (&mut self.fees, other.fees),
            (&mut self.paid_out, other.paid_out),
        ];
        for (sum, part) in parts {
            add(sum, part);
        }
    }
}

fn add(sum: &mut Micros, part: Micros) {
    sum.0 = sum.0.saturating_add(part.0);
}

fn signed(is_credit: bool, amount: Micros) -> Micros {
    if is_credit { amount } else { Micros(amount.0.saturating_neg()) }
}

/// Days that a tally looks back, the present one among them.
pub const TALLY_DAYS: u32 = 30;
const DAY_MS: u64 = 86_400_000;

/// The day of a moment, counted from 1970-01-01 UTC.
#[must_use]
pub fn day_of(at: UnixMillis) -> u32 {
    u32::try_from(at.0 / DAY_MS).unwrap_or(u32::MAX)
}

/// What the calls to a listing came to, day by day: one row a listing, at most [`TALLY_DAYS`] days in it, whatever
/// comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Days with calls, in order.
    pub days: Vec<DayTally>,
}

/// What the calls of one day came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayTally {
    /// Which day, as [`day_of`] counts.
    pub day: u32,
    /// Calls that the seller handled.
    pub handled: u64,
    /// Calls that failed on the seller's side.
    pub failed: u64,
    /// How many handled calls took how long: step of [`latency_step`], calls; in order.
    pub latencies: Vec<(u8, u32)>,
}

/// A tally in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallStats {
    /// Calls that were handled or failed on the seller's side.
    pub calls: u64,
    /// Those that were handled.
    pub handled: u64,
    /// Half of the handled ones were answered within this, milliseconds.
    pub p50_ms: Option<u32>,
    /// Of twenty, nineteen.
    pub p95_ms: Option<u32>,
}

impl DayTally {
    /// What one call adds; `None` when it says nothing of the seller: it runs, or we failed.
    #[must_use]
    pub fn of_call(row: &GatewayRequest) -> Option<Self> {
        let mut day = Self { day: day_of(row.ended_at?), ..Self::default() };
        match row.status {
            AttemptStatus::Completed => {
                day.handled = 1;
                day.latencies.push((latency_step(row.facts.seller_ms), 1));
            }
            AttemptStatus::Released if row.facts.error_code.as_deref().is_some_and(is_sellers) => day.failed = 1,
            AttemptStatus::Released | AttemptStatus::InProgress | AttemptStatus::Interrupted => return None,
        }
        Some(day)
    }

    /// Adds calls of the same day.
    pub fn add(&mut self, other: &Self) {
        self.handled = self.handled.saturating_add(other.handled);
        self.failed = self.failed.saturating_add(other.failed);
        for (step, calls) in &other.latencies {
            match self.latencies.binary_search_by_key(step, |(known, _)| *known) {
                Ok(place) => {
                    if let Some((_, sum)) = self.latencies.get_mut(place) {
                        *sum = sum.saturating_add(*calls);
                    }
                }
                Err(place) => self.latencies.insert(place, (*step, *calls)),
            }
        }
    }
}

/// Whether a refusal's code says that the seller failed.
fn is_sellers(code: &str) -> bool {
    code.starts_with("SELLER_")
}

impl Tally {
    /// Adds what happened on a day; days that are too old by `today` go.
    pub fn add(&mut self, day: &DayTally, today: u32) {
        let oldest = today.saturating_sub(TALLY_DAYS - 1);
        self.days.retain(|known| known.day >= oldest);
        if day.day < oldest {
            return;
        }
        match self.days.binary_search_by_key(&day.day, |known| known.day) {
            Ok(place) => {
                if let Some(known) = self.days.get_mut(place) {
                    known.add(day);
                }
            }
            Err(place) => self.days.insert(place, day.clone()),
        }
    }

    /// The figures of the last [`TALLY_DAYS`] days, as of `today`.
    #[must_use]
    pub fn stats(&self, today: u32) -> CallStats {
        let mut sum = DayTally::default();
        for day in self.days.iter().filter(|day| day.day.saturating_add(TALLY_DAYS) > today) {
            sum.add(day);
        }
        CallStats {
            calls: sum.handled.saturating_add(sum.failed),
            handled: sum.handled,
            p50_ms: quantile(&sum.latencies, 50),
            p95_ms: quantile(&sum.latencies, 95),
        }
    }
}

/// Steps of one octave: what is told is at most an eighth too much.
const STEPS_PER_OCTAVE: u32 = 8;

/// The step that a latency is counted in: exact below 8 ms, eight steps for each doubling from there on.
#[must_use]
pub fn latency_step(ms: u32) -> u8 {
    let Some(octave) = ms.checked_ilog2().and_then(|log| log.checked_sub(3)) else {
        return u8::try_from(ms).unwrap_or(0);
    };
    let step = STEPS_PER_OCTAVE * octave + (ms >> octave);
    u8::try_from(step).unwrap_or(u8::MAX)
}

/// The longest latency of a step, milliseconds.
#[must_use]
pub fn latency_of_step(step: u8) -> u32 {
    let step = u32::from(step);
    let Some(octave) = (step / STEPS_PER_OCTAVE).checked_sub(1) else { return step };
    let first = u64::from(STEPS_PER_OCTAVE + step % STEPS_PER_OCTAVE);
    u32::try_from(((first + 1) << octave) - 1).unwrap_or(u32::MAX)
}

fn quantile(latencies: &[(u8, u32)], percent: u64) -> Option<u32> {
    let total: u64 = latencies.iter().map(|(_, calls)| u64::from(*calls)).sum();
    let wanted = (total * percent).div_ceil(100);
    let mut seen = 0;
    latencies.iter().find_map(|(step, calls)| {
        seen += u64::from(*calls);
        (total > 0 && seen >= wanted).then(|| latency_of_step(*step))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn day(day: u32, handled: u64, failed: u64, latencies: &[(u8, u32)]) -> DayTally {
        DayTally { day, handled, failed, latencies: latencies.to_vec() }
    }

    #[test]
    fn a_tally_forgets_days_and_never_grows_past_them() {
        let mut tally = Tally::default();
        for today in 100..400 {
            tally.add(&day(today, 1, 1, &[(5, 1)]), today);
            tally.add(&day(today, 1, 0, &[(9, 1)]), today);
        }
        assert_eq!(tally.days.len(), TALLY_DAYS as usize);
        let stats = tally.stats(399);
        assert_eq!((stats.calls, stats.handled, stats.p50_ms, stats.p95_ms), (90, 60, Some(5), Some(9)));
        assert_eq!(tally.stats(399 + TALLY_DAYS - 1).calls, 3, "the last day is still seen");
        assert_eq!(tally.stats(399 + TALLY_DAYS), CallStats::default());
        tally.add(&day(1, 9, 9, &[]), 399);
        assert_eq!(tally.stats(399), stats, "what comes too late is left out");
    }

    proptest! {
        #[test]
        fn a_latency_is_told_within_an_eighth_and_never_too_small(ms in 0u32..=10_000_000) {
            let told = latency_of_step(latency_step(ms));
            prop_assert!(told >= ms && u64::from(told) * 8 <= u64::from(ms) * 9 + 8, "{} {}", ms, told);
        }

        #[test]
        fn days_add_up_in_any_order(steps in proptest::collection::vec((0u8..40, 1u32..5), 0..60)) {
            let mut sum = DayTally::default();
            for (step, calls) in &steps {
                sum.add(&day(0, u64::from(*calls), 0, &[(*step, *calls)]));
            }
            let total: u32 = steps.iter().map(|(_, calls)| calls).sum();
            prop_assert_eq!(sum.latencies.iter().map(|(_, calls)| calls).sum::<u32>(), total);
            prop_assert!(sum.latencies.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
}
