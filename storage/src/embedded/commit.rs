//! One writer. Callers fill the open batch under a short lock; the writer takes it whole, decides its steps one after
//! the other, writes all they put in one atomic batch, syncs once, and answers them all. The next batch fills while
//! this one syncs, so batches form by themselves and nobody waits for company.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{
    Moment, Shared,
    codec::decode,
    draft::{Draft, Drafted, Memory},
    engine::{Engine, Place, Put},
    keys, roll_up, start,
};
use crate::error::{StoreError, StoreResult};

/// Commits past a memtable's limit before the writer waits for its rotation: each of them queued one more request
/// for it, and the engine's queue has a thousand places.
const CROWDED_COMMITS_MAX: u32 = 200;
/// From here on it waits at once, percent of the limit.
const CROWDED_PERCENT: u64 = 150;
/// How often it looks while a memtable fills.
const MEASURES_PER_MEMTABLE: u64 = 64;
/// How often it looks while it waits.
const PACE: Duration = Duration::from_millis(1);
/// Pauses between attempts to open the store again: the first, and the longest.
const REOPEN_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A step on its way: decided on the writer's thread, answered after the commit.
pub(crate) trait Step: Send {
    /// Decides, and puts what follows into the draft. `false`: it failed, and what it put is taken back.
    fn decide(&mut self, draft: &mut Draft<'_>) -> bool;
    /// Answers the caller: what was decided, or why it did not come to be.
    fn answer(self: Box<Self>, fault: Option<&StoreError>);
}

struct Typed<T, F> {
    decide: Option<F>,
    found: Option<StoreResult<T>>,
    caller: oneshot::Sender<StoreResult<T>>,
}

impl<T, F> Step for Typed<T, F>
where
    T: Send,
    F: FnOnce(&mut Draft<'_>) -> StoreResult<T> + Send,
{
    fn decide(&mut self, draft: &mut Draft<'_>) -> bool {
        self.found = self.decide.take().map(|decide| decide(draft));
        matches!(self.found, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, fault: Option<&StoreError>) {
        let answer = match (fault, self.found) {
            // What failed by itself put nothing, so the commit's fault is not its own.
            (_, Some(Err(error))) => Err(error),
            (Some(fault), _) => Err(fault.clone()),
            (None, Some(found)) => found,
            (None, None) => Err(StoreError::Unavailable("the step was not run".into())),
        };
        // A caller that went away does not mind.
        drop(self.caller.send(answer));
    }
}

/// A step of this closure, and where its answer comes.
pub(crate) fn step<T, F>(decide: F) -> (Box<dyn Step>, oneshot::Receiver<StoreResult<T>>)
where
    T: Send + 'static,
    F: FnOnce(&mut Draft<'_>) -> StoreResult<T> + Send + 'static,
{
    let (caller, answer) = oneshot::channel();
    (Box::new(Typed { decide: Some(decide), found: None, caller }), answer)
}

/// The open batch.
pub(crate) struct Queue {
    open: Mutex<Open>,
    filled: Condvar,
    max: usize,
    company: Company,
}

/// When a batch waits for company: under load a sync that a few more steps share costs each of them less than the
/// moment that it begins later. A step that is alone never waits.
#[derive(Clone, Copy)]
pub(crate) struct Company {
    /// For how long.
    pub(crate) delay: Duration,
    /// Only when the batch before had at least so many steps.
    pub(crate) min_steps: usize,
}

#[derive(Default)]
struct Open {
    steps: VecDeque<Box<dyn Step>>,
    refusing: Option<String>,
    closing: bool,
}

impl Queue {
    /// With room for `max` steps.
    pub(crate) fn new(max: usize, company: Company) -> Self {
        Self { open: Mutex::default(), filled: Condvar::new(), max, company }
    }

    /// Adds a step to the open batch.
    ///
    /// # Errors
    /// `Unavailable` at once when it is full, or the store is closed or being reopened.
    pub(crate) fn push(&self, step: Box<dyn Step>) -> StoreResult<()> {
        let mut open = self.open.lock();
        open.check()?;
        if open.steps.len() >= self.max {
            return Err(StoreError::Unavailable("too many steps wait for a commit".into()));
        }
        open.steps.push_back(step);
        let first = open.steps.len() == 1;
        drop(open);
        if first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Whether steps are taken.
    pub(crate) fn check(&self) -> StoreResult<()> {
        self.open.lock().check()
    }

    /// Takes no more steps; the writer ends when it has done those that wait.
    pub(crate) fn close(&self) {
        self.open.lock().closing = true;
        self.filled.notify_all();
    }

    /// Moves what waits to `pending`, waiting for the first step, and for some company when the batch before had `last`
    /// steps. `false`: closed, and nothing is left.
    fn take(&self, pending: &mut VecDeque<Box<dyn Step>>, most: usize, last: usize) -> bool {
        let mut open = self.open.lock();
        if pending.is_empty() {
            while open.steps.is_empty() && !open.closing {
                self.filled.wait(&mut open);
            }
            if last >= self.company.min_steps && open.steps.len() < last && !open.closing {
                MutexGuard::unlocked(&mut open, || std::thread::sleep(self.company.delay));
            }
            std::mem::swap(pending, &mut open.steps);
        } else if pending.len() < most {
            pending.append(&mut open.steps);
        }
        !pending.is_empty()
    }

    /// Refuses steps from here on, for this reason; returns those that wait.
    fn refuse(&self, reason: String) -> VecDeque<Box<dyn Step>> {
        let mut open = self.open.lock();
        open.refusing = Some(reason);
        std::mem::take(&mut open.steps)
    }

    fn resume(&self) {
        self.open.lock().refusing = None;
    }

    /// Waits; `true` when the store is being closed meanwhile.
    fn closing_within(&self, pause: Duration) -> bool {
        let mut open = self.open.lock();
        if !open.closing {
            self.filled.wait_for(&mut open, pause);
        }
        open.closing
    }
}

impl Open {
    fn check(&self) -> StoreResult<()> {
        match &self.refusing {
            _ if self.closing => Err(StoreError::Unavailable("the store is closed".into())),
            Some(reason) => Err(StoreError::Unavailable(reason.clone())),
            None => Ok(()),
        }
    }
}

/// A commit whose outcome is not known, and the steps that wait for it.
struct Doubt {
    reason: String,
    steps: Vec<Box<dyn Step>>,
}

/// The one that writes.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    memory: Memory,
    /// The last commit that is known to be durable.
    sequence: u64,
    pending: VecDeque<Box<dyn Step>>,
    /// Bytes put since the memtables were looked at.
    unmeasured: u64,
    crowded_commits: u32,
    /// How many steps the last commit had.
    last_steps: usize,
}

impl Writer {
    /// A writer that goes on after commit `sequence`.
    pub(crate) fn new(shared: Arc<Shared>, memory: Memory, sequence: u64) -> Self {
        shared.vitals.acknowledge(sequence);
        Self { shared, memory, sequence, pending: VecDeque::new(), unmeasured: 0, crowded_commits: 0, last_steps: 0 }
    }

    /// Writes until the store is closed.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _death = shared.vitals.writer_lives();
        while shared.queue.take(&mut self.pending, shared.config.commit_max_steps, self.last_steps) {
            shared.vitals.begin();
            let done = self.commit_some();
            shared.vitals.end();
            if let Err(doubt) = done {
                self.reopen(doubt);
            }
        }
        let engine = shared.engine.swap(None);
        shared.live.clear();
        self.dispose(engine);
        shared.side_file_write();
    }

    fn commit_some(&mut self) -> Result<(), Doubt> {
        let shared = Arc::clone(&self.shared);
        let Some(engine) = shared.engine.load_full() else {
            return Err(Doubt { reason: "the engine is not open".into(), steps: Vec::new() });
        };
        self.pace(&engine);
        let mut draft = Draft::new(&engine, &shared.live, &mut self.memory, (shared.owner, shared.rules()));
        let mut decided = Vec::with_capacity(self.pending.len().min(shared.config.commit_max_steps));
        while let Some(mut step) = self.pending.pop_front() {
            let mark = draft.begin(shared.clock.now());
            if !step.decide(&mut draft) {
                draft.undo(&mark);
            }
            decided.push(step);
            if decided.len() >= shared.config.commit_max_steps || draft.bytes() >= shared.config.commit_max_bytes {
                break;
            }
        }
        self.unmeasured += draft.bytes();
        self.last_steps = decided.len();
        let drafted = draft.finish();
        match self.commit(&engine, drafted, decided.len()) {
            Ok(()) => decided.into_iter().for_each(|step| step.answer(None)),
            Err(reason) => return Err(Doubt { reason, steps: decided }),
        }
        Ok(())
    }

    /// Makes a draft durable and then known. Without a put there is nothing to sync: what its steps saw is durable.
    fn commit(&mut self, engine: &Engine, drafted: Drafted, steps: usize) -> Result<(), String> {
        let Drafted { mut puts, payments, changes, gone, notes } = drafted;
        if !puts.is_empty() {
            let next = self.sequence + 1;
            puts.push(sequence_put(next));
            if !notes.is_empty() {
                puts.push(roll_up::notes_put(next, &notes).map_err(|error| error.to_string())?);
            }
            self.shared.faults.at(Moment::BeforeCommit)?;
            let most = puts.len();
            engine.commit(puts.into_iter(), most).map_err(|error| error.to_string())?;
            self.shared.faults.at(Moment::AfterCommit)?;
            self.sequence = next;
            self.shared.vitals.acknowledge(next);
            self.shared.measures.group(steps);
        }
        for (_, payment) in payments {
            self.shared.live.put(payment);
        }
        for id in gone {
            self.shared.live.remove(id);
        }
        self.shared.changes.push(changes);
        Ok(())
    }

    /// Waits for a memtable's rotation instead of queueing more requests for it.
    fn pace(&mut self, engine: &Engine) {
        // To look waits for a flush that ends, so it is done now and then only, until one is full.
        if self.crowded_commits == 0 && self.unmeasured < self.shared.config.memtable_bytes / MEASURES_PER_MEMTABLE {
            return;
        }
        self.unmeasured = 0;
        let mut percent = self.shared.memtable_percent(engine);
        if percent <= 100 {
            self.crowded_commits = 0;
            return;
        }
        self.crowded_commits += 1;
        if percent <= CROWDED_PERCENT && self.crowded_commits <= CROWDED_COMMITS_MAX {
            return;
        }
        // The guard ends the process when this takes too long.
        while percent > 100 {
            std::thread::sleep(PACE);
            percent = self.shared.memtable_percent(engine);
        }
        self.crowded_commits = 0;
    }

    /// A commit's outcome is not known: its engine takes no more. Closes it and opens it again, for the replay to
    /// decide, as often as it takes.
    fn reopen(&mut self, doubt: Doubt) {
        let Doubt { mut reason, steps } = doubt;
        error!(reason, "a commit was not confirmed; the store is being reopened");
        self.refuse(&reason);
        // Whoever is told "unknown" reads again: by then nobody may read what was before the commit in doubt.
        let engine = self.shared.engine.swap(None);
        self.shared.live.clear();
        let fault = StoreError::Unknown(reason.clone());
        steps.into_iter().for_each(|step| step.answer(Some(&fault)));
        self.dispose(engine);
        let mut pause = REOPEN_PAUSES.0;
        while let Err(error) = self.open_again() {
            warn!(%error, "the store cannot be reopened yet");
            reason = error.to_string();
            self.refuse(&reason);
            if self.shared.queue.closing_within(pause) {
                return;
            }
            pause = (pause * 2).min(REOPEN_PAUSES.1);
        }
        info!(sequence = self.sequence, "the store is open again");
        self.shared.queue.resume();
    }

    fn refuse(&mut self, reason: &str) {
        let reason = format!("the store is being reopened after a fault: {reason}");
        let waiting = self.shared.queue.refuse(reason.clone());
        let fault = StoreError::Unavailable(reason);
        for step in self.pending.drain(..).chain(waiting) {
            step.answer(Some(&fault));
        }
    }

    fn open_again(&mut self) -> StoreResult<()> {
        let engine = Engine::open(&start::engine_path(&self.shared.path), &self.shared.config)?;
        match self.resume(&engine) {
            Ok(memory) => {
                self.memory = memory;
                self.shared.vitals.acknowledge(self.sequence);
                // What the commit in doubt changed is not in the feed.
                self.shared.changes.lose();
                self.shared.engine.store(Some(Arc::new(engine)));
                Ok(())
            }
            Err(error) => {
                self.dispose(Some(Arc::new(engine)));
                Err(error)
            }
        }
    }

    /// Checks that nothing acknowledged is missing, that memory can be built, and that a commit works again.
    fn resume(&mut self, engine: &Engine) -> StoreResult<Memory> {
        let found = sequence(engine)?;
        if found < self.sequence {
            let acknowledged = self.sequence;
            return Err(StoreError::Corrupt(format!(
                "commit {acknowledged} was acknowledged, and the replay ends at {found}"
            )));
        }
        let memory = start::memory(engine, self.shared.clock.now())?;
        self.shared.faults.at(Moment::BeforeCommit).map_err(StoreError::Unavailable)?;
        let next = found + 1;
        engine
            .commit(std::iter::once(sequence_put(next)), 1)
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.sequence = next;
        Ok(memory)
    }

    /// Closes the engine: waits for readers, who hold it for moments only, then for its threads.
    fn dispose(&self, engine: Option<Arc<Engine>>) {
        let Some(mut engine) = engine else { return };
        self.shared.vitals.begin();
        loop {
            match Arc::try_unwrap(engine) {
                Ok(alone) => break drop(alone),
                Err(held) => engine = held,
            }
            std::thread::sleep(PACE);
        }
        self.shared.vitals.end();
    }
}

/// The last commit that the engine holds.
pub(crate) fn sequence(engine: &Engine) -> StoreResult<u64> {
    Ok(engine.get(&keys::commit_sequence())?.map(|bytes| decode("commit sequence", &bytes)).transpose()?.unwrap_or(0))
}

/// Counts a commit, in the commit.
pub(crate) fn sequence_put(sequence: u64) -> Put {
    let mut bytes = vec![1];
    // A number cannot fail to be written; the format is that of every value.
    bytes.extend(postcard::to_stdvec(&sequence).unwrap_or_default());
    Put { place: Place::Key(keys::commit_sequence()), value: Some(bytes.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> Box<dyn Step> {
        step(|_| Ok(())).0
    }

    #[test]
    fn a_batch_waits_for_company_under_load_and_a_step_alone_does_not() {
        let hour = Company { delay: Duration::from_secs(3600), min_steps: 2 };
        let (alone, mut pending) = (Queue::new(8, hour), VecDeque::new());
        alone.push(idle()).expect("room");
        assert!(alone.take(&mut pending, 8, 1), "the batch before had one step: it is taken without the hour's wait");
        assert_eq!(pending.len(), 1);
        for _ in 0..2 {
            alone.push(idle()).expect("room");
        }
        pending.clear();
        assert!(alone.take(&mut pending, 8, 2), "as many as before are company enough");

        let moment = Company { delay: Duration::from_secs(1), min_steps: 2 };
        let (queue, mut pending) = (Queue::new(8, moment), VecDeque::new());
        queue.push(idle()).expect("room");
        std::thread::scope(|threads| {
            threads.spawn(|| queue.push(idle()).expect("the queue is free while its batch waits"));
            assert!(queue.take(&mut pending, 8, 3));
        });
        assert_eq!(pending.len(), 2);
    }
}
