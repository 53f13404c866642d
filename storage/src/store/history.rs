//! History: by party and time, newest first, with cursors that stay right while rows are added.

use async_trait::async_trait;

use crate::{
    error::StoreResult,
    model::{
        Cursor, FreeCall, GatewayRequest, GatewayRequestId, HistoryFilter, LedgerRow, ListingId, Page, ProfileId, Sums,
        Tally,
    },
};

/// What a roll-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolledUp {
    /// Listings whose calls or reviews it counted.
    pub listings: Vec<ListingId>,
    /// More waits: ask again.
    pub more: bool,
}

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

    /// Folds what happened since the last time into what is kept of it: sums of each party, tallies of each listing, what
    /// scores are made of. A thousand happenings or so at a time; exactly once, whatever dies, and behind the steps that
    /// they come from. Rules out counting in the step itself, and scanning when somebody asks.
    async fn roll_up(&self) -> StoreResult<RolledUp>;

    /// What the calls to a listing came to, as of the last roll-up.
    async fn tally_get(&self, listing: ListingId) -> StoreResult<Tally>;

    /// A party's sums, as of the last roll-up.
    async fn sums_get(&self, party: ProfileId) -> StoreResult<Sums>;

    /// Rows of free calls, behind their answers. A crash may lose those of the last 50 ms, and nothing else.
    async fn free_calls_write(&self, calls: Vec<FreeCall>) -> StoreResult<()>;
}
