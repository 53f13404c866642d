//! A draft: the steps of one commit, decided one after the other, each upon the state that those before it left.
//! Nothing of it is visible to anybody before it is durable.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use fjall::{Keyspace, Slice};

use super::{
    codec::{decode, decode_id, encode},
    engine::{Engine, Place, Put},
    keys::{self, Key, Range},
    live::{LivePayments, OpenQuotes},
    roll_up::Note,
    steps::Rules,
};
use crate::{
    error::{StoreError, StoreResult},
    model::{Owner, Payment, PaymentId, PostingId, Progress, UnixMillis},
    store::Change,
};

/// What the writer remembers from one commit to the next.
#[derive(Default)]
pub(crate) struct Memory {
    /// How many quotes each buyer has open.
    pub(crate) open_quotes: OpenQuotes,
    last_event: [u8; 16],
    /// The last in order of all that this life minted.
    newest_event: [u8; 16],
    /// What is added up is closed up to here: nothing is minted at or before it.
    cut: [u8; 16],
}

impl Memory {
    /// A new event's id. Within a millisecond later ones sort later, so that a page's end stays where it was; and none
    /// sorts before what a payout has closed, even where the clock went back.
    pub(crate) fn mint(&mut self, now: UnixMillis) -> PostingId {
        let drawn = behind(self.cut, PostingId::mint(now).bytes());
        let same_moment = drawn.first_chunk::<6>() == self.last_event.first_chunk::<6>();
        let event = if same_moment && drawn <= self.last_event {
            u128::from_be_bytes(self.last_event).wrapping_add(1).to_be_bytes()
        } else {
            drawn
        };
        self.last_event = event;
        self.newest_event = self.newest_event.max(event);
        PostingId::from_bytes(event)
    }

    /// An event that sorts before all that are minted from now on: the last of its millisecond, for what an earlier life
    /// minted in it is before it, too. And behind all that were minted, also where the clock went back since: `newest` is
    /// what earlier lives left.
    pub(crate) fn cut(&mut self, now: UnixMillis, newest: Option<PostingId>) -> PostingId {
        let drawn = behind(self.cut, PostingId::mint(now).bytes());
        let minted = self.newest_event.max(newest.map_or([0; 16], PostingId::bytes));
        let event = u128::from_be_bytes(drawn.max(minted));
        let cut = PostingId::from_bytes((event | ((1 << RANDOM_BITS) - 1)).to_be_bytes());
        self.close(cut);
        cut
    }

    /// Mints nothing at or before this event.
    pub(crate) fn close(&mut self, event: PostingId) {
        self.cut = self.cut.max(event.bytes());
    }
}

/// The bits of an event's id behind its moment.
const RANDOM_BITS: u32 = 80;

/// This event, moved to the millisecond behind a cut when it is not past it. Its random part stays, so that two lives
/// whose clocks went back mint no event twice.
fn behind(cut: [u8; 16], drawn: [u8; 16]) -> [u8; 16] {
    let (cut, drawn) = (u128::from_be_bytes(cut) >> RANDOM_BITS, u128::from_be_bytes(drawn));
    if drawn >> RANDOM_BITS > cut {
        return drawn.to_be_bytes();
    }
    let random = drawn & ((1 << RANDOM_BITS) - 1);
    ((cut + 1) << RANDOM_BITS | random).to_be_bytes()
}

/// What steps may look at and change.
pub(crate) struct Draft<'a> {
    /// Where what is committed stands.
    pub(crate) engine: &'a Engine,
    /// What the writer remembers.
    pub(crate) memory: &'a mut Memory,
    /// This life of this node.
    pub(crate) owner: Owner,
    /// What the configuration says.
    pub(crate) rules: Rules,
    /// The present moment, the same for all that one step writes.
    pub(crate) now: UnixMillis,
    live: &'a LivePayments,
    puts: Vec<Entry>,
    latest: HashMap<Key, usize>,
    payments: HashMap<PaymentId, Arc<Payment>>,
    replaced: Vec<(PaymentId, Option<Arc<Payment>>)>,
    changes: Vec<Change>,
    gone: Vec<PaymentId>,
    notes: Vec<Note>,
    bytes: u64,
}

