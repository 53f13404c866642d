//! What a profile's score is: a pure function of its standing, its age and the moment. Integers only, so that every node
//! gets the same; nothing here reads a store or a clock.
//!
//! All parts begin at [`START`] and move away from it only as far as there is reason to: few calls, few reviews and
//! little money never look like much.

use std::sync::OnceLock;

use storage::model::{
    Components, MILLI, Profile, Sample, Score, Standing, UnixMillis, WeightedRatings, day_of, decayed, log2_milli,
    mean_milli, review_weight,
};

/// Where everybody begins.
pub const START: u16 = 300;
/// From here on a profile shows the checkmark.
pub const VERIFIED_FROM: u16 = 800;
/// The highest score.
pub const MAX: u16 = 1000;

/// Shares of reliability, accuracy, volume, longevity, reputation, in percent.
const SHARES: [u64; 5] = [30, 25, 20, 10, 15];
/// Tiers, each with the score that it begins at.
const TIERS: [(u16, &str); 5] = [(900, "Exceptional"), (800, "Elite"), (700, "Trusted"), (400, "Moderate"), (0, "Low")];
/// The square of 1.96, in ten-thousandths: a Wilson interval of 95 %.
const Z_SQUARED: u128 = 38_416;
/// As many reviews of a dollar by newcomers are believed as much as the start itself.
const PRIOR_REVIEWS: u64 = 5;
/// Volume is full at so many distinct buyers and so much money (micros), both as the decay leaves them.
const FULL_BUYERS: u64 = 1_000;
const FULL_VALUE: u64 = 100_000 * 1_000_000;
const DOLLAR: u64 = 1_000_000;

/// The tier of a score.
#[must_use]
pub fn tier(score: u16) -> &'static str {
    TIERS.iter().find(|(from, _)| score >= *from).map_or("Low", |(_, name)| name)
}

/// The score of a profile as of `now`.
#[must_use]
pub fn score(profile: &Profile, standing: &Standing, now: UnixMillis) -> Score {
    let mut standing = standing.clone();
    standing.bring_to(day_of(now));
    let age = day_of(now).saturating_sub(day_of(profile.created_at));
    let ratings = &standing.ratings;
    let components = Components {
        reliability: reliability(standing.handled, standing.failed),
        accuracy: rated(ratings.accuracy, ratings),
        volume: volume(standing.buyers, standing.value),
        longevity: longevity(age),
        reputation: rated(ratings.sum() / 3, ratings),
    };
    let score = whole(&components);
    Score {
        profile: profile.id,
        score,
        is_verified: score >= VERIFIED_FROM,
        components,
        sample: Sample { calls: standing.calls, buyers: standing.buyers_ever, reviews: standing.reviews },
        computed_at: now,
    }
}

fn whole(parts: &Components) -> u16 {
    let parts = [parts.reliability, parts.accuracy, parts.volume, parts.longevity, parts.reputation];
    let sum: u64 = parts.iter().zip(SHARES).map(|(part, share)| u64::from(*part) * share).sum();
    bounded((sum + 50) / 100)
}

fn bounded(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(MAX).min(MAX)
}

/// The start and, of what is above it, a share in thousandths.
fn risen(share: u64) -> u16 {
    bounded(u64::from(START) + u64::from(MAX - START) * share.min(MILLI) / MILLI)
}

/// Of the Wilson interval of the share of calls handled, the point that lies [`START`] thousandths above its lower
/// bound: without calls it is the start, with many the share itself, and a few good ones never look perfect.
fn reliability(handled: u64, failed: u64) -> u16 {
    let (lower, upper) = wilson(handled, failed);
    bounded((lower * u64::from(MAX - START) + upper * u64::from(START)) / u64::from(MAX))
}

