//! A control API on a free port with a store of its own, an agent with a wallet, and rows of history.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actors::{
    Actors,
    seller::{SellerAnswer, SellerClient, SellerFault, SellerRequest},
};
use async_trait::async_trait;
use bytes::Bytes;
use config::Config;
use control_api::{ControlApi, Listen, ROUTES};
use k256::ecdsa::SigningKey;
use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sha3::Keccak256;
use storage::{
    ClaimRequest, QuoteOpened, SettleOutcome, StepOutcome, Store,
    model::{
        ApiKey, ApiKeyId, AttemptStatus, CallFacts, ChainFamily, Claim, Claimed, Clock, Evidence, FeeRate, KeptResult,
        ListingId, Micros, OriginCurrency, Payment, PaymentId, Profile, ProfileId, Quote, Rail, ResultEncoding,
        ResultPlace, UnixMillis, Wallet as StoredWallet, WalletCapability, WalletId,
    },
};

use crate::described::{self, Exchange};

/// A moment with milliseconds, some time ago: scripted, so that tests move it.
pub const BEGIN: u64 = 1_795_500_623_007;
const HOUR: Duration = Duration::from_secs(3600);

/// No seller is ever called by the control API.
struct NoSeller;

#[async_trait]
impl SellerClient for NoSeller {
    async fn send(&self, _request: SellerRequest) -> Result<SellerAnswer, SellerFault> {
        Err(SellerFault::Unreachable)
    }
}

/// Everything that a test needs; stopped when dropped.
pub struct World {
    pub store: Arc<dyn Store>,
    pub base: String,
    pub site: String,
    pub millis: Arc<AtomicU64>,
    pub api: Option<ControlApi>,
    pub directory: tempfile::TempDir,
    http: reqwest::Client,
    actors: Actors,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    /// The refusal's code.
    pub fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    /// The names of the fields that are wrong.
    pub fn fields(&self) -> Vec<&str> {
        let fields = self.body["error"]["details"]["fields"].as_object();
        fields.map(|fields| fields.keys().map(String::as_str).collect()).unwrap_or_default()
    }

