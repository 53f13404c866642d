//! Every row of the table of checks, in its order: code, whether the seller was called, where the money is.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Agent, Gateway, Seller, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const BODY: &str = r#"{"task":"run"}"#;

/// Sends raw bytes; returns the status and the JSON of the first answer.
async fn raw(gateway: &Gateway, request: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(gateway.url.trim_start_matches("http://")).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(15), read).await.expect("closed");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn row_1_the_request_itself() {
    let gateway = Gateway::start();
    let host = gateway.url.trim_start_matches("http://");
    let common = format!("Host: {host}\r\nConnection: close\r\n");
    let path = "/api/v1/gateway/some-listing";
    let json_body = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let long = "x".repeat(20_000);
    for (request, status, code) in [
        (format!("POST {path}?a=1 HTTP/1.1\r\n{common}{json_body}"), 400, "INVALID_REQUEST"),
        (format!("GET {path} HTTP/1.1\r\n{common}\r\n"), 405, "METHOD_NOT_ALLOWED"),
        (format!("POST {path} HTTP/1.1\r\n{common}Content-Length: 2\r\n\r\n{{}}"), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (
            format!("POST {path} HTTP/1.1\r\n{common}Content-Encoding: gzip\r\n{json_body}"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (format!("POST {path} HTTP/1.1\r\n{common}X-Long: {long}\r\n{json_body}"), 431, "HEADERS_TOO_LARGE"),
        (
            format!(
                "POST {path} HTTP/1.1\r\n{common}X-Crochet-Origin-Currency: SOL\r\nX-Crochet-Origin-Currency: SOL\r\n{json_body}"
            ),
            400,
            "INVALID_REQUEST",
        ),
        (format!("POST {path} HTTP/1.1\r\n{common}Transfer-Encoding: gzip\r\n{json_body}"), 400, "INVALID_REQUEST"),
        (format!("GET /api/v1/nowhere HTTP/1.1\r\n{common}\r\n"), 404, "NOT_FOUND"),
        (format!("POST {path} HTTP/1.1\r\n{common}{json_body}"), 401, "UNAUTHENTICATED"),
        (
            format!("POST {path} HTTP/1.1\r\n{common}Authorization: Bearer am_k_nonsense\r\n{json_body}"),
            401,
            "UNAUTHENTICATED",
        ),
    ] {
        let (got, answer) = raw(&gateway, &request).await;
        let what = request.lines().take(4).collect::<Vec<_>>().join(" | ");
        assert_eq!((got, answer["error"]["code"].as_str()), (status, Some(code)), "{}", &what[..what.len().min(200)]);
        assert_eq!(answer["error"]["details"]["seller_endpoint_called"], false, "{code}");
        assert!(answer["error"]["recovery"]["next_action"].is_string(), "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_2_to_6_caller_rate_listing_body() {
    let gateway = Gateway::with(&[
        ("CROCHET__LIMITS__DEV_MULTIPLIER", "1"),
        ("CROCHET__LIMITS__GATEWAY_PER_SECOND", "1"),
        ("CROCHET__LIMITS__GATEWAY_BURST", "3"),
    ]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let limits = json!({"limits": {"max_request_bytes": 1024}});
    let (listing, _) = owner.list_with(&gateway, &seller.url("/ok"), "1", limits).await;

    let named = |name: &str, scopes: Value| json!({"name": name, "scopes": scopes});
    let created = buyer.send(&gateway, Method::POST, "/api/v1/api-keys", named("reader", json!(["read"]))).await;
    let reader = created.expect(201).json["data"]["api_key"].as_str().expect("key").to_string();
    let id = created.json["data"]["id"].as_str().expect("id").to_string();
    let mut limited = buyer.clone();
    limited.key = reader;
    limited.call(&gateway, &listing, BODY, &[]).await.refused(403, "SCOPE_REQUIRED"); // 3
    buyer.send(&gateway, Method::DELETE, &format!("/api/v1/api-keys/{id}"), json!({})).await.expect(200);
    limited.call(&gateway, &listing, BODY, &[]).await.refused(401, "UNAUTHENTICATED"); // 2: revoked at once here

    buyer.call(&gateway, "no-such-listing", BODY, &[]).await.refused(404, "NOT_FOUND"); // 5
    let large = format!("\"{}\"", "x".repeat(2_000));
    buyer.call(&gateway, &listing, &large, &[]).await.refused(413, "PAYLOAD_TOO_LARGE"); // 6
    buyer.call(&gateway, &listing, "{\"a\":", &[]).await.refused(400, "INVALID_JSON");
    let limited = buyer.call(&gateway, &listing, BODY, &[]).await; // 4
    limited.refused(429, "RATE_LIMITED");
    assert!(!limited.header("retry-after").is_empty());
    assert_eq!(seller.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_8_and_9_what_cannot_be_sold_is_not_quoted() {
    let gateway = Gateway::with(&[("CROCHET__PAYMENTS__OPEN_QUOTES_MAX", "2")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    owner.call(&gateway, &listing, BODY, &[]).await.refused(403, "SELF_CALL_FORBIDDEN");
    let (draft, _) = owner.list_with(&gateway, &seller.url("/ok"), "1", json!({"status": "draft"})).await;
    buyer.call(&gateway, &draft, BODY, &[]).await.refused(409, "LISTING_UNAVAILABLE");

    let (cheap, _) = owner.list(&gateway, &seller.url("/ok"), "0.01").await;
    let low = buyer.call(&gateway, &cheap, BODY, &[("X-Crochet-Origin-Currency", "ETH")]).await;
    low.refused(400, "PAYMENT_ROUTE_MINIMUM_NOT_MET");
    assert_eq!(low.details()["seller_endpoint_called"], false);
    assert_eq!(low.details()["recommended_origin_currency"], "SOL");
    assert_eq!(low.details()["recommended_gateway_headers"], json!({"X-Crochet-Origin-Currency": "SOL"}));
    let recovery = &low.json["error"]["recovery"];
    assert_eq!(recovery["next_action"], "retry_with_solana_payment_route");
    assert_eq!((&recovery["retry_same_route"], &recovery["use_new_idempotency_key"]), (&json!(false), &json!(true)));
    buyer.call(&gateway, &cheap, BODY, &[("X-Crochet-Origin-Currency", "SOL")]).await.refused(402, "PAYMENT_REQUIRED");
    buyer
        .call(&gateway, &cheap, BODY, &[("X-Crochet-Origin-Currency", "DOGE")])
        .await
        .refused(422, "VALIDATION_FAILED");
    let capped = [("X-Crochet-Max-Price-Micros", "999999")];
    buyer.call(&gateway, &listing, BODY, &capped).await.refused(409, "PRICE_ABOVE_MAXIMUM");

    buyer.call(&gateway, &listing, "1", &[]).await.refused(402, "PAYMENT_REQUIRED");
    buyer.call(&gateway, &listing, "2", &[]).await.refused(429, "TOO_MANY_OPEN_QUOTES");
    assert_eq!(seller.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn f13_an_open_circuit_sells_nothing_and_is_probed_by_paid_calls_only() {
    let gateway = Gateway::with(&[
        ("CROCHET__ACTORS__CIRCUIT_PAUSE_MIN", "300ms"),
        ("CROCHET__ACTORS__CIRCUIT_PAUSE_MAX", "300ms"),
    ]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/switch"), "1").await;
    seller.answer_with(503);
    let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
    for _ in 0..7 {
        let failed = buyer.redeem(&gateway, &listing, BODY, &id).await;
        failed.refused(502, "SELLER_ERROR");
        assert_eq!(failed.details()["seller_endpoint_called"], true);
        assert_eq!(failed.details()["payment_state"], "settled");
    }
    let open = buyer.redeem(&gateway, &listing, BODY, &id).await;
    open.refused(503, "SELLER_CIRCUIT_OPEN");
    assert_eq!(open.details()["payment_state"], "settled");
    buyer.call(&gateway, &listing, "{}", &[]).await.refused(503, "SELLER_CIRCUIT_OPEN");
    seller.answer_with(200);
    eventually("the pause ends and the paid call probes", async || {
        // No sale meanwhile, however long the pause: only what was paid before goes through.
        let sold = buyer.call(&gateway, &listing, "{}", &[]).await;
        let redeemed = buyer.redeem(&gateway, &listing, BODY, &id).await.status;
        assert!(redeemed == 200 || sold.code() == "SELLER_CIRCUIT_OPEN", "{}", sold.json);
        redeemed == 200
    })
    .await;
    buyer.call(&gateway, &listing, "{}", &[]).await.refused(402, "PAYMENT_REQUIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_11_a_busy_seller_keeps_the_payment_usable() {
    let gateway = Gateway::with(&[("CROCHET__ACTORS__WAITING_ROOM", "0")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let limits = json!({"limits": {"max_concurrency": 1}});
    let (listing, _) = owner.list_with(&gateway, &seller.url("/gated"), "1", limits).await;
    let first = buyer.buy(&gateway, &listing, "1", &[]).await;
    let second = buyer.buy(&gateway, &listing, "2", &[]).await;
    let running = async { buyer.redeem(&gateway, &listing, "1", &first).await.status };
    let meanwhile = async {
        eventually("the seller is called", async || seller.calls() == 1).await;
        let busy = buyer.redeem(&gateway, &listing, "2", &second).await;
        busy.refused(503, "SELLER_BUSY");
        assert_eq!(busy.details()["payment_state"], "settled", "verified money is recorded all the same");
        assert_eq!(busy.json["error"]["recovery"]["next_action"], "retry_same_payment");
        buyer.call(&gateway, &listing, "3", &[]).await.refused(503, "SELLER_BUSY");
        seller.open(2);
    };
    let (status, ()) = tokio::join!(running, meanwhile);
    assert_eq!(status, 200);
    buyer.redeem(&gateway, &listing, "2", &second).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_6_a_body_that_does_not_come_is_408() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__BODY_TIMEOUT", "300ms")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    let request = format!(
        "POST /api/v1/gateway/{listing} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        gateway.url.trim_start_matches("http://"),
        buyer.key
    );
    let (status, answer) = raw(&gateway, &request).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (408, Some("REQUEST_TIMEOUT")));
    assert_eq!(answer["error"]["details"]["payment_state"], "none");
    assert_eq!(seller.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_9_without_a_rail_nothing_is_sold() {
    let gateway = Gateway::with(&[("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    buyer.call(&gateway, &listing, BODY, &[]).await.refused(422, "PAYMENT_ROUTE_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_10_an_expired_quote_is_replaced_and_late_money_is_honoured() {
    let gateway = Gateway::with(&[("CROCHET__PAYMENTS__QUOTE_TTL", "1s")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let id = buyer.call(&gateway, &listing, BODY, &[]).await.payment_id();
    eventually("the quote expires", async || {
        let answer = buyer.redeem(&gateway, &listing, BODY, &id).await;
        assert!(answer.status == 202 || answer.code() == "PAYMENT_EXPIRED", "{}", answer.json);
        if answer.status == 402 {
            assert_eq!(answer.details()["payment_state"], "expired");
            assert_ne!(answer.payment_id(), id, "a fresh quote");
        }
        answer.status == 402
    })
    .await;
    buyer.pay_with(&gateway, &id, json!({})).await.expect(200);
    buyer.redeem(&gateway, &listing, BODY, &id).await.expect(200);
    assert_eq!(seller.calls(), 1, "the price was locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_11_the_sellers_own_rate_keeps_the_payment_usable() {
    let gateway = Gateway::start();
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let limits = json!({"limits": {"requests_per_second": 1, "burst": 1}});
    let (listing, _) = owner.list_with(&gateway, &seller.url("/ok"), "1", limits).await;
    let first = buyer.buy(&gateway, &listing, "1", &[]).await;
    let second = buyer.buy(&gateway, &listing, "2", &[]).await;
    buyer.redeem(&gateway, &listing, "1", &first).await.expect(200);
    let limited = buyer.redeem(&gateway, &listing, "2", &second).await;
    limited.refused(429, "RATE_LIMITED");
    assert_eq!(limited.details()["scope"], "seller");
    assert_eq!(limited.details()["payment_state"], "settled");
    assert_eq!(limited.json["error"]["recovery"]["next_action"], "retry_same_payment");
    eventually("the rate allows it", async || buyer.redeem(&gateway, &listing, "2", &second).await.status == 200).await;
    assert_eq!(seller.calls(), 2);
}
