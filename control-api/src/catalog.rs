//! What is offered: categories, listings, the endpoints behind them.

pub(crate) mod browse;
pub(crate) mod categories;
pub(crate) mod endpoint_input;
pub(crate) mod endpoint_test;
pub(crate) mod endpoints;
pub(crate) mod input;
pub(crate) mod listings;
mod owned;
mod search;
mod shelves;
mod stats;
mod view;

pub(crate) use owned::find;
pub(crate) use shelves::{Catalogue, Order, Wanted};
