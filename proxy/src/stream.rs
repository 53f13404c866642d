//! An answer that is too large to be held, or that comes as events: passed on as it comes, kept on the way, cut when it
//! fails.
//!
//! Two things run at once: the seller's bytes are read, checked and kept, and the buyer is sent what was read. A few
//! pieces stand between them, so memory does not grow with the answer. A buyer who reads slowly holds the seller up for
//! a bounded time only. Then an answer that is kept is read to its end without it, and it gets the rest from what is
//! kept; from any other it is cut off. So it does when it hangs up: the call is finished all the same.

use std::{sync::Arc, time::Duration};

use actors::{
    listing::{Entitlement, KeptAnswer, Permit},
    outcome::Failure,
    refusal::{Code, Refusal},
    seller::SellerAnswer,
};
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use storage::{
    ResultsRoom, StoreResult,
    model::{KeptResult, Payment, ResultEncoding, ResultPlace},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    call::Answer,
    envelope::{self, Encoder, EnvelopeFacts},
    finish::{RESENT, facts, next, shown_type},
    gateway::Gateway,
    reply::{Gone, ReplyHead, ResponseSink},
    trace::{Ended, Phase, Trace},
};

/// Pieces that may stand between reading and sending.
const PIECES: usize = 4;
/// What is kept is gathered up to this size before it is written.
const GATHER: usize = 32 << 10;
/// A line that says nothing, so that something is said.
const COMMENT: &[u8] = b": keep-alive\n";

/// All that a stream needs.
pub(crate) struct Streaming {
    pub(crate) permit: Permit,
    pub(crate) right: Entitlement,
    pub(crate) answer: SellerAnswer,
    pub(crate) encoding: ResultEncoding,
    /// What was read of the answer before it turned out to be too large.
    pub(crate) first: Bytes,
    /// The largest answer that the listing may give.
    pub(crate) max: u64,
}

/// What stands around the seller's bytes.
pub(crate) struct Frame {
    pub(crate) head: ReplyHead,
    pub(crate) opening: Bytes,
    pub(crate) tail: Bytes,
}

impl Frame {
    /// The frame of a call's answer, as its encoding wants it.
    pub(crate) fn of(facts: &EnvelopeFacts) -> Self {
        let id = facts.request_id.to_string();
        if facts.encoding == ResultEncoding::Events {
            return Self {
                head: ReplyHead::events(200).header("X-Crochet-Request-Id", id),
                // The head leaves with the first piece, and the first event may be long in coming.
                opening: Bytes::from_static(b": crochet\n\n"),
                tail: envelope::receipt_event(facts).into(),
            };
        }
        let mut opening = Vec::with_capacity(512);
        envelope::head(facts, &mut opening);
        Self {
            head: ReplyHead::json(200).header("X-Crochet-Request-Id", id),
            opening: opening.into(),
            tail: Bytes::from_static(envelope::tail()),
        }
    }
}

/// A place in a kept answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    /// Which chunk.
    pub(crate) chunk: u32,
    /// Where in it.
    pub(crate) offset: usize,
}

/// What is kept of an answer.
#[derive(Default)]
struct Keep {
    gathered: BytesMut,
    chunks: u32,
    bytes: u64,
}

impl Keep {
    fn position(&self) -> Position {
        Position { chunk: self.chunks, offset: self.gathered.len() }
    }

    async fn write(&mut self, right: &Entitlement) -> StoreResult<()> {
        let Entitlement::Paid(claim) = right else { return Ok(()) };
        if !self.gathered.is_empty() {
            claim.append(self.chunks, self.gathered.split().freeze()).await?;
            self.chunks += 1;
        }
        Ok(())
    }
}

/// The buyer, as the reading side sees it.
struct Buyer {
    /// `None`: it is sent nothing more from here.
    pieces: Option<mpsc::Sender<Bytes>>,
    /// For how long it may still hold up the seller.
    patience: Duration,
    /// It read too slowly: from here on it gets what is kept, and what was kept by then.
    lag: Option<(Position, u64)>,
    has_left: bool,
}

