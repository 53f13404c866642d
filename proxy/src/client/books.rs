//! What happened: calls, the ledger, reviews, scores.

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Client, Ended,
    arguments::{Calls, Ledger, ReviewsCommand, Rows, Score},
    catalog::note_pages,
    given,
    identity::set,
    note, path, query, rows,
    table::{cell, facts, moment, money, plain_lines, table},
};

impl Rows {
    fn parameters(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("listing_id", self.listing.clone()),
            ("from", self.from.clone()),
            ("to", self.to.clone()),
            ("limit", Some(self.limit.to_string())),
            ("cursor", self.cursor.clone()),
        ]
    }
}

fn note_cursor(answer: &Value) {
    if let Some(cursor) = answer.pointer("/pagination/next_cursor").and_then(Value::as_str) {
        note(&format!("there are more: --cursor {cursor}"));
    }
}

/// `crochet calls`.
pub(super) async fn calls(client: &Client, order: &Calls) -> Result<Ended> {
    if let Some(id) = &order.id {
        return client.show(&client.get(&path("gateway-requests", id, "")).await?, one_call);
    }
    let mut parameters = order.rows.parameters();
    parameters.extend([("role", order.role.clone()), ("status", order.status.clone())]);
    let answer = client.get(&query("/api/v1/gateway-requests", &parameters)).await?;
    let ended = client.show(&answer, call_list)?;
    note_cursor(&answer.json);
    Ok(ended)
}

fn call_list(data: &Value) -> String {
    let rows = rows(data).iter().map(|row| {
        vec![
            moment(row, "/created_at"),
            cell(row, "/id"),
            cell(row, "/role"),
            cell(row, "/status"),
            cell(row, "/http_status"),
            money(row, "/charged_amount/amount_micros"),
            cell(row, "/latency_ms/total"),
            cell(row, "/error_code"),
        ]
    });
    table(&["TIME", "CALL", "AS", "STATUS", ">HTTP", ">CHARGED", ">MS", "ERROR"], &rows.collect::<Vec<_>>())
}

fn one_call(data: &Value) -> String {
    let attempts = rows(data.pointer("/attempts").unwrap_or(&Value::Null)).iter().map(|row| {
        let places = ["/attempt", "/status", "/http_status", "/seller_status_code", "/error_code"];
        places.map(|place| cell(row, place)).into_iter().chain([moment(row, "/created_at")]).collect()
    });
    let attempts =
        table(&[">ATTEMPT", "STATUS", ">HTTP", ">SELLER", "ERROR", "TIME"], &attempts.collect::<Vec<Vec<String>>>());
    let mut shown = vec![
        ("call", cell(data, "/id")),
        ("listing", cell(data, "/listing_id")),
        ("buyer", cell(data, "/buyer_id")),
        ("seller", cell(data, "/seller_id")),
        ("payment", cell(data, "/relay_request_id")),
        ("status", cell(data, "/status")),
        ("charged", money(data, "/charged_amount/amount_micros")),
        ("fee", money(data, "/fees/fee_amount_micros")),
        ("seller receives", money(data, "/fees/seller_receives_micros")),
        ("bytes", format!("{} sent, {} received", cell(data, "/request_bytes"), cell(data, "/response_bytes"))),
    ];
    if let Some(result) = data.pointer("/result").filter(|result| !result.is_null()) {
        let until = moment(result, "/kept_until");
        shown.push(("result", if until == "-" { "not kept".into() } else { format!("kept until {until}") }));
    }
    shown.retain(|(_, value)| value != "-");
    format!("{}\n{attempts}", facts(&shown))
}

/// `crochet ledger`.
pub(super) async fn ledger(client: &Client, order: &Ledger) -> Result<Ended> {
    if order.summary {
        return client.show(&client.get("/api/v1/ledger?summary=true").await?, sums);
    }
    let answer = client.get(&query("/api/v1/ledger", &order.rows.parameters())).await?;
    let ended = client.show(&answer, ledger_list)?;
    note_cursor(&answer.json);
    Ok(ended)
}

