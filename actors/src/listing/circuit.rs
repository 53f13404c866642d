//! The circuit of one endpoint: pure. It opens when the seller fails too often, so that nobody pays for what cannot be
//! delivered, and is probed by calls that were paid before, never by a fresh sale.

use std::time::Duration;

use storage::model::UnixMillis;

const BUCKETS: usize = 10;

/// When a circuit opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct CircuitKnobs {
    /// How far back failures count.
    pub window: Duration,
    /// How many calls the window must hold.
    pub min_calls: u32,
    /// How many failures in a row open it at once.
    pub failures_in_row: u32,
    /// The first pause.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl From<&config::Actors> for CircuitKnobs {
    fn from(knobs: &config::Actors) -> Self {
        Self {
            window: knobs.circuit_window,
            min_calls: knobs.circuit_min_calls,
            failures_in_row: knobs.circuit_failures_in_row,
            pause_min: knobs.circuit_pause_min,
            pause_max: knobs.circuit_pause_max,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    slot: u64,
    calls: u32,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: UnixMillis, pause: Duration },
    Probing { pause: Duration },
}

/// What the circuit lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitView {
    /// Everything.
    Closed,
    /// Nothing, for so long.
    Open(Duration),
    /// One paid call at a time.
    HalfOpen,
}

impl CircuitView {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What a paid call is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go.
    Pass,
    /// Go, and what comes of it decides.
    Probe,
    /// Not for so long.
    Wait(Duration),
}

/// The state of one endpoint's circuit.
#[derive(Clone, Debug)]
pub struct Circuit {
    knobs: CircuitKnobs,
    buckets: [Bucket; BUCKETS],
    in_row: u32,
    state: State,
}

impl Circuit {
    /// Closed and empty.
    #[must_use]
    pub fn new(knobs: CircuitKnobs) -> Self {
        Self { knobs, buckets: [Bucket::default(); BUCKETS], in_row: 0, state: State::Closed }
    }

    /// A look; nothing changes.
    #[must_use]
    pub fn view(&self, now: UnixMillis) -> CircuitView {
        match self.state {
            State::Closed => CircuitView::Closed,
            State::Open { until, .. } if now < until => CircuitView::Open(until.since(now)),
            State::Open { .. } | State::Probing { .. } => CircuitView::HalfOpen,
        }
    }

    /// May this paid call go? A half-open circuit lets one through.
    pub fn admit(&mut self, now: UnixMillis) -> Admission {
        match self.state {
            State::Closed => Admission::Pass,
            State::Open { until, .. } if now < until => Admission::Wait(until.since(now)),
            State::Open { pause, .. } => {
                self.state = State::Probing { pause };
                Admission::Probe
            }
            State::Probing { pause } => Admission::Wait(pause.min(Duration::from_secs(1))),
        }
    }

    /// A call ended. `jitter` (0 to 255) spreads the pauses by a fifth either way. Returns whether the state changed.
    pub fn record(&mut self, now: UnixMillis, failed: bool, was_probe: bool, jitter: u8) -> bool {
        if was_probe && let State::Probing { pause } = self.state {
            if failed {
                self.open(now, (pause * 2).min(self.knobs.pause_max), jitter);
            } else {
                *self = Self::new(self.knobs);
            }
            return true;
        }
        if self.state != State::Closed {
            return false;
        }
        self.count(now, failed);
        self.in_row = if failed { self.in_row.saturating_add(1) } else { 0 };
        let (calls, failures) = self.sums(now);
        let too_often = calls >= self.knobs.min_calls && failures.saturating_mul(2) >= calls;
        if failed && (self.in_row >= self.knobs.failures_in_row || too_often) {
            self.open(now, self.knobs.pause_min, jitter);
            return true;
        }
        false
    }

    /// A probe ended without telling anything: the next paid call probes.
    pub fn abandon_probe(&mut self, now: UnixMillis) {
        if let State::Probing { pause } = self.state {
            self.state = State::Open { until: now, pause };
        }
    }

