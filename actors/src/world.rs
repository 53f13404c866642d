//! What every part of this crate shares: the store, the rails, the clock, the gates, and the threads that actors live
//! on.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use actix::Actor;
use config::Config;
use dashmap::DashMap;
use metrics::Counter;
use storage::{
    Store,
    model::{Clock, ListingId},
};
use tokio::sync::oneshot;

use crate::{
    history::RowWriter,
    listing::{Gate, ListingActor},
    payments::Rails,
    refusal::{Code, Refusal},
};

pub(crate) struct World {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) rails: Rails,
    pub(crate) rows: RowWriter,
    pub(crate) gates: DashMap<ListingId, Arc<Gate>>,
    pub(crate) arbiters: Vec<actix_rt::ArbiterHandle>,
    messages: Counter,
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
        let messages = metrics::counter!("crochet_actor_messages_total");
        Self { config, store, clock, rails, rows, gates: DashMap::new(), arbiters, messages }
    }

    pub(crate) fn count_message(&self) {
        self.messages.increment(1);
    }

    pub(crate) fn forget_gate(&self, id: ListingId) {
        self.gates.remove(&id);
    }

    fn arbiter(&self, id: ListingId) -> Option<&actix_rt::ArbiterHandle> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let place = hasher.finish() % u64::try_from(self.arbiters.len().max(1)).unwrap_or(1);
        self.arbiters.get(usize::try_from(place).unwrap_or_default())
    }

    /// Starts a gate's actor when there is none.
    ///
    /// # Errors
    /// `ShuttingDown` when the threads that actors live on are gone.
    pub(crate) async fn ensure_actor(self: &Arc<Self>, gate: &Arc<Gate>) -> Result<(), Refusal> {
        if gate.mailbox.lock().is_some() {
            return Ok(());
        }
        let (tell, told) = oneshot::channel();
        let actor = ListingActor::new(gate.clone(), self.clone());
        let started = self.arbiter(gate.id()).is_some_and(|arbiter| {
            arbiter.spawn_fn(move || {
                let _ = tell.send(actor.start());
            })
        });
        let fresh = match told.await {
            Ok(fresh) if started => fresh,
            _ => return Err(Code::Overloaded.into()),
        };
        // Of two that were started at once, the one that is not kept stops, for its only address is dropped here.
        gate.mailbox.lock().get_or_insert(fresh);
        Ok(())
    }
}
