//! `GET /ledger`: a party's money, by posting, newest first.

use std::sync::Arc;

use actors::{keys::Caller, refusal::Refusal};
use serde::Serialize;
use storage::model::{
    Account, Direction, EntryType, GatewayRequestId, LedgerRow, ListingId, Micros, PaymentId, PostingId, Sums,
    UnixMillis,
};

use super::{Asked, show_cursor};
use crate::{
    extract::Ask,
    query::Query,
    reply::{AmountView, More, Reply, Shown},
};

#[derive(Debug, Serialize)]
struct LedgerRowView {
    id: Shown<PostingId>,
    gateway_request_id: Option<Shown<GatewayRequestId>>,
    relay_request_id: Option<Shown<PaymentId>>,
    listing_id: Option<Shown<ListingId>>,
    account: Shown<Account>,
    entry_type: EntryType,
    direction: Direction,
    amount: AmountView,
    reference: Option<String>,
    created_at: Shown<UnixMillis>,
}

impl From<LedgerRow> for LedgerRowView {
    fn from(row: LedgerRow) -> Self {
        Self {
            id: Shown(row.id),
            gateway_request_id: row.gateway_request_id.map(Shown),
            relay_request_id: row.payment.map(Shown),
            listing_id: row.listing.map(Shown),
            account: Shown(row.account),
            entry_type: row.entry_type,
            direction: row.direction,
            amount: row.amount.into(),
            reference: row.reference,
            created_at: Shown(row.created_at),
        }
    }
}

/// A party's money in sum. For a buyer: what it paid is spent, waits for its call, is owed, or went back.
#[derive(Debug, Serialize)]
struct SumsView {
    paid: AmountView,
    spent: AmountView,
    in_suspense: AmountView,
    owed_to_you: AmountView,
    refunded: AmountView,
    taken_back: AmountView,
    earned: AmountView,
    fees: AmountView,
    paid_out: AmountView,
    payable: AmountView,
    as_of: Shown<UnixMillis>,
}

impl SumsView {
    fn new(sums: Sums, as_of: UnixMillis) -> Self {
        Self {
            paid: sums.paid.into(),
            spent: sums.spent.into(),
            in_suspense: sums.in_suspense.into(),
            owed_to_you: sums.owed.into(),
            refunded: sums.refunded.into(),
            taken_back: sums.taken_back.into(),
            earned: sums.earned.into(),
            fees: sums.fees.into(),
            paid_out: sums.paid_out.into(),
            payable: Micros(sums.earned.0.saturating_sub(sums.paid_out.0)).into(),
            as_of: Shown(as_of),
        }
    }
}

/// What is asked of a ledger.
enum Wanted {
    Rows(Asked),
    Sums,
}

/// The sums are of everything: what chooses rows does not go with them, and is reported as unknown.
fn read(query: &mut Query) -> Wanted {
    match query.choice("summary", &[("true", true), ("false", false)]) {
        Some(true) => Wanted::Sums,
        Some(false) | None => Wanted::Rows(Asked::read(query)),
    }
}

/// `GET /ledger`.
pub(crate) async fn list(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let store = &ask.door.store;
    let asked = match ask.query(read)? {
        Wanted::Rows(asked) => asked,
        Wanted::Sums => {
            ask.door.catch_up().await?;
            return Reply::ok(SumsView::new(store.sums_get(caller.profile.id).await?, ask.now));
        }
    };
    let found = store.ledger_list(caller.profile.id, &asked.filter, asked.after.as_ref(), asked.limit).await?;
    let rows = found.rows.into_iter().map(LedgerRowView::from);
    Reply::page(rows.collect::<Vec<_>>(), More { limit: asked.limit, next_cursor: show_cursor(found.next) })
}
