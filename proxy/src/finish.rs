//! From the seller's answer to the buyer's: the outcome becomes one atomic step of the store, before the answer's first
//! byte when it is held, before its tail when it streams.

use std::time::Duration;

use actors::{
    listing::{Entitlement, KeptAnswer, Permit},
    outcome::{Failure, is_empty_answer},
    refusal::{Code, Refusal, SellerCalled},
    seller::{SellerAnswer, SellerBody},
};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use storage::model::{CallFacts, FeeRate, KeptResult, Micros, Payment, PaymentState, ResultEncoding, ResultPlace};

use crate::{
    body::Share,
    call::{Answer, Wishes},
    envelope::{self, EnvelopeFacts, Malformed},
    gateway::Gateway,
    reply::{Reply, ResponseSink},
    stream::Streaming,
    trace::{Ended, Phase, Trace},
};

/// A seller's content type longer than this is cut: it is shown, not obeyed.
const CONTENT_TYPE_MAX: usize = 256;
/// What one more read of a held answer may take of the memory that all share.
const PIECE: usize = 64 << 10;
/// Says that the seller was asked once more for an answer that was not kept, and will not be again.
pub(crate) const RESENT: &str = "X-Crochet-Resent";

/// What a seller's answer turned out to be once it was read up to `hold_bytes`.
enum Read {
    Whole(Bytes),
    Long(BytesMut),
}

impl Gateway {
    /// Ends the call: completed or released, then answered.
    pub(crate) async fn finish<S: ResponseSink>(
        &self,
        mut permit: Permit,
        right: Entitlement,
        seller: Result<SellerAnswer, Failure>,
        wishes: &Wishes<'_>,
        out: &mut S,
        trace: &mut Trace,
    ) -> Result<Answer, Refusal> {
        let mut answer = match seller {
            Ok(answer) => answer,
            Err(failure) => return self.release(permit, right, failure, trace).await,
        };
        trace.seller_answered(answer.status);
        let max = permit.endpoint()?.endpoint.limits.max_response_bytes;
        if wishes.takes_events
            && envelope::is_event_stream(&answer.content_type)
            && !is_empty_answer(answer.status, answer.length)
        {
            let (encoding, first) = (ResultEncoding::Events, Bytes::new());
            let streaming = Streaming { permit, right, answer, encoding, first, max };
            return Box::pin(self.stream(streaming, out, trace)).await;
        }
        let mut share = Share::new(&self.budget);
        let encoding = envelope::encoding_for(answer.status, &answer.content_type);
        match self.hold(&mut answer, max, &mut share).await {
            Err(failure) => self.release(permit, right, failure, trace).await,
            Ok(Read::Whole(raw)) => match envelope::render(encoding, &raw) {
                Err(Malformed) => {
                    let failure = Failure::of_body(Code::SellerInvalidResponse, answer.status);
                    self.release(permit, right, failure, trace).await
                }
                Ok((encoding, rendered)) => {
                    permit.record(self.actors.clock().now(), false);
                    trace.spent_on(Phase::Seller);
                    self.complete_held(right, &answer, encoding, raw, rendered, trace).await
                }
            },
            Ok(Read::Long(first)) => {
                let (encoding, first) = (envelope::encoding_of_beginning(encoding, &first), first.freeze());
                let streaming = Streaming { permit, right, answer, encoding, first, max };
                Box::pin(self.stream(streaming, out, trace)).await
            }
        }
    }

    /// Reads an answer until its end or until it is too large to be held.
    async fn hold(&self, answer: &mut SellerAnswer, max: u64, share: &mut Share) -> Result<Read, Failure> {
        let status = answer.status;
        let too_large = Failure::of_body(Code::SellerInvalidResponse, status);
        if is_empty_answer(status, answer.length) {
            return Ok(Read::Whole(Bytes::new()));
        }
        let hold = self.config.proxy.hold_bytes;
        if let Some(length) = answer.length {
            if length > max {
                return Err(too_large);
            }
            if length > hold as u64 {
                return Ok(Read::Long(BytesMut::new()));
            }
        }
        let Some(first) = next(&mut *answer.body, status).await? else { return Ok(Read::Whole(Bytes::new())) };
        if answer.length == Some(first.len() as u64) {
            // The usual answer: it came in one piece, and is passed on without a copy.
            return match next(&mut *answer.body, status).await? {
                None => Ok(Read::Whole(first)),
                Some(_) => Err(too_large),
            };
        }
        let mut held = BytesMut::from(first);
        loop {
            if held.len() as u64 > max {
                return Err(too_large);
            }
            if held.len() > hold || share.grow(PIECE as u64).is_err() {
                return Ok(Read::Long(held));
            }
            match next(&mut *answer.body, status).await? {
                Some(piece) => held.extend_from_slice(&piece),
                None => return Ok(Read::Whole(held.freeze())),
            }
        }
    }

