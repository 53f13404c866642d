//! A refusal is an answer that says no, why, and what next. Every public code stands here once, in one table; both
//! doors render it, and nothing but a refusal can reach a client as an error.

use std::{
    borrow::Cow,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Map, Value};
use storage::{StoreError, model::PaymentState};

/// When a store that does not confirm may be asked again.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// Who failed: a metric label and a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The one who asked.
    Buyer,
    /// The seller behind the listing.
    Seller,
    /// We.
    Gateway,
    /// The payment provider.
    Provider,
}

impl Blame {
    /// The label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Buyer => "buyer",
            Self::Seller => "seller",
            Self::Gateway => "gateway",
            Self::Provider => "provider",
        }
    }
}

/// Whether the seller was called; `None` in the answer means that it cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SellerCalled {
    /// Not a byte reached it.
    #[default]
    No,
    /// It was.
    Yes,
    /// It may have been.
    Unknown,
}

/// What one code means: the row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The code on the wire.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The stable literal that a program acts on.
    pub next_action: &'static str,
    /// Whether the same request may be sent again as it is.
    pub retryable: bool,
    /// Who failed.
    pub blame: Blame,
    /// What happened, for people.
    pub message: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal $code:literal, $next:literal, $retry:literal, $blame:ident, $message:literal;)*) => {
        /// Every public code. Adding one is one line here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* #[doc = $message] $name),* }

        impl Code {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// What it means.
            #[must_use]
            pub fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        code: $code, status: $status, next_action: $next, retryable: $retry, blame: Blame::$blame,
                        message: $message,
                    }),*
                }
            }
        }
    };
}

