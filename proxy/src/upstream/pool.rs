//! Kept connections: one pool a thread, one shelf in it a listing.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actors::seller::Target;
use metrics::{Gauge, describe_gauge, gauge};
use parking_lot::Mutex;
use storage::model::ListingId;

use super::connection::Connection;

/// How often what has been kept too long is let go.
const SWEEP: Duration = Duration::from_secs(1);

/// The pools of one client: each thread has its own, and only ever takes from that.
pub(super) struct Pools {
    /// Tells clients apart (a process has one; tests have many).
    client: u64,
    bounds: Bounds,
}

#[derive(Clone)]
struct Bounds {
    idle_timeout: Duration,
    shelf_max: usize,
    idle: Gauge,
}

thread_local! {
    static POOL: RefCell<Option<(u64, Arc<Pool>)>> = const { RefCell::new(None) };
}

/// One thread's connections. The lock is this thread's nearly alone: only the sweep takes it beside.
struct Pool {
    shelves: Mutex<HashMap<ListingId, Shelf>>,
    bounds: Bounds,
    /// Whether somebody sweeps.
    is_swept: Mutex<bool>,
}

/// A listing's connections, all to one place. Never shared between listings: an answer cannot cross from one seller's
/// buyers to another's.
struct Shelf {
    target: Arc<Target>,
    kept: Vec<(Connection, Instant)>,
}

/// Where a connection of one target comes from and goes to.
pub(super) struct Home {
    pool: Arc<Pool>,
    target: Arc<Target>,
}

impl Pools {
    pub(super) fn new(idle_timeout: Duration, shelf_max: usize) -> Self {
        static CLIENTS: AtomicU64 = AtomicU64::new(0);
        describe_gauge!("crochet_upstream_connections", "Connections to sellers, by state.");
        let idle = gauge!("crochet_upstream_connections", "state" => "idle");
        let client = CLIENTS.fetch_add(1, Ordering::Relaxed);
        Self { client, bounds: Bounds { idle_timeout, shelf_max, idle } }
    }

    /// This thread's place for connections to a target.
    pub(super) fn home(&self, target: &Arc<Target>) -> Home {
        let pool = POOL.with_borrow_mut(|slot| match slot {
            Some((client, pool)) if *client == self.client => pool.clone(),
            _ => {
                let (shelves, is_swept) = (Mutex::default(), Mutex::default());
                let pool = Arc::new(Pool { shelves, bounds: self.bounds.clone(), is_swept });
                *slot = Some((self.client, pool.clone()));
                pool
            }
        });
        Home { pool, target: target.clone() }
    }
}

impl Home {
    /// A connection that is still quiet and was not kept too long; the newest first.
    pub(super) fn take(&self, now: Instant) -> Option<Connection> {
        let mut shelves = self.pool.shelves.lock();
        let shelf = shelves.get_mut(&self.target.listing)?;
        // The endpoint has moved: what leads to the old place is of no use.
        if !Arc::ptr_eq(&shelf.target, &self.target) && shelf.target != self.target {
            self.pool.let_go(shelf.kept.len());
            shelves.remove(&self.target.listing);
            return None;
        }
        while let Some((connection, since)) = shelf.kept.pop() {
            self.pool.let_go(1);
            if now.duration_since(since) <= self.pool.bounds.idle_timeout && connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its proper end.
    pub(super) fn keep(self, mut connection: Connection) {
        connection.tidy();
        {
            let mut shelves = self.pool.shelves.lock();
            let shelf = shelves
                .entry(self.target.listing)
                .or_insert_with(|| Shelf { target: self.target.clone(), kept: Vec::new() });
            if shelf.kept.len() >= self.pool.bounds.shelf_max || shelf.target != self.target {
                return;
            }
            shelf.kept.push((connection, Instant::now()));
        }
        self.pool.bounds.idle.increment(1.0);
        self.pool.see_that_it_is_swept();
    }
}

impl Pool {
    fn let_go(&self, connections: usize) {
        self.bounds.idle.decrement(f64::from(u32::try_from(connections).unwrap_or(u32::MAX)));
    }

    /// A listing that is not called again would keep its connections for ever. The sweep ends when there is nothing
    /// left to sweep, and with its runtime.
    fn see_that_it_is_swept(self: &Arc<Self>) {
        {
            let mut is_swept = self.is_swept.lock();
            if *is_swept {
                return;
            }
            *is_swept = true;
        }
        let sweep = Sweep(Arc::downgrade(self));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = sweep.0.upgrade() else { return };
                if pool.sweep() {
                    return;
                }
            }
        });
    }

    /// Whether nothing is left.
    fn sweep(&self) -> bool {
        let now = Instant::now();
        let mut gone = 0;
        let mut shelves = self.shelves.lock();
        shelves.retain(|_, shelf| {
            let before = shelf.kept.len();
            shelf.kept.retain(|(_, since)| now.duration_since(*since) <= self.bounds.idle_timeout);
            gone += before - shelf.kept.len();
            !shelf.kept.is_empty()
        });
        self.let_go(gone);
        shelves.is_empty()
    }
}

/// Marks a pool as no longer swept when the task that sweeps it ends, however it ends.
struct Sweep(Weak<Pool>);

impl Drop for Sweep {
    fn drop(&mut self) {
        if let Some(pool) = self.0.upgrade() {
            *pool.is_swept.lock() = false;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let kept = self.shelves.get_mut().values().map(|shelf| shelf.kept.len()).sum();
        self.let_go(kept);
    }
}
