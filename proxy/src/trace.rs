//! What is known of one call so far: for its log line, its metrics and its `Server-Timing`.

use std::time::{Duration, Instant};

use actors::{
    payments::x402::settlement,
    refusal::{Code, Refusal},
};
use storage::model::{Evidence, FeeRate, GatewayRequestId, ListingId, Micros, Payment, ProfileId, Rail};

/// A stretch of a call's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Key and rate.
    Auth,
    /// Finding the listing, admission.
    Actor,
    /// Finding the payment, asking the rail.
    Payment,
    /// Durable steps.
    Store,
    /// The seller, from the first byte sent to the last received.
    Seller,
}

/// How a call ended, as a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ended {
    /// It was refused before a seller was called.
    #[default]
    Refused,
    /// The seller handled it.
    Completed,
    /// The seller did not.
    Released,
    /// An answer was given again: the stored one, or for one that was not kept the seller's second.
    Replayed,
    /// The rail has not settled yet.
    Pending,
}

impl Ended {
    /// The label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Completed => "completed",
            Self::Released => "released",
            Self::Replayed => "replayed",
            Self::Pending => "pending",
        }
    }
}

/// One call, watched. Deciding is the types' work; this only remembers.
#[derive(Debug)]
pub struct Trace {
    began: Instant,
    mark: Instant,
    spent: [Duration; 5],
    listing: Option<ListingId>,
    buyer: Option<ProfileId>,
    request_id: Option<GatewayRequestId>,
    attempt: u32,
    code: Option<Code>,
    status: u16,
    seller_status_code: Option<u16>,
    ended: Ended,
    charged: Micros,
    paid_over: Option<(Rail, FeeRate)>,
    settlement: Option<(Evidence, ListingId)>,
    first_byte: Duration,
    buyer_left: bool,
}

impl Trace {
    /// The clock starts.
    #[must_use]
    pub fn begin() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            mark: now,
            spent: [Duration::ZERO; 5],
            listing: None,
            buyer: None,
            request_id: None,
            attempt: 0,
            code: None,
            status: 0,
            seller_status_code: None,
            ended: Ended::default(),
            charged: Micros::ZERO,
            paid_over: None,
            settlement: None,
            first_byte: Duration::ZERO,
            buyer_left: false,
        }
    }

    /// The time since the last mark was spent on this.
    pub fn spent_on(&mut self, phase: Phase) {
        let now = Instant::now();
        if let Some(spent) = self.spent.get_mut(phase as usize) {
            *spent += now.duration_since(self.mark);
        }
        self.mark = now;
    }

    /// The time since the last mark was nobody's: waiting for the buyer's body.
    pub fn skip(&mut self) {
        self.mark = Instant::now();
    }

    /// How long a phase took.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> Duration {
        self.spent.get(phase as usize).copied().unwrap_or_default()
    }

    /// How long it took until now.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn called_by(&mut self, buyer: ProfileId) {
        self.buyer = Some(buyer);
    }

    pub(crate) fn calls(&mut self, listing: ListingId) {
        self.listing = Some(listing);
    }

    pub(crate) fn is_request(&mut self, id: GatewayRequestId, attempt: u32) {
        self.request_id = Some(id);
        self.attempt = attempt;
    }

    /// The seller's answer began, or it failed; the time goes on being the seller's.
    pub(crate) fn seller_began(&mut self) {
        self.first_byte = self.mark.elapsed();
    }

    pub(crate) fn paid_over(&mut self, payment: &Payment) {
        self.paid_over = Some((payment.quote.rail, payment.quote.fee_rate));
        self.settlement = settlement(payment).map(|evidence| (evidence.clone(), payment.quote.listing));
    }

    pub(crate) fn seller_answered(&mut self, status: u16) {
        self.seller_status_code = Some(status);
    }

    pub(crate) fn ended(&mut self, ended: Ended, charged: Micros) {
        self.ended = ended;
        self.charged = charged;
    }

    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.code = Some(refusal.code());
    }

    pub(crate) fn failed(&mut self, code: Code) {
        self.code = Some(code);
    }

    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
    }

    pub(crate) fn buyer_left(&mut self) {
        self.buyer_left = true;
    }

    /// The id that the seller sees, once there is one.
    #[must_use]
    pub fn request_id(&self) -> Option<GatewayRequestId> {
        self.request_id
    }

    /// The listing that was found.
    #[must_use]
    pub fn listing(&self) -> Option<ListingId> {
        self.listing
    }

    /// Who called.
    #[must_use]
    pub fn buyer(&self) -> Option<ProfileId> {
        self.buyer
    }

    /// Which attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The refusal's code, or why a stream was cut.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.code
    }

    /// What the buyer was answered.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What the seller answered.
    #[must_use]
    pub fn seller_status_code(&self) -> Option<u16> {
        self.seller_status_code
    }

    /// How it ended.
    #[must_use]
    pub fn end(&self) -> Ended {
        self.ended
    }

    /// What was charged.
    #[must_use]
    pub fn charged(&self) -> Micros {
        self.charged
    }

    /// Which rail the money came over, and the marketplace's share as it was quoted; `None` for a free call.
    #[must_use]
    pub fn money(&self) -> Option<(Rail, FeeRate)> {
        self.paid_over
    }

    /// The money that a signed transfer brought for the call, and what it is a call of; `None` when none did.
    pub(crate) fn settlement(&self) -> Option<(&Evidence, ListingId)> {
        self.settlement.as_ref().map(|(evidence, listing)| (evidence, *listing))
    }

    /// How long the seller took to begin its answer.
    #[must_use]
    pub fn first_byte(&self) -> Duration {
        self.first_byte
    }

    /// The buyer hung up before the answer was written.
    #[must_use]
    pub fn did_buyer_leave(&self) -> bool {
        self.buyer_left
    }

    /// The `Server-Timing` value, in milliseconds.
    #[must_use]
    pub fn server_timing(&self) -> String {
        const NAMES: [&str; 6] =
            ["auth;dur=", ", actor;dur=", ", payment;dur=", ", store;dur=", ", seller;dur=", ", total;dur="];
        let mut text = String::with_capacity(128);
        let mut number = itoa::Buffer::new();
        for (name, spent) in NAMES.into_iter().zip(self.spent.into_iter().chain([self.total()])) {
            let micros = spent.as_micros();
            text.push_str(name);
            text.push_str(number.format(micros / 1000));
            text.push('.');
            // Three decimals: a one in front keeps the zeros.
            text.push_str(number.format(1000 + micros % 1000).get(1..).unwrap_or_default());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timing_names_every_phase_once() {
        let mut trace = Trace::begin();
        trace.spent_on(Phase::Auth);
        trace.spent_on(Phase::Seller);
        let text = trace.server_timing();
        let names: Vec<&str> = text.split(", ").filter_map(|part| part.split(';').next()).collect();
        assert_eq!(names, ["auth", "actor", "payment", "store", "seller", "total"]);
        for part in text.split(", ") {
            let (_, number) = part.split_once(";dur=").expect("a duration");
            let (_, decimals) = number.split_once('.').expect("decimals");
            assert!(decimals.len() == 3 && number.parse::<f64>().is_ok(), "{part}");
        }
    }
}