struct Entry {
    put: Put,
    /// The entry of the same key before this one.
    before: Option<usize>,
}

/// Where a step began: what it left is taken back when it fails.
pub(crate) struct Mark {
    puts: usize,
    replaced: usize,
    changes: usize,
    gone: usize,
    notes: usize,
}

/// What a draft came to.
pub(crate) struct Drafted {
    /// What to write, in order, each key once.
    pub(crate) puts: Vec<Put>,
    /// Payments after their steps, and those that were read.
    pub(crate) payments: HashMap<PaymentId, Arc<Payment>>,
    /// What caches must forget.
    pub(crate) changes: Vec<Change>,
    /// Payments that were deleted.
    pub(crate) gone: Vec<PaymentId>,
    /// What the roll-ups hear of it.
    pub(crate) notes: Vec<Note>,
}

impl<'a> Draft<'a> {
    /// An empty draft.
    pub(crate) fn new(
        engine: &'a Engine,
        live: &'a LivePayments,
        memory: &'a mut Memory,
        (owner, rules): (Owner, Rules),
    ) -> Self {
        Self {
            engine,
            memory,
            owner,
            rules,
            now: UnixMillis(0),
            live,
            puts: Vec::new(),
            latest: HashMap::new(),
            payments: HashMap::new(),
            replaced: Vec::new(),
            changes: Vec::new(),
            gone: Vec::new(),
            notes: Vec::new(),
            bytes: 0,
        }
    }

    /// Begins a step.
    pub(crate) fn begin(&mut self, now: UnixMillis) -> Mark {
        self.now = now;
        Mark {
            puts: self.puts.len(),
            replaced: self.replaced.len(),
            changes: self.changes.len(),
            gone: self.gone.len(),
            notes: self.notes.len(),
        }
    }

    /// Takes back what a step left that failed half-way.
    pub(crate) fn undo(&mut self, mark: &Mark) {
        while self.puts.len() > mark.puts {
            let Some(Entry { put, before }) = self.puts.pop() else { break };
            if let Place::Key(key) = put.place {
                match before {
                    Some(before) => self.latest.insert(key, before),
                    None => self.latest.remove(&key),
                };
            }
        }
        while self.replaced.len() > mark.replaced {
            match self.replaced.pop() {
                Some((id, Some(before))) => self.payments.insert(id, before),
                Some((id, None)) => self.payments.remove(&id),
                None => break,
            };
        }
        self.changes.truncate(mark.changes);
        self.gone.truncate(mark.gone);
        self.notes.truncate(mark.notes);
    }

    /// How many bytes the draft has come to.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The value of a key, as the steps before left it.
    pub(crate) fn get(&self, key: &Key) -> StoreResult<Option<Slice>> {
        match self.latest.get(key).and_then(|index| self.puts.get(*index)) {
            Some(entry) => Ok(entry.put.value.clone()),
            None => self.engine.get(key),
        }
    }

