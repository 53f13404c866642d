//! What Crochet Gateway keeps, and where it is kept.
//!
//! `model` holds the nouns: pure values and the pure transitions of a payment. `store` holds the traits that a
//! backend promises. [`open`] is the only place that names a backend.
//!
//! *Never:* decides who may do what, speaks a protocol, or names a framework.

pub mod error;
pub mod model;
pub mod store;

pub use error::{StoreError, StoreResult};
pub use store::{Store, *};
