//! Canaries: what must not be seen is made unmistakable, the gateway is driven through its life, and everything that it
//! wrote or said is searched. A part of a canary is a hit: compression and cutting hide nothing.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    collections::HashSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::{
    Agent, Gateway,
    agent::{Answer, Wallet, send, solve},
    eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Bytes of a canary that make a hit.
const HIT: usize = 12;

/// Something that is looked for.
#[derive(Clone)]
struct Canary {
    what: String,
    bytes: Vec<u8>,
}

/// All of them, and all that was said.
struct Cage {
    canaries: Vec<Canary>,
    errors: Vec<String>,
    answers: Vec<String>,
}

fn random() -> String {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("randomness");
    hex::encode(bytes)
}

impl Cage {
    /// A canary of a kind, made up here.
    fn breed(&mut self, what: &str) -> String {
        let text = random();
        self.watch(what, text.as_bytes());
        text
    }

    /// Something that the gateway made, from here on a canary.
    fn watch(&mut self, what: &str, bytes: &[u8]) {
        assert!(bytes.len() >= HIT, "{what} is too short to be told from chance");
        self.canaries.push(Canary { what: what.into(), bytes: bytes.to_vec() });
    }

    /// A signing secret: as text and as the bytes that are kept.
    fn watch_secret(&mut self, what: &str, secret: &str) {
        let text = secret.trim_start_matches("whsec_");
        // The first characters are shown to its owner, to tell it from others.
        self.watch(what, &text.as_bytes()[4..]);
        self.watch(&format!("{what}, decoded"), &STANDARD.decode(text).expect("base64"));
    }

    /// A key; its first characters are kept, to tell it from others.
    fn watch_key(&mut self, what: &str, key: &str) {
        self.watch(what, &key.as_bytes()[11..]);
    }

    fn heard(&mut self, answer: &Answer) {
        let text = String::from_utf8_lossy(&answer.bytes).into_owned() + &format!("{:?}", answer.headers);
        if answer.status >= 400 { self.errors.push(text) } else { self.answers.push(text) }
    }

    /// Which canaries can be seen in these bytes, but for some kinds.
    fn seen(&self, bytes: &[u8], allowed: &[&str]) -> HashSet<String> {
        let mut wanted: HashSet<&[u8]> = HashSet::new();
        let watched = |canary: &&Canary| !allowed.iter().any(|kind| canary.what.starts_with(kind));
        for canary in self.canaries.iter().filter(watched) {
            wanted.extend(canary.bytes.windows(HIT));
        }
        // One pass: the first bytes that some part begins with are rare enough to look closer.
        let starts: HashSet<[u8; 4]> = wanted.iter().map(|part| part[..4].try_into().expect("four")).collect();
        let mut table = vec![false; 1 << 16];
        starts.iter().for_each(|start| table[usize::from(start[0]) << 8 | usize::from(start[1])] = true);
        let mut found = HashSet::new();
        for at in 0..bytes.len().saturating_sub(HIT - 1) {
            if table[usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])] {
                let part = &bytes[at..at + HIT];
                if wanted.contains(part) {
                    let names =
                        self.canaries.iter().filter(|canary| memchr::memmem::find(&canary.bytes, part).is_some());
                    found.extend(names.map(|canary| canary.what.clone()));
                }
            }
        }
        found
    }

    #[track_caller]
    fn assert_unseen(&self, place: &str, bytes: &[u8], allowed: &[&str]) {
        let seen = self.seen(bytes, allowed);
        assert!(seen.is_empty(), "{place} shows {seen:?}");
    }
}

/// A seller that says one thing, and keeps the signatures that it was shown.
#[derive(Clone)]
struct Seller {
    address: SocketAddr,
    signatures: Arc<Mutex<Vec<String>>>,
}

impl Seller {
    async fn start(says: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let seller = Self { address: listener.local_addr().expect("address"), signatures: Arc::default() };
        let serving = seller.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seller, says) = (serving.clone(), says.clone());
                tokio::spawn(async move { seller.serve(stream, &says).await });
            }
        });
        seller
    }

    async fn serve(&self, mut stream: TcpStream, says: &str) -> Option<()> {
        let mut buffer = Vec::new();
        // Each request is held whole in one connection: bodies here are short.
        while !(memchr::memmem::find(&buffer, b"\r\n\r\n").is_some() && buffer.ends_with(b"}")) {
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        }
        let text = String::from_utf8_lossy(&buffer).into_owned();
        let signatures = text.lines().filter(|line| line.to_ascii_lowercase().contains("signature: "));
        for signature in signatures.flat_map(|line| line.split(',').skip(1)) {
            let signature = signature.split(' ').next().unwrap_or_default().trim().to_string();
            self.signatures.lock().expect("not poisoned").push(signature);
        }
        let status = if text.starts_with("POST /fail") { 500 } else { 200 };
        let body = format!("{{\"says\":\"{says}\"}}");
        let answer = format!(
            "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nX-Told: {says}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.ok()
    }
}

