//! Results that are too large to be held: one file for each attempt, in a folder for each bucket of time, beside the
//! engine. Streams of chunks through the engine would stall its commits. A file that no completed payment names dies
//! with its bucket.
//!
//! A file is its chunks one after the other, each with its length and checksum in front; the seal adds where each one
//! begins, so that any chunk is found with three reads. Files are touched on threads of their own: a sync of many
//! megabytes must hold up neither the writer nor a caller's thread.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{
    error::{StoreError, StoreResult},
    model::{PaymentId, UnixMillis},
    store::ResultsRoom,
};

/// Threads that touch files: one may sync while the other writes.
const THREADS: usize = 2;
/// Chunk files whose writer is not heard of for so long are closed.
const IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// Ends a sealed file.
const SEAL: [u8; 4] = *b"crs1";
/// Before each chunk: its number, its length, its checksum.
const HEAD_BYTES: u64 = 12;
/// At the end: how many chunks, and the seal.
const TAIL_BYTES: u64 = 8;

/// Whose result: the payment and the attempt.
pub(crate) type Name = (PaymentId, u32);

type Job = Box<dyn FnOnce(&Files) + Send>;

/// The files, and the threads that touch them.
pub(crate) struct ResultFiles {
    files: Arc<Files>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Files {
    folder: PathBuf,
    span_ms: u64,
    jobs: Mutex<Jobs>,
    filled: Condvar,
    writing: Mutex<HashMap<Name, Writing>>,
    /// Bytes in files.
    bytes: AtomicU64,
    /// Bytes of results that are held elsewhere, as last measured.
    held_bytes: AtomicU64,
    /// What the disk has left, as last measured.
    free_bytes: AtomicU64,
    max_bytes: u64,
    free_min_bytes: u64,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

/// A file that is being written.
struct Writing {
    file: File,
    path: PathBuf,
    offsets: Vec<u64>,
    length: u64,
    touched: Instant,
}

fn unavailable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}", path.display()))
}

