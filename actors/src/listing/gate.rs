//! What a listing's actor publishes for the hot path: settings, signing keys, limits, slots, circuit, payments in
//! flight and open quotes. Every step on it is synchronous; nothing here waits for a mailbox.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use dashmap::DashMap;
use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota,
    clock::{Clock as _, QuantaClock},
};
use parking_lot::Mutex;
use storage::{
    QuoteIdentity,
    model::{
        Endpoint, EndpointStatus, Listing, ListingId, ListingStatus, Micros, Offer, Payment, ProfileId, UnixMillis,
    },
};

use super::{
    circuit::{Admission, Circuit, CircuitKnobs, CircuitView},
    flights::Flights,
    slots::Slots,
};
use crate::{
    keys::Caller,
    refusal::{Code, Refusal},
    seller::Signer,
};

/// Open quotes kept in memory for one listing.
const QUOTES_MAX: usize = 65_536;

/// A listing's settings as they stand: replaced whole when something changes.
pub struct Terms {
    /// The public side.
    pub listing: Listing,
    /// The private side, ready to be called; `None`: it cannot be called.
    pub endpoint: Option<EndpointTerms>,
}

/// An endpoint, prepared.
pub struct EndpointTerms {
    /// The record.
    pub endpoint: Endpoint,
    /// Its requests, signed.
    pub signer: Arc<Signer>,
    rate: Option<DefaultDirectRateLimiter>,
    buyer_rate: Option<DefaultKeyedRateLimiter<ProfileId>>,
}

impl EndpointTerms {
    fn new(endpoint: Endpoint) -> Option<Self> {
        let signer = match Signer::new(&endpoint) {
            Ok(signer) => Arc::new(signer),
            Err(error) => {
                tracing::warn!(listing = %endpoint.listing, %error, "endpoint cannot be called");
                return None;
            }
        };
        let limits = endpoint.limits;
        let per_second = |rate: u32| Quota::per_second(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN));
        let rate = limits.requests_per_second.map(|rate| {
            let burst = NonZeroU32::new(limits.burst.unwrap_or(rate)).unwrap_or(NonZeroU32::MIN);
            DefaultDirectRateLimiter::direct(per_second(rate).allow_burst(burst))
        });
        let buyer_rate =
            limits.requests_per_second_per_buyer.map(|rate| DefaultKeyedRateLimiter::keyed(per_second(rate)));
        Some(Self { endpoint, signer, rate, buyer_rate })
    }

    /// How long the seller may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.endpoint.timeout_ms))
    }
}

/// A quote that is open, and the 402 that offers it.
#[derive(Clone)]
pub(crate) struct OpenQuote {
    pub(crate) payment: Arc<Payment>,
    pub(crate) offer: Bytes,
}

/// The gate of one listing on this node.
pub struct Gate {
    id: ListingId,
    terms: ArcSwap<Terms>,
    slots: Slots,
    circuit: Mutex<Circuit>,
    pub(crate) flights: Arc<Flights>,
    quotes: DashMap<QuoteIdentity, OpenQuote>,
    last_used: AtomicU64,
    clock: QuantaClock,
    pub(crate) mailbox: Mutex<Option<actix::Addr<super::ListingActor>>>,
}

impl Gate {
    pub(crate) fn new(offer: Offer, knobs: &config::Actors, now: UnixMillis) -> Self {
        Self {
            id: offer.listing.id,
            terms: ArcSwap::from_pointee(Self::prepare(offer)),
            slots: Slots::new(knobs.waiting_room, knobs.waiting_time),
            circuit: Mutex::new(Circuit::new(CircuitKnobs::from(knobs))),
            flights: Arc::default(),
            quotes: DashMap::new(),
            last_used: AtomicU64::new(now.0),
            clock: QuantaClock::default(),
            mailbox: Mutex::new(None),
        }
    }

    fn prepare(offer: Offer) -> Terms {
        Terms { listing: offer.listing, endpoint: offer.endpoint.and_then(EndpointTerms::new) }
    }

