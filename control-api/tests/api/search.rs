//! Full-text search over the shelves, and the figures that they are sorted by.

use std::time::Duration;

use serde_json::{Value, json};
use storage::model::Micros;

use crate::support::{Answer, World, listing_id, until};

fn names(answer: &Answer) -> Vec<String> {
    let rows = answer.body["data"].as_array().expect("rows");
    rows.iter().map(|row| row["name"].as_str().expect("text").to_string()).collect()
}

async fn shelf(world: &World) -> crate::support::Agent {
    let seller = world.agent(1).await;
    let rows: [(&str, &str, Value); 4] = [
        ("Forecasts", "Tomorrow's weather for any town.", json!({ "pricing_amount": 3 })),
        ("Weather report", "What it will be like.", json!({ "pricing_amount": 1 })),
        ("Translation", "Any language into any other.", json!({ "tags": ["weather proof", "speech"] })),
        ("Draft of weather", "Not offered.", json!({ "status": "draft" })),
    ];
    for (name, description, mut change) in rows {
        world.wait(Duration::from_secs(1));
        change["name"] = json!(name);
        change["description"] = json!(description);
        world.create_listing(&seller, change).await.expect(201);
    }
    until(world, "/listings?q=weather", |answer| names(answer).len() == 3).await;
    seller
}

#[tokio::test(flavor = "multi_thread")]
async fn ranked_typo_tolerant_filtered_and_paged() {
    let world = World::start().await;
    shelf(&world).await;
    let find = |query: &'static str| {
        let world = &world;
        async move { names(&world.get(&format!("/listings?{query}"), None).await.expect(200)) }
    };
    assert_eq!(find("q=weather").await, ["Weather report", "Translation", "Forecasts"], "name, tags, description");
    assert_eq!(find("q=weather&sort=relevance").await, find("q=weather").await);
    assert_eq!(find("q=WEATHR").await[0], "Weather report");
    assert_eq!(find("q=translatoin").await, ["Translation"]);
    assert_eq!(find("q=weather%20town").await, ["Forecasts"], "all words");
    assert_eq!(find("q=weather&sort=price_high").await, ["Forecasts", "Weather report", "Translation"]);
    assert_eq!(find("q=weather&sort=newest").await, ["Translation", "Weather report", "Forecasts"]);
    assert_eq!(find("q=weather&max_price=1").await, ["Weather report", "Translation"]);
    assert_eq!(find("q=weather&limit=1&page=2").await, ["Translation"]);
    assert_eq!(find("q=zebra").await, [""; 0]);
    assert_eq!(find("q=%20").await.len(), 3, "no words: everything");
    assert_eq!(find("q=%3F!").await, [""; 0], "no word in it");
    let page = world.get("/listings?q=weather&limit=2", None).await.expect(200);
    assert_eq!(page.body["pagination"], json!({ "page": 1, "limit": 2, "total": 3, "totalPages": 2 }));
    world.get("/listings?sort=relevance", None).await.wrong(&["sort"]);
    world.get(&format!("/listings?q={}", "x".repeat(201)), None).await.wrong(&["q"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_found_as_it_is_now() {
    let world = World::start().await;
    let seller = shelf(&world).await;
    world.patch("/listings/translation", seller.key(), &json!({ "name": "Interpreter" })).await.expect(200);
    until(&world, "/listings?q=interpreter", |answer| names(answer) == ["Interpreter"]).await;
    until(&world, "/listings?q=translation", |answer| names(answer).is_empty()).await;
    world.delete("/listings/translation", seller.key()).await.expect(200);
    until(&world, "/listings?q=interpreter", |answer| names(answer).is_empty()).await;
    // The index is rebuilt from the store.
    world.patch("/listings/translation", seller.key(), &json!({ "status": "active" })).await.expect(200);
    until(&world, "/listings?q=interpreter", |answer| names(answer) == ["Interpreter"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_on_the_listing_and_forgotten_after_thirty_days() {
    let world = World::start().await;
    let (buyer, seller) = (world.agent(1).await, world.agent(2).await);
    let mut listings = Vec::new();
    for name in ["Quiet", "Busy"] {
        world.wait(Duration::from_secs(1));
        listings.push(listing_id(&world.create_listing(&seller, json!({ "name": name })).await.expect(201)));
    }
    let [quiet, busy] = listings[..] else { panic!("two") };
    let shown = world.get("/listings/quiet", None).await.expect(200);
    let nothing = json!({ "calls_30d": 0, "success_rate_30d": null, "p50_ms": null, "p95_ms": null });
    assert_eq!(shown.body["data"]["stats"], nothing);
    assert_eq!(shown.body["data"]["rating"], json!({ "average": null, "count": 0 }));
    world.completed_call(&buyer, &seller, quiet).await;
    for _ in 0..2 {
        world.completed_call(&buyer, &seller, busy).await;
    }
    let failed = world.quote(&buyer, &seller, busy, Micros(1_000_000)).await;
    let claim = world.claim(&failed).await;
    world.release(&failed, claim).await;
    // A call took 30 ms; it is told to an eighth.
    let expected = json!({ "calls_30d": 3, "success_rate_30d": 0.666, "p50_ms": 31, "p95_ms": 31 });
    until(&world, "/listings/busy", |answer| answer.body["data"]["stats"] == expected).await;
    let popular = until(&world, "/listings?sort=popular", |answer| names(answer) == ["Busy", "Quiet"]).await;
    assert_eq!(popular.body["data"][0]["stats"], expected);
    let own = world.get("/me/listings", seller.key()).await.expect(200);
    assert_eq!(own.body["data"][0]["stats"], expected);
    assert_eq!(names(&world.get("/listings", None).await.expect(200)), ["Busy", "Quiet"]);
    // Days go by without a call: the pass at a day's begin notices.
    world.wait(Duration::from_secs(31 * 86_400));
    until(&world, "/listings?sort=popular", |answer| answer.body["data"][0]["stats"] == nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g_control_and_override_characters_are_stripped_from_listing_text() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let change =
        json!({ "name": "Safe\u{202e}name\u{0}", "description": "one\ntwo\u{2066}\u{7}", "tags": ["t\u{200f}ag"] });
    let made = world.create_listing(&seller, change).await.expect(201);
    let data = &made.body["data"];
    assert_eq!((&data["name"], &data["description"]), (&json!("Safename"), &json!("one\ntwo")));
    assert_eq!((&data["tags"], &data["slug"]), (&json!(["tag"]), &json!("safename")));
    until(&world, "/listings?q=safename", |answer| names(answer) == ["Safename"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_keeps_the_slug_which_stays_taken() {
    let world = World::start().await;
    let owner = world.agent(1).await;
    world.create_listing(&owner, json!({ "name": "Same name" })).await.expect(201);
    let renamed = world.patch("/listings/same-name", owner.key(), &json!({ "name": "Other" })).await.expect(200);
    assert_eq!(renamed.body["data"]["slug"], "same-name");
    let other = world.create_listing(&world.agent(2).await, json!({ "name": "Same name" })).await.expect(201);
    assert_eq!(other.body["data"]["slug"], "same-name-2");
}
