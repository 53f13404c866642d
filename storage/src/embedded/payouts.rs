//! Payouts as steps. What one takes is fixed by an event that no later posting comes before: the writer mints nothing
//! at or before it, whatever the clock does. So it is added up beside the writer, however much that is.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{
    Draft, Embedded, Operation, Shared,
    codec::decode,
    draft::read_payment,
    engine::Engine,
    keys,
    roll_up::Note,
    steps::{Event, SELLER},
};
use crate::{
    error::{StoreError, StoreResult},
    model::{Micros, Payment, PaymentId, Payout, PayoutStage, PostingId, ProfileId, Rail, Sums},
    store::{PayablePage, PayoutOpened, PayoutStore, TransferTold},
};

pub(super) const PAYOUT: &str = "payout";
/// Rows of a seller's history that are added up before others have their turn.
const TURN_ROWS: usize = 256;

fn corrupt(seller: ProfileId) -> impl Fn(crate::model::Unbalanced) -> StoreError {
    move |error| StoreError::Corrupt(format!("payout of {seller}: {error}"))
}

/// The event up to which a seller's earnings are paid out, or are being.
pub(crate) fn paid_out_until(draft: &Draft<'_>, seller: ProfileId) -> StoreResult<Option<PostingId>> {
    draft.read(PAYOUT, &keys::paid_out_until(seller))
}

/// The newest event of a seller's history: where the clock went back it is later than now.
fn newest_event(draft: &Draft<'_>, seller: ProfileId) -> StoreResult<Option<PostingId>> {
    let row = draft.engine.scan(&keys::pointers(seller, None, None, None)).next().transpose()?;
    Ok(row.and_then(|(key, _)| keys::event_of_pointer(&key)).map(PostingId::from_bytes))
}

/// Opens one, unless one is open; it is not added up yet.
fn open(draft: &mut Draft<'_>, seller: ProfileId, to: &str) -> StoreResult<(bool, Payout)> {
    let known = draft.scan(&keys::payouts(seller))?;
    let last: Option<Payout> = known.last().map(|bytes| decode(PAYOUT, bytes)).transpose()?;
    if let Some(open) = last.clone().filter(Payout::is_open) {
        return Ok((false, open));
    }
    let payout = Payout {
        seller,
        number: last.map_or(1, |payout| payout.number.saturating_add(1)),
        to: to.to_string(),
        behind: paid_out_until(draft, seller)?,
        until: draft.memory.cut(draft.now, newest_event(draft, seller)?),
        parts: Vec::new(),
        intended_at: draft.now,
        stage: PayoutStage::Counting,
    };
    draft.write(keys::payout(seller, payout.number), &payout)?;
    draft.write(keys::paid_out_until(seller), &payout.until)?;
    draft.write(keys::cut(), &payout.until)?;
    Ok((true, payout))
}

/// It was added up; one that has nothing to pay is gone, and what it was to take is left to the next.
fn counted(draft: &mut Draft<'_>, begun: &Payout, parts: Vec<(Rail, Micros)>) -> StoreResult<Option<Payout>> {
    let key = keys::payout(begun.seller, begun.number);
    let Some(mut payout) = draft.read::<Payout>(PAYOUT, &key)? else { return Ok(None) };
    if payout.stage != PayoutStage::Counting {
        return Ok(Some(payout));
    }
    if !parts.is_empty() {
        payout.counted(parts);
        draft.write(key, &payout)?;
        return Ok(Some(payout));
    }
    draft.remove(key);
    match payout.behind {
        Some(behind) => draft.write(keys::paid_out_until(begun.seller), &behind)?,
        None => draft.remove(keys::paid_out_until(begun.seller)),
    }
    Ok(None)
}

fn sent(draft: &mut Draft<'_>, seller: ProfileId, number: u32, reference: &str) -> StoreResult<TransferTold> {
    let key = keys::payout(seller, number);
    let Some(before) = draft.read::<Payout>(PAYOUT, &key)? else { return Ok(TransferTold::NoTransfer) };
    let mut after = before.clone();
    if !after.send(reference, draft.now) {
        let is_ready = before.stage != PayoutStage::Counting;
        return Ok(if is_ready { TransferTold::OtherReference } else { TransferTold::NotSent });
    }
    if after != before {
        draft.write(key, &after)?;
    }
    Ok(TransferTold::Done)
}

fn confirm(draft: &mut Draft<'_>, seller: ProfileId, number: u32) -> StoreResult<TransferTold> {
    let key = keys::payout(seller, number);
    let Some(mut payout) = draft.read::<Payout>(PAYOUT, &key)? else { return Ok(TransferTold::NoTransfer) };
    match payout.stage {
        PayoutStage::Counting | PayoutStage::Intended => return Ok(TransferTold::NotSent),
        PayoutStage::Confirmed { .. } => return Ok(TransferTold::Done),
        PayoutStage::Sent { .. } => {}
    }
    let posting = draft.memory.mint(draft.now);
    payout.confirm(posting, draft.now).map_err(corrupt(seller))?;
    draft.write(key, &payout)?;
    draft.write(keys::pointer(seller, posting.bytes()), &Event::Payout(number))?;
    draft.tell(Note::Money { party: seller, sums: Sums { paid_out: payout.amount(), ..Sums::default() } });
    Ok(TransferTold::Done)
}

/// Adds up what a payout is to take, row by row.
struct Counter<'p> {
    payout: &'p Payout,
    parts: BTreeMap<Rail, i64>,
}

