//! `GET` and `POST /reviews/:listingId`.

use std::{collections::HashMap, sync::Arc};

use actors::{
    keys::Caller,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use serde_json::value::RawValue;
use storage::{
    ReviewCreated,
    model::{
        AccountType, Listing, ListingId, ListingStatus, Micros, Profile, ProfileId, Rating, Ratings, Review, ReviewId,
        UnixMillis, mean_milli,
    },
};

use crate::{
    catalog,
    door::Door,
    extract::Ask,
    fields::{Fields, Lines, Read, small, text},
    query::Query,
    reply::{Decimal, Pages, Reply, Shown},
};

const PAGE_MAX: usize = 1_000_000;
const TITLE_MAX: usize = 120;
const COMMENT_MAX: usize = 2_000;

#[derive(Serialize)]
struct ReviewerView {
    id: Shown<ProfileId>,
    display_name: Option<String>,
    is_verified: bool,
    /// As it was when the review was written: by this it weighs.
    score: u16,
}

#[derive(Serialize)]
struct ReviewView {
    id: Shown<ReviewId>,
    listing_id: Shown<ListingId>,
    reviewer: ReviewerView,
    accuracy_rating: u8,
    reliability_rating: u8,
    value_rating: u8,
    rating: u8,
    title: Option<String>,
    comment: Option<String>,
    purchases: u32,
    created_at: Shown<UnixMillis>,
}

impl ReviewView {
    fn new(review: Review, reviewer: Option<&Profile>) -> Self {
        Self {
            id: Shown(review.id),
            listing_id: Shown(review.listing),
            reviewer: ReviewerView {
                id: Shown(review.reviewer),
                display_name: reviewer.map(|profile| profile.display_name.clone()),
                is_verified: reviewer.is_some_and(|profile| profile.is_verified),
                score: review.reviewer_score,
            },
            accuracy_rating: review.rating.accuracy,
            reliability_rating: review.rating.reliability,
            value_rating: review.rating.value,
            rating: review.rating.stars(),
            title: review.title,
            comment: review.comment,
            purchases: review.calls,
            created_at: Shown(review.created_at),
        }
    }
}

#[derive(Serialize)]
struct AveragesView {
    overall: Option<Decimal>,
    accuracy: Option<Decimal>,
    reliability: Option<Decimal>,
    value: Option<Decimal>,
}

#[derive(Serialize)]
struct HistogramView {
    #[serde(rename = "1")]
    one: u64,
    #[serde(rename = "2")]
    two: u64,
    #[serde(rename = "3")]
    three: u64,
    #[serde(rename = "4")]
    four: u64,
    #[serde(rename = "5")]
    five: u64,
}

/// What a listing's reviews come to: averages weighted by who says so and what it paid, stars as they were given.
#[derive(Serialize)]
struct SummaryView {
    count: u64,
    averages: AveragesView,
    histogram: HistogramView,
}

impl From<&Ratings> for SummaryView {
    fn from(ratings: &Ratings) -> Self {
        let sums = &ratings.sums;
        let mean = |sum: u64| mean_milli(sum, sums.weight).map(Decimal::thousandths);
        let [one, two, three, four, five] = ratings.histogram;
        Self {
            count: ratings.count,
            averages: AveragesView {
                overall: ratings.average_milli().map(Decimal::thousandths),
                accuracy: mean(sums.accuracy),
                reliability: mean(sums.reliability),
                value: mean(sums.value),
            },
            histogram: HistogramView { one, two, three, four, five },
        }
    }
}

/// `GET /reviews/:listingId`, by id or slug. What was offered once keeps its reviews.
pub(crate) async fn list(ask: Ask) -> Result<Reply, Refusal> {
    let read = |query: &mut Query| (query.number("page", 1..=PAGE_MAX).unwrap_or(1), query.limit());
    let (page, limit) = ask.query(read)?;
    let door = &ask.door;
    let listing = find(door, ask.segment("id")).await?;
    let ratings = door.store.ratings_get(listing.id).await?;
    let total = usize::try_from(ratings.count).unwrap_or(usize::MAX);
    let skip = (page - 1).saturating_mul(limit);
    // Past the end there is nothing to skip to.
    let reviews = if skip < total { door.store.review_list(listing.id, skip, limit).await? } else { Vec::new() };
    let mut reviewers: HashMap<ProfileId, Option<Profile>> = HashMap::new();
    for review in &reviews {
        reviewers.insert(review.reviewer, door.store.profile_get(review.reviewer).await?);
    }
    let views: Vec<ReviewView> = reviews
        .into_iter()
        .map(|review| {
            let reviewer = reviewers.get(&review.reviewer).and_then(Option::as_ref);
            ReviewView::new(review, reviewer)
        })
        .collect();
    let pages = Pages { page, limit, total, total_pages: total.div_ceil(limit.max(1)) };
    Reply::page_of(views, pages, SummaryView::from(&ratings))
}

async fn find(door: &Door, name: &str) -> Result<Listing, Refusal> {
    let listing = catalog::find(door, name).await?.listing;
    if listing.status == ListingStatus::Draft { Err(Code::NotFound.into()) } else { Ok(listing) }
}

struct Input {
    rating: Rating,
    title: Option<String>,
    comment: Option<String>,
}

fn stars(value: &RawValue) -> Read<u8> {
    small(1..=5)(value).and_then(|stars| u8::try_from(stars).map_err(|_| "is too large".into()))
}

fn read(f: &mut Fields) -> Option<Input> {
    let accuracy = f.required("accuracy_rating", stars);
    let reliability = f.required("reliability_rating", stars);
    let value = f.required("value_rating", stars);
    let title = f.optional("title", text(0..=TITLE_MAX, Lines::One)).filter(|text| !text.is_empty());
    let comment = f.optional("comment", text(0..=COMMENT_MAX, Lines::Many)).filter(|text| !text.is_empty());
    let rating = Rating { accuracy: accuracy?, reliability: reliability?, value: value? };
    Some(Input { rating, title, comment })
}

/// `POST /reviews/:listingId`.
pub(crate) async fn create(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let door = &ask.door;
    let input = ask.fields(read)?;
    let listing = find(door, ask.segment("id")).await?;
    check_party(door, &caller.profile, &listing).await?;
    // What was bought a moment ago is evidence too.
    door.catch_up().await?;
    let review = Review {
        id: ReviewId::mint(ask.now),
        listing: listing.id,
        seller: listing.seller,
        reviewer: caller.profile.id,
        rating: input.rating,
        title: input.title,
        comment: input.comment,
        reviewer_score: caller.profile.score,
        calls: 0,
        value: Micros::ZERO,
        weight: 0,
        created_at: ask.now,
    };
    let window = u64::try_from(door.config.control.review_window.as_millis()).unwrap_or(u64::MAX);
    let since = UnixMillis(ask.now.0.saturating_sub(window));
    match door.store.review_create(review, since).await? {
        ReviewCreated::Created(review) => {
            door.catalogue.refresh_figures(&[listing.id]).await?;
            Reply::created(ReviewView::new(review, Some(&caller.profile)))
        }
        ReviewCreated::Exists => Err(Code::ReviewAlreadyExists.into()),
        ReviewCreated::NoEvidence => Err(not_eligible(
            "no_recent_purchase",
            "Only who bought a call that the seller handled, and lately, may review it.",
        )),
    }
}

fn not_eligible(reason: &'static str, message: &'static str) -> Refusal {
    Refusal::from(Code::ReviewNotEligible).message(message).detail("reason", reason)
}

/// Nobody reviews itself, whatever it calls itself: not the owner, not who shares a human or a wallet with it.
async fn check_party(door: &Door, reviewer: &Profile, listing: &Listing) -> Result<(), Refusal> {
    if reviewer.id == listing.seller {
        return Err(not_eligible("own_listing", "Nobody reviews a listing of its own."));
    }
    if reviewer.account_type != AccountType::Agent {
        return Err(not_eligible("not_an_agent", "Only agents that no human has claimed write reviews."));
    }
    let seller = door.store.profile_get(listing.seller).await?;
    let is_kin = seller.is_some_and(|seller| seller.is_kin(reviewer));
    if is_kin || share_a_wallet(door, reviewer.id, listing.seller).await? {
        return Err(not_eligible("related_party", "Nobody reviews a listing of a party that is its own."));
    }
    Ok(())
}

/// Whether an address is linked to both, in use or not; bytes are compared, so that spelling hides nothing.
async fn share_a_wallet(door: &Door, one: ProfileId, other: ProfileId) -> Result<bool, Refusal> {
    let own = door.store.wallet_list(one).await?;
    let theirs = door.store.wallet_list(other).await?;
    Ok(own.iter().any(|wallet| theirs.iter().any(|known| known.address == wallet.address)))
}
