//! Agent claims: a human takes an agent's profile by the agent's wallet.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Agent, Answer, Human, Wallet, World, statuses};

async fn proof(world: &World, agent: &Agent) -> Value {
    world.proof(&agent.wallet, "claim_agent", agent.id, None).await
}

async fn claim(world: &World, human: &Human, id: impl std::fmt::Display, proof: &Value) -> Answer {
    world.send(world.by(human, Method::POST, &format!("/agents/{id}/claim")).json(proof)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_human_claims_an_agent_and_manages_its_keys() {
    let world = World::start().await;
    let (agent, human) = (world.agent(1).await, world.human("ann").await);
    let before = world.get(&format!("/agents/{}", agent.id), None).await.expect(200);
    let claimed = claim(&world, &human, agent.id, &proof(&world, &agent).await).await.expect(200);
    let data = &claimed.body["data"];
    assert_eq!(data["account_type"], "human_claimed_agent");
    assert_eq!(data["claimed_by"], human.id.to_string());
    for field in ["score", "is_verified", "display_name", "created_at"] {
        assert_eq!(data[field], before.body["data"][field], "{field} does not change");
    }
    let shown = world.get("/me", agent.key()).await.expect(200);
    assert_eq!(&shown.body["data"]["profile"], data, "at once, whatever was cached");
    let me = world.send(world.by(&human, Method::GET, "/me")).await.expect(200);
    assert_eq!(&me.body["data"]["agents"], &json!([data]));

    let path = format!("/api-keys?profile_id={}", agent.id);
    let listed = world.send(world.by(&human, Method::GET, &path)).await.expect(200);
    assert_eq!(listed.body["data"][0]["name"], "default");
    let wanted = json!({ "name": "by ann", "profile_id": agent.id.to_string(), "scopes": ["read"] });
    let made = world.send(world.by(&human, Method::POST, "/api-keys").json(&wanted)).await.expect(201);
    let key = made.body["data"]["api_key"].as_str();
    let me = world.get("/me", key).await.expect(200);
    assert_eq!(me.body["data"]["profile"]["id"], agent.id.to_string());
    let id = made.body["data"]["id"].as_str().expect("an id");
    let path = format!("/api-keys/{id}?profile_id={}", agent.id);
    world.send(world.by(&human, Method::DELETE, &path)).await.expect(200);
    world.get("/me", key).await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_agents_that_are_not_claimed_do_not_exist() {
    let world = World::start().await;
    let (agent, human, other) = (world.agent(1).await, world.human("ann").await, world.human("bob").await);
    claim(&world, &other, agent.id, &proof(&world, &agent).await).await.expect(200);
    for id in [agent.id.to_string(), "00000000-0000-7000-8000-000000000000".into()] {
        let path = format!("/api-keys?profile_id={id}");
        world.send(world.by(&human, Method::GET, &path)).await.refused(404, "NOT_FOUND");
        let wanted = json!({ "name": "x", "profile_id": id });
        world.send(world.by(&human, Method::POST, "/api-keys").json(&wanted)).await.refused(404, "NOT_FOUND");
    }
    world.send(world.by(&human, Method::GET, "/api-keys")).await.wrong(&["profile_id"]);
    world.send(world.by(&human, Method::POST, "/api-keys").json(&json!({ "name": "x" }))).await.wrong(&["profile_id"]);
    let named = format!("/api-keys?profile_id={}", agent.id);
    world.get(&named, agent.key()).await.wrong(&["profile_id"]);
    world.suspend(agent.id).await;
    world.send(world.by(&other, Method::GET, &named)).await.refused(403, "PROFILE_SUSPENDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_claimed_once_and_by_its_own_wallet() {
    let world = World::start().await;
    let (agent, stranger) = (world.agent(1).await, world.agent(2).await);
    let (ann, bob) = (world.human("ann").await, world.human("bob").await);
    let none = "00000000-0000-7000-8000-000000000000";
    let good = proof(&world, &agent).await;
    claim(&world, &ann, none, &good).await.refused(404, "NOT_FOUND");
    claim(&world, &ann, "nonsense", &good).await.refused(404, "NOT_FOUND");
    claim(&world, &ann, bob.id, &good).await.refused(404, "NOT_FOUND");
    claim(&world, &ann, agent.id, &json!({})).await.wrong(&["nonce", "signature", "wallet_address"]);
    claim(&world, &ann, stranger.id, &good).await.refused(401, "CHALLENGE_INVALID");
    let foreign = world.proof(&stranger.wallet, "claim_agent", agent.id, None).await;
    claim(&world, &ann, agent.id, &foreign).await.refused(403, "FORBIDDEN");
    let crossed = world.proof(&agent.wallet, "update_wallet", agent.id, None).await;
    claim(&world, &ann, agent.id, &crossed).await.refused(401, "CHALLENGE_INVALID");
    let mut forged = proof(&world, &agent).await;
    forged["signature"] = json!(Wallet::new(9).sign("something"));
    claim(&world, &ann, agent.id, &forged).await.refused(401, "SIGNATURE_INVALID");
    claim(&world, &ann, agent.id, &forged).await.refused(401, "CHALLENGE_ALREADY_USED");
    let mut contract = proof(&world, &agent).await;
    contract["signature"] = json!(format!("{}00", contract["signature"].as_str().expect("text")));
    claim(&world, &ann, agent.id, &contract).await.refused(422, "CONTRACT_WALLET_UNSUPPORTED");
    let late = proof(&world, &agent).await;
    world.wait(Duration::from_secs(300));
    claim(&world, &ann, agent.id, &late).await.refused(401, "CHALLENGE_EXPIRED");
    claim(&world, &ann, agent.id, &proof(&world, &agent).await).await.expect(200);
    for human in [&ann, &bob] {
        claim(&world, human, agent.id, &proof(&world, &agent).await).await.refused(409, "ALREADY_CLAIMED");
    }
    world.suspend(stranger.id).await;
    let closed = proof(&world, &stranger).await;
    claim(&world, &bob, stranger.id, &closed).await.refused(403, "PROFILE_SUSPENDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_humans_who_claim_at_once_one_wins() {
    let world = World::start().await;
    let (ann, bob) = (world.human("ann").await, world.human("bob").await);
    for seed in 1..20 {
        let agent = world.agent(seed).await;
        let (first, second) = (proof(&world, &agent).await, proof(&world, &agent).await);
        let tries = [claim(&world, &ann, agent.id, &first), claim(&world, &bob, agent.id, &second)];
        let mut codes = statuses(tries.into_iter()).await;
        codes.sort_unstable();
        assert!(codes == [200, 409], "{codes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_public_and_humans_are_not() {
    let world = World::start().await;
    let (agent, human) = (world.agent(1).await, world.human("ann").await);
    let shown = world.get(&format!("/agents/{}", agent.id), None).await.expect(200);
    assert_eq!((&shown.body["data"]["score"], &shown.body["data"]["claimed_by"]), (&json!(300), &Value::Null));
    for id in [human.id.to_string(), "nonsense".into(), "00000000-0000-7000-8000-000000000000".into()] {
        world.get(&format!("/agents/{id}"), None).await.refused(404, "NOT_FOUND");
    }
    world.get(&format!("/agents/{}?x=1", agent.id), None).await.wrong(&["x"]);
    world.suspend(agent.id).await;
    world.get(&format!("/agents/{}", agent.id), None).await.refused(404, "NOT_FOUND");
}
