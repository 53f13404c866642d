//! `crochet listings`: what is offered. What sellers do with theirs is in `seller` and `endpoint`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;
use storage::model::Micros;

use super::{
    Client, Ended,
    arguments::{Page, usd},
    endpoint::{self, EndpointCommand},
    note, path, query, rows,
    seller::{self, Fields},
    table::{cell, dollars, facts, moment, plain_lines, table},
};

/// What is done with listings.
#[derive(Debug, Subcommand)]
pub enum ListingsCommand {
    /// Looks for listings; all of them without words
    Search(Box<Search>),
    /// Lists the categories
    Categories,
    /// Shows one listing
    Show {
        /// Its id or slug
        listing: String,
    },
    /// Lists one's own, drafts and suspended ones too
    Mine {
        /// Which of them.
        #[command(flatten)]
        page: Page,
    },
    /// Offers something; shows the signing secret this once
    Create {
        /// What it is.
        #[command(flatten)]
        fields: Box<Fields>,
        /// Write the signing secret into this new file (mode 0600) instead of showing it
        #[arg(long, value_name = "FILE")]
        secret_to: Option<PathBuf>,
    },
    /// Changes what is given, and nothing else
    Change {
        /// Its id or slug
        listing: String,
        /// What changes.
        #[command(flatten)]
        fields: Box<Fields>,
    },
    /// Deletes a draft; takes anything else off sale
    Remove {
        /// Its id or slug
        listing: String,
    },
    /// The endpoint behind one's own listing
    Endpoint {
        /// The listing's id or slug
        listing: String,
        /// What to do; `show` when nothing is said.
        #[command(subcommand)]
        what: Option<EndpointCommand>,
    },
}

/// What is looked for.
#[derive(Debug, Args)]
pub struct Search {
    /// Words
    pub words: Vec<String>,
    /// In this category (id or slug)
    #[arg(long, value_name = "NAME")]
    pub category: Option<String>,
    /// free or per_call
    #[arg(long, value_name = "WORD")]
    pub pricing_model: Option<String>,
    /// api, webhook, streaming, batch or file
    #[arg(long, value_name = "WORD")]
    pub delivery_type: Option<String>,
    /// Not cheaper
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub min_price: Option<Micros>,
    /// Not dearer
    #[arg(long, value_name = "USD", value_parser = usd)]
    pub max_price: Option<Micros>,
    /// Of sellers with this score at least
    #[arg(long, value_name = "0-1000")]
    pub min_score: Option<u16>,
    /// Of this seller
    #[arg(long, value_name = "ID")]
    pub seller: Option<String>,
    /// relevance, newest, popular, rating, price_low or price_high
    #[arg(long, value_name = "WORD")]
    pub sort: Option<String>,
    /// Which of them.
    #[command(flatten)]
    pub page: Page,
}

/// Does it; the newest listings when nothing is said.
pub(super) async fn run(client: &Client, what: Option<&ListingsCommand>) -> Result<Ended> {
    match what {
        None => show_list(client, "/api/v1/listings", false).await,
        Some(ListingsCommand::Search(search)) => show_list(client, &search.path(), false).await,
        Some(ListingsCommand::Categories) => {
            client.show(&client.ask_openly("GET", "/api/v1/categories", None).await?, categories)
        }
        Some(ListingsCommand::Show { listing }) => show(client, listing).await,
        Some(ListingsCommand::Mine { page }) => show_list(client, &page.path("/api/v1/me/listings"), true).await,
        Some(ListingsCommand::Create { fields, secret_to }) => {
            seller::create(client, fields, secret_to.as_deref()).await
        }
        Some(ListingsCommand::Change { listing, fields }) => seller::change(client, listing, fields).await,
        Some(ListingsCommand::Remove { listing }) => seller::remove(client, listing).await,
        Some(ListingsCommand::Endpoint { listing, what }) => endpoint::run(client, listing, what.as_ref()).await,
    }
}

impl Search {
    fn path(&self) -> String {
        let price = |price: Option<Micros>| price.map(Micros::units);
        let parameters = [
            ("q", (!self.words.is_empty()).then(|| self.words.join(" "))),
            ("category", self.category.clone()),
            ("pricing_model", self.pricing_model.clone()),
            ("delivery_type", self.delivery_type.clone()),
            ("min_price", price(self.min_price)),
            ("max_price", price(self.max_price)),
            ("min_score", self.min_score.map(|score| score.to_string())),
            ("seller", self.seller.clone()),
            ("sort", self.sort.clone()),
            ("page", Some(self.page.page.to_string())),
            ("limit", Some(self.page.limit.to_string())),
        ];
        query("/api/v1/listings", &parameters)
    }
}

