//! Listings and endpoints as they are shown. The private URL is not among what is shown, to anybody.

use actors::seller::shown_secret;
use serde::Serialize;
use storage::model::{
    AccountType, CategoryId, DeliveryType, Endpoint, EndpointStatus, Format, Listing, ListingId, ListingStatus, Micros,
    OriginCurrency, PricingModel, Profile, ProfileId, SuspendedBy, UnixMillis,
};

use super::stats::Figures;
use crate::{
    door::Door,
    reply::{Decimal, JsonText, Shown},
};

#[derive(Debug, Serialize)]
struct CategoryView {
    id: Shown<CategoryId>,
    name: String,
    slug: String,
}

/// Who offers a listing.
#[derive(Debug, Serialize)]
struct ProviderView {
    id: Shown<ProfileId>,
    display_name: String,
    avatar_url: Option<String>,
    account_type: AccountType,
    is_verified: bool,
    score: u16,
}

impl From<&Profile> for ProviderView {
    fn from(profile: &Profile) -> Self {
        Self {
            id: Shown(profile.id),
            display_name: profile.display_name.clone(),
            avatar_url: profile.avatar_url.clone(),
            account_type: profile.account_type,
            is_verified: profile.is_verified,
            score: profile.score,
        }
    }
}

/// What buyers think of it; no average without a review.
#[derive(Debug, Default, Serialize)]
struct RatingView {
    average: Option<Decimal>,
    count: u64,
}

/// Its calls in the last thirty days; without any, the rate and the times are unknown, which is not zero.
#[derive(Debug, Default, Serialize)]
struct StatsView {
    calls_30d: u64,
    success_rate_30d: Option<Decimal>,
    p50_ms: Option<u32>,
    p95_ms: Option<u32>,
}

impl From<&Figures> for StatsView {
    fn from(figures: &Figures) -> Self {
        let calls = &figures.calls;
        let rate = calls.handled.saturating_mul(1000).checked_div(calls.calls);
        Self {
            calls_30d: calls.calls,
            success_rate_30d: rate.map(Decimal::thousandths),
            p50_ms: calls.p50_ms,
            p95_ms: calls.p95_ms,
        }
    }
}

/// A listing.
#[derive(Debug, Serialize)]
pub(crate) struct ListingView {
    id: Shown<ListingId>,
    slug: String,
    name: String,
    description: String,
    category: Option<CategoryView>,
    delivery_type: DeliveryType,
    auth_method: &'static str,
    formats: Vec<Format>,
    connection_instructions: Option<String>,
    pricing_model: PricingModel,
    pricing_amount: Decimal,
    pricing_amount_cents: i64,
    pricing_amount_micros: i64,
    pricing_currency: &'static str,
    preferred_currency: Option<&'static str>,
    documentation_url: Option<String>,
    example_request: Option<JsonText>,
    example_response: Option<JsonText>,
    tags: Vec<String>,
    status: ListingStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended_by: Option<SuspendedBy>,
    gateway_url: Option<String>,
    provider: ProviderView,
    rating: RatingView,
    stats: StatsView,
    created_at: Shown<UnixMillis>,
    updated_at: Shown<UnixMillis>,
}

impl ListingView {
    pub(crate) fn new(door: &Door, listing: &Listing, provider: &Profile, has_endpoint: bool) -> Self {
        let category = listing.category.and_then(|id| door.catalogue.category(id));
        let is_callable = has_endpoint && listing.status == ListingStatus::Active;
        Self {
            id: Shown(listing.id),
            slug: listing.slug.clone(),
            name: listing.name.clone(),
            description: listing.description.clone(),
            category: category.map(|category| CategoryView {
                id: Shown(category.id),
                name: category.name.clone(),
                slug: category.slug.clone(),
            }),
            delivery_type: listing.delivery_type,
            auth_method: "none",
            formats: listing.formats.clone(),
            connection_instructions: listing.connection_instructions.clone(),
            pricing_model: listing.pricing_model,
            pricing_amount: Decimal::units(listing.price),
            pricing_amount_cents: listing.price.cents(),
            pricing_amount_micros: micros(listing.price),
            pricing_currency: "USD",
            preferred_currency: listing.preferred_currency.map(OriginCurrency::name),
            documentation_url: listing.documentation_url.clone(),
            example_request: listing.example_request.clone().map(JsonText),
            example_response: listing.example_response.clone().map(JsonText),
            tags: listing.tags.clone(),
            status: listing.status,
            suspended_by: listing.suspended_by,
            gateway_url: is_callable.then(|| format!("{}/api/v1/gateway/{}", door.site, listing.id)),
            provider: ProviderView::from(provider),
            rating: RatingView::default(),
            stats: StatsView::default(),
            created_at: Shown(listing.created_at),
            updated_at: Shown(listing.updated_at),
        }
    }

