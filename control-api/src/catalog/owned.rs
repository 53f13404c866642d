//! Listings by name, and changing one's own: read, decide, write onto the version that was read; again when somebody
//! else was faster, a few times.

use actors::{
    keys::Caller,
    refusal::{Code, Refusal},
};
use storage::{
    Change, Changed,
    model::{
        Endpoint, Listing, ListingId, ListingStatus, Offer, PricingModel, ProfileId, WalletCapability, WalletStatus,
    },
};

use crate::door::Door;

const TRIES: usize = 5;

/// What is to be written.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    /// Nothing changes.
    Nothing,
    /// The listing and, when given, its endpoint.
    Listing(Box<Listing>, Option<Box<Endpoint>>),
    /// The endpoint alone.
    Endpoint(Box<Endpoint>),
    /// A draft goes away.
    Delete,
}

/// The listing with this id or slug.
///
/// # Errors
/// `ListingNotFound`, `StoreUnavailable`.
pub(crate) async fn find(door: &Door, name: &str) -> Result<Offer, Refusal> {
    if name.len() > 160 {
        return Err(Code::NotFound.into());
    }
    let offer = match name.parse::<ListingId>() {
        Ok(id) => door.store.listing_get(id).await?,
        Err(_) => door.store.listing_by_slug(name).await?,
    };
    offer.ok_or_else(|| Code::NotFound.into())
}

/// The caller's own listing with this id or slug. Others' drafts do not exist.
///
/// # Errors
/// `ListingNotFound`, `NotOwner`, `StoreUnavailable`.
pub(crate) async fn find_own(door: &Door, caller: &Caller, name: &str) -> Result<Offer, Refusal> {
    let offer = find(door, name).await?;
    if offer.listing.seller == caller.profile.id {
        return Ok(offer);
    }
    Err(match offer.listing.status {
        ListingStatus::Active => Code::Forbidden.into(),
        ListingStatus::Draft | ListingStatus::Suspended => Code::NotFound.into(),
    })
}

/// Changes the caller's own listing: `decide` takes what is stored and returns what is to be written and what to
/// answer. It runs again on fresh facts when somebody else was faster.
///
/// # Errors
/// As `decide` and [`find_own`]; `PayoutWalletRequired`, `VersionConflict`.
pub(crate) async fn change<T>(
    door: &Door,
    caller: &Caller,
    name: &str,
    decide: impl Fn(Offer) -> Result<(Edit, T), Refusal>,
) -> Result<T, Refusal> {
    for _ in 0..TRIES {
        let offer = find_own(door, caller, name).await?;
        let id = offer.listing.id;
        let was_selling = is_selling(&offer.listing);
        let (edit, answer) = decide(offer.clone())?;
        if let Edit::Listing(listing, _) = &edit
            && is_selling(listing)
            && !was_selling
        {
            require_payout_wallet(door, caller.profile.id).await?;
        }
        match write(door, &offer, edit).await? {
            Changed::Done => {
                door.changed(Change::Listing(id)).await?;
                return Ok(answer);
            }
            Changed::NotFound => return Err(Code::NotFound.into()),
            Changed::Stale => {}
        }
    }
    Err(Code::Conflict.into())
}

async fn write(door: &Door, offer: &Offer, edit: Edit) -> Result<Changed, Refusal> {
    Ok(match edit {
        Edit::Nothing => Changed::Done,
        Edit::Listing(listing, endpoint) => {
            door.store.listing_update(*listing, endpoint.map(|endpoint| *endpoint)).await?
        }
        Edit::Endpoint(endpoint) => door.store.endpoint_update(*endpoint).await?,
        Edit::Delete => door.store.listing_delete(offer.listing.id, offer.listing.version).await?,
    })
}

/// Whether it is offered for money.
pub(crate) fn is_selling(listing: &Listing) -> bool {
    listing.status == ListingStatus::Active && listing.pricing_model == PricingModel::PerCall
}

/// What is sold must be paid out to somewhere.
///
/// # Errors
/// `PayoutWalletRequired`, `StoreUnavailable`.
pub(crate) async fn require_payout_wallet(door: &Door, seller: ProfileId) -> Result<(), Refusal> {
    let wallets = door.store.wallet_list(seller).await?;
    let can_be_paid = wallets
        .iter()
        .any(|wallet| wallet.status == WalletStatus::Active && wallet.capabilities.contains(&WalletCapability::Payout));
    if can_be_paid { Ok(()) } else { Err(Code::PayoutWalletRequired.into()) }
}
