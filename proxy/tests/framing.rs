//! Where a request ends: asked of us directly, of us behind nginx and behind HAProxy (each as lenient as it can be told
//! to be), and of hyper. Each case is followed by another request on the same connection. Nobody may take a part of one
//! request for another one, and what is handed on must be what the one in front believed it had handed on.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test: what is not as it should be ends it"
)]

#[path = "framing/cases.rs"]
mod cases;
#[path = "framing/fronts.rs"]
mod fronts;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use cases::{Case, Told};
use config::Config;
use hyper::body::{Body as _, Incoming};
use proxy::{
    body::{Budget, RequestBody},
    http1::{self, Handler, Rules, head::Head},
    places::Places,
    reply::{Reply, ResponseSink},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

const LIMIT: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a client stays for an answer that may not come.
const WHILE: Duration = Duration::from_millis(200);

/// One request as it was handed on: path and body.
type Seen = (String, Vec<u8>);

/// Keeps every request that reaches it, and says in its answer which one it was.
#[derive(Clone, Default)]
struct Backing(Arc<Mutex<Vec<Seen>>>);

impl Backing {
    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.lock().expect("not poisoned"))
    }

    fn keep(&self, path: &str, body: Vec<u8>) {
        self.0.lock().expect("not poisoned").push((path.to_string(), body));
    }
}

impl Handler for Backing {
    async fn handle<B: RequestBody, S: ResponseSink>(&self, head: &Head, body: &mut B, out: &mut S, _: SocketAddr) {
        let reply = match body.read(LIMIT).await {
            Ok(held) => {
                self.keep(head.path(), held.bytes.to_vec());
                Reply::json(200, "{}").header("X-Seen", head.path().to_string())
            }
            Err(refusal) => Reply::refusal(&refusal, ""),
        };
        let _ = out.whole(reply).await;
    }
}

/// Our own loop on a free port; the backing keeps what came through it.
async fn serve(backing: Backing) -> SocketAddr {
    let config = Config::from_parts(None, []).expect("defaults");
    let rules = Rules::new(&config, Budget::new(64 << 20), String::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let places = Places::new(1000, 1000);
        let (_stop, stopped) = watch::channel(false);
        while let Ok((stream, peer)) = listener.accept().await {
            let Some(place) = places.take(peer.ip()) else { continue };
            let (backing, rules, stopped) = (backing.clone(), rules.clone(), stopped.clone());
            tokio::spawn(async move { http1::serve(stream, &backing, &rules, &place, peer, stopped).await });
        }
    });
    address
}

/// Sends bytes and nothing more, and hears all that is answered. A client that is heard to have gone may lose what was
/// still to be answered, so it stays until there are as many answers as `enough`, or nothing comes for a while.
async fn ask(address: SocketAddr, bytes: &[u8], enough: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    // The other side may have closed already, having seen enough.
    let _ = stream.write_all(bytes).await;
    let mut heard = Vec::new();
    while answers(&heard).0.len() < enough {
        match timeout(WHILE, stream.read_buf(&mut heard)).await {
            Ok(Ok(1..)) => {}
            Ok(_) | Err(_) => break,
        }
    }
    let _ = stream.shutdown().await;
    let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("an end in time");
    heard
}

/// What the answers say: every status, and the paths of the requests that reached the backing.
fn answers(heard: &[u8]) -> (Vec<u16>, Vec<String>) {
    let text = String::from_utf8_lossy(heard);
    let (mut statuses, mut paths) = (Vec::new(), Vec::new());
    for line in text.split('\n') {
        // The body of one answer ends without a line end; the next answer follows at once.
        let status = line.find("HTTP/1.").and_then(|at| line.get(at + 9..at + 12)?.parse::<u16>().ok());
        statuses.extend(status.filter(|status| *status >= 200));
        if let Some((_, path)) = line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("x-seen")) {
            paths.push(path.trim().to_string());
        }
    }
    (statuses, paths)
}

fn paths(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|(path, _)| path.clone()).collect()
}

/// What hyper's HTTP/1 server hands on of the same bytes.
async fn oracle(bytes: &[u8]) -> Vec<Seen> {
    let backing = Backing::default();
    let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
        let backing = backing.clone();
        async move {
            let path = request.uri().path().to_string();
            let (mut incoming, mut body) = (request.into_body(), Vec::new());
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
                match frame.map(hyper::body::Frame::into_data) {
                    Ok(Ok(data)) => body.extend_from_slice(&data),
                    Ok(Err(_trailers)) => {}
                    Err(_) => return Ok::<_, Infallible>(hyper::Response::new("broken".to_string())),
                }
            }
            backing.keep(&path, body);
            Ok(hyper::Response::new("ok".to_string()))
        }
    });
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let serving = async {
        let io = hyper_util::rt::TokioIo::new(server);
        let _ = hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(io, service).await;
    };
    let talking = async {
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut Vec::new()).await;
    };
    timeout(PATIENCE, async { tokio::join!(serving, talking) }).await.expect("an end in time");
    backing.take()
}

