//! Values: one byte that names their format, then postcard. What does not read back is `Corrupt`, never a panic.

use fjall::Slice;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{StoreError, StoreResult};

/// The format that values are written in. A later one keeps reading the earlier ones, or the store is migrated.
const FORMAT: u8 = 1;
/// The format of values that hold sealed ones.
const SEALED_FORMAT: u8 = 2;

/// The bytes of a value.
///
/// # Errors
/// `Corrupt` when the value cannot be written down, which no value of the model does.
pub(crate) fn encode<T: Serialize>(value: &T) -> StoreResult<Slice> {
    encode_as(FORMAT, value)
}

/// The bytes of a value that holds sealed ones.
///
/// # Errors
/// As [`encode`].
pub(crate) fn encode_sealed<T: Serialize>(value: &T) -> StoreResult<Slice> {
    encode_as(SEALED_FORMAT, value)
}

fn encode_as<T: Serialize>(format: u8, value: &T) -> StoreResult<Slice> {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(format);
    postcard::to_extend(value, bytes)
        .map(Slice::from)
        .map_err(|error| StoreError::Corrupt(format!("a value that cannot be written: {error}")))
}

/// The value in these bytes, all of them; `what` names it in the error.
///
/// # Errors
/// `Corrupt` when they are not such a value.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> StoreResult<T> {
    decode_as(FORMAT, what, bytes)
}

/// The value with sealed ones in these bytes.
///
/// # Errors
/// As [`decode`].
pub(crate) fn decode_sealed<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> StoreResult<T> {
    decode_as(SEALED_FORMAT, what, bytes)
}

/// Whether these bytes are of a value that holds sealed ones.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&SEALED_FORMAT)
}

fn decode_as<T: DeserializeOwned>(wanted: u8, what: &str, bytes: &[u8]) -> StoreResult<T> {
    let corrupt = |why: String| StoreError::Corrupt(format!("{what}: {why}"));
    match bytes.split_first() {
        Some((format, rest)) if *format == wanted => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(corrupt(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(corrupt(error.to_string())),
        },
        Some((format, _)) => Err(corrupt(format!("value format {format} is not known"))),
        None => Err(corrupt("empty value".to_string())),
    }
}

/// The 16 bytes of an id kept as a value.
///
/// # Errors
/// `Corrupt` when there are not 16.
pub(crate) fn decode_id(what: &str, bytes: &[u8]) -> StoreResult<[u8; 16]> {
    bytes.try_into().map_err(|_| StoreError::Corrupt(format!("{what}: {} bytes are no id", bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_and_never_panics() {
        let bytes = encode(&(7u32, "text".to_string())).expect("written");
        assert_eq!(decode::<(u32, String)>("pair", &bytes), Ok((7, "text".to_string())));
        for end in 0..bytes.len() {
            assert!(matches!(decode::<(u32, String)>("pair", &bytes[..end]), Err(StoreError::Corrupt(_))), "{end}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(decode::<(u32, String)>("pair", &longer).is_err());
        longer[0] = 9;
        assert!(decode::<(u32, String)>("pair", &longer).expect_err("format").to_string().contains("format 9"));
    }
}
