//! What is dropped when its time has come: unpaid quotes, forgotten keys, ended nonces, buckets of results. By index,
//! some at a time, as steps like all others; and the look at memtables and journals that the guard judges.

use std::{collections::HashSet, time::Duration};

use tracing::{info, warn};

use super::{
    OPEN_STATES, Operation, Shared, codec, draft::Draft, intents, keys, measures::open_state, spending, steps, work,
};
use crate::{
    error::{StoreError, StoreResult},
    model::{Payment, PaymentId, PaymentState, Progress, UnixMillis},
};

/// How often the store is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A round of dropping after so many looks.
const LOOKS_PER_ROUND: u32 = 5;
/// Open payments are counted after so many looks, and so many of them at most: it is a figure, not a book.
const LOOKS_PER_COUNT: u32 = 30;
const COUNT_MAX: usize = 100_000;
/// Rows that one step drops.
const STEP_ROWS: usize = 256;
/// Steps of one kind in one round: dropping never takes more than a share of the commits.
const ROUND_STEPS: usize = 64;

/// Looks and drops until the store is closed.
pub(crate) fn run(shared: &Shared) {
    let (mut looks, mut journals) = (0u32, 1);
    while !shared.vitals.stopped_within(LOOK) {
        shared.side_file_write();
        journals = look(shared, journals);
        if looks.is_multiple_of(LOOKS_PER_COUNT) {
            match count_open(shared) {
                Ok(counts) => shared.measures.open_payments(counts),
                Err(error) => warn!(%error, "open payments could not be counted"),
            }
        }
        looks = looks.wrapping_add(1);
        // Nothing is lost when a round fails: the next one finds the same rows.
        if looks.is_multiple_of(LOOKS_PER_ROUND)
            && shared.queue.check().is_ok()
            && let Err(error) = round(shared)
        {
            warn!(%error, "the store could not be tidied; it is tried again");
        }
    }
}

/// Measures memtables and journals for the guard, and lets journals go. Returns how many journals there are.
fn look(shared: &Shared, journals: usize) -> usize {
    let Ok(engine) = shared.engine() else { return journals };
    let memtable = engine.memtable_percent();
    shared.measure_results(&engine);
    // The journal is asked for under a lock that a commit holds; one that hangs is the guard's to see.
    let journal = engine.journal_percent().unwrap_or(0);
    shared.vitals.measured(memtable, journal);
    engine.release_journals(journals).unwrap_or_else(|error| {
        warn!(%error, "memtables could not be flushed");
        journals
    })
}

/// Counts the payments that are open, by the place of their state in [`OPEN_STATES`].
pub(crate) fn count_open(shared: &Shared) -> StoreResult<[u32; OPEN_STATES.len()]> {
    let engine = shared.engine()?;
    let mut counts = [0u32; OPEN_STATES.len()];
    let mut count = |state: &PaymentState| {
        if let Some(count) = open_state(state).and_then(|place| counts.get_mut(place)) {
            *count = count.saturating_add(1);
        }
    };
    // What was signed for one that is pending may not have moved: it still waits among the unpaid, and is counted once.
    let mut pending = HashSet::new();
    for found in engine.scan(&keys::deltas()).take(COUNT_MAX) {
        let (key, value) = found?;
        let progress: Progress = codec::decode("progress of a payment", &value)?;
        count(&progress.state);
        if progress.state == PaymentState::Pending {
            pending.extend(keys::last_id(&key));
        }
    }
    for found in engine.scan(&keys::unpaid_range(shared.now(), UnixMillis(u64::MAX))).take(COUNT_MAX) {
        let (key, value) = found?;
        // One whose payment failed waits here for its deletion; its value is longer.
        let is_open = codec::decode_id("unpaid quote", &value).is_ok();
        if is_open && !keys::last_id(&key).is_some_and(|id| pending.contains(&id)) {
            count(&PaymentState::Quoted);
        }
    }
    Ok(counts)
}

/// Drops what is due.
pub(crate) fn round(shared: &Shared) -> StoreResult<()> {
    let now = shared.now();
    drop_rows(shared, &unpaid_due(shared, now)?, drop_unpaid)?;
    drop_rows(shared, &keys::forget_range(after(now)), drop_key)?;
    drop_rows(shared, &keys::nonce_end_range(after(now)), drop_nonce)?;
    drop_rows(shared, &keys::reservation_end_range(after(now)), |draft, bytes| spending::expire(draft, id_in(bytes)?))?;
    drop_rows(shared, &keys::spend_range(spending::days_kept(now)), |_, _| Ok(()))?;
    drop_rows(shared, &keys::session_end_range(after(now)), drop_session)?;
    drop_buckets(shared, now)
}

/// Unpaid quotes whose time is over. Where rails are read again by themselves, never those whose last look is not done:
/// after a long stop it comes late.
fn unpaid_due(shared: &Shared, now: UnixMillis) -> StoreResult<keys::Range> {
    let mut due = keys::unpaid_range(UnixMillis(0), before(now, shared.config.unpaid_kept));
    if let Some(seen) = work::unpaid_seen(&*shared.engine()?)? {
        due.to = due.to.min([&seen, &[0][..]].concat());
    }
    Ok(due)
}

fn before(now: UnixMillis, span: Duration) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
}

fn after(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.0.saturating_add(1))
}

