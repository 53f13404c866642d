//! A chain of the test's own, a facilitator made of the x402 project's parts, and its unmodified clients: what the chain's
//! balances say and what our ledger says are the same, to the unit.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use loadtest::{seed::Seed, x402::Payer, x402::decode};
use serde_json::{Value, json};
use support::{Agent, Gateway, Seller};

const PAY_TO: &str = "0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc";
const BODY: &str = r#"{"task":"run"}"#;
/// A key that all the world knows, and the address that it makes.
const SECRET: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const CLIENT: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
/// What each payer begins with, in the token's smallest unit.
const MINTED: i64 = 1_000_000;

/// The folder of the packages, when all of them are there: `./dev test` prepares it.
fn packages() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("CROCHET_NODE")?);
    let modules = folder.join("node_modules");
    let wanted = ["@x402/fetch", "@x402/evm", "@x402/core", "viem", "solc"];
    (wanted.iter().all(|name| modules.join(name).is_dir()) && anvil(&folder).is_some()).then_some(folder)
}

/// The program itself: its wrapper would leave it behind.
fn anvil(folder: &Path) -> Option<PathBuf> {
    let found = std::fs::read_dir(folder.join("node_modules/@foundry-rs")).ok()?;
    found.filter_map(Result::ok).map(|entry| entry.path().join("bin/anvil")).find(|path| path.is_file())
}

struct Scene {
    chain: Child,
    node: String,
    facilitator: String,
    gateway: Gateway,
    seller: Seller,
    buyer: Agent,
    owner: Agent,
    listing: String,
    payer: Payer,
    folder: PathBuf,
    http: reqwest::Client,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The chain ends with its input, and takes its node along.
        drop(self.chain.stdin.take());
        let _ = self.chain.wait();
    }
}

