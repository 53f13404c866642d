//! Keeps sums, statistics and scores up to date, behind everything else and on the control API's own thread: roll-ups
//! every few seconds, scores soon after what changed them, and all of both when a day begins.

use std::{sync::Arc, time::Duration};

use actors::{
    refusal::{Code, Refusal},
    scores,
};
use storage::{
    StoreResult,
    model::{Profile, ProfileId, day_of},
};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::door::Door;

/// Profiles that are read at once.
const PAGE: usize = 256;
/// Scores that are put at once: they share commits.
const PUTS: usize = 64;
/// Roll-ups in a row, before others have their turn.
const ROUNDS_MAX: usize = 256;

impl Door {
    /// Folds what happened until now, so that what is read next is of this moment.
    ///
    /// # Errors
    /// `Overloaded` when too much happened; it is being folded. `StoreUnavailable`.
    pub(crate) async fn catch_up(&self) -> Result<(), Refusal> {
        if self.roll_up(ROUNDS_MAX).await? {
            return Err(Refusal::from(Code::Overloaded).retry_after(Duration::from_secs(1)));
        }
        Ok(())
    }

    /// Rolls up so often at most; `true`: more waits.
    async fn roll_up(&self, rounds: usize) -> StoreResult<bool> {
        for _ in 0..rounds {
            let found = self.store.roll_up().await?;
            self.catalogue.refresh_figures(&found.listings).await?;
            if !found.more {
                return Ok(false);
            }
            tokio::task::yield_now().await;
        }
        Ok(true)
    }

    /// Keeps everything up to date, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut roll_ups = interval(self.config.control.roll_up_every);
        let mut due = interval(self.config.control.scores_every);
        let mut day = day_of(self.clock.now());
        let mut was_kept = true;
        loop {
            let kept = tokio::select! {
                _ = roll_ups.tick() => self.roll_up(ROUNDS_MAX).await.map(|_| ()),
                _ = due.tick() => self.renew_due().await,
                () = self.actors.recompute_asked() => self.renew_all().await,
            };
            let today = day_of(self.clock.now());
            let kept = if kept.is_ok() && (today != day || !was_kept) {
                day = today;
                // After a fault as well: a roll-up may be done of which nobody here heard.
                self.renew_all().await
            } else {
                kept
            };
            was_kept = kept.is_ok();
            if let Err(error) = kept {
                tracing::warn!(%error, "statistics and scores are behind; they are tried again");
            }
        }
    }

    /// Makes the scores anew of which something changed.
    async fn renew_due(&self) -> StoreResult<()> {
        let mut after = None;
        loop {
            let due = self.store.score_due(after, PAGE).await?;
            let Some(last) = due.last() else { return Ok(()) };
            after = Some(*last);
            let mut profiles = Vec::with_capacity(due.len());
            for id in due {
                profiles.extend(self.store.profile_get(id).await?);
            }
            self.renew(profiles, true).await?;
        }
    }

    /// The nightly pass: time alone changes statistics and scores.
    async fn renew_all(&self) -> StoreResult<()> {
        self.catalogue.refresh_all_figures().await?;
        let mut after: Option<ProfileId> = None;
        loop {
            let profiles = self.store.profile_scan(after, PAGE).await?;
            let Some(last) = profiles.last() else { return Ok(()) };
            after = Some(last.id);
            self.renew(profiles, false).await?;
            tokio::task::yield_now().await;
        }
    }

    /// Makes these profiles' scores anew; when they are not due, only those that came out otherwise are written.
    async fn renew(&self, profiles: Vec<Profile>, is_due: bool) -> StoreResult<()> {
        let mut puts = JoinSet::new();
        for profile in profiles {
            let standing = self.store.standing_get(profile.id).await?;
            let score = scores::score(&profile, &standing, self.clock.now());
            let known = self.store.score_get(profile.id).await?;
            let is_known = match known {
                Some(known) => {
                    (known.score, known.components, known.sample) == (score.score, score.components, score.sample)
                }
                None => score.score == profile.score && score.is_verified == profile.is_verified,
            };
            if is_known && !is_due {
                continue;
            }
            if puts.len() >= PUTS {
                join_one(&mut puts).await?;
            }
            let store = self.store.clone();
            // Whether it is still due the store decides: more may have counted meanwhile.
            puts.spawn(async move { store.score_put(score, standing.version).await.map(|_| ()) });
        }
        while !puts.is_empty() {
            join_one(&mut puts).await?;
        }
        Ok(())
    }
}

async fn join_one(puts: &mut JoinSet<StoreResult<()>>) -> StoreResult<()> {
    match puts.join_next().await {
        Some(Ok(put)) => put,
        // A task that was ended with its process.
        Some(Err(_)) | None => Ok(()),
    }
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
