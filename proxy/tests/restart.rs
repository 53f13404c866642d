//! `kill -9` right after each durable step, a start on the same directory, and the same request again.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use serde_json::json;
use support::{Agent, Gateway, Seller, eventually};

const BODY: &str = r#"{"task":"run"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_a_settlement_a_claim_and_an_outcome_each_outlive_a_kill() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/gated"), "1").await;

    // The quote.
    let id = buyer.call(&gateway, &listing, BODY, &[]).await.payment_id();
    gateway.kill_and_restart();
    assert_eq!(buyer.call(&gateway, &listing, BODY, &[]).await.payment_id(), id);

    // The provider's record.
    buyer.pay_with(&gateway, &id, json!({})).await.expect(200);
    gateway.kill_and_restart();

    // The claim: the seller has the request, and the process dies.
    let claimed = buyer.redeem(&gateway, &listing, BODY, &id);
    tokio::select! {
        _ = claimed => panic!("the seller has not answered"),
        () = eventually("the seller is called", async || seller.calls() == 1) => {}
    }
    gateway.kill_and_restart();
    let shown = buyer.get(&gateway, &format!("/api/v1/payments/{id}")).await;
    assert_eq!(shown.expect(200).json["data"]["state"], "settled", "the claim of the earlier life was released");
    let rows = buyer.requests(&gateway).await;
    assert_eq!((rows.len(), &rows[0]["status"]), (1, &json!("interrupted")));

    // The same request id again, as a second attempt. And the outcome.
    seller.open(2);
    let answer = buyer.redeem(&gateway, &listing, BODY, &id).await;
    answer.expect(200);
    gateway.kill_and_restart();
    let again = buyer.redeem(&gateway, &listing, BODY, &id).await;
    assert_eq!(again.expect(200).bytes, answer.bytes);
    assert_eq!(again.header("x-crochet-replayed"), "true");
    let received = seller.received();
    assert_eq!(received.len(), 2, "once before the kill, once after it");
    assert_eq!(received[0].headers["x-crochet-request-id"], received[1].headers["x-crochet-request-id"]);
    assert_eq!(received[1].headers["x-crochet-attempt"], "2");
    assert_eq!(buyer.ledger(&gateway).await.len(), 1);
    assert_eq!(owner.ledger(&gateway).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_without_a_call_outlives_a_kill() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/switch"), "1").await;
    seller.answer_with(500);
    let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
    buyer.redeem(&gateway, &listing, BODY, &id).await.refused(502, "SELLER_ERROR");
    gateway.kill_and_restart();
    let shown = buyer.get(&gateway, &format!("/api/v1/payments/{id}")).await;
    assert_eq!(shown.expect(200).json["data"]["state"], "settled");
    seller.answer_with(200);
    buyer.redeem(&gateway, &listing, BODY, &id).await.expect(200);
    assert_eq!(buyer.ledger(&gateway).await.len(), 1, "settled once");
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_and_double_nothing() {
    const KILLS: usize = 8;
    const IDS: usize = 120;
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let mut ids = Vec::new();
    for n in 0..IDS {
        ids.push(buyer.buy(&gateway, &listing, BODY, &[("Idempotency-Key", &format!("n{n}"))]).await);
    }
    let mut done: Vec<Option<Vec<u8>>> = vec![None; IDS];
    for kill in 0..KILLS {
        // Some are answered, some are under way when the process dies.
        let url = gateway.url.clone();
        let from = kill * IDS / KILLS;
        let tasks: Vec<_> = (from..from + IDS / KILLS)
            .map(|n| {
                let (url, key, id, listing) = (url.clone(), buyer.key.clone(), ids[n].clone(), listing.clone());
                tokio::spawn(async move {
                    let request = reqwest::Client::new()
                        .post(format!("{url}/api/v1/gateway/{listing}"))
                        .bearer_auth(key)
                        .header("X-Crochet-Relay-Request-Id", id)
                        .header("Content-Type", "application/json")
                        .body(BODY);
                    let answer = request.send().await.ok()?;
                    let is_done = answer.status() == 200;
                    let bytes = answer.bytes().await.ok()?;
                    is_done.then(|| (n, bytes.to_vec()))
                })
            })
            .collect();
        let calls = seller.calls();
        eventually("some calls are under way", async || seller.calls() > calls + kill).await;
        gateway.kill_and_restart();
        for task in tasks {
            if let Some((n, bytes)) = task.await.expect("joined") {
                done[n] = Some(bytes);
            }
        }
    }
    for (n, id) in ids.iter().enumerate() {
        let answer = buyer.redeem(&gateway, &listing, BODY, id).await;
        answer.expect(200);
        if let Some(acknowledged) = &done[n] {
            assert_eq!(&answer.bytes, acknowledged, "what was answered before the kill is answered after it");
        }
    }
    let earned = owner.ledger(&gateway).await;
    let paid = buyer.ledger(&gateway).await;
    assert_eq!((earned.len(), paid.len()), (IDS, IDS), "one posting each, none lost, none doubled");
    let completed = buyer.requests(&gateway).await.iter().filter(|row| row["status"] == "completed").count();
    assert_eq!(completed, IDS);
}
