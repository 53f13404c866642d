//! The documents hold what they promise: their commands run as they are, their examples verify what the gateway signs,
//! and its answers are as the OpenAPI document says.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use support::{Agent, Gateway, Seller};

/// Reads a document as an agent does.
async fn read(gateway: &Gateway, path: &str) -> String {
    reqwest::get(format!("{}{path}", gateway.url)).await.expect("an answer").text().await.expect("text")
}

/// What stands in the text's blocks of shell, top to bottom.
fn commands(text: &str) -> String {
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks.collect::<Vec<_>>().join("\n\n")
}

/// Runs commands in a plain shell and an empty folder; what they leave running ends with them.
fn run(commands: &str, folder: &Path, more: &[(&str, &str)]) -> Output {
    let script = format!("set -euo pipefail\ntrap 'jobs -p | xargs -r kill' EXIT\n{commands}\n");
    std::fs::write(folder.join("script.sh"), script).expect("written");
    let mut command = Command::new("bash");
    command.args(["--norc", "script.sh"]).current_dir(folder).stdin(Stdio::null()).env("no_proxy", "*");
    command.envs(more.iter().copied()).output().expect("bash runs")
}

/// What the commands need besides a shell; without it the test says so.
fn has_tools() -> bool {
    let has = |program: &str, argument: &str| {
        Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
    };
    let all = has("bash", "--version")
        && has("curl", "--version")
        && has("openssl", "version")
        && has("python3", "--version");
    if !all {
        eprintln!("SKIPPED: bash, curl, openssl and python3 are what the documents' commands need");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_skill_end_in_a_paid_call() {
    if !has_tools() {
        return;
    }
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let owner = Agent::register(&gateway).await;
    // A stranger's example that would make curl send a file of the reader's.
    owner.list_with(&gateway, &seller.url("/ok"), "0.05", json!({ "example_request": "@wallet.pem" })).await;
    let (folder, skill) = (tempfile::tempdir().expect("a folder"), read(&gateway, "/SKILL.md").await);
    let output = run(&commands(&skill), folder.path(), &[]);
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{errors}");
    assert_eq!(seller.calls(), 1, "{out}");
    let received = &seller.received()[0];
    assert_eq!(received.headers["x-crochet-charged-micros"], "50000");
    assert_eq!(String::from_utf8_lossy(&received.body), "\"@wallet.pem\"");
    assert!(out.contains("\"amount_micros\": 50000"), "{out}");
    // The ledger that its last command prints has the payment.
    assert!(out.contains("\"spent\":{\"amount_cents\":5,\"amount_micros\":50000"), "{out}");
    let sold = owner.ledger(&gateway).await;
    assert_eq!(sold.len(), 1, "{sold:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_onboarding_end_in_a_listing_that_answers() {
    if !has_tools() {
        return;
    }
    let gateway = Gateway::start();
    let (folder, text) = (tempfile::tempdir().expect("a folder"), read(&gateway, "/seller-onboarding").await);
    // Free a moment ago; whoever takes it meanwhile makes the seller fail, and the test with it.
    let port = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address").port().to_string();
    // A buyer's call at the end, while the seller that the commands started still runs.
    let buyer = Agent::register(&gateway).await;
    let call = format!(
        "\nLAST=$(curl -sS \"$CROCHET/gateway/$LISTING\" -H 'Authorization: Bearer {0}' -H 'X-Crochet-Origin-Currency: SOL' \
         -H 'Content-Type: application/json' -d '{{\"input\": \"four words it has\"}}')\n\
         PAYMENT=$(printf '%s' \"$LAST\" | field data.payment.relay_request_id)\n\
         curl -sS -X POST \"$CROCHET/sandbox/payments/$PAYMENT/pay\" -H 'Authorization: Bearer {0}' > paid.json\n\
         curl -sS \"$CROCHET/gateway/$LISTING\" -H 'Authorization: Bearer {0}' -H \"X-Crochet-Relay-Request-Id: $PAYMENT\" \
         -H 'Content-Type: application/json' -d '{{\"input\": \"four words it has\"}}' > bought.json\n",
        buyer.key
    );
    let output = run(&format!("{}{call}", commands(&text)), folder.path(), &[("PORT", &port)]);
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = std::fs::read_to_string(folder.path().join("seller.log")).unwrap_or_default();
    assert!(output.status.success(), "{out}\n{errors}\n{log}");
    assert!(out.contains("true\n{\"words\": 3}"), "{out}\n{errors}\n{log}");
    let bought = std::fs::read_to_string(folder.path().join("bought.json")).expect("an answer");
    let bought: Value = serde_json::from_str(&bought).expect("JSON");
    assert_eq!(bought["data"]["seller_response"]["words"], 4, "{bought}");
}

/// Calls of one listing as a seller received them, and its secrets: free, paid, and signed with two secrets at once.
struct Calls {
    secret: String,
    received: Vec<support::seller::Received>,
    now: u64,
    _gateway: Gateway,
}

async fn calls() -> Calls {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, secret) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    for n in 0..2 {
        let body = json!({ "n": n, "text": "grüße" }).to_string();
        let id = buyer.buy(&gateway, &listing, &body, &[]).await;
        buyer.redeem(&gateway, &listing, &body, &id).await.expect(200);
        let path = format!("/api/v1/listings/{listing}/endpoint/rotate-secret");
        owner.send(&gateway, reqwest::Method::POST, &path, json!({})).await.expect(200);
    }
    let received = seller.received();
    assert_eq!(received.len(), 2);
    let now = received[1].headers["x-crochet-timestamp"].parse().expect("seconds");
    Calls { secret, received, now, _gateway: gateway }
}

/// One question to a verifier, and the right answer.
fn cases(calls: &Calls) -> Vec<(bool, Value)> {
    let foreign = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let mut cases = Vec::new();
    for call in &calls.received {
        let case = |secrets: &[&str], headers: &Value, body: &[u8], now: u64| json!({ "secrets": secrets, "headers": headers, "body": hex::encode(body), "now": now });
        let headers = json!(call.headers);
        let (own, body, now) = (calls.secret.as_str(), call.body.as_slice(), calls.now);
        cases.push((true, case(&[own], &headers, body, now)));
        cases.push((true, case(&[foreign, own], &headers, body, now)));
        for secrets in [&[][..], &[foreign], &["whsec_"], &[""]] {
            cases.push((false, case(secrets, &headers, body, now)));
        }
        cases.push((false, case(&[own], &headers, body, now + 302)));
        cases.push((false, case(&[own], &headers, body, now - 302)));
        for at in 0..body.len() {
            let mut changed = body.to_vec();
            changed[at] ^= 1;
            cases.push((false, case(&[own], &headers, &changed, now)));
        }
        for name in ["request-id", "listing-id", "buyer-id", "attempt", "charged-micros", "timestamp", "signature"] {
            let mut changed = headers.clone();
            let value = changed[format!("x-crochet-{name}")].as_str().expect("there").to_string();
            // Half of a signature is none: what is left when the part over the context goes.
            let other = if name == "signature" { value.replace("v2,", "v3,") } else { format!("{value}1") };
            changed[format!("x-crochet-{name}")] = other.into();
            cases.push((false, case(&[own], &changed, body, now)));
            changed.as_object_mut().expect("an object").remove(&format!("x-crochet-{name}"));
            cases.push((false, case(&[own], &changed, body, now)));
        }
    }
    cases
}

/// Asks a verifier that reads all cases from standard input and writes its answers as one JSON list.
#[track_caller]
fn judge(command: &mut Command, cases: &[(bool, Value)]) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the verifier starts");
    let questions = Value::from(cases.iter().map(|(_, case)| case.clone()).collect::<Vec<_>>()).to_string();
    let mut input = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || input.write_all(questions.as_bytes()));
    let output = child.wait_with_output().expect("ended");
    writer.join().expect("a thread").expect("written");
    assert!(output.status.success(), "the verifier failed");
    let answers: Vec<bool> = serde_json::from_slice(&output.stdout).expect("a list");
    let right: Vec<bool> = cases.iter().map(|(is_good, _)| *is_good).collect();
    let differ = answers.iter().zip(&right).position(|(answer, right)| answer != right);
    assert!(answers.len() == right.len() && differ.is_none(), "{:?}", differ.map(|at| &cases[at]));
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../control-api/src/docs/examples")
}