    /// This answer, when it has this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// This answer, when it is this refusal.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.text);
        assert_eq!(self.body["success"], false);
        self
    }

    /// The names of the fields that are wrong, when the answer says so.
    #[track_caller]
    pub fn wrong(self, names: &[&str]) -> Self {
        assert_eq!((self.status, self.code()), (422, "VALIDATION_FAILED"), "{}", self.text);
        assert_eq!(self.fields(), names, "{}", self.text);
        self
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub fn config(directory: &Path, more: &str) -> Arc<Config> {
    let file = format!(
        "[storage]\npath = \"{}\"\n[identity]\npow_difficulty = 2\npassword_memory = \"64KiB\"\n\
         password_passes = 1\n[control]\nworkers = 2\nroll_up_every = \"50ms\"\nscores_every = \"50ms\"\n{more}",
        directory.join("data").display()
    );
    Arc::new(Config::from_parts(Some(&file), []).expect("a good configuration"))
}

impl World {
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more configuration.
    pub async fn start_with(more: &str) -> Self {
        Self::start_with_seller(more, Arc::new(NoSeller)).await
    }

    /// With somebody who answers tests of endpoints.
    pub async fn start_with_seller(more: &str, seller: Arc<dyn SellerClient>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = config(directory.path(), more);
        let millis = Arc::new(AtomicU64::new(BEGIN));
        let clock = Clock::scripted(millis.clone());
        let store = storage::open(&config.storage, clock.clone()).expect("a store");
        let site = "http://gateway.test:8080".to_string();
        let actors = Actors::start(config.clone(), store.clone(), clock.clone(), seller, site.clone());
        let actors = actors.await.expect("actors");
        let listen = Listen::Tcp(([127, 0, 0, 1], 0).into());
        let api = control_api::start(config, store.clone(), actors.clone(), clock, site.clone(), listen);
        let api = api.expect("the control API");
        let base = format!("http://{}", api.address().expect("TCP"));
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
        Self { store, base, site, millis, api: Some(api), directory, http, actors }
    }

    pub fn actors(&self) -> &Actors {
        &self.actors
    }

    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.millis.load(Ordering::Relaxed))
    }

    pub fn wait(&self, span: Duration) {
        self.millis.fetch_add(u64::try_from(span.as_millis()).expect("short"), Ordering::Relaxed);
    }

    /// A request to a path below the API's base, or to a page of the site when it is one.
    pub fn request(&self, method: Method, path: &str, key: Option<&str>) -> RequestBuilder {
        let is_page = ROUTES.iter().any(|route| route.path == path && !path.starts_with("/api/v1"));
        let base = if is_page { "" } else { "/api/v1" };
        let request = self.http.request(method, format!("{}{base}{path}", self.base));
        match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends it; every answer in every test must be as the OpenAPI document says.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.build().expect("a request");
        let (method, path) = (request.method().to_string(), request.url().path().to_string());
        let response = self.http.execute(request).await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let answer = Answer { status, headers, text, body };
        described::check(&Exchange {
            method: &method,
            path: &path,
            status,
            content_type: answer.header("content-type"),
            headers: &|name| answer.headers.contains_key(name),
            body: &answer.body,
        });
        answer
    }

    pub async fn get(&self, path: &str, key: Option<&str>) -> Answer {
        self.send(self.request(Method::GET, path, key)).await
    }

    pub async fn post(&self, path: &str, key: Option<&str>, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path, key).json(body)).await
    }

    pub async fn put(&self, path: &str, key: Option<&str>, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path, key).json(body)).await
    }

    pub async fn patch(&self, path: &str, key: Option<&str>, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path, key).json(body)).await
    }

    pub async fn delete(&self, path: &str, key: Option<&str>) -> Answer {
        self.send(self.request(Method::DELETE, path, key)).await
    }

    /// A challenge for this wallet, and the registration that answers it.
    pub async fn registration(&self, wallet: &Wallet) -> Value {
        let challenge = self.post("/auth/challenge", None, &json!({ "wallet_address": wallet.address })).await;
        answer_challenge(wallet, &challenge.expect(200).body["data"])
    }

    /// A registered agent; the same seed has the same wallet.
    pub async fn agent(&self, seed: u8) -> Agent {
        self.register(Wallet::new(seed)).await
    }

    /// The agent of a wallet that was not seen before.
    pub async fn register(&self, wallet: Wallet) -> Agent {
        let registration = self.registration(&wallet).await;
        let registered = self.post("/register", None, &registration).await.expect(201);
        let data = &registered.body["data"];
        Agent {
            key: data["api_key"].as_str().expect("a key").to_string(),
            id: data["profile"]["id"].as_str().expect("an id").parse().expect("an id"),
            wallet,
        }
    }

    /// An agent whose only wallet cannot be paid out to; there is no route that makes one.
    pub async fn agent_without_payout(&self, seed: u8) -> Agent {
        let donor = self.agent(seed).await;
        let profile = self.store.profile_get(donor.id).await.expect("a store").expect("there");
        let wallet = self.store.wallet_list(donor.id).await.expect("a store").remove(0);
        let key = self.store.api_key_list(donor.id).await.expect("a store").remove(0);
        let new = actors::keys::generate().expect("randomness");
        let id = ProfileId::mint(self.now());
        let profile = Profile { id, ..profile };
        let capabilities = vec![WalletCapability::Auth];
        let (address, wallet_id) = (vec![seed; 20], WalletId::mint(self.now()));
        let wallet = StoredWallet { id: wallet_id, profile: id, address, capabilities, ..wallet };
        let key = ApiKey { id: ApiKeyId::mint(self.now()), profile: id, key_sha256: new.sha256, ..key };
        self.store.profile_create(profile, wallet, key).await.expect("a store");
        Agent { key: new.text, id, wallet: donor.wallet }
    }

    /// A challenge of this purpose for this wallet, signed.
    pub async fn proof(&self, wallet: &Wallet, purpose: &str, profile: ProfileId, other: Option<&Wallet>) -> Value {
        let mut asked = json!({
            "wallet_address": wallet.address, "purpose": purpose, "profile_id": profile.to_string(),
        });
        if let Some(other) = other {
            asked["other_wallet_address"] = json!(other.address);
        }
        let challenge = self.post("/auth/challenge", None, &asked).await.expect(200);
        let data = &challenge.body["data"];
        let signature = wallet.sign(data["message"].as_str().expect("text"));
        json!({ "wallet_address": wallet.address, "nonce": data["nonce"], "signature": signature })
    }

    /// What links `new` to the profile of an agent, by the agent's own wallet.
    pub async fn link_of(&self, agent: &Agent, new: &Wallet) -> Value {
        json!({
            "existing_wallet": self.proof(&agent.wallet, "link_wallet", agent.id, Some(new)).await,
            "new_wallet": self.proof(new, "link_wallet", agent.id, Some(&agent.wallet)).await,
        })
    }

    /// Links one more wallet; returns its id.
    pub async fn link(&self, agent: &Agent, new: &Wallet) -> String {
        let linked = self.post("/me/wallets", agent.key(), &self.link_of(agent, new).await).await.expect(201);
        linked.body["data"]["id"].as_str().expect("an id").to_string()
    }

    /// A challenge for recovery, answered.
    pub async fn recovery(&self, wallet: &Wallet) -> Value {
        let asked = json!({ "wallet_address": wallet.address, "purpose": "recover" });
        answer_challenge(wallet, &self.post("/auth/challenge", None, &asked).await.expect(200).body["data"])
    }

    /// An operator closes a profile.
    pub async fn suspend(&self, id: ProfileId) {
        let profile = self.store.profile_get(id).await.expect("a store").expect("there");
        let suspended = Profile { is_suspended: true, ..profile };
        assert_eq!(self.store.profile_update(suspended).await, Ok(storage::Changed::Done));
        self.actors.changed(storage::Change::Profile(id)).await;
    }

    /// A human who has signed up.
    pub async fn human(&self, name: &str) -> Human {
        let account = json!({ "email": format!("{name}@example.org"), "password": PASSWORD, "display_name": name });
        Human::of(&self.post("/auth/signup", None, &account).await.expect(201))
    }

    /// A request as a page of ours sends it for this human.
    pub fn by(&self, human: &Human, method: Method, path: &str) -> RequestBuilder {
        let request = self.request(method, path, None).header("Cookie", &human.cookie);
        request.header("Origin", &self.site).header("X-CSRF-Token", &human.csrf_token)
    }

    /// An agent whose profile is as no route makes it.
    pub async fn agent_who(&self, seed: u8, change: impl FnOnce(&mut Profile)) -> Agent {
        self.made_agent(seed, &[seed; 20], change).await
    }

    /// An agent with these bytes as the address of a wallet of the other family.
    pub async fn agent_with_wallet(&self, seed: u8, address: &[u8]) -> Agent {
        self.made_agent(seed, address, |_| {}).await
    }

    async fn made_agent(&self, seed: u8, address: &[u8], change: impl FnOnce(&mut Profile)) -> Agent {
        let donor = self.agent(seed).await;
        let mut profile = self.store.profile_get(donor.id).await.expect("a store").expect("there");
        let wallet = self.store.wallet_list(donor.id).await.expect("a store").remove(0);
        let key = self.store.api_key_list(donor.id).await.expect("a store").remove(0);
        let new = actors::keys::generate().expect("randomness");
        profile.id = ProfileId::mint(self.now());
        change(&mut profile);
        let (id, address) = (profile.id, address.to_vec());
        let wallet_id = WalletId::mint(self.now());
        let wallet = StoredWallet { id: wallet_id, profile: id, family: ChainFamily::Solana, address, ..wallet };
        let key = ApiKey { id: ApiKeyId::mint(self.now()), profile: id, key_sha256: new.sha256, ..key };
        self.store.profile_create(profile, wallet, key).await.expect("a store");
        Agent { key: new.text, id, wallet: donor.wallet }
    }

    /// A solved proof of work for a new listing.
    pub async fn listing_pow(&self, agent: &Agent) -> String {
        let challenge = self.post("/listings/challenge", Some(&agent.key), &json!({})).await.expect(200);
        let data = &challenge.body["data"];
        solve(data["challenge"].as_str().expect("text"), data["difficulty"].as_u64().expect("number"))
    }

    /// Creates a listing: a paid one unless `change` says otherwise.
    pub async fn create_listing(&self, agent: &Agent, change: Value) -> Answer {
        let mut body = json!({
            "pow_nonce": self.listing_pow(agent).await, "name": "Weather report",
            "description": "Tomorrow's weather.", "pricing_model": "per_call", "pricing_amount": 0.05,
            "private_endpoint_url": "http://127.0.0.1:9/secret-path?token=secret-token",
        });
        for (name, value) in change.as_object().expect("an object") {
            body[name] = value.clone();
        }
        self.post("/listings", Some(&agent.key), &body).await
    }

    /// A quote of this buyer for this listing.
    pub async fn quote(&self, buyer: &Agent, seller: &Agent, listing: ListingId, price: Micros) -> Arc<Payment> {
        self.wait(Duration::from_millis(1));
        let (id, now) = (PaymentId::mint(self.now()), self.now());
        let quote = Quote {
            id,
            buyer: buyer.id,
            seller: seller.id,
            listing,
            body_sha256: Sha256::digest(id.bytes()).into(),
            price,
            fee_rate: FeeRate(49_000),
            currency: OriginCurrency::Sol,
            rail: Rail::Sandbox,
            provider_ref: id.to_string(),
            terms: Vec::new(),
            idempotency_key: None,
            created_at: now,
            expires_at: now.plus(HOUR),
        };
        match self.store.quote_open(quote, 1000).await.expect("a store") {
            QuoteOpened::Opened(payment) => payment,
            other => panic!("{other:?}"),
        }
    }

    /// Pays a quote in full and claims it.
    pub async fn claim(&self, payment: &Payment) -> Claim {
        let evidence = Evidence {
            proof_key: format!("test:{}", payment.quote.id),
            rail: Rail::Sandbox,
            reference: "reference".into(),
            amount: payment.quote.price,
            recorded_at: self.now(),
        };
        let claim = ClaimRequest { owner: self.store.owner(), request_bytes: 2 };
        match self.store.payment_settle(payment.quote.id, evidence, Some(claim)).await.expect("a store") {
            SettleOutcome::Recorded { claimed: Some(Claimed::Won(claim)), .. } => claim,
            other => panic!("{other:?}"),
        }
    }

    /// Claims a payment that was released.
    pub async fn claim_again(&self, payment: &Payment) -> Claim {
        let claim = ClaimRequest { owner: self.store.owner(), request_bytes: 2 };
        match self.store.payment_claim(payment.quote.id, claim).await.expect("a store") {
            StepOutcome::Step(Claimed::Won(claim), _) => claim,
            other => panic!("{other:?}"),
        }
    }

    pub async fn release(&self, payment: &Payment, claim: Claim) {
        let facts = CallFacts {
            http_status: 502,
            seller_status_code: Some(500),
            error_code: Some("SELLER_ERROR".into()),
            total_ms: 12,
            seller_ms: 9,
            ..CallFacts::default()
        };
        let step = self.store.payment_release(payment.quote.id, claim, AttemptStatus::Released, facts).await;
        assert!(matches!(step.expect("a store"), StepOutcome::Step(storage::model::Ended::Done, _)));
    }

    pub async fn complete(&self, payment: &Payment, claim: Claim, answer: &'static str) {
        let facts = CallFacts {
            http_status: 200,
            seller_status_code: Some(200),
            error_code: None,
            response_bytes: answer.len() as u64,
            total_ms: 34,
            seller_ms: 30,
        };
        let result = KeptResult {
            place: ResultPlace::Inline,
            encoding: ResultEncoding::Json,
            seller_status_code: 200,
            content_type: "application/json".into(),
            bytes: answer.len() as u64,
            sha256: Sha256::digest(answer).into(),
            kept_until: self.now().plus(72 * HOUR),
        };
        let held = Some(Bytes::from_static(answer.as_bytes()));
        let step = self.store.payment_complete(payment.quote.id, claim, facts, result, held).await;
        assert!(matches!(step.expect("a store"), StepOutcome::Step(storage::model::Ended::Done, _)));
    }

    /// A whole call, paid and answered.
    pub async fn completed_call(&self, buyer: &Agent, seller: &Agent, listing: ListingId) -> Arc<Payment> {
        let payment = self.quote(buyer, seller, listing, Micros(1_000_000)).await;
        let claim = self.claim(&payment).await;
        self.wait(Duration::from_millis(1));
        self.complete(&payment, claim, "{\"result\": 1.50}").await;
        payment
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.actors.stop();
    }
}

