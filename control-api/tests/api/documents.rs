//! What people and agents read: there, as the code is, and leading somewhere.

use std::path::Path;

use reqwest::{Method, header};
use serde_json::Value;

use crate::support::{Answer, World};

/// The URL that stands in the document that is kept in the tree.
const SITE: &str = "https://gateway.example";

#[test]
fn the_openapi_document_in_the_tree_is_what_the_code_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = control_api::openapi(SITE);
    if std::env::var_os("CROCHET_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &made).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let hint = "control-api/openapi.json is out of date; `./dev openapi` writes it anew";
    assert!(kept == made, "{hint}: {:?}", kept.lines().zip(made.lines()).find(|(kept, made)| kept != made));
}

async fn page(world: &World, path: &str, accept: &str) -> Answer {
    let request = world.request(Method::GET, path, None).header(header::ACCEPT, accept);
    world.send(request).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openapi_document_is_served_with_the_public_url() {
    let world = World::start().await;
    let first = world.get("/openapi.json", None).await.expect(200);
    let second = world.get("/api/openapi.json", None).await.expect(200);
    assert_eq!(first.text, second.text);
    assert_eq!(Some(first.body.clone()), serde_json::from_str(&control_api::openapi(&world.site)).ok());
    assert_eq!(first.body["openapi"], "3.1.0");
    assert_eq!(first.body["servers"][0]["url"], world.site);
    assert!(!first.text.contains(SITE));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_text_is_there_and_names_this_server() {
    let world = World::start().await;
    for (path, kind) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs/api-reference.txt", "text/plain; charset=utf-8"),
        ("/docs/seller-integration.txt", "text/plain; charset=utf-8"),
        ("/llms.txt", "text/plain; charset=utf-8"),
        ("/SKILL.md", "text/markdown; charset=utf-8"),
        ("/agent-skill", "text/markdown; charset=utf-8"),
        ("/seller-onboarding", "text/markdown; charset=utf-8"),
        ("/.well-known/agent-protocol.json", "application/json"),
        ("/.well-known/x402", "application/json"),
        ("/terms", "text/html; charset=utf-8"),
    ] {
        let answer = world.get(path, None).await.expect(200);
        assert_eq!(answer.header("content-type"), kind, "{path}");
        assert!(
            path == "/terms" || path.ends_with("seller-integration.txt") || answer.text.contains(&world.site),
            "{path}"
        );
    }
    assert_eq!(world.get("/agent-skill", None).await.text, world.get("/SKILL.md", None).await.text);
    for path in ["/agent-skill", "/seller-onboarding"] {
        let shown = page(&world, path, "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8").await;
        assert!(shown.header("content-type").starts_with("text/html") && shown.text.contains("<h1"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_link_in_every_text_leads_somewhere() {
    let world = World::start().await;
    for path in [
        "/docs",
        "/llms.txt",
        "/SKILL.md",
        "/agent-skill",
        "/seller-onboarding",
        "/terms",
        "/docs/seller-integration.txt",
    ] {
        let text = page(&world, path, "text/html").await.text;
        let quoted = text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let in_markdown = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in quoted.chain(in_markdown) {
            let link = link.strip_prefix(world.site.as_str()).unwrap_or(link);
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if target.is_empty() { path } else { target };
            assert!(target.starts_with('/'), "{path}: {link} leads elsewhere");
            let found = page(&world, target, "text/html").await;
            let has_anchor = anchor.is_empty() || found.text.contains(&format!("id=\"{anchor}\""));
            assert!(has_anchor, "{path}: {link} has no anchor");
        }
    }
    let protocol = world.get("/.well-known/agent-protocol.json", None).await;
    for (name, value) in protocol.body.as_object().expect("an object") {
        let url = value.as_str().filter(|_| name.ends_with("_url") && name != "api_base_url");
        if let Some(path) = url.map(|url| url.strip_prefix(world.site.as_str()).expect("this server")) {
            page(&world, path, "*/*").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_codes_is_in_every_form_of_it() {
    let world = World::start().await;
    let document: Value = world.get("/openapi.json", None).await.body;
    let codes = page(&world, "/docs/errors", "application/json").await;
    for row in codes.body["data"].as_array().expect("rows") {
        let example = &document["components"]["examples"][row["code"].as_str().expect("a code")]["value"];
        assert_eq!(example["error"]["code"], row["code"]);
        assert_eq!(example["error"]["recovery"]["next_action"], row["next_action"]);
        // The skill says what to do about everything that an agent can be told to do.
        let skill = world.get("/SKILL.md", None).await.text;
        assert!(skill.contains(&format!("`{}`", row["next_action"].as_str().expect("text"))), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_terms_are_shown() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("terms.md");
    std::fs::write(&file, "# House rules\n\nBe kind.\n").expect("written");
    let world = World::start_with(&format!("terms_file = \"{}\"\n", file.display())).await;
    let terms = world.get("/terms", None).await.expect(200);
    assert!(terms.text.contains("Be kind.") && !terms.text.contains("placeholder"), "{}", terms.text);
    let world = World::start().await;
    assert!(world.get("/terms", None).await.text.contains("placeholder"));
}
