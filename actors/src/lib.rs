//! The verbs of Crochet Gateway: who decides.
//!
//! [`Actors::start`] starts the threads that listing actors live on and returns the one handle that both doors hold:
//! [`Actors::keys`] (who calls), [`Actors::limits`] (how often), [`Actors::directory`] (what is called, and the
//! payment's way from quote to completed). [`refusal`] holds every public code once.
//!
//! *Never:* speaks HTTP to a buyer, names a storage backend, or shows an actor or an address to another crate.

mod bound;
mod changes;
mod directory;
pub mod endpoint_test;
mod history;
pub mod keys;
pub mod limiter;
pub mod listing;
mod meters;
pub mod outcome;
pub mod payments;
pub mod refusal;
pub mod scores;
pub mod seller;
mod sweep;
pub mod vetting;
mod view;
pub mod wallets;
mod world;

use std::{
    sync::{Arc, mpsc},
    thread,
};

use actix_rt::{Arbiter, ArbiterHandle, System};
use config::Config;
use serde_json::Value;
use storage::{
    Store, StoreError,
    model::{Clock, Evidence, ListingId, Payment},
};

pub use directory::Directory;
use history::RowWriter;
use keys::{Caller, Keys};
use limiter::Limiter;
use listing::{FreeRight, Permit};
use payments::{
    Rails,
    relay::Relay,
    sandbox::Sandbox,
    x402::{X402, response},
};
use refusal::{Code, Refusal};
use seller::SellerClient;
use tokio::sync::Notify;

pub use view::{Busy, Observed};
use world::World;

