//! The Relay rail over real HTTP: the gateway as a process, and a provider that delays, refuses, loses answers and lies.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use hmac::{Hmac, KeyInit as _, Mac as _};
use loadtest::{provider::unix_seconds, relay::Relay};
use serde_json::{Value, json};
use sha2::Sha256;
use support::{Agent, Gateway, Seller, agent::Answer, eventually};

const KEY: &str = "relay-key-of-the-test";
const RECIPIENT: &str = "0x00000000000000000000000000000000000000AA";
const BODY: &str = r#"{"task":"run"}"#;
const PRICE: &str = "2.00";

struct Scene {
    gateway: Gateway,
    relay: Relay,
    seller: Seller,
    buyer: Agent,
    listing: String,
    http: reqwest::Client,
}

impl Scene {
    async fn start() -> Self {
        Self::with(PRICE, &[("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false")]).await
    }

    async fn with(price: &str, knobs: &[(&str, &str)]) -> Self {
        let relay = Relay::start(([127, 0, 0, 1], 0).into(), KEY).await.expect("relay");
        let url = relay.url();
        let mut all = vec![
            ("CROCHET__PAYMENTS__RELAY__ENABLED", "true"),
            ("CROCHET__PAYMENTS__RELAY__BASE_URL", url.as_str()),
            ("CROCHET__PAYMENTS__RELAY__API_KEY", KEY),
            ("CROCHET__PAYMENTS__RELAY__RECIPIENT", RECIPIENT),
            ("CROCHET__PAYMENTS__RELAY__TIMEOUT", "500ms"),
            ("CROCHET__PAYMENTS__RELAY__PAUSE", "100ms"),
            ("CROCHET__PAYMENTS__RELAY__QUOTES_PER_MINUTE", "10000"),
        ];
        all.extend_from_slice(knobs);
        let (gateway, seller) = (Gateway::with(&all), Seller::start().await);
        let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
        let (listing, _) = owner.list(&gateway, &seller.url("/ok"), price).await;
        Self { gateway, relay, seller, buyer, listing, http: reqwest::Client::new() }
    }

    async fn tell(&self, path: &str, body: Value) {
        let answer = self.http.post(format!("{}{path}", self.relay.url())).json(&body).send().await.expect("told");
        assert_eq!(answer.status(), 200, "{path} {body}");
    }

    async fn steer(&self, how: Value) {
        self.tell("/_steer", how).await;
    }

    async fn seen(&self, path: &str) -> Value {
        let seen: Value = self
            .http
            .get(format!("{}/_seen", self.relay.url()))
            .send()
            .await
            .expect("seen")
            .json()
            .await
            .expect("JSON");
        seen[path].clone()
    }

    async fn ask(&self, body: &str) -> Answer {
        self.buyer.call(&self.gateway, &self.listing, body, &[]).await
    }

    /// A quote for a body of its own: the payment's id and Relay's.
    async fn quote(&self, body: &str) -> (String, String) {
        let quoted = self.ask(body).await;
        quoted.refused(402, "PAYMENT_REQUIRED");
        let id = quoted.json["data"]["payment"]["requirements"]["request_id"].as_str().expect("Relay's id").to_string();
        (quoted.payment_id(), id)
    }

    async fn redeem(&self, body: &str, payment: &str) -> Answer {
        self.buyer.redeem(&self.gateway, &self.listing, body, payment).await
    }

