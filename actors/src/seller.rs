//! The request that a seller sees: built from a fixed set of headers, signed, never copied from the buyer's. And the
//! trait of the client that sends it, which the proxy implements.

use std::{io::Write as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use storage::model::{Endpoint, GatewayRequestId, ListingId, Micros, ProfileId, UnixMillis};

/// Where a seller's endpoint is, parsed once.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Whose it is: connections are never shared between listings.
    pub listing: ListingId,
    /// TLS or, in dev mode, not.
    pub is_tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What `Host` says: brackets and, unless it is the scheme's own, the port.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

/// The private URL cannot be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint's URL cannot be called")]
pub struct BadTarget;

impl Target {
    /// Takes a private URL apart.
    ///
    /// # Errors
    /// `BadTarget` when it is not an http or https URL with a host.
    pub fn parse(listing: ListingId, url: &str) -> Result<Self, BadTarget> {
        let url = url::Url::parse(url).map_err(|_| BadTarget)?;
        let is_tls = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(BadTarget),
        };
        let shown = url.host_str().filter(|host| !host.is_empty()).ok_or(BadTarget)?.to_string();
        let port = url.port_or_known_default().ok_or(BadTarget)?;
        let authority = url.port().map_or_else(|| shown.clone(), |port| format!("{shown}:{port}"));
        let path = url.query().map_or_else(|| url.path().to_string(), |query| format!("{}?{query}", url.path()));
        let host = shown.trim_start_matches('[').trim_end_matches(']').to_string();
        Ok(Self { listing, is_tls, host, port, authority, path })
    }
}

/// A request for a seller, ready to be sent.
#[derive(Clone)]
pub struct SellerRequest {
    /// Where to.
    pub target: Arc<Target>,
    /// Request line and headers as HTTP/1.1 bytes, with the blank line.
    pub head: Vec<u8>,
    /// The buyer's bytes, unchanged.
    pub body: Bytes,
    /// How long the seller may take until its headers, and between two pieces of its body; also the whole.
    pub timeout: Duration,
}

/// A seller's answer: its head, and a body that comes piece by piece.
pub struct SellerAnswer {
    /// 200 to 599.
    pub status: u16,
    /// As it came; empty when there was none.
    pub content_type: String,
    /// As it came: seconds only.
    pub retry_after: Option<Duration>,
    /// The length, when it is known ahead.
    pub length: Option<u64>,
    /// The version of TLS that it came by; `None`: by none.
    pub tls: Option<&'static str>,
    /// The rest.
    pub body: Box<dyn SellerBody>,
}

/// How calling a seller can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SellerFault {
    /// Not a byte of the request was sent.
    #[error("the seller could not be reached")]
    Unreachable,
    /// It broke off after a byte was sent and before its headers were whole.
    #[error("the seller broke off before answering")]
    BrokenOff,
    /// No headers, or a body that stalled, in time.
    #[error("the seller did not answer in time")]
    TimedOut {
        /// Whether its headers had come.
        answered: bool,
    },
    /// What came is not HTTP, or a body that ended early.
    #[error("the seller's answer is broken")]
    Broken,
}

/// The body of a seller's answer.
#[async_trait]
pub trait SellerBody: Send + Sync {
    /// The next piece; `None` at its proper end. After an error or `None` nothing more comes.
    ///
    /// # Errors
    /// `TimedOut` when it stalls, `Broken` when it ends early or is framed wrongly.
    async fn chunk(&mut self) -> Result<Option<Bytes>, SellerFault>;

    /// Gives the seller so much more time: the buyer held it up.
    fn extend(&mut self, _by: Duration) {}
}

/// Sends a request to a seller: the same way for calls and for tests of an endpoint.
#[async_trait]
pub trait SellerClient: Send + Sync {
    /// Sends once, and never a second time by itself once a byte may have reached the seller.
    ///
    /// # Errors
    /// As [`SellerFault`] says.
    async fn send(&self, request: SellerRequest) -> Result<SellerAnswer, SellerFault>;
}

type HmacSha256 = Hmac<Sha256>;

/// HMAC states that were keyed once: a clone signs.
#[derive(Clone)]
struct PreparedKey(HmacSha256);

impl PreparedKey {
    fn new(key: &[u8; 32]) -> Option<Self> {
        HmacSha256::new_from_slice(key).ok().map(Self)
    }

