//! Who calls: challenges, signatures, proof of work, registration, keys.

pub(crate) mod address;
pub(crate) mod api_keys;
pub(crate) mod challenge;
pub(crate) mod me;
mod nonce;
pub(crate) mod pow;
pub(crate) mod register;
mod signature;

pub(crate) use challenge::Challenges;