    /// With what its calls and reviews came to.
    pub(crate) fn with(mut self, figures: &Figures) -> Self {
        self.rating = RatingView { average: figures.average_milli.map(Decimal::thousandths), count: figures.reviews };
        self.stats = StatsView::from(figures);
        self
    }
}

fn micros(amount: Micros) -> i64 {
    amount.0
}

/// What a seller allows.
#[derive(Debug, Serialize)]
struct LimitsView {
    requests_per_second: Option<u32>,
    burst: Option<u32>,
    max_concurrency: u32,
    max_request_bytes: u64,
    max_response_bytes: u64,
    requests_per_second_per_buyer: Option<u32>,
}

#[derive(Debug, Serialize)]
struct SecretView {
    prefix: String,
    created_at: Shown<UnixMillis>,
    previous_expires_at: Option<Shown<UnixMillis>>,
}

#[derive(Debug, Serialize)]
struct TestView {
    at: Shown<UnixMillis>,
    seller_status_code: Option<u16>,
    latency_ms: u32,
}

#[derive(Debug, Serialize)]
struct HealthView {
    circuit: &'static str,
}

/// An endpoint as its owner sees it: of its URL scheme and host only.
#[derive(Debug, Serialize)]
pub(crate) struct EndpointView {
    listing_id: Shown<ListingId>,
    host: String,
    auth_header: Option<String>,
    timeout_ms: u32,
    limits: LimitsView,
    status: EndpointStatus,
    secret: SecretView,
    last_test: Option<TestView>,
    health: HealthView,
    /// Shown in the answer that made it, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
}

impl EndpointView {
    pub(crate) fn new(door: &Door, endpoint: &Endpoint, now: UnixMillis) -> Self {
        let limits = &endpoint.limits;
        let shown = shown_secret(&endpoint.secret.key);
        let previous = endpoint.previous_secret.as_ref().map(|previous| previous.expires_at).filter(|end| now < *end);
        Self {
            listing_id: Shown(endpoint.listing),
            host: scheme_and_host(&endpoint.url),
            auth_header: endpoint.upstream_auth.as_ref().map(|auth| auth.header.clone()),
            timeout_ms: endpoint.timeout_ms,
            limits: LimitsView {
                requests_per_second: limits.requests_per_second,
                burst: limits.burst,
                max_concurrency: limits.max_concurrency,
                max_request_bytes: limits.max_request_bytes,
                max_response_bytes: limits.max_response_bytes,
                requests_per_second_per_buyer: limits.requests_per_second_per_buyer,
            },
            status: endpoint.status,
            secret: SecretView {
                prefix: shown.chars().take(10).collect(),
                created_at: Shown(endpoint.secret.created_at),
                previous_expires_at: previous.map(Shown),
            },
            last_test: endpoint.last_test.as_ref().map(|test| TestView {
                at: Shown(test.at),
                seller_status_code: test.seller_status_code,
                latency_ms: test.latency_ms,
            }),
            health: HealthView { circuit: door.actors.circuit(endpoint.listing) },
            signing_secret: None,
        }
    }

    /// With the secret that was made just now.
    pub(crate) fn with_secret(mut self, endpoint: &Endpoint) -> Self {
        self.signing_secret = Some(shown_secret(&endpoint.secret.key));
        self
    }
}

fn scheme_and_host(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(url) => format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a13_of_a_private_url_scheme_and_host_only() {
        assert_eq!(scheme_and_host("https://seller.example:8443/secret/path?token=x"), "https://seller.example");
        assert_eq!(scheme_and_host("http://[::1]:9/x"), "http://[::1]");
    }
}
