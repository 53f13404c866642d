//! One history of the gateway: its lives, its buyers, its sellers, a second node and an operator, by a seed.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_rt::System;
use actors::{
    Actors,
    seller::{SellerAnswer, SellerClient, SellerFault, SellerRequest},
};
use async_trait::async_trait;
use config::Config;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use storage::{
    PaymentStore, Store,
    faulty::{Faults, Faulty, Odds, Parts, at_once},
    model::*,
};
use tempfile::TempDir;

use super::{
    buyers, ends,
    laws::Law,
    mutants::{Mutant, Watched},
    operators, records, sellers,
    truth::{RailBooks, Truth},
};

/// When every history begins.
pub const BEGIN: u64 = 1_795_500_000_000;
pub const BUYERS: usize = 3;
const LISTINGS: usize = 3;
/// The place of the listing that asks for no money.
pub const FREE: usize = 2;
const PURCHASES: usize = 3;

/// What came of a seed.
pub struct Told {
    pub broken: Option<(Law, String)>,
    pub met: BTreeSet<&'static str>,
    pub log: Vec<String>,
    pub hash: [u8; 32],
}

/// Who buys, and its API key.
pub struct Buyer {
    pub id: ProfileId,
    pub key: String,
}

/// A call that somebody wants.
#[derive(Clone)]
pub struct Wish {
    pub buyer: usize,
    pub listing: usize,
    pub body: u8,
    pub key: Option<String>,
}

/// One purchase, and what its buyer knows of it.
pub struct Purchase {
    pub wish: Wish,
    pub payment: Mutex<Option<PaymentId>>,
    pub is_over: Mutex<bool>,
}

/// What outlives every process.
pub struct World {
    pub truth: Arc<Truth>,
    pub clock: Clock,
    pub config: Arc<Config>,
    pub buyers: Vec<Buyer>,
    pub listings: Vec<ListingId>,
    pub sellers: Vec<ProfileId>,
    pub purchases: Vec<Arc<Purchase>>,
    /// How often, of a thousand calls, a seller does not simply answer.
    pub seller_trouble: u64,
    _folder: TempDir,
}

/// One process.
pub struct Life {
    pub world: Arc<World>,
    pub actors: Actors,
    pub store: Arc<Faulty>,
    pub watched: Arc<Watched>,
    pub owner: Owner,
    /// Nothing fails any more: what can finish does.
    pub is_last: bool,
}

/// Tests of endpoints are not part of this.
struct NoSeller;

#[async_trait]
impl SellerClient for NoSeller {
    async fn send(&self, _: SellerRequest) -> Result<SellerAnswer, SellerFault> {
        Err(SellerFault::Unreachable)
    }
}