impl Buyer {
    /// Hands a piece over; `at` is where what is kept of the answer has it, when it may be fetched from there. Returns
    /// how long the seller was held up.
    async fn send(&mut self, piece: Bytes, at: Option<(Position, u64)>) -> Duration {
        let Some(pieces) = self.pieces.as_ref().filter(|_| !piece.is_empty()) else { return Duration::ZERO };
        let piece = match pieces.try_send(piece) {
            Ok(()) => return Duration::ZERO,
            Err(mpsc::error::TrySendError::Full(piece)) => piece,
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.leave();
                return Duration::ZERO;
            }
        };
        let began = Instant::now();
        let sent = timeout(self.patience, pieces.send(piece)).await;
        let held_up = began.elapsed();
        self.patience = self.patience.saturating_sub(held_up);
        match (sent, at) {
            (Ok(Ok(())), _) => {}
            (Err(_), Some(_)) => (self.pieces, self.lag) = (None, at),
            (Err(_), None) | (Ok(Err(_)), _) => self.leave(),
        }
        held_up
    }

    /// Says something to keep the connection open, unless it is busy anyway.
    fn comment(&self) {
        if let Some(pieces) = &self.pieces {
            let _ = pieces.try_send(Bytes::from_static(COMMENT));
        }
    }

    fn leave(&mut self) {
        (self.pieces, self.lag, self.has_left) = (None, None, true);
    }
}

/// A stream under way.
struct Flow {
    encoder: Encoder,
    hash: Sha256,
    raw_bytes: u64,
    /// `None`: it is not kept.
    keep: Option<Keep>,
    /// What is kept can stand in for what the buyer did not take.
    may_lag: bool,
    buyer: Buyer,
}

/// How reading a seller's answer ended, when nothing failed.
#[derive(PartialEq, Eq)]
enum Pumped {
    Whole,
    /// Nobody waited for it, and nothing depended on it.
    Abandoned,
}

impl Flow {
    /// What is kept no longer is: a buyer that waits for it waits in vain.
    fn keep_no_more(&mut self, patience: Duration) {
        self.keep = None;
        if std::mem::take(&mut self.may_lag) {
            self.buyer.patience = patience;
        }
        if self.buyer.lag.is_some() {
            self.buyer.leave();
        }
    }
}

/// How a stream ended on the seller's side.
struct Outcome {
    /// Whether it is committed; if not, the answer has no end.
    is_completed: bool,
    payment: Option<Arc<Payment>>,
    buyer: Buyer,
    /// How many bytes are kept.
    kept_bytes: u64,
}

impl Gateway {
    /// Passes an answer on as it comes. The outcome is committed before the tail.
    pub(crate) async fn stream<S: ResponseSink>(
        &self,
        streaming: Streaming,
        out: &mut S,
        trace: &mut Trace,
    ) -> Result<Answer, Refusal> {
        let result = self.result_ahead(&streaming.answer, streaming.encoding);
        let Frame { mut head, opening, tail } = Frame::of(&self.envelope_of(&streaming.right, &result));
        if streaming.right.is_again() {
            head = head.header(RESENT, "true");
        }
        head.headers.extend(self.payment_response(trace, false));
        trace.answered(200);
        let (sender, pieces) = mpsc::channel(PIECES);
        let begun = out.begin(head).await;
        let mut flow = self.flow(&streaming, sender);
        match begun {
            Ok(()) => drop(flow.buyer.send(opening, None).await),
            Err(Gone) => flow.buyer.leave(),
        }
        let reading = self.read_on(flow, streaming, result, trace);
        let (outcome, sent) = tokio::join!(reading, deliver(out, pieces));
        let Outcome { is_completed, payment, buyer, kept_bytes } = outcome;
        if !is_completed {
            out.cut();
            if buyer.has_left || sent.is_err() {
                trace.buyer_left();
            }
            // The status is out; what is left to say is in the row.
            return Ok(Answer::Streamed);
        }
        let is_there = !buyer.has_left && sent.is_ok();
        let rest = (payment.as_deref(), buyer.lag, kept_bytes);
        if !is_there || self.conclude(rest, tail, out).await.is_err() {
            out.cut();
            trace.buyer_left();
        }
        Ok(Answer::Streamed)
    }

