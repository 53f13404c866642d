//! The steps of a payment: each decides by the model's pure transitions and puts what follows into the draft. What a
//! transition changed is told by comparing before and after, so that no step can forget a pointer or an index.

use std::sync::Arc;

use bytes::Bytes;
use fjall::Slice;
use serde::{Deserialize, Serialize};

use super::{
    draft::Draft,
    keys::{self, Key},
    money,
    roll_up::Note,
    spending::{self, Reserved},
};
use crate::{
    error::{StoreError, StoreResult},
    model::{
        AttemptStatus, CallFacts, Claim, Claimed, Ended, Evidence, FreeCall, KeptResult, Owner, Payment, PaymentId,
        PaymentState, ProfileId, Quote, Rail, ResultPlace, Settled, SpendCap, Unbalanced, UnixMillis,
    },
    store::{ClaimRequest, QuoteIdentity, QuoteOpened, SettleOutcome, StepOutcome, reference_key},
};

/// What a step needs to know of the configuration.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// Attempts before the money is the buyer's again.
    pub(crate) attempts_max: u32,
    /// How long an idempotency key outlives the end of its purchase, milliseconds.
    pub(crate) key_kept_ms: u64,
    /// The span of a bucket of results, milliseconds.
    pub(crate) bucket_ms: u64,
    /// How long an unpaid quote is kept after its expiry, milliseconds.
    pub(crate) unpaid_kept_ms: u64,
}

/// The party is the buyer of what the pointer names.
pub(crate) const BUYER: u8 = 1;
/// The party is the seller of what the pointer names.
pub(crate) const SELLER: u8 = 2;

/// What stands at an event of a party's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// Something of a payment: where to fold the row from.
    Payment(Pointer),
    /// Free calls, newest first, whole: thousands a second are cheap together and dear one by one.
    FreeCalls(Vec<FreeCall>),
    /// A payout of the party's, by its number.
    Payout(u32),
}

/// A row of a party's history: where to fold it from. One serves an attempt and a posting of the same event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointer {
    /// In which part: [`BUYER`], [`SELLER`] or both.
    pub(crate) roles: u8,
    /// The payment's id.
    pub(crate) id: [u8; 16],
    /// The attempt that began; 0: none.
    pub(crate) attempt: u32,
    /// A posting with the event's id concerns the party.
    pub(crate) posting: bool,
}

/// A transition that does not add up: a damaged record.
pub(crate) fn unbalanced(id: PaymentId) -> impl Fn(Unbalanced) -> StoreError {
    move |error| StoreError::Corrupt(format!("{id}: {error}"))
}

/// The seller's part is over or the money is elsewhere: the record is written whole, and no delta stands beside it.
fn is_whole(state: PaymentState) -> bool {
    match state {
        PaymentState::Completed
        | PaymentState::Failed
        | PaymentState::Owed
        | PaymentState::Refunding
        | PaymentState::Refunded => true,
        PaymentState::Quoted | PaymentState::Pending | PaymentState::Settled | PaymentState::Claimed(_) => false,
    }
}

/// Nothing was paid yet, and nothing said that it never will be.
fn is_awaited(state: PaymentState) -> bool {
    matches!(state, PaymentState::Quoted | PaymentState::Pending)
}

/// When the purchase ended, if it has.
fn ended_at(payment: &Payment) -> Option<UnixMillis> {
    if !is_whole(payment.progress.state) {
        return None;
    }
    let attempt = payment.progress.attempts.iter().filter_map(|attempt| attempt.end.as_ref()).map(|end| end.at).max();
    let posting = payment.progress.postings.iter().map(crate::model::Posting::at).max();
    // A payment that failed has neither: its offer ended with its expiry.
    attempt.max(posting).or(Some(payment.quote.expires_at))
}

/// Its key no longer names it.
pub(crate) fn is_forgotten(payment: &Payment, now: UnixMillis, rules: Rules) -> bool {
    ended_at(payment).is_some_and(|end| now.0 >= end.0.saturating_add(rules.key_kept_ms))
}

/// Opens a quote, unless one stands.
pub(crate) fn quote_open(draft: &mut Draft<'_>, quote: Quote, open_max: u32) -> StoreResult<QuoteOpened> {
    match standing(draft, &quote, open_max)? {
        Some(found) => Ok(found),
        None => open(draft, quote),
    }
}

