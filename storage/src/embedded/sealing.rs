//! The master keys of this store: where they come from, that they fit, and the way from one to the next.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use fjall::Slice;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{
    Draft, Embedded, Operation,
    codec::{decode, decode_sealed, encode, encode_sealed},
    engine::{Engine, Place, Put},
    keys, start,
};
use crate::{
    error::{StoreError, StoreResult},
    sealed::{self, KeyVersion, Sealed, SealedEndpoint, SealedSecret, Sealer},
    store::{Resealed, SecretStore},
};

/// The key of a store that was given none.
const KEY_FILE: &str = "master.key";
/// What every key in use has sealed once, so that a wrong one is found at the start and not at the first call.
const CHECK: &[u8] = b"crochet";
const CHECK_PLACE: sealed::Place<'static> =
    sealed::Place { table: "store", row: b"", shown: &"itself", field: "check" };

/// What the store knows of its keys.
#[derive(Default, Serialize, Deserialize)]
struct Sealing {
    /// One for each key that rows may be sealed with.
    checks: Vec<Sealed>,
    /// What was written before is to be wiped out of the files at the next start.
    wipe_due: bool,
}

impl Sealing {
    fn read(engine: &Engine) -> StoreResult<Self> {
        Ok(engine.get(&keys::sealing())?.map(|bytes| decode("sealing", &bytes)).transpose()?.unwrap_or_default())
    }

    fn write(&self, engine: &Engine) -> StoreResult<()> {
        let put = Put { place: Place::Key(keys::sealing()), value: Some(encode(self)?) };
        engine.commit(std::iter::once(put), 1).map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    fn versions(&self) -> impl Iterator<Item = KeyVersion> {
        self.checks.iter().filter_map(Sealed::version)
    }
}

/// The keys that the configuration gives, else the one in the directory, which is made for a new store. Every key that
/// rows may be sealed with must be among them; the current one is noted before anything is sealed with it.
///
/// # Errors
/// `Unavailable` when a key is missing or is another one; the text says which and what to do.
pub(crate) fn sealer(path: &Path, engine: &Engine, config: &config::Storage) -> StoreResult<Sealer> {
    let mut sealing = Sealing::read(engine)?;
    let sealer = if config.master_key.is_empty() {
        Sealer::new(&*key_file(path, sealing.versions().next())?, None)
    } else {
        let given = |secret: &config::Secret| (!secret.is_empty()).then(|| key_of(secret.expose())).transpose();
        let current = given(&config.master_key)?.ok_or_else(no_key)?;
        Sealer::new(&current, given(&config.previous_master_key)?.as_deref())
    };
    let known = sealer.versions();
    if let Some(missing) = sealing.versions().find(|version| !known.contains(version)) {
        return Err(wrong_key(path, missing, &sealer));
    }
    for check in &sealing.checks {
        sealer.open(CHECK_PLACE, check)?;
    }
    if !sealing.versions().any(|version| version == sealer.current()) {
        sealing.checks.push(sealer.seal(CHECK_PLACE, CHECK)?);
        sealing.write(engine)?;
    }
    if sealing.checks.len() > 1 {
        let (current, keys) = (sealer.current(), sealing.checks.len());
        warn!(%current, keys, "the master key was changed; `crochet admin reseal` ends the rotation");
    }
    Ok(sealer)
}

fn no_key() -> StoreError {
    StoreError::Unavailable("a master key is 32 bytes as 64 hexadecimal digits".into())
}

fn key_of(text: &str) -> StoreResult<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text, &mut *key).map_err(|_| no_key())?;
    Ok(key)
}

fn wrong_key(path: &Path, missing: KeyVersion, sealer: &Sealer) -> StoreError {
    let (current, path) = (sealer.current(), path.display());
    StoreError::Unavailable(format!(
        "the store in {path} is sealed with master key {missing}, and it was given {current}: give the right one by \
         storage.master_key_file; or, to go on with {current}, give the right one by storage.previous_master_key_file \
         and run `crochet admin reseal`. A key that the store made for itself is in {path}/{KEY_FILE}"
    ))
}

/// The key in the directory; a store that is sealed with none yet gets one.
fn key_file(path: &Path, sealed_with: Option<KeyVersion>) -> StoreResult<Zeroizing<[u8; 32]>> {
    let file_path = path.join(KEY_FILE);
    let failed = |error: &io::Error| start::unavailable(&file_path, error);
    match fs::metadata(&file_path) {
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            let file = file_path.display();
            Err(StoreError::Unavailable(format!("others may read the master key in {file}: chmod 600 {file}")))
        }
        Ok(_) => {
            let text = Zeroizing::new(fs::read_to_string(&file_path).map_err(|error| failed(&error))?);
            key_of(text.trim_end())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match sealed_with {
            Some(version) => Err(StoreError::Unavailable(format!(
                "the store is sealed with master key {version}, and {} is gone: put it back, or give the key by \
                 storage.master_key_file",
                file_path.display()
            ))),
            None => key_file_make(path).map_err(|error| failed(&error)),
        },
        Err(error) => Err(failed(&error)),
    }
}

fn key_file_make(path: &Path) -> io::Result<Zeroizing<[u8; 32]>> {
    let (draft, file_path) = (path.join(format!("{KEY_FILE}.new")), path.join(KEY_FILE));
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key).map_err(io::Error::other)?;
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    writeln!(file, "{}", *Zeroizing::new(hex::encode(*key)))?;
    file.sync_all()?;
    fs::rename(&draft, &file_path)?;
    File::open(path)?.sync_all()?;
    let file = file_path.display();
    warn!(%file, "NO MASTER KEY IS CONFIGURED: one was made in the data directory. Whoever copies the directory has both");
    Ok(key)
}

