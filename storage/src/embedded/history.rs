//! History: rows folded at read time from the records that pointers name, newest first.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Draft, Embedded, Operation, Shared,
    codec::decode,
    draft::read_payment,
    engine::Engine,
    keys,
    steps::{BUYER, Pointer, SELLER},
};
use crate::{
    error::{StoreError, StoreResult},
    model::{
        Cursor, FreeCall, GatewayRequest, GatewayRequestId, HistoryFilter, LedgerRow, Page, Payment, PaymentId,
        ProfileId, Role, ledger_rows,
    },
    store::HistoryStore,
};

/// Pointers that one page looks at: a filter that fits few rows gives short pages with a cursor instead of a long
/// scan.
const LOOKS_MAX: usize = 4096;
/// The form of a cursor.
const CURSOR_FORM: u8 = 1;

/// Where a page ended: the last event that was shown, and how many of its rows were.
struct Place {
    event: [u8; 16],
    rows: u8,
}

impl Place {
    fn cursor(&self) -> Cursor {
        Cursor([&[CURSOR_FORM][..], &self.event, &[self.rows]].concat())
    }

    /// `None`: no cursor of ours.
    fn of(cursor: &Cursor) -> Option<Self> {
        match *cursor.0 {
            [CURSOR_FORM, ref event @ .., rows] => Some(Self { event: event.try_into().ok()?, rows }),
            _ => None,
        }
    }
}

/// Collects the rows of a page, and where it ended.
struct PageBuilder<T> {
    rows: Vec<T>,
    limit: usize,
    after: Option<Place>,
    last: Option<Place>,
    full: bool,
}

impl<T> PageBuilder<T> {
    fn new(after: Option<Place>, limit: usize) -> Self {
        Self { rows: Vec::new(), limit: limit.max(1), after, last: None, full: false }
    }

    /// Adds an event's rows, but for those that the page before showed.
    fn add(&mut self, event: [u8; 16], rows: impl IntoIterator<Item = T>) {
        let shown = match &self.after {
            Some(place) if place.event == event => usize::from(place.rows),
            _ => 0,
        };
        for (n, row) in rows.into_iter().enumerate().skip(shown) {
            if self.rows.len() == self.limit {
                self.full = true;
                return;
            }
            self.rows.push(row);
            self.last = Some(Place { event, rows: u8::try_from(n + 1).unwrap_or(u8::MAX) });
        }
    }

    /// The page. `looked_at`: where a scan stopped that was too long.
    fn page(self, looked_at: Option<[u8; 16]>) -> Page<T> {
        let stopped = looked_at.map(|event| Place { event, rows: u8::MAX });
        let next = if self.full { self.last } else { stopped };
        Page { rows: self.rows, next: next.map(|place| place.cursor()) }
    }
}

impl Shared {
    /// Folds something out of a payment. A pointer may be ahead of what is held in memory, never of the engine.
    fn fold<T>(&self, engine: &Engine, id: PaymentId, fold: impl Fn(&Payment) -> Option<T>) -> StoreResult<T> {
        if let Some(found) = self.live.get(id).and_then(|payment| fold(&payment)) {
            return Ok(found);
        }
        read_payment(engine, id)?
            .and_then(|payment| fold(&payment))
            .ok_or_else(|| StoreError::Corrupt(format!("a row of history points to {id}, which lacks it")))
    }

    fn free_call(&self, engine: &Engine, id: GatewayRequestId) -> StoreResult<Option<FreeCall>> {
        engine.get(&keys::free_call(id))?.map(|bytes| decode("free call", &bytes)).transpose()
    }

    /// A page of what `rows` makes of each of a party's pointers.
    fn page<T>(
        &self,
        party: ProfileId,
        (filter, after): (&HistoryFilter, Option<&Cursor>),
        limit: usize,
        rows: impl Fn(&Engine, [u8; 16], &Pointer) -> StoreResult<Vec<T>>,
    ) -> StoreResult<Page<T>> {
        let place = match after.map(Place::of) {
            None => None,
            Some(Some(place)) => Some(place),
            // Not a cursor of ours: past the end.
            Some(None) => return Ok(Page { rows: Vec::new(), next: None }),
        };
        let engine = self.engine()?;
        let newest = place.as_ref().map(|place| place.event);
        let mut page = PageBuilder::new(place, limit);
        let range = keys::pointers(party, newest, filter.from, filter.to);
        for (looks, found) in engine.scan(&range).enumerate() {
            let (key, value) = found?;
            let event = keys::event_of_pointer(&key)
                .ok_or_else(|| StoreError::Corrupt("a key of history is too short".into()))?;
            let pointer: Pointer = decode("row of history", &value)?;
            page.add(event, rows(&engine, event, &pointer)?);
            if page.full {
                break;
            }
            if looks + 1 >= LOOKS_MAX {
                return Ok(page.page(Some(event)));
            }
        }
        Ok(page.page(None))
    }

