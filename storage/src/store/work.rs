//! Work that nobody asks for: found by index, and done in the order in which it is due.

use async_trait::async_trait;

use crate::{
    error::StoreResult,
    model::{PaymentId, UnixMillis, Work},
};

/// Some of what is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkPage {
    /// The payments, in the order in which they are due; some may have gone, or need nothing any more.
    pub due: Vec<PaymentId>,
    /// Where this page ends; `None`: nothing was looked at.
    pub mark: Option<Vec<u8>>,
    /// There may be more behind it.
    pub more: bool,
}

/// What is due though nobody asks for it.
#[async_trait]
pub trait WorkStore: Send + Sync {
    /// About `limit` payments for which this work was due by `until`, behind `after`; without it, behind what was done.
    /// By an index of rows that are written anyway, so that no call pays for it. Rules out a scan of all payments, and
    /// a list in memory that a crash forgets.
    async fn work_due(
        &self,
        work: Work,
        after: Option<Vec<u8>>,
        until: UnixMillis,
        limit: usize,
    ) -> StoreResult<WorkPage>;

    /// All up to this mark was done, but for `put_off`, which is due again at these moments: in one step, so that a
    /// crash makes work be done twice and never be forgotten. What a mark has passed never comes back.
    async fn work_done(&self, work: Work, mark: Vec<u8>, put_off: Vec<(PaymentId, UnixMillis)>) -> StoreResult<()>;
}
