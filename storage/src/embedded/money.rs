//! Reversals and refunds as steps, and the proof of the books.

use std::sync::Arc;

use async_trait::async_trait;
use fjall::Slice;

use super::{
    Draft, Embedded, Operation, Shared,
    codec::decode,
    draft::read_payment,
    engine::Engine,
    intents,
    keys::{self, Key, Space},
    payouts,
    steps::{self, Event, unbalanced},
};
use crate::{
    error::{StoreError, StoreResult},
    model::{
        Discrepancy, Evidence, Micros, Outgoing, Payment, PaymentId, PaymentState, Payout, ProfileId, Rail, Refund,
        RefundStage, SandboxOutcome, SandboxPayment, TakenBack, Waiting, judge, waiting, waiting_for_rail,
    },
    store::{BooksPage, MoneyStore, RefundBegun, StepOutcome, TakeBackOutcome, TransferTold},
};

const REFUND: &str = "refund";
/// Rows that one part of the proof looks at.
const PART_ROWS: usize = 256;
/// Payouts, which are added up anew, that one part looks at.
const PART_PAYOUTS: usize = 8;

/// The refunds of a payment, as the steps before left them.
fn refunds(draft: &Draft<'_>, id: PaymentId) -> StoreResult<Vec<Refund>> {
    draft.scan(&keys::refunds(id))?.iter().map(|bytes| decode(REFUND, bytes)).collect()
}

/// What has left this payment's accounts, or will.
fn outgoing(draft: &Draft<'_>, payment: &Payment) -> StoreResult<Outgoing> {
    let refunds = refunds(draft, payment.quote.id)?;
    let refund = refunds.iter().find(|refund| refund.is_open()).map_or(Micros::ZERO, |refund| refund.amount);
    Ok(Outgoing { refund, paid_out: payouts::paid_out_until(draft, payment.quote.seller)? })
}

/// Posts what waited for the end of a claim. A payment without reversals costs a look at its evidence.
pub(crate) fn post_reversals(draft: &mut Draft<'_>, payment: &mut Payment) -> StoreResult<()> {
    if payment.reversal_waiting().is_none() {
        return Ok(());
    }
    let (id, now) = (payment.quote.id, draft.now);
    let outgoing = outgoing(draft, payment)?;
    payment.post_reversals(outgoing, &mut || draft.memory.mint(now), now).map_err(unbalanced(id))?;
    Ok(())
}

fn take_back(draft: &mut Draft<'_>, id: PaymentId, reversal: Evidence) -> StoreResult<TakeBackOutcome> {
    let Some(before) = draft.payment(id)? else { return Ok(TakeBackOutcome::NotFound) };
    let proof = keys::proof(&reversal.proof_key);
    match draft.payment_id_at(&proof)? {
        Some(other) if other != id => return Ok(TakeBackOutcome::ProofUsed(other)),
        _ => {}
    }
    let (outgoing, now) = (outgoing(draft, &before)?, draft.now);
    let mut after = Payment::clone(&before);
    let found = after.take_back(reversal, outgoing, &mut || draft.memory.mint(now), now).map_err(unbalanced(id))?;
    if matches!(found, TakenBack::Posted | TakenBack::Waits) {
        draft.put(proof, Slice::from(&id.bytes()));
    }
    Ok(TakeBackOutcome::Recorded(found, steps::save(draft, &before, after)?))
}

fn begin(draft: &mut Draft<'_>, id: PaymentId) -> StoreResult<StepOutcome<(RefundBegun, Option<Refund>)>> {
    steps::step(draft, id, |draft, payment| {
        let known = refunds(draft, id)?;
        if let Some(open) = known.iter().find(|refund| refund.is_open()) {
            return Ok((RefundBegun::Open, Some(open.clone())));
        }
        let number = known.last().map_or(1, |refund| refund.number.saturating_add(1));
        let Some(refund) = payment.refund_begin(number, draft.now) else { return Ok((RefundBegun::NothingOwed, None)) };
        draft.write(keys::refund(id, number), &refund)?;
        Ok((RefundBegun::Begun, Some(refund)))
    })
}

