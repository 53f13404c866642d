//! History: by party and time, newest first, with cursors that stay right while rows are added.

use async_trait::async_trait;

use crate::{
    error::StoreResult,
    model::{Cursor, FreeCall, GatewayRequest, GatewayRequestId, HistoryFilter, LedgerRow, Page, ProfileId},
};

/// What happened, as its parties may read it.
#[async_trait]
pub trait HistoryStore: Send + Sync {
    /// A party's gateway requests, one row an attempt.
    async fn gateway_request_list(
        &self,
        party: ProfileId,
        filter: &HistoryFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Page<GatewayRequest>>;

    /// All attempts of one call of `party`'s, in order; empty when there is none.
    async fn gateway_request_get(&self, party: ProfileId, id: GatewayRequestId) -> StoreResult<Vec<GatewayRequest>>;

    /// A party's ledger rows, by posting.
    async fn ledger_list(
        &self,
        party: ProfileId,
        filter: &HistoryFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Page<LedgerRow>>;

    /// Rows of free calls, behind their answers. A crash may lose those of the last 50 ms, and nothing else.
    async fn free_calls_write(&self, calls: Vec<FreeCall>) -> StoreResult<()>;
}