    /// What is known of the result before its bytes.
    fn result_ahead(&self, answer: &SellerAnswer, encoding: ResultEncoding) -> KeptResult {
        KeptResult {
            place: ResultPlace::NotKept,
            encoding,
            seller_status_code: answer.status,
            content_type: shown_type(&answer.content_type),
            bytes: 0,
            sha256: [0; 32],
            kept_until: self.actors.clock().now(),
        }
    }

    fn flow(&self, streaming: &Streaming, sender: mpsc::Sender<Bytes>) -> Flow {
        let knobs = &self.config.proxy;
        let length = streaming.answer.length;
        let keeps = streaming.right.is_kept()
            && length.is_none_or(|length| length <= knobs.keep_bytes)
            && self.actors.store().results_room() == ResultsRoom::Ample;
        // Of an answer of unknown length it turns out too late that it cannot be kept.
        let may_lag = keeps && length.is_some();
        Flow {
            encoder: Encoder::new(streaming.encoding),
            hash: Sha256::new(),
            raw_bytes: 0,
            keep: keeps.then(Keep::default),
            may_lag,
            buyer: Buyer {
                pieces: Some(sender),
                patience: if may_lag { knobs.stream_hold_kept } else { knobs.stream_hold_max },
                lag: None,
                has_left: false,
            },
        }
    }

    /// The rest, for a buyer that read slowly, and the tail.
    async fn conclude<S: ResponseSink>(
        &self,
        (payment, lag, kept_bytes): (Option<&Payment>, Option<(Position, u64)>, u64),
        tail: Bytes,
        out: &mut S,
    ) -> anyhow::Result<()> {
        if let (Some(payment), Some((from, before))) = (payment, lag) {
            let sent = self.send_kept(payment, from, out).await?;
            anyhow::ensure!(before + sent == kept_bytes, "what was kept is gone");
        }
        out.chunk(tail).await?;
        Ok(out.end().await?)
    }

    /// Reads the seller to its end and writes down how it ended.
    async fn read_on(
        &self,
        mut flow: Flow,
        streaming: Streaming,
        mut result: KeptResult,
        trace: &mut Trace,
    ) -> Outcome {
        let Streaming { mut permit, right, mut answer, first, max, .. } = streaming;
        let pumped = self.pump(&mut flow, &right, &mut answer, first, max).await;
        let is_again = right.is_again();
        // The sending side ends with what it has.
        flow.buyer.pieces = None;
        let mut outcome = Outcome { is_completed: false, payment: None, buyer: flow.buyer, kept_bytes: 0 };
        let pumped = match pumped {
            Ok(pumped) => pumped,
            Err(failure) => {
                trace.failed(failure.code);
                let _ = self.release(permit, right, failure, trace).await;
                return outcome;
            }
        };
        permit.record(self.actors.clock().now(), false);
        drop(permit);
        trace.spent_on(Phase::Seller);
        if pumped == Pumped::Abandoned {
            return outcome;
        }
        outcome.kept_bytes = flow.keep.as_ref().map_or(0, |keep| keep.bytes);
        result.place = match &flow.keep {
            Some(keep) if keep.chunks > 0 => ResultPlace::Chunks,
            Some(_) => ResultPlace::Inline,
            None => ResultPlace::NotKept,
        };
        let held = (result.place == ResultPlace::Inline).then(Bytes::new);
        (result.bytes, result.sha256) = (flow.raw_bytes, flow.hash.finalize().into());
        result.kept_until = self.actors.clock().now().plus(self.config.payments.result_ttl);
        let row = facts(200, Some(answer.status), None, flow.raw_bytes, trace);
        let charged = right.charged();
        // Not confirmed: without its tail the answer is not whole, and the same request fetches it.
        if let Ok(payment) = right.complete(row, KeptAnswer { result, held }).await {
            trace.spent_on(Phase::Store);
            trace.ended(if is_again { Ended::Replayed } else { Ended::Completed }, charged);
            (outcome.is_completed, outcome.payment) = (true, payment);
        }
        outcome
    }

