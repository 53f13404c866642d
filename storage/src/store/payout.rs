//! Paying sellers out: every method that decides is one atomic step.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::TransferTold;
use crate::{
    error::StoreResult,
    model::{Micros, Payout, ProfileId},
};

/// What `payout_open` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PayoutOpened {
    /// The intent is durable.
    Opened(Payout),
    /// One was open before: that one stands.
    Open(Payout),
    /// Nothing was earned that was not paid out.
    NothingEarned,
}

/// Sellers to whom something is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PayablePage {
    /// Who, and about how much: as of the last roll-up.
    pub rows: Vec<(ProfileId, Micros)>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<ProfileId>,
}

/// Payouts.
#[async_trait]
pub trait PayoutStore: Send + Sync {
    /// Writes the intent to pay out all that the seller earned until now and was not paid out before, to this address;
    /// one is open per seller, and no money may move before it. What it takes is fixed first and added up from the
    /// postings then; whoever dies in between leaves a payout that the next call goes on with. Money that is taken back
    /// from then on is not the seller's to give. Rules out a sum that is read and written later: what is earned or
    /// taken back in between would count twice or never.
    async fn payout_open(&self, seller: ProfileId, to: String) -> StoreResult<PayoutOpened>;

    /// The operator sent it, under this reference; the first reference stands.
    async fn payout_sent(&self, seller: ProfileId, number: u32, reference: String) -> StoreResult<TransferTold>;

    /// The rail shows it: the payout's end and its posting in one step, once.
    async fn payout_confirm(&self, seller: ProfileId, number: u32) -> StoreResult<TransferTold>;

    /// A seller's payouts, oldest first.
    async fn payout_list(&self, seller: ProfileId) -> StoreResult<Vec<Payout>>;

    /// Sellers who have earned more than was paid out to them, from `after` on: by their sums, never a scan of all
    /// payments. What a payout takes is decided when it is opened.
    async fn payable_list(&self, after: Option<ProfileId>, limit: usize) -> StoreResult<PayablePage>;
}
