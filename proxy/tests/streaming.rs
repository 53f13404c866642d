//! Answers that are too large to be held: kept on the way, sent once more, cut; and what a buyer that is slow or gone
//! changes about it.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{sync::Arc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{
    Agent, Gateway, Script, eventually,
    script::{begin, finish, send},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
};

const BODY: &str = r#"{"task":"run"}"#;
/// A gateway for which 4 KiB is too large to be held, and 64 KiB too large to be kept.
const SMALL: [(&str, &str); 2] = [("CROCHET__PROXY__HOLD_BYTES", "4KiB"), ("CROCHET__PROXY__KEEP_BYTES", "64KiB")];

struct Bench {
    gateway: Gateway,
    owner: Agent,
    buyer: Agent,
}

impl Bench {
    async fn with(knobs: &[(&str, &str)]) -> Self {
        let gateway = Gateway::with(knobs);
        let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
        Self { gateway, owner, buyer }
    }

    async fn list(&self, seller: &Script) -> String {
        self.owner.list(&self.gateway, &seller.url("/"), "1").await.0
    }

    /// A listing whose answers may be so large, and take so long.
    async fn list_large(&self, seller: &Script, max_response_bytes: u64, timeout_ms: u64) -> String {
        let listing = self.list(seller).await;
        let endpoint = json!({"timeout_ms": timeout_ms, "limits": {"max_response_bytes": max_response_bytes}});
        let path = format!("/api/v1/listings/{listing}/endpoint");
        self.owner.send(&self.gateway, Method::PUT, &path, endpoint).await.expect(200);
        listing
    }

    async fn buy(&self, listing: &str) -> String {
        self.buyer.buy(&self.gateway, listing, BODY, &[]).await
    }

    async fn redeem(&self, listing: &str, id: &str) -> support::agent::Answer {
        self.buyer.redeem(&self.gateway, listing, BODY, id).await
    }

    async fn state(&self, id: &str) -> String {
        let shown = self.buyer.get(&self.gateway, &format!("/api/v1/payments/{id}")).await;
        shown.expect(200).json["data"]["state"].as_str().expect("state").to_string()
    }

    /// How the attempts on a payment ended, the latest first.
    async fn attempts(&self) -> Vec<String> {
        let rows = self.buyer.requests(&self.gateway).await;
        rows.iter().map(|row| row["status"].as_str().expect("status").to_string()).collect()
    }

    /// Files of larger results.
    fn kept_files(&self) -> usize {
        let folders = std::fs::read_dir(self.gateway.data().join("results")).into_iter().flatten().flatten();
        folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten()).count()
    }
}