pub struct Agent {
    pub key: String,
    pub id: ProfileId,
    pub wallet: Wallet,
}

impl Agent {
    /// As the second argument of a request.
    pub fn key(&self) -> Option<&str> {
        Some(&self.key)
    }
}

pub const PASSWORD: &str = "correct horse battery";

/// A human who is signed in.
pub struct Human {
    pub id: ProfileId,
    pub cookie: String,
    pub csrf_token: String,
}

impl Human {
    /// From what signing up or in answered.
    pub fn of(answer: &Answer) -> Self {
        let cookie = answer.header("set-cookie").split(';').next().unwrap_or_default().to_string();
        let text = |value: &Value| value.as_str().expect("text").to_string();
        Self {
            id: text(&answer.body["data"]["profile"]["id"]).parse().expect("an id"),
            cookie,
            csrf_token: text(&answer.body["data"]["csrf_token"]),
        }
    }
}

/// An Ethereum wallet.
pub struct Wallet {
    pub address: String,
    key: SigningKey,
}

impl Wallet {
    pub fn new(seed: u8) -> Self {
        Self::of_key([seed; 32])
    }

    /// For tests that need more than there are seeds.
    pub fn numbered(number: usize) -> Self {
        let mut key = [0x55; 32];
        key[24..].copy_from_slice(&u64::try_from(number).expect("64 bits").to_be_bytes());
        Self::of_key(key)
    }

