//! One request at the public address: a gateway call, or something for the control API.

use std::{net::SocketAddr, sync::Arc};

use actors::{
    Actors,
    payments::x402::wire::RESPONSE_HEADER,
    refusal::{Code, Refusal},
};
use config::Config;

use crate::{
    body::{Budget, RequestBody},
    call::Answer,
    http1::head::{Head, Header},
    passthrough::Passthrough,
    reply::{Reply, ReplyHeader, ResponseSink},
    telemetry::Telemetry,
    trace::Trace,
};

/// Where calls live.
const CALLS: &str = "/api/v1/gateway/";

/// What every connection of the public address shares.
pub struct Gateway {
    /// Who decides.
    pub actors: Actors,
    /// The knobs.
    pub config: Arc<Config>,
    /// The public URL without a slash at its end.
    pub site: String,
    /// The memory that held bodies and answers share.
    pub budget: Arc<Budget>,
    /// The way to the control API.
    pub passthrough: Passthrough,
    /// Metrics and the line a call.
    pub telemetry: Telemetry,
}

impl Gateway {
    /// What an answer says of the transfer that paid for it.
    pub(crate) fn payment_response(&self, trace: &Trace, is_delivered: bool) -> Option<ReplyHeader> {
        let (evidence, listing) = trace.settlement()?;
        Some((RESPONSE_HEADER, self.actors.payment_response(evidence, listing, is_delivered)?.into()))
    }
}

/// Answers one request, whatever it is. An answer is always given, unless the client is gone.
pub async fn handle<B: RequestBody, S: ResponseSink>(
    gateway: &Gateway,
    head: &Head,
    body: &mut B,
    out: &mut S,
    peer: SocketAddr,
) {
    match head.path().strip_prefix(CALLS) {
        Some(listing) if !listing.is_empty() && !listing.contains('/') => {
            answer_call(gateway, head, listing, body, out, peer).await;
        }
        _ => gateway.passthrough.pass(head, body, out, peer).await,
    }
}

async fn answer_call<B: RequestBody, S: ResponseSink>(
    gateway: &Gateway,
    head: &Head,
    listing: &str,
    body: &mut B,
    out: &mut S,
    peer: SocketAddr,
) {
    let mut trace = Trace::begin();
    let running = gateway.telemetry.call_began();
    let result = match check_route(head) {
        Ok(()) => gateway.call(head, listing, body, out, &mut trace).await,
        Err(refusal) => Err(refusal),
    };
    let result = result.map_err(|refusal| count_guess(gateway, refusal, peer));
    let reply = match result {
        Ok(Answer::Whole(reply)) => Some(reply),
        Ok(Answer::Streamed) => None,
        Err(refusal) => {
            let refusal = complete_refusal(refusal, head);
            trace.refused(&refusal);
            let mut reply = Reply::refusal(&refusal, &gateway.site);
            if let Some(id) = trace.request_id() {
                reply = reply.header("X-Crochet-Request-Id", id.to_string());
            }
            Some(reply)
        }
    };
    if let Some(mut reply) = reply {
        reply.headers.extend(gateway.payment_response(&trace, reply.status == 200));
        trace.answered(reply.status);
        if out.whole(reply).await.is_err() {
            trace.buyer_left();
        }
    }
    drop(running);
    gateway.telemetry.call_ended(&trace, head.request_id());
}

/// Guesses at keys are counted by address, together with those at the control API's doors.
fn count_guess(gateway: &Gateway, refusal: Refusal, peer: SocketAddr) -> Refusal {
    if refusal.code() != Code::Unauthenticated {
        return refusal;
    }
    gateway.actors.limits().check_guess(peer.ip()).err().unwrap_or(refusal)
}

/// What every refusal of a call says: where the money is, and that a paid request keeps its payment.
fn complete_refusal(refusal: Refusal, head: &Head) -> Refusal {
    let is_paid = [Header::RelayRequestId, Header::PaymentSignature].iter().any(|name| head.header(*name).is_some());
    if is_paid && refusal.code() == Code::StoreUnavailable {
        refusal.or_payment_unknown().next_action("retry_same_payment")
    } else {
        refusal.or_no_payment()
    }
}

/// Row 1, as far as the head of a well-formed request tells.
fn check_route(head: &Head) -> Result<(), Refusal> {
    if head.method() != "POST" {
        return Err(Code::MethodNotAllowed.into());
    }
    if head.query().is_some() {
        return Err(Refusal::from(Code::InvalidRequest).message("A gateway call takes no query string."));
    }
    let content_type = head.header(Header::ContentType).unwrap_or_default();
    let (essence, parameter) = content_type.split_once(';').unwrap_or((content_type, ""));
    let is_utf8 = parameter.trim().is_empty()
        || parameter.trim().trim_matches('"').to_ascii_lowercase().replace('"', "") == "charset=utf-8";
    if !essence.trim().eq_ignore_ascii_case("application/json") || !is_utf8 {
        return Err(Code::UnsupportedMediaType.into());
    }
    match head.header(Header::ContentEncoding) {
        None | Some("identity") => Ok(()),
        Some(_) => Err(Code::UnsupportedMediaType.into()),
    }
}
