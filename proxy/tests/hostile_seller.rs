//! Sellers that do their worst, behind paid calls to a real process: each ends in time with the code of the billable
//! table, is called once, takes no money that it did not earn, and leaves its private URL nowhere.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

#[path = "hostile_seller/cases.rs"]
mod cases;
mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cases::{BODY, Case, Ending, Play, cases, over_tls, plays, says};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Agent, Gateway, Seller, agent::Answer, eventually, tls::Authority};
use tokio::{net::TcpListener, task::JoinSet};

const TIMEOUT_MS: u64 = 700;
/// The promise is 250 ms; a machine that does other things beside this is given more.
const SLACK: Duration = Duration::from_secs(8);
/// In the path of every private URL.
const CANARY: &str = "canary-8d1f4c";

struct House {
    /// One open challenge per seller: listings are made one by one.
    listing: tokio::sync::Mutex<()>,
    gateway: Gateway,
    owner: Agent,
    buyer: Agent,
}

impl House {
    async fn build(knobs: &[(&str, &str)]) -> Self {
        let gateway = Gateway::with(knobs);
        let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
        Self { listing: tokio::sync::Mutex::default(), gateway, owner, buyer }
    }

    async fn list(&self, url: &str, more: Value) -> String {
        let _one = self.listing.lock().await;
        self.owner.list_with(&self.gateway, url, "1", more).await.0
    }

    /// Waits until the payment is in this state; what streams is written down behind its answer.
    async fn settles_as(&self, payment: &str, state: &str) {
        for _ in 0..1_000 {
            let shown = self.buyer.get(&self.gateway, &format!("/api/v1/payments/{payment}")).await;
            if shown.json["data"]["state"] == state {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{payment} is never {state}");
    }
}

/// Where it listens, and how often it was connected to.
async fn listen(play: Option<Play>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("address");
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    if let Some(play) = play {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(play(stream));
            }
        });
    }
    (address, connections)
}

/// Sells and buys one call of this seller. Returns what it said of itself that no secret may be in.
async fn endure(house: Arc<House>, case: Case) -> (SocketAddr, String) {
    let Case { name, scheme, play, limits, ending } = case;
    let (address, connections) = listen(play).await;
    let url = format!("{scheme}://{address}/{CANARY}");
    let more = json!({ "timeout_ms": TIMEOUT_MS, "limits": limits });
    let listing = house.list(&url, more).await;
    let payment = house.buyer.buy(&house.gateway, &listing, BODY, &[]).await;
    let began = Instant::now();
    let answer = house.buyer.redeem(&house.gateway, &listing, BODY, &payment).await;
    let took = began.elapsed();
    eprintln!("{name}: {} {} after {} ms", answer.status, answer.code(), took.as_millis());
    assert!(took < Duration::from_millis(TIMEOUT_MS + 250) + SLACK, "{name}: {took:?}");
    check(name, &answer, &ending);
    let state = if matches!(ending, Ending::Handled(_)) { "completed" } else { "settled" };
    house.settles_as(&payment, state).await;
    // C6: once, whatever became of it.
    assert!(connections.load(Ordering::SeqCst) <= 1, "{name}: called again");
    let told = format!("{:?}{}", answer.headers, String::from_utf8_lossy(&answer.bytes));
    (address, told)
}

