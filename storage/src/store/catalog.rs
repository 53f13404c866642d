//! Listings, their endpoints, and the feed that tells other caches what changed.

use async_trait::async_trait;

use super::identity::Changed;
use crate::{
    error::StoreResult,
    model::{Category, Endpoint, Listing, ListingChallenge, ListingId, Offer, ProfileId, UnixMillis},
};

/// Something that caches must forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key, by its SHA-256.
    ApiKey([u8; 32]),
    /// A listing or its endpoint.
    Listing(ListingId),
    /// A profile.
    Profile(ProfileId),
}

/// What happened since a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// In order, repeats possible.
    pub items: Vec<Change>,
    /// Ask with this next.
    pub next: u64,
    /// Some were missed: forget everything.
    pub gap: bool,
}

/// What is offered.
#[async_trait]
pub trait CatalogStore: Send + Sync {
    /// All categories, by name; a new store has the usual ones.
    async fn category_list(&self) -> StoreResult<Vec<Category>>;

    /// A listing, its endpoint, and a slug of its own: the wanted one, else with the next free number. Returns it.
    /// Rules out choosing the slug before the step.
    async fn listing_create(&self, listing: Listing, endpoint: Option<Endpoint>) -> StoreResult<Listing>;

    /// A listing and its endpoint.
    async fn listing_get(&self, id: ListingId) -> StoreResult<Option<Offer>>;

    /// The listing with this slug.
    async fn listing_by_slug(&self, slug: &str) -> StoreResult<Option<Offer>>;

    /// Writes a listing whose `version` is still the stored one (it is counted up); the endpoint likewise when given.
    /// Both in one step, with the change feed. The last writer never wins silently.
    async fn listing_update(&self, listing: Listing, endpoint: Option<Endpoint>) -> StoreResult<Changed>;

    /// Writes an endpoint whose `version` is still the stored one.
    async fn endpoint_update(&self, endpoint: Endpoint) -> StoreResult<Changed>;

    /// Deletes a draft that never was active, with its slug and endpoint.
    async fn listing_delete(&self, id: ListingId, version: u64) -> StoreResult<Changed>;

    /// All listings by id, from after `after` on, `limit` at most: what indexes are built from.
    async fn listing_scan(&self, after: Option<ListingId>, limit: usize) -> StoreResult<Vec<Listing>>;

    /// A seller's listings, newest first.
    async fn listing_of_seller(&self, seller: ProfileId) -> StoreResult<Vec<Listing>>;

    /// Puts the one open challenge of a seller; the latest counts.
    async fn challenge_put(&self, seller: ProfileId, challenge: ListingChallenge) -> StoreResult<()>;

    /// Takes it: of any number of takers one gets it. `None` when there is none or it has ended.
    async fn challenge_take(&self, seller: ProfileId, now: UnixMillis) -> StoreResult<Option<ListingChallenge>>;

    /// What changed since `cursor` (0: since this process started).
    async fn changes_since(&self, cursor: u64) -> StoreResult<Changes>;
}
