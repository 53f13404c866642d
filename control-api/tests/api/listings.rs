//! Listings: created with work, shown without their private side, changed by their owner only.

use std::time::Duration;

use serde_json::{Value, json};
use storage::model::SuspendedBy;

use crate::support::{Agent, World, listing_id, miss, solve, statuses};

/// Must never be seen by anybody.
const SECRETS: [&str; 3] = ["secret-path", "secret-token", "127.0.0.1:9/"];

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_listing_is_created_and_shown() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let more = json!({
        "name": " Café\u{202e} Wetter ", "description": "Line one\nLine two", "category": "data",
        "tags": ["weather", "europe", "weather"], "formats": ["json", "text"], "preferred_currency": "SOL",
        "documentation_url": "https://example.org/docs", "example_request": {"b": 1.10, "a": []},
        "pricing_currency": "USD", "auth_method": "none", "delivery_type": "api", "timeout_ms": 5000,
        "limits": {"requests_per_second": 10}, "upstream_auth": {"header": "X-Key", "value": "hidden-value"},
    });
    let category = world.get("/categories", None).await.expect(200).body["data"][0]["slug"].clone();
    let more = Value::Object(
        more.as_object()
            .cloned()
            .into_iter()
            .flatten()
            .map(|(name, value)| if name == "category" { (name, category.clone()) } else { (name, value) })
            .collect(),
    );
    let made = world.create_listing(&seller, more).await.expect(201);
    let data = &made.body["data"];
    assert_eq!((&data["name"], &data["slug"]), (&json!("Café Wetter"), &json!("cafe-wetter")));
    assert_eq!((&data["status"], &data["pricing_model"]), (&json!("active"), &json!("per_call")));
    assert!(made.text.contains("\"pricing_amount\":0.05,"), "{}", made.text);
    assert_eq!((&data["pricing_amount_micros"], &data["pricing_amount_cents"]), (&json!(50_000), &json!(5)));
    assert_eq!((&data["tags"], &data["category"]["slug"]), (&json!(["weather", "europe"]), &category));
    assert_eq!(data["example_request"], json!({ "b": 1.1, "a": [] }));
    let id = data["id"].as_str().expect("an id");
    assert_eq!(data["gateway_url"], format!("{}/api/v1/gateway/{id}", world.site));
    let endpoint = &data["gateway_endpoint"];
    let secret = endpoint["signing_secret"].as_str().expect("text");
    assert!(secret.starts_with("whsec_") && secret.starts_with(endpoint["secret"]["prefix"].as_str().expect("text")));
    assert_eq!((&endpoint["host"], &endpoint["auth_header"]), (&json!("http://127.0.0.1"), &json!("X-Key")));
    assert_eq!((&endpoint["timeout_ms"], &endpoint["limits"]["requests_per_second"]), (&json!(5000), &json!(10)));
    assert_eq!(data["provider"]["id"], seller.id.to_string());

    for path in [format!("/listings/{id}"), "/listings/cafe-wetter".into()] {
        let shown = world.get(&path, None).await.expect(200);
        let mut expected = data.clone();
        expected.as_object_mut().expect("an object").remove("gateway_endpoint");
        assert_eq!(shown.body["data"], expected);
        let all = [&SECRETS[..], &["whsec_", "hidden-value", "gateway_endpoint"]].concat();
        assert!(!all.iter().any(|secret| shown.text.contains(secret)), "{}", shown.text);
    }
    assert!(!SECRETS.iter().any(|secret| made.text.contains(secret)), "not even to its owner: {}", made.text);
    assert!(!made.text.contains("hidden-value"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_listing_may_have_an_endpoint() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let free = json!({ "pricing_model": "free", "pricing_amount": 0 });
    let made = world.create_listing(&seller, free).await.expect(201);
    assert!(made.body["data"]["gateway_url"].is_string());
    assert!(made.body["data"]["gateway_endpoint"]["signing_secret"].is_string());
    let bare = json!({ "pricing_model": "free", "pricing_amount": null, "private_endpoint_url": null });
    let made = world.create_listing(&seller, bare).await.expect(201);
    assert_eq!(
        (&made.body["data"]["gateway_url"], &made.body["data"]["gateway_endpoint"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(
        (&made.body["data"]["pricing_amount"], &made.body["data"]["slug"]),
        (&json!(0), &json!("weather-report-2"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_are_named_all_at_once() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let answer = world.post("/listings", seller.key(), &json!({})).await;
    answer.wrong(&["description", "name", "pow_nonce", "pricing_model"]);
    let bad = json!({
        "name": "ab", "description": "", "category": "nowhere", "delivery_type": "fax", "auth_method": "basic",
        "formats": ["xml"], "connection_instructions": "x".repeat(5001), "pricing_model": "per_call",
        "pricing_amount": 10_000.5, "pricing_currency": "EUR", "preferred_currency": "BTC",
        "private_endpoint_url": "ftp://127.0.0.1/", "status": "suspended", "documentation_url": "javascript:x",
        "tags": ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"], "timeout_ms": 99,
        "upstream_auth": {"header": "Host", "value": "", "more": 1},
        "limits": {"requests_per_second": 0, "max_request_bytes": 99_999_999, "speed": 1}, "typo": true,
    });
    let answer = world.create_listing(&seller, bad).await;
    answer.wrong(&[
        "auth_method",
        "category",
        "connection_instructions",
        "delivery_type",
        "description",
        "documentation_url",
        "formats",
        "limits.max_request_bytes",
        "limits.requests_per_second",
        "limits.speed",
        "name",
        "preferred_currency",
        "pricing_amount",
        "pricing_currency",
        "private_endpoint_url",
        "status",
        "tags",
        "timeout_ms",
        "typo",
        "upstream_auth.header",
        "upstream_auth.more",
        "upstream_auth.value",
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn price_and_model_go_together() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let create = |change: Value| world.create_listing(&seller, change);
    let nothing = create(json!({ "pricing_amount": null, "private_endpoint_url": null })).await;
    nothing.wrong(&["pricing_amount", "private_endpoint_url"]);
    create(json!({ "pricing_amount": 0 })).await.wrong(&["pricing_amount"]);
    create(json!({ "pricing_model": "free" })).await.wrong(&["pricing_amount"]);
    let orphan = json!({
        "pricing_model": "free", "pricing_amount": 0, "private_endpoint_url": null, "timeout_ms": 1000,
    });
    create(orphan).await.wrong(&["private_endpoint_url"]);
    let least = create(json!({ "pricing_amount": "0.000001" })).await.expect(201);
    assert!(least.text.contains("\"pricing_amount\":0.000001,"), "{}", least.text);
    let most = create(json!({ "pricing_amount": 10000 })).await.expect(201);
    assert!(most.text.contains("\"pricing_amount\":10000,"), "{}", most.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_url_in_a_refusal_is_not_repeated() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let url = "http://user@127.0.0.1:9/secret-path?token=secret-token";
    let answer = world.create_listing(&seller, json!({ "private_endpoint_url": url })).await;
    let answer = answer.wrong(&["private_endpoint_url"]);
    assert!(!SECRETS.iter().any(|secret| answer.text.contains(secret)), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_is_good_once_and_the_latest_counts() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let challenge = || async {
        let answer = world.post("/listings/challenge", seller.key(), &json!({})).await.expect(200);
        answer.body["data"]["challenge"].as_str().expect("text").to_string()
    };
    let create = |pow_nonce: String| {
        let world = &world;
        let seller = &seller;
        async move {
            world.create_listing(seller, json!({})).await.expect(201);
            world.post("/listings", seller.key(), &body(&pow_nonce)).await
        }
    };
    // None is open any more: it was used.
    let used = create("1".into()).await.refused(400, "POW_INVALID");
    assert_eq!(used.body["error"]["recovery"]["next_action"], "request_new_challenge");
    let (old, new) = (challenge().await, challenge().await);
    let stale = (0u64..).map(|n| n.to_string()).find(|nonce| solves(&old, nonce) && !solves(&new, nonce));
    let stale = world.post("/listings", seller.key(), &body(&stale.expect("some"))).await;
    stale.refused(400, "POW_INVALID");
    let late = challenge().await;
    world.wait(Duration::from_secs(301));
    world.post("/listings", seller.key(), &body(&solve(&late, 2))).await.refused(400, "POW_INVALID");
    let wrong = challenge().await;
    world.post("/listings", seller.key(), &body(&miss(&wrong, 2))).await.refused(400, "POW_INVALID");
    // A wrong field costs nothing.
    let open = challenge().await;
    let mut bad = body(&solve(&open, 2));
    bad["name"] = json!("x");
    world.post("/listings", seller.key(), &bad).await.wrong(&["name"]);
    world.post("/listings", seller.key(), &body(&solve(&open, 2))).await.expect(201);
}

fn solves(challenge: &str, nonce: &str) -> bool {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(format!("{challenge}{nonce}"))).starts_with("00")
}

fn body(pow_nonce: &str) -> Value {
    json!({
        "pow_nonce": pow_nonce, "name": "Weather report", "description": "Tomorrow's.", "pricing_model": "free",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_uses_of_a_solution_wins() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let body = body(&world.listing_pow(&seller).await);
    let found = statuses((0..12).map(|_| world.post("/listings", seller.key(), &body))).await;
    assert_eq!(found.iter().filter(|status| **status == 201).count(), 1, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_names_get_slugs_of_their_own() {
    let world = World::start().await;
    let mut sellers = Vec::new();
    for seed in 1..=8 {
        sellers.push(world.agent(seed).await);
    }
    let made = statuses(sellers.iter().map(|seller| world.create_listing(seller, json!({})))).await;
    assert!(made.iter().all(|status| *status == 201), "{made:?}");
    let page = world.get("/listings", None).await.expect(200);
    let mut slugs: Vec<&str> =
        page.body["data"].as_array().expect("rows").iter().filter_map(|row| row["slug"].as_str()).collect();
    slugs.sort_unstable();
    slugs.dedup();
    assert_eq!(slugs.len(), 8, "{slugs:?}");
    assert!(slugs.iter().all(|slug| slug.starts_with("weather-report")));
}

async fn draft(world: &World, seller: &Agent) -> String {
    let made = world.create_listing(seller, json!({ "status": "draft" })).await.expect(201);
    made.body["data"]["id"].as_str().expect("an id").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_are_their_owners_alone() {
    let world = World::start().await;
    let (seller, other) = (world.agent(1).await, world.agent(2).await);
    let id = draft(&world, &seller).await;
    let path = format!("/listings/{id}");
    world.get(&path, None).await.refused(404, "NOT_FOUND");
    world.get(&path, other.key()).await.refused(404, "NOT_FOUND");
    world.get(&path, Some("am_k_bad")).await.refused(401, "UNAUTHENTICATED");
    let own = world.get(&path, seller.key()).await.expect(200);
    assert_eq!((&own.body["data"]["status"], &own.body["data"]["gateway_url"]), (&json!("draft"), &json!(null)));
    for answer in [
        world.patch(&path, other.key(), &json!({})).await,
        world.delete(&path, other.key()).await,
        world.get(&format!("{path}/endpoint"), other.key()).await,
    ] {
        answer.refused(404, "NOT_FOUND");
    }
    let rows = world.get("/me/listings", seller.key()).await.expect(200);
    assert_eq!(rows.body["pagination"], json!({ "page": 1, "limit": 20, "total": 1, "totalPages": 1 }));
    assert_eq!(rows.body["data"][0]["id"], id);
    let none = world.get("/me/listings?page=2", other.key()).await.expect(200);
    assert_eq!(none.body["data"], json!([]));
    let deleted = world.delete(&path, seller.key()).await.expect(200);
    assert_eq!((&deleted.body["data"]["deleted"], &deleted.body["data"]["id"]), (&json!(true), &json!(id)));
    world.get(&path, seller.key()).await.refused(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_offered_is_suspended_and_comes_back() {
    let world = World::start().await;
    let (seller, other) = (world.agent(1).await, world.agent(2).await);
    let made = world.create_listing(&seller, json!({})).await.expect(201);
    let path = format!("/listings/{}", listing_id(&made));
    world.patch(&path, other.key(), &json!({ "name": "Mine" })).await.refused(403, "FORBIDDEN");
    world.delete(&path, other.key()).await.refused(403, "FORBIDDEN");

    let removed = world.delete(&path, seller.key()).await.expect(200);
    assert_eq!(
        (&removed.body["data"]["deleted"], &removed.body["data"]["status"]),
        (&json!(false), &json!("suspended"))
    );
    assert_eq!(removed.body["data"]["suspended_by"], "owner");
    world.get(&path, None).await.refused(404, "NOT_FOUND");
    assert_eq!(world.get("/listings", None).await.body["pagination"]["total"], 0);
    world.delete(&path, seller.key()).await.expect(200);

    let back = world.patch(&path, seller.key(), &json!({ "status": "active" })).await.expect(200);
    assert_eq!((&back.body["data"]["status"], &back.body["data"]["suspended_by"]), (&json!("active"), &json!(null)));
    world.get(&path, None).await.expect(200);
    assert_eq!(world.get("/listings", None).await.body["pagination"]["total"], 1);
    world.patch(&path, seller.key(), &json!({ "status": "draft" })).await.refused(409, "CONFLICT");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_suspension_stands() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let made = world.create_listing(&seller, json!({})).await.expect(201);
    let id = listing_id(&made);
    let mut listing = world.store.listing_get(id).await.expect("a store").expect("there").listing;
    listing.status = storage::model::ListingStatus::Suspended;
    listing.suspended_by = Some(SuspendedBy::Operator);
    world.store.listing_update(listing, None).await.expect("a store");
    let path = format!("/listings/{id}");
    world.patch(&path, seller.key(), &json!({ "status": "active" })).await.refused(409, "CONFLICT");
    world.delete(&path, seller.key()).await.expect(200);
    world.patch(&path, seller.key(), &json!({ "status": "active" })).await.refused(409, "CONFLICT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_any_field_and_leaves_the_rest() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let made = world.create_listing(&seller, json!({ "connection_instructions": "Call it." })).await.expect(201);
    let path = format!("/listings/{}", listing_id(&made));
    world.wait(Duration::from_secs(1));
    let change = json!({ "name": "Sunshine", "pricing_amount": 0.1, "connection_instructions": null, "tags": ["sun"] });
    let changed = world.patch(&path, seller.key(), &change).await.expect(200);
    let data = &changed.body["data"];
    assert_eq!((&data["name"], &data["slug"]), (&json!("Sunshine"), &json!("weather-report")), "the slug stays");
    assert_eq!((&data["pricing_amount_micros"], &data["connection_instructions"]), (&json!(100_000), &json!(null)));
    assert_eq!((&data["description"], &data["tags"]), (&json!("Tomorrow's weather."), &json!(["sun"])));
    assert_eq!(data["gateway_endpoint"], json!(null), "the endpoint was not touched");
    assert_ne!(data["updated_at"], data["created_at"]);
    let shown = world.get("/listings/weather-report", None).await.expect(200);
    assert_eq!(shown.body["data"]["name"], "Sunshine");

    let moved = json!({ "private_endpoint_url": "http://localhost:9999/new" });
    let moved = world.patch(&path, seller.key(), &moved).await.expect(200);
    let endpoint = &moved.body["data"]["gateway_endpoint"];
    assert_eq!((&endpoint["host"], &endpoint["signing_secret"]), (&json!("http://localhost"), &json!(null)));
    let stored = world.store.listing_by_slug("weather-report").await.expect("a store").expect("there");
    assert_eq!(stored.endpoint.expect("an endpoint").url, "http://localhost:9999/new");

    world.patch(&path, seller.key(), &json!({ "pricing_amount": 0 })).await.wrong(&["pricing_amount"]);
    let free = world.patch(&path, seller.key(), &json!({ "pricing_model": "free" })).await.expect(200);
    assert_eq!(free.body["data"]["pricing_amount"], 0);
    world.patch(&path, seller.key(), &json!({ "pricing_model": "per_call" })).await.wrong(&["pricing_amount"]);
    world.patch(&path, seller.key(), &json!({ "pow_nonce": "1", "slug": "x" })).await.wrong(&["pow_nonce", "slug"]);
    world.patch(&format!("{path}?x=1"), seller.key(), &json!({})).await.wrong(&["x"]);
    world.patch("/listings/nowhere", seller.key(), &json!({})).await.refused(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_once_all_count() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let made = world.create_listing(&seller, json!({})).await.expect(201);
    let path = format!("/listings/{}", listing_id(&made));
    let changes = [json!({ "name": "Sunshine" }), json!({ "tags": ["a"] }), json!({ "description": "Rain." })];
    let found = statuses(changes.iter().map(|change| world.patch(&path, seller.key(), change))).await;
    assert!(found.iter().all(|status| *status == 200), "{found:?}");
    let data = world.get(&path, None).await.expect(200).body["data"].clone();
    assert_eq!(
        (&data["name"], &data["tags"], &data["description"]),
        (&json!("Sunshine"), &json!(["a"]), &json!("Rain."))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sold_must_be_paid_out_to_somewhere() {
    let world = World::start().await;
    let seller = world.agent_without_payout(1).await;
    world.create_listing(&seller, json!({})).await.refused(409, "PAYOUT_WALLET_REQUIRED");
    let free = json!({ "pricing_model": "free", "pricing_amount": 0 });
    let free = world.create_listing(&seller, free).await.expect(201);
    let draft = world.create_listing(&seller, json!({ "status": "draft" })).await.expect(201);
    let sells =
        [(free, json!({ "pricing_model": "per_call", "pricing_amount": 1 })), (draft, json!({ "status": "active" }))];
    for (listing, change) in sells {
        let path = format!("/listings/{}", listing_id(&listing));
        world.patch(&path, seller.key(), &change).await.refused(409, "PAYOUT_WALLET_REQUIRED");
        world.patch(&path, seller.key(), &json!({ "name": "Renamed" })).await.expect(200);
    }
}