impl ResultFiles {
    /// The files below `folder`.
    ///
    /// # Errors
    /// `Unavailable` when no thread can be started or the folder cannot be read.
    pub(crate) fn new(folder: PathBuf, config: &config::Storage) -> StoreResult<Self> {
        let files = Arc::new(Files {
            folder,
            span_ms: u64::try_from(config.result_bucket.as_millis()).unwrap_or(u64::MAX).max(1),
            jobs: Mutex::default(),
            filled: Condvar::new(),
            writing: Mutex::default(),
            bytes: AtomicU64::new(0),
            held_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(u64::MAX),
            max_bytes: config.results_max_bytes,
            free_min_bytes: config.disk_free_min_bytes,
        });
        let found = files.found()?;
        files.bytes.store(found.iter().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
        // Whoever wrote a file that is not sealed is gone: no attempt outlives its process.
        files.jobs.lock().waiting.push_back(Box::new(move |files| files.sweep(found)));
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            let files = Arc::clone(&files);
            let thread = std::thread::Builder::new().name("store-files".into()).spawn(move || files.work());
            threads.push(thread.map_err(|error| StoreError::Unavailable(error.to_string()))?);
        }
        Ok(Self { files, threads: Mutex::new(threads) })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Files) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let (caller, answer) = oneshot::channel();
        {
            let mut jobs = self.files.jobs.lock();
            if jobs.closed {
                return Err(StoreError::Unavailable("the store is closed".into()));
            }
            jobs.waiting.push_back(Box::new(move |files| drop(caller.send(job(files)))));
        }
        self.files.filled.notify_one();
        answer.await.unwrap_or_else(|_| Err(StoreError::Unavailable("the store is closed".into())))
    }

    /// Writes chunk `n` of a result whose attempt began at `started_at`.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be written, or is not the next one: the result then cannot be kept.
    pub(crate) async fn append(&self, name: Name, started_at: UnixMillis, n: u32, chunk: Bytes) -> StoreResult<()> {
        self.run(move |files| files.append(name, started_at, n, &chunk)).await
    }

    /// Makes all chunks durable.
    ///
    /// # Errors
    /// `Unknown` when the sync fails: the result must not be named.
    pub(crate) async fn seal(&self, name: Name) -> StoreResult<()> {
        self.run(move |files| files.seal(name)).await
    }

    /// Chunk `n` of a sealed result; `None` past its end or when it is gone.
    ///
    /// # Errors
    /// `Corrupt` when it is not what was written.
    pub(crate) async fn read(&self, name: Name, started_at: UnixMillis, n: u32) -> StoreResult<Option<Bytes>> {
        self.run(move |files| files.read(name, started_at, n)).await
    }

    /// Takes away a file that will not be written any more, if there is one that is not sealed. Does not wait for it.
    pub(crate) fn let_go(&self, name: Name) {
        if !self.files.writing.lock().contains_key(&name) {
            return;
        }
        self.files.jobs.lock().waiting.push_back(Box::new(move |files| files.take_away(name)));
        self.files.filled.notify_one();
    }

    /// Notes what results that are held elsewhere take, and looks how much the disk has left.
    pub(crate) fn measured(&self, held_bytes: u64) {
        self.files.held_bytes.store(held_bytes, Ordering::Relaxed);
        metrics::gauge!("crochet_store_results_bytes").set(self.files.kept_bytes() as f64);
        let folder = self.files.folder.parent().unwrap_or(&self.files.folder);
        if let Ok(disk) = rustix::fs::statvfs(folder) {
            self.files.free_bytes.store(disk.f_bavail.saturating_mul(disk.f_frsize), Ordering::Relaxed);
        }
    }

    /// How much room there is.
    pub(crate) fn room(&self) -> ResultsRoom {
        let (files, kept) = (&self.files, self.files.kept_bytes());
        if kept > files.max_bytes.saturating_add(files.max_bytes / 4)
            || files.free_bytes.load(Ordering::Relaxed) < files.free_min_bytes
        {
            ResultsRoom::Exceeded
        } else if kept >= files.max_bytes {
            ResultsRoom::Full
        } else {
            ResultsRoom::Ample
        }
    }

    /// Drops buckets that ended before `end`, and closes idle files.
    ///
    /// # Errors
    /// `Unavailable` when a folder cannot be dropped now.
    pub(crate) fn tidy(&self, end: UnixMillis) -> StoreResult<()> {
        let idle = |(name, writing): (&Name, &Writing)| (writing.touched.elapsed() >= IDLE_MAX).then_some(*name);
        let idle: Vec<Name> = self.files.writing.lock().iter().filter_map(idle).collect();
        idle.into_iter().for_each(|name| self.let_go(name));
        for (path, start, span) in self.files.buckets()? {
            if start.saturating_add(span) <= end.0 {
                let bytes = files_in(&path)?.iter().map(|(_, bytes)| bytes).sum();
                fs::remove_dir_all(&path).map_err(|error| unavailable(&path, &error))?;
                self.files.less(bytes);
            }
        }
        Ok(())
    }

    /// Ends the threads after the jobs that wait.
    pub(crate) fn close(&self) {
        self.files.jobs.lock().closed = true;
        self.files.filled.notify_all();
        for thread in self.threads.lock().drain(..) {
            drop(thread.join());
        }
    }
}

impl Files {
    fn work(&self) {
        loop {
            let mut jobs = self.jobs.lock();
            let job = loop {
                match jobs.waiting.pop_front() {
                    Some(job) => break job,
                    None if jobs.closed => return,
                    None => self.filled.wait(&mut jobs),
                }
            };
            drop(jobs);
            job(self);
        }
    }

