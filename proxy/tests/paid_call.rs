//! The paid call, whole: 402, payment, answer, replay, books. And what must hold whoever tries what with a payment.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Agent, Gateway, Seller, eventually};

const BODY: &str = r#"{"task":"run","input":"..."}"#;
/// Prices here are above every route's minimum.
const PRICE: &str = "1.00";

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_case_field_by_field() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;

    let quoted = buyer.call(&gateway, &listing, BODY, &[]).await;
    quoted.refused(402, "PAYMENT_REQUIRED");
    assert_eq!(quoted.json["success"], false);
    assert_eq!(quoted.details()["seller_endpoint_called"], false);
    let payment = &quoted.json["data"]["payment"];
    assert_eq!(payment["amount"], json!({"amount_cents": 100, "amount_micros": 1_000_000, "currency": "USD"}));
    assert_eq!(payment["requirements"]["provider"], "sandbox");
    assert_eq!(payment["origin_currency"], "USDC");
    assert_eq!(payment["fees"]["fee_rate"], 0.049);
    let id = quoted.payment_id();
    assert!(id.starts_with("pay_"));
    assert_eq!(buyer.call(&gateway, &listing, BODY, &[]).await.payment_id(), id, "asking again is the same quote");

    let early = buyer.redeem(&gateway, &listing, BODY, &id).await;
    assert_eq!((early.expect(202).json["data"]["status"].as_str(), seller.calls()), (Some("pending"), 0));
    assert!(!early.header("retry-after").is_empty());

    buyer.pay_with(&gateway, &id, json!({})).await.expect(200);
    let answer = buyer.redeem(&gateway, &listing, BODY, &id).await;
    answer.expect(200);
    let request_id = id.replace("pay_", "gw_req_");
    assert_eq!(
        answer.json,
        json!({"success": true, "data": {
            "request_id": request_id, "billable": true,
            "charged_amount": {"amount_cents": 100, "amount_micros": 1_000_000, "currency": "USD"},
            "fees": {"fee_rate": 0.049, "fee_amount_cents": 5, "fee_amount_micros": 49_000,
                     "seller_receives_cents": 95, "seller_receives_micros": 951_000},
            "seller_status_code": 200, "seller_content_type": "application/json",
            "seller_response": {"result": "ok"},
        }})
    );
    assert_eq!(answer.header("x-crochet-request-id"), request_id);
    assert_eq!(answer.header("x-crochet-charged-micros"), "1000000");
    assert!(answer.header("server-timing").contains("seller;dur="));

    let again = buyer.redeem(&gateway, &listing, BODY, &id).await;
    assert_eq!(again.expect(200).bytes, answer.bytes, "equal to the byte");
    assert_eq!(again.header("x-crochet-replayed"), "true");
    assert_eq!(seller.calls(), 1);

    let received = seller.received().remove(0);
    assert_eq!(received.body, BODY.as_bytes());
    assert_eq!(received.headers["x-crochet-request-id"], request_id);
    assert_eq!(received.headers["x-crochet-charged-micros"], "1000000");
    assert!(!received.headers.contains_key("authorization"));

    let rows = |rows: Vec<Value>| -> Vec<(String, String, i64)> {
        rows.iter()
            .map(|row| {
                let text = |field: &str| row[field].as_str().expect("text").to_string();
                (text("entry_type"), text("direction"), row["amount"]["amount_micros"].as_i64().expect("micros"))
            })
            .collect()
    };
    assert_eq!(rows(buyer.ledger(&gateway).await), [("gateway_payment".into(), "debit".into(), 1_000_000)]);
    assert_eq!(rows(owner.ledger(&gateway).await), [("seller_credit".into(), "credit".into(), 951_000)]);
    for (agent, role) in [(&buyer, "buyer"), (&owner, "seller")] {
        let rows = agent.requests(&gateway).await;
        assert_eq!(rows.len(), 1, "{role}");
        assert_eq!((&rows[0]["role"], &rows[0]["status"]), (&json!(role), &json!("completed")));
        assert_eq!((&rows[0]["id"], &rows[0]["billable"]), (&json!(request_id), &json!(true)));
    }
    let next = buyer.call(&gateway, &listing, BODY, &[]).await;
    assert_ne!(next.refused(402, "PAYMENT_REQUIRED").payment_id(), id, "an identical second purchase is wanted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_call_needs_no_payment_and_is_in_the_history() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    let answer = buyer.call(&gateway, &listing, BODY, &[]).await;
    let data = &answer.expect(200).json["data"];
    assert_eq!((&data["billable"], &data["charged_amount"]["amount_micros"]), (&json!(false), &json!(0)));
    assert_eq!(data["seller_response"]["result"], "ok");
    eventually("the row is written behind the answer", async || {
        let rows = buyer.requests(&gateway).await;
        rows.len() == 1 && rows[0]["status"] == "completed" && rows[0]["id"] == data["request_id"]
    })
    .await;
    assert!(buyer.ledger(&gateway).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_f3_a_payment_serves_its_own_buyer_listing_and_body_only() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let owner = Agent::register(&gateway).await;
    let (buyer, other) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let (elsewhere, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
    let other_body = r#"{"task":"run","input":"...." }"#;
    for is_buyer in [true, false] {
        for is_listing in [true, false] {
            for is_body in [true, false] {
                if is_buyer && is_listing && is_body {
                    continue;
                }
                let who = if is_buyer { &buyer } else { &other };
                let answer = who
                    .redeem(
                        &gateway,
                        if is_listing { &listing } else { &elsewhere },
                        if is_body { BODY } else { other_body },
                        &id,
                    )
                    .await;
                match is_buyer {
                    true => answer.refused(409, "PAYMENT_REQUEST_MISMATCH"),
                    false => answer.refused(404, "PAYMENT_NOT_FOUND"),
                };
                assert_eq!(answer.details()["seller_endpoint_called"], false);
            }
        }
    }
    let invented = format!("pay_{}", "0".repeat(32));
    buyer.redeem(&gateway, &listing, BODY, &invented).await.refused(404, "PAYMENT_NOT_FOUND");
    buyer.redeem(&gateway, &listing, BODY, "nonsense").await.refused(404, "PAYMENT_NOT_FOUND");
    assert_eq!(seller.calls(), 0, "nothing but the all-same cell passes");
    buyer.redeem(&gateway, &listing, BODY, &id).await.expect(200);
    assert_eq!(seller.calls(), 1, "and the payment was untouched by the rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_every_id_redeemed_by_several_at_once_is_one_seller_call_and_one_set_of_postings() {
    const IDS: usize = 100;
    const CLIENTS: usize = 64;
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let mut ids = Vec::new();
    for n in 0..IDS {
        ids.push(buyer.buy(&gateway, &listing, BODY, &[("Idempotency-Key", &format!("purchase-{n}"))]).await);
    }
    let ids = std::sync::Arc::new(ids);
    let gateway = std::sync::Arc::new(gateway);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (gateway, buyer, ids, listing) = (gateway.clone(), buyer.clone(), ids.clone(), listing.clone());
            tokio::spawn(async move {
                // Each id is asked for by four clients that meet at it.
                for n in 0..IDS {
                    if (n + client) % 16 == 0 || n % 16 == client % 16 {
                        let answer = buyer.redeem(&gateway, &listing, BODY, &ids[n]).await;
                        assert_eq!(answer.expect(200).json["data"]["seller_response"]["result"], "ok");
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("no client failed");
    }
    let mut called: Vec<String> =
        seller.received().iter().map(|request| request.headers["x-crochet-request-id"].clone()).collect();
    called.sort();
    let mut wanted: Vec<String> = ids.iter().map(|id| id.replace("pay_", "gw_req_")).collect();
    wanted.sort();
    assert_eq!(called, wanted);
    for (agent, entry) in [(&buyer, "gateway_payment"), (&owner, "seller_credit")] {
        let mut paid: Vec<String> = agent
            .ledger(&gateway)
            .await
            .iter()
            .map(|row| {
                assert_eq!(row["entry_type"], entry);
                row["gateway_request_id"].as_str().expect("id").to_string()
            })
            .collect();
        paid.sort();
        assert_eq!(paid, wanted, "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_that_hangs_up_fetches_its_answer_afterwards() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/gated"), PRICE).await;
    let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
    let waiting = buyer.redeem(&gateway, &listing, BODY, &id);
    tokio::select! {
        _ = waiting => panic!("the seller has not answered"),
        () = eventually("the seller is called", async || seller.calls() == 1) => {}
    }
    // The future was dropped: its connection is closed in mid-call.
    let busy = buyer.redeem(&gateway, &listing, BODY, &id).await;
    busy.refused(409, "PAYMENT_IN_PROGRESS");
    assert_eq!(busy.details()["payment_state"], "claimed");
    seller.open(1);
    eventually("the answer is stored", async || buyer.redeem(&gateway, &listing, BODY, &id).await.status == 200).await;
    assert_eq!(seller.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_answer_is_served_while_the_listing_is_paused_and_after_it_was_suspended() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let done = buyer.buy(&gateway, &listing, BODY, &[]).await;
    let first = buyer.redeem(&gateway, &listing, BODY, &done).await;
    first.expect(200);
    let paid = buyer.buy(&gateway, &listing, BODY, &[]).await;

    let endpoint = format!("/api/v1/listings/{listing}/endpoint");
    owner.send(&gateway, Method::PUT, &endpoint, json!({"status": "paused"})).await.expect(200);
    assert_eq!(buyer.redeem(&gateway, &listing, BODY, &done).await.expect(200).bytes, first.bytes);
    let paused = buyer.redeem(&gateway, &listing, BODY, &paid).await;
    paused.refused(503, "SELLER_PAUSED");
    assert_eq!(paused.details()["payment_state"], "settled");
    assert_eq!(paused.json["error"]["recovery"]["next_action"], "retry_same_payment");
    buyer.call(&gateway, &listing, BODY, &[]).await.refused(503, "SELLER_PAUSED");

    owner.send(&gateway, Method::DELETE, &format!("/api/v1/listings/{listing}"), json!({})).await.expect(200);
    assert_eq!(buyer.redeem(&gateway, &listing, BODY, &done).await.expect(200).bytes, first.bytes);
    buyer.call(&gateway, &listing, BODY, &[]).await.refused(409, "LISTING_UNAVAILABLE");
    let closed = buyer.redeem(&gateway, &listing, BODY, &paid).await;
    closed.refused(409, "PAYMENT_CLOSED");
    assert_eq!(closed.details()["payment_state"], "owed");
    assert_eq!(seller.calls(), 1);
    let owed = buyer.ledger(&gateway).await;
    assert_eq!((owed[0]["entry_type"].as_str(), owed[0]["direction"].as_str()), (Some("adjustment"), Some("credit")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_one_purchase_whoever_remembers_the_id() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let key = [("Idempotency-Key", "order-7")];
    let id = buyer.buy(&gateway, &listing, BODY, &key).await;
    let first = buyer.call(&gateway, &listing, BODY, &key).await;
    assert_eq!(first.expect(200).json["data"]["request_id"], json!(id.replace("pay_", "gw_req_")));
    assert_eq!(buyer.call(&gateway, &listing, BODY, &key).await.expect(200).bytes, first.bytes);
    buyer.call(&gateway, &listing, "{}", &key).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
    let other = buyer.call(&gateway, &listing, BODY, &[("Idempotency-Key", "order-8")]).await;
    assert_ne!(other.refused(402, "PAYMENT_REQUIRED").payment_id(), id);
    assert_eq!(seller.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn f4_money_counts_by_the_providers_own_record() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let quote = async |key: &str| buyer.call(&gateway, &listing, BODY, &[("Idempotency-Key", key)]).await.payment_id();

    let short = quote("short").await;
    buyer.pay_with(&gateway, &short, json!({"amount_micros": 400_000})).await.expect(200);
    let underpaid = buyer.redeem(&gateway, &listing, BODY, &short).await;
    underpaid.refused(402, "PAYMENT_UNDERPAID");
    assert_eq!(underpaid.details()["missing_micros"], 600_000);
    assert_ne!(underpaid.payment_id(), short, "a fresh full quote");
    buyer.redeem(&gateway, &listing, BODY, &short).await.refused(409, "PAYMENT_CLOSED");

    let astray = quote("astray").await;
    buyer.pay_with(&gateway, &astray, json!({"recipient": "somebody-else"})).await.expect(200);
    let failed = buyer.redeem(&gateway, &listing, BODY, &astray).await;
    failed.refused(402, "PAYMENT_FAILED");
    assert_ne!(failed.payment_id(), astray);

    let refused = quote("refused").await;
    buyer.pay_with(&gateway, &refused, json!({"outcome": "failure"})).await.expect(200);
    buyer.redeem(&gateway, &listing, BODY, &refused).await.refused(402, "PAYMENT_FAILED");
    assert_eq!(seller.calls(), 0);

    let ample = quote("ample").await;
    buyer.pay_with(&gateway, &ample, json!({"amount_micros": 1_500_000})).await.expect(200);
    let answer = buyer.redeem(&gateway, &listing, BODY, &ample).await;
    assert_eq!(answer.expect(200).json["data"]["charged_amount"]["amount_micros"], 1_000_000);
    let owed: i64 = buyer
        .ledger(&gateway)
        .await
        .iter()
        .filter(|row| row["entry_type"] == "adjustment" && row["direction"] == "credit")
        .map(|row| row["amount"]["amount_micros"].as_i64().expect("micros"))
        .sum();
    assert_eq!(owed, 400_000 + 500_000, "the short payment and the surplus");
}

#[tokio::test(flavor = "multi_thread")]
async fn prefer_wait_waits_for_the_settlement() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let id = buyer.call(&gateway, &listing, BODY, &[]).await.payment_id();
    buyer.pay_with(&gateway, &id, json!({"delay_ms": 700})).await.expect(200);
    buyer.redeem(&gateway, &listing, BODY, &id).await.expect(202);
    let headers = [("X-Crochet-Relay-Request-Id", id.as_str()), ("Prefer", "wait=10")];
    let waited = tokio::time::timeout(Duration::from_secs(8), buyer.call(&gateway, &listing, BODY, &headers)).await;
    waited.expect("in time").expect(200);
    assert_eq!(seller.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_streams_is_kept_and_replays_to_the_byte() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__HOLD_BYTES", "4KiB"), ("CROCHET__PROXY__KEEP_BYTES", "1MiB")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/size/300000"), PRICE).await;
    let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
    let first = buyer.redeem(&gateway, &listing, BODY, &id).await;
    assert_eq!(first.expect(200).json["data"]["seller_response"].as_str().map(str::len), Some(300_000));
    let again = buyer.redeem(&gateway, &listing, BODY, &id).await;
    assert_eq!(again.expect(200).bytes, first.bytes);
    assert_eq!(seller.calls(), 1);

    let (cut, _) = owner.list(&gateway, &seller.url("/cut-after/100000"), PRICE).await;
    let id = buyer.buy(&gateway, &cut, BODY, &[]).await;
    let broken = buyer.redeem(&gateway, &cut, BODY, &id).await;
    assert_eq!((broken.status, &broken.json), (200, &Value::Null), "the stream has no proper end");
    eventually("the attempt is released", async || {
        buyer.requests(&gateway).await.iter().any(|row| row["status"] == "released" && row["billable"] == false)
    })
    .await;
    let shown = buyer.get(&gateway, &format!("/api/v1/payments/{id}")).await;
    assert_eq!(shown.expect(200).json["data"]["state"], "settled", "the payment stays usable");
}
