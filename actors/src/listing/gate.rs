//! What a listing's actor publishes for the hot path: settings, signing keys, limits, slots, circuit, payments in
//! flight and open quotes. Every step on it is synchronous; nothing here waits for a mailbox.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
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
        Endpoint, EndpointLimits, EndpointStatus, Listing, ListingId, ListingStatus, Micros, Offer, Payment, ProfileId,
        UnixMillis,
    },
};

use super::{
    circuit::{Admission, Circuit, CircuitKnobs, CircuitView, Counts, Ticket},
    flights::Flights,
    mailbox::Mailbox,
    slots::Slots,
};
use crate::{
    keys::Caller,
    meters::{Meters, RateScope},
    refusal::{Code, Refusal},
    seller::Signer,
};

/// When a busy seller may have room again: calls take moments, not minutes.
const BUSY_PAUSE: Duration = Duration::from_secs(1);
/// When a seller that paused its endpoint is worth asking again.
const PAUSED_PAUSE: Duration = Duration::from_secs(60);

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
    pub(super) rates: Arc<Rates>,
}

/// The seller's own rates.
pub(super) struct Rates {
    all: Option<DefaultDirectRateLimiter>,
    pub(super) per_buyer: Option<DefaultKeyedRateLimiter<ProfileId>>,
}

impl Rates {
    fn new(limits: &EndpointLimits) -> Self {
        let per_second = |rate: u32| Quota::per_second(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN));
        let all = limits.requests_per_second.map(|rate| {
            let burst = NonZeroU32::new(limits.burst.unwrap_or(rate)).unwrap_or(NonZeroU32::MIN);
            DefaultDirectRateLimiter::direct(per_second(rate).allow_burst(burst))
        });
        let per_buyer =
            limits.requests_per_second_per_buyer.map(|rate| DefaultKeyedRateLimiter::keyed(per_second(rate)));
        Self { all, per_buyer }
    }
}

impl EndpointTerms {
    /// Prepares an endpoint. What is left of its rates stays when its limits stay: a seller cannot be called faster by
    /// changing its listing's name.
    fn new(endpoint: Endpoint, before: Option<&Self>) -> Option<Self> {
        let signer = match Signer::new(&endpoint) {
            Ok(signer) => Arc::new(signer),
            Err(error) => {
                tracing::warn!(listing = %endpoint.listing, %error, "endpoint cannot be called");
                return None;
            }
        };
        let rates = match before {
            Some(before) if before.endpoint.limits == endpoint.limits => before.rates.clone(),
            _ => Arc::new(Rates::new(&endpoint.limits)),
        };
        Some(Self { endpoint, signer, rates })
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
    /// The headers that only this 402 has.
    pub(crate) headers: Vec<(&'static str, Arc<str>)>,
}

/// The gate of one listing on this node.
pub struct Gate {
    id: ListingId,
    terms: ArcSwap<Terms>,
    pub(super) slots: Slots,
    pub(super) circuit: Mutex<Circuit>,
    pub(crate) flights: Arc<Flights>,
    quotes: DashMap<QuoteIdentity, OpenQuote>,
    quotes_max: usize,
    last_used: AtomicU64,
    calls: AtomicU64,
    is_stale: AtomicBool,
    publishing: Mutex<()>,
    clock: QuantaClock,
    meters: Arc<Meters>,
    pub(crate) mailbox: Mailbox,
}

/// What operators see of a gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateView {
    pub(crate) circuit: CircuitView,
    pub(crate) counts: Counts,
    pub(crate) taken: u32,
    pub(crate) waiting: usize,
    pub(crate) flights: usize,
    pub(crate) open_quotes: usize,
    pub(crate) calls: u64,
    pub(crate) is_stale: bool,
}

impl Gate {
    /// `flights`: the payments in flight of this listing, which outlive any gate.
    pub(crate) fn new(
        offer: Offer,
        knobs: &config::Actors,
        flights: Arc<Flights>,
        meters: Arc<Meters>,
        now: UnixMillis,
    ) -> Self {
        Self {
            id: offer.listing.id,
            terms: ArcSwap::from_pointee(Self::prepare(offer, None)),
            slots: Slots::new(knobs.waiting_room, knobs.waiting_time),
            circuit: Mutex::new(Circuit::new(CircuitKnobs::from(knobs))),
            flights,
            quotes: DashMap::new(),
            quotes_max: knobs.gate_quotes_max,
            last_used: AtomicU64::new(now.0),
            calls: AtomicU64::new(0),
            is_stale: AtomicBool::new(false),
            publishing: Mutex::default(),
            clock: QuantaClock::default(),
            meters,
            mailbox: Mailbox::default(),
        }
    }

