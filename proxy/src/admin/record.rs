//! The operators' record: one line of JSON an event in the data directory, synced before anything is done.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::json;
use storage::model::UnixMillis;

use super::order::Errand;

/// A record that has grown past this is put aside as `admin.log.1`, in the place of the one before.
const BYTES_MAX: u64 = 16 << 20;

pub(super) struct Record {
    path: PathBuf,
}

impl Record {
    /// The one in this directory.
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.join("admin.log") }
    }

    /// Notes what happens to an order.
    ///
    /// # Errors
    /// When it is not on disk.
    pub(super) fn note(&self, at: UnixMillis, event: &str, errand: &Errand, fault: Option<&str>) -> io::Result<()> {
        if fs::metadata(&self.path).is_ok_and(|found| found.len() > BYTES_MAX) {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        let Errand { who, why, order } = errand;
        let line =
            json!({"at": at.to_string(), "event": event, "who": who, "why": why, "order": order, "fault": fault});
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        file.sync_data()
    }
}
