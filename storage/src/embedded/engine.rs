//! The engine under the store: its keyspaces, its configuration, its errors. Only this file and `commit` know fjall.

use std::{fs, path::Path, time::Duration};

use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Slice};
use parking_lot::RwLock;

use super::{
    codec::{decode, encode},
    keys::{self, Key, Range, Space},
};
use crate::{
    error::{StoreError, StoreResult},
    model::{PaymentId, UnixMillis},
};

const MIB: u64 = 1 << 20;
/// The engine takes no smaller journal.
const JOURNAL_MIN: u64 = 64 * MIB;
const MONEY: &str = "money";
const MARKET: &str = "market";
const META: &str = "meta";
/// Results come and go with their bucket: a small memtable is enough, and there is one for each live bucket.
const RESULT_MEMTABLE_MAX: u64 = 16 * MIB;
/// The engine's second worker matters: with one, a rotation can wait for ever on the queue that it alone empties.
const WORKER_THREADS: usize = 2;
/// What fills a journal past the size at which the engine begins the next one, 64 MB.
const FILLER_BYTES: usize = 4 << 20;
const FILLERS: usize = 17;
/// How long a wipe waits for the journal to go: so many looks, and the pause between them.
const WIPE_LOOKS: u32 = 1000;
const WIPE_PAUSE: Duration = Duration::from_millis(10);

/// An open engine.
pub(crate) struct Engine {
    database: Database,
    money: Keyspace,
    market: Keyspace,
    meta: Keyspace,
    buckets: RwLock<Vec<Bucket>>,
    memtable_bytes: u64,
    result_memtable_bytes: u64,
    journal_bytes: u64,
}

/// The results of calls that completed from `start` on, for `span` milliseconds.
#[derive(Clone)]
pub(crate) struct Bucket {
    /// When it begins, milliseconds since 1970.
    pub(crate) start: u64,
    /// How long it is, milliseconds.
    pub(crate) span: u64,
    /// Where its results are.
    pub(crate) results: Keyspace,
}

impl Bucket {
    /// Whether a call that completed then is in it.
    pub(crate) fn covers(&self, at: UnixMillis) -> bool {
        self.start <= at.0 && at.0 < self.start.saturating_add(self.span)
    }

    /// The bytes kept for a payment.
    ///
    /// # Errors
    /// When the engine cannot read them.
    pub(crate) fn get(&self, id: PaymentId) -> StoreResult<Option<Slice>> {
        self.results.get(id.bytes()).map_err(read_error)
    }
}

/// A change of one key.
pub(crate) struct Put {
    /// Which key; for a result its bucket's keyspace and the payment's id.
    pub(crate) place: Place,
    /// The new value; `None` takes the key away.
    pub(crate) value: Option<Slice>,
}

/// Where a put goes.
pub(crate) enum Place {
    /// One of the fixed keyspaces.
    Key(Key),
    /// A bucket of results.
    Result(Keyspace, Slice),
}

/// What a fault of the engine means to a reader.
pub(crate) fn read_error(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(_)
        | fjall::Error::Storage(fjall::LsmError::Io(_))
        | fjall::Error::Poisoned
        | fjall::Error::KeyspaceDeleted
        | fjall::Error::Locked => StoreError::Unavailable(error.to_string()),
        _ => StoreError::Corrupt(error.to_string()),
    }
}

