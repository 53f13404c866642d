//! The x402 rail over real HTTP: the gateway as a process, a buyer that signs transfers, and a facilitator that delays,
//! refuses, loses answers, lies, and goes down.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

#[path = "x402/reorg.rs"]
mod reorg;
#[path = "x402/silent.rs"]
mod silent;
mod support;

use std::sync::atomic::{AtomicU64, Ordering};

use loadtest::{
    facilitator::Facilitator,
    seed::Seed,
    x402::{Payer, decode, encode, signer_of},
};
use serde_json::{Value, json};
use support::{Agent, Gateway, Seller, agent::Answer};

const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const BODY: &str = r#"{"task":"run"}"#;
const PRICE: &str = "0.01";

struct Scene {
    gateway: Gateway,
    facilitator: Facilitator,
    seller: Seller,
    owner: Agent,
    buyer: Agent,
    payer: Payer,
    listing: String,
    http: reqwest::Client,
}

/// Each scene has a payer of its own.
static PAYERS: AtomicU64 = AtomicU64::new(1);

fn payer() -> Payer {
    Payer::from_seed(Seed::stream(402, "payer", PAYERS.fetch_add(1, Ordering::Relaxed))).expect("payer")
}

impl Scene {
    async fn start() -> Self {
        Self::with(&[("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false"), ("CROCHET__PAYMENTS__DEFAULT_RAIL", "x402")])
            .await
    }

    async fn with(knobs: &[(&str, &str)]) -> Self {
        let facilitator = Facilitator::start(([127, 0, 0, 1], 0).into()).await.expect("facilitator");
        let url = facilitator.url();
        let mut all = vec![
            ("CROCHET__PAYMENTS__X402__ENABLED", "true"),
            ("CROCHET__PAYMENTS__X402__FACILITATOR_URL", url.as_str()),
            ("CROCHET__PAYMENTS__X402__NETWORK", "eip155:84532"),
            ("CROCHET__PAYMENTS__X402__PAY_TO", PAY_TO),
            ("CROCHET__PAYMENTS__X402__TIMEOUT", "1s"),
        ];
        all.extend_from_slice(knobs);
        let (gateway, seller) = (Gateway::with(&all), Seller::start().await);
        let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
        let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
        let http = reqwest::Client::new();
        Self { gateway, facilitator, seller, owner, buyer, payer: payer(), listing, http }
    }

    async fn steer(&self, how: Value) {
        let url = format!("{}/_steer", self.facilitator.url());
        let answer = self.http.post(url).json(&how).send().await.expect("told");
        assert_eq!(answer.status(), 200, "{how}");
    }

    async fn told(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.facilitator.url());
        self.http.get(url).send().await.expect("told").json().await.expect("JSON")
    }

    async fn count(&self, path: &str) -> u64 {
        self.told("/_seen").await[path]["count"].as_u64().unwrap_or(0)
    }

    /// What the facilitator moved in all: how often, and how much.
    async fn moved(&self) -> (usize, u64) {
        let books = self.told("/_books").await;
        let transfers = books["transfers"].as_array().expect("transfers").clone();
        (transfers.len(), transfers.iter().filter_map(|transfer| transfer["value"].as_u64()).sum())
    }

    async fn call(&self, body: &str, headers: &[(&str, &str)]) -> Answer {
        self.buyer.call(&self.gateway, &self.listing, body, headers).await
    }

    /// The 402 for a body, and what it requires.
    async fn quote(&self, body: &str) -> (Answer, Value) {
        let quoted = self.call(body, &[]).await;
        quoted.refused(402, "PAYMENT_REQUIRED");
        let required = decode(quoted.header("payment-required")).expect("PAYMENT-REQUIRED");
        (quoted, required)
    }

    /// A signature that pays the quote for a body.
    async fn sign(&self, body: &str) -> String {
        let (quoted, _) = self.quote(body).await;
        self.payer.pay(quoted.header("payment-required")).expect("signed")
    }

    async fn pay(&self, body: &str, signature: &str) -> Answer {
        self.call(body, &[("PAYMENT-SIGNATURE", signature)]).await
    }

    async fn state(&self, payment: &str) -> Value {
        let shown = self.buyer.get(&self.gateway, &format!("/api/v1/payments/{payment}")).await;
        shown.expect(200).json["data"]["state"].clone()
    }

    /// One call, one transfer, and postings that say so.
    async fn bought_once(&self) {
        assert_eq!(self.seller.calls(), 1, "one call");
        assert_eq!(self.moved().await, (1, 10_000), "one transfer");
        let ledger = self.buyer.ledger(&self.gateway).await;
        let amounts: Vec<_> = ledger.iter().map(|row| &row["amount"]["amount_micros"]).collect();
        assert_eq!(amounts, [&json!(10_000)], "one posting");
        assert_eq!(self.owner.ledger(&self.gateway).await.len(), 1, "and the seller's");
    }
}

