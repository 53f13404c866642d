//! Everybody who takes part, registered and open for business.

use anyhow::bail;
use serde_json::json;

use crate::{
    agent::{Agent, Listing, Offer},
    api::Api,
    scenario::Scenario,
    seed::Seed,
    seller::Seller,
    wallet::Wallet,
};

/// Runs with one seed on one gateway at most.
const RUNS_MAX: u32 = 50;

/// A seller: the agent, its listing, its server.
pub struct Shop {
    /// Who sells.
    pub agent: Agent,
    /// What is sold.
    pub listing: Listing,
    /// Who answers.
    pub server: Seller,
}

/// Everybody who takes part.
pub struct Market {
    /// The gateway.
    pub api: Api,
    /// Who buys.
    pub buyers: Vec<Agent>,
    /// Who sells.
    pub shops: Vec<Shop>,
}

impl Market {
    /// Registers buyers and sellers, and lists what is sold: prices from 0.01 to 1.
    ///
    /// # Errors
    /// When the gateway does not answer as documented.
    pub async fn open(api: &Api, scenario: &Scenario, seed: u64) -> anyhow::Result<Self> {
        let mut buyers = Vec::new();
        for number in 0..scenario.buyers {
            let mut chance = Seed::stream(seed, "buyer", number as u64);
            buyers.push(enter(api, &mut chance, &format!("Buyer {number}")).await?);
        }
        let mut shops = Vec::new();
        for number in 0..scenario.sellers.count {
            shops.push(Shop::open(api, scenario, seed, number).await?);
        }
        Ok(Self { api: api.clone(), buyers, shops })
    }
}

/// A new agent. A wallet that the gateway knows was one's in an earlier run with this seed: the next one is taken, for
/// the books begin empty.
async fn enter(api: &Api, chance: &mut Seed, name: &str) -> anyhow::Result<Agent> {
    for _ in 0..RUNS_MAX {
        let wallet = Wallet::from_seed(Seed::stream(chance.draw(), "wallet", 0))?;
        if let Some(agent) = Agent::register_new(api, &wallet, name).await? {
            return Ok(agent);
        }
    }
    bail!("{RUNS_MAX} runs with this seed on this gateway; take another seed")
}

impl Shop {
    async fn open(api: &Api, scenario: &Scenario, seed: u64, number: usize) -> anyhow::Result<Self> {
        let mut chance = Seed::stream(seed, "seller", number as u64);
        let moods = scenario.sellers.moods;
        let agent = enter(api, &mut chance, &format!("Seller {number}")).await?;
        let server = Seller::start(chance.draw(), moods).await?;
        let price_micros = 10_000 + i64::try_from(chance.below(990_001))?;
        let name = format!("Load test {seed} of seller {number}");
        let limits = json!({ "max_concurrency": scenario.sellers.max_concurrency });
        let offer = Offer { name, price_micros, endpoint: server.url(), limits };
        let listing = agent.create_listing(api, &offer).await?;
        if moods.timeout_ms > 0 {
            agent.set_timeout(api, &listing.id, moods.timeout_ms).await?;
        }
        server.expect_listing(&listing.id, &listing.signing_secret)?;
        Ok(Self { agent, listing, server })
    }
}
