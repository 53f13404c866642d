//! Operators' money over real sockets: the proof of the books, money that waits, refunds.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use support::{Agent, Gateway, Seller};

const BODY: &str = r#"{"task":"run"}"#;
const PRICE: &str = "1.00";

fn crochet(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crochet"));
    command.args(arguments).env("CROCHET__STORAGE__PATH", data).env("CROCHET__TELEMETRY__LOG", "error");
    command.output().expect("crochet runs")
}

/// Runs it beside a running gateway, off this test's runtime.
async fn order(gateway: &Gateway, arguments: &[&str]) -> Output {
    let (data, arguments) = (gateway.data(), arguments.iter().map(|text| (*text).to_string()).collect::<Vec<_>>());
    let run = move || crochet(&data, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.expect("ran")
}

#[track_caller]
fn done(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_str(&done(output)).expect("JSON")
}

/// The proof: nothing may be wrong.
async fn proven(gateway: &Gateway) -> Value {
    let report = json_of(&order(gateway, &["admin", "audit", "--json"]).await);
    assert_eq!((&report["proven"], &report["discrepancies"]), (&json!(true), &json!([])), "{report}");
    report
}

/// A payment whose money is the buyer's again: its listing went away after it was paid.
async fn owed(gateway: &Gateway, owner: &Agent, buyer: &Agent, seller: &Seller) -> String {
    let (listing, _) = owner.list(gateway, &seller.url("/ok"), PRICE).await;
    let id = buyer.buy(gateway, &listing, BODY, &[]).await;
    let path = format!("/api/v1/listings/{listing}");
    owner.send(gateway, reqwest::Method::DELETE, &path, json!({})).await.expect(200);
    buyer.redeem(gateway, &listing, BODY, &id).await.refused(409, "PAYMENT_CLOSED");
    id
}

async fn state(gateway: &Gateway, buyer: &Agent, id: &str) -> Value {
    buyer.get(gateway, &format!("/api/v1/payments/{id}")).await.expect(200).json["data"]["state"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_buyer_is_owed_is_seen_refunded_and_proven_while_the_gateway_runs() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    assert_eq!(done(&order(&gateway, &["admin", "stuck"]).await), "no money waits\n");
    let id = owed(&gateway, &owner, &buyer, &seller).await;
    let stuck = json_of(&order(&gateway, &["admin", "stuck", "--json"]).await);
    assert_eq!((&stuck[0]["payment"], &stuck[0]["waits_for"]), (&json!(id), &json!("refund")), "{stuck}");
    assert!(stuck[0]["next"].as_str().is_some_and(|next| next.contains("crochet admin refund begin")), "{stuck}");

    let why = ["--why", "listing gone", "--who", "alice"];
    let file = gateway.data().join("transfers.csv");
    let path = file.to_str().expect("a path").to_string();
    let begun = done(&order(&gateway, &[&["admin", "refund", "begin"][..], &why[..]].concat()).await);
    let again = done(&order(&gateway, &[&["admin", "refund", "begin"][..], &why[..]].concat()).await);
    assert_eq!(begun, again, "told again it is the same refund: a lost file is no second transfer");
    assert_eq!(begun.lines().count(), 2, "{begun}");
    assert_eq!(state(&gateway, &buyer, &id).await, "refunding");

    let told =
        async |step: &str| order(&gateway, &[&["admin", "refund", step, path.as_str()][..], &why[..]].concat()).await;
    fs::write(&file, &begun).expect("written");
    assert!(failed(&told("sent").await).contains("a reference is"), "without references nothing is told");
    assert!(failed(&told("confirm").await).contains("was not sent yet"));
    let sent = begun.trim_end().to_string() + "0xabc\n";
    fs::write(&file, &sent).expect("written");
    assert_eq!(done(&told("sent").await), "1 refunds are sent\n");
    assert_eq!(done(&told("sent").await), "1 refunds are sent\n", "told twice it changes nothing");
    fs::write(&file, sent.replace("0xabc", "0xdef")).expect("written");
    assert!(failed(&told("sent").await).contains("another reference"));
    fs::write(&file, &sent).expect("written");
    let waits = json_of(&order(&gateway, &["admin", "stuck", "--json"]).await);
    assert_eq!(waits[0]["waits_for"], "confirmation");
    assert_eq!(done(&told("confirm").await), "1 refunds are confirmed\n");
    assert_eq!(state(&gateway, &buyer, &id).await, "refunded");

    let report = proven(&gateway).await;
    assert_eq!((&report["accounts"]["rail:sandbox"], &report["moved"]["refunded"]), (&json!(0), &json!(1_000_000)));
    let rows = buyer.ledger(&gateway).await;
    let kinds: Vec<_> = rows.iter().map(|row| (row["entry_type"].clone(), row["direction"].clone())).collect();
    let row = |kind: &str, direction: &str| (json!(kind), json!(direction));
    assert_eq!(
        kinds,
        [row("adjustment", "debit"), row("adjustment", "credit"), row("gateway_payment", "debit")],
        "newest first: it went back, it was owed, it was paid"
    );
    let record = fs::read_to_string(gateway.data().join("admin.log")).expect("the operators' record");
    assert!(record.lines().filter(|line| line.contains("alice") && line.contains("listing gone")).count() >= 8);
    assert!(!record.contains("books"), "a look is no action");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_done_on_a_stopped_store_and_in_json() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let id = owed(&gateway, &owner, &buyer, &seller).await;
    gateway.terminate();
    assert!(gateway.wait().success());
    let data = gateway.data();
    let why = ["--why", "asked for it"];
    let begun = done(&crochet(&data, &[&["admin", "refund", "begin", "--payment", &id, "--json"][..], &why].concat()));
    let mut rows: Value = serde_json::from_str(&begun).expect("JSON");
    assert_eq!((&rows[0]["payment"], &rows[0]["amount_micros"]), (&json!(id), &json!(1_000_000)));
    rows[0]["reference"] = json!("0x1");
    let file = data.join("transfers.json");
    fs::write(&file, rows.to_string()).expect("written");
    for step in ["sent", "confirm"] {
        let path = file.to_str().expect("a path");
        done(&crochet(&data, &[&["admin", "refund", step, path][..], &why].concat()));
    }
    let text = done(&crochet(&data, &["admin", "audit"]));
    assert!(text.contains("settled = completed + in suspense + owed + refunded + taken back"), "{text}");
    gateway.restart();
    assert_eq!(state(&gateway, &buyer, &id).await, "refunded");
    proven(&gateway).await;
    let unknown = "pay_00000000000000000000000000000000";
    let said = failed(&order(&gateway, &["admin", "refund", "begin", "--payment", unknown, "--why", "x"]).await);
    assert!(said.contains("there is no payment"), "{said}");
}
