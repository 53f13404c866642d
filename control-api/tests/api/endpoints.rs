//! The private side of a listing, for its owner.

use std::time::Duration;

use serde_json::json;

use crate::support::{World, listing_id};

#[tokio::test(flavor = "multi_thread")]
async fn its_owner_sees_all_but_the_url() {
    let world = World::start().await;
    let (seller, other) = (world.agent(1).await, world.agent(2).await);
    let made = world.create_listing(&seller, json!({})).await.expect(201);
    let path = format!("/listings/{}/endpoint", listing_id(&made));
    let shown = world.get(&path, seller.key()).await.expect(200);
    let data = &shown.body["data"];
    assert_eq!((&data["host"], &data["auth_header"]), (&json!("http://127.0.0.1"), &json!(null)));
    assert_eq!((&data["timeout_ms"], &data["status"]), (&json!(30_000), &json!("active")));
    assert_eq!(data["limits"]["max_concurrency"], 256);
    assert_eq!(data["limits"]["max_response_bytes"], 8 << 20);
    assert_eq!(data["health"], json!({ "circuit": "closed" }));
    assert_eq!((&data["last_test"], &data["secret"]["previous_expires_at"]), (&json!(null), &json!(null)));
    for secret in ["secret-path", "secret-token", "signing_secret"] {
        assert!(!shown.text.contains(secret), "{}", shown.text);
    }
    assert_eq!(world.get("/listings/weather-report/endpoint", seller.key()).await.expect(200).text, shown.text);
    world.get(&path, other.key()).await.refused(403, "FORBIDDEN");
    world.put(&path, other.key(), &json!({})).await.refused(403, "FORBIDDEN");
    world.post(&format!("{path}/rotate-secret"), other.key(), &json!({})).await.refused(403, "FORBIDDEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_changes_what_it_names() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let made = world.create_listing(&seller, json!({ "limits": { "burst": 7 } })).await.expect(201);
    let path = format!("/listings/{}/endpoint", listing_id(&made));
    let change = json!({
        "timeout_ms": 100, "status": "paused", "upstream_auth": { "header": "Authorization", "value": "Bearer x" },
        "limits": { "requests_per_second": 5, "max_response_bytes": 1 << 30 },
    });
    let changed = world.put(&path, seller.key(), &change).await.expect(200);
    let data = &changed.body["data"];
    assert_eq!((&data["timeout_ms"], &data["status"]), (&json!(100), &json!("paused")));
    assert_eq!((&data["auth_header"], &data["limits"]["burst"]), (&json!("Authorization"), &json!(7)));
    assert_eq!(data["limits"]["requests_per_second"], 5);
    assert!(!changed.text.contains("Bearer x") && !changed.text.contains("signing_secret"));
    let cleared = json!({ "upstream_auth": null, "limits": { "burst": null }, "status": "active" });
    let cleared = world.put(&path, seller.key(), &cleared).await.expect(200);
    assert_eq!(
        (&cleared.body["data"]["auth_header"], &cleared.body["data"]["limits"]["burst"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(cleared.body["data"]["limits"]["requests_per_second"], 5);
    let same = world.put(&path, seller.key(), &json!({})).await.expect(200);
    assert_eq!(same.body["data"], cleared.body["data"]);
    let bad =
        json!({ "timeout_ms": 300_001, "status": "off", "url": "x", "private_endpoint_url": "https://x@y.example/" });
    let answer = world.put(&path, seller.key(), &bad).await;
    answer.wrong(&["private_endpoint_url", "status", "timeout_ms", "url"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_makes_what_is_not_there_and_shows_its_secret_once() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let bare = json!({ "pricing_model": "free", "pricing_amount": 0, "private_endpoint_url": null });
    let made = world.create_listing(&seller, bare).await.expect(201);
    let (listing, path) =
        (format!("/listings/{}", listing_id(&made)), format!("/listings/{}/endpoint", listing_id(&made)));
    world.get(&path, seller.key()).await.refused(404, "NOT_FOUND");
    world.put(&path, seller.key(), &json!({ "timeout_ms": 1000 })).await.wrong(&["private_endpoint_url"]);
    world.post(&format!("{path}/rotate-secret"), seller.key(), &json!({})).await.refused(404, "NOT_FOUND");
    let put = json!({ "private_endpoint_url": "http://localhost:1234/x" });
    let made = world.put(&path, seller.key(), &put).await.expect(200);
    assert!(made.body["data"]["signing_secret"].as_str().expect("text").starts_with("whsec_"));
    let again = world.put(&path, seller.key(), &put).await.expect(200);
    assert_eq!(again.body["data"]["signing_secret"], json!(null));
    assert!(world.get(&listing, None).await.expect(200).body["data"]["gateway_url"].is_string());
    let browsed = world.get("/listings", None).await.expect(200);
    assert!(browsed.body["data"][0]["gateway_url"].is_string(), "the shelves know it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_lets_the_old_secret_sign_along() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let made = world.create_listing(&seller, json!({})).await.expect(201);
    let first = made.body["data"]["gateway_endpoint"]["signing_secret"].clone();
    let id = listing_id(&made);
    let path = format!("/listings/{id}/endpoint");
    let rotate = format!("{path}/rotate-secret");
    let rotated = world.send(world.request(reqwest::Method::POST, &rotate, seller.key())).await.expect(200);
    let data = &rotated.body["data"];
    assert_ne!(data["signing_secret"], first);
    assert_eq!(data["secret"]["previous_expires_at"], "2026-11-25T06:10:23.007Z", "a day, unless told");
    let stored = world.store.listing_get(id).await.expect("a store").expect("there").endpoint.expect("an endpoint");
    let previous = stored.previous_secret.expect("the old one");
    assert_eq!(json!(actors::seller::shown_secret(&previous.secret.key)), first);
    world.wait(Duration::from_secs(86_400));
    let after = world.get(&path, seller.key()).await.expect(200);
    assert_eq!(after.body["data"]["secret"]["previous_expires_at"], json!(null));
    let at_once = world.post(&rotate, seller.key(), &json!({ "overlap_seconds": 0 })).await.expect(200);
    assert_eq!(at_once.body["data"]["secret"]["previous_expires_at"], json!(null));
    world.post(&rotate, seller.key(), &json!({ "overlap_seconds": -1 })).await.wrong(&["overlap_seconds"]);
}
