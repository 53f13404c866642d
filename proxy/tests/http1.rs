//! The HTTP/1 loop against raw sockets: what it takes, what it refuses, when it closes.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what is not as it should be ends it"
)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use actors::refusal::{Code, Refusal};
use bytes::Bytes;
use config::Config;
use proxy::{
    body::{Budget, RequestBody},
    http1::{self, Handler, Rules, head::Head},
    places::Places,
    reply::{Reply, ReplyHead, ResponseSink},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};

const LIMIT: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers by path.
#[derive(Default)]
struct Paths {
    working: Notify,
    go_on: Notify,
}

impl Handler for Paths {
    async fn handle<B: RequestBody, S: ResponseSink>(&self, head: &Head, body: &mut B, out: &mut S, _: SocketAddr) {
        let refuse = |refusal: Refusal| Reply::refusal(&refusal, "");
        let limit = if head.path() == "/small" { 10 } else { LIMIT };
        let _ = match head.path() {
            "/ok" => out.whole(Reply::json(200, "ok")).await,
            "/refuse" => out.whole(refuse(Code::Unauthenticated.into())).await,
            "/stream" => {
                let _ = out.begin(ReplyHead::json(200)).await;
                for piece in ["one", "", "two"] {
                    let _ = out.chunk(Bytes::from_static(piece.as_bytes())).await;
                }
                out.end().await
            }
            "/cut" => {
                let _ = out.begin(ReplyHead::json(200)).await;
                let _ = out.chunk(Bytes::from_static(b"one")).await;
                out.cut();
                Ok(())
            }
            "/flood" => {
                let _ = out.begin(ReplyHead::json(200)).await;
                let piece = Bytes::from(vec![b'x'; 64 << 10]);
                while out.chunk(piece.clone()).await.is_ok() {}
                self.working.notify_one();
                Ok(())
            }
            "/silent" => Ok(()),
            "/slow" => {
                self.working.notify_one();
                self.go_on.notified().await;
                out.whole(Reply::json(200, "slow")).await
            }
            _ => match body.read(limit).await {
                Ok(held) => out.whole(Reply::json(200, held.bytes)).await,
                Err(refusal) => out.whole(refuse(refusal)).await,
            },
        };
    }
}

struct Served {
    address: SocketAddr,
    paths: Arc<Paths>,
    stop: watch::Sender<bool>,
    places: Arc<Places>,
    _accepting: JoinHandle<()>,
}

async fn serve() -> Served {
    serve_by(|_| {}).await
}

async fn serve_by(change: impl FnOnce(&mut Rules)) -> Served {
    let config = Config::from_parts(None, []).expect("defaults");
    let mut rules = Rules::new(&config, Budget::new(64 << 20), String::new());
    change(&mut rules);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = watch::channel(false);
    let (paths, places) = (Arc::new(Paths::default()), Places::new(100, 100));
    let (handler, all) = (paths.clone(), places.clone());
    let _accepting = tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let (handler, rules, stopped) = (handler.clone(), rules.clone(), stopped.clone());
            let Some(place) = all.take(peer.ip()) else { continue };
            tokio::spawn(async move { drop(http1::serve(stream, &*handler, &rules, &place, peer, stopped).await) });
        }
    });
    Served { address, paths, stop, places, _accepting }
}

/// A client that sees every byte.
struct Raw {
    stream: TcpStream,
    seen: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Raw {
    async fn connect(served: &Served) -> Self {
        Self { stream: TcpStream::connect(served.address).await.expect("connected"), seen: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have closed already, having seen enough.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// More bytes; `false` at the end.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.seen)).await.expect("something in time");
        matches!(read, Ok(1..))
    }

    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.seen.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.seen.drain(..end + 4).collect();
                return Some(String::from_utf8(head).expect("text"));
            }
            if !self.more().await {
                assert!(self.seen.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.seen));
                return None;
            }
        }
    }

    /// An answer with a length; `None` when the connection is closed instead.
    async fn answer(&mut self) -> Option<Answer> {
        let head = self.head().await?;
        let status = head[9..12].parse().expect("a status");
        let length =
            head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().expect("n"));
        while self.seen.len() < length && self.more().await {}
        assert!(self.seen.len() >= length, "the body is short");
        Some(Answer { status, head, body: self.seen.drain(..length).collect() })
    }

    async fn is_closed(&mut self) -> bool {
        while self.more().await {}
        self.seen.is_empty()
    }

    /// The status of the answer, and whether another request is answered on the same connection.
    async fn status_and_kept(&mut self, request: impl AsRef<[u8]>) -> (u16, bool) {
        self.send(request).await;
        let answer = self.answer().await.expect("an answer");
        self.send(ok()).await;
        let kept = match self.answer().await {
            Some(next) => {
                assert_eq!(next.body, b"ok");
                true
            }
            None => false,
        };
        assert_eq!(answer.head.contains("\r\nConnection: close\r\n"), !kept, "{}", answer.head);
        (answer.status, kept)
    }
}

