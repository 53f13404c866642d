//! The fields of an endpoint as a seller gives them.

use actors::{
    refusal::{Code, Refusal},
    seller::new_secret_key,
    vetting::Vetting,
};
use storage::model::{Endpoint, EndpointLimits, EndpointStatus, ListingId, SigningSecret, UnixMillis, UpstreamAuth};

use crate::{
    door::Door,
    fields::{Fields, Given, exact, number, parsed, small},
};

const TIMEOUT_DEFAULT_MS: u32 = 30_000;
const RATE_MAX: u32 = 100_000;
const BURST_MAX: u32 = 1_000_000;
const CONCURRENCY_MAX: u32 = 65_536;
const MIB: u64 = 1 << 20;
const RESPONSE_MAX: u64 = 1 << 30;

/// What a request to a seller is built from; these are ours to write.
const OWN_HEADERS: [&str; 18] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
const OWN_PREFIXES: [&str; 4] = ["x-crochet-", "webhook-", "proxy-", "x-forwarded-"];

/// What a seller gave.
#[derive(Clone, Debug)]
pub(crate) struct EndpointInput {
    pub(crate) url: Option<String>,
    upstream_auth: Given<UpstreamAuth>,
    timeout_ms: Option<u32>,
    limits: Option<LimitsInput>,
    status: Option<EndpointStatus>,
}

#[derive(Clone, Debug)]
struct LimitsInput {
    requests_per_second: Given<u32>,
    burst: Given<u32>,
    max_concurrency: Option<u32>,
    max_request_bytes: Option<u64>,
    max_response_bytes: Option<u64>,
    requests_per_second_per_buyer: Given<u32>,
}

/// What became of an endpoint.
#[derive(Clone, Debug)]
pub(crate) enum EndpointEdit {
    /// There is none, and none was given.
    None,
    /// As it was.
    Same(Endpoint),
    /// Changed.
    Changed(Endpoint),
    /// New, with a secret that its owner has not seen.
    Made(Endpoint),
}

impl EndpointEdit {
    pub(crate) fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::None => None,
            Self::Same(endpoint) | Self::Changed(endpoint) | Self::Made(endpoint) => Some(endpoint),
        }
    }

    /// The endpoint when it is to be written.
    pub(crate) fn written(&self) -> Option<Endpoint> {
        match self {
            Self::None | Self::Same(_) => None,
            Self::Changed(endpoint) | Self::Made(endpoint) => Some(endpoint.clone()),
        }
    }
}

impl EndpointInput {
    /// Reads the fields that a listing has too.
    pub(crate) fn read(f: &mut Fields, door: &Door) -> Self {
        let vetting = Vetting::new(&door.config, &door.site);
        let url = parsed(move |text| vetting.read_url(text).map(Into::into).map_err(|reason| reason.to_string()));
        let limits = f.object("limits", |inner| Some(LimitsInput::read(inner, door.config.proxy.request_max_bytes)));
        Self {
            url: f.optional("private_endpoint_url", url),
            upstream_auth: f.object("upstream_auth", read_auth),
            timeout_ms: f.optional("timeout_ms", small(100..=300_000)),
            limits: match limits {
                Given::Value(limits) => Some(limits),
                Given::Absent | Given::Null => None,
            },
            status: None,
        }
    }

    /// Reads the fields of the endpoint's own route.
    pub(crate) fn read_with_status(f: &mut Fields, door: &Door) -> Self {
        const STATUSES: &[(&str, EndpointStatus)] =
            &[("active", EndpointStatus::Active), ("paused", EndpointStatus::Paused)];
        let status = f.optional("status", crate::fields::choice(STATUSES));
        Self { status, ..Self::read(f, door) }
    }

    fn is_empty(&self) -> bool {
        self.url.is_none()
            && !self.upstream_auth.is_given()
            && self.timeout_ms.is_none()
            && self.limits.is_none()
            && self.status.is_none()
    }

    /// Changes an endpoint as given, or makes one.
    ///
    /// # Errors
    /// `ValidationFailed` when there is none and its URL is not given.
    pub(crate) fn apply(
        &self,
        listing: ListingId,
        known: Option<Endpoint>,
        now: UnixMillis,
    ) -> Result<EndpointEdit, Refusal> {
        match (known, &self.url) {
            (Some(endpoint), _) if self.is_empty() => Ok(EndpointEdit::Same(endpoint)),
            (Some(endpoint), _) => Ok(EndpointEdit::Changed(self.changed(endpoint))),
            (None, Some(url)) => Ok(EndpointEdit::Made(self.changed(new_endpoint(listing, url.clone(), now)?))),
            (None, None) if self.is_empty() => Ok(EndpointEdit::None),
            (None, None) => Err(Refusal::from(Code::ValidationFailed)
                .field("private_endpoint_url", "is required: the listing has no endpoint yet")),
        }
    }

