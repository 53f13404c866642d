//! Unmodified clients of the x402 project, and one of another make, buy a call: what they sign, send and understand is theirs, the gateway and the
//! facilitator are ours.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use loadtest::{facilitator::Facilitator, x402::decode};
use serde_json::{Value, json};
use support::{Agent, Gateway, Seller};

const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
const BODY: &str = r#"{"task":"run"}"#;
/// A key that all the world knows, and the address that it makes.
const SECRET: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const PAYER: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";

/// Has `client` buy one call, and looks at what it was told.
async fn buys(mut client: Command) -> Value {
    let facilitator = Facilitator::start(([127, 0, 0, 1], 0).into()).await.expect("facilitator");
    let gateway = Gateway::with(&[
        ("CROCHET__PAYMENTS__X402__ENABLED", "true"),
        ("CROCHET__PAYMENTS__X402__FACILITATOR_URL", &facilitator.url()),
        ("CROCHET__PAYMENTS__X402__NETWORK", "eip155:84532"),
        ("CROCHET__PAYMENTS__X402__PAY_TO", PAY_TO),
    ]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let example = json!({"example_request": {"task": "run"}, "example_response": {"result": "done"}});
    let (listing, _) = owner.list_with(&gateway, &seller.url("/ok"), "0.01", example).await;
    client.args([format!("{}/api/v1/gateway/{listing}", gateway.url).as_str(), &buyer.key, SECRET, BODY]);
    let output = tokio::task::spawn_blocking(move || client.output()).await.expect("ended").expect("started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["status"], 200, "{told} {complaint}");
    assert_eq!(told["body"]["data"]["charged_amount"]["amount_micros"], 10_000);
    assert_eq!((seller.calls(), buyer.ledger(&gateway).await.len()), (1, 1));
    let books = reqwest::get(format!("{}/_books", facilitator.url())).await.expect("told");
    let books: Value = books.json().await.expect("JSON");
    let transfers = books["transfers"].as_array().expect("transfers");
    assert_eq!((transfers.len(), &transfers[0]["from"], &transfers[0]["value"]), (1, &json!(PAYER), &json!(10_000)));
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn the_projects_fetch_buys_a_call() {
    let folder = std::env::var_os("CROCHET_NODE").map(PathBuf::from);
    let Some(folder) = folder.filter(|folder| folder.join("node_modules/@x402/fetch").is_dir()) else {
        eprintln!("SKIPPED: CROCHET_NODE does not name a folder with @x402/fetch and @x402/evm; ./dev test does");
        return;
    };
    // Modules are looked for from where the file lies.
    let script = tempfile::Builder::new().suffix(".mjs").tempfile_in(&folder).expect("a file");
    std::fs::write(script.path(), include_str!("chain/pay.mjs")).expect("written");
    let mut node = Command::new("node");
    node.arg(script.path());
    let told = buys(node).await;
    assert_eq!(told["settlement"]["success"], true);
    assert_eq!(told["settlement"]["payer"].as_str().map(str::to_lowercase).as_deref(), Some(PAYER));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_projects_python_client_buys_a_call() {
    let python = std::env::var_os("CROCHET_PYTHON").map(PathBuf::from).filter(|python| {
        let import =
            Command::new(python).args(["-c", "import x402.mechanisms.evm, httpx"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    });
    let Some(python) = python else {
        eprintln!("SKIPPED: CROCHET_PYTHON is no Python with x402[evm,httpx]; ./dev test sets it");
        return;
    };
    let mut command = Command::new(python);
    command.args(["-c", include_str!("chain/pay.py")]);
    let told = buys(command).await;
    let settlement = decode(told["receipt"].as_str().expect("PAYMENT-RESPONSE")).expect("a settlement");
    assert_eq!((&settlement["success"], &settlement["network"]), (&json!(true), &json!("eip155:84532")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_of_another_make_buys_a_call() {
    let program = std::env::var_os("CROCHET_X402_REQWEST").map(PathBuf::from).filter(|program| program.is_file());
    let Some(program) = program else {
        eprintln!("SKIPPED: CROCHET_X402_REQWEST is no buyer made of x402-reqwest; ./dev test builds one");
        return;
    };
    let told = buys(Command::new(program)).await;
    let settlement = decode(told["receipt"].as_str().expect("PAYMENT-RESPONSE")).expect("a settlement");
    assert_eq!((&settlement["success"], &settlement["network"]), (&json!(true), &json!("eip155:84532")));
}
