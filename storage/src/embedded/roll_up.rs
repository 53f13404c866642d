//! Roll-ups: what is kept of what happened, so that nobody has to scan for it. Each commit leaves one small note of the
//! steps in it; a roll-up folds the notes into their rows and takes them away, in one step. So everything counts
//! exactly once, whatever dies and whatever the clock does, and a call pays for it with a few bytes of a note.
//!
//! Nobody but a roll-up writes these rows, and one runs at a time: it reads and folds on its caller's thread, and the
//! writer only puts what came of it.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicU64, Ordering},
};

use fjall::Slice;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::error;

use super::{
    Operation, Shared,
    codec::{decode, encode},
    engine::{Engine, Place, Put},
    keys::{self, Key},
    trust::{BOUGHT, STANDING},
    work,
};
use crate::{
    error::{StoreError, StoreResult},
    model::{
        AttemptStatus, Bought, DayTally, FreeCall, GatewayRequest, ListingId, Payment, PaymentId, PostingKind, Profile,
        ProfileId, Purchase, Rating, Standing, Sums, Tally, day_of,
    },
    store::RolledUp,
};

/// Notes that one roll-up folds at most, give or take those of its last commit: so long is the step that it writes.
const NOTES_MAX: usize = 1024;

/// What a step tells the roll-ups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// Something of a payment: the rest is read from its record.
    Payment {
        /// Its id.
        id: [u8; 16],
        /// Its postings from this place on, before `to`, are new.
        from: u32,
        /// See `from`.
        to: u32,
        /// The attempt that ended; 0: none.
        ended: u32,
    },
    /// Calls to a free listing, all of one day.
    Calls {
        /// Which one.
        listing: ListingId,
        /// What they came to.
        day: DayTally,
    },
    /// A review.
    Review {
        /// Of what.
        listing: ListingId,
        /// Who offers it.
        seller: ProfileId,
        /// When.
        day: u32,
        /// What it says.
        rating: Rating,
        /// How much it weighs.
        weight: u64,
    },
    /// Money that moved in a posting of no payment.
    Money {
        /// Whose.
        party: ProfileId,
        /// What it does to its sums.
        sums: Sums,
    },
}

impl Note {
    /// What a step of a payment has to tell.
    pub(crate) fn of_step(before: &Payment, after: &Payment) -> Option<Self> {
        let count = |payment: &Payment| u32::try_from(payment.progress.postings.len()).unwrap_or(u32::MAX);
        let was_running = |number: u32| {
            let mut known = before.progress.attempts.iter().rev();
            known.find(|attempt| attempt.number == number).is_none_or(|attempt| attempt.end.is_none())
        };
        // The last attempts only: those before them ended in steps before.
        let mut last = after.progress.attempts.iter().rev().take(2);
        let ended = last.find(|attempt| attempt.end.is_some() && was_running(attempt.number));
        let (from, to, ended) = (count(before), count(after), ended.map_or(0, |attempt| attempt.number));
        (to > from || ended > 0).then(|| Self::Payment { id: after.quote.id.bytes(), from, to, ended })
    }

    /// What free calls have to tell: a note a listing and day.
    pub(crate) fn of_free_calls(calls: &[FreeCall]) -> Vec<Self> {
        let mut days: HashMap<(ListingId, u32), DayTally> = HashMap::new();
        for call in calls {
            if let Some(one) = DayTally::of_call(&GatewayRequest::of_free_call(call)) {
                days.entry((call.listing, one.day))
                    .or_insert_with(|| DayTally { day: one.day, ..DayTally::default() })
                    .add(&one);
            }
        }
        days.into_iter().map(|((listing, _), day)| Self::Calls { listing, day }).collect()
    }
}

/// The put of what a commit tells.
pub(crate) fn notes_put(sequence: u64, notes: &[Note]) -> StoreResult<Put> {
    Ok(Put { place: Place::Key(keys::note(sequence)), value: Some(encode(&notes)?) })
}

