//! ONE call, top to bottom. Cheap checks before dear ones; a paid request is looked up before anything can refuse it;
//! nothing reaches the seller without a permit and an entitlement.

use std::time::Duration;

use actors::{
    keys::bearer,
    listing::{Ask, ClaimFound, Entitlement, PaymentFound, SignedFound},
    refusal::{Code, Refusal},
};
use serde_json::json;
use storage::model::{Micros, Payment, Scope};

use crate::{
    body::RequestBody,
    gateway::Gateway,
    http1::head::{Head, Header},
    json_check::is_json,
    reply::{Reply, ResponseSink},
    trace::{Ended, Phase, Trace},
};

/// The longest `Prefer: wait=`, in seconds.
const WAIT_MAX: u64 = 30;

/// What a call comes to.
pub(crate) enum Answer {
    /// An answer to be written as a whole.
    Whole(Reply),
    /// An answer that was written on the way.
    Streamed,
}

impl Gateway {
    /// The table of checks, one line a row.
    pub(crate) async fn call<B: RequestBody, S: ResponseSink>(
        &self,
        head: &Head,
        name: &str,
        body: &mut B,
        out: &mut S,
        trace: &mut Trace,
    ) -> Result<Answer, Refusal> {
        let wishes = Wishes::read(head)?; // 1
        let key = bearer(head.header(Header::Authorization))?;
        let caller = self.actors.keys().caller(key.as_bytes()).await?; // 2
        caller.require(Scope::Gateway)?; // 3
        out.caller_known();
        trace.called_by(caller.profile.id);
        self.actors.limits().check_buyer(&caller.rate)?; // 4
        trace.spent_on(Phase::Auth);
        let listing = self.actors.directory().listing(name).await?; // 5
        trace.calls(listing.terms().listing.id);
        trace.spent_on(Phase::Actor);
        let limit = match wishes.payment_id {
            Some(_) => self.config.proxy.request_max_bytes,
            None => self.config.proxy.request_max_bytes.min(listing.request_max_bytes()),
        };
        let body = body.read(limit).await?; // 6
        if !is_json(&body.bytes) {
            return Err(Code::InvalidJson.into());
        }
        trace.skip();
        let ask = Ask {
            caller: &caller,
            body_sha256: body.sha256,
            body_bytes: body.bytes.len() as u64,
            payment_id: wishes.payment_id,
            signature: wishes.signature,
            idempotency_key: wishes.idempotency_key,
            origin_currency: wishes.origin_currency,
            max_price: wishes.max_price,
            wait: wishes.wait,
        };
        let found = listing.payment(&ask).await?; // 7, 10
        trace.spent_on(Phase::Payment);
        let (permit, right) = match found {
            PaymentFound::Replay(payment) => return self.replay(&payment, out, trace).await,
            PaymentFound::Pending(payment, after) => return Ok(pending(&payment, after, trace)),
            PaymentFound::None if listing.is_free() => {
                let permit = listing.admit_free(&caller).await?; // 8, 11
                match listing.claim_free(&ask, &permit).await? {
                    Some(ClaimFound::Claim(claim)) => {
                        trace.paid_over(claim.payment());
                        (permit, Entitlement::Paid(claim)) // 12, with a key
                    }
                    Some(ClaimFound::Replay(payment)) => return self.replay(&payment, out, trace).await,
                    None => {
                        let right = self.actors.free_right(&permit, &caller, ask.body_bytes);
                        (permit, Entitlement::Free(right))
                    }
                }
            }
            PaymentFound::Unkept(payment) => {
                trace.is_request(payment.quote.gateway_request_id(), 0);
                trace.paid_over(&payment);
                let permit = listing.admit_again(&payment).await?; // 11
                let right = listing.resend(&permit, &payment).await?; // 12: once
                (permit, Entitlement::Again(right))
            }
            PaymentFound::None => {
                let (payment, after) = listing.offer(&ask).await?; // 8, 9: the 402
                return Ok(pending(&payment, after, trace));
            }
            PaymentFound::Signed(signed) => {
                trace.is_request(signed.payment().quote.gateway_request_id(), 0);
                trace.paid_over(signed.payment());
                let permit = listing.admit_signed(&signed).await?; // 8, 11: before anything is taken from a wallet
                trace.spent_on(Phase::Actor);
                match listing.settle_signed(&ask, signed, &permit).await? {
                    SignedFound::Pending(payment, after) => return Ok(pending(&payment, after, trace)),
                    SignedFound::Claim(found) => match *found {
                        ClaimFound::Claim(claim) => {
                            trace.paid_over(claim.payment());
                            (permit, Entitlement::Paid(claim)) // 10, 12
                        }
                        ClaimFound::Replay(payment) => return self.replay(&payment, out, trace).await,
                    },
                }
            }
            PaymentFound::Settled(ready) => {
                trace.is_request(ready.payment().quote.gateway_request_id(), 0);
                trace.paid_over(ready.payment());
                let permit = listing.admit_paid(&ready).await?; // 11
                trace.spent_on(Phase::Actor);
                match ready.settle_and_claim(&permit, ask.body_bytes).await? {
                    ClaimFound::Claim(claim) => {
                        trace.paid_over(claim.payment());
                        (permit, Entitlement::Paid(claim)) // 12
                    }
                    ClaimFound::Replay(payment) => return self.replay(&payment, out, trace).await,
                }
            }
        };
        trace.is_request(right.request_id(), right.attempt());
        trace.spent_on(Phase::Store);
        let seller = self.forward(&permit, &right, &caller, &body, &wishes).await; // 13
        trace.seller_began();
        self.finish(permit, right, seller, &wishes, out, trace).await
    }
}

