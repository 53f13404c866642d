//! What the chain takes back after it was settled, and what only looks so.

use super::*;

/// Paid money is looked at again at once and two seconds later, and all the time while the chain does not say.
const LOOKS: [(&str, &str); 4] = [
    ("CROCHET__PAYMENTS__REREADS__PAID_AFTER", "0s,2s"),
    ("CROCHET__PAYMENTS__REREADS__AGAIN_AFTER", "100ms"),
    ("CROCHET__PAYMENTS__REREADS__EVERY", "100ms"),
    ("CROCHET__CONTROL__ROLL_UP_EVERY", "100ms"),
];

impl Scene {
    async fn reorganise(&self, again: bool) {
        let url = format!("{}/_reorg", self.facilitator.url());
        self.http.post(url).json(&json!({ "again": again })).send().await.expect("told");
    }

    /// Buys a call; returns its payment.
    async fn bought(&self) -> String {
        let (quoted, _) = self.quote(BODY).await;
        self.pay(BODY, &self.sign(BODY).await).await.expect(200);
        quoted.payment_id()
    }

    /// What the payment's page shows as taken back.
    async fn taken_back(&self, payment: &str) -> Value {
        let shown = self.buyer.get(&self.gateway, &format!("/api/v1/payments/{payment}")).await;
        shown.expect(200).json["data"]["taken_back_micros"].clone()
    }

    /// Waits until the chain was asked so often more.
    async fn asks(&self, more: u64) {
        let before = self.count("/chain").await;
        support::eventually("the chain is asked", async || self.count("/chain").await >= before + more).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_what_a_reorganisation_of_the_chain_takes_is_posted_once_it_is_final() {
    let scene = with_a_chain_and(&LOOKS).await;
    scene.steer(json!({"faults": {"/chain": {"status": 500, "body": {}}}})).await;
    let id = scene.bought().await;
    scene.reorganise(false).await;
    scene.asks(3).await;
    assert_eq!(scene.taken_back(&id).await, json!(0), "no answer is no no");
    // Nothing is final yet that is younger than an hour.
    scene.steer(json!({"final_after": 3600})).await;
    scene.asks(12).await;
    assert_eq!(scene.taken_back(&id).await, json!(0), "the next block may bring it again");
    scene.steer(json!({"ahead": 3600, "final_after": 60})).await;
    support::eventually("it is posted", async || scene.taken_back(&id).await == json!(10_000)).await;
    assert_eq!(scene.state(&id).await, "completed", "the call stays handled");
    let row = &scene.owner.ledger(&scene.gateway).await[0];
    assert_eq!((&row["entry_type"], &row["direction"]), (&json!("adjustment"), &json!("debit")), "the seller gives it");
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_a_transfer_that_is_on_the_chain_still_or_again_stays_paid() {
    let scene = with_a_chain_and(&LOOKS).await;
    scene.steer(json!({"ahead": 3600})).await;
    let id = scene.bought().await;
    // In its transaction one question tells, in another one five do.
    scene.asks(1).await;
    scene.reorganise(true).await;
    scene.asks(5).await;
    assert_eq!(scene.taken_back(&id).await, json!(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_what_was_taken_further_back_than_is_looked_stays_paid() {
    let mut knobs = LOOKS.to_vec();
    knobs.push(("CROCHET__PAYMENTS__X402__CHAIN_BLOCKS", "8"));
    let scene = with_a_chain_and(&knobs).await;
    scene.steer(json!({"ahead": 3600, "faults": {"/chain": {"status": 500, "body": {}}}})).await;
    let id = scene.bought().await;
    scene.reorganise(true).await;
    scene.steer(json!({"ahead": 3600})).await;
    let said = || scene.gateway.log().contains("further back than payments.x402.chain_blocks reaches");
    support::eventually("it is told", async || said()).await;
    assert_eq!(scene.taken_back(&id).await, json!(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_without_a_node_of_the_chain_it_is_said_that_nobody_can_tell() {
    let mut knobs = vec![("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false"), ("CROCHET__PAYMENTS__DEFAULT_RAIL", "x402")];
    knobs.extend(LOOKS);
    let scene = Scene::with(&knobs).await;
    assert!(scene.gateway.log().contains("payments.x402.chain_url is not set"), "{}", scene.gateway.log());
    let id = scene.bought().await;
    scene.reorganise(false).await;
    assert_eq!(scene.taken_back(&id).await, json!(0));
}