    fn sign(&self, parts: &[&[u8]]) -> String {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

/// What all requests of one endpoint share, prepared when it changes.
pub struct Signer {
    target: Arc<Target>,
    listing: String,
    fixed: Vec<u8>,
    newest: PreparedKey,
    previous: Option<(PreparedKey, UnixMillis)>,
}

/// What a request tells the seller about itself.
pub struct CallContext<'a> {
    /// The same for every attempt.
    pub request_id: GatewayRequestId,
    /// Who buys.
    pub buyer: ProfileId,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// What is charged.
    pub charged: Micros,
    /// SHA-256 of the body, when it is known already.
    pub body_sha256: &'a [u8; 32],
    /// The buyer's trace, checked.
    pub traceparent: Option<&'a str>,
    /// What the buyer accepts: JSON, or an event stream.
    pub accept: &'a str,
    /// How long the seller has, milliseconds.
    pub deadline_ms: u64,
    /// When.
    pub now: UnixMillis,
    /// A test of the endpoint, not a call.
    pub is_test: bool,
}

impl Signer {
    /// Prepares an endpoint's requests.
    ///
    /// # Errors
    /// `BadTarget` when its URL cannot be called.
    pub fn new(endpoint: &Endpoint) -> Result<Self, BadTarget> {
        let target = Target::parse(endpoint.listing, &endpoint.url)?;
        let mut fixed = Vec::with_capacity(256);
        let _ = write!(
            fixed,
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: Crochet-Gateway/{}\r\nContent-Type: application/json\r\n\
             Accept-Encoding: identity\r\n",
            target.path,
            target.authority,
            env!("CARGO_PKG_VERSION"),
        );
        if let Some(auth) = &endpoint.upstream_auth {
            let _ = write!(fixed, "{}: {}\r\n", auth.header, auth.value);
        }
        let previous = endpoint
            .previous_secret
            .as_ref()
            .and_then(|previous| Some((PreparedKey::new(&previous.secret.key)?, previous.expires_at)));
        Ok(Self {
            target: Arc::new(target),
            listing: endpoint.listing.to_string(),
            fixed,
            newest: PreparedKey::new(&endpoint.secret.key).ok_or(BadTarget)?,
            previous,
        })
    }

    /// Where the requests go.
    #[must_use]
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Request line and headers for `body`, signed with every secret that is in force.
    #[must_use]
    pub fn head(&self, call: &CallContext<'_>, body: &[u8]) -> Vec<u8> {
        let (request_id, buyer) = (call.request_id.to_string(), call.buyer.to_string());
        let mut numbers = [itoa::Buffer::new(); 5];
        let [seconds, attempt, charged, length, deadline] = &mut numbers;
        let (seconds, attempt) = (seconds.format(call.now.seconds()), attempt.format(call.attempt));
        let (charged, deadline) = (charged.format(call.charged.0), deadline.format(call.deadline_ms));
        let sha256 = hex::encode(call.body_sha256);
        let parts = ["v2", &request_id, seconds, &self.listing, &buyer, attempt, charged, &sha256];
        let covered = parts.join(".");
        let sign = |key: &PreparedKey| {
            let v1 = key.sign(&[request_id.as_bytes(), b".", seconds.as_bytes(), b".", body]);
            (v1, key.sign(&[covered.as_bytes()]))
        };
        let (v1, v2) = sign(&self.newest);
        let mut standard = ["v1,", &v1].concat();
        let mut crochet = ["v1,", &v1, " v2,", &v2].concat();
        if let Some((previous, expires_at)) = &self.previous
            && call.now < *expires_at
        {
            let (v1, v2) = sign(previous);
            standard.extend([" v1,", &v1]);
            crochet.extend([" v1,", &v1, " v2,", &v2]);
        }
        let mut head = Vec::with_capacity(self.fixed.len() + 1024);
        head.extend_from_slice(&self.fixed);
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                head.extend_from_slice(part.as_bytes());
            }
        };
        field("Content-Length", length.format(body.len()));
        field("Accept", call.accept);
        field("X-Crochet-Request-Id", &request_id);
        field("X-Crochet-Timestamp", seconds);
        field("X-Crochet-Signature", &crochet);
        field("webhook-id", &request_id);
        field("webhook-timestamp", seconds);
        field("webhook-signature", &standard);
        field("X-Crochet-Listing-Id", &self.listing);
        field("X-Crochet-Buyer-Id", &buyer);
        field("X-Crochet-Attempt", attempt);
        field("X-Crochet-Charged-Micros", charged);
        field("X-Crochet-Deadline-Ms", deadline);
        if let Some(trace) = call.traceparent {
            field("traceparent", trace);
        }
        if call.is_test {
            field("X-Crochet-Test", "true");
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

/// A new signing secret's 32 random bytes.
///
/// # Errors
/// When the system has no randomness.
pub fn new_secret_key() -> Result<[u8; 32], getrandom::Error> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    Ok(key)
}

/// A signing secret as its owner sees it, once: `whsec_` and base64.
#[must_use]
pub fn shown_secret(key: &[u8; 32]) -> String {
    format!("whsec_{}", STANDARD.encode(key))
}

#[cfg(test)]
mod tests {
    use storage::model::{EndpointLimits, EndpointStatus, PreviousSecret, SigningSecret};