    /// The value of a key, read back.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self, what: &str, key: &Key) -> StoreResult<Option<T>> {
        self.get(key)?.map(|bytes| decode(what, &bytes)).transpose()
    }

    /// The values of a range in the order of their keys, as the steps before left them. Looks at the whole draft: for
    /// ranges of some rows, and for what is not done often.
    pub(crate) fn scan(&self, range: &Range) -> StoreResult<Vec<Slice>> {
        let mut found = BTreeMap::new();
        for row in self.engine.scan(range) {
            let (key, value) = row?;
            found.insert(key, value);
        }
        let is_within = |key: &Key| key.space == range.space && (&*range.from..&*range.to).contains(&&*key.bytes);
        for (key, index) in self.latest.iter().filter(|(key, _)| is_within(key)) {
            match self.puts.get(*index).and_then(|entry| entry.put.value.clone()) {
                Some(value) => found.insert(key.bytes.clone(), value),
                None => found.remove(&key.bytes),
            };
        }
        Ok(found.into_values().collect())
    }

    /// The payment that an index key names.
    pub(crate) fn payment_id_at(&self, key: &Key) -> StoreResult<Option<PaymentId>> {
        self.get(key)?.map(|bytes| decode_id("payment index", &bytes).map(PaymentId::from_bytes)).transpose()
    }

    /// Writes a value.
    pub(crate) fn put(&mut self, key: Key, value: Slice) {
        self.note(key, Some(value));
    }

    /// Writes a value of the model.
    pub(crate) fn write<T: serde::Serialize>(&mut self, key: Key, value: &T) -> StoreResult<()> {
        let value = encode(value)?;
        self.put(key, value);
        Ok(())
    }

    /// Takes a key away.
    pub(crate) fn remove(&mut self, key: Key) {
        self.note(key, None);
    }

    fn note(&mut self, key: Key, value: Option<Slice>) {
        self.bytes += (key.bytes.len() + value.as_ref().map_or(0, |value| value.len())) as u64;
        let before = self.latest.insert(key.clone(), self.puts.len());
        self.puts.push(Entry { put: Put { place: Place::Key(key), value }, before });
    }

    /// Writes the bytes of a result; a payment has one, so it is never written twice in a draft.
    pub(crate) fn put_result(&mut self, bucket: Keyspace, id: PaymentId, value: &[u8]) {
        self.bytes += value.len() as u64;
        let put = Put { place: Place::Result(bucket, Slice::from(&id.bytes())), value: Some(Slice::from(value)) };
        self.puts.push(Entry { put, before: None });
    }

    /// Caches must forget this.
    pub(crate) fn change(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// The roll-ups must hear of this, once it is durable.
    pub(crate) fn tell(&mut self, note: Note) {
        self.notes.push(note);
    }

    /// A payment, as the steps before left it: the open draft first, then memory, then the engine.
    pub(crate) fn payment(&mut self, id: PaymentId) -> StoreResult<Option<Arc<Payment>>> {
        if let Some(payment) = self.payments.get(&id) {
            return Ok(Some(Arc::clone(payment)));
        }
        // Deleted by a step before: memory and the engine still have it until the commit.
        if self.gone.contains(&id) {
            return Ok(None);
        }
        let payment = match self.live.get(id) {
            Some(payment) => Some(payment),
            None => read_payment(self.engine, id)?,
        };
        if let Some(payment) = &payment {
            self.payments.insert(id, Arc::clone(payment));
        }
        Ok(payment)
    }

    /// From here on this is the payment's state. The caller writes its keys.
    pub(crate) fn replace_payment(&mut self, payment: Arc<Payment>) {
        let id = payment.quote.id;
        self.replaced.push((id, self.payments.insert(id, payment)));
    }

    /// The payment is gone. The caller removes its keys.
    pub(crate) fn forget_payment(&mut self, id: PaymentId) {
        self.replaced.push((id, self.payments.remove(&id)));
        self.gone.push(id);
    }

    /// What to write and what to tell, once it is written.
    pub(crate) fn finish(self) -> Drafted {
        let latest = self.latest;
        let puts = self.puts.into_iter().enumerate();
        let puts = puts.filter(|(index, entry)| match &entry.put.place {
            // The engine would take two values of one key in a batch, and either might stand.
            Place::Key(key) => latest.get(key) == Some(index),
            Place::Result(..) => true,
        });
        let mut puts: Vec<Put> = puts.map(|(_, entry)| entry.put).collect();
        // Readers see a batch as it is applied, put by put: what others lead to comes first.
        puts.sort_by_key(|put| match &put.place {
            Place::Result(..) => 0,
            Place::Key(key) => keys::visible_after(key),
        });
        Drafted { puts, payments: self.payments, changes: self.changes, gone: self.gone, notes: self.notes }
    }
}

/// A payment from the engine: its record and, while it is under way, what changed since.
///
/// The delta is read first: a step that ends a payment writes the record before it takes the delta away, so whoever
/// finds no delta finds the record that made it go.
pub(crate) fn read_payment(engine: &Engine, id: PaymentId) -> StoreResult<Option<Arc<Payment>>> {
    let delta = engine.get(&keys::delta(id))?;
    let Some(record) = engine.get(&keys::payment(id))? else {
        return match delta {
            None => Ok(None),
            Some(_) => Err(StoreError::Corrupt(format!("{id} has progress and no quote"))),
        };
    };
    fold_payment(id, &record, delta.as_deref()).map(|payment| Some(Arc::new(payment)))
}