impl Scene {
    async fn start(folder: PathBuf) -> Self {
        // Modules are looked for from where the file lies.
        let script = tempfile::Builder::new().suffix(".mjs").tempfile_in(&folder).expect("a file");
        std::fs::write(script.path(), include_str!("chain/chain.mjs")).expect("written");
        let payer = Payer::from_seed(Seed::stream(402, "payer with a chain", 1)).expect("payer");
        let mut chain = Command::new("node")
            .arg(script.path())
            .arg(anvil(&folder).expect("looked for before"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chain/Token.sol"))
            .args([CLIENT, payer.address()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let mut line = String::new();
        BufReader::new(chain.stdout.take().expect("piped")).read_line(&mut line).expect("ready line");
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let url = |name: &str| ready[name].as_str().expect("its URL").to_string();
        let (facilitator, node) = (url("facilitator"), url("chain"));
        let gateway = Gateway::with(&[
            ("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false"),
            ("CROCHET__PAYMENTS__DEFAULT_RAIL", "x402"),
            ("CROCHET__PAYMENTS__X402__ENABLED", "true"),
            ("CROCHET__PAYMENTS__X402__FACILITATOR_URL", &facilitator),
            ("CROCHET__PAYMENTS__X402__NETWORK", "eip155:84532"),
            ("CROCHET__PAYMENTS__X402__CHAIN_URL", &node),
            ("CROCHET__PAYMENTS__X402__PAY_TO", PAY_TO),
            // What was paid is looked for on the chain again and again.
            ("CROCHET__PAYMENTS__REREADS__PAID_AFTER", "1s,5s"),
            ("CROCHET__PAYMENTS__REREADS__AGAIN_AFTER", "200ms"),
            ("CROCHET__PAYMENTS__REREADS__EVERY", "200ms"),
            ("CROCHET__CONTROL__ROLL_UP_EVERY", "200ms"),
        ]);
        let seller = Seller::start().await;
        let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
        let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0.01").await;
        let http = reqwest::Client::new();
        Self { chain, node, facilitator, gateway, seller, buyer, owner, listing, payer, folder, http }
    }

    async fn ask(&self, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.facilitator);
        let request = if body.is_null() { self.http.get(url) } else { self.http.post(url).json(&body) };
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    /// Has the chain's node do something.
    async fn node(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self.http.post(&self.node).json(&body).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// What the payment's page shows as taken back.
    async fn taken_back(&self, payment: &str) -> Value {
        let shown = self.buyer.get(&self.gateway, &format!("/api/v1/payments/{payment}")).await;
        shown.expect(200).json["data"]["taken_back_micros"].clone()
    }

    /// What `who` has on the chain.
    async fn balance(&self, who: &str) -> i64 {
        self.ask("/_balances", Value::Null).await[who].as_i64().expect("a balance")
    }

    /// What was paid on the chain, what the buyer paid and what the seller got in our books, in millionths.
    async fn agrees(&self, paid: i64) {
        let sum =
            |rows: Vec<Value>| -> i64 { rows.iter().filter_map(|row| row["amount"]["amount_micros"].as_i64()).sum() };
        assert_eq!(self.balance(PAY_TO).await, paid, "on the chain");
        let left = self.balance(CLIENT).await + self.balance(self.payer.address()).await;
        assert_eq!(2 * MINTED - left, paid, "from the payers");
        assert_eq!(sum(self.buyer.ledger(&self.gateway).await), paid, "in the buyer's ledger");
        let fee = (paid * 49 + 500) / 1000;
        assert_eq!(sum(self.owner.ledger(&self.gateway).await), paid - fee, "in the seller's ledger");
    }

    /// Has an outside client buy one call.
    async fn client(&self, mut program: Command) -> Value {
        let url = format!("{}/api/v1/gateway/{}", self.gateway.url, self.listing);
        program.args([url.as_str(), &self.buyer.key, SECRET, BODY]);
        let output = tokio::task::spawn_blocking(move || program.output()).await.expect("ended").expect("started");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn balances_on_the_chain_and_our_ledger_agree_to_the_unit() {
    let Some(folder) = packages() else {
        eprintln!("SKIPPED: CROCHET_NODE does not name a folder with @x402/*, viem, solc and anvil; ./dev test does");
        return;
    };
    let scene = Scene::start(folder).await;
    scene.agrees(0).await;

    let script = tempfile::Builder::new().suffix(".mjs").tempfile_in(&scene.folder).expect("a file");
    std::fs::write(script.path(), include_str!("chain/pay.mjs")).expect("written");
    let mut node = Command::new("node");
    node.arg(script.path());
    let told = scene.client(node).await;
    assert_eq!((&told["status"], &told["settlement"]["success"]), (&json!(200), &json!(true)), "{told}");
    let receipt = scene.ask("/_receipt", json!({"transaction": told["settlement"]["transaction"]})).await;
    assert_eq!(receipt["status"], "success", "the transaction is on the chain: {receipt}");
    scene.agrees(10_000).await;

    let mut paid = 10_000;
    let python = std::env::var_os("CROCHET_PYTHON").map(PathBuf::from).filter(|python| {
        let mut import = Command::new(python);
        import.args(["-c", "import x402.mechanisms.evm, httpx"]).stderr(Stdio::null());
        import.status().is_ok_and(|status| status.success())
    });
    if let Some(python) = python {
        let mut program = Command::new(python);
        program.args(["-c", include_str!("chain/pay.py")]);
        let told = scene.client(program).await;
        assert_eq!(told["status"], 200, "{told}");
        paid += 10_000;
        scene.agrees(paid).await;
    } else {
        eprintln!("SKIPPED: the client in Python: CROCHET_PYTHON is no Python with x402[evm,httpx]");
    }

    if let Some(program) = std::env::var_os("CROCHET_X402_REQWEST").filter(|program| Path::new(program).is_file()) {
        let told = scene.client(Command::new(program)).await;
        assert_eq!(told["status"], 200, "{told}");
        paid += 10_000;
        scene.agrees(paid).await;
    } else {
        eprintln!("SKIPPED: the client in Rust: CROCHET_X402_REQWEST is no buyer made of x402-reqwest");
    }

    // A settlement whose answer is lost: this facilitator does not tell it again, and the chain does. The money moves
    // once, and the call is made once.
    let calls = scene.seller.calls();
    let quoted = scene.buyer.call(&scene.gateway, &scene.listing, BODY, &[]).await;
    let signature = scene.payer.pay(quoted.header("payment-required")).expect("signed");
    let headers = [("PAYMENT-SIGNATURE", signature.as_str())];
    scene.ask("/_lose", json!({"settlements": 1})).await;
    let answer = scene.buyer.call(&scene.gateway, &scene.listing, BODY, &headers).await;
    let settlement = decode(answer.expect(200).header("payment-response")).expect("a settlement");
    assert_eq!(settlement["success"], true);
    let receipt = scene.ask("/_receipt", json!({"transaction": settlement["transaction"]})).await;
    assert_eq!(receipt["status"], "success", "{receipt}");
    paid += 10_000;
    scene.agrees(paid).await;
    assert_eq!(scene.seller.calls(), calls + 1);
    // The same header again is the same answer, and nothing moves.
    let again = scene.buyer.call(&scene.gateway, &scene.listing, BODY, &headers).await;
    assert_eq!(again.expect(200).bytes, answer.bytes);

    // Who has nothing pays nothing.
    let poor = Payer::from_seed(Seed::stream(402, "a payer with nothing", 1)).expect("payer");
    let quoted = scene.buyer.call(&scene.gateway, &scene.listing, BODY, &[]).await;
    let signature = poor.pay(quoted.header("payment-required")).expect("signed");
    let refused = scene.buyer.call(&scene.gateway, &scene.listing, BODY, &[("PAYMENT-SIGNATURE", &signature)]).await;
    refused.refused(402, "PAYMENT_FAILED");
    let reason = refused.details()["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("invalid_exact_evm") || reason.contains("insufficient"), "{reason}");
    scene.agrees(paid).await;

    // The chain is reorganised: the block with the last transfer is on it no more, and what comes after it is final.
    let before = scene.node("evm_snapshot", json!([])).await;
    let quoted = scene.buyer.call(&scene.gateway, &scene.listing, BODY, &[]).await;
    let signature = scene.payer.pay(quoted.header("payment-required")).expect("signed");
    let answer = scene.buyer.call(&scene.gateway, &scene.listing, BODY, &[("PAYMENT-SIGNATURE", &signature)]).await;
    answer.expect(200);
    assert_eq!(scene.balance(PAY_TO).await, paid + 10_000);
    assert_eq!(scene.node("evm_revert", json!([before])).await, true);
    assert_eq!(scene.balance(PAY_TO).await, paid);
    scene.node("anvil_mine", json!(["0xc8", "0x3c"])).await;
    let id = quoted.payment_id();
    support::eventually("it is posted", async || scene.taken_back(&id).await == json!(10_000)).await;
    let adjusted = |rows: Vec<Value>| rows.iter().filter(|row| row["entry_type"] == "adjustment").count();
    assert_eq!(adjusted(scene.buyer.ledger(&scene.gateway).await), 1, "and nothing of the transfers that stand");
    assert_eq!(adjusted(scene.owner.ledger(&scene.gateway).await), 1);
}