    /// Reads, checks, keeps and hands over until the seller's end.
    async fn pump(
        &self,
        flow: &mut Flow,
        right: &Entitlement,
        answer: &mut SellerAnswer,
        first: Bytes,
        max: u64,
    ) -> Result<Pumped, Failure> {
        let broken = Failure::of_body(Code::SellerInvalidResponse, answer.status);
        let mut next_piece = Some(first).filter(|first| !first.is_empty());
        loop {
            let piece = match next_piece.take() {
                Some(piece) => piece,
                None => match self.next_piece(flow, answer).await? {
                    Some(piece) => piece,
                    None => break,
                },
            };
            flow.raw_bytes += piece.len() as u64;
            if flow.raw_bytes > max {
                return Err(broken);
            }
            flow.hash.update(&piece);
            let rendered = flow.encoder.pass(piece).map_err(|_| broken)?;
            self.pass_on(flow, right, answer, rendered).await;
            if right.is_again() && flow.buyer.has_left {
                return Ok(Pumped::Abandoned);
            }
        }
        let mut last = Vec::new();
        flow.encoder.finish(&mut last).map_err(|_| broken)?;
        self.pass_on(flow, right, answer, last.into()).await;
        if let Some(keep) = &mut flow.keep
            && let Err(error) = seal(keep, right).await
        {
            tracing::warn!(request = %right.request_id(), %error, "a result could not be kept");
            flow.keep_no_more(self.config.proxy.stream_hold_max);
        }
        Ok(Pumped::Whole)
    }

    /// The seller's next piece; a buyer of events hears from us while it waits.
    async fn next_piece(&self, flow: &Flow, answer: &mut SellerAnswer) -> Result<Option<Bytes>, Failure> {
        let mut piece = std::pin::pin!(next(&mut *answer.body, answer.status));
        let may_comment = flow.encoder.is_events();
        loop {
            tokio::select! {
                biased;
                piece = &mut piece => return piece,
                () = sleep(self.config.proxy.event_keep_alive), if may_comment => {
                    if flow.encoder.is_between_lines() {
                        flow.buyer.comment();
                    }
                }
            }
        }
    }

    /// Sends a piece, then keeps it. A result that cannot be kept is sent all the same; a buyer that left still gets
    /// it kept.
    async fn pass_on(&self, flow: &mut Flow, right: &Entitlement, answer: &mut SellerAnswer, piece: Bytes) {
        let at = flow.keep.as_ref().filter(|_| flow.may_lag).map(|keep| (keep.position(), keep.bytes));
        let held_up = flow.buyer.send(piece.clone(), at).await;
        if held_up > Duration::ZERO {
            answer.body.extend(held_up);
        }
        let Some(keep) = &mut flow.keep else { return };
        keep.bytes += piece.len() as u64;
        if keep.bytes > self.config.proxy.keep_bytes {
            return flow.keep_no_more(self.config.proxy.stream_hold_max);
        }
        keep.gathered.extend_from_slice(&piece);
        if keep.gathered.len() >= GATHER && keep.write(right).await.is_err() {
            flow.keep_no_more(self.config.proxy.stream_hold_max);
        }
    }
}

/// Makes what was kept durable.
async fn seal(keep: &mut Keep, right: &Entitlement) -> StoreResult<()> {
    keep.write(right).await?;
    match right {
        Entitlement::Paid(claim) if keep.chunks > 0 => claim.seal().await,
        _ => Ok(()),
    }
}

/// Sends what is handed over, until nothing more is.
async fn deliver<S: ResponseSink>(out: &mut S, mut pieces: mpsc::Receiver<Bytes>) -> Result<(), Gone> {
    while let Some(piece) = pieces.recv().await {
        out.chunk(piece).await?;
    }
    Ok(())
}