codes! {
    // The request itself.
    InvalidRequest = 400 "INVALID_REQUEST", "fix_request", false, Buyer, "The request is not well-formed.";
    InvalidJson = 400 "INVALID_JSON", "fix_request", false, Buyer, "The body is not one well-formed JSON value.";
    ValidationFailed = 422 "VALIDATION_FAILED", "fix_request", false, Buyer, "Some fields are missing, unknown or out of range; details.fields names them.";
    NotFound = 404 "NOT_FOUND", "fix_request", false, Buyer, "There is nothing here by that name.";
    MethodNotAllowed = 405 "METHOD_NOT_ALLOWED", "fix_request", false, Buyer, "The route does not take this method.";
    UnsupportedMediaType = 415 "UNSUPPORTED_MEDIA_TYPE", "fix_request", false, Buyer, "Send the body uncompressed, with Content-Type: application/json.";
    MisdirectedRequest = 421 "MISDIRECTED_REQUEST", "fix_request", false, Buyer, "This host is not served here.";
    RequestTimeout = 408 "REQUEST_TIMEOUT", "fix_request", true, Buyer, "The request did not arrive in time.";
    PayloadTooLarge = 413 "PAYLOAD_TOO_LARGE", "fix_request", false, Buyer, "The body is larger than allowed.";
    ExpectationFailed = 417 "EXPECTATION_FAILED", "fix_request", false, Buyer, "Only Expect: 100-continue is understood.";
    HeadersTooLarge = 431 "HEADERS_TOO_LARGE", "fix_request", false, Buyer, "The request's head is too large or has too many fields.";
    // Who asks.
    Unauthenticated = 401 "UNAUTHENTICATED", "use_valid_api_key", false, Buyer, "No valid API key was given.";
    ScopeRequired = 403 "SCOPE_REQUIRED", "request_scope", false, Buyer, "The API key lacks the scope that this route needs.";
    ProfileSuspended = 403 "PROFILE_SUSPENDED", "contact_support", false, Buyer, "The profile is suspended.";
    Forbidden = 403 "FORBIDDEN", "fix_request", false, Buyer, "Only the owner may do this.";
    CsrfRequired = 403 "CSRF_REQUIRED", "fix_request", false, Buyer, "A change by session needs our Origin and the X-CSRF-Token that GET /me tells.";
    SessionRequired = 401 "SESSION_REQUIRED", "fix_request", false, Buyer, "Only a human who is signed in may do this; no valid session was given.";
    LoginFailed = 401 "LOGIN_FAILED", "fix_request", false, Buyer, "The e-mail address or the password is wrong.";
    RateLimited = 429 "RATE_LIMITED", "wait_and_retry", true, Buyer, "Too many requests; wait and send it again.";
    PowInvalid = 400 "POW_INVALID", "request_new_challenge", false, Buyer, "The proof of work does not have enough leading zeros.";
    ChallengeInvalid = 401 "CHALLENGE_INVALID", "request_new_challenge", false, Buyer, "The challenge was not issued for this wallet, purpose and profile.";
    ChallengeExpired = 401 "CHALLENGE_EXPIRED", "request_new_challenge", false, Buyer, "The challenge has expired.";
    ChallengeAlreadyUsed = 401 "CHALLENGE_ALREADY_USED", "request_new_challenge", false, Buyer, "The challenge was used before.";
    SignatureInvalid = 401 "SIGNATURE_INVALID", "request_new_challenge", false, Buyer, "The signature is not this wallet's over the challenge's message.";
    ContractWalletUnsupported = 422 "CONTRACT_WALLET_UNSUPPORTED", "fix_request", false, Buyer, "Contract wallets cannot be verified here.";
    WalletAlreadyRegistered = 409 "WALLET_ALREADY_REGISTERED", "recover_account", false, Buyer, "The wallet belongs to a profile; recover that account instead.";
    WalletNotRegistered = 404 "WALLET_NOT_REGISTERED", "register", false, Buyer, "The wallet belongs to no profile; register it.";
    WalletAlreadyLinked = 409 "WALLET_ALREADY_LINKED", "fix_request", false, Buyer, "The wallet is linked to a profile already.";
    WalletWouldStrandProfile = 409 "WALLET_WOULD_STRAND_PROFILE", "fix_request", false, Buyer, "The profile would have no active wallet left that can recover it.";
    AlreadyClaimed = 409 "ALREADY_CLAIMED", "fix_request", false, Buyer, "The agent has been claimed.";
    PayoutWalletRequired = 409 "PAYOUT_WALLET_REQUIRED", "fix_request", false, Buyer, "A paid listing needs an active wallet that can be paid out to.";
    Conflict = 409 "CONFLICT", "fix_request", false, Buyer, "What stands there does not allow this, or somebody else changed it at the same time.";
    // What is offered.
    ListingUnavailable = 409 "LISTING_UNAVAILABLE", "choose_another_listing", false, Seller, "The listing is not active or has no endpoint.";
    SelfCallForbidden = 403 "SELF_CALL_FORBIDDEN", "choose_another_listing", false, Buyer, "A seller cannot buy from itself.";
    // The money.
    PaymentRequired = 402 "PAYMENT_REQUIRED", "complete_payment_then_retry", false, Buyer, "Complete payment, then retry this gateway call with X-Crochet-Relay-Request-Id.";
    PaymentRouteMinimumNotMet = 400 "PAYMENT_ROUTE_MINIMUM_NOT_MET", "retry_with_solana_payment_route", false, Buyer, "This payment route cannot support the listing's low per-call price.";
    PaymentRouteUnavailable = 422 "PAYMENT_ROUTE_UNAVAILABLE", "fix_request", false, Provider, "The payment cannot be made on this route.";
    PaymentFailed = 402 "PAYMENT_FAILED", "request_new_payment", false, Buyer, "That payment did not succeed; here is a fresh quote.";
    PaymentUnderpaid = 402 "PAYMENT_UNDERPAID", "request_new_payment", false, Buyer, "Less than the price arrived; it is owed back to you, and here is a fresh quote.";
    PaymentExpired = 402 "PAYMENT_EXPIRED", "request_new_payment", false, Buyer, "The quote expired unpaid; here is a fresh one. Money that still comes is honoured.";
    PaymentNotFound = 404 "PAYMENT_NOT_FOUND", "request_new_payment", false, Buyer, "The profile has no such payment.";
    PaymentRequestMismatch = 409 "PAYMENT_REQUEST_MISMATCH", "send_identical_body", false, Buyer, "The payment was made for another listing or body.";
    PaymentInProgress = 409 "PAYMENT_IN_PROGRESS", "wait_and_retry", true, Gateway, "The payment is being used by another request.";
    PaymentClosed = 409 "PAYMENT_CLOSED", "request_new_payment", false, Buyer, "The payment was given back and cannot be used.";
    PaymentProviderUnavailable = 503 "PAYMENT_PROVIDER_UNAVAILABLE", "retry_same_payment", true, Provider, "The payment provider does not answer; nothing is lost.";
    IdempotencyKeyReused = 422 "IDEMPOTENCY_KEY_REUSED", "fix_request", false, Buyer, "The Idempotency-Key names another purchase.";
    TooManyOpenQuotes = 429 "TOO_MANY_OPEN_QUOTES", "wait_and_retry", true, Buyer, "Too many unpaid quotes are open.";
    PriceAboveMaximum = 409 "PRICE_ABOVE_MAXIMUM", "choose_another_listing", false, Buyer, "The price is above X-Crochet-Max-Price-Micros.";
    SpendLimitExceeded = 403 "SPEND_LIMIT_EXCEEDED", "choose_another_listing", false, Buyer, "The API key may not agree to this price.";
    ResultNotKept = 410 "RESULT_NOT_KEPT", "contact_seller", false, Gateway, "The call was completed; its answer is no longer kept.";
    // What is thought of it.
    ReviewNotEligible = 403 "REVIEW_NOT_ELIGIBLE", "fix_request", false, Buyer, "This profile may not review this listing; details.reason says why.";
    ReviewAlreadyExists = 409 "REVIEW_ALREADY_EXISTS", "fix_request", false, Buyer, "This profile has reviewed the listing before.";
    // The seller.
    SellerBusy = 503 "SELLER_BUSY", "wait_and_retry", true, Seller, "The seller takes no more calls right now.";
    SellerCircuitOpen = 503 "SELLER_CIRCUIT_OPEN", "wait_and_retry", true, Seller, "The seller's endpoint has failed too often; it is given a pause.";
    SellerPaused = 503 "SELLER_PAUSED", "wait_and_retry", true, Seller, "The seller has paused the endpoint.";
    SellerUnreachable = 502 "SELLER_UNREACHABLE", "retry_same_payment", true, Seller, "The seller could not be reached.";
    SellerError = 502 "SELLER_ERROR", "retry_same_payment", true, Seller, "The seller failed.";
    SellerRedirected = 502 "SELLER_REDIRECTED", "retry_same_payment", true, Seller, "The seller answered with a redirect, which is never followed.";
    SellerInvalidResponse = 502 "SELLER_INVALID_RESPONSE", "retry_same_payment", true, Seller, "The seller's answer was too large, broken, or not what it said.";
    SellerTimeout = 504 "SELLER_TIMEOUT", "retry_same_payment", true, Seller, "The seller did not answer in time.";
    // Ours.
    Overloaded = 503 "OVERLOADED", "wait_and_retry", true, Gateway, "The gateway is at its limit.";
    StoreUnavailable = 503 "STORE_UNAVAILABLE", "retry_same_request", true, Gateway, "The store does not confirm; nothing is lost.";
    Internal = 500 "INTERNAL", "retry_same_request", true, Gateway, "Something broke on our side.";
}