fn sent(draft: &mut Draft<'_>, id: PaymentId, number: u32, reference: &str) -> StoreResult<StepOutcome<TransferTold>> {
    steps::step(draft, id, |draft, _| {
        let key = keys::refund(id, number);
        let Some(before) = draft.read::<Refund>(REFUND, &key)? else { return Ok(TransferTold::NoTransfer) };
        let mut after = before.clone();
        if !after.send(reference, draft.now) {
            return Ok(TransferTold::OtherReference);
        }
        if after != before {
            draft.write(key, &after)?;
        }
        Ok(TransferTold::Done)
    })
}

fn confirm(draft: &mut Draft<'_>, id: PaymentId, number: u32) -> StoreResult<StepOutcome<TransferTold>> {
    steps::step(draft, id, |draft, payment| {
        let key = keys::refund(id, number);
        let Some(mut refund) = draft.read::<Refund>(REFUND, &key)? else { return Ok(TransferTold::NoTransfer) };
        match refund.stage {
            RefundStage::Intended => return Ok(TransferTold::NotSent),
            RefundStage::Confirmed { .. } => return Ok(TransferTold::Done),
            RefundStage::Sent { .. } => {}
        }
        let (posting, now) = (draft.memory.mint(draft.now), draft.now);
        payment.refund_confirm(&mut refund, posting, now).map_err(unbalanced(id))?;
        draft.write(key, &refund)?;
        Ok(TransferTold::Done)
    })
}

#[async_trait]
impl MoneyStore for Embedded {
    async fn payment_take_back(&self, id: PaymentId, reversal: Evidence) -> StoreResult<TakeBackOutcome> {
        if reversal.amount <= Micros::ZERO {
            return Err(StoreError::Unavailable(format!("{id}: a reversal takes more than nothing")));
        }
        self.shared.run(Operation::PaymentTakeBack, move |draft| take_back(draft, id, reversal)).await
    }

    async fn refund_begin(&self, id: PaymentId) -> StoreResult<StepOutcome<(RefundBegun, Option<Refund>)>> {
        self.shared.run(Operation::RefundBegin, move |draft| begin(draft, id)).await
    }

    async fn refund_sent(
        &self,
        id: PaymentId,
        number: u32,
        reference: String,
    ) -> StoreResult<StepOutcome<TransferTold>> {
        self.shared.run(Operation::RefundSent, move |draft| sent(draft, id, number, &reference)).await
    }

    async fn refund_confirm(&self, id: PaymentId, number: u32) -> StoreResult<StepOutcome<TransferTold>> {
        self.shared.run(Operation::RefundConfirm, move |draft| confirm(draft, id, number)).await
    }

    async fn refund_list(&self, id: PaymentId) -> StoreResult<Vec<Refund>> {
        let _timing = self.shared.measures.time(Operation::RefundList);
        refunds_at(&*self.shared.engine()?, id)
    }

    async fn books_page(&self, after: Option<Vec<u8>>) -> StoreResult<BooksPage> {
        let _timing = self.shared.measures.time(Operation::BooksPage);
        let Part { mut page, doubts } = self.shared.books(after).await?;
        if !doubts.is_empty() {
            // Behind all steps under way: what was half seen before is whole now, or wrong.
            self.shared.run(Operation::BooksPage, |_| Ok(())).await?;
            let engine = self.shared.engine()?;
            for doubt in doubts {
                page.faults.extend(doubt.still(&engine).await?);
            }
        }
        Ok(page)
    }
}

pub(super) fn refunds_at(engine: &Engine, id: PaymentId) -> StoreResult<Vec<Refund>> {
    engine.scan(&keys::refunds(id)).map(|row| decode(REFUND, &row?.1)).collect()
}

/// One part of the proof, as it was seen once.
#[derive(Default)]
struct Part {
    page: BooksPage,
    /// What looked wrong in it.
    doubts: Vec<Doubt>,
}

/// What looked wrong, and is looked at once more.
enum Doubt {
    /// A payment.
    Payment(PaymentId),
    /// A row of a history, by its key.
    Row(Slice),
    /// A payout, by its key.
    Payout(Slice),
}