    /// Publishes new settings; calls under way keep what they began with. The seller's rate starts full again.
    pub(crate) fn publish(&self, offer: Offer) {
        self.terms.store(Arc::new(Self::prepare(offer)));
        self.quotes.clear();
    }

    /// Which listing.
    #[must_use]
    pub fn id(&self) -> ListingId {
        self.id
    }

    /// The settings as they stand.
    #[must_use]
    pub fn terms(&self) -> Arc<Terms> {
        self.terms.load_full()
    }

    pub(crate) fn touch(&self, now: UnixMillis) {
        self.last_used.store(now.0, Ordering::Relaxed);
    }

    pub(crate) fn idle_since(&self) -> UnixMillis {
        UnixMillis(self.last_used.load(Ordering::Relaxed))
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.slots.taken() > 0 || self.flights.len() > 0
    }

    /// The circuit as it stands.
    #[must_use]
    pub fn circuit(&self, now: UnixMillis) -> CircuitView {
        self.circuit.lock().view(now)
    }

    /// Calls running towards the seller.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.slots.taken()
    }

    /// Row 8: could a call be sold now? Nothing is taken.
    ///
    /// # Errors
    /// `ListingUnavailable`, `SelfCallForbidden`, `SellerPaused`, `SellerCircuitOpen`, `SellerBusy`.
    pub fn look(&self, terms: &Terms, caller: &Caller, now: UnixMillis) -> Result<(), Refusal> {
        if terms.listing.status != ListingStatus::Active {
            return Err(Code::ListingUnavailable.into());
        }
        if terms.listing.seller == caller.profile.id {
            return Err(Code::SelfCallForbidden.into());
        }
        let endpoint = terms.endpoint.as_ref().ok_or(Code::ListingUnavailable)?;
        if endpoint.endpoint.status == EndpointStatus::Paused {
            return Err(Refusal::from(Code::SellerPaused).retry_after(Duration::from_secs(60)));
        }
        // A half-open circuit is probed by calls that were paid before; a free one is nobody's money.
        match self.circuit(now) {
            CircuitView::Closed => {}
            CircuitView::HalfOpen if terms.listing.price == Micros::ZERO => {}
            CircuitView::HalfOpen => {
                return Err(Refusal::from(Code::SellerCircuitOpen).retry_after(Duration::from_secs(1)));
            }
            CircuitView::Open(left) => return Err(Refusal::from(Code::SellerCircuitOpen).retry_after(left)),
        }
        if !self.slots.has_room(endpoint.endpoint.limits.max_concurrency) {
            return Err(Refusal::from(Code::SellerBusy).retry_after(Duration::from_secs(1)));
        }
        Ok(())
    }

    /// Row 11: the seller's rate, the circuit, a slot or a place in the waiting room. The permit gives the slot back.
    ///
    /// # Errors
    /// `ListingUnavailable`, `SellerPaused`, `SellerRateLimited`, `SellerCircuitOpen`, `SellerBusy`.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        terms: Arc<Terms>,
        buyer: ProfileId,
        now: UnixMillis,
    ) -> Result<Permit, Refusal> {
        let endpoint = terms.endpoint.as_ref().ok_or(Code::ListingUnavailable)?;
        if endpoint.endpoint.status == EndpointStatus::Paused {
            return Err(Refusal::from(Code::SellerPaused).retry_after(Duration::from_secs(60)));
        }
        self.check_rate(endpoint, buyer)?;
        let is_probe = match self.circuit.lock().admit(now) {
            Admission::Pass => false,
            Admission::Probe => true,
            Admission::Wait(left) => return Err(Refusal::from(Code::SellerCircuitOpen).retry_after(left)),
        };
        let limit = endpoint.endpoint.limits.max_concurrency;
        let mut permit =
            Permit { gate: self.clone(), terms: terms.clone(), is_probe, holds_slot: false, is_recorded: false };
        permit.holds_slot = self.slots.take(limit).await;
        if !permit.holds_slot {
            return Err(Refusal::from(Code::SellerBusy).retry_after(Duration::from_secs(1)));
        }
        Ok(permit)
    }

    /// A test by the owner as the probe of a circuit that waits for one; `None` when it waits for none.
    pub(crate) fn probe(self: &Arc<Self>, now: UnixMillis) -> Option<Permit> {
        let admission = self.circuit.lock().admit(now);
        let (gate, terms) = (self.clone(), self.terms());
        (admission == Admission::Probe).then(|| Permit {
            gate,
            terms,
            is_probe: true,
            holds_slot: false,
            is_recorded: false,
        })
    }

    fn check_rate(&self, endpoint: &EndpointTerms, buyer: ProfileId) -> Result<(), Refusal> {
        let limited = |wait: Duration| {
            metrics::counter!("crochet_rate_limited_total", "scope" => "seller").increment(1);
            Refusal::from(Code::RateLimited).detail("scope", "seller").retry_after(wait)
        };
        if let Some(rate) = &endpoint.buyer_rate {
            rate.check_key(&buyer).map_err(|wait| limited(wait.wait_time_from(self.clock.now())))?;
        }
        if let Some(rate) = &endpoint.rate {
            rate.check().map_err(|wait| limited(wait.wait_time_from(self.clock.now())))?;
        }
        Ok(())
    }

    /// The open quote of this identity, if this node remembers it.
    pub(crate) fn open_quote(&self, identity: &QuoteIdentity, now: UnixMillis) -> Option<OpenQuote> {
        self.quotes.get(identity).filter(|quote| quote.payment.is_open(now)).map(|quote| quote.clone())
    }

    pub(crate) fn remember_quote(&self, payment: &Arc<Payment>, offer: Bytes) {
        if self.quotes.len() >= QUOTES_MAX {
            crate::bound::make_room(&self.quotes, QUOTES_MAX);
        }
        let identity = QuoteIdentity::from(payment.quote.as_ref());
        self.quotes.insert(identity, OpenQuote { payment: payment.clone(), offer });
    }

    pub(crate) fn forget_quote(&self, payment: &Payment) {
        self.quotes.remove(&QuoteIdentity::from(payment.quote.as_ref()));
    }

    fn record(&self, now: UnixMillis, failed: bool, was_probe: bool) {
        let mut jitter = [0];
        if failed {
            // Only a failure may open the circuit; without randomness all pauses are alike, and that is all.
            let _ = getrandom::fill(&mut jitter);
        }
        let [jitter] = jitter;
        let changed = self.circuit.lock().record(now, failed, was_probe, jitter);
        if changed {
            let view = self.circuit(now);
            tracing::info!(listing = %self.id, circuit = view.name(), "circuit changed");
            metrics::counter!("crochet_circuit_changes_total", "state" => view.name()).increment(1);
        }
    }
}

/// The yes of row 11: one slot towards one seller. Dropping it gives the slot back.
pub struct Permit {
    gate: Arc<Gate>,
    terms: Arc<Terms>,
    is_probe: bool,
    holds_slot: bool,
    is_recorded: bool,
}

impl Permit {
    /// The settings that this call runs under.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The endpoint that this call goes to.
    ///
    /// # Errors
    /// `ListingUnavailable`, never for a permit that was granted.
    pub fn endpoint(&self) -> Result<&EndpointTerms, Refusal> {
        self.terms.endpoint.as_ref().ok_or_else(|| Code::ListingUnavailable.into())
    }

    /// Tells the circuit how the call ended on the seller's side.
    pub fn record(&mut self, now: UnixMillis, seller_failed: bool) {
        self.is_recorded = true;
        self.gate.record(now, seller_failed, self.is_probe);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_probe && !self.is_recorded {
            self.gate.circuit.lock().abandon_probe(self.gate.idle_since());
        }
        if self.holds_slot {
            self.gate.slots.give_back();
        }
    }
}
