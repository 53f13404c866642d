//! The latest committed state of payments, bounded. Only the writer puts something in, after the commit that made it
//! durable, so what is found here is never older than the store and never undurable. Who finds nothing reads the
//! engine, and does not put what it read here: it might overwrite a later state.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::RwLock;

use crate::model::{Payment, PaymentId, ProfileId, UnixMillis};

const SHARDS: usize = 16;

/// Payments by id, in shards; each drops its oldest that nobody asked for since it came up last.
pub(crate) struct LivePayments {
    shards: [RwLock<Shard>; SHARDS],
    shard_max: usize,
}

#[derive(Default)]
struct Shard {
    held: HashMap<PaymentId, Held>,
    order: VecDeque<PaymentId>,
}

struct Held {
    payment: Arc<Payment>,
    asked: AtomicBool,
}

impl LivePayments {
    /// Room for about `max` payments.
    pub(crate) fn new(max: usize) -> Self {
        Self { shards: Default::default(), shard_max: max.div_ceil(SHARDS).max(1) }
    }

    fn shard(&self, id: PaymentId) -> Option<&RwLock<Shard>> {
        // The last byte of an id is random, and so spreads ids that were made together.
        let [.., last] = id.bytes();
        self.shards.get(usize::from(last) % SHARDS)
    }

    /// The latest committed state, when it is held.
    pub(crate) fn get(&self, id: PaymentId) -> Option<Arc<Payment>> {
        let shard = self.shard(id)?.read();
        let held = shard.held.get(&id)?;
        held.asked.store(true, Ordering::Relaxed);
        Some(Arc::clone(&held.payment))
    }

    /// Puts a committed state in; the writer only.
    pub(crate) fn put(&self, payment: Arc<Payment>) {
        let id = payment.quote.id;
        let Some(shard) = self.shard(id) else { return };
        let mut shard = shard.write();
        if let Some(held) = shard.held.get_mut(&id) {
            held.payment = payment;
            return;
        }
        while shard.held.len() >= self.shard_max {
            let Some(oldest) = shard.order.pop_front() else { break };
            match shard.held.get(&oldest) {
                Some(held) if held.asked.swap(false, Ordering::Relaxed) => shard.order.push_back(oldest),
                _ => {
                    shard.held.remove(&oldest);
                }
            }
        }
        shard.held.insert(id, Held { payment, asked: AtomicBool::new(false) });
        shard.order.push_back(id);
    }

    /// Forgets a payment that is gone; the writer only.
    pub(crate) fn remove(&self, id: PaymentId) {
        if let Some(shard) = self.shard(id) {
            shard.write().held.remove(&id);
        }
    }

    /// Forgets everything: what is held may be older than what a replay finds.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            *shard.write() = Shard::default();
        }
    }
}

/// How many quotes each buyer has open; each counts until the second after its expiry.
#[derive(Default)]
pub(crate) struct OpenQuotes {
    by_second: BTreeMap<u64, HashMap<ProfileId, u32>>,
    by_buyer: HashMap<ProfileId, u32>,
}

impl OpenQuotes {
    /// One more, until `expires_at`.
    pub(crate) fn open(&mut self, buyer: ProfileId, expires_at: UnixMillis) {
        *self.by_second.entry(expires_at.0.div_ceil(1000)).or_default().entry(buyer).or_default() += 1;
        *self.by_buyer.entry(buyer).or_default() += 1;
    }

    /// One less: it was paid.
    pub(crate) fn close(&mut self, buyer: ProfileId, expires_at: UnixMillis) {
        // One that has expired was taken off already.
        let Some(second) = self.by_second.get_mut(&expires_at.0.div_ceil(1000)) else { return };
        if take(second, buyer, 1) > 0 {
            take(&mut self.by_buyer, buyer, 1);
        }
    }

    /// How many this buyer has open now.
    pub(crate) fn count(&mut self, buyer: ProfileId, now: UnixMillis) -> u32 {
        while let Some(second) = self.by_second.first_entry().filter(|second| second.key() * 1000 <= now.0) {
            for (buyer, count) in second.remove() {
                take(&mut self.by_buyer, buyer, count);
            }
        }
        self.by_buyer.get(&buyer).copied().unwrap_or(0)
    }
}

/// Takes up to `count` off; returns how many were there to take.
fn take(counts: &mut HashMap<ProfileId, u32>, buyer: ProfileId, count: u32) -> u32 {
    let Some(held) = counts.get_mut(&buyer) else { return 0 };
    let taken = count.min(*held);
    *held -= taken;
    if *held == 0 {
        counts.remove(&buyer);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FeeRate, ListingId, Micros, OriginCurrency, Quote, Rail};

    fn payment(n: u8) -> Arc<Payment> {
        let now = UnixMillis(u64::from(n));
        // The same last byte: all in one shard.
        let mut id = PaymentId::mint(now).bytes();
        id[15] = 0;
        Arc::new(Payment::quoted(Quote {
            id: PaymentId::from_bytes(id),
            buyer: ProfileId::mint(now),
            seller: ProfileId::mint(now),
            listing: ListingId::mint(now),
            body_sha256: [n; 32],
            price: Micros(1),
            fee_rate: FeeRate(1),
            currency: OriginCurrency::Sol,
            rail: Rail::Sandbox,
            provider_ref: String::new(),
            terms: Vec::new(),
            idempotency_key: None,
            created_at: now,
            expires_at: now,
        }))
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_asked_for() {
        let live = LivePayments::new(SHARDS * 4);
        let payments: Vec<_> = (0..20).map(payment).collect();
        for next in &payments {
            live.put(Arc::clone(next));
            assert!(live.get(payments[0].quote.id).is_some(), "it is asked for all the time");
        }
        let held = payments.iter().filter(|payment| live.get(payment.quote.id).is_some()).count();
        assert_eq!(held, 4);
        assert!(live.get(payments[19].quote.id).is_some(), "the newest is there");
        live.remove(payments[0].quote.id);
        assert!(live.get(payments[0].quote.id).is_none());
        live.clear();
        assert!(payments.iter().all(|payment| live.get(payment.quote.id).is_none()));
    }

    #[test]
    fn quotes_count_until_paid_or_expired() {
        let mut open = OpenQuotes::default();
        let (a, b) = (ProfileId::mint(UnixMillis(1)), ProfileId::mint(UnixMillis(2)));
        open.open(a, UnixMillis(10_000));
        open.open(a, UnixMillis(10_500));
        open.open(b, UnixMillis(20_000));
        assert_eq!((open.count(a, UnixMillis(0)), open.count(b, UnixMillis(0))), (2, 1));
        open.close(a, UnixMillis(10_500));
        open.close(a, UnixMillis(10_500));
        assert_eq!(open.count(a, UnixMillis(9_999)), 1);
        assert_eq!(open.count(a, UnixMillis(10_000)), 0);
        open.close(a, UnixMillis(10_000));
        assert_eq!(open.count(b, UnixMillis(19_000)), 1);
        assert_eq!(open.count(b, UnixMillis(20_000)), 0);
        assert!(open.by_second.is_empty() && open.by_buyer.is_empty());
    }
}
