//! Wallet signatures over a challenge's message. A signature proves a wallet and is never a key to anything: of each
//! there is more than one in principle, so only one form of each is accepted.

use actors::refusal::{Code, Refusal};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k256::ecdsa::{RecoveryId, VerifyingKey};
use sha3::{Digest, Keccak256};
use storage::model::ChainFamily;

use super::address::{Address, evm_address_of};

/// The last 32 bytes of a signature that only a contract can check (ERC-6492).
const CONTRACT_MARK: &str = "6492649264926492649264926492649264926492649264926492649264926492";

/// A signature in the form of its family; what it proves is not known yet.
#[derive(Clone, Debug)]
pub(crate) enum Signature {
    /// r, s and the bit that tells which key.
    Evm(Box<k256::ecdsa::Signature>, RecoveryId),
    /// 64 bytes.
    Solana(Box<ed25519_dalek::Signature>),
}

impl Signature {
    /// Reads a signature as the address's family writes it.
    ///
    /// # Errors
    /// `SignatureInvalid` for any other form, `ContractWalletUnsupported` for one that only a contract could check.
    pub(crate) fn parse(family: ChainFamily, text: &str) -> Result<Self, Refusal> {
        match family {
            ChainFamily::Evm => parse_evm(text),
            ChainFamily::Solana => parse_solana(text),
        }
    }

    /// Whether it is this wallet's over this message.
    ///
    /// # Errors
    /// `SignatureInvalid`.
    pub(crate) fn verify(&self, address: &Address, message: &str) -> Result<(), Refusal> {
        let is_good = match (self, address) {
            (Self::Evm(signature, recovery), Address::Evm(address)) => {
                VerifyingKey::recover_from_prehash(&personal_hash(message), signature, *recovery)
                    .ok()
                    .and_then(|key| evm_address_of(&key))
                    .is_some_and(|signer| signer == *address)
            }
            (Self::Solana(signature), Address::Solana(address)) => verify_solana(address, message, signature),
            _ => false,
        };
        if is_good { Ok(()) } else { Err(Code::SignatureInvalid.into()) }
    }
}

fn malformed(why: &'static str) -> Refusal {
    Refusal::from(Code::SignatureInvalid).message(why)
}

fn parse_evm(text: &str) -> Result<Signature, Refusal> {
    let form = || malformed("An EVM signature is 0x and 65 bytes in hexadecimal: r, s, v.");
    let digits = text.strip_prefix("0x").ok_or_else(form)?;
    if digits.ends_with(CONTRACT_MARK) || (digits.len() > 130 && digits.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(Code::ContractWalletUnsupported.into());
    }
    let mut bytes = [0; 65];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| form())?;
    let [scalars @ .., v] = bytes;
    let recovery = match v {
        0 | 27 => RecoveryId::new(false, false),
        1 | 28 => RecoveryId::new(true, false),
        _ => return Err(malformed("The signature's last byte, v, must be 0, 1, 27 or 28.")),
    };
    Ok(Signature::Evm(Box::new(read_scalars(&scalars)?), recovery))
}

fn read_scalars(scalars: &[u8; 64]) -> Result<k256::ecdsa::Signature, Refusal> {
    let signature = k256::ecdsa::Signature::from_slice(scalars)
        .map_err(|_| malformed("The signature's r and s are out of range."))?;
    // Recovery works from the high-s twin too, so it has to be refused here.
    if signature.normalize_s() != signature {
        return Err(malformed("The signature's s is in the upper half; only the lower one is accepted."));
    }
    Ok(signature)
}

fn parse_solana(text: &str) -> Result<Signature, Refusal> {
    let form = || malformed("A Solana signature is 64 bytes in base58 or base64.");
    if text.len() > 128 {
        return Err(form());
    }
    let whole = |bytes: Vec<u8>| <[u8; 64]>::try_from(bytes).ok();
    let bytes = bs58::decode(text)
        .into_vec()
        .ok()
        .and_then(whole)
        .or_else(|| STANDARD.decode(text).ok().and_then(whole))
        .ok_or_else(form)?;
    Ok(Signature::Solana(Box::new(ed25519_dalek::Signature::from_bytes(&bytes))))
}

