//! Somebody else's vectors: every case of Project Wycheproof that is about our two kinds of signatures.

use k256::ecdsa::{VerifyingKey, signature::hazmat::PrehashVerifier as _};
use sha2::{Digest, Sha256};
use wycheproof::{TestResult, ecdsa, eddsa};

use super::{is_signed, read_scalars};

/// r and s out of strict DER; `None` for any other bytes.
fn scalars(der: &[u8]) -> Option<[u8; 64]> {
    let [0x30, length, rest @ ..] = der else { return None };
    if usize::from(*length) != rest.len() || *length > 127 {
        return None;
    }
    let (r, rest) = integer(rest)?;
    let (s, rest) = integer(rest)?;
    if rest.is_empty() { [r, s].concat().try_into().ok() } else { None }
}

/// A number of at most 32 bytes, not negative, without a zero too many; and what follows it.
fn integer(bytes: &[u8]) -> Option<([u8; 32], &[u8])> {
    let [0x02, length, rest @ ..] = bytes else { return None };
    let (value, rest) = rest.split_at_checked(usize::from(*length))?;
    let digits = match value {
        [] | [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => return None,
        [0, digits @ ..] => digits,
        digits => digits,
    };
    let mut number = [0; 32];
    number.get_mut(32usize.checked_sub(digits.len())?..)?.copy_from_slice(digits);
    Some((number, rest))
}

/// How many of a set's cases are decided as the set says, and how many there are.
fn bitcoin_rules(name: ecdsa::TestName) -> (usize, usize) {
    let set = ecdsa::TestSet::load(name).expect("the set");
    let cases = set.test_groups.iter().flat_map(|group| group.tests.iter().map(|case| (&group.key, case)));
    let decided = cases.map(|(key, case)| {
        let key = VerifyingKey::from_sec1_bytes(&key.key).expect("a key");
        let hash = Sha256::digest(&case.msg);
        let signature = scalars(&case.sig).and_then(|scalars| read_scalars(&scalars).ok());
        let is_accepted = signature.is_some_and(|signature| key.verify_prehash(&hash, &signature).is_ok());
        is_accepted == (case.result == TestResult::Valid)
    });
    let decided: Vec<bool> = decided.collect();
    (decided.iter().filter(|is_right| **is_right).count(), decided.len())
}

#[test]
fn e9_secp256k1_as_wycheproof_says_with_low_s_only() {
    assert_eq!(bitcoin_rules(ecdsa::TestName::EcdsaSecp256k1Sha256Bitcoin), (463, 463));
    // The plain set differs in the high-s cases, which it calls valid, and in nothing else.
    let (right, all) = bitcoin_rules(ecdsa::TestName::EcdsaSecp256k1Sha256);
    assert_eq!(all - right, 72);
}

#[test]
fn e9_ed25519_as_wycheproof_says() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("the set");
    let cases = set.test_groups.iter().flat_map(|group| group.tests.iter().map(|case| (&group.key, case)));
    let decided = cases.map(|(key, case)| {
        let key: [u8; 32] = key.pk.as_slice().try_into().expect("32 bytes");
        let signature = <[u8; 64]>::try_from(case.sig.as_slice()).ok();
        let signature = signature.map(|bytes| ed25519_dalek::Signature::from_bytes(&bytes));
        let is_accepted = signature.is_some_and(|signature| is_signed(&key, &case.msg, &signature));
        is_accepted == (case.result == TestResult::Valid)
    });
    let decided: Vec<bool> = decided.collect();
    assert_eq!((decided.iter().filter(|is_right| **is_right).count(), decided.len()), (151, 151));
}
