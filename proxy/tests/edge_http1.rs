//! The public address of a real process over HTTP/1.1: headers and framing, each row of what may be tried by its id.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod edge;
mod support;

use edge::{
    address,
    http1::{LISTINGS, get, post, refused_and_closed},
    raw::{Raw, answer_to},
};
use support::{Agent, Gateway, Seller};

#[tokio::test(flavor = "multi_thread")]
async fn b4_a_name_with_an_underscore_is_refused() {
    let gateway = Gateway::start();
    for field in ["X_Crochet_Relay_Request_Id: pay_1\r\n", "Content_Length: 5\r\n", "_: 1\r\n"] {
        refused_and_closed(&gateway, field, get(field), 400, "INVALID_REQUEST").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_a_host_is_there_once_and_is_one_of_ours() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__HOSTS", "balancer.example:8443")]);
    let line = |target: &str, hosts: &str| format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
    let listings = "/api/v1/listings";
    for hosts in [
        "",
        "Host:\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        "Host: localhost, localhost\r\n",
        "Host: localhost/path\r\n",
        "Host: user@localhost\r\n",
        "Host: local host\r\n",
        "Host: localhost:port\r\n",
    ] {
        refused_and_closed(&gateway, hosts, line(listings, hosts), 400, "INVALID_REQUEST").await;
    }
    let absolute = line("http://127.0.0.1/api/v1/listings", "Host: localhost\r\n");
    refused_and_closed(&gateway, "absolute form of another host", absolute, 400, "INVALID_REQUEST").await;
    for host in ["other.example", "balancer.example", "127.0.0.1.other.example", "localhost.other.example"] {
        let request = line(listings, &format!("Host: {host}\r\n"));
        refused_and_closed(&gateway, host, request, 421, "MISDIRECTED_REQUEST").await;
    }
    for host in ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:9", "Balancer.example:8443"] {
        let answer = answer_to(address(&gateway), line(listings, &format!("Host: {host}\r\n")), false).await;
        assert_eq!(answer.status, 200, "{host}");
    }
    let absolute = line("http://localhost/api/v1/listings", "Host: localhost\r\n");
    assert_eq!(answer_to(address(&gateway), absolute, false).await.status, 200);
}

