//! What holds for every route: who is refused, how a refusal looks, what every answer carries.

use std::path::Path;

use actors::refusal::Code;
use control_api::{Access, ROUTES, Route};
use reqwest::{Method, StatusCode, header};
use serde_json::json;

use crate::support::{Answer, World};

/// The path with something in the place of what is in braces.
fn path(route: &Route) -> String {
    let path = route.path.strip_prefix("/api/v1").unwrap_or(route.path);
    path.replace("{id}", "00000000-0000-7000-8000-000000000000")
}

fn method(route: &Route) -> Method {
    route.method.parse().expect("a method")
}

async fn ask(world: &World, route: &Route, key: Option<&str>) -> Answer {
    let request = world.request(method(route), &path(route), key);
    world.send(if method(route) == Method::GET { request } else { request.json(&json!({})) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_needs_a_key_refuses_without_one() {
    let world = World::start().await;
    let mangled = format!("am_k_{}", "0".repeat(38));
    for route in ROUTES.iter().filter(|route| route.access.needs_key()) {
        for key in [None, Some("nonsense"), Some(mangled.as_str())] {
            let answer = ask(&world, route, key).await.refused(401, "UNAUTHENTICATED");
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{route:?}");
            assert_eq!(answer.header("cache-control"), "no-store", "{route:?}");
        }
        let basic = world.request(method(route), &path(route), None).header(header::AUTHORIZATION, "Basic YTpi");
        world.send(basic).await.refused(401, "UNAUTHENTICATED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_that_needs_a_session_refuses_without_one() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    for route in ROUTES.iter().filter(|route| route.access == Access::Session) {
        for key in [None, agent.key()] {
            ask(&world, route, key).await.refused(401, "SESSION_REQUIRED");
        }
        let invented = world.request(method(route), &path(route), None).header(header::COOKIE, "crochet_session=abc");
        world.send(invented.json(&json!({}))).await.refused(401, "SESSION_REQUIRED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e16_no_change_by_session_without_our_origin_and_token() {
    let world = World::start().await;
    let human = world.human("ann").await;
    let changes = ROUTES.iter().filter(|route| {
        let by_session = matches!(route.access, Access::Session | Access::WriteEither);
        by_session && route.method != "GET"
    });
    for route in changes {
        let bare = || world.request(method(route), &path(route), None).header(header::COOKIE, &human.cookie);
        let (origin, token) = (world.site.as_str(), human.csrf_token.as_str());
        for request in [
            bare(),
            bare().header("Origin", origin),
            bare().header("X-CSRF-Token", token),
            bare().header("Origin", "https://elsewhere.example").header("X-CSRF-Token", token),
            bare().header("Origin", origin).header("X-CSRF-Token", "0".repeat(32)),
        ] {
            world.send(request.json(&json!({}))).await.refused(403, "CSRF_REQUIRED");
        }
        assert_ne!(
            world.send(world.by(&human, method(route), &path(route)).json(&json!({}))).await.code(),
            "CSRF_REQUIRED"
        );
        if route.path.ends_with("logout") {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_profile_may_do_nothing() {
    let world = World::start().await;
    let (agent, human) = (world.agent(1).await, world.human("ann").await);
    world.suspend(agent.id).await;
    world.suspend(human.id).await;
    for route in ROUTES.iter().filter(|route| route.access.needs_key()) {
        ask(&world, route, agent.key()).await.refused(403, "PROFILE_SUSPENDED");
    }
    for route in ROUTES.iter().filter(|route| !route.access.is_open()) {
        if matches!(route.access, Access::Session | Access::Either | Access::ReadEither | Access::WriteEither) {
            let request = world.by(&human, method(route), &path(route)).json(&json!({}));
            world.send(request).await.refused(403, "PROFILE_SUSPENDED");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_is_open_but_those_that_are_meant_to_be() {
    let open: Vec<&str> = ROUTES.iter().filter(|route| route.access.is_open()).map(|route| route.path).collect();
    let expected = [
        "/api/v1/health",
        "/api/v1/auth/challenge",
        "/api/v1/register",
        "/api/v1/auth/recover",
        "/api/v1/auth/signup",
        "/api/v1/auth/login",
        "/api/v1/agents/{id}",
        "/api/v1/categories",
        "/api/v1/listings",
        "/api/v1/listings/{id}",
        "/api/v1/reviews/{id}",
        "/api/v1/agents/{id}/score",
        "/api/v1/webhooks/relay",
        "/openapi.json",
        "/api/openapi.json",
        "/docs",
        "/docs/errors",
        "/docs/api-reference.txt",
        "/docs/seller-integration.txt",
        "/llms.txt",
        "/SKILL.md",
        "/agent-skill",
        "/.well-known/agent-protocol.json",
        "/.well-known/x402",
        "/seller-onboarding",
        "/terms",
    ];
    assert_eq!(open, expected);
    assert!(ROUTES.iter().all(|route| !route.access.is_open()
            || route.method == "GET"
            || route.access == Access::Auth
            // Let in by its own signature.
            || route.path == "/api/v1/webhooks/relay"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_the_scope_is_told_which() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let keys = ["read", "write", "gateway"].map(|scope| (scope, json!({ "name": scope, "scopes": [scope] })));
    for (scope, wanted) in keys {
        let made = world.post("/api-keys", agent.key(), &wanted).await.expect(201);
        let key = made.body["data"]["api_key"].as_str();
        for route in ROUTES.iter().filter(|route| route.access.needs_key()) {
            let answer = ask(&world, route, key).await;
            let needed = match route.access {
                Access::Read | Access::ReadEither => Some("read"),
                Access::Write | Access::WriteEither => Some("write"),
                _ => None,
            };
            if needed.is_some_and(|needed| needed != scope) {
                let answer = answer.refused(403, "SCOPE_REQUIRED");
                assert_eq!(answer.body["error"]["details"]["required_scope"], needed.expect("some"));
            } else {
                assert!(![401, 403].contains(&answer.status), "{route:?} with {scope}: {}", answer.text);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_at_once_are_none() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    let request = world.request(Method::GET, "/me", agent.key()).header(header::AUTHORIZATION, "Bearer other");
    world.send(request).await.refused(401, "UNAUTHENTICATED");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods_are_refused_in_the_envelope() {
    let world = World::start().await;
    for path in ["/nowhere", "/listings/a/b", "/api-keys/", "//me", "/gateway/x"] {
        world.get(path, None).await.refused(404, "NOT_FOUND");
    }
    let answer = world.delete("/api-keys", None).await.refused(405, "METHOD_NOT_ALLOWED");
    assert_eq!(answer.header("allow"), "GET, POST");
    world.get("/listings/challenge", None).await.refused(405, "METHOD_NOT_ALLOWED");
    for route in ROUTES {
        let wrong = Method::OPTIONS;
        let answer = world.send(world.request(wrong, &path(route), None)).await;
        let answer = answer.refused(405, "METHOD_NOT_ALLOWED");
        assert!(answer.header("allow").split(", ").any(|allowed| allowed == route.method), "{route:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_an_id_and_keeps_a_good_one() {
    let world = World::start().await;
    for id in ["abc", "A.b_c-9", &"x".repeat(128)] {
        let answer = world.send(world.request(Method::GET, "/health", None).header("X-Request-Id", id)).await;
        assert_eq!(answer.header("x-request-id"), id);
    }
    for id in ["", "a b", "a/b", "ä", &"x".repeat(129)] {
        let answer = world.send(world.request(Method::GET, "/nowhere", None).header("X-Request-Id", id)).await;
        assert!(answer.header("x-request-id").starts_with("req_"), "{id}: {:?}", answer.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_docs_url_resolves() {
    let world = World::start().await;
    let page = world.get("/docs/errors", None).await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    let json = world.request(Method::GET, "/docs/errors", None).header(header::ACCEPT, "application/json");
    let codes = world.send(json).await.expect(200);
    for row in codes.body["data"].as_array().expect("rows") {
        let code = row["code"].as_str().expect("text");
        assert!(page.text.contains(&format!("id=\"{code}\"")), "{code}");
    }
    // What a refusal points to is that page of this very server, at the anchor of its code.
    let refusal = world.get("/nowhere", None).await;
    let url = refusal.body["error"]["recovery"]["docs_url"].as_str().expect("text").to_string();
    assert_eq!(url, format!("{}/docs/errors#NOT_FOUND", world.site));
}

/// Sources of tests: of this crate, of the proxy, of the actors beneath.
fn test_sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let mut waiting: Vec<_> =
        ["control-api/tests", "control-api/src", "proxy/tests", "proxy/src", "actors/tests", "actors/src"]
            .iter()
            .map(|folder| root.join(folder))
            .collect();
    let mut sources = String::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Of a source with its tests beside it, the tests only.
            let is_test = path.components().any(|part| part.as_os_str() == "tests") || name.ends_with("tests.rs");
            let tests =
                if is_test { Some(text.as_str()) } else { text.split_once("#[cfg(test)]").map(|(_, tests)| tests) };
            sources.push_str(tests.unwrap_or_default());
        }
    }
    sources
}

/// Codes that no test can bring about from outside, and why.
const UNREACHED: &[(&str, &str)] = &[];

#[test]
fn every_code_is_met_by_a_test() {
    let sources = test_sources();
    for code in Code::ALL {
        let (name, row) = (format!("Code::{code:?}"), code.row());
        let is_met = sources.contains(&format!("\"{}\"", row.code))
            || sources.split(&name).skip(1).any(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()));
        let excuse = UNREACHED.iter().find(|(code, _)| *code == row.code);
        assert_eq!(is_met, excuse.is_none(), "{}: {excuse:?}", row.code);
    }
}

/// What a test says to reach a route: the helper for its method, and its path with anything in the place of braces.
fn is_requested(sources: &str, route: &Route) -> bool {
    let lower = route.method.to_ascii_lowercase();
    let helpers = [format!(".{lower}("), format!("Method::{}", route.method), format!("\"{}\"", route.method)];
    let path = route.path.strip_prefix("/api/v1").unwrap_or(route.path);
    let is_it = |literal: &str| {
        let literal = literal.split('?').next().unwrap_or_default();
        let literal = literal.strip_prefix("/api/v1").unwrap_or(literal);
        let (wanted, given): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), literal.split('/').collect());
        wanted.len() == given.len()
            && wanted.iter().zip(&given).all(|(wanted, given)| match (wanted.starts_with('{'), given.contains('{')) {
                (true, _) => !given.is_empty(),
                (false, false) => wanted == given,
                (false, true) => false,
            })
    };
    // In one function both: the path, and a request of that method.
    sources.split("fn ").any(|function| {
        let literals = function.split('"').skip(1).step_by(2).filter(|literal| literal.starts_with('/'));
        helpers.iter().any(|helper| function.contains(helper.as_str())) && literals.into_iter().any(is_it)
    })
}

#[test]
fn every_route_has_a_test_and_a_refusal_of_strangers() {
    let sources = test_sources();
    for route in ROUTES {
        assert!(is_requested(&sources, route), "no test asks {} {}", route.method, route.path);
        let is_guarded = route.access.needs_key() || route.access == Access::Session;
        assert_ne!(
            is_guarded,
            route.access.is_open(),
            "{route:?} is neither open nor refused to strangers by a test above"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_json_within_the_limit() {
    let world = World::start().await;
    let post = || world.request(Method::POST, "/auth/challenge", None);
    let typed = |text: &'static str| post().header(header::CONTENT_TYPE, "application/json").body(text);
    world.send(typed("{")).await.refused(400, "INVALID_JSON");
    world.send(typed("{}{}")).await.refused(400, "INVALID_JSON");
    world.send(typed("[]")).await.refused(422, "VALIDATION_FAILED");
    world.send(post().body("{}")).await.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    let form = post().header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body("a=b");
    world.send(form).await.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    let packed = typed("{}").header(header::CONTENT_ENCODING, "gzip");
    world.send(packed).await.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    let charset = post().header(header::CONTENT_TYPE, "Application/JSON; charset=utf-8").body("{}");
    world.send(charset).await.wrong(&["wallet_address"]);
    let long = post().header(header::CONTENT_TYPE, "application/json").body(" ".repeat(300 * 1024));
    let answer = world.send(long).await.refused(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(answer.body["error"]["details"]["max_bytes"], 256 * 1024);
    world.post("/auth/challenge", None, &json!({ "a": "x".repeat(70), "b": 1 })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_are_shown_and_kept_by_address_and_profile() {
    let world = World::start_with("[limits]\nauth_per_five_minutes = 2\ndev_multiplier = 1\n").await;
    let challenge = |address: &'static str| {
        let body = json!({ "wallet_address": "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed" });
        let request = world.request(Method::POST, "/auth/challenge", None);
        world.send(request.header("X-Crochet-Client-Address", address).json(&body))
    };
    let first = challenge("192.0.2.1").await.expect(200);
    assert_eq!(first.header("ratelimit-policy"), "\"auth\";q=2;w=300");
    assert_eq!(first.header("ratelimit"), "\"auth\";r=1");
    challenge("192.0.2.1").await.expect(200);
    let limited = challenge("192.0.2.1").await.refused(429, "RATE_LIMITED");
    let wait = limited.header("retry-after").parse::<u64>().expect("seconds");
    assert!(wait >= 1);
    assert_eq!(limited.header("ratelimit-policy"), "\"auth\";q=2;w=300");
    assert_eq!(limited.header("ratelimit"), format!("\"auth\";r=0;t={wait}"));
    assert_eq!(limited.body["error"]["recovery"]["next_action"], "wait_and_retry");
    challenge("2001:db8::1").await.expect(200);
    // Guessing keys is counted the same way.
    let guess = || {
        let request = world.request(Method::GET, "/me", Some("am_k_guess"));
        world.send(request.header("X-Crochet-Client-Address", "192.0.2.9"))
    };
    guess().await.refused(401, "UNAUTHENTICATED");
    guess().await.refused(401, "UNAUTHENTICATED");
    guess().await.refused(429, "RATE_LIMITED");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_what_works() {
    let world = World::start().await;
    let health = world.get("/health", None).await.expect(200);
    let data = &health.body["data"];
    assert_eq!((&data["status"], &data["mode"]), (&json!("ok"), &json!("dev")));
    assert_eq!(data["checks"], json!({ "store": "ok", "payment_provider": "ok", "actors": "ok" }));
    assert!(data["uptime_seconds"].is_u64() && data["version"].is_string());
    let head = world.send(world.request(Method::HEAD, "/health", None)).await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK.as_u16(), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_store_nothing_is_pretended() {
    let world = World::start().await;
    let agent = world.agent(1).await;
    world.store.close().await.expect("closed");
    let health = world.get("/health", None).await.refused(503, "STORE_UNAVAILABLE");
    assert_eq!(health.body["data"]["checks"]["store"], "unavailable");
    let answer = world.get("/api-keys", agent.key()).await.refused(503, "STORE_UNAVAILABLE");
    assert!(!answer.header("retry-after").is_empty());
}