fn copied(folder: &Path, name: &str, to: &str) {
    std::fs::copy(examples().join(name), folder.join(to)).expect("copied");
}

#[path = "../../control-api/src/docs/examples/verify.rs"]
mod verify;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_rust_verifies_every_call_and_no_changed_one() {
    for (is_good, case) in cases(&calls().await) {
        let secrets: Vec<&str> = case["secrets"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let header = |name: &str| case["headers"][name].as_str().unwrap_or_default().to_string();
        let body = hex::decode(case["body"].as_str().expect("text")).expect("hex");
        assert_eq!(verify::verify(&secrets, header, &body, case["now"].as_u64().expect("seconds")), is_good, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_python_verifies_every_call_and_no_changed_one() {
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no python3");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    copied(folder.path(), "verify.py", "verify.py");
    let ask = "import json, sys\nfrom verify import verify\nprint(json.dumps([verify(case['secrets'], case['headers'], \
               bytes.fromhex(case['body']), case['now']) for case in json.load(sys.stdin)]))";
    judge(Command::new("python3").args(["-c", ask]).current_dir(folder.path()), &cases(&calls().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_typescript_verifies_every_call_and_no_changed_one() {
    let Some(node) = std::env::var_os("CROCHET_NODE").map(PathBuf::from) else {
        eprintln!("SKIPPED: CROCHET_NODE does not name a folder with TypeScript; ./dev test does");
        return;
    };
    let compiler = node.join("node_modules/.bin/tsc");
    if !compiler.exists() {
        eprintln!("SKIPPED: no TypeScript in {}", node.display());
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    copied(folder.path(), "verify.ts", "verify.ts");
    std::fs::write(folder.path().join("package.json"), "{\"type\": \"module\"}").expect("written");
    let ask = "import { readFileSync } from \"node:fs\";\nimport { verify } from \"./verify.js\";\n\
               type Case = { secrets: string[]; headers: Record<string, string>; body: string; now: number };\n\
               const cases: Case[] = JSON.parse(readFileSync(0, \"utf8\"));\n\
               const judged = cases.map((one) => verify(one.secrets, one.headers, Buffer.from(one.body, \"hex\"), one.now));\n\
               console.log(JSON.stringify(judged));\n";
    std::fs::write(folder.path().join("ask.ts"), ask).expect("written");
    let built = Command::new(&compiler)
        .args([
            "--strict",
            "--target",
            "es2022",
            "--module",
            "nodenext",
            "--moduleResolution",
            "nodenext",
            "--types",
            "node",
        ])
        .arg("--typeRoots")
        .arg(node.join("node_modules/@types"))
        .args(["verify.ts", "ask.ts"])
        .current_dir(folder.path())
        .output()
        .expect("the compiler runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stdout));
    judge(Command::new("node").arg("ask.js").current_dir(folder.path()), &cases(&calls().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_go_verifies_every_call_and_no_changed_one() {
    if !Command::new("go").arg("version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: no Go");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    copied(folder.path(), "verify.go", "verify.go");
    let ask = "package main\n\nimport (\n\t\"encoding/hex\"\n\t\"encoding/json\"\n\t\"net/http\"\n\t\"os\"\n)\n\n\
        func main() {\n\tvar cases []struct {\n\t\tSecrets []string\n\t\tHeaders map[string]string\n\t\tBody string\n\t\tNow int64\n\t}\n\
        \tif err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {\n\t\tpanic(err)\n\t}\n\tjudged := []bool{}\n\
        \tfor _, one := range cases {\n\t\theaders := http.Header{}\n\t\tfor name, value := range one.Headers {\n\t\t\theaders.Set(name, value)\n\t\t}\n\
        \t\tbody, _ := hex.DecodeString(one.Body)\n\t\tjudged = append(judged, Verify(one.Secrets, headers.Get, body, one.Now))\n\t}\n\
        \tjson.NewEncoder(os.Stdout).Encode(judged)\n}\n";
    std::fs::write(folder.path().join("ask.go"), ask).expect("written");
    let mut go = Command::new("go");
    // The standard library is all that it needs: nothing is fetched.
    go.args(["run", "verify.go", "ask.go"]).current_dir(folder.path()).env("GOFLAGS", "-mod=mod").env("GOPROXY", "off");
    judge(&mut go, &cases(&calls().await));
}

fn verify_signature(folder: &Path, call: &[u8], more: &[&str]) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_crochet"))
        .arg("verify-signature")
        .args(["--secret-file", "secret"])
        .args(more)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("crochet starts");
    // One that refuses its arguments does not read.
    let _ = child.stdin.take().expect("piped").write_all(call);
    let output = child.wait_with_output().expect("ended");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a code"), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_signature_says_whether_a_saved_call_is_good() {
    let (calls, folder) = (calls().await, tempfile::tempdir().expect("a folder"));
    std::fs::write(folder.path().join("secret"), format!("{}\n", calls.secret)).expect("written");
    let call = &calls.received[0];
    let head: String = call.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let whole = [b"POST /ok HTTP/1.1\r\n", head.as_bytes(), b"\r\n", &call.body].concat();
    let ask = |call: &[u8], more: &[&str]| verify_signature(folder.path(), call, more);
    let good = ask(&whole, &[]);
    assert_eq!(good.0, 0, "{}", good.1);
    assert!(good.1.contains(&call.headers["x-crochet-request-id"]), "{}", good.1);
    std::fs::write(folder.path().join("call.http"), &whole).expect("written");
    assert_eq!(ask(b"", &["call.http"]).0, 0);
    let changed = [&whole[..whole.len() - 1], b" "].concat();
    assert_eq!(ask(&changed, &[]), (1, "not good: no signature is that of this secret over these bytes\n".into()));
    let (code, said) = ask(&whole, &["--at", "1"]);
    assert!(code == 1 && said.contains("more than 300"), "{said}");
    assert_eq!(ask(&whole, &["--at", "1", "--tolerance", "99999999999"]).0, 0);
    assert_eq!(ask(b"no call at all", &[]).0, 2);
    assert_eq!(ask(b"", &["not-there.http"]).0, 2);
    std::fs::write(folder.path().join("secret"), "hush\n").expect("written");
    let (code, said) = ask(&whole, &[]);
    assert!(code == 2 && !said.contains("hush"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_answers_are_as_the_openapi_document_says() {
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0.01").await;
    let (broken, _) = owner.list(&gateway, &seller.url("/status/500"), "0").await;
    let (text, _) = owner.list(&gateway, &seller.url("/text"), "0").await;
    let path = format!("/api/v1/gateway/{listing}");
    let sol: &[(&str, &str)] = &[("X-Crochet-Origin-Currency", "SOL")];
    let described = async |listing: &str, body: &str, headers: &[(&str, &str)]| {
        let answer = buyer.call(&gateway, listing, body, headers).await;
        answer.is_described("POST", &path);
        answer
    };
    described(&listing, "{}", &[("X-Crochet-Origin-Currency", "ETH")])
        .await
        .refused(400, "PAYMENT_ROUTE_MINIMUM_NOT_MET");
    described(&listing, "{}", &[("X-Crochet-Origin-Currency", "XYZ")]).await.refused(422, "VALIDATION_FAILED");
    described(&listing, "{", sol).await.refused(400, "INVALID_JSON");
    described("nothing-like-it", "{}", sol).await.refused(404, "NOT_FOUND");
    let payment = described(&listing, "{}", sol).await.refused(402, "PAYMENT_REQUIRED").payment_id();
    let paid: &[(&str, &str)] = &[("X-Crochet-Relay-Request-Id", &payment)];
    described(&listing, "{}", paid).await.expect(202);
    let status = buyer.get(&gateway, &format!("/api/v1/payments/{payment}")).await;
    status.expect(200).is_described("GET", "/api/v1/payments/pay");
    buyer.pay_with(&gateway, &payment, json!({})).await.expect(200);
    described(&listing, "{\"other\": 1}", paid).await.refused(409, "PAYMENT_REQUEST_MISMATCH");
    let first = described(&listing, "{}", paid).await;
    first.expect(200);
    assert_eq!(described(&listing, "{}", paid).await.expect(200).bytes, first.bytes);
    described(&broken, "{}", &[]).await.refused(502, "SELLER_ERROR");
    described(&text, "{}", &[]).await;
    let stranger = owner.with_key("am_k_nonsense").call(&gateway, &listing, "{}", &[]).await;
    stranger.refused(401, "UNAUTHENTICATED").is_described("POST", &path);
    owner.call(&gateway, &listing, "{}", sol).await.refused(403, "SELF_CALL_FORBIDDEN").is_described("POST", &path);
    for path in ["/api/v1/gateway-requests", "/api/v1/ledger", "/api/v1/ledger?summary=true", "/openapi.json"] {
        let answer = buyer.get(&gateway, path).await;
        answer.expect(200).is_described("GET", path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_whose_rail_was_switched_off_waits_and_is_not_lost() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let payment = buyer.buy(&gateway, &listing, "{}", &[]).await;
    gateway.set(&[("CROCHET__PAYMENTS__SANDBOX__ENABLED", "false")]);
    gateway.restart();
    let refused = buyer.redeem(&gateway, &listing, "{}", &payment).await;
    refused.refused(503, "PAYMENT_PROVIDER_UNAVAILABLE");
    refused.is_described("POST", "/api/v1/gateway/x");
    gateway.set(&[]);
    gateway.restart();
    buyer.redeem(&gateway, &listing, "{}", &payment).await.expect(200);
    assert_eq!(seller.calls(), 1);
}
