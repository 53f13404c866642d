//! Wallet signatures before outside judges: Project Wycheproof's sets, and the twelve conditions by which verifiers of
//! Ed25519 are told apart.

use curve25519_dalek::{EdwardsPoint, Scalar, constants::EIGHT_TORSION};
use ed25519_dalek::Verifier as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use k256::ecdsa::{VerifyingKey, signature::hazmat::PrehashVerifier as _};
use sha2::{Sha256, Sha512};
use sha3::Digest as _;
use wycheproof::{TestResult, ecdsa, eddsa, mac};

use super::*;

/// How many of a set's cases there are, and in how many our verdict is not the set's.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdicts {
    cases: usize,
    others: Vec<usize>,
}

impl Verdicts {
    fn add(&mut self, id: usize, expected: TestResult, is_taken: bool) {
        self.cases += 1;
        if (expected == TestResult::Valid) != is_taken {
            self.others.push(id);
        }
    }
}

/// Judges r and s as a wallet's signature is judged, but for the hash, which is SHA-256 in these sets.
fn takes_evm(key: &VerifyingKey, message: &[u8], scalars: &[u8]) -> bool {
    let parsed = [27, 28].map(|v| parse_evm(&format!("0x{}{v:02x}", hex::encode(scalars))));
    let prehash = Sha256::digest(message);
    let [Ok(Signature::Evm(signature, even)), Ok(Signature::Evm(_, odd))] = parsed else { return false };
    let is_good = key.verify_prehash(&prehash, &*signature).is_ok();
    // Who signed is recovered from the signature; for these it must be the same one, whom nobody else's can give.
    let found = [even, odd].map(|v| VerifyingKey::recover_from_prehash(&prehash, &signature, v).ok());
    let is_recovered = found.iter().flatten().any(|found| found == key);
    // A point whose x does not fit below the order has a third and a fourth v, which wallets cannot say.
    assert!(is_good || !is_recovered, "recovered, but not its signature");
    is_good
}

