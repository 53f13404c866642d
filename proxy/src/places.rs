//! Places for connections: so many in all, and so many from one address that has not shown a valid key yet.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// All places of the public address.
pub struct Places {
    max: usize,
    per_address_max: usize,
    taken: AtomicUsize,
    unknown: Mutex<HashMap<IpAddr, usize>>,
    emptied: Notify,
    open: Gauge,
    refused: Counter,
}

impl Places {
    /// `max` places, `per_address_max` of them for one address without a valid key.
    #[must_use]
    pub fn new(max: usize, per_address_max: usize) -> Arc<Self> {
        describe_gauge!("crochet_connections_open", "Connections of the public address.");
        describe_counter!("crochet_connections_refused_total", "Connections that found no place.");
        Arc::new(Self {
            max,
            per_address_max,
            taken: AtomicUsize::new(0),
            unknown: Mutex::default(),
            emptied: Notify::new(),
            open: gauge!("crochet_connections_open"),
            refused: counter!("crochet_connections_refused_total"),
        })
    }

    /// Takes a place for a connection from `address`. `None`: there is none, and the connection is to be dropped.
    #[must_use]
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network_of(address);
        let is_free = {
            let mut unknown = self.unknown.lock();
            let from_there = unknown.entry(address).or_default();
            // The lock is held, so that the total is not overrun either.
            let is_free = *from_there < self.per_address_max && self.taken.load(Ordering::Relaxed) < self.max;
            if is_free {
                *from_there += 1;
                self.taken.fetch_add(1, Ordering::Relaxed);
            } else if *from_there == 0 {
                unknown.remove(&address);
            }
            is_free
        };
        if !is_free {
            self.refused.increment(1);
            return None;
        }
        self.open.increment(1.0);
        Some(Place { places: self.clone(), address, is_known: AtomicBool::new(false) })
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// Waits until none is taken.
    pub async fn wait_until_empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.taken() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn forget(&self, address: IpAddr) {
        let mut unknown = self.unknown.lock();
        if let Some(count) = unknown.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                unknown.remove(&address);
            }
        }
    }
}

/// Whom an address counts for: of IPv6 it is the network, since one host has all addresses of it.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// A connection's place; free again when dropped.
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
    is_known: AtomicBool,
}

impl Place {
    /// The connection showed a valid key: it no longer counts against its address.
    pub fn caller_known(&self) {
        // A look first: a kept connection says so with each request.
        if !self.is_known.load(Ordering::Relaxed) && !self.is_known.swap(true, Ordering::Relaxed) {
            self.places.forget(self.address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_known.load(Ordering::Relaxed) {
            self.places.forget(self.address);
        }
        self.places.open.decrement(1.0);
        if self.places.taken.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.places.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn d1_connections_are_capped_in_all_and_by_address() {
        let places = Places::new(4, 2);
        let [here, there] = [1, 2].map(|last| IpAddr::from(Ipv4Addr::new(127, 0, 0, last)));
        let first = places.take(here).expect("free");
        let _second = places.take(here).expect("free");
        assert!(places.take(here).is_none(), "two without a key");
        let other = places.take(there).expect("another address");
        first.caller_known();
        first.caller_known();
        let third = places.take(here).expect("one has shown a key");
        assert!(places.take(there).is_none(), "four in all");
        drop(first);
        assert!(places.take(here).is_none(), "the place of a known caller is not the address's");
        drop((other, third));
        assert_eq!(places.taken(), 1);
        drop(_second);
        places.wait_until_empty().await;
        assert!(places.unknown.lock().is_empty());
    }

    #[test]
    fn d1_a_host_counts_once_however_many_addresses_it_has() {
        let places = Places::new(9, 1);
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let _first = places.take(address("2001:db8::1")).expect("free");
        assert!(places.take(address("2001:db8::2")).is_none(), "the same network");
        let _other = places.take(address("2001:db8:0:1::1")).expect("another network");
        let _old = places.take(address("1.2.3.4")).expect("free");
        assert!(places.take(address("::ffff:1.2.3.4")).is_none(), "the same address, carried otherwise");
    }
}