/// An answer that says no.
#[derive(Clone, Debug)]
pub struct Refusal {
    code: Code,
    seller_called: SellerCalled,
    payment_state: Option<&'static str>,
    retry_after: Option<Duration>,
    more: Option<Box<More>>,
}

/// What only some refusals say; boxed, so that the others are small.
#[derive(Clone, Debug, Default)]
struct More {
    message: Option<Cow<'static, str>>,
    next_action: Option<&'static str>,
    details: Map<String, Value>,
    recovery: Map<String, Value>,
    data: Option<Value>,
    prepared: Option<Bytes>,
    headers: Vec<(&'static str, Arc<str>)>,
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self { code, seller_called: SellerCalled::No, payment_state: None, retry_after: None, more: None }
    }
}

/// The one place where a fault of the store becomes an answer.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                tracing::warn!(%reason, "store unavailable");
                Self::from(Code::StoreUnavailable).retry_about(STORE_PAUSE)
            }
            StoreError::Unknown(reason) => {
                tracing::error!(%reason, "store did not confirm");
                Self::from(Code::StoreUnavailable).retry_about(STORE_PAUSE)
            }
            StoreError::Corrupt(reason) => {
                tracing::error!(%reason, "store is damaged");
                Self::from(Code::Internal)
            }
        }
    }
}

