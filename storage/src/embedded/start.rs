//! What happens before the first step: the lock, the format, the look whether the store went back, this life's epoch,
//! and the memory that is built from the store.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use fjall::Slice;
use tracing::{info, warn};

use super::{
    codec::{decode, decode_id, encode},
    commit,
    draft::Memory,
    engine::{Engine, Place, Put},
    keys::{self, Key},
    migrations,
};
use crate::{
    error::{StoreError, StoreResult},
    model::{Category, CategoryId, Clock, Owner, ProfileId, UnixMillis},
    sealed::Sealer,
};

/// The format of the whole store. A newer one is refused, an older one is migrated forward by [`MIGRATIONS`].
const FORMAT: u32 = 3;

/// What makes format n + 1 of format n, in order from n = 1. Each one runs to its end or again from its beginning, so
/// it must not mind what an earlier attempt left.
const MIGRATIONS: &[Migration] = &[migrations::seal, migrations::payouts];

/// Brings all values of an engine from one format to the next.
type Migration = fn(&Engine, &Sealer) -> StoreResult<()>;

/// The shelves of a new store.
const CATEGORIES: [(&str, &str); 12] = [
    ("AI & Machine Learning", "ai-machine-learning"),
    ("Business", "business"),
    ("Communication", "communication"),
    ("Data", "data"),
    ("Developer Tools", "developer-tools"),
    ("Documents", "documents"),
    ("Finance", "finance"),
    ("Maps & Location", "maps-location"),
    ("Media", "media"),
    ("Research", "research"),
    ("Search", "search"),
    ("Security", "security"),
];

/// Where the engine keeps its files.
pub(crate) fn engine_path(path: &Path) -> PathBuf {
    path.join("engine")
}

/// Where larger results are kept.
pub(crate) fn results_path(path: &Path) -> PathBuf {
    path.join("results")
}

pub(crate) fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

/// The right to this directory; it ends with the value, or with the process.
pub(crate) struct Lock {
    _file: File,
}

/// Makes the directory and takes it for this process.
///
/// # Errors
/// `Unavailable` when another process has it, or it cannot be made.
pub(crate) fn lock(path: &Path) -> StoreResult<Lock> {
    fs::create_dir_all(path).map_err(|error| unavailable(path, &error))?;
    let file_path = path.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&file_path);
    let file = file.map_err(|error| unavailable(&file_path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
            "another process has the store in {}: a directory has one owner; stop the other one, or set storage.path",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unavailable(&file_path, &error)),
    }
}

