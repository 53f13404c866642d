//! What happened: gateway requests, ledger rows, payments; each for its parties only.

pub(crate) mod gateway_requests;
pub(crate) mod ledger;
pub(crate) mod payments;
mod result;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use storage::model::{AttemptStatus, Cursor, HistoryFilter, ListingId, Role};

use crate::query::Query;

const CURSOR_MAX: usize = 512;
const ROLES: &[(&str, Role)] = &[("buyer", Role::Buyer), ("seller", Role::Seller), ("all", Role::All)];
const STATUSES: &[(&str, AttemptStatus)] = &[
    ("in_progress", AttemptStatus::InProgress),
    ("completed", AttemptStatus::Completed),
    ("released", AttemptStatus::Released),
    ("interrupted", AttemptStatus::Interrupted),
];

/// Which part of a history is asked for.
#[derive(Clone, Debug)]
struct Asked {
    filter: HistoryFilter,
    after: Option<Cursor>,
    limit: usize,
}

impl Asked {
    /// Reads what both histories understand.
    fn read(query: &mut Query) -> Self {
        let filter = HistoryFilter {
            role: query.choice("role", ROLES).unwrap_or_default(),
            listing: query.parsed::<ListingId>("listing_id", "a listing's id"),
            status: None,
            from: query.moment("from"),
            to: query.moment("to"),
        };
        Self { filter, after: read_cursor(query), limit: query.limit() }
    }

    /// Reads what the gateway requests understand besides.
    fn read_with_status(query: &mut Query) -> Self {
        let status = query.choice("status", STATUSES);
        let mut asked = Self::read(query);
        asked.filter.status = status;
        asked
    }
}

fn read_cursor(query: &mut Query) -> Option<Cursor> {
    let text = query.text("cursor")?;
    let bytes = if text.len() > CURSOR_MAX { None } else { URL_SAFE_NO_PAD.decode(text).ok() };
    if bytes.is_none() {
        query.wrong("cursor", "must be the next_cursor of an answer before");
    }
    bytes.map(Cursor)
}

fn show_cursor(cursor: Option<Cursor>) -> Option<String> {
    cursor.map(|cursor| URL_SAFE_NO_PAD.encode(cursor.0))
}
