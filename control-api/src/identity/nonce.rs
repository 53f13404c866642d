//! A challenge's nonce: base62 text (EIP-4361 allows nothing else) of random bytes, the issue time, the difficulty,
//! and a MAC over them and over all that the challenge is good for. Issuing one stores nothing.

use std::time::Duration;

use actors::refusal::{Code, Refusal};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use storage::model::{ProfileId, UnixMillis};

use super::{address::Address, challenge::Purpose};

const RANDOM: usize = 15;
const TIME: usize = 6;
const MAC: usize = 16;
const BYTES: usize = RANDOM + TIME + 1 + MAC;
/// 62 to this power is just above 256 to the power of `BYTES`.
const DIGITS: usize = 52;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

type HmacSha256 = Hmac<Sha256>;

/// What a challenge is good for: one purpose, one wallet, one profile, and for links one other wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) purpose: Purpose,
    pub(crate) wallet: Address,
    pub(crate) profile: Option<ProfileId>,
    pub(crate) other: Option<Address>,
}

/// A nonce that was issued here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nonce {
    text: String,
    issued_at: UnixMillis,
    expires_at: UnixMillis,
    difficulty: u8,
}

impl Nonce {
    /// Issues one.
    ///
    /// # Errors
    /// `InternalError` when the system has no randomness.
    pub(crate) fn issue(
        seal: &Seal,
        subject: &Subject,
        difficulty: u8,
        ttl: Duration,
        now: UnixMillis,
    ) -> Result<Self, Refusal> {
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random).map_err(|_| Code::Internal)?;
        let [_, _, time @ ..] = now.0.to_be_bytes();
        let expires_at = now.plus(ttl);
        let mac = mac(seal, subject, &random, now, expires_at, difficulty);
        let mut bytes = [0; BYTES];
        let parts = random.into_iter().chain(time).chain([difficulty]).chain(mac);
        for (place, byte) in bytes.iter_mut().zip(parts) {
            *place = byte;
        }
        Ok(Self { text: encode(bytes), issued_at: now, expires_at, difficulty })
    }

    /// Takes a nonce apart and checks its MAC, then its time.
    ///
    /// # Errors
    /// `ChallengeInvalid` when it was not issued here for this subject, `ChallengeExpired`.
    pub(crate) fn check(
        seal: &Seal,
        subject: &Subject,
        ttl: Duration,
        text: &str,
        now: UnixMillis,
    ) -> Result<Self, Refusal> {
        let bytes = decode(text).ok_or(Code::ChallengeInvalid)?;
        let (random, rest) = bytes.split_first_chunk::<RANDOM>().ok_or(Code::ChallengeInvalid)?;
        let (time, rest) = rest.split_first_chunk::<TIME>().ok_or(Code::ChallengeInvalid)?;
        let (difficulty, given) = rest.split_first().ok_or(Code::ChallengeInvalid)?;
        let millis = time.iter().fold(0u64, |millis, byte| (millis << 8) | u64::from(*byte));
        let issued_at = UnixMillis(millis);
        let expires_at = issued_at.plus(ttl);
        let expected = mac(seal, subject, random, issued_at, expires_at, *difficulty);
        if !equal(&expected, given) {
            return Err(Code::ChallengeInvalid.into());
        }
        if now >= expires_at {
            return Err(Code::ChallengeExpired.into());
        }
        Ok(Self { text: text.to_string(), issued_at, expires_at, difficulty: *difficulty })
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn issued_at(&self) -> UnixMillis {
        self.issued_at
    }

    pub(crate) fn expires_at(&self) -> UnixMillis {
        self.expires_at
    }

    /// How many zeros the proof of work must show.
    pub(crate) fn difficulty(&self) -> u8 {
        self.difficulty
    }

    /// What is kept of it once it is used.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

/// The server's secret, ready to make MACs.
#[derive(Clone)]
pub(crate) struct Seal(HmacSha256);

impl Seal {
    /// `None` never, for a secret of 32 bytes.
    pub(crate) fn new(secret: &[u8; 32]) -> Option<Self> {
        HmacSha256::new_from_slice(secret).ok().map(Self)
    }

    /// HMAC-SHA256, its first half, over parts of which each begins with its length, so that none can run into the
    /// next.
    pub(crate) fn mac(&self, label: &str, parts: &[&[u8]]) -> [u8; MAC] {
        let mut mac = self.0.clone();
        for part in [label.as_bytes()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let whole: [u8; 2 * MAC] = mac.finalize().into_bytes().into();
        whole.first_chunk().copied().unwrap_or_default()
    }
}

fn mac(
    seal: &Seal,
    subject: &Subject,
    random: &[u8],
    issued_at: UnixMillis,
    expires_at: UnixMillis,
    difficulty: u8,
) -> [u8; MAC] {
    let profile = subject.profile.map(ProfileId::bytes);
    let parts: [&[u8]; 9] = [
        subject.purpose.name().as_bytes(),
        family_of(Some(&subject.wallet)),
        subject.wallet.bytes(),
        profile.as_ref().map_or(&[], |profile| profile.as_slice()),
        family_of(subject.other.as_ref()),
        subject.other.as_ref().map_or(&[], Address::bytes),
        random,
        &issued_at.0.to_be_bytes(),
        &expires_at.0.to_be_bytes(),
    ];
    let parts: Vec<&[u8]> = parts.into_iter().chain([std::slice::from_ref(&difficulty)]).collect();
    seal.mac("nonce 1", &parts)
}

fn family_of(address: Option<&Address>) -> &'static [u8] {
    match address {
        None => b"",
        Some(Address::Evm(_)) => b"evm",
        Some(Address::Solana(_)) => b"solana",
    }
}

/// Compares without telling by its time where two differ.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn encode(mut number: [u8; BYTES]) -> String {
    let mut digits = Vec::with_capacity(DIGITS);
    for _ in 0..DIGITS {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = (rest << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
            rest = value % 62;
        }
        digits.push(BASE62.get(rest as usize).copied().unwrap_or(b'0'));
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// The number of exactly `DIGITS` base62 digits; `None` past `BYTES` bytes. Each number has one text.
fn decode(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != DIGITS {
        return None;
    }
    let mut number = [0u8; BYTES];
    for digit in text.bytes() {
        let mut carry = u32::try_from(BASE62.iter().position(|known| *known == digit)?).ok()?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(300);
    const NOW: UnixMillis = UnixMillis(1_795_500_623_007);

    fn seal() -> Seal {
        Seal::new(&[1; 32]).expect("32 bytes")
    }

    fn subject() -> Subject {
        Subject { purpose: Purpose::Register, wallet: Address::Evm([1; 20]), profile: None, other: None }
    }

    fn check(subject: &Subject, text: &str, now: UnixMillis) -> Result<Nonce, Code> {
        Nonce::check(&seal(), subject, TTL, text, now).map_err(|refusal| refusal.code())
    }

    #[test]
    fn good_for_its_subject_until_its_end() {
        let nonce = Nonce::issue(&seal(), &subject(), 4, TTL, NOW).expect("randomness");
        assert_eq!(check(&subject(), nonce.text(), NOW), Ok(nonce.clone()));
        assert_eq!(check(&subject(), nonce.text(), NOW.plus(TTL - Duration::from_millis(1))), Ok(nonce.clone()));
        assert_eq!(check(&subject(), nonce.text(), NOW.plus(TTL)), Err(Code::ChallengeExpired));
        assert!(nonce.text().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn e8_good_for_nothing_else() {
        let linked = Subject {
            purpose: Purpose::LinkWallet,
            wallet: Address::Evm([1; 20]),
            profile: Some(ProfileId::mint(NOW)),
            other: Some(Address::Evm([2; 20])),
        };
        let nonce = Nonce::issue(&seal(), &linked, 4, TTL, NOW).expect("randomness");
        let others = [
            Subject { purpose: Purpose::UpdateWallet, ..linked.clone() },
            Subject { wallet: Address::Evm([3; 20]), ..linked.clone() },
            Subject { profile: None, ..linked.clone() },
            Subject { profile: Some(ProfileId::from_bytes([9; 16])), ..linked.clone() },
            Subject { other: None, ..linked.clone() },
            Subject { wallet: Address::Evm([2; 20]), other: Some(Address::Evm([1; 20])), ..linked.clone() },
        ];
        for other in others {
            assert_eq!(check(&other, nonce.text(), NOW), Err(Code::ChallengeInvalid), "{other:?}");
        }
        assert_eq!(check(&linked, nonce.text(), NOW), Ok(nonce.clone()));
        let elsewhere = Nonce::check(&Seal::new(&[2; 32]).expect("32 bytes"), &linked, TTL, nonce.text(), NOW);
        assert_eq!(elsewhere.err().map(|refusal| refusal.code()), Some(Code::ChallengeInvalid));
    }

    proptest! {
        #[test]
        fn numbers_round_trip(high in any::<[u8; 32]>(), low in any::<[u8; 6]>()) {
            let mut bytes = [0; BYTES];
            bytes[..32].copy_from_slice(&high);
            bytes[32..].copy_from_slice(&low);
            prop_assert_eq!(decode(&encode(bytes)), Some(bytes));
        }

        #[test]
        fn e5_any_changed_digit_is_refused(place in 0usize..DIGITS, digit in 0usize..62) {
            let nonce = Nonce::issue(&seal(), &subject(), 4, TTL, NOW).expect("randomness");
            let mut text = nonce.text().to_string().into_bytes();
            prop_assume!(text[place] != BASE62[digit]);
            text[place] = BASE62[digit];
            let text = String::from_utf8(text).expect("ASCII");
            prop_assert_eq!(check(&subject(), &text, NOW), Err(Code::ChallengeInvalid));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            prop_assert_eq!(check(&subject(), &text, NOW), Err(Code::ChallengeInvalid));
        }
    }
}