/// Whether another process has this directory; none has one that is not there.
///
/// # Errors
/// `Unavailable` when it cannot be told.
pub(crate) fn is_taken(path: &Path) -> StoreResult<bool> {
    let file_path = path.join("lock");
    match OpenOptions::new().write(true).open(&file_path) {
        // Taken for a moment and given back with the file.
        Ok(file) => match file.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(unavailable(&file_path, &error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unavailable(&file_path, &error)),
    }
}

/// The format that the directory is in; a new one is marked with ours.
///
/// # Errors
/// `Corrupt` when it is newer than this program, or not a number.
pub(crate) fn format(path: &Path) -> StoreResult<u32> {
    format_known(path, FORMAT)
}

/// As [`format`], for a program that knows formats up to `known`.
fn format_known(path: &Path, known: u32) -> StoreResult<u32> {
    let file_path = path.join("format");
    match fs::read_to_string(&file_path) {
        Ok(text) => {
            let format = text.trim().parse().map_err(|_| {
                StoreError::Corrupt(format!("{} does not hold a format: {text:?}", file_path.display()))
            })?;
            if format > known {
                return Err(StoreError::Corrupt(format!(
                    "the store in {} has format {format}, and this program knows {known} at most: use the program \
                     that wrote it, or a newer one",
                    path.display()
                )));
            }
            Ok(format)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format_write(path, known)?;
            Ok(known)
        }
        Err(error) => Err(unavailable(&file_path, &error)),
    }
}

/// Checks that a copy of a store is one that this program can read.
///
/// # Errors
/// `Unavailable` when there is no copy, else as [`format`].
pub(crate) fn format_of_copy(from: &Path) -> StoreResult<()> {
    let file_path = from.join("format");
    if !file_path.is_file() {
        return Err(StoreError::Unavailable(format!("{} is not a backup: it has no file `format`", from.display())));
    }
    format(from).map(drop)
}

/// Marks a copy of a store, or a store made from one, with the format of the other.
///
/// # Errors
/// `Unavailable` when it cannot be written.
pub(crate) fn copy_format(from: &Path, into: &Path) -> StoreResult<()> {
    format_write(into, format(from)?)
}

fn format_write(path: &Path, format: u32) -> StoreResult<()> {
    let (draft, file_path) = (path.join("format.new"), path.join("format"));
    let write = || {
        let mut file = File::create(&draft)?;
        writeln!(file, "{format}")?;
        file.sync_all()?;
        fs::rename(&draft, &file_path)?;
        File::open(path)?.sync_all()
    };
    write().map_err(|error| unavailable(&file_path, &error))
}

/// Brings a store of an older format forward, one format after the other.
///
/// # Errors
/// As the migrations; the store then stays in the last format that was reached.
pub(crate) fn migrate(path: &Path, engine: &Engine, sealer: &Sealer, from: u32) -> StoreResult<()> {
    migrate_with(path, (engine, sealer), from, MIGRATIONS)
}

fn migrate_with(
    path: &Path,
    (engine, sealer): (&Engine, &Sealer),
    from: u32,
    migrations: &[Migration],
) -> StoreResult<()> {
    let done = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
    for (format, migration) in (from + 1..).zip(migrations.iter().skip(done)) {
        warn!(from, to = format, "the store is brought to a newer format; a copy made before is the way back");
        migration(engine, sealer)?;
        format_write(path, format)?;
    }
    Ok(())
}

/// The last acknowledged commit, noted beside the store now and then: a store whose own count is lower went back.
pub(crate) struct SideFile {
    path: PathBuf,
    written: AtomicU64,
}

impl SideFile {
    /// The one of this directory.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.join("commits"), written: AtomicU64::new(u64::MAX) }
    }

    /// Refuses a store that holds less than was once acknowledged.
    ///
    /// # Errors
    /// `Corrupt`, with the two ways on.
    pub(crate) fn check(&self, found: u64) -> StoreResult<()> {
        // Nothing readable there: a new store, or a file torn by a power cut. The check is a guard, not a fact.
        let noted = fs::read_to_string(&self.path).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        if noted <= found {
            return Ok(());
        }
        let file = self.path.display();
        Err(StoreError::Corrupt(format!(
            "the store went back: commit {noted} was acknowledged, and it holds {found}. Restore the newer files; or, \
             when what is missing is given up (as after restoring a backup), delete {file} and start again"
        )))
    }

    /// Notes a commit, without a sync.
    pub(crate) fn write(&self, sequence: u64) {
        if self.written.swap(sequence, Ordering::Relaxed) == sequence {
            return;
        }
        // Written over in place and of one length: a reader finds the old number or the new one.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path);
        if let Err(error) = file.and_then(|mut file| file.write_all(format!("{sequence:020}\n").as_bytes())) {
            self.written.store(u64::MAX, Ordering::Relaxed);
            warn!(%error, "the count of commits beside the store cannot be written");
        }
    }
}

