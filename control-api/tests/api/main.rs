//! The control API over real sockets, on a real store: one file a resource.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail by panicking, its helpers too")]

mod api_keys;
mod browse;
mod claims;
mod contract;
mod described;
mod documents;
mod endpoint_test;
mod endpoints;
mod history;
mod humans;
mod identity;
mod listings;
mod outside_wallets;
mod payments;
mod races;
mod recover;
mod reviews;
mod revocation;
mod scores;
mod search;
mod server;
mod support;
mod wallets;