/// The bounds in thousandths; calls are given in thousandths.
fn wilson(handled: u64, failed: u64) -> (u64, u64) {
    // All in ten-thousandths of a call, as z² is.
    let (good, bad) = (u128::from(handled) * 10, u128::from(failed) * 10);
    let calls = good + bad;
    let spread = (4 * good * bad).checked_div(calls).unwrap_or(0);
    let root = (Z_SQUARED * (Z_SQUARED + spread)).isqrt();
    let thousandths = |bound: u128| {
        let share = bound * u128::from(MILLI) / (2 * (calls + Z_SQUARED));
        u64::try_from(share).unwrap_or(MILLI).min(MILLI)
    };
    let middle = 2 * good + Z_SQUARED;
    (thousandths(middle.saturating_sub(root)), thousandths(middle + root))
}

/// The mean of weighted stars (1 to 5) as 0 to 1000, drawn towards the start as long as little weighs.
fn rated(stars: u64, ratings: &WeightedRatings) -> u16 {
    let Some(mean) = mean_milli(stars, ratings.weight) else { return START };
    let told = u128::from(mean.saturating_sub(MILLI) / 4);
    let (weight, prior) = (u128::from(ratings.weight), u128::from(prior_weight()));
    let drawn = (told * weight + u128::from(START) * prior) / (weight + prior);
    bounded(u64::try_from(drawn).unwrap_or_default())
}

fn prior_weight() -> u64 {
    static WEIGHT: OnceLock<u64> = OnceLock::new();
    *WEIGHT.get_or_init(|| PRIOR_REVIEWS * review_weight(START, storage::model::Micros(1_000_000)))
}

/// Logarithmic in distinct paying buyers and in settled value, half each.
fn volume(buyers_milli: u64, value: u64) -> u16 {
    let share = |of: u64, full: u64| (log2_milli(of) * MILLI / log2_milli(full).max(1)).min(MILLI);
    // Counted in hundredths of a buyer and in cents, so that the first ones are seen to count.
    let buyers = share(1 + buyers_milli / 10, 1 + FULL_BUYERS * 100);
    let money = share(1 + value / (DOLLAR / 100), 1 + FULL_VALUE / (DOLLAR / 100));
    risen((buyers + money) / 2)
}

