//! `GET /health`: for the public. What operators need stands on their own port.

use actors::refusal::{Code, Refusal};
use serde::Serialize;

use crate::{extract::Ask, reply::Reply};

#[derive(Serialize)]
struct HealthView {
    status: &'static str,
    version: &'static str,
    mode: &'static str,
    uptime_seconds: u64,
    checks: ChecksView,
}

#[derive(Serialize)]
struct ChecksView {
    store: &'static str,
    payment_provider: &'static str,
    actors: &'static str,
}

/// `GET /health`: 200, or 503 with the same under `data`.
pub(crate) async fn health(ask: Ask) -> Result<Reply, Refusal> {
    let found = ask.door.actors.health();
    let word = |is_good: bool| if is_good { "ok" } else { "unavailable" };
    let is_good = found.store.is_none() && found.has_actors;
    let view = HealthView {
        status: if is_good && found.has_rail { "ok" } else { "degraded" },
        version: env!("CARGO_PKG_VERSION"),
        mode: if ask.door.is_dev() { "dev" } else { "production" },
        uptime_seconds: ask.now.since(ask.door.started_at).as_secs(),
        checks: ChecksView {
            store: word(found.store.is_none()),
            payment_provider: word(found.has_rail),
            actors: word(found.has_actors),
        },
    };
    if is_good {
        return Reply::ok(view);
    }
    let data = serde_json::to_value(view).map_err(|_| Code::Internal)?;
    let code = if found.store.is_some() { Code::StoreUnavailable } else { Code::Overloaded };
    Err(Refusal::from(code).data(data))
}