    fn request_row(
        &self,
        engine: &Engine,
        pointer: &Pointer,
        filter: &HistoryFilter,
    ) -> StoreResult<Option<GatewayRequest>> {
        let wanted = match filter.role {
            Role::Buyer => BUYER,
            Role::Seller => SELLER,
            Role::All => BUYER | SELLER,
        };
        if pointer.attempt == 0 || pointer.roles & wanted == 0 {
            return Ok(None);
        }
        let row = if pointer.free {
            let id = GatewayRequestId::from_bytes(pointer.id);
            let call = self.free_call(engine, id)?;
            let call = call.ok_or_else(|| StoreError::Corrupt(format!("a row of history points to {id}")))?;
            GatewayRequest::of_free_call(&call)
        } else {
            self.fold(engine, PaymentId::from_bytes(pointer.id), |payment| {
                let attempts = &payment.progress.attempts;
                let attempt = attempts.iter().find(|attempt| attempt.number == pointer.attempt)?;
                Some(GatewayRequest::of_attempt(payment, attempt))
            })?
        };
        let fits = filter.listing.is_none_or(|listing| row.listing == listing)
            && filter.status.is_none_or(|status| row.status == status);
        Ok(fits.then_some(row))
    }
}

#[async_trait]
impl HistoryStore for Embedded {
    async fn gateway_request_list(
        &self,
        party: ProfileId,
        filter: &HistoryFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Page<GatewayRequest>> {
        let _timing = self.shared.measures.time(Operation::GatewayRequestList);
        self.shared.page(party, (filter, after), limit, |engine, _, pointer| {
            Ok(self.shared.request_row(engine, pointer, filter)?.into_iter().collect())
        })
    }

    async fn gateway_request_get(&self, id: GatewayRequestId) -> StoreResult<Vec<GatewayRequest>> {
        let _timing = self.shared.measures.time(Operation::GatewayRequestGet);
        if let Some(payment) = self.shared.payment(id.into())? {
            let attempts = payment.progress.attempts.iter();
            return Ok(attempts.map(|attempt| GatewayRequest::of_attempt(&payment, attempt)).collect());
        }
        let call = self.shared.free_call(&*self.shared.engine()?, id)?;
        Ok(call.iter().map(GatewayRequest::of_free_call).collect())
    }

    async fn ledger_list(
        &self,
        party: ProfileId,
        filter: &HistoryFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Page<LedgerRow>> {
        let _timing = self.shared.measures.time(Operation::LedgerList);
        self.shared.page(party, (filter, after), limit, |engine, event, pointer| {
            if !pointer.posting {
                return Ok(Vec::new());
            }
            self.shared.fold(engine, PaymentId::from_bytes(pointer.id), |payment| {
                let mut postings = payment.progress.postings.iter();
                let posting = postings.find(|posting| posting.id().bytes() == event)?;
                let fits = filter.listing.is_none_or(|listing| payment.quote.listing == listing);
                Some(if fits { ledger_rows(payment, posting, party) } else { Vec::new() })
            })
        })
    }

    async fn free_calls_write(&self, calls: Vec<FreeCall>) -> StoreResult<()> {
        let calls = Arc::new(calls);
        self.shared.run(Operation::FreeCallsWrite, move |draft| free_calls_write(draft, &calls)).await
    }
}

fn free_calls_write(draft: &mut Draft<'_>, calls: &[FreeCall]) -> StoreResult<()> {
    for call in calls {
        draft.write(keys::free_call(call.id), call)?;
        let roles = |party| if party == call.buyer { BUYER } else { 0 } | if party == call.seller { SELLER } else { 0 };
        for party in [call.buyer, call.seller] {
            let id = call.id.bytes();
            let pointer = Pointer { roles: roles(party), id, attempt: 1, posting: false, free: true };
            draft.write(keys::pointer(party, event_of_free_call(call)), &pointer)?;
        }
    }
    Ok(())
}

/// The moment when it began and the random part of its id: writing a call again, after an unknown outcome, gives the
/// same row.
fn event_of_free_call(call: &FreeCall) -> [u8; 16] {
    let moment = u128::from(call.started_at.0.min((1 << 48) - 1)) << 80;
    (moment | u128::from_be_bytes(call.id.bytes()) & ((1 << 80) - 1)).to_be_bytes()
}
