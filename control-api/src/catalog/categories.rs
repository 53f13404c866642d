//! `GET /categories`.

use actors::refusal::Refusal;
use serde::Serialize;
use storage::model::CategoryId;

use crate::{
    extract::Ask,
    reply::{Reply, Shown},
};

#[derive(Serialize)]
struct CategoryView<'a> {
    id: Shown<CategoryId>,
    name: &'a str,
    slug: &'a str,
    listing_count: usize,
}

/// `GET /categories`.
pub(crate) async fn list_all(ask: Ask) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let categories = ask.door.catalogue.categories();
    let views = categories.into_iter().map(|(category, listing_count)| CategoryView {
        id: Shown(category.id),
        name: &category.name,
        slug: &category.slug,
        listing_count,
    });
    Reply::ok(views.collect::<Vec<_>>())
}
