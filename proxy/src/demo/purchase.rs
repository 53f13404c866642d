//! One purchase: asked for, refused for want of money, paid, served, served again for nothing, and found in the books.

use std::io::Write;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Agent, Listing, Play, market::result, seller::Seller};
use crate::client::http::{Answer, Request};

const BODY: &str = "{\"input\": \"the quick brown fox jumps over the lazy dog\"}";
const UPPER_CASE: &str = "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG";
/// A dollar.
const CHARGED: u64 = 1_000_000;
/// Where an answer says what is left of it for the seller.
const EARNED: &str = "/data/fees/seller_receives_micros";

impl<W: Write> Play<W> {
    /// The purchase, from the search to the books.
    pub(super) async fn purchase(
        &mut self,
        buyer: &Agent,
        owner: &Agent,
        seller: &Seller,
        listing: &Listing,
    ) -> Result<()> {
        self.show.step("The buyer looks for a service")?;
        let path = self.find(listing).await?;

        self.show.step("It calls the service, and is asked for the money first")?;
        let quoted = self.call(buyer, &path, None, 402).await?;
        check_quote(&quoted)?;
        let payment = quoted.text("/data/payment/relay_request_id")?;
        ensure!(seller.served() == 0, "the seller was called before it was paid for");

        self.show.step("It pays on the sandbox, where the 402 says")?;
        self.pay(buyer, &quoted, payment).await?;

        self.show.step("It sends the same call again, with the payment's id")?;
        let bought = self.call(buyer, &path, Some(payment), 200).await?;
        check_purchase(&bought)?;
        check_parts(&quoted, &bought)?;
        ensure!(seller.served() == 1, "the seller worked {} times for one purchase", seller.served());

        self.show.step("And once more: the same result, from the store, at no charge")?;
        let again = self.call(buyer, &path, Some(payment), 200).await?;
        self.check_replay(&bought, &again, seller)?;
        self.read_books(buyer, owner, payment, &bought).await
    }

    async fn call(&mut self, buyer: &Agent, path: &str, payment: Option<&str>, status: u16) -> Result<Answer> {
        let (path, body) = (path.to_string(), Some(BODY.to_string()));
        let more = payment.map(|id| ("X-Crochet-Relay-Request-Id", id.to_string())).into_iter().collect();
        self.ask(Request { method: "POST", path, key: Some(&buyer.key), more, body }, status).await
    }

    async fn pay(&mut self, buyer: &Agent, quoted: &Answer, payment: &str) -> Result<()> {
        let url = quoted.text("/data/payment/requirements/pay/url")?;
        let path = format!("/api/v1/sandbox/payments/{payment}/pay");
        ensure!(url.ends_with(&path), "the 402 names another place to pay: {url}");
        let paid = self.post(&path, Some(&buyer.key), &json!({}), 200).await?;
        paid.must("/data/relay_request_id", payment)?;
        paid.must("/data/status", "success")?;
        paid.must("/data/amount/amount_micros", CHARGED)
    }

    fn check_replay(&mut self, bought: &Answer, again: &Answer, seller: &Seller) -> Result<()> {
        let mark = again.field("x-crochet-replayed");
        ensure!(mark == "true", "X-Crochet-Replayed is {mark:?}, where \"true\" was due");
        ensure!(again.body == bought.body, "the replayed answer is not equal to the first");
        ensure!(seller.served() == 1, "the seller was called again for a replay");
        let bytes = again.body.len();
        self.show.note(&[&format!("Equal in all {bytes} bytes; the seller was called once in all.")])?;
        Ok(())
    }

    async fn read_books(&mut self, buyer: &Agent, owner: &Agent, payment: &str, bought: &Answer) -> Result<()> {
        self.show.step("The buyer's ledger: one debit")?;
        let ledger = self.get("/api/v1/ledger", Some(&buyer.key)).await?;
        check_entry(&ledger, payment, "gateway_payment", "debit", CHARGED)?;

        self.show.step("The seller's ledger: one credit, the fee taken off")?;
        let ledger = self.get("/api/v1/ledger", Some(&owner.key)).await?;
        check_entry(&ledger, payment, "seller_credit", "credit", bought.number(EARNED)?)?;

        self.show.step("The call in the buyer's history")?;
        let history = self.get("/api/v1/gateway-requests?role=buyer", Some(&buyer.key)).await?;
        check_only_one(&history)?;
        history.must("/data/0/id", bought.text("/data/request_id")?)?;
        history.must("/data/0/relay_request_id", payment)?;
        history.must("/data/0/status", "completed")?;
        history.must("/data/0/attempt", 1)?;
        history.must("/data/0/billable", true)?;
        history.must("/data/0/charged_amount/amount_micros", CHARGED)
    }
}

fn check_quote(quoted: &Answer) -> Result<()> {
    quoted.must("/success", false)?;
    quoted.must("/error/code", "PAYMENT_REQUIRED")?;
    quoted.must("/error/details/seller_endpoint_called", false)?;
    quoted.must("/data/payment/amount/amount_micros", CHARGED)?;
    quoted.must("/data/payment/requirements/provider", "sandbox")
}

fn check_purchase(bought: &Answer) -> Result<()> {
    bought.must("/success", true)?;
    bought.must("/data/billable", true)?;
    let charged = json!({"amount_cents": 100, "amount_micros": CHARGED, "currency": "USD"});
    bought.must("/data/charged_amount", charged)?;
    bought.must("/data/seller_status_code", 200)?;
    bought.must("/data/seller_content_type", "application/json")?;
    bought.must("/data/seller_response", result(9, UPPER_CASE))
}

/// The parts are those of the quote and add up; at the usual fee, to the cent and the micro.
fn check_parts(quoted: &Answer, bought: &Answer) -> Result<()> {
    let agreed = quoted.json.pointer("/data/payment/fees").context("the 402 does not say what the fees are")?;
    bought.must("/data/fees", agreed.clone())?;
    let sum = bought.number("/data/fees/fee_amount_micros")? + bought.number(EARNED)?;
    ensure!(sum == CHARGED, "fee and earnings add up to {sum} micros, where {CHARGED} was due");
    if agreed.get("fee_rate") != Some(&json!(0.049)) {
        return Ok(());
    }
    bought.must("/data/fees/fee_amount_cents", 5)?;
    bought.must("/data/fees/fee_amount_micros", 49_000)?;
    bought.must("/data/fees/seller_receives_cents", 95)?;
    bought.must(EARNED, 951_000)
}

fn check_entry(ledger: &Answer, payment: &str, entry_type: &str, direction: &str, micros: u64) -> Result<()> {
    check_only_one(ledger)?;
    ledger.must("/data/0/relay_request_id", payment)?;
    ledger.must("/data/0/entry_type", entry_type)?;
    ledger.must("/data/0/direction", direction)?;
    ledger.must("/data/0/amount/amount_micros", micros)
}

fn check_only_one(list: &Answer) -> Result<()> {
    let rows = list.json.pointer("/data").and_then(|data| data.as_array()).context("the answer holds no list")?;
    ensure!(rows.len() == 1, "there are {} rows, where 1 was due", rows.len());
    Ok(())
}
