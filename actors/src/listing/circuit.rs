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
    Pass(Ticket),
    /// Not for so long.
    Wait(Duration),
}

/// Under which state of the circuit a call was let through: what comes of it counts there and nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    era: u32,
    is_probe: bool,
}

impl Ticket {
    /// Whether what comes of this call decides over the circuit.
    #[must_use]
    pub fn is_probe(self) -> bool {
        self.is_probe
    }
}

/// What the last calls came to, for operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls within the window.
    pub calls: u32,
    /// Those that failed on the seller's side.
    pub failures: u32,
    /// Failures in a row.
    pub in_row: u32,
}

/// The state of one endpoint's circuit.
#[derive(Clone, Debug)]
pub struct Circuit {
    knobs: CircuitKnobs,
    buckets: [Bucket; BUCKETS],
    in_row: u32,
    state: State,
    /// Counts the changes of state: a call that was let through in an earlier one tells nothing about this one.
    era: u32,
}

impl Circuit {
    /// Closed and empty.
    #[must_use]
    pub fn new(knobs: CircuitKnobs) -> Self {
        Self { knobs, buckets: [Bucket::default(); BUCKETS], in_row: 0, state: State::Closed, era: 0 }
    }

    /// Closed and empty again, for an endpoint that is another one now.
    pub fn renew(&mut self) {
        *self = Self { era: self.era.wrapping_add(1), ..Self::new(self.knobs) };
    }