/// Begins a new life of this node: its epoch is durable before anything else is written. Returns it and the last
/// commit.
///
/// # Errors
/// `Unavailable` when it cannot be written.
pub(crate) fn begin_life(engine: &Engine, clock: &Clock) -> StoreResult<(Owner, u64)> {
    let put = |key: Key, value: Slice| Put { place: Place::Key(key), value: Some(value) };
    let mut puts = Vec::new();
    let known: Option<Owner> = engine.get(&keys::owner())?.map(|bytes| decode("owner", &bytes)).transpose()?;
    let owner = match known {
        Some(owner) => Owner { epoch: owner.epoch + 1, ..owner },
        None => {
            let mut node = [0; 8];
            getrandom::fill(&mut node).map_err(|error| StoreError::Unavailable(error.to_string()))?;
            for (name, slug) in CATEGORIES {
                let id = CategoryId::mint(clock.now());
                let category = Category { id, name: name.into(), slug: slug.into() };
                puts.push(put(keys::category(id), encode(&category)?));
            }
            Owner { node: u64::from_be_bytes(node), epoch: 1 }
        }
    };
    let sequence = commit::sequence(engine)? + 1;
    puts.push(put(keys::owner(), encode(&owner)?));
    puts.push(commit::sequence_put(sequence));
    let most = puts.len();
    engine.commit(puts.into_iter(), most).map_err(|error| StoreError::Unavailable(error.to_string()))?;
    info!(node = owner.node, epoch = owner.epoch, sequence, "the store is open");
    Ok((owner, sequence))
}

/// What the writer remembers, from the index of unpaid quotes that have not expired.
///
/// # Errors
/// When the engine cannot read it.
pub(crate) fn memory(engine: &Engine, now: UnixMillis) -> StoreResult<Memory> {
    let mut memory = Memory::default();
    if let Some(cut) = engine.get(&keys::cut())? {
        memory.close(decode("last event of a payout", &cut)?);
    }
    for found in engine.scan(&keys::unpaid_range(now, UnixMillis(u64::MAX))) {
        let (key, value) = found?;
        let (expires_at, _) = keys::moment_and_id(&key)
            .ok_or_else(|| StoreError::Corrupt("a key of an unpaid quote is too short".into()))?;
        // A quote whose payment failed stays in the index for its deletion, and is not open: its value is longer.
        if let Ok(buyer) = decode_id("unpaid quote", &value) {
            memory.open_quotes.open(ProfileId::from_bytes(buyer), expires_at);
        }
    }
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_before_ours_has_its_migration() {
        assert_eq!(u32::try_from(MIGRATIONS.len()), Ok(FORMAT - 1));
    }

    #[test]
    fn a_store_of_this_version_is_refused_by_the_one_before_and_one_of_that_is_brought_forward() {
        let folder = tempfile::tempdir().expect("folder");
        let config = config::Storage {
            path: folder.path().to_path_buf(),
            ..config::Config::from_parts(None, []).expect("defaults").storage
        };
        drop(crate::Embedded::open(&config, Clock::system()).expect("made"));
        let told = format_known(folder.path(), FORMAT - 1).expect_err("a row of a history may be of a payout");
        assert!(matches!(&told, StoreError::Corrupt(text) if text.contains("or a newer one")), "{told}");
        format_write(folder.path(), FORMAT - 1).expect("written");
        drop(crate::Embedded::open(&config, Clock::system()).expect("brought forward"));
        assert_eq!(format(folder.path()), Ok(FORMAT));
    }

    #[test]
    fn an_older_store_is_brought_forward_step_by_step_and_goes_on_where_it_stopped() {
        let folder = tempfile::tempdir().expect("folder");
        let config = config::Config::from_parts(None, []).expect("defaults").storage;
        let engine = Engine::open(&engine_path(folder.path()), &config).expect("engine");
        format_write(folder.path(), 1).expect("format");
        let sealer = Sealer::new(&[1; 32], None);
        let broken: &[Migration] = &[|_, _| Ok(()), |_, _| Err(StoreError::Unavailable("stopped half-way".into()))];
        assert!(migrate_with(folder.path(), (&engine, &sealer), 1, broken).is_err());
        assert_eq!(fs::read_to_string(folder.path().join("format")).expect("format").trim(), "2");
        let mended: &[Migration] = &[|_, _| Err(StoreError::Unavailable("done before".into())), |_, _| Ok(())];
        migrate_with(folder.path(), (&engine, &sealer), 2, mended).expect("migrated");
        assert_eq!(fs::read_to_string(folder.path().join("format")).expect("format").trim(), "3");
    }
}