impl Engine {
    /// Opens or makes the engine in `path`.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached now, `Corrupt` when it is damaged.
    pub(crate) fn open(path: &Path, config: &config::Storage) -> StoreResult<Self> {
        clear_unfinished(path)?;
        let journal_bytes = config.journal_bytes.max(JOURNAL_MIN);
        let database = Database::builder(path)
            .cache_size(config.cache_bytes)
            .max_journaling_size(journal_bytes)
            .manual_journal_persist(true)
            .worker_threads(WORKER_THREADS)
            .open()
            .map_err(read_error)?;
        let open = |name: &str, memtable_bytes: u64| {
            let options =
                || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes).manual_journal_persist(true);
            database.keyspace(name, options).map_err(read_error)
        };
        let meta = open(META, config.memtable_bytes)?;
        let memtable_bytes = memtable_bytes(&database, &meta, config.memtable_bytes)?;
        let engine = Self {
            money: open(MONEY, memtable_bytes)?,
            market: open(MARKET, memtable_bytes)?,
            meta,
            buckets: RwLock::new(Vec::new()),
            memtable_bytes,
            result_memtable_bytes: memtable_bytes.min(RESULT_MEMTABLE_MAX),
            journal_bytes,
            database,
        };
        for name in engine.database.list_keyspace_names() {
            if let Some((start, span)) = bucket_of_name(&name) {
                engine.bucket_open(start, span)?;
            }
        }
        engine.rotate_full()?;
        Ok(engine)
    }

    /// Starts flushing what a replay left in memtables past their limit: no commit asked for it, and the writer would
    /// wait for it before its first.
    fn rotate_full(&self) -> StoreResult<()> {
        for (keyspace, limit) in self.memtables() {
            if keyspace.tree.active_memtable().size() > limit {
                keyspace.rotate_memtable().map_err(read_error)?;
            }
        }
        Ok(())
    }

    /// All keyspaces, each with the limit of its memtable.
    fn memtables(&self) -> Vec<(Keyspace, u64)> {
        let fixed = [&self.money, &self.market, &self.meta].map(|keyspace| (keyspace.clone(), self.memtable_bytes));
        let results = self.buckets.read();
        let results = results.iter().map(|bucket| (bucket.results.clone(), self.result_memtable_bytes));
        fixed.into_iter().chain(results).collect()
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Money => &self.money,
            Space::Market => &self.market,
            Space::Meta => &self.meta,
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When the engine cannot read it.
    pub(crate) fn get(&self, key: &Key) -> StoreResult<Option<Slice>> {
        self.keyspace(key.space).get(&key.bytes).map_err(read_error)
    }

    /// Keys and values of a range, in order.
    pub(crate) fn scan(&self, range: &Range) -> Box<dyn Iterator<Item = StoreResult<(Slice, Slice)>> + Send> {
        // The engine takes no range that ends where it begins.
        if range.from >= range.to {
            return Box::new(std::iter::empty());
        }
        let found = self.keyspace(range.space).range(range.from.clone()..range.to.clone());
        Box::new(found.map(|guard| guard.into_inner().map_err(read_error)))
    }

    /// Writes all of it or nothing, and syncs once. What is put first becomes visible first.
    ///
    /// # Errors
    /// Whatever it says, the outcome is not known.
    pub(crate) fn commit(&self, puts: impl Iterator<Item = Put>, most: usize) -> fjall::Result<()> {
        let mut batch =
            fjall::OwnedWriteBatch::with_capacity(self.database.clone(), most).durability(Some(PersistMode::SyncData));
        for Put { place, value } in puts {
            let (keyspace, bytes) = match place {
                Place::Key(Key { space, bytes }) => (self.keyspace(space), bytes),
                Place::Result(ref keyspace, bytes) => (keyspace, bytes),
            };
            match value {
                Some(value) => batch.insert(keyspace, bytes, value),
                None => batch.remove(keyspace, bytes),
            }
        }
        batch.commit()
    }

    /// The bucket of results for calls that complete at `at`; made when it is not there yet.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be made.
    pub(crate) fn bucket_at(&self, at: UnixMillis, span: u64) -> StoreResult<Bucket> {
        if let Some(bucket) = self.buckets.read().iter().find(|bucket| bucket.covers(at)) {
            return Ok(bucket.clone());
        }
        let span = span.max(1);
        self.bucket_open(at.0 - at.0 % span, span)
    }

    /// The buckets that a call which completed at `at` may have its result in: one, or two after the span was changed.
    pub(crate) fn buckets_covering(&self, at: UnixMillis) -> Vec<Bucket> {
        self.buckets.read().iter().filter(|bucket| bucket.covers(at)).cloned().collect()
    }

    /// All buckets.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        self.buckets.read().clone()
    }

    fn bucket_open(&self, start: u64, span: u64) -> StoreResult<Bucket> {
        let options = || {
            KeyspaceCreateOptions::default().max_memtable_size(self.result_memtable_bytes).manual_journal_persist(true)
        };
        // Under the lock: of two threads that need it at once, one makes it.
        let mut buckets = self.buckets.write();
        let known = buckets.iter().find(|bucket| (bucket.start, bucket.span) == (start, span));
        if let Some(bucket) = known {
            return Ok(bucket.clone());
        }
        let results = self.database.keyspace(&bucket_name(start, span), options).map_err(read_error)?;
        let bucket = Bucket { start, span, results };
        buckets.push(bucket.clone());
        Ok(bucket)
    }

    /// Drops a bucket with all that is in it. The space comes back with the last handle, so with `bucket`.
    ///
    /// # Errors
    /// `Unavailable` when the engine cannot note it.
    pub(crate) fn bucket_drop(&self, bucket: &Bucket) -> StoreResult<()> {
        self.buckets.write().retain(|known| (known.start, known.span) != (bucket.start, bucket.span));
        self.database.delete_keyspace(bucket.results.clone()).map_err(read_error)
    }

    /// About how many bytes held results take.
    pub(crate) fn results_bytes(&self) -> u64 {
        let bytes = |bucket: Bucket| bucket.results.disk_space() + bucket.results.tree.active_memtable().size();
        self.buckets().into_iter().map(bytes).sum()
    }

    /// How full the fullest active memtable is, in percent of its limit.
    pub(crate) fn memtable_percent(&self) -> u64 {
        let percent = |(keyspace, limit): (Keyspace, u64)| {
            keyspace.tree.active_memtable().size().saturating_mul(100).checked_div(limit).unwrap_or(0)
        };
        self.memtables().into_iter().map(percent).max().unwrap_or(0)
    }

    /// Lets sealed journals go, and so keeps the next start short: a journal stays until every keyspace has flushed
    /// what it holds of it, and those that are written little would keep it for long. `known`: how many journals there
    /// were at the last look; returns how many there are.
    ///
    /// # Errors
    /// When the engine cannot write.
    pub(crate) fn release_journals(&self, known: usize) -> StoreResult<usize> {
        let journals = self.database.journal_count();
        if journals > 1 && journals >= known {
            for (keyspace, _) in self.memtables() {
                // Money is flushed by itself, but for a journal that was sealed for another keyspace.
                let waits = keyspace.tree.active_memtable().size() > 0 && keyspace.tree.sealed_memtable_count() == 0;
                if waits && (keyspace != self.money || journals > 2) {
                    keyspace.rotate_memtable().map_err(read_error)?;
                }
            }
        }
        Ok(journals)
    }

    /// Takes what was overwritten out of the files: out of the journal, which the engine moves on only when it is full
    /// at a flush, and out of the tables, which keep old values until they are merged. For a start, before the writer.
    ///
    /// # Errors
    /// `Unavailable` when it could not be done; what is kept now is as it was.
    pub(crate) fn wipe(&self) -> StoreResult<()> {
        let mut filler = vec![0; FILLER_BYTES];
        for _ in 0..FILLERS {
            // Random, so that it is not packed small.
            getrandom::fill(&mut filler).map_err(|error| StoreError::Unavailable(error.to_string()))?;
            let put = Put { place: Place::Key(keys::filler()), value: Some(Slice::from(filler.as_slice())) };
            self.commit(std::iter::once(put), 1).map_err(read_error)?;
        }
        // Emptied, and not removed: the engine lets a journal go by the newest entry in tables, and a merge drops removals.
        let empty = Put { place: Place::Key(keys::filler()), value: Some(Slice::from(&[] as &[u8])) };
        self.commit(std::iter::once(empty), 1).map_err(read_error)?;
        // The first flush seals the journal, the others let it go.
        for (keyspace, _) in self.memtables().into_iter().rev() {
            keyspace.rotate_memtable_and_wait().map_err(read_error)?;
        }
        // A flush is done moments before its journal goes.
        self.until_journals_go()?;
        for keyspace in [&self.market, &self.meta] {
            merge_all(keyspace)?;
        }
        Ok(())
    }

    fn until_journals_go(&self) -> StoreResult<()> {
        for _ in 0..WIPE_LOOKS {
            if self.database.journal_count() == 1 {
                return Ok(());
            }
            std::thread::sleep(WIPE_PAUSE);
        }
        Err(StoreError::Unavailable(format!("{} journals are still needed", self.database.journal_count())))
    }

    /// How large the journal is, in percent of its limit. Waits while a commit syncs.
    ///
    /// # Errors
    /// When the engine cannot tell.
    pub(crate) fn journal_percent(&self) -> StoreResult<u64> {
        let bytes = self.database.journal_disk_space().map_err(read_error)?;
        Ok(bytes.saturating_mul(100).checked_div(self.journal_bytes).unwrap_or(0))
    }
}

