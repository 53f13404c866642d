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
    call::Answer,
    envelope::{self, Encoder, EnvelopeFacts, Malformed},
    gateway::Gateway,
    reply::{Reply, ReplyHead, ResponseSink},
    trace::{Ended, Phase, Trace},
};

/// A seller's content type longer than this is cut: it is shown, not obeyed.
const CONTENT_TYPE_MAX: usize = 256;
/// What one more read of a held answer may take of the memory that all share.
const PIECE: usize = 64 << 10;

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
        out: &mut S,
        trace: &mut Trace,
    ) -> Result<Answer, Refusal> {
        let mut answer = match seller {
            Ok(answer) => answer,
            Err(failure) => return self.release(permit, right, failure, trace).await,
        };
        trace.seller_answered(answer.status);
        let max = permit.endpoint()?.endpoint.limits.max_response_bytes;
        let mut share = Share::new(&self.budget);
        match self.hold(&mut answer, max, &mut share).await {
            Err(failure) => self.release(permit, right, failure, trace).await,
            Ok(Read::Whole(raw)) => {
                match envelope::render(envelope::encoding_for(answer.status, &answer.content_type), &raw) {
                    Err(Malformed) => {
                        let failure = Failure::of_body(Code::SellerInvalidResponse, answer.status);
                        self.release(permit, right, failure, trace).await
                    }
                    Ok((encoding, rendered)) => {
                        permit.record(self.actors.clock().now(), false);
                        trace.spent_on(Phase::Seller);
                        self.complete_held(right, &answer, encoding, raw, rendered, trace).await
                    }
                }
            }
            Ok(Read::Long(first)) => self.stream(permit, right, answer, first, max, out, trace).await,
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
        let (request_id, attempt, charged) = (right.request_id(), right.attempt(), right.charged());
        let is_paid = matches!(right, Entitlement::Paid(_));
        let result = KeptResult {
            place: ResultPlace::Inline,
            encoding,
            seller_status_code: answer.status,
            content_type: shown_type(&answer.content_type),
            bytes: raw.len() as u64,
            sha256: if is_paid { Sha256::digest(&raw).into() } else { [0; 32] },
            kept_until: self.actors.clock().now().plus(self.config.payments.result_ttl),
        };
        let facts = facts(200, Some(answer.status), None, raw.len() as u64, trace);
        let kept = KeptAnswer { result: result.clone(), held: is_paid.then(|| rendered.clone()) };
        let payment = right.complete(facts, kept).await?;
        trace.spent_on(Phase::Store);
        trace.ended(Ended::Completed, charged);
        let envelope = match &payment {
            Some(payment) => paid_envelope(payment, &result),
            None => EnvelopeFacts {
                request_id,
                billable: false,
                split: FeeRate(self.config.payments.fee_rate_ppm).split(Micros::ZERO),
                fee_rate: FeeRate(self.config.payments.fee_rate_ppm),
                seller_status_code: answer.status,
                content_type: result.content_type,
                encoding,
            },
        };
        trace.is_request(request_id, attempt);
        let reply = whole_reply(&envelope, &rendered, is_paid).header("Server-Timing", trace.server_timing());
        Ok(Answer::Whole(reply))
    }

    async fn release(
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
        let state = right.release(facts).await?;
        trace.spent_on(Phase::Store);
        trace.ended(Ended::Released, Micros::ZERO);
        Err(with_state(failure.refusal(), state))
    }
}

/// Where the money is after a failure, and what to do next.
fn with_state(refusal: Refusal, state: Option<PaymentState>) -> Refusal {
    match state {
        None => refusal.next_action("retry_same_request"),
        Some(state @ PaymentState::Settled) => refusal
            .payment_state(state)
            .next_action("retry_same_payment")
            .recovery("preserve", vec!["X-Crochet-Relay-Request-Id", "body"]),
        Some(state) => refusal.payment_state(state).next_action("request_new_payment"),
    }
}

async fn next(body: &mut dyn SellerBody, status: u16) -> Result<Option<Bytes>, Failure> {
    body.chunk().await.map_err(|fault| Failure { seller_status_code: Some(status), ..Failure::from(fault) })
}