impl Refusal {
    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Which one it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.code.row().status
    }

    /// When to come back, if it says.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|after| after.as_millis().div_ceil(1000).max(1) as u64)
    }

    /// The same answer for another reason.
    #[must_use]
    pub fn because(mut self, code: Code) -> Self {
        self.code = code;
        self
    }

    /// Says more exactly what happened. Never a secret, a private address or the caller's own bytes unescaped.
    #[must_use]
    pub fn message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.more().message = Some(message.into());
        self
    }

    /// Says whether the seller was called.
    #[must_use]
    pub fn seller_called(mut self, called: SellerCalled) -> Self {
        self.seller_called = called;
        self
    }

    /// Says where the money is.
    #[must_use]
    pub fn payment_state(mut self, state: PaymentState) -> Self {
        self.payment_state = Some(state.name());
        self
    }

    /// Says that a quote was not paid in time.
    #[must_use]
    pub fn payment_expired(mut self) -> Self {
        self.payment_state = Some("expired");
        self
    }

    /// Says that there is no payment, unless something was said of one.
    #[must_use]
    pub fn or_no_payment(mut self) -> Self {
        self.payment_state.get_or_insert("none");
        self
    }

    /// Says that it cannot be told where the money is, unless something was said of it. It is where it was.
    #[must_use]
    pub fn or_payment_unknown(mut self) -> Self {
        self.payment_state.get_or_insert("unknown");
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Says when to come back, a fifth sooner or later: those who were refused together do not come back together.
    #[must_use]
    pub fn retry_about(self, after: Duration) -> Self {
        self.retry_after(after * 4 / 5 + after * SPREAD.next() * 2 / 5 / u32::from(u8::MAX))
    }

    /// Says when to come back, up to a fifth later than `after` and never sooner: before it, the answer is the same.
    #[must_use]
    pub fn retry_no_sooner(self, after: Duration) -> Self {
        self.retry_after(after + after * SPREAD.next() / 5 / u32::from(u8::MAX))
    }

    /// Says to do something else than the code's row says.
    #[must_use]
    pub fn next_action(mut self, next_action: &'static str) -> Self {
        self.more().next_action = Some(next_action);
        self
    }

    /// Adds a field to `details`.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more().details.insert(name.to_string(), value.into());
        self
    }

    /// Adds a field to `recovery`.
    #[must_use]
    pub fn recovery(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more().recovery.insert(name.to_string(), value.into());
        self
    }

    /// Adds `data` beside `error`, as a 402 has it.
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.more().data = Some(data);
        self
    }

    /// Uses a body that was rendered before: the same answer to the same question, again and again.
    #[must_use]
    pub fn prepared(mut self, body: Bytes) -> Self {
        self.more().prepared = Some(body);
        self
    }

    /// Adds a header to the answer; the last of a name counts.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Arc<str>>) -> Self {
        let headers = &mut self.more().headers;
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value.into()));
        self
    }

    /// The headers that only this answer has.
    #[must_use]
    pub fn headers(&self) -> &[(&'static str, Arc<str>)] {
        self.more.as_deref().map_or(&[], |more| &more.headers)
    }

    /// A field of a request that is wrong; several calls name several fields.
    #[must_use]
    pub fn field(mut self, name: &str, reason: &str) -> Self {
        let fields = self.more().details.entry("fields").or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(fields) = fields {
            fields.insert(name.to_string(), Value::from(reason));
        }
        self
    }

    /// The body: the envelope with `error`, its `recovery` and, if any, `data`. `site` is the public URL without a
    /// slash at its end.
    #[must_use]
    pub fn body(&self, site: &str) -> Bytes {
        let nothing = More::default();
        let more = self.more.as_deref().unwrap_or(&nothing);
        if let Some(prepared) = &more.prepared {
            return prepared.clone();
        }
        let row = self.code.row();
        let mut out = String::with_capacity(768);
        out.push_str("{\"success\":false,\"error\":{\"code\":\"");
        out.push_str(row.code);
        out.push_str("\",\"message\":");
        push_json(&mut out, more.message.as_deref().unwrap_or(row.message));
        out.push_str(",\"details\":{\"seller_endpoint_called\":");
        out.push_str(match self.seller_called {
            SellerCalled::No => "false",
            SellerCalled::Yes => "true",
            SellerCalled::Unknown => "null",
        });
        if let Some(state) = self.payment_state {
            let _ = write!(out, ",\"payment_state\":\"{state}\"");
        }
        push_fields(&mut out, &more.details);
        let next_action = more.next_action.unwrap_or(row.next_action);
        let _ = write!(out, "}},\"recovery\":{{\"retryable\":{},\"next_action\":\"{next_action}\"", row.retryable);
        if let Some(seconds) = self.retry_after_seconds() {
            let _ = write!(out, ",\"retry_after_seconds\":{seconds}");
        }
        push_fields(&mut out, &more.recovery);
        out.push_str(",\"docs_url\":");
        push_json(&mut out, site);
        out.pop();
        let _ = write!(out, "/docs/errors#{}\"}}}}", row.code);
        if let Some(data) = &more.data {
            let _ = write!(out, ",\"data\":{data}");
        }
        out.push('}');
        out.into()
    }
}