    fn changed(&self, mut endpoint: Endpoint) -> Endpoint {
        if let Some(url) = self.url.clone().filter(|url| *url != endpoint.url) {
            endpoint.url = url;
            endpoint.last_test = None;
        }
        self.upstream_auth.apply(&mut endpoint.upstream_auth);
        if let Some(timeout_ms) = self.timeout_ms {
            endpoint.timeout_ms = timeout_ms;
        }
        if let Some(limits) = &self.limits {
            limits.apply(&mut endpoint.limits);
        }
        if let Some(status) = self.status {
            endpoint.status = status;
        }
        endpoint
    }
}

fn new_endpoint(listing: ListingId, url: String, now: UnixMillis) -> Result<Endpoint, Refusal> {
    let key = new_secret_key().map_err(|_| Code::Internal)?;
    Ok(Endpoint {
        listing,
        url,
        upstream_auth: None,
        timeout_ms: TIMEOUT_DEFAULT_MS,
        limits: EndpointLimits::default(),
        status: EndpointStatus::Active,
        secret: SigningSecret { key, created_at: now },
        previous_secret: None,
        last_test: None,
        version: 0,
    })
}

impl LimitsInput {
    fn read(f: &mut Fields, request_max: u64) -> Self {
        Self {
            requests_per_second: f.given("requests_per_second", small(1..=RATE_MAX)),
            burst: f.given("burst", small(1..=BURST_MAX)),
            max_concurrency: f.optional("max_concurrency", small(1..=CONCURRENCY_MAX)),
            max_request_bytes: f.optional("max_request_bytes", number(1..=request_max.min(16 * MIB))),
            max_response_bytes: f.optional("max_response_bytes", number(1..=RESPONSE_MAX)),
            requests_per_second_per_buyer: f.given("requests_per_second_per_buyer", small(1..=RATE_MAX)),
        }
    }

    fn apply(&self, limits: &mut EndpointLimits) {
        self.requests_per_second.apply(&mut limits.requests_per_second);
        self.burst.apply(&mut limits.burst);
        self.requests_per_second_per_buyer.apply(&mut limits.requests_per_second_per_buyer);
        limits.max_concurrency = self.max_concurrency.unwrap_or(limits.max_concurrency);
        limits.max_request_bytes = self.max_request_bytes.unwrap_or(limits.max_request_bytes);
        limits.max_response_bytes = self.max_response_bytes.unwrap_or(limits.max_response_bytes);
    }
}

fn read_auth(f: &mut Fields) -> Option<UpstreamAuth> {
    let header = f.required("header", parsed(read_header_name));
    let value = f.required("value", parsed(read_header_value));
    Some(UpstreamAuth { header: header?, value: value? })
}

fn read_header_name(text: &str) -> Result<String, String> {
    let is_name = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let lower = text.to_ascii_lowercase();
    if !is_name {
        return Err("must be 1 to 64 letters, digits and hyphens".into());
    }
    if OWN_HEADERS.contains(&lower.as_str()) || OWN_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err("is a header that the gateway writes itself".into());
    }
    Ok(text.to_string())
}

fn read_header_value(text: &str) -> Result<String, String> {
    let is_value = (1..=4096).contains(&text.len())
        && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        && text.trim() == text;
    if is_value { Ok(text.to_string()) } else { Err("must be 1 to 4096 printable ASCII characters".into()) }
}

/// Reads the body of a rotation: how long the old secret signs along.
pub(crate) fn read_overlap(f: &mut Fields) -> Option<u64> {
    Some(f.optional("overlap_seconds", number(0..=604_800)).unwrap_or(86_400))
}

/// Reads a `pow_nonce` of at most so many characters as the proof of work allows.
pub(crate) fn read_pow_nonce(f: &mut Fields) -> Option<String> {
    f.required("pow_nonce", |value| crate::identity::pow::read_nonce(&exact(1..=64)(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b3_the_gateways_own_headers_cannot_be_taken() {
        for name in
            ["Host", "content-length", "X-Crochet-Signature", "webhook-id", "Proxy-Authorization", "X-Forwarded-For"]
        {
            assert!(read_header_name(name).is_err(), "{name}");
        }
        for name in ["", "a b", "a:b", "a_b", "é", "a\r\nb"] {
            assert!(read_header_name(name).is_err(), "{name}");
        }
        assert_eq!(read_header_name("Authorization"), Ok("Authorization".into()));
        for value in ["", " a", "a ", "a\r\nHost: x", "é"] {
            assert!(read_header_value(value).is_err(), "{value}");
        }
        assert_eq!(read_header_value("Bearer a b"), Ok("Bearer a b".into()));
    }
}
