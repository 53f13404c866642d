//! What people and agents read: the OpenAPI document, the page of codes, the texts. All of it is made from the tables
//! that are served and refused by, and names the public URL that it is served at.

mod openapi;
mod operations;
mod pages;
mod schemas;
mod shape;

use std::{fmt::Write as _, path::Path, sync::OnceLock};

use actors::refusal::{Code, Refusal};
use bytes::Bytes;
use serde::Serialize;
use storage::model::PricingModel;

use crate::{
    catalog::{Order, Wanted},
    extract::Ask,
    reply::Reply,
};

const JSON: &str = "application/json";
const MARKDOWN: &str = "text/markdown; charset=utf-8";
/// So many calls are named to clients of x402; all of them are in the catalogue.
const X402_RESOURCES: usize = 100;
const PLAIN: &str = "text/plain; charset=utf-8";

/// The OpenAPI document of a service at this public URL, which has no slash at its end; as text, ready to be kept.
#[must_use]
pub fn openapi(site: &str) -> String {
    let mut text = format!("{:#}", openapi::document(site));
    text.push('\n');
    text
}

/// The texts of this service, each made when it is first asked for.
pub(crate) struct Documents {
    site: String,
    mode: &'static str,
    terms: String,
    openapi: OnceLock<Bytes>,
    docs: OnceLock<Bytes>,
}

impl Documents {
    /// The texts of a service at this public URL. `terms` names the operator's, when there are any.
    ///
    /// # Errors
    /// The file of terms cannot be read.
    pub(crate) fn open(site: &str, mode: &'static str, terms: &Path) -> std::io::Result<Self> {
        let terms = if terms.as_os_str().is_empty() { pages::TERMS.into() } else { std::fs::read_to_string(terms)? };
        Ok(Self { site: site.into(), mode, terms, openapi: OnceLock::new(), docs: OnceLock::new() })
    }
}

/// `GET /openapi.json`, `GET /api/openapi.json`.
pub(crate) async fn show_openapi(ask: Ask) -> Result<Reply, Refusal> {
    let documents = &ask.door.documents;
    Ok(Reply::text(
        JSON,
        documents.openapi.get_or_init(|| openapi::document(&documents.site).to_string().into()).clone(),
    ))
}

/// `GET /docs`.
pub(crate) async fn show_docs(ask: Ask) -> Result<Reply, Refusal> {
    let documents = &ask.door.documents;
    Ok(Reply::html(documents.docs.get_or_init(|| pages::docs(&documents.site).into()).clone()))
}

/// `GET /docs/api-reference.txt`.
pub(crate) async fn show_api_reference(ask: Ask) -> Result<Reply, Refusal> {
    Ok(Reply::text(PLAIN, pages::api_reference(&ask.door.site)))
}

/// `GET /docs/seller-integration.txt`.
pub(crate) async fn show_integration(ask: Ask) -> Result<Reply, Refusal> {
    Ok(Reply::text(PLAIN, pages::integration(&ask.door.site)))
}

/// `GET /llms.txt`.
pub(crate) async fn show_llms(ask: Ask) -> Result<Reply, Refusal> {
    Ok(Reply::text(PLAIN, pages::llms(&ask.door.site)))
}

/// `GET /SKILL.md`.
pub(crate) async fn show_skill(ask: Ask) -> Result<Reply, Refusal> {
    Ok(Reply::text(MARKDOWN, pages::skill(&ask.door.site)))
}

/// `GET /agent-skill`: a page for a browser, else the same as `/SKILL.md`.
pub(crate) async fn show_agent_skill(ask: Ask) -> Result<Reply, Refusal> {
    Ok(page_or_text(&ask, "Agent skill", pages::skill(&ask.door.site)))
}

/// `GET /seller-onboarding`: a page for a browser, else Markdown.
pub(crate) async fn show_onboarding(ask: Ask) -> Result<Reply, Refusal> {
    Ok(page_or_text(&ask, "Seller onboarding", pages::onboarding(&ask.door.site)))
}

