//! Categories, listings, endpoints, challenges, and the change feed.

use std::{collections::HashSet, sync::Arc};

use storage::{Change, Changed, model::*};

use crate::{
    RACERS, race,
    support::{Bench, SECOND},
};

fn listing(seller: ProfileId, slug: &str, now: UnixMillis) -> Listing {
    Listing {
        id: ListingId::mint(now),
        slug: slug.into(),
        seller,
        name: "a listing".into(),
        description: "what it does".into(),
        category: None,
        delivery_type: DeliveryType::Api,
        formats: vec![Format::Json],
        connection_instructions: None,
        pricing_model: PricingModel::PerCall,
        price: Micros(1_000_000),
        preferred_currency: None,
        documentation_url: None,
        example_request: None,
        example_response: None,
        tags: vec!["tag".into()],
        status: ListingStatus::Draft,
        suspended_by: None,
        was_active: false,
        created_at: now,
        updated_at: now,
        version: 1,
    }
}

fn endpoint(listing: ListingId, now: UnixMillis) -> Endpoint {
    Endpoint {
        listing,
        url: "https://seller.example/".into(),
        upstream_auth: None,
        timeout_ms: 30_000,
        limits: EndpointLimits::default(),
        status: EndpointStatus::Active,
        secret: SigningSecret { key: [1; 32], created_at: now },
        previous_secret: None,
        last_test: None,
        version: 1,
    }
}

pub async fn a_new_store_has_categories(mut bench: Bench) {
    let categories = bench.store.category_list().await.expect("list");
    assert!(categories.len() >= 10);
    assert!(categories.is_sorted_by(|a, b| a.name < b.name));
    for wanted in ["data", "search", "finance", "developer-tools"] {
        assert!(categories.iter().any(|category| category.slug == wanted), "{wanted}");
    }
    bench.reopen().await;
    assert_eq!(bench.store.category_list().await.expect("list"), categories, "once");
}

pub async fn a_slug_is_unique_and_numbered(mut bench: Bench) {
    let (store, now, seller) = (Arc::clone(&bench.store), bench.now(), bench.profile());
    let found = race(|_| {
        let (store, listing) = (Arc::clone(&store), listing(seller, "weather", now));
        async move { store.listing_create(listing, None).await.expect("create") }
    });
    let found = found.await;
    drop(store);
    let slugs: HashSet<_> = found.iter().map(|listing| listing.slug.clone()).collect();
    let expected: HashSet<_> =
        (1..=RACERS).map(|n| if n == 1 { "weather".into() } else { format!("weather-{n}") }).collect();
    assert_eq!(slugs, expected);
    bench.reopen().await;
    for listing in found {
        let offer = bench.store.listing_by_slug(&listing.slug).await.expect("find").expect("there");
        assert_eq!(offer, Offer { listing, endpoint: None });
    }
    let next = bench.store.listing_create(listing(seller, "weather", now), None).await.expect("create");
    assert_eq!(next.slug, format!("weather-{}", RACERS + 1));
    assert!(bench.store.listing_by_slug("climate").await.expect("find").is_none());
}

pub async fn the_last_writer_never_wins_silently(mut bench: Bench) {
    let draft = listing(bench.profile(), "one", bench.now());
    let endpoint = endpoint(draft.id, bench.now());
    let created = bench.store.listing_create(draft, Some(endpoint.clone())).await.expect("create");
    let store = Arc::clone(&bench.store);
    let found = race(|n| {
        let (store, listing) = (Arc::clone(&store), Listing { name: format!("name {n}"), ..created.clone() });
        async move { store.listing_update(listing, None).await.expect("update") }
    });
    let found = found.await;
    drop(store);
    assert_eq!(found.iter().filter(|changed| **changed == Changed::Done).count(), 1);
    assert_eq!(found.iter().filter(|changed| **changed == Changed::Stale).count(), RACERS - 1);
    bench.reopen().await;
    let offer = bench.store.listing_get(created.id).await.expect("read").expect("there");
    assert_eq!((offer.listing.version, offer.endpoint.as_ref()), (2, Some(&endpoint)));
    // Both or neither: a stale endpoint keeps the listing from being written.
    let stale = Endpoint { version: 9, ..endpoint.clone() };
    let changed = bench.store.listing_update(offer.listing.clone(), Some(stale)).await.expect("update");
    assert_eq!(changed, Changed::Stale);
    assert_eq!(bench.store.listing_get(created.id).await.expect("read"), Some(offer.clone()));
    let moved = Endpoint { url: "https://elsewhere.example/".into(), ..endpoint.clone() };
    let renamed = Listing { slug: "other".into(), ..offer.listing };
    assert_eq!(bench.store.listing_update(renamed, Some(moved.clone())).await.expect("update"), Changed::Done);
    let offer = bench.store.listing_by_slug("one").await.expect("find").expect("the slug stays");
    assert_eq!((offer.listing.version, offer.endpoint.map(|endpoint| endpoint.version)), (3, Some(2)));
    assert_eq!(bench.store.endpoint_update(moved.clone()).await.expect("update"), Changed::Stale);
    assert_eq!(bench.store.endpoint_update(Endpoint { version: 2, ..moved }).await.expect("update"), Changed::Done);
    let nowhere = ListingId::mint(bench.now());
    assert_eq!(bench.store.endpoint_update(Endpoint { listing: nowhere, ..endpoint }).await, Ok(Changed::NotFound));
    let nothing = listing(bench.profile(), "x", bench.now());
    assert_eq!(bench.store.listing_update(nothing, None).await.expect("update"), Changed::NotFound);
    let bare = bench.store.listing_create(listing(bench.profile(), "bare", bench.now()), None).await.expect("create");
    let first = self::endpoint(bare.id, bench.now());
    assert_eq!(bench.store.endpoint_update(first.clone()).await.expect("the first endpoint"), Changed::Done);
    assert_eq!(bench.store.listing_get(bare.id).await.expect("read").expect("there").endpoint, Some(first));
}