/// EIP-191: the length is that of the bytes, in decimal digits.
fn personal_hash(message: &str) -> [u8; 32] {
    let mut hash = Keccak256::new();
    hash.update(format!("\x19Ethereum Signed Message:\n{}", message.len()));
    hash.update(message);
    hash.finalize().into()
}

fn verify_solana(address: &[u8; 32], message: &str, signature: &ed25519_dalek::Signature) -> bool {
    is_signed(address, message.as_bytes(), signature)
        || off_chain_frame(message).is_some_and(|framed| is_signed(address, &framed, signature))
}

fn is_signed(key: &[u8; 32], bytes: &[u8], signature: &ed25519_dalek::Signature) -> bool {
    ed25519_dalek::VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(bytes, signature).is_ok())
}

/// What wallets sign that put a frame around messages which are no transactions: header, version 0, the format of the
/// text, its length.
fn off_chain_frame(message: &str) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    let format = if message.bytes().all(|b| (0x20..=0x7e).contains(&b)) { 0 } else { 1 };
    let mut framed = b"\xffsolana offchain\x00".to_vec();
    framed.push(format);
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(message.as_bytes());
    Some(framed)
}

#[cfg(test)]
#[path = "signature_judges.rs"]
mod judges;

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer as _;
    use k256::ecdsa::SigningKey;
    use proptest::prelude::*;

    use super::*;

    const MESSAGE: &str = "example.org wants you to sign in\nwith your Ethereum account: ä";

    fn wallet(seed: [u8; 32]) -> (SigningKey, Address) {
        let key = SigningKey::from_slice(&seed).expect("key");
        let address = evm_address_of(key.verifying_key()).expect("address");
        (key, Address::Evm(address))
    }

    fn sign(key: &SigningKey, message: &str) -> [u8; 65] {
        let (signature, recovery) = key.sign_prehash_recoverable(&personal_hash(message));
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&signature.to_bytes());
        bytes[64] = recovery.to_byte();
        bytes
    }

    fn shown(bytes: &[u8]) -> String {
        format!("0x{}", hex::encode(bytes))
    }

    fn check(address: &Address, message: &str, text: &str) -> Result<(), Code> {
        let signature = Signature::parse(address.family(), text).map_err(|refusal| refusal.code())?;
        signature.verify(address, message).map_err(|refusal| refusal.code())
    }

    #[test]
    fn a_published_example_verifies() {
        // Private key 0x46 repeated, "Hello" hashed by another implementation's documented prefix rule.
        let (key, address) = wallet([0x46; 32]);
        assert_eq!(address.shown(), "0x9d8A62f656a8d1615C1294fd71e9CFb3E4855A4F");
        assert_eq!(check(&address, MESSAGE, &shown(&sign(&key, MESSAGE))), Ok(()));
    }

    #[test]
    fn all_four_forms_of_v_and_no_other() {
        let (key, address) = wallet([7; 32]);
        let good = sign(&key, MESSAGE);
        for v in 0..=255u8 {
            let mut bytes = good;
            bytes[64] = v;
            let is_right = v == good[64] || v == good[64] + 27;
            let is_other = v == 1 - good[64] || v == 28 - good[64];
            let expected = if is_right { Ok(()) } else { Err(Code::SignatureInvalid) };
            assert_eq!(check(&address, MESSAGE, &shown(&bytes)), expected, "v {v}, other key {is_other}");
        }
    }

    #[test]
    fn e9_the_high_s_twin_is_refused() {
        let (key, address) = wallet([7; 32]);
        let good = sign(&key, MESSAGE);
        let signature = k256::ecdsa::Signature::from_slice(&good[..64]).expect("good");
        let (r, s) = signature.split_scalars();
        let twin = k256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).expect("in range");
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&twin.to_bytes());
        bytes[64] = 1 - good[64];
        // It does recover to the same key: nothing but the check keeps it out.
        let recovery = RecoveryId::from_byte(bytes[64]).expect("0 or 1");
        let recovered = VerifyingKey::recover_from_prehash(&personal_hash(MESSAGE), &twin, recovery).expect("key");
        assert_eq!(Some(recovered), Some(*key.verifying_key()));
        assert_eq!(check(&address, MESSAGE, &shown(&bytes)), Err(Code::SignatureInvalid));
    }

    #[test]
    fn lengths_and_spellings() {
        let (key, address) = wallet([9; 32]);
        let good = sign(&key, MESSAGE);
        let mut compact = good[..64].to_vec();
        compact[32] |= good[64] << 7;
        for text in [
            String::new(),
            "0x".into(),
            hex::encode(good),
            shown(&good[..64]),
            shown(&compact),
            format!("0X{}", hex::encode(good)),
            format!("{} ", shown(&good)),
            shown(&[0; 65]),
            shown(&[0xff; 65]),
            "é".repeat(66),
        ] {
            assert_eq!(check(&address, MESSAGE, &text), Err(Code::SignatureInvalid), "{text}");
        }
        assert_eq!(check(&address, MESSAGE, &shown(&good).to_uppercase().replace("0X", "0x")), Ok(()));
        let long = shown(&[good.as_slice(), &[0]].concat());
        assert_eq!(check(&address, MESSAGE, &long), Err(Code::ContractWalletUnsupported));
        let marked = format!("0x00{CONTRACT_MARK}");
        assert_eq!(check(&address, MESSAGE, &marked), Err(Code::ContractWalletUnsupported));
    }

    #[test]
    fn zero_and_order_are_out_of_range() {
        let (key, address) = wallet([9; 32]);
        let good = sign(&key, MESSAGE);
        let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").expect("hex");
        for (place, value) in [(0, vec![0; 32]), (32, vec![0; 32]), (0, order.clone()), (32, order)] {
            let mut bytes = good;
            bytes[place..place + 32].copy_from_slice(&value);
            assert_eq!(check(&address, MESSAGE, &shown(&bytes)), Err(Code::SignatureInvalid), "place {place}");
        }
    }

    #[test]
    fn solana_raw_and_framed_in_both_encodings() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[5; 32]);
        let address = Address::Solana(key.verifying_key().to_bytes());
        for signed in [MESSAGE.as_bytes().to_vec(), off_chain_frame(MESSAGE).expect("short")] {
            let bytes = key.sign(&signed).to_bytes();
            assert_eq!(check(&address, MESSAGE, &bs58::encode(bytes).into_string()), Ok(()));
            assert_eq!(check(&address, MESSAGE, &STANDARD.encode(bytes)), Ok(()));
            assert_eq!(check(&address, "other", &STANDARD.encode(bytes)), Err(Code::SignatureInvalid));
        }
        assert_eq!(check(&address, MESSAGE, "1111"), Err(Code::SignatureInvalid));
    }

    proptest! {
        #[test]
        fn e9_any_other_byte_fails(place in 0usize..65, change in 1u8.., seed in 1u8..=250) {
            let (key, address) = wallet([seed; 32]);
            let mut bytes = sign(&key, MESSAGE);
            bytes[place] ^= change;
            // 27 and 0, 28 and 1 are two spellings of one v.
            prop_assume!(place != 64 || change != 27 || bytes[64] < 27);
            prop_assert_eq!(check(&address, MESSAGE, &shown(&bytes)), Err(Code::SignatureInvalid));
        }

        #[test]
        fn any_message_and_key(message in "\\PC{0,300}", seed in 1u8..=250) {
            let (key, address) = wallet([seed; 32]);
            prop_assert_eq!(check(&address, &message, &shown(&sign(&key, &message))), Ok(()));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,200}") {
            let _ = Signature::parse(ChainFamily::Evm, &text);
            let _ = Signature::parse(ChainFamily::Solana, &text);
        }
    }
}
