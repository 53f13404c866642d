//! Scores: where they begin, what moves them, and where they show.

use std::time::Duration;

use serde_json::{Value, json};
use storage::model::{Components, Score};

use crate::support::{World, listing_id, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_starts_at_300_and_unknown_ones_do_not_exist() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let answer = world.get(&format!("/agents/{}/score", agent.id), None).await.expect(200);
    let expected = json!({
        "agent_id": agent.id.to_string(), "score": 300, "tier": "Low", "is_verified": false,
        "components": { "reliability": 300, "accuracy": 300, "volume": 300, "longevity": 300, "reputation": 300 },
        "sample": { "calls": 0, "buyers": 0, "reviews": 0 }, "computed_at": world.now().to_string(),
    });
    assert_eq!(answer.body["data"], expected);
    for id in ["nonsense", "00000000-0000-7000-8000-000000000000"] {
        world.get(&format!("/agents/{id}/score"), None).await.refused(404, "NOT_FOUND");
    }
    world.get(&format!("/agents/{}/score?x=1", agent.id), None).await.wrong(&["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_reviews_move_the_score_and_it_shows_everywhere() {
    let world = World::start().await;
    let (buyer, seller) = (world.agent(1).await, world.agent(2).await);
    let made = world.create_listing(&seller, json!({ "pricing_amount": 1 })).await.expect(201);
    let listing = listing_id(&made);
    let path = format!("/agents/{}/score", seller.id);
    let part = |data: &Value, name: &str| data["components"][name].as_u64().expect("a part");
    for _ in 0..5 {
        world.completed_call(&buyer, &seller, listing).await;
    }
    let after_calls = until(&world, &path, |answer| answer.body["data"]["sample"]["calls"] == 5).await;
    let calls = &after_calls.body["data"];
    assert!(part(calls, "reliability") > 500 && part(calls, "volume") > 300, "{calls}");
    assert_eq!((part(calls, "accuracy"), &calls["sample"]["buyers"]), (300, &json!(1)));
    let body = json!({ "accuracy_rating": 5, "reliability_rating": 5, "value_rating": 1 });
    world.post(&format!("/reviews/{listing}"), buyer.key(), &body).await.expect(201);
    let after_review = until(&world, &path, |answer| answer.body["data"]["sample"]["reviews"] == 1).await;
    let reviewed = &after_review.body["data"];
    assert!(part(reviewed, "accuracy") > 300 && part(reviewed, "reputation") < part(reviewed, "accuracy"));
    let score = reviewed["score"].as_u64().expect("a number");
    assert!(score > calls["score"].as_u64().expect("a number"));
    let shown = until(&world, "/listings", |answer| answer.body["data"][0]["provider"]["score"] == score).await;
    assert_eq!(shown.body["data"][0]["provider"]["is_verified"], false);
    let least = format!("/listings?min_score={}", score + 1);
    assert_eq!(world.get(&least, None).await.expect(200).body["data"], json!([]));
    let me = world.get("/me", seller.key()).await.expect(200);
    assert!(me.text.contains(&format!("\"score\":{score}")), "{}", me.text);
    let buyers = world.get(&format!("/agents/{}/score", buyer.id), None).await.expect(200);
    assert_eq!(buyers.body["data"]["score"], 300, "buying alone is no merit");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_alone_is_seen_by_the_nightly_pass_and_by_the_operators() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let path = format!("/agents/{}/score", agent.id);
    world.wait(Duration::from_secs(400 * 86_400));
    let aged = |answer: &crate::support::Answer| answer.body["data"]["components"]["longevity"].as_u64() > Some(600);
    until(&world, &path, aged).await;
    let stored = async || world.store.score_get(agent.id).await.expect("a store");
    let passed = async |what: &str| {
        let begun = std::time::Instant::now();
        while stored().await.is_none_or(|score| score.components.longevity <= 600) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: the pass did not come");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stored().await.expect("a score")
    };
    let good = passed("a day began").await;
    // On the same day nothing is due by itself; only who asks makes everything anew.
    let components = Components { longevity: 0, ..good.components };
    world.store.score_put(Score { score: 1, components, ..good }, 0).await.expect("a store");
    assert_eq!(world.get(&path, None).await.expect(200).body["data"]["score"], 1);
    world.actors().recompute_scores();
    assert_eq!(passed("somebody asked").await.score, good.score);
}
