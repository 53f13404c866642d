//! An agent of the marketplace: registers with a wallet, lists what it sells.

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    api::{Answer, Api},
    wallet::{Wallet, prove_work},
};

/// A registered agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its profile.
    pub profile_id: String,
    /// Its API key.
    pub key: String,
}

/// What an agent is about to sell.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Micro-units a call; 0 is a free listing.
    pub price_micros: i64,
    /// Where the seller answers.
    pub endpoint: String,
    /// `limits` of the endpoint, as the API takes them; `null` for the defaults.
    pub limits: Value,
}

/// What an agent sells.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Its id.
    pub id: String,
    /// `whsec_` and base64: what calls are signed with.
    pub signing_secret: String,
    /// Micro-units a call.
    pub price_micros: i64,
}

impl Agent {
    /// Challenge, signature, proof of work, registration.
    ///
    /// # Errors
    /// When a step is not answered as documented.
    pub async fn register(api: &Api, wallet: &Wallet, name: &str) -> anyhow::Result<Self> {
        Self::register_new(api, wallet, name).await?.context("the wallet is registered already")
    }

    /// The same; `None` when the wallet is registered already.
    ///
    /// # Errors
    /// When a step is not answered as documented.
    pub async fn register_new(api: &Api, wallet: &Wallet, name: &str) -> anyhow::Result<Option<Self>> {
        let asked = json!({ "wallet_address": wallet.address(), "purpose": "register" });
        let challenge = api.post("/auth/challenge", None, &asked).await?.expect_status(200)?;
        let registration = json!({
            "wallet_address": wallet.address(),
            "signature": wallet.sign(challenge.text("/data/message")?)?,
            "nonce": challenge.text("/data/nonce")?,
            "pow_nonce": work(&challenge, "/data/pow")?,
            "display_name": name,
        });
        let registered = api.post("/register", None, &registration).await?;
        if registered.code() == "WALLET_ALREADY_REGISTERED" {
            return Ok(None);
        }
        let registered = registered.expect_status(201)?;
        let header = registered.text("/data/authorization_header")?;
        Ok(Some(Self {
            profile_id: registered.text("/data/profile/id")?.to_owned(),
            key: header.strip_prefix("Bearer ").context("no bearer key")?.to_owned(),
        }))
    }

    /// Another key of the same profile.
    ///
    /// # Errors
    /// When it is not answered as documented.
    pub async fn another_key(&self, api: &Api, name: &str) -> anyhow::Result<String> {
        let made = api.post("/api-keys", Some(&self.key), &json!({ "name": name })).await?.expect_status(201)?;
        Ok(made.text("/data/api_key")?.to_owned())
    }

    /// How long the gateway waits for this listing's answers.
    ///
    /// # Errors
    /// When it is not answered as documented.
    pub async fn set_timeout(&self, api: &Api, listing: &str, timeout_ms: u32) -> anyhow::Result<()> {
        let path = format!("/listings/{listing}/endpoint");
        let request = api.request(Method::PUT, &path, Some(&self.key)).json(&json!({ "timeout_ms": timeout_ms }));
        api.send(request).await?.expect_status(200)?;
        Ok(())
    }

    /// Puts an offer into the catalog, active.
    ///
    /// # Errors
    /// When a step is not answered as documented.
    pub async fn create_listing(&self, api: &Api, offer: &Offer) -> anyhow::Result<Listing> {
        let challenge = api.post("/listings/challenge", Some(&self.key), &json!({})).await?.expect_status(200)?;
        let model = if offer.price_micros > 0 { "per_call" } else { "free" };
        let mut listing = json!({
            "pow_nonce": work(&challenge, "/data")?,
            "name": offer.name,
            "description": "A listing made by the load test.",
            "delivery_type": "api",
            "auth_method": "none",
            "formats": ["json"],
            "pricing_model": model,
            "pricing_currency": "USD",
            "private_endpoint_url": offer.endpoint,
            "status": "active",
        });
        let fields = listing.as_object_mut().context("an object")?;
        if offer.price_micros > 0 {
            fields.insert("pricing_amount".into(), serde_json::from_str(&units(offer.price_micros))?);
        }
        if !offer.limits.is_null() {
            fields.insert("limits".into(), offer.limits.clone());
        }
        let made = api.post("/listings", Some(&self.key), &listing).await?.expect_status(201)?;
        Ok(Listing {
            id: made.text("/data/id")?.to_owned(),
            signing_secret: made.text("/data/gateway_endpoint/signing_secret")?.to_owned(),
            price_micros: offer.price_micros,
        })
    }
}

fn work(challenge: &Answer, at: &str) -> anyhow::Result<String> {
    let difficulty = u32::try_from(challenge.number(&format!("{at}/difficulty"))?)?;
    prove_work(challenge.text(&format!("{at}/challenge"))?, difficulty)
}

fn units(micros: i64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}