    fn of_key(key: [u8; 32]) -> Self {
        let key = SigningKey::from_slice(&key).expect("a key");
        let point = key.verifying_key().to_sec1_point(false);
        let hash = Keccak256::digest(&point.as_bytes()[1..]);
        Self { address: format!("0x{}", hex::encode(&hash[12..])), key }
    }

    pub fn sign(&self, message: &str) -> String {
        let mut hash = Keccak256::new();
        hash.update(format!("\x19Ethereum Signed Message:\n{}", message.len()));
        hash.update(message);
        let (signature, recovery) = self.key.sign_prehash_recoverable(&hash.finalize());
        format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + recovery.to_byte())
    }
}

pub fn answer_challenge(wallet: &Wallet, data: &Value) -> Value {
    let text = |value: &Value| value.as_str().expect("text").to_string();
    let difficulty = data["pow"]["difficulty"].as_u64().expect("a number");
    json!({
        "wallet_address": wallet.address,
        "signature": wallet.sign(&text(&data["message"])),
        "nonce": data["nonce"],
        "pow_nonce": solve(&text(&data["pow"]["challenge"]), difficulty),
    })
}

/// A nonce that solves the challenge.
pub fn solve(challenge: &str, difficulty: u64) -> String {
    let zeros = "0".repeat(usize::try_from(difficulty).expect("small"));
    let is_solved = |nonce: &u64| hex::encode(Sha256::digest(format!("{challenge}{nonce}"))).starts_with(&zeros);
    (0..).find(is_solved).expect("some").to_string()
}

