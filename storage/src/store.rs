//! The store: narrow traits, one each noun. A method is named noun_verb; its comment states the promise and the wrong
//! design that it rules out. Outcomes are values: losing a race is not an error.

mod catalog;
mod history;
mod identity;
mod money;
mod payment;
mod payout;
mod sandbox;
mod secrets;
mod trust;
mod work;

pub use catalog::*;
pub use history::*;
pub use identity::*;
pub use money::*;
pub use payment::*;
pub use payout::*;
pub use sandbox::*;
pub use secrets::*;
pub use trust::*;
pub use work::*;

use std::{collections::BTreeMap, path::Path};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    error::{StoreError, StoreResult},
    model::Owner,
};

/// Everything that is kept, behind one handle.
#[async_trait]
pub trait Store:
    IdentityStore
    + CatalogStore
    + PaymentStore
    + MoneyStore
    + PayoutStore
    + WorkStore
    + HistoryStore
    + TrustStore
    + SandboxStore
    + SecretStore
{
    /// The backend's name, for metrics and health.
    fn backend(&self) -> &'static str;

    /// This process's node and which of its lives this is: every claim taken here carries it.
    fn owner(&self) -> Owner;

    /// Whether a step written now would be durable; what health tells.
    ///
    /// # Errors
    /// Why it would not.
    fn check(&self) -> StoreResult<()>;

    /// Copies the store into a new folder `into`, while it serves.
    ///
    /// # Errors
    /// `Unavailable` when the folder exists or cannot be written, or when this backend is copied by its own tools.
    async fn backup(&self, into: &Path) -> StoreResult<BackupReport>;

    /// Tells every record of one moment in lines of JSON, piece by piece into `out`, while it serves. What is sealed
    /// stays so.
    ///
    /// # Errors
    /// `Unavailable` when `out` is closed, or when this backend is exported by its own tools.
    async fn export(&self, _out: mpsc::Sender<Bytes>) -> StoreResult<ExportReport> {
        Err(StoreError::Unavailable("this backend is exported by its own tools".into()))
    }

    /// Finishes what was begun, syncs and closes. Every later call is `Unavailable`.
    ///
    /// # Errors
    /// `Unknown` when the last steps could not be confirmed.
    async fn close(&self) -> StoreResult<()>;
}

/// What a backup or a restore came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// Keys with their values.
    pub entries: u64,
    /// The last commit that is in it.
    pub sequence: u64,
    /// Files of larger results.
    pub files: u64,
    /// Bytes written or read.
    pub bytes: u64,
}

/// What an export came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Keys with their values.
    pub entries: u64,
    /// Files of larger results.
    pub files: u64,
    /// Lines, by the kind of their records.
    pub records: BTreeMap<&'static str, u64>,
}
