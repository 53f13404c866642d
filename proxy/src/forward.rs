//! The one way to a seller: it demands the permit and the entitlement, so that no call can reach a seller that was not
//! admitted and paid (or free).

use std::time::Duration;

use actors::{
    keys::Caller,
    listing::{Entitlement, Permit},
    outcome::{Failure, Verdict, verdict},
    refusal::{Code, SellerCalled},
    seller::{CallContext, SellerAnswer, SellerRequest},
};

use crate::{body::HeldBody, call::Wishes, gateway::Gateway};

impl Gateway {
    /// Row 13: signs and sends, once. Returns the answer's head when the seller handled the call.
    pub(crate) async fn forward(
        &self,
        permit: &Permit,
        right: &Entitlement,
        caller: &Caller,
        body: &HeldBody,
        wishes: &Wishes<'_>,
    ) -> Result<SellerAnswer, Failure> {
        let nowhere = Failure {
            code: Code::SellerUnreachable,
            called: SellerCalled::No,
            seller_status_code: None,
            retry_after: None,
        };
        let endpoint = permit.endpoint().map_err(|_| nowhere)?;
        let timeout = endpoint.timeout();
        let context = CallContext {
            request_id: right.request_id(),
            buyer: caller.profile.id,
            attempt: right.attempt(),
            charged: right.charged(),
            body_sha256: &body.sha256,
            traceparent: wishes.traceparent,
            accept: wishes.accept,
            deadline_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            now: self.actors.clock().now(),
            is_test: false,
        };
        let request = SellerRequest {
            target: endpoint.signer.target().clone(),
            head: endpoint.signer.head(&context, &body.bytes),
            body: body.bytes.clone(),
            timeout,
        };
        let answer = self.actors.seller().send(request).await?;
        match verdict(answer.status) {
            Verdict::Handled => Ok(answer),
            Verdict::Failed(code) => Err(Failure::of_status(code, answer.status, busy_pause(code, answer.retry_after))),
        }
    }
}

/// When a busy seller may be asked again: as it says, else in a second.
fn busy_pause(code: Code, said: Option<Duration>) -> Option<Duration> {
    (code == Code::SellerBusy).then(|| said.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(3600)))
}
