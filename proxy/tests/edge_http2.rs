//! The public address of a real process over HTTP/2: what it does, and what it does not let one connection do to it.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod edge;
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use edge::{
    address,
    http2::{Http2, whole},
    metric,
    raw::Raw,
    resident_kib,
};
use h2::{Reason, client::Builder};
use http::{Method, Request, Version};
use support::{Agent, Gateway, Seller, eventually};
use tokio::{net::TcpStream, time::timeout};

const LISTINGS: &str = "/api/v1/listings";
const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_call_goes_its_way_over_http_2() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/size/300000"), "0.5").await;
    let mut http2 = Http2::connect(address(&gateway)).await;
    let quoted = http2.call(&listing, &buyer.key, "{}").await.expect("an answer");
    assert_eq!((quoted.status, quoted.field("cache-control")), (402, "no-store"));
    let payment = quoted.json()["data"]["payment"]["relay_request_id"].as_str().expect("an id").to_string();
    buyer.pay_with(&gateway, &payment, serde_json::json!({})).await.expect(200);
    let (path, bearer) = (format!("/api/v1/gateway/{listing}"), format!("Bearer {}", buyer.key));
    let fields = [("authorization", bearer.as_str()), JSON, ("x-crochet-relay-request-id", payment.as_str())];
    let paid = http2.post(&path, &fields, "{}").await.expect("an answer");
    assert_eq!((paid.status, paid.json()["data"]["billable"].as_bool()), (200, Some(true)));
    assert_eq!(paid.json()["data"]["seller_response"].as_str().map(str::len), Some(300_000));
    let again = http2.post(&path, &fields, "{}").await.expect("an answer");
    assert_eq!((again.field("x-crochet-replayed"), again.body == paid.body), ("true", true));
    assert_eq!(seller.calls(), 1);
    assert!(again.fields.get("server").is_none() && again.fields.get("connection").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_call_goes_on_to_the_control_api() {
    let gateway =
        Gateway::with(&[("CROCHET__LIMITS__AUTH_PER_FIVE_MINUTES", "1"), ("CROCHET__LIMITS__DEV_MULTIPLIER", "1")]);
    let mut http2 = Http2::connect(address(&gateway)).await;
    let listings = http2.get(LISTINGS, &[("x-request-id", "mine-1")]).await.expect("an answer");
    assert_eq!((listings.status, listings.field("x-request-id")), (200, "mine-1"));
    assert_eq!(listings.json()["success"], true);
    let head = http2.request(Method::HEAD, LISTINGS, &[]);
    let (answer, _) = http2.begin(head, false).await;
    let head = whole(answer).await.expect("an answer");
    assert_eq!((head.status, head.body.len()), (200, 0));
    // The client's address is the peer's, whatever a field says.
    let body = r#"{"wallet_address":"0x0000000000000000000000000000000000000001","purpose":"register"}"#;
    for (field, status) in [("x-odd", 200), ("x-crochet-client-address", 429), ("x-forwarded-for", 429)] {
        let answer = http2.post("/api/v1/auth/challenge", &[JSON, (field, "1.2.3.4")], body).await.expect("an answer");
        assert_eq!(answer.status, status, "{field}: {:?}", answer.json());
    }
    let large = "x".repeat(300_000);
    let refused = http2.post("/api/v1/auth/challenge", &[JSON], &large).await.expect("an answer");
    assert_eq!(refused.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_a_head_are_those_of_http_1() {
    let gateway = Gateway::start();
    let mut http2 = Http2::connect(address(&gateway)).await;
    let call = "/api/v1/gateway/nobody";
    let long = "a".repeat(17_000);
    for (name, path, fields, status) in [
        ("b4 an underscore", call, vec![("x_crochet_a", "1")], 400),
        ("b5 two hosts", LISTINGS, vec![("host", "other.example")], 400),
        ("b7 an odd expectation", call, vec![("expect", "200-ok")], 417),
        (
            "one of ours twice",
            call,
            vec![("x-crochet-max-price-micros", "1"), ("x-crochet-max-price-micros", "1")],
            400,
        ),
        ("an unknown one of ours twice", call, vec![("x-crochet-new", "1"), ("x-crochet-new", "1")], 400),
        ("two keys", call, vec![("authorization", "Bearer a"), ("authorization", "Bearer b")], 400),
        ("a query", "/api/v1/gateway/nobody?a=1", vec![], 400),
        ("no content type", call, vec![], 415),
        ("a compressed body", call, vec![JSON, ("content-encoding", "gzip")], 415),
        ("no key", call, vec![JSON], 401),
        ("d1 a long head", call, vec![("x-long", long.as_str())], 431),
        ("d1 too many fields", call, vec![("x", "y"); 101], 431),
    ] {
        let answer = http2.post(path, &fields, "{}").await.expect(name);
        assert_eq!(answer.status, status, "{name}: {}", String::from_utf8_lossy(&answer.body));
        assert!(!answer.field("x-request-id").is_empty(), "{name}");
    }
    for (authority, status) in [("other.example", 421), ("user@localhost", 400), ("LOCALHOST:1", 200)] {
        let request = Request::get(format!("http://{authority}{LISTINGS}")).body(()).expect("a request");
        let (answer, _) = http2.begin(request, false).await;
        assert_eq!(whole(answer).await.expect("an answer").status, status, "b5 {authority}");
    }
    for (method, status) in [("TRACE", 405), ("CONNECT", 405)] {
        let uri = if method == "CONNECT" { "localhost:1".into() } else { format!("http://localhost{LISTINGS}") };
        let request = Request::builder().method(method).uri(uri).body(()).expect("a request");
        let (answer, _) = http2.begin(request, false).await;
        assert_eq!(whole(answer).await.expect("an answer").status, status, "b8 {method}");
    }
    assert_eq!(http2.get(LISTINGS, &[]).await.expect("none of it harmed the connection").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_about_a_connection_end_the_stream() {
    let gateway = Gateway::start();
    let mut http2 = Http2::connect(address(&gateway)).await;
    for field in [("te", "gzip"), ("connection", "close"), ("transfer-encoding", "chunked"), ("upgrade", "h2c")] {
        let mut request = http2.request(Method::GET, LISTINGS, &[field]);
        *request.version_mut() = Version::HTTP_2;
        let requests = http2.requests.clone().ready().await.expect("ready");
        http2.requests = requests;
        // A client that keeps to the rules does not even send it; one that does not is reset.
        match http2.requests.send_request(request, true) {
            Err(error) => assert!(error.to_string().contains("malformed"), "{error}"),
            Ok((answer, _)) => {
                assert_eq!(whole(answer).await.expect_err("reset").reason(), Some(Reason::PROTOCOL_ERROR), "{field:?}");
            }
        }
    }
    assert_eq!(http2.get(LISTINGS, &[("te", "trailers")]).await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_our_word_gets_it_or_the_answer() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    let mut http2 = Http2::connect(address(&gateway)).await;
    let path = format!("/api/v1/gateway/{listing}");
    let bearer = format!("Bearer {}", buyer.key);
    let fields = [("authorization", bearer.as_str()), JSON, ("expect", "100-continue")];
    let request = http2.request(Method::POST, &path, &fields);
    let (mut answer, mut stream) = http2.begin(request, true).await;
    let word = timeout(edge::PATIENCE, std::future::poll_fn(|cx| answer.poll_informational(cx))).await;
    assert_eq!(word.expect("in time").expect("a word").expect("good").status(), 100);
    stream.send_data(Bytes::from_static(b"{}"), true).expect("sent");
    assert_eq!(whole(answer).await.expect("an answer").status, 200);
    let request = http2.request(Method::POST, &path, &fields[1..]);
    let (answer, _unsent) = http2.begin(request, true).await;
    assert_eq!(whole(answer).await.expect("an answer").status, 401, "the body is not asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_loses_the_answer_and_not_the_call() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/gated"), "0.5").await;
    for leaves in ["by a reset", "with its connection"] {
        let body = format!("{{\"leaves\":\"{leaves}\"}}");
        let payment = buyer.buy(&gateway, &listing, &body, &[]).await;
        let before = seller.calls();
        let mut http2 = Http2::connect(address(&gateway)).await;
        let bearer = format!("Bearer {}", buyer.key);
        let fields = [("authorization", bearer.as_str()), JSON, ("x-crochet-relay-request-id", payment.as_str())];
        let request = http2.request(Method::POST, &format!("/api/v1/gateway/{listing}"), &fields);
        let (answer, mut stream) = http2.begin(request, true).await;
        stream.send_data(Bytes::from(body.clone()), true).expect("sent");
        eventually("the seller is called", async || seller.calls() > before).await;
        if leaves == "by a reset" {
            stream.send_reset(Reason::CANCEL);
            assert_eq!(http2.get(LISTINGS, &[]).await.expect("the connection lives").status, 200);
        } else {
            http2.connection.abort();
        }
        drop(answer);
        seller.open(1);
        eventually("the call is finished", async || {
            let rows = buyer.requests(&gateway).await;
            rows.iter().any(|row| row["relay_request_id"] == payment.as_str() && row["status"] == "completed")
        })
        .await;
        let result = buyer.redeem(&gateway, &listing, &body, &payment).await;
        assert_eq!((result.status, result.header("x-crochet-replayed")), (200, "true"), "{leaves}");
        assert_eq!(seller.calls(), before + 1, "{leaves}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_answers_what_is_under_way_and_takes_nothing_new() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/gated"), "0").await;
    let idle = Http2::connect(address(&gateway)).await;
    let mut http2 = Http2::connect(address(&gateway)).await;
    let bearer = format!("Bearer {}", buyer.key);
    let request =
        http2.request(Method::POST, &format!("/api/v1/gateway/{listing}"), &[("authorization", &bearer), JSON]);
    let (answer, mut stream) = http2.begin(request, true).await;
    stream.send_data(Bytes::from_static(b"{}"), true).expect("sent");
    eventually("the call is under way", async || seller.calls() == 1).await;
    gateway.terminate();
    idle.ended().await.expect("told to go, without an error");
    eventually("no new request is taken", async || {
        let Ok(requests) = http2.requests.clone().ready().await else { return true };
        http2.requests = requests;
        let request = http2.request(Method::GET, LISTINGS, &[]);
        match http2.requests.send_request(request, true) {
            Ok((answer, _)) => whole(answer).await.is_err(),
            Err(_) => true,
        }
    })
    .await;
    seller.open(1);
    assert_eq!(whole(answer).await.expect("answered").status, 200);
    http2.ended().await.expect("closed without an error");
    let status = tokio::task::spawn_blocking(move || gateway.wait()).await.expect("joined");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_only_so_many_requests_of_one_connection_are_under_way() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__HTTP2__STREAMS_MAX", "4")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/gated"), "0").await;
    let mut http2 = Http2::connect(address(&gateway)).await;
    assert_eq!(http2.get(LISTINGS, &[]).await.expect("an answer").status, 200);
    assert_eq!(http2.requests.current_max_send_streams(), 4, "it is said");
    let bearer = format!("Bearer {}", buyer.key);
    let path = format!("/api/v1/gateway/{listing}");
    for count in 1..=4 {
        let request = http2.request(Method::POST, &path, &[("authorization", &bearer), JSON]);
        let (_, mut stream) = http2.begin(request, true).await;
        stream.send_data(Bytes::from_static(b"{}"), true).expect("sent");
        eventually("the seller is called", async || seller.calls() == count).await;
        stream.send_reset(Reason::CANCEL);
    }
    // To the protocol the connection is free; the work of the four goes on all the same.
    let refused = http2.get(LISTINGS, &[]).await.expect_err("there is no room");
    assert_eq!(refused.reason(), Some(Reason::REFUSED_STREAM), "which says that nothing was done");
    seller.open(4);
    eventually("there is room again", async || http2.get(LISTINGS, &[]).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_a_connection_that_gives_up_its_requests_is_closed() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__HTTP2__RESETS_MAX", "10")]);
    // All at once, before any was looked at; and one after the other, each begun.
    let mut flood = speaking(&gateway).await;
    let given_up = |stream| [frame(1, 4, stream, POST_HEAD), frame(3, 0, stream, &[0, 0, 0, 8])].concat();
    flood.send((0..1000).flat_map(|number| given_up(2 * number + 1)).collect::<Vec<u8>>()).await;
    assert!(is_told_to_go(&mut flood, Reason::ENHANCE_YOUR_CALM).await);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/gated"), "0").await;
    let mut patient = Http2::connect(address(&gateway)).await;
    let bearer = format!("Bearer {}", buyer.key);
    for count in 1..=12 {
        let path = format!("/api/v1/gateway/{listing}");
        let request = patient.request(Method::POST, &path, &[("authorization", &bearer), JSON]);
        let (_, mut stream) = patient.begin(request, true).await;
        stream.send_data(Bytes::from_static(b"{}"), true).expect("sent");
        eventually("the seller is called", async || seller.calls() == count).await;
        stream.send_reset(Reason::CANCEL);
    }
    seller.open(12);
    eventually("it is noticed at the next one", async || patient.get(LISTINGS, &[]).await.is_err()).await;
    let end = patient.ended().await.expect_err("closed");
    assert_eq!(end.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(
        Http2::connect(address(&gateway)).await.get(LISTINGS, &[]).await.expect("others are served").status,
        200
    );
}

/// A frame as it goes over the wire.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a POST: method, scheme, and path from the static table, the authority as a literal.
const POST_HEAD: &[u8] = b"\x83\x86\x84\x41\x09localhost";

async fn speaking(gateway: &Gateway) -> Raw<TcpStream> {
    let mut raw = Raw::connect(address(gateway)).await;
    raw.send([edge::http2_preface(), &frame(4, 0, 0, &[])].concat()).await;
    raw
}

/// Whether the connection ends, with a GOAWAY of this reason among its last frames.
async fn is_told_to_go(raw: &mut Raw<TcpStream>, reason: Reason) -> bool {
    while raw.more().await {}
    let mut rest = raw.seen.as_slice();
    let mut told = false;
    while rest.len() >= 9 {
        let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        let payload = &rest[9..(9 + length).min(rest.len())];
        told |= rest[3] == 7 && payload.get(4..8) == Some(&u32::from(reason).to_be_bytes());
        rest = &rest[(9 + length).min(rest.len())..];
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_streams_that_the_client_makes_us_reset_are_counted() {
    let gateway = Gateway::with(&[
        ("CROCHET__PROXY__HTTP2__ERROR_RESETS_MAX", "10"),
        ("CROCHET__PROXY__HTTP2__RESETS_MAX", "1000000"),
    ]);
    let mut raw = speaking(&gateway).await;
    // A window that becomes too large is a fault of the stream, and we are who must reset it (MadeYouReset).
    for number in 0..200 {
        let stream = 2 * number + 1;
        raw.send([frame(1, 4, stream, POST_HEAD), frame(8, 0, stream, &[0x7f, 255, 255, 255])].concat()).await;
    }
    assert!(is_told_to_go(&mut raw, Reason::ENHANCE_YOUR_CALM).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn c8_floods_of_frames_that_carry_nothing_end_the_connection_and_cost_no_memory() {
    let gateway = Gateway::start();
    let before = resident_kib(&gateway);
    let empty_data = frame(0, 0, 1, &[]).repeat(1000);
    let head = frame(1, 4, 1, POST_HEAD);
    let long_field = [&[0x00, 0x01, b'x', 0x7f, 0xe1, 0x3e][..], &[b'a'; 8096]].concat();
    let bomb_head = frame(1, 0, 1, &[POST_HEAD, &long_field].concat());
    let references = frame(9, 0, 1, &[0xbe; 16_000]);
    for (name, first, again) in [
        ("empty DATA", head.clone(), empty_data),
        ("CONTINUATION without end", frame(1, 0, 1, POST_HEAD), frame(9, 0, 1, &[0x00, 1, b'x', 1, b'y']).repeat(100)),
        ("a field of 8 kB, again and again", bomb_head, references),
        ("SETTINGS that nobody needs", head.clone(), frame(4, 0, 0, &[0, 4, 0, 0, 255, 255]).repeat(1000)),
        ("PING", head, frame(6, 0, 0, &[0; 8]).repeat(1000)),
    ] {
        let mut raw = speaking(&gateway).await;
        raw.send(first).await;
        let began = Instant::now();
        let mut sent = 0;
        // Until it is closed, or long enough to see that it does no harm.
        while sent < 300 && began.elapsed() < Duration::from_secs(3) {
            let written = tokio::io::AsyncWriteExt::write_all(&mut raw.io, &again);
            match timeout(Duration::from_millis(500), written).await {
                Ok(Ok(())) => sent += 1,
                // Closed, or not read any more since nobody takes its answers.
                _ => break,
            }
        }
        let mut probe = Http2::connect(address(&gateway)).await;
        assert_eq!(probe.get(LISTINGS, &[]).await.expect("others are served").status, 200, "{name}");
        let grown = resident_kib(&gateway).saturating_sub(before);
        assert!(grown < 32 << 10, "{name}: {grown} KiB more after {sent} rounds");
        if name.contains("DATA") || name.contains("CONTINUATION") || name.contains("again") {
            while raw.more().await {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_connection_begins_in_time_and_does_not_idle_for_ever() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__HEAD_TIMEOUT", "300ms"), ("CROCHET__PROXY__IDLE_TIMEOUT", "1s")]);
    let mut silent = Raw::connect(address(&gateway)).await;
    silent.send(edge::http2_preface()).await;
    assert!(is_told_to_go(&mut silent, Reason::NO_ERROR).await, "no settings, no request");
    let mut half = speaking(&gateway).await;
    half.send(&frame(1, 4, 1, POST_HEAD)[..15]).await;
    assert!(is_told_to_go(&mut half, Reason::NO_ERROR).await, "half a head");
    let mut idle = Http2::connect(address(&gateway)).await;
    assert_eq!(idle.get(LISTINGS, &[]).await.expect("an answer").status, 200);
    // The client holds on to it.
    timeout(edge::PATIENCE, idle.connection).await.expect("in time").expect("no panic").expect("told to go");
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_body_comes_at_a_rate_and_within_its_size() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__BODY_GRACE", "200ms")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let limits = serde_json::json!({"limits": {"max_request_bytes": 100_000}});
    let (listing, _) = owner.list_with(&gateway, &seller.url("/ok"), "0", limits).await;
    let mut http2 = Http2::connect(address(&gateway)).await;
    let (path, bearer) = (format!("/api/v1/gateway/{listing}"), format!("Bearer {}", buyer.key));
    let fields = [("authorization", bearer.as_str()), JSON];
    let request = http2.request(Method::POST, &path, &fields);
    let (answer, mut stream) = http2.begin(request, true).await;
    stream.send_data(Bytes::from_static(b"{"), false).expect("sent");
    let late = whole(answer).await.expect("an answer");
    assert_eq!((late.status, late.json()["error"]["code"].as_str()), (408, Some("REQUEST_TIMEOUT")));
    let said = [fields[0], fields[1], ("content-length", "100001")];
    let request = http2.request(Method::POST, &path, &said);
    let (answer, _stream) = http2.begin(request, true).await;
    assert_eq!(whole(answer).await.expect("an answer").status, 413, "by what it says");
    let large = format!("\"{}\"", "x".repeat(99_999));
    assert_eq!(http2.post(&path, &fields, &large).await.expect("an answer").status, 413, "by what came");
    let fits = format!("\"{}\"", "x".repeat(99_998));
    assert_eq!(http2.post(&path, &fields, &fits).await.expect("an answer").status, 200, "more than a window");
    assert_eq!(seller.received()[0].body, fits.as_bytes());
    let request = http2.request(Method::POST, &path, &fields);
    let (answer, mut stream) = http2.begin(request, true).await;
    stream.send_data(Bytes::from_static(b"{}"), false).expect("sent");
    let trailers = [(http::HeaderName::from_static("x-crochet-attempt"), http::HeaderValue::from_static("9"))];
    stream.send_trailers(trailers.into_iter().collect()).expect("sent");
    assert_eq!(whole(answer).await.expect("an answer").status, 200);
    let received = seller.received();
    assert_eq!(received[1].body, b"{}");
    assert_ne!(received[1].headers.get("x-crochet-attempt").map(String::as_str), Some("9"), "c3 trailers are dropped");
    let lies = [fields[0], fields[1], ("content-length", "3")];
    let wrong = http2.post(&path, &lies, "{}").await.expect_err("a length that is not kept");
    assert_eq!(wrong.reason(), Some(Reason::PROTOCOL_ERROR));
    assert_eq!(seller.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_a_client_that_makes_no_room_loses_the_stream_and_one_that_reads_nothing_the_connection() {
    let gateway = Gateway::with(&[
        ("CROCHET__PROXY__WRITE_TIMEOUT", "300ms"),
        ("CROCHET__PROXY__HTTP2__PING_INTERVAL", "200ms"),
        ("CROCHET__PROXY__HTTP2__PING_TIMEOUT", "400ms"),
    ]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let limits = serde_json::json!({"limits": {"max_response_bytes": 100_000_000}});
    let (listing, _) = owner.list_with(&gateway, &seller.url("/size/60000000"), "0", limits).await;
    let stream = TcpStream::connect(address(&gateway)).await.expect("connected");
    let mut http2 =
        Http2::over(stream, "localhost".into(), Builder::new().initial_connection_window_size(1 << 20)).await;
    let bearer = format!("Bearer {}", buyer.key);
    let path = format!("/api/v1/gateway/{listing}");
    let request = http2.request(Method::POST, &path, &[("authorization", &bearer), JSON]);
    let (answer, mut sending) = http2.begin(request, true).await;
    sending.send_data(Bytes::from_static(b"{}"), true).expect("sent");
    let (head, mut body) = answer.await.expect("an answer").into_parts();
    assert_eq!(head.status, 200);
    let end = loop {
        // Taken, and no room made for more.
        match timeout(edge::PATIENCE, body.data()).await.expect("in time") {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the answer cannot be whole"),
        }
    };
    assert!(end.is_reset() && end.is_remote(), "{end}");
    assert_eq!(http2.get(LISTINGS, &[]).await.expect("the connection lives").status, 200);
    drop((http2, body));
    // A client with all the room in the world that reads nothing.
    eventually("only others' connections are open", async || metric(&gateway, "crochet_gateway_inflight").await == 0)
        .await;
    let open = metric(&gateway, "crochet_connections_open").await;
    let mut deaf = speaking(&gateway).await;
    let room = [frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), frame(8, 0, 0, &[0x7f, 0, 0, 0])].concat();
    let literal = |name: &str, value: &str| {
        let length = u8::try_from(value.len()).expect("short");
        [&[0, u8::try_from(name.len()).expect("short")][..], name.as_bytes(), &[length], value.as_bytes()].concat()
    };
    let head = [
        b"\x83\x86\x41\x09localhost".to_vec(),
        literal(":path", &path),
        literal("authorization", &bearer),
        literal(JSON.0, JSON.1),
    ];
    deaf.send([room, frame(1, 4, 1, &head.concat()), frame(0, 1, 1, b"{}")].concat()).await;
    eventually("its call is under way", async || seller.calls() == 2).await;
    eventually("it is given up", async || metric(&gateway, "crochet_connections_open").await <= open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_silent_while_it_waits_is_asked_whether_it_is_there() {
    let gateway = Gateway::with(&[
        ("CROCHET__PROXY__HTTP2__PING_INTERVAL", "100ms"),
        ("CROCHET__PROXY__HTTP2__PING_TIMEOUT", "300ms"),
    ]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/gated"), "0").await;
    // One that answers pings waits as long as it likes.
    let mut there = Http2::connect(address(&gateway)).await;
    let key = buyer.key.clone();
    let waiting = tokio::spawn(async move { there.call(&listing, &key, "{}").await.expect("an answer").status });
    eventually("its call is under way", async || seller.calls() == 1).await;
    // One that does not is dropped while its request is under way: the body never comes.
    let open = metric(&gateway, "crochet_connections_open").await;
    let mut gone = speaking(&gateway).await;
    gone.send(frame(1, 4, 1, POST_HEAD)).await;
    while gone.more().await {}
    assert!(gone.seen.windows(9).any(|nine| nine[..5] == [0, 0, 8, 6, 0]), "it was asked");
    eventually("it is dropped", async || metric(&gateway, "crochet_connections_open").await <= open).await;
    assert!(!waiting.is_finished());
    seller.open(1);
    assert_eq!(waiting.await.expect("no panic"), 200);
}
