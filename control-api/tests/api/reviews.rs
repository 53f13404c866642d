//! Reviews: who may write one, what it rests on, and what all of them come to.

use std::time::Duration;

use serde_json::{Value, json};
use storage::model::{AccountType, ListingId, Micros};

use crate::support::{Agent, Answer, World, listing_id, statuses, until};

const DAY: Duration = Duration::from_secs(86_400);

pub fn stars(accuracy: u8, reliability: u8, value: u8) -> Value {
    json!({ "accuracy_rating": accuracy, "reliability_rating": reliability, "value_rating": value })
}

async fn market(world: &World) -> (Agent, Agent, ListingId) {
    let (buyer, seller) = (world.agent(1).await, world.agent(2).await);
    let made = world.create_listing(&seller, json!({ "pricing_amount": 1 })).await.expect(201);
    (buyer, seller, listing_id(&made))
}

pub async fn review(world: &World, listing: ListingId, agent: &Agent, body: &Value) -> Answer {
    world.post(&format!("/reviews/{listing}"), agent.key(), body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_bought_a_moment_ago_may_review_once() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let none = world.get(&format!("/reviews/{listing}"), None).await.expect(200);
    assert_eq!(none.body["data"], json!([]));
    assert_eq!(none.body["summary"]["averages"]["overall"], Value::Null);
    world.completed_call(&buyer, &seller, listing).await;
    let mut body = stars(5, 4, 4);
    body["title"] = json!("Good\u{202e}");
    body["comment"] = json!("Does what it says.\nTwice.");
    let made = review(&world, listing, &buyer, &body).await.expect(201);
    let data = &made.body["data"];
    assert_eq!((&data["title"], &data["rating"]), (&json!("Good"), &json!(4)));
    assert_eq!((&data["purchases"], &data["reviewer"]["id"]), (&json!(1), &json!(buyer.id.to_string())));
    review(&world, listing, &buyer, &body).await.refused(409, "REVIEW_ALREADY_EXISTS");
    for name in [listing.to_string(), "weather-report".into()] {
        let list = world.get(&format!("/reviews/{name}"), None).await.expect(200);
        assert_eq!(list.body["data"], json!([data]));
        assert_eq!(list.body["pagination"], json!({ "page": 1, "limit": 20, "total": 1, "totalPages": 1 }));
        let averages = json!({ "overall": 4.333, "accuracy": 5, "reliability": 4, "value": 4 });
        assert_eq!(list.body["summary"]["averages"], averages);
        assert_eq!(list.body["summary"]["histogram"], json!({ "1": 0, "2": 0, "3": 0, "4": 1, "5": 0 }));
    }
    let shown = world.get(&format!("/listings/{listing}"), None).await.expect(200);
    assert_eq!(shown.body["data"]["rating"], json!({ "average": 4.333, "count": 1 }));
    let past = world.get(&format!("/reviews/{listing}?page=2"), None).await.expect(200);
    assert_eq!(past.body["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_by_one_buyer_one_wins() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    world.completed_call(&buyer, &seller, listing).await;
    let body = stars(3, 3, 3);
    let mut found = statuses((0..8).map(|_| review(&world, listing, &buyer, &body))).await;
    found.sort_unstable();
    assert_eq!(found, [201, 409, 409, 409, 409, 409, 409, 409]);
    let list = world.get(&format!("/reviews/{listing}"), None).await.expect(200);
    assert_eq!(list.body["summary"]["count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_evidence_no_review() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let refused = async |reason: &str| {
        let answer = review(&world, listing, &buyer, &stars(1, 1, 1)).await.refused(403, "REVIEW_NOT_ELIGIBLE");
        assert_eq!(answer.body["error"]["details"]["reason"], reason);
    };
    refused("no_recent_purchase").await;
    let failed = world.quote(&buyer, &seller, listing, Micros(1_000_000)).await;
    refused("no_recent_purchase").await;
    let claim = world.claim(&failed).await;
    refused("no_recent_purchase").await;
    world.release(&failed, claim).await;
    refused("no_recent_purchase").await;
    let other = listing_id(&world.create_listing(&seller, json!({ "name": "Another" })).await.expect(201));
    world.completed_call(&buyer, &seller, other).await;
    refused("no_recent_purchase").await;
    world.completed_call(&buyer, &seller, listing).await;
    world.wait(91 * DAY);
    refused("no_recent_purchase").await;
    world.completed_call(&buyer, &seller, listing).await;
    world.wait(89 * DAY);
    review(&world, listing, &buyer, &stars(1, 1, 1)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn g_nobody_reviews_its_own() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let reason = |answer: Answer| {
        let answer = answer.refused(403, "REVIEW_NOT_ELIGIBLE");
        answer.body["error"]["details"]["reason"].as_str().expect("a reason").to_string()
    };
    assert_eq!(reason(review(&world, listing, &seller, &stars(5, 5, 5)).await), "own_listing");
    // A human's account, and an agent that a human claimed, as no route makes them here.
    for (seed, account_type, claimed_by) in
        [(21, AccountType::Human, None), (22, AccountType::HumanClaimedAgent, Some(buyer.id))]
    {
        let agent = world.agent_who(seed, |profile| {
            profile.account_type = account_type;
            profile.claimed_by = claimed_by;
        });
        let agent = agent.await;
        world.completed_call(&agent, &seller, listing).await;
        assert_eq!(reason(review(&world, listing, &agent, &stars(5, 5, 5)).await), "not_an_agent");
    }
    // The seller's own human, under an agent's name.
    let twin = world.agent_who(23, |profile| profile.claimed_by = Some(seller.id)).await;
    world.completed_call(&twin, &seller, listing).await;
    assert_eq!(reason(review(&world, listing, &twin, &stars(5, 5, 5)).await), "related_party");
    // The same address in another family's clothes.
    let wallet = world.store.wallet_list(seller.id).await.expect("a store").remove(0);
    let sharer = world.agent_with_wallet(24, &wallet.address).await;
    world.completed_call(&sharer, &seller, listing).await;
    assert_eq!(reason(review(&world, listing, &sharer, &stars(5, 5, 5)).await), "related_party");
    let list = world.get(&format!("/reviews/{listing}"), None).await.expect(200);
    assert_eq!(list.body["summary"]["count"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_paid_more_weighs_more() {
    let world = World::start().await;
    let (one, seller, listing) = market(&world).await;
    let whale = world.agent(3).await;
    world.completed_call(&one, &seller, listing).await;
    for _ in 0..50 {
        world.completed_call(&whale, &seller, listing).await;
    }
    review(&world, listing, &one, &stars(1, 1, 1)).await.expect(201);
    world.wait(Duration::from_millis(1));
    review(&world, listing, &whale, &stars(5, 5, 5)).await.expect(201);
    let list = world.get(&format!("/reviews/{listing}"), None).await.expect(200);
    let overall = list.body["summary"]["averages"]["overall"].as_f64().expect("a number");
    assert!(overall > 3.2, "{overall}");
    assert_eq!(list.body["summary"]["histogram"], json!({ "1": 1, "2": 0, "3": 0, "4": 0, "5": 1 }));
    assert_eq!(list.body["data"][0]["reviewer"]["id"], whale.id.to_string(), "newest first");
    until(&world, "/listings?sort=rating", |answer| answer.body["data"][0]["rating"]["count"] == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let world = World::start().await;
    let (buyer, seller, listing) = market(&world).await;
    let empty = review(&world, listing, &buyer, &json!({})).await;
    empty.wrong(&["accuracy_rating", "reliability_rating", "value_rating"]);
    let bad = json!({
        "accuracy_rating": 0, "reliability_rating": 6, "value_rating": 2.5, "title": "x".repeat(121),
        "comment": "x".repeat(2001), "stars": 5,
    });
    let names = ["accuracy_rating", "comment", "reliability_rating", "stars", "title", "value_rating"];
    review(&world, listing, &buyer, &bad).await.wrong(&names);
    world.post("/reviews/nowhere", buyer.key(), &stars(1, 1, 1)).await.refused(404, "NOT_FOUND");
    world.get("/reviews/nowhere", None).await.refused(404, "NOT_FOUND");
    world.get(&format!("/reviews/{listing}?cursor=x&page=0"), None).await.wrong(&["cursor", "page"]);
    world.post(&format!("/reviews/{listing}"), None, &stars(1, 1, 1)).await.refused(401, "UNAUTHENTICATED");
    let draft = json!({ "name": "Draft", "status": "draft" });
    let draft = listing_id(&world.create_listing(&seller, draft).await.expect(201));
    world.get(&format!("/reviews/{draft}"), None).await.refused(404, "NOT_FOUND");
    // What was offered once keeps its reviews.
    world.completed_call(&buyer, &seller, listing).await;
    review(&world, listing, &buyer, &stars(2, 2, 2)).await.expect(201);
    world.delete(&format!("/listings/{listing}"), seller.key()).await.expect(200);
    let list = world.get(&format!("/reviews/{listing}"), None).await.expect(200);
    assert_eq!(list.body["summary"]["count"], 1);
}
