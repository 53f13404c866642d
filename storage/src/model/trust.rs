//! What is thought of a profile: reviews with evidence, what a score is made of, and the score.

use serde::{Deserialize, Serialize};

use super::{
    identity::Profile,
    ids::{ListingId, PaymentId, ProfileId, ReviewId},
    money::Micros,
    time::UnixMillis,
};

/// Everything that counts towards a score counts half after so many days.
pub const HALF_LIFE_DAYS: u32 = 90;
/// 2^(-1/90), in parts of 2^32.
const DAY_FACTOR: u128 = 4_262_016_076;
/// Purchases of one buyer of one listing that are remembered one by one.
const RECENT_MAX: usize = 16;
/// A thousandth: counts decay in these.
pub const MILLI: u64 = 1_000;

/// What is left of `value` after some days.
#[must_use]
pub fn decayed(value: u64, days: u32) -> u64 {
    let whole = value.checked_shr(days / HALF_LIFE_DAYS).unwrap_or(0);
    let mut left = u128::from(whole) << 32;
    for _ in 0..days % HALF_LIFE_DAYS {
        left = (left * DAY_FACTOR) >> 32;
    }
    u64::try_from(left >> 32).unwrap_or(u64::MAX)
}

/// The binary logarithm of `value`, in thousandths; 0 for 0 and 1.
#[must_use]
pub fn log2_milli(value: u64) -> u64 {
    let Some(whole) = value.checked_ilog2() else { return 0 };
    // The part behind the point, bit by bit: square what is left and see whether it passes two.
    let mut rest = (u128::from(value) << 32) >> whole;
    let mut bits = 0u64;
    for _ in 0..16 {
        rest = (rest * rest) >> 32;
        bits <<= 1;
        if rest >> 33 > 0 {
            rest >>= 1;
            bits |= 1;
        }
    }
    u64::from(whole) * MILLI + ((bits * MILLI) >> 16)
}

/// What a buyer bought of a listing: settled, billable, and not taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bought {
    /// How many calls.
    pub calls: u32,
    /// For how much.
    pub value: Micros,
    /// The last of them, in order of time.
    pub recent: Vec<Purchase>,
}

/// One call that was bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    /// The payment.
    pub payment: PaymentId,
    /// When the seller had handled it.
    pub at: UnixMillis,
    /// What it cost.
    pub value: Micros,
}

impl Bought {
    /// One more.
    pub fn add(&mut self, purchase: Purchase) {
        self.calls = self.calls.saturating_add(1);
        self.value = Micros(self.value.0.saturating_add(purchase.value.0));
        self.recent.push(purchase);
        if self.recent.len() > RECENT_MAX {
            self.recent.remove(0);
        }
    }

    /// Its rail took this one back: it is no evidence any more.
    pub fn take_back(&mut self, payment: PaymentId, value: Micros) {
        self.calls = self.calls.saturating_sub(1);
        self.value = Micros(self.value.0.saturating_sub(value.0).max(0));
        self.recent.retain(|purchase| purchase.payment != payment);
    }

    /// Whether one was bought since then, as far as is remembered.
    #[must_use]
    pub fn is_recent(&self, since: UnixMillis) -> bool {
        self.calls > 0 && self.recent.iter().any(|purchase| purchase.at >= since)
    }
}

/// Ratings of 1 to 5 in three dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    /// Did it do what it says?
    pub accuracy: u8,
    /// Did it do so each time?
    pub reliability: u8,
    /// Was it worth its price?
    pub value: u8,
}

impl Rating {
    /// The three in sum: 3 to 15.
    #[must_use]
    pub fn sum(self) -> u8 {
        self.accuracy.saturating_add(self.reliability).saturating_add(self.value)
    }

    /// The mean of the three in whole stars, half-up.
    #[must_use]
    pub fn stars(self) -> u8 {
        (self.sum().saturating_mul(2).saturating_add(3)) / 6
    }
}

/// A buyer's review of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Its id.
    pub id: ReviewId,
    /// Of what.
    pub listing: ListingId,
    /// Who offers it.
    pub seller: ProfileId,
    /// Who says so.
    pub reviewer: ProfileId,
    /// The ratings.
    pub rating: Rating,
    /// At most 120 characters.
    pub title: Option<String>,
    /// At most 2 000 characters.
    pub comment: Option<String>,
    /// The reviewer's score when it was written.
    pub reviewer_score: u16,
    /// Calls that it rests on; the store fills them in.
    pub calls: u32,
    /// What they cost; the store fills it in.
    pub value: Micros,
    /// How much it weighs; the store fills it in.
    pub weight: u64,
    /// When it was written.
    pub created_at: UnixMillis,
}

