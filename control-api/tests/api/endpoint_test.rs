//! The owner's test of an endpoint, with a scripted seller in the place of the real client.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use actors::seller::{SellerAnswer, SellerBody, SellerClient, SellerFault, SellerRequest};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{Agent, Answer, World, listing_id};

type Pieces = VecDeque<Result<&'static [u8], SellerFault>>;

/// Answers as told, in turn, and keeps what it was asked.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Result<(u16, Pieces), SellerFault>>>,
    requests: Mutex<Vec<SellerRequest>>,
}

struct Body(Pieces);

#[async_trait]
impl SellerBody for Body {
    async fn chunk(&mut self) -> Result<Option<Bytes>, SellerFault> {
        self.0.pop_front().transpose().map(|piece| piece.map(Bytes::from_static))
    }
}

#[async_trait]
impl SellerClient for Scripted {
    async fn send(&self, request: SellerRequest) -> Result<SellerAnswer, SellerFault> {
        self.requests.lock().expect("lock").push(request);
        let answer = self.answers.lock().expect("lock").pop_front().unwrap_or_else(|| Ok((200, Pieces::new())));
        let (status, pieces) = answer?;
        Ok(SellerAnswer {
            status,
            content_type: "application/json".into(),
            retry_after: None,
            length: None,
            tls: Some("TLSv1.3"),
            body: Box::new(Body(pieces)),
        })
    }
}

impl Scripted {
    fn says(&self, status: u16, pieces: &[&'static [u8]]) {
        self.answers.lock().expect("lock").push_back(Ok((status, pieces.iter().map(|piece| Ok(*piece)).collect())));
    }

    fn fails(&self, fault: SellerFault) {
        self.answers.lock().expect("lock").push_back(Err(fault));
    }
}

struct House {
    world: World,
    seller: Arc<Scripted>,
    owner: Agent,
    path: String,
}

impl House {
    async fn build(more: &str) -> Self {
        let seller = Arc::new(Scripted::default());
        let world = World::start_with_seller(more, seller.clone()).await;
        let owner = world.agent(1).await;
        let made = world.create_listing(&owner, json!({ "limits": { "max_request_bytes": 100 } })).await.expect(201);
        let path = format!("/listings/{}/endpoint", listing_id(&made));
        Self { world, seller, owner, path }
    }

