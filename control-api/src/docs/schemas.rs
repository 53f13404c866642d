//! Every shape that goes over the wire, by name.

mod catalog;
mod identity;
mod money;
mod trust;

use actors::refusal::Code;
use serde_json::{Map, Value};

pub(super) use catalog::filters;

use super::shape::{count, just, list, named, object, open_object, or_null, text, word};

/// All of them.
pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    for (name, schema) in
        [general(), identity::schemas(), catalog::schemas(), money::schemas(), trust::schemas()].concat()
    {
        all.insert(name.into(), schema);
    }
    all
}

/// A schema and its name.
type Named = (&'static str, Value);

fn general() -> Vec<Named> {
    vec![
        ("Error", error()),
        ("Recovery", recovery()),
        (
            "Pages",
            object(
                "Where a page-numbered list stands.",
                &[
                    ("page", count("This page, from 1.", 1)),
                    ("limit", count("Rows of a page.", 20)),
                    ("total", count("Rows in all.", 1)),
                    ("totalPages", count("Pages in all.", 1)),
                ],
            ),
        ),
        (
            "More",
            object(
                "Where a history stands.",
                &[
                    ("limit", count("Rows of a page.", 20)),
                    (
                        "next_cursor",
                        or_null(text(
                            "Send it as `cursor` for the rows after these; null at the end.",
                            "AZC2jZ4Ac1iO3w",
                        )),
                    ),
                ],
            ),
        ),
        (
            "Health",
            object(
                "What works.",
                &[
                    ("status", word("`degraded` when something does not work.", &["ok", "degraded"])),
                    ("version", text("Of the gateway.", env!("CARGO_PKG_VERSION"))),
                    ("mode", word("`dev`: play money.", &["dev", "production"])),
                    ("uptime_seconds", count("Since the start.", 3600)),
                    (
                        "checks",
                        object(
                            "Part by part.",
                            &[
                                ("store", word("Where everything is kept.", &["ok", "unavailable"])),
                                ("payment_provider", word("A payment rail is on.", &["ok", "unavailable"])),
                                ("actors", word("Who decides.", &["ok", "unavailable"])),
                            ],
                        ),
                    ),
                ],
            ),
        ),
        ("CodeRow", code_row()),
    ]
}

fn code_row() -> Value {
    object(
        "A row of the table of codes.",
        &[
            ("code", word("The code.", &codes())),
            ("status", count("Its HTTP status.", 404)),
            ("next_action", text("What to do next; a stable literal.", "fix_request")),
            ("retryable", super::shape::flag("The same request may be sent again as it is.", false)),
            ("blame", word("Whose side it is on.", &["buyer", "seller", "gateway", "provider"])),
            ("message", text("What happened.", "There is nothing here by that name.")),
        ],
    )
}

/// All codes, in the order of the documentation.
fn codes() -> Vec<&'static str> {
    Code::ALL.iter().map(|code| code.row().code).collect()
}

fn error() -> Value {
    let details = open_object(
        "What is known of it. `seller_endpoint_called` says whether the seller was called, null when that is not \
         known; `payment_state` where the money is, on answers of the gateway; `fields` what is wrong, by name.",
        serde_json::json!({ "seller_endpoint_called": false }),
    );
    let inner = object(
        "Why not, and what next.",
        &[
            ("code", word("A stable code; all of them stand at `/docs/errors`.", &codes())),
            ("message", text("For people; it may change.", "There is nothing here by that name.")),
            ("details", details),
            ("recovery", named("Recovery")),
        ],
    );
    object(
        "A refusal. A 402 carries a quote under `data` besides.",
        &[
            ("success", serde_json::json!({ "const": false })),
            ("error", inner),
            ("data?", open_object("A quote with a 402, the checks of an unwell gateway.", serde_json::json!({}))),
        ],
    )
}

fn recovery() -> Value {
    let names = |about: &str| list(about, text("", "X-Crochet-Relay-Request-Id"));
    let mut recovery = object(
        "What a program can do about it.",
        &[
            ("retryable", super::shape::flag("The same request may be sent again as it is.", true)),
            ("next_action", word("What to do next.", &next_actions())),
            ("docs_url", text("About this code.", "/docs/errors#NOT_FOUND")),
            ("retry_after_seconds?", count("Not before that.", 1)),
            ("summary?", text("What to do, for people.", "Wait and send it again.")),
            ("preserve?", names("Headers and fields to send again as they were.")),
            ("discard?", names("Headers and fields to leave out from now on.")),
            ("retry_same_route?", super::shape::flag("Whether the same payment route can work.", false)),
            ("use_new_idempotency_key?", super::shape::flag("Whether the next try is another purchase.", true)),
        ],
    );
    super::shape::set(&mut recovery, "additionalProperties", true.into());
    recovery
}

/// The literals of the table, and those that only some refusals say.
fn next_actions() -> Vec<&'static str> {
    let mut literals: Vec<&str> = Code::ALL.iter().map(|code| code.row().next_action).collect();
    literals.extend(["retry_same_request", "retry_same_payment", "read_result"]);
    literals.sort_unstable();
    literals.dedup();
    literals
}

/// What every good answer is: `success` and `data`, and what a list has besides.
pub(super) fn envelope(data: Value, more: &[(&str, Value)]) -> Value {
    let mut members = vec![("success", serde_json::json!({ "const": true })), ("data", data)];
    members.extend(more.iter().cloned());
    object("The envelope.", &members)
}

/// `const` text, for a member that says what an answer is.
fn fixed(word: &str) -> Value {
    just("", word)
}