impl Doubt {
    /// What is wrong with it still.
    async fn still(self, engine: &Engine) -> StoreResult<Vec<Discrepancy>> {
        let of = |payment| move |what| Discrepancy { payment, what };
        Ok(match self {
            Self::Payment(id) => match judge_payment(engine, id) {
                Ok(judged) => judged.into_iter().flat_map(|judged| judged.faults).map(of(Some(id))).collect(),
                Err(StoreError::Corrupt(what)) => vec![Discrepancy { payment: Some(id), what }],
                Err(error) => return Err(error),
            },
            Self::Row(bytes) => {
                let value = engine.get(&Key { space: Space::Money, bytes: bytes.clone() })?;
                value.map(|value| judge_row(engine, &bytes, &value)).transpose()?.flatten().into_iter().collect()
            }
            Self::Payout(bytes) => {
                let value = engine.get(&Key { space: Space::Money, bytes })?;
                let Some(value) = value else { return Ok(Vec::new()) };
                let faults = Shared::judge_payout(engine, &decode(payouts::PAYOUT, &value)?).await?;
                faults.into_iter().map(of(None)).collect()
            }
        })
    }
}

impl Shared {
    /// One part: payments first, then the rows that lead to them, then payouts.
    async fn books(&self, after: Option<Vec<u8>>) -> StoreResult<Part> {
        let engine = self.engine()?;
        let payments = keys::payments();
        let from = after.unwrap_or_else(|| payments.from.clone());
        let (pointers, payouts) = (keys::all_pointers(), keys::all_payouts());
        let is_in = |range: &keys::Range| (&range.from..&range.to).contains(&&from);
        if is_in(&payments) {
            payments_part(&engine, keys::Range { from, ..payments })
        } else if is_in(&payouts) {
            payouts_part(&engine, keys::Range { from, ..payouts }).await
        } else {
            let from = if is_in(&pointers) { from } else { pointers.from.clone() };
            pointers_part(&engine, keys::Range { from, ..pointers })
        }
    }
}

impl Part {
    /// A part that begins with the range, and its rows; the next one begins at the first row that is over `most`, or
    /// `then` when there is none.
    fn of(
        engine: &Engine,
        range: &keys::Range,
        most: usize,
        then: Option<Vec<u8>>,
    ) -> StoreResult<(Self, Vec<(Slice, Slice)>)> {
        let mut part = Self::default();
        let mut rows = engine.scan(range).take(most + 1).collect::<StoreResult<Vec<_>>>()?;
        part.page.next = if rows.len() > most { rows.pop().map(|(key, _)| key.to_vec()) } else { then };
        Ok((part, rows))
    }
}

async fn payouts_part(engine: &Engine, range: keys::Range) -> StoreResult<Part> {
    let (mut part, rows) = Part::of(engine, &range, PART_PAYOUTS, None)?;
    for (key, value) in rows {
        let payout: Payout = decode(payouts::PAYOUT, &value)?;
        if !Shared::judge_payout(engine, &payout).await?.is_empty() {
            part.doubts.push(Doubt::Payout(key));
        }
        payout.posting().into_iter().for_each(|posting| part.page.totals.count_posting(posting));
        part.page.payouts.extend(payout.is_open().then_some(payout));
    }
    Ok(part)
}

fn payments_part(engine: &Engine, range: keys::Range) -> StoreResult<Part> {
    // When the payments are through, the pointers begin.
    let (mut part, rows) = Part::of(engine, &range, PART_ROWS, Some(keys::all_pointers().from))?;
    for (key, _) in rows {
        let Some(id) = keys::last_id(&key).map(PaymentId::from_bytes) else { continue };
        match judge_payment(engine, id) {
            Ok(Some(judged)) => {
                part.page.totals.count(&judged.payment);
                part.page.waiting.extend(judged.waiting);
                part.doubts.extend((!judged.faults.is_empty()).then_some(Doubt::Payment(id)));
            }
            // Deleted meanwhile.
            Ok(None) => {}
            Err(StoreError::Corrupt(_)) => part.doubts.push(Doubt::Payment(id)),
            Err(error) => return Err(error),
        }
    }
    Ok(part)
}

