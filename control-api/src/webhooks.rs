//! What payment providers tell by themselves. Nothing that they say is evidence: it is a reason to look.

use actors::refusal::Refusal;
use serde::Serialize;

use crate::{extract::Ask, reply::Reply};

#[derive(Serialize)]
struct Received {
    received: bool,
}

/// `POST /webhooks/relay`.
pub(crate) async fn relay(ask: Ask) -> Result<Reply, Refusal> {
    let text = |name: &str| ask.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (timestamp, signature) = (text("x-signature-timestamp"), text("x-signature-sha256"));
    ask.door.actors.relay_notice(timestamp, signature, ask.raw_body()).await?;
    Reply::ok(Received { received: true })
}