/// Starting failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The threads that actors live on could not be started.
    #[error("the actor threads could not be started")]
    Threads,
    /// Claims of an earlier life could not be resolved.
    #[error("recovery failed: {0}")]
    Recovery(#[from] StoreError),
    /// A payment rail cannot be set up.
    #[error("a payment rail cannot be set up: {0}")]
    Rail(#[from] std::io::Error),
}

/// The one handle on everything that decides. Clones share it.
#[derive(Clone)]
pub struct Actors(Arc<Inner>);

struct Inner {
    world: Arc<World>,
    keys: Keys,
    limiter: Arc<Limiter>,
    directory: Directory,
    seller: Arc<dyn SellerClient>,
    recompute: Notify,
    system: System,
}

/// What `/health` tells.
#[derive(Clone, Debug)]
pub struct Health {
    /// Why the store would not confirm a step now; `None` when it would.
    pub store: Option<String>,
    /// Whether any payment rail is on.
    pub has_rail: bool,
    /// Whether the actor threads live.
    pub has_actors: bool,
}

impl Actors {
    /// Starts the actor threads, resolves claims of this node's earlier lives, and follows the change feed. `site` is
    /// the public URL without a slash at its end.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        clock: Clock,
        seller: Arc<dyn SellerClient>,
        site: String,
    ) -> Result<Self, StartError> {
        let threads = start_threads(config.actors.arbiters)?;
        Self::start_on(threads, config, store, clock, (seller, site)).await
    }

    /// As [`Actors::start`], on the calling thread's own system: whoever runs it decides the order of all that happens.
    ///
    /// # Errors
    /// [`StartError`].
    #[doc(hidden)]
    pub async fn start_here(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        clock: Clock,
        seller: Arc<dyn SellerClient>,
        site: String,
    ) -> Result<Self, StartError> {
        let here = (System::try_current().ok_or(StartError::Threads)?, vec![Arbiter::current()]);
        Self::start_on(here, config, store, clock, (seller, site)).await
    }

    async fn start_on(
        (system, arbiters): (System, Vec<ArbiterHandle>),
        config: Arc<Config>,
        store: Arc<dyn Store>,
        clock: Clock,
        (seller, site): (Arc<dyn SellerClient>, String),
    ) -> Result<Self, StartError> {
        let (rows, writing) = RowWriter::new(store.clone());
        let background = arbiters.first().ok_or(StartError::Threads)?.clone();
        background.spawn(writing);
        let sandbox = config.payments.sandbox.enabled;
        let sandbox = sandbox.then(|| Arc::new(Sandbox::new(store.clone(), clock.clone(), &config.payments)));
        let relay = match config.payments.relay.enabled {
            true => Some(Arc::new(Relay::new(store.clone(), clock.clone(), &config.payments)?)),
            false => None,
        };
        let x402 = match config.payments.x402.enabled {
            true => Some(Arc::new(X402::new(store.clone(), clock.clone(), &config.payments)?)),
            false => None,
        };
        let rails = Rails::new(sandbox, relay, x402, config.payments.default_rail, site);
        let limiter = Arc::new(Limiter::new(&config));
        let keys = Keys::new(store.clone(), clock.clone(), limiter.clone(), &config.actors);
        let world = Arc::new(World::new(config, store, clock, rails, rows, arbiters));
        recover(&world).await?;
        background.spawn(sweep::run(world.clone()));
        let directory = Directory::new(world.clone());
        let recompute = Notify::new();
        let actors = Self(Arc::new(Inner { world, keys, limiter, directory, seller, recompute, system }));
        background.spawn(changes::follow(actors.clone()));
        let noting = actors.clone();
        background.spawn(async move { noting.keys().keep_writing_uses().await });
        Ok(actors)
    }

    /// Who calls.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// How often.
    #[must_use]
    pub fn limits(&self) -> &Limiter {
        &self.0.limiter
    }

    /// What is called.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.0.directory
    }

    /// The client that sends requests to sellers.
    #[must_use]
    pub fn seller(&self) -> &Arc<dyn SellerClient> {
        &self.0.seller
    }

    /// Where everything is kept.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.world.store
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.world.clock
    }

    /// The sandbox provider's own side; `None` when it is off.
    #[must_use]
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.0.world.rails.sandbox().map(AsRef::as_ref)
    }

    /// What the 402's `data.payment` and the payment's own page show.
    #[must_use]
    pub fn payment_view(&self, payment: &Payment) -> Value {
        self.0.world.rails.view(payment)
    }

    /// A notice of Relay's that something became of a request: no evidence, but a reason to look at Relay's own record,
    /// and to record what is there: money that came, and money that went back.
    ///
    /// # Errors
    /// `NotFound` when that rail is off, `Forbidden` when Relay did not sign it, `PaymentProviderUnavailable` and
    /// `StoreUnavailable`: Relay sends it again.
    pub async fn relay_notice(&self, timestamp: &str, signature: &str, body: &[u8]) -> Result<(), Refusal> {
        let world = &self.0.world;
        let relay = world.rails.relay().ok_or(Code::NotFound)?;
        let Some(name) = relay.noticed(timestamp, signature, body)? else { return Ok(()) };
        let Some(payment) = world.store.payment_by_proof(&name).await? else { return Ok(()) };
        sweep::look_again(world, payment.quote.id).await
    }

    /// How calls are paid over x402; `None` when that rail is off.
    #[must_use]
    pub fn x402_terms(&self) -> Option<Value> {
        self.0.world.rails.x402().map(|x402| x402.terms())
    }

    /// The value of `PAYMENT-RESPONSE` for a call to this listing that a transfer paid for; a signed receipt goes with it
    /// once it `is_delivered`, where receipts are signed.
    #[must_use]
    pub fn payment_response(&self, evidence: &Evidence, listing: ListingId, is_delivered: bool) -> Option<String> {
        let rails = &self.0.world.rails;
        let x402 = rails.x402().filter(|_| is_delivered);
        response(evidence, x402.and_then(|x402| x402.attested(evidence, listing, rails.site())))
    }

    /// The right to call a free listing, for a call that was admitted.
    #[must_use]
    pub fn free_right(&self, permit: &Permit, caller: &Caller, request_bytes: u64) -> FreeRight {
        FreeRight::new(self.0.world.clone(), permit, caller.profile.id, request_bytes)
    }

    /// A listing's circuit on this node, in the wire's word; closed when nobody called it here.
    #[must_use]
    pub fn circuit(&self, id: ListingId) -> &'static str {
        let now = self.clock().now();
        self.0.world.gates.get(&id).map_or("closed", |gate| gate.circuit(now).name())
    }

    /// Asks for the nightly pass over all scores now; whoever makes it waits in [`Actors::recompute_asked`].
    pub fn recompute_scores(&self) {
        self.0.recompute.notify_one();
    }

    /// Waits until somebody asks for all scores to be made anew.
    pub async fn recompute_asked(&self) {
        self.0.recompute.notified().await;
    }

    /// How things stand.
    #[must_use]
    pub fn health(&self) -> Health {
        let world = &self.0.world;
        Health {
            store: world.store.check().err().map(|error| error.to_string()),
            has_rail: world.rails.default().is_ok(),
            has_actors: world.arbiters.iter().all(ArbiterHandle::alive),
        }
    }

    /// Stops the actor threads. Calls must have ended before.
    pub fn stop(&self) {
        for arbiter in &self.0.world.arbiters {
            arbiter.stop();
        }
        self.0.system.stop();
    }

    pub(crate) fn forget_all(&self) {
        self.0.keys.forget_all();
        self.0.directory.forget_all();
    }
}

/// One thread with the system, and one for each arbiter.
fn start_threads(count: usize) -> Result<(System, Vec<ArbiterHandle>), StartError> {
    let (tell, told) = mpsc::channel();
    let run = move || {
        let runner = System::new();
        let arbiters: Vec<ArbiterHandle> =
            runner.block_on(async move { (0..count).map(|_| Arbiter::new().handle()).collect() });
        let _ = tell.send((System::current(), arbiters));
        if let Err(error) = runner.run() {
            tracing::error!(%error, "actor threads ended");
        }
    };
    thread::Builder::new().name("actors".into()).spawn(run).map_err(|_| StartError::Threads)?;
    told.recv().map_err(|_| StartError::Threads)
}

async fn recover(world: &World) -> Result<(), StoreError> {
    let released = listing::release_overdue(world).await?;
    if released > 0 {
        tracing::warn!(released, "claims of an earlier life were released");
    }
    Ok(())
}