/// How much a review weighs: by its writer's score, and by what was bought, logarithmically, so that it takes much money
/// to outweigh many.
#[must_use]
pub fn review_weight(reviewer_score: u16, value: Micros) -> u64 {
    let cents = u64::try_from(value.0 / 10_000).unwrap_or(0);
    let by_value = MILLI + log2_milli(cents.saturating_add(1));
    u64::from(reviewer_score.clamp(1, 1000)) * by_value / MILLI
}

/// Ratings in sum, each by its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedRatings {
    /// The weights.
    pub weight: u64,
    /// Weights by accuracy.
    pub accuracy: u64,
    /// Weights by reliability.
    pub reliability: u64,
    /// Weights by value.
    pub value: u64,
}

impl WeightedRatings {
    /// One more rating.
    pub fn add(&mut self, rating: Rating, weight: u64) {
        let part = |stars: u8| weight.saturating_mul(u64::from(stars));
        self.weight = self.weight.saturating_add(weight);
        self.accuracy = self.accuracy.saturating_add(part(rating.accuracy));
        self.reliability = self.reliability.saturating_add(part(rating.reliability));
        self.value = self.value.saturating_add(part(rating.value));
    }

    /// The three dimensions in sum.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.accuracy.saturating_add(self.reliability).saturating_add(self.value)
    }

    fn decay(&mut self, days: u32) {
        for part in [&mut self.weight, &mut self.accuracy, &mut self.reliability, &mut self.value] {
            *part = decayed(*part, days);
        }
    }
}

/// What a listing's reviews came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ratings {
    /// How many.
    pub count: u64,
    /// How many of 1, 2, 3, 4, 5 stars.
    pub histogram: [u64; 5],
    /// Their ratings, weighted.
    pub sums: WeightedRatings,
}

impl Ratings {
    /// One more.
    pub fn add(&mut self, review: &Review) {
        self.count = self.count.saturating_add(1);
        let place = usize::from(review.rating.stars().clamp(1, 5) - 1);
        if let Some(stars) = self.histogram.get_mut(place) {
            *stars = stars.saturating_add(1);
        }
        self.sums.add(review.rating, review.weight);
    }

    /// The weighted mean over all three dimensions in thousandths of a star; `None` without a review.
    #[must_use]
    pub fn average_milli(&self) -> Option<u64> {
        mean_milli(self.sums.sum() / 3, self.sums.weight)
    }
}

/// A weighted sum by its weight, in thousandths; `None` without weight.
#[must_use]
pub fn mean_milli(sum: u64, weight: u64) -> Option<u64> {
    let mean = (u128::from(sum) * u128::from(MILLI) + u128::from(weight / 2)).checked_div(u128::from(weight))?;
    u64::try_from(mean).ok()
}

/// What a seller's score is made of: sums that decay, brought to a day. One row a profile, whatever comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The day that the decaying sums were brought to.
    pub day: u32,
    /// Paid calls that it handled, in thousandths.
    pub handled: u64,
    /// Paid calls that failed on its side, in thousandths.
    pub failed: u64,
    /// What was bought of it, micros.
    pub value: u64,
    /// Distinct paying buyers, each fading since its last purchase, in thousandths.
    pub buyers: u64,
    /// What buyers think of it.
    pub ratings: WeightedRatings,
    /// Paid calls that count, all of them.
    pub calls: u64,
    /// Buyers, all of them.
    pub buyers_ever: u64,
    /// Reviews, all of them.
    pub reviews: u64,
    /// Counts the changes.
    pub version: u64,
}

impl Standing {
    /// Lets the sums fade until `day`.
    pub fn bring_to(&mut self, day: u32) {
        let days = day.saturating_sub(self.day);
        for part in [&mut self.handled, &mut self.failed, &mut self.value, &mut self.buyers] {
            *part = decayed(*part, days);
        }
        self.ratings.decay(days);
        self.day = self.day.max(day);
    }

    /// A buyer bought; `last`: on which day it did so before. Of each buyer one counts, however often it buys.
    pub fn bought_by(&mut self, last: Option<u32>) {
        match last {
            None => {
                self.buyers = self.buyers.saturating_add(MILLI);
                self.buyers_ever = self.buyers_ever.saturating_add(1);
            }
            Some(last) => {
                let left = decayed(MILLI, self.day.saturating_sub(last));
                self.buyers = self.buyers.saturating_add(MILLI - left);
            }
        }
    }
}