fn settlement(answer: &Answer) -> Value {
    decode(answer.header("payment-response")).unwrap_or_else(|_| panic!("no PAYMENT-RESPONSE on {}", answer.status))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_transfer_buys_its_call_and_the_same_answer_again() {
    let scene = Scene::start().await;
    let (quoted, required) = scene.quote(BODY).await;
    assert_eq!(required["x402Version"], 2);
    let url = required["resource"]["url"].as_str().expect("url");
    assert!(url.ends_with(&format!("/api/v1/gateway/{}", scene.listing)), "{url}");
    assert_eq!(
        required["accepts"],
        json!([{
            "scheme": "exact", "network": "eip155:84532", "amount": "10000", "payTo": PAY_TO,
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "maxTimeoutSeconds": 60,
            "extra": { "name": "USDC", "version": "2" },
        }])
    );
    assert_eq!(required["extensions"]["payment-identifier"]["info"], json!({"required": false}));
    assert_eq!(required["extensions"]["bazaar"]["info"]["input"]["method"], "POST");
    let payment = &quoted.json["data"]["payment"];
    assert_eq!((&payment["provider"], &payment["requirements"]["accepts"]), (&json!("x402"), &required["accepts"]));
    let again = scene.call(BODY, &[]).await;
    assert_eq!(again.header("payment-required"), quoted.header("payment-required"), "the same offer again");

    let signature = scene.payer.pay(quoted.header("payment-required")).expect("signed");
    let answer = scene.pay(BODY, &signature).await;
    assert_eq!(answer.expect(200).json["data"]["charged_amount"]["amount_micros"], 10_000);
    let told = settlement(&answer);
    assert_eq!((&told["success"], &told["network"]), (&json!(true), &json!("eip155:84532")));
    assert_eq!(told["payer"], scene.payer.address());
    assert_eq!(told["transaction"], scene.told("/_books").await["transfers"][0]["transaction"]);
    assert_eq!((scene.count("/verify").await, scene.count("/settle").await), (1, 1));

    let replay = scene.pay(BODY, &signature).await;
    assert_eq!(replay.expect(200).bytes, answer.bytes);
    assert_eq!((replay.header("x-crochet-replayed"), settlement(&replay)), ("true", told));
    let by_id = scene.buyer.redeem(&scene.gateway, &scene.listing, BODY, &quoted.payment_id()).await;
    assert_eq!(by_id.expect(200).bytes, answer.bytes);
    scene.bought_once().await;
    assert_eq!(scene.count("/settle").await, 1, "a replay asks nobody");

    let (second, _) = scene.quote(BODY).await;
    assert_ne!(second.payment_id(), quoted.payment_id(), "the same question again is another purchase");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_offer_before_it_a_signature_pays_at_the_present_price() {
    let scene = Scene::start().await;
    let (quoted, required) = scene.quote(BODY).await;
    let other = r#"{"task":"another"}"#;
    let signature = encode(&scene.payer.payload(&required, |_| {}).expect("payload"));
    scene.pay(other, &signature).await.expect(200);
    // Bound to that body from then on.
    let refused = scene.pay(BODY, &signature).await;
    refused.refused(409, "PAYMENT_REQUEST_MISMATCH");
    assert_eq!(scene.state(&quoted.payment_id()).await, "quoted");
    scene.bought_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_is_not_what_was_asked_for_is_refused_before_anybody_is_asked() {
    let scene = Scene::start().await;
    let (quoted, required) = scene.quote(BODY).await;
    let authorized = |name: &'static str, value: Value| {
        scene.payer.payload(&required, |authorization| authorization[name] = value).expect("payload")
    };
    let accepted = |name: &'static str, value: Value| {
        let mut required = required.clone();
        required["accepts"][0][name] = value;
        scene.payer.payload(&required, |_| {}).expect("payload")
    };
    let mut forged = authorized("value", json!("10000"));
    forged["payload"]["authorization"]["from"] = json!(PAY_TO);
    let mut version = authorized("value", json!("10000"));
    version["x402Version"] = json!(1);
    let mut shapeless = authorized("value", json!("10000"));
    shapeless["payload"] = json!({"transaction": "AAAA"});
    let other = "0x00000000000000000000000000000000000000bb";
    for (payload, reason) in [
        (accepted("network", json!("eip155:8453")), "invalid_network"),
        (accepted("asset", json!(other)), "invalid_payment_requirements"),
        (accepted("amount", json!("9999")), "invalid_payment_requirements"),
        (accepted("scheme", json!("upto")), "unsupported_scheme"),
        (accepted("payTo", json!(other)), "invalid_exact_evm_payload_recipient_mismatch"),
        (authorized("to", json!(other)), "invalid_exact_evm_payload_recipient_mismatch"),
        (authorized("value", json!("9999")), "invalid_exact_evm_payload_authorization_value_mismatch"),
        (authorized("value", json!("10001")), "invalid_exact_evm_payload_authorization_value_mismatch"),
        (authorized("validAfter", json!("9999999999")), "invalid_exact_evm_payload_authorization_valid_after"),
        (authorized("validBefore", json!("1795500623")), "invalid_exact_evm_payload_authorization_valid_before"),
        (forged, "invalid_exact_evm_payload_signature"),
        (version, "invalid_x402_version"),
        (shapeless, "invalid_payload"),
    ] {
        let answer = scene.pay(BODY, &encode(&payload)).await;
        answer.refused(402, "PAYMENT_FAILED");
        assert_eq!(answer.details()["reason"], reason, "{}", answer.json);
        assert_eq!(answer.payment_id(), quoted.payment_id(), "{reason}: nothing was taken, so the offer stands");
        let required = decode(answer.header("payment-required")).expect("PAYMENT-REQUIRED");
        assert_eq!(required["error"], reason);
    }
    assert_eq!((scene.count("/verify").await, scene.count("/settle").await, scene.seller.calls()), (0, 0, 0));
    scene.pay(BODY, &scene.sign(BODY).await).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_cannot_be_read_is_refused_in_words() {
    let scene = Scene::start().await;
    let (_, required) = scene.quote(BODY).await;
    let mut short = scene.payer.payload(&required, |_| {}).expect("payload");
    short["extensions"] = json!({"payment-identifier": {"info": {"id": "short"}}});
    let long = "A".repeat(13_000);
    for (header, why) in [
        ("%%%", "standard base64"),
        ("e30=", "missing field"),
        ("bm8=", "x402's JSON"),
        (long.as_str(), "at most"),
        (encode(&short).as_str(), "payment-identifier"),
    ] {
        let answer = scene.pay(BODY, header).await;
        answer.refused(400, "INVALID_REQUEST");
        let message = answer.json["error"]["message"].as_str().expect("message");
        assert!(message.contains("PAYMENT-SIGNATURE") && message.contains(why), "{message}");
    }
    assert_eq!(scene.count("/verify").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_of_a_facilitator_leads_to_its_answer() {
    let scene = Scene::start().await;
    let refusals = [
        "insufficient_funds",
        "invalid_exact_evm_payload_authorization_valid_after",
        "invalid_exact_evm_payload_authorization_valid_before",
        "invalid_exact_evm_payload_authorization_value",
        "invalid_exact_evm_payload_signature",
        "invalid_exact_evm_payload_recipient_mismatch",
        "invalid_network",
        "invalid_payload",
        "invalid_payment_requirements",
        "invalid_scheme",
        "unsupported_scheme",
        "invalid_x402_version",
    ];
    let unknown = ["invalid_transaction_state", "unexpected_verify_error", "unexpected_settle_error", "no such word!"];
    for (n, reason) in refusals.into_iter().enumerate() {
        // Found wanting before anything is durable: the same offer again.
        let body = format!("{{\"n\":{n}}}");
        let (quoted, _) = scene.quote(&body).await;
        let signature = scene.sign(&body).await;
        scene.steer(json!({"refuse": {"/verify": reason}})).await;
        let answer = scene.pay(&body, &signature).await;
        answer.refused(402, "PAYMENT_FAILED");
        assert_eq!((&answer.details()["reason"], answer.payment_id()), (&json!(reason), quoted.payment_id()));
        assert!(answer.header("payment-response").is_empty(), "nothing was settled");
        // Refused when it was to be settled: that payment is over, and another is offered.
        scene.steer(json!({"refuse": {"/settle": reason}})).await;
        let answer = scene.pay(&body, &signature).await;
        answer.refused(402, "PAYMENT_FAILED");
        assert_ne!(answer.payment_id(), quoted.payment_id(), "{reason}");
        assert_eq!(scene.state(&quoted.payment_id()).await, "failed");
        let told = settlement(&answer);
        assert_eq!((&told["success"], &told["errorReason"]), (&json!(false), &json!(reason)));
        scene.steer(json!({})).await;
        // The next signature pays.
        scene.pay(&body, &scene.sign(&body).await).await.expect(200);
    }
    let calls = scene.seller.calls();
    assert_eq!(calls, refusals.len());
    for (n, reason) in unknown.into_iter().enumerate() {
        let body = format!("{{\"u\":{n}}}");
        let signature = scene.sign(&body).await;
        scene.steer(json!({"refuse": {"/verify": reason}})).await;
        let answer = scene.pay(&body, &signature).await;
        let is_about_the_transfer = reason.starts_with("invalid_");
        match is_about_the_transfer {
            true => answer.refused(402, "PAYMENT_FAILED"),
            false => answer.refused(503, "PAYMENT_PROVIDER_UNAVAILABLE"),
        };
        assert_eq!(answer.details()["payment_state"], "quoted", "{reason}: nothing was moved");
        scene.steer(json!({"refuse": {"/settle": reason}})).await;
        let answer = scene.pay(&body, &signature).await;
        assert_eq!(answer.expect(202).json["data"]["status"], "pending", "{reason}");
        scene.steer(json!({})).await;
        scene.pay(&body, &signature).await.expect(200);
    }
    assert_eq!(scene.moved().await, (refusals.len() + unknown.len(), 10_000 * (refusals.len() + unknown.len()) as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_answer_is_lost_or_late_is_never_asked_for_again() {
    for fault in [json!({"drop": true}), json!({"delay_ms": 3_000})] {
        let scene = Scene::start().await;
        let (quoted, _) = scene.quote(BODY).await;
        let signature = scene.sign(BODY).await;
        scene.steer(json!({"faults": {"/settle": fault}})).await;
        let lost = scene.pay(BODY, &signature).await;
        let id = lost.expect(202).json["data"]["relay_request_id"].as_str().expect("its id").to_string();
        assert_eq!((id.as_str(), scene.moved().await), (quoted.payment_id().as_str(), (1, 10_000)), "{fault}");
        assert!(!lost.header("retry-after").is_empty());
        assert_eq!(scene.state(&id).await, "pending");
        // Not even the plain question is answered by asking for money again.
        assert_eq!(scene.call(BODY, &[]).await.expect(202).json["data"]["relay_request_id"], id.as_str());
        assert_eq!(scene.seller.calls(), 0);
        scene.steer(json!({})).await;
        let answer = scene.pay(BODY, &signature).await;
        assert_eq!(settlement(answer.expect(200))["success"], true);
        let by_id = scene.buyer.redeem(&scene.gateway, &scene.listing, BODY, &id).await;
        assert_eq!(by_id.expect(200).bytes, answer.bytes);
        scene.bought_once().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_signature_for_a_payment_under_way_takes_nothing_more() {
    let scene = Scene::start().await;
    let first = scene.sign(BODY).await;
    let second = scene.sign(BODY).await;
    scene.steer(json!({"faults": {"/settle": {"drop": true}}})).await;
    scene.pay(BODY, &first).await.expect(202);
    scene.steer(json!({})).await;
    let answer = scene.pay(BODY, &second).await;
    assert_eq!(answer.expect(200).json["data"]["charged_amount"]["amount_micros"], 10_000);
    scene.bought_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_facilitator_that_does_not_tell_a_settlement_twice_leaves_it_pending() {
    let scene = Scene::start().await;
    let signature = scene.sign(BODY).await;
    scene.steer(json!({"forgetful": true, "faults": {"/settle": {"drop": true}}})).await;
    let id = scene.pay(BODY, &signature).await.expect(202).json["data"]["relay_request_id"].clone();
    scene.steer(json!({"forgetful": true})).await;
    // "Used already" may be a cancelled transfer as well as a settled one: neither a yes nor a no.
    assert_eq!(scene.pay(BODY, &signature).await.expect(202).json["data"]["relay_request_id"], id);
    assert_eq!((scene.seller.calls(), scene.moved().await.0), (0, 1));
    scene.steer(json!({})).await;
    scene.pay(BODY, &signature).await.expect(200);
    scene.bought_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lie_of_a_facilitator_settles_and_the_truth_still_does() {
    let scene = Scene::start().await;
    for (n, (pointer, said)) in [
        ("/payer", json!("0x00000000000000000000000000000000000000bb")),
        ("/network", json!("eip155:8453")),
        ("/amount", json!("1")),
        ("/transaction", json!("")),
        ("/transaction", json!("0x12")),
        ("/success", json!("yes")),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!("{{\"n\":{n}}}");
        let signature = scene.sign(&body).await;
        scene.steer(json!({"lies": {"/settle": {pointer: said}}})).await;
        scene.pay(&body, &signature).await.expect(202);
        assert_eq!(scene.seller.calls(), n, "{pointer}");
        scene.steer(json!({})).await;
        scene.pay(&body, &signature).await.expect(200);
    }
    let signature = scene.sign(BODY).await;
    scene.steer(json!({"lies": {"/verify": {"/payer": PAY_TO}}})).await;
    scene.pay(BODY, &signature).await.refused(503, "PAYMENT_PROVIDER_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_facilitator_that_is_down_costs_nothing_and_nobody() {
    let scene = Scene::start().await;
    let signature = scene.sign(BODY).await;
    let faults = [
        json!({"status": 500, "body": {}}),
        json!({"status": 429, "body": {}}),
        json!({"status": 200, "body": "no answer of x402"}),
    ];
    for fault in faults.iter().chain([&json!({"drop": true})]) {
        scene.steer(json!({"faults": {"/verify": fault}})).await;
        let answer = scene.pay(BODY, &signature).await;
        answer.refused(503, "PAYMENT_PROVIDER_UNAVAILABLE");
        assert!(!answer.header("retry-after").is_empty(), "{fault}");
        assert_eq!(answer.details()["payment_state"], "quoted", "{fault}");
    }
    for fault in &faults {
        scene.steer(json!({"faults": {"/settle": fault}})).await;
        scene.pay(BODY, &signature).await.expect(202);
    }
    assert_eq!((scene.moved().await.0, scene.seller.calls()), (0, 0));
    scene.steer(json!({})).await;
    scene.pay(BODY, &signature).await.expect(200);
    scene.bought_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_before_and_after_the_settlement_loses_nothing_and_buys_once() {
    for moved_before in [false, true] {
        let mut scene = Scene::start().await;
        let signature = scene.sign(BODY).await;
        // What was signed is durable by the time the facilitator is asked, and it does not answer.
        let fault = if moved_before { json!({"delay_ms": 60_000}) } else { json!({"delay_ms": 60_000, "status": 500}) };
        scene.steer(json!({"faults": {"/settle": fault}})).await;
        let (buyer, url) = (scene.buyer.clone(), scene.gateway.url.clone());
        let (listing, header) = (scene.listing.clone(), signature.clone());
        let asking = tokio::spawn(async move {
            let request = reqwest::Client::new().post(format!("{url}/api/v1/gateway/{listing}"));
            let request = request.bearer_auth(&buyer.key).header("content-type", "application/json");
            request.header("PAYMENT-SIGNATURE", header).body(BODY).send().await.map(|answer| answer.status())
        });
        support::eventually("the facilitator is asked to settle", async || scene.count("/settle").await == 1).await;
        scene.gateway.kill();
        assert!(asking.await.expect("joined").is_err(), "it died in the middle");
        assert_eq!(scene.moved().await.0, usize::from(moved_before));
        scene.steer(json!({})).await;
        scene.gateway.restart();
        let answer = scene.pay(BODY, &signature).await;
        answer.expect(200);
        scene.bought_once().await;
        scene.gateway.kill_and_restart();
        assert_eq!(scene.pay(BODY, &signature).await.expect(200).bytes, answer.bytes);
        scene.bought_once().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn four_requests_at_once_with_one_signature_make_one_call() {
    let scene = Scene::start().await;
    let signature = scene.sign(BODY).await;
    scene.steer(json!({"faults": {"/settle": {"delay_ms": 200}}})).await;
    let pay = || scene.pay(BODY, &signature);
    let (a, b, c, d) = tokio::join!(pay(), pay(), pay(), pay());
    for answer in [&b, &c, &d] {
        assert_eq!(answer.expect(200).bytes, a.bytes);
    }
    scene.bought_once().await;
    assert_eq!(scene.count("/settle").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signature_at_once_for_two_bodies_or_two_buyers_pays_one() {
    let scene = Scene::start().await;
    let (_, required) = scene.quote(BODY).await;
    let signature = encode(&scene.payer.payload(&required, |_| {}).expect("payload"));
    let other = Agent::register(&scene.gateway).await;
    scene.steer(json!({"faults": {"/settle": {"delay_ms": 200}}})).await;
    let headers = [("PAYMENT-SIGNATURE", signature.as_str())];
    let (a, b, c) = tokio::join!(
        scene.pay(BODY, &signature),
        scene.pay(r#"{"task":"another"}"#, &signature),
        other.call(&scene.gateway, &scene.listing, BODY, &headers),
    );
    let mut statuses = [a.status, b.status, c.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409], "{} {} {}", a.json, b.json, c.json);
    for answer in [&a, &b, &c].into_iter().filter(|answer| answer.status == 409) {
        answer.refused(409, "PAYMENT_REQUEST_MISMATCH");
    }
    assert_eq!((scene.seller.calls(), scene.moved().await), (1, (1, 10_000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_payment_identifier_with_another_signature_is_a_conflict() {
    let scene = Scene::start().await;
    let (_, required) = scene.quote(BODY).await;
    let named = || {
        let mut payload = scene.payer.payload(&required, |_| {}).expect("payload");
        payload["extensions"] = json!({"payment-identifier": {"info": {"id": "pay_0123456789abcdef"}}});
        encode(&payload)
    };
    let first = named();
    let answer = scene.pay(BODY, &first).await;
    answer.expect(200);
    assert_eq!(scene.pay(BODY, &first).await.expect(200).bytes, answer.bytes, "same id, same payload");
    scene.pay(BODY, &named()).await.refused(409, "PAYMENT_REQUEST_MISMATCH");
    let other = Agent::register(&scene.gateway).await;
    let headers = named();
    let headers = [("PAYMENT-SIGNATURE", headers.as_str())];
    other.call(&scene.gateway, &scene.listing, BODY, &headers).await.expect(200);
    assert_eq!((scene.seller.calls(), scene.moved().await.0), (2, 2), "a name is its buyer's own");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_finds_what_was_signed_and_never_pays_twice() {
    let scene = Scene::start().await;
    let quoted = scene.call(BODY, &[("Idempotency-Key", "k")]).await;
    let sign = || scene.payer.pay(quoted.refused(402, "PAYMENT_REQUIRED").header("payment-required")).expect("signed");
    scene.steer(json!({"faults": {"/settle": {"drop": true}}})).await;
    let first = sign();
    scene.call(BODY, &[("Idempotency-Key", "k"), ("PAYMENT-SIGNATURE", &first)]).await.expect(202);
    scene.call(BODY, &[("Idempotency-Key", "k")]).await.expect(202);
    scene.steer(json!({})).await;
    let answer = scene.call(BODY, &[("Idempotency-Key", "k")]).await;
    answer.expect(200);
    let again = scene.call(BODY, &[("Idempotency-Key", "k"), ("PAYMENT-SIGNATURE", &sign())]).await;
    assert_eq!(again.expect(200).bytes, answer.bytes, "the key's purchase is made: nothing more is taken");
    scene.bought_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_taken_from_a_wallet_for_a_call_that_cannot_run() {
    let scene = Scene::start().await;
    let signature = scene.sign(BODY).await;
    let path = format!("/api/v1/listings/{}/endpoint", scene.listing);
    let pause = async |status: &str| {
        let put = json!({"private_endpoint_url": scene.seller.url("/ok"), "status": status});
        scene.owner.send(&scene.gateway, reqwest::Method::PUT, &path, put).await.expect(200);
    };
    pause("paused").await;
    scene.pay(BODY, &signature).await.refused(503, "SELLER_PAUSED");
    pause("active").await;
    let suspended = json!({"status": "suspended"});
    let listing = format!("/api/v1/listings/{}", scene.listing);
    scene.owner.send(&scene.gateway, reqwest::Method::DELETE, &listing, suspended).await;
    scene.pay(BODY, &signature).await.refused(409, "LISTING_UNAVAILABLE");
    assert_eq!((scene.count("/verify").await, scene.count("/settle").await), (0, 0));
    let max = [("PAYMENT-SIGNATURE", signature.as_str()), ("X-Crochet-Max-Price-Micros", "9999")];
    let back = json!({"status": "active"});
    scene.owner.send(&scene.gateway, reqwest::Method::PATCH, &listing, back).await.expect(200);
    scene.call(BODY, &max).await.refused(409, "PRICE_ABOVE_MAXIMUM");
    assert_eq!(scene.moved().await.0, 0);
    scene.pay(BODY, &signature).await.expect(200);
    scene.bought_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_a_settlement_tells_of_it_even_when_the_seller_fails() {
    let scene = Scene::start().await;
    let (broken, _) = scene.owner.list(&scene.gateway, &scene.seller.url("/status/500"), PRICE).await;
    let quoted = scene.buyer.call(&scene.gateway, &broken, BODY, &[]).await;
    let signature = scene.payer.pay(quoted.header("payment-required")).expect("signed");
    let headers = [("PAYMENT-SIGNATURE", signature.as_str())];
    let failed = scene.buyer.call(&scene.gateway, &broken, BODY, &headers).await;
    failed.refused(502, "SELLER_ERROR");
    assert_eq!(failed.details()["payment_state"], "settled");
    assert_eq!(settlement(&failed)["success"], true);
    // The same header tries again, and takes nothing more.
    let failed = scene.buyer.call(&scene.gateway, &broken, BODY, &headers).await;
    assert_eq!(settlement(failed.refused(502, "SELLER_ERROR"))["payer"], scene.payer.address());
    assert_eq!((scene.moved().await.0, scene.count("/settle").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_rails_on_a_quote_of_one_is_paid_on_the_other() {
    let scene = Scene::with(&[("CROCHET__PAYMENTS__SANDBOX__ROUTE_MINIMUM_MICROS__USDC", "0")]).await;
    let (quoted, required) = scene.quote(BODY).await;
    let payment = &quoted.json["data"]["payment"];
    assert_eq!(payment["provider"], "sandbox");
    let offers = payment["offers"].as_array().expect("offers");
    let names: Vec<_> = offers.iter().map(|offer| offer["provider"].as_str().expect("name")).collect();
    assert_eq!(
        (names.as_slice(), &offers[1]["requirements"]["accepts"]),
        (&["sandbox", "x402"][..], &required["accepts"])
    );
    let answer = scene.pay(BODY, &scene.sign(BODY).await).await;
    assert_eq!(settlement(answer.expect(200))["success"], true);
    scene.bought_once().await;
    // Paid in the sandbox: what is signed for it as well is not taken.
    let body = r#"{"n":2}"#;
    let signature = scene.sign(body).await;
    let (second, _) = scene.quote(body).await;
    let id = second.payment_id();
    scene.buyer.pay_with(&scene.gateway, &id, json!({})).await.expect(200);
    scene.buyer.redeem(&scene.gateway, &scene.listing, body, &id).await.expect(200);
    let headers = [("PAYMENT-SIGNATURE", signature.as_str()), ("X-Crochet-Relay-Request-Id", id.as_str())];
    let replay = scene.call(body, &headers).await;
    assert_eq!((replay.expect(200).header("x-crochet-replayed"), scene.moved().await.0), ("true", 1));
    assert!(replay.header("payment-response").is_empty(), "it was not paid over x402");
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_and_receipts_are_signed_when_there_is_a_key() {
    let key = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
    let signer = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
    let scene = Scene::with(&[
        ("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false"),
        ("CROCHET__PAYMENTS__DEFAULT_RAIL", "x402"),
        ("CROCHET__PAYMENTS__X402__SIGNING_KEY", key),
    ])
    .await;
    let (quoted, required) = scene.quote(BODY).await;
    let offer = &required["extensions"]["offer-receipt"]["info"]["offers"][0];
    let types = [
        ("resourceUrl", "string"),
        ("scheme", "string"),
        ("network", "string"),
        ("asset", "string"),
        ("payTo", "address"),
        ("amount", "string"),
        ("maxTimeoutSeconds", "uint256"),
        ("issuedAt", "uint256"),
    ];
    assert_eq!(signer_of("x402 offer", "Offer", &types, offer).expect("a signer"), signer);
    assert_eq!((&offer["payload"]["amount"], &offer["payload"]["payTo"]), (&json!("10000"), &json!(PAY_TO)));
    assert_eq!(offer["payload"]["resourceUrl"], required["resource"]["url"]);

    let answer = scene.pay(BODY, &scene.payer.pay(quoted.header("payment-required")).expect("signed")).await;
    let told = settlement(answer.expect(200));
    let receipt = &told["extensions"]["offer-receipt"]["info"]["receipt"];
    let types = [
        ("network", "string"),
        ("resourceUrl", "string"),
        ("payer", "string"),
        ("issuedAt", "uint256"),
        ("transaction", "string"),
    ];
    assert_eq!(signer_of("x402 receipt", "Receipt", &types, receipt).expect("a signer"), signer);
    assert_eq!(
        (&receipt["payload"]["payer"], &receipt["payload"]["transaction"]),
        (&told["payer"], &told["transaction"])
    );
    // A receipt says that something was delivered: none for what was not.
    let (broken, _) = scene.owner.list(&scene.gateway, &scene.seller.url("/status/500"), PRICE).await;
    let quoted = scene.buyer.call(&scene.gateway, &broken, BODY, &[]).await;
    let signature = scene.payer.pay(quoted.header("payment-required")).expect("signed");
    let failed = scene.buyer.call(&scene.gateway, &broken, BODY, &[("PAYMENT-SIGNATURE", &signature)]).await;
    let told = settlement(failed.refused(502, "SELLER_ERROR"));
    assert_eq!((&told["success"], &told["extensions"]), (&json!(true), &Value::Null));
}

/// A scene whose gateway may ask a node of the chain.
async fn with_a_chain() -> Scene {
    with_a_chain_and(&[]).await
}

async fn with_a_chain_and(knobs: &[(&str, &str)]) -> Scene {
    let facilitator = Facilitator::start(([127, 0, 0, 1], 0).into()).await.expect("facilitator");
    let (url, node) = (facilitator.url(), format!("{}/chain", facilitator.url()));
    let mut all = vec![
        ("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false"),
        ("CROCHET__PAYMENTS__DEFAULT_RAIL", "x402"),
        ("CROCHET__PAYMENTS__X402__FACILITATOR_URL", url.as_str()),
        ("CROCHET__PAYMENTS__X402__CHAIN_URL", node.as_str()),
    ];
    all.extend_from_slice(knobs);
    let mut scene = Scene::with(&all).await;
    scene.facilitator = facilitator;
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_facilitator_does_not_tell_the_chain_does() {
    let scene = with_a_chain().await;
    let signature = scene.sign(BODY).await;
    scene.steer(json!({"forgetful": true, "faults": {"/settle": {"drop": true}}})).await;
    // The answer is lost, the money moved: the chain says so, within the same request.
    let answer = scene.pay(BODY, &signature).await;
    let told = settlement(answer.expect(200));
    assert_eq!(told["transaction"], scene.told("/_books").await["transfers"][0]["transaction"]);
    scene.bought_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lie_of_a_node_settles_and_a_node_that_is_down_decides_nothing() {
    let scene = with_a_chain().await;
    let signature = scene.sign(BODY).await;
    let lost = json!({"drop": true});
    let log = "/result/logs/0";
    let other = format!("0x{:0>64}", "bb");
    for lie in [
        json!({"/result/status": "0x0"}),
        json!({format!("{log}/address"): "0x00000000000000000000000000000000000000bb"}),
        json!({format!("{log}/topics/1"): other}),
        json!({format!("{log}/topics/2"): other}),
        json!({format!("{log}/data"): format!("0x{:064x}", 9_999)}),
        json!({"/result": null}),
        json!({"/error": {"code": -32000, "message": "no"}}),
    ] {
        scene.steer(json!({"forgetful": true, "faults": {"/settle": lost}, "lies": {"/chain": lie}})).await;
        scene.pay(BODY, &signature).await.expect(202);
    }
    scene.steer(json!({"forgetful": true, "faults": {"/chain": {"status": 500, "body": {}}}})).await;
    scene.pay(BODY, &signature).await.expect(202);
    assert_eq!(scene.seller.calls(), 0);
    scene.steer(json!({"forgetful": true})).await;
    scene.pay(BODY, &signature).await.expect(200);
    scene.bought_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_the_chain_never_took_is_given_up_only_when_its_time_is_over() {
    for cancelled in [false, true] {
        let scene = with_a_chain().await;
        let (quoted, required) = scene.quote(BODY).await;
        let payload = scene.payer.payload(&required, |_| {}).expect("payload");
        let signature = encode(&payload);
        let nowhere = json!({"/settle": {"status": 500, "body": {}}});
        scene.steer(json!({"faults": nowhere})).await;
        let id = scene.pay(BODY, &signature).await.expect(202).json["data"]["relay_request_id"].clone();
        assert_eq!(id, quoted.payment_id());
        let nonce = payload["payload"]["authorization"]["nonce"].clone();
        // Its time over by the chain's own clock, or cancelled by the payer: the money will never move.
        let how = if cancelled {
            json!({"cancelled": [nonce], "faults": nowhere})
        } else {
            json!({"ahead": 120, "faults": nowhere})
        };
        scene.steer(how).await;
        let answer = scene.pay(BODY, &signature).await;
        answer.refused(402, "PAYMENT_FAILED");
        assert_ne!(answer.payment_id(), quoted.payment_id());
        assert_eq!(settlement(&answer)["success"], false);
        assert_eq!(scene.state(&quoted.payment_id()).await, "failed");
        scene.steer(json!({})).await;
        scene.pay(BODY, &scene.sign(BODY).await).await.expect(200);
        scene.bought_once().await;
    }
}