    async fn test(&self, body: Value) -> Answer {
        self.world.post(&format!("{}/test", self.path), self.owner.key(), &body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_the_signed_request_of_a_call_and_shows_what_came() {
    let house = House::build("").await;
    house.seller.says(200, &[b"{\"a\":", b"1}"]);
    let request = house.world.request(reqwest::Method::POST, &format!("{}/test", house.path), house.owner.key());
    let request = request.header("Content-Type", "application/json").body(r#"{"body": {"task": [1, 2.50]}}"#);
    let answer = house.world.send(request).await.expect(200);
    let data = &answer.body["data"];
    assert_eq!((&data["seller_status_code"], &data["tls"]), (&json!(200), &json!("TLSv1.3")));
    assert_eq!((&data["response_preview"], &data["response_truncated"]), (&json!("{\"a\":1}"), &json!(false)));
    assert_eq!((&data["handled"], &data["error_code"]), (&json!(true), &json!(null)));
    assert_eq!(data["seller_content_type"], "application/json");
    assert!(data["latency_ms"].is_u64());
    assert_eq!(answer.header("cache-control"), "no-store");
    let sent = house.seller.requests.lock().expect("lock").remove(0);
    let head = String::from_utf8(sent.head).expect("text");
    for line in
        ["X-Crochet-Test: true", "X-Crochet-Attempt: 1", "X-Crochet-Charged-Micros: 0", "Accept-Encoding: identity"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    assert!(head.contains("\r\nX-Crochet-Signature: v1,") && head.contains("\r\nwebhook-signature: v1,"));
    assert!(head.contains(&format!("\r\nX-Crochet-Buyer-Id: {}\r\n", house.owner.id)));
    assert_eq!(sent.body, br#"{"task": [1, 2.50]}"#.as_slice(), "as it was written");
    assert_eq!(sent.timeout, Duration::from_secs(20), "shorter than the endpoint's own 30 s");
    let shown = house.world.get(&house.path, house.owner.key()).await.expect(200);
    assert_eq!(shown.body["data"]["last_test"]["seller_status_code"], 200);
    assert_eq!(shown.body["data"]["last_test"]["latency_ms"], data["latency_ms"]);
    let bare = house.world.request(reqwest::Method::POST, &format!("{}/test", house.path), house.owner.key());
    house.world.send(bare).await.expect(200);
    assert_eq!(house.seller.requests.lock().expect("lock")[0].body, b"{}".as_slice());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_says_what_a_buyer_would_see() {
    let house = House::build("").await;
    for (status, handled, code) in [
        (404, true, json!(null)),
        (302, false, json!("SELLER_REDIRECTED")),
        (401, false, json!("SELLER_ERROR")),
        (429, false, json!("SELLER_BUSY")),
    ] {
        house.seller.says(status, &[b"no"]);
        let answer = house.test(json!({})).await.expect(200);
        let data = &answer.body["data"];
        assert_eq!((&data["seller_status_code"], &data["handled"]), (&json!(status), &json!(handled)));
        assert_eq!(data["error_code"], code, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_two_kib_of_the_answer_are_shown_and_no_more() {
    static LONG: [u8; 5000] = [b'x'; 5000];
    // The 2048th byte is the first of two that make one letter.
    static SPLIT: [u8; 2047] = [b'x'; 2047];
    let house = House::build("").await;
    house.seller.says(200, &[&LONG]);
    let data = house.test(json!({})).await.expect(200).body["data"].clone();
    assert_eq!(data["response_preview"].as_str().expect("text").len(), 2048);
    assert_eq!(data["response_truncated"], true);
    house.seller.says(200, &[&SPLIT, "éé".as_bytes()]);
    let data = house.test(json!({})).await.expect(200).body["data"].clone();
    assert_eq!(data["response_preview"].as_str().expect("text"), "x".repeat(2047));
    house.seller.says(200, &[&LONG[..2048]]);
    let data = house.test(json!({})).await.expect(200).body["data"].clone();
    assert_eq!(
        (data["response_preview"].as_str().expect("text").len(), &data["response_truncated"]),
        (2048, &json!(false))
    );
    let broken: Pieces = [Ok(b"ab".as_slice()), Err(SellerFault::Broken)].into();
    house.seller.answers.lock().expect("lock").push_back(Ok((200, broken)));
    let data = house.test(json!({})).await.expect(200).body["data"].clone();
    assert_eq!((&data["response_preview"], &data["response_truncated"]), (&json!("ab"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_refused_reset_and_late_are_one_and_the_same() {
    let house = House::build("").await;
    let mut texts = Vec::new();
    for fault in [
        SellerFault::Unreachable,
        SellerFault::BrokenOff,
        SellerFault::TimedOut { answered: false },
        SellerFault::Broken,
    ] {
        house.seller.fails(fault);
        let answer = house.test(json!({})).await.refused(502, "SELLER_UNREACHABLE");
        assert_eq!(answer.body["error"]["details"]["seller_endpoint_called"], json!(null));
        for secret in ["127.0.0.1", "secret-path", "secret-token"] {
            assert!(!answer.text.contains(secret), "A13: {}", answer.text);
        }
        texts.push(answer.text);
        let shown = house.world.get(&house.path, house.owner.key()).await.expect(200);
        assert_eq!(shown.body["data"]["last_test"]["seller_status_code"], json!(null));
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_tests_are_few_a_minute_and_few_a_day_per_owner() {
    for (knobs, most) in [("", 5), ("endpoint_tests_per_minute = 100\nendpoint_tests_per_day = 3\n", 3)] {
        let house = House::build(&format!("[limits]\ndev_multiplier = 1\n{knobs}")).await;
        for _ in 0..most {
            house.test(json!({})).await.expect(200);
        }
        let limited = house.test(json!({})).await.refused(429, "RATE_LIMITED");
        assert!(limited.header("retry-after").parse::<u64>().expect("seconds") >= 1);
        assert_eq!(house.seller.requests.lock().expect("lock").len(), most, "what is refused is not sent");
        // Another listing of the same owner has no rate of its own.
        let made = house.world.create_listing(&house.owner, json!({})).await.expect(201);
        let path = format!("/listings/{}/endpoint/test", listing_id(&made));
        house.world.post(&path, house.owner.key(), &json!({})).await.refused(429, "RATE_LIMITED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_its_owners_alone_and_says_what_is_wrong_with_it() {
    let house = House::build("").await;
    let other = house.world.agent(2).await;
    let path = format!("{}/test", house.path);
    house.world.post(&path, other.key(), &json!({})).await.refused(403, "FORBIDDEN");
    house.world.post(&path, None, &json!({})).await.refused(401, "UNAUTHENTICATED");
    house.world.post("/listings/nowhere/endpoint/test", house.owner.key(), &json!({})).await.refused(404, "NOT_FOUND");
    house.test(json!({ "boby": 1 })).await.wrong(&["boby"]);
    house.test(json!({ "body": "x".repeat(99) })).await.wrong(&["body"]);
    house.test(json!({ "body": "x".repeat(98) })).await.expect(200);
    let bare = json!({ "pricing_model": "free", "pricing_amount": 0, "private_endpoint_url": null });
    let made = house.world.create_listing(&house.owner, bare).await.expect(201);
    let path = format!("/listings/{}/endpoint/test", listing_id(&made));
    house.world.post(&path, house.owner.key(), &json!({})).await.refused(404, "NOT_FOUND");
    assert_eq!(house.seller.requests.lock().expect("lock").len(), 1);
}
