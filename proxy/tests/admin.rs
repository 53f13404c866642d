//! `crochet admin`: on a stopped store, and on a running one through the operations port.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use reqwest::Client;
use serde_json::{Value, json};
use support::{Agent, Gateway, Seller, eventually};

const BODY: &str = r#"{"task":"run"}"#;
const FIRST: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222222222222222222222222222";

/// Runs `crochet` with these keys for the store in `data`: the current one, and the one before.
fn crochet(data: &Path, keys: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crochet"));
    command.args(arguments).env("CROCHET__STORAGE__PATH", data).env("CROCHET__STORAGE__RESEAL_ROWS", "1");
    for (name, key) in ["CROCHET__STORAGE__MASTER_KEY", "CROCHET__STORAGE__PREVIOUS_MASTER_KEY"].iter().zip(keys) {
        command.env(name, key);
    }
    command.output().expect("crochet runs")
}

#[track_caller]
fn done(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn failed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs it beside a running gateway, off this test's runtime.
async fn order(gateway: &Gateway, arguments: &[&str]) -> Output {
    let (data, arguments) = (gateway.data(), arguments.iter().map(|text| (*text).to_string()).collect::<Vec<_>>());
    let run = move || crochet(&data, &[], &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.expect("ran")
}

fn record(data: &Path) -> Vec<Value> {
    let text = fs::read_to_string(data.join("admin.log")).expect("the operators' record");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_profile_and_listing_stop_at_once_and_come_back() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    buyer.call(&gateway, &listing, BODY, &[]).await.expect(200);

    let suspend = ["admin", "suspend", "listing", &listing, "--why", "spam", "--who", "alice"];
    assert_eq!(done(&order(&gateway, &suspend).await), format!("listing {listing} is suspended\n"));
    let refused = buyer.call(&gateway, &listing, BODY, &[]).await;
    assert_eq!((refused.status, refused.code()), (409, "LISTING_UNAVAILABLE"), "{}", refused.json);
    let own = owner.get(&gateway, &format!("/api/v1/listings/{listing}")).await;
    assert_eq!(own.expect(200).json["data"]["suspended_by"], "operator");
    let back = json!({"status": "active"});
    let answer = owner.send(&gateway, reqwest::Method::PATCH, &format!("/api/v1/listings/{listing}"), back).await;
    assert_eq!(answer.status, 409, "only an operator brings it back: {}", answer.json);
    done(&order(&gateway, &["admin", "resume", "listing", &listing, "--why", "appeal", "--who", "bob"]).await);
    buyer.call(&gateway, &listing, BODY, &[]).await.expect(200);

    done(&order(&gateway, &["admin", "suspend", "profile", &buyer.profile, "--why", "abuse"]).await);
    buyer.call(&gateway, &listing, BODY, &[]).await.refused(403, "PROFILE_SUSPENDED");
    buyer.get(&gateway, "/api/v1/ledger").await.refused(403, "PROFILE_SUSPENDED");
    done(&order(&gateway, &["admin", "resume", "profile", &buyer.profile, "--why", "sorted out"]).await);
    buyer.call(&gateway, &listing, BODY, &[]).await.expect(200);

    let record = record(&gateway.data());
    let line = |n: usize| (&record[n]["event"], &record[n]["who"], &record[n]["why"]);
    assert_eq!(line(0), (&json!("ordered"), &json!("alice"), &json!("spam")));
    assert_eq!(line(1), (&json!("done"), &json!("alice"), &json!("spam")));
    assert_eq!(record[0]["order"], json!({"suspend": {"kind": "listing", "id": listing}}));
    assert_eq!(record.len(), 8);
    eventually("it is in the log too", async || gateway.log().contains("who=alice why=spam")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_listing_is_as_it_was_before() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let owner = Agent::register(&gateway).await;
    let draft = json!({"status": "draft"});
    let (draft, _) = owner.list_with(&gateway, &seller.url("/ok"), "0", draft).await;
    let (taken, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    let path = format!("/api/v1/listings/{taken}");
    owner.send(&gateway, reqwest::Method::DELETE, &path, json!({})).await.expect(200);
    let stands = async |id: &str| {
        let listing = owner.get(&gateway, &format!("/api/v1/listings/{id}")).await;
        let data = &listing.expect(200).json["data"];
        (data["status"].clone(), data["suspended_by"].clone())
    };
    for (id, before) in [(&draft, (json!("draft"), json!(null))), (&taken, (json!("suspended"), json!("owner")))] {
        assert_eq!(stands(id).await, before);
        for why in ["once", "twice"] {
            done(&order(&gateway, &["admin", "suspend", "listing", id, "--why", why]).await);
            assert_eq!(stands(id).await, (json!("suspended"), json!("operator")));
        }
        let back = json!({"status": "active"});
        let path = format!("/api/v1/listings/{id}");
        owner.send(&gateway, reqwest::Method::PATCH, &path, back).await.refused(409, "CONFLICT");
        done(&order(&gateway, &["admin", "resume", "listing", id, "--why", "done"]).await);
        assert_eq!(stands(id).await, before);
    }
    let said = failed(&order(&gateway, &["admin", "resume", "listing", &taken, "--why", "x"]).await, 1);
    assert!(said.contains("only the owner"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_told_and_recorded() {
    let gateway = Gateway::start();
    let unknown = "lst-0";
    let said = failed(&order(&gateway, &["admin", "suspend", "listing", unknown, "--why", "x"]).await, 1);
    assert!(said.contains("not one of ours"), "{said}");
    let agent = Agent::register(&gateway).await;
    let said = failed(&order(&gateway, &["admin", "resume", "listing", &agent.profile, "--why", "x"]).await, 1);
    assert!(said.contains("no listing") || said.contains("not one of ours"), "{said}");
    let record = record(&gateway.data());
    assert_eq!((&record[1]["event"], record[1]["fault"].is_string()), (&json!("failed"), true));
    for arguments in [
        &["admin", "reseal"][..],
        &["admin", "reseal", "--why", "  "],
        &["admin", "suspend", "listing", "x"],
        &["admin", "suspend", "house", "x", "--why", "y"],
    ] {
        let said = failed(&order(&gateway, arguments).await, 2);
        assert!(said.contains("Usage") || said.contains("--help"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_taken_with_the_owners_token_only() {
    let gateway = Gateway::start();
    let path = gateway.data().join("operator.json");
    assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
    let token =
        serde_json::from_str::<Value>(&fs::read_to_string(&path).expect("file")).expect("JSON")["token"].clone();
    let (http, url) = (Client::new(), format!("{}/internal/admin", gateway.operations));
    let errand = json!({"who": "me", "why": "test", "order": {"reseal": {"after": null}}}).to_string();
    let post = async |url: &str, token: Option<&str>, body: &str| {
        let mut request = http.post(url).body(body.to_string());
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.expect("an answer").status().as_u16()
    };
    for wrong in [None, Some(""), Some("x"), Some(&"0".repeat(64))] {
        assert_eq!(post(&url, wrong, &errand).await, 401, "{wrong:?}");
    }
    let token = token.as_str();
    for bad in ["", "{}", "[]", &errand.replace("reseal", "explode"), &errand.replace("test", " ")] {
        assert_eq!(post(&url, token, bad).await, 400, "{bad}");
    }
    assert_eq!(post(&url, token, &errand.replace("null", "\"xyz\"")).await, 422);
    assert_eq!(post(&url, token, &errand).await, 200);
    let public = post(&format!("{}/internal/admin", gateway.url), token, &errand).await;
    assert_eq!(public, 404, "absent from the public address");
    let got = http.get(&url).send().await.expect("an answer").status().as_u16();
    assert_eq!(got, 404, "orders are posted");
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_a_rotation_is_done_while_the_gateway_runs_and_check_tells_which_key_opens_the_store() {
    let seller = Seller::start().await;
    let mut gateway = Gateway::with(&[("CROCHET__STORAGE__MASTER_KEY", FIRST)]);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    gateway.terminate();
    assert!(gateway.wait().success());
    let data = gateway.data();

    done(&crochet(&data, &[FIRST], &["check"]));
    let said = failed(&crochet(&data, &[SECOND], &["check"]), 64);
    assert!(said.contains("is sealed with master key") && said.contains("previous_master_key_file"), "{said}");
    assert!(!said.contains(FIRST) && !said.contains(SECOND));
    let said = failed(&crochet(&data, &["not-a-key"], &["check"]), 64);
    assert!(said.contains("64 hexadecimal digits") && !said.contains("not-a-key"), "{said}");
    let shown = done(&crochet(&data, &[FIRST], &["config"]));
    assert!(shown.contains("master_key = \"***\"") && !shown.contains(FIRST), "{shown}");

    gateway.set(&[("CROCHET__STORAGE__MASTER_KEY", SECOND), ("CROCHET__STORAGE__PREVIOUS_MASTER_KEY", FIRST)]);
    gateway.restart();
    buyer.call(&gateway, &listing, BODY, &[]).await.expect(200);
    let said = done(&order(&gateway, &["admin", "reseal", "--why", "yearly rotation"]).await);
    assert!(
        said.starts_with("3 rows were sealed anew"),
        "an endpoint, the challenges' and the sessions' secret: {said}"
    );
    let again = done(&order(&gateway, &["admin", "reseal", "--why", "once more"]).await);
    assert!(again.starts_with("0 rows"), "{again}");

    gateway.set(&[("CROCHET__STORAGE__MASTER_KEY", SECOND)]);
    gateway.restart();
    buyer.call(&gateway, &listing, BODY, &[]).await.expect(200);
    gateway.terminate();
    assert!(gateway.wait().success());
    // And back, on the stopped store.
    let said = done(&crochet(&data, &[FIRST, SECOND], &["admin", "reseal", "--why", "changed my mind"]));
    assert!(said.starts_with("3 rows"), "{said}");
    done(&crochet(&data, &[FIRST], &["check"]));
    failed(&crochet(&data, &[SECOND], &["check"]), 64);
}