pub async fn drafts_are_deleted_and_nothing_else(bench: Bench) {
    let seller = bench.profile();
    let draft = listing(seller, "gone", bench.now());
    let (id, endpoint) = (draft.id, endpoint(draft.id, bench.now()));
    bench.store.listing_create(draft, Some(endpoint)).await.expect("create");
    assert_eq!(bench.store.listing_delete(id, 7).await.expect("delete"), Changed::Stale);
    assert_eq!(bench.store.listing_delete(id, 1).await.expect("delete"), Changed::Done);
    assert_eq!(bench.store.listing_delete(id, 1).await.expect("delete"), Changed::NotFound);
    assert!(bench.store.listing_get(id).await.expect("read").is_none());
    assert!(bench.store.listing_of_seller(seller).await.expect("read").is_empty());
    let again = bench.store.listing_create(listing(seller, "gone", bench.now()), None).await.expect("create");
    assert_eq!(again.slug, "gone", "the slug is free again");
    let offered = Listing { status: ListingStatus::Active, was_active: true, ..listing(seller, "sold", bench.now()) };
    let offered = bench.store.listing_create(offered, None).await.expect("create");
    assert_eq!(bench.store.listing_delete(offered.id, 1).await.expect("delete"), Changed::Stale);
    assert!(bench.store.listing_get(offered.id).await.expect("read").is_some());
}

pub async fn listings_are_scanned_and_listed(bench: Bench) {
    let (seller, other) = (bench.profile(), bench.profile());
    let mut ids = Vec::new();
    for n in 0..10 {
        bench.pass(1);
        let draft = listing(if n % 2 == 0 { seller } else { other }, &format!("slug-{n}"), bench.now());
        ids.push(bench.store.listing_create(draft, None).await.expect("create").id);
    }
    let mut scanned = Vec::new();
    loop {
        let page = bench.store.listing_scan(scanned.last().copied(), 3).await.expect("scan");
        if page.is_empty() {
            break;
        }
        scanned.extend(page.into_iter().map(|listing| listing.id));
    }
    assert_eq!(scanned, ids);
    let of_seller = bench.store.listing_of_seller(seller).await.expect("list");
    let newest_first: Vec<_> = ids.iter().rev().skip(1).step_by(2).copied().collect();
    assert_eq!(of_seller.into_iter().map(|listing| listing.id).collect::<Vec<_>>(), newest_first);
}

pub async fn a_challenge_is_taken_once(bench: Bench) {
    let seller = bench.profile();
    let challenge = |text: &str| ListingChallenge {
        challenge: text.into(),
        difficulty: 4,
        expires_at: UnixMillis(bench.now().0 + SECOND),
    };
    bench.store.challenge_put(seller, challenge("first")).await.expect("put");
    bench.store.challenge_put(seller, challenge("latest")).await.expect("put");
    let (store, now) = (Arc::clone(&bench.store), bench.now());
    let found = race(|_| {
        let store = Arc::clone(&store);
        async move { store.challenge_take(seller, now).await.expect("take") }
    });
    let taken: Vec<_> = found.await.into_iter().flatten().collect();
    assert_eq!(taken, [challenge("latest")]);
    bench.store.challenge_put(seller, challenge("late")).await.expect("put");
    bench.pass(SECOND);
    assert!(bench.store.challenge_take(seller, bench.now()).await.expect("take").is_none(), "it has ended");
}

pub async fn changes_are_told_in_order(bench: Bench) {
    let begin = bench.store.changes_since(0).await.expect("changes");
    assert!(!begin.gap);
    let created = bench.store.listing_create(listing(bench.profile(), "a", bench.now()), None).await.expect("create");
    let id = created.id;
    let first = bench.store.changes_since(begin.next).await.expect("changes");
    assert_eq!((first.items.as_slice(), first.gap), (&[Change::Listing(id)][..], false));
    bench.store.listing_update(created, None).await.expect("update");
    bench.store.endpoint_update(endpoint(id, bench.now())).await.expect("update");
    let next = bench.store.changes_since(first.next).await.expect("changes");
    assert_eq!(next.items, [Change::Listing(id), Change::Listing(id)]);
    let all = bench.store.changes_since(begin.next).await.expect("changes");
    assert_eq!((all.items.len(), all.next), (3, next.next));
    assert!(bench.store.changes_since(next.next + 9).await.expect("changes").gap, "a cursor of another life");
}
