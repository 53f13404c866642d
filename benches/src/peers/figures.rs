//! From slices to figures: a low quantile, its ratio to another contestant's, and how sure that is.

use loadtest::seed::Seed;

/// Rounds are drawn again this many times for an interval.
const DRAWS: usize = 400;

/// One slice of one contestant.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Answered calls.
    pub answers: u64,
    /// CPU time of the whole process, with what it left for later.
    pub cpu_nanos: u64,
    /// From the first request to the last answer.
    pub wall_nanos: u64,
}

impl Slice {
    /// CPU microseconds a call.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.cpu_nanos as f64 / 1000.0 / self.answers.max(1) as f64
    }

    /// Calls a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.answers as f64 * 1e9 / self.wall_nanos.max(1) as f64
    }
}

/// A ratio, and the interval in which it lies in 95 of 100 draws of the rounds.
#[derive(Clone, Copy, Debug)]
pub struct Ratio {
    /// The ratio over all rounds.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The cost when nobody disturbs: the tenth percentile of the slices' CPU microseconds a call.
#[must_use]
pub fn cost(slices: &[Slice]) -> f64 {
    quantile(slices.iter().map(Slice::cost), 0.1)
}

/// The throughput when nobody disturbs: the ninetieth percentile of the slices' calls a second.
#[must_use]
pub fn rate(slices: &[Slice]) -> f64 {
    quantile(slices.iter().map(Slice::rate), 0.9)
}

/// `figure` of one contestant over that of another, round by round.
#[must_use]
pub fn ratio(one: &[Slice], other: &[Slice], figure: fn(&[Slice]) -> f64) -> Ratio {
    let mut chance = Seed::stream(1, "bootstrap", 0);
    let rounds = one.len().min(other.len());
    let mut drawn: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let picked: Vec<usize> = (0..rounds).map(|_| chance.below(rounds as u64) as usize).collect();
            let of = |slices: &[Slice]| {
                let slices: Vec<Slice> = picked.iter().filter_map(|round| slices.get(*round).copied()).collect();
                figure(&slices)
            };
            of(one) / of(other)
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let end = |at: usize| drawn.get(at).copied().unwrap_or(f64::NAN);
    Ratio { value: figure(one) / figure(other), low: end(DRAWS / 40), high: end(DRAWS - 1 - DRAWS / 40) }
}

/// The value below which this share of the values lies; NaN when there are none.
#[must_use]
pub fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_the_undisturbed_slices() {
        let slice = |cpu_nanos| Slice { answers: 1000, cpu_nanos, wall_nanos: 50_000_000 };
        // Every fifth slice is disturbed.
        let slices = |nanos: u64| (0..100).map(|n| slice(if n % 5 == 0 { nanos * 3 } else { nanos })).collect();
        let (one, other): (Vec<_>, Vec<_>) = (slices(16_000_000), slices(32_000_000));
        let found = ratio(&one, &other, cost);
        assert!((found.value - 0.5).abs() < 1e-9 && (found.low - 0.5).abs() < 1e-9 && (found.high - 0.5).abs() < 1e-9);
        assert!((rate(&one) - 20_000.0).abs() < 1e-6);
        assert!(quantile([].into_iter(), 0.5).is_nan());
    }
}