/// Spreads what many are told at once. Nothing secret hangs on it, so it need not cost a system call.
struct Spread(AtomicU64);

static SPREAD: Spread = Spread(AtomicU64::new(0));

impl Spread {
    /// 0 to 255, evenly (the finish of splitmix64 over a counter).
    fn next(&self) -> u32 {
        let mut mixed = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u32::from((mixed ^ (mixed >> 31)).to_be_bytes()[0])
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn push_json(out: &mut String, text: &str) {
    let _ = write!(out, "{}", Value::from(text));
}

fn push_fields(out: &mut String, fields: &Map<String, Value>) {
    for (name, value) in fields {
        out.push(',');
        push_json(out, name);
        let _ = write!(out, ":{value}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_is_its_own_and_renders_as_json() {
        let mut seen = HashSet::new();
        for code in Code::ALL {
            let row = code.row();
            assert!(seen.insert(row.code), "{} twice", row.code);
            let body = Refusal::from(*code).body("http://127.0.0.1:8080");
            let value: Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(value["error"]["code"], row.code);
            assert_eq!(value["error"]["details"]["seller_endpoint_called"], false);
            assert_eq!(
                value["error"]["recovery"]["docs_url"],
                format!("http://127.0.0.1:8080/docs/errors#{}", row.code)
            );
        }
    }

    #[test]
    fn a_store_that_does_not_answer_is_retried_and_a_damaged_one_is_our_fault() {
        let of = |error: StoreError| Refusal::from(error);
        assert_eq!(of(StoreError::Unavailable("full".into())).code(), Code::StoreUnavailable);
        assert_eq!(of(StoreError::Unknown("cut off".into())).code(), Code::StoreUnavailable);
        let damaged = of(StoreError::Corrupt("a row of 7 bytes".into()));
        assert_eq!((damaged.code(), damaged.status(), damaged.retry_after_seconds()), (Code::Internal, 500, None));
        let body: Value = serde_json::from_slice(&damaged.body("https://x")).expect("JSON");
        assert!(!body.to_string().contains("7 bytes"), "{body}");
    }

    #[test]
    fn all_that_is_added_is_shown() {
        let refusal = Refusal::from(Code::SellerError)
            .message("the \"seller\" failed")
            .seller_called(SellerCalled::Unknown)
            .payment_state(PaymentState::Settled)
            .retry_after(Duration::from_millis(1500))
            .detail("seller_status_code", 500)
            .recovery("preserve", vec!["X-Crochet-Relay-Request-Id"])
            .data(serde_json::json!({"a": 1}));
        let value: Value = serde_json::from_slice(&refusal.body("https://x")).expect("JSON");
        assert_eq!(value["error"]["message"], "the \"seller\" failed");
        assert_eq!(value["error"]["details"]["seller_endpoint_called"], Value::Null);
        assert_eq!(value["error"]["details"]["payment_state"], "settled");
        assert_eq!(value["error"]["details"]["seller_status_code"], 500);
        assert_eq!(value["error"]["recovery"]["retry_after_seconds"], 2);
        assert_eq!(value["error"]["recovery"]["preserve"][0], "X-Crochet-Relay-Request-Id");
        assert_eq!(value["data"]["a"], 1);
    }

    #[test]
    fn those_refused_together_do_not_come_back_together() {
        let second = Duration::from_secs(10);
        let told = |refuse: fn(Refusal, Duration) -> Refusal| {
            let told: Vec<u128> = (0..500)
                .filter_map(|_| refuse(Refusal::from(Code::SellerBusy), second).retry_after)
                .map(|after| after.as_millis())
                .collect();
            let buckets: HashSet<u128> = told.iter().map(|after| after / 200).collect();
            (told.iter().min().copied(), told.iter().max().copied(), buckets.len())
        };
        let (soonest, latest, spread) = told(Refusal::retry_about);
        assert!(soonest.is_some_and(|ms| (8_000..8_200).contains(&ms)), "{soonest:?}");
        assert!(latest.is_some_and(|ms| (11_800..=12_000).contains(&ms)), "{latest:?}");
        assert!(spread >= 20, "{spread}");
        let (soonest, latest, spread) = told(Refusal::retry_no_sooner);
        assert!(soonest.is_some_and(|ms| (10_000..10_100).contains(&ms)), "{soonest:?}");
        assert!(latest.is_some_and(|ms| (11_900..=12_000).contains(&ms)), "{latest:?}");
        assert!(spread >= 10, "{spread}");
    }
}
