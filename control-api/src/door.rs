//! What every handler may ask: one handle, made at the start.

use std::{sync::Arc, time::Duration};

use actors::{Actors, refusal::Refusal};
use config::{Config, Mode};
use storage::{
    Change, Store, StoreError, StoreResult,
    model::{Clock, UnixMillis},
};

use crate::{
    catalog::Catalogue,
    docs::Documents,
    identity::{Challenges, Passwords, Sessions},
};

/// The control API's own things and its neighbours'.
pub(crate) struct Door {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) actors: Actors,
    pub(crate) clock: Clock,
    /// The public URL without a slash at its end.
    pub(crate) site: String,
    pub(crate) challenges: Challenges,
    pub(crate) sessions: Sessions,
    pub(crate) passwords: Passwords,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) documents: Documents,
    pub(crate) started_at: UnixMillis,
}

impl Door {
    /// Reads what must be known before the first request: the server's secret and the catalogue.
    pub(crate) async fn open(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        actors: Actors,
        clock: Clock,
        site: String,
    ) -> StoreResult<Self> {
        let unusable = || StoreError::Corrupt("the server's secret cannot be used".into());
        let secret = store.server_secret("challenge").await?;
        let challenges = Challenges::new(&secret, &config.identity, &site).ok_or_else(unusable)?;
        let (secret, is_dev) = (store.server_secret("session").await?, config.mode == Mode::Dev);
        let sessions = Sessions::new(&secret, &config.identity, &site, is_dev).ok_or_else(unusable)?;
        let passwords = Passwords::new(&config.identity);
        let passwords = passwords.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let matches_max = config.control.search_matches_max;
        let catalogue = Catalogue::load(store.clone(), clock.clone(), matches_max).await?;
        let started_at = clock.now();
        let mode = if is_dev { "dev" } else { "production" };
        let documents = Documents::open(&site, mode, &config.control.terms_file).map_err(|error| {
            StoreError::Unavailable(format!("control.terms_file {}: {error}", config.control.terms_file.display()))
        })?;
        Ok(Self {
            config,
            store,
            actors,
            clock,
            site,
            challenges,
            sessions,
            passwords,
            catalogue,
            documents,
            started_at,
        })
    }

    /// Whether http, loopback sellers and the sandbox are permitted.
    pub(crate) fn is_dev(&self) -> bool {
        self.config.mode == Mode::Dev
    }

    /// Tells this node at once what a write changed; other nodes hear it from the feed.
    pub(crate) async fn changed(&self, change: Change) -> Result<(), Refusal> {
        self.actors.changed(change).await;
        self.catalogue.refresh(change).await?;
        Ok(())
    }

    /// Follows what other nodes change, for ever.
    pub(crate) async fn follow_changes(self: Arc<Self>) {
        let mut pause = tokio::time::interval(Duration::from_millis(500));
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            if let Err(error) = self.catalogue.follow().await {
                tracing::warn!(%error, "the catalogue could not follow the change feed");
            }
        }
    }
}