fn ok() -> &'static str {
    "GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n"
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

async fn status_of(served: &Served, request: impl AsRef<[u8]>) -> (u16, bool) {
    Raw::connect(served).await.status_and_kept(request).await
}

#[tokio::test]
async fn c1_c2_what_has_two_meanings_is_refused_and_closes() {
    let served = serve().await;
    let echo = |line: &str, fields: &str| format!("{line}\r\nHost: localhost\r\n{fields}\r\n");
    let long = |bytes| post(&format!("X-Long: {}\r\n", "a".repeat(bytes)), "");
    let many = post(&"X: y\r\n".repeat(200), "");
    for (name, request, status) in [
        ("no Host", "GET /ok HTTP/1.1\r\n\r\n".into(), 400),
        ("two Hosts", echo("GET /ok HTTP/1.1", "Host: localhost\r\n"), 400),
        ("bare LF, all", "GET /ok HTTP/1.1\nHost: localhost\n\n".into(), 400),
        ("bare LF, one", "GET /ok HTTP/1.1\r\nHost: localhost\n\r\n".into(), 400),
        ("CL + TE", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("CL twice, equal", post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), 400),
        ("CL a list", post("Content-Length: 2, 2\r\n", "{}"), 400),
        ("CL twice, different", post("Content-Length: 2\r\nContent-Length: 3\r\n", "{}"), 400),
        ("CL with a sign", post("Content-Length: +2\r\n", "{}"), 400),
        ("CL with a zero", post("Content-Length: 02\r\n", "{}"), 400),
        ("TE gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 400),
        ("TE chunked, chunked", post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), 400),
        ("TE xchunked", post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 400),
        (
            "HTTP/1.0 + TE",
            "POST /echo HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            400,
        ),
        ("space in the target", echo("GET /a b HTTP/1.1", ""), 400),
        ("NUL in a value", echo("GET /ok HTTP/1.1", "X: a\0b\r\n"), 400),
        ("CR in a value", echo("GET /ok HTTP/1.1", "X: a\rb\r\n"), 400),
        ("obs-fold", echo("GET /ok HTTP/1.1", "X: a\r\n b\r\n"), 400),
        ("space before the colon", echo("GET /ok HTTP/1.1", "X : a\r\n"), 400),
        ("empty name", echo("GET /ok HTTP/1.1", ": a\r\n"), 400),
        ("0x80 in the target", echo("GET /\u{80} HTTP/1.1", ""), 400),
        ("absolute form, other host", echo("GET http://other/ok HTTP/1.1", ""), 400),
        ("another host", "GET /ok HTTP/1.1\r\nHost: other.example\r\n\r\n".into(), 421),
        ("a header of 900 kB", long(900_000), 431),
        ("a header of 60 kB", long(60_000), 431),
        ("200 headers", many, 431),
        ("an odd expectation", post("Expect: 200-ok\r\nContent-Length: 2\r\n", ""), 417),
        ("TRACE", echo("TRACE /ok HTTP/1.1", ""), 405),
        ("an underscore", echo("GET /ok HTTP/1.1", "X_Crochet_A: 1\r\n"), 400),
        ("chunk 0x7", post("Transfer-Encoding: chunked\r\n", "0x7\r\nabcdefg\r\n0\r\n\r\n"), 400),
        ("chunk with bare LF", post("Transfer-Encoding: chunked\r\n", "2\n{}\r\n0\r\n\r\n"), 400),
        ("chunk with a wrong end", post("Transfer-Encoding: chunked\r\n", "2\r\n{}x\r\n0\r\n\r\n"), 400),
        ("chunk that overflows", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}"), 400),
        (
            "chunk size of 17 digits",
            post("Transfer-Encoding: chunked\r\n", "00000000000000002\r\n{}\r\n0\r\n\r\n"),
            400,
        ),
    ] {
        assert_eq!(status_of(&served, request).await, (status, false), "{name}");
    }
}