fn pointers_part(engine: &Engine, range: keys::Range) -> StoreResult<Part> {
    // When the pointers are through, the payouts begin.
    let (mut part, rows) = Part::of(engine, &range, PART_ROWS, Some(keys::all_payouts().from))?;
    for (key, value) in rows {
        part.page.pointers += 1;
        if judge_row(engine, &key, &value)?.is_some() {
            part.doubts.push(Doubt::Row(key));
        }
    }
    Ok(part)
}

/// What is wrong with a row of a history. Payouts are judged by themselves.
fn judge_row(engine: &Engine, key: &[u8], value: &[u8]) -> StoreResult<Option<Discrepancy>> {
    let Event::Payment(pointer) = decode("row of a history", value)? else { return Ok(None) };
    let id = PaymentId::from_bytes(pointer.id);
    let event = keys::event_of_pointer(key);
    let leads = read_payment(engine, id)?.is_some_and(|payment| {
        let known = |number: u32| payment.progress.attempts.iter().any(|attempt| attempt.number == number);
        let posted = payment.progress.postings.iter().any(|posting| Some(posting.id().bytes()) == event);
        (pointer.attempt == 0 || known(pointer.attempt)) && (!pointer.posting || posted)
    });
    let what = || "a row of a history leads to something that it does not have".to_string();
    Ok((!leads).then(|| Discrepancy { payment: Some(id), what: what() }))
}

/// A payment, the money of it that waits, and what is wrong with it and with what leads to it.
struct Judgement {
    payment: Arc<Payment>,
    waiting: Vec<Waiting>,
    faults: Vec<String>,
}

fn judge_payment(engine: &Engine, id: PaymentId) -> StoreResult<Option<Judgement>> {
    // Refunds first: a step writes the payment before them, so one that is seen here is seen there.
    let refunds = refunds_at(engine, id)?;
    let Some(payment) = read_payment(engine, id)? else { return Ok(None) };
    let mut faults = judge(&payment, &refunds);
    for shown in &payment.progress.evidence {
        if engine.get(&keys::proof(&shown.proof_key))?.as_deref() != Some(&id.bytes()[..]) {
            faults.push(format!("the proof {} does not lead to it", shown.proof_key));
        }
    }
    for posting in &payment.progress.postings {
        for party in posting.parties(&payment) {
            if !leads_here(engine, party, posting.id().bytes(), id)? {
                faults.push(format!("posting {} is not in the history of {party}", posting.id()));
            }
        }
    }
    faults.extend(sandbox_fault(engine, &payment)?);
    let mut waiting = waiting(&payment, &refunds);
    if payment.progress.state == PaymentState::Pending
        && let Some(bytes) = engine.get(&keys::intent(id))?
    {
        waiting.extend(waiting_for_rail(&payment, &decode(intents::WHAT, &bytes)?));
    }
    Ok(Some(Judgement { payment, waiting, faults }))
}

fn leads_here(engine: &Engine, party: ProfileId, event: [u8; 16], id: PaymentId) -> StoreResult<bool> {
    Ok(match engine.get(&keys::pointer(party, event))? {
        Some(bytes) => match decode("row of a history", &bytes)? {
            Event::Payment(pointer) => pointer.posting && pointer.id == id.bytes(),
            Event::FreeCalls(_) | Event::Payout(_) => false,
        },
        None => false,
    })
}

/// The sandbox can say what it was paid: it must be what is booked.
fn sandbox_fault(engine: &Engine, payment: &Payment) -> StoreResult<Option<String>> {
    let shown = payment.progress.evidence.iter().filter(|shown| shown.rail == Rail::Sandbox);
    if shown.clone().count() == 0 {
        return Ok(None);
    }
    let booked = shown.map(|shown| shown.amount.0).fold(0, i64::saturating_add);
    let record = engine.get(&keys::sandbox(payment.quote.id))?;
    let record: Option<SandboxPayment> = record.map(|bytes| decode("sandbox payment", &bytes)).transpose()?;
    let paid = record.as_ref().map_or(0, |record| record.amount.0);
    // What goes back is booked when its rail is read again, and not at once.
    let went_back = booked == 0 && record.is_some_and(|record| record.outcome == SandboxOutcome::Reorg);
    let is_right = paid == booked || went_back;
    Ok((!is_right).then(|| format!("the sandbox was paid {paid} micros and {booked} are booked")))
}
