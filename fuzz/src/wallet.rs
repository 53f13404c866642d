//! Wallets: challenges that were not issued here, and signatures that nobody made.

use std::sync::OnceLock;

use actors::refusal::Code;
use control_api::fuzzing;
use k256::ecdsa::SigningKey;
use sha2::Sha256;
use sha3::{Digest as _, Keccak256};
use storage::model::UnixMillis;

const NOW: UnixMillis = UnixMillis(1_795_500_623_007);
const MESSAGE: &str = "gateway.example.org wants you to sign in with your Ethereum account:\n…";

/// A text that was not issued here for this wallet is no challenge of its.
pub fn challenge(data: &[u8]) {
    // Who makes up the bytes sees what was issued before, so each time it is under a secret of its own.
    let secret: [u8; 32] = Sha256::digest(data).into();
    let text = String::from_utf8_lossy(data);
    let (address, _) = wallet_of_ours();
    assert_eq!(fuzzing::challenge_check(&secret, address, &text, NOW), Err(Code::ChallengeInvalid));
    let issued = fuzzing::challenge_issue(&secret, address, NOW).expect("issued");
    assert_eq!(fuzzing::challenge_check(&secret, address, &issued, NOW), Ok(()));
    // The text laid over a good one, from some place on.
    let place = usize::from(data.first().copied().unwrap_or_default()) % issued.len();
    let mut mixed = issued.clone().into_bytes();
    mixed.iter_mut().skip(place).zip(data.iter().skip(1)).for_each(|(old, new)| *old = *new);
    let mixed = String::from_utf8_lossy(&mixed).into_owned();
    assert_eq!(fuzzing::challenge_check(&secret, address, &mixed, NOW).is_ok(), mixed == issued);
    if let Some(shown) = fuzzing::address_shown(&text) {
        assert_eq!(fuzzing::address_shown(&shown).as_ref(), Some(&shown), "what is shown reads as itself");
        let is_ours = shown == *address;
        assert_eq!(fuzzing::challenge_check(&secret, &shown, &issued, NOW).is_ok(), is_ours);
    }
}

/// An address and its one signature over the message.
fn wallet_of_ours() -> (&'static String, &'static [u8; 65]) {
    static OURS: OnceLock<(String, [u8; 65])> = OnceLock::new();
    let (address, signature) = OURS.get_or_init(|| {
        let key = SigningKey::from_slice(&[7; 32]).expect("a key");
        let point = key.verifying_key().to_sec1_point(false);
        let hash = Keccak256::digest(&point.as_bytes()[1..]);
        let prefixed = format!("\x19Ethereum Signed Message:\n{}{MESSAGE}", MESSAGE.len());
        let (signature, recovery) = key.sign_prehash_recoverable(&Keccak256::digest(prefixed.as_bytes()));
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = recovery.to_byte();
        let address = format!("0x{}", hex::encode(&hash[12..]));
        (fuzzing::address_shown(&address).expect("an address"), bytes)
    });
    (address, signature)
}

/// Nobody but the wallet signs for it, and of its signature no other form is taken.
pub fn wallet(data: &[u8]) {
    let (address, signature) = wallet_of_ours();
    let check = |text: &str| fuzzing::wallet_proves(address, MESSAGE, text);
    let text = String::from_utf8_lossy(data);
    if check(&text).is_ok() {
        let bytes = hex::decode(text.trim_start_matches("0x")).expect("hexadecimal");
        assert_eq!(bytes[..64], signature[..64], "another signature was taken");
        assert!(bytes[64] == signature[64] || bytes[64] == signature[64] + 27);
    }
    let raw = format!("0x{}", hex::encode(data));
    assert!(check(&raw).is_err() || data[..64] == signature[..64]);
    // The genuine one with some bits turned round.
    let mut mixed = *signature;
    mixed.iter_mut().zip(data).for_each(|(byte, change)| *byte ^= change);
    let is_alias = mixed[..64] == signature[..64] && (mixed[64] == signature[64] || mixed[64] == signature[64] + 27);
    assert_eq!(check(&format!("0x{}", hex::encode(mixed))).is_ok(), is_alias);
    // Any address, of either family, and any text: an answer and no panic.
    let (front, back) = data.split_at(data.len().min(44));
    let _ = fuzzing::wallet_proves(&String::from_utf8_lossy(front), MESSAGE, &String::from_utf8_lossy(back));
    let solana = "4zvwRjXUKGfvwnParsHAS3HuSVzV5cA4McphgmoCtajS";
    assert!(fuzzing::wallet_proves(solana, MESSAGE, &text).is_err());
}
