//! A run under way: who takes part, what was seen so far, and whether it is over.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    api::{Answer, Lost},
    books::Purchase,
    market::Market,
    scenario::Scenario,
};

/// A run under way.
pub struct Run {
    /// Everybody who takes part.
    pub market: Market,
    /// What is run.
    pub scenario: Scenario,
    /// Decides everything that chance decides.
    pub seed: u64,
    /// When the load began.
    pub start: Instant,
    seen: Mutex<Seen>,
    comeback: Mutex<Option<Comeback>>,
    is_over: AtomicBool,
    under_way: AtomicU64,
}

/// What was seen of a run.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every purchase.
    pub purchases: Vec<Purchase>,
    /// How long each of them took.
    pub samples: Vec<Sample>,
    /// From the paid request until its answer, microseconds; completed ones only.
    pub paid_call_micros: Vec<u64>,
    /// How many answers of each status and code, by the second of the run.
    pub codes: BTreeMap<u64, BTreeMap<String, u64>>,
    /// Every outage.
    pub outages: Vec<Outage>,
    /// Answers that began and broke off.
    pub cut_answers: u64,
    /// Paid calls that reached the seller and got no answer: the seller's work was done, and the buyer was left.
    pub called_unanswered: u64,
    /// Answers with status 500, or 5xx and no code.
    pub server_faults: u64,
    /// Acts that had to be refused.
    pub hostile_acts: u64,
    /// Those that were not refused, or not as documented.
    pub hostile_accepted: Vec<String>,
    /// Of the idempotent scenario.
    pub repeats: Option<Repeats>,
    /// How long the load lasted, microseconds.
    pub load_micros: u64,
}

/// How long one purchase took.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When it was due, microseconds from the start.
    pub due_micros: u64,
    /// From then until its end, microseconds.
    pub took_micros: u64,
    /// Whether it went to the favourite seller.
    pub is_hot: bool,
}

/// The gateway was ended and started again.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// When, microseconds from the start.
    pub at_micros: u64,
    /// Until the process was gone, microseconds.
    pub end_micros: u64,
    /// Until the new one said that it is ready, microseconds from when the old one was gone.
    pub ready_micros: u64,
    /// From the signal until the first 200 to a paid call, microseconds.
    pub first_200_micros: u64,
    /// Whether it ended as it must: by the kill, or with exit code 0.
    pub is_good_exit: bool,
    /// Whether it was killed once more on its way up.
    pub has_stumbled: bool,
}

/// What came of asking for every id by every client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeats {
    /// Answers that were given.
    pub answers: u64,
    /// Those that differ from the first answer about the same id.
    pub differing: u64,
    /// Those that say that they are replays.
    pub replayed: u64,
    /// The least and the most calls of a seller for one id.
    pub seller_calls: (u64, u64),
}

/// Somebody waits for the first 200 to a request that was sent after `since`.
struct Comeback {
    since: Instant,
    told: oneshot::Sender<Instant>,
}

impl Run {
    /// One that begins now.
    #[must_use]
    pub fn new(market: Market, scenario: Scenario, seed: u64) -> Self {
        Self {
            market,
            scenario,
            seed,
            start: Instant::now(),
            seen: Mutex::default(),
            comeback: Mutex::default(),
            is_over: AtomicBool::new(false),
            under_way: AtomicU64::new(0),
        }
    }

    /// Writes down what was seen.
    pub fn note<T>(&self, note: impl FnOnce(&mut Seen) -> T) -> T {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes down an answer to a call that was sent at `sent`, or how it was lost.
    pub fn note_answer(&self, sent: Instant, answer: &Result<Answer, Lost>, is_paid: bool) {
        let (code, is_fault) = match answer {
            Ok(answer) => (
                format!("{} {}", answer.status, answer.code()).trim_end().to_owned(),
                answer.status == 500 || (answer.status > 500 && answer.code().is_empty()),
            ),
            Err(lost) => (lost.to_string(), false),
        };
        let second = self.start.elapsed().as_secs();
        self.note(|seen| {
            *seen.codes.entry(second).or_default().entry(code).or_default() += 1;
            seen.cut_answers += u64::from(*answer == Err(Lost::Cut));
            seen.server_faults += u64::from(is_fault);
        });
        if is_paid && answer.as_ref().is_ok_and(|answer| answer.status == 200) {
            self.note_comeback(sent);
        }
    }

    /// Tells the first 200 to a paid call that is sent from now on.
    #[must_use]
    pub fn await_comeback(&self) -> oneshot::Receiver<Instant> {
        let (told, back) = oneshot::channel();
        *self.comeback.lock().unwrap_or_else(PoisonError::into_inner) = Some(Comeback { since: Instant::now(), told });
        back
    }

    fn note_comeback(&self, sent: Instant) {
        let mut waiting = self.comeback.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(comeback) = waiting.take_if(|comeback| sent >= comeback.since) {
            // Nobody may be waiting any more.
            let _ = comeback.told.send(Instant::now());
        }
    }

    /// A purchase begins.
    pub fn begin_purchase(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// A purchase has ended.
    pub fn end_purchase(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// Purchases that have begun and not ended.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Ends the load: what is under way comes to its end, nothing new begins.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether nothing new shall begin.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Purchases that are not answered by then are given up.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.scenario.patience_seconds)
    }

    /// Since the start, microseconds.
    #[must_use]
    pub fn since_start(&self, when: Instant) -> u64 {
        micros(when.saturating_duration_since(self.start))
    }

    /// What was seen; the run forgets it.
    #[must_use]
    pub fn take_seen(&self) -> Seen {
        self.note(std::mem::take)
    }
}

/// Whole microseconds.
#[must_use]
pub fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
