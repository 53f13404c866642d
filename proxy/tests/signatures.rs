//! Sellers of another make accept what we sign and nothing else: the Standard Webhooks libraries for Python, Node and
//! Rust, each over genuine calls and over each of them with one bit turned round.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use support::{Agent, Gateway, Seller};

const PYTHON: &str = r#"
import json, sys, base64
from datetime import datetime, timezone
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
case = json.load(sys.stdin)
webhook = Webhook(case["secret"])
def accepts(body, headers):
    try:
        webhook.verify(body, headers)
        return True
    except WebhookVerificationError:
        return False
refused = accepted = 0
for call in case["calls"]:
    body, headers = bytes.fromhex(call["body"]), call["headers"]
    assert accepts(body.decode(), headers), "a genuine call was refused"
    accepted += 1
    for at in range(len(body)):
        for bit in range(8):
            changed = bytearray(body)
            changed[at] ^= 1 << bit
            try:
                text = changed.decode()
            except UnicodeDecodeError:
                continue
            assert not accepts(text, headers), "a changed body was accepted"
            refused += 1
    signature = headers["webhook-signature"]
    version, coded = signature.split(",", 1)
    mac = bytearray(base64.b64decode(coded))
    for at in range(len(mac)):
        changed = bytearray(mac)
        changed[at] ^= 1 << (at % 8)
        forged = dict(headers, **{"webhook-signature": version + "," + base64.b64encode(bytes(changed)).decode()})
        assert not accepts(body.decode(), forged), "a forged signature was accepted"
        refused += 1
    for name in ("webhook-id", "webhook-timestamp"):
        value = headers[name]
        forged = dict(headers, **{name: value[:-1] + ("1" if value[-1] != "1" else "2")})
        assert not accepts(body.decode(), forged), "a changed " + name + " was accepted"
        refused += 1
print(json.dumps({"accepted": accepted, "refused": refused}))
"#;

const NODE: &str = r#"
const { Webhook } = require("standardwebhooks");
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const webhook = new Webhook(given.secret);
const accepts = (body, headers) => {
    // It hands the body back as JSON, and a changed one is none: that is not what is asked here.
    try { webhook.verify(body, headers); return true; } catch (error) { return error instanceof SyntaxError; }
};
const must = (holds, what) => { if (!holds) { console.error(what); process.exit(1); } };
let accepted = 0, refused = 0;
for (const call of given.calls) {
    const body = Buffer.from(call.body, "hex");
    must(accepts(body, call.headers), "a genuine call was refused");
    accepted += 1;
    const refuse = (body, headers, what) => { must(!accepts(body, headers), what); refused += 1; };
    for (let bit = 0; bit < body.length * 8; bit += 1) {
        const changed = Buffer.from(body);
        changed[bit >> 3] ^= 1 << (bit & 7);
        refuse(changed, call.headers, "a changed body was accepted");
    }
    const [version, coded] = call.headers["webhook-signature"].split(",");
    const mac = Buffer.from(coded, "base64");
    for (let bit = 0; bit < mac.length * 8; bit += 1) {
        const changed = Buffer.from(mac);
        changed[bit >> 3] ^= 1 << (bit & 7);
        const forged = { ...call.headers, "webhook-signature": version + "," + changed.toString("base64") };
        refuse(body, forged, "a forged signature was accepted");
    }
    for (const name of ["webhook-id", "webhook-timestamp"]) {
        const value = Buffer.from(call.headers[name]);
        for (let bit = 0; bit < value.length * 8; bit += 1) {
            const changed = Buffer.from(value);
            changed[bit >> 3] ^= 1 << (bit & 7);
            refuse(body, { ...call.headers, [name]: changed.toString("latin1") }, "a changed " + name + " was accepted");
        }
    }
}
console.log(JSON.stringify({ accepted, refused }));
"#;

