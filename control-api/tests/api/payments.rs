//! Where a payment stands, and the sandbox provider's own side.

use std::time::Duration;

use serde_json::json;
use storage::model::{Micros, Payment};

use crate::support::{Agent, World, listing_id};

async fn quoted(world: &World) -> (Agent, Agent, std::sync::Arc<Payment>) {
    let (buyer, seller) = (world.agent(1).await, world.agent(2).await);
    let made = world.create_listing(&seller, json!({ "pricing_amount": 1 })).await.expect(201);
    let payment = world.quote(&buyer, &seller, listing_id(&made), Micros(1_000_000)).await;
    (buyer, seller, payment)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_tells_its_buyer_what_to_do_next() {
    let world = World::start().await;
    let (buyer, seller, payment) = quoted(&world).await;
    let path = format!("/payments/{}", payment.quote.id);
    let shown = world.get(&path, buyer.key()).await.expect(200);
    let data = &shown.body["data"];
    assert_eq!((&data["state"], &data["relay_request_id"]), (&json!("quoted"), &json!(payment.quote.id.to_string())));
    assert_eq!(data["amount"], json!({ "amount_cents": 100, "amount_micros": 1_000_000, "currency": "USD" }));
    assert_eq!(data["requirements"]["provider"], "sandbox");
    assert_eq!(data["status_url"], format!("{}/api/v1{path}", world.site));
    assert_eq!(data["next"]["next_action"], "complete_payment_then_retry");

    for path in [path.clone(), format!("/payments/pay_{}", "0".repeat(32)), "/payments/nonsense".into()] {
        world.get(&path, seller.key()).await.refused(404, "PAYMENT_NOT_FOUND");
    }
    let claim = world.claim(&payment).await;
    let claimed = world.get(&path, buyer.key()).await.expect(200);
    assert_eq!(
        (&claimed.body["data"]["state"], &claimed.body["data"]["paid_micros"]),
        (&json!("claimed"), &json!(1_000_000))
    );
    world.release(&payment, claim).await;
    let settled = world.get(&path, buyer.key()).await.expect(200);
    let data = &settled.body["data"];
    assert_eq!((&data["state"], &data["attempts"]), (&json!("settled"), &json!(1)));
    assert_eq!(data["next"]["next_action"], "retry_same_payment");
    let claim = world.claim_again(&payment).await;
    world.complete(&payment, claim, "{}").await;
    let done = world.get(&path, buyer.key()).await.expect(200);
    assert_eq!(done.body["data"]["next"]["next_action"], "read_result");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_quote_expires() {
    let world = World::start().await;
    let (buyer, _seller, payment) = quoted(&world).await;
    world.wait(Duration::from_secs(3601));
    let shown = world.get(&format!("/payments/{}", payment.quote.id), buyer.key()).await.expect(200);
    assert_eq!(shown.body["data"]["state"], "expired");
    assert_eq!(shown.body["data"]["next"]["next_action"], "request_new_payment");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_is_paid_by_any_agent_once() {
    let world = World::start().await;
    let (_buyer, seller, payment) = quoted(&world).await;
    let path = format!("/sandbox/payments/{}", payment.quote.id);
    let waiting = world.get(&path, seller.key()).await.expect(200);
    assert_eq!(waiting.body["data"]["status"], "waiting");
    let pay = format!("{path}/pay");
    let paid = world.post(&pay, seller.key(), &json!({ "delay_ms": 1000 })).await.expect(200);
    let data = &paid.body["data"];
    assert_eq!((&data["status"], &data["relay_request_id"]), (&json!("pending"), &json!(payment.quote.id.to_string())));
    assert_eq!(
        (&data["amount"]["amount_micros"], &data["recipient"]),
        (&json!(1_000_000), &json!("sandbox:settlement"))
    );
    world.wait(Duration::from_secs(1));
    assert_eq!(world.get(&path, seller.key()).await.expect(200).body["data"]["status"], "success");
    let again = json!({ "amount_micros": 5, "outcome": "failure", "recipient": "thief" });
    let again = world.post(&pay, seller.key(), &again).await.expect(200);
    assert_eq!(again.body["data"]["amount"]["amount_micros"], 1_000_000, "the first payment stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_does_what_it_is_asked() {
    let world = World::start().await;
    for (seed, (body, status)) in (1u8..).zip([
        (json!({}), "success"),
        (json!({ "outcome": "failure" }), "failure"),
        (json!({ "outcome": "refund" }), "refund"),
    ]) {
        let (buyer, seller) = (world.agent(seed).await, world.agent(seed + 100).await);
        let made = world.create_listing(&seller, json!({})).await.expect(201);
        let payment = world.quote(&buyer, &seller, listing_id(&made), Micros(50_000)).await;
        let pay = format!("/sandbox/payments/{}/pay", payment.quote.id);
        let bad = json!({ "amount_micros": 0, "delay_ms": -1, "outcome": "theft", "recipient": "", "typo": 1 });
        let answer = world.post(&pay, buyer.key(), &bad).await;
        answer.wrong(&["amount_micros", "delay_ms", "outcome", "recipient", "typo"]);
        let paid = world.post(&pay, buyer.key(), &body).await.expect(200);
        assert_eq!(paid.body["data"]["status"], status);
    }
    let agent = world.agent(50).await;
    let invented = format!("/sandbox/payments/pay_{}", "0".repeat(32));
    world.get(&invented, agent.key()).await.refused(404, "PAYMENT_NOT_FOUND");
    world.post(&format!("{invented}/pay"), agent.key(), &json!({})).await.refused(404, "PAYMENT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_off_is_no_route() {
    let world = World::start_with("[payments.sandbox]\nenabled = false\n").await;
    let agent = world.agent(1).await;
    let path = format!("/sandbox/payments/pay_{}", "0".repeat(32));
    world.get(&path, agent.key()).await.refused(404, "NOT_FOUND");
    world.post(&format!("{path}/pay"), agent.key(), &json!({})).await.refused(404, "NOT_FOUND");
    let health = world.get("/health", None).await.expect(200);
    assert_eq!(health.body["data"]["checks"]["payment_provider"], "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_a_notice_that_relay_did_not_sign_is_refused() {
    let world = World::start().await;
    world.post("/webhooks/relay", None, &json!({})).await.refused(404, "NOT_FOUND");
    let folder = tempfile::tempdir().expect("a directory");
    let key = folder.path().join("key");
    std::fs::write(&key, "the-key").expect("written");
    let world = World::start_with(&format!(
        "[payments.relay]\nenabled = true\nbase_url = \"http://127.0.0.1:9\"\napi_key_file = {key:?}\n\
         recipient = \"0x00000000000000000000000000000000000000aa\"\n"
    ))
    .await;
    let refused = world.post("/webhooks/relay", None, &json!({})).await.refused(403, "FORBIDDEN");
    assert!(refused.body["error"]["message"].as_str().expect("words").contains("X-Signature-SHA256"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_of_x402_are_told_names_wallet_token_and_calls() {
    let world = World::start().await;
    let off = world.get("/.well-known/x402", None).await.expect(200);
    assert_eq!((&off.body["enabled"], &off.body["resources"]), (&json!(false), &json!([])));
    let wallet = "0x00000000000000000000000000000000000000aa";
    let world = World::start_with(&format!(
        "[payments.x402]\nenabled = true\nfacilitator_url = \"http://127.0.0.1:9\"\npay_to = \"{wallet}\"\n"
    ))
    .await;
    let seller = world.agent(1).await;
    let made = world.create_listing(&seller, json!({})).await.expect(201);
    let on = world.get("/.well-known/x402", None).await.expect(200);
    let kind = &on.body["kinds"][0];
    assert_eq!(
        (&kind["network"], &kind["payTo"], &kind["scheme"]),
        (&json!("eip155:8453"), &json!(wallet), &json!("exact"))
    );
    let resource = format!("{}/api/v1/gateway/{}", world.site, listing_id(&made));
    assert_eq!(on.body["resources"], json!([resource]));
}