impl Page {
    /// This page of a list.
    pub(super) fn path(&self, path: &str) -> String {
        query(path, &[("page", Some(self.page.to_string())), ("limit", Some(self.limit.to_string()))])
    }
}

async fn show_list(client: &Client, path: &str, own: bool) -> Result<Ended> {
    let answer = if own { client.get(path).await? } else { client.ask_openly("GET", path, None).await? };
    let ended = client.show(&answer, |data| if own { own_list(data) } else { list(data) })?;
    note_pages(&answer.json);
    Ok(ended)
}

/// Says that there is more than what is shown.
pub(super) fn note_pages(answer: &Value) {
    let number = |name: &str| answer.pointer("/pagination").and_then(|pages| pages.get(name)).and_then(Value::as_u64);
    if let (Some(page), Some(pages), Some(total)) = (number("page"), number("totalPages"), number("total"))
        && pages > 1
    {
        note(&format!("page {page} of {pages}, {total} in all; --page {} shows the next", page + 1));
    }
}

/// A price, in words when there is none.
pub(super) fn price(row: &Value) -> String {
    match row.pointer("/pricing_amount_micros").and_then(Value::as_i64) {
        _ if row.pointer("/pricing_model").and_then(Value::as_str) == Some("free") => "free".into(),
        Some(micros) => dollars(micros),
        None => "-".into(),
    }
}

fn list(data: &Value) -> String {
    let rows = rows(data).iter().map(|row| {
        vec![
            cell(row, "/slug"),
            cell(row, "/name"),
            price(row),
            cell(row, "/provider/display_name"),
            cell(row, "/provider/score"),
            cell(row, "/rating/average"),
            cell(row, "/stats/calls_30d"),
            cell(row, "/stats/p50_ms"),
        ]
    });
    let headings = ["LISTING", "NAME", ">PRICE", "SELLER", ">SCORE", ">RATING", ">CALLS", ">MS"];
    table(&headings, &rows.collect::<Vec<_>>())
}

fn own_list(data: &Value) -> String {
    let rows = rows(data).iter().map(|row| {
        vec![
            cell(row, "/id"),
            cell(row, "/slug"),
            price(row),
            cell(row, "/status"),
            cell(row, "/rating/average"),
            cell(row, "/stats/calls_30d"),
        ]
    });
    table(&["ID", "LISTING", ">PRICE", "STATUS", ">RATING", ">CALLS"], &rows.collect::<Vec<_>>())
}

fn categories(data: &Value) -> String {
    let rows = rows(data).iter().map(|row| vec![cell(row, "/slug"), cell(row, "/name"), cell(row, "/listing_count")]);
    table(&["CATEGORY", "NAME", ">LISTINGS"], &rows.collect::<Vec<_>>())
}

/// With the key, if there is one: an owner sees drafts too.
async fn show(client: &Client, listing: &str) -> Result<Ended> {
    let path = path("listings", listing, "");
    let answer = match client.key() {
        Ok(_) => client.get(&path).await?,
        Err(_) => client.ask_openly("GET", &path, None).await?,
    };
    client.show(&answer, one)
}

/// A listing, whole.
pub(super) fn one(data: &Value) -> String {
    let seller = format!(
        "{} ({}, score {})",
        cell(data, "/provider/display_name"),
        cell(data, "/provider/id"),
        cell(data, "/provider/score")
    );
    let mut shown = vec![
        ("id", cell(data, "/id")),
        ("listing", cell(data, "/slug")),
        ("name", cell(data, "/name")),
        ("price", price(data)),
        ("status", cell(data, "/status")),
        ("category", cell(data, "/category/name")),
        ("delivery", format!("{}, {}", cell(data, "/delivery_type"), cell(data, "/formats"))),
        ("seller", seller),
        ("rating", format!("{} of {} reviews", cell(data, "/rating/average"), cell(data, "/rating/count"))),
        ("calls in 30 days", cell(data, "/stats/calls_30d")),
        ("tags", cell(data, "/tags")),
        ("called at", cell(data, "/gateway_url")),
        ("documentation", cell(data, "/documentation_url")),
        ("created", moment(data, "/created_at")),
    ];
    shown.retain(|(_, value)| value != "-");
    let mut text = facts(&shown);
    for (heading, place) in [("", "/description"), ("How to call it", "/connection_instructions")] {
        if let Some(words) = data.pointer(place).and_then(Value::as_str) {
            let heading = if heading.is_empty() { String::new() } else { format!("{heading}:\n") };
            text.push_str(&format!("\n{heading}{}\n", plain_lines(words)));
        }
    }
    for (heading, place) in [("Example request", "/example_request"), ("Example answer", "/example_response")] {
        if let Some(example) = data.pointer(place).filter(|example| !example.is_null()) {
            text.push_str(&format!("\n{heading}:\n{}\n", plain_lines(&example.to_string())));
        }
    }
    text
}
