//! `crochet export --ndjson`: every record in words, from a gateway that serves or has ended; nothing of it missing, and
//! nothing secret in it.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use support::{Agent, Gateway, Seller};

const BODY: &str = r#"{"task":"run"}"#;
const PRICE: &str = "1.00";

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crochet"));
    command.args(arguments).env("CROCHET__STORAGE__PATH", data).env("CROCHET__TELEMETRY__LOG", "error");
    command
}

/// Runs `crochet` for the store in `data`, off this test's runtime.
async fn crochet(data: &Path, arguments: &[&str]) -> Output {
    let mut command = command(data, arguments);
    tokio::task::spawn_blocking(move || command.output().expect("crochet runs")).await.expect("ran")
}

#[track_caller]
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What was exported: all lines, and the records of each kind.
struct Export {
    text: String,
    first: Value,
    last: Value,
    records: BTreeMap<String, Vec<Value>>,
}

impl Export {
    async fn of(data: &Path) -> Self {
        let text = said(&crochet(data, &["export", "--ndjson"]).await);
        let mut lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
        let (last, first) = (lines.pop().expect("a last line"), lines.remove(0));
        let mut records: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in lines {
            records.entry(line["kind"].as_str().expect("a kind").to_string()).or_default().push(line);
        }
        assert_eq!((&first["kind"], &last["kind"]), (&json!("export"), &json!("end")));
        let counts: BTreeMap<&String, usize> = records.iter().map(|(kind, lines)| (kind, lines.len())).collect();
        assert_eq!(last["records"], json!(counts), "the last line says what there is");
        Self { text, first, last, records }
    }

    fn all(&self, kind: &str) -> &[Value] {
        self.records.get(kind).map_or(&[], Vec::as_slice)
    }

    /// The record of this kind whose key says so.
    #[track_caller]
    fn one(&self, kind: &str, name: &str, value: &str) -> &Value {
        let found = self.all(kind).iter().find(|line| line["key"][name] == value);
        &found.unwrap_or_else(|| panic!("no {kind} with {name} {value}"))["value"]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_told_once_and_nothing_secret_whether_the_gateway_runs_or_not() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, secret) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let done = buyer.buy(&gateway, &listing, BODY, &[]).await;
    buyer.redeem(&gateway, &listing, BODY, &done).await.expect(200);
    let paid = buyer.buy(&gateway, &listing, "[1]", &[]).await;
    let quoted = buyer.call(&gateway, &listing, "[2]", &[]).await.payment_id();
    let path = format!("/api/v1/listings/{listing}");
    let closed = buyer.buy(&gateway, &listing, "[3]", &[]).await;
    owner.send(&gateway, reqwest::Method::DELETE, &path, json!({})).await.expect(200);
    buyer.redeem(&gateway, &listing, "[3]", &closed).await.refused(409, "PAYMENT_CLOSED");
    let human = json!({"email": "ann@example.org", "password": "correct horse battery", "display_name": "Ann"});
    owner.send(&gateway, reqwest::Method::POST, "/api/v1/auth/signup", human).await;

    let running = Export::of(&gateway.data()).await;
    for (id, state) in [(&done, "Completed"), (&closed, "Owed"), (&quoted, "Quoted"), (&paid, "Quoted")] {
        let payment = running.one("payment", "payment", id);
        assert_eq!((&payment["progress"]["state"], &payment["quote"]["price"]), (&json!(state), &json!(1_000_000)));
    }
    assert_eq!(running.one("sandbox_payment", "payment", &paid)["amount"], 1_000_000);
    assert_eq!(running.one("listing", "listing", &listing)["price"], 1_000_000);
    let endpoint = running.one("endpoint", "listing", &listing);
    assert!(endpoint["timeout_ms"].is_u64() && endpoint["url"].is_null() && endpoint["secret"].is_null(), "{endpoint}");
    assert_eq!(running.one("profile", "profile", &buyer.profile)["account_type"], "agent");
    assert!(running.one("result", "payment", &done)["bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    assert_eq!(running.all("human").len(), 1);
    let hidden = [seller.url("/ok"), secret, buyer.key.clone(), owner.key.clone(), "argon2".into(), "battery".into()];
    for text in &hidden {
        assert!(!running.text.contains(text.as_str()), "{text} stands in the export");
    }
    let record = std::fs::read_to_string(gateway.data().join("admin.log")).expect("the operators' record");
    assert_eq!(record.lines().filter(|line| line.contains("\"order\":\"export\"")).count(), 2, "{record}");

    gateway.terminate();
    assert!(gateway.wait().success());
    let stopped = Export::of(&gateway.data()).await;
    for kind in ["payment", "profile", "wallet", "api_key", "listing", "sandbox_payment", "event", "category"] {
        assert!(!stopped.all(kind).is_empty(), "{kind}");
        assert_eq!(stopped.all(kind).len(), running.all(kind).len(), "{kind}");
    }
    // The store's own counts: the proof of the books, and a backup, which has every key.
    let audit: Value =
        serde_json::from_str(&said(&crochet(&gateway.data(), &["admin", "audit", "--json"]).await)).expect("JSON");
    let counted = |kind: &str| json!(stopped.all(kind).len());
    assert_eq!((&audit["payments"], &audit["rows"]), (&counted("payment"), &counted("event")));
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy");
    let told = said(&crochet(&gateway.data(), &["backup", copy.to_str().expect("text")]).await);
    assert!(
        told.starts_with(&format!("{} entries and {} files", stopped.last["entries"], stopped.last["files"])),
        "{told}"
    );
    assert_eq!(stopped.first["format"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_nobody_takes_to_its_end_ends_and_is_no_success() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    for n in 0..200 {
        buyer.call(&gateway, &listing, &format!("[{n}]"), &[]).await;
    }
    let mut child = command(&gateway.data(), &["export", "--ndjson"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let ended = tokio::task::spawn_blocking(move || {
        let mut first = [0; 16];
        child.stdout.take().expect("piped").read_exact(&mut first).expect("it begins");
        child.wait().expect("ended")
    });
    assert_eq!(ended.await.expect("joined").code(), Some(1));
    Export::of(&gateway.data()).await;
}
