//! What operators see, and nobody else: metrics, readiness, the actors' state.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use proxy::telemetry::catalogue::{self, Kind, METRICS, Values};
use reqwest::{Client, Method};
use serde_json::json;
use support::{
    Agent, Gateway, Seller,
    agent::send,
    eventually,
    operations::{Scrape, look},
};

const BODY: &str = r#"{"task":"run"}"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn is_nightly() -> bool {
    std::env::vars().any(|(name, _)| name == "CROCHET_NIGHTLY")
}

/// The metric that a series belongs to: a histogram's series have endings.
fn metric_of(scrape: &Scrape, series: &str) -> String {
    let without = ["_bucket", "_sum", "_count"].iter().find_map(|ending| series.strip_suffix(ending));
    match without {
        Some(name) if scrape.kinds.get(name).is_some_and(|kind| kind == "histogram") => name.to_string(),
        _ => series.to_string(),
    }
}

#[test]
fn the_document_is_what_the_catalogue_says() {
    let (wanted, found) = (catalogue::document(), read("docs/metrics.md"));
    if wanted != found {
        let place = std::env::temp_dir().join("crochet-metrics.md");
        std::fs::write(&place, &wanted).expect("written");
        panic!("docs/metrics.md is not what the catalogue says; {} is", place.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_has_what_the_catalogue_says_and_nothing_else() {
    let gateway = Gateway::with(&[("CROCHET__TELEMETRY__BUSIEST_LISTINGS", "3")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
    buyer.redeem(&gateway, &listing, BODY, &id).await.expect(200);
    let scrape = Scrape::of(&gateway).await;
    let scraped: BTreeSet<&str> = scrape.kinds.keys().map(String::as_str).collect();
    let described: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(scraped, described, "left: scraped, right: in the catalogue");
    for metric in METRICS {
        assert_eq!(scrape.kinds[metric.name], metric.kind.name(), "{}", metric.name);
        assert_eq!(scrape.helps.get(metric.name).map(String::as_str), Some(metric.meaning), "{}", metric.name);
    }
    h_labels_are_closed(&scrape);
}

/// Every label and every value is one that the catalogue knows.
fn h_labels_are_closed(scrape: &Scrape) {
    for series in &scrape.series {
        let name = metric_of(scrape, &series.name);
        let metric = catalogue::find(&name).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        for (label, value) in &series.labels {
            if label == "le" && metric.kind == Kind::Histogram {
                continue;
            }
            let known = metric.labels.iter().find(|(known, _)| known == label);
            let (_, values) = known.unwrap_or_else(|| panic!("{name} has no label {label}"));
            let is_known = match values {
                Values::OneOf(values) => values.contains(&value.as_str()),
                Values::Build => true,
                Values::Busiest => value.len() == 36,
            };
            assert!(is_known, "{name}{{{label}={value:?}}}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_those_of_the_calls_and_know_the_rail() {
    let gateway = Gateway::start();
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (paid, _) = owner.list(&gateway, &seller.url("/switch"), "1").await;
    let (free, _) = owner.list(&gateway, &seller.url("/slow"), "0").await;
    let id = buyer.buy(&gateway, &paid, BODY, &[]).await;
    seller.answer_with(500);
    buyer.redeem(&gateway, &paid, BODY, &id).await.refused(502, "SELLER_ERROR");
    seller.answer_with(200);
    for _ in 0..3 {
        buyer.redeem(&gateway, &paid, BODY, &id).await.expect(200);
    }
    buyer.call(&gateway, &free, BODY, &[]).await.expect(200);
    let scrape = Scrape::of(&gateway).await;
    let payments = |result| scrape.sum("crochet_payments_total", &[("provider", "sandbox"), ("result", result)]);
    assert_eq!(
        ["quoted", "released", "completed", "replayed", "pending", "failed"].map(payments),
        [1.0, 1.0, 1.0, 2.0, 0.0, 0.0]
    );
    let others = ["relay", "x402", "mpp"].map(|rail| scrape.sum("crochet_payments_total", &[("provider", rail)]));
    assert_eq!(others, [0.0; 3]);
    let requests = |outcome| scrape.sum("crochet_gateway_requests_total", &[("outcome", outcome)]);
    assert_eq!(["refused", "released", "completed", "replayed"].map(requests), [1.0, 1.0, 2.0, 2.0]);
    let ledger = |entry| scrape.sum("crochet_ledger_micros_total", &[("entry_type", entry)]);
    assert_eq!(["gateway_payment", "seller_credit", "marketplace_fee"].map(ledger), [1_000_000.0, 951_000.0, 49_000.0]);
    let phase = |name| scrape.sum("crochet_gateway_request_duration_seconds_count", &[("phase", name)]);
    assert_eq!((phase("total"), phase("seller_ttfb"), phase("seller_total")), (6.0, 3.0, 3.0));
    let slow = scrape.sum("crochet_gateway_request_duration_seconds_sum", &[("phase", "seller_ttfb")]);
    assert!(slow >= 0.3, "the slow seller took 0.3 s to begin, {slow} were counted");
    assert!(scrape.sum("crochet_payment_verify_duration_seconds_count", &[("provider", "sandbox")]) >= 1.0);
    assert_eq!(scrape.sum("crochet_circuit_state", &[("state", "closed")]), 2.0);
    assert_eq!(scrape.sum("crochet_actor_active", &[]), 2.0);
    assert_eq!(scrape.sum("crochet_store_up", &[("backend", "embedded")]), 1.0);
    assert_eq!((scrape.sum("crochet_ready", &[]), scrape.sum("crochet_gateway_inflight", &[])), (1.0, 0.0));
    assert_eq!(scrape.sum("crochet_actor_mailbox_depth", &[]), 0.0);
    assert!(!scrape.kinds.contains_key("crochet_listing_calls_total"), "off unless it is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_busiest_listings_have_series_and_leave_none_behind() {
    let gateway = Gateway::with(&[("CROCHET__TELEMETRY__BUSIEST_LISTINGS", "2")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let mut listings = Vec::new();
    for _ in 0..4 {
        listings.push(owner.list(&gateway, &seller.url("/ok"), "0").await.0);
    }
    let busiest = async |calls: [usize; 4]| {
        for (listing, count) in listings.iter().zip(calls) {
            for _ in 0..count {
                buyer.call(&gateway, listing, BODY, &[]).await.expect(200);
            }
        }
        let scrape = Scrape::of(&gateway).await;
        let calls = scrape.series.iter().filter(|series| series.name == "crochet_listing_calls_total");
        calls.map(|series| (series.labels["listing"].clone(), series.value)).collect::<BTreeMap<_, _>>()
    };
    let wanted = |first: usize, second: usize, values: [f64; 2]| {
        BTreeMap::from([(listings[first].clone(), values[0]), (listings[second].clone(), values[1])])
    };
    assert_eq!(busiest([5, 1, 4, 0]).await, wanted(0, 2, [5.0, 4.0]));
    assert_eq!(busiest([0, 6, 0, 8]).await, wanted(3, 1, [8.0, 7.0]), "two series, whatever came before");
}

/// Figure 19: what strangers invent leaves no series and no actor behind.
#[tokio::test(flavor = "multi_thread")]
async fn g_invented_ids_keys_and_paths_create_no_actor_and_no_series() {
    let count = if is_nightly() { 100_000 } else { 1_500 };
    let gateway = Gateway::start();
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    buyer.call(&gateway, &listing, BODY, &[]).await.expect(200);
    let http = Client::new();
    let invent = async |n: usize| {
        let (key, path) = match n % 5 {
            0 => (buyer.key.clone(), format!("/api/v1/gateway/invented-{n}")),
            1 => (buyer.key.clone(), format!("/api/v1/gateway/00000000-0000-7000-8000-{n:012x}")),
            2 => (format!("am_k_{n:048}"), format!("/api/v1/gateway/{listing}")),
            3 => (buyer.key.clone(), format!("/invented/{n}")),
            _ => (buyer.key.clone(), format!("/api/v1/listings/invented-{n}")),
        };
        let body = (n % 5 < 3).then(|| BODY.into());
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let headers = [("X-Crochet-Relay-Request-Id", format!("pay_{n:032x}"))];
        let headers = [(headers[0].0, headers[0].1.as_str())];
        let answer = send(&http, method, format!("{}{path}", gateway.url), &key, &headers, body).await;
        assert!(matches!(answer.status, 401 | 404 | 429), "{path}: {} {}", answer.status, answer.json);
    };
    for n in 0..10 {
        invent(n).await;
    }
    let before = Scrape::of(&gateway).await;
    for n in 10..count {
        invent(n).await;
    }
    let after = Scrape::of(&gateway).await;
    let grown: Vec<_> = after.names().difference(&before.names()).cloned().collect();
    assert!(grown.is_empty(), "{count} inventions later there are new series: {grown:?}");
    assert_eq!((before.sum("crochet_actor_active", &[]), after.sum("crochet_actor_active", &[])), (1.0, 1.0));
    assert!(after.sum("crochet_gateway_requests_total", &[("outcome", "refused")]) >= f64::from(count as u32) * 0.5);
    let state = look(&gateway, "/debug/state").await;
    assert_eq!(state.json["listings_total"], 1);
    h_labels_are_closed(&after);
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_state_shows_each_actor_and_no_secret() {
    let gateway = Gateway::with(&[("CROCHET__TELEMETRY__DEBUG_LISTINGS_MAX", "2")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (busy, secret) = owner.list(&gateway, &seller.url("/gated"), "0").await;
    let (failing, _) = owner.list(&gateway, &seller.url("/status/500"), "1").await;
    let (quiet, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    buyer.call(&gateway, &quiet, BODY, &[]).await.expect(200);
    for n in 0..7 {
        let id = buyer.buy(&gateway, &failing, BODY, &[("Idempotency-Key", &format!("n{n}"))]).await;
        buyer.redeem(&gateway, &failing, BODY, &id).await.refused(502, "SELLER_ERROR");
    }
    let running: Vec<_> = (0..3)
        .map(|_| {
            let (url, key, busy) = (gateway.url.clone(), buyer.key.clone(), busy.clone());
            tokio::spawn(async move {
                let url = format!("{url}/api/v1/gateway/{busy}");
                send(&Client::new(), Method::POST, url, &key, &[], Some(BODY.into())).await.status
            })
        })
        .collect();
    eventually("three calls run", async || seller.received().iter().filter(|r| r.path == "/gated").count() == 3).await;
    let state = look(&gateway, "/debug/state").await;
    let shown = state.json["listings"].as_array().expect("listings");
    assert_eq!((state.json["listings_total"].clone(), shown.len()), (json!(3), 2), "as many as the knob says");
    assert_eq!(shown[0]["listing"], json!(failing), "what is not well comes first");
    assert_eq!(shown[0]["circuit"]["state"], "open");
    assert!(shown[0]["circuit"]["opens_for_a_probe_in_ms"].as_u64().is_some_and(|ms| ms <= 1_200));
    assert_eq!((&shown[1]["listing"], &shown[1]["slots"]["taken"]), (&json!(busy), &json!(3)));
    assert_eq!(shown[1]["slots"]["max"], 256);
    assert_eq!((&shown[1]["actor"]["lives"], &shown[1]["actor"]["mailbox"]), (&json!(true), &json!(0)));
    assert_eq!(state.json["node"]["store"], "ok");
    seller.open(3);
    for one in running {
        assert_eq!(one.await.expect("joined"), 200);
    }
    let text = String::from_utf8(state.bytes).expect("UTF-8");
    for secret in [secret.as_str(), &buyer.key, &owner.key, &seller.address.port().to_string()] {
        assert!(!text.contains(secret), "{secret} is shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h_metrics_readiness_and_state_are_absent_from_the_public_address() {
    let gateway = Gateway::start();
    for path in ["/metrics", "/livez", "/readyz", "/debug/state", "/internal/audit", "/debug/pprof"] {
        let public = send(&Client::new(), Method::GET, format!("{}{path}", gateway.url), "", &[], None).await;
        public.refused(404, "NOT_FOUND");
    }
    for (path, word) in [("/livez", "alive"), ("/readyz", "ready")] {
        let answer = look(&gateway, path).await;
        assert_eq!(answer.expect(200).json, json!({word: true, "reasons": []}));
    }
    look(&gateway, "/nowhere").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn h_no_answer_names_its_server() {
    let gateway = Gateway::start();
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (free, _) = owner.list(&gateway, &seller.url("/ok"), "0").await;
    let (paid, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let answers = [
        buyer.call(&gateway, &free, BODY, &[]).await,
        buyer.call(&gateway, &paid, BODY, &[]).await,
        buyer.call(&gateway, "nowhere", BODY, &[]).await,
        buyer.get(&gateway, "/api/v1/health").await,
        buyer.get(&gateway, "/nowhere").await,
        look(&gateway, "/metrics").await,
        look(&gateway, "/nowhere").await,
    ];
    for answer in answers {
        for name in ["server", "x-powered-by", "via"] {
            assert_eq!(answer.header(name), "", "{name} on a {}", answer.status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h_metrics_hold_no_secret_and_no_private_address() {
    let gateway = Gateway::with(&[("CROCHET__TELEMETRY__BUSIEST_LISTINGS", "5")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, secret) = owner.list(&gateway, &seller.url("/ok?canary-url"), "1").await;
    let body = r#"{"task":"canary-body"}"#;
    let id = buyer.buy(&gateway, &listing, body, &[("Idempotency-Key", "canary-key")]).await;
    buyer.redeem(&gateway, &listing, body, &id).await.expect(200);
    let page = look(&gateway, "/metrics").await;
    let text = String::from_utf8(page.bytes).expect("UTF-8");
    assert!(text.contains(&listing), "the busiest are named when they are asked for");
    let address = seller.address.to_string();
    let canaries =
        [&secret, &buyer.key, &buyer.profile, &owner.profile, &id, "canary-url", "canary-body", "canary-key", &address];
    for canary in canaries {
        assert!(!text.contains(canary), "{canary} is in the metrics");
    }
}

#[test]
fn alerts_watch_metrics_that_exist_and_each_says_what_to_do() {
    let rules = read("deploy/alerts.yml");
    let mut names = BTreeSet::new();
    for word in rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
        if word.starts_with("crochet_") || word.starts_with("process_") {
            let name = ["_bucket", "_sum", "_count"].iter().find_map(|ending| word.strip_suffix(ending));
            let name = name.filter(|name| catalogue::find(name).is_some()).unwrap_or(word);
            assert!(catalogue::find(name).is_some(), "no such metric: {word}");
            names.insert(name);
        }
    }
    assert!(names.len() >= 10, "{names:?}");
    let count = |word: &str| rules.lines().filter(|line| line.trim_start().starts_with(word)).count();
    assert!(count("- alert:") >= 10);
    for each in ["expr:", "summary:", "runbook:", "severity:"] {
        assert_eq!(count(each), count("- alert:"), "each alert has {each}");
    }
}

#[test]
fn prometheus_accepts_the_configuration_and_the_rules() {
    let check =
        |arguments: &[&str]| Command::new("promtool").args(arguments).current_dir(root().join("deploy")).output();
    for arguments in [["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]] {
        match check(&arguments) {
            Err(_) => eprintln!("SKIPPED: promtool is not here, so {arguments:?} was not run"),
            Ok(output) => assert!(
                output.status.success(),
                "promtool {arguments:?}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }
}