/// A payment out of its record and, while it is under way, its delta.
///
/// # Errors
/// `Corrupt` when they are not its.
pub(crate) fn fold_payment(id: PaymentId, record: &[u8], delta: Option<&[u8]>) -> StoreResult<Payment> {
    let mut payment: Payment = decode("payment", record)?;
    if payment.quote.id != id {
        return Err(StoreError::Corrupt(format!("the record of {id} is that of {}", payment.quote.id)));
    }
    if let Some(delta) = delta {
        let progress: Progress = decode("progress of a payment", delta)?;
        if progress.version > payment.progress.version {
            payment.progress = progress;
        }
    }
    Ok(payment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_leaves_nothing_and_each_key_is_written_once() {
        let folder = tempfile::tempdir().expect("folder");
        let config = config::Config::from_parts(None, []).expect("defaults").storage;
        let engine = Engine::open(folder.path(), &config).expect("engine");
        let (live, mut memory) = (LivePayments::new(16), Memory::default());
        let rules = Rules { attempts_max: 1, key_kept_ms: 1, bucket_ms: 1, unpaid_kept_ms: 1 };
        let mut draft = Draft::new(&engine, &live, &mut memory, (Owner { node: 1, epoch: 1 }, rules));
        let (a, b) = (keys::secret("a"), keys::secret("b"));
        draft.begin(UnixMillis(1));
        draft.put(a.clone(), Slice::from("first"));
        let mark = draft.begin(UnixMillis(2));
        draft.put(a.clone(), Slice::from("second"));
        draft.put(b.clone(), Slice::from("third"));
        draft.remove(a.clone());
        draft.change(Change::ApiKey([1; 32]));
        assert_eq!(draft.get(&a), Ok(None));
        draft.undo(&mark);
        assert_eq!((draft.get(&a), draft.get(&b)), (Ok(Some(Slice::from("first"))), Ok(None)));
        draft.begin(UnixMillis(3));
        draft.put(a.clone(), Slice::from("last"));
        draft.remove(keys::delta(PaymentId::from_bytes([1; 16])));
        draft.put(keys::payment(PaymentId::from_bytes([1; 16])), Slice::from("record"));
        let drafted = draft.finish();
        let places: Vec<_> = drafted.puts.into_iter().map(|put| (put.place, put.value)).collect();
        assert!(drafted.changes.is_empty());
        let [(Place::Key(first), _), (Place::Key(second), None), (Place::Key(third), Some(value))] = &places[..] else {
            panic!("{} puts", places.len())
        };
        assert_eq!(*first, keys::payment(PaymentId::from_bytes([1; 16])), "the record before what it replaces");
        assert_eq!(*second, keys::delta(PaymentId::from_bytes([1; 16])));
        assert_eq!((third, value), (&a, &Slice::from("last")));
    }

    #[test]
    fn events_sort_by_time_and_within_a_millisecond_by_their_order() {
        let mut memory = Memory::default();
        let minted: Vec<_> = [5, 5, 5, 5, 5, 5, 6, 6, 9].map(|ms| memory.mint(UnixMillis(ms)).bytes()).into();
        assert!(minted.is_sorted_by(|a, b| a < b), "{minted:?}");
        assert!(memory.mint(UnixMillis(1)).bytes() < minted[0], "a clock that went back is believed");
        let mut later: Vec<_> = [20, 20].map(|ms| memory.mint(UnixMillis(ms)).bytes()).into();
        later.push(memory.cut(UnixMillis(20), None).bytes());
        later.extend([20, 1, 1, 20, 20, 1, 19, 1].map(|ms| memory.mint(UnixMillis(ms)).bytes()));
        later.push(memory.mint(UnixMillis(21)).bytes());
        assert!(later.is_sorted_by(|a, b| a < b), "but not past what is closed: {later:?}");
        assert_eq!(memory.mint(UnixMillis(30)).minted_at(), UnixMillis(30));
    }
}
