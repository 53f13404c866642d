//! The shelves: what is on them, in which order, page by page.

use std::time::Duration;

use serde_json::{Value, json};
use storage::model::{Listing, ListingStatus};

use crate::support::{Answer, World, listing_id};

fn names(answer: &Answer) -> Vec<String> {
    let rows = answer.body["data"].as_array().expect("rows");
    rows.iter().map(|row| row["name"].as_str().expect("text").to_string()).collect()
}

async fn shelf(world: &World) {
    let (first, second) = (world.agent(1).await, world.agent(2).await);
    let category = world.get("/categories", None).await.expect(200).body["data"][1]["slug"].clone();
    let rows: [(&str, Value); 5] = [
        ("Apple", json!({ "pricing_amount": 3, "category": category })),
        ("Berry", json!({ "pricing_amount": 1, "delivery_type": "streaming" })),
        ("Cherry", json!({ "pricing_model": "free", "pricing_amount": 0 })),
        ("Draft", json!({ "status": "draft" })),
        ("Elder", json!({ "pricing_amount": 2 })),
    ];
    for (number, (name, mut change)) in rows.into_iter().enumerate() {
        world.wait(Duration::from_secs(1));
        change["name"] = json!(name);
        let seller = if number == 4 { &second } else { &first };
        world.create_listing(seller, change).await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sorted_filtered_and_paged() {
    let world = World::start().await;
    shelf(&world).await;
    let browse = |query: &'static str| {
        let world = &world;
        async move { names(&world.get(&format!("/listings{query}"), None).await.expect(200)) }
    };
    assert_eq!(browse("").await, ["Elder", "Cherry", "Berry", "Apple"]);
    assert_eq!(browse("?sort=popular").await, ["Elder", "Cherry", "Berry", "Apple"]);
    assert_eq!(browse("?sort=price_low").await, ["Cherry", "Berry", "Elder", "Apple"]);
    assert_eq!(browse("?sort=price_high").await, ["Apple", "Elder", "Berry", "Cherry"]);
    assert_eq!(browse("?pricing_model=free").await, ["Cherry"]);
    assert_eq!(browse("?delivery_type=streaming").await, ["Berry"]);
    assert_eq!(browse("?min_price=1.5&max_price=3").await, ["Elder", "Apple"]);
    assert_eq!(browse("?min_score=301").await, [""; 0]);
    assert_eq!(browse("?min_score=300&limit=2&page=2").await, ["Berry", "Apple"]);
    assert_eq!(browse("?page=99").await, [""; 0]);
    let elder = world.get("/listings/elder", None).await.expect(200).body["data"]["provider"]["id"].clone();
    let path = format!("/listings?seller={}", elder.as_str().expect("text"));
    assert_eq!(names(&world.get(&path, None).await.expect(200)), ["Elder"]);
    let page = world.get("/listings?limit=3", None).await.expect(200);
    assert_eq!(page.body["pagination"], json!({ "page": 1, "limit": 3, "total": 4, "totalPages": 2 }));

    let categories = world.get("/categories", None).await.expect(200);
    let category = &categories.body["data"][1];
    assert_eq!((&category["listing_count"], &categories.body["data"][0]["listing_count"]), (&json!(1), &json!(0)));
    for name in ["slug", "id"] {
        let path = format!("/listings?category={}", category[name].as_str().expect("text"));
        assert_eq!(names(&world.get(&path, None).await.expect(200)), ["Apple"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_parameters_are_named_all_at_once() {
    let world = World::start().await;
    let query = "?page=0&limit=101&sort=best&min_price=1e3&min_score=1001&seller=x&pricing_model=gift&typo=1";
    let answer = world.get(&format!("/listings{query}"), None).await;
    answer.wrong(&["limit", "min_price", "min_score", "page", "pricing_model", "seller", "sort", "typo"]);
    world.get("/listings?category=nowhere", None).await.wrong(&["category"]);
    world.get("/listings?page=1&page=2", None).await.wrong(&["page"]);
    world.get("/listings/x?y=1", None).await.wrong(&["y"]);
    world.get("/categories?y=1", None).await.wrong(&["y"]);
    world.get("/listings/nowhere", None).await.refused(404, "NOT_FOUND");
    world.get(&format!("/listings/{}", "x".repeat(500)), None).await.refused(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_is_followed() {
    let world = World::start().await;
    let seller = world.agent(1).await;
    let made = world.create_listing(&seller, json!({})).await.expect(201);
    let listing = world.store.listing_get(listing_id(&made)).await.expect("a store").expect("there").listing;
    // As another node would: past this API.
    let renamed = Listing { name: "Elsewhere".into(), ..listing };
    world.store.listing_update(renamed.clone(), None).await.expect("a store");
    until(&world, |rows| rows == ["Elsewhere"]).await;
    let gone = Listing { status: ListingStatus::Suspended, version: renamed.version + 1, ..renamed };
    world.store.listing_update(gone, None).await.expect("a store");
    until(&world, |rows| rows.is_empty()).await;
}

async fn until(world: &World, is_so: impl Fn(&[String]) -> bool) {
    for _ in 0..200 {
        if is_so(&names(&world.get("/listings", None).await.expect(200))) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 4 s");
}