/// Where roll-ups stand.
#[derive(Default)]
pub(crate) struct RollUps {
    /// One at a time.
    running: tokio::sync::Mutex<()>,
    /// Notes of commits before this one are gone; only a hint, so that a scan does not pass over them.
    from: AtomicU64,
}

/// What a roll-up puts.
type Rows = Vec<(Key, Slice)>;

/// Rows as they will be, folded in memory.
struct Folding<'a> {
    shared: &'a Shared,
    engine: &'a Engine,
    today: u32,
    tallies: HashMap<ListingId, Tally>,
    sums: HashMap<ProfileId, Sums>,
    bought: HashMap<(ListingId, ProfileId), Bought>,
    buyers: HashMap<(ProfileId, ProfileId), u32>,
    standings: HashMap<ProfileId, Standing>,
    kin: HashMap<(ProfileId, ProfileId), bool>,
    reviewed: HashSet<ListingId>,
    /// Payments whose money came, or whose call was completed.
    paid: Vec<PaymentId>,
}

/// The row of this key: as it was folded so far, else as it is kept, else empty.
fn row<'m, K, T>(
    engine: &Engine,
    rows: &'m mut HashMap<K, T>,
    id: K,
    what: &str,
    key: impl FnOnce() -> Key,
) -> StoreResult<&'m mut T>
where
    K: std::hash::Hash + Eq,
    T: DeserializeOwned + Default,
{
    Ok(match rows.entry(id) {
        std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
        std::collections::hash_map::Entry::Vacant(place) => {
            let kept = engine.get(&key())?.map(|bytes| decode(what, &bytes)).transpose()?;
            place.insert(kept.unwrap_or_default())
        }
    })
}

