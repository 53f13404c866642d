//! What Crochet Gateway keeps, and where it is kept.
//!
//! `model` holds the nouns: pure values and the pure transitions of a payment. `store` holds the traits that a
//! backend promises. [`open`] is the only place that names a backend.
//!
//! *Never:* decides who may do what, speaks a protocol, or names a framework.

pub mod embedded;
pub mod error;
#[doc(hidden)]
pub mod faulty;
pub mod model;
pub mod sealed;
pub mod store;

use std::{path::Path, sync::Arc};

pub use embedded::Embedded;
pub use error::{StoreError, StoreResult};
pub use store::{Store, *};

/// Whether the store has one owner at a time and another process is it; work on it then goes through that process.
///
/// # Errors
/// `Unavailable` when it cannot be told.
pub fn is_owned_elsewhere(config: &config::Storage) -> StoreResult<bool> {
    match config.backend {
        config::Backend::Embedded => Embedded::is_taken(&config.path),
    }
}

/// Makes a store in the folder that the configuration names from a copy that [`Store::backup`] made.
///
/// # Errors
/// `Corrupt` when the copy is damaged, cut short or newer than this program; `Unavailable` when the folder holds
/// something or cannot be written.
pub fn restore(from: &Path, config: &config::Storage) -> StoreResult<BackupReport> {
    match config.backend {
        config::Backend::Embedded => Embedded::restore(from, &config.path, config),
    }
}

/// Opens the store that the configuration names. Metrics go to the recorder that is installed by then.
///
/// # Errors
/// `Unavailable` when it cannot be reached or another process has it; `Corrupt` when it is damaged, newer than this
/// program, or went back. The text says what to do.
pub fn open(config: &config::Storage, clock: model::Clock) -> StoreResult<Arc<dyn Store>> {
    match config.backend {
        config::Backend::Embedded => Ok(Arc::new(Embedded::open(config, clock)?)),
    }
}