fn drop_rows(
    shared: &Shared,
    range: &keys::Range,
    row: impl Fn(&mut Draft<'_>, &[u8]) -> StoreResult<()> + Copy + Send + 'static,
) -> StoreResult<()> {
    for _ in 0..ROUND_STEPS {
        let found: StoreResult<Vec<_>> =
            shared.engine()?.scan(range).take(STEP_ROWS).map(|found| found.map(|(key, _)| key)).collect();
        let found = found?;
        let count = found.len();
        if count == 0 {
            return Ok(());
        }
        let space = range.space;
        shared.run_blocking(Operation::Housekeeping, move |draft| {
            for bytes in found {
                row(draft, &bytes)?;
                draft.remove(keys::Key { space, bytes });
            }
            Ok(())
        })?;
        if count < STEP_ROWS {
            return Ok(());
        }
    }
    Ok(())
}

fn id_in(bytes: &[u8]) -> StoreResult<PaymentId> {
    let (_, id) = keys::moment_and_id(bytes)
        .ok_or_else(|| StoreError::Corrupt("a key by moment and payment is too short".into()))?;
    Ok(PaymentId::from_bytes(id))
}

/// Deletes a quote that nothing was ever paid for, unless its rail could not say so yet.
fn drop_unpaid(draft: &mut Draft<'_>, bytes: &[u8]) -> StoreResult<()> {
    let id = id_in(bytes)?;
    match draft.get(&keys::put_off_until(id))? {
        Some(_) => Ok(()),
        None => drop_payment(draft, id),
    }
}

/// Deletes an unpaid quote that outlived its time because its rail could not be read.
pub(crate) fn drop_if_old(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<()> {
    let Some(payment) = draft.payment(id)? else { return Ok(()) };
    let end = payment.quote.expires_at.0.saturating_add(draft.rules.unpaid_kept_ms);
    if draft.now.0 < end { Ok(()) } else { drop_payment(draft, id) }
}

fn drop_payment(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<()> {
    let Some(payment) = draft.payment(id)? else { return Ok(()) };
    let unpaid = matches!(payment.progress.state, PaymentState::Quoted | PaymentState::Failed);
    if unpaid && payment.progress.evidence.is_empty() {
        steps::leave_identity(draft, &payment)?;
        leave_key(draft, &payment)?;
        intents::forget(draft, id)?;
        if let Some(reference) = steps::reference_of(&payment.quote) {
            draft.remove(reference);
        }
        draft.remove(keys::payment(id));
        draft.remove(keys::reservation(id));
        draft.forget_payment(id);
    }
    Ok(())
}

/// A buyer's key no longer names its purchase.
fn drop_key(draft: &mut Draft<'_>, bytes: &[u8]) -> StoreResult<()> {
    match draft.payment(id_in(bytes)?)? {
        // Money that came after the end began the time anew; there is another row for that.
        Some(payment) if steps::is_forgotten(&payment, draft.now, draft.rules) => leave_key(draft, &payment),
        _ => Ok(()),
    }
}

fn leave_key(draft: &mut Draft<'_>, payment: &Payment) -> StoreResult<()> {
    if let Some(text) = &payment.quote.idempotency_key {
        let index = keys::idempotency_key(payment.quote.buyer, text);
        if draft.payment_id_at(&index)? == Some(payment.quote.id) {
            draft.remove(index);
        }
    }
    Ok(())
}

fn drop_nonce(draft: &mut Draft<'_>, bytes: &[u8]) -> StoreResult<()> {
    let (_, nonce) = keys::moment_and_nonce(bytes)
        .ok_or_else(|| StoreError::Corrupt("a key by moment and nonce is too short".into()))?;
    let place = keys::nonce(&nonce);
    if draft.read::<UnixMillis>("nonce", &place)?.is_some_and(|until| until <= draft.now) {
        draft.remove(place);
    }
    Ok(())
}

fn drop_session(draft: &mut Draft<'_>, bytes: &[u8]) -> StoreResult<()> {
    let (_, session) = keys::moment_and_nonce(bytes)
        .ok_or_else(|| StoreError::Corrupt("a key by moment and session is too short".into()))?;
    draft.remove(keys::session(&session));
    Ok(())
}

/// Drops buckets whose last result is no longer kept, and makes the next one ahead of its time: the writer would
/// have to wait for it.
fn drop_buckets(shared: &Shared, now: UnixMillis) -> StoreResult<()> {
    let span = shared.rules().bucket_ms;
    let end = before(now, shared.config.result_ttl);
    let ended = {
        let engine = shared.engine()?;
        engine.bucket_at(now, span)?;
        engine.bucket_at(UnixMillis(now.0.saturating_add(span / 8)), span)?;
        engine.buckets().into_iter().filter(|bucket| bucket.start.saturating_add(bucket.span) <= end.0)
    };
    for bucket in ended.collect::<Vec<_>>() {
        info!(start = bucket.start, "a bucket of results is dropped");
        // On the writer's thread, so that no commit is under way; the files go with the last handle, here.
        let dropped = bucket.clone();
        shared.run_blocking(Operation::Housekeeping, move |draft| draft.engine.bucket_drop(&dropped))?;
    }
    // A file's bucket is that of its attempt's begin, and the result is kept from its end: one span more is enough.
    shared.files.tidy(before(end, shared.config.result_bucket))
}
