//! Recovery: a wallet's proof is worth a new key.

use std::time::Duration;

use serde_json::json;

use crate::support::{Wallet, World, miss, statuses};

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_gets_a_new_key_and_the_old_one_stays() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    world.wait(Duration::from_secs(1));
    let recovered = world.post("/auth/recover", None, &world.recovery(&agent.wallet).await).await.expect(201);
    let data = &recovered.body["data"];
    let key = data["api_key"].as_str().expect("a key");
    assert_eq!(data["authorization_header"], format!("Bearer {key}"));
    assert_eq!(data["profile"]["id"], agent.id.to_string());
    assert_eq!(recovered.header("cache-control"), "no-store");
    assert_ne!(key, agent.key);
    let me = world.get("/me", Some(key)).await.expect(200);
    assert_eq!(me.body["data"]["scopes"], json!(["gateway", "read", "write"]));
    world.get("/me", agent.key()).await.expect(200);
    let keys = world.get("/api-keys", Some(key)).await.expect(200);
    assert_eq!(keys.body["data"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn recovery_revokes_old_keys_at_once_when_asked() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let made = world.post("/api-keys", agent.key(), &json!({ "name": "lost" })).await.expect(201);
    let lost = made.body["data"]["api_key"].as_str();
    world.get("/me", lost).await.expect(200);
    world.wait(Duration::from_secs(1));
    let mut recovery = world.recovery(&agent.wallet).await;
    recovery["revoke_existing_keys"] = json!(true);
    let recovered = world.post("/auth/recover", None, &recovery).await.expect(201);
    let key = recovered.body["data"]["api_key"].as_str();
    world.get("/me", agent.key()).await.refused(401, "UNAUTHENTICATED");
    world.get("/me", lost).await.refused(401, "UNAUTHENTICATED");
    let keys = world.get("/api-keys", key).await.expect(200);
    let statuses: Vec<_> = keys.body["data"].as_array().expect("keys").iter().map(|key| &key["status"]).collect();
    assert_eq!(statuses, ["revoked", "revoked", "active"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_recover_is_told_why() {
    let world = World::start().await;
    let (agent, unknown) = (world.agent(1).await, Wallet::new(2));
    let answer = world.post("/auth/recover", None, &world.recovery(&unknown).await).await;
    let answer = answer.refused(404, "WALLET_NOT_REGISTERED");
    assert_eq!(answer.body["error"]["recovery"]["next_action"], "register");

    world.post("/auth/recover", None, &json!({ "revoke_existing_keys": 1, "x": 1 })).await.wrong(&[
        "nonce",
        "pow_nonce",
        "revoke_existing_keys",
        "signature",
        "wallet_address",
        "x",
    ]);
    // Without the wallet nobody learns whether it is registered.
    let mut forged = world.recovery(&unknown).await;
    forged["signature"] = json!(agent.wallet.sign("something"));
    world.post("/auth/recover", None, &forged).await.refused(401, "SIGNATURE_INVALID");

    let mut crossed = world.registration(&agent.wallet).await;
    world.post("/auth/recover", None, &crossed).await.refused(401, "CHALLENGE_INVALID");
    crossed = world.recovery(&agent.wallet).await;
    world.wait(Duration::from_secs(300));
    world.post("/auth/recover", None, &crossed).await.refused(401, "CHALLENGE_EXPIRED");

    let asked = json!({ "wallet_address": agent.wallet.address, "purpose": "recover" });
    let challenge = world.post("/auth/challenge", None, &asked).await.expect(200);
    let pow = challenge.body["data"]["pow"]["challenge"].as_str().expect("text").to_string();
    let mut lazy = crate::support::answer_challenge(&agent.wallet, &challenge.body["data"]);
    let solved = lazy["pow_nonce"].clone();
    lazy["pow_nonce"] = json!(miss(&pow, 2));
    world.post("/auth/recover", None, &lazy).await.refused(400, "POW_INVALID");
    lazy["pow_nonce"] = solved;
    let mut contract = lazy.clone();
    contract["signature"] = json!(format!("{}00", contract["signature"].as_str().expect("text")));
    world.post("/auth/recover", None, &contract).await.refused(422, "CONTRACT_WALLET_UNSUPPORTED");
    world.post("/auth/recover", None, &lazy).await.expect(201);

    let good = world.recovery(&agent.wallet).await;
    world.suspend(agent.id).await;
    world.post("/auth/recover", None, &good).await.refused(403, "PROFILE_SUSPENDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_full_of_keys_recovers_by_revoking_them() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    for number in 1..100 {
        world.post("/api-keys", agent.key(), &json!({ "name": number.to_string() })).await.expect(201);
    }
    world.post("/auth/recover", None, &world.recovery(&agent.wallet).await).await.refused(409, "CONFLICT");
    let mut recovery = world.recovery(&agent.wallet).await;
    recovery["revoke_existing_keys"] = json!(true);
    world.post("/auth/recover", None, &recovery).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_e8_one_of_many_uses_of_a_recovery_wins() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    for _ in 0..20 {
        world.wait(Duration::from_millis(1));
        let recovery = world.recovery(&agent.wallet).await;
        let codes = statuses((0..4).map(|_| world.post("/auth/recover", None, &recovery))).await;
        assert_eq!(codes.iter().filter(|status| **status == 201).count(), 1, "{codes:?}");
        assert_eq!(codes.iter().filter(|status| **status == 401).count(), 3, "{codes:?}");
    }
}
