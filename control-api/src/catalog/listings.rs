//! Listings: create, show, change, take away.

use std::sync::Arc;

use actors::{
    keys::Caller,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use storage::{
    Change,
    model::{
        DeliveryType, Format, Listing, ListingChallenge, ListingId, ListingStatus, Micros, Offer, PricingModel,
        Profile, ProfileId, SuspendedBy, UnixMillis,
    },
};

use super::{
    endpoint_input::{EndpointEdit, read_pow_nonce},
    input::{ListingInput, check_whole},
    owned::{self, Edit},
    stats::Figures,
    view::{EndpointView, ListingView},
};
use crate::{
    door::Door,
    extract::Ask,
    identity::pow,
    query::Query,
    reply::{Pages, Reply, Shown},
};

const SLUG_MAX: usize = 80;
const PAGE_MAX: usize = 1_000_000;

#[derive(Serialize)]
struct WorkView {
    algorithm: &'static str,
    challenge: String,
    difficulty: u8,
    expires_at: Shown<UnixMillis>,
    expires_in: u64,
}

#[derive(Serialize)]
struct OwnListingView {
    #[serde(flatten)]
    listing: ListingView,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_endpoint: Option<EndpointView>,
}

#[derive(Serialize)]
struct RemovedView {
    #[serde(flatten)]
    listing: ListingView,
    deleted: bool,
}

/// `POST /listings/challenge`.
pub(crate) async fn challenge(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let (work, expires_at) = ask.door.challenges.listing_work(caller.profile.id, ask.now)?;
    let stored = ListingChallenge { challenge: work.challenge.clone(), difficulty: work.difficulty, expires_at };
    ask.door.store.challenge_put(caller.profile.id, stored).await?;
    Reply::ok(WorkView {
        algorithm: work.algorithm,
        challenge: work.challenge,
        difficulty: work.difficulty,
        expires_at: Shown(expires_at),
        expires_in: expires_at.since(ask.now).as_secs(),
    })
}

/// `POST /listings`.
pub(crate) async fn create(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let door = &ask.door;
    let (pow_nonce, input) = ask.fields(|f| {
        let pow_nonce = read_pow_nonce(f);
        let input = ListingInput::read_new(f, door);
        Some((pow_nonce?, input))
    })?;
    let mut listing = blank(caller.profile.id, ask.now);
    input.apply(&mut listing);
    let edit = input.endpoint.apply(listing.id, None, ask.now)?;
    check_whole(&listing, edit.endpoint().is_some())?;
    listing.status = input.status.unwrap_or(ListingStatus::Active);
    listing.was_active = listing.status == ListingStatus::Active;
    listing.slug = slug_of(&listing.name);
    if owned::is_selling(&listing) {
        owned::require_payout_wallet(door, caller.profile.id).await?;
    }
    take_challenge(door, caller.profile.id, &pow_nonce, ask.now).await?;
    let listing = door.store.listing_create(listing, edit.written()).await?;
    door.changed(Change::Listing(listing.id)).await?;
    Reply::created(own_view(door, &listing, &caller.profile, &edit, &Figures::default(), ask.now))
}

/// The challenge is taken before its solution is looked at, so that of two requests with one solution one wins. A
/// wrong solution costs the challenge, and a new one is free.
async fn take_challenge(door: &Door, seller: ProfileId, pow_nonce: &str, now: UnixMillis) -> Result<(), Refusal> {
    const NEW: &str = "request_new_challenge";
    let taken = door.store.challenge_take(seller, now).await?;
    let open = taken.ok_or_else(|| {
        let refusal = Refusal::from(Code::PowInvalid).next_action(NEW);
        refusal.message("There is no open challenge: ask POST /api/v1/listings/challenge for one.")
    })?;
    pow::check(&open.challenge, open.difficulty, pow_nonce).map_err(|refusal| refusal.next_action(NEW))
}

fn blank(seller: ProfileId, now: UnixMillis) -> Listing {
    Listing {
        id: ListingId::mint(now),
        slug: String::new(),
        seller,
        name: String::new(),
        description: String::new(),
        category: None,
        delivery_type: DeliveryType::Api,
        formats: vec![Format::Json],
        connection_instructions: None,
        pricing_model: PricingModel::Free,
        price: Micros::ZERO,
        preferred_currency: None,
        documentation_url: None,
        example_request: None,
        example_response: None,
        tags: Vec::new(),
        status: ListingStatus::Draft,
        suspended_by: None,
        was_active: false,
        created_at: now,
        updated_at: now,
        version: 0,
    }
}

/// The slug that is wished for; the store makes it unique. It must not read as an id, nor as a route.
fn slug_of(name: &str) -> String {
    let slug: String = slug::slugify(name).chars().take(SLUG_MAX).collect();
    let slug = slug.trim_matches('-');
    match slug {
        "" => "listing".into(),
        "challenge" => "challenge-listing".into(),
        id if id.parse::<ListingId>().is_ok() => format!("listing-{id}"),
        slug => slug.into(),
    }
}

/// `GET /listings/:id`. Its owner sees it whatever its status.
pub(crate) async fn show(ask: Ask) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let Offer { listing, endpoint } = owned::find(&ask.door, ask.segment("id")).await?;
    let is_own = ask.visitor.as_ref().is_some_and(|caller| caller.profile.id == listing.seller);
    if listing.status != ListingStatus::Active && !is_own {
        return Err(Code::NotFound.into());
    }
    let provider = ask.door.store.profile_get(listing.seller).await?.ok_or(Code::NotFound)?;
    let figures = ask.door.catalogue.figures(listing.id).await?;
    Reply::ok(ListingView::new(&ask.door, &listing, &provider, endpoint.is_some()).with(&figures))
}