    fn append(&self, name: Name, started_at: UnixMillis, n: u32, chunk: &[u8]) -> StoreResult<()> {
        let needed = HEAD_BYTES + chunk.len() as u64;
        if self.kept_bytes().saturating_add(needed) > self.max_bytes {
            self.take_away(name);
            return Err(StoreError::Unavailable("storage.results_max_bytes leaves no room for this result".into()));
        }
        let known = self.writing.lock().remove(&name);
        let mut writing = match (known, n) {
            (_, 0) => self.create(name, started_at)?,
            (Some(writing), n) if writing.offsets.len() == usize::try_from(n).unwrap_or(usize::MAX) => writing,
            _ => return Err(StoreError::Unavailable(format!("chunk {n} of {} is not the next one", name.0))),
        };
        let length = u32::try_from(chunk.len())
            .map_err(|_| StoreError::Unavailable("a chunk of 4 GiB or more cannot be kept".into()))?;
        let mut head = Vec::with_capacity(12);
        head.extend(n.to_be_bytes());
        head.extend(length.to_be_bytes());
        head.extend(crc32fast::hash(chunk).to_be_bytes());
        self.bytes.fetch_add(needed, Ordering::Relaxed);
        let written = writing.file.write_all(&head).and_then(|()| writing.file.write_all(chunk));
        if let Err(error) = written {
            let fault = unavailable(&writing.path, &error);
            writing.length += needed;
            self.delete(writing);
            return Err(fault);
        }
        writing.offsets.push(writing.length);
        writing.length += HEAD_BYTES + u64::from(length);
        writing.touched = Instant::now();
        self.writing.lock().insert(name, writing);
        Ok(())
    }

    fn create(&self, name: Name, started_at: UnixMillis) -> StoreResult<Writing> {
        let start = started_at.0 - started_at.0 % self.span_ms;
        let bucket = self.folder.join(format!("{start}-{}", self.span_ms));
        let make = || {
            if !bucket.is_dir() {
                fs::create_dir_all(&bucket)?;
                File::open(&self.folder)?.sync_all()?;
            }
            File::create(bucket.join(file_name(name)))
        };
        let file = make().map_err(|error| unavailable(&bucket, &error))?;
        let path = bucket.join(file_name(name));
        Ok(Writing { file, path, offsets: Vec::new(), length: 0, touched: Instant::now() })
    }

    fn seal(&self, name: Name) -> StoreResult<()> {
        let Some(mut writing) = self.writing.lock().remove(&name) else {
            return Err(StoreError::Unavailable(format!("{} has no chunks to seal", name.0)));
        };
        let mut tail = Vec::with_capacity(writing.offsets.len() * 8 + 8);
        for offset in &writing.offsets {
            tail.extend(offset.to_be_bytes());
        }
        tail.extend(u32::try_from(writing.offsets.len()).unwrap_or(u32::MAX).to_be_bytes());
        tail.extend(SEAL);
        self.bytes.fetch_add(tail.len() as u64, Ordering::Relaxed);
        let folder = writing.path.parent().unwrap_or(&self.folder);
        let sync = writing.file.write_all(&tail).and_then(|()| writing.file.sync_all());
        sync.and_then(|()| File::open(folder)?.sync_all())
            .map_err(|error| StoreError::Unknown(format!("{}: {error}", writing.path.display())))
    }

