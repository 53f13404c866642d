//! How they come together: a profile for a wallet, a listing for a seller, a listing for a buyer who looks for one.

use std::io::Write;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Agent, Listing, Play, seller::Seller};
use crate::client::{
    http::Answer,
    wallet::{Chain, Wallet, solve},
};

/// What a seller offers.
pub(super) struct Offer {
    name: &'static str,
    description: &'static str,
    pricing_model: &'static str,
    /// Whole currency units.
    price: u64,
}

/// The one that is sold.
pub(super) const PAID: Offer = Offer {
    name: "Demo word count",
    description: "Counts the words of a text and returns it in capitals.",
    pricing_model: "per_call",
    price: 1,
};

/// The one that is given.
pub(super) const FREE: Offer = Offer {
    name: "Demo word count, free",
    description: "Counts the words of a text and returns it in capitals, for nothing.",
    pricing_model: "free",
    price: 0,
};

impl<W: Write> Play<W> {
    /// A wallet becomes a profile with a key.
    pub(super) async fn register(&mut self, display_name: &str) -> Result<Agent> {
        let wallet = Wallet::generate(Chain::Evm)?;
        let asked = json!({"wallet_address": wallet.address(), "purpose": "register"});
        let challenge = self.post("/api/v1/auth/challenge", None, &asked, 200).await?;
        let pow_nonce = self.work(&challenge, "/data/pow").await?;
        let registration = json!({
            "wallet_address": wallet.address(),
            "signature": wallet.sign(challenge.text("/data/message")?),
            "nonce": challenge.text("/data/nonce")?,
            "pow_nonce": pow_nonce,
            "display_name": display_name,
        });
        let registered = self.post("/api/v1/register", None, &registration, 201).await?;
        registered.must("/data/profile/display_name", display_name)?;
        let key = registered.text("/data/api_key")?.to_string();
        registered.must("/data/authorization_header", format!("Bearer {key}"))?;
        Ok(Agent { key, profile: registered.text("/data/profile/id")?.to_string() })
    }

    /// Offers something that the sample seller does, and tells the seller whose calls to trust.
    pub(super) async fn list(&mut self, owner: &Agent, seller: &Seller, offer: &Offer) -> Result<Listing> {
        let key = Some(owner.key.as_str());
        let challenge = self.post("/api/v1/listings/challenge", key, &json!({}), 200).await?;
        let listing = json!({
            "pow_nonce": self.work(&challenge, "/data").await?,
            "name": offer.name,
            "description": offer.description,
            "delivery_type": "api",
            "auth_method": "none",
            "formats": ["json"],
            "pricing_model": offer.pricing_model,
            "pricing_amount": offer.price,
            "pricing_currency": "USD",
            "private_endpoint_url": seller.url(),
            "example_request": {"input": "one two"},
            "status": "active",
        });
        let created = self.post("/api/v1/listings", key, &listing, 201).await?;
        created.must("/data/status", "active")?;
        created.must("/data/pricing_amount_micros", offer.price * 1_000_000)?;
        created.must("/data/provider/id", owner.profile.as_str())?;
        let id = created.text("/data/id")?.to_string();
        seller.trust(&id, created.text("/data/gateway_endpoint/signing_secret")?)?;
        Ok(Listing { id })
    }

    /// Looks through the market for the newest service that costs at most a dollar. Returns where it is called.
    pub(super) async fn find(&mut self, wanted: &Listing) -> Result<String> {
        let shelf = "/api/v1/listings?pricing_model=per_call&max_price=1&sort=newest&limit=1";
        let found = self.get(shelf, None).await?;
        found.must("/data/0/id", wanted.id.as_str())?;
        found.must("/data/0/pricing_amount_micros", 1_000_000)?;
        ensure!(found.json.pointer("/data/0/private_endpoint_url").is_none(), "the private address is shown");
        let url = found.text("/data/0/gateway_url")?;
        // The site may have a name that does not lead here; its path is good at the public address as well.
        let path = url.find("/api/v1/gateway/").and_then(|at| url.get(at..));
        Ok(path.context("the gateway's URL is of no known form")?.to_string())
    }

    async fn work(&mut self, challenge: &Answer, place: &str) -> Result<String> {
        let difficulty = challenge.number(&format!("{place}/difficulty"))?;
        let solution = solve(challenge.text(&format!("{place}/challenge"))?, difficulty, |_, _| {}).await?;
        let zeros = if difficulty == 1 { "zero" } else { "zeros" };
        let found = format!("Proof of work: with {solution}, the hash begins with {difficulty} {zeros}.");
        self.show.note(&[&found])?;
        Ok(solution)
    }

    /// The free service, called without any payment.
    pub(super) async fn call_free(&mut self, buyer: &Agent, free: &Listing) -> Result<()> {
        self.show.step("The free service needs no payment")?;
        let path = format!("/api/v1/gateway/{}", free.id);
        let body = json!({"input": "free of charge"});
        let answer = self.post(&path, Some(&buyer.key), &body, 200).await?;
        answer.must("/data/billable", false)?;
        answer.must("/data/charged_amount/amount_micros", 0)?;
        answer.must("/data/seller_response", result(3, "FREE OF CHARGE"))
    }
}

/// What the sample seller answers.
pub(super) fn result(words: u64, upper_case: &str) -> Value {
    json!({"result": {"words": words, "upper_case": upper_case}})
}