/// What is in the files by now is to be wiped out of them at the next start, or at the end of this one.
pub(crate) fn wipe_later(engine: &Engine) -> StoreResult<()> {
    Sealing { wipe_due: true, ..Sealing::read(engine)? }.write(engine)
}

/// Wipes what was overwritten out of the files when that is due. A start that fails half-way leaves it due; one that
/// cannot do it goes on, and says so.
pub(crate) fn wipe_if_due(engine: &Engine) -> StoreResult<()> {
    let sealing = Sealing::read(engine)?;
    if !sealing.wipe_due {
        return Ok(());
    }
    info!("what earlier keys sealed, or none, is wiped out of the files; this takes a while");
    match engine.wipe() {
        Ok(()) => Sealing { wipe_due: false, ..sealing }.write(engine),
        Err(error) => {
            warn!(%error, "the files could not be wiped; the next start tries again");
            Ok(())
        }
    }
}

/// The keys of rows with sealed values, from after `after` on.
fn rows(engine: &Engine, after: Option<&[u8]>) -> impl Iterator<Item = StoreResult<(Slice, Slice)>> {
    let from = after.map(keys::next_after).unwrap_or_default();
    let ranges = [keys::secrets(), keys::endpoints()]
        .map(|range| keys::Range { from: range.from.clone().max(from.clone()), ..range });
    let [secrets, endpoints] = ranges.map(|range| engine.scan(&range));
    secrets.chain(endpoints)
}

/// Seals a row with the current key; `None` when it is.
fn anew(sealer: &Sealer, key: &[u8], value: &[u8]) -> StoreResult<Option<Slice>> {
    if let Some(listing) = keys::endpoint_listing(key) {
        let kept: SealedEndpoint = decode_sealed("endpoint", value)?;
        let secrets = kept.secrets.reseal(sealer, listing)?;
        return secrets.map(|secrets| encode_sealed(&SealedEndpoint { secrets, ..kept })).transpose();
    }
    let name = keys::secret_name(key).ok_or_else(|| StoreError::Corrupt("a secret's name is not text".into()))?;
    let kept: SealedSecret = decode_sealed("secret", value)?;
    kept.reseal(sealer, name)?.map(|kept| encode_sealed(&kept)).transpose()
}

fn reseal(draft: &mut Draft<'_>, sealer: &Sealer, found: Vec<Slice>) -> StoreResult<u64> {
    let mut resealed = 0;
    for bytes in found {
        let key = keys::stored(bytes);
        // Gone meanwhile: nothing of it is left to seal.
        let Some(value) = draft.get(&key)? else { continue };
        if let Some(value) = anew(sealer, &key.bytes, &value)? {
            draft.put(key, value);
            resealed += 1;
        }
    }
    Ok(resealed)
}

fn is_current(sealer: &Sealer, key: &[u8], value: &[u8]) -> StoreResult<bool> {
    if keys::endpoint_listing(key).is_some() {
        return Ok(decode_sealed::<SealedEndpoint>("endpoint", value)?.secrets.is_current(sealer));
    }
    Ok(decode_sealed::<SealedSecret>("secret", value)?.is_current(sealer))
}

#[async_trait]
impl SecretStore for Embedded {
    async fn secret_count(&self) -> StoreResult<u64> {
        let _timing = self.shared.measures.time(Operation::SecretCount);
        let engine = self.shared.engine()?;
        rows(&engine, None).try_fold(0, |count, found| found.map(|_| count + 1))
    }

    async fn secret_reseal(&self, after: Option<Vec<u8>>) -> StoreResult<Resealed> {
        let (engine, sealer) = (self.shared.engine()?, Arc::clone(&self.shared.sealer));
        let found = rows(&engine, after.as_deref()).take(self.shared.config.reseal_rows);
        let found: Vec<Slice> = found.map(|found| found.map(|(key, _)| key)).collect::<StoreResult<_>>()?;
        if let Some(last) = found.last().map(|key| key.to_vec()) {
            // Held no longer than it is read: the writer waits for it when it must open the engine anew.
            drop(engine);
            let rows = found.len() as u64;
            let step = move |draft: &mut Draft<'_>| reseal(draft, &sealer, found);
            let resealed = self.shared.run(Operation::SecretReseal, step).await?;
            return Ok(Resealed { rows, resealed, next: Some(last) });
        }
        // Whatever was written meanwhile was sealed with the current key: what is whole now stays whole.
        for found in rows(&engine, None) {
            let (key, value) = found?;
            if !is_current(&sealer, &key, &value)? {
                return Ok(Resealed { rows: 0, resealed: 0, next: Some(Vec::new()) });
            }
        }
        drop(engine);
        let step = move |draft: &mut Draft<'_>| {
            let sealing: Sealing = draft.read("sealing", &keys::sealing())?.unwrap_or_default();
            if sealing.versions().ne([sealer.current()]) {
                let checks = vec![sealer.seal(CHECK_PLACE, CHECK)?];
                draft.write(keys::sealing(), &Sealing { checks, wipe_due: true })?;
            }
            Ok(())
        };
        self.shared.run(Operation::SecretReseal, step).await?;
        Ok(Resealed { rows: 0, resealed: 0, next: None })
    }
}