    /// What the last calls came to.
    #[must_use]
    pub fn counts(&self, now: UnixMillis) -> Counts {
        let (calls, failures) = self.sums(now);
        Counts { calls, failures, in_row: self.in_row }
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

    /// May this paid call go? A half-open circuit lets one through at a time.
    pub fn admit(&mut self, now: UnixMillis) -> Admission {
        match self.state {
            State::Closed => Admission::Pass(Ticket { era: self.era, is_probe: false }),
            State::Open { until, .. } if now < until => Admission::Wait(until.since(now)),
            State::Open { pause, .. } => {
                self.enter(State::Probing { pause });
                Admission::Pass(Ticket { era: self.era, is_probe: true })
            }
            State::Probing { pause } => Admission::Wait(pause.min(Duration::from_secs(1))),
        }
    }

    /// A call ended. `jitter` (0 to 255) spreads the pauses by a fifth either way. Returns whether the circuit opened
    /// or closed.
    pub fn record(&mut self, now: UnixMillis, failed: bool, ticket: Ticket, jitter: u8) -> bool {
        if ticket.era != self.era {
            return false;
        }
        if let State::Probing { pause } = self.state {
            if failed {
                self.open(now, (pause * 2).min(self.knobs.pause_max), jitter);
            } else {
                self.renew();
            }
            return true;
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
    pub fn abandon_probe(&mut self, ticket: Ticket) {
        if let State::Probing { pause } = self.state
            && ticket.era == self.era
        {
            self.enter(State::Open { until: UnixMillis(0), pause });
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.era = self.era.wrapping_add(1);
    }

    fn open(&mut self, now: UnixMillis, pause: Duration, jitter: u8) {
        let spread = pause * u32::from(jitter) / 255 * 2 / 5;
        let until = now.plus(pause * 4 / 5 + spread);
        self.buckets = [Bucket::default(); BUCKETS];
        self.in_row = 0;
        self.enter(State::Open { until, pause });
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
    use proptest::prelude::*;

    use super::*;

    fn knobs() -> CircuitKnobs {
        CircuitKnobs {
            window: Duration::from_secs(30),
            min_calls: 20,
            failures_in_row: 7,
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
        }
    }

    /// One call from admission to its end, through a circuit that lets it pass.
    fn call(circuit: &mut Circuit, at: u64, failed: bool) -> bool {
        let Admission::Pass(ticket) = circuit.admit(UnixMillis(at)) else { panic!("not let through") };
        circuit.record(UnixMillis(at), failed, ticket, 0)
    }

    #[test]
    fn opens_after_seven_in_a_row_and_not_before() {
        let mut circuit = Circuit::new(knobs());
        for _ in 0..6 {
            assert!(!call(&mut circuit, 100_000, true));
        }
        assert!(!call(&mut circuit, 100_000, false), "one good call breaks the row");
        for _ in 0..6 {
            assert!(!call(&mut circuit, 100_000, true));
        }
        assert_eq!(circuit.counts(UnixMillis(100_000)), Counts { calls: 13, failures: 12, in_row: 6 });
        assert!(call(&mut circuit, 100_000, true));
        assert_eq!(circuit.view(UnixMillis(100_000)), CircuitView::Open(Duration::from_millis(800)));
    }

    #[test]
    fn opens_when_half_of_twenty_fail_within_the_window_only() {
        let mut circuit = Circuit::new(knobs());
        for n in 0..19 {
            assert!(!call(&mut circuit, 100_000, n % 2 == 1));
        }
        assert!(call(&mut circuit, 100_000, true));
        let mut circuit = Circuit::new(knobs());
        for n in 0..19 {
            assert!(!call(&mut circuit, 100_000, n % 2 == 1));
        }
        assert!(!call(&mut circuit, 140_000, true), "what is older than the window is forgotten");
    }

    #[test]
    fn one_probe_decides_and_pauses_double_up_to_the_last() {
        let mut circuit = Circuit::new(knobs());
        let mut now = UnixMillis(100_000);
        for _ in 0..7 {
            let Admission::Pass(ticket) = circuit.admit(now) else { panic!("closed") };
            circuit.record(now, true, ticket, 255);
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let Admission::Wait(wait) = circuit.admit(now) else { panic!("open") };
            pauses.push(wait.as_millis());
            now = now.plus(wait);
            assert_eq!(circuit.view(now), CircuitView::HalfOpen);
            let Admission::Pass(probe) = circuit.admit(now) else { panic!("half open") };
            assert!(probe.is_probe());
            assert!(matches!(circuit.admit(now), Admission::Wait(_)), "one probe at a time");
            circuit.record(now, true, probe, 255);
        }
        assert_eq!(pauses, [1200, 2400, 4800, 9600, 19_200, 38_400, 72_000, 72_000]);
    }

    #[test]
    fn a_probe_that_dies_gives_the_probe_back_and_one_that_succeeds_closes() {
        let mut circuit = Circuit::new(knobs());
        for _ in 0..7 {
            call(&mut circuit, 100_000, true);
        }
        let now = UnixMillis(101_000);
        let Admission::Pass(dead) = circuit.admit(now) else { panic!("half open") };
        circuit.abandon_probe(dead);
        let Admission::Pass(probe) = circuit.admit(now) else { panic!("the probe was given back") };
        circuit.abandon_probe(dead);
        assert!(matches!(circuit.admit(now), Admission::Wait(_)), "given back once, not twice");
        assert!(circuit.record(now, false, probe, 0));
        assert_eq!(circuit.view(now), CircuitView::Closed);
    }

    #[test]
    fn what_was_let_through_before_the_change_tells_nothing_after_it() {
        let mut circuit = Circuit::new(knobs());
        let now = UnixMillis(100_000);
        let late: Vec<_> = (0..20).map(|_| circuit.admit(now)).collect();
        for _ in 0..7 {
            call(&mut circuit, 100_000, true);
        }
        assert!(call(&mut circuit, 101_000, false), "the probe closes it");
        for admission in late {
            let Admission::Pass(ticket) = admission else { panic!("closed then") };
            assert!(!circuit.record(UnixMillis(101_000), true, ticket, 0), "it was called before the pause");
        }
        assert_eq!(circuit.view(UnixMillis(101_000)), CircuitView::Closed);
        let Admission::Pass(old) = circuit.admit(now) else { panic!("closed") };
        circuit.renew();
        for _ in 0..7 {
            assert!(!circuit.record(now, true, old, 0), "another endpoint's failures");
        }
    }

    /// The same, naively: every call of this era by its time, and nothing clever.
    struct Model {
        knobs: CircuitKnobs,
        era: u32,
        calls: Vec<(u64, bool)>,
        in_row: u32,
        open: Option<(u64, Duration)>,
        has_probe: bool,
    }

    impl Model {
        fn admit(&mut self, now: u64) -> Option<(u32, bool)> {
            match self.open {
                None => Some((self.era, false)),
                Some((until, _)) if now < until || self.has_probe => None,
                Some(_) => {
                    (self.has_probe, self.era) = (true, self.era + 1);
                    Some((self.era, true))
                }
            }
        }

        fn record(&mut self, now: u64, failed: bool, (era, is_probe): (u32, bool), jitter: u8) {
            if era != self.era {
                return;
            }
            if is_probe {
                let pause = self.open.map_or(Duration::ZERO, |(_, pause)| pause);
                (self.has_probe, self.open, self.calls, self.in_row) = (false, None, Vec::new(), 0);
                self.era += 1;
                if failed {
                    self.trip(now, (pause * 2).min(self.knobs.pause_max), jitter, false);
                }
                return;
            }
            self.calls.push((now, failed));
            self.in_row = if failed { self.in_row + 1 } else { 0 };
            // The window moves in tenths of itself.
            let tenth = u64::try_from(self.knobs.window.as_millis()).expect("small") / 10;
            let fresh = || self.calls.iter().filter(|(at, _)| at / tenth + 9 >= now / tenth);
            let (calls, failures) = (fresh().count(), fresh().filter(|(_, failed)| *failed).count());
            let too_often = calls >= self.knobs.min_calls as usize && failures * 2 >= calls;
            if failed && (too_often || self.in_row >= self.knobs.failures_in_row) {
                self.trip(now, self.knobs.pause_min, jitter, true);
            }
        }

        fn trip(&mut self, now: u64, pause: Duration, jitter: u8, is_new: bool) {
            let spread = pause * u32::from(jitter) / 255 * 2 / 5;
            let until = now + u64::try_from((pause * 4 / 5 + spread).as_millis()).expect("small");
            (self.open, self.calls, self.in_row) = (Some((until, pause)), Vec::new(), 0);
            self.era += u32::from(is_new);
        }

        fn abandon(&mut self, (era, is_probe): (u32, bool)) {
            if is_probe && era == self.era {
                (self.has_probe, self.era) = (false, self.era + 1);
            }
        }

        fn name(&self, now: u64) -> &'static str {
            match self.open {
                None => "closed",
                Some((until, _)) if now < until => "open",
                Some(_) => "half_open",
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Later(u64),
        Comes,
        Ends { which: usize, failed: bool, jitter: u8 },
        Dies(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            2 => (0u64..3_000).prop_map(Event::Later),
            1 => (0u64..90_000).prop_map(Event::Later),
            8 => Just(Event::Comes),
            8 => (any::<usize>(), prop::bool::weighted(0.7), any::<u8>())
                .prop_map(|(which, failed, jitter)| Event::Ends { which, failed, jitter }),
            1 => any::<usize>().prop_map(Event::Dies),
        ]
    }

    proptest! {
        #[test]
        fn the_circuit_does_as_a_naive_one_does(events in prop::collection::vec(event(), 1..400)) {
            let mut circuit = Circuit::new(knobs());
            let mut model = Model {
                knobs: knobs(), era: 0, calls: Vec::new(), in_row: 0, open: None, has_probe: false,
            };
            let mut now = 1_000_000;
            let mut running = Vec::new();
            for event in events {
                match event {
                    Event::Later(millis) => now += millis,
                    Event::Comes => match (circuit.admit(UnixMillis(now)), model.admit(now)) {
                        (Admission::Pass(ticket), Some(wanted)) => {
                            prop_assert_eq!(ticket.is_probe(), wanted.1);
                            running.push((ticket, wanted));
                        }
                        (Admission::Wait(wait), None) => prop_assert!(wait <= Duration::from_secs(72)),
                        (found, wanted) => prop_assert!(false, "{:?}, but {:?}", found, wanted),
                    },
                    Event::Ends { which, failed, jitter } if !running.is_empty() => {
                        let (ticket, wanted) = running.swap_remove(which % running.len());
                        circuit.record(UnixMillis(now), failed, ticket, jitter);
                        model.record(now, failed, wanted, jitter);
                    }
                    Event::Dies(which) if !running.is_empty() => {
                        let (ticket, wanted) = running.swap_remove(which % running.len());
                        if ticket.is_probe() {
                            circuit.abandon_probe(ticket);
                        }
                        model.abandon(wanted);
                    }
                    Event::Ends { .. } | Event::Dies(_) => {}
                }
                prop_assert_eq!(circuit.view(UnixMillis(now)).name(), model.name(now));
                let probes = running.iter().filter(|(ticket, _)| ticket.is_probe() && ticket.era == circuit.era);
                prop_assert!(probes.count() <= 1);
            }
        }
    }
}
