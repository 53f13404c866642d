//! What a buyer may wish: to wait for its settlement, to pay no more than it said, to be one purchase by a key of its
//! own; and what the caps of its API key forbid.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use support::{Agent, Gateway, Seller, eventually};

const BODY: &str = r#"{"task":"run"}"#;

/// A key of the same profile with these caps.
async fn capped(gateway: &Gateway, agent: &Agent, caps: Value) -> Agent {
    let mut wanted = json!({"name": "capped"});
    wanted.as_object_mut().expect("object").extend(caps.as_object().expect("object").clone());
    let created = agent.send(gateway, Method::POST, "/api/v1/api-keys", wanted).await;
    agent.with_key(created.expect(201).json["data"]["api_key"].as_str().expect("key"))
}

async fn set_price(gateway: &Gateway, owner: &Agent, listing: &str, price: &str) {
    let price: serde_json::Number = price.parse().expect("number");
    let path = format!("/api/v1/listings/{listing}");
    owner.send(gateway, Method::PATCH, &path, json!({"pricing_amount": price})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefer_wait_answers_as_soon_as_the_payment_settles_for_all_who_wait() {
    let (gateway, seller) = (Arc::new(Gateway::start()), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let id = buyer.call(&gateway, &listing, BODY, &[]).await.payment_id();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, buyer, listing, id) = (gateway.clone(), buyer.clone(), listing.clone(), id.clone());
            tokio::spawn(async move {
                let headers = [("X-Crochet-Relay-Request-Id", id.as_str()), ("Prefer", "respond-async, wait=20")];
                buyer.call(&gateway, &listing, BODY, &headers).await
            })
        })
        .collect();
    // It settles while they wait.
    buyer.pay_with(&gateway, &id, json!({"delay_ms": 1_500})).await.expect(200);
    for waiting in waiting {
        let answer = tokio::time::timeout(Duration::from_secs(15), waiting).await.expect("in time").expect("joined");
        answer.expect(200);
    }
    assert_eq!(seller.calls(), 1);
    let last = [("X-Crochet-Relay-Request-Id", id.as_str()), ("Prefer", "wait=1")];
    assert_eq!(buyer.call(&gateway, &listing, BODY, &last).await.expect(200).header("x-crochet-replayed"), "true");

    // Nothing comes: the wait is as long as was asked for, and then it is a 202.
    let unpaid = buyer.call(&gateway, &listing, "{}", &[]).await.payment_id();
    let headers = [("X-Crochet-Relay-Request-Id", unpaid.as_str()), ("Prefer", "wait=1")];
    let pending = tokio::time::timeout(Duration::from_secs(10), buyer.call(&gateway, &listing, "{}", &headers)).await;
    assert_eq!(pending.expect("in time").expect(202).json["data"]["status"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_above_the_maximum_is_not_quoted() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let ask = async |max: &str| buyer.call(&gateway, &listing, BODY, &[("X-Crochet-Max-Price-Micros", max)]).await;
    let refused = ask("999999").await;
    refused.refused(409, "PRICE_ABOVE_MAXIMUM");
    assert_eq!(
        (&refused.details()["price_micros"], &refused.details()["max_price_micros"]),
        (&json!(1_000_000), &json!(999_999))
    );
    assert_eq!(refused.json["error"]["recovery"]["next_action"], "choose_another_listing");
    let standing = ask("1000000").await.refused(402, "PAYMENT_REQUIRED").payment_id();
    for bad in ["-1", "1.5", "lots", ""] {
        ask(bad).await.refused(400, "INVALID_REQUEST");
    }
    // The listing is cheaper now, and the quote that stands is not.
    set_price(&gateway, &owner, &listing, "0.5").await;
    for _ in 0..2 {
        ask("600000").await.refused(409, "PRICE_ABOVE_MAXIMUM");
        assert_eq!(ask("1000000").await.payment_id(), standing);
    }
    let other = [("X-Crochet-Max-Price-Micros", "600000"), ("Idempotency-Key", "new")];
    buyer.call(&gateway, &listing, BODY, &other).await.refused(402, "PAYMENT_REQUIRED");
    assert_eq!(seller.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_own_maximum_holds_whatever_the_request_says() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let small = capped(&gateway, &buyer, json!({"max_price_micros": 999_999})).await;
    let refused = small.call(&gateway, &listing, BODY, &[("X-Crochet-Max-Price-Micros", "5000000")]).await;
    refused.refused(403, "SPEND_LIMIT_EXCEEDED");
    assert_eq!(refused.details()["limit"], "max_price_micros");
    // What another key of the profile has asked for is not agreed to by this one.
    buyer.call(&gateway, &listing, BODY, &[]).await.refused(402, "PAYMENT_REQUIRED");
    small.call(&gateway, &listing, BODY, &[]).await.refused(403, "SPEND_LIMIT_EXCEEDED");
    let enough = capped(&gateway, &buyer, json!({"max_price_micros": 1_000_000})).await;
    let id = enough.buy(&gateway, &listing, BODY, &[]).await;
    // What is paid for is paid for: any key of the profile may redeem it.
    small.redeem(&gateway, &listing, BODY, &id).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_days_spending_is_capped_across_requests_keys_and_a_kill() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let key = capped(&gateway, &buyer, json!({"daily_spend_micros": 3_000_000})).await;
    let other = capped(&gateway, &buyer, json!({"daily_spend_micros": 1_000_000})).await;

    let first = key.call(&gateway, &listing, "[1]", &[]).await.payment_id();
    for _ in 0..3 {
        assert_eq!(key.call(&gateway, &listing, "[1]", &[]).await.payment_id(), first, "asked again it counts once");
    }
    // Many at once: what is left is agreed to, and not a micro more.
    let mut opened = Vec::new();
    let url = gateway.url.clone();
    let tasks: Vec<_> = (2..18)
        .map(|n| {
            let (url, key, listing) = (url.clone(), key.key.clone(), listing.clone());
            tokio::spawn(async move {
                let answer = reqwest::Client::new()
                    .post(format!("{url}/api/v1/gateway/{listing}"))
                    .bearer_auth(key)
                    .header("Content-Type", "application/json")
                    .body(format!("[{n}]"))
                    .send()
                    .await
                    .expect("an answer");
                (n, answer.status().as_u16())
            })
        })
        .collect();
    for task in tasks {
        match task.await.expect("joined") {
            (n, 402) => opened.push(n),
            (_, status) => assert_eq!(status, 403),
        }
    }
    assert_eq!(opened.len(), 2);
    let refused = key.call(&gateway, &listing, "[99]", &[]).await;
    refused.refused(403, "SPEND_LIMIT_EXCEEDED");
    let details = refused.details();
    assert_eq!((&details["limit"], &details["spent_micros"]), (&json!("daily_spend_micros"), &json!(3_000_000)));
    assert_eq!((&details["daily_spend_micros"], &details["price_micros"]), (&json!(3_000_000), &json!(1_000_000)));
    assert!(details["resets_at"].as_str().expect("a moment").ends_with("T00:00:00.000Z"));

    gateway.kill_and_restart();
    key.call(&gateway, &listing, "[99]", &[]).await.refused(403, "SPEND_LIMIT_EXCEEDED");
    assert_eq!(key.call(&gateway, &listing, "[1]", &[]).await.payment_id(), first, "what it agreed to stands");
    // The caps of two keys are two, and a quote that one has opened counts for the other when it asks as well.
    assert_eq!(other.call(&gateway, &listing, "[1]", &[]).await.payment_id(), first);
    other.call(&gateway, &listing, "[98]", &[]).await.refused(403, "SPEND_LIMIT_EXCEEDED");
    // What was agreed to can be paid and called, and the uncapped key does not mind.
    key.pay_with(&gateway, &first, json!({})).await.expect(200);
    key.redeem(&gateway, &listing, "[1]", &first).await.expect(200);
    key.call(&gateway, &listing, "[99]", &[]).await.refused(403, "SPEND_LIMIT_EXCEEDED");
    buyer.call(&gateway, &listing, "[99]", &[]).await.refused(402, "PAYMENT_REQUIRED");
    key.call(&gateway, &listing, "[99]", &[]).await.refused(403, "SPEND_LIMIT_EXCEEDED");
    assert_eq!(seller.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_that_expires_unpaid_gives_the_day_back_and_a_paid_one_does_not() {
    let gateway = Gateway::with(&[("CROCHET__PAYMENTS__QUOTE_TTL", "2s")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let key = capped(&gateway, &buyer, json!({"daily_spend_micros": 1_000_000})).await;
    key.call(&gateway, &listing, "[1]", &[]).await.refused(402, "PAYMENT_REQUIRED");
    key.call(&gateway, &listing, "[2]", &[]).await.refused(403, "SPEND_LIMIT_EXCEEDED");
    let mut paid = String::new();
    eventually("the day has it back", async || {
        let answer = key.call(&gateway, &listing, "[2]", &[]).await;
        if answer.status == 402 {
            paid = answer.payment_id();
        }
        answer.status == 402
    })
    .await;
    key.pay_with(&gateway, &paid, json!({})).await.expect(200);
    key.redeem(&gateway, &listing, "[2]", &paid).await.expect(200);
    // Past its expiry, and past the round that gives back.
    let began = std::time::Instant::now();
    eventually("time passes", async || {
        key.call(&gateway, &listing, "[3]", &[]).await.refused(403, "SPEND_LIMIT_EXCEEDED");
        began.elapsed() > Duration::from_secs(8)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_on_a_free_listing_is_one_durable_call_without_money() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/gated"), "0").await;
    let key = [("Idempotency-Key", "once")];
    // The process dies while the seller works: the claim is released at the next start, under the same request id.
    tokio::select! {
        _ = buyer.call(&gateway, &listing, BODY, &key) => panic!("the seller has not answered"),
        () = eventually("the seller is called", async || seller.calls() == 1) => {}
    }
    gateway.kill_and_restart();
    seller.open(2);
    let first = buyer.call(&gateway, &listing, BODY, &key).await;
    let data = &first.expect(200).json["data"];
    assert_eq!((&data["billable"], &data["charged_amount"]["amount_micros"]), (&json!(false), &json!(0)));
    assert_eq!((first.header("x-crochet-result-kept"), first.header("x-crochet-billable")), ("true", "false"));
    let received = seller.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].headers["x-crochet-request-id"], received[1].headers["x-crochet-request-id"]);
    assert_eq!(
        (received[1].headers["x-crochet-attempt"].as_str(), received[1].headers["x-crochet-charged-micros"].as_str()),
        ("2", "0")
    );

    gateway.kill_and_restart();
    let again = buyer.call(&gateway, &listing, BODY, &key).await;
    assert_eq!((again.expect(200).header("x-crochet-replayed"), &again.bytes), ("true", &first.bytes));
    let id = data["request_id"].as_str().expect("id").replace("gw_req_", "pay_");
    assert_eq!(buyer.redeem(&gateway, &listing, BODY, &id).await.expect(200).bytes, first.bytes);
    buyer.call(&gateway, &listing, "{}", &key).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
    let (elsewhere, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    buyer.call(&gateway, &elsewhere, BODY, &key).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(seller.calls(), 2);
    for agent in [&buyer, &owner] {
        assert!(agent.ledger(&gateway).await.is_empty(), "no money moves");
        let rows = agent.requests(&gateway).await;
        let shown: Vec<_> =
            rows.iter().map(|row| (row["status"].as_str().expect("status"), row["billable"].clone())).collect();
        assert_eq!(shown, [("completed", json!(false)), ("interrupted", json!(false))]);
    }
    // Another buyer's key is another key; no key is no claim.
    let other = Agent::register(&gateway).await;
    seller.open(2);
    other.call(&gateway, &listing, "{}", &key).await.expect(200);
    assert_eq!(buyer.call(&gateway, &listing, BODY, &[]).await.expect(200).header("x-crochet-result-kept"), "false");
    assert_eq!(seller.calls(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_a_key_on_a_free_listing_used_by_many_at_once_is_one_seller_call() {
    let (gateway, seller) = (Arc::new(Gateway::start()), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/slow"), "0").await;
    let tasks: Vec<_> = (0..24)
        .map(|_| {
            let (gateway, buyer, listing) = (gateway.clone(), buyer.clone(), listing.clone());
            tokio::spawn(async move { buyer.call(&gateway, &listing, BODY, &[("Idempotency-Key", "all")]).await })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        let answer = task.await.expect("joined");
        answers.push(answer.expect(200).bytes.clone());
    }
    answers.dedup();
    assert_eq!((answers.len(), seller.calls()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_free_call_with_a_key_may_be_sent_again_and_a_price_that_came_later_is_not_asked_for_it() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/switch"), "0").await;
    let key = [("Idempotency-Key", "k")];
    seller.answer_with(500);
    let failed = buyer.call(&gateway, &listing, BODY, &key).await;
    failed.refused(502, "SELLER_ERROR");
    assert_eq!(failed.json["error"]["recovery"]["retryable"], true);
    seller.answer_with(200);
    let first = buyer.call(&gateway, &listing, BODY, &key).await;
    first.expect(200);
    let paid = json!({"pricing_model": "per_call", "pricing_amount": 1});
    owner.send(&gateway, Method::PATCH, &format!("/api/v1/listings/{listing}"), paid).await.expect(200);
    assert_eq!(buyer.call(&gateway, &listing, BODY, &key).await.expect(200).bytes, first.bytes, "that one purchase");
    let quoted = [("Idempotency-Key", "k2")];
    let id = buyer.call(&gateway, &listing, BODY, &quoted).await.refused(402, "PAYMENT_REQUIRED").payment_id();
    // And the other way round: what was offered at a price stays offered at it.
    let free = json!({"pricing_model": "free", "pricing_amount": 0});
    owner.send(&gateway, Method::PATCH, &format!("/api/v1/listings/{listing}"), free).await.expect(200);
    let standing = buyer.call(&gateway, &listing, BODY, &quoted).await;
    assert_eq!(standing.refused(402, "PAYMENT_REQUIRED").payment_id(), id);
    buyer.call(&gateway, &listing, BODY, &[("Idempotency-Key", "k3")]).await.expect(200);
    assert_eq!(seller.calls(), 3);
    assert!(buyer.ledger(&gateway).await.is_empty());
}
