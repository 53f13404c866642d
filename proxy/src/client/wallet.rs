//! Wallets: they sign what they are shown. And the proof of work that goes with a challenge.

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use ed25519_dalek::Signer as _;
use k256::ecdsa::SigningKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sha3::Keccak256;

/// Hashes between two looks at the progress.
const ROUND: u64 = 1 << 16;

/// A family of chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Chain {
    /// Ethereum and its kin.
    Evm,
    /// Solana.
    Solana,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evm => "evm",
            Self::Solana => "solana",
        })
    }
}

/// A key of either family. It is never printed.
#[derive(Clone)]
pub(crate) enum Wallet {
    Evm(SigningKey),
    Solana(Box<ed25519_dalek::SigningKey>),
}

impl Wallet {
    /// A wallet with a new random key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn generate(chain: Chain) -> Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).context("the system has no randomness")?;
        Self::from_bytes(chain, &bytes)
    }

    /// The wallet whose secret key these are.
    ///
    /// # Errors
    /// When they are none: of 2^128 random texts, one.
    pub(crate) fn from_bytes(chain: Chain, bytes: &[u8; 32]) -> Result<Self> {
        match chain {
            Chain::Evm => Ok(Self::Evm(SigningKey::from_slice(bytes).context("these bytes are no key")?)),
            Chain::Solana => Ok(Self::Solana(Box::new(ed25519_dalek::SigningKey::from_bytes(bytes)))),
        }
    }

    /// Reads a secret key as other programs write it: 32 bytes in hex (EVM), or a Solana key pair as a JSON list of 64
    /// bytes or in base58.
    ///
    /// # Errors
    /// When it is none of these. The text is not repeated.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let hex_digits = text.strip_prefix("0x").unwrap_or(text);
        if let Ok(bytes) = hex::decode(hex_digits) {
            let bytes = bytes.try_into().ok().context("a secret key has 32 bytes, which are 64 hex digits")?;
            return Self::from_bytes(Chain::Evm, &bytes);
        }
        let pair = if text.starts_with('[') {
            serde_json::from_str(text).ok().context("this is no list of bytes")?
        } else {
            bs58::decode(text).into_vec().ok().context("this is no secret key: neither hex, nor base58, nor a list")?
        };
        ensure!(pair.len() == 64, "a Solana key pair has 64 bytes");
        let (secret, public) = pair.split_at(32);
        let secret = secret.try_into().context("a Solana key pair has 64 bytes")?;
        let key = ed25519_dalek::SigningKey::from_bytes(secret);
        if key.verifying_key().as_bytes() != public {
            bail!("the halves of this key pair do not belong together");
        }
        Ok(Self::Solana(Box::new(key)))
    }

    /// Its secret key, as hex.
    pub(crate) fn secret(&self) -> String {
        match self {
            Self::Evm(key) => hex::encode(key.to_bytes()),
            Self::Solana(key) => hex::encode(key.to_bytes()),
        }
    }

    /// Its family.
    pub(crate) fn chain(&self) -> Chain {
        match self {
            Self::Evm(_) => Chain::Evm,
            Self::Solana(_) => Chain::Solana,
        }
    }

    /// Its address: an EVM one in lower case.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Evm(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                // The first byte says "not compressed" and belongs to no coordinate.
                let hash = Keccak256::digest(point.as_bytes().get(1..).unwrap_or_default());
                format!("0x{}", hex::encode(hash.get(12..).unwrap_or_default()))
            }
            Self::Solana(key) => bs58::encode(key.verifying_key().as_bytes()).into_string(),
        }
    }

    /// Signs a message the way wallets do when a person is asked to (EIP-191; Solana's `signMessage`).
    pub(crate) fn sign(&self, message: &str) -> String {
        match self {
            Self::Evm(key) => {
                let framed = format!("\x19Ethereum Signed Message:\n{}{message}", message.len());
                let digest = Keccak256::digest(framed.as_bytes());
                let (signature, recovery) = key.sign_prehash_recoverable(&digest);
                format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + recovery.to_byte())
            }
            Self::Solana(key) => bs58::encode(key.sign(message.as_bytes()).to_bytes()).into_string(),
        }
    }
}

/// Whether both are written forms of one address: of an EVM one, case says nothing.
pub(crate) fn is_same_address(one: &str, other: &str) -> bool {
    if one.starts_with("0x") { one.eq_ignore_ascii_case(other) } else { one == other }
}