/// Lives a seed through.
pub fn run(seed: u64, mutant: Option<Mutant>) -> Told {
    let (world, mut base) = World::new(seed, mutant);
    let world = Arc::new(world);
    let lives = 1 + world.truth.dice.below(3);
    for life in 0..=lives {
        let is_last = life == lives;
        world.live(base.clone(), is_last);
        at_once(base.close()).expect("closed");
        drop(base);
        if is_last || world.truth.broken().is_some() {
            break;
        }
        world.truth.note("the process begins again".into());
        base = world.open();
    }
    let log = world.truth.log();
    let hash = Sha256::digest(log.join("\n")).into();
    Told { broken: world.truth.broken(), met: world.truth.all_met(), log, hash }
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>) -> (Self, Arc<dyn Store>) {
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.expect("a folder");
        let text = format!(
            "[storage]\npath = {:?}\ncache_bytes = \"16MiB\"\nmemtable_bytes = \"1MiB\"\njournal_bytes = \"64MiB\"\n\
             [payments.rereads]\nevery = \"1s\"\npaid_after = [\"2s\", \"1h\"]\n",
            folder.path().join("data")
        );
        let config = Arc::new(Config::from_parts(Some(&text), []).expect("a good configuration"));
        let time = Arc::new(AtomicU64::new(BEGIN));
        let (clock, truth) = (Clock::scripted(time.clone()), Arc::new(Truth::new(seed, mutant, time)));
        let base = storage::open(&config.storage, clock.clone()).expect("a store");
        let buyers = (0..BUYERS).map(|n| records::register(&*base, n, clock.now())).collect();
        let sellers = (0..LISTINGS).map(records::seller).collect();
        let listings = (0..LISTINGS).map(|n| records::list(&*base, n, clock.now())).collect();
        let dice = &truth.dice;
        let purchases = (0..BUYERS * PURCHASES).map(|n| {
            let listing = [0, 0, 0, 0, 1, 1, FREE][usize::try_from(dice.below(7)).unwrap_or_default()];
            let key = (dice.chance(400) || listing == FREE).then(|| format!("key-{n}"));
            let body = u8::try_from(dice.below(3)).unwrap_or_default();
            let wish = Wish { buyer: n % BUYERS, listing, body, key };
            Arc::new(Purchase { wish, payment: Mutex::default(), is_over: Mutex::default() })
        });
        let purchases = purchases.collect();
        let seller_trouble = [200, 400, 950][usize::try_from(dice.below(3)).unwrap_or_default()];
        (Self { truth, clock, config, buyers, listings, sellers, purchases, seller_trouble, _folder: folder }, base)
    }

    fn open(&self) -> Arc<dyn Store> {
        storage::open(&self.config.storage, self.clock.clone()).expect("the store opens again")
    }

    /// One life of the process, until it dies or all is done.
    fn live(self: &Arc<Self>, base: Arc<dyn Store>, is_last: bool) {
        let dice = &self.truth.dice;
        let odds = if is_last {
            Odds { delayed: 300, delay_max_ms: 20, ..Odds::default() }
        } else {
            let crash_at = if dice.chance(700) { 1 + dice.below(90) } else { 0 };
            let outage_at = if dice.chance(300) { 1 + dice.below(60) } else { 0 };
            let (unavailable, unknown, outage_ms) = (dice.below(80), dice.below(80), dice.below(12_000));
            Odds { unavailable, unknown, delayed: 400, delay_max_ms: 60, crash_at, outage_at, outage_ms }
        };
        let trouble = if is_last { 0 } else { dice.below(300) };
        let rail = Arc::new(RailBooks { truth: self.truth.clone(), clock: self.clock.clone(), trouble });
        let watched = Arc::new(Watched::new(base.clone(), self.truth.clone()));
        sellers::other_node_recovers(&watched);
        let (payments, money, payouts) = (watched.clone(), watched.clone(), watched.clone());
        let parts = Parts { base, payments, money, payouts, work: watched.clone(), rail };
        let store = Arc::new(Faulty::new(parts, dice.next(), odds));
        let system = System::with_tokio_rt(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
        });
        let (world, lived) = (self.clone(), store.clone());
        system.block_on(async move {
            tokio::select! {
                biased;
                () = lived.died() => world.truth.note("the process dies".into()),
                () = world.clone().all(lived.clone(), watched, is_last) => {}
            }
        });
        self.meet(store.faults());
    }

    fn meet(&self, faults: Faults) {
        let Faults { unavailable, lost_written, lost_unwritten, delayed, out, died } = faults;
        for (situation, is_met) in [
            ("a step was not taken", unavailable > 0),
            ("a write happened and nobody was told", lost_written > 0),
            ("a write did not happen and nobody was told", lost_unwritten > 0),
            ("steps changed places", delayed > 1),
            ("the store was out", out > 0),
            ("the process died behind a write", died == Some(true)),
            ("the process died before a write", died == Some(false)),
        ] {
            if is_met {
                self.truth.met(situation);
            }
        }
    }

    async fn all(self: Arc<Self>, store: Arc<Faulty>, watched: Arc<Watched>, is_last: bool) {
        let owner = store.owner();
        let actors = loop {
            let (config, clock, seller) = (self.config.clone(), self.clock.clone(), Arc::new(NoSeller));
            match Actors::start_here(config, store.clone(), clock, seller, "http://gateway".into()).await {
                Ok(actors) => break actors,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let life = Arc::new(Life { world: self.clone(), actors, store, watched, owner, is_last });
        ends::remembers(&life);
        let passing = tokio::spawn(self.clone().time_passes());
        let mut tasks = Vec::new();
        for purchase in &self.purchases {
            tasks.push(tokio::spawn(buyers::buy(life.clone(), purchase.clone())));
        }
        tasks.push(tokio::spawn(sellers::other_node(life.clone())));
        tasks.push(tokio::spawn(ends::operate(life.clone())));
        tasks.push(tokio::spawn(ends::adds_up(life.clone())));
        tasks.push(tokio::spawn(operators::operate(life.clone())));
        tasks.push(tokio::spawn(operators::operate(life.clone())));
        for task in tasks {
            if let Err(error) = task.await {
                self.truth.breaks(Law::NoPanic, format!("somebody died: {error}"));
            }
        }
        if is_last {
            tokio::time::sleep(Duration::from_secs(5)).await;
            ends::finish(&life).await;
        }
        passing.abort();
    }

    /// The clock on the wall: it runs, it jumps, and now and then it goes back.
    async fn time_passes(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let time = &self.truth.time;
            time.fetch_add(50, Ordering::Relaxed);
            match self.truth.dice.below(1_000) {
                0..=3 => _ = time.fetch_add(self.truth.dice.below(1_200_000), Ordering::Relaxed),
                4..=7 => _ = time.fetch_sub(2_000, Ordering::Relaxed),
                _ => {}
            }
        }
    }
}

impl Life {
    pub fn truth(&self) -> &Arc<Truth> {
        &self.world.truth
    }

    /// A payment as it is kept, past all faults.
    pub fn kept(&self, id: PaymentId) -> Option<Arc<Payment>> {
        self.watched.kept(id)
    }

    /// Up to so many milliseconds.
    pub async fn pause(&self, most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(1 + self.truth().dice.below(most_ms))).await;
    }

    pub fn payments(&self) -> &dyn PaymentStore {
        &*self.store
    }
}