/// `GET /me/listings`.
pub(crate) async fn list_own(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let read = |query: &mut Query| (query.number("page", 1..=PAGE_MAX).unwrap_or(1), query.limit());
    let (page, limit) = ask.query(read)?;
    let all = ask.door.store.listing_of_seller(caller.profile.id).await?;
    let (total, skip) = (all.len(), (page - 1).saturating_mul(limit));
    let mut views = Vec::with_capacity(limit);
    for listing in all.into_iter().skip(skip).take(limit) {
        let has_endpoint = listing.pricing_model == PricingModel::PerCall
            || ask.door.store.listing_get(listing.id).await?.is_some_and(|offer| offer.endpoint.is_some());
        let figures = ask.door.catalogue.figures(listing.id).await?;
        views.push(ListingView::new(&ask.door, &listing, &caller.profile, has_endpoint).with(&figures));
    }
    Reply::page(views, Pages { page, limit, total, total_pages: total.div_ceil(limit.max(1)) })
}

/// `PATCH /listings/:id`.
pub(crate) async fn change(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let door = &ask.door;
    let input = ask.fields(|f| Some(ListingInput::read(f, door)))?;
    let (listing, edit) = owned::change(door, &caller, ask.segment("id"), |offer| {
        let mut listing = offer.listing;
        input.apply(&mut listing);
        let edit = input.endpoint.apply(listing.id, offer.endpoint, ask.now)?;
        check_whole(&listing, edit.endpoint().is_some())?;
        if let Some(wanted) = input.status {
            set_status(&mut listing, wanted)?;
        }
        listing.updated_at = ask.now;
        let written = Edit::Listing(Box::new(listing.clone()), edit.written().map(Box::new));
        Ok((written, (listing, edit)))
    })
    .await?;
    let figures = door.catalogue.figures(listing.id).await?;
    Reply::ok(own_view(door, &listing, &caller.profile, &edit, &figures, ask.now))
}

