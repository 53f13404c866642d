//! API keys at both doors: guesses are dear for whoever makes them, and tell nothing.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::{Agent, Gateway, agent::send};

const FREE_NAME: &str = "/api/v1/gateway/no-such-listing";
const CONTROL: &str = "/api/v1/me";

/// Keys that let nobody in: malformed, mistyped, well-formed and unknown, revoked.
async fn useless_keys(gateway: &Gateway, agent: &Agent) -> Vec<String> {
    let made = agent.send(gateway, Method::POST, "/api/v1/api-keys", json!({"name": "short-lived"})).await;
    let data = &made.expect(201).json["data"];
    let revoked = data["api_key"].as_str().expect("key").to_string();
    let id = data["id"].as_str().expect("id").to_string();
    agent.send(gateway, Method::DELETE, &format!("/api/v1/api-keys/{id}"), json!({})).await.expect(200);
    let unknown = actors::keys::generate().expect("randomness").text;
    let mistyped = format!("{}{}", &agent.key[..42], if agent.key.ends_with('0') { '1' } else { '0' });
    vec!["am_k_".into(), "nonsense".into(), mistyped, unknown, revoked]
}

fn without_id(mut answer: Value) -> Value {
    answer["error"]["request_id"].take();
    answer["request_id"].take();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_unknown_revoked_and_malformed_keys_get_one_and_the_same_body() {
    let gateway = Gateway::start();
    let agent = Agent::register(&gateway).await;
    let http = Client::new();
    for (method, path) in [(Method::POST, FREE_NAME), (Method::GET, CONTROL)] {
        let mut bodies = Vec::new();
        for key in useless_keys(&gateway, &agent).await {
            let body = (method == Method::POST).then(|| b"{}".to_vec());
            let answer = send(&http, method.clone(), format!("{}{path}", gateway.url), &key, &[], body).await;
            answer.refused(401, "UNAUTHENTICATED");
            bodies.push(without_id(answer.json));
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]), "{path}: {bodies:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_failures_are_counted_by_address_at_both_doors_and_good_keys_are_not_held_up() {
    let knobs = [("CROCHET__LIMITS__AUTH_PER_FIVE_MINUTES", "12"), ("CROCHET__LIMITS__DEV_MULTIPLIER", "1")];
    let gateway = Gateway::with(&knobs);
    let agent = Agent::register(&gateway).await;
    let unknown = actors::keys::generate().expect("randomness").text;
    let http = Client::new();
    let call = async |key: &str| {
        let url = format!("{}{FREE_NAME}", gateway.url);
        send(&http, Method::POST, url, key, &[], Some(b"{}".to_vec())).await
    };
    let mut refused = 0;
    let limited = loop {
        let answer = call(&unknown).await;
        if answer.status != 401 {
            break answer;
        }
        refused += 1;
        assert!(refused <= 12, "guesses are not counted");
    };
    limited.refused(429, "RATE_LIMITED");
    assert_eq!(limited.details()["scope"], "address");
    assert!(!limited.header("retry-after").is_empty());
    let control = send(&http, Method::GET, format!("{}{CONTROL}", gateway.url), &unknown, &[], None).await;
    control.refused(429, "RATE_LIMITED");
    call(&agent.key).await.refused(404, "NOT_FOUND");
    agent.get(&gateway, CONTROL).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn e1_junk_keys_are_refused_with_no_store_read() {
    let gateway = Gateway::start();
    let agent = Agent::register(&gateway).await;
    let http = Client::new();
    let reads = async || {
        let page = http.get(format!("{}/metrics", gateway.operations)).send().await.expect("metrics");
        let text = page.text().await.expect("text");
        let name = "crochet_store_operation_duration_seconds_count";
        let line = text.lines().find(|line| line.starts_with(name) && line.contains("\"api_key_find\""));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0, |count| count.parse::<u64>().expect("a count"))
    };
    let try_key = async |key: &str| {
        let url = format!("{}{FREE_NAME}", gateway.url);
        send(&http, Method::POST, url, key, &[], Some(b"{}".to_vec())).await.refused(401, "UNAUTHENTICATED");
        let url = format!("{}{CONTROL}", gateway.url);
        send(&http, Method::GET, url, key, &[], None).await.refused(401, "UNAUTHENTICATED");
    };
    let before = reads().await;
    for place in 5..43 {
        let mut key = agent.key.clone().into_bytes();
        key[place] = if key[place] == b'a' { b'b' } else { b'a' };
        try_key(std::str::from_utf8(&key).expect("text")).await;
    }
    assert_eq!(reads().await, before, "one digit off: the checksum says so");
    try_key(&actors::keys::generate().expect("randomness").text).await;
    assert!(reads().await > before, "a well-formed key is looked up: the count counts");
}