fn string(size: usize) -> Vec<u8> {
    format!("\"{}\"", "x".repeat(size - 2)).into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_large_to_keep_is_sent_once_more_uncharged_and_then_gone() {
    let bench = Bench::with(&SMALL).await;
    let seller = Script::chunked("application/json", string(100_000)).await;
    let listing = bench.list(&seller).await;
    let id = bench.buy(&listing).await;
    let first = bench.redeem(&listing, &id).await;
    assert_eq!(first.expect(200).json["data"]["seller_response"].as_str().map(str::len), Some(99_998));
    let books = (bench.buyer.ledger(&bench.gateway).await, bench.owner.ledger(&bench.gateway).await);
    let rows = bench.buyer.requests(&bench.gateway).await;

    let again = bench.redeem(&listing, &id).await;
    assert_eq!(again.expect(200).bytes, first.bytes);
    assert_eq!((again.header("x-crochet-resent"), again.header("x-crochet-replayed")), ("true", ""));
    let gone = bench.redeem(&listing, &id).await;
    gone.refused(410, "RESULT_NOT_KEPT");
    assert_eq!(gone.details()["bytes"], 100_000);
    assert_eq!(gone.details()["sha256"], hex::encode(Sha256::digest(string(100_000))));
    assert_eq!(
        (&gone.details()["payment_state"], &gone.details()["seller_endpoint_called"]),
        (&json!("completed"), &json!(true))
    );

    let received = seller.received();
    assert_eq!(received.len(), 2);
    let header = |n: usize, name: &str| received[n].headers[name].clone();
    assert_eq!(header(0, "x-crochet-request-id"), header(1, "x-crochet-request-id"));
    assert_eq!(
        (header(0, "x-crochet-charged-micros"), header(1, "x-crochet-charged-micros")),
        ("1000000".into(), "0".into())
    );
    assert_eq!((header(0, "x-crochet-attempt"), header(1, "x-crochet-attempt")), ("1".into(), "2".into()));
    assert_eq!(received[0].body, received[1].body);
    let after = (bench.buyer.ledger(&bench.gateway).await, bench.owner.ledger(&bench.gateway).await);
    assert_eq!(after, books, "nothing is charged or posted again");
    assert_eq!(bench.buyer.requests(&bench.gateway).await, rows, "and the outcome stays");
    assert_eq!(bench.kept_files(), 0, "what was begun to be kept is taken away");
}

#[tokio::test(flavor = "multi_thread")]
async fn f1_the_one_repetition_asked_for_by_many_at_once_is_one_seller_call() {
    let bench = Arc::new(Bench::with(&SMALL).await);
    let seller = Script::chunked("application/json", string(100_000)).await;
    let listing = bench.list(&seller).await;
    let id = bench.buy(&listing).await;
    bench.redeem(&listing, &id).await.expect(200);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (bench, listing, id) = (bench.clone(), listing.clone(), id.clone());
            tokio::spawn(async move { bench.redeem(&listing, &id).await.status })
        })
        .collect();
    let mut statuses = Vec::new();
    for task in tasks {
        statuses.push(task.await.expect("joined"));
    }
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (200, &[410; 15][..]));
    assert_eq!(seller.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_that_cannot_reach_the_seller_is_not_spent() {
    let bench = Bench::with(&SMALL).await;
    let seller = Script::chunked("application/json", string(100_000)).await;
    let listing = bench.list(&seller).await;
    let id = bench.buy(&listing).await;
    bench.redeem(&listing, &id).await.expect(200);
    let endpoint = format!("/api/v1/listings/{listing}/endpoint");
    let put = async |change: Value| {
        bench.owner.send(&bench.gateway, Method::PUT, &endpoint, change).await.expect(200);
    };
    put(json!({"status": "paused"})).await;
    let paused = bench.redeem(&listing, &id).await;
    paused.refused(503, "SELLER_PAUSED");
    assert_eq!(paused.details()["payment_state"], "completed");
    // A port that nobody listens on.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("address");
    put(json!({"status": "active", "private_endpoint_url": format!("http://{nobody}/")})).await;
    let unreachable = bench.redeem(&listing, &id).await;
    unreachable.refused(502, "SELLER_UNREACHABLE");
    assert_eq!(unreachable.json["error"]["recovery"]["next_action"], "retry_same_payment");
    put(json!({"private_endpoint_url": seller.url("/")})).await;
    bench.redeem(&listing, &id).await.expect(200);
    bench.redeem(&listing, &id).await.refused(410, "RESULT_NOT_KEPT");
    assert_eq!(seller.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn f7_a_kill_in_the_repetition_spends_it_and_changes_nothing_else() {
    let mut bench = Bench::with(&SMALL).await;
    let gate = Arc::new(Semaphore::new(1));
    let told = gate.clone();
    let seller = Script::start(move |_, mut stream| {
        let gate = told.clone();
        async move {
            begin(&mut stream, "application/json", None).await;
            send(&mut stream, &string(50_000)[..49_999]).await;
            gate.acquire().await.expect("open").forget();
            send(&mut stream, &[b'x'; 50_000]).await;
            send(&mut stream, b"\"").await;
            finish(&mut stream).await;
        }
    })
    .await;
    let listing = bench.list(&seller).await;
    let id = bench.buy(&listing).await;
    bench.redeem(&listing, &id).await.expect(200);
    let books = (bench.buyer.ledger(&bench.gateway).await, bench.owner.ledger(&bench.gateway).await);
    tokio::select! {
        _ = bench.redeem(&listing, &id) => panic!("the seller has not ended"),
        () = eventually("the seller is asked again", async || seller.calls() == 2) => {}
    }
    bench.gateway.kill_and_restart();
    gate.add_permits(8);
    bench.redeem(&listing, &id).await.refused(410, "RESULT_NOT_KEPT");
    assert_eq!(bench.state(&id).await, "completed");
    assert_eq!(seller.calls(), 2, "never a third time");
    assert_eq!((bench.buyer.ledger(&bench.gateway).await, bench.owner.ledger(&bench.gateway).await), books);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_a_kept_stream_releases_the_claim_and_serves_nothing_of_the_dead_attempt() {
    let mut bench = Bench::with(&[SMALL[0], ("CROCHET__PROXY__KEEP_BYTES", "1MiB")]).await;
    let gate = Arc::new(Semaphore::new(0));
    let told = gate.clone();
    let seller = Script::start(move |request, mut stream| {
        let gate = told.clone();
        async move {
            let letter = if request.headers["x-crochet-attempt"] == "1" { "a" } else { "b" };
            begin(&mut stream, "application/json", None).await;
            send(&mut stream, b"\"").await;
            send(&mut stream, letter.repeat(200_000).as_bytes()).await;
            gate.acquire().await.expect("open").forget();
            send(&mut stream, b"\"").await;
            finish(&mut stream).await;
        }
    })
    .await;
    let listing = bench.list(&seller).await;
    let id = bench.buy(&listing).await;
    tokio::select! {
        _ = bench.redeem(&listing, &id) => panic!("the seller has not ended"),
        () = eventually("some of it is kept", async || bench.kept_files() == 1) => {}
    }
    bench.gateway.kill_and_restart();
    assert_eq!(bench.state(&id).await, "settled", "the claim was released at the start");
    eventually("the file of the dead attempt is taken away", async || bench.kept_files() == 0).await;
    // The dead attempt's connection waits as well.
    gate.add_permits(2);
    let answer = bench.redeem(&listing, &id).await;
    let whole = answer.expect(200).json["data"]["seller_response"].as_str().expect("text").to_string();
    assert!(whole.len() == 200_000 && whole.bytes().all(|b| b == b'b'));
    assert_eq!(bench.attempts().await, ["completed", "interrupted"]);

    // After the tail: what was answered is answered again.
    bench.gateway.kill_and_restart();
    let again = bench.redeem(&listing, &id).await;
    assert_eq!(again.expect(200).bytes, answer.bytes);
    assert_eq!(again.header("x-crochet-replayed"), "true");
    assert_eq!((seller.calls(), bench.kept_files()), (2, 1));
    assert_eq!(bench.buyer.ledger(&bench.gateway).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_and_bytes_stream_as_they_would_be_held() {
    let streamed = Bench::with(&SMALL).await;
    let held = Bench::with(&[]).await;
    let text = "grüße \"and\" \\ \u{1} € 🦀\n".repeat(500);
    let bytes: Vec<u8> = (0..20_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let mut latin = vec![b'x'; 9_000];
    latin[100] = 0xe9;
    for (content_type, body) in [
        ("text/plain; charset=utf-8", text.clone().into_bytes()),
        ("application/octet-stream", bytes),
        ("text/plain", latin),
        ("text/event-stream", b"data: not asked for\n\n".repeat(500)),
    ] {
        let seller = Script::chunked(content_type, body).await;
        let mut answers = Vec::new();
        for bench in [&streamed, &held] {
            let listing = bench.list(&seller).await;
            let id = bench.buy(&listing).await;
            let answer = bench.redeem(&listing, &id).await;
            let data = &answer.expect(200).json["data"];
            answers.push((data["seller_response"].clone(), data["seller_response_encoding"].clone()));
            assert_eq!(bench.redeem(&listing, &id).await.expect(200).bytes, answer.bytes);
        }
        assert!(answers[0].0.is_string() && answers[0] == answers[1], "{content_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d8_a_stream_that_is_not_one_json_value_is_cut_and_not_billable() {
    let bench = Bench::with(&SMALL).await;
    let long = "x".repeat(6_000);
    for (n, broken) in [
        format!("[\"{long}\",\"\\ud800\"]").into_bytes(),
        format!("[\"{long}\"{}{}]", ",[".repeat(128), "]".repeat(128)).into_bytes(),
        format!("\"{long}\" \"{long}\"").into_bytes(),
        format!("[\"{long}\"").into_bytes(),
        [format!("[\"{long}").into_bytes(), b"\xff\"]".to_vec()].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let seller = Script::chunked("application/json", broken).await;
        let listing = bench.list(&seller).await;
        let id = bench.buy(&listing).await;
        let cut = bench.redeem(&listing, &id).await;
        assert!(cut.json.is_null(), "{n}: the answer has no proper end");
        eventually("it is released", async || bench.state(&id).await == "settled").await;
    }
    assert!(bench.owner.ledger(&bench.gateway).await.is_empty());
    assert!(bench.buyer.requests(&bench.gateway).await.iter().all(|row| {
        row["status"] == "released" && row["error_code"] == "SELLER_INVALID_RESPONSE" && row["billable"] == false
    }));
    for body in ["[\"\\ud800\"]", "{} {}", "[", &format!("{}{}", "[".repeat(129), "]".repeat(129))] {
        bench.buyer.call(&bench.gateway, "anything", body, &[]).await.refused(404, "NOT_FOUND");
        let listing = bench.list(&Script::chunked("application/json", b"1".to_vec()).await).await;
        bench.buyer.call(&bench.gateway, &listing, body, &[]).await.refused(400, "INVALID_JSON");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_d7_endless_and_dripping_answers_are_cut_and_not_billable() {
    let bench = Bench::with(&SMALL).await;
    let endless = Script::start(|_, mut stream| async move {
        begin(&mut stream, "application/json", None).await;
        send(&mut stream, b"\"").await;
        while send(&mut stream, &[b'x'; 4096]).await {}
    })
    .await;
    let dripping = Script::start(|_, mut stream| async move {
        begin(&mut stream, "application/json", None).await;
        send(&mut stream, b"\"").await;
        send(&mut stream, &[b'x'; 8192]).await;
        while send(&mut stream, b"x").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let announced = Script::sized(300_000).await;
    for (seller, code) in
        [(&endless, "SELLER_INVALID_RESPONSE"), (&dripping, "SELLER_TIMEOUT"), (&announced, "SELLER_INVALID_RESPONSE")]
    {
        let listing = bench.list_large(seller, 200_000, 1_000).await;
        let id = bench.buy(&listing).await;
        let answer = bench.redeem(&listing, &id).await;
        assert!(answer.json.is_null() || answer.code() == code);
        eventually("it is released", async || bench.state(&id).await == "settled").await;
        let rows = bench.buyer.requests(&bench.gateway).await;
        assert_eq!((&rows[0]["status"], &rows[0]["error_code"]), (&json!("released"), &json!(code)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_that_hangs_up_in_a_stream_fetches_the_whole_answer_afterwards() {
    let bench = Bench::with(&[SMALL[0], ("CROCHET__PROXY__KEEP_BYTES", "1MiB")]).await;
    let gate = Arc::new(Semaphore::new(0));
    let told = gate.clone();
    let seller = Script::start(move |_, mut stream| {
        let gate = told.clone();
        async move {
            begin(&mut stream, "application/json", None).await;
            send(&mut stream, &string(100_000)[..99_999]).await;
            gate.acquire().await.expect("open").forget();
            send(&mut stream, &[b'y'; 100_000]).await;
            send(&mut stream, b"\"").await;
            finish(&mut stream).await;
        }
    })
    .await;
    let listing = bench.list(&seller).await;
    let id = bench.buy(&listing).await;
    let mut answer =
        bench.buyer.open(&bench.gateway, &listing, BODY, &[("X-Crochet-Relay-Request-Id", id.as_str())]).await;
    assert!(answer.chunk().await.expect("a piece").is_some());
    drop(answer);
    gate.add_permits(1);
    eventually("the call is finished without it", async || bench.state(&id).await == "completed").await;
    let whole = bench.redeem(&listing, &id).await;
    assert_eq!(whole.expect(200).json["data"]["seller_response"].as_str().map(str::len), Some(199_998));
    assert_eq!((seller.calls(), whole.header("x-crochet-replayed")), (1, "true"));
}

/// A paid retry on a bare socket, so that the test decides when a byte is read.
async fn raw(bench: &Bench, listing: &str, id: &str) -> TcpStream {
    let address = bench.gateway.url.trim_start_matches("http://").to_string();
    let mut stream = TcpStream::connect(&address).await.expect("connected");
    let request = format!(
        "POST /api/v1/gateway/{listing} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nX-Crochet-Relay-Request-Id: {id}\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{BODY}",
        bench.buyer.key,
        BODY.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_a_buyer_that_reads_slowly_does_not_hold_up_the_seller_and_gets_all_of_a_kept_answer() {
    const SIZE: usize = 24 << 20;
    let bench = Bench::with(&[("CROCHET__PROXY__STREAM_HOLD_KEPT", "100ms")]).await;
    let seller = Script::sized(SIZE).await;
    let listing = bench.list_large(&seller, 64 << 20, 30_000).await;
    let id = bench.buy(&listing).await;
    let mut stream = raw(&bench, &listing, &id).await;
    // Not a byte is read until the call is completed: more than sockets hold.
    eventually("the call is completed", async || bench.state(&id).await == "completed").await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("read");
    let body: usize = chunks(&answer).iter().map(|chunk| chunk.iter().filter(|b| **b == b'x').count()).sum();
    assert!(answer.ends_with(b"0\r\n\r\n"), "it has its proper end");
    let replay = bench.redeem(&listing, &id).await;
    assert_eq!(replay.expect(200).json["data"]["seller_response"].as_str().map(str::len), Some(SIZE - 2));
    assert_eq!(body, replay.bytes.iter().filter(|b| **b == b'x').count());
    assert_eq!(chunks(&answer).concat(), replay.bytes, "what came late is the same answer");
}

/// The chunks of a chunked answer.
fn chunks(answer: &[u8]) -> Vec<&[u8]> {
    let end = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what).expect("an end");
    let mut rest = &answer[end(answer, b"\r\n\r\n") + 4..];
    let mut found = Vec::new();
    loop {
        let line = end(rest, b"\r\n");
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).expect("text"), 16).expect("a length");
        if length == 0 {
            return found;
        }
        found.push(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 4 + length..];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_a_buyer_that_reads_slowly_is_cut_off_an_answer_that_is_not_kept_and_may_ask_once_more() {
    const SIZE: usize = 24 << 20;
    let knobs = [("CROCHET__PROXY__STREAM_HOLD_MAX", "1s"), ("CROCHET__PROXY__KEEP_BYTES", "1MiB")];
    let bench = Bench::with(&knobs).await;
    let seller = Script::sized(SIZE).await;
    // Longer than the seller may take: the time that the buyer took is not the seller's.
    let listing = bench.list_large(&seller, 64 << 20, 900).await;
    let id = bench.buy(&listing).await;
    let mut stream = raw(&bench, &listing, &id).await;
    eventually("the call is completed", async || bench.state(&id).await == "completed").await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.ends_with(b"0\r\n\r\n") && answer.len() < SIZE, "it has no proper end");
    let again = bench.redeem(&listing, &id).await;
    assert_eq!(again.expect(200).json["data"]["seller_response"].as_str().map(str::len), Some(SIZE - 2));
    assert_eq!((bench.attempts().await.len(), seller.calls()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_results_stay_within_their_bound_and_then_no_more_calls_are_sold() {
    let bench =
        Bench::with(&[("CROCHET__STORAGE__RESULTS_MAX_BYTES", "1MiB"), ("CROCHET__PROXY__HOLD_BYTES", "400KiB")]).await;
    let large = Script::sized(600_000).await;
    let held = Script::sized(390_000).await;
    let (large, held) = (bench.list(&large).await, bench.list(&held).await);
    let call = async |listing: &str| {
        let id = bench.buy(listing).await;
        bench.redeem(listing, &id).await.expect(200);
        id
    };
    let first = call(&large).await;
    let second = call(&large).await;
    assert_eq!(bench.redeem(&large, &first).await.header("x-crochet-replayed"), "true", "there was room");
    assert_eq!(bench.redeem(&large, &second).await.header("x-crochet-resent"), "true", "there was none");
    bench.redeem(&large, &second).await.refused(410, "RESULT_NOT_KEPT");
    // Small ones are kept all the same, and count.
    let paid = bench.buy(&held).await;
    let standing = bench.buyer.call(&bench.gateway, &large, "[7]", &[]).await.payment_id();
    let mut kept = Vec::new();
    for n in 0..4 {
        let body = format!("[{n}]");
        let id = bench.buyer.buy(&bench.gateway, &held, &body, &[]).await;
        bench.buyer.redeem(&bench.gateway, &held, &body, &id).await.expect(200);
        kept.push((body, id));
    }
    let mut asked = 0;
    let mut ask_for_more = async || {
        asked += 1;
        bench.buyer.call(&bench.gateway, &held, &format!("{{\"n\":{asked}}}"), &[]).await
    };
    eventually("no more are sold", async || ask_for_more().await.status == 503).await;
    let refused = ask_for_more().await;
    refused.refused(503, "OVERLOADED");
    assert_eq!(refused.header("retry-after"), "60");
    for (body, id) in &kept {
        let again = bench.buyer.redeem(&bench.gateway, &held, body, id).await;
        assert_eq!(again.expect(200).header("x-crochet-replayed"), "true");
    }
    bench.redeem(&held, &paid).await.expect(200);
    let same = bench.buyer.call(&bench.gateway, &large, "[7]", &[]).await;
    assert_eq!(same.refused(402, "PAYMENT_REQUIRED").payment_id(), standing, "what was offered stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_too_little_disk_no_calls_are_sold() {
    let bench = Bench::with(&[("CROCHET__STORAGE__DISK_FREE_MIN_BYTES", "1024TiB")]).await;
    let seller = Script::chunked("application/json", b"1".to_vec()).await;
    let listing = bench.list(&seller).await;
    bench.buyer.call(&bench.gateway, &listing, BODY, &[]).await.refused(503, "OVERLOADED");
    let (free, _) = bench.owner.list(&bench.gateway, &seller.url("/"), "0").await;
    bench.buyer.call(&bench.gateway, &free, BODY, &[]).await.expect(200);
    bench.buyer.call(&bench.gateway, &free, BODY, &[("Idempotency-Key", "a")]).await.refused(503, "OVERLOADED");
}
