//! Work that nobody asks for. Its indexes are rows that are written anyway: unpaid quotes by their expiry, payments
//! under way, and what roll-ups counted, some hundred payments a row. How far each look has come is one key.

use async_trait::async_trait;
use fjall::Slice;

use super::{
    Draft, Embedded, Operation, Shared,
    codec::{decode, encode},
    engine::Engine,
    housekeeping,
    keys::{self, Key, Range},
};
use crate::{
    error::{StoreError, StoreResult},
    model::{Look, Micros, PaymentId, PaymentState, Progress, UnixMillis, Work},
    store::{WorkPage, WorkStore},
};

const PAID: &str = "row of paid payments";
/// Payments in one row of those whose money moved.
const ROW_IDS: usize = 256;
/// Payments under way that one page looks at.
const LOOKS_MAX: usize = 4096;

/// The rows that lead to payments whose money moved, as a roll-up at `now` of notes from `sequence` on found them.
pub(crate) fn paid_rows(now: UnixMillis, sequence: u64, paid: &[PaymentId]) -> StoreResult<Vec<(Key, Slice)>> {
    let rows = paid.chunks(ROW_IDS).enumerate();
    rows.map(|(n, ids)| Ok((keys::paid(now, sequence, n), encode(&ids)?))).collect()
}

fn look_of(work: Work) -> Option<(u8, Look)> {
    match work {
        Work::Unpaid(look) => Some((0, look)),
        Work::Paid(look) => Some((1, look)),
        Work::Window | Work::PutOff => None,
    }
}

/// How far the last look at unpaid quotes has come; `None`: there was none yet.
pub(crate) fn unpaid_seen(engine: &Engine) -> StoreResult<Option<Slice>> {
    engine.get(&keys::swept(0, Look { number: 0, is_last: true }))
}

/// The rows of work that is due before `until` or then, behind a mark.
fn due_range(work: Work, until: UnixMillis, behind: Option<&[u8]>) -> Range {
    let end = UnixMillis(until.0.saturating_add(1));
    let mut range = match work {
        Work::Unpaid(_) => keys::unpaid_range(UnixMillis(0), end),
        Work::Paid(_) => keys::paid_range(end),
        Work::Window => keys::deltas_before(end),
        Work::PutOff => keys::put_off_range(end),
    };
    if let Some(mark) = behind {
        range.from = range.from.max([mark, &[0]].concat());
    }
    if range.to < range.from {
        range.to.clone_from(&range.from);
    }
    range
}

/// What the last life left at and before a mark.
fn up_to(work: Work, mark: &[u8]) -> Range {
    let mut range = due_range(work, UnixMillis(u64::MAX - 1), None);
    range.to = range.to.min([mark, &[0]].concat());
    range
}

fn id_in(key: &[u8]) -> StoreResult<PaymentId> {
    let id = keys::last_id(key).map(PaymentId::from_bytes);
    id.ok_or_else(|| StoreError::Corrupt("a key of work is too short".into()))
}

impl Shared {
    fn work_due(&self, work: Work, after: Option<Vec<u8>>, until: UnixMillis, limit: usize) -> StoreResult<WorkPage> {
        let engine = self.engine()?;
        let behind = match (after, look_of(work)) {
            (Some(mark), _) => Some(mark),
            (None, Some((kind, look))) => engine.get(&keys::swept(kind, look))?.map(|mark| mark.to_vec()),
            (None, None) => None,
        };
        let mut page = WorkPage::default();
        for (looks, row) in engine.scan(&due_range(work, until, behind.as_deref())).enumerate() {
            if page.due.len() >= limit || looks >= LOOKS_MAX {
                page.more = true;
                break;
            }
            let (key, value) = row?;
            match work {
                Work::Paid(_) => page.due.extend(decode::<Vec<PaymentId>>(PAID, &value)?),
                Work::Window if !is_over(&value, until)? => {}
                Work::Window | Work::Unpaid(_) | Work::PutOff => page.due.push(id_in(&key)?),
            }
            page.mark = Some(key.to_vec());
        }
        Ok(page)
    }
}

/// Whether this payment under way was settled by `until`, and nobody is calling its seller.
fn is_over(progress: &[u8], until: UnixMillis) -> StoreResult<bool> {
    let progress: Progress = decode("progress of a payment", progress)?;
    let first = progress.evidence.iter().find(|shown| shown.amount >= Micros::ZERO);
    Ok(progress.state == PaymentState::Settled && first.is_some_and(|shown| shown.recorded_at <= until))
}

fn done(draft: &mut Draft<'_>, work: Work, mark: &[u8], put_off: &[(PaymentId, UnixMillis)]) -> StoreResult<()> {
    if let Some((kind, look)) = look_of(work) {
        let swept = keys::swept(kind, look);
        if draft.get(&swept)?.is_none_or(|before| &*before < mark) {
            draft.put(swept, Slice::from(mark));
        }
    }
    match work {
        Work::Paid(look) if look.is_last => {
            let range = up_to(work, mark);
            for row in draft.engine.scan(&range) {
                draft.remove(Key { space: range.space, bytes: row?.0 });
            }
        }
        Work::PutOff => {
            let range = up_to(work, mark);
            let rows: StoreResult<Vec<_>> = draft.engine.scan(&range).collect();
            for (key, _) in rows? {
                let id = id_in(&key)?;
                draft.remove(Key { space: range.space, bytes: key });
                draft.remove(keys::put_off_until(id));
                if !put_off.iter().any(|(again, _)| *again == id) {
                    housekeeping::drop_if_old(draft, id)?;
                }
            }
        }
        Work::Unpaid(_) | Work::Paid(_) | Work::Window => {}
    }
    for (id, due) in put_off {
        let until = keys::put_off_until(*id);
        if let Some(before) = draft.read::<UnixMillis>("put off", &until)? {
            draft.remove(keys::put_off(before, *id));
        }
        draft.write(until, due)?;
        draft.put(keys::put_off(*due, *id), Slice::from(&[] as &[u8]));
    }
    Ok(())
}

#[async_trait]
impl WorkStore for Embedded {
    async fn work_due(
        &self,
        work: Work,
        after: Option<Vec<u8>>,
        until: UnixMillis,
        limit: usize,
    ) -> StoreResult<WorkPage> {
        let _timing = self.shared.measures.time(Operation::WorkDue);
        self.shared.work_due(work, after, until, limit)
    }

    async fn work_done(&self, work: Work, mark: Vec<u8>, put_off: Vec<(PaymentId, UnixMillis)>) -> StoreResult<()> {
        if look_of(work).is_none() && work != Work::PutOff && put_off.is_empty() {
            return Ok(());
        }
        self.shared.run(Operation::WorkDone, move |draft| done(draft, work, &mark, &put_off)).await
    }
}
