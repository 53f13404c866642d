//! A wallet that lives for one demo: it signs what it is shown and solves proofs of work.

use anyhow::{Context as _, Result};
use k256::ecdsa::SigningKey;
use sha2::{Digest as _, Sha256};
use sha3::Keccak256;

/// An Ethereum-style wallet.
pub(super) struct Wallet(SigningKey);

impl Wallet {
    /// A wallet with a new random key.
    pub(super) fn generate() -> Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).context("the system has no randomness")?;
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        // Of 2^128 random texts, one is no key.
        Ok(Self(SigningKey::from_slice(bytes).context("these bytes are no key")?))
    }

    /// Its address, in lower case.
    pub(super) fn address(&self) -> String {
        let point = self.0.verifying_key().to_sec1_point(false);
        // The first byte says "not compressed" and belongs to no coordinate.
        let hash = Keccak256::digest(point.as_bytes().get(1..).unwrap_or_default());
        format!("0x{}", hex::encode(hash.get(12..).unwrap_or_default()))
    }

    /// Signs a message the way wallets do when a person is asked to (EIP-191).
    pub(super) fn sign(&self, message: &str) -> String {
        let framed = format!("\x19Ethereum Signed Message:\n{}{message}", message.len());
        let digest = Keccak256::digest(framed.as_bytes());
        let (signature, recovery) = self.0.sign_prehash_recoverable(&digest);
        format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + recovery.to_byte())
    }
}

/// The smallest number that solves a proof of work: it makes the hash of both begin with `difficulty` zeros.
pub(super) async fn solve(challenge: &str, difficulty: u64) -> Result<String> {
    let begun = Sha256::new().chain_update(challenge);
    let zeros = "0".repeat(usize::try_from(difficulty).unwrap_or(usize::MAX).min(64));
    let is_solved = move |nonce: &String| hex::encode(begun.clone().chain_update(nonce).finalize()).starts_with(&zeros);
    // Hard ones take seconds, and the gateway itself may run on this runtime.
    let search = move || (0u64..).map(|number| number.to_string()).find(is_solved);
    tokio::task::spawn_blocking(search).await?.context("no number solves the proof of work")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the web3.js documentation of `eth.accounts.sign`.
    #[test]
    fn signs_as_every_wallet_does() {
        let key = hex::decode("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318").expect("hex");
        let wallet = Wallet::from_bytes(&key.try_into().expect("32 bytes")).expect("a key");
        assert_eq!(wallet.address(), "0x2c7536e3605d9c16a7a3d7b1898e529396a65c23");
        let signature = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd\
                         6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c";
        assert_eq!(wallet.sign("Some data"), signature);
    }

    #[tokio::test]
    async fn a_solution_has_its_zeros() {
        let nonce = solve("1.register.challenge", 3).await.expect("solved");
        let hash = hex::encode(Sha256::digest(format!("1.register.challenge{nonce}")));
        assert!(hash.starts_with("000"), "{hash}");
        assert_eq!(solve("anything", 0).await.expect("solved"), "0");
    }
}
