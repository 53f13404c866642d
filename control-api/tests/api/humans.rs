//! Human accounts: signing up, in and out; what a session may do.

use std::{collections::BTreeSet, time::Duration};

use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::support::{Answer, Human, PASSWORD, World, statuses};

const DAY: Duration = Duration::from_secs(86_400);

async fn log_in(world: &World, email: &str, password: &str) -> Answer {
    world.post("/auth/login", None, &json!({ "email": email, "password": password })).await
}

async fn me(world: &World, human: &Human) -> Answer {
    world.send(world.by(human, Method::GET, "/me")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_human_signs_up_in_and_out() {
    let world = World::start().await;
    let account = json!({ "email": "Ann@Example.org", "password": PASSWORD, "display_name": "Ann" });
    let signed_up = world.post("/auth/signup", None, &account).await.expect(201);
    assert_eq!(signed_up.header("cache-control"), "no-store");
    let cookie = signed_up.header("set-cookie");
    assert!(cookie.starts_with("crochet_session="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; Max-Age=5184000; HttpOnly; SameSite=Lax"), "{cookie}");
    assert!(!signed_up.text.contains(PASSWORD) && !signed_up.text.contains("argon2"), "{}", signed_up.text);
    let human = Human::of(&signed_up);
    let shown = me(&world, &human).await.expect(200);
    let data = &shown.body["data"];
    assert_eq!(data["profile"]["account_type"], "human");
    assert_eq!((&data["profile"]["display_name"], &data["wallets"]), (&json!("Ann"), &json!([])));
    assert_eq!(data["csrf_token"], human.csrf_token);
    assert_eq!(data["agents"], json!([]));
    assert_eq!(data["session"]["expires_at"], "2027-01-23T06:10:23.007Z");

    let again = log_in(&world, "ann@example.ORG", PASSWORD).await.expect(200);
    let other = Human::of(&again);
    assert_ne!(other.cookie, human.cookie);
    let out = world.send(world.by(&human, Method::POST, "/auth/logout")).await.expect(200);
    assert!(out.header("set-cookie").starts_with("crochet_session=; Path=/; Max-Age=0;"));
    me(&world, &human).await.refused(401, "SESSION_REQUIRED");
    me(&world, &other).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_fields_are_named() {
    let world = World::start().await;
    world.post("/auth/signup", None, &json!({})).await.wrong(&["email", "password"]);
    let bad = json!({ "email": "nobody", "password": "short", "display_name": "", "x": 1 });
    world.post("/auth/signup", None, &bad).await.wrong(&["display_name", "email", "password", "x"]);
    world.post("/auth/login", None, &json!({ "email": 1, "x": 1 })).await.wrong(&["email", "password", "x"]);
    let human = world.human("ann").await;
    let out = world.by(&human, Method::POST, "/auth/logout").json(&json!({ "x": 1 }));
    world.send(out).await.wrong(&["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_one_account() {
    let world = World::start().await;
    world.human("ann").await;
    let account = json!({ "email": "ANN@example.org", "password": PASSWORD });
    world.post("/auth/signup", None, &account).await.refused(409, "CONFLICT");
    let account = json!({ "email": "bob@example.org", "password": PASSWORD });
    let tries = (0..8).map(|_| world.post("/auth/signup", None, &account));
    let codes = statuses(tries).await;
    assert_eq!(codes.iter().filter(|status| **status == 201).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|status| **status == 409).count(), 7, "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn e16_an_unknown_account_and_a_wrong_password_get_the_same_answer() {
    let world = World::start().await;
    world.human("ann").await;
    let wrong = log_in(&world, "ann@example.org", "wrong horse battery").await.refused(401, "LOGIN_FAILED");
    let unknown = log_in(&world, "eve@example.org", "wrong horse battery").await.refused(401, "LOGIN_FAILED");
    let short = log_in(&world, "eve@example.org", "x").await.refused(401, "LOGIN_FAILED");
    assert_eq!((&wrong.text, &wrong.text), (&unknown.text, &short.text));
    // The server draws the order of its fields anew for each answer, so that it tells nothing.
    let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(names(&wrong), names(&unknown));
    assert_eq!(wrong.header("set-cookie"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn e16_guesses_are_limited_by_account_and_by_address() {
    let limits = "[limits]\nlogins_per_five_minutes = 3\nauth_per_five_minutes = 9\ndev_multiplier = 1\n";
    let world = World::start_with(limits).await;
    world.human("ann").await;
    let guess = |email: &'static str, from: String| {
        let request = world.request(Method::POST, "/auth/login", None).header("X-Crochet-Client-Address", from);
        world.send(request.json(&json!({ "email": email, "password": "wrong horse battery" })))
    };
    // An account that does not exist is limited just the same.
    for email in ["ann@example.org", "eve@example.org"] {
        for n in 0..3 {
            guess(email, format!("192.0.2.{n}")).await.refused(401, "LOGIN_FAILED");
        }
        let limited = guess(email, "192.0.2.9".into()).await.refused(429, "RATE_LIMITED");
        assert_eq!(limited.body["error"]["details"]["scope"], "account");
        assert!(limited.header("retry-after").parse::<u64>().expect("seconds") >= 1);
    }
    let mut codes = Vec::new();
    for n in 0..10 {
        let email: &'static str = ["a@b.c", "b@b.c", "c@b.c", "d@b.c", "e@b.c"][n % 5];
        codes.push(guess(email, "198.51.100.1".into()).await.status);
    }
    assert_eq!(codes, [401, 401, 401, 401, 401, 401, 401, 401, 401, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn e16_no_foreign_page_signs_a_browser_in() {
    let world = World::start().await;
    world.human("ann").await;
    for path in ["/auth/login", "/auth/signup"] {
        let from = |origin: &str| {
            let request = world.request(Method::POST, path, None).header(header::ORIGIN, origin);
            world.send(request.json(&json!({ "email": "ann@example.org", "password": PASSWORD })))
        };
        for origin in ["https://elsewhere.example", "null", "http://gateway.test"] {
            from(origin).await.refused(403, "CSRF_REQUIRED");
        }
        let ours = from(&world.site).await;
        assert!([200, 409].contains(&ours.status), "{}", ours.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_unused_after_two_weeks_and_used_after_sixty_days() {
    let world = World::start().await;
    let (idle, busy) = (world.human("ann").await, world.human("bob").await);
    for _ in 0..5 {
        world.wait(DAY * 11);
        me(&world, &busy).await.expect(200);
    }
    me(&world, &idle).await.refused(401, "SESSION_REQUIRED");
    world.wait(DAY * 5);
    me(&world, &busy).await.refused(401, "SESSION_REQUIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn e16_a_new_password_ends_all_sessions() {
    let world = World::start().await;
    let human = world.human("ann").await;
    let knobs = config::Config::from_parts(None, []).expect("defaults").identity;
    let knobs = config::Identity { password_memory: 64 << 10, password_passes: 1, ..knobs };
    let hash = control_api::hash_password("another horse battery", &knobs).expect("hashed");
    world.store.human_password_set("ann@example.org", hash, world.now()).await.expect("a store").expect("known");
    me(&world, &human).await.refused(401, "SESSION_REQUIRED");
    log_in(&world, "ann@example.org", PASSWORD).await.refused(401, "LOGIN_FAILED");
    world.wait(Duration::from_millis(2));
    let fresh = Human::of(&log_in(&world, "ann@example.org", "another horse battery").await.expect(200));
    me(&world, &fresh).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_human_cannot_sign_in() {
    let world = World::start().await;
    let human = world.human("ann").await;
    world.suspend(human.id).await;
    log_in(&world, "ann@example.org", PASSWORD).await.refused(403, "PROFILE_SUSPENDED");
    log_in(&world, "ann@example.org", "wrong horse battery").await.refused(401, "LOGIN_FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn e16_what_is_kept_is_hashes() {
    let world = World::start().await;
    let human = world.human("ann").await;
    let text = human.cookie.split_once('=').expect("a cookie").1.to_string();
    me(&world, &human).await.expect(200);
    let kept = world.store.human_find("ann@example.org").await.expect("a store").expect("there");
    assert!(kept.password.starts_with("$argon2id$v=19$") && !kept.password.contains(PASSWORD));
    world.store.close().await.expect("closed");
    let mut folders = vec![world.directory.path().to_path_buf()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            for secret in [text.as_str(), PASSWORD, human.csrf_token.as_str()] {
                let is_there = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!is_there, "{} holds a secret", path.display());
            }
            files += 1;
        }
    }
    assert!(files > 3, "the store's files were looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_for_what_humans_may_do_and_nothing_else() {
    let world = World::start().await;
    let human = world.human("ann").await;
    for path in ["/me/wallets", "/me/listings", "/gateway-requests", "/ledger"] {
        world.send(world.by(&human, Method::GET, path)).await.refused(401, "UNAUTHENTICATED");
    }
    // A key that is given counts, whatever cookies come along.
    let agent = world.agent(1).await;
    let both = world.by(&human, Method::GET, "/me").bearer_auth(&agent.key);
    let shown = world.send(both).await.expect(200);
    assert_eq!(shown.body["data"]["profile"]["id"], agent.id.to_string());
    let bad = world.by(&human, Method::GET, "/me").bearer_auth("am_k_nonsense");
    world.send(bad).await.refused(401, "UNAUTHENTICATED");
    assert_eq!(shown.body["data"]["csrf_token"], Value::Null);
}