/// A challenge asked for on behalf of `field`'s address. Each address has one in five minutes.
async fn challenge(gateway: &Gateway, from: [u8; 4], field: &str) -> u16 {
    let body = r#"{"wallet_address":"0x0000000000000000000000000000000000000001","purpose":"register"}"#;
    let request = format!(
        "POST /api/v1/auth/challenge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{field}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Raw::connect_from(from, address(gateway)).await.ask(request).await.status
}

const ONE_EACH: [(&str, &str); 2] =
    [("CROCHET__LIMITS__AUTH_PER_FIVE_MINUTES", "1"), ("CROCHET__LIMITS__DEV_MULTIPLIER", "1")];

#[tokio::test(flavor = "multi_thread")]
async fn b6_nobody_but_a_configured_proxy_says_whom_it_asks_for() {
    let gateway = Gateway::with(&ONE_EACH);
    let here = [127, 0, 0, 1];
    assert_eq!(challenge(&gateway, here, "").await, 200);
    for field in [
        "X-Forwarded-For: 1.2.3.4\r\n",
        "Forwarded: for=1.2.3.5\r\n",
        "X-Real-IP: 1.2.3.6\r\n",
        "X-Crochet-Client-Address: 1.2.3.7\r\n",
        "X-Odd: a\r\nConnection: X-Crochet-Client-Address\r\n",
    ] {
        assert_eq!(challenge(&gateway, here, field).await, 429, "{field}");
    }
    assert_eq!(challenge(&gateway, [127, 0, 0, 2], "").await, 200, "another address has its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn b6_a_configured_proxys_word_is_taken_and_no_word_behind_it() {
    let gateway = Gateway::with(&[ONE_EACH[0], ONE_EACH[1], ("CROCHET__PROXY__TRUSTED_PROXIES", "127.0.0.9/32")]);
    let proxy = [127, 0, 0, 9];
    assert_eq!(challenge(&gateway, proxy, "X-Forwarded-For: 1.2.3.4\r\n").await, 200);
    assert_eq!(challenge(&gateway, proxy, "X-Forwarded-For: 1.2.3.4\r\n").await, 429);
    assert_eq!(challenge(&gateway, proxy, "X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\n").await, 429, "forged by the client");
    assert_eq!(challenge(&gateway, proxy, "Forwarded: for=7.7.7.7\r\nX-Forwarded-For: 1.2.3.4\r\n").await, 429);
    assert_eq!(challenge(&gateway, proxy, "X-Forwarded-For: 1.2.3.5\r\n").await, 200);
    assert_eq!(challenge(&gateway, [127, 0, 0, 1], "X-Forwarded-For: 1.2.3.6\r\n").await, 200);
    assert_eq!(challenge(&gateway, [127, 0, 0, 1], "X-Forwarded-For: 1.2.3.7\r\n").await, 429, "no proxy of ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn b7_we_answer_an_expectation_ourselves() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    let call = |key: &str, expect: &str| {
        format!(
            "POST /api/v1/gateway/{listing} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Authorization: Bearer {key}\r\nExpect: {expect}\r\nContent-Length: 2\r\n\r\n"
        )
    };
    let mut raw = Raw::connect(address(&gateway)).await;
    assert_eq!(raw.ask(call(&buyer.key, "100-continue")).await.status, 100);
    assert_eq!(raw.ask("{}").await.status, 200);
    assert_eq!(seller.received()[0].headers.get("expect"), None, "never passed on");
    let refused = raw.ask(call("am_k_nobody", "100-continue")).await;
    assert_eq!(refused.status, 401, "the body is not asked for");
    assert!(raw.is_closed().await);
    refused_and_closed(&gateway, "an odd one", call(&buyer.key, "200-ok"), 417, "EXPECTATION_FAILED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b8_the_protocol_is_not_changed_and_nothing_is_tunnelled() {
    let gateway = Gateway::start();
    let upgrade = get("Upgrade: websocket\r\nConnection: Upgrade\r\n");
    refused_and_closed(&gateway, "Upgrade", upgrade, 400, "INVALID_REQUEST").await;
    let h2c = get("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n");
    refused_and_closed(&gateway, "Upgrade: h2c", h2c, 400, "INVALID_REQUEST").await;
    for request in [
        "TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        refused_and_closed(&gateway, request, request.into(), 405, "METHOD_NOT_ALLOWED").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_a_body_has_one_length() {
    let gateway = Gateway::start();
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2, 2\r\n",
        "Content-Length: 005\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 \u{b}\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        refused_and_closed(&gateway, fields, post(fields, "0\r\n\r\n"), 400, "INVALID_REQUEST").await;
    }
    let old = post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
    refused_and_closed(&gateway, "HTTP/1.0 with chunks", old, 400, "INVALID_REQUEST").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_line_ends_in_one_way_and_holds_no_controls() {
    let gateway = Gateway::start();
    let listings = |version: &str| format!("GET /api/v1/listings HTTP/{version}\r\nHost: localhost\r\n\r\n");
    for (name, request) in [
        ("bare LF, all", listings("1.1").replace("\r\n", "\n")),
        ("bare LF, one", get("X: a\n")),
        ("bare CR in a value", get("X: a\rb\r\n")),
        ("bare CR in the target", listings("1.1").replace("listings", "listings\r")),
        ("obs-fold", get("X: a\r\n b\r\n")),
        ("obs-fold by a tab", get("X: a\r\n\tb\r\n")),
        ("fold before the first field", "GET / HTTP/1.1\r\n Host: localhost\r\nHost: localhost\r\n\r\n".into()),
        ("NUL in a value", get("X: a\0b\r\n")),
        ("NUL in the target", listings("1.1").replace("listings", "list\0ings")),
        ("space in the target", listings("1.1").replace("listings", "list ings")),
        ("tab in the target", listings("1.1").replace("listings", "list\tings")),
        ("0x80 in the target", listings("1.1").replace("listings", "list\u{80}ings")),
        ("fragment in the target", listings("1.1").replace("listings", "listings#a")),
        ("a control in a value", get("X: a\u{1}b\r\n")),
        ("space before the colon", get("X : a\r\n")),
        ("no name", get(": a\r\n")),
        ("no colon", get("X\r\n")),
        ("an asterisk as the target", "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n".into()),
        ("HTTP/1.2", listings("1.2")),
        ("HTTP/3.0", listings("3.0")),
        ("no version", "GET /api/v1/listings\r\nHost: localhost\r\n\r\n".into()),
        ("half a preface", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".into()),
    ] {
        refused_and_closed(&gateway, name, request, 400, "INVALID_REQUEST").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_bad_chunks_are_refused_and_trailers_are_dropped() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    let call = |body: &str| {
        let fields = format!("Authorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n", buyer.key);
        post(&fields, body).replace("nobody", &listing)
    };
    for body in [
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2\r\n{}x\r\n0\r\n\r\n",
        "2;a\rb\r\n{}\r\n0\r\n\r\n",
        "2;\0\r\n{}\r\n0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}",
        "00000000000000002\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\r\n0\r\n X: folded\r\n\r\n",
        "2\r\n{}\r\n0\r\nX: \u{1}\r\n\r\n",
    ] {
        refused_and_closed(&gateway, body, call(body), 400, "INVALID_REQUEST").await;
    }
    assert_eq!(seller.calls(), 0, "a trap");
    let trailed = call("1;ext=\"v\"\r\n{\r\n1\r\n}\r\n0\r\nX-Crochet-Attempt: 9\r\nHost: other\r\n\r\n");
    let mut raw = Raw::connect(address(&gateway)).await;
    assert_eq!(raw.ask(trailed).await.status, 200);
    let received = seller.received();
    assert_eq!((received.len(), received[0].body.as_slice()), (1, &b"{}"[..]));
    assert_ne!(received[0].headers.get("x-crochet-attempt").map(String::as_str), Some("9"));
    assert_eq!(raw.ask(LISTINGS).await.status, 200, "and the next request begins behind them");
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_no_cache_keeps_a_quote_or_what_only_one_caller_may_see() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0.5").await;
    let quoted = buyer.call(&gateway, &listing, "{}", &[]).await;
    assert_eq!((quoted.status, quoted.header("cache-control")), (402, "no-store"));
    let payment = buyer.buy(&gateway, &listing, "{}", &[]).await;
    let paid = buyer.redeem(&gateway, &listing, "{}", &payment).await;
    assert_eq!((paid.status, paid.header("cache-control")), (200, "no-store"));
    for path in ["me", "api-keys", "ledger", "gateway-requests", "me/listings", "listings", "categories", "nowhere"] {
        let answer = buyer.get(&gateway, &format!("/api/v1/{path}")).await;
        assert_eq!(answer.header("cache-control"), "no-store", "{path}, asked for with a key: {}", answer.status);
    }
    let session = answer_to(address(&gateway), get("Cookie: crochet_session=x\r\n"), false).await;
    assert_eq!(session.field("Cache-Control"), Some("no-store"), "asked for with a session");
    assert_eq!(answer_to(address(&gateway), LISTINGS, false).await.field("Cache-Control"), None, "for everybody");
    let unknown = answer_to(address(&gateway), post("Content-Length: 2\r\n", "{}"), false).await;
    assert_eq!((unknown.status, unknown.field("Cache-Control")), (401, Some("no-store")));
}

#[tokio::test(flavor = "multi_thread")]
async fn h_no_answer_names_the_server() {
    let gateway = Gateway::start();
    for request in [LISTINGS.to_string(), post("Content-Length: 2\r\n", "{}"), get("Upgrade: x\r\n")] {
        let answer = Raw::connect(address(&gateway)).await.ask(request).await;
        for name in ["Server", "X-Powered-By", "Via"] {
            assert_eq!(answer.field(name), None, "{}", answer.head);
        }
    }
    let operations = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for path in ["/metrics", "/livez", "/readyz", "/internal/recompute-scores", "/debug/state"] {
        let answer = answer_to(address(&gateway), operations.replace("/metrics", path), false).await;
        assert_eq!(answer.status, 404, "{path} is not public");
    }
}