/// Opens a quote for a capped key, unless one stands, and takes its price from the key's day.
pub(crate) fn quote_open_within(
    draft: &mut Draft<'_>,
    quote: Quote,
    open_max: u32,
    cap: SpendCap,
) -> StoreResult<QuoteOpened> {
    match standing(draft, &quote, open_max)? {
        Some(QuoteOpened::Exists(payment)) if is_awaited(payment.progress.state) => {
            match spending::reserve(draft, &payment.quote, cap)? {
                Reserved::Yes => Ok(QuoteOpened::Exists(payment)),
                Reserved::OverCap(spent) => Ok(QuoteOpened::OverCap { spent }),
            }
        }
        Some(found) => Ok(found),
        None => match spending::reserve(draft, &quote, cap)? {
            Reserved::Yes => open(draft, quote),
            Reserved::OverCap(spent) => Ok(QuoteOpened::OverCap { spent }),
        },
    }
}

/// What a question comes to that needs no new quote; `None`: one is to be opened.
fn standing(draft: &mut Draft<'_>, quote: &Quote, open_max: u32) -> StoreResult<Option<QuoteOpened>> {
    let identity = QuoteIdentity::from(quote);
    let standing = match draft.payment_id_at(&index_of(&identity))? {
        Some(id) => draft.payment(id)?,
        None => None,
    };
    let found = standing.and_then(|standing| stands(&standing, &identity, draft.now, draft.rules));
    if found.is_none() && draft.memory.open_quotes.count(quote.buyer, draft.now) >= open_max {
        return Ok(Some(QuoteOpened::TooManyOpen));
    }
    Ok(found)
}

fn index_of(identity: &QuoteIdentity) -> Key {
    match &identity.idempotency_key {
        Some(text) => keys::idempotency_key(identity.buyer, text),
        None => keys::quote_identity(identity),
    }
}

fn open(draft: &mut Draft<'_>, quote: Quote) -> StoreResult<QuoteOpened> {
    let index = index_of(&QuoteIdentity::from(&quote));
    let (id, buyer, expires_at) = (quote.id, quote.buyer, quote.expires_at);
    let payment = Arc::new(Payment::quoted(quote));
    draft.write(keys::payment(id), &*payment)?;
    draft.put(index, Slice::from(&id.bytes()));
    if let Some(reference) = reference_of(&payment.quote) {
        draft.put(reference, Slice::from(&id.bytes()));
    }
    draft.put(keys::unpaid(expires_at, id), Slice::from(&buyer.bytes()));
    draft.memory.open_quotes.open(buyer, expires_at);
    draft.replace_payment(Arc::clone(&payment));
    Ok(QuoteOpened::Opened(payment))
}

/// What leads from a provider's own request, of which it tells by itself, to the payment.
pub(crate) fn reference_of(quote: &Quote) -> Option<Key> {
    (quote.rail == Rail::Relay).then(|| keys::proof(&reference_key(&quote.provider_ref)))
}

/// What an earlier quote under the same index key means for this question; `None`: a new one takes its place.
fn stands(standing: &Arc<Payment>, identity: &QuoteIdentity, now: UnixMillis, rules: Rules) -> Option<QuoteOpened> {
    let quote = &standing.quote;
    if identity.idempotency_key.is_none() {
        let same = QuoteIdentity::from(&**quote) == *identity;
        return (same && standing.is_open(now)).then(|| QuoteOpened::Exists(Arc::clone(standing)));
    }
    if is_forgotten(standing, now, rules) {
        return None;
    }
    if quote.listing != identity.listing || quote.body_sha256 != identity.body_sha256 {
        return Some(QuoteOpened::KeyReused(Arc::clone(standing)));
    }
    // Asked in another currency it is still that purchase. One that expired unpaid, failed or was given back bought
    // nothing: the key may buy again.
    let bought_nothing = standing.is_expired(now)
        || matches!(
            standing.progress.state,
            PaymentState::Failed | PaymentState::Owed | PaymentState::Refunding | PaymentState::Refunded
        );
    (!bought_nothing).then(|| QuoteOpened::Exists(Arc::clone(standing)))
}

