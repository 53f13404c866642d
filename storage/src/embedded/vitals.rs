//! What the guard looks at, and the guard: it ends the process when the store stands still. What was acknowledged is
//! safe, and whoever started the process starts it again; a process that hangs helps nobody.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// The process's exit code when the guard ends it.
pub const GUARD_EXIT_CODE: i32 = 70;

/// Memtables or journals past their limit by so much, percent: flushing hangs, and memory would grow without end.
const PERCENT_MAX: u64 = 400;

/// How the store is doing.
pub(crate) struct Vitals {
    begun: Instant,
    busy_since_ms: AtomicU64,
    writer_dead: AtomicBool,
    memtable_percent: AtomicU64,
    journal_percent: AtomicU64,
    acknowledged: AtomicU64,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Vitals {
    /// Idle and well.
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            busy_since_ms: AtomicU64::new(0),
            writer_dead: AtomicBool::new(false),
            memtable_percent: AtomicU64::new(0),
            journal_percent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            stopped: Mutex::new(false),
            stop: Condvar::new(),
        }
    }

    /// Milliseconds since the start, from 1 on: 0 says idle.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Something begins that must end within the commit deadline.
    pub(crate) fn begin(&self) {
        self.busy_since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// It ended.
    pub(crate) fn end(&self) {
        self.busy_since_ms.store(0, Ordering::Relaxed);
    }

    /// Commit `sequence` is durable.
    pub(crate) fn acknowledge(&self, sequence: u64) {
        self.acknowledged.store(sequence, Ordering::Relaxed);
    }

    /// The last commit that is durable.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How full memtables and journals are, percent of their limits.
    pub(crate) fn measured(&self, memtable_percent: u64, journal_percent: u64) {
        self.memtable_percent.store(memtable_percent, Ordering::Relaxed);
        self.journal_percent.store(journal_percent, Ordering::Relaxed);
    }

    /// A value whose drop during a panic says that the writer is dead.
    pub(crate) fn writer_lives(&self) -> WriterLives<'_> {
        WriterLives(self)
    }

    /// Ends the threads that watch and tidy.
    pub(crate) fn stop(&self) {
        *self.stopped.lock() = true;
        self.stop.notify_all();
    }

    /// Waits so long; `true` when it is time to end.
    pub(crate) fn stopped_within(&self, pause: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.stop.wait_for(&mut stopped, pause);
        }
        *stopped
    }

    fn complaint(&self, deadline: Duration) -> Option<String> {
        let busy_since = self.busy_since_ms.load(Ordering::Relaxed);
        let busy = Duration::from_millis(self.now_ms().saturating_sub(busy_since));
        let memtable = self.memtable_percent.load(Ordering::Relaxed);
        let journal = self.journal_percent.load(Ordering::Relaxed);
        if self.writer_dead.load(Ordering::Relaxed) {
            Some("the writer died".into())
        } else if busy_since > 0 && busy > deadline {
            Some(format!("a commit has taken {} ms", busy.as_millis()))
        } else if memtable > PERCENT_MAX {
            Some(format!("a memtable is at {memtable} % of its limit"))
        } else if journal > PERCENT_MAX {
            Some(format!("the journal is at {journal} % of its limit"))
        } else {
            None
        }
    }
}

/// The writer, alive.
pub(crate) struct WriterLives<'a>(&'a Vitals);

impl Drop for WriterLives<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.writer_dead.store(true, Ordering::Relaxed);
        }
    }
}

/// Watches until the store is closed. Touches nothing that could make it wait: neither the engine nor a lock of it.
pub(crate) fn watch(vitals: &Arc<Vitals>, deadline: Duration) {
    let pause = (deadline / 8).clamp(Duration::from_millis(10), Duration::from_millis(250));
    while !vitals.stopped_within(pause) {
        if let Some(reason) = vitals.complaint(deadline) {
            tracing::error!(reason, "the store stands still; the process ends, nothing acknowledged is lost");
            std::process::exit(GUARD_EXIT_CODE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complains_of_what_stands_still_and_of_nothing_else() {
        let vitals = Vitals::new();
        let deadline = Duration::from_secs(10);
        assert_eq!(vitals.complaint(deadline), None);
        vitals.begin();
        assert_eq!(vitals.complaint(deadline), None);
        while vitals.complaint(Duration::ZERO).is_none() {
            std::hint::spin_loop();
        }
        vitals.end();
        vitals.measured(400, 400);
        assert_eq!(vitals.complaint(deadline), None);
        vitals.measured(401, 0);
        assert!(vitals.complaint(deadline).is_some_and(|reason| reason.contains("memtable")));
        vitals.measured(0, 401);
        assert!(vitals.complaint(deadline).is_some_and(|reason| reason.contains("journal")));
    }
}
