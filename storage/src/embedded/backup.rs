//! A copy of the store, taken while it serves, and a store made from one.
//!
//! The copy is a folder: `store.crochet` holds every key and value of one snapshot in frames with their checksums,
//! `results/` the files of larger answers, `format` the format they are in. The snapshot holds up no commit. What a
//! copy holds is what was durable when it began, and perhaps a little more; a copy without its last frame, or with a
//! byte that changed, is refused as a whole.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use fjall::Slice;
use serde::{Deserialize, Serialize};

use super::{
    Embedded, Shared,
    codec::{decode, encode},
    commit,
    engine::{Engine, Entries},
    start,
};
use crate::{
    error::{StoreError, StoreResult},
    store::BackupReport,
};

/// The file of keys and values.
const STORE_FILE: &str = "store.crochet";
/// Begins it.
const MAGIC: [u8; 8] = *b"crochet1";
/// A frame is written when it has come to this.
const FRAME_BYTES: usize = 256 << 10;
/// No frame is longer: a value has at most some MiB.
const FRAME_MAX: usize = 64 << 20;

/// What stands in a frame.
#[derive(Serialize, Deserialize)]
enum Frame {
    /// From here on, entries of this keyspace.
    Keyspace(String),
    /// Keys and values, in order.
    Entries(Entries),
    /// Nothing is missing.
    End {
        /// How many entries there are.
        entries: u64,
        /// The last commit that is in the snapshot.
        sequence: u64,
    },
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Corrupt(format!("the backup {} is damaged: {what}; use another one", path.display()))
}

impl Embedded {
    /// Makes a store in `path` from the copy in `from`; `path` must not exist, or be empty. It appears whole or not at
    /// all: a restore that was broken off leaves a folder beside it, which the next attempt takes away.
    ///
    /// # Errors
    /// `Corrupt` when the copy is damaged, cut short or newer than this program; `Unavailable` when `path` holds
    /// something or cannot be written.
    pub fn restore(from: &Path, path: &Path, config: &config::Storage) -> StoreResult<BackupReport> {
        if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(StoreError::Unavailable(format!(
                "{} is not empty: a store is restored into a new folder, never over another one",
                path.display()
            )));
        }
        start::format_of_copy(from)?;
        let draft = beside(path, "restoring");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(|error| unavailable(&draft, &error))?;
        }
        fs::create_dir_all(&draft).map_err(|error| unavailable(&draft, &error))?;
        let report = fill(from, &draft, config).inspect_err(|_| drop(fs::remove_dir_all(&draft)))?;
        let appear = || {
            if path.exists() {
                fs::remove_dir(path)?;
            }
            fs::rename(&draft, path)?;
            File::open(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
                .sync_all()
        };
        appear().map_err(|error| unavailable(path, &error))?;
        Ok(report)
    }
}

impl Shared {
    /// Copies the store into `into`, which must not exist; blocks the thread that calls it.
    ///
    /// # Errors
    /// `Unavailable` when `into` exists or cannot be written, or the store is not open.
    pub(super) fn backup(&self, into: &Path) -> StoreResult<BackupReport> {
        if into.exists() {
            return Err(StoreError::Unavailable(format!("{} exists: a backup needs a new folder", into.display())));
        }
        let draft = beside(into, "unfinished");
        if draft.exists() {
            fs::remove_dir_all(&draft).map_err(|error| unavailable(&draft, &error))?;
        }
        fs::create_dir_all(&draft).map_err(|error| unavailable(&draft, &error))?;
        let write = || {
            let report = self.copy(&draft)?;
            fs::rename(&draft, into).map_err(|error| unavailable(into, &error))?;
            Ok(report)
        };
        write().inspect_err(|_| drop(fs::remove_dir_all(&draft)))
    }

    fn copy(&self, into: &Path) -> StoreResult<BackupReport> {
        let engine = self.engine()?;
        // First the keys, then the files: a file is whole before a key names it, so none is missing.
        let mut out = Frames::create(&into.join(STORE_FILE), self.config.backup_bytes_per_second)?;
        let snapshot = engine.snapshot();
        for name in snapshot.names() {
            out.write(&Frame::Keyspace(name.to_string()))?;
            // A store that is being reopened waits for whoever holds its engine.
            let still = || self.is_open(&engine);
            out.entries(snapshot.entries(name), &still)?;
        }
        let sequence = snapshot.sequence()?;
        drop((snapshot, engine));
        let entries = out.entries;
        out.write(&Frame::End { entries, sequence })?;
        let mut report = BackupReport { entries, sequence, files: 0, bytes: out.finish()? };
        copy_files(&start::results_path(&self.path), &start::results_path(into), &mut report)?;
        start::copy_format(&self.path, into)?;
        Ok(report)
    }
}

impl Shared {
    fn is_open(&self, engine: &Arc<Engine>) -> StoreResult<()> {
        match &*self.engine.load() {
            Some(open) if Arc::ptr_eq(open, engine) => Ok(()),
            _ => Err(StoreError::Unavailable("the store was closed or reopened during the backup; begin again".into())),
        }
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    PathBuf::from(name)
}

/// Writes frames, no faster than it may.
struct Frames {
    path: PathBuf,
    file: BufWriter<File>,
    entries: u64,
    bytes: u64,
    bytes_per_second: u64,
    begun: Instant,
}

impl Frames {
    fn create(path: &Path, bytes_per_second: u64) -> StoreResult<Self> {
        let mut file = File::create(path).map(BufWriter::new).map_err(|error| unavailable(path, &error))?;
        file.write_all(&MAGIC).map_err(|error| unavailable(path, &error))?;
        let begun = Instant::now();
        Ok(Self { path: path.to_path_buf(), file, entries: 0, bytes: 0, bytes_per_second, begun })
    }