/// Half of the way after 180 days.
fn longevity(age_days: u32) -> u16 {
    risen(MILLI - decayed(MILLI, age_days / 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use storage::model::{AccountType, Micros, ProfileId, Rating};

    use super::*;

    const DAY: u64 = 86_400_000;

    fn profile() -> Profile {
        Profile {
            id: ProfileId::mint(UnixMillis(0)),
            account_type: AccountType::Agent,
            display_name: "agent".into(),
            avatar_url: None,
            claimed_by: None,
            is_verified: false,
            score: START,
            is_suspended: false,
            created_at: UnixMillis(0),
            version: 0,
        }
    }

    fn standing(calls: (u64, u64), buyers: u64, value: u64, reviews: &[(u8, u64)]) -> Standing {
        let mut ratings = WeightedRatings::default();
        for (stars, weight) in reviews {
            ratings.add(Rating { accuracy: *stars, reliability: *stars, value: *stars }, *weight);
        }
        Standing { handled: calls.0, failed: calls.1, buyers, value, ratings, ..Standing::default() }
    }

    fn of(standing: &Standing, days: u64) -> Score {
        score(&profile(), standing, UnixMillis(days * DAY))
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        let reviews = proptest::collection::vec((1u8..=5, 1u64..20_000), 0..20);
        ((0u64..10_000_000, 0u64..10_000_000), 0u64..10_000_000, 0u64..u64::MAX / 4, reviews)
            .prop_map(|(calls, buyers, value, reviews)| standing(calls, buyers, value, &reviews))
    }

    #[test]
    fn a_new_agent_starts_at_300() {
        let new = of(&Standing::default(), 0);
        assert_eq!((new.score, tier(new.score), new.is_verified), (START, "Low", false));
        let parts = new.components;
        for part in [parts.reliability, parts.accuracy, parts.volume, parts.longevity, parts.reputation] {
            assert_eq!(part, START);
        }
    }

    #[test]
    fn tiers_begin_where_they_say() {
        let expected = [
            (0, "Low"),
            (399, "Low"),
            (400, "Moderate"),
            (699, "Moderate"),
            (700, "Trusted"),
            (799, "Trusted"),
            (800, "Elite"),
            (899, "Elite"),
            (900, "Exceptional"),
            (1000, "Exceptional"),
        ];
        for (score, name) in expected {
            assert_eq!(tier(score), name, "{score}");
        }
    }

    #[test]
    fn few_calls_never_look_perfect() {
        let at = |handled: u64| reliability(handled * MILLI, 0);
        assert!((440..450).contains(&at(1)), "{}", at(1));
        assert!(at(10) < 850 && at(100) < 980 && at(1_000) < 1000, "{} {} {}", at(10), at(100), at(1_000));
        assert!(at(10_000) >= 995);
        assert!(reliability(0, 10 * MILLI) < 100);
    }

    #[test]
    fn the_best_is_exceptional_and_reachable() {
        let good = standing((1_000_000, 1_000), 1_000_000, FULL_VALUE, &[(5, 10_000_000)]);
        let best = of(&Standing { day: 1_000, ..good }, 1_000);
        assert!(best.score >= 950 && best.is_verified, "{best:?}");
    }

    #[test]
    fn one_enthusiast_does_not_make_a_reputation() {
        let one = review_weight(START, Micros(1_000_000));
        let part = of(&standing((0, 0), 0, 0, &[(5, one)]), 0).components.reputation;
        assert!((START + 1..450).contains(&part), "{part}");
    }

    proptest! {
        #[test]
        fn within_bounds_and_verified_as_the_mark_says(standing in any_standing(), days in 0u64..5_000) {
            let found = of(&standing, days);
            prop_assert!(found.score <= MAX);
            prop_assert_eq!(found.is_verified, found.score >= VERIFIED_FROM);
        }

        #[test]
        fn a_handled_call_never_harms_and_a_failed_one_never_helps(good in 0u64..1_000_000, bad in 0u64..1_000_000) {
            let at = |good, bad| reliability(good, bad);
            prop_assert!(at(good + MILLI, bad) >= at(good, bad));
            prop_assert!(at(good, bad + MILLI) <= at(good, bad));
        }

        #[test]
        fn more_buyers_more_money_more_years_never_harm(buyers in 0u64..10_000_000, value in 0u64..u64::MAX / 4, age in 0u32..10_000) {
            prop_assert!(volume(buyers + MILLI, value) >= volume(buyers, value));
            prop_assert!(volume(buyers, value + DOLLAR) >= volume(buyers, value));
            prop_assert!(longevity(age + 1) >= longevity(age));
        }

        #[test]
        fn a_better_rating_never_harms(stars in 1u8..5, weight in 1u64..100_000, before in proptest::collection::vec((1u8..=5, 1u64..20_000), 0..10)) {
            let with = |stars| {
                let reviews: Vec<_> = before.iter().copied().chain([(stars, weight)]).collect();
                of(&standing((0, 0), 0, 0, &reviews), 0).score
            };
            prop_assert!(with(stars + 1) >= with(stars));
        }

        #[test]
        fn what_nobody_adds_to_fades_towards_the_start(standing in any_standing(), days in 0u64..1_000) {
            let far = |score: Score| {
                let parts = [score.components.reliability, score.components.accuracy, score.components.volume, score.components.reputation];
                parts.map(|part| part.abs_diff(START))
            };
            let later = far(of(&standing, days + 2_000));
            for (now, later) in far(of(&standing, days)).into_iter().zip(later) {
                prop_assert!(later <= now.saturating_add(2), "{} {}", now, later);
            }
        }
    }
}
