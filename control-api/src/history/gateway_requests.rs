//! `GET /gateway-requests`: one row an attempt, newest first.

use std::sync::Arc;

use actors::{
    keys::Caller,
    refusal::{Code, Refusal},
};
use serde::Serialize;
use storage::model::{
    AttemptStatus, FeeRate, GatewayRequest, GatewayRequestId, ListingId, Micros, PaymentId, ProfileId, Split,
    UnixMillis,
};

use super::{Asked, result::ResultView, show_cursor};
use crate::{
    door::Door,
    extract::Ask,
    reply::{AmountView, FeesView, More, Reply, Shown},
};

#[derive(Debug, Serialize)]
struct LatencyView {
    total: u32,
    seller: u32,
}

/// One attempt of one call.
#[derive(Debug, Serialize)]
struct RowView {
    id: Shown<GatewayRequestId>,
    role: &'static str,
    buyer_id: Shown<ProfileId>,
    seller_id: Shown<ProfileId>,
    listing_id: Shown<ListingId>,
    relay_request_id: Option<Shown<PaymentId>>,
    status: AttemptStatus,
    http_status: Option<u16>,
    seller_status_code: Option<u16>,
    billable: bool,
    charged_amount: AmountView,
    fees: FeesView,
    latency_ms: Option<LatencyView>,
    request_bytes: u64,
    response_bytes: u64,
    attempt: u32,
    error_code: Option<String>,
    created_at: Shown<UnixMillis>,
    completed_at: Option<Shown<UnixMillis>>,
}

impl RowView {
    fn new(row: GatewayRequest, party: ProfileId, rate: FeeRate) -> Self {
        let nothing = Split { charged: Micros::ZERO, fee: Micros::ZERO, seller: Micros::ZERO };
        let split = row.charged.unwrap_or(nothing);
        let has_ended = row.ended_at.is_some();
        Self {
            id: Shown(row.id),
            role: if row.buyer == party { "buyer" } else { "seller" },
            buyer_id: Shown(row.buyer),
            seller_id: Shown(row.seller),
            listing_id: Shown(row.listing),
            relay_request_id: row.payment.map(Shown),
            status: row.status,
            http_status: Some(row.facts.http_status).filter(|status| *status != 0),
            seller_status_code: row.facts.seller_status_code,
            billable: row.charged.is_some(),
            charged_amount: split.charged.into(),
            fees: FeesView::new(rate, split),
            latency_ms: has_ended.then_some(LatencyView { total: row.facts.total_ms, seller: row.facts.seller_ms }),
            request_bytes: row.request_bytes,
            response_bytes: row.facts.response_bytes,
            attempt: row.attempt,
            error_code: row.facts.error_code,
            created_at: Shown(row.started_at),
            completed_at: row.ended_at.map(Shown),
        }
    }
}

#[derive(Serialize)]
struct CallView {
    #[serde(flatten)]
    newest: RowView,
    attempts: Vec<RowView>,
    result: Option<ResultView>,
}

/// The rate that a row's amounts were split by: today's when it gives the same parts, else the quote's own.
async fn rate_of(door: &Door, row: &GatewayRequest) -> Result<FeeRate, Refusal> {
    let today = FeeRate(door.config.payments.fee_rate_ppm);
    let (Some(split), Some(payment)) = (row.charged, row.payment) else { return Ok(today) };
    if today.split(split.charged) == split {
        return Ok(today);
    }
    Ok(door.store.payment_get(payment).await?.map_or(today, |payment| payment.quote.fee_rate))
}

/// `GET /gateway-requests`.
pub(crate) async fn list(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let asked = ask.query(Asked::read_with_status)?;
    let party = caller.profile.id;
    let found = ask.door.store.gateway_request_list(party, &asked.filter, asked.after.as_ref(), asked.limit).await?;
    let mut views = Vec::with_capacity(found.rows.len());
    for row in found.rows {
        let rate = rate_of(&ask.door, &row).await?;
        views.push(RowView::new(row, party, rate));
    }
    Reply::page(views, More { limit: asked.limit, next_cursor: show_cursor(found.next) })
}

/// `GET /gateway-requests/:id`.
pub(crate) async fn show(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    ask.no_query()?;
    let id: GatewayRequestId = ask.id("id", Code::NotFound)?;
    let party = caller.profile.id;
    let rows = ask.door.store.gateway_request_get(party, id).await?;
    let newest = rows.last().cloned().ok_or(Code::NotFound)?;
    let rate = rate_of(&ask.door, &newest).await?;
    let result = match newest.payment {
        Some(payment) => ResultView::of(&ask.door, payment, ask.now).await?,
        None => None,
    };
    Reply::ok(CallView {
        newest: RowView::new(newest, party, rate),
        attempts: rows.into_iter().map(|row| RowView::new(row, party, rate)).collect(),
        result,
    })
}
