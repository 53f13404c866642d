//! Who calls: challenges, signatures, proof of work, registration and recovery, wallets, keys; humans, their sessions
//! and the agents they claim.

pub(crate) mod address;
pub(crate) mod api_keys;
pub(crate) mod challenge;
pub(crate) mod claim;
pub(crate) mod humans;
pub(crate) mod me;
pub(crate) mod nonce;
pub(crate) mod password;
pub(crate) mod pow;
mod proof;
pub(crate) mod recover;
pub(crate) mod register;
pub(crate) mod sessions;
pub(crate) mod signature;
pub(crate) mod wallets;

pub(crate) use challenge::Challenges;
pub(crate) use password::Passwords;
pub(crate) use sessions::Sessions;
