//! Two requests at once that cannot both be granted: exactly one is, over real sockets. The store's own tests run a
//! thousand rounds of each; here it is a thousand in the nightly tier.

use serde_json::json;

use crate::{
    reviews::{review, stars},
    support::{Agent, Answer, Wallet, World, listing_id, statuses},
    wallets::{change, first_id},
};

fn rounds() -> usize {
    if std::env::var_os("CROCHET_NIGHTLY").is_some() { 1_000 } else { 30 }
}

/// A service whose rates do not end a race.
async fn world() -> World {
    World::start_with("[limits]\nauth_per_five_minutes = 1000000\ncontrol_writes_per_minute = 1000000\n").await
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_of_two_changes_at_once_that_strand_one_wins() {
    let world = world().await;
    let (agent, second) = (world.agent(1).await, Wallet::new(2));
    let (a, b) = (first_id(&world, &agent).await, world.link(&agent, &second).await);
    for round in 0..rounds() {
        let disable = || json!({ "status": "disabled" });
        let both =
            [change(&world, &agent, &a, &agent.wallet, disable()), change(&world, &agent, &b, &second, disable())];
        let mut codes = statuses(both.into_iter()).await;
        codes.sort_unstable();
        assert_eq!(codes, [200, 409], "round {round}");
        let listed = world.get("/me/wallets", agent.key()).await.expect(200);
        let wallets = listed.body["data"].as_array().expect("wallets");
        let gone = wallets.iter().find(|wallet| wallet["status"] == "disabled").expect("one");
        let by = if gone["id"] == json!(a) { &second } else { &agent.wallet };
        let id = gone["id"].as_str().expect("an id");
        change(&world, &agent, id, by, json!({ "status": "active" })).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e13_of_two_profiles_that_link_one_wallet_one_wins() {
    // A profile's wallets are few: after some rounds, two others race.
    const EACH: usize = 8;
    let world = world().await;
    let mut pair: Option<(Agent, Agent)> = None;
    for round in 0..rounds() {
        if round % EACH == 0 {
            let registered = async |n: usize| world.register(Wallet::numbered(1_000_000 + 2 * round + n)).await;
            pair = Some((registered(0).await, registered(1).await));
        }
        let (one, two) = pair.as_ref().expect("two");
        let new = Wallet::numbered(round + 1);
        let (first, second) = (world.link_of(one, &new).await, world.link_of(two, &new).await);
        let tries = [(one, &first), (two, &second), (one, &first)];
        let codes = statuses(tries.map(|(agent, body)| world.post("/me/wallets", agent.key(), body)).into_iter()).await;
        assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "round {round}: {codes:?}");
        assert!(codes.iter().all(|code| [201, 401, 409].contains(code)), "round {round}: {codes:?}");
        let mut owners = 0;
        for agent in [one, two] {
            let listed = world.get("/me/wallets", agent.key()).await.expect(200);
            let wallets = listed.body["data"].as_array().expect("wallets");
            let is_new = |wallet: &&serde_json::Value| {
                wallet["address"].as_str().is_some_and(|address| address.eq_ignore_ascii_case(&new.address))
            };
            owners += wallets.iter().filter(is_new).count();
        }
        assert_eq!(owners, 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_of_two_who_use_one_challenge_one_wins() {
    let world = world().await;
    for round in 0..rounds() {
        let registration = world.registration(&Wallet::numbered(round)).await;
        let codes = statuses((0..2).map(|_| world.post("/register", None, &registration))).await;
        assert_eq!(codes.iter().filter(|code| **code == 201).count(), 1, "round {round}: {codes:?}");
        assert!(codes.iter().all(|code| [201, 401, 409].contains(code)), "round {round}: {codes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_want_a_slug_one_gets_it() {
    let world = world().await;
    let (one, two) = (world.agent(1).await, world.agent(2).await);
    for round in 0..rounds() {
        let name = json!({ "name": format!("Same name {round}") });
        let (a, b) = tokio::join!(world.create_listing(&one, name.clone()), world.create_listing(&two, name));
        let slug = |answer: Answer| answer.expect(201).body["data"]["slug"].as_str().expect("text").to_string();
        let mut slugs = [slug(a), slug(b)];
        slugs.sort_unstable();
        assert_eq!(slugs, [format!("same-name-{round}"), format!("same-name-{round}-2")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_reviews_by_one_buyer_one_is_taken() {
    let world = world().await;
    let seller = world.agent(1).await;
    let listing = listing_id(&world.create_listing(&seller, json!({ "status": "active" })).await.expect(201));
    for round in 0..rounds() {
        let buyer = world.register(Wallet::numbered(round)).await;
        world.completed_call(&buyer, &seller, listing).await;
        let body = stars(3, 3, 3);
        let mut codes = statuses((0..2).map(|_| review(&world, listing, &buyer, &body))).await;
        codes.sort_unstable();
        assert_eq!(codes, [201, 409], "round {round}");
    }
    let list = world.get(&format!("/reviews/{listing}"), None).await.expect(200);
    assert_eq!(list.body["summary"]["count"], rounds());
}
