//! Proof of work: the lower-case hexadecimal SHA-256 of challenge and nonce begins with so many zeros.

use actors::refusal::{Code, Refusal};
use serde::Serialize;
use sha2::{Digest, Sha256};
use storage::model::UnixMillis;

use super::nonce::Seal;

const VERSION: &str = "1";

/// What is to be solved: `version.purpose.subject.difficulty.expires.random.mac`, and how many zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Work {
    pub(crate) algorithm: &'static str,
    pub(crate) challenge: String,
    pub(crate) difficulty: u8,
}

/// What the slots of a challenge say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots<'a> {
    pub(crate) purpose: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) difficulty: u8,
    pub(crate) expires_at: UnixMillis,
    pub(crate) random: &'a str,
}

impl Work {
    /// The challenge with these slots; the same for the same slots.
    ///
    /// # Errors
    /// `InternalError` when a slot holds a dot and could run into the next.
    pub(crate) fn new(seal: &Seal, slots: Slots<'_>) -> Result<Self, Refusal> {
        let (difficulty, expires) = (slots.difficulty.to_string(), slots.expires_at.seconds().to_string());
        let texts = [VERSION, slots.purpose, slots.subject, &difficulty, &expires, slots.random];
        if texts.iter().any(|slot| slot.is_empty() || slot.contains('.')) {
            return Err(Code::Internal.into());
        }
        let parts: Vec<&[u8]> = texts.iter().map(|slot| slot.as_bytes()).collect();
        let mac = hex::encode(seal.mac("work 1", &parts));
        let challenge = format!("{}.{mac}", texts.join("."));
        Ok(Self { algorithm: "sha256", challenge, difficulty: slots.difficulty })
    }

    /// Whether the nonce solves it.
    ///
    /// # Errors
    /// `PowInvalid`.
    pub(crate) fn check(&self, pow_nonce: &str) -> Result<(), Refusal> {
        check(&self.challenge, self.difficulty, pow_nonce)
    }
}

/// Whether the nonce solves the challenge.
///
/// # Errors
/// `PowInvalid`.
pub(crate) fn check(challenge: &str, difficulty: u8, pow_nonce: &str) -> Result<(), Refusal> {
    let hash = Sha256::new().chain_update(challenge).chain_update(pow_nonce).finalize();
    let zeros: u32 = match hash.iter().position(|byte| *byte != 0) {
        None => 64,
        Some(place) => {
            let first = hash.get(place).map_or(0, |byte| byte.leading_zeros() / 4);
            u32::try_from(place).unwrap_or(0) * 2 + first
        }
    };
    if zeros >= u32::from(difficulty) {
        return Ok(());
    }
    Err(Refusal::from(Code::PowInvalid).detail("difficulty", difficulty).detail("leading_zeros", zeros))
}

/// Reads a `pow_nonce`: 1 to 64 printable ASCII characters.
///
/// # Errors
/// Why it is none.
pub(crate) fn read_nonce(text: &str) -> Result<String, String> {
    let is_good = (1..=64).contains(&text.len()) && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    if is_good { Ok(text.to_string()) } else { Err("must be 1 to 64 printable ASCII characters".into()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn work(subject: &str) -> Result<Work, Refusal> {
        let slots = Slots {
            purpose: "register",
            subject,
            difficulty: 3,
            expires_at: UnixMillis(1_795_500_623_007),
            random: "abc",
        };
        Work::new(&Seal::new(&[1; 32]).expect("32 bytes"), slots)
    }

    #[test]
    fn slots_stand_in_order_and_hold_no_dot() {
        let work_of = work("0xabc").expect("good");
        assert!(work_of.challenge.starts_with("1.register.0xabc.3.1795500623.abc."));
        assert_eq!(work_of.challenge.split('.').count(), 7);
        assert_ne!(work("0xabd").expect("good").challenge, work_of.challenge);
        assert_eq!(work("0x.abc").expect_err("dot").code(), Code::Internal);
    }

    #[test]
    fn a_solution_is_one_and_the_next_number_is_none() {
        let work = work("0xabc").expect("good");
        let number = (0u32..).find(|number| work.check(&number.to_string()).is_ok()).expect("some");
        let hash = hex::encode(Sha256::digest(format!("{}{number}", work.challenge)));
        assert!(hash.starts_with("000"), "{hash}");
        assert!(work.check("not this one").is_err());
    }

    #[test]
    fn nonces_are_printable() {
        assert_eq!(read_nonce("1 ~"), Ok("1 ~".into()));
        for text in ["", "a\n", "ä", &"1".repeat(65)] {
            assert!(read_nonce(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn as_the_hexadecimal_text_says(text in "[ -~]{1,64}", difficulty in 0u8..4) {
            let hash = hex::encode(Sha256::digest(format!("x{text}")));
            let expected = hash.bytes().take_while(|digit| *digit == b'0').count() >= usize::from(difficulty);
            prop_assert_eq!(check("x", difficulty, &text).is_ok(), expected);
        }
    }
}