/// Registers, watching what is shown and signed on the way.
async fn register(cage: &mut Cage, gateway: &Gateway, http: &Client) -> Value {
    let wallet = Wallet::new();
    let post = async |path: &str, body: Value| {
        send(http, Method::POST, format!("{}{path}", gateway.url), "", &[], Some(body.to_string().into())).await
    };
    let challenge = post("/api/v1/auth/challenge", json!({"wallet_address": wallet.address()})).await;
    let data = challenge.expect(200).json["data"].clone();
    let text = |value: &Value| value.as_str().expect("text").to_string();
    let signature = wallet.sign(&text(&data["message"]));
    cage.watch("wallet signature", signature.as_bytes());
    cage.watch("wallet signature, decoded", &hex::decode(&signature[2..]).expect("hex"));
    let pow = &data["pow"];
    let solution = solve(&text(&pow["challenge"]), pow["difficulty"].as_u64().expect("difficulty"));
    let mut body = json!({
        "wallet_address": wallet.address(), "signature": signature, "nonce": data["nonce"], "pow_nonce": solution,
    });
    let mut forged = body.clone();
    forged["signature"] = json!(signature.replace("0x", "0xff"));
    cage.heard(&post("/api/v1/register", forged).await);
    body["surprise"] = json!(cage.breed("request body"));
    let refused = post("/api/v1/register", body.clone()).await;
    cage.heard(&refused);
    body.as_object_mut().expect("object").remove("surprise");
    let registered = post("/api/v1/register", body).await;
    let data = registered.json["data"].clone();
    assert_eq!(registered.status, 201, "{}", registered.json);
    cage.watch_key("API key", data["api_key"].as_str().expect("key"));
    data
}

async fn listing_body(gateway: &Gateway, owner: &Agent, url: &str, credential: &str, canary: &str) -> Value {
    let challenge = owner.send(gateway, Method::POST, "/api/v1/listings/challenge", json!({})).await;
    let data = &challenge.json["data"];
    let solution =
        solve(data["challenge"].as_str().expect("challenge"), data["difficulty"].as_u64().expect("difficulty"));
    json!({
        "pow_nonce": solution, "name": "A listing", "description": format!("In the open: {canary}"),
        "delivery_type": "api", "auth_method": "none", "formats": ["json"], "pricing_model": "free",
        "pricing_amount": 0, "pricing_currency": "USD", "private_endpoint_url": url, "status": "active",
        "upstream_auth": {"header": "X-Own-Key", "value": credential},
    })
}

