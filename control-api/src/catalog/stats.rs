//! A listing's figures: what its calls and its reviews came to, as the roll-ups keep them. Read by key, never counted
//! when somebody asks.

use storage::{
    Store, StoreResult,
    model::{CallStats, ListingId, Ratings, mean_milli},
};

/// As much as some reviews of newcomers weigh: until more weighs than this, an average is drawn to the middle.
const PRIOR_WEIGHT: u64 = 10_000;
const MIDDLE_STARS: u64 = 3;

/// What is shown of a listing's calls and reviews, and what it is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Of the last thirty days.
    pub(crate) calls: CallStats,
    /// Reviews.
    pub(crate) reviews: u64,
    /// Their weighted average, thousandths of a star.
    pub(crate) average_milli: Option<u64>,
    /// By what `sort=rating` goes: the average, drawn to the middle as long as little weighs; 0 without a review.
    pub(crate) rank: u64,
}

impl Figures {
    /// The figures of a listing as of `today`.
    pub(crate) async fn read(store: &dyn Store, id: ListingId, today: u32) -> StoreResult<Self> {
        let calls = store.tally_get(id).await?.stats(today);
        let ratings = store.ratings_get(id).await?;
        let average_milli = ratings.average_milli();
        Ok(Self { calls, reviews: ratings.count, average_milli, rank: rank(&ratings) })
    }
}

fn rank(ratings: &Ratings) -> u64 {
    if ratings.count == 0 {
        return 0;
    }
    let sum = (ratings.sums.sum() / 3).saturating_add(MIDDLE_STARS * PRIOR_WEIGHT);
    mean_milli(sum, ratings.sums.weight.saturating_add(PRIOR_WEIGHT)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use storage::model::{Rating, WeightedRatings};

    use super::*;

    fn ratings(count: u64, stars: u8, weight: u64) -> Ratings {
        let mut sums = WeightedRatings::default();
        sums.add(Rating { accuracy: stars, reliability: stars, value: stars }, weight);
        Ratings { count, sums, ..Ratings::default() }
    }

    #[test]
    fn one_good_review_ranks_below_many_and_above_none() {
        let (one, many) = (rank(&ratings(1, 5, 2_000)), rank(&ratings(90, 5, 200_000)));
        assert!(0 < one && one < many, "{one} {many}");
        assert!(rank(&ratings(90, 1, 200_000)) < one);
        assert_eq!(rank(&Ratings::default()), 0);
        assert_eq!(ratings(1, 4, 7).average_milli(), Some(4000));
    }
}
