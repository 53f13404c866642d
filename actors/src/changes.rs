//! Follows what other parts and other nodes changed, so that no cached key or listing is believed for long.

use std::time::Duration;

use storage::Change;

use crate::Actors;

/// How often the feed is read.
const PERIOD: Duration = Duration::from_millis(500);

/// Reads the feed until the process ends.
pub(crate) async fn follow(actors: Actors) {
    let mut cursor = 0;
    loop {
        tokio::time::sleep(PERIOD).await;
        let changes = match actors.store().changes_since(cursor).await {
            Ok(changes) => changes,
            Err(error) => {
                tracing::warn!(%error, "change feed cannot be read");
                continue;
            }
        };
        cursor = changes.next;
        if changes.gap {
            actors.forget_all();
        }
        for change in changes.items {
            actors.changed(change).await;
        }
    }
}

impl Actors {
    /// Tells this node's caches at once that something changed.
    pub async fn changed(&self, change: Change) {
        match change {
            Change::ApiKey(sha256) => self.keys().forget(&sha256),
            Change::Profile(profile) => self.keys().forget_profile(profile),
            Change::Listing(id) => self.directory().changed(id).await,
        }
    }
}
