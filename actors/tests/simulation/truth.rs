//! What is true outside the gateway: the rail's own books, what sellers did, what was promised and acknowledged; and the
//! history of it all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use storage::{SandboxStore, StoreError, StoreResult, faulty::Dice, model::*};

use super::{
    bank::Bank,
    laws::{Law, Places, ended_as, is_success},
    mutants::Mutant,
    world::BEGIN,
};

pub const US: &str = "sandbox:settlement";
/// More than any history comes to.
const EVENTS_MAX: usize = 20_000;
/// The second node on the same store.
pub const OTHER: Owner = Owner { node: 7, epoch: 1 };

/// Everything that outlives a process of the gateway.
pub struct Truth {
    pub dice: Dice,
    pub mutant: Option<Mutant>,
    pub time: Arc<AtomicU64>,
    /// Whose question a planted bug takes for the right one.
    pub disguise: Mutex<Option<(PaymentId, ProfileId, [u8; 32])>>,
    /// What was sent out, and for what.
    pub bank: Bank,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    log: Vec<String>,
    met: BTreeSet<&'static str>,
    names: BTreeMap<PaymentId, usize>,
    order: Vec<PaymentId>,
    seen: BTreeMap<PaymentId, Arc<Payment>>,
    books: BTreeMap<PaymentId, SandboxPayment>,
    goes_back: BTreeMap<PaymentId, UnixMillis>,
    said_no: BTreeSet<PaymentId>,
    references: Vec<String>,
    troubles: usize,
    promised: BTreeMap<PaymentId, Micros>,
    answered: BTreeMap<PaymentId, Vec<u8>>,
    called: BTreeMap<(PaymentId, u32), u32>,
    running: BTreeMap<PaymentId, u32>,
    resent: BTreeMap<PaymentId, u32>,
    handled: BTreeMap<(PaymentId, u32), Vec<u8>>,
    broken: Option<(Law, String)>,
}

impl Truth {
    pub fn new(seed: u64, mutant: Option<Mutant>, time: Arc<AtomicU64>) -> Self {
        Self {
            dice: Dice::new(seed),
            mutant,
            time,
            disguise: Mutex::default(),
            bank: Bank::default(),
            state: Mutex::default(),
        }
    }

    /// Payments by the order in which they were first seen: their ids are random.
    pub fn name(&self, id: PaymentId) -> String {
        format!("p{}", self.place(id))
    }

    pub fn place(&self, id: PaymentId) -> usize {
        let mut state = self.state.lock();
        if let Some(place) = state.names.get(&id) {
            return *place;
        }
        state.order.push(id);
        let place = state.order.len() - 1;
        state.names.insert(id, place);
        place
    }

    pub fn payments(&self) -> Vec<PaymentId> {
        self.state.lock().order.clone()
    }