fn check(name: &str, answer: &Answer, ending: &Ending) {
    match ending {
        Ending::Refused(status, code, called, seller_status) => {
            assert_eq!((answer.status, answer.code()), (*status, *code), "{name}: {}", answer.json);
            assert_eq!(&answer.details()["seller_endpoint_called"], called, "{name}");
            assert_eq!(&answer.details()["seller_status_code"], seller_status, "{name}");
            assert_eq!(answer.details()["payment_state"], "settled", "{name}");
        }
        Ending::Either(one, other) => assert!([*one, *other].contains(&answer.code()), "{name}: {}", answer.json),
        Ending::Cut => assert_eq!((answer.status, &answer.json), (200, &Value::Null), "{name}"),
        Ending::Handled(response) => {
            assert_eq!(answer.status, 200, "{name}: {}", answer.json);
            assert_eq!(&answer.json["data"]["seller_response"], response, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_d7_d8_d9_every_hostile_seller_ends_in_time_with_its_code_and_earns_nothing() {
    let authority = Authority::new();
    let ca = authority.file();
    let ca = ca.to_str().expect("text");
    let house = House::build(&[("CROCHET__PROXY__DEV_CA", ca), ("CROCHET__TELEMETRY__LOG", "debug")]).await;
    let house = Arc::new(house);
    let cases = cases(&authority);
    let (count, good) = (cases.len(), cases.iter().filter(|case| matches!(case.ending, Ending::Handled(_))).count());
    assert!(count - good >= 25);
    let mut running = JoinSet::new();
    let mut told = Vec::new();
    for case in cases {
        // A few at a time: the machine is not what is tested.
        if running.len() >= 8 {
            told.push(running.join_next().await.expect("running").expect("the case holds"));
        }
        running.spawn(endure(house.clone(), case));
    }
    while let Some(done) = running.join_next().await {
        told.push(done.expect("the case holds"));
    }
    let rows = house.buyer.requests(&house.gateway).await;
    let billable = rows.iter().filter(|row| row["billable"] == true).count();
    assert_eq!((rows.len(), billable), (count, good));
    let earned = house.owner.ledger(&house.gateway).await;
    assert_eq!(earned.iter().filter(|row| row["entry_type"] == "seller_credit").count(), good, "{earned:?}");
    a13_the_private_urls_are_nowhere(&house, &told).await;
}

/// In no answer, no line of the log at its most talkative, and no metric.
async fn a13_the_private_urls_are_nowhere(house: &House, told: &[(SocketAddr, String)]) {
    let metrics = reqwest::get(format!("{}/metrics", house.gateway.operations)).await.expect("metrics");
    let metrics = metrics.text().await.expect("text");
    let log = house.gateway.log();
    assert!(metrics.contains("crochet_gateway_requests_total"), "{metrics}");
    assert!(log.contains("SELLER_TIMEOUT"), "the log tells something");
    for (address, text) in told {
        for secret in [CANARY.to_string(), address.to_string()] {
            for (place, text) in [("an answer", text), ("the log", &log), ("a metric", &metrics)] {
                let line = text.lines().find(|line| line.contains(&secret)).unwrap_or_default();
                assert!(!text.contains(&secret), "{secret} is in {place}: {line}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_of_an_endpoint_goes_the_way_of_a_call() {
    let authority = Authority::new();
    let ca = authority.file();
    let house = House::build(&[("CROCHET__PROXY__DEV_CA", ca.to_str().expect("text"))]).await;
    let test = async |url: &str| {
        let listing = house.list(url, json!({ "timeout_ms": TIMEOUT_MS })).await;
        let path = format!("/api/v1/listings/{listing}/endpoint/test");
        house.owner.send(&house.gateway, Method::POST, &path, json!({ "body": { "task": "run" } })).await
    };
    let (address, _) = listen(Some(over_tls(authority.acceptor(&["127.0.0.1"]), true))).await;
    let answer = test(&format!("https://{address}/{CANARY}")).await;
    let data = &answer.expect(200).json["data"];
    assert_eq!((&data["seller_status_code"], &data["tls"]), (&json!(200), &json!("TLSv1.3")));
    assert_eq!(data["response_preview"], "{}");
    let seller = Seller::start().await;
    let answer = test(&seller.url("/work")).await;
    assert_eq!(answer.expect(200).json["data"]["tls"], Value::Null);
    let got = seller.received().remove(0);
    assert_eq!((got.headers["x-crochet-test"].as_str(), got.body.as_slice()), ("true", BODY.as_bytes()));
    // A12: closed, reset, silent, no TLS: one answer, to the letter.
    let (closed, _) = listen(None).await;
    let (reset, _) = listen(Some(plays(|stream| async move { drop(stream.set_zero_linger()) }))).await;
    let mut texts = Vec::new();
    for url in [
        format!("http://{closed}/{CANARY}"),
        format!("http://{reset}/{CANARY}"),
        seller.url("/hang"),
        format!("https://{}/{CANARY}", seller.address),
    ] {
        let answer = test(&url).await;
        answer.refused(502, "SELLER_UNREACHABLE");
        texts.push(answer.bytes.clone());
    }
    assert!(texts.iter().all(|text| *text == texts[0]));
    assert!(!String::from_utf8_lossy(&texts[0]).contains(CANARY));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owners_test_probes_a_circuit_that_waits_for_a_probe() {
    let house = House::build(&[
        ("CROCHET__ACTORS__CIRCUIT_FAILURES_IN_ROW", "2"),
        ("CROCHET__ACTORS__CIRCUIT_PAUSE_MIN", "50ms"),
        ("CROCHET__ACTORS__CIRCUIT_PAUSE_MAX", "50ms"),
    ])
    .await;
    let seller = Seller::start().await;
    seller.answer_with(500);
    let (listing, _) = house.owner.list(&house.gateway, &seller.url("/switch"), "1").await;
    let payment = house.buyer.buy(&house.gateway, &listing, BODY, &[]).await;
    let circuit = async || {
        let shown = house.owner.get(&house.gateway, &format!("/api/v1/listings/{listing}/endpoint")).await;
        shown.json["data"]["health"]["circuit"].as_str().unwrap_or_default().to_string()
    };
    let test = async || {
        let path = format!("/api/v1/listings/{listing}/endpoint/test");
        house.owner.send(&house.gateway, Method::POST, &path, json!({})).await.expect(200);
    };
    test().await;
    assert_eq!(circuit().await, "closed");
    for _ in 0..2 {
        house.buyer.redeem(&house.gateway, &listing, BODY, &payment).await.refused(502, "SELLER_ERROR");
    }
    eventually("it waits for a probe", async || circuit().await == "half_open").await;
    test().await;
    assert_ne!(circuit().await, "closed", "the seller still fails");
    seller.answer_with(200);
    eventually("it waits for a probe", async || circuit().await == "half_open").await;
    test().await;
    assert_eq!(circuit().await, "closed");
    house.buyer.redeem(&house.gateway, &listing, BODY, &payment).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_a_listing_cannot_lead_back_here() {
    let house = House::build(&[]).await;
    let seller = Seller::start().await;
    let (listing, _) = house.owner.list(&house.gateway, &seller.url("/ok"), "0").await;
    let path = format!("/api/v1/listings/{listing}/endpoint");
    let ourselves = json!({ "private_endpoint_url": format!("{}/api/v1/gateway/{listing}", house.gateway.url) });
    let answer = house.owner.send(&house.gateway, Method::PUT, &path, ourselves).await;
    answer.refused(422, "VALIDATION_FAILED");
    // What a gateway signed is no buyer's call, whoever carried it here.
    let marked = &[("X-Crochet-Signature", "v1,AAAA v2,AAAA")];
    house.buyer.call(&house.gateway, &listing, BODY, marked).await.refused(400, "INVALID_REQUEST");
    assert_eq!(seller.calls(), 0);
    house.buyer.call(&house.gateway, &listing, BODY, &[]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_b3_c4_both_messages_are_built_from_nothing() {
    let house = House::build(&[]).await;
    let text = "HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nStrict-Transport-Security: max-age=9\r\nX-Crochet-Billable: false\r\n\
                X-Crochet-Request-Id: gw_req_forged\r\nServer: evil\r\nAccess-Control-Allow-Origin: *\r\n\
                Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let (address, _) = listen(Some(says(text))).await;
    let (listing, _) = house.owner.list(&house.gateway, &format!("http://{address}/x"), "0").await;
    let answer = house.buyer.call(&house.gateway, &listing, BODY, &[]).await;
    answer.expect(200);
    for name in ["set-cookie", "strict-transport-security", "server", "access-control-allow-origin"] {
        assert_eq!(answer.header(name), "", "{name}");
    }
    assert!(
        answer.header("x-crochet-request-id").starts_with("gw_req_")
            && !answer.header("x-crochet-request-id").contains("forged")
    );
    let seller = Seller::start().await;
    let (listing, _) = house.owner.list(&house.gateway, &seller.url("/ok"), "0").await;
    let hostile = &[
        ("Cookie", "a=b"),
        ("X-Forwarded-For", "1.1.1.1"),
        ("Forwarded", "for=1.1.1.1"),
        ("X-Real-IP", "1.1.1.1"),
        ("Proxy-Authorization", "Basic x"),
        ("X-Custom", "1"),
        ("Via", "1.1 x"),
        ("TE", "trailers"),
        ("Accept-Language", "de"),
    ];
    house.buyer.call(&house.gateway, &listing, BODY, hostile).await.expect(200);
    let got = seller.received().remove(0);
    let mut names: Vec<&str> = got.headers.keys().map(String::as_str).collect();
    names.sort_unstable();
    let fixed = [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
        "x-crochet-attempt",
        "x-crochet-buyer-id",
        "x-crochet-charged-micros",
        "x-crochet-deadline-ms",
        "x-crochet-listing-id",
        "x-crochet-request-id",
        "x-crochet-signature",
        "x-crochet-timestamp",
    ];
    assert_eq!(names, fixed);
    assert_eq!(got.headers["content-length"], BODY.len().to_string());
    assert_eq!((got.headers["accept-encoding"].as_str(), got.body.as_slice()), ("identity", BODY.as_bytes()));
}
