//! History: rows folded at read time from the records that pointers name, newest first.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use serde::Serialize;

use super::{
    Draft, Embedded, Operation, Shared,
    codec::decode,
    draft::read_payment,
    engine::Engine,
    keys, money,
    roll_up::{Note, TALLY},
    steps::{Event, Pointer},
};
use crate::{
    error::{StoreError, StoreResult},
    model::{
        Cursor, FreeCall, GatewayRequest, GatewayRequestId, HistoryFilter, LedgerRow, ListingId, Page, Payment,
        PaymentId, Payout, Posting, PostingKind, ProfileId, Role, Sums, Tally, UnixMillis, ledger_rows,
    },
    store::{HistoryStore, RolledUp},
};

/// Pointers that one page looks at: a filter that fits few rows gives short pages with a cursor instead of a long
/// scan.
const LOOKS_MAX: usize = 4096;
/// Free calls of one party that are kept together at most.
const TOGETHER_MAX: usize = 64;
/// How far apart their beginnings may be: so far at most a row stands below the event that leads to it.
const TOGETHER_SPAN: Duration = Duration::from_secs(2);
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
    pub(super) fn fold<T>(
        &self,
        engine: &Engine,
        id: PaymentId,
        fold: impl Fn(&Payment) -> Option<T>,
    ) -> StoreResult<T> {
        if let Some(found) = self.live.get(id).and_then(|payment| fold(&payment)) {
            return Ok(found);
        }
        read_payment(engine, id)?
            .and_then(|payment| fold(&payment))
            .ok_or_else(|| StoreError::Corrupt(format!("a row of history points to {id}, which lacks it")))
    }

    /// A page of what `rows` makes of each of a party's pointers.
    fn page<T>(
        &self,
        party: ProfileId,
        (filter, after): (&HistoryFilter, Option<&Cursor>),
        limit: usize,
        rows: impl Fn(&Engine, [u8; 16], &Event) -> StoreResult<Vec<T>>,
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
        // Rows are judged by their own moments; the event that leads to them may be a little later.
        let range = keys::pointers(party, newest, filter.from, filter.to.map(|to| to.plus(TOGETHER_SPAN)));
        for (looks, found) in engine.scan(&range).enumerate() {
            let (key, value) = found?;
            let event = keys::event_of_pointer(&key)
                .ok_or_else(|| StoreError::Corrupt("a key of history is too short".into()))?;
            let found: Event = decode("row of history", &value)?;
            page.add(event, rows(&engine, event, &found)?);
            if page.full {
                break;
            }
            if looks + 1 >= LOOKS_MAX {
                return Ok(page.page(Some(event)));
            }
        }
        Ok(page.page(None))
    }

    /// The rows of an event that fit the filter.
    fn request_rows(
        &self,
        engine: &Engine,
        (party, event): (ProfileId, &Event),
        filter: &HistoryFilter,
    ) -> StoreResult<Vec<GatewayRequest>> {
        let mut rows = match event {
            Event::Payment(pointer) if pointer.attempt == 0 => return Ok(Vec::new()),
            Event::Payment(pointer) => vec![self.fold(engine, PaymentId::from_bytes(pointer.id), |payment| {
                let attempts = &payment.progress.attempts;
                let attempt = attempts.iter().find(|attempt| attempt.number == pointer.attempt)?;
                Some(GatewayRequest::of_attempt(payment, attempt))
            })?],
            Event::FreeCalls(calls) => calls.iter().map(GatewayRequest::of_free_call).collect(),
            Event::Payout(_) => Vec::new(),
        };
        rows.retain(|row| {
            let role = match filter.role {
                Role::Buyer => row.buyer == party,
                Role::Seller => row.seller == party,
                Role::All => true,
            };
            role && filter.listing.is_none_or(|listing| row.listing == listing)
                && filter.status.is_none_or(|status| row.status == status)
                && filter.from.is_none_or(|from| row.started_at >= from)
                && filter.to.is_none_or(|to| row.started_at < to)
        });
        Ok(rows)
    }

    /// A free call of a party's: near its moment, by the party's own history.
    fn free_call(&self, party: ProfileId, id: GatewayRequestId) -> StoreResult<Option<GatewayRequest>> {
        let engine = self.engine()?;
        let begun = id.minted_at();
        let until = begun.plus(TOGETHER_SPAN * 2);
        for found in engine.scan(&keys::pointers(party, None, Some(begun), Some(until))) {
            let (_, value) = found?;
            if let Event::FreeCalls(calls) = decode("row of history", &value)?
                && let Some(call) = calls.iter().find(|call| call.id == id)
            {
                return Ok(Some(GatewayRequest::of_free_call(call)));
            }
        }
        Ok(None)
    }
}