impl Folding<'_> {
    fn fold(&mut self, note: &Note) -> StoreResult<()> {
        match note {
            Note::Payment { id, from, to, ended } => {
                let has_all = |payment: &Payment| {
                    let postings = payment.progress.postings.len() >= *to as usize;
                    let mut attempts = payment.progress.attempts.iter();
                    postings && (*ended == 0 || attempts.any(|known| known.number == *ended && known.end.is_some()))
                };
                let whole = |payment: &Payment| has_all(payment).then(|| payment.clone());
                let payment = self.shared.fold(self.engine, PaymentId::from_bytes(*id), whole)?;
                for place in *from as usize..*to as usize {
                    self.posting(&payment, place)?;
                }
                self.attempt(&payment, *ended)
            }
            Note::Calls { listing, day } => self.calls(*listing, day),
            Note::Review { listing, seller, day, rating, weight } => {
                self.reviewed.insert(*listing);
                let standing = self.standing(*seller, *day)?;
                standing.ratings.add(*rating, *weight);
                standing.reviews = standing.reviews.saturating_add(1);
                Ok(())
            }
            Note::Money { party, sums } => self.money(*party, sums),
        }
    }

    fn money(&mut self, party: ProfileId, sums: &Sums) -> StoreResult<()> {
        if *sums != Sums::default() {
            row(self.engine, &mut self.sums, party, "sums", || keys::sums(party))?.add(sums);
        }
        Ok(())
    }

    fn posting(&mut self, payment: &Payment, place: usize) -> StoreResult<()> {
        let quote = &payment.quote;
        let mut parties = vec![quote.buyer, quote.seller];
        parties.dedup();
        for party in parties {
            self.money(party, &Sums::of_posting(payment, place, party))?;
        }
        let Some(posting) = payment.progress.postings.get(place) else { return Ok(()) };
        let (listing, buyer, id) = (quote.listing, quote.buyer, quote.id);
        if matches!(posting.kind(), PostingKind::Settled | PostingKind::Completed) {
            self.paid.push(id);
        }
        match posting.kind() {
            PostingKind::Completed => {
                let purchase = Purchase { payment: id, at: posting.at(), value: quote.price };
                self.bought(listing, buyer)?.add(purchase);
                if !self.is_kin(buyer, quote.seller)? {
                    self.sale(payment, day_of(posting.at()))?;
                }
            }
            PostingKind::TakenBack => {
                let earlier = payment.progress.postings.iter().take(place);
                let count = |kind| earlier.clone().filter(|posting| posting.kind() == kind).count();
                // A purchase is taken back once, however often money moves.
                if count(PostingKind::Completed) == 1 && count(PostingKind::TakenBack) == 0 {
                    self.bought(listing, buyer)?.take_back(id, quote.price);
                    let value = u64::try_from(quote.price.0).unwrap_or(0);
                    let standing = self.standing(quote.seller, day_of(posting.at()))?;
                    standing.value = standing.value.saturating_sub(value);
                }
            }
            PostingKind::Settled | PostingKind::Owed | PostingKind::Refunded | PostingKind::PaidOut => {}
        }
        Ok(())
    }

    fn bought(&mut self, listing: ListingId, buyer: ProfileId) -> StoreResult<&mut Bought> {
        row(self.engine, &mut self.bought, (listing, buyer), BOUGHT, || keys::bought(listing, buyer))
    }

    /// A paid call between strangers.
    fn sale(&mut self, payment: &Payment, day: u32) -> StoreResult<()> {
        let (seller, buyer) = (payment.quote.seller, payment.quote.buyer);
        let last = match self.buyers.insert((seller, buyer), day) {
            Some(last) => Some(last),
            None => {
                let kept = self.engine.get(&keys::buyer_of(seller, buyer))?;
                kept.map(|bytes| decode::<u32>("buyer", &bytes)).transpose()?
            }
        };
        let standing = self.standing(seller, day)?;
        standing.value = standing.value.saturating_add(u64::try_from(payment.quote.price.0).unwrap_or(0));
        standing.bought_by(last);
        Ok(())
    }

    /// A seller's standing, brought to this day.
    fn standing(&mut self, seller: ProfileId, day: u32) -> StoreResult<&mut Standing> {
        let is_new = !self.standings.contains_key(&seller);
        let standing = row(self.engine, &mut self.standings, seller, STANDING, || keys::standing(seller))?;
        if is_new {
            standing.version = standing.version.saturating_add(1);
        }
        standing.bring_to(day);
        Ok(standing)
    }

    fn attempt(&mut self, payment: &Payment, number: u32) -> StoreResult<()> {
        let attempt = payment.progress.attempts.iter().find(|attempt| attempt.number == number);
        let Some(attempt) = attempt.filter(|_| number > 0) else { return Ok(()) };
        let row = GatewayRequest::of_attempt(payment, attempt);
        let Some(day) = DayTally::of_call(&row) else { return Ok(()) };
        self.calls(payment.quote.listing, &day)?;
        // What costs nothing to fake says nothing of a seller.
        if payment.quote.price.0 > 0 && !self.is_kin(payment.quote.buyer, payment.quote.seller)? {
            let standing = self.standing(payment.quote.seller, day.day)?;
            let part =
                if row.status == AttemptStatus::Completed { &mut standing.handled } else { &mut standing.failed };
            *part = part.saturating_add(crate::model::MILLI);
            standing.calls = standing.calls.saturating_add(1);
        }
        Ok(())
    }

    fn calls(&mut self, listing: ListingId, day: &DayTally) -> StoreResult<()> {
        let today = self.today;
        row(self.engine, &mut self.tallies, listing, TALLY, || keys::tally(listing))?.add(day, today);
        Ok(())
    }

    fn is_kin(&mut self, buyer: ProfileId, seller: ProfileId) -> StoreResult<bool> {
        if let Some(known) = self.kin.get(&(buyer, seller)) {
            return Ok(*known);
        }
        let profile = |id| self.shared.read::<Profile>("profile", &keys::profile(id));
        let is_kin = match (profile(buyer)?, profile(seller)?) {
            (Some(buyer), Some(seller)) => buyer.is_kin(&seller),
            _ => buyer == seller,
        };
        self.kin.insert((buyer, seller), is_kin);
        Ok(is_kin)
    }

    /// The rows that were touched, and the listings among them.
    fn rows(self) -> StoreResult<(Rows, Vec<ListingId>)> {
        let mut rows = Vec::new();
        for (listing, tally) in &self.tallies {
            rows.push((keys::tally(*listing), encode(tally)?));
        }
        for (party, sums) in &self.sums {
            rows.push((keys::sums(*party), encode(sums)?));
        }
        for ((listing, buyer), bought) in &self.bought {
            rows.push((keys::bought(*listing, *buyer), encode(bought)?));
        }
        for ((seller, buyer), day) in &self.buyers {
            rows.push((keys::buyer_of(*seller, *buyer), encode(day)?));
        }
        for (seller, standing) in &self.standings {
            rows.push((keys::standing(*seller), encode(standing)?));
            rows.push((keys::score_due(*seller), Slice::from(&[] as &[u8])));
        }
        let mut listings = self.reviewed;
        listings.extend(self.tallies.into_keys());
        Ok((rows, listings.into_iter().collect()))
    }
}