    /// What all kept results take.
    fn kept_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed).saturating_add(self.held_bytes.load(Ordering::Relaxed))
    }

    fn less(&self, bytes: u64) {
        // Never below nothing: what was counted is what was added, but for files that somebody else took away.
        let fewer = |counted: u64| Some(counted.saturating_sub(bytes));
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    fn take_away(&self, name: Name) {
        let writing = self.writing.lock().remove(&name);
        if let Some(writing) = writing {
            self.delete(writing);
        }
    }

    fn delete(&self, writing: Writing) {
        // One that cannot be deleted goes with its bucket, and counts until then.
        if fs::remove_file(&writing.path).is_ok() {
            self.less(writing.length);
        }
    }

    /// All files, with their sizes.
    fn found(&self) -> StoreResult<Vec<(PathBuf, u64)>> {
        let mut found = Vec::new();
        for (bucket, _, _) in self.buckets()? {
            found.extend(files_in(&bucket)?);
        }
        Ok(found)
    }

    /// Takes away those of `found` that are not sealed.
    fn sweep(&self, found: Vec<(PathBuf, u64)>) {
        for (path, bytes) in found {
            let sealed = File::open(&path).and_then(|file| is_sealed(&file));
            if matches!(sealed, Ok(false)) && fs::remove_file(&path).is_ok() {
                self.less(bytes);
            }
        }
    }

    fn read(&self, name: Name, started_at: UnixMillis, n: u32) -> StoreResult<Option<Bytes>> {
        for (bucket, start, span) in self.buckets()? {
            if start <= started_at.0 && started_at.0 < start.saturating_add(span) {
                let path = bucket.join(file_name(name));
                match File::open(&path) {
                    Ok(file) => return read_chunk(&file, n).map_err(|error| damaged(&path, &error)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(unavailable(&path, &error)),
                }
            }
        }
        Ok(None)
    }

    /// The folders of buckets: path, start and span.
    fn buckets(&self) -> StoreResult<Vec<(PathBuf, u64, u64)>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unavailable(&self.folder, &error)),
        };
        let bucket = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let (start, span) = name.to_str()?.split_once('-')?;
            Some((entry.path(), start.parse().ok()?, span.parse().ok()?))
        };
        Ok(entries.filter_map(Result::ok).filter_map(bucket).collect())
    }
}

/// The files in a folder, with their sizes.
fn files_in(folder: &Path) -> StoreResult<Vec<(PathBuf, u64)>> {
    let entries = fs::read_dir(folder).map_err(|error| unavailable(folder, &error))?;
    let size = |entry: fs::DirEntry| Some((entry.path(), entry.metadata().ok()?.len()));
    Ok(entries.filter_map(Result::ok).filter_map(size).collect())
}

fn is_sealed(file: &File) -> io::Result<bool> {
    let Some(end) = file.metadata()?.len().checked_sub(TAIL_BYTES) else { return Ok(false) };
    let [_, seal] = read_words::<2>(file, end)?;
    Ok(seal == u32::from_be_bytes(SEAL))
}

fn file_name(name: Name) -> String {
    format!("{}-{}", name.0, name.1)
}

fn damaged(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            StoreError::Corrupt(format!("{}: {error}", path.display()))
        }
        _ => unavailable(path, error),
    }
}

fn read_chunk(file: &File, n: u32) -> io::Result<Option<Bytes>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let end = file.metadata()?.len().checked_sub(TAIL_BYTES).ok_or_else(|| bad("too short"))?;
    let [count, seal] = read_words::<2>(file, end)?;
    if seal != u32::from_be_bytes(SEAL) {
        return Err(bad("not sealed"));
    }
    if n >= count {
        return Ok(None);
    }
    let index = end.checked_sub(u64::from(count) * 8).ok_or_else(|| bad("index too long"))?;
    let [high, low] = read_words::<2>(file, index + u64::from(n) * 8)?;
    let offset = u64::from(high) << 32 | u64::from(low);
    let [number, length, checksum] = read_words::<3>(file, offset)?;
    if number != n || offset.saturating_add(HEAD_BYTES + u64::from(length)) > index {
        return Err(bad("a chunk is not where its index says"));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| bad("too long"))?];
    file.read_exact_at(&mut bytes, offset + HEAD_BYTES)?;
    if crc32fast::hash(&bytes) != checksum {
        return Err(bad("wrong checksum"));
    }
    Ok(Some(Bytes::from(bytes)))
}

fn read_words<const N: usize>(file: &File, offset: u64) -> io::Result<[u32; N]> {
    let mut words = [0; N];
    for (word, place) in words.iter_mut().zip(0u64..) {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, offset + place * 4)?;
        *word = u32::from_be_bytes(bytes);
    }
    Ok(words)
}