    fn prepare(offer: Offer, before: Option<&Terms>) -> Terms {
        let before = before.and_then(|terms| terms.endpoint.as_ref());
        let endpoint = offer.endpoint.and_then(|endpoint| EndpointTerms::new(endpoint, before));
        Terms { listing: offer.listing, endpoint }
    }

    /// Publishes new settings; calls under way keep what they began with. An endpoint that moved starts with a closed
    /// circuit: the failures were another one's.
    /// Of two that were read at once the older one comes to nothing.
    pub(crate) fn publish(&self, offer: Offer) {
        let _one = self.publishing.lock();
        let before = self.terms.load_full();
        let version = before.endpoint.as_ref().map(|endpoint| endpoint.endpoint.version);
        let is_older = offer.listing.version < before.listing.version
            || offer.endpoint.as_ref().is_some_and(|endpoint| Some(endpoint.version) < version);
        if is_older {
            return;
        }
        let terms = Self::prepare(offer, Some(&before));
        let target = |terms: &Terms| terms.endpoint.as_ref().map(|endpoint| endpoint.signer.target().clone());
        if target(&before) != target(&terms) {
            self.circuit.lock().renew();
        }
        self.terms.store(Arc::new(terms));
        self.quotes.clear();
        self.is_stale.store(false, Ordering::Release);
    }

    /// What is published may be old: it is read anew before the next call uses it.
    pub(crate) fn mark_stale(&self) {
        self.is_stale.store(true, Ordering::Release);
    }

    /// Whether the settings must be read anew.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Acquire)
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
        self.slots.taken() > 0 || self.slots.waiting() > 0 || self.flights.len() > 0
    }

    /// The circuit as it stands.
    #[must_use]
    pub fn circuit(&self, now: UnixMillis) -> CircuitView {
        self.circuit.lock().view(now)
    }

    /// What operators see.
    pub(crate) fn view(&self, now: UnixMillis) -> GateView {
        let (circuit, counts) = {
            let circuit = self.circuit.lock();
            (circuit.view(now), circuit.counts(now))
        };
        GateView {
            circuit,
            counts,
            taken: self.slots.taken(),
            waiting: self.slots.waiting(),
            flights: self.flights.len(),
            open_quotes: self.quotes.len(),
            calls: self.calls.load(Ordering::Relaxed),
            is_stale: self.is_stale(),
        }
    }