/// Writes all tables of a keyspace anew. The engine leaves it, and says nothing, while one of them is being merged
/// already: it is asked until none is left of those that were there.
fn merge_all(keyspace: &Keyspace) -> StoreResult<()> {
    let first_new = keyspace.tree.next_table_id();
    for _ in 0..WIPE_LOOKS {
        keyspace.major_compact().map_err(read_error)?;
        if keyspace.tree.current_version().iter_tables().all(|table| table.id() >= first_new) {
            return Ok(());
        }
        std::thread::sleep(WIPE_PAUSE);
    }
    Err(StoreError::Unavailable("tables are being merged all the time".into()))
}

/// All of the store at one moment; what is written later is not in it.
pub(crate) struct Snapshot {
    snapshot: fjall::Snapshot,
    keyspaces: Vec<(String, Keyspace)>,
}

impl Snapshot {
    /// The names of the keyspaces.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.keyspaces.iter().map(|(name, _)| name.as_str())
    }

    /// Keys and values of a keyspace, in order.
    pub(crate) fn entries(&self, name: &str) -> impl Iterator<Item = StoreResult<(Slice, Slice)>> {
        let found = self.keyspaces.iter().find(|(known, _)| known == name);
        let entries = found.map(|(_, keyspace)| self.snapshot.iter(keyspace));
        entries.into_iter().flatten().map(|guard| guard.into_inner().map_err(read_error))
    }

    /// About how many keys there are.
    pub(crate) fn about(&self) -> u64 {
        self.keyspaces.iter().map(|(_, keyspace)| keyspace.approximate_len() as u64).sum()
    }

    /// The value of a payment's key.
    ///
    /// # Errors
    /// When the engine cannot read it.
    pub(crate) fn money(&self, key: &Key) -> StoreResult<Option<Slice>> {
        let money = self.keyspaces.iter().find(|(name, _)| name == MONEY);
        Ok(money.map(|(_, money)| self.snapshot.get(money, &key.bytes)).transpose().map_err(read_error)?.flatten())
    }

    /// The last commit that is in it.
    ///
    /// # Errors
    /// When the engine cannot read it.
    pub(crate) fn sequence(&self) -> StoreResult<u64> {
        let found = self.money(&keys::commit_sequence())?;
        Ok(found.map(|bytes| decode("commit sequence", &bytes)).transpose()?.unwrap_or(0))
    }
}

