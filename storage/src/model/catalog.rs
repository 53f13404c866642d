//! What is offered: categories, listings, and the endpoints behind them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    ids::{CategoryId, ListingId, ProfileId},
    money::Micros,
    quote::OriginCurrency,
    time::UnixMillis,
};

/// A shelf of the marketplace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// Its id.
    pub id: CategoryId,
    /// Shown.
    pub name: String,
    /// In addresses.
    pub slug: String,
}

/// How a listing is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PricingModel {
    /// Not at all.
    Free,
    /// Each call.
    PerCall,
}

/// How a listing delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryType {
    /// Request and answer.
    Api,
    /// It calls back.
    Webhook,
    /// It streams.
    Streaming,
    /// It takes its time.
    Batch,
    /// It gives files.
    File,
}

/// What a listing answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON.
    Json,
    /// Server-sent events.
    Sse,
    /// Plain text.
    Text,
    /// Anything else.
    Binary,
}

/// Who suspended a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuspendedBy {
    /// Its owner, who may bring it back.
    Owner,
    /// An operator.
    Operator,
    /// An operator, after its owner had: shown as the operator's, and the owner's again when the operator is done.
    #[serde(rename(serialize = "operator"))]
    OperatorAfterOwner,
}

impl SuspendedBy {
    /// Only an operator brings it back.
    #[must_use]
    pub fn is_operator(self) -> bool {
        matches!(self, Self::Operator | Self::OperatorAfterOwner)
    }
}

/// Where a listing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListingStatus {
    /// Not offered yet.
    Draft,
    /// Offered.
    Active,
    /// No longer offered; payments may still point to it.
    Suspended,
}

/// What a seller offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Its id.
    pub id: ListingId,
    /// Its name in addresses; unchanged by later renames.
    pub slug: String,
    /// Who offers it.
    pub seller: ProfileId,
    /// 3 to 120 characters.
    pub name: String,
    /// 1 to 5 000 characters.
    pub description: String,
    /// Its shelf.
    pub category: Option<CategoryId>,
    /// How it delivers.
    pub delivery_type: DeliveryType,
    /// What it answers with.
    pub formats: Vec<Format>,
    /// How to use it, in the seller's words.
    pub connection_instructions: Option<String>,
    /// How it is paid.
    pub pricing_model: PricingModel,
    /// The price of a call; zero when free.
    pub price: Micros,
    /// The currency the seller likes best.
    pub preferred_currency: Option<OriginCurrency>,
    /// The seller's own documentation.
    pub documentation_url: Option<String>,
    /// JSON text.
    pub example_request: Option<String>,
    /// JSON text.
    pub example_response: Option<String>,
    /// At most 10.
    pub tags: Vec<String>,
    /// Where it stands.
    pub status: ListingStatus,
    /// Who suspended it.
    pub suspended_by: Option<SuspendedBy>,
    /// It was offered at least once.
    pub was_active: bool,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it last changed.
    pub updated_at: UnixMillis,
    /// Counts the changes.
    pub version: u64,
}

/// Whether an endpoint takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointStatus {
    /// It does.
    Active,
    /// Its owner paused it.
    Paused,
}

/// What a seller allows on its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointLimits {
    /// Calls a second; `None`: no limit of the seller's.
    pub requests_per_second: Option<u32>,
    /// How many may come at once.
    pub burst: Option<u32>,
    /// How many may run at once.
    pub max_concurrency: u32,
    /// Largest request body, bytes.
    pub max_request_bytes: u64,
    /// Largest answer, bytes.
    pub max_response_bytes: u64,
    /// Calls a second from one buyer; `None`: no limit.
    pub requests_per_second_per_buyer: Option<u32>,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            requests_per_second: None,
            burst: None,
            max_concurrency: 256,
            max_request_bytes: 1 << 20,
            max_response_bytes: 8 << 20,
            requests_per_second_per_buyer: None,
        }
    }
}

/// A header that the seller's own server wants to see.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamAuth {
    /// Its name.
    pub header: String,
    /// Its value; never shown.
    pub value: String,
}

impl fmt::Debug for UpstreamAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamAuth").field("header", &self.header).finish_non_exhaustive()
    }
}

/// A signing secret: 32 random bytes; shown once as `whsec_` and base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningSecret {
    /// The HMAC key.
    pub key: [u8; 32],
    /// When it was made.
    pub created_at: UnixMillis,
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningSecret").field("created_at", &self.created_at).finish_non_exhaustive()
    }
}

/// A secret that signs along until it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousSecret {
    /// The secret.
    pub secret: SigningSecret,
    /// When it stops signing.
    pub expires_at: UnixMillis,
}

/// The last test of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTest {
    /// When.
    pub at: UnixMillis,
    /// What the seller answered; `None` when it did not.
    pub seller_status_code: Option<u16>,
    /// How long it took, milliseconds.
    pub latency_ms: u32,
}

/// The private side of a listing: where it is, and how to call it. The address is shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Whose it is.
    pub listing: ListingId,
    /// The private URL, as the URL parser wrote it.
    pub url: String,
    /// A header that the seller wants.
    pub upstream_auth: Option<UpstreamAuth>,
    /// How long the seller may take, milliseconds.
    pub timeout_ms: u32,
    /// What the seller allows.
    pub limits: EndpointLimits,
    /// Whether it takes calls.
    pub status: EndpointStatus,
    /// The secret that signs.
    pub secret: SigningSecret,
    /// The one before, while it signs along.
    pub previous_secret: Option<PreviousSecret>,
    /// The last test.
    pub last_test: Option<EndpointTest>,
    /// Counts the changes.
    pub version: u64,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("listing", &self.listing)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A listing and, when it can be called, its endpoint: what a call needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The public side.
    pub listing: Listing,
    /// The private side.
    pub endpoint: Option<Endpoint>,
}

/// The one open proof-of-work challenge of a seller who wants to create a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListingChallenge {
    /// The text to solve.
    pub challenge: String,
    /// How many zeros.
    pub difficulty: u8,
    /// When it ends.
    pub expires_at: UnixMillis,
}