pub(super) const TALLY: &str = "tally";

impl Shared {
    /// Folds some thousand notes at most.
    pub(super) async fn roll_up(&self) -> StoreResult<RolledUp> {
        let _one = self.roll_ups.running.lock().await;
        let Some((puts, done, found)) = self.fold_notes()? else { return Ok(RolledUp::default()) };
        let next = done.iter().max().map_or(0, |last| last + 1);
        self.run(Operation::RollUp, move |draft| {
            for (key, value) in puts {
                draft.put(key, value);
            }
            for sequence in done {
                draft.remove(keys::note(sequence));
            }
            Ok(())
        })
        .await?;
        self.roll_ups.from.store(next, Ordering::Relaxed);
        Ok(found)
    }

    /// What the notes that wait come to: rows to put, commits whose notes go. `None`: nothing waits.
    fn fold_notes(&self) -> StoreResult<Option<(Rows, Vec<u64>, RolledUp)>> {
        let engine = self.engine()?;
        let mut folding = Folding {
            shared: self,
            engine: &engine,
            today: day_of(self.now()),
            tallies: HashMap::new(),
            sums: HashMap::new(),
            bought: HashMap::new(),
            buyers: HashMap::new(),
            standings: HashMap::new(),
            kin: HashMap::new(),
            reviewed: HashSet::new(),
            paid: Vec::new(),
        };
        let (mut done, mut count, mut more) = (Vec::new(), 0, false);
        for found in engine.scan(&keys::notes(self.roll_ups.from.load(Ordering::Relaxed))) {
            let (key, value) = found?;
            if count >= NOTES_MAX {
                more = true;
                break;
            }
            let sequence = keys::sequence_of_note(&key);
            done.push(sequence.ok_or_else(|| StoreError::Corrupt("a key of a note is too short".into()))?);
            let notes: Vec<Note> = decode("note", &value)?;
            count += notes.len();
            for note in &notes {
                match folding.fold(note) {
                    // One damaged record must not keep all others from being counted, for ever.
                    Err(StoreError::Corrupt(reason)) => error!(reason, ?note, "a note cannot be counted"),
                    folded => folded?,
                }
            }
        }
        if done.is_empty() {
            return Ok(None);
        }
        let (now, first) = (self.now(), done.first().copied().unwrap_or_default());
        folding.paid.sort_unstable();
        folding.paid.dedup();
        let paid = work::paid_rows(now, first, &folding.paid)?;
        let (mut rows, listings) = folding.rows()?;
        rows.extend(paid);
        Ok(Some((rows, done, RolledUp { listings, more })))
    }
}