fn facts(
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

fn shown_type(content_type: &str) -> String {
    content_type.chars().filter(|c| !c.is_control()).take(CONTENT_TYPE_MAX).collect()
}

fn paid_envelope(payment: &Payment, result: &KeptResult) -> EnvelopeFacts {
    EnvelopeFacts {
        request_id: payment.quote.gateway_request_id(),
        billable: true,
        split: payment.quote.split(),
        fee_rate: payment.quote.fee_rate,
        seller_status_code: result.seller_status_code,
        content_type: result.content_type.clone(),
        encoding: result.encoding,
    }
}

fn whole_reply(facts: &EnvelopeFacts, rendered: &[u8], is_kept: bool) -> Reply {
    Reply::json(200, envelope::enclose(facts, rendered))
        .header("X-Crochet-Request-Id", facts.request_id.to_string())
        .header("X-Crochet-Billable", if facts.billable { "true" } else { "false" })
        .header("X-Crochet-Charged-Micros", facts.split.charged.to_string())
        .header("X-Crochet-Result-Kept", if is_kept { "true" } else { "false" })
}

/// A stream under way: what was seen, and where it is kept.
struct Stream {
    encoder: Encoder,
    hash: Sha256,
    raw_bytes: u64,
    kept_bytes: u64,
    pieces: u32,
    keeps: bool,
    buyer_left: bool,
}

impl Gateway {
    /// An answer too large to be held: passed on as it comes, kept on the way, cut when it fails.
    #[expect(clippy::too_many_arguments, reason = "all that a stream needs, handed over once")]
    async fn stream<S: ResponseSink>(
        &self,
        mut permit: Permit,
        right: Entitlement,
        mut answer: SellerAnswer,
        first: BytesMut,
        max: u64,
        out: &mut S,
        trace: &mut Trace,
    ) -> Result<Answer, Refusal> {
        let encoding = envelope::encoding_for(answer.status, &answer.content_type);
        let content_type = shown_type(&answer.content_type);
        let charged = right.charged();
        let fee_rate = match &right {
            Entitlement::Paid(claim) => claim.payment().quote.fee_rate,
            Entitlement::Free(_) => FeeRate(self.config.payments.fee_rate_ppm),
        };
        let facts = EnvelopeFacts {
            request_id: right.request_id(),
            billable: matches!(right, Entitlement::Paid(_)),
            split: fee_rate.split(charged),
            fee_rate,
            seller_status_code: answer.status,
            content_type: content_type.clone(),
            encoding,
        };
        let mut stream = Stream {
            encoder: Encoder::new(encoding),
            hash: Sha256::new(),
            raw_bytes: 0,
            kept_bytes: 0,
            pieces: 0,
            keeps: matches!(right, Entitlement::Paid(_)),
            buyer_left: false,
        };
        trace.answered(200);
        let head = ReplyHead::json(200).header("X-Crochet-Request-Id", facts.request_id.to_string());
        let mut opening = Vec::with_capacity(512);
        envelope::head(&facts, &mut opening);
        stream.buyer_left |= out.begin(head).await.is_err() || out.chunk(opening.into()).await.is_err();
        if let Err(failure) = self.pump(&mut stream, &right, &mut answer, first, max, out).await {
            out.cut();
            trace.failed(failure.code);
            if stream.buyer_left {
                trace.buyer_left();
            }
            // The status is out; what is left to say is in the row.
            return self.release(permit, right, failure, trace).await.or(Ok(Answer::Streamed));
        }
        permit.record(self.actors.clock().now(), false);
        drop(permit);
        trace.spent_on(Phase::Seller);
        let result = KeptResult {
            place: if stream.keeps { ResultPlace::Chunks } else { ResultPlace::NotKept },
            encoding,
            seller_status_code: answer.status,
            content_type,
            bytes: stream.raw_bytes,
            sha256: stream.hash.finalize().into(),
            kept_until: self.actors.clock().now().plus(self.config.payments.result_ttl),
        };
        let row = self::facts(200, Some(answer.status), None, stream.raw_bytes, trace);
        if right.complete(row, KeptAnswer { result, held: None }).await.is_err() {
            // Not confirmed: without its tail the answer is not whole, and the same request fetches it.
            out.cut();
            return Ok(Answer::Streamed);
        }
        trace.spent_on(Phase::Store);
        trace.ended(Ended::Completed, charged);
        let tail = Bytes::from_static(envelope::tail());
        if stream.buyer_left || out.chunk(tail).await.is_err() || out.end().await.is_err() {
            trace.buyer_left();
        }
        Ok(Answer::Streamed)
    }

    /// Passes the seller's pieces on until its end.
    async fn pump<S: ResponseSink>(
        &self,
        stream: &mut Stream,
        right: &Entitlement,
        answer: &mut SellerAnswer,
        first: BytesMut,
        max: u64,
        out: &mut S,
    ) -> Result<(), Failure> {
        let broken = Failure::of_body(Code::SellerInvalidResponse, answer.status);
        let mut next_piece = (!first.is_empty()).then(|| first.freeze());
        loop {
            let piece = match next_piece.take() {
                Some(piece) => piece,
                None => match next(&mut *answer.body, answer.status).await? {
                    Some(piece) => piece,
                    None => break,
                },
            };
            stream.raw_bytes += piece.len() as u64;
            if stream.raw_bytes > max {
                return Err(broken);
            }
            stream.hash.update(&piece);
            let mut rendered = Vec::with_capacity(piece.len() * 3 / 2);
            stream.encoder.push(&piece, &mut rendered).map_err(|_| broken)?;
            self.pass_on(stream, right, rendered.into(), out).await;
        }
        let mut last = Vec::new();
        stream.encoder.finish(&mut last).map_err(|_| broken)?;
        self.pass_on(stream, right, last.into(), out).await;
        if stream.keeps
            && let Entitlement::Paid(claim) = right
            && let Err(error) = claim.seal().await
        {
            tracing::warn!(payment = %claim.payment().quote.id, %error, "a result could not be kept");
            stream.keeps = false;
        }
        Ok(())
    }

    /// Keeps a piece, then sends it. A result that cannot be kept is sent all the same; a buyer that left still gets
    /// it kept.
    async fn pass_on<S: ResponseSink>(&self, stream: &mut Stream, right: &Entitlement, piece: Bytes, out: &mut S) {
        if piece.is_empty() {
            return;
        }
        stream.kept_bytes += piece.len() as u64;
        stream.keeps &= stream.kept_bytes <= self.config.proxy.keep_bytes;
        if stream.keeps
            && let Entitlement::Paid(claim) = right
        {
            stream.keeps = claim.append(stream.pieces, piece.clone()).await.is_ok();
            stream.pieces += 1;
        }
        if !stream.buyer_left && out.chunk(piece).await.is_err() {
            stream.buyer_left = true;
        }
    }

    /// The stored answer again, equal to the byte. Never a second call.
    pub(crate) async fn replay<S: ResponseSink>(
        &self,
        payment: &Payment,
        out: &mut S,
        trace: &mut Trace,
    ) -> Result<Answer, Refusal> {
        let attempt = u32::try_from(payment.progress.attempts.len()).unwrap_or(u32::MAX);
        trace.is_request(payment.quote.gateway_request_id(), attempt);
        let result = payment.progress.result.as_ref().ok_or(Code::Internal)?;
        let gone = || {
            Refusal::from(Code::ResultNotKept)
                .seller_called(SellerCalled::Yes)
                .payment_state(payment.progress.state)
                .detail("bytes", result.bytes)
                .detail("sha256", hex::encode(result.sha256))
        };
        let store = self.actors.store();
        let first = match result.place {
            ResultPlace::NotKept => return Err(gone()),
            ResultPlace::Inline | ResultPlace::Chunks => store.result_read(payment, 0).await?.ok_or_else(gone)?,
        };
        trace.ended(Ended::Replayed, Micros::ZERO);
        let facts = paid_envelope(payment, result);
        if result.place == ResultPlace::Inline {
            return Ok(Answer::Whole(whole_reply(&facts, &first, true).header("X-Crochet-Replayed", "true")));
        }
        trace.answered(200);
        let head = ReplyHead::json(200)
            .header("X-Crochet-Request-Id", facts.request_id.to_string())
            .header("X-Crochet-Replayed", "true");
        let mut opening = Vec::with_capacity(512);
        envelope::head(&facts, &mut opening);
        if self.replay_chunks(payment, head, opening.into(), first, out).await.is_err() {
            out.cut();
            trace.buyer_left();
        }
        Ok(Answer::Streamed)
    }

    async fn replay_chunks<S: ResponseSink>(
        &self,
        payment: &Payment,
        head: ReplyHead,
        opening: Bytes,
        first: Bytes,
        out: &mut S,
    ) -> anyhow::Result<()> {
        out.begin(head).await?;
        out.chunk(opening).await?;
        let mut piece = Some(first);
        let mut n = 0;
        while let Some(bytes) = piece {
            out.chunk(bytes).await?;
            n += 1;
            piece = self.actors.store().result_read(payment, n).await?;
        }
        out.chunk(Bytes::from_static(envelope::tail())).await?;
        out.end().await?;
        Ok(())
    }
}
