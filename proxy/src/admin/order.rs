//! What can be ordered, and how it is done: the same on a stopped store and in the process that owns a running one.

mod transfers;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use actors::Actors;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use storage::{
    BackupReport, BooksPage, Change, Changed, Store, StoreError, StoreResult,
    model::{Clock, Listing, ListingId, ListingStatus, ProfileId, SuspendedBy},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::record::Record;
pub use transfers::{Transfer, TransferKind, TransferStep};

/// Attempts to write a listing that somebody else writes at the same time.
const ATTEMPTS: usize = 16;

/// A kind of thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A profile.
    Profile,
    /// A listing.
    Listing,
}

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// One step of sealing everything with the current master key, from this row on.
    Reseal {
        /// The row that the step before ended with, in hexadecimal digits.
        after: Option<String>,
    },
    /// Closes a profile, takes a listing off sale.
    Suspend(Subject),
    /// The reverse.
    Resume(Subject),
    /// Copies the store into a new folder; asked again, how far it is.
    Backup {
        /// The folder, from the root on.
        into: PathBuf,
        /// It was ordered before, and this is the question how far it is.
        is_begun: bool,
    },
    /// Tells every record, in lines: see [`Desk::export`].
    Export,
    /// One part of the proof of the books.
    Books {
        /// Where the part before said that this one begins.
        after: Option<Vec<u8>>,
    },
    /// A step of a transfer out.
    Transfer {
        /// Which way.
        kind: TransferKind,
        /// The payment of a refund, the seller of a payout.
        of: String,
        /// Which step.
        step: TransferStep,
    },
    /// Sellers to whom something is due.
    Payable {
        /// Behind this one.
        after: Option<String>,
    },
}