    /// Lets go of what is over: quotes that expired, rates of buyers that are full again.
    pub(crate) fn tidy(&self, now: UnixMillis) {
        self.quotes.retain(|_, quote| quote.payment.is_open(now));
        if let Some(endpoint) = &self.terms().endpoint
            && let Some(rate) = &endpoint.rates.per_buyer
        {
            rate.retain_recent();
            rate.shrink_to_fit();
        }
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
            return Err(Refusal::from(Code::SellerPaused).retry_about(PAUSED_PAUSE));
        }
        // A half-open circuit is probed by calls that were paid before; a free one is nobody's money.
        match self.circuit(now) {
            CircuitView::Closed => {}
            CircuitView::HalfOpen if terms.listing.price == Micros::ZERO => {}
            CircuitView::HalfOpen => {
                return Err(Refusal::from(Code::SellerCircuitOpen).retry_about(BUSY_PAUSE));
            }
            CircuitView::Open(left) => return Err(Refusal::from(Code::SellerCircuitOpen).retry_no_sooner(left)),
        }
        if !self.slots.has_room(endpoint.endpoint.limits.max_concurrency) {
            return Err(Refusal::from(Code::SellerBusy).retry_about(BUSY_PAUSE));
        }
        Ok(())
    }

    /// Row 11: the circuit, the seller's rate, a slot or a place in the waiting room. The permit gives the slot back,
    /// and the probe of a half-open circuit when nothing came of it. An open circuit takes nothing off the rate.
    ///
    /// # Errors
    /// `ListingUnavailable`, `SellerPaused`, `SellerCircuitOpen`, `RateLimited`, `SellerBusy`.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        terms: Arc<Terms>,
        buyer: ProfileId,
        now: UnixMillis,
    ) -> Result<Permit, Refusal> {
        let endpoint = terms.endpoint.as_ref().ok_or(Code::ListingUnavailable)?;
        if endpoint.endpoint.status == EndpointStatus::Paused {
            return Err(Refusal::from(Code::SellerPaused).retry_about(PAUSED_PAUSE));
        }
        let ticket = match self.circuit.lock().admit(now) {
            Admission::Pass(ticket) => ticket,
            Admission::Wait(left) => return Err(Refusal::from(Code::SellerCircuitOpen).retry_no_sooner(left)),
        };
        let mut permit =
            Permit { gate: self.clone(), terms: terms.clone(), ticket, holds_slot: false, is_recorded: false };
        self.check_rate(endpoint, buyer)?;
        permit.holds_slot = self.slots.take(endpoint.endpoint.limits.max_concurrency).await;
        if !permit.holds_slot {
            return Err(Refusal::from(Code::SellerBusy).retry_about(BUSY_PAUSE));
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(permit)
    }

    /// A test by the owner as the probe of a circuit that waits for one; `None` when it waits for none.
    pub(crate) fn probe(self: &Arc<Self>, now: UnixMillis) -> Option<Permit> {
        let Admission::Pass(ticket) = self.circuit.lock().admit(now) else { return None };
        let (gate, terms) = (self.clone(), self.terms());
        ticket.is_probe().then(|| Permit { gate, terms, ticket, holds_slot: false, is_recorded: false })
    }

    fn check_rate(&self, endpoint: &EndpointTerms, buyer: ProfileId) -> Result<(), Refusal> {
        let limited = |wait: Duration| {
            self.meters.rates.limited(RateScope::Seller);
            Refusal::from(Code::RateLimited).detail("scope", RateScope::Seller.name()).retry_no_sooner(wait)
        };
        if let Some(rate) = &endpoint.rates.per_buyer {
            rate.check_key(&buyer).map_err(|wait| limited(wait.wait_time_from(self.clock.now())))?;
        }
        if let Some(rate) = &endpoint.rates.all {
            rate.check().map_err(|wait| limited(wait.wait_time_from(self.clock.now())))?;
        }
        Ok(())
    }

    /// The open quote of this identity, if this node remembers it.
    pub(crate) fn open_quote(&self, identity: &QuoteIdentity, now: UnixMillis) -> Option<OpenQuote> {
        self.quotes.get(identity).filter(|quote| quote.payment.is_open(now)).map(|quote| quote.clone())
    }

    pub(crate) fn remember_quote(&self, payment: &Arc<Payment>, offer: &Refusal, site: &str) {
        if self.quotes.len() >= self.quotes_max {
            crate::bound::make_room(&self.quotes, self.quotes_max);
        }
        let identity = QuoteIdentity::from(payment.quote.as_ref());
        let (offer, headers) = (offer.body(site), offer.headers().to_vec());
        self.quotes.insert(identity, OpenQuote { payment: payment.clone(), offer, headers });
    }

    pub(crate) fn forget_quote(&self, payment: &Payment) {
        self.quotes.remove(&QuoteIdentity::from(payment.quote.as_ref()));
    }

    pub(super) fn record(&self, now: UnixMillis, failed: bool, ticket: Ticket) {
        // Only a failure may open the circuit.
        let jitter = if failed { self.jitter(now) } else { 0 };
        let changed = self.circuit.lock().record(now, failed, ticket, jitter);
        if changed {
            let view = self.circuit(now);
            tracing::info!(listing = %self.id, circuit = view.name(), "circuit changed");
            self.meters.circuit(view != CircuitView::Closed);
        }
    }

    /// Spreads the pauses of circuits that open together. Drawn from who and when, so that the same history has the
    /// same pauses.
    fn jitter(&self, now: UnixMillis) -> u8 {
        let mut hasher = DefaultHasher::new();
        (self.id, now).hash(&mut hasher);
        let [jitter, ..] = hasher.finish().to_le_bytes();
        jitter
    }
}

/// The yes of row 11: one slot towards one seller. Dropping it gives the slot back.
pub struct Permit {
    gate: Arc<Gate>,
    terms: Arc<Terms>,
    ticket: Ticket,
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
        self.gate.record(now, seller_failed, self.ticket);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.ticket.is_probe() && !self.is_recorded {
            self.gate.circuit.lock().abandon_probe(self.ticket);
        }
        if self.holds_slot {
            self.gate.slots.give_back();
        }
    }
}