/// The five parts of a score, each 0 to 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Components {
    /// Does it answer?
    pub reliability: u16,
    /// Are its answers right?
    pub accuracy: u16,
    /// For how many, and for how much?
    pub volume: u16,
    /// For how long?
    pub longevity: u16,
    /// What do buyers say?
    pub reputation: u16,
}

/// How much a score rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Paid calls.
    pub calls: u64,
    /// Distinct paying buyers.
    pub buyers: u64,
    /// Reviews.
    pub reviews: u64,
}

/// A profile's score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Whose.
    pub profile: ProfileId,
    /// 0 to 1000.
    pub score: u16,
    /// It reached the mark.
    pub is_verified: bool,
    /// Its parts.
    pub components: Components,
    /// What it rests on.
    pub sample: Sample,
    /// When.
    pub computed_at: UnixMillis,
}

impl Profile {
    /// Whether the two are one party: the same, one claimed by the other, or both by one human. What they buy of each
    /// other says nothing.
    #[must_use]
    pub fn is_kin(&self, other: &Self) -> bool {
        self.id == other.id
            || self.claimed_by == Some(other.id)
            || other.claimed_by == Some(self.id)
            || self.claimed_by.is_some() && self.claimed_by == other.claimed_by
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_is_left_after_a_half_life() {
        assert_eq!(
            (decayed(1_000_000, 0), decayed(1_000_000, 90), decayed(1_000_000, 180)),
            (1_000_000, 500_000, 250_000)
        );
        let near = decayed(1_000_000, 45);
        assert!((707_000..=707_107).contains(&near), "{near}");
        assert_eq!(decayed(u64::MAX, u32::MAX), 0);
    }

    #[test]
    fn logarithms_are_near_enough() {
        assert_eq!((log2_milli(0), log2_milli(1), log2_milli(2), log2_milli(1 << 40)), (0, 0, 1000, 40_000));
        assert!((9_965..=9_966).contains(&log2_milli(1000)), "{}", log2_milli(1000));
        assert!((1_584..=1_585).contains(&log2_milli(3)), "{}", log2_milli(3));
    }

    #[test]
    fn a_purchase_that_was_taken_back_is_no_evidence() {
        let purchase =
            |ms: u64| Purchase { payment: PaymentId::mint(UnixMillis(ms)), at: UnixMillis(ms), value: Micros(5) };
        let (old, new) = (purchase(10), purchase(20));
        let mut bought = Bought::default();
        bought.add(old);
        bought.add(new);
        assert!(bought.is_recent(UnixMillis(20)) && !bought.is_recent(UnixMillis(21)));
        bought.take_back(new.payment, new.value);
        assert!(!bought.is_recent(UnixMillis(11)) && bought.is_recent(UnixMillis(10)));
        bought.take_back(old.payment, old.value);
        assert_eq!(bought, Bought::default());
        (0..100).for_each(|ms| bought.add(purchase(ms)));
        assert_eq!((bought.calls, bought.recent.len()), (100, RECENT_MAX));
    }

    #[test]
    fn stars_are_the_mean_half_up() {
        let stars = |accuracy, reliability, value| Rating { accuracy, reliability, value }.stars();
        assert_eq!((stars(1, 1, 1), stars(5, 5, 5), stars(1, 2, 2), stars(1, 1, 2), stars(4, 5, 5)), (1, 5, 2, 1, 5));
    }

    proptest! {
        #[test]
        fn much_money_and_a_high_score_weigh_more(score in 0u16..1000, value in 0i64..1_000_000_000_000) {
            let weight = review_weight(score, Micros(value));
            prop_assert!(weight >= 1 || score == 0);
            prop_assert!(review_weight(score + 1, Micros(value)) >= weight);
            prop_assert!(review_weight(score, Micros(value * 2)) >= weight);
            prop_assert!(review_weight(score, Micros(value)) <= review_weight(score, Micros(0)) * 30 + 30);
        }

        #[test]
        fn decay_never_grows(value: u64, days in 0u32..2000) {
            prop_assert!(decayed(value, days + 1) <= decayed(value, days) && decayed(value, days) <= value);
        }

        #[test]
        fn one_buyer_counts_once_however_often_it_buys(gaps in proptest::collection::vec(0u32..200, 1..20)) {
            let (mut standing, mut last) = (Standing::default(), None);
            for gap in gaps {
                standing.bring_to(standing.day + gap);
                standing.bought_by(last);
                last = Some(standing.day);
                prop_assert!((990..=1000).contains(&standing.buyers), "{}", standing.buyers);
            }
            prop_assert_eq!(standing.buyers_ever, 1);
        }
    }
}