/// An order, by whom and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Errand {
    /// Who orders it.
    pub who: String,
    /// Why.
    pub why: String,
    /// What.
    pub order: Order,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// A step of resealing.
    Resealed {
        /// Rows looked at.
        rows: u64,
        /// Rows sealed anew.
        resealed: u64,
        /// All rows; told by the first step.
        total: Option<u64>,
        /// Where the next step goes on; `None`: there is none.
        next: Option<String>,
    },
    /// A copy is being made: ask again.
    BackingUp,
    /// It is made.
    BackedUp {
        /// Keys with their values.
        entries: u64,
        /// Files of larger results.
        files: u64,
        /// All of it, bytes.
        bytes: u64,
    },
    /// Something changed, or was so already.
    Changed {
        /// How it stands now, in a sentence.
        now: String,
    },
    /// A part of the proof.
    Books(Box<BooksPage>),
    /// The transfer that is open now, if there is one.
    Transfer(Option<Transfer>),
    /// Sellers to whom something is due.
    Payable {
        /// Their ids.
        sellers: Vec<String>,
        /// Where to go on; `None`: nowhere.
        next: Option<String>,
    },
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The order makes no sense.
    #[error("{0}")]
    Bad(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Somebody else changes it all the time.
    #[error("it is being changed by others all the time; try again")]
    Busy,
    /// It could not be written down who did it and why, so it was not done.
    #[error("the operators' record cannot be written, so nothing was done: {0}")]
    Record(#[from] std::io::Error),
    /// The store did not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Order {
    /// A step in the middle of something is no action of its own, and a look changes nothing.
    fn is_unrecorded(&self) -> bool {
        matches!(self, Self::Reseal { after: Some(_) } | Self::Backup { is_begun: true, .. })
            || matches!(self, Self::Books { .. } | Self::Payable { .. })
    }
}

/// Where orders are carried out.
pub struct Desk {
    store: Arc<dyn Store>,
    /// The caches of a running process, which are told at once.
    actors: Option<Actors>,
    clock: Clock,
    record: Record,
    /// The copy that is being made, or was made last and not asked about since.
    backup: Mutex<Option<(PathBuf, Copying)>>,
}

type Copying = JoinHandle<StoreResult<BackupReport>>;

impl Desk {
    /// At this store; `path` is its directory, in which the record is kept.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, actors: Option<Actors>, clock: Clock, path: &Path) -> Self {
        Self { store, actors, clock, record: Record::new(path), backup: Mutex::default() }
    }

    /// Closes the store.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }

    /// Carries out an order. Who, why and what is on disk before it is done.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn perform(&self, errand: &Errand) -> Result<Done, Failed> {
        if errand.order.is_unrecorded() {
            return self.carry_out(&errand.order).await;
        }
        self.recorded(errand, self.carry_out(&errand.order)).await
    }

    /// Tells every record into `out`, in lines of JSON. Who, why and what is on disk before it is done.
    ///
    /// # Errors
    /// [`Failed`]: what was told is not the whole.
    pub async fn export(&self, errand: &Errand, out: mpsc::Sender<Bytes>) -> Result<(), Failed> {
        let told = async { self.store.export(out).await.map(drop).map_err(Failed::from) };
        self.recorded(errand, told).await
    }

    /// Does it between two lines of the record.
    async fn recorded<T>(&self, errand: &Errand, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        let Errand { who, why, order } = errand;
        tracing::info!(target: "admin", who, why, ?order, "ordered");
        self.record.note(self.clock.now(), "ordered", errand, None)?;
        let done = work.await;
        let (event, fault) = match &done {
            Ok(_) => ("done", None),
            Err(failed) => ("failed", Some(failed.to_string())),
        };
        tracing::info!(target: "admin", who, why, ?order, fault, "{event}");
        if let Err(error) = self.record.note(self.clock.now(), event, errand, fault.as_deref()) {
            tracing::error!(%error, "how an order ended could not be recorded");
        }
        done
    }

    async fn carry_out(&self, order: &Order) -> Result<Done, Failed> {
        match order {
            Order::Reseal { after } => self.reseal(after.as_deref()).await,
            Order::Suspend(subject) => self.set(subject, true).await,
            Order::Resume(subject) => self.set(subject, false).await,
            Order::Backup { into, is_begun: false } => self.backup(into),
            Order::Backup { into, is_begun: true } => self.backed_up(into).await,
            Order::Export => Err(Failed::Bad("an export comes in pieces, and this asks for one answer".into())),
            Order::Books { after } => Ok(Done::Books(Box::new(self.store.books_page(after.clone()).await?))),
            Order::Transfer { kind, of, step } => self.transfer(*kind, of, step).await,
            Order::Payable { after } => self.payable(after.as_deref()).await,
        }
    }

    /// Begins a copy, one at a time.
    fn backup(&self, into: &Path) -> Result<Done, Failed> {
        if !into.is_absolute() {
            return Err(Failed::Bad("the folder of a backup is told from the root on".into()));
        }
        let mut backup = self.backup.lock();
        if let Some((other, _)) = backup.as_ref().filter(|(_, copying)| !copying.is_finished()) {
            return Err(Failed::Bad(format!("a backup is being made into {}", other.display())));
        }
        let (store, folder) = (Arc::clone(&self.store), into.to_path_buf());
        *backup = Some((into.to_path_buf(), tokio::spawn(async move { store.backup(&folder).await })));
        Ok(Done::BackingUp)
    }

    async fn backed_up(&self, into: &Path) -> Result<Done, Failed> {
        let copying = {
            let mut backup = self.backup.lock();
            match backup.as_ref() {
                Some((folder, copying)) if folder == into && !copying.is_finished() => return Ok(Done::BackingUp),
                Some((folder, _)) if folder == into => backup.take(),
                _ => None,
            }
        };
        let (_, copying) = copying.ok_or_else(|| Failed::NotFound("no such backup is being made".into()))?;
        let report = copying.await.map_err(|_| Failed::Bad("the backup was broken off".into()))??;
        Ok(Done::BackedUp { entries: report.entries, files: report.files, bytes: report.bytes })
    }

    async fn reseal(&self, after: Option<&str>) -> Result<Done, Failed> {
        let cursor = after.map(hex::decode).transpose().map_err(|_| Failed::Bad("after is not hexadecimal".into()))?;
        let total = if after.is_none() { Some(self.store.secret_count().await?) } else { None };
        let step = self.store.secret_reseal(cursor).await?;
        Ok(Done::Resealed { rows: step.rows, resealed: step.resealed, total, next: step.next.map(hex::encode) })
    }

    async fn set(&self, subject: &Subject, is_suspended: bool) -> Result<Done, Failed> {
        let id = &subject.id;
        let (change, now) = match subject.kind {
            Kind::Profile => self.set_profile(parsed(id)?, is_suspended).await?,
            Kind::Listing => self.set_listing(parsed(id)?, is_suspended).await?,
        };
        if let Some(actors) = &self.actors {
            actors.changed(change).await;
        }
        Ok(Done::Changed { now })
    }

    async fn set_profile(&self, id: ProfileId, is_suspended: bool) -> Result<(Change, String), Failed> {
        match self.store.profile_suspend(id, is_suspended).await? {
            Changed::Done if is_suspended => Ok((Change::Profile(id), format!("profile {id} is suspended"))),
            Changed::Done => Ok((Change::Profile(id), format!("profile {id} is open"))),
            Changed::NotFound => Err(Failed::NotFound(format!("there is no profile {id}"))),
            Changed::Stale => Err(Failed::Busy),
        }
    }

    /// Written onto the version that was read; whoever else writes it meanwhile is not overwritten.
    async fn set_listing(&self, id: ListingId, is_suspended: bool) -> Result<(Change, String), Failed> {
        for _ in 0..ATTEMPTS {
            let offer = self.store.listing_get(id).await?;
            let mut listing = offer.ok_or_else(|| Failed::NotFound(format!("there is no listing {id}")))?.listing;
            if is_suspended {
                suspend(&mut listing)
            } else {
                resume(&mut listing)?
            };
            listing.updated_at = self.clock.now();
            let now = match listing.status {
                ListingStatus::Active => format!("listing {id} is on sale"),
                ListingStatus::Draft => format!("listing {id} is a draft"),
                ListingStatus::Suspended if is_suspended => format!("listing {id} is suspended"),
                ListingStatus::Suspended => format!("listing {id} is its owner's again, who had taken it off sale"),
            };
            match self.store.listing_update(listing, None).await? {
                Changed::Done => return Ok((Change::Listing(id), now)),
                Changed::NotFound => return Err(Failed::NotFound(format!("there is no listing {id}"))),
                Changed::Stale => {}
            }
        }
        Err(Failed::Busy)
    }
}

