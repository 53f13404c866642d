//! Wallets: looked at with a key, changed with a wallet's proof.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Agent, Wallet, World};

pub async fn change(world: &World, agent: &Agent, id: &str, by: &Wallet, change: Value) -> crate::support::Answer {
    let mut body = change;
    body["proof"] = world.proof(by, "update_wallet", agent.id, None).await;
    world.patch(&format!("/me/wallets/{id}"), agent.key(), &body).await
}

pub async fn first_id(world: &World, agent: &Agent) -> String {
    let listed = world.get("/me/wallets", agent.key()).await.expect(200);
    listed.body["data"][0]["id"].as_str().expect("an id").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_linked_with_two_proofs_listed_and_shown() {
    let world = World::start().await;
    let (agent, new) = (world.agent(1).await, Wallet::new(2));
    // Listed oldest first: the new one is newer.
    world.wait(Duration::from_secs(1));
    let mut body = world.link_of(&agent, &new).await;
    body["label"] = json!(" cold\u{202e} storage ");
    body["capabilities"] = json!(["payout", "recovery"]);
    let linked = world.post("/me/wallets", agent.key(), &body).await.expect(201);
    let wallet = &linked.body["data"];
    assert_eq!(wallet["address"].as_str().expect("text").to_lowercase(), new.address);
    assert_eq!((&wallet["label"], &wallet["status"]), (&json!("cold storage"), &json!("active")));
    assert_eq!((&wallet["capabilities"], &wallet["chain"]), (&json!(["payout", "recovery"]), &json!("evm")));
    assert_eq!((&wallet["default_payment"], &wallet["default_payout"]), (&json!(false), &json!(false)));

    let listed = world.get("/me/wallets", agent.key()).await.expect(200);
    assert_eq!(listed.body["pagination"], Value::Null, "not paged");
    let [_, second] = listed.body["data"].as_array().expect("wallets").as_slice() else { panic!("{}", listed.text) };
    assert_eq!(second, wallet);
    let id = wallet["id"].as_str().expect("an id");
    let shown = world.get(&format!("/me/wallets/{id}"), agent.key()).await.expect(200);
    assert_eq!(&shown.body["data"], wallet);
    let me = world.get("/me", agent.key()).await.expect(200);
    assert_eq!(&me.body["data"]["wallets"][1], wallet);
    // It is the profile's now: it registers nobody, and recovers this one.
    let registration = world.registration(&new).await;
    world.post("/register", None, &registration).await.refused(409, "WALLET_ALREADY_REGISTERED");
    let recovered = world.post("/auth/recover", None, &world.recovery(&new).await).await.expect(201);
    assert_eq!(recovered.body["data"]["profile"]["id"], agent.id.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn others_wallets_do_not_exist() {
    let world = World::start().await;
    let (agent, other) = (world.agent(1).await, world.agent(2).await);
    let id = first_id(&world, &other).await;
    for id in [id.as_str(), "nonsense", "00000000-0000-7000-8000-000000000000"] {
        world.get(&format!("/me/wallets/{id}"), agent.key()).await.refused(404, "NOT_FOUND");
        let label = json!({ "label": "mine" });
        change(&world, &agent, id, &agent.wallet, label).await.refused(404, "NOT_FOUND");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_are_named() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let wrong = world.post("/me/wallets", agent.key(), &json!({})).await;
    wrong.wrong(&["existing_wallet", "new_wallet"]);
    let proof = json!({ "wallet_address": "nobody", "nonce": "", "signature": 5, "typo": 1 });
    let body = json!({ "existing_wallet": proof, "new_wallet": 1, "label": "", "capabilities": ["fly"], "x": 1 });
    world.post("/me/wallets", agent.key(), &body).await.wrong(&[
        "capabilities",
        "existing_wallet.nonce",
        "existing_wallet.signature",
        "existing_wallet.typo",
        "existing_wallet.wallet_address",
        "label",
        "new_wallet",
        "x",
    ]);
    let same = world.proof(&agent.wallet, "update_wallet", agent.id, None).await;
    let body = json!({ "existing_wallet": same, "new_wallet": same });
    world.post("/me/wallets", agent.key(), &body).await.wrong(&["new_wallet.wallet_address"]);

    let path = format!("/me/wallets/{}", first_id(&world, &agent).await);
    world.patch(&path, agent.key(), &json!({ "proof": same })).await.wrong(&["label"]);
    let body = json!({
        "label": "x".repeat(81), "capabilities": [], "status": "gone", "default_payment": "yes", "default_payout": 1,
    });
    let names = ["capabilities", "default_payment", "default_payout", "label", "proof", "status"];
    world.patch(&path, agent.key(), &body).await.wrong(&names);
    world.delete(&path, agent.key()).await.wrong(&["proof"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn e13_both_proofs_name_both_addresses_and_the_profile() {
    let world = World::start().await;
    let (agent, victim) = (world.agent(1).await, world.agent(2).await);
    let (new, stranger) = (Wallet::new(3), Wallet::new(4));
    let good = world.link_of(&agent, &new).await;
    let refuse = |body: Value, code: &'static str| {
        let (world, agent) = (&world, &agent);
        async move { world.post("/me/wallets", agent.key(), &body).await.refused(401, code) }
    };
    // A proof that names another wallet, another profile, or was made for something else.
    let mut body = good.clone();
    body["new_wallet"] = world.proof(&new, "link_wallet", agent.id, Some(&stranger)).await;
    refuse(body, "CHALLENGE_INVALID").await;
    let mut body = good.clone();
    body["existing_wallet"] = world.proof(&agent.wallet, "link_wallet", agent.id, Some(&stranger)).await;
    refuse(body, "CHALLENGE_INVALID").await;
    let mut body = good.clone();
    body["new_wallet"] = world.proof(&new, "link_wallet", victim.id, Some(&agent.wallet)).await;
    refuse(body, "CHALLENGE_INVALID").await;
    let mut body = good.clone();
    body["new_wallet"] = world.proof(&new, "update_wallet", agent.id, None).await;
    refuse(body, "CHALLENGE_INVALID").await;
    // One wallet signs for the other.
    let mut body = world.link_of(&agent, &new).await;
    body["new_wallet"]["signature"] = json!(stranger.sign("anything"));
    refuse(body.clone(), "SIGNATURE_INVALID").await;
    refuse(body, "CHALLENGE_ALREADY_USED").await;
    let mut swapped = world.link_of(&agent, &new).await;
    let (a, b) = (swapped["existing_wallet"].clone(), swapped["new_wallet"].clone());
    (swapped["existing_wallet"], swapped["new_wallet"]) = (b, a);
    // The new wallet may not vouch for the old one.
    world.post("/me/wallets", agent.key(), &swapped).await.refused(403, "FORBIDDEN");
    // Nothing of all that has cost the good pair its use.
    world.post("/me/wallets", agent.key(), &good).await.expect(201);
    world.post("/me/wallets", agent.key(), &good).await.refused(401, "CHALLENGE_ALREADY_USED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_is_linked_is_linked_to_nobody_else() {
    let world = World::start().await;
    let (agent, other) = (world.agent(1).await, world.agent(2).await);
    let again = world.link_of(&agent, &other.wallet).await;
    world.post("/me/wallets", agent.key(), &again).await.refused(409, "WALLET_ALREADY_LINKED");
    let new = Wallet::new(3);
    world.link(&agent, &new).await;
    let twice = world.link_of(&agent, &new).await;
    world.post("/me/wallets", agent.key(), &twice).await.refused(409, "WALLET_ALREADY_LINKED");
    // A stranger's wallet vouches for nobody.
    let body = json!({
        "existing_wallet": world.proof(&other.wallet, "link_wallet", agent.id, Some(&Wallet::new(4))).await,
        "new_wallet": world.proof(&Wallet::new(4), "link_wallet", agent.id, Some(&other.wallet)).await,
    });
    world.post("/me/wallets", agent.key(), &body).await.refused(403, "FORBIDDEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_changed_with_a_proof_of_a_recovery_wallet() {
    let world = World::start().await;
    let (agent, second) = (world.agent(1).await, Wallet::new(2));
    let (first, id) = (first_id(&world, &agent).await, world.link(&agent, &second).await);
    let set = json!({ "label": "spare", "default_payout": true, "capabilities": ["payout", "recovery"] });
    let changed = change(&world, &agent, &id, &agent.wallet, set).await.expect(200);
    let data = &changed.body["data"];
    assert_eq!((&data["label"], &data["default_payout"]), (&json!("spare"), &json!(true)));
    let old = world.get(&format!("/me/wallets/{first}"), agent.key()).await.expect(200);
    let (payment, payout) = (&old.body["data"]["default_payment"], &old.body["data"]["default_payout"]);
    assert_eq!((payment, payout), (&json!(true), &json!(false)), "one default of each kind");
    let impossible = json!({ "default_payment": true });
    change(&world, &agent, &id, &agent.wallet, impossible).await.refused(409, "CONFLICT");
    let cleared = change(&world, &agent, &id, &second, json!({ "label": null })).await.expect(200);
    assert_eq!(cleared.body["data"]["label"], Value::Null);
    // Without `recovery` a wallet changes nothing, not even itself.
    let weak = json!({ "capabilities": ["payout"] });
    change(&world, &agent, &id, &second, weak).await.expect(200);
    change(&world, &agent, &id, &second, json!({ "label": "x" })).await.refused(403, "FORBIDDEN");
    let stranger = Wallet::new(3);
    change(&world, &agent, &id, &stranger, json!({ "label": "x" })).await.refused(403, "FORBIDDEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_a_proof_changes_one_thing_once() {
    let world = World::start().await;
    let (agent, other) = (world.agent(1).await, world.agent(2).await);
    let path = format!("/me/wallets/{}", first_id(&world, &agent).await);
    let proof = world.proof(&agent.wallet, "update_wallet", agent.id, None).await;
    let body = json!({ "label": "a", "proof": proof });
    world.patch(&path, agent.key(), &body).await.expect(200);
    world.patch(&path, agent.key(), &body).await.refused(401, "CHALLENGE_ALREADY_USED");
    let crossed = world.proof(&agent.wallet, "update_wallet", other.id, None).await;
    let body = json!({ "label": "a", "proof": crossed });
    world.patch(&path, agent.key(), &body).await.refused(401, "CHALLENGE_INVALID");
    let late = world.proof(&agent.wallet, "update_wallet", agent.id, None).await;
    world.wait(Duration::from_secs(300));
    let body = json!({ "label": "a", "proof": late });
    world.patch(&path, agent.key(), &body).await.refused(401, "CHALLENGE_EXPIRED");
    let mut contract = world.proof(&agent.wallet, "update_wallet", agent.id, None).await;
    contract["signature"] = json!(format!("{}00", contract["signature"].as_str().expect("text")));
    let body = json!({ "label": "a", "proof": contract });
    world.patch(&path, agent.key(), &body).await.refused(422, "CONTRACT_WALLET_UNSUPPORTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_wallet_stays_as_disabled_and_nobody_elses() {
    let world = World::start().await;
    let (agent, second) = (world.agent(1).await, Wallet::new(2));
    let (first, id) = (first_id(&world, &agent).await, world.link(&agent, &second).await);
    let remove = |id: String, proof: Value| {
        let request = world.request(reqwest::Method::DELETE, &format!("/me/wallets/{id}"), agent.key());
        world.send(request.json(&json!({ "proof": proof })))
    };
    let by_itself = world.proof(&second, "update_wallet", agent.id, None).await;
    let removed = remove(id.clone(), by_itself).await.expect(200);
    assert_eq!((&removed.body["data"]["id"], &removed.body["data"]["status"]), (&json!(id), &json!("disabled")));
    let last = world.proof(&agent.wallet, "update_wallet", agent.id, None).await;
    remove(first, last).await.refused(409, "WALLET_WOULD_STRAND_PROFILE");
    let registration = world.registration(&second).await;
    world.post("/register", None, &registration).await.refused(409, "WALLET_ALREADY_REGISTERED");
    world.post("/auth/recover", None, &world.recovery(&second).await).await.refused(403, "FORBIDDEN");
    let back = change(&world, &agent, &id, &agent.wallet, json!({ "status": "active" })).await.expect(200);
    assert_eq!(back.body["data"]["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_ends_somewhere() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let most = config::Config::from_parts(None, []).expect("defaults").identity.wallets_max;
    for seed in 2..=u8::try_from(most).expect("few") {
        world.link(&agent, &Wallet::new(seed)).await;
    }
    let one_more = world.link_of(&agent, &Wallet::new(200)).await;
    world.post("/me/wallets", agent.key(), &one_more).await.refused(409, "CONFLICT");
}
