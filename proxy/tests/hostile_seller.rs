//! Sellers that do their worst, behind paid calls to a real process: each ends in time with the code of the billable
//! table, is called once, takes no money that it did not earn, and leaves its private URL nowhere.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    io::Write as _,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use support::{Agent, Gateway, Seller, agent::Answer, eventually, tls::Authority};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

const BODY: &str = r#"{"task":"run"}"#;
const TIMEOUT_MS: u64 = 700;
/// The promise is 250 ms; a machine that does other things beside this is given more.
const SLACK: Duration = Duration::from_secs(8);
/// In the path of every private URL.
const CANARY: &str = "canary-8d1f4c";

type Playing = Pin<Box<dyn Future<Output = ()> + Send>>;
type Play = Box<dyn Fn(TcpStream) -> Playing + Send + Sync>;

/// How a paid call must end.
#[derive(Clone, Debug)]
enum Ending {
    /// Refused: status, code, `seller_endpoint_called`, `seller_status_code`. The payment stays usable.
    Refused(u16, &'static str, Value, Value),
    /// One of two codes, where it is a race whether a byte was taken.
    Either(&'static str, &'static str),
    /// It had begun, and was cut. The payment stays usable.
    Cut,
    /// The seller earned its money.
    Handled(Value),
}

struct Case {
    name: &'static str,
    scheme: &'static str,
    /// `None`: nobody listens there.
    play: Option<Play>,
    limits: Value,
    ending: Ending,
}

fn plays<F, W>(play: F) -> Play
where
    F: Fn(TcpStream) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    Box::new(move |stream| Box::pin(play(stream)))
}

/// Reads the request, says this, and closes.
fn says(text: impl Into<Vec<u8>>) -> Play {
    let text = Arc::new(text.into());
    plays(move |mut stream| {
        let text = text.clone();
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(&text).await;
            let _ = stream.shutdown().await;
            let _ = stream.read(&mut [0; 64]).await;
        }
    })
}

/// Reads the request, says this, and then one byte after the other.
fn drips(text: &'static str, byte: &'static [u8]) -> Play {
    plays(move |mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(text.as_bytes()).await;
        while stream.write_all(byte).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    })
}

/// Says this, and then the same for ever, as fast as it is taken.
fn pours(text: &'static str, more: &'static str) -> Play {
    plays(move |mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(text.as_bytes()).await;
        let more = more.repeat(4096);
        while stream.write_all(more.as_bytes()).await.is_ok() {}
    })
}

fn over_tls(acceptor: TlsAcceptor, answers: bool) -> Play {
    plays(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            read_request(&mut stream).await;
            if answers {
                let _ = stream.write_all(JSON_OK.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    })
}

const JSON_OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

async fn read_request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let mut seen = Vec::new();
    while !seen.ends_with(BODY.as_bytes()) {
        if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
            return;
        }
    }
}

fn json_answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

fn packed_answer(body: &[u8]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: ";
    let mut text = format!("{head}{}\r\n\r\n", body.len()).into_bytes();
    text.extend_from_slice(body);
    text
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).expect("packed");
    encoder.finish().expect("packed")
}