fn parsed<T: std::str::FromStr>(id: &str) -> Result<T, Failed> {
    id.parse().map_err(|_| {
        Failed::Bad("the id is not one of ours: copy it from the listing, the profile or the payment".into())
    })
}

fn suspend(listing: &mut Listing) {
    let was_owners = matches!(listing.suspended_by, Some(SuspendedBy::Owner | SuspendedBy::OperatorAfterOwner));
    listing.status = ListingStatus::Suspended;
    listing.suspended_by = Some(if was_owners { SuspendedBy::OperatorAfterOwner } else { SuspendedBy::Operator });
}

/// What an operator suspended is as it was before: a draft that never was offered stays one, and what its owner took
/// off sale is the owner's to bring back.
fn resume(listing: &mut Listing) -> Result<(), Failed> {
    match listing.suspended_by {
        Some(SuspendedBy::Operator) => {
            listing.status = if listing.was_active { ListingStatus::Active } else { ListingStatus::Draft };
            listing.suspended_by = None;
        }
        Some(SuspendedBy::OperatorAfterOwner) => listing.suspended_by = Some(SuspendedBy::Owner),
        Some(SuspendedBy::Owner) => {
            return Err(Failed::Bad("its owner took it off sale, and only the owner brings it back".into()));
        }
        None => {}
    }
    Ok(())
}
