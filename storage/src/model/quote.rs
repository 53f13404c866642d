//! What was promised to a buyer: rail, currency, price, and the quote that never changes.

use serde::{Deserialize, Serialize};

use super::{
    ids::{GatewayRequestId, ListingId, PaymentId, ProfileId},
    money::{FeeRate, Micros, Split},
    time::UnixMillis,
};

/// A payment rail. The name is on the wire, in accounts and in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Rail {
    /// Our own provider for development.
    Sandbox,
    /// Relay, across chains.
    Relay,
    /// x402 version 2.
    X402,
    /// The `Payment` HTTP authentication scheme.
    Mpp,
}

impl Rail {
    /// The rail's name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Relay => "relay",
            Self::X402 => "x402",
            Self::Mpp => "mpp",
        }
    }
}

/// What a buyer pays in, as `X-Crochet-Origin-Currency` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OriginCurrency {
    /// SOL on Solana.
    Sol,
    /// Ether.
    Eth,
    /// USDC on an EVM chain.
    Usdc,
    /// USDC on Solana.
    UsdcSol,
}

impl OriginCurrency {
    /// All of them, in the order in which they are listed to users.
    pub const ALL: [Self; 4] = [Self::Sol, Self::Eth, Self::Usdc, Self::UsdcSol];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sol => "SOL",
            Self::Eth => "ETH",
            Self::Usdc => "USDC",
            Self::UsdcSol => "USDC-SOL",
        }
    }

    /// The currency with this name on the wire.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|currency| currency.name() == name)
    }
}

/// What was promised to one buyer for one body: fixed when made, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The payment's id.
    pub id: PaymentId,
    /// Who pays.
    pub buyer: ProfileId,
    /// Who is called, and earns.
    pub seller: ProfileId,
    /// What is called.
    pub listing: ListingId,
    /// SHA-256 of the raw request body.
    pub body_sha256: [u8; 32],
    /// The price.
    pub price: Micros,
    /// The marketplace's share of it.
    pub fee_rate: FeeRate,
    /// What the buyer pays in.
    pub currency: OriginCurrency,
    /// The rail that was offered.
    pub rail: Rail,
    /// The provider's own id of the payment; our id where the provider knows no other.
    pub provider_ref: String,
    /// The rail's own data, opaque to all but the rail.
    pub terms: Vec<u8>,
    /// With a key, this is that one purchase.
    pub idempotency_key: Option<String>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// Until when asking again returns it. Money that comes later is honoured all the same.
    pub expires_at: UnixMillis,
}

impl Quote {
    /// The price and its two parts.
    #[must_use]
    pub fn split(&self) -> Split {
        self.fee_rate.split(self.price)
    }

    /// The id that the seller sees, the same for every attempt.
    #[must_use]
    pub fn gateway_request_id(&self) -> GatewayRequestId {
        self.id.into()
    }
}
