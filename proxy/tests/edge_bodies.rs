//! The public address of a real process over HTTP/1.1: time and memory, each row of what may be tried by its id.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod edge;
mod support;

use std::time::{Duration, Instant};

use edge::{
    address,
    http1::{LISTINGS, get, post, refused_and_closed},
    metric,
    raw::{Answer, Raw, answer_to},
    resident_kib,
};
use support::{Agent, Gateway, Seller, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_head_is_whole_in_time_however_it_dribbles() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__HEAD_TIMEOUT", "300ms")]);
    let mut mute = Raw::connect(address(&gateway)).await;
    assert!(mute.is_closed().await, "who says nothing is not answered either");
    for dribble in ["X: y\r\n", "y"] {
        let mut raw = Raw::connect(address(&gateway)).await;
        raw.send("GET /api/v1/listings HTTP/1.1\r\nHost: localhost\r\n").await;
        let began = Instant::now();
        let answer: Answer = loop {
            tokio::select! {
                answer = raw.answer() => break answer.expect("an answer"),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            raw.send(dribble).await;
            assert!(began.elapsed() < Duration::from_secs(10), "bytes that keep coming move no deadline");
        };
        assert_eq!((answer.status, answer.code().as_str()), (408, "REQUEST_TIMEOUT"));
    }
    let mut half = Raw::connect(address(&gateway)).await;
    half.send(&edge::http2_preface()[..20]).await;
    assert_eq!(half.answer().await.map(|answer| answer.status), Some(408), "half a preface is no head either");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_head_has_a_size_and_so_many_fields() {
    let gateway = Gateway::start();
    let long = |bytes: usize| get(&format!("X-Long: {}\r\n", "a".repeat(bytes)));
    for (name, request) in [
        ("a field of 17 kB", long(17_000)),
        ("a field of 900 kB", long(900_000)),
        ("a target of 20 kB", LISTINGS.replace("listings", &"a".repeat(20_000))),
        ("101 fields", get(&"X: y\r\n".repeat(100))),
        ("1000 fields", get(&"X: y\r\n".repeat(1000))),
        ("blank lines without end", "\r\n".repeat(10_000)),
    ] {
        let answer = Raw::connect(address(&gateway)).await.ask(request).await;
        assert_eq!((answer.status, answer.code().as_str()), (431, "HEADERS_TOO_LARGE"), "{name}");
    }
    let call = answer_to(address(&gateway), post(&"X: y\r\n".repeat(98), ""), false).await;
    assert_eq!(call.status, 401, "100 fields on a call");
    let most = answer_to(address(&gateway), get(&"X: y\r\n".repeat(92)), false).await;
    assert_eq!(most.status, 200, "93 fields on their way to the control API");
    let more = answer_to(address(&gateway), get(&"X: y\r\n".repeat(93)), false).await;
    assert_eq!((more.status, more.code().as_str()), (431, "HEADERS_TOO_LARGE"));
    assert_eq!(answer_to(address(&gateway), long(15_000), false).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_connections_are_capped_by_address_until_a_key_is_shown_and_in_all() {
    let gateway = Gateway::with(&[
        ("CROCHET__PROXY__CONNECTIONS_PER_ADDRESS_MAX", "3"),
        ("CROCHET__PROXY__CONNECTIONS_MAX", "6"),
        ("CROCHET__PROXY__TRUSTED_PROXIES", "127.0.0.9"),
        ("CROCHET__PROXY__WORKERS", "2"),
    ]);
    // The limit is one of many that dev mode multiplies; here it must not.
    let strict = Gateway::with(&[
        ("CROCHET__PROXY__CONNECTIONS_PER_ADDRESS_MAX", "3"),
        ("CROCHET__LIMITS__DEV_MULTIPLIER", "1"),
        ("CROCHET__PROXY__TRUSTED_PROXIES", "127.0.0.9"),
    ]);
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::connect(address(&strict)).await;
        assert_eq!(raw.ask(LISTINGS).await.status, 200);
        held.push(raw);
    }
    assert!(Raw::connect(address(&strict)).await.is_closed().await, "a fourth");
    let mut elsewhere = Raw::connect_from([127, 0, 0, 2], address(&strict)).await;
    assert_eq!(elsewhere.ask(LISTINGS).await.status, 200);
    for _ in 0..5 {
        let mut proxied = Raw::connect_from([127, 0, 0, 9], address(&strict)).await;
        assert_eq!(proxied.ask(LISTINGS).await.status, 200, "a configured proxy's do not count");
        held.push(proxied);
    }
    assert_eq!(metric(&strict, "crochet_connections_refused_total").await, 1);
    held.clear();
    eventually("places are free again", async || {
        let mut raw = Raw::connect(address(&strict)).await;
        raw.send(LISTINGS).await;
        raw.answer().await.is_some()
    })
    .await;
    for _ in 0..6 {
        let mut raw = Raw::connect(address(&gateway)).await;
        assert_eq!(raw.ask(LISTINGS).await.status, 200);
        held.push(raw);
    }
    assert!(Raw::connect_from([127, 0, 0, 2], address(&gateway)).await.is_closed().await, "a seventh, from anywhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_caller_with_a_key_does_not_count_against_its_address() {
    let gateway = Gateway::with(&[
        ("CROCHET__PROXY__CONNECTIONS_PER_ADDRESS_MAX", "4"),
        ("CROCHET__LIMITS__DEV_MULTIPLIER", "1"),
        ("CROCHET__LIMITS__AUTH_PER_FIVE_MINUTES", "100"),
        ("CROCHET__PROXY__IDLE_TIMEOUT", "1s"),
    ]);
    let buyer = Agent::register(&gateway).await;
    let call = post(&format!("Authorization: Bearer {}\r\nContent-Length: 2\r\n", buyer.key), "{}");
    let mut held = Vec::new();
    for count in 0..12 {
        let mut raw = Raw::connect(address(&gateway)).await;
        assert_eq!(raw.ask(&call).await.status, 404, "the key is good, the listing is nobody's: {count}");
        held.push(raw);
    }
    let mut junk = Raw::connect(address(&gateway)).await;
    assert_eq!(junk.ask(call.replace("am_k_", "am_k_x")).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_body_comes_at_a_rate_and_within_its_size() {
    let gateway = Gateway::with(&[
        ("CROCHET__PROXY__BODY_GRACE", "300ms"),
        ("CROCHET__PROXY__BODY_TIMEOUT", "900ms"),
        ("CROCHET__PROXY__BODY_MIN_BYTES_PER_SECOND", "20KiB"),
    ]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let limits = serde_json::json!({"limits": {"max_request_bytes": 2000}});
    let (small, _) = owner.list_with(&gateway, &seller.url("/ok"), "0", limits).await;
    let (large, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    let call = |listing: &str, fields: &str, body: &str| {
        post(&format!("Authorization: Bearer {}\r\n{fields}", buyer.key), body).replace("nobody", listing)
    };
    let slow = call(&large, "Content-Length: 10\r\n", "{");
    refused_and_closed(&gateway, "silent", slow, 408, "REQUEST_TIMEOUT").await;
    let slow = call(&large, "Transfer-Encoding: chunked\r\n", "a\r\n{");
    refused_and_closed(&gateway, "silent in a chunk", slow, 408, "REQUEST_TIMEOUT").await;
    // Fast enough at each moment, and never done.
    let mut steady = Raw::connect(address(&gateway)).await;
    steady.send(call(&large, "Content-Length: 1000000\r\n", "")).await;
    let began = Instant::now();
    let answer = loop {
        tokio::select! {
            answer = steady.answer() => break answer.expect("an answer"),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
        steady.send([b' '; 1000]).await;
        assert!(began.elapsed() < Duration::from_secs(10));
    };
    assert_eq!((answer.status, answer.code().as_str()), (408, "REQUEST_TIMEOUT"));
    // Too large by what it says, before a byte of it came; and by what came.
    let mut raw = Raw::connect(address(&gateway)).await;
    let said = raw.ask(call(&small, "Content-Length: 99999999\r\n", "")).await;
    assert_eq!((said.status, said.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(said.json()["error"]["details"]["limit_bytes"], 2000);
    let chunk = format!("bb8\r\n{}\r\n0\r\n\r\n", " ".repeat(3000));
    let came = answer_to(address(&gateway), call(&small, "Transfer-Encoding: chunked\r\n", &chunk), false).await;
    assert_eq!((came.status, came.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(seller.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_a_client_that_takes_nothing_is_cut_off_and_others_are_served() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__WRITE_TIMEOUT", "300ms")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let limits = serde_json::json!({"limits": {"max_response_bytes": 100_000_000}});
    let (listing, _) = owner.list_with(&gateway, &seller.url("/size/60000000"), "0", limits).await;
    let request = post(&format!("Authorization: Bearer {}\r\nContent-Length: 2\r\n", buyer.key), "{}");
    let open = metric(&gateway, "crochet_connections_open").await;
    let mut idle = Raw::connect(address(&gateway)).await;
    idle.send(request.replace("nobody", &listing)).await;
    assert!(idle.more().await, "the answer begins");
    eventually("the connection is given up", async || metric(&gateway, "crochet_connections_open").await <= open).await;
    while idle.more().await {}
    assert!(idle.seen.len() < 60_000_000, "it was cut");
    assert_eq!(answer_to(address(&gateway), LISTINGS, false).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_held_bodies_share_one_budget_and_none_free_says_when_to_come_again() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__HELD_MAX_BYTES", "1MiB")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let limits = serde_json::json!({"limits": {"max_request_bytes": 4_000_000}});
    let (listing, _) = owner.list_with(&gateway, &seller.url("/ok"), "0", limits).await;
    let call = |length: usize, body: &str| {
        let fields = format!("Authorization: Bearer {}\r\nContent-Length: {length}\r\n", buyer.key);
        post(&fields, body).replace("nobody", &listing)
    };
    let big = format!("\"{}\"", "x".repeat(700_000));
    // One that holds most of it and does not end.
    let mut holder = Raw::connect(address(&gateway)).await;
    holder.send(call(big.len() + 1, &big)).await;
    let mut other = Raw::connect(address(&gateway)).await;
    let mut refused = None;
    eventually("no memory is free", async || {
        let answer = other.ask(call(big.len(), &big)).await;
        let is_refused = answer.status == 503;
        refused = is_refused.then_some(answer);
        is_refused
    })
    .await;
    let refused = refused.expect("refused");
    assert_eq!((refused.code().as_str(), refused.field("Retry-After")), ("OVERLOADED", Some("1")));
    assert_eq!(refused.json()["error"]["recovery"]["next_action"], "wait_and_retry");
    assert_eq!(other.ask(call(2, "{}")).await.status, 200, "a small one still fits");
    assert_eq!(holder.ask(" ").await.status, 200);
    assert_eq!(other.ask(call(big.len(), &big)).await.status, 200, "what was held is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_what_is_held_is_bounded_by_what_has_come() {
    const CONNECTIONS: usize = 200;
    const SENT: usize = 4 << 10;
    let gateway = Gateway::start();
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let limits = serde_json::json!({"limits": {"max_request_bytes": 16 << 20}});
    let (listing, _) = owner.list_with(&gateway, &seller.url("/ok"), "0", limits).await;
    let worst = [
        // A great length is announced, and little of it comes.
        (format!("Content-Length: {}\r\n", 16 << 20), "x".repeat(SENT)),
        // Every byte in a chunk of its own.
        ("Transfer-Encoding: chunked\r\n".to_string(), "1\r\nx\r\n".repeat(SENT / 6)),
        // Chunks that are announced and do not come.
        ("Transfer-Encoding: chunked\r\n".to_string(), format!("{:x}\r\n{}", 15 << 20, "x".repeat(SENT))),
    ];
    for (framing, body) in worst {
        let before = resident_kib(&gateway);
        let fields = format!("Authorization: Bearer {}\r\n{framing}", buyer.key);
        let request = post(&fields, &body).replace("nobody", &listing);
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut raw = Raw::connect(address(&gateway)).await;
            raw.send(&request).await;
            held.push(raw);
        }
        eventually("all are being worked on", async || {
            metric(&gateway, "crochet_gateway_inflight").await >= CONNECTIONS as u64
        })
        .await;
        let grown = resident_kib(&gateway).saturating_sub(before);
        let received = (CONNECTIONS * request.len() / 1024) as u64;
        assert!(grown <= 100 * received, "{grown} KiB are held for {received} KiB: {framing}");
        drop(held);
        eventually("all are gone", async || metric(&gateway, "crochet_gateway_inflight").await == 0).await;
    }
}
