//! What a payment is bound to: {the same, another} buyer × listing × body × amount × recipient × expiry, 64 cells over
//! real sockets. Only the cell where all are the same passes. Whoever may not use a payment leaves no trace on it.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use serde_json::{Value, json};
use support::{Agent, Gateway, Seller, eventually};

const BODY: &str = r#"{"task":"run","secret":"of-this-body"}"#;
/// Another text of the same length; the same JSON with another space would do as well.
const OTHER_BODY: &str = r#"{"task":"run","secret":"of-that-body"}"#;
const PRICE_MICROS: i64 = 1_000_000;

/// Whether each of the six is the same as in the quote.
#[derive(Clone, Copy, Debug)]
struct Cell {
    buyer: bool,
    listing: bool,
    body: bool,
    amount: bool,
    recipient: bool,
    expiry: bool,
}

impl Cell {
    /// The 32 cells of one kind of expiry.
    fn all(expiry: bool) -> impl Iterator<Item = Self> {
        (0..32u8).map(move |bits| {
            let [buyer, listing, body, amount, recipient] = [1, 2, 4, 8, 16].map(|bit| bits & bit == 0);
            Self { buyer, listing, body, amount, recipient, expiry }
        })
    }

    fn is_request_same(self) -> bool {
        self.buyer && self.listing && self.body
    }

    /// F2, F3 and F4 of the contract: status and code, and 200 for the one that passes.
    fn expected(self) -> (u16, &'static str) {
        match self {
            Self { buyer: false, .. } => (404, "PAYMENT_NOT_FOUND"),
            Self { listing: false, .. } | Self { body: false, .. } => (409, "PAYMENT_REQUEST_MISMATCH"),
            Self { expiry: false, .. } => (402, "PAYMENT_EXPIRED"),
            Self { recipient: false, .. } => (402, "PAYMENT_FAILED"),
            Self { amount: false, .. } => (402, "PAYMENT_UNDERPAID"),
            _ => (200, ""),
        }
    }
}

struct Market {
    gateway: Gateway,
    seller: Seller,
    buyer: Agent,
    other: Agent,
    listing: String,
    elsewhere: String,
}

impl Market {
    async fn open(knobs: &[(&str, &str)]) -> Self {
        let (gateway, seller) = (Gateway::with(knobs), Seller::start().await);
        let owner = Agent::register(&gateway).await;
        let (buyer, other) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
        let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
        let (elsewhere, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
        Self { gateway, seller, buyer, other, listing, elsewhere }
    }

    /// A quote of its own for this cell, paid as the cell says. What is paid late does not settle before the end.
    async fn payment(&self, cell: Cell) -> String {
        let key = format!("{cell:?}").replace(' ', "");
        let quoted = self.buyer.call(&self.gateway, &self.listing, BODY, &[("Idempotency-Key", &key)]).await;
        let id = quoted.refused(402, "PAYMENT_REQUIRED").payment_id();
        let mut how = json!({});
        if !cell.amount {
            how["amount_micros"] = json!(PRICE_MICROS - 1);
        }
        if !cell.recipient {
            how["recipient"] = json!("sandbox:somebody-else");
        }
        if !cell.expiry {
            how["delay_ms"] = json!(3_600_000);
        }
        self.buyer.pay_with(&self.gateway, &id, how).await.expect(200);
        id
    }

    async fn shown(&self, id: &str) -> Value {
        let shown = self.buyer.get(&self.gateway, &format!("/api/v1/payments/{id}")).await;
        shown.expect(200).json["data"].clone()
    }

    /// Tries the cell with its payment, and then sees what it has left.
    async fn attempt(&self, cell: Cell, id: &str) {
        let (before, calls) = (self.shown(id).await, self.seller.calls());
        let who = if cell.buyer { &self.buyer } else { &self.other };
        let listing = if cell.listing { &self.listing } else { &self.elsewhere };
        let body = if cell.body { BODY } else { OTHER_BODY };
        let answer = who.redeem(&self.gateway, listing, body, id).await;
        assert_eq!((answer.status, answer.code()), cell.expected(), "{cell:?}: {}", answer.json);
        if answer.status == 200 {
            assert_eq!(self.seller.calls(), calls + 1, "{cell:?}");
            return;
        }
        assert_eq!(self.seller.calls(), calls, "{cell:?} reached the seller");
        assert_eq!(answer.details()["seller_endpoint_called"], false, "{cell:?}");
        if cell.is_request_same() {
            return;
        }
        assert_eq!(self.shown(id).await, before, "{cell:?} left a trace on the payment");
        // Nothing is told about the request that it was made for.
        let told = answer.json.to_string();
        let listing = if cell.listing { "" } else { &self.listing };
        let hidden = [listing, "of-this-body", &self.buyer.profile];
        for secret in hidden.into_iter().filter(|secret| !secret.is_empty()) {
            assert!(!told.contains(secret), "{cell:?} is told {secret}: {told}");
        }
    }

    /// The money of this buyer that moved, in all.
    async fn moved(&self) -> (usize, usize) {
        let rows = self.buyer.ledger(&self.gateway).await;
        let of = |kind: &str| rows.iter().filter(|row| row["entry_type"] == kind).count();
        (of("gateway_payment"), of("adjustment"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_f2_f3_f4_of_the_cells_within_the_expiry_only_the_all_same_one_passes() {
    let market = Market::open(&[]).await;
    let mut untouched = Vec::new();
    for cell in Cell::all(true) {
        let id = market.payment(cell).await;
        market.attempt(cell, &id).await;
        if !cell.is_request_same() {
            untouched.push((cell, id));
        }
    }
    assert_eq!(market.seller.calls(), 1, "one cell passes");
    assert_eq!(untouched.len(), 28);
    // What was refused to others is there for the one whose it is: paid rightly it passes, once.
    let mut passed = 1;
    for (cell, id) in untouched {
        let own = Cell { buyer: true, listing: true, body: true, ..cell };
        market.attempt(own, &id).await;
        if own.expected().0 == 200 {
            passed += 1;
            let again = market.buyer.redeem(&market.gateway, &market.listing, BODY, &id).await;
            assert_eq!(again.expect(200).header("x-crochet-replayed"), "true");
        }
        // Used or refused, it is nobody else's afterwards either.
        let other = Cell { buyer: false, ..cell };
        market.attempt(other, &id).await;
    }
    assert_eq!((passed, market.seller.calls()), (8, 8));
    // Paid: the eight that passed and the eight that were short; those are the buyer's again. Astray is not ours.
    assert_eq!(market.moved().await, (16, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_after_the_expiry_no_cell_passes_until_the_money_is_there() {
    let market = Market::open(&[("CROCHET__PAYMENTS__QUOTE_TTL", "1s")]).await;
    let mut cells = Vec::new();
    for cell in Cell::all(false) {
        cells.push((cell, market.payment(cell).await));
    }
    eventually("the last quote expires", async || {
        let (_, last) = cells.last().expect("some");
        market.shown(last).await["state"] == "expired"
    })
    .await;
    for (cell, id) in &cells {
        market.attempt(*cell, id).await;
    }
    assert_eq!((market.seller.calls(), market.moved().await), (0, (0, 0)));
}