/// `GET /.well-known/agent-protocol.json`.
pub(crate) async fn show_agent_protocol(ask: Ask) -> Result<Reply, Refusal> {
    let protocol = pages::agent_protocol(&ask.door.site, ask.door.documents.mode);
    Ok(Reply::text(JSON, format!("{protocol:#}\n")))
}

/// `GET /.well-known/x402`: how calls are paid over x402, and the newest that can be bought.
pub(crate) async fn show_x402(ask: Ask) -> Result<Reply, Refusal> {
    let door = &ask.door;
    let wanted = Wanted { pricing_model: Some(PricingModel::PerCall), ..Wanted::default() };
    let newest = door.catalogue.page(&wanted, Order::Newest, 0, X402_RESOURCES);
    let newest = newest.map_err(|_| Refusal::from(Code::Internal))?.rows;
    let callable = newest.iter().filter(|row| row.has_endpoint).map(|row| row.listing.id);
    let x402 = pages::x402(&door.site, door.actors.x402_terms(), callable);
    Ok(Reply::text(JSON, format!("{x402:#}\n")))
}

/// `GET /terms`: the operator's, or that there are none.
pub(crate) async fn show_terms(ask: Ask) -> Result<Reply, Refusal> {
    Ok(Reply::html(pages::html_page("Terms", &ask.door.documents.terms)))
}

fn page_or_text(ask: &Ask, title: &str, markdown: String) -> Reply {
    if ask.takes_html() { Reply::html(pages::html_page(title, &markdown)) } else { Reply::text(MARKDOWN, markdown) }
}

#[derive(Serialize)]
struct CodeView {
    code: &'static str,
    status: u16,
    next_action: &'static str,
    retryable: bool,
    blame: &'static str,
    message: &'static str,
}

/// `GET /docs/errors`: every code with an anchor of its own, or the same as JSON.
pub(crate) async fn errors(ask: Ask) -> Result<Reply, Refusal> {
    if ask.prefers_json() {
        let rows = Code::ALL.iter().map(|code| {
            let row = code.row();
            CodeView {
                code: row.code,
                status: row.status,
                next_action: row.next_action,
                retryable: row.retryable,
                blame: row.blame.name(),
                message: row.message,
            }
        });
        return Reply::ok(rows.collect::<Vec<_>>());
    }
    Ok(Reply::html(page()))
}

fn page() -> String {
    let mut page = String::with_capacity(32_768);
    page.push_str(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Error codes – Crochet Gateway</title>\n<style>\n\
         body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\n\
         section{border-top:1px solid #ccc;padding:.5rem 0}section:target{background:#fff7d6}\n\
         h2{font-size:1.1rem;margin:.3rem 0}code{background:#f3f3f3;padding:0 .2rem}\n</style>\n</head>\n<body>\n\
         <h1>Error codes</h1>\n<p>Every refusal carries <code>error.code</code>, and under <code>error.recovery</code> \
         what to do next. The literals of <code>next_action</code> do not change. The same table as JSON: ask with \
         <code>Accept: application/json</code>.</p>\n",
    );
    for code in Code::ALL {
        let row = code.row();
        let retry = if row.retryable { "yes" } else { "no" };
        // Codes and literals are ours and hold nothing that HTML would read; messages are escaped all the same.
        let _ = write!(
            page,
            "<section id=\"{code}\">\n<h2><a href=\"#{code}\">{code}</a></h2>\n<p>{message}</p>\n\
             <p>HTTP {status}; next action <code>{next}</code>; the same request may be sent again: {retry}; \
             on the side of the {blame}.</p>\n</section>\n",
            code = row.code,
            message = escaped(row.message),
            status = row.status,
            next = row.next_action,
            blame = row.blame.name(),
        );
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_anchor() {
        let page = page();
        for code in Code::ALL {
            assert!(page.contains(&format!("<section id=\"{}\">", code.row().code)), "{}", code.row().code);
        }
    }
}