    async fn state(&self, payment: &str) -> Value {
        let shown = self.buyer.get(&self.gateway, &format!("/api/v1/payments/{payment}")).await;
        shown.expect(200).json["data"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_through_relay_buys_its_call_and_the_same_answer_again() {
    let scene = Scene::start().await;
    let quoted = scene.ask(BODY).await;
    quoted.refused(402, "PAYMENT_REQUIRED");
    let payment = &quoted.json["data"]["payment"];
    let wanted = &payment["requirements"];
    assert_eq!((&payment["provider"], &wanted["provider"]), (&json!("relay"), &json!("relay")));
    assert_eq!((&wanted["origin_chain_id"], &wanted["deposit_amount"]), (&json!(1), &json!("123456")));
    assert!(wanted["deposit_address"].as_str().is_some_and(|address| address.len() == 42), "{wanted}");
    assert_eq!(payment["offers"], json!([{"provider": "relay", "requirements": wanted}]));

    let (id, request) = scene.quote(BODY).await;
    assert_eq!(id, quoted.payment_id(), "asking again is the same quote");
    let asked = scene.seen("/quote/v2").await;
    assert_eq!(asked["count"], 1, "and Relay is asked once");
    assert_eq!(asked["last"]["refundTo"], asked["last"]["user"]);
    assert_eq!((&asked["last"]["amount"], &asked["last"]["recipient"]), (&json!("2000000"), &json!(RECIPIENT)));
    assert!(asked["last"]["appFees"].is_null(), "the fee is ours to split");

    let early = scene.redeem(BODY, &id).await;
    assert_eq!((early.expect(202).json["data"]["status"].as_str(), scene.seller.calls()), (Some("pending"), 0));
    assert!(!early.header("retry-after").is_empty());

    scene.tell("/_pay", json!({"request_id": request})).await;
    let answer = scene.redeem(BODY, &id).await;
    assert_eq!(answer.expect(200).json["data"]["charged_amount"]["amount_micros"], 2_000_000);
    let again = scene.redeem(BODY, &id).await;
    assert_eq!((again.expect(200).bytes.as_slice(), scene.seller.calls()), (answer.bytes.as_slice(), 1));
    let ledger = scene.buyer.ledger(&scene.gateway).await;
    assert_eq!((ledger.len(), &ledger[0]["amount"]["amount_micros"]), (1, &json!(2_000_000)));

    // What goes backwards after that changes nothing.
    scene.steer(json!({"status": "refund"})).await;
    assert_eq!(scene.redeem(BODY, &id).await.expect(200).bytes, answer.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_word_leads_to_its_answer() {
    let scene = Scene::start().await;
    for (n, (word, status, code)) in [
        ("waiting", 202, ""),
        ("depositing", 202, ""),
        ("pending", 202, ""),
        ("submitted", 202, ""),
        ("delayed", 202, ""),
        ("a word of next year", 202, ""),
        ("refund", 402, "PAYMENT_FAILED"),
        ("failure", 402, "PAYMENT_FAILED"),
        // A status word alone is no money: the record still says that nothing was paid.
        ("success", 202, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!("{{\"n\":{n}}}");
        scene.steer(json!({})).await;
        let (id, _) = scene.quote(&body).await;
        scene.steer(json!({"status": word})).await;
        let answer = scene.redeem(&body, &id).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{word}: {}", answer.json);
        if status == 402 {
            assert_ne!(answer.payment_id(), id, "{word}: a new payment is needed");
        }
    }
    assert_eq!(scene.seller.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_of_a_quote_leads_to_its_answer() {
    let scene = Scene::start().await;
    for (n, (relay, error, status, code)) in [
        (400, "AMOUNT_TOO_LOW", 400, "PAYMENT_ROUTE_MINIMUM_NOT_MET"),
        (400, "SANCTIONED_WALLET_ADDRESS", 403, "FORBIDDEN"),
        (400, "SANCTIONED_CURRENCY", 403, "FORBIDDEN"),
        (400, "INVALID_ADDRESS", 422, "PAYMENT_ROUTE_UNAVAILABLE"),
        (400, "UNSUPPORTED_CHAIN", 422, "PAYMENT_ROUTE_UNAVAILABLE"),
        (400, "NO_SWAP_ROUTES_FOUND", 422, "PAYMENT_ROUTE_UNAVAILABLE"),
        (400, "PRICE_FETCH_FAILED", 503, "PAYMENT_PROVIDER_UNAVAILABLE"),
        (400, "REQUEST_TIMED_OUT", 503, "PAYMENT_PROVIDER_UNAVAILABLE"),
        (400, "RPC_HTTP_ERROR", 503, "PAYMENT_PROVIDER_UNAVAILABLE"),
        (503, "SERVICE_UNAVAILABLE", 503, "PAYMENT_PROVIDER_UNAVAILABLE"),
        (500, "", 503, "PAYMENT_PROVIDER_UNAVAILABLE"),
        (429, "", 503, "PAYMENT_PROVIDER_UNAVAILABLE"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!("{{\"n\":{n}}}");
        let fault = json!({"status": relay, "body": {"message": "no", "errorCode": error}});
        scene.steer(json!({"faults": {"/quote/v2": fault}})).await;
        let answer = scene.ask(&body).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{error}: {}", answer.json);
        assert_eq!(answer.header("retry-after").is_empty(), status != 503, "{error}");
    }
    let before = scene.seen("/quote/v2").await["count"].clone();
    let fault = json!({"status": 429, "body": {}, "retry_after": 60});
    scene.steer(json!({"faults": {"/quote/v2": fault}})).await;
    support::eventually("the short pause is over and Relay is asked again", async || {
        scene.ask("{\"n\":98}").await.refused(503, "PAYMENT_PROVIDER_UNAVAILABLE");
        scene.seen("/quote/v2").await["count"] != before
    })
    .await;
    scene.steer(json!({})).await;
    let asked = scene.seen("/quote/v2").await["count"].clone();
    scene.ask("{\"n\":99}").await.refused(503, "PAYMENT_PROVIDER_UNAVAILABLE");
    assert_eq!(scene.seen("/quote/v2").await["count"], asked, "a 429 backs off for as long as it says");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lie_in_a_quote_becomes_an_offer() {
    let scene = Scene::start().await;
    let order = "/protocol/v2/orderData/output";
    for (n, (pointer, said)) in [
        ("/steps".to_string(), json!([])),
        ("/steps/0/id".into(), json!("approve")),
        ("/steps/0/requestId".into(), json!("0x12")),
        ("/steps/0/depositAddress".into(), Value::Null),
        ("/details/recipient".into(), json!("0x00000000000000000000000000000000000000bb")),
        ("/details/currencyOut/currency/chainId".into(), json!(10)),
        ("/details/currencyOut/currency/address".into(), json!("0x00000000000000000000000000000000000000cc")),
        ("/details/currencyOut/minimumAmount".into(), json!("1999999")),
        ("/details/currencyIn/currency/chainId".into(), json!(10)),
        ("/protocol/v2".into(), Value::Null),
        (format!("{order}/payments/0/recipient"), json!("0x00000000000000000000000000000000000000bb")),
        (format!("{order}/payments/0/currency"), json!("0x00000000000000000000000000000000000000cc")),
        (format!("{order}/payments/0/minimumAmount"), json!("1999999")),
        (format!("{order}/deadline"), json!(1)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut lies = serde_json::Map::new();
        lies.insert(pointer.clone(), said);
        scene.steer(json!({"quote": lies})).await;
        let answer = scene.ask(&format!("{{\"n\":{n}}}")).await;
        assert_eq!((answer.status, answer.code()), (422, "PAYMENT_ROUTE_UNAVAILABLE"), "{pointer}: {}", answer.json);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lie_in_a_record_settles_and_the_truth_still_does() {
    let scene = Scene::start().await;
    let (id, request) = scene.quote(BODY).await;
    scene.tell("/_pay", json!({"request_id": request})).await;
    let output = "/requests/0/data/route/actual/destination/outputCurrency";
    for (pointer, said) in [
        ("/requests".to_string(), json!([])),
        ("/requests/0/id".into(), json!(format!("0x{}", "1".repeat(64)))),
        ("/requests/0/recipient".into(), json!("0x00000000000000000000000000000000000000bb")),
        ("/requests/0/depositAddress/type".into(), json!("open")),
        ("/requests/0/depositAddress/address".into(), json!("0x00000000000000000000000000000000000000bb")),
        ("/requests/0/protocol/orderId".into(), json!("0xother")),
        ("/requests/0/data/referrer".into(), json!("somebody")),
        (format!("{output}/currency/chainId"), json!(1)),
        (format!("{output}/currency/address"), json!("0x00000000000000000000000000000000000000cc")),
        (format!("{output}/amount"), json!("0")),
        (format!("{output}/amount"), json!("-2000000")),
        ("/requests/0/data/outTxs".into(), json!([])),
        ("/requests/0/data/outTxs/0/chainId".into(), json!(1)),
        ("/requests/0/data/outTxs/0/status".into(), json!("failure")),
    ] {
        let mut lies = serde_json::Map::new();
        lies.insert(pointer.clone(), said);
        scene.steer(json!({"record": lies})).await;
        let answer = scene.redeem(BODY, &id).await;
        let wanted = (503, "PAYMENT_PROVIDER_UNAVAILABLE");
        assert_eq!((answer.status, answer.code()), wanted, "{pointer}: {}", answer.json);
    }
    assert_eq!(scene.seller.calls(), 0);
    scene.steer(json!({})).await;
    scene.redeem(BODY, &id).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slow_or_failing_answer_changes_nothing_and_is_read_again() {
    let scene = Scene::start().await;
    let (id, request) = scene.quote(BODY).await;
    scene.tell("/_pay", json!({"request_id": request})).await;
    for path in ["/intents/status/v3", "/requests/v3"] {
        for fault in [
            json!({"drop": true}),
            json!({"delay_ms": 3_000}),
            json!({"status": 500, "body": {}}),
            json!({"status": 429, "body": {}, "retry_after": 1}),
            json!({"status": 200, "body": "no record"}),
        ] {
            scene.steer(json!({"faults": {path: fault}})).await;
            let answer = scene.redeem(BODY, &id).await;
            let wanted = (503, "PAYMENT_PROVIDER_UNAVAILABLE");
            assert_eq!((answer.status, answer.code()), wanted, "{path} {fault}: {}", answer.json);
            assert!(!answer.header("retry-after").is_empty(), "{path} {fault}");
        }
        scene.steer(json!({"faults": {path: {"status": 404, "body": {}}}})).await;
        scene.redeem(BODY, &id).await.expect(202);
    }
    assert_eq!(scene.seller.calls(), 0);
    scene.steer(json!({})).await;
    scene.redeem(BODY, &id).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_arrived_before_kill_9_buys_its_call_after_it() {
    let mut scene = Scene::start().await;
    let (id, request) = scene.quote(BODY).await;
    scene.tell("/_pay", json!({"request_id": request})).await;
    scene.gateway.kill_and_restart();
    let answer = scene.redeem(BODY, &id).await;
    assert_eq!(answer.expect(200).json["data"]["charged_amount"]["amount_micros"], 2_000_000);
    scene.gateway.kill_and_restart();
    assert_eq!(scene.redeem(BODY, &id).await.expect(200).bytes, answer.bytes);
    assert_eq!(scene.seller.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fill_pays_one_payment_and_too_little_pays_none() {
    let scene = Scene::start().await;
    let fill = format!("0x{}", "ab".repeat(32));
    let (first, request) = scene.quote("{\"n\":1}").await;
    scene.tell("/_pay", json!({"request_id": request, "transaction": fill})).await;
    scene.redeem("{\"n\":1}", &first).await.expect(200);
    let (second, request) = scene.quote("{\"n\":2}").await;
    scene.tell("/_pay", json!({"request_id": request, "transaction": fill.to_uppercase().replace("0X", "0x")})).await;
    scene.redeem("{\"n\":2}", &second).await.refused(409, "PAYMENT_CLOSED");
    let (third, request) = scene.quote("{\"n\":3}").await;
    scene.tell("/_pay", json!({"request_id": request, "amount": "1999999"})).await;
    let answer = scene.redeem("{\"n\":3}", &third).await;
    answer.refused(402, "PAYMENT_UNDERPAID");
    assert_eq!(answer.details()["missing_micros"], 1);
    assert_eq!(scene.state(&third).await["state"], "owed", "{}", scene.state(&third).await);
    assert_eq!(scene.seller.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_needs_its_price_and_a_wallet_of_its_chain() {
    let scene = Scene::with("0.10", &[("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false")]).await;
    for (currency, status, code) in [
        ("ETH", 400, "PAYMENT_ROUTE_MINIMUM_NOT_MET"),
        ("USDC", 400, "PAYMENT_ROUTE_MINIMUM_NOT_MET"),
        ("SOL", 422, "PAYMENT_ROUTE_UNAVAILABLE"),
        ("USDC-SOL", 422, "PAYMENT_ROUTE_UNAVAILABLE"),
    ] {
        let headers = [("X-Crochet-Origin-Currency", currency)];
        let answer = scene.buyer.call(&scene.gateway, &scene.listing, BODY, &headers).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{currency}: {}", answer.json);
        if status == 422 {
            let message = answer.json["error"]["message"].as_str().expect("message");
            assert!(message.contains("Solana wallet") && message.contains("/api/v1/me/wallets"), "{message}");
        }
    }
    assert!(scene.seen("/quote/v2").await.is_null(), "none of these costs a quote");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sandbox_and_relay_on_the_default_answers() {
    for default in ["sandbox", "relay"] {
        let scene = Scene::with(PRICE, &[("CROCHET__PAYMENTS__DEFAULT_RAIL", default)]).await;
        let quoted = scene.ask(BODY).await;
        assert_eq!(quoted.refused(402, "PAYMENT_REQUIRED").json["data"]["payment"]["provider"], default);
        if default == "sandbox" {
            scene.buyer.pay_with(&scene.gateway, &quoted.payment_id(), json!({})).await.expect(200);
        } else {
            let request = &quoted.json["data"]["payment"]["requirements"]["request_id"];
            scene.tell("/_pay", json!({"request_id": request})).await;
        }
        scene.redeem(BODY, &quoted.payment_id()).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_lists_every_rail_that_is_on_and_the_one_that_settles_pays() {
    let scene = Scene::with(PRICE, &[("CROCHET__PAYMENTS__DEFAULT_RAIL", "relay")]).await;
    let quoted = scene.ask(BODY).await;
    let payment = &quoted.refused(402, "PAYMENT_REQUIRED").json["data"]["payment"];
    let offers = payment["offers"].as_array().expect("offers");
    let names: Vec<_> = offers.iter().map(|offer| offer["provider"].as_str().expect("name")).collect();
    assert_eq!(names, ["relay", "sandbox"]);
    assert_eq!(offers[0]["requirements"], payment["requirements"]);
    assert_eq!(offers[1]["requirements"]["provider"], "sandbox");
    let id = quoted.payment_id();
    scene.redeem(BODY, &id).await.expect(202);
    scene.buyer.pay_with(&scene.gateway, &id, json!({})).await.expect(200);
    scene.redeem(BODY, &id).await.expect(200);
    // Relay, not answering, does not stand in the way of money that is there.
    let body = r#"{"n":2}"#;
    let (second, _) = scene.quote(body).await;
    scene.steer(json!({"faults": {"/intents/status/v3": {"status": 500, "body": {}}}})).await;
    scene.redeem(body, &second).await.refused(503, "PAYMENT_PROVIDER_UNAVAILABLE");
    scene.buyer.pay_with(&scene.gateway, &second, json!({})).await.expect(200);
    scene.redeem(body, &second).await.expect(200);
    assert_eq!(scene.seller.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_at_once_share_one_quote_and_ether_has_a_route_of_its_own() {
    let scene = Scene::start().await;
    scene.steer(json!({"faults": {"/quote/v2": {"delay_ms": 100}}})).await;
    let (a, b, c, d) = tokio::join!(scene.ask(BODY), scene.ask(BODY), scene.ask(BODY), scene.ask(BODY));
    let ids: std::collections::HashSet<_> = [a, b, c, d].iter().map(Answer::payment_id).collect();
    assert_eq!((ids.len(), &scene.seen("/quote/v2").await["count"]), (1, &json!(1)));
    let quoted = scene.buyer.call(&scene.gateway, &scene.listing, BODY, &[("X-Crochet-Origin-Currency", "ETH")]).await;
    let wanted = &quoted.refused(402, "PAYMENT_REQUIRED").json["data"]["payment"]["requirements"];
    assert_eq!(wanted["origin_token"], "0x0000000000000000000000000000000000000000");
    scene.tell("/_pay", json!({"request_id": wanted["request_id"]})).await;
    scene.redeem(BODY, &quoted.payment_id()).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_a_refund_at_relay_after_the_call_is_found_though_nobody_asks_and_a_failure_is_not_believed() {
    let rereads = [
        ("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false"),
        ("CROCHET__PAYMENTS__REREADS__PAID_AFTER", "500ms,1s,1500ms"),
        ("CROCHET__PAYMENTS__REREADS__EVERY", "50ms"),
        ("CROCHET__PAYMENTS__RELAY__REREAD_PAUSE", "0s"),
        ("CROCHET__CONTROL__ROLL_UP_EVERY", "100ms"),
    ];
    let scene = Scene::with(PRICE, &rereads).await;
    let (id, request) = scene.quote(BODY).await;
    scene.tell("/_pay", json!({"request_id": request})).await;
    scene.redeem(BODY, &id).await.expect(200);
    let reads = async || scene.seen("/intents/status/v3").await["count"].as_u64().unwrap_or(0);
    scene.steer(json!({"status": "failure"})).await;
    let before = reads().await;
    eventually("a look that nobody asked for", async || reads().await >= before + 2).await;
    assert_eq!(scene.state(&id).await["taken_back_micros"], 0, "a backward step is no refund");
    scene.steer(json!({"status": "refund"})).await;
    eventually("it is taken back", async || scene.state(&id).await["taken_back_micros"] == 2_000_000).await;
    assert_eq!(scene.state(&id).await["state"], "completed");
}

/// A notice as Relay signs it, `age` seconds old.
async fn notify(scene: &Scene, body: &str, key: &str, age: u64) -> Answer {
    let timestamp = (unix_seconds() - age).to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("key");
    mac.update(format!("{timestamp}.{body}").as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let headers = [("X-Signature-Timestamp", timestamp.as_str()), ("X-Signature-SHA256", signature.as_str())];
    let url = format!("{}/api/v1/webhooks/relay", scene.gateway.url);
    support::agent::send(&scene.http, reqwest::Method::POST, url, "", &headers, Some(body.as_bytes().to_vec())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_a_notice_is_a_reason_to_look_and_never_evidence() {
    let scene = Scene::start().await;
    let (id, request) = scene.quote(BODY).await;
    let notice =
        json!({"event": "request.status.updated", "data": {"requestId": request, "status": "success"}}).to_string();
    // It says success, and nothing was paid: nothing happens.
    notify(&scene, &notice, KEY, 0).await.expect(200);
    assert_eq!(scene.state(&id).await["state"], "quoted");
    scene.tell("/_pay", json!({"request_id": request})).await;
    for (key, age) in [("another key", 0), (KEY, 400)] {
        notify(&scene, &notice, key, age).await.refused(403, "FORBIDDEN");
    }
    let url = format!("{}/api/v1/webhooks/relay", scene.gateway.url);
    let unsigned = Some(notice.clone().into_bytes());
    support::agent::send(&scene.http, reqwest::Method::POST, url, "", &[], unsigned).await.refused(403, "FORBIDDEN");
    assert_eq!(scene.state(&id).await["state"], "quoted", "whoever did not sign it changes nothing");
    // Relay does not answer: it is told to send the notice again.
    scene.steer(json!({"faults": {"/intents/status/v3": {"status": 500, "body": {}}}})).await;
    notify(&scene, &notice, KEY, 0).await.refused(503, "PAYMENT_PROVIDER_UNAVAILABLE");
    scene.steer(json!({})).await;
    // The record says paid: recorded, though nobody asked for the call.
    notify(&scene, &notice, KEY, 0).await.expect(200);
    assert_eq!(scene.state(&id).await["state"], "settled");
    notify(&scene, &notice, KEY, 0).await.expect(200);
    assert_eq!(scene.seller.calls(), 0, "a notice calls nobody");
    scene.redeem(BODY, &id).await.expect(200);
    notify(&scene, &notice, KEY, 0).await.expect(200);
    assert_eq!((scene.seller.calls(), scene.buyer.ledger(&scene.gateway).await.len()), (1, 1));
    // Of a request that is not ours, and of none.
    let other = json!({"data": {"requestId": format!("0x{}", "1".repeat(64))}}).to_string();
    for body in [other.as_str(), "{}", "no JSON"] {
        notify(&scene, body, KEY, 0).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_to_a_gateway_without_relay_finds_nothing() {
    let mut scene = Scene::start().await;
    scene.gateway.set(&[]);
    scene.gateway.restart();
    notify(&scene, "{}", KEY, 0).await.refused(404, "NOT_FOUND");
}
