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

/// Nothing is counted or rated yet, so that by these all are equal, and what is equal stands newest first.
const ORDERS: &[(&str, Order)] = &[
    ("newest", Order::Newest),
    ("popular", Order::Newest),
    ("rating", Order::Newest),
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
    Browse {
        wanted: Wanted {
            category: None,
            pricing_model: query.choice("pricing_model", PRICING_MODELS),
            delivery_type: query.choice("delivery_type", DELIVERY_TYPES),
            min_price: query.price("min_price"),
            max_price: query.price("max_price"),
            min_score: query.number("min_score", 0..=1000),
            seller: query.parsed("seller", "a profile's id"),
        },
        category: query.text("category"),
        order: query.choice("sort", ORDERS).unwrap_or(Order::Newest),
        page: query.number("page", 1..=PAGE_MAX).unwrap_or(1),
        limit: query.limit(),
    }
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
    let (rows, total) = catalogue.page(&browse.wanted, browse.order, skip, browse.limit);
    let views = rows.iter().map(|row| ListingView::new(&ask.door, &row.listing, &row.provider, row.has_endpoint));
    let pages =
        Pages { page: browse.page, limit: browse.limit, total, total_pages: total.div_ceil(browse.limit.max(1)) };
    Reply::page(views.collect::<Vec<_>>(), pages)
}
