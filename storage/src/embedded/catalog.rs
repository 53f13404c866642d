//! Categories, listings, endpoints, challenges, and the change feed.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    Draft, Embedded, Operation,
    codec::{decode, decode_sealed, encode_sealed},
    keys,
};
use crate::{
    error::{StoreError, StoreResult},
    model::{Category, Endpoint, Listing, ListingChallenge, ListingId, ListingStatus, Offer, ProfileId, UnixMillis},
    sealed::SealedEndpoint,
    store::{CatalogStore, Change, Changed, Changes},
};

const LISTING: &str = "listing";
const ENDPOINT: &str = "endpoint";
const SLUG: &str = "slug";

/// Who has a slug, and the number that the next one who wants it is tried with.
#[derive(Serialize, Deserialize)]
pub(super) struct SlugOwner {
    listing: ListingId,
    next: u32,
}

impl super::Shared {
    fn offer(&self, id: ListingId) -> StoreResult<Option<Offer>> {
        let Some(listing) = self.read(LISTING, &keys::listing(id))? else { return Ok(None) };
        let kept = self.engine()?.get(&keys::endpoint(id))?;
        let kept = kept.map(|bytes| decode_sealed::<SealedEndpoint>(ENDPOINT, &bytes)).transpose()?;
        Ok(Some(Offer { listing, endpoint: kept.map(|kept| kept.open(&self.sealer, id)).transpose()? }))
    }

    /// Sealed on the caller's thread, not on the writer's.
    fn seal(&self, endpoint: Option<Endpoint>) -> StoreResult<Option<SealedEndpoint>> {
        endpoint.map(|endpoint| SealedEndpoint::seal(&self.sealer, endpoint)).transpose()
    }
}

/// Takes the wanted slug, or the first free one with a number.
fn slug_take(draft: &mut Draft<'_>, wanted: &str, listing: ListingId) -> StoreResult<String> {
    let base = keys::slug(wanted);
    let Some(mut owner) = draft.read::<SlugOwner>(SLUG, &base)? else {
        draft.write(base, &SlugOwner { listing, next: 2 })?;
        return Ok(wanted.to_string());
    };
    loop {
        let slug = format!("{wanted}-{}", owner.next);
        owner.next = owner.next.saturating_add(1);
        let place = keys::slug(&slug);
        if draft.get(&place)?.is_none() {
            draft.write(place, &SlugOwner { listing, next: 2 })?;
            draft.write(base, &owner)?;
            return Ok(slug);
        }
    }
}

fn listing_create(
    draft: &mut Draft<'_>,
    mut listing: Listing,
    endpoint: Option<&SealedEndpoint>,
) -> StoreResult<Listing> {
    listing.slug = slug_take(draft, &listing.slug, listing.id)?;
    draft.write(keys::listing(listing.id), &listing)?;
    draft.put(keys::listing_of(listing.seller, listing.id), fjall::Slice::from(&[] as &[u8]));
    if let Some(endpoint) = endpoint {
        draft.put(keys::endpoint(listing.id), encode_sealed(endpoint)?);
    }
    draft.change(Change::Listing(listing.id));
    Ok(listing)
}

fn listing_update(
    draft: &mut Draft<'_>,
    mut listing: Listing,
    endpoint: Option<SealedEndpoint>,
) -> StoreResult<Changed> {
    let place = keys::listing(listing.id);
    let Some(stored) = draft.read::<Listing>(LISTING, &place)? else { return Ok(Changed::NotFound) };
    if stored.version != listing.version {
        return Ok(Changed::Stale);
    }
    if let Some(endpoint) = endpoint {
        match endpoint_write(draft, endpoint)? {
            Changed::Done => {}
            other => return Ok(other),
        }
    }
    listing.version += 1;
    // What leads to a listing never changes, whatever the caller hands in.
    listing.slug = stored.slug;
    listing.seller = stored.seller;
    draft.write(place, &listing)?;
    draft.change(Change::Listing(listing.id));
    Ok(Changed::Done)
}

/// Writes an endpoint onto the version that it was made from; the first one of a listing as it comes.
fn endpoint_write(draft: &mut Draft<'_>, mut endpoint: SealedEndpoint) -> StoreResult<Changed> {
    let place = keys::endpoint(endpoint.plain.listing);
    if let Some(stored) = draft.get(&place)? {
        let stored: SealedEndpoint = decode_sealed(ENDPOINT, &stored)?;
        if stored.plain.version != endpoint.plain.version {
            return Ok(Changed::Stale);
        }
        endpoint.plain.version += 1;
    }
    draft.put(place, encode_sealed(&endpoint)?);
    Ok(Changed::Done)
}

fn endpoint_update(draft: &mut Draft<'_>, endpoint: SealedEndpoint) -> StoreResult<Changed> {
    let listing = endpoint.plain.listing;
    if draft.get(&keys::listing(listing))?.is_none() {
        return Ok(Changed::NotFound);
    }
    let changed = endpoint_write(draft, endpoint)?;
    if changed == Changed::Done {
        draft.change(Change::Listing(listing));
    }
    Ok(changed)
}