#[tokio::test]
async fn what_has_one_meaning_is_answered_and_kept() {
    let served = serve().await;
    let big = "x".repeat(LIMIT as usize);
    for (name, request, status) in [
        ("a plain one", ok().to_string(), 200),
        ("absolute form, same host", "GET http://localhost/ok HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 200),
        ("a body", post("Content-Length: 2\r\n", "{}"), 200),
        ("chunks", post("Transfer-Encoding: chunked\r\n", "1\r\n{\r\n1;x=y\r\n}\r\n0\r\nX: y\r\n\r\n"), 200),
        ("an empty body", post("Content-Length: 0\r\n", ""), 200),
        ("1 MiB", post(&format!("Content-Length: {LIMIT}\r\n"), &big), 200),
        ("1 MiB + 1", post(&format!("Content-Length: {}\r\n", LIMIT + 1), &format!("{big}x")), 413),
        ("1 MiB + 1 in chunks", post("Transfer-Encoding: chunked\r\n", &format!("100001\r\n{big}x\r\n0\r\n\r\n")), 413),
        ("no answer of the handler's", ok().replace("/ok", "/silent"), 500),
    ] {
        let kept = status != 500;
        assert_eq!(status_of(&served, request).await, (status, kept), "{name}");
    }
    let mut raw = Raw::connect(&served).await;
    raw.send(post(&format!("Content-Length: {LIMIT}\r\n"), &big)).await;
    assert_eq!(raw.answer().await.expect("an answer").body, big.as_bytes());
}

#[tokio::test]
async fn a_body_above_every_limit_is_refused_unread() {
    let served = serve().await;
    let huge = post("Content-Length: 99999999999\r\n", "{");
    assert_eq!(status_of(&served, huge).await, (413, false));
}

#[tokio::test]
async fn a_refusal_known_from_the_head_reads_the_body_and_keeps_the_connection() {
    let served = serve().await;
    let refused = |fields: &str, body: &str| post(fields, body).replace("/echo", "/refuse");
    assert_eq!(status_of(&served, refused("Content-Length: 2\r\n", "{}")).await, (401, true));
    let big = "x".repeat(300_000);
    assert_eq!(status_of(&served, refused("Content-Length: 300000\r\n", &big)).await, (401, true));
    let chunks = format!("493e0\r\n{big}\r\n0\r\n\r\n");
    assert_eq!(status_of(&served, refused("Transfer-Encoding: chunked\r\n", &chunks)).await, (401, true));
    let small = post("Content-Length: 20\r\n", "12345678901234567890").replace("/echo", "/small");
    assert_eq!(status_of(&served, small).await, (413, true));
}

#[tokio::test]
async fn b7_a_client_that_waits_for_our_word_gets_it_or_the_answer() {
    let served = serve().await;
    let mut raw = Raw::connect(&served).await;
    raw.send(post("Expect: 100-continue\r\nContent-Length: 2\r\n", "")).await;
    assert_eq!(raw.head().await.as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    raw.send("{}").await;
    assert_eq!(raw.answer().await.expect("an answer").body, b"{}");
    // The body is here already: no word is needed.
    raw.send(post("Expect: 100-continue\r\nContent-Length: 2\r\n", "{}")).await;
    assert_eq!(raw.answer().await.expect("an answer").status, 200);
    // Refused from the head: the body is never asked for, and where it would end is unknown.
    raw.send(post("Expect: 100-continue\r\nContent-Length: 2\r\n", "").replace("/echo", "/refuse")).await;
    assert_eq!(raw.answer().await.expect("an answer").status, 401);
    assert!(raw.is_closed().await);
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let served = serve().await;
    let mut raw = Raw::connect(&served).await;
    let bodies = ["{\"a\":1}", "[]", "\"three\""];
    let all: String = bodies.iter().map(|body| post(&format!("Content-Length: {}\r\n", body.len()), body)).collect();
    raw.send(format!("{all}{}", ok())).await;
    for body in bodies.iter().chain(&["ok"]) {
        assert_eq!(raw.answer().await.expect("an answer").body, body.as_bytes());
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let served = serve().await;
    let mut raw = Raw::connect(&served).await;
    raw.stream.set_nodelay(true).expect("set");
    for byte in post("Transfer-Encoding: chunked\r\n", "3\r\n[1]\r\n0\r\n\r\n").bytes() {
        raw.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.answer().await.expect("an answer").body, b"[1]");
}

#[tokio::test]
async fn answers_carry_an_id_no_server_and_the_clients_own_where_it_is_good() {
    let served = serve().await;
    let mut raw = Raw::connect(&served).await;
    raw.send("GET /ok HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine-1\r\n\r\n").await;
    let answer = raw.answer().await.expect("an answer");
    assert!(
        answer.head.contains("\r\nX-Request-Id: mine-1\r\n") && !answer.head.contains("Server:"),
        "{}",
        answer.head
    );
    raw.send("GET /ok HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a b\r\n\r\n").await;
    assert!(raw.answer().await.expect("an answer").head.contains("\r\nX-Request-Id: req_"));
    raw.send("GET /ok HTTP/1.1\n\n").await;
    assert!(raw.answer().await.expect("an answer").head.contains("\r\nX-Request-Id: req_"));
}

#[tokio::test]
async fn head_requests_have_no_body_and_http_1_0_is_closed() {
    let served = serve().await;
    let mut raw = Raw::connect(&served).await;
    raw.send(ok().replace("GET", "HEAD")).await;
    let head = raw.head().await.expect("a head");
    assert!(head.contains("Content-Length: 2\r\n"), "{head}");
    raw.send(ok()).await;
    assert_eq!(raw.answer().await.expect("kept").body, b"ok");
    assert_eq!(status_of(&served, ok().replace("HTTP/1.1", "HTTP/1.0")).await, (200, false));
}

#[tokio::test]
async fn streams_end_with_their_last_chunk_or_visibly_without() {
    let served = serve().await;
    let mut raw = Raw::connect(&served).await;
    raw.send(ok().replace("/ok", "/stream")).await;
    assert!(raw.head().await.expect("a head").contains("Transfer-Encoding: chunked\r\n"));
    let wanted = b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";
    while raw.seen.len() < wanted.len() && raw.more().await {}
    assert_eq!(raw.seen.drain(..).collect::<Vec<_>>(), wanted);
    raw.send(ok().replace("/ok", "/cut")).await;
    raw.head().await.expect("kept");
    while raw.more().await {}
    assert_eq!(raw.seen, b"3\r\none\r\n");
    let mut old = Raw::connect(&served).await;
    old.send(ok().replace("/ok", "/stream").replace("HTTP/1.1", "HTTP/1.0")).await;
    assert!(!old.head().await.expect("a head").contains("Transfer-Encoding"));
    while old.more().await {}
    assert_eq!(old.seen, b"onetwo");
}

#[tokio::test]
async fn d1_a_head_has_a_deadline_and_an_idle_connection_too() {
    let short = Duration::from_millis(60);
    let served = serve_by(|rules| (rules.head_timeout, rules.idle_timeout) = (short, short)).await;
    let mut dribbling = Raw::connect(&served).await;
    dribbling.send("GET /ok HTTP/1.1\r\nHost:").await;
    assert_eq!(dribbling.answer().await.expect("an answer").status, 408);
    assert!(dribbling.is_closed().await);
    let mut mute = Raw::connect(&served).await;
    assert!(mute.is_closed().await);
    let mut idle = Raw::connect(&served).await;
    idle.send(ok()).await;
    assert_eq!(idle.answer().await.expect("an answer").status, 200);
    assert!(idle.is_closed().await);
}

#[tokio::test]
async fn d1_bytes_that_keep_coming_do_not_move_the_heads_deadline() {
    let served = serve_by(|rules| rules.head_timeout = Duration::from_millis(150)).await;
    let mut raw = Raw::connect(&served).await;
    raw.send("GET /ok HTTP/1.1\r\nHost: localhost\r\n").await;
    let began = tokio::time::Instant::now();
    let answer = loop {
        tokio::select! {
            answer = raw.head() => break answer.expect("an answer"),
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        raw.send("X: y\r\n").await;
        assert!(began.elapsed() < PATIENCE);
    };
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn d1_a_heads_deadline_begins_with_its_first_bytes() {
    const LIMIT: Duration = Duration::from_secs(1);
    let served = serve_by(|rules| rules.head_timeout = LIMIT).await;
    // A busy machine may be late a few times; a deadline that begins later is late each time.
    for _ in 0..5 {
        let mut raw = Raw::connect(&served).await;
        let began = tokio::time::Instant::now();
        raw.send("GET /ok HTTP/1.1\r\nHost: localhost\r\n").await;
        tokio::time::sleep(LIMIT * 9 / 10).await;
        raw.send("X: y\r\n").await;
        assert_eq!(raw.answer().await.expect("an answer").status, 408);
        if began.elapsed() < LIMIT * 16 / 10 {
            return;
        }
    }
    panic!("bytes that came later moved the deadline");
}

#[tokio::test]
async fn d2_a_body_has_a_rate_and_a_deadline() {
    let served = serve_by(|rules| rules.pace.grace = Duration::from_millis(60)).await;
    assert_eq!(status_of(&served, post("Content-Length: 10\r\n", "{")).await, (408, false));
    assert_eq!(status_of(&served, post("Transfer-Encoding: chunked\r\n", "a\r\n{")).await, (408, false));
    let refused = post("Content-Length: 10\r\n", "{").replace("/echo", "/refuse");
    assert_eq!(status_of(&served, refused).await, (401, false), "the answer stands, the connection does not");
}

#[tokio::test]
async fn d3_a_client_that_takes_nothing_is_cut_off() {
    let served = serve_by(|rules| rules.write_timeout = Duration::from_millis(60)).await;
    let mut raw = Raw::connect(&served).await;
    raw.send(ok().replace("/ok", "/flood")).await;
    timeout(PATIENCE, served.paths.working.notified()).await.expect("it gave up");
}

#[tokio::test]
async fn d4_bodies_share_one_budget() {
    let served = serve_by(|rules| rules.budget = Budget::new(100)).await;
    let body = "x".repeat(101);
    assert_eq!(status_of(&served, post("Content-Length: 101\r\n", &body)).await, (503, true));
    assert_eq!(status_of(&served, post("Content-Length: 100\r\n", &body[1..])).await, (200, true));
    let chunks = format!("65\r\n{body}\r\n0\r\n\r\n");
    assert_eq!(status_of(&served, post("Transfer-Encoding: chunked\r\n", &chunks)).await, (503, true));
}

#[tokio::test]
async fn the_drain_closes_idle_connections_at_once_and_busy_ones_after_their_answer() {
    let served = serve().await;
    let (mut idle, mut busy) = (Raw::connect(&served).await, Raw::connect(&served).await);
    idle.send(ok()).await;
    assert_eq!(idle.answer().await.expect("an answer").status, 200);
    busy.send(ok().replace("/ok", "/slow")).await;
    timeout(PATIENCE, served.paths.working.notified()).await.expect("under way");
    served.stop.send(true).expect("watched");
    assert!(idle.is_closed().await);
    assert_eq!(served.places.taken(), 1);
    served.paths.go_on.notify_one();
    let answer = busy.answer().await.expect("an answer");
    assert_eq!(answer.body, b"slow");
    drop(busy);
    timeout(PATIENCE, served.places.wait_until_empty()).await.expect("all ended");
}

#[tokio::test]
async fn a_request_that_was_on_its_way_when_the_drain_began_is_answered_and_told_to_close() {
    let served = serve().await;
    let mut raw = Raw::connect(&served).await;
    raw.send("GET /ok HTTP/1.1\r\nHost: local").await;
    // The connection has seen it when it answers another one's request after it.
    assert_eq!(status_of(&served, ok()).await.0, 200);
    served.stop.send(true).expect("watched");
    raw.send("host\r\n\r\n").await;
    let answer = raw.answer().await.expect("an answer");
    assert!(answer.status == 200 && answer.head.contains("Connection: close"), "{}", answer.head);
    assert!(raw.is_closed().await);
}
