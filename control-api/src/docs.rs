//! The pages that errors point to, written from the one table of codes.

use std::fmt::Write as _;

use actors::refusal::{Code, Refusal};
use serde::Serialize;

use crate::{extract::Ask, reply::Reply};

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
