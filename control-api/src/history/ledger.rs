//! `GET /ledger`: a party's money, by posting, newest first.

use std::sync::Arc;

use actors::{keys::Caller, refusal::Refusal};
use serde::Serialize;
use storage::model::{
    Account, Direction, EntryType, GatewayRequestId, LedgerRow, ListingId, PaymentId, PostingId, Role, UnixMillis,
};

use super::{Asked, show_cursor};
use crate::{
    extract::Ask,
    reply::{AmountView, More, Reply, Shown},
};

#[derive(Debug, Serialize)]
struct LedgerRowView {
    id: Shown<PostingId>,
    gateway_request_id: Shown<GatewayRequestId>,
    relay_request_id: Shown<PaymentId>,
    listing_id: Shown<ListingId>,
    account: Shown<Account>,
    entry_type: EntryType,
    direction: Direction,
    amount: AmountView,
    created_at: Shown<UnixMillis>,
}

impl From<LedgerRow> for LedgerRowView {
    fn from(row: LedgerRow) -> Self {
        Self {
            id: Shown(row.id),
            gateway_request_id: Shown(row.gateway_request_id),
            relay_request_id: Shown(row.payment),
            listing_id: Shown(row.listing),
            account: Shown(row.account),
            entry_type: row.entry_type,
            direction: row.direction,
            amount: row.amount.into(),
            created_at: Shown(row.created_at),
        }
    }
}

/// `GET /ledger`. A page that a role's filter thins out may be short; its cursor tells whether more follows.
pub(crate) async fn list(ask: Ask, caller: Arc<Caller>) -> Result<Reply, Refusal> {
    let asked = ask.query(Asked::read)?;
    let store = &ask.door.store;
    let found = store.ledger_list(caller.profile.id, &asked.filter, asked.after.as_ref(), asked.limit).await?;
    let rows = found.rows.into_iter().filter(|row| is_of_role(row, asked.filter.role)).map(LedgerRowView::from);
    Reply::page(rows.collect::<Vec<_>>(), More { limit: asked.limit, next_cursor: show_cursor(found.next) })
}

/// What a seller earns stands on its own account; all else concerns a buyer.
fn is_of_role(row: &LedgerRow, role: Role) -> bool {
    let is_sellers = matches!(row.account, Account::Seller(_));
    match role {
        Role::All => true,
        Role::Seller => is_sellers,
        Role::Buyer => !is_sellers,
    }
}