/// What the head of a call says beside its key.
pub(crate) struct Wishes<'a> {
    pub(crate) payment_id: Option<&'a str>,
    pub(crate) signature: Option<&'a str>,
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) origin_currency: Option<&'a str>,
    pub(crate) max_price: Option<Micros>,
    pub(crate) wait: Duration,
    pub(crate) traceparent: Option<&'a str>,
    /// Events may be passed on as they come.
    pub(crate) takes_events: bool,
    pub(crate) accept: &'static str,
}

impl<'a> Wishes<'a> {
    fn read(head: &'a Head) -> Result<Self, Refusal> {
        // Only a gateway signs so: what it sent to a seller has come back as a call.
        if head.header(Header::CrochetSignature).is_some() {
            let refusal = Refusal::from(Code::InvalidRequest);
            return Err(refusal.message("This request was sent by a gateway already: a listing leads back here."));
        }
        let idempotency_key = head.header(Header::IdempotencyKey);
        let is_good = |key: &str| (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        if idempotency_key.is_some_and(|key| !is_good(key)) {
            let refusal = Refusal::from(Code::InvalidRequest);
            return Err(refusal.message("Idempotency-Key must be 1 to 255 visible ASCII characters."));
        }
        let max_price = match head.header(Header::MaxPriceMicros) {
            None => None,
            Some(text) => Some(text.parse().ok().filter(|micros| *micros >= 0).map(Micros).ok_or_else(|| {
                Refusal::from(Code::InvalidRequest).message("X-Crochet-Max-Price-Micros must be a whole number.")
            })?),
        };
        let takes_events = head.header(Header::Accept).is_some_and(accepts_events);
        Ok(Self {
            payment_id: head.header(Header::RelayRequestId),
            signature: head.header(Header::PaymentSignature),
            idempotency_key,
            origin_currency: head.header(Header::OriginCurrency),
            max_price,
            wait: head.header(Header::Prefer).map_or(Duration::ZERO, preferred_wait),
            traceparent: head.header(Header::Traceparent).filter(|text| is_traceparent(text)),
            takes_events,
            accept: if takes_events {
                "text/event-stream, application/json;q=0.9"
            } else {
                "application/json, */*;q=0.1"
            },
        })
    }
}

/// Whether `Accept` names streams of events, with another weight than none.
fn accepts_events(accept: &str) -> bool {
    accept.split(',').any(|part| {
        let (essence, parameters) = part.split_once(';').unwrap_or((part, ""));
        let is_refused = parameters
            .split(';')
            .filter_map(|parameter| parameter.trim().strip_prefix("q="))
            .any(|q| q.bytes().all(|b| matches!(b, b'0' | b'.')));
        essence.trim().eq_ignore_ascii_case("text/event-stream") && !is_refused
    })
}

fn preferred_wait(prefer: &str) -> Duration {
    let wait = prefer.split(',').find_map(|part| part.trim().strip_prefix("wait="));
    Duration::from_secs(wait.and_then(|seconds| seconds.parse().ok()).unwrap_or(0).min(WAIT_MAX))
}

/// The form of W3C Trace Context: `00-` and 32, 16 and 2 lower-case hex digits.
fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [2, 32, 16, 2] && parts.iter().all(|part| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// The 202: paid or not, the rail has nothing final yet.
fn pending(payment: &Payment, after: Duration, trace: &mut Trace) -> Answer {
    let id = payment.quote.gateway_request_id();
    trace.is_request(id, 0);
    trace.paid_over(payment);
    trace.ended(Ended::Pending, Micros::ZERO);
    let seconds = after.as_millis().div_ceil(1000).max(1);
    let seconds = u64::try_from(seconds).unwrap_or(1);
    let body = json!({"success": true, "data": {
        "status": "pending", "retryable": true, "retry_after_seconds": seconds,
        "relay_request_id": payment.quote.id.to_string(),
    }});
    let reply = Reply::json(202, body.to_string())
        .header("Retry-After", seconds.to_string())
        .header("X-Crochet-Request-Id", id.to_string());
    Answer::Whole(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefer_wait_is_bounded() {
        assert_eq!(preferred_wait("wait=5"), Duration::from_secs(5));
        assert_eq!(preferred_wait("respond-async, wait=500"), Duration::from_secs(30));
        assert_eq!(preferred_wait("wait=-1"), Duration::ZERO);
        assert_eq!(preferred_wait("handling=strict"), Duration::ZERO);
    }

    #[test]
    fn events_are_taken_by_those_who_name_them() {
        for accept in ["text/event-stream", "application/json, Text/Event-Stream;q=0.5", "text/event-stream; q=1"] {
            assert!(accepts_events(accept), "{accept}");
        }
        for accept in ["", "*/*", "text/*", "text/event-streams", "text/event-stream;q=0", "text/event-stream; q=0.0"] {
            assert!(!accepts_events(accept), "{accept}");
        }
    }

    #[test]
    fn traceparent_by_form() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        for text in ["", "00-0af7", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x\r\ny"] {
            assert!(!is_traceparent(text), "{text:?}");
        }
    }
}
