//! Sealing: what must not be read out of a stolen store is kept as ciphertext only. Every backend uses this one form.
//!
//! XChaCha20-Poly1305 under the master key, with a random nonce of 24 bytes, which is long enough to be drawn without a
//! count. Table, row, field and key version are authenticated along: a ciphertext that was moved, or cut, or changed by
//! a bit, does not open. The key's version travels with it, so that two keys can be in use while a rotation lasts.

mod endpoint;

use std::fmt;

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{StoreError, StoreResult};
pub use endpoint::{EndpointSecrets, SealedEndpoint, SealedSecret};

/// Bytes of a nonce.
const NONCE: usize = 24;
/// Bytes that the key's version takes.
const VERSION: usize = 8;
/// What the version is hashed with, so that it can be nothing else's hash.
const VERSION_DOMAIN: &[u8] = b"crochet master key version 1\0";

/// Which key sealed something: the first bytes of a hash of the key. Tells keys apart, and nothing about them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyVersion([u8; VERSION]);

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a sealed value stands; it opens nowhere else.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The kind of record.
    pub table: &'static str,
    /// Which record.
    pub row: &'a [u8],
    /// The row for people, in an error.
    pub shown: &'a dyn fmt::Display,
    /// Which of its values.
    pub field: &'static str,
}

impl Place<'_> {
    /// What is authenticated along with the value. A length stands before each part, so that no two places run together.
    fn bytes(&self, version: KeyVersion) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.row.len());
        for part in [self.table.as_bytes(), self.row, self.field.as_bytes(), &version.0] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    fn corrupt(&self, why: &str) -> StoreError {
        StoreError::Corrupt(format!("{} {}: its sealed {} {why}", self.table, self.shown, self.field))
    }
}

/// A sealed value: the key's version, the nonce, the ciphertext with its tag.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Which key sealed it; `None` when it is too short to say.
    #[must_use]
    pub fn version(&self) -> Option<KeyVersion> {
        self.0.first_chunk().copied().map(KeyVersion)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sealed({} bytes)", self.0.len())
    }
}

/// A key and its version. Wiped from memory when it goes.
struct MasterKey {
    version: KeyVersion,
    cipher: XChaCha20Poly1305,
}

impl MasterKey {
    fn new(bytes: &[u8; 32]) -> Self {
        let digest: [u8; 32] = Sha256::new().chain_update(VERSION_DOMAIN).chain_update(bytes).finalize().into();
        let mut version = [0; VERSION];
        version.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self { version: KeyVersion(version), cipher: XChaCha20Poly1305::new(bytes.into()) }
    }
}

/// Seals and opens. Seals with the current key; opens what the current or the previous one sealed.
pub struct Sealer {
    current: MasterKey,
    previous: Option<MasterKey>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("current", &self.current.version).finish_non_exhaustive()
    }
}

impl Sealer {
    /// With this key, and the one before while a rotation lasts.
    #[must_use]
    pub fn new(current: &[u8; 32], previous: Option<&[u8; 32]>) -> Self {
        Self { current: MasterKey::new(current), previous: previous.map(MasterKey::new) }
    }

    /// The version that is sealed with.
    #[must_use]
    pub fn current(&self) -> KeyVersion {
        self.current.version
    }

    /// The versions that can be opened, the current one first.
    #[must_use]
    pub fn versions(&self) -> Vec<KeyVersion> {
        std::iter::once(&self.current).chain(&self.previous).map(|key| key.version).collect()
    }

