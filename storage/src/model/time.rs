//! Time as the product speaks it: Unix milliseconds, UTC, and the one clock that everything asks.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A moment, in milliseconds since 1970-01-01 UTC. Shown as RFC 3339 with three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This moment plus `span`; saturates instead of wrapping.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Reads RFC 3339 text. `None` when it is not a moment from 1970 on.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let moment = humantime::parse_rfc3339(text).ok()?;
        let span = moment.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(span.as_millis()).ok().map(Self)
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // humantime ends at the year 9999; a later moment (a record from a broken clock) is shown as that year's end.
        let moment = UNIX_EPOCH + Duration::from_millis(self.0.min(253_402_300_799_999));
        humantime::format_rfc3339_millis(moment).fmt(f)
    }
}

/// Where "now" comes from. Handed in at start, so that tests script it; nobody else asks the system.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Scripted(Arc<AtomicU64>),
}

impl Clock {
    /// The machine's own clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows what `millis` holds.
    #[must_use]
    pub fn scripted(millis: Arc<AtomicU64>) -> Self {
        Self(Source::Scripted(millis))
    }

    /// The present moment.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn now(&self) -> UnixMillis {
        match &self.0 {
            Source::System => UnixMillis(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
            ),
            Source::Scripted(millis) => UnixMillis(millis.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_rfc_3339_and_read_back() {
        let moment = UnixMillis(1_795_500_623_007);
        assert_eq!(moment.to_string(), "2026-11-24T06:10:23.007Z");
        assert_eq!(UnixMillis::parse("2026-11-24T06:10:23.007Z"), Some(moment));
        assert_eq!(UnixMillis::parse("yesterday"), None);
        assert_eq!(UnixMillis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
