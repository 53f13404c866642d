//! What buyers and sellers themselves saw: the books that the gateway's are compared with.

use std::collections::HashMap;

use crate::{seed::Seed, seller::Handled};

/// How a purchase ended, as its buyer saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Paid, and answered.
    Completed,
    /// Paid, and never answered: the payment is still good.
    Paid,
    /// Paid at the provider, and never called: the gateway asks the provider when the quote expires.
    Forgotten,
    /// Refused before any money moved.
    Refused,
    /// An answer was lost: either may be true.
    Unknown,
}

/// One purchase, as its buyer saw it.
#[derive(Clone, Debug)]
pub struct Purchase {
    /// Its place in the run; decides its body.
    pub number: u64,
    /// Which buyer.
    pub buyer: usize,
    /// Which listing.
    pub listing: usize,
    /// `relay_request_id`; empty when no quote came.
    pub payment: String,
    /// What was charged, or would have been.
    pub price_micros: i64,
    /// The seller's part as the receipt showed it; 0 without a receipt.
    pub seller_micros: i64,
    /// How it ended.
    pub end: End,
    /// Whether the provider acknowledged the money.
    pub is_pay_acknowledged: bool,
    /// SHA-256 of the answer that was acknowledged with 200.
    pub answer: Option<[u8; 32]>,
    /// Whether its buyer lost patience.
    pub gave_up: bool,
    /// What was wrong with an answer, if anything was.
    pub complaint: Option<String>,
}

impl Purchase {
    /// One that has not begun.
    #[must_use]
    pub fn new(number: u64, buyer: usize, listing: usize) -> Self {
        Self {
            number,
            buyer,
            listing,
            payment: String::new(),
            price_micros: 0,
            seller_micros: 0,
            end: End::Refused,
            is_pay_acknowledged: false,
            answer: None,
            gave_up: false,
            complaint: None,
        }
    }

    /// What is asked of the seller; no two purchases of a run ask the same.
    #[must_use]
    pub fn body(&self, seed: u64) -> String {
        let salt = Seed::stream(seed, "body", self.number).draw();
        format!(r#"{{"task":"load","number":{},"salt":"{salt:016x}"}}"#, self.number)
    }

    /// The id of its gateway request.
    #[must_use]
    pub fn request_id(&self) -> String {
        self.payment.replacen("pay_", "gw_req_", 1)
    }
}

/// What one seller saw: every call, by request id.
pub type SellerBook = HashMap<String, Vec<Handled>>;

/// The marketplace's part of a charge at the fee rate of 0.049, half-up, micro-units.
#[must_use]
pub fn fee_micros(charged: i64) -> i64 {
    (charged * 49_000 + 500_000).div_euclid(1_000_000)
}