/// The Python that has the package: `CROCHET_PYTHON`, else the system's.
fn python() -> Option<Command> {
    let candidates =
        [std::env::var_os("CROCHET_PYTHON").map(|path| path.to_string_lossy().into_owned()), Some("python3".into())];
    let python = candidates.into_iter().flatten().find(|python| {
        let import = Command::new(python).args(["-c", "import standardwebhooks"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    });
    let mut command = Command::new(python?);
    command.args(["-c", PYTHON]);
    Some(command)
}

/// Node, where the package is in the folder `CROCHET_NODE`.
fn node() -> Option<Command> {
    let modules = PathBuf::from(std::env::var_os("CROCHET_NODE")?).join("node_modules");
    if !modules.join("standardwebhooks").is_dir() {
        return None;
    }
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules);
    let there = Command::new("node").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    there.is_ok_and(|status| status.success()).then(|| {
        command.args(["-e", NODE]);
        command
    })
}

/// Calls as two sellers got them, free ones and paid ones, each with its secret.
async fn genuine() -> Vec<Value> {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (free, free_secret) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    let (paid, paid_secret) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    for n in 0..3 {
        let body = json!({"n": n, "text": "grüße"}).to_string();
        buyer.call(&gateway, &free, &body, &[]).await.expect(200);
        let id = buyer.buy(&gateway, &paid, &body, &[]).await;
        buyer.redeem(&gateway, &paid, &body, &id).await.expect(200);
    }
    let received = seller.received();
    let of = |listing: &str, secret: &str| {
        let calls: Vec<_> = received
            .iter()
            .filter(|call| call.headers["x-crochet-listing-id"] == listing)
            .map(|call| {
                let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"]
                    .map(|name| (name, call.headers[name].clone()));
                json!({"body": hex::encode(&call.body), "headers": std::collections::HashMap::from(headers)})
            })
            .collect();
        assert_eq!(calls.len(), 3);
        json!({"secret": secret, "calls": calls})
    };
    vec![of(&free, &free_secret), of(&paid, &paid_secret)]
}

/// Hands the genuine calls to a verifier; it says what it accepted and refused, and fails where it should have done
/// the other.
async fn judge(verifier: impl Fn() -> Command) {
    for case in genuine().await {
        let mut verifier = verifier().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        verifier.stdin.take().expect("piped").write_all(case.to_string().as_bytes()).expect("written");
        let output = verifier.wait_with_output().expect("ended");
        assert!(output.status.success(), "the verifier failed");
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(found["accepted"], 3);
        assert!(found["refused"].as_u64() > Some(300), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standardwebhooks_accepts_every_call_and_no_changed_one() {
    if python().is_none() {
        eprintln!("SKIPPED: no Python with the package standardwebhooks (set CROCHET_PYTHON)");
        return;
    }
    judge(|| python().expect("it was there")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standardwebhooks_for_node_accepts_every_call_and_no_changed_one() {
    if node().is_none() {
        eprintln!("SKIPPED: no Node with the package standardwebhooks (./dev test sets CROCHET_NODE)");
        return;
    }
    judge(|| node().expect("it was there")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standardwebhooks_for_rust_accepts_every_call_and_no_changed_one() {
    for case in genuine().await {
        let webhook = Webhook::new(case["secret"].as_str().expect("text")).expect("a secret");
        for call in case["calls"].as_array().expect("calls") {
            let body = hex::decode(call["body"].as_str().expect("text")).expect("hexadecimal");
            let fields = ["webhook-id", "webhook-timestamp", "webhook-signature"]
                .map(|name| (name, call["headers"][name].as_str().expect("text").as_bytes().to_vec()));
            let accepts = |body: &[u8], fields: &[(&'static str, Vec<u8>); 3]| {
                let pairs = fields
                    .iter()
                    .map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_bytes(value).ok()?)));
                let headers: Option<HeaderMap> = pairs.collect();
                headers.is_some_and(|headers| webhook.verify(body, &headers).is_ok())
            };
            assert!(accepts(&body, &fields), "a genuine call was refused");
            let mut refused = 0;
            for bit in 0..body.len() * 8 {
                assert!(!accepts(&turned(&body, bit), &fields), "bit {bit} of the body");
                refused += 1;
            }
            for (at, (name, value)) in fields[..2].iter().enumerate() {
                for bit in 0..value.len() * 8 {
                    let mut changed = fields.clone();
                    changed[at].1 = turned(value, bit);
                    assert!(!accepts(&body, &changed), "bit {bit} of {name}");
                    refused += 1;
                }
            }
            let mac = STANDARD.decode(&fields[2].1["v1,".len()..]).expect("base64");
            for bit in 0..mac.len() * 8 {
                let mut changed = fields.clone();
                changed[2].1 = format!("v1,{}", STANDARD.encode(turned(&mac, bit))).into_bytes();
                assert!(!accepts(&body, &changed), "bit {bit} of the signature");
                refused += 1;
            }
            assert!(refused > 600, "{refused}");
        }
    }
}

/// With one bit turned round.
fn turned(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[bit / 8] ^= 1 << (bit % 8);
    changed
}