impl Engine {
    /// The store as it is now. Whoever holds it for long must watch whether the store is being reopened.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let fixed = [(MONEY, &self.money), (MARKET, &self.market), (META, &self.meta)];
        let fixed = fixed.map(|(name, keyspace)| (name.to_string(), keyspace.clone()));
        let buckets = self.buckets();
        let results = buckets.into_iter().map(|bucket| (bucket_name(bucket.start, bucket.span), bucket.results));
        Snapshot { snapshot: self.database.snapshot(), keyspaces: fixed.into_iter().chain(results).collect() }
    }

    /// Fills a keyspace that holds nothing with entries in order; returns how many they were. They are durable when it
    /// returns.
    ///
    /// # Errors
    /// `Corrupt` when there is no such keyspace, and what `entries` says.
    pub(crate) fn load(&self, name: &str, entries: &mut dyn Iterator<Item = StoreResult<Entries>>) -> StoreResult<u64> {
        let keyspace = match (name, bucket_of_name(name)) {
            (MONEY, _) => self.money.clone(),
            (MARKET, _) => self.market.clone(),
            (META, _) => self.meta.clone(),
            (_, Some((start, span))) => self.bucket_open(start, span)?.results,
            _ => return Err(StoreError::Corrupt(format!("there is no keyspace {name:?}"))),
        };
        let mut ingestion = keyspace.start_ingestion().map_err(read_error)?;
        let mut count = 0;
        for found in entries {
            for (key, value) in found? {
                ingestion.write(key, value).map_err(read_error)?;
                count += 1;
            }
        }
        ingestion.finish().map_err(read_error)?;
        Ok(count)
    }
}