/// All files below `path`.
fn files(path: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(path).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// Searches every byte of the store's files. What sellers answered to paid calls is kept for their buyers, among the
/// results and in the engine's journal on its way there.
fn assert_store_is_clean(cage: &Cage, data: &Path) {
    let mut found = Vec::new();
    files(data, &mut found);
    assert!(found.len() > 5, "{found:?}");
    for path in found {
        let name = path.strip_prefix(data).expect("below").display().to_string();
        let is_of_results = name.starts_with("results/") || name.starts_with("engine/");
        let allowed: &[&str] = if is_of_results { &["response body"] } else { &[] };
        cage.assert_unseen(&name, &fs::read(&path).expect("file"), allowed);
    }
}

fn is_in_store(data: &Path, text: &str) -> bool {
    let mut found = Vec::new();
    files(data, &mut found);
    found.iter().any(|path| memchr::memmem::find(&fs::read(path).expect("file"), text.as_bytes()).is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn h_a13_e2_no_secret_is_seen_in_logs_metrics_errors_arguments_or_store_files() {
    let mut cage = Cage { canaries: Vec::new(), errors: Vec::new(), answers: Vec::new() };
    let folder = tempfile::tempdir().expect("folder");
    let key_file = folder.path().join("key");
    let master_key = format!("{}{}", random(), &random()[..16]);
    fs::write(&key_file, &master_key).expect("written");
    cage.watch("master key", master_key.as_bytes());
    cage.watch("master key, decoded", &hex::decode(&master_key).expect("hex"));
    let gateway = Gateway::with(&[
        ("CROCHET__TELEMETRY__LOG", "debug"),
        ("CROCHET__TELEMETRY__LOG_FORMAT", "json"),
        ("CROCHET__STORAGE__MASTER_KEY_FILE", key_file.to_str().expect("text")),
        ("CROCHET__PROXY__HOLD_BYTES", "1KiB"),
    ]);
    let http = Client::new();

    let response = cage.breed("response body");
    let seller = Seller::start(response.clone()).await;
    register(&mut cage, &gateway, &http).await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    for agent in [&owner, &buyer] {
        cage.watch_key("API key", &agent.key);
    }

    // Listings: one that answers, one that fails, one whose seller is not there.
    let public = random();
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let gone = nobody.local_addr().expect("address");
    drop(nobody);
    let mut listings = Vec::new();
    for (address, path) in [(seller.address, "ok"), (seller.address, "fail"), (gone, "gone")] {
        let url = format!("http://{address}/{path}/{}?k={}", cage.breed("private URL"), cage.breed("private URL"));
        let credential = cage.breed("upstream credential");
        let mut body = listing_body(&gateway, &owner, &url, &credential, &public).await;
        if path != "gone" {
            (body["pricing_model"], body["pricing_amount"]) = (json!("per_call"), json!(1));
        }
        let created = owner.send(&gateway, Method::POST, "/api/v1/listings", body).await;
        let data = &created.expect(201).json["data"];
        cage.watch_secret("signing secret", data["gateway_endpoint"]["signing_secret"].as_str().expect("secret"));
        listings.push(data["id"].as_str().expect("id").to_string());
    }
    let [good, failing, unreachable] = &listings[..] else { panic!("three") };

    // URLs and credentials that are refused.
    for url in ["ftp://127.0.0.1/", "http://user:word@127.0.0.1/", "http://[::1", "http://127.0.0.1:1/#", "nothing "] {
        let url = format!("{url}{}", cage.breed("private URL"));
        let credential = format!("{}\u{e9}", cage.breed("upstream credential"));
        let body = listing_body(&gateway, &owner, &url, &credential, &public).await;
        let refused = owner.send(&gateway, Method::POST, "/api/v1/listings", body).await;
        refused.refused(422, "VALIDATION_FAILED");
        cage.heard(&refused);
    }

    // Calls: paid, replayed, failing, refused, to nobody, with hostile headers.
    let hostile = cage.breed("header");
    let trace = format!("00-{}-00f067aa0ba902b7-01", &hostile[..32]);
    let headers =
        [("X-Own", hostile.as_str()), ("Cookie", &hostile), ("User-Agent", &hostile), ("X-Request-Id", "r\"1")];
    let body = format!("{{\"task\":\"{}\"}}", cage.breed("request body"));
    let paid = buyer.buy(&gateway, good, &body, &headers).await;
    buyer.redeem(&gateway, good, &body, &paid).await.expect(200);
    let replayed = buyer.redeem(&gateway, good, &body, &paid).await;
    assert_eq!(replayed.header("x-crochet-replayed"), "true");
    let other = format!("{{\"task\":\"{}\"}}", cage.breed("request body"));
    let mismatch = buyer.redeem(&gateway, good, &other, &paid).await;
    cage.heard(&mismatch);
    let lost = buyer.buy(&gateway, failing, &body, &[("traceparent", &trace)]).await;
    let failed = buyer.redeem(&gateway, failing, &body, &lost).await;
    failed.refused(502, "SELLER_ERROR");
    cage.heard(&failed);
    for listing in [unreachable, good, failing] {
        let answer = buyer.call(&gateway, listing, &other, &headers).await;
        assert!(answer.status >= 400, "{}", answer.json);
        cage.heard(&answer);
    }
    for (key, path, body) in [
        (cage.breed("API key"), good.clone(), body.clone()),
        (buyer.key.clone(), cage.breed("path"), body.clone()),
        (buyer.key.clone(), good.clone(), format!("{{\"broken\":{}", cage.breed("request body"))),
        (buyer.key.clone(), format!("{good}?{}", cage.breed("path")), body.clone()),
    ] {
        let url = format!("{}/api/v1/gateway/{path}", gateway.url);
        let answer = send(&http, Method::POST, url, &key, &headers, Some(body.into_bytes())).await;
        assert!(answer.status >= 400, "{}", answer.json);
        cage.heard(&answer);
    }

    // Rotation, reading, pausing, closing.
    let endpoint = format!("/api/v1/listings/{good}/endpoint");
    let rotated = owner.send(&gateway, Method::POST, &format!("{endpoint}/rotate-secret"), json!({})).await;
    cage.watch_secret("signing secret", rotated.expect(200).json["data"]["signing_secret"].as_str().expect("secret"));
    let moved = format!("http://{}/ok/{}", seller.address, cage.breed("private URL"));
    let put = owner.send(&gateway, Method::PUT, &endpoint, json!({"private_endpoint_url": moved})).await;
    put.expect(200);
    cage.heard(&put);
    let again = buyer.buy(&gateway, good, &other, &[]).await;
    buyer.redeem(&gateway, good, &other, &again).await.expect(200);
    for (agent, path) in [
        (&owner, endpoint.as_str()),
        (&owner, "/api/v1/me/listings"),
        (&owner, "/api/v1/api-keys"),
        (&owner, "/api/v1/gateway-requests"),
        (&buyer, "/api/v1/gateway-requests"),
        (&buyer, "/api/v1/ledger"),
        (&buyer, &endpoint),
        (&buyer, &format!("/api/v1/listings/{good}")),
        (&buyer, &format!("/api/v1/payments/{paid}")),
    ] {
        let answer = agent.get(&gateway, path).await;
        cage.heard(&answer);
    }
    let made = owner.send(&gateway, Method::POST, "/api/v1/api-keys", json!({"name": "brief"})).await;
    let data = &made.expect(201).json["data"];
    cage.watch_key("API key", data["api_key"].as_str().expect("key"));
    let key_path = format!("/api/v1/api-keys/{}", data["id"].as_str().expect("id"));
    cage.heard(&owner.send(&gateway, Method::DELETE, &key_path, json!({})).await);
    let mut revoked = owner.clone();
    revoked.key = data["api_key"].as_str().expect("key").into();
    cage.heard(&revoked.get(&gateway, "/api/v1/me").await);
    let signatures = seller.signatures.lock().expect("not poisoned").clone();
    assert!(signatures.len() >= 6, "{signatures:?}");
    signatures.iter().for_each(|signature| cage.watch("request signature", signature.as_bytes()));

    // What was said. A buyer's own answers hold its seller's words; nothing else holds anything.
    assert!(cage.errors.len() > 15 && cage.answers.len() > 7, "{} {}", cage.errors.len(), cage.answers.len());
    for text in cage.errors.iter().chain(&cage.answers) {
        cage.assert_unseen(&format!("the answer {text}"), text.as_bytes(), &[]);
    }
    for path in ["/metrics", "/debug/state", "/readyz"] {
        let page = http.get(format!("{}{path}", gateway.operations)).send().await.expect("a page");
        let text = page.text().await.expect("text");
        assert!(path != "/debug/state" || text.contains(good), "{text}");
        cage.assert_unseen(path, text.as_bytes(), &[]);
    }
    let arguments = fs::read(format!("/proc/{}/cmdline", gateway.pid())).expect("arguments");
    assert!(arguments.starts_with(env!("CARGO_BIN_EXE_crochet").as_bytes()));
    cage.assert_unseen("the arguments", &arguments, &[]);
    eventually("the calls are in the log", async || gateway.log().matches("\"target\":\"call\"").count() >= 8).await;
    assert_store_is_clean(&cage, &gateway.data());

    // And once more when everything is written out.
    let mut gateway = gateway;
    gateway.terminate();
    assert!(gateway.wait().success());
    let log = gateway.log();
    assert!(log.contains("control request") && log.contains(good), "debug lines are there");
    for line in log.lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("one JSON object a line: {line}"));
    }
    cage.assert_unseen("the log", log.as_bytes(), &[]);
    assert_store_is_clean(&cage, &gateway.data());

    // The search finds what is there to be found.
    assert!(is_in_store(&gateway.data(), &public), "what is not secret is in the open");
    assert!(is_in_store(&gateway.data(), &response), "a paid answer is kept");
    assert_eq!(cage.seen(format!("x{}x", &response[7..30]).as_bytes(), &[]), HashSet::from(["response body".into()]));
}
