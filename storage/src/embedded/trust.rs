//! Reviews and scores.

use async_trait::async_trait;

use super::{Draft, Embedded, Operation, Shared, codec::decode, keys, roll_up::Note};
use crate::{
    error::{StoreError, StoreResult},
    model::{
        Bought, ListingId, Profile, ProfileId, Ratings, Review, Score, Standing, UnixMillis, day_of, review_weight,
    },
    store::{Change, Changed, ReviewCreated, TrustStore},
};

pub(super) const BOUGHT: &str = "what was bought";
pub(super) const STANDING: &str = "standing";
const RATINGS: &str = "ratings";
const REVIEW: &str = "review";
const PROFILE: &str = "profile";

fn review_create(draft: &mut Draft<'_>, mut review: Review, since: UnixMillis) -> StoreResult<ReviewCreated> {
    let place = keys::review(review.listing, review.reviewer);
    if draft.get(&place)?.is_some() {
        return Ok(ReviewCreated::Exists);
    }
    let bought: Option<Bought> = draft.read(BOUGHT, &keys::bought(review.listing, review.reviewer))?;
    let Some(bought) = bought.filter(|bought| bought.is_recent(since)) else { return Ok(ReviewCreated::NoEvidence) };
    review.calls = bought.calls;
    review.value = bought.value;
    review.weight = review_weight(review.reviewer_score, bought.value);
    let sums = keys::ratings(review.listing);
    let mut ratings: Ratings = draft.read(RATINGS, &sums)?.unwrap_or_default();
    ratings.add(&review);
    draft.write(place.clone(), &review)?;
    draft.put(keys::review_of(review.listing, review.id), place.bytes);
    draft.write(sums, &ratings)?;
    draft.tell(Note::Review {
        listing: review.listing,
        seller: review.seller,
        day: day_of(review.created_at),
        rating: review.rating,
        weight: review.weight,
    });
    Ok(ReviewCreated::Created(review))
}

fn score_put(draft: &mut Draft<'_>, score: &Score, standing_version: u64) -> StoreResult<Changed> {
    let place = keys::profile(score.profile);
    let Some(mut profile) = draft.read::<Profile>(PROFILE, &place)? else { return Ok(Changed::NotFound) };
    draft.write(keys::score(score.profile), score)?;
    if (profile.score, profile.is_verified) != (score.score, score.is_verified) {
        profile.score = score.score;
        profile.is_verified = score.is_verified;
        profile.version += 1;
        draft.write(place, &profile)?;
        draft.change(Change::Profile(profile.id));
    }
    let standing: Option<Standing> = draft.read(STANDING, &keys::standing(score.profile))?;
    if standing.map_or(0, |standing| standing.version) != standing_version {
        return Ok(Changed::Stale);
    }
    draft.remove(keys::score_due(score.profile));
    Ok(Changed::Done)
}

fn id_of(key: &[u8]) -> StoreResult<ProfileId> {
    let id = keys::last_id(key).ok_or_else(|| StoreError::Corrupt("a key by profile is too short".into()))?;
    Ok(ProfileId::from_bytes(id))
}

impl Shared {
    fn reviews(&self, listing: ListingId, skip: usize, limit: usize) -> StoreResult<Vec<Review>> {
        let engine = self.engine()?;
        let mut reviews = Vec::with_capacity(limit.min(100));
        for found in engine.scan(&keys::reviews_of(listing)).skip(skip).take(limit) {
            let review = engine.get(&keys::stored(found?.1))?;
            let review = review.ok_or_else(|| StoreError::Corrupt("an index names a review that is gone".into()))?;
            reviews.push(decode(REVIEW, &review)?);
        }
        Ok(reviews)
    }
}

#[async_trait]
impl TrustStore for Embedded {
    async fn review_create(&self, review: Review, since: UnixMillis) -> StoreResult<ReviewCreated> {
        self.shared.run(Operation::ReviewCreate, move |draft| review_create(draft, review, since)).await
    }

    async fn review_get(&self, listing: ListingId, reviewer: ProfileId) -> StoreResult<Option<Review>> {
        let _timing = self.shared.measures.time(Operation::ReviewGet);
        self.shared.read(REVIEW, &keys::review(listing, reviewer))
    }

    async fn review_list(&self, listing: ListingId, skip: usize, limit: usize) -> StoreResult<Vec<Review>> {
        let _timing = self.shared.measures.time(Operation::ReviewList);
        self.shared.reviews(listing, skip, limit)
    }

    async fn ratings_get(&self, listing: ListingId) -> StoreResult<Ratings> {
        let _timing = self.shared.measures.time(Operation::RatingsGet);
        Ok(self.shared.read(RATINGS, &keys::ratings(listing))?.unwrap_or_default())
    }

    async fn bought_get(&self, listing: ListingId, buyer: ProfileId) -> StoreResult<Bought> {
        Ok(self.shared.read(BOUGHT, &keys::bought(listing, buyer))?.unwrap_or_default())
    }

    async fn standing_get(&self, profile: ProfileId) -> StoreResult<Standing> {
        let _timing = self.shared.measures.time(Operation::StandingGet);
        Ok(self.shared.read(STANDING, &keys::standing(profile))?.unwrap_or_default())
    }

    async fn score_due(&self, after: Option<ProfileId>, limit: usize) -> StoreResult<Vec<ProfileId>> {
        let _timing = self.shared.measures.time(Operation::ScoreDue);
        let engine = self.shared.engine()?;
        engine.scan(&keys::scores_due(after)).take(limit).map(|found| id_of(&found?.0)).collect()
    }

    async fn score_put(&self, score: Score, standing_version: u64) -> StoreResult<Changed> {
        self.shared.run(Operation::ScorePut, move |draft| score_put(draft, &score, standing_version)).await
    }

    async fn score_get(&self, profile: ProfileId) -> StoreResult<Option<Score>> {
        let _timing = self.shared.measures.time(Operation::ScoreGet);
        self.shared.read("score", &keys::score(profile))
    }

    async fn profile_scan(&self, after: Option<ProfileId>, limit: usize) -> StoreResult<Vec<Profile>> {
        let _timing = self.shared.measures.time(Operation::ProfileScan);
        let engine = self.shared.engine()?;
        engine.scan(&keys::profiles(after)).take(limit).map(|found| decode(PROFILE, &found?.1)).collect()
    }
}