    use super::*;

    fn endpoint(now: UnixMillis) -> Endpoint {
        Endpoint {
            listing: ListingId::mint(now),
            url: "http://127.0.0.1:9/work?x=1".into(),
            upstream_auth: None,
            timeout_ms: 1000,
            limits: EndpointLimits::default(),
            status: EndpointStatus::Active,
            secret: SigningSecret { key: [7; 32], created_at: now },
            previous_secret: None,
            last_test: None,
            version: 0,
        }
    }

    fn header(head: &[u8], name: &str) -> String {
        let text = String::from_utf8(head.to_vec()).expect("text");
        let line = text.split("\r\n").find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_string));
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    fn call(now: UnixMillis) -> CallContext<'static> {
        CallContext {
            request_id: GatewayRequestId::mint(now),
            buyer: ProfileId::mint(now),
            attempt: 1,
            charged: Micros(1_000_000),
            body_sha256: &[3; 32],
            traceparent: None,
            accept: "application/json",
            deadline_ms: 1000,
            now,
            is_test: false,
        }
    }

    #[test]
    fn both_signatures_are_what_the_contract_says() {
        let now = UnixMillis(1_795_500_623_007);
        let (endpoint, call) = (endpoint(now), call(now));
        let head = Signer::new(&endpoint).expect("good").head(&call, b"{}");
        let mac = |text: String| {
            let mut mac = HmacSha256::new_from_slice(&[7; 32]).expect("key");
            mac.update(text.as_bytes());
            STANDARD.encode(mac.finalize().into_bytes())
        };
        let v1 = mac(format!("{}.1795500623.{{}}", call.request_id));
        let v2 = mac(format!(
            "v2.{}.1795500623.{}.{}.1.1000000.{}",
            call.request_id,
            endpoint.listing,
            call.buyer,
            "03".repeat(32)
        ));
        assert_eq!(header(&head, "X-Crochet-Signature"), format!("v1,{v1} v2,{v2}"));
        assert_eq!(header(&head, "webhook-signature"), format!("v1,{v1}"));
        assert!(head.starts_with(b"POST /work?x=1 HTTP/1.1\r\nHost: 127.0.0.1:9\r\n"));
    }

    #[test]
    fn a_rotation_signs_twice_newest_first_until_it_ends() {
        let now = UnixMillis(1_000_000);
        let mut endpoint = endpoint(now);
        let old = SigningSecret { key: [9; 32], created_at: now };
        endpoint.previous_secret = Some(PreviousSecret { secret: old, expires_at: UnixMillis(2_000_000) });
        let signer = Signer::new(&endpoint).expect("good");
        let mut call = call(now);
        let during = header(&signer.head(&call, b"{}"), "X-Crochet-Signature");
        let kinds: Vec<&str> = during.split(' ').map(|part| &part[..2]).collect();
        assert_eq!(kinds, ["v1", "v2", "v1", "v2"]);
        call.now = UnixMillis(2_000_000);
        let after = header(&signer.head(&call, b"{}"), "X-Crochet-Signature");
        assert_eq!(after.split(' ').count(), 2);
    }

    #[test]
    fn only_http_urls_with_a_host_are_targets() {
        let listing = ListingId::mint(UnixMillis(0));
        let target = Target::parse(listing, "https://[2001:db8::1]:8443/a").expect("good");
        assert_eq!((target.host.as_str(), target.authority.as_str()), ("2001:db8::1", "[2001:db8::1]:8443"));
        for url in ["ftp://a/", "data:x", "/a", "http://", ""] {
            assert_eq!(Target::parse(listing, url).err(), Some(BadTarget), "{url}");
        }
    }
}
