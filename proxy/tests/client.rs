//! `crochet register · listings · call · …`: the real binary against a real gateway, as people type it.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use support::{Agent, Gateway, Script, Seller};
use tempfile::TempDir;

const BODY: &str = r#"{"input": "the quick brown fox"}"#;

/// A person with a folder.
struct Person {
    url: String,
    home: TempDir,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Said {
    #[track_caller]
    fn did(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn failed(self, words: &[&str]) -> Self {
        assert_eq!(self.code, 1, "{}\n{}", self.out, self.err);
        words.iter().for_each(|word| assert!(self.err.contains(word), "{word} is not in:\n{}", self.err));
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

impl Person {
    fn new(gateway: &Gateway) -> Self {
        Self { url: gateway.url.clone(), home: TempDir::new().expect("temporary directory") }
    }

    fn registered(gateway: &Gateway, name: &str) -> Self {
        let person = Self::new(gateway);
        person.run(&["register", "--name", name]).did();
        person
    }

    fn home(&self) -> PathBuf {
        self.home.path().join("crochet")
    }

    fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_crochet"))
            .args(arguments)
            .env_clear()
            .env("CROCHET_URL", &self.url)
            .env("XDG_CONFIG_HOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("crochet starts");
        // Who does not read its input has ended already.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("ended");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        Said { code: output.status.code().expect("a code"), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Every file of the folder, below it.
    fn files(&self) -> Vec<PathBuf> {
        fn walk(path: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(path).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.home(), &mut found);
        found
    }

    fn file(&self, folder: &str) -> PathBuf {
        self.files()
            .into_iter()
            .find(|path| path.parent().is_some_and(|parent| parent.ends_with(folder)))
            .expect("a file")
    }

    fn list(&self, seller: &Seller, path: &str, price: &str) -> String {
        let url = seller.url(path);
        let created = self.run(&[
            "listings",
            "create",
            "--json",
            "--name",
            "Word count",
            "--description",
            "It counts words.",
            "--price",
            price,
            "--endpoint",
            &url,
        ]);
        created.did().json()["data"]["slug"].as_str().expect("a slug").to_string()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_wallet_to_the_ledger_as_the_documentation_has_it() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let owner = Person::registered(&gateway, "Word shop");
    let secret = owner.home.path().join("secret");
    let url = seller.url("/ok");
    let created = owner.run(&[
        "listings",
        "create",
        "--name",
        "Word count",
        "--description",
        "Counts the words of a text.",
        "--price",
        "0.25",
        "--endpoint",
        &url,
        "--secret-to",
        secret.to_str().expect("text"),
    ]);
    let created = created.did();
    assert!(created.out.contains("0.25 USD") && !created.out.contains("whsec_"), "{}", created.out);
    assert!(fs::read_to_string(&secret).expect("a secret").starts_with("whsec_") && mode(&secret) == 0o600);

    let buyer = Person::registered(&gateway, "Reader");
    let found = buyer.run(&["listings", "search", "wrod", "count"]).did();
    assert!(found.out.contains("word-count  Word count  0.25 USD  Word shop"), "{}", found.out);

    let offered = buyer.run(&["call", "word-count", "--body", BODY]).failed(&["402", "--pay"]);
    assert!(offered.out.contains("0.25 USD") && offered.out.contains("pay_"), "{}", offered.out);
    assert_eq!(seller.calls(), 0);

    let bought = buyer.run(&["call", "word-count", "--body", BODY, "--pay", "--max-price", "0.50"]).did();
    assert_eq!(bought.out, "{\"result\":\"ok\"}\n");
    assert!(bought.err.contains("gw_req_") && bought.err.contains("charged 0.25 USD"), "{}", bought.err);
    assert_eq!((seller.calls(), seller.received()[0].body.as_slice()), (1, BODY.as_bytes()));

    let ledger = buyer.run(&["ledger"]).did();
    assert!(ledger.out.contains("gateway_payment  -0.25 USD"), "{}", ledger.out);
    let earned = owner.run(&["ledger", "--summary"]).did();
    assert!(earned.out.contains("earned                0.23775 USD"), "{}", earned.out);
    assert!(buyer.run(&["calls"]).did().out.contains("completed"));

    let review = ["reviews", "write", "word-count", "--accuracy", "5", "--reliability", "4", "--value", "5"];
    buyer.run(&review).did();
    assert!(buyer.run(&["reviews", "list", "word-count"]).did().out.contains("by Reader"));
    buyer.run(&review).failed(&["REVIEW_ALREADY_EXISTS (409)"]);
    assert!(buyer.run(&["score"]).did().out.contains("of 1000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_keeps_its_endpoint_and_its_listing() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let owner = Person::registered(&gateway, "Word shop");
    let slug = owner.list(&seller, "/ok", "0.25");
    let body = "{\"b\": 1.10, \"a\": [12345678901234567890123]}";
    let tested = owner.run(&["listings", "endpoint", &slug, "test", "--body", body]).did();
    assert_eq!(seller.received()[0].body, body.as_bytes(), "as it was written");
    let changed = owner.run(&["listings", "change", &slug, "--example-request", body, "--json"]).did();
    assert!(changed.out.contains(body), "{}", changed.out);
    assert!(
        tested.out.contains("200 application/json") && tested.out.contains("{\"result\":\"ok\"}"),
        "{}",
        tested.out
    );
    assert_eq!(seller.received()[0].headers["x-crochet-test"], "true");

    let put = ["listings", "endpoint", &slug, "put", "--auth-header", "X-Token", "--auth-value-file", "-"];
    owner.run_with(&put, "s3cret\n").did();
    let put = ["listings", "endpoint", &slug, "put", "--requests-per-second", "7", "--timeout-ms", "5000"];
    let shown = owner.run(&put).did();
    assert!(shown.out.contains("X-Token") && shown.out.contains("5000 ms") && !shown.out.contains("s3cret"));
    owner.run(&["listings", "endpoint", &slug, "test"]).did();
    assert_eq!(seller.received()[1].headers["x-token"], "s3cret");

    let first = owner.run(&["listings", "endpoint", &slug, "rotate"]).did();
    let again = owner.run(&["listings", "endpoint", &slug, "rotate", "--overlap-seconds", "0"]).did();
    assert!(first.out.starts_with("signing secret  whsec_") && first.out.lines().next() != again.out.lines().next());

    assert!(owner.run(&["listings", "change", &slug, "--price", "0.000001"]).did().out.contains("0.000001 USD"));
    assert!(owner.run(&["listings", "mine"]).did().out.contains(&slug));
    assert!(owner.run(&["listings", "remove", &slug]).did().out.contains("off sale"));
    owner.run(&["listings", "change", &slug, "--status", "active"]).did();
    owner.run(&["listings", "change", &slug]).failed(&["say what changes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_for_its_owner_alone_and_no_secret_is_said() {
    let gateway = Gateway::start();
    let person = Person::new(&gateway);
    let registered = person.run(&["register", "--json"]).did();
    let (key, wallet) = (person.file("gateways"), person.file("wallets"));
    let kept: Value = serde_json::from_slice(&fs::read(&key).expect("read")).expect("JSON");
    let held: Value = serde_json::from_slice(&fs::read(&wallet).expect("read")).expect("JSON");
    for secret in [&kept["api_key"], &held["secret_key"]] {
        let secret = secret.as_str().expect("a secret");
        assert!(!registered.out.contains(secret) && !registered.err.contains(secret));
    }
    for path in person.files() {
        assert_eq!((mode(&path), mode(path.parent().expect("a folder"))), (0o600, 0o700), "{}", path.display());
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("changed");
    person.run(&["wallets"]).failed(&["can be read by others", "chmod 600"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_recovered_on_a_second_home() {
    let gateway = Gateway::start();
    let first = Person::new(&gateway);
    let profile = first.run(&["register", "--json", "--solana"]).did().json()["data"]["profile"]["id"].clone();
    let second = Person::new(&gateway);
    second.run(&["recover"]).failed(&["wallets import"]);
    let wallet = first.file("wallets");
    second.run(&["wallets", "import", wallet.to_str().expect("text")]).did();
    second.run(&["register", "--solana"]).failed(&["WALLET_ALREADY_REGISTERED", "crochet recover"]);
    let recovered = second.run(&["recover", "--json", "--revoke-existing-keys"]).did().json();
    assert_eq!(recovered["data"]["profile"]["id"], profile);
    second.run(&["keys"]).did();
    first.run(&["keys"]).failed(&["UNAUTHENTICATED (401)", "use_valid_api_key"]);
    second.run_with(&["wallets", "import", "-"], "no key at all").failed(&["secret key"]);
    assert!(second.run(&["wallets", "local"]).did().out.contains("solana"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wallets_and_keys_are_linked_changed_and_taken_away() {
    let gateway = Gateway::start();
    let person = Person::registered(&gateway, "Reader");
    let linked = person.run(&["wallets", "link", "--solana", "--label", "cold", "--json"]).did().json();
    let id = linked["data"]["id"].as_str().expect("an id");
    let changed =
        person.run(&["wallets", "change", id, "--label", "colder", "--default-payment", "true", "--json"]).did();
    assert_eq!(
        (&changed.json()["data"]["label"], &changed.json()["data"]["default_payment"]),
        (&json!("colder"), &json!(true))
    );
    assert_eq!(person.run(&["wallets", "remove", id, "--json"]).did().json()["data"]["status"], "disabled");

    let file = person.home.path().join("ci.key");
    let create = [
        "keys",
        "create",
        "--name",
        "ci",
        "--scopes",
        "read",
        "--max-price",
        "1",
        "--to",
        file.to_str().expect("text"),
    ];
    let created = person.run(&create).did();
    let key = fs::read_to_string(&file).expect("a key");
    assert!(mode(&file) == 0o600 && !created.out.contains(key.trim()));
    person.run(&["ledger", "--key-file", file.to_str().expect("text")]).did();
    person
        .run_with(&["call", "x", "--body", "{}", "--key-file", "-"], &key)
        .failed(&["SCOPE_REQUIRED (403)", "request_scope"]);
    let keys = person.run(&["keys", "--json"]).did().json();
    let id = keys["data"].as_array().expect("a list").iter().find(|row| row["name"] == "ci").expect("it")["id"].clone();
    person.run(&["keys", "revoke", id.as_str().expect("an id")]).did();
    person.run(&["keys", "use", file.to_str().expect("text")]).failed(&["UNAUTHENTICATED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_died_is_gone_on_with_and_nothing_is_paid_twice() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Person::registered(&gateway, "Word shop"), Person::registered(&gateway, "Reader"));
    let slug = owner.list(&seller, "/switch", "0.25");
    let call = ["call", &slug, "--body", BODY, "--pay"];
    seller.answer_with(500);
    buyer.run(&call).failed(&["SELLER_ERROR (502)", "payment: settled", "nothing is paid twice"]);
    let note = buyer.file("purchases");
    assert_eq!(mode(&note), 0o600);
    buyer.run(&["call", &slug, "--body", BODY]).failed(&["was begun for this very call"]);
    buyer.run(&["call", &slug, "--body", BODY, "--pay", "--max-price", "0.10"]).failed(&["above --max-price"]);
    seller.answer_with(200);
    let bought = buyer.run(&call).did();
    assert!(bought.err.contains("Going on with pay_") && bought.out.contains("switched"), "{}", bought.err);
    assert!(!note.exists(), "the answer is here: nothing is left to go on with");
    let entries = buyer.run(&["ledger", "--json"]).did().json();
    assert_eq!(entries["data"].as_array().expect("a list").len(), 1, "{entries}");

    let payment = entries["data"][0]["relay_request_id"].as_str().expect("a payment");
    let again = buyer.run(&["call", &slug, "--body", BODY, "--payment", payment]).did();
    assert!(again.err.contains("stored answer") && again.out == bought.out, "{}", again.err);
    buyer.run(&["call", &slug, "--body", "{}", "--payment", payment]).failed(&["PAYMENT_REQUEST_MISMATCH (409)"]);
    assert!(buyer.run(&["pay", payment, "--show"]).did().out.contains("completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_settles_later_is_waited_for() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Person::registered(&gateway, "Word shop"), Person::registered(&gateway, "Reader"));
    let slug = owner.list(&seller, "/ok", "0.25");
    let offer = buyer.run(&["call", &slug, "--body", BODY, "--json"]).failed(&[]).json();
    assert_eq!(offer["error"]["code"], "PAYMENT_REQUIRED");
    let payment = offer["data"]["payment"]["relay_request_id"].as_str().expect("a payment");
    buyer.run(&["pay", payment, "--delay-ms", "1500"]).did();
    let call = ["call", &slug, "--body", BODY, "--payment", payment];
    buyer.run(&[&call[..], &["--wait", "0"]].concat()).failed(&["has not settled yet"]);
    let bought = buyer.run(&call).did();
    assert!(bought.err.contains("not through yet") && bought.out.contains("ok"), "{}", bought.err);
    assert_eq!(seller.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_every_kind_come_out_as_the_seller_said_them() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Person::registered(&gateway, "Word shop"), Person::registered(&gateway, "Reader"));
    let agent = Agent::register(&gateway).await;
    let file = buyer.home.path().join("answer");
    for (path, wanted) in [
        ("/text", "grüße \"and\" \u{1}".as_bytes().to_vec()),
        ("/binary", vec![0, 159, 146, 150]),
        ("/size/3000000", format!("\"{}\"", "x".repeat(3_000_000)).into_bytes()),
    ] {
        let (listing, _) = agent.list(&gateway, &seller.url(path), "0").await;
        let told = buyer.run_with(&["call", &listing, "--body", "@-", "--output", file.to_str().expect("text")], BODY);
        assert!(told.did().err.contains("free of charge"));
        assert!(fs::read(&file).expect("read") == wanted, "{path}");
    }
    let slug = owner.list(&seller, "/ok", "0");
    assert_eq!(
        buyer.run(&["call", &slug, "--body", "{}", "--json"]).did().json()["data"]["seller_response"]["result"],
        "ok"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_out_as_they_are_with_the_receipt_last() {
    let gateway = Gateway::start();
    let events = b"data: one\n\ndata: two\n\n";
    let seller = Script::chunked("text/event-stream", events.to_vec()).await;
    let (agent, buyer) = (Agent::register(&gateway).await, Person::registered(&gateway, "Reader"));
    let (listing, _) = agent.list(&gateway, &format!("http://{}/", seller.address), "0.25").await;
    let said = buyer.run(&["call", &listing, "--body", BODY, "--stream", "--pay"]).did();
    assert!(said.out.contains("data: one\n\ndata: two\n\n"), "{}", said.out);
    assert!(said.out.contains("event: crochet.receipt\n"), "{}", said.out);
    assert!(!buyer.files().iter().any(|path| path.parent().is_some_and(|parent| parent.ends_with("purchases"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_gateway_could_use_is_not_signed() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__PUBLIC_URL", "https://gateway.example")]);
    let person = Person::new(&gateway);
    person.run(&["register"]).failed(&["https://gateway.example", "it was not signed", "--site"]);
    person.run(&["register", "--site", "https://gateway.example/"]).did();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_told_clearly() {
    let gateway = Gateway::start();
    let person = Person::new(&gateway);
    person.run(&["ledger"]).failed(&["there is no key", "crochet register"]);
    person.run(&["register", "--name", "Reader"]).did();
    person.run(&["register"]).failed(&["registered here already", "as Reader"]);
    person.run(&["call", "nothing", "--body", "{"]).failed(&["not one JSON value"]);
    person.run(&["call", "nothing", "--body", "@/nowhere"]).failed(&["/nowhere cannot be read"]);
    person.run(&["call", "nothing", "--body", "{}"]).failed(&[
        "NOT_FOUND (404)",
        "fix_request",
        "/docs/errors#NOT_FOUND",
    ]);
    person.run(&["listings", "create", "--name", "x"]).failed(&["--description"]);
    person
        .run(&["listings", "create", "--name", "x", "--description", "d", "--price", "1", "--endpoint", "ftp://a"])
        .failed(&["VALIDATION_FAILED (422)", "name: must have 3", "private_endpoint_url: must begin"]);
    person.run(&["listings", "search", "--sort", "dearest"]).failed(&["sort: must be one of"]);
    let told = person.run(&["listings", "show", "../me", "--json"]).failed(&["NOT_FOUND"]);
    assert_eq!(told.json()["error"]["code"], "NOT_FOUND");
    for (arguments, words) in [
        (vec!["call", "x"], "--body"),
        (vec!["call", "x", "--body", "{}", "--max-price", "much"], "say dollars"),
        (vec!["ledger", "--limit", "many"], "--limit"),
        (vec!["regster"], "register"),
    ] {
        let told = person.run(&arguments);
        assert!(told.code == 2 && told.err.contains(words), "{arguments:?}: {} {}", told.code, told.err);
    }
    let nowhere = ["listings", "--url", "http://127.0.0.1:1"];
    person.run(&nowhere).failed(&["http://127.0.0.1:1 cannot be reached"]);
    let told = person.run(&["listings", "--url", "nowhere", "--json"]).failed(&["begins with http"]);
    assert_eq!(told.json()["error"]["code"], "CLIENT_FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_parses_as_json() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let person = Person::registered(&gateway, "Word shop");
    let slug = person.list(&seller, "/ok", "0");
    for arguments in [
        vec!["wallets"],
        vec!["wallets", "local"],
        vec!["keys"],
        vec!["listings"],
        vec!["listings", "search", "words"],
        vec!["listings", "categories"],
        vec!["listings", "mine"],
        vec!["listings", "show", &slug],
        vec!["listings", "endpoint", &slug],
        vec!["listings", "endpoint", &slug, "test"],
        vec!["reviews", "list", &slug],
        vec!["ledger"],
        vec!["ledger", "--summary"],
        vec!["calls"],
        vec!["score"],
    ] {
        let told = person.run(&[&arguments[..], &["--json"]].concat()).did();
        assert_eq!(told.json()["success"], true, "{arguments:?}");
        assert!(person.run(&arguments).did().out.ends_with('\n'), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_https_gateway_is_believed_by_its_certificate_alone() {
    let authority = support::tls::Authority::new();
    let acceptor = authority.acceptor(&["localhost"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("address").port();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{\"success\":true,\"data\":[] }";
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    let person =
        Person { url: format!("https://localhost:{port}"), home: TempDir::new().expect("temporary directory") };
    let ca = authority.file();
    let ca = ca.to_str().expect("text").to_string();
    tokio::task::spawn_blocking(move || {
        person.run(&["listings", "--ca", &ca]).did();
        person.run(&["listings"]).failed(&["does not prove who it is"]);
        let other = ["listings", "--ca", &ca, "--url", &person.url.replace("localhost", "127.0.0.1")];
        person.run(&other).failed(&["does not prove who it is"]);
        person.run(&["listings", "--ca", "/nowhere"]).failed(&["/nowhere holds no certificates"]);
    })
    .await
    .expect("ran");
}

#[test]
fn shells_complete_and_the_version_says_what_was_built() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_crochet")).args(arguments).output().expect("runs");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("text")
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert!(script.contains("listings") && script.contains("max-price"), "{shell}");
    }
    let version = run(&["--version"]);
    let words: Vec<&str> = version.trim().split(['(', ')']).collect();
    assert!(words[0].starts_with("crochet 0.") && words[1].contains(", rustc 1."), "{version}");
}
