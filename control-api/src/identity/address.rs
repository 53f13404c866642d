//! Wallet addresses: the family is known by the form alone, and what is compared is bytes.

use k256::ecdsa::VerifyingKey;
use sha3::{Digest, Keccak256};
use storage::model::ChainFamily;

/// A wallet's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// 20 bytes.
    Evm([u8; 20]),
    /// 32 bytes: the public key itself.
    Solana([u8; 32]),
}

impl Address {
    /// Reads an address: `0x` and 40 hexadecimal digits, or the base58 of 32 bytes.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("0x") {
            Some(digits) => parse_evm(digits).map(Self::Evm),
            None => parse_solana(text).map(Self::Solana),
        }
    }

    /// The address with these bytes; `None` when a record is damaged.
    pub(crate) fn stored(family: ChainFamily, bytes: &[u8]) -> Option<Self> {
        match family {
            ChainFamily::Evm => bytes.try_into().ok().map(Self::Evm),
            ChainFamily::Solana => bytes.try_into().ok().map(Self::Solana),
        }
    }

    pub(crate) fn family(&self) -> ChainFamily {
        match self {
            Self::Evm(_) => ChainFamily::Evm,
            Self::Solana(_) => ChainFamily::Solana,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Evm(bytes) => bytes,
            Self::Solana(bytes) => bytes,
        }
    }

    /// As it is shown: EIP-55, or base58.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Evm(bytes) => checksummed(bytes),
            Self::Solana(bytes) => bs58::encode(bytes).into_string(),
        }
    }

    /// A short form for people: its two ends.
    pub(crate) fn abbreviated(&self) -> String {
        let shown = self.shown();
        let head: String = shown.chars().take(6).collect();
        let tail: String = shown.chars().skip(shown.chars().count().saturating_sub(4)).collect();
        format!("{head}…{tail}")
    }
}

/// The address that a public key stands for.
pub(crate) fn evm_address_of(key: &VerifyingKey) -> Option<[u8; 20]> {
    let point = key.to_sec1_point(false);
    let hash = Keccak256::digest(point.as_bytes().get(1..)?);
    hash.get(12..)?.try_into().ok()
}

fn parse_evm(digits: &str) -> Result<[u8; 20], String> {
    let mut bytes = [0; 20];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| "must be 0x and 40 hexadecimal digits".to_string())?;
    let is_mixed = digits.bytes().any(|b| b.is_ascii_lowercase()) && digits.bytes().any(|b| b.is_ascii_uppercase());
    if is_mixed && checksummed(&bytes).strip_prefix("0x") != Some(digits) {
        return Err("has a wrong checksum (EIP-55); write it as your wallet shows it, or all in lower case".into());
    }
    Ok(bytes)
}

/// EIP-55: a letter is upper case where the hash of the lower-case digits has a digit from 8 on.
fn checksummed(bytes: &[u8; 20]) -> String {
    let lower = hex::encode(bytes);
    let hash = hex::encode(Keccak256::digest(lower.as_bytes()));
    let digits = lower.chars().zip(hash.chars()).map(|(digit, weight)| match weight {
        '8'..='9' | 'a'..='f' => digit.to_ascii_uppercase(),
        _ => digit,
    });
    format!("0x{}", digits.collect::<String>())
}

fn parse_solana(text: &str) -> Result<[u8; 32], String> {
    let form = || "must be an EVM address (0x and 40 hexadecimal digits) or a Solana address (base58)".to_string();
    if !(32..=44).contains(&text.len()) {
        return Err(form());
    }
    let bytes: [u8; 32] =
        bs58::decode(text).into_vec().ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(form)?;
    if bs58::encode(bytes).into_string() != text {
        return Err(form());
    }
    // A weak key has signatures that anybody can make; the address of 32 ones is the system's own.
    let key = ed25519_dalek::VerifyingKey::from_bytes(&bytes);
    if bytes == [0; 32] || !key.is_ok_and(|key| !key.is_weak()) {
        return Err("is not the address of a wallet that can sign".into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn eip_55_as_its_examples_say() {
        for text in [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
            "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
        ] {
            let address = Address::parse(text).expect("good");
            assert_eq!(address.shown(), text);
            assert_eq!(Address::parse(&text.to_lowercase()), Ok(address.clone()));
            assert_eq!(Address::parse(&format!("0x{}", text[2..].to_uppercase())), Ok(address));
            let wrong: String = text.chars().rev().take(1).collect();
            let flipped =
                if wrong.chars().all(char::is_uppercase) { wrong.to_lowercase() } else { wrong.to_uppercase() };
            if flipped != wrong {
                let text = format!("{}{flipped}", &text[..41]);
                assert!(Address::parse(&text).expect_err("wrong").contains("checksum"), "{text}");
            }
        }
    }

    #[test]
    fn odd_forms_are_no_addresses() {
        for text in [
            "",
            "0x",
            "0X5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beae",
            "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed0",
            " 0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed",
            "11111111111111111111111111111111",
            "0OIl1111111111111111111111111111",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_solana_address_round_trips() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        let text = bs58::encode(key.as_bytes()).into_string();
        let address = Address::parse(&text).expect("good");
        assert_eq!((address.family(), address.shown()), (ChainFamily::Solana, text));
        assert_eq!(Address::stored(ChainFamily::Solana, key.as_bytes()), Some(address));
        // The identity point: its order is 1.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert!(Address::parse(&bs58::encode(weak).into_string()).is_err());
    }

    proptest! {
        #[test]
        fn any_twenty_bytes_round_trip(bytes in any::<[u8; 20]>()) {
            let shown = Address::Evm(bytes).shown();
            prop_assert_eq!(Address::parse(&shown), Ok(Address::Evm(bytes)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,60}") {
            let _ = Address::parse(&text);
        }
    }
}
