//! Ends the gateway at moments that chance decides, starts it again, and takes the time until it serves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    keeper::Keeper,
    progress::Progress,
    run::{Outage, Run, micros},
    scenario::{EndBy, Outages, STUMBLE_MS},
    seed::Seed,
};

/// How long the first 200 after a start may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the load may take to catch up, and how often it is looked at.
const CATCH_UP: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Makes all outages, then ends the run.
///
/// # Errors
/// When the gateway cannot be ended, does not start again, or serves nobody afterwards.
pub async fn make(run: &Arc<Run>, keeper: &Keeper, outages: Outages, progress: &Progress) -> anyhow::Result<()> {
    let made = make_all(run, keeper, outages, progress).await;
    run.end();
    made
}

async fn make_all(run: &Run, keeper: &Keeper, outages: Outages, progress: &Progress) -> anyhow::Result<()> {
    let mut chance = Seed::stream(run.seed, "outages", 0);
    first_200(run.await_comeback()).await.context("before the first outage")?;
    let [least, most] = outages.gap_ms;
    for number in 1..=outages.count {
        let gap = Duration::from_millis(least + chance.below(most - least + 1));
        catch_up(run).await;
        tokio::time::sleep(gap).await;
        if run.is_over() {
            return Ok(());
        }
        let stumbles = chance.below(100) < u64::from(outages.stumbling);
        let stumble = Duration::from_millis(chance.below(STUMBLE_MS));
        let outage = one(run, keeper, outages.signal, stumbles.then_some(stumble))
            .await
            .with_context(|| format!("outage {number}"))?;
        run.note(|seen| seen.outages.push(outage));
        progress.advance();
    }
    Ok(())
}

/// With a stumble the times begin at the second kill.
async fn one(run: &Run, keeper: &Keeper, signal: EndBy, stumble: Option<Duration>) -> anyhow::Result<Outage> {
    let mut began = Instant::now();
    let is_good_exit = keeper.end(signal).await?;
    let mut gone = Instant::now();
    if let Some(after) = stumble {
        keeper.stumble(after).await?;
        gone = Instant::now();
        began = gone;
    }
    let back = run.await_comeback();
    run.market.api.move_to(&keeper.start().await?);
    let ready = Instant::now();
    let served = first_200(back).await?;
    Ok(Outage {
        at_micros: run.since_start(began),
        end_micros: micros(gone - began),
        ready_micros: micros(ready - gone),
        first_200_micros: micros(served - began),
        is_good_exit,
        has_stumbled: stumble.is_some(),
    })
}

/// Waits until what came due during the last outage is mostly done: at most a second's worth of load is under way. A
/// machine that restarts slower than it is killed would otherwise never get anything done.
async fn catch_up(run: &Run) {
    let rate = run.scenario.phases.iter().map(|phase| u64::from(phase.rate)).max().unwrap_or(0);
    let due = Instant::now() + CATCH_UP;
    while run.under_way() > rate && !run.is_over() && Instant::now() < due {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn first_200(back: tokio::sync::oneshot::Receiver<Instant>) -> anyhow::Result<Instant> {
    let told = tokio::time::timeout(PATIENCE, back).await.context("no paid call was answered with 200 in time")?;
    told.context("nobody buys any more")
}
