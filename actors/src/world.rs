//! What every part of this crate shares: the store, the rails, the clock, the gates, and the threads that actors live
//! on.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use config::Config;
use dashmap::DashMap;
use storage::{
    Store,
    model::{Clock, ListingId, Offer, Quote, UnixMillis},
};

use crate::{
    history::RowWriter,
    listing::{Flights, Gate},
    meters::Meters,
    payments::{Checked, PaymentProvider, Rails},
    refusal::{Code, Refusal},
};

/// Who has a gate that nobody uses: the map, and its actor if it has one.
const IDLE_OWNERS: usize = 2;
/// When a node whose every gate is in use may have room for another.
const CROWDED_PAUSE: Duration = Duration::from_secs(5);

pub(crate) struct World {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) rails: Rails,
    pub(crate) rows: RowWriter,
    pub(crate) gates: DashMap<ListingId, Arc<Gate>>,
    pub(crate) arbiters: Vec<actix_rt::ArbiterHandle>,
    pub(crate) meters: Arc<Meters>,
    /// Payments in flight by listing. They belong to requests, not to a gate: a gate that goes and comes back finds
    /// those that are still under way, so that none is worked on twice.
    flights: DashMap<ListingId, Weak<Flights>>,
}

impl World {
    pub(crate) fn new(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        clock: Clock,
        rails: Rails,
        rows: RowWriter,
        arbiters: Vec<actix_rt::ArbiterHandle>,
    ) -> Self {
        let meters = Arc::new(Meters::new());
        let (gates, flights) = (DashMap::new(), DashMap::new());
        Self { config, store, clock, rails, rows, gates, arbiters, meters, flights }
    }

    /// What the payment's rail says of it now, or another on which it was paid; timed.
    ///
    /// # Errors
    /// `PaymentProviderUnavailable`.
    pub(crate) async fn check_rail(&self, quote: &Quote) -> Result<Checked, Refusal> {
        let found = self.check_one(self.rails.of(quote.rail)?, quote).await;
        if matches!(found, Ok(Checked::Settled(_))) {
            return found;
        }
        for provider in self.rails.others(quote) {
            // What this rail cannot tell the buyer's own rail still can.
            if let Ok(Checked::Settled(record)) = self.check_one(provider, quote).await
                && record.payee == provider.payee_of(quote)
            {
                return Ok(Checked::Settled(record));
            }
        }
        found
    }

    /// What one rail says of the payment now; timed.
    ///
    /// # Errors
    /// `PaymentProviderUnavailable`.
    pub(crate) async fn check_one(
        &self,
        provider: &Arc<dyn PaymentProvider>,
        quote: &Quote,
    ) -> Result<Checked, Refusal> {
        let began = Instant::now();
        let found = provider.check(quote).await;
        self.meters.verified(provider.rail(), began.elapsed());
        Ok(found?)
    }

    /// The gate of a listing: the one that is there, or a new one.
    ///
    /// # Errors
    /// `Overloaded` when all gates that there is room for are in use.
    pub(crate) fn gate_of(&self, offer: Offer, now: UnixMillis) -> Result<Arc<Gate>, Refusal> {
        let id = offer.listing.id;
        let max = self.config.actors.gates_max;
        if self.gates.len() >= max && !self.make_room(max) && !self.gates.contains_key(&id) {
            return Err(Refusal::from(Code::Overloaded).retry_about(CROWDED_PAUSE));
        }
        let flights = self.flights_of(id);
        let new = || Arc::new(Gate::new(offer, &self.config.actors, flights, self.meters.clone(), now));
        Ok(self.gates.entry(id).or_insert_with(new).clone())
    }

    fn flights_of(&self, id: ListingId) -> Arc<Flights> {
        if self.flights.len() >= self.config.actors.gates_max {
            self.flights.retain(|_, flights| flights.strong_count() > 0);
        }
        let mut kept = self.flights.entry(id).or_default();
        if let Some(flights) = kept.upgrade() {
            return flights;
        }
        let flights = Arc::default();
        *kept = Arc::downgrade(&flights);
        flights
    }

    /// Lets go of about a tenth of the gates, of those that nobody uses the ones unused for longest. `false`: all are
    /// in use.
    fn make_room(&self, max: usize) -> bool {
        let is_unused = |gate: &Arc<Gate>| Arc::strong_count(gate) <= IDLE_OWNERS && !gate.is_busy();
        let found = self.gates.iter().filter(|gate| is_unused(gate)).map(|gate| (gate.idle_since(), gate.id()));
        let mut unused: Vec<(UnixMillis, ListingId)> = found.collect();
        unused.sort_unstable();
        unused.truncate(self.gates.len().saturating_sub(max) + max / 10 + 1);
        let mut gone = 0;
        for (_, id) in unused {
            if let Some((_, gate)) = self.gates.remove_if(&id, |_, gate| is_unused(gate)) {
                gate.mailbox.retire();
                gone += 1;
            }
        }
        gone > 0
    }

    /// An idle listing gives up its gate. `false`: somebody has begun to use it.
    pub(crate) fn let_go(&self, gate: &Arc<Gate>) -> bool {
        let is_it = |kept: &Arc<Gate>| Arc::ptr_eq(kept, gate);
        let is_unused = |kept: &Arc<Gate>| Arc::strong_count(kept) <= IDLE_OWNERS && !kept.is_busy();
        self.gates.remove_if(&gate.id(), |_, kept| is_it(kept) && is_unused(kept)).is_some()
            || !self.gates.get(&gate.id()).is_some_and(|kept| is_it(&kept))
    }

    /// A listing is no more. Calls under way end as they began.
    pub(crate) fn forget_gate(&self, gate: &Arc<Gate>) {
        self.gates.remove_if(&gate.id(), |_, kept| Arc::ptr_eq(kept, gate));
        gate.mailbox.retire();
    }

    /// The thread that a listing's actor lives on.
    pub(crate) fn arbiter(&self, id: ListingId) -> Option<&actix_rt::ArbiterHandle> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let place = hasher.finish() % u64::try_from(self.arbiters.len().max(1)).unwrap_or(1);
        self.arbiters.get(usize::try_from(place).unwrap_or_default())
    }
}