    /// Two steps are never of one moment: what is sorted by moments has one order.
    pub fn tick(&self) {
        self.time.fetch_add(1, Ordering::Relaxed);
    }

    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.time.load(Ordering::Relaxed))
    }

    pub fn note(&self, event: String) {
        let at = self.time.load(Ordering::Relaxed).wrapping_sub(BEGIN).cast_signed();
        let mut state = self.state.lock();
        assert!(state.log.len() < EVENTS_MAX, "a history without an end");
        state.log.push(format!("{at:>8} {event}"));
    }

    /// A situation that histories must come to, else they show nothing.
    pub fn met(&self, situation: &'static str) {
        self.state.lock().met.insert(situation);
    }

    pub fn breaks(&self, law: Law, what: String) {
        self.note(format!("BROKEN {law:?}: {what}"));
        self.state.lock().broken.get_or_insert((law, what));
    }

    pub fn broken(&self) -> Option<(Law, String)> {
        self.state.lock().broken.clone()
    }

    pub fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    pub fn all_met(&self) -> BTreeSet<&'static str> {
        self.state.lock().met.clone()
    }

    /// Keeps how a payment looks. What it looked like before; `None` when nothing changed.
    pub fn remember(&self, payment: &Arc<Payment>) -> Option<Option<Arc<Payment>>> {
        let before = self.state.lock().seen.insert(payment.quote.id, payment.clone());
        if before.as_ref() == Some(payment) { None } else { Some(before) }
    }

    /// Notes in which of the situations a payment is.
    pub fn meet(&self, payment: &Payment) {
        let (quote, progress) = (&payment.quote, &payment.progress);
        let places = Places::of(payment, &self.left(quote.id));
        let (came, is_free) = (places.came, quote.rail == Rail::Free);
        match progress.state {
            PaymentState::Completed if is_free => self.met("a free purchase completed"),
            PaymentState::Completed if came > quote.price.0 => self.met("completed with a surplus"),
            PaymentState::Completed if progress.attempts.len() > 1 => self.met("completed after a failure"),
            PaymentState::Completed => self.met("completed at once"),
            PaymentState::Failed if self.paid(quote.id).is_some_and(|paid| is_success(&paid)) => {
                self.met("the rail took it back before it was recorded");
            }
            PaymentState::Failed => self.met("failed by the rail"),
            PaymentState::Owed if places.gone > 0 && progress.attempts.is_empty() => {
                self.met("the rail took it back before the call");
            }
            PaymentState::Owed if places.gone > 0 => self.met("the rail took it back from a call that failed"),
            PaymentState::Owed if came < quote.price.0 => self.met("underpaid and owed"),
            PaymentState::Owed if progress.attempts.len() >= 10 => self.met("owed after the last attempt"),
            PaymentState::Owed => self.met("owed because its listing closed"),
            PaymentState::Refunded if places.gone == 0 => self.met("refunded"),
            PaymentState::Settled if progress.attempts.is_empty() => self.met("settled without a claim"),
            _ => {}
        }
        match progress.result.as_ref().map(|result| result.place) {
            Some(ResultPlace::Chunks) => self.met("a large answer completed"),
            Some(ResultPlace::NotKept) => self.met("an answer was not kept"),
            _ => {}
        }
        if ended_as(payment, AttemptStatus::Interrupted) > 0 {
            self.met("interrupted");
        }
        if progress.evidence.iter().any(|evidence| evidence.recorded_at > quote.expires_at && evidence.amount.0 > 0) {
            self.met("paid after its quote expired");
        }
    }

    // What was promised to buyers.

    pub fn promise(&self, id: PaymentId, price: Micros) {
        let promised = *self.state.lock().promised.entry(id).or_insert(price);
        if promised != price {
            self.breaks(Law::PriceKept, format!("{} is offered at {price:?} after {promised:?}", self.name(id)));
        }
    }

    pub fn promised(&self, id: PaymentId) -> Option<Micros> {
        self.state.lock().promised.get(&id).copied()
    }

    pub fn all_promised(&self) -> Vec<PaymentId> {
        self.state.lock().promised.keys().copied().collect()
    }

    /// A buyer has this answer; every later one is equal.
    pub fn answer(&self, id: PaymentId, answer: &[u8]) {
        let first = self.state.lock().answered.entry(id).or_insert_with(|| answer.to_vec()).clone();
        if first != answer {
            self.breaks(Law::OwnAnswer, format!("{} was answered in two ways", self.name(id)));
        }
    }

    pub fn all_answered(&self) -> Vec<(PaymentId, Vec<u8>)> {
        self.state.lock().answered.clone().into_iter().collect()
    }

    // What the rail knows.

    pub fn pay(&self, paid: SandboxPayment, goes_back: Option<UnixMillis>) {
        let SandboxPayment { payment, amount, outcome, recipient, reference, settles_at, .. } = &paid;
        let name = self.name(*payment);
        let back = goes_back.map_or(String::new(), |back| format!(", back after {:?}", back.since(*settles_at)));
        self.note(format!("{name} is paid {} {outcome:?} to {recipient} as {reference}{back}", amount.0));
        let mut state = self.state.lock();
        match goes_back {
            Some(back) => _ = state.goes_back.insert(*payment, back),
            // What is used for two payments stays: it would be unclear whose went back.
            None => state.references.push(reference.clone()),
        }
        state.books.entry(*payment).or_insert(paid);
    }

    /// From when on the rail shows that it took the money back.
    pub fn goes_back(&self, id: PaymentId) -> Option<UnixMillis> {
        self.state.lock().goes_back.get(&id).copied()
    }

    /// Whether the rail ever said that the money did not come, or is gone.
    pub fn said_no(&self, id: PaymentId) -> bool {
        self.state.lock().said_no.contains(&id)
    }

    pub fn paid(&self, id: PaymentId) -> Option<SandboxPayment> {
        self.state.lock().books.get(&id).cloned()
    }

    /// How often the rail did not tell all that it knows.
    pub fn troubles(&self) -> usize {
        self.state.lock().troubles
    }

    /// Whether all of a payment's money came, to us, and is final for some time: whoever looks sees it.
    pub fn is_there(&self, id: PaymentId) -> bool {
        let (paid, seen) = (self.paid(id), self.seen(id));
        let (Some(paid), Some(seen)) = (paid, seen) else { return false };
        // Longer than the clock goes back.
        let is_final = paid.settles_at.plus(Duration::from_secs(3)) <= self.now() && self.goes_back(id).is_none();
        let is_ours = paid.recipient == US && is_success(&paid) && paid.amount >= seen.quote.price;
        is_final && is_ours && !self.is_money_of_another(id, &paid.reference)
    }

    /// A payment as it was seen last.
    pub fn seen(&self, id: PaymentId) -> Option<Arc<Payment>> {
        self.state.lock().seen.get(&id).cloned()
    }

    /// The first money that came.
    pub fn any_reference(&self) -> Option<String> {
        self.state.lock().references.first().cloned()
    }

    /// Whether another payment than `id` has evidence of this money.
    pub fn is_money_of_another(&self, id: PaymentId, reference: &str) -> bool {
        let has = |payment: &Payment| payment.progress.evidence.iter().any(|known| known.reference == reference);
        self.state.lock().seen.values().any(|other| other.quote.id != id && has(other))
    }

    // What sellers did.

    pub fn seller_begins(&self, id: PaymentId, claim: Claim, kept: Option<&Payment>) {
        let (name, attempt) = (self.name(id), claim.attempt);
        let (times, others) = {
            let mut state = self.state.lock();
            let times = state.called.entry((id, attempt)).or_default();
            *times += 1;
            let times = *times;
            let running = state.running.entry(id).or_default();
            *running += 1;
            (times, *running - 1)
        };
        let who = if claim.owner == OTHER { "the other node" } else { "this node" };
        self.note(format!("{name} calls its seller, attempt {attempt} of {who}"));
        match kept.map(|payment| payment.progress.state) {
            Some(PaymentState::Completed) => {
                self.breaks(Law::ReplayNeverCalls, format!("{name} is completed and called its seller"));
            }
            Some(PaymentState::Claimed(held)) if held == claim => {}
            other => {
                self.breaks(Law::ClaimBeforeCall, format!("{name} called without a claim, as {}", shown(other)));
            }
        }
        if times > 1 {
            self.breaks(Law::CalledOnce, format!("{name} called its seller twice in attempt {attempt}"));
        }
        if others > 0 {
            self.breaks(Law::Alone, format!("{name} called its seller while another call ran"));
        }
    }

    /// Once more for an answer that was not kept, uncharged.
    pub fn seller_is_asked_again(&self, id: PaymentId, kept: Option<&Payment>) {
        let name = self.name(id);
        self.note(format!("{name} asks its seller again"));
        self.met("the seller was asked again for an answer that was not kept");
        let times = {
            let mut state = self.state.lock();
            let times = state.resent.entry(id).or_default();
            *times += 1;
            *times
        };
        let place = kept.and_then(|payment| payment.progress.result.as_ref()).map(|result| result.place);
        if times > 1 {
            self.breaks(Law::CalledOnce, format!("{name} asked its seller again, and again"));
        }
        if place != Some(ResultPlace::Resent) {
            self.breaks(Law::ReplayNeverCalls, format!("{name} asked its seller again, and the answer is {place:?}"));
        }
    }

    pub fn seller_ends(&self, id: PaymentId, attempt: u32, handled: Option<Vec<u8>>) {
        let mut state = self.state.lock();
        if let Some(running) = state.running.get_mut(&id) {
            *running -= 1;
        }
        if let Some(answer) = handled {
            state.handled.insert((id, attempt), answer);
        }
    }

    /// What the seller answered in the attempt that completed.
    pub fn handled(&self, payment: &Payment) -> Option<Vec<u8>> {
        let is_completed =
            |attempt: &&Attempt| attempt.end.as_ref().is_some_and(|end| end.status == AttemptStatus::Completed);
        let attempt = payment.progress.attempts.iter().find(is_completed)?;
        self.state.lock().handled.get(&(payment.quote.id, attempt.number)).cloned()
    }
}

