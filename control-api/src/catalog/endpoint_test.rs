//! `POST /listings/:id/endpoint/test`: the endpoint as a call would find it, shown to its owner.

use std::sync::Arc;

use actors::{
    endpoint_test::{TestAnswer, unanswered},
    keys::Caller,
    refusal::{Code, Refusal},
};
use bytes::Bytes;
use serde::Serialize;
use storage::model::{Endpoint, EndpointTest, UnixMillis};

use super::owned::{self, Edit};
use crate::{
    door::Door,
    extract::Ask,
    fields::Fields,
    reply::{Reply, Shown},
};

/// What the seller answered.
#[derive(Debug, Serialize)]
struct TestAnswerView {
    at: Shown<UnixMillis>,
    seller_status_code: u16,
    seller_content_type: String,
    latency_ms: u32,
    tls: Option<&'static str>,
    /// Whether a call that is answered so counts as handled, and is billable when it was paid.
    handled: bool,
    /// The code that a buyer would see, when it does not.
    error_code: Option<&'static str>,
    response_preview: String,
    response_truncated: bool,
}

impl TestAnswerView {
    fn new(answer: &TestAnswer, latency_ms: u32, at: UnixMillis) -> Self {
        Self {
            at: Shown(at),
            seller_status_code: answer.status,
            seller_content_type: answer.content_type.chars().filter(|c| !c.is_control()).take(256).collect(),
            latency_ms,
            tls: answer.tls,
            handled: answer.failure.is_none(),
            error_code: answer.failure.map(|code| code.row().code),
            response_preview: shown(answer),
            response_truncated: !answer.is_whole,
        }
    }
}

/// The preview as text; what is cut in the middle of a character ends before it.
fn shown(answer: &TestAnswer) -> String {
    let cut = match std::str::from_utf8(&answer.preview) {
        Err(error) if error.error_len().is_none() && !answer.is_whole => error.valid_up_to(),
        _ => answer.preview.len(),
    };
    String::from_utf8_lossy(answer.preview.get(..cut).unwrap_or_default()).into_owned()
}

/// Extracts, asks, replies.
pub(crate) async fn run(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let body = ask.fields(read_body)?;
    let (door, name) = (&ask.door, ask.segment("id"));
    let endpoint = owned::find_own(door, &caller, name).await?.endpoint.ok_or(Code::NotFound)?;
    check_size(&endpoint, &body)?;
    let (answer, latency_ms) = door.actors.test_endpoint(&endpoint, caller.profile.id, body).await?;
    let seller_status_code = answer.as_ref().map(|answer| answer.status);
    let test = EndpointTest { at: ask.now, seller_status_code, latency_ms };
    note(door, &caller, name, &endpoint, test).await?;
    let answer = answer.ok_or_else(unanswered)?;
    Reply::ok(TestAnswerView::new(&answer, latency_ms, ask.now))
}

/// Any JSON value, as it was written; `{}` when there is none.
fn read_body(f: &mut Fields) -> Option<Bytes> {
    let text = f.optional("body", |value| Ok(value.get().to_string()));
    Some(text.unwrap_or_else(|| "{}".into()).into())
}

fn check_size(endpoint: &Endpoint, body: &Bytes) -> Result<(), Refusal> {
    if body.len() as u64 <= endpoint.limits.max_request_bytes {
        return Ok(());
    }
    let reason = format!("must have at most {} bytes, as the endpoint's limits say", endpoint.limits.max_request_bytes);
    Err(Refusal::from(Code::ValidationFailed).field("body", &reason))
}

/// Writes down what came of the test, unless the endpoint has moved meanwhile.
async fn note(door: &Door, caller: &Caller, name: &str, tested: &Endpoint, test: EndpointTest) -> Result<(), Refusal> {
    owned::change(door, caller, name, |offer| {
        let endpoint = offer.endpoint.filter(|endpoint| endpoint.url == tested.url);
        let edit = endpoint.map_or(Edit::Nothing, |mut endpoint| {
            endpoint.last_test = Some(test.clone());
            Edit::Endpoint(Box::new(endpoint))
        });
        Ok((edit, ()))
    })
    .await
}
