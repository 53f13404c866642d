//! Our own gateway, set up as any operator, seller and buyer would: from outside, over HTTP.

use std::{net::SocketAddr, path::Path, rc::Rc};

use anyhow::ensure;
use loadtest::{
    agent::{Agent, Offer},
    api::Api,
    gateway::Gateway,
    seed::Seed,
    wallet::Wallet,
};
use serde_json::json;

use super::{
    generator::{body, post},
    machine::GATEWAY_CORE,
    process::on_core,
    rivals::{ask, made_up_key},
    stock::{Mint, Redeem, Stock},
};

/// The price of the paid listing.
const PRICE_MICROS: i64 = 10_000;

/// A running gateway with one seller, one buyer, a free and a paid listing.
pub struct Crochet {
    gateway: Gateway,
    /// Its public address.
    pub address: SocketAddr,
    buyer: Agent,
    free: String,
    paid: String,
}

impl Crochet {
    /// Starts the binary with a store in an empty folder below `run`, and opens the market.
    ///
    /// # Errors
    /// When it does not become ready, or does not answer as documented.
    pub fn start(run: &Path, name: &str, binary: &Path, seller: SocketAddr, extra: &[String]) -> anyhow::Result<Self> {
        let folder = run.join(name);
        std::fs::create_dir_all(&folder)?;
        let settings = settings(&folder, extra)?;
        let gateway = on_core(GATEWAY_CORE, || Gateway::start(binary, &settings, &folder.join("gateway.log")))?;
        let address = gateway.public().parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (buyer, free, paid) = runtime.block_on(open_market(&format!("http://{address}"), seller))?;
        let crochet = Self { gateway, address, buyer, free, paid };
        let (status, _, answer) = ask(address, &crochet.free_call())?;
        let wrapped = answer.contains(r#""seller_response":{"answer""#);
        ensure!(status == 200 && wrapped, "a free call is answered with {status} {answer}");
        Ok(crochet)
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.gateway.id()
    }

    /// A call of the free listing.
    #[must_use]
    pub fn free_call(&self) -> Vec<u8> {
        post(&self.path(&self.free), &self.host(), &self.key(), &body())
    }

    /// A call with a key that is none: 401.
    #[must_use]
    pub fn bad_key(&self) -> Vec<u8> {
        post(&self.path(&self.free), &self.host(), &made_up_key(), &body())
    }

    /// A call of the paid listing that was quoted before: the same 402 again.
    #[must_use]
    pub fn quoted_call(&self) -> Vec<u8> {
        post(&self.path(&self.paid), &self.host(), &self.first_fields(), &body())
    }

    /// What makes payments for the paid listing, and what uses them.
    #[must_use]
    pub fn payments(&self) -> (Stock, Mint, Redeem) {
        let (stock, path, host) = (Stock::default(), self.path(&self.paid), self.host());
        let mint = Mint::new(Rc::clone(&stock), &path, &host, &self.first_fields(), &body());
        let redeem = Redeem::new(Rc::clone(&stock), &path, &host, &self.key(), &body());
        (stock, mint, redeem)
    }

    fn path(&self, listing: &str) -> String {
        format!("/api/v1/gateway/{listing}")
    }

    fn host(&self) -> String {
        self.address.to_string()
    }

    fn key(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.buyer.key)
    }

    /// On the way to a quote: SOL, which has no minimum.
    fn first_fields(&self) -> String {
        format!("{}X-Crochet-Origin-Currency: SOL\r\n", self.key())
    }
}

/// One worker, as every contestant; limits that do not bind, so that their cost is measured and not their effect.
fn settings(folder: &Path, extra: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let mut settings: Vec<(String, String)> = [
        ("mode", "dev"),
        ("proxy.listen", "127.0.0.1:0"),
        ("proxy.workers", "1"),
        ("proxy.connections_per_address_max", "4096"),
        ("identity.pow_difficulty", "2"),
        ("limits.gateway_per_second", "1000000"),
        ("limits.gateway_burst", "1000000"),
        ("limits.control_writes_per_minute", "1000000"),
        ("limits.control_reads_per_minute", "1000000"),
        ("limits.auth_per_five_minutes", "1000000"),
        ("payments.open_quotes_max", "1000000"),
        ("telemetry.listen", "127.0.0.1:0"),
        ("telemetry.log", "warn"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    settings.push(("storage.path".to_owned(), folder.join("store").display().to_string()));
    for pair in extra {
        let Some((key, value)) = pair.split_once('=') else { anyhow::bail!("{pair} is not key=value") };
        settings.push((key.to_owned(), value.to_owned()));
    }
    Ok(settings)
}

async fn open_market(base: &str, seller: SocketAddr) -> anyhow::Result<(Agent, String, String)> {
    let api = Api::new(base)?;
    let wallet = |number| Wallet::from_seed(Seed::stream(1, "measured", number));
    let buyer = Agent::register(&api, &wallet(0)?, "Measured buyer").await?;
    let owner = Agent::register(&api, &wallet(1)?, "Measured seller").await?;
    let mut listings = Vec::new();
    for (name, price_micros) in [("Measured for free", 0), ("Measured for money", PRICE_MICROS)] {
        let limits = json!({ "requests_per_second": 100_000, "burst": 100_000, "max_concurrency": 4096 });
        let offer = Offer { name: name.into(), price_micros, endpoint: format!("http://{seller}/work"), limits };
        listings.push(owner.create_listing(&api, &offer).await?.id);
    }
    let [free, paid] = <[String; 2]>::try_from(listings).map_err(|_| anyhow::anyhow!("two listings"))?;
    Ok((buyer, free, paid))
}