    async fn complete_held(
        &self,
        right: Entitlement,
        answer: &SellerAnswer,
        encoding: ResultEncoding,
        raw: Bytes,
        rendered: Bytes,
        trace: &mut Trace,
    ) -> Result<Answer, Refusal> {
        let (is_kept, is_again, charged) = (right.is_kept(), right.is_again(), right.charged());
        let result = KeptResult {
            place: ResultPlace::Inline,
            encoding,
            seller_status_code: answer.status,
            content_type: shown_type(&answer.content_type),
            bytes: raw.len() as u64,
            sha256: if is_kept { Sha256::digest(&raw).into() } else { [0; 32] },
            kept_until: self.actors.clock().now().plus(self.config.payments.result_ttl),
        };
        let envelope = self.envelope_of(&right, &result);
        let facts = facts(200, Some(answer.status), None, raw.len() as u64, trace);
        right.complete(facts, KeptAnswer { result, held: is_kept.then(|| rendered.clone()) }).await?;
        trace.spent_on(Phase::Store);
        trace.ended(if is_again { Ended::Replayed } else { Ended::Completed }, charged);
        let mut reply = whole_reply(&envelope, &rendered, is_kept).header("Server-Timing", trace.server_timing());
        if is_again {
            reply = reply.header(RESENT, "true");
        }
        Ok(Answer::Whole(reply))
    }

    /// What the envelope says of a call that the seller handled.
    pub(crate) fn envelope_of(&self, right: &Entitlement, result: &KeptResult) -> EnvelopeFacts {
        if let Some(payment) = right.payment() {
            return paid_envelope(payment, result);
        }
        let fee_rate = FeeRate(self.config.payments.fee_rate_ppm);
        EnvelopeFacts {
            request_id: right.request_id(),
            billable: false,
            split: fee_rate.split(Micros::ZERO),
            fee_rate,
            seller_status_code: result.seller_status_code,
            content_type: result.content_type.clone(),
            encoding: result.encoding,
        }
    }

    pub(crate) async fn release(
        &self,
        mut permit: Permit,
        right: Entitlement,
        failure: Failure,
        trace: &mut Trace,
    ) -> Result<Answer, Refusal> {
        trace.spent_on(Phase::Seller);
        if let Some(status) = failure.seller_status_code {
            trace.seller_answered(status);
        }
        // A seller that says it is busy works; the circuit is for those that do not.
        permit.record(self.actors.clock().now(), failure.code != Code::SellerBusy);
        drop(permit);
        let row = failure.code.row();
        let facts = facts(row.status, failure.seller_status_code, Some(row.code), 0, trace);
        let ended = if right.is_again() { Ended::Replayed } else { Ended::Released };
        let state = right.release(facts, failure.called).await?;
        trace.spent_on(Phase::Store);
        trace.ended(ended, Micros::ZERO);
        Err(with_state(failure, state))
    }
}

/// Where the money is after a failure, and what to do next.
fn with_state(failure: Failure, state: Option<PaymentState>) -> Refusal {
    let refusal = failure.refusal();
    match state {
        None => refusal.next_action("retry_same_request"),
        Some(state @ PaymentState::Settled) => refusal
            .payment_state(state)
            .next_action("retry_same_payment")
            .recovery("preserve", vec!["X-Crochet-Relay-Request-Id", "body"]),
        // The one repetition of a completed call; one that did not reach the seller may be asked for again.
        Some(state @ PaymentState::Completed) => refusal.payment_state(state).next_action(match failure.called {
            SellerCalled::No => "retry_same_payment",
            SellerCalled::Yes | SellerCalled::Unknown => "contact_seller",
        }),
        Some(state) => refusal.payment_state(state).next_action("request_new_payment"),
    }
}

pub(crate) async fn next(body: &mut dyn SellerBody, status: u16) -> Result<Option<Bytes>, Failure> {
    body.chunk().await.map_err(|fault| Failure { seller_status_code: Some(status), ..Failure::from(fault) })
}

pub(crate) fn facts(
    http_status: u16,
    seller_status_code: Option<u16>,
    code: Option<&'static str>,
    response_bytes: u64,
    trace: &Trace,
) -> CallFacts {
    let ms = |span: Duration| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    CallFacts {
        http_status,
        seller_status_code,
        error_code: code.map(str::to_string),
        response_bytes,
        total_ms: ms(trace.total()),
        seller_ms: ms(trace.phase(Phase::Seller)),
    }
}

pub(crate) fn shown_type(content_type: &str) -> String {
    content_type.chars().filter(|c| !c.is_control()).take(CONTENT_TYPE_MAX).collect()
}

pub(crate) fn paid_envelope(payment: &Payment, result: &KeptResult) -> EnvelopeFacts {
    EnvelopeFacts {
        request_id: payment.quote.gateway_request_id(),
        billable: payment.quote.price > Micros::ZERO,
        split: payment.quote.split(),
        fee_rate: payment.quote.fee_rate,
        seller_status_code: result.seller_status_code,
        content_type: result.content_type.clone(),
        encoding: result.encoding,
    }
}

pub(crate) fn whole_reply(facts: &EnvelopeFacts, rendered: &[u8], is_kept: bool) -> Reply {
    Reply::json(200, envelope::enclose(facts, rendered))
        .header("X-Crochet-Request-Id", facts.request_id.to_string())
        .header("X-Crochet-Billable", if facts.billable { "true" } else { "false" })
        .header("X-Crochet-Charged-Micros", facts.split.charged.to_string())
        .header("X-Crochet-Result-Kept", if is_kept { "true" } else { "false" })
}
