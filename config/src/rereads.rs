//! Looks at rails that nobody asked for: when, and how fast.

use std::time::Duration;

use crate::{read::Reader, sections::Config, units};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// Looks of one kind at most.
const LOOKS_MAX: usize = 16;

/// When rails are read again by themselves.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each knob is described where it is set: default.toml")]
pub struct Rereads {
    pub unpaid_after: Vec<Duration>,
    pub paid_after: Vec<Duration>,
    pub again_after: Duration,
    pub every: Duration,
    pub pause: Duration,
}

pub(crate) fn read(r: &Reader<'_>) -> Rereads {
    let quick = Duration::from_millis(10);
    Rereads {
        unpaid_after: looks(r, "payments.rereads.unpaid_after"),
        paid_after: looks(r, "payments.rereads.paid_after"),
        again_after: r.duration("payments.rereads.again_after", quick..=30 * DAY),
        every: r.duration("payments.rereads.every", quick..=DAY),
        pause: r.duration("payments.rereads.pause", Duration::ZERO..=60 * SECOND),
    }
}

fn looks(r: &Reader<'_>, key: &str) -> Vec<Duration> {
    let looks = r.list(key, units::duration);
    if looks.is_empty() || looks.len() > LOOKS_MAX || !looks.is_sorted() || looks.iter().any(|look| *look > 365 * DAY) {
        r.problem(key, "", format!("must be 1 to {LOOKS_MAX} durations of a year at most, in their order"));
    }
    looks
}

/// What is wrong together: key, value, reason.
pub(crate) fn contradictions(config: &Config) -> Vec<(&'static str, String, &'static str)> {
    let last = config.payments.rereads.unpaid_after.last();
    if last.is_some_and(|last| *last >= config.storage.unpaid_kept) {
        let value = humantime::format_duration(config.storage.unpaid_kept).to_string();
        let reason =
            "must be longer than the last of payments.rereads.unpaid_after: a quote is deleted after that look";
        return vec![("storage.unpaid_kept", value, reason)];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_in_order_and_come_before_a_quote_is_deleted() {
        let read = |text: &str| Config::from_parts(Some(text), []);
        let defaults = read("").expect("defaults").payments.rereads;
        let hours = |looks: &[Duration]| looks.iter().map(|look| look.as_secs() / 3600).collect::<Vec<_>>();
        assert_eq!(hours(&defaults.unpaid_after), [0, 1, 24, 168]);
        assert_eq!(hours(&defaults.paid_after), [1, 24]);
        for (bad, key) in [
            ("[payments.rereads]\nunpaid_after = [\"2h\", \"1h\"]", "payments.rereads.unpaid_after"),
            ("[payments.rereads]\npaid_after = []", "payments.rereads.paid_after"),
            ("[payments.rereads]\npaid_after = [\"soon\"]", "payments.rereads.paid_after"),
            ("[storage]\nunpaid_kept = \"7d\"", "storage.unpaid_kept"),
        ] {
            let told = read(bad).expect_err(bad).to_string();
            assert!(told.contains(key), "{told}");
        }
    }
}
