//! The stored answer again, equal to the byte. Never a second call.

use actors::{
    listing::not_kept,
    refusal::{Code, Refusal},
};
use bytes::Bytes;
use storage::model::{KeptResult, Micros, Payment, ResultEncoding, ResultPlace};

use crate::{
    call::Answer,
    finish::{paid_envelope, whole_reply},
    gateway::Gateway,
    reply::{ReplyHead, ResponseSink},
    stream::{Frame, Position},
    trace::{Ended, Trace},
};

impl Gateway {
    /// Answers from what is kept, as what it was: an envelope, or events.
    ///
    /// # Errors
    /// `ResultNotKept` with size and digest.
    pub(crate) async fn replay<S: ResponseSink>(
        &self,
        payment: &Payment,
        out: &mut S,
        trace: &mut Trace,
    ) -> Result<Answer, Refusal> {
        let attempt = u32::try_from(payment.progress.attempts.len()).unwrap_or(u32::MAX);
        trace.is_request(payment.quote.gateway_request_id(), attempt);
        trace.paid_over(payment);
        let result = payment.progress.result.as_ref().ok_or(Code::Internal)?;
        let first = match result.place {
            ResultPlace::NotKept | ResultPlace::Resent => None,
            ResultPlace::Inline | ResultPlace::Chunks => self.actors.store().result_read(payment, 0).await?,
        };
        let first = first.ok_or_else(|| not_kept(payment))?;
        trace.ended(Ended::Replayed, Micros::ZERO);
        let facts = paid_envelope(payment, result);
        if result.place == ResultPlace::Inline && result.encoding != ResultEncoding::Events {
            return Ok(Answer::Whole(whole_reply(&facts, &first, true).header("X-Crochet-Replayed", "true")));
        }
        trace.answered(200);
        let frame = Frame::of(&facts);
        let mut head = frame.head.header("X-Crochet-Replayed", "true");
        head.headers.extend(self.payment_response(trace, true));
        if self.replay_streamed(payment, result, (head, frame.opening, frame.tail), out).await.is_err() {
            out.cut();
            trace.buyer_left();
        }
        Ok(Answer::Streamed)
    }

    async fn replay_streamed<S: ResponseSink>(
        &self,
        payment: &Payment,
        result: &KeptResult,
        (head, opening, tail): (ReplyHead, Bytes, Bytes),
        out: &mut S,
    ) -> anyhow::Result<()> {
        out.begin(head).await?;
        out.chunk(opening).await?;
        self.send_kept(payment, Position::default(), out).await?;
        // What went while it was read looks like its end.
        anyhow::ensure!(self.actors.clock().now() < result.kept_until, "the result is no longer kept");
        out.chunk(tail).await?;
        Ok(out.end().await?)
    }

    /// Sends what is kept of an answer, from a place on. Returns how many bytes it was.
    pub(crate) async fn send_kept<S: ResponseSink>(
        &self,
        payment: &Payment,
        from: Position,
        out: &mut S,
    ) -> anyhow::Result<u64> {
        let Position { mut chunk, mut offset } = from;
        let mut sent = 0;
        while let Some(bytes) = self.actors.store().result_read(payment, chunk).await? {
            let rest = bytes.slice(offset.min(bytes.len())..);
            sent += rest.len() as u64;
            out.chunk(rest).await?;
            (chunk, offset) = (chunk + 1, 0);
        }
        Ok(sent)
    }
}