/// The request that follows each case.
fn marker(number: usize) -> String {
    format!("GET /m/{number:03} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn with_marker(case: &Case, number: usize) -> Vec<u8> {
    [case.bytes(number), marker(number).into_bytes()].concat()
}

/// One of two that refuse at different places goes on no further, and up to there they agree.
fn agree(one: &[Seen], other: &[Seen]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_c2_c3_each_case_is_taken_or_refused_as_the_table_says_and_swallows_nothing() {
    let backing = Backing::default();
    let address = serve(backing.clone()).await;
    let cases = cases::all();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let (statuses, told) = answers(&ask(address, &with_marker(case, number), 0).await);
        let seen = backing.take();
        let (itself, next) = (format!("/c/{number:03}"), format!("/m/{number:03}"));
        let expected = match case.told {
            Told::Taken => (vec![200, 200], vec![itself, next]),
            Told::TakenAndClosed => (vec![200], vec![itself]),
            Told::Refused(status) => (vec![status], vec![]),
        };
        if (statuses.clone(), told.clone()) != expected || told != paths(&seen) {
            wrong.push(format!(
                "{}: {statuses:?} {told:?}, handed on {:?}, wanted {expected:?}",
                case.name,
                paths(&seen)
            ));
        }
    }
    println!("{} cases sent directly", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_here_is_taken_by_hyper_too_and_in_the_same_pieces() {
    let backing = Backing::default();
    let address = serve(backing.clone()).await;
    let (mut unexplained, mut more) = (Vec::new(), 0);
    let cases = cases::all();
    for (number, case) in cases.iter().enumerate() {
        let bytes = with_marker(case, number);
        ask(address, &bytes, 0).await;
        let (ours, theirs) = (backing.take(), oracle(&bytes).await);
        more += usize::from(theirs.len() > ours.len());
        if ours.len() > theirs.len() || !agree(&ours, &theirs) {
            println!("{}: we hand on {:?}, hyper {:?}", case.name, paths(&ours), paths(&theirs));
            if !cases::HYPER_DIFFERS.iter().any(|(name, _why)| *name == case.name) {
                unexplained.push(case.name.clone());
            }
        }
    }
    println!("of {} cases hyper takes more in {more}", cases.len());
    assert!(unexplained.is_empty(), "not explained in the table: {unexplained:?}");
    for (name, _why) in cases::HYPER_DIFFERS {
        assert!(cases.iter().any(|case| case.name == *name), "{name} is explained and there is no such case");
    }
}

/// Sends every case through a front, and after each a clean request on another connection.
async fn through(front: &str, address: SocketAddr, direct: SocketAddr, backing: &Backing) -> Vec<String> {
    let (mut wrong, mut handed_on, mut taken) = (Vec::new(), 0, 0);
    let cases = cases::all();
    for (number, case) in cases.iter().enumerate() {
        let bytes = with_marker(case, number);
        let enough = answers(&ask(direct, &bytes, 0).await).0.len();
        let ours = backing.take();
        let heard = ask(address, &bytes, enough).await;
        let (statuses, told) = answers(&heard);
        let seen = backing.take();
        let mut complain = |what: &str| {
            let (ours, seen) = (paths(&ours), paths(&seen));
            wrong
                .push(format!("{front}, {}: {what}; directly {ours:?}, through it {seen:?}, told {told:?}", case.name));
        };
        if told != paths(&seen) {
            complain("what it was answered is not what was handed on");
        }
        // Each answer of ours has an id; of its own the front may say one thing more, and then it ends.
        let ours_said = String::from_utf8_lossy(&heard).to_ascii_lowercase().matches("x-request-id: ").count();
        if ours_said < seen.len() || statuses.len() < ours_said || statuses.len() > ours_said + 1 {
            complain("answers were lost or are too many");
        }
        if !agree(&ours, &seen) {
            complain("it ends requests elsewhere");
        }
        handed_on += seen.len();
        taken += usize::from(told.len() == 2);
        let probe = format!("GET /p/{number:03} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (_, told) = answers(&ask(address, probe.as_bytes(), 1).await);
        if told != [format!("/p/{number:03}")] || paths(&backing.take()) != told {
            complain("the next client got another's answer");
        }
    }
    println!("{front}: of {} cases {taken} passed with their marker, {handed_on} requests in all", cases.len());
    // Were nothing handed on, nothing would have been shown.
    let good = cases.iter().filter(|case| case.told == Told::Taken).count();
    assert!(taken * 2 >= good, "{front} passed {taken} cases, and {good} are good");
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_in_front_and_we_end_every_request_at_the_same_place() {
    let backing = Backing::default();
    let direct = serve(backing.clone()).await;
    let Some(front) = fronts::nginx(direct).await else { return };
    let mut wrong = through("nginx", front.addresses[0], direct, &backing).await;
    wrong.extend(through("nginx that streams bodies", front.addresses[1], direct, &backing).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_in_front_and_we_end_every_request_at_the_same_place() {
    let backing = Backing::default();
    let direct = serve(backing.clone()).await;
    let Some(front) = fronts::haproxy(direct).await else { return };
    let mut wrong = through("HAProxy", front.addresses[0], direct, &backing).await;
    wrong.extend(through("HAProxy that takes invalid requests", front.addresses[1], direct, &backing).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
