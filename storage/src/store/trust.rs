//! Reviews with evidence, and what scores are made of.

use async_trait::async_trait;

use super::identity::Changed;
use crate::{
    error::StoreResult,
    model::{Bought, ListingId, Profile, ProfileId, Ratings, Review, Score, Standing, UnixMillis},
};

/// What `review_create` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReviewCreated {
    /// It stands, with its evidence and weight.
    Created(Review),
    /// This buyer has reviewed the listing before.
    Exists,
    /// No call that was settled, billable and not taken back since the moment asked for.
    NoEvidence,
}

/// What is thought of whom.
#[async_trait]
pub trait TrustStore: Send + Sync {
    /// A review by a buyer who bought since `since`, in one step with what the listing's reviews come to; one a buyer
    /// and listing, of any number at once. The evidence is that of the last roll-up. Rules out looking for a review
    /// or the evidence first.
    async fn review_create(&self, review: Review, since: UnixMillis) -> StoreResult<ReviewCreated>;

    /// A buyer's review of a listing.
    async fn review_get(&self, listing: ListingId, reviewer: ProfileId) -> StoreResult<Option<Review>>;

    /// A listing's reviews, newest first, after the first `skip`.
    async fn review_list(&self, listing: ListingId, skip: usize, limit: usize) -> StoreResult<Vec<Review>>;

    /// What a listing's reviews came to.
    async fn ratings_get(&self, listing: ListingId) -> StoreResult<Ratings>;

    /// What a buyer bought of a listing, as of the last roll-up.
    async fn bought_get(&self, listing: ListingId, buyer: ProfileId) -> StoreResult<Bought>;

    /// What a profile's score is made of, as of the last roll-up.
    async fn standing_get(&self, profile: ProfileId) -> StoreResult<Standing>;

    /// Profiles of whom something counted since their score was put, by id, after `after`: survives a crash.
    async fn score_due(&self, after: Option<ProfileId>, limit: usize) -> StoreResult<Vec<ProfileId>>;

    /// Puts a score that was made of a standing of this version, into the profile too when it shows there; no longer due
    /// unless more has counted since. `NotFound`: no such profile. Rules out losing what counted meanwhile.
    async fn score_put(&self, score: Score, standing_version: u64) -> StoreResult<Changed>;

    /// The score that was put last.
    async fn score_get(&self, profile: ProfileId) -> StoreResult<Option<Score>>;

    /// All profiles by id, after `after`: what the nightly pass goes through.
    async fn profile_scan(&self, after: Option<ProfileId>, limit: usize) -> StoreResult<Vec<Profile>>;
}
