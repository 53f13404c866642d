//! Keys: made with no more rights than their maker's, shown once, revoked at once.

use std::time::Duration;

use serde_json::json;

use crate::support::World;

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_listed_and_revoked() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    world.wait(Duration::from_secs(1));
    let wanted = json!({ "name": "reader", "scopes": ["read"], "expires_in_days": 30, "max_price_micros": 5000 });
    let made = world.post("/api-keys", agent.key(), &wanted).await.expect(201);
    let key = made.body["data"]["api_key"].as_str().expect("a key").to_string();
    assert_eq!(made.body["data"]["authorization_header"], format!("Bearer {key}"));
    world.get("/me", Some(&key)).await.expect(200);

    let listed = world.get("/api-keys", Some(&key)).await.expect(200);
    assert_eq!(listed.body["pagination"], json!(null), "not paged");
    let [first, second] = listed.body["data"].as_array().expect("keys").as_slice() else { panic!("{}", listed.text) };
    assert_eq!((&first["name"], &second["name"]), (&json!("default"), &json!("reader")));
    assert_eq!((&second["scopes"], &second["status"]), (&json!(["read"]), &json!("active")));
    assert_eq!(
        (&second["max_price_micros"], &second["expires_at"]),
        (&json!(5000), &json!("2026-12-24T06:10:24.007Z"))
    );
    assert!(key.starts_with(second["key_prefix"].as_str().expect("text")));
    assert!(!listed.text.contains(&key) && !listed.text.contains("authorization_header"));

    let id = second["id"].as_str().expect("an id");
    let revoked = world.delete(&format!("/api-keys/{id}"), agent.key()).await.expect(200);
    assert_eq!((&revoked.body["data"]["id"], &revoked.body["data"]["status"]), (&json!(id), &json!("revoked")));
    world.get("/me", Some(&key)).await.refused(401, "UNAUTHENTICATED");
    let again = world.delete(&format!("/api-keys/{id}"), agent.key()).await.expect(200);
    assert_eq!(again.body["data"]["revoked_at"], revoked.body["data"]["revoked_at"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_ends_by_itself() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    world.wait(Duration::from_secs(1));
    let made =
        world.post("/api-keys", agent.key(), &json!({ "name": "brief", "expires_in_days": 1 })).await.expect(201);
    let key = made.body["data"]["api_key"].as_str();
    world.get("/me", key).await.expect(200);
    world.wait(DAY);
    world.get("/me", key).await.refused(401, "UNAUTHENTICATED");
    let listed = world.get("/api-keys", agent.key()).await.expect(200);
    assert_eq!(listed.body["data"][1]["status"], "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_keys_that_may_do_no_more() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let narrow = json!({
        "name": "narrow", "scopes": ["read", "write"], "expires_in_days": 10,
        "max_price_micros": 1000, "daily_spend_micros": 2000,
    });
    let made = world.post("/api-keys", agent.key(), &narrow).await.expect(201);
    let key = made.body["data"]["api_key"].as_str();
    let more = json!({
        "name": "more", "scopes": ["gateway"], "expires_in_days": 11,
        "max_price_micros": 1001, "daily_spend_micros": 2001,
    });
    let answer = world.post("/api-keys", key, &more).await;
    answer.wrong(&["daily_spend_micros", "expires_in_days", "max_price_micros", "scopes"]);
    let heir = world.post("/api-keys", key, &json!({ "name": "heir" })).await.expect(201);
    let (heir, maker) = (&heir.body["data"], &made.body["data"]);
    for field in ["scopes", "expires_at", "max_price_micros", "daily_spend_micros"] {
        assert_eq!(heir[field], maker[field], "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_are_named() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let bad = json!({
        "name": "", "scopes": ["admin"], "expires_in_days": 0, "max_price_micros": -1, "daily_spend_micros": 1.5, "x": 1,
    });
    let answer = world.post("/api-keys", agent.key(), &bad).await;
    answer.wrong(&["daily_spend_micros", "expires_in_days", "max_price_micros", "name", "scopes", "x"]);
    world.post("/api-keys", agent.key(), &json!({ "name": "a", "scopes": [] })).await.wrong(&["scopes"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_keys_do_not_exist() {
    let world = World::start().await;
    let (agent, other) = (world.agent(1).await, world.agent(2).await);
    let listed = world.get("/api-keys", other.key()).await.expect(200);
    let id = listed.body["data"][0]["id"].as_str().expect("an id");
    world.delete(&format!("/api-keys/{id}"), agent.key()).await.refused(404, "NOT_FOUND");
    world.delete("/api-keys/nonsense", agent.key()).await.refused(404, "NOT_FOUND");
    world.get("/me", other.key()).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_ends_somewhere() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    for number in 1..100 {
        world.post("/api-keys", agent.key(), &json!({ "name": number.to_string() })).await.expect(201);
    }
    world.post("/api-keys", agent.key(), &json!({ "name": "more" })).await.refused(409, "CONFLICT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_use_is_known_to_the_minute_and_written_in_batches() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let last_use = || async {
        let keys = world.store.api_key_list(agent.id).await.expect("a store");
        keys[0].last_used_at.map(|at| at.to_string())
    };
    world.get("/me", agent.key()).await.expect(200);
    assert_eq!(last_use().await, None, "no call writes");
    world.actors().keys().write_uses().await;
    assert_eq!(last_use().await.as_deref(), Some("2026-11-24T06:10:23.007Z"));
    world.wait(Duration::from_secs(59));
    world.get("/me", agent.key()).await.expect(200);
    world.wait(Duration::from_secs(61));
    world.get("/me", agent.key()).await.expect(200);
    world.actors().keys().write_uses().await;
    assert_eq!(last_use().await.as_deref(), Some("2026-11-24T06:12:23.007Z"));
    let listed = world.get("/api-keys", agent.key()).await.expect(200);
    assert_eq!(listed.body["data"][0]["last_used_at"], "2026-11-24T06:12:23.007Z");
}
