//! What buyers and sellers themselves saw: the books that the gateway's are compared with.

use std::collections::HashMap;

use crate::seller::Handled;

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
    /// What was wrong with an answer, if anything was.
    pub complaint: Option<String>,
}

/// What one seller saw: every call, by request id.
pub type SellerBook = HashMap<String, Vec<Handled>>;

/// The id of the gateway request that belongs to a payment.
#[must_use]
pub fn request_id(payment: &str) -> String {
    payment.replacen("pay_", "gw_req_", 1)
}
