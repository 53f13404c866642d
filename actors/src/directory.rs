//! From an id or a slug to a listing's gate: read on the first call, kept, refreshed when it changes. A listing that
//! does not exist costs no actor, and no read after the first.

use std::sync::Arc;

use dashmap::DashMap;
use storage::model::{ListingId, UnixMillis};

use crate::{
    bound::make_room,
    listing::{Gate, ListingHandle, Mailbox, Question, ask},
    refusal::{Code, Refusal},
    world::World,
};

/// Longest slug or id that is looked up at all.
const NAME_MAX: usize = 160;

/// The directory of this node.
pub struct Directory {
    world: Arc<World>,
    slugs: DashMap<String, ListingId>,
    unknown: DashMap<String, UnixMillis>,
}

impl Directory {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, slugs: DashMap::new(), unknown: DashMap::new() }
    }

    /// The listing with this id or slug.
    ///
    /// # Errors
    /// `ListingNotFound`, `StoreUnavailable`, `Overloaded`.
    pub async fn listing(&self, name: &str) -> Result<ListingHandle, Refusal> {
        let id = name.parse::<ListingId>().ok().or_else(|| self.slugs.get(name).map(|id| *id));
        match id.and_then(|id| self.world.gates.get(&id).map(|gate| gate.clone())) {
            Some(gate) if gate.is_stale() => self.renewed(gate).await,
            Some(gate) => Ok(ListingHandle::new(self.world.clone(), gate)),
            None => self.look_up(name).await,
        }
    }

    /// A gate whose settings may be old, with new ones. It stays the same gate: its calls, its circuit and its payments
    /// in flight are not old.
    async fn renewed(&self, gate: Arc<Gate>) -> Result<ListingHandle, Refusal> {
        let Some(offer) = self.world.store.listing_get(gate.id()).await? else {
            self.world.forget_gate(&gate);
            return Err(Code::NotFound.into());
        };
        gate.publish(offer);
        Ok(ListingHandle::new(self.world.clone(), gate))
    }

    async fn look_up(&self, name: &str) -> Result<ListingHandle, Refusal> {
        let now = self.world.clock.now();
        if name.len() > NAME_MAX || self.unknown.get(name).is_some_and(|until| now < *until) {
            return Err(Code::NotFound.into());
        }
        let found = match name.parse::<ListingId>() {
            Ok(id) => self.world.store.listing_get(id).await?,
            Err(_) => self.world.store.listing_by_slug(name).await?,
        };
        let Some(offer) = found else {
            self.remember_unknown(name, now);
            return Err(Code::NotFound.into());
        };
        if offer.listing.slug == name {
            if self.slugs.len() >= self.world.config.actors.gates_max {
                make_room(&self.slugs, self.world.config.actors.gates_max);
            }
            self.slugs.insert(name.to_string(), offer.listing.id);
        }
        let gate = self.world.gate_of(offer, now)?;
        Mailbox::open(&self.world, &gate);
        Ok(ListingHandle::new(self.world.clone(), gate))
    }

    fn remember_unknown(&self, name: &str, now: UnixMillis) {
        let knobs = &self.world.config.actors;
        if self.unknown.len() >= knobs.unknown_listings_max {
            make_room(&self.unknown, knobs.unknown_listings_max);
        }
        self.unknown.insert(name.to_string(), now.plus(knobs.unknown_listings_ttl));
    }

    /// How many names are known not to exist.
    pub(crate) fn unknown_names(&self) -> usize {
        self.unknown.len()
    }

    /// A listing changed: what is kept of it is read anew.
    pub(crate) async fn changed(&self, id: ListingId) {
        self.unknown.clear();
        let gate = self.world.gates.get(&id).map(|gate| gate.clone());
        let Some(gate) = gate else { return };
        if ask(&self.world, &gate, Question::Refresh).await.is_err() {
            // No actor to ask: the next call reads it from the store.
            gate.mark_stale();
        }
    }

    /// Believes nothing any more: the next calls read from the store.
    pub(crate) fn forget_all(&self) {
        self.unknown.clear();
        self.slugs.clear();
        for gate in &self.world.gates {
            gate.mark_stale();
        }
    }
}