/// A nonce that does not solve the challenge.
pub fn miss(challenge: &str, difficulty: u64) -> String {
    let zeros = "0".repeat(usize::try_from(difficulty).expect("small"));
    let is_missed = |nonce: &u64| !hex::encode(Sha256::digest(format!("{challenge}{nonce}"))).starts_with(&zeros);
    (0..).find(is_missed).expect("some").to_string()
}

pub fn listing_id(answer: &Answer) -> ListingId {
    answer.body["data"]["id"].as_str().expect("an id").parse().expect("an id")
}

/// Asks again until the answer is as it should be, for as long as a test has patience.
pub async fn until(world: &World, path: &str, is_so: impl Fn(&Answer) -> bool) -> Answer {
    let begun = std::time::Instant::now();
    loop {
        let answer = world.get(path, None).await.expect(200);
        if is_so(&answer) {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "in vain: {path}: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The statuses of many requests that are sent at once.
pub async fn statuses(tries: impl Iterator<Item = impl Future<Output = Answer>>) -> Vec<u16> {
    let mut waiting: Vec<_> = tries.map(Box::pin).collect();
    let mut statuses = Vec::new();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(answer) => {
                statuses.push(answer.status);
                false
            }
            std::task::Poll::Pending => true,
        });
        if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    statuses
}