pub fn shown(state: Option<PaymentState>) -> String {
    match state {
        Some(PaymentState::Claimed(claim)) => format!("claimed({})", claim.attempt),
        Some(state) => state.name().into(),
        None => "unknown".into(),
    }
}

/// The rail's books as the gateway reads them: late and unreliable; what they say is true, unless a bug is planted.
pub struct RailBooks {
    pub truth: Arc<Truth>,
    pub clock: Clock,
    /// How often, of a thousand reads, it does not answer or shows less than it did.
    pub trouble: u64,
}

#[async_trait]
impl SandboxStore for RailBooks {
    async fn sandbox_pay(&self, _: SandboxPayment) -> StoreResult<SandboxPayment> {
        Err(StoreError::Unavailable("buyers pay the rail, not us".into()))
    }

    async fn sandbox_get(&self, id: PaymentId) -> StoreResult<Option<SandboxPayment>> {
        let (truth, now) = (&self.truth, self.clock.now());
        let mut paid = truth.paid(id);
        if let Some(paid) = &mut paid
            && truth.mutant != Some(Mutant::ReversalUnseen)
            && truth.goes_back(id).is_some_and(|back| back <= now)
        {
            paid.outcome = SandboxOutcome::Refund;
        }
        if truth.dice.chance(self.trouble) {
            truth.state.lock().troubles += 1;
            if truth.dice.chance(500) {
                truth.met("the rail showed less than before");
                return Ok(None);
            }
            truth.met("the rail did not answer");
            return match (truth.mutant, paid) {
                (Some(Mutant::TimeoutIsFailure), Some(mut paid)) => {
                    (paid.outcome, paid.settles_at) = (SandboxOutcome::Failure, self.clock.now());
                    Ok(Some(paid))
                }
                _ => Err(StoreError::Unavailable("the rail does not answer".into())),
            };
        }
        if paid.as_ref().is_some_and(|paid| !is_success(paid) && paid.settles_at <= now) {
            truth.state.lock().said_no.insert(id);
        }
        let expires = truth.seen(id).map(|seen| seen.quote.expires_at);
        if truth.mutant == Some(Mutant::LateMoneyUnseen) {
            return Ok(paid.filter(|paid| expires.is_some_and(|expires| paid.settles_at < expires)));
        }
        Ok(paid.map(|mut paid| {
            if truth.mutant == Some(Mutant::SuccessAlone) && paid.outcome == SandboxOutcome::Success {
                paid.recipient = US.into();
                paid.amount = truth.promised(id).unwrap_or(paid.amount);
            }
            paid
        }))
    }
}