fn judge_ecdsa(name: ecdsa::TestName, read: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Verdicts {
    let mut verdicts = Verdicts::default();
    for group in ecdsa::TestSet::load(name).expect("a set").test_groups {
        let key = VerifyingKey::from_sec1_bytes(&group.key.key).expect("a key");
        for test in group.tests {
            let is_taken = read(&test.sig).is_some_and(|scalars| takes_evm(&key, &test.msg, &scalars));
            verdicts.add(test.tc_id, test.result, is_taken);
        }
    }
    verdicts
}

fn from_der(bytes: &[u8]) -> Option<Vec<u8>> {
    k256::ecdsa::Signature::from_der(bytes).ok().map(|signature| signature.to_bytes().to_vec())
}

#[test]
fn e9_wycheproofs_bitcoin_set_is_judged_as_it_says_463_of_463() {
    let verdicts = judge_ecdsa(ecdsa::TestName::EcdsaSecp256k1Sha256Bitcoin, from_der);
    assert_eq!(verdicts, Verdicts { cases: 463, others: vec![] });
}

#[test]
fn e9_wycheproofs_other_sets_differ_in_the_72_cases_with_a_high_s() {
    let verdicts = judge_ecdsa(ecdsa::TestName::EcdsaSecp256k1Sha256, from_der);
    assert_eq!(verdicts.others.len(), 72, "of {} differ {:?}", verdicts.cases, verdicts.others);
    let whole = |bytes: &[u8]| Some(bytes.to_vec());
    let verdicts = judge_ecdsa(ecdsa::TestName::EcdsaSecp256k1Sha256P1363, whole);
    assert_eq!(verdicts.others.len(), 72, "of {} differ {:?}", verdicts.cases, verdicts.others);
}

#[test]
fn wycheproofs_ed25519_set_is_judged_as_it_says_151_of_151() {
    let mut verdicts = Verdicts::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("a set").test_groups {
        let address: [u8; 32] = group.key.pk[..].try_into().expect("32 bytes");
        for test in group.tests {
            let is_taken = match parse_solana(&bs58::encode(&test.sig[..]).into_string()) {
                Ok(Signature::Solana(signature)) => is_signed(&address, &test.msg, &signature),
                _ => false,
            };
            verdicts.add(test.tc_id, test.result, is_taken);
        }
    }
    assert_eq!(verdicts, Verdicts { cases: 151, others: vec![] });
}

#[test]
fn wycheproofs_hmac_sha256_set_is_judged_as_it_says_174_of_174() {
    let mut verdicts = Verdicts::default();
    for group in mac::TestSet::load(mac::TestName::HmacSha256).expect("a set").test_groups {
        for test in group.tests {
            let mut mac = Hmac::<Sha256>::new_from_slice(&test.key).expect("any length");
            mac.update(&test.msg);
            verdicts.add(test.tc_id, test.result, mac.verify_truncated_left(&test.tag).is_ok());
        }
    }
    assert_eq!(verdicts, Verdicts { cases: 174, others: vec![] });
}

/// A key, a signature of it, and what they are over.
struct Made {
    key: [u8; 32],
    r: [u8; 32],
    s: [u8; 32],
    message: Vec<u8>,
}

/// The encoding of y = 0, a point of order 4, and the one with y = p, which reads as the same point.
const QUARTER: [u8; 32] = [0; 32];
const QUARTER_OTHERWISE: [u8; 32] = {
    let mut bytes = [0xff; 32];
    (bytes[0], bytes[31]) = (0xed, 0x7f);
    bytes
};
/// The order of the base point.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn challenge(r: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
    let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

/// Looks for a message with which the parts outside the prime-order group cancel out, or do not.
fn make(
    (a, a_small): (u64, EdwardsPoint),
    (r, r_small): (u64, EdwardsPoint),
    key: Option<[u8; 32]>,
    r_bytes: Option<[u8; 32]>,
    hashed: (Option<[u8; 32]>, Option<[u8; 32]>),
    cancels: bool,
) -> Made {
    let (a, r) = (Scalar::from(a), Scalar::from(r));
    let key = key.unwrap_or_else(|| (EdwardsPoint::mul_base(&a) + a_small).compress().to_bytes());
    let r_bytes = r_bytes.unwrap_or_else(|| (EdwardsPoint::mul_base(&r) + r_small).compress().to_bytes());
    for n in 0u32.. {
        let message = n.to_be_bytes().repeat(8);
        let h = challenge(&hashed.0.unwrap_or(r_bytes), &hashed.1.unwrap_or(key), &message);
        if (r_small + a_small * h == EdwardsPoint::default()) == cancels {
            return Made { key, r: r_bytes, s: (r + h * a).to_bytes(), message };
        }
    }
    unreachable!("one message in eight will do");
}

fn plus(number: [u8; 32], times: u32) -> [u8; 32] {
    let mut sum = number;
    for _ in 0..times {
        let mut carry = 0u16;
        for (place, byte) in sum.iter_mut().zip(ORDER) {
            carry += u16::from(*place) + u16::from(byte);
            (*place, carry) = (carry.to_le_bytes()[0], carry >> 8);
        }
        assert_eq!(carry, 0, "still 32 bytes");
    }
    sum
}

#[test]
fn of_the_twelve_conditions_that_tell_verifiers_apart_only_number_3_is_accepted() {
    let none = EdwardsPoint::default();
    let eighth = EIGHT_TORSION[1];
    let quarter = curve25519_dalek::edwards::CompressedEdwardsY(QUARTER).decompress().expect("a point");
    let as_is = (None, None);
    let honest = make((5, none), (7, none), None, None, as_is, true);
    let too_large = |times| Made { s: plus(honest.s, times), message: honest.message.clone(), ..honest };
    let made = [
        // 0 to 2: a small key and a small r; a small key; a small r.
        make((0, eighth), (0, EIGHT_TORSION[3]), None, None, as_is, true),
        make((0, eighth), (7, EIGHT_TORSION[3]), None, None, as_is, true),
        make((5, eighth), (0, EIGHT_TORSION[3]), None, None, as_is, true),
        // 3: both have a small part, and these cancel out. 4: they do not. 5: only the key has one.
        make((5, eighth), (7, EIGHT_TORSION[3]), None, None, as_is, true),
        make((5, eighth), (7, EIGHT_TORSION[3]), None, None, as_is, false),
        make((5, eighth), (7, none), None, None, as_is, false),
        // 6 and 7: an s above the order, and far above it.
        too_large(1),
        too_large(14),
        // 8 and 9: a small r in its other spelling, hashed as it would be spelt and as it is.
        make((5, quarter), (0, quarter), None, Some(QUARTER_OTHERWISE), (Some(QUARTER), None), true),
        make((5, quarter), (0, quarter), None, Some(QUARTER_OTHERWISE), as_is, true),
        // 10 and 11: the same with a small key.
        make((0, quarter), (7, quarter), Some(QUARTER_OTHERWISE), None, (None, Some(QUARTER)), true),
        make((0, quarter), (7, quarter), Some(QUARTER_OTHERWISE), None, as_is, true),
    ];
    let (mut strict, mut lax, mut weak) = (Vec::new(), Vec::new(), Vec::new());
    for (number, Made { key, r, s, message }) in made.iter().enumerate() {
        let signature = ed25519_dalek::Signature::from_components(*r, *s);
        if is_signed(key, message, &signature) {
            strict.push(number);
        }
        let known = ed25519_dalek::VerifyingKey::from_bytes(key).expect("a point");
        if known.verify(message, &signature).is_ok() {
            lax.push(number);
        }
        if Address::parse(&bs58::encode(key).into_string()).is_err() {
            weak.push(number);
        }
    }
    assert_eq!(strict, [3]);
    // That they are what they should be is seen where a verifier that is not strict falls for them.
    assert_eq!(lax, [0, 1, 2, 3, 11]);
    assert_eq!(weak, [0, 1, 10, 11], "a small key is no address at all");
    assert!(is_signed(&honest.key, &honest.message, &ed25519_dalek::Signature::from_components(honest.r, honest.s)));
}