impl Counter<'_> {
    /// One row of the seller's history. `false`: the rows of earlier payouts begin.
    fn add(&mut self, engine: &Engine, key: &[u8], value: &[u8]) -> StoreResult<bool> {
        let event = keys::event_of_pointer(key).map(PostingId::from_bytes);
        let event = event.ok_or_else(|| StoreError::Corrupt("a key of history is too short".into()))?;
        if !self.payout.covers(event) {
            return Ok(event > self.payout.until);
        }
        let Event::Payment(pointer) = decode("row of history", value)? else { return Ok(true) };
        if !pointer.posting || pointer.roles & SELLER == 0 {
            return Ok(true);
        }
        let id = PaymentId::from_bytes(pointer.id);
        let payment = read_payment(engine, id)?;
        let lacks = || StoreError::Corrupt(format!("a row of history points to {id}, which lacks it"));
        let payment: &Payment = &*payment.ok_or_else(lacks)?;
        // What was taken back of it since is in its record, and needs no row of its own.
        if payment.completed_by() == Some(event) {
            for (rail, part) in payment.earned_until(self.payout.until) {
                let sum = self.parts.entry(rail).or_default();
                *sum = sum.saturating_add(part.0);
            }
        }
        Ok(true)
    }

    fn parts(self) -> Vec<(Rail, Micros)> {
        self.parts.into_iter().filter(|(_, sum)| *sum > 0).map(|(rail, sum)| (rail, Micros(sum))).collect()
    }
}

impl Shared {
    /// Adds up what a payout is to take, and lets others have their turn meanwhile.
    async fn count(engine: &Engine, payout: &Payout) -> StoreResult<Vec<(Rail, Micros)>> {
        let mut counter = Counter { payout, parts: BTreeMap::new() };
        let range = keys::pointers(payout.seller, Some(payout.until.bytes()), None, None);
        for (n, row) in engine.scan(&range).enumerate() {
            let (key, value) = row?;
            if !counter.add(engine, &key, &value)? {
                break;
            }
            if n % TURN_ROWS == TURN_ROWS - 1 {
                tokio::task::yield_now().await;
            }
        }
        Ok(counter.parts())
    }

    /// What is wrong with a payout, added up once more.
    pub(super) async fn judge_payout(engine: &Engine, payout: &Payout) -> StoreResult<Vec<String>> {
        let parts = Self::count(engine, payout).await?;
        let earned = parts.iter().map(|(_, part)| part.0).fold(0, i64::saturating_add);
        let mut faults = payout.judge(Micros(earned));
        if let Some(posting) = payout.posting() {
            let row = engine.get(&keys::pointer(payout.seller, posting.id().bytes()))?;
            let row = row.map(|bytes| decode("row of history", &bytes)).transpose()?;
            if row != Some(Event::Payout(payout.number)) {
                faults.push(format!("payout {} is not in the history of {}", payout.number, payout.seller));
            }
        }
        Ok(faults)
    }
}

#[async_trait]
impl PayoutStore for Embedded {
    async fn payout_open(&self, seller: ProfileId, to: String) -> StoreResult<PayoutOpened> {
        let open = move |draft: &mut Draft<'_>| open(draft, seller, &to);
        let (is_new, payout) = self.shared.run(Operation::PayoutOpen, open).await?;
        if payout.stage != PayoutStage::Counting {
            return Ok(PayoutOpened::Open(payout));
        }
        let parts = Shared::count(&*self.shared.engine()?, &payout).await?;
        let counted = move |draft: &mut Draft<'_>| counted(draft, &payout, parts);
        Ok(match self.shared.run(Operation::PayoutOpen, counted).await? {
            Some(payout) if is_new => PayoutOpened::Opened(payout),
            Some(payout) => PayoutOpened::Open(payout),
            None => PayoutOpened::NothingEarned,
        })
    }

    async fn payout_sent(&self, seller: ProfileId, number: u32, reference: String) -> StoreResult<TransferTold> {
        self.shared.run(Operation::PayoutSent, move |draft| sent(draft, seller, number, &reference)).await
    }

    async fn payout_confirm(&self, seller: ProfileId, number: u32) -> StoreResult<TransferTold> {
        self.shared.run(Operation::PayoutConfirm, move |draft| confirm(draft, seller, number)).await
    }

    async fn payout_list(&self, seller: ProfileId) -> StoreResult<Vec<Payout>> {
        let _timing = self.shared.measures.time(Operation::PayoutList);
        self.shared.engine()?.scan(&keys::payouts(seller)).map(|row| decode(PAYOUT, &row?.1)).collect()
    }

    async fn payable_list(&self, after: Option<ProfileId>, limit: usize) -> StoreResult<PayablePage> {
        let _timing = self.shared.measures.time(Operation::PayableList);
        let mut page = PayablePage::default();
        for (looks, row) in self.shared.engine()?.scan(&keys::all_sums(after)).enumerate() {
            let (key, value) = row?;
            let party = keys::last_id(&key).map(ProfileId::from_bytes);
            let party = party.ok_or_else(|| StoreError::Corrupt("a key of sums is too short".into()))?;
            let sums: Sums = decode("sums", &value)?;
            let due = sums.earned.0.saturating_sub(sums.paid_out.0);
            if due > 0 {
                page.rows.push((party, Micros(due)));
            }
            if page.rows.len() >= limit || looks >= LOOKS_MAX {
                page.next = Some(party);
                break;
            }
        }
        Ok(page)
    }
}

/// Parties whose sums one page looks at.
const LOOKS_MAX: usize = 4096;
