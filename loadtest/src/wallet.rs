//! An Ethereum wallet that signs personal messages (EIP-191), and proof of work.

use anyhow::{Context, bail};
use k256::ecdsa::SigningKey;
use sha2::{Digest, Sha256};
use sha3::Keccak256;

use crate::seed::Seed;

/// A wallet made from a seed; it holds nothing.
pub struct Wallet {
    key: SigningKey,
    address: String,
}

impl Wallet {
    /// The wallet that `seed` fixes.
    ///
    /// # Errors
    /// When no key could be made of 64 tries, which does not happen.
    pub fn from_seed(mut seed: Seed) -> anyhow::Result<Self> {
        let key = (0..64).find_map(|_| SigningKey::from_slice(&seed.bytes()).ok()).context("no valid key")?;
        let point = key.verifying_key().to_sec1_point(false);
        let hash = Keccak256::digest(point.as_bytes().get(1..).context("an empty point")?);
        let address = format!("0x{}", hex::encode(hash.get(12..).context("a short hash")?));
        Ok(Self { key, address })
    }

    /// `0x` and 40 hex digits, lower case.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The EIP-191 signature of `message`: `0x` and 65 bytes in hex.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(&self, message: &str) -> anyhow::Result<String> {
        let mut hash = Keccak256::new();
        hash.update(format!("\x19Ethereum Signed Message:\n{}", message.len()));
        hash.update(message);
        Ok(self.sign_digest(&hash.finalize()))
    }

    /// The signature of a digest: `0x` and 65 bytes in hex.
    #[must_use]
    pub fn sign_digest(&self, digest: &[u8]) -> String {
        let (signature, recovery) = self.key.sign_prehash_recoverable(digest);
        format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + recovery.to_byte())
    }
}

/// A nonce with which the SHA-256 of challenge and nonce begins with `difficulty` hexadecimal zeros.
///
/// # Errors
/// When it would take more than 2³² hashes.
pub fn prove_work(challenge: &str, difficulty: u32) -> anyhow::Result<String> {
    for number in 0..=u64::from(u32::MAX) {
        let nonce = format!("{number:x}");
        let hash = Sha256::new().chain_update(challenge).chain_update(&nonce).finalize();
        if leading_zero_digits(&hash) >= difficulty {
            return Ok(nonce);
        }
    }
    bail!("a difficulty of {difficulty} is too much work")
}

fn leading_zero_digits(hash: &[u8]) -> u32 {
    let mut digits = 0;
    for byte in hash {
        if *byte != 0 {
            return digits + byte.leading_zeros() / 4;
        }
        digits += 2;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_proven_in_hexadecimal_digits() {
        let nonce = prove_work("challenge", 3).unwrap();
        assert!(hex::encode(Sha256::digest(format!("challenge{nonce}"))).starts_with("000"));
        assert_eq!(leading_zero_digits(&[0, 0x0f]), 3);
        assert_eq!(leading_zero_digits(&[0x10]), 0);
    }

    #[test]
    fn an_address_is_twenty_bytes_and_a_signature_sixty_five() {
        let wallet = Wallet::from_seed(Seed::stream(1, "buyer", 0)).unwrap();
        assert_eq!(wallet.address().len(), 42);
        assert_eq!(wallet.sign("hello").unwrap().len(), 132);
    }

    #[test]
    fn the_address_of_a_known_key() {
        // Private key 1: its address is in every textbook.
        let mut bytes = [0u8; 32];
        bytes[31] = 1;
        let key = SigningKey::from_slice(&bytes).unwrap();
        let hash = Keccak256::digest(&key.verifying_key().to_sec1_point(false).as_bytes()[1..]);
        assert_eq!(hex::encode(&hash[12..]), "7e5f4552091a69125d5dfcb7b8c2659029395bdf");
    }
}