    /// Whether it was sealed with the current key.
    #[must_use]
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        sealed.version() == Some(self.current.version)
    }

    /// Seals a value for its place, with the current key.
    ///
    /// # Errors
    /// `Unavailable` when the system has no randomness.
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> StoreResult<Sealed> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let MasterKey { version, cipher } = &self.current;
        let aad = place.bytes(*version);
        let sealed = cipher.encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad });
        let sealed = sealed.map_err(|_| place.corrupt("cannot be made: the value is too long"))?;
        Ok(Sealed([version.0.as_slice(), &nonce, &sealed].concat()))
    }

    /// The value that was sealed for this place.
    ///
    /// # Errors
    /// `Corrupt` when neither key sealed it, or it was changed, or sealed for another place; names table, row and
    /// field, never the value.
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> StoreResult<Zeroizing<Vec<u8>>> {
        let parts = sealed.0.split_first_chunk::<VERSION>();
        let parts = parts.and_then(|(version, rest)| Some((version, rest.split_first_chunk::<NONCE>()?)));
        let Some((version, (nonce, rest))) = parts else { return Err(place.corrupt("value is cut short")) };
        let version = KeyVersion(*version);
        let mut keys = std::iter::once(&self.current).chain(&self.previous);
        let Some(key) = keys.find(|key| key.version == version) else {
            return Err(place.corrupt(&format!(
                "value was sealed with master key {version}, and storage.master_key is {}",
                self.current.version
            )));
        };
        let aad = place.bytes(version);
        let plain = key.cipher.decrypt(&XNonce::from(*nonce), Payload { msg: rest, aad: &aad });
        plain.map(Zeroizing::new).map_err(|_| place.corrupt("value was changed, or belongs to another place"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<'a>(row: &'a [u8], field: &'static str) -> Place<'a> {
        Place { table: "endpoint", row, shown: &"lst_7", field }
    }

    fn sealer(current: u8, previous: Option<u8>) -> Sealer {
        Sealer::new(&[current; 32], previous.map(|byte| [byte; 32]).as_ref())
    }

    #[test]
    fn e2_what_was_sealed_opens_in_its_place_and_nowhere_else() {
        let (sealer, here) = (sealer(1, None), place(b"row", "url"));
        let sealed = sealer.seal(here, b"https://private.example/").expect("sealed");
        assert_eq!(sealer.open(here, &sealed).expect("opens").as_slice(), b"https://private.example/");
        let elsewhere = Place { table: "secret", ..here };
        for other in [place(b"wor", "url"), place(b"row", "secret"), place(b"ro", "wurl"), elsewhere] {
            let error = sealer.open(other, &sealed).expect_err("another place").to_string();
            assert!(error.contains(other.table) && error.contains("lst_7") && !error.contains("private"), "{error}");
        }
        let again = sealer.seal(here, b"https://private.example/").expect("sealed");
        assert_ne!(sealed, again, "a nonce of its own each time");
        assert!(!format!("{sealed:?} {sealer:?}").contains("private"));
    }

    #[test]
    fn e2_a_flipped_bit_or_a_missing_byte_is_told_and_never_panics() {
        let (sealer, here) = (sealer(1, None), place(b"row", "url"));
        let Sealed(bytes) = sealer.seal(here, b"value").expect("sealed");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(sealer.open(here, &Sealed(changed)), Err(StoreError::Corrupt(_))), "bit {bit}");
        }
        for end in 0..bytes.len() {
            assert!(matches!(sealer.open(here, &Sealed(bytes[..end].to_vec())), Err(StoreError::Corrupt(_))), "{end}");
        }
    }

    #[test]
    fn e2_two_keys_open_while_a_rotation_lasts_and_one_seals() {
        let here = place(b"row", "url");
        let old = sealer(1, None).seal(here, b"value").expect("sealed");
        let both = sealer(2, Some(1));
        assert_eq!(both.open(here, &old).expect("opens").as_slice(), b"value");
        assert!(!both.is_current(&old));
        let new = both.seal(here, b"value").expect("sealed");
        assert!(both.is_current(&new) && sealer(2, None).open(here, &new).is_ok());
        let error = sealer(2, None).open(here, &old).expect_err("the old key is gone").to_string();
        assert!(error.contains(&sealer(1, None).current().to_string()), "names the version it needs: {error}");
    }
}