fn ledger_list(data: &Value) -> String {
    let rows = rows(data).iter().map(|row| {
        let is_debit = row.pointer("/direction").and_then(Value::as_str) == Some("debit");
        let amount = money(row, "/amount/amount_micros");
        vec![
            moment(row, "/created_at"),
            cell(row, "/entry_type"),
            if is_debit { format!("-{amount}") } else { amount },
            cell(row, "/listing_id"),
            cell(row, "/relay_request_id"),
        ]
    });
    table(&["TIME", "ENTRY", ">AMOUNT", "LISTING", "PAYMENT"], &rows.collect::<Vec<_>>())
}

fn sums(data: &Value) -> String {
    let sums = [
        ("spent", "/spent"),
        ("paid", "/paid"),
        ("paid, not called yet", "/in_suspense"),
        ("owed to you", "/owed_to_you"),
        ("refunded", "/refunded"),
        ("taken back", "/taken_back"),
        ("earned", "/earned"),
        ("fees", "/fees"),
        ("paid out", "/paid_out"),
        ("to be paid out", "/payable"),
    ];
    facts(&sums.map(|(name, place)| (name, money(data, &format!("{place}/amount_micros")))))
}

/// `crochet reviews`.
pub(super) async fn reviews(client: &Client, what: &ReviewsCommand) -> Result<Ended> {
    match what {
        ReviewsCommand::List { listing, page } => {
            let answer = client.ask_openly("GET", &page.path(&path("reviews", listing, "")), None).await?;
            let ended = client.show(&answer, |_| review_list(&answer.json))?;
            note_pages(&answer.json);
            Ok(ended)
        }
        ReviewsCommand::Write { listing, accuracy, reliability, value, title, comment } => {
            let mut asked =
                json!({"accuracy_rating": accuracy, "reliability_rating": reliability, "value_rating": value});
            set(&mut asked, "title", title.clone());
            set(&mut asked, "comment", comment.as_deref().map(given).transpose()?);
            client.show(&client.ask("POST", &path("reviews", listing, ""), Some(&asked)).await?, one_review)
        }
    }
}

fn review_list(answer: &Value) -> String {
    let average = |name: &str| cell(answer, &format!("/summary/averages/{name}"));
    let stars = ["5", "4", "3", "2", "1"]
        .map(|stars| format!("{} with {stars}", cell(answer, &format!("/summary/histogram/{stars}"))));
    let mut text = facts(&[
        ("reviews", cell(answer, "/summary/count")),
        ("overall", average("overall")),
        ("accuracy", average("accuracy")),
        ("reliability", average("reliability")),
        ("value", average("value")),
        ("stars", stars.join(", ")),
    ]);
    for review in rows(answer.pointer("/data").unwrap_or(&Value::Null)) {
        text.push('\n');
        text.push_str(&one_review(review));
    }
    text
}

fn one_review(review: &Value) -> String {
    let heading = format!(
        "{} of 5 (accuracy {}, reliability {}, value {}) by {} on {}",
        cell(review, "/rating"),
        cell(review, "/accuracy_rating"),
        cell(review, "/reliability_rating"),
        cell(review, "/value_rating"),
        cell(review, "/reviewer/display_name"),
        moment(review, "/created_at"),
    );
    let words = ["/title", "/comment"].into_iter().filter_map(|place| review.pointer(place)?.as_str());
    let words: String = words.map(|words| format!("  {}\n", plain_lines(words).replace('\n', "\n  "))).collect();
    format!("{heading}\n{words}")
}

/// `crochet score`.
pub(super) async fn score(client: &Client, order: &Score) -> Result<Ended> {
    let agent = match &order.agent {
        Some(agent) => agent.clone(),
        None => client.profile().await?,
    };
    client.show(&client.ask_openly("GET", &path("agents", &agent, "/score"), None).await?, |data| {
        let part = |name: &str| cell(data, &format!("/components/{name}"));
        facts(&[
            ("agent", cell(data, "/agent_id")),
            ("score", format!("{} of 1000, {}", cell(data, "/score"), cell(data, "/tier"))),
            ("verified", cell(data, "/is_verified")),
            ("reliability", part("reliability")),
            ("accuracy", part("accuracy")),
            ("volume", part("volume")),
            ("longevity", part("longevity")),
            ("reputation", part("reputation")),
            ("computed", moment(data, "/computed_at")),
        ])
    })
}