fn listing_delete(draft: &mut Draft<'_>, id: ListingId, version: u64) -> StoreResult<Changed> {
    let Some(stored) = draft.read::<Listing>(LISTING, &keys::listing(id))? else { return Ok(Changed::NotFound) };
    // One that was offered stays: payments may point to it.
    if stored.version != version || stored.was_active || stored.status != ListingStatus::Draft {
        return Ok(Changed::Stale);
    }
    draft.remove(keys::listing(id));
    draft.remove(keys::endpoint(id));
    draft.remove(keys::slug(&stored.slug));
    draft.remove(keys::listing_of(stored.seller, id));
    draft.change(Change::Listing(id));
    Ok(Changed::Done)
}

fn challenge_take(draft: &mut Draft<'_>, seller: ProfileId, now: UnixMillis) -> StoreResult<Option<ListingChallenge>> {
    let place = keys::challenge(seller);
    let Some(challenge) = draft.read::<ListingChallenge>("challenge", &place)? else { return Ok(None) };
    draft.remove(place);
    Ok(Some(challenge).filter(|challenge| now < challenge.expires_at))
}

#[async_trait]
impl CatalogStore for Embedded {
    async fn category_list(&self) -> StoreResult<Vec<Category>> {
        let _timing = self.shared.measures.time(Operation::CategoryList);
        let mut categories = Vec::new();
        for found in self.shared.engine()?.scan(&keys::categories()) {
            categories.push(decode::<Category>("category", &found?.1)?);
        }
        categories.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(categories)
    }

    async fn listing_create(&self, listing: Listing, endpoint: Option<Endpoint>) -> StoreResult<Listing> {
        let endpoint = self.shared.seal(endpoint)?;
        let decide = move |draft: &mut Draft<'_>| listing_create(draft, listing, endpoint.as_ref());
        self.shared.run(Operation::ListingCreate, decide).await
    }

    async fn listing_get(&self, id: ListingId) -> StoreResult<Option<Offer>> {
        let _timing = self.shared.measures.time(Operation::ListingGet);
        self.shared.offer(id)
    }

    async fn listing_by_slug(&self, slug: &str) -> StoreResult<Option<Offer>> {
        let _timing = self.shared.measures.time(Operation::ListingBySlug);
        match self.shared.read::<SlugOwner>(SLUG, &keys::slug(slug))? {
            Some(owner) => self.shared.offer(owner.listing),
            None => Ok(None),
        }
    }

    async fn listing_update(&self, listing: Listing, endpoint: Option<Endpoint>) -> StoreResult<Changed> {
        let endpoint = self.shared.seal(endpoint)?;
        let decide = move |draft: &mut Draft<'_>| listing_update(draft, listing, endpoint);
        self.shared.run(Operation::ListingUpdate, decide).await
    }

    async fn endpoint_update(&self, endpoint: Endpoint) -> StoreResult<Changed> {
        let endpoint = SealedEndpoint::seal(&self.shared.sealer, endpoint)?;
        self.shared.run(Operation::EndpointUpdate, move |draft| endpoint_update(draft, endpoint)).await
    }

    async fn listing_delete(&self, id: ListingId, version: u64) -> StoreResult<Changed> {
        self.shared.run(Operation::ListingDelete, move |draft| listing_delete(draft, id, version)).await
    }

    async fn listing_scan(&self, after: Option<ListingId>, limit: usize) -> StoreResult<Vec<Listing>> {
        let _timing = self.shared.measures.time(Operation::ListingScan);
        let engine = self.shared.engine()?;
        let found = engine.scan(&keys::listings(after)).take(limit);
        found.map(|found| decode(LISTING, &found?.1)).collect()
    }

    async fn listing_of_seller(&self, seller: ProfileId) -> StoreResult<Vec<Listing>> {
        let _timing = self.shared.measures.time(Operation::ListingOfSeller);
        let engine = self.shared.engine()?;
        let mut listings = Vec::new();
        for found in engine.scan(&keys::listings_of(seller)) {
            let id = keys::listing_of_id(&found?.0);
            let id = id.ok_or_else(|| StoreError::Corrupt("a key of a seller's listing is too short".into()))?;
            // Deleted between the two reads: it is no longer the seller's.
            if let Some(bytes) = engine.get(&keys::listing(id))? {
                listings.push(decode(LISTING, &bytes)?);
            }
        }
        Ok(listings)
    }

    async fn challenge_put(&self, seller: ProfileId, challenge: ListingChallenge) -> StoreResult<()> {
        let decide = move |draft: &mut Draft<'_>| draft.write(keys::challenge(seller), &challenge);
        self.shared.run(Operation::ChallengePut, decide).await
    }

    async fn challenge_take(&self, seller: ProfileId, now: UnixMillis) -> StoreResult<Option<ListingChallenge>> {
        self.shared.run(Operation::ChallengeTake, move |draft| challenge_take(draft, seller, now)).await
    }

    async fn changes_since(&self, cursor: u64) -> StoreResult<Changes> {
        Ok(self.shared.changes.since(cursor))
    }
}
