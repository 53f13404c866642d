//! What this crate counts. The handles are made once: a look-up by name on every call would cost more than the counting.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use storage::model::Rail;

/// All rails, in the order of their handles.
const RAILS: [Rail; 5] = [Rail::Sandbox, Rail::Relay, Rail::X402, Rail::Mpp, Rail::Free];

/// What becomes of a payment before and beside its call. The call's own end is counted by the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaymentMet {
    /// A new quote was made.
    Quoted,
    /// Its rail said no, or named another payee.
    Failed,
    /// Less than the price arrived.
    Underpaid,
    /// Nothing arrived while it was offered.
    Expired,
    /// Its call can never run: the money is the buyer's again.
    Owed,
    /// Its rail showed money that nobody had told of.
    Found,
    /// Its rail took money back.
    TakenBack,
    /// An outcome came after its claim was taken over: it changed nothing.
    Orphan,
}

const MET: [&str; 8] = ["quoted", "failed", "underpaid", "expired", "owed", "found", "taken_back", "orphan"];

/// Whose rate a request was refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RateScope {
    /// The buyer's, over all its keys.
    Buyer,
    /// The seller's.
    Seller,
    /// A control route's, for a profile.
    Route,
    /// A control route's, for an address without a key.
    Address,
    /// A login's, for a human account.
    Account,
}

impl RateScope {
    /// The label, and the word in `details`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Buyer => "buyer",
            Self::Seller => "seller",
            Self::Route => "route",
            Self::Address => "address",
            Self::Account => "account",
        }
    }
}

/// Requests that were refused for their rate.
pub(crate) struct RateMeters([Counter; 5]);

impl RateMeters {
    /// Handles of the recorder that is installed now.
    pub(crate) fn new() -> Self {
        let scopes = [RateScope::Buyer, RateScope::Seller, RateScope::Route, RateScope::Address, RateScope::Account];
        Self(scopes.map(|scope| counter!("crochet_rate_limited_total", "scope" => scope.name())))
    }

    /// One more.
    pub(crate) fn limited(&self, scope: RateScope) {
        if let Some(counter) = self.0.get(scope as usize) {
            counter.increment(1);
        }
    }
}

/// What actors and gates count.
pub(crate) struct Meters {
    /// Requests refused for a rate.
    pub(crate) rates: RateMeters,
    /// Actors that live.
    pub(crate) active: Gauge,
    /// Actors that died and were replaced.
    pub(crate) restarts: Counter,
    /// Questions that actors handled.
    pub(crate) messages: Counter,
    /// Questions that found no room in a mailbox.
    pub(crate) mailbox_full: Counter,
    /// Questions that wait in mailboxes.
    pub(crate) mailbox_depth: Gauge,
    opened: Counter,
    closed: Counter,
    payments: [[Counter; MET.len()]; 5],
    verifications: [Histogram; 5],
}

impl Meters {
    /// Handles of the recorder that is installed now.
    pub(crate) fn new() -> Self {
        let circuit = |state: &'static str| counter!("crochet_circuit_changes_total", "state" => state);
        let payment =
            |rail: Rail| MET.map(|met| counter!("crochet_payments_total", "provider" => rail.name(), "result" => met));
        Self {
            rates: RateMeters::new(),
            active: gauge!("crochet_actor_active"),
            restarts: counter!("crochet_actor_restarts_total"),
            messages: counter!("crochet_actor_messages_total"),
            mailbox_full: counter!("crochet_actor_mailbox_full_total"),
            mailbox_depth: gauge!("crochet_actor_mailbox_depth"),
            opened: circuit("open"),
            closed: circuit("closed"),
            payments: RAILS.map(payment),
            verifications: RAILS
                .map(|rail| histogram!("crochet_payment_verify_duration_seconds", "provider" => rail.name())),
        }
    }

    /// Something became of a payment.
    pub(crate) fn payment(&self, rail: Rail, met: PaymentMet) {
        let place = RAILS.iter().position(|known| *known == rail);
        let counters = place.and_then(|place| self.payments.get(place));
        if let Some(counter) = counters.and_then(|counters| counters.get(met as usize)) {
            counter.increment(1);
        }
    }

    /// A rail was asked for its record, and answered or failed after so long.
    pub(crate) fn verified(&self, rail: Rail, spent: Duration) {
        let place = RAILS.iter().position(|known| *known == rail);
        if let Some(histogram) = place.and_then(|place| self.verifications.get(place)) {
            histogram.record(spent);
        }
    }

    /// A circuit opened or closed.
    pub(crate) fn circuit(&self, is_open: bool) {
        if is_open { self.opened.increment(1) } else { self.closed.increment(1) }
    }
}
