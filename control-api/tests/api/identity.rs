//! Challenges, registration, who one is.

use std::time::Duration;

use serde_json::json;

use crate::support::{Wallet, World, answer_challenge, miss, statuses};

const OTHER: &str = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_registers_and_is_somebody() {
    let world = World::start().await;
    let wallet = Wallet::new(1);
    let challenge = world.post("/auth/challenge", None, &json!({ "wallet_address": wallet.address })).await.expect(200);
    let data = &challenge.body["data"];
    assert_eq!((&data["purpose"], &data["chain"]), (&json!("register"), &json!("evm")));
    assert_eq!((&data["pow"]["algorithm"], &data["pow"]["difficulty"]), (&json!("sha256"), &json!(2)));
    assert_eq!((&data["expires_in"], &data["expires_at"]), (&json!(300), &json!("2026-11-24T06:15:23.007Z")));
    let mut registration = answer_challenge(&wallet, data);
    registration["display_name"] = json!(" Weather\u{202e} bot ");
    let registered = world.post("/register", None, &registration).await.expect(201);
    let data = &registered.body["data"];
    let key = data["api_key"].as_str().expect("a key");
    assert_eq!(registered.header("cache-control"), "no-store");
    assert_eq!(data["authorization_header"], format!("Bearer {key}"));
    assert_eq!((key.len(), key.starts_with("am_k_")), (43, true));
    let profile = &data["profile"];
    assert_eq!((&profile["display_name"], &profile["account_type"]), (&json!("Weather bot"), &json!("agent")));
    assert_eq!((&profile["score"], &profile["is_verified"]), (&json!(300), &json!(false)));

    let me = world.get("/me", Some(key)).await.expect(200);
    assert_eq!(me.header("cache-control"), "no-store");
    let data = &me.body["data"];
    assert_eq!(&data["profile"], profile);
    assert_eq!((&data["score"], &data["scopes"]), (&json!(300), &json!(["gateway", "read", "write"])));
    let [shown] = data["wallets"].as_array().expect("wallets").as_slice() else { panic!("{}", me.text) };
    let address = shown["address"].as_str().expect("text");
    assert_ne!(address, wallet.address, "shown with its checksum");
    assert_eq!(address.to_lowercase(), wallet.address);
    assert_eq!(shown["capabilities"], json!(["auth", "recovery", "payment", "payout"]));
    assert_eq!((&shown["default_payment"], &shown["default_payout"]), (&json!(true), &json!(true)));
    assert!(!me.text.contains(key), "a key is shown once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_is_a_sign_in_text() {
    let world = World::start().await;
    let asked = json!({ "wallet_address": OTHER, "purpose": "register" });
    let challenge = world.post("/auth/challenge", None, &asked).await.expect(200);
    let data = &challenge.body["data"];
    let message = data["message"].as_str().expect("text");
    let nonce = data["nonce"].as_str().expect("text");
    let expected = format!(
        "gateway.test:8080 wants you to sign in with your Ethereum account:\n\
         0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\n\nRegister this wallet as a new agent.\n\n\
         URI: http://gateway.test:8080\nVersion: 1\nChain ID: 1\nNonce: {nonce}\n\
         Issued At: 2026-11-24T06:10:23.007Z\nExpiration Time: 2026-11-24T06:15:23.007Z"
    );
    assert_eq!(message, expected);
    assert!(nonce.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let pow = data["pow"]["challenge"].as_str().expect("text");
    assert_eq!(pow.split('.').count(), 7, "{pow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_solana_wallet_registers_too() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use ed25519_dalek::{Signer as _, SigningKey};
    let world = World::start().await;
    let key = SigningKey::from_bytes(&[5; 32]);
    let address = bs58::encode(key.verifying_key().as_bytes()).into_string();
    let challenge = world.post("/auth/challenge", None, &json!({ "wallet_address": address })).await.expect(200);
    let data = &challenge.body["data"];
    assert_eq!(data["chain"], "solana");
    let message = data["message"].as_str().expect("text");
    assert!(message.contains("your Solana account"), "{message}");
    let registration = json!({
        "wallet_address": address,
        "signature": STANDARD.encode(key.sign(message.as_bytes()).to_bytes()),
        "nonce": data["nonce"],
        "pow_nonce": crate::support::solve(data["pow"]["challenge"].as_str().expect("text"), 2),
    });
    let registered = world.post("/register", None, &registration).await.expect(201);
    let me = world.get("/me", registered.body["data"]["api_key"].as_str()).await.expect(200);
    assert_eq!(me.body["data"]["wallets"][0]["address"], address);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_challenge_needs_depends_on_its_purpose() {
    let world = World::start().await;
    let profile = "00000000-0000-7000-8000-000000000000";
    let other = "0xfb6916095ca1df60bb79ce92ce3ea74c37c5d359";
    let ask = |mut more: serde_json::Value| {
        more["wallet_address"] = json!(OTHER);
        let world = &world;
        async move { world.post("/auth/challenge", None, &more).await }
    };
    ask(json!({ "purpose": "claim_agent" })).await.wrong(&["profile_id"]);
    ask(json!({ "purpose": "link_wallet" })).await.wrong(&["other_wallet_address", "profile_id"]);
    ask(json!({ "purpose": "register", "profile_id": profile })).await.wrong(&["profile_id"]);
    ask(json!({ "other_wallet_address": other })).await.wrong(&["other_wallet_address"]);
    let same = json!({ "purpose": "link_wallet", "profile_id": profile, "other_wallet_address": OTHER });
    ask(same).await.wrong(&["other_wallet_address"]);
    ask(json!({ "purpose": "steal", "typo": 1, "profile_id": "x" })).await.wrong(&["profile_id", "purpose", "typo"]);
    let link = json!({ "purpose": "link_wallet", "profile_id": profile, "other_wallet_address": other });
    let linked = ask(link).await.expect(200);
    let message = linked.body["data"]["message"].as_str().expect("text");
    assert!(message.contains(profile), "{message}");
    assert!(message.to_lowercase().contains(other), "{message}");
    assert_eq!(linked.body["data"]["pow"], json!(null), "only what anybody can ask for costs work");
    ask(json!({ "purpose": "recover" })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_addresses_are_named() {
    let world = World::start().await;
    for address in [
        json!("0x5AAeb6053f3e94c9b9a09f33669435e7ef1beaed"),
        json!("0x12"),
        json!("nobody"),
        json!("11111111111111111111111111111111"),
        json!(5),
        json!(null),
        json!("x".repeat(5000)),
    ] {
        world.post("/auth/challenge", None, &json!({ "wallet_address": address })).await.wrong(&["wallet_address"]);
    }
    world.post("/register", None, &json!({})).await.wrong(&["nonce", "pow_nonce", "signature", "wallet_address"]);
    let bad = json!({
        "wallet_address": OTHER, "nonce": "", "pow_nonce": "ä", "signature": 5, "display_name": "", "typo": 1,
    });
    let answer = world.post("/register", None, &bad).await;
    answer.wrong(&["display_name", "nonce", "pow_nonce", "signature", "typo"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_wallet_is_sent_to_recovery() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let again = world.registration(&agent.wallet).await;
    let answer = world.post("/register", None, &again).await.refused(409, "WALLET_ALREADY_REGISTERED");
    assert_eq!(answer.body["error"]["recovery"]["next_action"], "recover_account");
    assert!(!answer.text.contains(&agent.id.to_string()), "whose it is, is nobody's business");
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_a_challenge_is_good_once_and_for_a_while() {
    let world = World::start().await;
    let wallet = Wallet::new(1);
    let registration = world.registration(&wallet).await;
    world.post("/register", None, &registration).await.expect(201);
    world.post("/register", None, &registration).await.refused(401, "CHALLENGE_ALREADY_USED");

    let other = Wallet::new(2);
    let late = world.registration(&other).await;
    world.wait(Duration::from_secs(300));
    world.post("/register", None, &late).await.refused(401, "CHALLENGE_EXPIRED");
    let answer = world.post("/register", None, &late).await;
    assert_eq!(answer.body["error"]["recovery"]["next_action"], "request_new_challenge");
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_a_challenge_is_good_for_one_wallet_and_one_purpose() {
    let world = World::start().await;
    let (wallet, other) = (Wallet::new(1), Wallet::new(2));
    let mut stolen = world.registration(&wallet).await;
    stolen["wallet_address"] = json!(other.address);
    world.post("/register", None, &stolen).await.refused(401, "CHALLENGE_INVALID");
    let recover = json!({ "wallet_address": wallet.address, "purpose": "recover" });
    let challenge = world.post("/auth/challenge", None, &recover).await.expect(200);
    let crossed = answer_challenge(&wallet, &challenge.body["data"]);
    world.post("/register", None, &crossed).await.refused(401, "CHALLENGE_INVALID");
    let mut invented = world.registration(&wallet).await;
    invented["nonce"] = json!("A".repeat(52));
    world.post("/register", None, &invented).await.refused(401, "CHALLENGE_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_the_nonce_is_gone_before_the_signature_counts() {
    let world = World::start().await;
    let (wallet, other) = (Wallet::new(1), Wallet::new(2));
    let good = world.registration(&wallet).await;
    let mut forged = good.clone();
    forged["signature"] = json!(other.sign("something else"));
    world.post("/register", None, &forged).await.refused(401, "SIGNATURE_INVALID");
    world.post("/register", None, &good).await.refused(401, "CHALLENGE_ALREADY_USED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_proof_of_work_costs_nothing_but_itself() {
    let world = World::start().await;
    let wallet = Wallet::new(1);
    let challenge = world.post("/auth/challenge", None, &json!({ "wallet_address": wallet.address })).await.expect(200);
    let good = answer_challenge(&wallet, &challenge.body["data"]);
    let mut lazy = good.clone();
    lazy["pow_nonce"] = json!(miss(challenge.body["data"]["pow"]["challenge"].as_str().expect("text"), 2));
    let refused = world.post("/register", None, &lazy).await.refused(400, "POW_INVALID");
    assert_eq!(refused.body["error"]["details"]["difficulty"], 2);
    world.post("/register", None, &good).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_signatures_are_refused_and_cost_no_challenge() {
    let world = World::start().await;
    let wallet = Wallet::new(1);
    let good = world.registration(&wallet).await;
    let text = good["signature"].as_str().expect("text");
    let with_v = |v: &str| format!("{}{v}", &text[..130]);
    for signature in [with_v("25"), with_v("02"), text[..130].to_string(), text[2..].to_string(), "0xzz".into()] {
        let mut bad = good.clone();
        bad["signature"] = json!(signature);
        world.post("/register", None, &bad).await.refused(401, "SIGNATURE_INVALID");
    }
    let mut contract = good.clone();
    contract["signature"] = json!(format!("{text}00"));
    world.post("/register", None, &contract).await.refused(422, "CONTRACT_WALLET_UNSUPPORTED");
    world.post("/register", None, &good).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_uses_of_a_nonce_wins() {
    let world = World::start().await;
    let registration = world.registration(&Wallet::new(1)).await;
    let tries = (0..16).map(|_| world.post("/register", None, &registration));
    let codes = statuses(tries).await;
    assert_eq!(codes.iter().filter(|status| **status == 201).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|status| **status == 401).count(), 15, "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_registrations_of_a_wallet_wins() {
    let world = World::start().await;
    let wallet = Wallet::new(1);
    let mut registrations = Vec::new();
    for _ in 0..12 {
        world.wait(Duration::from_millis(1));
        registrations.push(world.registration(&wallet).await);
    }
    let tries = registrations.iter().map(|registration| world.post("/register", None, registration));
    let codes = statuses(tries).await;
    assert_eq!(codes.iter().filter(|status| **status == 201).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|status| **status == 409).count(), 11, "{codes:?}");
}
