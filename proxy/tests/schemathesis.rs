//! The OpenAPI document before somebody else's judge: Schemathesis makes up requests from it, good and bad, and looks
//! for answers that it does not describe, and for faults. `CROCHET_SCHEMATHESIS` names the program; `./dev test` installs
//! it. A short run always, ten minutes with `CROCHET_NIGHTLY`.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{path::Path, process::Command};

use reqwest::Method;
use serde_json::json;
use support::{Agent, Gateway, Seller};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance";

/// What is there to be found: an agent that sells, buys and reviews, and what its ids are by the paths they go into.
async fn furnish(gateway: &Gateway, seller: &Seller) -> (Agent, Vec<(&'static str, String)>) {
    let (agent, other) = (Agent::register(gateway).await, Agent::register(gateway).await);
    let (own, _) = agent.list(gateway, &seller.url("/ok"), "0.05").await;
    let (foreign, _) = other.list(gateway, &seller.url("/ok"), "0.01").await;
    let sol: &[(&str, &str)] = &[("X-Crochet-Origin-Currency", "SOL")];
    let sold = other.buy(gateway, &own, "{}", &[("X-Crochet-Origin-Currency", "SOL")]).await;
    other.redeem(gateway, &own, "{}", &sold).await.expect(200);
    let bought = agent.buy(gateway, &foreign, "{}", sol).await;
    let call = agent.redeem(gateway, &foreign, "{}", &bought).await;
    let call = call.expect(200).json["data"]["request_id"].as_str().expect("an id").to_string();
    let review = json!({ "accuracy_rating": 5, "reliability_rating": 4, "value_rating": 3, "title": "Good" });
    other.send(gateway, Method::POST, &format!("/api/v1/reviews/{own}"), review).await.expect(201);
    let open = agent.call(gateway, &foreign, "{\"open\": 1}", sol).await.payment_id();
    let wallets = agent.get(gateway, "/api/v1/me/wallets").await;
    let wallet = wallets.expect(200).json["data"][0]["id"].as_str().expect("an id").to_string();
    let places = vec![
        ("/api/v1/gateway/{id}", foreign.clone()),
        ("/api/v1/gateway-requests/{id}", call),
        ("/api/v1/payments/{id}", bought),
        ("/api/v1/sandbox/payments/{id}", open.clone()),
        ("/api/v1/sandbox/payments/{id}/pay", open),
        ("/api/v1/me/wallets/{id}", wallet),
        ("/api/v1/agents/{id}", agent.profile.clone()),
        ("/api/v1/agents/{id}/score", agent.profile.clone()),
        ("/api/v1/listings/{id}", own.clone()),
        ("/api/v1/listings/{id}/endpoint", own.clone()),
        ("/api/v1/listings/{id}/endpoint/test", own.clone()),
        ("/api/v1/listings/{id}/endpoint/rotate-secret", own.clone()),
        ("/api/v1/reviews/{id}", foreign),
    ];
    (agent, places)
}

/// Where a seller is called, its faults are answers: described ones, which no fault of ours can pass for.
const SELLERS_FAULTS: [&str; 2] = ["/api/v1/gateway/{id}", "/api/v1/listings/{id}/endpoint/test"];

/// With ids that are there for the paths that have one; without them the judge makes ids up.
fn configuration(folder: &Path, places: &[(&str, String)]) {
    let mut paths: Vec<&str> = places.iter().map(|(path, _)| *path).chain(SELLERS_FAULTS).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut text = String::new();
    for path in paths {
        text += &format!("[[operations]]\ninclude-path = \"{path}\"\n");
        if let Some((_, id)) = places.iter().find(|(place, _)| *place == path) {
            text += &format!("parameters = {{ \"path.id\" = \"{id}\" }}\n");
        }
        if SELLERS_FAULTS.contains(&path) {
            let expected = "[\"2xx\", \"3xx\", \"4xx\", \"502\", \"503\", \"504\"]";
            text += &format!("checks = {{ not_a_server_error = {{ expected-statuses = {expected} }} }}\n");
        }
    }
    std::fs::write(folder.join("schemathesis.toml"), text).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_fault_and_no_answer_that_is_not_described() {
    let Some(schemathesis) = std::env::var_os("CROCHET_SCHEMATHESIS") else {
        eprintln!("SKIPPED: CROCHET_SCHEMATHESIS does not name schemathesis; ./dev test does");
        return;
    };
    let seconds = if std::env::var_os("CROCHET_NIGHTLY").is_some() { 600 } else { 30 };
    let (gateway, seller) = (Gateway::start(), Seller::start().await);
    let (agent, places) = furnish(&gateway, &seller).await;
    let folder = tempfile::tempdir().expect("a folder");
    // From a file: the judge does not ask for the document that it read from a server.
    let document = reqwest::get(format!("{}/openapi.json", gateway.url)).await.expect("an answer");
    let document = document.text().await.expect("text");
    std::fs::write(folder.path().join("openapi.json"), document).expect("written");
    // Without ids of its own it asks for what is not there; with them, for what is.
    for (seconds, places) in [(seconds / 3, &[][..]), (seconds * 2 / 3, &places[..])] {
        configuration(folder.path(), places);
        let output = Command::new(&schemathesis)
            .args(["--no-color", "run"])
            .args(["openapi.json", "--url", &gateway.url])
            .args(["--checks", CHECKS, "--no-shrink", "--continue-on-failure", "--warnings", "off"])
            .args(["--max-time", &seconds.to_string()])
            .args(["--header", &format!("Authorization: Bearer {}", agent.key)])
            .current_dir(folder.path())
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .expect("schemathesis runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        let summary = said.lines().find(|line| line.contains(" generated, ")).unwrap_or_default();
        eprintln!("schemathesis, {seconds} s: {}", summary.trim());
        assert!(said.contains("Operations:") && !summary.is_empty(), "{said}");
    }
}