/// Records money, and claims when asked.
pub(crate) fn settle(
    draft: &mut Draft<'_>,
    id: PaymentId,
    evidence: Evidence,
    claim: Option<ClaimRequest>,
) -> StoreResult<SettleOutcome> {
    let Some(before) = draft.payment(id)? else { return Ok(SettleOutcome::NotFound) };
    let proof = keys::proof(&evidence.proof_key);
    match draft.payment_id_at(&proof)? {
        Some(other) if other != id => return Ok(SettleOutcome::ProofUsed(other)),
        _ => {}
    }
    let mut after = Payment::clone(&before);
    let (posting, now) = (draft.memory.mint(draft.now), draft.now);
    if evidence.rail == Rail::X402 {
        // What was signed has moved: there is nothing left to ask about.
        draft.remove(keys::intent(id));
    }
    let settled = after.settle(evidence, posting, now).map_err(unbalanced(id))?;
    let claimed = match (claim, settled) {
        (None, _) | (_, Settled::Underpaid { .. }) => None,
        (Some(request), _) => Some(take_claim(draft, &mut after, request)?),
    };
    if settled != Settled::Known {
        draft.put(proof, Slice::from(&id.bytes()));
    }
    if settled == Settled::InFull && before.quote.expires_at <= draft.now {
        spending::take_again(draft, id)?;
    }
    let payment = save(draft, &before, after)?;
    Ok(SettleOutcome::Recorded { settled, claimed, payment })
}

/// Takes the right to call the seller.
pub(crate) fn claim(draft: &mut Draft<'_>, id: PaymentId, request: ClaimRequest) -> StoreResult<StepOutcome<Claimed>> {
    step(draft, id, |draft, payment| take_claim(draft, payment, request))
}

/// The claim itself; one that an earlier life of this node left is released first.
fn take_claim(draft: &mut Draft<'_>, payment: &mut Payment, request: ClaimRequest) -> StoreResult<Claimed> {
    let now = draft.now;
    if let PaymentState::Claimed(held) = payment.progress.state
        && is_overdue(held, draft.owner)
    {
        let facts = CallFacts::interrupted();
        let (status, posting) = (AttemptStatus::Interrupted, draft.memory.mint(now));
        let id = payment.quote.id;
        payment.release(held, status, facts, draft.rules.attempts_max, posting, now).map_err(unbalanced(id))?;
        money::post_reversals(draft, payment)?;
    }
    Ok(payment.claim(request.owner, request.request_bytes, now))
}

/// Its owner is gone: it was this node, in an earlier life.
pub(crate) fn is_overdue(held: Claim, owner: Owner) -> bool {
    held.owner.node == owner.node && held.owner.epoch < owner.epoch
}

/// The seller handled the call.
pub(crate) fn complete(
    draft: &mut Draft<'_>,
    id: PaymentId,
    claim: Claim,
    (facts, result, held): (CallFacts, KeptResult, Option<Bytes>),
) -> StoreResult<StepOutcome<Ended>> {
    let inline = result.place == ResultPlace::Inline;
    let outcome = step(draft, id, |draft, payment| {
        let (posting, now) = (draft.memory.mint(draft.now), draft.now);
        let ended = payment.complete(claim, facts, result, posting, now).map_err(unbalanced(id))?;
        money::post_reversals(draft, payment)?;
        Ok(ended)
    })?;
    if let (StepOutcome::Step(Ended::Done, _), Some(bytes), true) = (&outcome, held, inline) {
        let bucket = draft.engine.bucket_at(draft.now, draft.rules.bucket_ms)?;
        draft.put_result(bucket.results, id, &bytes);
    }
    Ok(outcome)
}

/// The seller did not handle the call.
pub(crate) fn release(
    draft: &mut Draft<'_>,
    id: PaymentId,
    claim: Claim,
    (status, facts): (AttemptStatus, CallFacts),
) -> StoreResult<StepOutcome<Ended>> {
    step(draft, id, |draft, payment| {
        let (posting, now) = (draft.memory.mint(draft.now), draft.now);
        let ended = payment.release(claim, status, facts, draft.rules.attempts_max, posting, now);
        let ended = ended.map_err(unbalanced(id))?;
        money::post_reversals(draft, payment)?;
        Ok(ended)
    })
}

/// The money is the buyer's again.
pub(crate) fn owe(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
    step(draft, id, |draft, payment| {
        let (posting, now) = (draft.memory.mint(draft.now), draft.now);
        payment.owe(posting, now).map_err(unbalanced(id))
    })
}

/// The one repetition of a call whose answer is not kept.
pub(crate) fn resend(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
    step(draft, id, |draft, payment| Ok(payment.take_resend(draft.now)))
}

/// It did not reach the seller.
pub(crate) fn resend_return(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
    step(draft, id, |_, payment| Ok(payment.return_resend()))
}