/// What an owner may do to a status: offer it, and leave a draft a draft.
fn set_status(listing: &mut Listing, wanted: ListingStatus) -> Result<(), Refusal> {
    if listing.suspended_by.is_some_and(SuspendedBy::is_operator) {
        return Err(Refusal::from(Code::Conflict).message("An operator suspended it; only one brings it back."));
    }
    match (listing.status, wanted) {
        (ListingStatus::Active | ListingStatus::Suspended, ListingStatus::Draft) => {
            let refusal = Refusal::from(Code::Conflict).next_action("fix_request");
            Err(refusal.message("What was offered once is no draft again; DELETE suspends it."))
        }
        (_, ListingStatus::Active) => {
            listing.status = ListingStatus::Active;
            listing.suspended_by = None;
            listing.was_active = true;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `DELETE /listings/:id`: a draft that never was active goes away; all else is suspended, for payments may still
/// point to it.
pub(crate) async fn remove(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let door = &ask.door;
    let (listing, has_endpoint, deleted) = owned::change(door, &caller, ask.segment("id"), |offer| {
        let (mut listing, has_endpoint) = (offer.listing, offer.endpoint.is_some());
        match listing.status {
            ListingStatus::Draft if !listing.was_active => Ok((Edit::Delete, (listing, has_endpoint, true))),
            ListingStatus::Suspended => Ok((Edit::Nothing, (listing, has_endpoint, false))),
            ListingStatus::Draft | ListingStatus::Active => {
                listing.status = ListingStatus::Suspended;
                listing.suspended_by = Some(SuspendedBy::Owner);
                listing.updated_at = ask.now;
                Ok((Edit::Listing(Box::new(listing.clone()), None), (listing, has_endpoint, false)))
            }
        }
    })
    .await?;
    let figures = door.catalogue.figures(listing.id).await?;
    let listing = ListingView::new(door, &listing, &caller.profile, has_endpoint).with(&figures);
    Reply::ok(RemovedView { listing, deleted })
}

/// A listing as its owner sees it after a write: with the endpoint when that was written, and its secret when it is new.
fn own_view(
    door: &Door,
    listing: &Listing,
    provider: &Profile,
    edit: &EndpointEdit,
    figures: &Figures,
    now: UnixMillis,
) -> impl Serialize + use<> {
    let gateway_endpoint = match edit {
        EndpointEdit::None | EndpointEdit::Same(_) => None,
        EndpointEdit::Changed(endpoint) => Some(EndpointView::new(door, endpoint, now)),
        EndpointEdit::Made(endpoint) => Some(EndpointView::new(door, endpoint, now).with_secret(endpoint)),
    };
    let listing = ListingView::new(door, listing, provider, edit.endpoint().is_some()).with(figures);
    OwnListingView { listing, gateway_endpoint }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slugs_are_transliterated_and_never_read_as_something_else() {
        assert_eq!(slug_of("Café Über & Söhne!"), "cafe-uber-sohne");
        assert_eq!(slug_of("???"), "listing");
        assert_eq!(slug_of("Challenge"), "challenge-listing");
        let id = "01890000-0000-7000-8000-000000000000";
        assert_eq!(slug_of(id), format!("listing-{id}"));
        assert!(slug_of(&"ab ".repeat(60)).len() <= SLUG_MAX);
    }

    #[test]
    fn an_operators_word_stands() {
        let mut listing = blank(ProfileId::mint(UnixMillis(1)), UnixMillis(1));
        listing.status = ListingStatus::Suspended;
        listing.suspended_by = Some(SuspendedBy::Operator);
        let refused = set_status(&mut listing, ListingStatus::Active).expect_err("stands");
        assert_eq!(refused.code(), Code::Conflict);
        listing.suspended_by = Some(SuspendedBy::Owner);
        set_status(&mut listing, ListingStatus::Active).expect("its own");
        assert_eq!((listing.status, listing.suspended_by), (ListingStatus::Active, None));
        assert!(set_status(&mut listing, ListingStatus::Draft).is_err());
    }

    proptest! {
        #[test]
        fn any_name_has_a_slug(name in "\\PC{3,120}") {
            let slug = slug_of(&name);
            prop_assert!(!slug.is_empty() && slug.parse::<ListingId>().is_err());
            prop_assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        }
    }
}
