//! Operators' money over real sockets: the proof of the books, money that waits, refunds.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::{Value, json};
use storage::{
    Embedded, PayoutStore as _,
    embedded::{Faults, Moment},
    model::{Clock, Evidence, Micros, PaymentId, Rail},
};
use support::{Agent, Gateway, Seller, eventually};

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
    assert_eq!((&rows[0]["of"], &rows[0]["amount_micros"]), (&json!(id), &json!(1_000_000)));
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

/// Calls and is answered.
async fn bought(gateway: &Gateway, buyer: &Agent, listing: &str, body: &str) -> String {
    let id = buyer.buy(gateway, listing, body, &[]).await;
    buyer.redeem(gateway, listing, body, &id).await.expect(200);
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn sellers_are_paid_out_what_they_earned_by_a_file_and_its_references() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let why = ["--why", "monthly", "--who", "bob"];
    let step = async |arguments: &[&str]| order(&gateway, &[&["admin", "payout"], arguments, &why[..]].concat()).await;
    assert_eq!(json_of(&step(&["begin", "--json"]).await), json!([]), "nobody has earned anything");
    for n in 0..3 {
        bought(&gateway, &buyer, &listing, &format!("{{\"n\":{n}}}")).await;
    }
    let begun = done(&step(&["begin"]).await);
    let row: Vec<_> = begun.lines().nth(1).expect("a row").split(',').collect();
    assert_eq!((row[0], row[1], row[4]), ("payout", owner.profile.as_str(), "2853000"), "{begun}");
    assert!(row[6].starts_with("0x"), "to the seller's own wallet: {begun}");
    assert_eq!(done(&step(&["begin"]).await), begun, "one is open per seller");
    let stuck = json_of(&order(&gateway, &["admin", "stuck", "--json"]).await);
    assert_eq!((&stuck[0]["seller"], &stuck[0]["waits_for"]), (&json!(owner.profile), &json!("transfer")), "{stuck}");

    let file = gateway.data().join("payouts.csv");
    let path = file.to_str().expect("a path").to_string();
    let sent = begun.trim_end().to_string() + "0xfeed\n";
    fs::write(&file, &sent).expect("written");
    let said = failed(&order(&gateway, &["admin", "refund", "sent", &path, "--why", "x"]).await);
    assert!(said.contains("is a payout") && said.contains("nothing was told"), "{said}");
    fs::write(&file, format!("{sent}{}", sent.lines().nth(1).expect("a row"))).expect("written");
    assert!(failed(&step(&["sent", &path]).await).contains("twice"));
    fs::write(&file, &sent).expect("written");
    assert!(failed(&step(&["confirm", &path]).await).contains("was not sent yet"));
    assert_eq!(done(&step(&["sent", &path]).await), "1 payouts are sent\n");
    assert_eq!(json_of(&step(&["begin", "--json"]).await), json!([]), "what was sent stands in no file again");
    for _ in 0..2 {
        let told = json_of(&step(&["confirm", &path, "--json"]).await);
        assert_eq!(told, json!({"kind": "payout", "step": "confirmed", "transfers": 1}));
    }
    let report = proven(&gateway).await;
    assert_eq!((&report["accounts"]["seller"], &report["moved"]["paid_out"]), (&json!(0), &json!(2_853_000)));
    let rows = owner.ledger(&gateway).await;
    let paid = &rows[0];
    assert_eq!(
        (&paid["entry_type"], &paid["direction"], &paid["reference"]),
        (&json!("payout"), &json!("debit"), &json!("0xfeed"))
    );
    assert_eq!((&paid["amount"]["amount_micros"], &paid["listing_id"]), (&json!(2_853_000), &json!(null)));
    let sums = owner.get(&gateway, "/api/v1/ledger?summary=true").await;
    let sums = &sums.expect(200).json["data"];
    let micros = |name: &str| sums[name]["amount_micros"].clone();
    assert_eq!(
        (micros("earned"), micros("paid_out"), micros("payable")),
        (json!(2_853_000), json!(2_853_000), json!(0))
    );
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    let said = failed(&step(&["begin", "--seller", unknown]).await);
    assert!(said.contains("no active wallet"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f9_money_that_a_rail_takes_back_is_found_without_anybody_asking() {
    let gateway = Gateway::with(&[
        ("CROCHET__PAYMENTS__REREADS__PAID_AFTER", "1s"),
        ("CROCHET__PAYMENTS__REREADS__EVERY", "100ms"),
        ("CROCHET__PAYMENTS__SANDBOX__REORG_AFTER", "500ms"),
        ("CROCHET__CONTROL__ROLL_UP_EVERY", "100ms"),
    ]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let quoted = buyer.call(&gateway, &listing, BODY, &[]).await;
    let id = quoted.refused(402, "PAYMENT_REQUIRED").payment_id();
    buyer.pay_with(&gateway, &id, json!({"outcome": "reorg"})).await.expect(200);
    buyer.redeem(&gateway, &listing, BODY, &id).await.expect(200);
    let view = async || buyer.get(&gateway, &format!("/api/v1/payments/{id}")).await.json["data"].clone();
    eventually("the rail is read again", async || view().await["taken_back_micros"] == json!(1_000_000)).await;
    let view = view().await;
    assert_eq!((&view["state"], &view["paid_micros"]), (&json!("completed"), &json!(1_000_000)));
    let row = &owner.ledger(&gateway).await[0];
    assert_eq!((&row["entry_type"], &row["direction"]), (&json!("adjustment"), &json!("debit")), "the seller gives it");
    let row = &buyer.ledger(&gateway).await[0];
    assert_eq!((&row["entry_type"], &row["direction"]), (&json!("adjustment"), &json!("credit")), "the buyer has it");
    let report = proven(&gateway).await;
    assert_eq!((&report["accounts"]["rail:sandbox"], &report["moved"]["taken_back"]), (&json!(0), &json!(1_000_000)));
    let begun = order(&gateway, &["admin", "payout", "begin", "--json", "--why", "monthly"]).await;
    assert_eq!(json_of(&begun), json!([]), "nothing is left to be paid out");
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_comes_after_the_offer_ended_is_recorded_though_nobody_asks() {
    let gateway = Gateway::with(&[
        ("CROCHET__PAYMENTS__QUOTE_TTL", "1s"),
        ("CROCHET__PAYMENTS__WINDOW", "3s"),
        ("CROCHET__PAYMENTS__REREADS__UNPAID_AFTER", "0s,500ms,1s"),
        ("CROCHET__PAYMENTS__REREADS__EVERY", "100ms"),
    ]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let paid = buyer.buy(&gateway, &listing, BODY, &[]).await;
    let quoted = buyer.call(&gateway, &listing, r#"{"other":1}"#, &[]).await;
    let short = quoted.refused(402, "PAYMENT_REQUIRED").payment_id();
    buyer.pay_with(&gateway, &short, json!({"amount_micros": 400_000})).await.expect(200);
    eventually("it is found", async || state(&gateway, &buyer, &paid).await == "settled").await;
    eventually("too little is owed", async || state(&gateway, &buyer, &short).await == "owed").await;
    eventually("its window ends", async || state(&gateway, &buyer, &paid).await == "owed").await;
    assert_eq!(seller.calls(), 0, "nobody asked for the call");
    let report = proven(&gateway).await;
    assert_eq!(report["accounts"]["owed"], json!(1_400_000));
}

/// The store of a gateway that has ended.
fn settings(data: &Path) -> config::Storage {
    let path = ("CROCHET__STORAGE__PATH".to_string(), data.display().to_string());
    config::Config::from_parts(None, [path]).expect("good").storage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payout_whose_maker_died_over_adding_it_up_is_listed_as_a_payout_and_gone_on_with() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    bought(&gateway, &buyer, &listing, BODY).await;
    gateway.terminate();
    assert!(gateway.wait().success());
    let data = gateway.data();
    // Two steps: what it takes is fixed, and added up. The second one never comes.
    let steps = Arc::new(AtomicU32::new(u32::MAX));
    let left = steps.clone();
    let interruption = move |moment: Moment| {
        let is_over = moment == Moment::BeforeCommit && left.fetch_sub(1, Ordering::SeqCst) == 0;
        if is_over { Err("it died".to_string()) } else { Ok(()) }
    };
    let faults = Faults { interruption: Some(Arc::new(interruption)), ..Faults::default() };
    let store = Embedded::open_with(&settings(&data), Clock::system(), faults).expect("the store opens");
    steps.store(1, Ordering::SeqCst);
    let seller = owner.profile.parse().expect("an id");
    store.payout_open(seller, "0xto".into()).await.expect_err("it died over adding it up");
    drop(store);
    let stuck: Value = serde_json::from_str(&done(&crochet(&data, &["admin", "stuck", "--json"]))).expect("JSON");
    assert_eq!((&stuck[0]["seller"], &stuck[0]["waits_for"]), (&json!(owner.profile), &json!("payout")), "{stuck}");
    assert!(stuck[0]["next"].as_str().is_some_and(|next| next.contains("payout begin --seller")), "{stuck}");
    let arguments = ["admin", "payout", "begin", "--seller", &owner.profile, "--json", "--why", "go on"];
    let begun: Value = serde_json::from_str(&done(&crochet(&data, &arguments))).expect("JSON");
    assert_eq!(begun[0]["amount_micros"], 951_000, "{begun}");
    let stuck: Value = serde_json::from_str(&done(&crochet(&data, &["admin", "stuck", "--json"]))).expect("JSON");
    assert_eq!(stuck[0]["waits_for"], "transfer", "{stuck}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_tells_of_money_that_no_rail_has_seen_and_exits_1() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), PRICE).await;
    let id = buyer.call(&gateway, &listing, BODY, &[]).await.payment_id();
    gateway.terminate();
    assert!(gateway.wait().success());
    let data = gateway.data();
    done(&crochet(&data, &["admin", "audit"]));
    let store = storage::open(&settings(&data), Clock::system()).expect("the store opens");
    let payment: PaymentId = id.parse().expect("an id");
    let lie = Evidence {
        proof_key: "a lie".into(),
        rail: Rail::Sandbox,
        reference: "none".into(),
        amount: Micros(1_000_000),
        recorded_at: Clock::system().now(),
    };
    store.payment_settle(payment, lie, None).await.expect("booked");
    store.close().await.expect("closed");
    drop(store);
    let output = crochet(&data, &["admin", "audit", "--json"]);
    assert!(failed(&output).contains("1 discrepancies"), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["proven"], &report["discrepancies"][0]["payment"]), (&json!(false), &json!(id)), "{report}");
    let told = report["discrepancies"][0]["what"].as_str().expect("what");
    assert!(told.contains("the sandbox was paid 0 micros and 1000000 are booked"), "{told}");
    let text = crochet(&data, &["admin", "audit"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains(&format!("WRONG {id}")), "{text:?}");
}
