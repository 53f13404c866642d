//! A seller of another make accepts what we sign: the Python package `standardwebhooks`, where it is installed.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::json;
use support::{Agent, Gateway, Seller};

const VERIFIER: &str = r#"
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
        for bit in range(7):
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
        changed[at] ^= 1
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

/// The Python that has the package: `CROCHET_PYTHON`, else the system's.
fn python() -> Option<String> {
    let candidates =
        [std::env::var_os("CROCHET_PYTHON").map(|path| path.to_string_lossy().into_owned()), Some("python3".into())];
    candidates.into_iter().flatten().find(|python| {
        let import = Command::new(python).args(["-c", "import standardwebhooks"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn standardwebhooks_accepts_every_call_and_no_changed_one() {
    let Some(python) = python() else {
        eprintln!("SKIPPED: no Python with the package standardwebhooks (set CROCHET_PYTHON)");
        return;
    };
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
    for (listing, secret) in [(&free, free_secret), (&paid, paid_secret)] {
        let calls: Vec<_> = seller
            .received()
            .into_iter()
            .filter(|call| call.headers["x-crochet-listing-id"] == **listing)
            .map(|call| {
                let headers = ["webhook-id", "webhook-timestamp", "webhook-signature"]
                    .map(|name| (name, call.headers[name].clone()));
                json!({"body": hex::encode(&call.body), "headers": std::collections::HashMap::from(headers)})
            })
            .collect();
        assert_eq!(calls.len(), 3);
        let mut verifier = Command::new(&python)
            .args(["-c", VERIFIER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let case = json!({"secret": secret, "calls": calls}).to_string();
        verifier.stdin.take().expect("piped").write_all(case.as_bytes()).expect("written");
        let output = verifier.wait_with_output().expect("ended");
        assert!(output.status.success(), "the verifier failed");
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(found["accepted"], 3);
        assert!(found["refused"].as_u64() > Some(300), "{found}");
    }
}