/// The rail said no.
pub(crate) fn fail(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<StepOutcome<bool>> {
    step(draft, id, |_, payment| Ok(payment.fail()))
}

/// One transition of a payment, and what follows from it.
pub(crate) fn step<T>(
    draft: &mut Draft<'_>,
    id: PaymentId,
    transition: impl FnOnce(&mut Draft<'_>, &mut Payment) -> StoreResult<T>,
) -> StoreResult<StepOutcome<T>> {
    let Some(before) = draft.payment(id)? else { return Ok(StepOutcome::NotFound) };
    let mut after = Payment::clone(&before);
    let found = transition(draft, &mut after)?;
    Ok(StepOutcome::Step(found, save(draft, &before, after)?))
}

/// Writes what became of a payment: its record or delta first, then what leads to it.
pub(crate) fn save(draft: &mut Draft<'_>, before: &Arc<Payment>, after: Payment) -> StoreResult<Arc<Payment>> {
    if after.progress.version == before.progress.version {
        return Ok(Arc::clone(before));
    }
    let (id, after) = (after.quote.id, Arc::new(after));
    if is_whole(after.progress.state) {
        draft.write(keys::payment(id), &*after)?;
        if before.progress.version > 0 && !is_whole(before.progress.state) {
            draft.remove(keys::delta(id));
        }
    } else {
        draft.write(keys::delta(id), &after.progress)?;
    }
    point(draft, before, &after)?;
    if let Some(note) = Note::of_step(before, &after) {
        draft.tell(note);
    }
    leave_unpaid(draft, before, &after)?;
    if after.quote.idempotency_key.is_some()
        && let Some(end) = ended_at(&after)
    {
        draft.put(
            keys::forget(UnixMillis(end.0.saturating_add(draft.rules.key_kept_ms)), id),
            Slice::from(&[] as &[u8]),
        );
    }
    draft.replace_payment(Arc::clone(&after));
    Ok(after)
}

/// Pointers to what is new: postings to those they concern, an attempt to buyer and seller.
fn point(draft: &mut Draft<'_>, before: &Payment, after: &Payment) -> StoreResult<()> {
    let quote = &after.quote;
    let mut rows: Vec<(ProfileId, [u8; 16], Pointer)> = Vec::with_capacity(3);
    let mut add = |party: ProfileId, event: [u8; 16], attempt: u32, posting: bool| {
        let roles = if party == quote.buyer { BUYER } else { 0 } | if party == quote.seller { SELLER } else { 0 };
        match rows.iter_mut().find(|(known, at, _)| *known == party && *at == event) {
            Some((_, _, row)) => {
                row.attempt = row.attempt.max(attempt);
                row.posting |= posting;
            }
            None => rows.push((party, event, Pointer { roles, id: quote.id.bytes(), attempt, posting })),
        }
    };
    let mut event = None;
    for posting in after.progress.postings.iter().skip(before.progress.postings.len()) {
        event = Some(posting.id().bytes());
        for party in posting.parties(after) {
            add(party, posting.id().bytes(), 0, true);
        }
    }
    for attempt in after.progress.attempts.iter().skip(before.progress.attempts.len()) {
        let event = event.unwrap_or_else(|| draft.memory.mint(attempt.started_at).bytes());
        add(quote.buyer, event, attempt.number, false);
        add(quote.seller, event, attempt.number, false);
    }
    for (party, event, row) in rows {
        draft.write(keys::pointer(party, event), &Event::Payment(row))?;
    }
    Ok(())
}

/// Takes a payment out of the indexes of unpaid ones, once it is not.
fn leave_unpaid(draft: &mut Draft<'_>, before: &Payment, after: &Payment) -> StoreResult<()> {
    let (was, is) = (before.progress.state, after.progress.state);
    let quote = &before.quote;
    if !is_awaited(was) && was != PaymentState::Failed || is_awaited(is) {
        return Ok(());
    }
    let unpaid = keys::unpaid(quote.expires_at, quote.id);
    if is == PaymentState::Failed {
        // Still deleted when its time comes; the longer value says that it does not count as open.
        draft.put(unpaid, Slice::from([&quote.buyer.bytes()[..], &[1]].concat()));
    } else {
        draft.remove(unpaid);
        if quote.idempotency_key.is_none() {
            leave_identity(draft, before)?;
        }
    }
    if is_awaited(was) {
        draft.memory.open_quotes.close(quote.buyer, quote.expires_at);
    }
    Ok(())
}

/// Takes away the index of a question asked without a key, while it still names this payment.
pub(crate) fn leave_identity(draft: &mut Draft<'_>, payment: &Payment) -> StoreResult<()> {
    let index = keys::quote_identity(&QuoteIdentity::from(&*payment.quote));
    // While a quote is open no other takes its place, so there is nothing to look up.
    if payment.is_open(draft.now) || draft.payment_id_at(&index)? == Some(payment.quote.id) {
        draft.remove(index);
    }
    Ok(())
}