    fn entries(
        &mut self,
        found: impl Iterator<Item = StoreResult<(Slice, Slice)>>,
        still: &dyn Fn() -> StoreResult<()>,
    ) -> StoreResult<()> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for entry in found {
            let (key, value) = entry?;
            bytes += key.len() + value.len();
            entries.push((key.to_vec(), value.to_vec()));
            self.entries += 1;
            if bytes >= FRAME_BYTES {
                self.write(&Frame::Entries(std::mem::take(&mut entries)))?;
                bytes = 0;
                still()?;
            }
        }
        if entries.is_empty() { Ok(()) } else { self.write(&Frame::Entries(entries)) }
    }

    /// Length, checksum, frame.
    fn write(&mut self, frame: &Frame) -> StoreResult<()> {
        let frame = encode(frame)?;
        let length = u32::try_from(frame.len()).map_err(|_| StoreError::Corrupt("a frame of 4 GiB".into()))?;
        let mut head = [0; 8];
        let (first, second) = head.split_at_mut(4);
        first.copy_from_slice(&length.to_be_bytes());
        second.copy_from_slice(&crc32fast::hash(&frame).to_be_bytes());
        let written = self.file.write_all(&head).and_then(|()| self.file.write_all(&frame));
        written.map_err(|error| unavailable(&self.path, &error))?;
        self.bytes += (head.len() + frame.len()) as u64;
        self.pace();
        Ok(())
    }

    /// The disk is the store's first of all.
    fn pace(&self) {
        let due = Duration::from_millis(self.bytes.saturating_mul(1000) / self.bytes_per_second.max(1));
        if let Some(early) = due.checked_sub(self.begun.elapsed()) {
            std::thread::sleep(early);
        }
    }

    fn finish(self) -> StoreResult<u64> {
        let synced = self.file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        synced.map_err(|error| unavailable(&self.path, &error))?;
        Ok(self.bytes)
    }
}

/// Reads frames back.
struct Reader {
    path: PathBuf,
    file: BufReader<File>,
}

impl Reader {
    fn open(path: &Path) -> StoreResult<Self> {
        let mut file = File::open(path).map(BufReader::new).map_err(|error| unavailable(path, &error))?;
        let mut magic = [0; MAGIC.len()];
        match file.read_exact(&mut magic) {
            Ok(()) if magic == MAGIC => Ok(Self { path: path.to_path_buf(), file }),
            _ => Err(damaged(path, "it does not begin as one")),
        }
    }

    fn next(&mut self) -> StoreResult<Frame> {
        let cut = |_: io::Error| damaged(&self.path, "it ends too early");
        let (mut length, mut checksum) = ([0; 4], [0; 4]);
        self.file.read_exact(&mut length).map_err(cut)?;
        self.file.read_exact(&mut checksum).map_err(cut)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > FRAME_MAX {
            return Err(damaged(&self.path, "a frame is too long"));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes).map_err(cut)?;
        if crc32fast::hash(&bytes) != u32::from_be_bytes(checksum) {
            return Err(damaged(&self.path, "a checksum is wrong"));
        }
        decode("frame of a backup", &bytes)
    }
}

/// Fills a folder with the store that a copy holds.
fn fill(from: &Path, into: &Path, config: &config::Storage) -> StoreResult<BackupReport> {
    let path = from.join(STORE_FILE);
    let mut frames = Reader::open(&path)?;
    let mut next = frames.next()?;
    let engine = Engine::open(&start::engine_path(into), config)?;
    let mut entries = 0;
    let sequence = loop {
        match next {
            Frame::Keyspace(name) => {
                let mut after = None;
                let mut more = std::iter::from_fn(|| match frames.next() {
                    Ok(Frame::Entries(found)) => Some(Ok(found)),
                    Ok(other) => {
                        after = Some(other);
                        None
                    }
                    Err(error) => Some(Err(error)),
                });
                entries += engine.load(&name, &mut more)?;
                next = after.ok_or_else(|| damaged(&path, "it ends too early"))?;
            }
            Frame::Entries(_) => return Err(damaged(&path, "entries without their keyspace")),
            Frame::End { entries: wanted, sequence } if wanted == entries => break sequence,
            Frame::End { .. } => return Err(damaged(&path, "entries are missing")),
        }
    };
    if commit::sequence(&engine)? != sequence {
        return Err(damaged(&path, "it does not end with its last commit"));
    }
    drop(engine);
    let bytes = fs::metadata(&path).map_err(|error| unavailable(&path, &error))?.len();
    let mut report = BackupReport { entries, sequence, files: 0, bytes };
    copy_files(&start::results_path(from), &start::results_path(into), &mut report)?;
    start::copy_format(from, into)?;
    Ok(report)
}

/// Copies the folders of larger results, each file synced. One that its time takes away meanwhile is left out.
fn copy_files(from: &Path, into: &Path, report: &mut BackupReport) -> StoreResult<()> {
    let folders = match fs::read_dir(from) {
        Ok(folders) => folders,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unavailable(from, &error)),
    };
    for folder in folders.filter_map(Result::ok).filter(|folder| folder.path().is_dir()) {
        let target = into.join(folder.file_name());
        fs::create_dir_all(&target).map_err(|error| unavailable(&target, &error))?;
        let Ok(files) = fs::read_dir(folder.path()) else { continue };
        for file in files.filter_map(Result::ok) {
            let copy = target.join(file.file_name());
            match fs::copy(file.path(), &copy).and_then(|bytes| File::open(&copy)?.sync_all().map(|()| bytes)) {
                Ok(bytes) => {
                    report.files += 1;
                    report.bytes += bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unavailable(&copy, &error)),
            }
        }
    }
    Ok(())
}