/// The smallest number that solves a proof of work: it makes the hash of both begin with `difficulty` zeros. `progress`
/// hears now and then how many more were tried, and how many there will be on average.
///
/// # Errors
/// When no number does.
pub(crate) async fn solve(
    challenge: &str,
    difficulty: u64,
    mut progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<String> {
    ensure!(difficulty <= 15, "a proof of work of {difficulty} zeros is not to be had");
    let begun = Sha256::new().chain_update(challenge);
    let expected = 16u64.saturating_pow(u32::try_from(difficulty).unwrap_or(u32::MAX));
    // Hard ones take seconds, and the gateway itself may run on this runtime.
    let search = move || {
        for number in 0u64.. {
            if number > 0 && number.is_multiple_of(ROUND) {
                progress(ROUND, expected);
            }
            let nonce = number.to_string();
            if begins_with_zeros(&begun.clone().chain_update(&nonce).finalize(), difficulty) {
                return Some(nonce);
            }
        }
        None
    };
    tokio::task::spawn_blocking(search).await?.context("no number solves the proof of work")
}

/// Zeros in hex: half a byte each.
fn begins_with_zeros(hash: &[u8], zeros: u64) -> bool {
    let digits = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.take(usize::try_from(zeros).unwrap_or(usize::MAX)).all(|digit| digit == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";

    /// The example of the web3.js documentation of `eth.accounts.sign`.
    #[test]
    fn signs_as_every_wallet_does() {
        let wallet = Wallet::parse(&format!("0x{SECRET}\n")).expect("a key");
        assert_eq!(wallet.address(), "0x2c7536e3605d9c16a7a3d7b1898e529396a65c23");
        let signature = "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd\
                         6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c";
        assert_eq!(wallet.sign("Some data"), signature);
        assert_eq!((wallet.secret().as_str(), wallet.chain()), (SECRET, Chain::Evm));
    }

    /// The first test of RFC 8032, §7.1: its public key, and its signature of nothing.
    #[test]
    fn signs_as_solana_does() {
        let secret = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").expect("hex");
        let wallet = Wallet::from_bytes(Chain::Solana, &secret.try_into().expect("32 bytes")).expect("a key");
        let public = hex::decode("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").expect("hex");
        assert_eq!(wallet.address(), bs58::encode(&public).into_string());
        let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555\
                         fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
        assert_eq!(bs58::decode(wallet.sign("")).into_vec().expect("base58"), hex::decode(signature).expect("hex"));
    }

    #[test]
    fn keys_of_other_programs_are_read_and_broken_ones_are_not() {
        let wallet = Wallet::generate(Chain::Solana).expect("a key");
        let Wallet::Solana(key) = &wallet else { panic!("of another family") };
        let pair = key.to_keypair_bytes();
        for text in [bs58::encode(pair).into_string(), serde_json::to_string(&pair.to_vec()).expect("JSON")] {
            assert_eq!(Wallet::parse(&text).expect("a key").address(), wallet.address());
        }
        let mut crossed = pair;
        crossed[40] ^= 1;
        let crossed = serde_json::to_string(&crossed.to_vec()).expect("JSON");
        for text in ["", "0x", "0x12", "[1,2]", "hello", &"0".repeat(64), &crossed, &SECRET[1..]] {
            let told = Wallet::parse(text).err().unwrap_or_else(|| panic!("{text} is no key"));
            assert!(text.is_empty() || text.len() < 8 || !told.to_string().contains(text));
        }
    }

    #[tokio::test]
    async fn a_solution_has_its_zeros() {
        let nonce = solve("1.register.challenge", 3, |_, _| {}).await.expect("solved");
        let hash = hex::encode(Sha256::digest(format!("1.register.challenge{nonce}")));
        assert!(hash.starts_with("000"), "{hash}");
        assert_eq!(solve("anything", 0, |_, _| {}).await.expect("solved"), "0");
    }

    #[tokio::test]
    async fn who_waits_is_told_how_long() {
        let (told, heard) = std::sync::mpsc::channel();
        let nonce =
            solve("a long one", 5, move |more, of| told.send((more, of)).expect("heard")).await.expect("solved");
        let tried: u64 = heard.iter().inspect(|(_, of)| assert_eq!(*of, 1 << 20)).map(|(more, _)| more).sum();
        assert_eq!(tried, nonce.parse::<u64>().expect("a number") / ROUND * ROUND);
        assert!(solve("too hard", 64, |_, _| {}).await.is_err());
    }
}