/// Keys and values on their way into a new store.
pub(crate) type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The limit of a memtable. The engine keeps the one that a keyspace was made with, so the store notes it, and another
/// one in the configuration counts for new stores only.
fn memtable_bytes(database: &Database, meta: &Keyspace, wanted: u64) -> StoreResult<u64> {
    let key = keys::memtable_bytes().bytes;
    let noted = meta.get(&key).map_err(read_error)?;
    if let Some(noted) = noted.map(|bytes| decode("memtable limit", &bytes)).transpose()? {
        if noted != wanted {
            tracing::info!(noted, wanted, "storage.memtable_bytes counts for a new store; this one keeps its own");
        }
        return Ok(noted);
    }
    let mut batch = database.batch().durability(Some(PersistMode::SyncData));
    batch.insert(meta, key, encode(&wanted)?);
    batch.commit().map_err(read_error)?;
    Ok(wanted)
}

fn bucket_name(start: u64, span: u64) -> String {
    format!("results-{start}-{span}")
}

/// The start and span in a bucket's name.
fn bucket_of_name(name: &str) -> Option<(u64, u64)> {
    let (start, span) = name.strip_prefix("results-")?.split_once('-')?;
    Some((start.parse().ok()?, span.parse().ok()?))
}

/// What the engine writes last when it is made: its letters and its format. A process that dies over it leaves less.
const VERSION_BYTES: u64 = 4;

/// Takes away what a process left that died while it made the engine for the first time: the engine could not open
/// it, and nothing can have been acknowledged. Anything that might hold facts is left alone.
fn clear_unfinished(path: &Path) -> StoreResult<()> {
    let unavailable = |error: std::io::Error| StoreError::Unavailable(format!("{}: {error}", path.display()));
    let is_made = fs::metadata(path.join("version")).is_ok_and(|version| version.len() >= VERSION_BYTES);
    if !path.exists() || is_made {
        return Ok(());
    }
    let keyspaces = match fs::read_dir(path.join("keyspaces")) {
        Ok(found) => found.filter_map(Result::ok).any(|entry| entry.file_name() != "0"),
        Err(_) => false,
    };
    if keyspaces {
        return Err(StoreError::Corrupt(format!(
            "{} has tables and no whole version mark; restore a backup, or put the missing file `version` back",
            path.display()
        )));
    }
    fs::remove_dir_all(path).map_err(unavailable)
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
