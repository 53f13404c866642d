//! Kept connections and known addresses of one thread.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use storage::model::ListingId;

use super::connection::Connection;

/// Never shared between listings: an answer cannot cross from one seller's buyers to another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    pub(super) listing: ListingId,
    pub(super) address: SocketAddr,
    pub(super) is_tls: bool,
}

/// Names and connections that a thread keeps at most, over all sellers.
const NAMES_MAX: usize = 10_000;
const SELLERS_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Pool {
    kept: HashMap<PoolKey, Vec<(Connection, Instant)>>,
    addresses: HashMap<String, (SocketAddr, Instant)>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

impl Pool {
    /// A connection that is still quiet and was not kept longer than `idle_timeout`; the newest first.
    pub(super) fn take(key: &PoolKey, idle_timeout: Duration) -> Option<Connection> {
        POOL.with_borrow_mut(|pool| {
            let kept = pool.kept.get_mut(key)?;
            let now = Instant::now();
            while let Some((connection, since)) = kept.pop() {
                if now.duration_since(since) > idle_timeout {
                    // Those below are older.
                    kept.clear();
                    break;
                }
                if connection.is_quiet() {
                    return Some(connection);
                }
            }
            pool.kept.remove(key);
            None
        })
    }

    /// Keeps a connection whose last answer was read to its proper end.
    pub(super) fn give_back(key: PoolKey, connection: Connection, idle_max: usize) {
        POOL.with_borrow_mut(|pool| {
            if pool.kept.len() >= SELLERS_MAX && !pool.kept.contains_key(&key) {
                pool.kept.clear();
            }
            let kept = pool.kept.entry(key).or_default();
            if kept.len() < idle_max {
                kept.push((connection, Instant::now()));
            }
        });
    }

    pub(super) fn known_address(authority: &str, ttl: Duration) -> Option<SocketAddr> {
        POOL.with_borrow(|pool| {
            pool.addresses.get(authority).filter(|(_, since)| since.elapsed() < ttl).map(|(address, _)| *address)
        })
    }

    pub(super) fn remember_address(authority: &str, address: SocketAddr) {
        POOL.with_borrow_mut(|pool| {
            if pool.addresses.len() >= NAMES_MAX {
                pool.addresses.clear();
            }
            pool.addresses.insert(authority.to_string(), (address, Instant::now()));
        });
    }
}
