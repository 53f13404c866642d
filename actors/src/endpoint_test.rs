//! The owner's test of an endpoint: the signed request of a real call, sent by the same client, bought by nobody.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use storage::model::{Endpoint, GatewayRequestId, Micros, ProfileId};
use tokio::time::Instant;

use crate::{
    Actors,
    outcome::{Verdict, verdict},
    refusal::{Code, Refusal, SellerCalled},
    seller::{CallContext, SellerAnswer, SellerFault, SellerRequest, Signer},
};

/// So much of an answer is shown, bytes: enough to see what went wrong, too little to fetch anything through us.
const PREVIEW_MAX: usize = 2 << 10;

/// What a tested endpoint answered.
#[derive(Clone, Debug)]
pub struct TestAnswer {
    /// The seller's status.
    pub status: u16,
    /// What became of a paid call that was answered so: `None` when it is handled, else the code that its buyer sees.
    pub failure: Option<Code>,
    /// As it came.
    pub content_type: String,
    /// The version of TLS, if it was spoken.
    pub tls: Option<&'static str>,
    /// The beginning of the body.
    pub preview: Bytes,
    /// Whether that was all of it.
    pub is_whole: bool,
}

impl Actors {
    /// Takes one test off the owner's rates, sends `body` to the endpoint, and says what came and how many milliseconds
    /// it took. `None` when no answer came: whether it was refused, reset, late, or no seller's place at all, is the same
    /// to who asks. Where the circuit waits for a probe, this is it.
    ///
    /// # Errors
    /// `RateLimited`.
    pub async fn test_endpoint(
        &self,
        endpoint: &Endpoint,
        owner: ProfileId,
        body: Bytes,
    ) -> Result<(Option<TestAnswer>, u32), Refusal> {
        self.limits().check_endpoint_test(owner)?;
        let probe = self.0.world.gates.get(&endpoint.listing).and_then(|gate| gate.probe(self.clock().now()));
        let began = Instant::now();
        let answer = match self.test_request(endpoint, owner, body) {
            Some(request) => self.seller().send(request).await,
            None => Err(SellerFault::Unreachable),
        };
        let answer = match answer {
            Ok(answer) => Some(preview(answer).await),
            Err(_) => None,
        };
        if let Some(mut probe) = probe {
            let works = answer.as_ref().is_some_and(|answer| matches!(answer.failure, None | Some(Code::SellerBusy)));
            probe.record(self.clock().now(), !works);
        }
        Ok((answer, u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX)))
    }

    fn test_request(&self, endpoint: &Endpoint, owner: ProfileId, body: Bytes) -> Option<SellerRequest> {
        let signer = Signer::new(endpoint).ok()?;
        let timeout = Duration::from_millis(u64::from(endpoint.timeout_ms));
        let timeout = timeout.min(self.0.world.config.control.endpoint_test_timeout);
        let now = self.clock().now();
        let context = CallContext {
            request_id: GatewayRequestId::mint(now),
            buyer: owner,
            attempt: 1,
            charged: Micros::ZERO,
            body_sha256: &Sha256::digest(&body).into(),
            traceparent: None,
            accept: "application/json, */*;q=0.1",
            deadline_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            now,
            is_test: true,
        };
        let head = signer.head(&context, &body);
        Some(SellerRequest { target: signer.target().clone(), head, body, timeout })
    }
}

/// Reads as much as is shown; the rest is left where it is.
async fn preview(mut answer: SellerAnswer) -> TestAnswer {
    let mut seen = Vec::new();
    let mut is_whole = false;
    while seen.len() <= PREVIEW_MAX {
        match answer.body.chunk().await {
            Ok(Some(piece)) => seen.extend_from_slice(piece.get(..PREVIEW_MAX + 1).unwrap_or(&piece)),
            Ok(None) => {
                is_whole = true;
                break;
            }
            Err(_) => break,
        }
    }
    seen.truncate(PREVIEW_MAX);
    let failure = match verdict(answer.status) {
        Verdict::Handled => None,
        Verdict::Failed(code) => Some(code),
    };
    TestAnswer {
        status: answer.status,
        failure,
        content_type: answer.content_type,
        tls: answer.tls,
        preview: seen.into(),
        is_whole,
    }
}

/// The one answer to a test that was not answered.
#[must_use]
pub fn unanswered() -> Refusal {
    Refusal::from(Code::SellerUnreachable)
        .message("No answer came from the endpoint.")
        .seller_called(SellerCalled::Unknown)
        .next_action("retry_same_request")
}