/// The rows of a payment's posting; where it went back to the party, with the transfer's reference.
fn posting_rows(
    shared: &Shared,
    engine: &Engine,
    (party, id): (ProfileId, PaymentId),
    event: [u8; 16],
) -> StoreResult<Vec<LedgerRow>> {
    let (mut rows, refund) = shared.fold(engine, id, |payment| {
        let mut postings = payment.progress.postings.iter();
        let posting = postings.find(|posting| posting.id().bytes() == event)?;
        let is_refund = |posting: &&Posting| posting.kind() == PostingKind::Refunded;
        let before = payment.progress.postings.iter().filter(is_refund);
        let place = before.take_while(|before| before.id() != posting.id()).count();
        Some((ledger_rows(payment, posting, party), is_refund(&posting).then_some(place)))
    })?;
    if let Some(place) = refund {
        let reference =
            money::refunds_at(engine, id)?.get(place).and_then(|refund| refund.reference().map(String::from));
        rows.iter_mut().for_each(|row| row.reference.clone_from(&reference));
    }
    Ok(rows)
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
        self.shared.page(party, (filter, after), limit, |engine, _, event| {
            self.shared.request_rows(engine, (party, event), filter)
        })
    }

    async fn gateway_request_get(&self, party: ProfileId, id: GatewayRequestId) -> StoreResult<Vec<GatewayRequest>> {
        let _timing = self.shared.measures.time(Operation::GatewayRequestGet);
        if let Some(payment) = self.shared.payment(id.into())? {
            if party != payment.quote.buyer && party != payment.quote.seller {
                return Ok(Vec::new());
            }
            let attempts = payment.progress.attempts.iter();
            return Ok(attempts.map(|attempt| GatewayRequest::of_attempt(&payment, attempt)).collect());
        }
        Ok(self.shared.free_call(party, id)?.into_iter().collect())
    }

    async fn ledger_list(
        &self,
        party: ProfileId,
        filter: &HistoryFilter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> StoreResult<Page<LedgerRow>> {
        let _timing = self.shared.measures.time(Operation::LedgerList);
        self.shared.page(party, (filter, after), limit, |engine, event, found| {
            let mut rows = match found {
                Event::Payment(pointer @ Pointer { posting: true, .. }) => {
                    posting_rows(&self.shared, engine, (party, PaymentId::from_bytes(pointer.id)), event)?
                }
                Event::Payout(number) => {
                    let payout = engine.get(&keys::payout(party, *number))?;
                    let payout = payout.map(|bytes| decode::<Payout>("payout", &bytes)).transpose()?;
                    payout.and_then(|payout| payout.ledger_row()).into_iter().collect()
                }
                Event::Payment(_) | Event::FreeCalls(_) => Vec::new(),
            };
            rows.retain(|row| {
                row.is_of_role(filter.role)
                    && filter.listing.is_none_or(|listing| row.listing == Some(listing))
                    && filter.to.is_none_or(|to| row.created_at < to)
            });
            Ok(rows)
        })
    }

    async fn roll_up(&self) -> StoreResult<RolledUp> {
        self.shared.roll_up().await
    }

    async fn tally_get(&self, listing: ListingId) -> StoreResult<Tally> {
        let _timing = self.shared.measures.time(Operation::TallyGet);
        Ok(self.shared.read(TALLY, &keys::tally(listing))?.unwrap_or_default())
    }

    async fn sums_get(&self, party: ProfileId) -> StoreResult<Sums> {
        let _timing = self.shared.measures.time(Operation::SumsGet);
        Ok(self.shared.read("sums", &keys::sums(party))?.unwrap_or_default())
    }

    async fn free_calls_write(&self, calls: Vec<FreeCall>) -> StoreResult<()> {
        // Counted here, off the writer's thread.
        let notes = Note::of_free_calls(&calls);
        let decide = move |draft: &mut Draft<'_>| {
            notes.into_iter().for_each(|note| draft.tell(note));
            free_calls_write(draft, &calls)
        };
        self.shared.run(Operation::FreeCallsWrite, decide).await
    }
}

/// Free calls stand in the histories of both parties, together with their neighbours in time.
fn free_calls_write(draft: &mut Draft<'_>, calls: &[FreeCall]) -> StoreResult<()> {
    let mut histories: HashMap<ProfileId, Vec<&FreeCall>> = HashMap::new();
    for call in calls {
        histories.entry(call.buyer).or_default().push(call);
        if call.seller != call.buyer {
            histories.entry(call.seller).or_default().push(call);
        }
    }
    for (party, mut calls) in histories {
        calls.sort_by_key(|call| std::cmp::Reverse(event_of_free_call(call)));
        let mut rest = calls.as_slice();
        while let Some(newest) = rest.first() {
            let oldest = UnixMillis(newest.started_at.0.saturating_sub(TOGETHER_SPAN.as_millis() as u64));
            let near = rest.iter().take(TOGETHER_MAX).take_while(|call| call.started_at >= oldest).count();
            let (together, later) = rest.split_at_checked(near).unwrap_or((rest, &[]));
            draft.write(keys::pointer(party, event_of_free_call(newest)), &EventOfCalls::FreeCalls(together))?;
            rest = later;
        }
    }
    Ok(())
}

/// [`Event::FreeCalls`] as it is written, from calls that are borrowed.
#[derive(Serialize)]
enum EventOfCalls<'c> {
    #[expect(dead_code, reason = "keeps the place of `Event::Payment`")]
    Payment(Pointer),
    FreeCalls(&'c [&'c FreeCall]),
}

/// The moment when it began and the random part of its id: writing a call again, after an unknown outcome, gives the
/// same row.
fn event_of_free_call(call: &FreeCall) -> [u8; 16] {
    let moment = u128::from(call.started_at.0.min((1 << 48) - 1)) << 80;
    (moment | u128::from_be_bytes(call.id.bytes()) & ((1 << 80) - 1)).to_be_bytes()
}
