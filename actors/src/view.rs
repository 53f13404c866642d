//! What operators see of the actors: every gate that is kept, and sums over all of them. Ids, states and counts; never an
//! address, a key or a body.

use actix_rt::ArbiterHandle;
use serde_json::{Value, json};
use storage::model::{ListingId, ListingStatus};

use crate::{
    Actors,
    listing::{CircuitView, Gate},
};

/// Sums over all gates of this node, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Listings whose circuit is closed.
    pub circuits_closed: u64,
    /// Listings whose circuit is open.
    pub circuits_open: u64,
    /// Listings whose circuit waits for a probe or for what comes of it.
    pub circuits_half_open: u64,
    /// Calls that wait for a slot of a busy seller.
    pub waiting: u64,
    /// The listings with the most calls, most first.
    pub busiest: Vec<Busy>,
}

/// One of the busiest listings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Busy {
    /// Calls that were admitted since its gate was made.
    pub calls: u64,
    /// Calls that run towards its seller now.
    pub running: u32,
    /// Which.
    pub listing: ListingId,
}

impl Actors {
    /// Sums over all gates, and the `busiest` listings.
    #[must_use]
    pub fn observe(&self, busiest: usize) -> Observed {
        let now = self.clock().now();
        let mut seen = Observed::default();
        for gate in &self.0.world.gates {
            let view = gate.view(now);
            match view.circuit {
                CircuitView::Closed => seen.circuits_closed += 1,
                CircuitView::Open(_) => seen.circuits_open += 1,
                CircuitView::HalfOpen => seen.circuits_half_open += 1,
            }
            seen.waiting += view.waiting as u64;
            if busiest > 0 {
                seen.busiest.push(Busy { calls: view.calls, running: view.taken, listing: gate.id() });
                if seen.busiest.len() >= busiest.saturating_mul(2).max(64) {
                    keep_busiest(&mut seen.busiest, busiest);
                }
            }
        }
        keep_busiest(&mut seen.busiest, busiest);
        seen
    }

    /// What each actor shows, for operators: at most `max` listings, those whose circuit is not closed first, then the
    /// busiest.
    #[must_use]
    pub fn debug_state(&self, max: usize) -> Value {
        let world = &self.0.world;
        let now = self.clock().now();
        let rank = |gate: &Gate| {
            let view = gate.view(now);
            (view.circuit == CircuitView::Closed, std::cmp::Reverse(view.calls), gate.id())
        };
        let mut ranked: Vec<_> = world.gates.iter().map(|gate| rank(&gate)).collect();
        ranked.sort_unstable();
        let shown = ranked.iter().take(max).filter_map(|(_, _, id)| world.gates.get(id).map(|gate| gate.clone()));
        let listings: Vec<Value> = shown.map(|gate| self.gate_state(&gate)).collect();
        let health = self.health();
        json!({
            "node": {
                "store": health.store.as_deref().unwrap_or("ok"),
                "arbiters": world.arbiters.len(),
                "arbiters_alive": world.arbiters.iter().filter(|arbiter| ArbiterHandle::alive(arbiter)).count(),
                "unknown_names": self.0.directory.unknown_names(),
            },
            "listings_total": ranked.len(),
            "listings_shown": listings.len(),
            "listings": listings,
        })
    }

    fn gate_state(&self, gate: &Gate) -> Value {
        let now = self.clock().now();
        let (view, terms) = (gate.view(now), gate.terms());
        let endpoint = terms.endpoint.as_ref().map(|endpoint| &endpoint.endpoint);
        let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        json!({
            "listing": gate.id().to_string(),
            "is_active": terms.listing.status == ListingStatus::Active,
            "endpoint_status": endpoint.map(|endpoint| endpoint.status),
            "circuit": {
                "state": view.circuit.name(),
                "opens_for_a_probe_in_ms": match view.circuit {
                    CircuitView::Open(left) => Some(millis(left)),
                    _ => None,
                },
                "calls": view.counts.calls,
                "failures": view.counts.failures,
                "failures_in_row": view.counts.in_row,
            },
            "slots": {
                "max": endpoint.map(|endpoint| endpoint.limits.max_concurrency),
                "taken": view.taken,
                "waiting": view.waiting,
            },
            "payments_in_flight": view.flights,
            "open_quotes": view.open_quotes,
            "actor": { "lives": gate.mailbox.has_actor(), "mailbox": gate.mailbox.depth() },
            "calls": view.calls,
            "settings_may_be_old": view.is_stale,
            "idle_ms": millis(now.since(gate.idle_since())),
        })
    }
}

fn keep_busiest(found: &mut Vec<Busy>, most: usize) {
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.truncate(most);
}
