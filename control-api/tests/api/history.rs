//! What happened: rows for their parties, with cursors that hold while rows are added.

use std::time::Duration;

use serde_json::{Value, json};
use storage::model::Micros;

use crate::support::{Agent, World, listing_id};

async fn market(world: &World) -> (Agent, Agent, storage::model::ListingId) {
    let (buyer, seller) = (world.agent(1).await, world.agent(2).await);
    let made = world.create_listing(&seller, json!({ "pricing_amount": 1 })).await.expect(201);
    (buyer, seller, listing_id(&made))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completed_call_is_seen_from_both_sides() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let payment = world.completed_call(&buyer, &seller, listing).await;
    let rows = world.get("/gateway-requests", buyer.key()).await.expect(200);
    assert_eq!(rows.body["pagination"], json!({ "limit": 20, "next_cursor": null }));
    let expected = json!({
        "id": payment.quote.gateway_request_id().to_string(), "role": "buyer",
        "buyer_id": buyer.id.to_string(), "seller_id": seller.id.to_string(), "listing_id": listing.to_string(),
        "relay_request_id": payment.quote.id.to_string(), "status": "completed", "http_status": 200,
        "seller_status_code": 200, "billable": true,
        "charged_amount": { "amount_cents": 100, "amount_micros": 1_000_000, "currency": "USD" },
        "fees": {
            "fee_rate": 0.049, "fee_amount_cents": 5, "fee_amount_micros": 49_000,
            "seller_receives_cents": 95, "seller_receives_micros": 951_000,
        },
        "latency_ms": { "total": 34, "seller": 30 }, "request_bytes": 2, "response_bytes": 16, "attempt": 1,
        "error_code": null, "created_at": rows.body["data"][0]["created_at"],
        "completed_at": world.now().to_string(),
    });
    assert_eq!(rows.body["data"], json!([expected.clone()]));
    let theirs = world.get("/gateway-requests?role=seller", seller.key()).await.expect(200);
    assert_eq!((&theirs.body["data"][0]["role"], &theirs.body["data"][0]["id"]), (&json!("seller"), &expected["id"]));
    let none = world.get("/gateway-requests?role=buyer", seller.key()).await.expect(200);
    assert_eq!(none.body["data"], json!([]));

    let path = format!("/gateway-requests/{}", payment.quote.gateway_request_id());
    for key in [buyer.key(), seller.key()] {
        let one = world.get(&path, key).await.expect(200);
        let data = &one.body["data"];
        assert_eq!((&data["id"], &data["attempts"][0]["attempt"]), (&expected["id"], &json!(1)));
        let result = &data["result"];
        assert_eq!((&result["is_kept"], &result["bytes"]), (&json!(true), &json!(16)));
        assert!(one.text.contains("\"seller_response\":{\"result\": 1.50}"), "as it came: {}", one.text);
    }
    world.wait(Duration::from_secs(73 * 3600));
    let late = world.get(&path, buyer.key()).await.expect(200);
    let result = &late.body["data"]["result"];
    assert_eq!((&result["is_kept"], &result["seller_response"]), (&json!(false), &json!(null)));
    assert_eq!(result["sha256"].as_str().expect("text").len(), 64, "the digest stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_a_row() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let payment = world.quote(&buyer, &seller, listing, Micros(1_000_000)).await;
    assert_eq!(world.get("/gateway-requests", buyer.key()).await.body["data"], json!([]), "a quote makes no row");
    let claim = world.claim(&payment).await;
    let running = world.get("/gateway-requests?status=in_progress", buyer.key()).await.expect(200);
    let row = &running.body["data"][0];
    assert_eq!(
        (&row["http_status"], &row["latency_ms"], &row["completed_at"]),
        (&json!(null), &json!(null), &json!(null))
    );
    world.release(&payment, claim).await;
    world.wait(Duration::from_millis(5));
    let claim = world.claim_again(&payment).await;
    world.complete(&payment, claim, "{}").await;
    let rows = world.get("/gateway-requests", buyer.key()).await.expect(200);
    let seen: Vec<(&Value, &Value, &Value)> = rows.body["data"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| (&row["attempt"], &row["status"], &row["error_code"]))
        .collect();
    let (one, two) = (json!(1), json!(2));
    let (done, released, error) = (json!("completed"), json!("released"), json!("SELLER_ERROR"));
    assert_eq!(seen, [(&two, &done, &Value::Null), (&one, &released, &error)]);
    let one = world.get(&format!("/gateway-requests/{}", payment.quote.gateway_request_id()), buyer.key()).await;
    let data = &one.expect(200).body["data"];
    assert_eq!((&data["status"], &data["attempts"][0]["status"]), (&done, &released));
    assert_eq!(data["attempts"][0]["charged_amount"]["amount_micros"], 0);
    assert_eq!(data["attempts"][0]["billable"], false);
    for (status, count) in [("completed", 1), ("released", 1), ("interrupted", 0), ("in_progress", 0)] {
        let rows = world.get(&format!("/gateway-requests?status={status}"), buyer.key()).await.expect(200);
        assert_eq!(rows.body["data"].as_array().expect("rows").len(), count, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn others_calls_do_not_exist() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let stranger = world.agent(3).await;
    let payment = world.completed_call(&buyer, &seller, listing).await;
    let path = format!("/gateway-requests/{}", payment.quote.gateway_request_id());
    let theirs = world.get(&path, stranger.key()).await.refused(404, "NOT_FOUND");
    let invented = format!("/gateway-requests/gw_req_{}", "0".repeat(32));
    let invented = world.get(&invented, stranger.key()).await.refused(404, "NOT_FOUND");
    assert_eq!(theirs.text, invented.text, "one and the same answer");
    world.get("/gateway-requests/nonsense", stranger.key()).await.refused(404, "NOT_FOUND");
    for path in ["/gateway-requests", "/ledger"] {
        assert_eq!(world.get(path, stranger.key()).await.expect(200).body["data"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_hold_while_rows_are_added() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let mut expected = Vec::new();
    for _ in 0..7 {
        expected.insert(0, world.completed_call(&buyer, &seller, listing).await.quote.id.to_string());
    }
    for path in ["/gateway-requests", "/ledger?role=seller"] {
        let key = if path == "/ledger?role=seller" { seller.key() } else { buyer.key() };
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = format!("{path}{separator}limit=2{cursor}");
            let answer = world.get(&page, key).await.expect(200);
            let rows = answer.body["data"].as_array().expect("rows");
            assert!(rows.len() <= 2);
            seen.extend(rows.iter().map(|row| row["relay_request_id"].as_str().expect("text").to_string()));
            // More happens between two pages, and is not seen by this reader.
            world.completed_call(&buyer, &seller, listing).await;
            match answer.body["pagination"]["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let known: Vec<&String> = seen.iter().filter(|id| expected.contains(id)).collect();
        assert_eq!(known, expected.iter().collect::<Vec<_>>(), "{path}");
        seen.sort_unstable();
        let all = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), all, "no row twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_says_who_gave_and_who_got() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let payment = world.completed_call(&buyer, &seller, listing).await;
    let ledger = world.get("/ledger", buyer.key()).await.expect(200);
    let [row] = ledger.body["data"].as_array().expect("rows").as_slice() else { panic!("{}", ledger.text) };
    assert_eq!((&row["entry_type"], &row["direction"]), (&json!("gateway_payment"), &json!("debit")));
    assert_eq!(row["amount"], json!({ "amount_cents": 100, "amount_micros": 1_000_000, "currency": "USD" }));
    assert_eq!((&row["account"], &row["listing_id"]), (&json!("rail:sandbox"), &json!(listing.to_string())));
    assert_eq!(row["gateway_request_id"], payment.quote.gateway_request_id().to_string());
    assert_eq!(row["relay_request_id"], payment.quote.id.to_string());
    let ledger = world.get("/ledger?role=seller", seller.key()).await.expect(200);
    let [row] = ledger.body["data"].as_array().expect("rows").as_slice() else { panic!("{}", ledger.text) };
    assert_eq!((&row["entry_type"], &row["direction"]), (&json!("seller_credit"), &json!("credit")));
    assert_eq!(
        (&row["amount"]["amount_micros"], &row["account"]),
        (&json!(951_000), &json!(format!("seller:{}", seller.id)))
    );
    assert_eq!(world.get("/ledger?role=buyer", seller.key()).await.expect(200).body["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sums_are_of_this_moment_and_add_up() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let sums = async |agent: &Agent| {
        let answer = world.get("/ledger?summary=true", agent.key()).await.expect(200);
        assert_eq!(answer.body["data"]["as_of"], world.now().to_string());
        let data = answer.body["data"].clone();
        move |name: &str| data[name]["amount_micros"].as_i64().unwrap_or_else(|| panic!("{name} in {data}"))
    };
    let names = ["paid", "spent", "in_suspense", "owed_to_you", "refunded", "taken_back", "earned", "fees", "paid_out"];
    let nothing = sums(&buyer).await;
    assert!(names.iter().all(|name| nothing(name) == 0));
    for n in 1..=3 {
        world.completed_call(&buyer, &seller, listing).await;
        let (buyers, sellers) = (sums(&buyer).await, sums(&seller).await);
        assert_eq!((buyers("paid"), buyers("spent")), (n * 1_000_000, n * 1_000_000));
        assert_eq!((sellers("earned"), sellers("fees"), sellers("payable")), (n * 951_000, n * 49_000, n * 951_000));
        assert_eq!((sellers("paid"), buyers("earned")), (0, 0));
    }
    let waiting = world.quote(&buyer, &seller, listing, Micros(1_000_000)).await;
    world.claim(&waiting).await;
    let owed = world.quote(&buyer, &seller, listing, Micros(1_000_000)).await;
    let claim = world.claim(&owed).await;
    world.release(&owed, claim).await;
    world.store.payment_owe(owed.quote.id).await.expect("owed");
    let sums = sums(&buyer).await;
    assert_eq!((sums("in_suspense"), sums("owed_to_you")), (1_000_000, 1_000_000));
    let parts = ["spent", "in_suspense", "owed_to_you", "refunded", "taken_back"];
    assert_eq!(sums("paid"), parts.iter().map(|part| sums(part)).sum::<i64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_of_everything_and_rows_are_chosen() {
    let world = World::start().await;
    let buyer = world.agent(1).await;
    let choosing = "summary=true&role=buyer&limit=5&from=2026-01-01T00:00:00Z";
    world.get(&format!("/ledger?{choosing}"), buyer.key()).await.wrong(&["from", "limit", "role"]);
    world.get("/ledger?summary=maybe", buyer.key()).await.wrong(&["summary"]);
    assert!(world.get("/ledger?summary=false", buyer.key()).await.expect(200).body["data"].is_array());
    world.get("/ledger?summary=true", None).await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_by_listing_and_time() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    world.completed_call(&buyer, &seller, listing).await;
    let between = world.now();
    world.wait(Duration::from_secs(1));
    world.completed_call(&buyer, &seller, listing).await;
    let count = |query: String| {
        let (world, key) = (&world, buyer.key());
        async move {
            let rows = world.get(&format!("/gateway-requests?{query}"), key).await.expect(200);
            rows.body["data"].as_array().expect("rows").len()
        }
    };
    assert_eq!(count(format!("listing_id={listing}")).await, 2);
    assert_eq!(count("listing_id=00000000-0000-7000-8000-000000000000".into()).await, 0);
    let later = between.plus(Duration::from_millis(500));
    assert_eq!(count(format!("from={later}")).await, 1);
    assert_eq!(count(format!("to={later}")).await, 1);
    assert_eq!(count(format!("from={later}&to={later}")).await, 0);
    let bad = "role=thief&listing_id=x&status=lost&from=now&to=then&cursor=%21&limit=0&page=1";
    let answer = world.get(&format!("/gateway-requests?{bad}"), buyer.key()).await;
    answer.wrong(&["cursor", "from", "limit", "listing_id", "page", "role", "status", "to"]);
    world.get("/ledger?status=completed", buyer.key()).await.wrong(&["status"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_cursors_harm_nobody() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    world.completed_call(&buyer, &seller, listing).await;
    let stranger = world.agent(3).await;
    for cursor in ["AA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "_____________________w", &"A".repeat(400)] {
        for path in ["/gateway-requests", "/ledger"] {
            let answer = world.get(&format!("{path}?cursor={cursor}"), stranger.key()).await;
            assert!([200, 422].contains(&answer.status), "{}", answer.text);
            assert!(!answer.text.contains(&listing.to_string()), "{}", answer.text);
        }
    }
    world.get(&format!("/ledger?cursor={}", "A".repeat(600)), stranger.key()).await.wrong(&["cursor"]);
}