/// Every way to be a bad seller, and a few odd but good ones beside.
fn cases(authority: &Authority) -> Vec<Case> {
    let broken = |status: Value| Ending::Refused(502, "SELLER_INVALID_RESPONSE", json!(true), status);
    let late = |status: Value| Ending::Refused(504, "SELLER_TIMEOUT", json!(true), status);
    let gone = || Ending::Refused(502, "SELLER_ERROR", Value::Null, Value::Null);
    let unreachable = || Ending::Refused(502, "SELLER_UNREACHABLE", json!(false), Value::Null);
    let none = || broken(Value::Null);
    let after_200 = || broken(json!(200));
    let mut cases = Vec::new();
    let mut case = |name, play, ending| {
        cases.push(Case { name, scheme: "http", play: Some(play), limits: json!({}), ending });
    };
    // Time.
    case(
        "never answers",
        plays(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.read(&mut [0; 64]).await;
        }),
        late(Value::Null),
    );
    case("drips its head", drips("HTTP/1.1 200 OK\r\nX-Slow: ", b"a"), late(Value::Null));
    case("drips its body", drips("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "), late(json!(200)));
    case(
        "drips chunks",
        drips("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        late(json!(200)),
    );
    case(
        "reads nothing and says nothing",
        plays(|stream| async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(stream);
        }),
        late(Value::Null),
    );
    // Size.
    case("has no end", pours("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\"", "xxxxxxxx"), Ending::Cut);
    case(
        "has no end, in chunks of nothing",
        pours(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "1;x=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n \r\n",
        ),
        after_200(),
    );
    case(
        "says that it is larger than allowed",
        says("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n{}"),
        after_200(),
    );
    case(
        "has a header of 1 MiB",
        says(format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\n{{}}", "a".repeat(1 << 20))),
        none(),
    );
    case(
        "has 500 headers",
        says(format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\n{{}}", "X: a\r\n".repeat(500))),
        none(),
    );
    case("is a gzip bomb", says(packed_answer(&gzip(&vec![b' '; 32 << 20]))), after_200());
    // Framing.
    case("is shorter than it said", says("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}"), after_200());
    case("is cut in its chunks", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\""), after_200());
    case(
        "has length and chunks",
        says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        none(),
    );
    case("has two lengths", says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "), none());
    case(
        "has a chunk that overflows",
        says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n"),
        after_200(),
    );
    case(
        "has a chunk size with a sign",
        says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n"),
        after_200(),
    );
    case("has folded headers", says("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}"), none());
    case("ends lines as it likes", says("HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), none());
    case("speaks HTTP/0.9", says("<html>hello</html>"), none());
    case("speaks something else", says("SSH-2.0-OpenSSH_9.9\r\n"), none());
    case("has status 999", says("HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"), none());
    case("has status 199 for ever", says("HTTP/1.1 199 Odd\r\n\r\n".repeat(9)), none());
    case(
        "switches protocols unasked",
        says("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
        none(),
    );
    case("floods with 1xx", pours("", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), none());
    // Content.
    case("says two JSON values", says(json_answer("{} {}")), after_200());
    case("is 10 000 arrays deep", says(json_answer(&"[".repeat(10_000))), after_200());
    case("has half a surrogate pair", says(json_answer("\"\\ud800\"")), after_200());
    case("is not JSON though it says so", says(json_answer("<html>")), after_200());
    case("is broken gzip", says(packed_answer(&gzip(b"{}")[..12])), after_200());
    case("is gzip of something else", says(packed_answer(b"{\"a\":1}")), after_200());
    case(
        "redirects to the inside",
        says("HTTP/1.1 307 Go\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"),
        Ending::Refused(502, "SELLER_REDIRECTED", json!(true), json!(307)),
    );
    // Connections.
    case("closes when it has read", says(""), gone());
    case("breaks off in its head", says("HTTP/1.1 200 OK\r\nContent-Le"), gone());
    case(
        "resets before its head",
        plays(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.set_zero_linger();
        }),
        gone(),
    );
    case(
        "resets in its body",
        plays(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{").await;
            // The head must have been taken before it is swept away.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = stream.set_zero_linger();
        }),
        after_200(),
    );
    case(
        "accepts and closes",
        plays(|stream| async move { drop(stream) }),
        Ending::Either("SELLER_ERROR", "SELLER_UNREACHABLE"),
    );
    // Odd, and good.
    case("goes on behind its end", says(format!("{JSON_OK}HTTP/1.1 200 OK\r\n")), Ending::Handled(json!({})));
    case("is compressed all the same", says(packed_answer(&gzip(b"{\"a\":1}"))), Ending::Handled(json!({"a": 1})));
    case(
        "hints eight times",
        says(format!("{}{JSON_OK}", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(8))),
        Ending::Handled(json!({})),
    );
    let small = json!({ "max_response_bytes": 65_536 });
    let endless = pours("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\"", "xxxxxxxx");
    cases.push(Case {
        name: "has no end, and little was allowed",
        scheme: "http",
        play: Some(endless),
        limits: small,
        ending: after_200(),
    });
    cases.push(Case { name: "is not there", scheme: "http", play: None, limits: json!({}), ending: unreachable() });
    let names = &["127.0.0.1"];
    let mut tls = |name, play, ending| {
        cases.push(Case { name, scheme: "https", play: Some(play), limits: json!({}), ending });
    };
    tls(
        "has the certificate of another name",
        over_tls(authority.acceptor(&["other.example.org"]), true),
        unreachable(),
    );
    tls("has an expired certificate", over_tls(authority.expired(names), true), unreachable());
    tls("has signed its certificate itself", over_tls(support::tls::self_signed(names), true), unreachable());
    tls("has a certificate of nobody's", over_tls(Authority::new().acceptor(names), true), unreachable());
    tls(
        "speaks garbage for TLS",
        plays(|mut stream| async move {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read(&mut [0; 64]).await;
        }),
        unreachable(),
    );
    tls(
        "never ends its handshake",
        plays(|stream| async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(stream);
        }),
        unreachable(),
    );
    tls("closes behind a good handshake", over_tls(authority.acceptor(names), false), gone());
    tls("is well over TLS", over_tls(authority.acceptor(names), true), Ending::Handled(json!({})));
    cases
}

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
