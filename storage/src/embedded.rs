//! The embedded backend: one directory, one process, one writer thread, crash-safe. `README.md` of this crate has the
//! keys, the promises and the guard rails on one page.
//!
//! *Never:* answers before the sync, reads the clock by itself, keeps a fact only in memory.

mod backup;
mod catalog;
mod changes;
mod codec;
mod commit;
mod draft;
mod engine;
mod export;
mod history;
mod housekeeping;
mod identity;
mod intents;
mod keys;
mod live;
mod measures;
mod migrations;
mod money;
mod payments;
mod payouts;
mod results;
mod roll_up;
mod sandbox;
mod sealing;
mod spending;
mod start;
mod steps;
mod trust;
mod vitals;
mod work;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

pub use measures::{OPEN_STATES, OPERATIONS};
pub use vitals::GUARD_EXIT_CODE;

use self::{
    changes::ChangeFeed,
    commit::{Company, Queue, Writer},
    draft::{Draft, read_payment},
    engine::Engine,
    keys::Key,
    live::LivePayments,
    measures::{Measures, Operation},
    results::ResultFiles,
    roll_up::RollUps,
    start::{Lock, SideFile},
    vitals::Vitals,
};
use crate::{
    error::{StoreError, StoreResult},
    model::{Clock, Owner, Payment, PaymentId, UnixMillis},
    sealed::Sealer,
    store::{BackupReport, ExportReport, Store},
};

/// Where a test may step in.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// All steps of a batch are decided, nothing is written.
    BeforeCommit,
    /// The batch is durable, nobody knows.
    AfterCommit,
}

/// Called at each moment; may wait; an error is taken for one of the engine's.
#[doc(hidden)]
pub type Interruption = Arc<dyn Fn(Moment) -> Result<(), String> + Send + Sync>;

/// Faults that tests ask for; none by default.
#[doc(hidden)]
#[derive(Clone, Default)]
pub struct Faults {
    /// Called at each moment.
    pub interruption: Option<Interruption>,
    /// Stands in for how full the memtables are, percent; 0: the truth.
    pub memtable_percent: Option<Arc<AtomicU64>>,
}

impl Faults {
    fn at(&self, moment: Moment) -> Result<(), String> {
        self.interruption.as_ref().map_or(Ok(()), |interruption| interruption(moment))
    }
}

/// What the threads and the handle share.
pub(crate) struct Shared {
    config: config::Storage,
    clock: Clock,
    path: PathBuf,
    owner: Owner,
    /// `None` while it is being reopened, and when it is closed. Taken for moments only.
    engine: ArcSwapOption<Engine>,
    live: LivePayments,
    queue: Queue,
    changes: ChangeFeed,
    roll_ups: RollUps,
    files: ResultFiles,
    sealer: Arc<Sealer>,
    vitals: Arc<Vitals>,
    measures: Measures,
    side_file: SideFile,
    lock: Mutex<Option<Lock>>,
    faults: Faults,
}

/// What a caller is told whose writer died over its step.
fn unanswered() -> StoreError {
    StoreError::Unknown("the writer ended before it answered".into())
}

impl Shared {
    fn engine(&self) -> StoreResult<Arc<Engine>> {
        match self.engine.load_full() {
            Some(engine) => Ok(engine),
            None => {
                self.queue.check()?;
                Err(StoreError::Unavailable("the store is being reopened".into()))
            }
        }
    }

