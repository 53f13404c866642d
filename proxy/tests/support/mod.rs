//! What the tests over real sockets share: a gateway process, sellers that behave as told, buyers with wallets.
#![allow(
    dead_code,
    unused_imports,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::float_arithmetic,
    missing_docs,
    reason = "each test binary uses its own part of this"
)]
#![allow(clippy::allow_attributes_without_reason, clippy::allow_attributes)]

pub mod agent;
#[path = "../../../control-api/tests/api/described.rs"]
pub mod described;
pub mod gateway;
pub mod operations;
pub mod script;
pub mod seller;
pub mod tls;

pub use agent::Agent;
pub use gateway::Gateway;
pub use script::Script;
pub use seller::Seller;

use std::time::Duration;

/// Waits for a condition, at most ten seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
