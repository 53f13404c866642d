//! `GET /listings`: the shelves, filtered, sorted, page by page.

use actors::refusal::{Code, Refusal};
use storage::model::PricingModel;

use super::{
    input::DELIVERY_TYPES,
    shelves::{Order, Wanted},
    view::ListingView,
};
use crate::{
    extract::Ask,
    query::Query,
    reply::{Pages, Reply},
};

const PAGE_MAX: usize = 1_000_000;

const WORDS_MAX: usize = 200;

/// What is equal in an order stands newest first.
const ORDERS: &[(&str, Order)] = &[
    ("relevance", Order::Relevance),
    ("newest", Order::Newest),
    ("popular", Order::Popular),
    ("rating", Order::Rating),
    ("price_low", Order::PriceLow),
    ("price_high", Order::PriceHigh),
];

const PRICING_MODELS: &[(&str, PricingModel)] = &[("free", PricingModel::Free), ("per_call", PricingModel::PerCall)];

struct Browse {
    wanted: Wanted,
    category: Option<String>,
    order: Order,
    page: usize,
    limit: usize,
}

fn read(query: &mut Query) -> Browse {
    let words = read_words(query);
    let default = if words.is_some() { Order::Relevance } else { Order::Newest };
    let order = query.choice("sort", ORDERS).unwrap_or(default);
    if order == Order::Relevance && words.is_none() {
        query.wrong("sort", "relevance needs q");
    }
    Browse {
        wanted: Wanted {
            category: None,
            pricing_model: query.choice("pricing_model", PRICING_MODELS),
            delivery_type: query.choice("delivery_type", DELIVERY_TYPES),
            min_price: query.price("min_price"),
            max_price: query.price("max_price"),
            min_score: query.number("min_score", 0..=1000),
            seller: query.parsed("seller", "a profile's id"),
            words,
        },
        category: query.text("category"),
        order,
        page: query.number("page", 1..=PAGE_MAX).unwrap_or(1),
        limit: query.limit(),
    }
}

/// Words to look for; an empty `q` looks for nothing in particular.
fn read_words(query: &mut Query) -> Option<String> {
    let words = query.text("q")?;
    if words.chars().count() > WORDS_MAX {
        query.wrong("q", format!("must have at most {WORDS_MAX} characters"));
    }
    Some(words).filter(|words| !words.trim().is_empty())
}

/// `GET /listings`.
pub(crate) async fn list(ask: Ask) -> Result<Reply, Refusal> {
    let mut browse = ask.query(read)?;
    let catalogue = &ask.door.catalogue;
    if let Some(name) = &browse.category {
        let category = catalogue.category_named(name);
        let unknown = || Refusal::from(Code::ValidationFailed).field("category", "there is no such category");
        browse.wanted.category = Some(category.ok_or_else(unknown)?.id);
    }
    let skip = (browse.page - 1).saturating_mul(browse.limit);
    let picked = catalogue.page(&browse.wanted, browse.order, skip, browse.limit).map_err(|error| {
        tracing::error!(%error, "a search failed");
        Refusal::from(Code::Internal)
    })?;
    let (rows, total) = (picked.rows, picked.total);
    let views = rows
        .iter()
        .map(|row| ListingView::new(&ask.door, &row.listing, &row.provider, row.has_endpoint).with(&row.figures));
    let pages =
        Pages { page: browse.page, limit: browse.limit, total, total_pages: total.div_ceil(browse.limit.max(1)) };
    Reply::page(views.collect::<Vec<_>>(), pages)
}