    /// Runs a step on the writer's thread; answers when it is durable.
    async fn run<T, F>(&self, operation: Operation, decide: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Draft<'_>) -> StoreResult<T> + Send + 'static,
    {
        let _timing = self.measures.time(operation);
        self.submit(decide)?.await.unwrap_or_else(|_| Err(unanswered()))
    }

    /// As [`Shared::run`], for a thread of our own.
    fn run_blocking<T, F>(&self, operation: Operation, decide: F) -> StoreResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Draft<'_>) -> StoreResult<T> + Send + 'static,
    {
        let _timing = self.measures.time(operation);
        self.submit(decide)?.blocking_recv().unwrap_or_else(|_| Err(unanswered()))
    }

    /// Puts a step into the open batch; its answer comes after the commit.
    fn submit<T, F>(&self, decide: F) -> StoreResult<oneshot::Receiver<StoreResult<T>>>
    where
        T: Send + 'static,
        F: FnOnce(&mut Draft<'_>) -> StoreResult<T> + Send + 'static,
    {
        let (step, answer) = commit::step(decide);
        self.queue.push(step)?;
        Ok(answer)
    }

    /// A payment's latest committed state.
    fn payment(&self, id: PaymentId) -> StoreResult<Option<Arc<Payment>>> {
        match self.live.get(id) {
            Some(payment) => Ok(Some(payment)),
            None => read_payment(&*self.engine()?, id),
        }
    }

    /// A committed value.
    fn read<T: serde::de::DeserializeOwned>(&self, what: &str, key: &Key) -> StoreResult<Option<T>> {
        self.engine()?.get(key)?.map(|bytes| codec::decode(what, &bytes)).transpose()
    }

    fn memtable_percent(&self, engine: &Engine) -> u64 {
        match self.faults.memtable_percent.as_ref().map(|percent| percent.load(Ordering::Relaxed)) {
            None | Some(0) => engine.memtable_percent(),
            Some(percent) => percent,
        }
    }

    fn side_file_write(&self) {
        self.side_file.write(self.vitals.acknowledged());
    }

    fn now(&self) -> UnixMillis {
        self.clock.now()
    }
}

/// The embedded store.
pub struct Embedded {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Embedded {
    /// Opens the store in `config.path`, or makes it.
    ///
    /// # Errors
    /// `Unavailable` when another process has it, its files cannot be reached, or it was sealed with another master
    /// key; `Corrupt` when it is damaged, newer
    /// than this program, or went back.
    pub fn open(config: &config::Storage, clock: Clock) -> StoreResult<Self> {
        Self::open_with(config, clock, Faults::default())
    }

    /// As [`Embedded::open`], with faults.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    #[doc(hidden)]
    pub fn open_with(config: &config::Storage, clock: Clock, faults: Faults) -> StoreResult<Self> {
        let path = config.path.clone();
        let lock = start::lock(&path)?;
        let format = start::format(&path)?;
        let side_file = SideFile::new(&path);
        let engine = Engine::open(&start::engine_path(&path), config)?;
        let sealer = sealing::sealer(&path, &engine, config)?;
        start::migrate(&path, &engine, &sealer, format)?;
        sealing::wipe_if_due(&engine)?;
        side_file.check(commit::sequence(&engine)?)?;
        let (owner, sequence) = start::begin_life(&engine, &clock)?;
        let memory = start::memory(&engine, clock.now())?;
        // Made now, the first result does not wait for it.
        engine.bucket_at(clock.now(), u64::try_from(config.result_bucket.as_millis()).unwrap_or(u64::MAX))?;
        let shared = Arc::new(Shared {
            live: LivePayments::new(config.payment_cache),
            queue: Queue::new(
                config.commit_queue_max,
                Company { delay: config.commit_delay, min_steps: config.commit_delay_steps },
            ),
            changes: ChangeFeed::new(config.changes_max),
            files: ResultFiles::new(start::results_path(&path), config)?,
            sealer: Arc::new(sealer),
            roll_ups: RollUps::default(),
            vitals: Arc::new(Vitals::new()),
            measures: Measures::new(BACKEND),
            engine: ArcSwapOption::from_pointee(engine),
            lock: Mutex::new(Some(lock)),
            config: config.clone(),
            clock,
            path,
            owner,
            side_file,
            faults,
        });
        shared.measure_results(&*shared.engine()?);
        let store = Self { shared: Arc::clone(&shared), threads: Mutex::default() };
        let writer = Writer::new(Arc::clone(&shared), memory, sequence);
        store.spawn("store-writer", move || writer.run())?;
        let (vitals, deadline) = (Arc::clone(&shared.vitals), config.commit_deadline);
        store.spawn("store-guard", move || vitals::watch(&vitals, deadline))?;
        store.spawn("store-tidy", move || housekeeping::run(&shared))?;
        Ok(store)
    }

    /// Whether another process has the store in `path`.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be told.
    pub fn is_taken(path: &std::path::Path) -> StoreResult<bool> {
        start::is_taken(path)
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> StoreResult<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work);
        let thread = thread.map_err(|error| StoreError::Unavailable(format!("no thread for {name}: {error}")))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Drops what is due to be dropped, now; the store does so by itself every few seconds.
    ///
    /// # Errors
    /// As the store's steps.
    #[doc(hidden)]
    pub fn tidy(&self) -> StoreResult<()> {
        housekeeping::round(&self.shared)
    }

    /// How many payments are open, by the place of their state in [`OPEN_STATES`], as the metrics show it now and then.
    ///
    /// # Errors
    /// As the store's reads.
    #[doc(hidden)]
    pub fn open_payments(&self) -> StoreResult<[u32; OPEN_STATES.len()]> {
        housekeeping::count_open(&self.shared)
    }

    /// How many commits this store has seen, in all its lives.
    #[doc(hidden)]
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.shared.vitals.acknowledged()
    }

    /// Ends all threads, in the order in which they need each other, and gives the directory back.
    fn shut(&self) {
        self.shared.queue.close();
        let mut threads = self.threads.lock();
        // The writer is the first; the guard watches it until it has closed the engine.
        for (n, thread) in threads.drain(..).enumerate() {
            drop(thread.join());
            if n == 0 {
                self.shared.vitals.stop();
            }
        }
        self.shared.vitals.stop();
        self.shared.files.close();
        self.shared.lock.lock().take();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shut();
    }
}

const BACKEND: &str = "embedded";

#[async_trait]
impl Store for Embedded {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    fn owner(&self) -> Owner {
        self.shared.owner
    }

    fn check(&self) -> StoreResult<()> {
        self.shared.queue.check()
    }

    async fn backup(&self, into: &Path) -> StoreResult<BackupReport> {
        let (shared, into) = (Arc::clone(&self.shared), into.to_path_buf());
        let (caller, report) = oneshot::channel();
        // A thread of its own: it reads for minutes, and nobody's work may wait for that.
        let thread = std::thread::Builder::new().name("store-backup".into());
        let started = thread.spawn(move || drop(caller.send(shared.backup(&into))));
        started.map_err(|error| StoreError::Unavailable(format!("no thread for the backup: {error}")))?;
        report.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the backup was broken off".into())))
    }

    async fn export(&self, out: mpsc::Sender<Bytes>) -> StoreResult<ExportReport> {
        let shared = Arc::clone(&self.shared);
        let (caller, report) = oneshot::channel();
        // As a backup: it reads for minutes.
        let thread = std::thread::Builder::new().name("store-export".into());
        let started = thread.spawn(move || drop(caller.send(shared.export(out))));
        started.map_err(|error| StoreError::Unavailable(format!("no thread for the export: {error}")))?;
        report.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the export was broken off".into())))
    }

    async fn close(&self) -> StoreResult<()> {
        // Waits for the writer's last sync, which takes moments; there is nothing left to serve meanwhile.
        self.shut();
        Ok(())
    }
}
