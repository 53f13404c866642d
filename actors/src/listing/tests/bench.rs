//! What the tests of the listing actor share: a rail that counts, and a directory on a real store.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use async_trait::async_trait;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use serde_json::Value;
use storage::{Store, model::*};
use tempfile::TempDir;

use super::super::*;
use crate::{
    directory::Directory,
    history::RowWriter,
    keys::Caller,
    limiter::Limiter,
    payments::{Offered, PaymentProvider, ProviderError, RailRecord, Rails},
    refusal::Code,
};

/// A rail that counts how often it is asked, and settles when told.
#[derive(Default)]
pub(super) struct Counting {
    pub(super) offers: AtomicU32,
    pub(super) checks: AtomicU32,
    pub(super) is_settled: AtomicBool,
}

#[async_trait]
impl PaymentProvider for Counting {
    fn rail(&self) -> Rail {
        Rail::Sandbox
    }

    fn minimum(&self, _: OriginCurrency) -> Option<Micros> {
        Some(Micros::ZERO)
    }

    fn payee(&self) -> &str {
        "us"
    }

    async fn offer(&self, _: &Quote) -> Result<Offered, ProviderError> {
        self.offers.fetch_add(1, Ordering::SeqCst);
        // As a provider elsewhere: it takes a moment.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(Offered::default())
    }

    fn requirements(&self, _: &Quote, _: &str) -> Value {
        Value::Null
    }

    async fn check(&self, quote: &Quote) -> Result<Checked, ProviderError> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        if !self.is_settled.load(Ordering::SeqCst) {
            return Ok(Checked::Pending(Duration::from_millis(50)));
        }
        let (proof_key, reference) = (quote.id.to_string(), "r".to_string());
        Ok(Checked::Settled(RailRecord {
            proof_key,
            reference,
            amount: quote.price,
            payee: "us".into(),
            rail: quote.rail,
        }))
    }
}

/// What was counted, by metric and labels: `name{label=value,…}`.
#[derive(Default)]
pub(super) struct Counted(parking_lot::Mutex<HashMap<String, Arc<AtomicU64>>>);

impl Counted {
    pub(super) fn of(&self, key: &str) -> u64 {
        self.0.lock().get(key).map_or(0, |count| count.load(Ordering::SeqCst))
    }
}

impl metrics::Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        Counter::from_arc(self.0.lock().entry(name).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// A directory and its world, on a store and a clock of its own.
pub(super) struct Bench {
    pub(super) world: Arc<World>,
    pub(super) directory: Directory,
    limiter: Limiter,
    pub(super) rail: Arc<Counting>,
    pub(super) time: Arc<AtomicU64>,
    _folder: TempDir,
}

pub(super) const SECOND: u64 = 1_000;

impl Bench {
    pub(super) fn new(knobs: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let text = format!(
            "[storage]\npath = {:?}\ncache_bytes = \"16MiB\"\nmemtable_bytes = \"8MiB\"\njournal_bytes = \"64MiB\"\n\
             [actors]\n{knobs}",
            folder.path().join("data")
        );
        let config = Arc::new(config::Config::from_parts(Some(&text), []).expect("a good configuration"));
        let time = Arc::new(AtomicU64::new(1_795_500_000_000));
        let clock = Clock::scripted(time.clone());
        let store: Arc<dyn Store> = storage::open(&config.storage, clock.clone()).expect("a store");
        let rail = Arc::new(Counting::default());
        let (_, arbiters) = crate::start_threads(1).expect("threads");
        let (rows, _) = RowWriter::new(store.clone());
        let limiter = Limiter::new(&config);
        let world = Arc::new(World::new(config, store, clock, Rails::only(rail.clone()), rows, arbiters));
        Self { directory: Directory::new(world.clone()), world, limiter, rail, time, _folder: folder }
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.world.clock.now()
    }

    pub(super) async fn listing(&self, price: i64) -> ListingId {
        self.listing_with(price, EndpointLimits::default()).await
    }

    pub(super) async fn listing_with(&self, price: i64, limits: EndpointLimits) -> ListingId {
        let now = self.now();
        let id = ListingId::mint(now);
        let endpoint = Endpoint {
            listing: id,
            url: "http://127.0.0.1:9/".into(),
            upstream_auth: None,
            timeout_ms: 1_000,
            limits,
            status: EndpointStatus::Active,
            secret: SigningSecret { key: [1; 32], created_at: now },
            previous_secret: None,
            last_test: None,
            version: 1,
        };
        let listing = Listing {
            id,
            slug: "a-listing".into(),
            seller: ProfileId::mint(now),
            name: "a listing".into(),
            description: "what it does".into(),
            category: None,
            delivery_type: DeliveryType::Api,
            formats: vec![Format::Json],
            connection_instructions: None,
            pricing_model: PricingModel::PerCall,
            price: Micros(price),
            preferred_currency: None,
            documentation_url: None,
            example_request: None,
            example_response: None,
            tags: Vec::new(),
            status: ListingStatus::Active,
            suspended_by: None,
            was_active: true,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        self.world.store.listing_create(listing, Some(endpoint)).await.expect("made").id
    }

    pub(super) async fn handle(&self, id: ListingId) -> ListingHandle {
        self.directory.listing(&id.to_string()).await.expect("found")
    }

    pub(super) fn gate(&self, id: ListingId) -> Arc<Gate> {
        self.world.gates.get(&id).expect("a gate").clone()
    }

    pub(super) fn caller(&self) -> Caller {
        let now = self.now();
        let profile = Profile {
            id: ProfileId::mint(now),
            account_type: AccountType::Agent,
            display_name: "a buyer".into(),
            avatar_url: None,
            claimed_by: None,
            is_verified: false,
            score: 0,
            is_suspended: false,
            created_at: now,
            version: 1,
        };
        let key = ApiKey {
            id: ApiKeyId::mint(now),
            profile: profile.id,
            key_sha256: [1; 32],
            name: "key".into(),
            key_prefix: "am_k_".into(),
            scopes: vec![Scope::Gateway],
            created_at: now,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
            max_price: None,
            daily_spend: None,
            version: 1,
        };
        let rate = self.limiter.buyer(profile.id);
        Caller { key, profile, default_currency: OriginCurrency::Usdc, rate, noted_at: AtomicU64::default() }
    }

    /// The payment that is offered for this body.
    pub(super) async fn quote(&self, handle: &ListingHandle, caller: &Caller, body: u8) -> PaymentId {
        let refusal = handle.offer(&ask_for(caller, body)).await.expect_err("nothing is under way");
        assert_eq!(refusal.code(), Code::PaymentRequired, "{refusal:?}");
        let body: Value = serde_json::from_slice(&refusal.body("")).expect("JSON");
        body["data"]["payment"]["relay_request_id"].as_str().expect("an id").parse().expect("an id")
    }
}

pub(super) fn ask_for(caller: &Caller, body: u8) -> Ask<'_> {
    Ask {
        caller,
        body_sha256: [body; 32],
        body_bytes: 2,
        payment_id: None,
        signature: None,
        idempotency_key: None,
        origin_currency: None,
        max_price: None,
        wait: Duration::ZERO,
    }
}

pub(super) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}