    fn open(&mut self, now: UnixMillis, pause: Duration, jitter: u8) {
        let spread = pause * u32::from(jitter) / 255 * 2 / 5;
        let until = now.plus(pause * 4 / 5 + spread);
        self.buckets = [Bucket::default(); BUCKETS];
        self.in_row = 0;
        self.state = State::Open { until, pause };
    }

    fn slot(&self, now: UnixMillis) -> u64 {
        let span = (self.knobs.window.as_millis() / BUCKETS as u128).max(1);
        now.0 / u64::try_from(span).unwrap_or(u64::MAX)
    }

    fn count(&mut self, now: UnixMillis, failed: bool) {
        let slot = self.slot(now);
        let place = usize::try_from(slot % BUCKETS as u64).unwrap_or_default();
        if let Some(bucket) = self.buckets.get_mut(place) {
            if bucket.slot != slot {
                *bucket = Bucket { slot, ..Bucket::default() };
            }
            bucket.calls = bucket.calls.saturating_add(1);
            bucket.failures = bucket.failures.saturating_add(u32::from(failed));
        }
    }

    fn sums(&self, now: UnixMillis) -> (u32, u32) {
        let oldest = self.slot(now).saturating_sub(BUCKETS as u64 - 1);
        let fresh = self.buckets.iter().filter(|bucket| bucket.slot >= oldest);
        fresh.fold((0, 0), |(calls, failures), bucket| (calls + bucket.calls, failures + bucket.failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circuit() -> Circuit {
        Circuit::new(CircuitKnobs {
            window: Duration::from_secs(30),
            min_calls: 20,
            failures_in_row: 7,
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
        })
    }

    #[test]
    fn opens_after_seven_in_a_row_and_not_before() {
        let mut circuit = circuit();
        let now = UnixMillis(100_000);
        for _ in 0..6 {
            assert!(!circuit.record(now, true, false, 0));
        }
        assert!(!circuit.record(now, false, false, 0), "one good call breaks the row");
        for _ in 0..6 {
            assert!(!circuit.record(now, true, false, 0));
        }
        assert!(circuit.record(now, true, false, 0));
        assert_eq!(circuit.view(now), CircuitView::Open(Duration::from_millis(800)));
    }

    #[test]
    fn opens_when_half_of_twenty_fail_within_the_window_only() {
        let mut circuit = circuit();
        let call = |circuit: &mut Circuit, at: u64, n: u64| circuit.record(UnixMillis(at), n % 2 == 1, false, 0);
        for n in 0..19 {
            assert!(!call(&mut circuit, 100_000, n));
        }
        assert!(call(&mut circuit, 100_000, 19));
        let mut circuit = self::circuit();
        for n in 0..19 {
            assert!(!call(&mut circuit, 100_000, n));
        }
        assert!(!call(&mut circuit, 140_000, 19), "what is older than the window is forgotten");
    }

    #[test]
    fn one_probe_decides_and_pauses_double_up_to_the_last() {
        let mut circuit = circuit();
        let mut now = UnixMillis(100_000);
        for _ in 0..7 {
            circuit.record(now, true, false, 255);
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let Admission::Wait(wait) = circuit.admit(now) else { panic!("open") };
            pauses.push(wait.as_millis());
            now = now.plus(wait);
            assert_eq!(circuit.view(now), CircuitView::HalfOpen);
            assert_eq!(circuit.admit(now), Admission::Probe);
            assert!(matches!(circuit.admit(now), Admission::Wait(_)), "one probe at a time");
            circuit.record(now, true, true, 255);
        }
        assert_eq!(pauses, [1200, 2400, 4800, 9600, 19_200, 38_400, 72_000, 72_000]);
        let Admission::Wait(wait) = circuit.admit(now) else { panic!("open") };
        now = now.plus(wait);
        assert_eq!(circuit.admit(now), Admission::Probe);
        circuit.abandon_probe(now);
        assert_eq!(circuit.admit(now), Admission::Probe);
        circuit.record(now, false, true, 0);
        assert_eq!(circuit.view(now), CircuitView::Closed);
    }
}
