//! What was promised to a buyer: rail, currency, price, and the quote that never changes.

use serde::{Deserialize, Serialize};

use super::{
    ids::{ApiKeyId, GatewayRequestId, ListingId, PaymentId, ProfileId},
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
    /// None: what costs nothing is paid by nothing.
    Free,
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
            Self::Free => "free",
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

/// What an API key may agree to on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpendCap {
    /// The key.
    pub key: ApiKeyId,
    /// The sum of the prices that it may agree to.
    pub max: Micros,
}

/// What a quote takes of a capped key's day, until it expires unpaid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Whose day.
    pub key: ApiKeyId,
    /// Which day.
    pub day: Day,
    /// How much.
    pub price: Micros,
    /// The quote expired unpaid, and the day has it back; money that comes late takes it again.
    pub given_back: bool,
}

/// A day in UTC, counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Day(pub u32);

impl Day {
    /// The day of a moment.
    #[must_use]
    pub fn of(moment: UnixMillis) -> Self {
        Self(u32::try_from(moment.seconds() / 86_400).unwrap_or(u32::MAX))
    }
}
