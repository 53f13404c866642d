//! The load: purchases by seed, each due at a fixed time whatever the gateway does (open loop), so that a stall shows
//! in the latencies of all that came due meanwhile.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    hostile,
    progress::Progress,
    purchase::Buyer,
    run::{Run, Sample, micros},
    scenario::Phase,
};

/// Purchases in flight at most; what is due meanwhile waits, and its wait counts.
const IN_FLIGHT_MAX: usize = 4096;
/// Hostile acts in flight at most; what is due meanwhile waits.
const HOSTILE_IN_FLIGHT_MAX: usize = 256;

/// Makes the purchases of all phases, until the last has ended or the run was ended.
///
/// # Errors
/// When a task of ours fails; what the gateway answers is never an error here.
pub async fn run(run: &Arc<Run>, progress: &Progress) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut tasks = JoinSet::new();
    for (number, due) in (0..).zip(dues(&run.scenario.phases)) {
        let due = run.start + due;
        tokio::time::sleep_until(due.into()).await;
        let place = places.clone().acquire_owned().await?;
        if run.is_over() {
            break;
        }
        let (run, progress) = (run.clone(), progress.clone());
        run.begin_purchase();
        tasks.spawn(async move {
            purchase(&run, number, due).await;
            run.end_purchase();
            progress.advance();
            drop(place);
        });
        while let Some(ended) = tasks.try_join_next() {
            ended?;
        }
    }
    run.note(|seen| seen.load_micros = run.since_start(Instant::now()));
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    run.end();
    Ok(())
}

async fn purchase(run: &Run, number: u64, due: Instant) {
    let purchase = Buyer::new(run, number, due).buy().await;
    let is_hot = run.scenario.hot_percent > 0 && purchase.listing == 0;
    let sample = Sample { due_micros: run.since_start(due), took_micros: micros(due.elapsed()), is_hot };
    run.note(|seen| {
        seen.purchases.push(purchase);
        seen.samples.push(sample);
    });
}

/// Makes hostile acts until the run is over.
///
/// # Errors
/// When a task of ours fails.
pub async fn be_hostile(run: &Arc<Run>) -> anyhow::Result<()> {
    let rate = run.scenario.hostile_rate;
    let places = Arc::new(Semaphore::new(HOSTILE_IN_FLIGHT_MAX));
    let mut tasks = JoinSet::new();
    let seconds = u32::try_from(run.scenario.seconds()).unwrap_or(u32::MAX);
    for (number, due) in (0..).zip(dues(&[Phase { rate, seconds }])) {
        tokio::time::sleep_until((run.start + due).into()).await;
        let place = places.clone().acquire_owned().await?;
        if run.is_over() {
            break;
        }
        let run = run.clone();
        tasks.spawn(async move {
            let accepted = hostile::act(&run, number).await.err();
            run.note(|seen| {
                seen.hostile_acts += 1;
                seen.hostile_accepted.extend(accepted.map(|error| format!("{error:#}")));
            });
            drop(place);
        });
        while let Some(ended) = tasks.try_join_next() {
            ended?;
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended?;
    }
    Ok(())
}

/// When each purchase is due, from the start.
fn dues(phases: &[Phase]) -> impl Iterator<Item = Duration> {
    let mut begins = 0;
    phases.iter().flat_map(move |phase| {
        let (rate, from) = (u64::from(phase.rate), begins);
        begins += u64::from(phase.seconds);
        let due = move |number: u64| (number * 1_000_000).checked_div(rate).unwrap_or(0);
        (0..rate * u64::from(phase.seconds)).map(move |number| Duration::from_micros(from * 1_000_000 + due(number)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purchases_are_due_at_the_rate_of_their_phase() {
        let phases = [Phase { rate: 2, seconds: 1 }, Phase { rate: 4, seconds: 1 }];
        let due: Vec<u128> = dues(&phases).map(|due| due.as_millis()).collect();
        assert_eq!(due, [0, 500, 1000, 1250, 1500, 1750]);
    }
}
