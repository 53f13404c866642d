//! A scenario from its beginning to its verdict.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, ensure};

use crate::{
    api::Api,
    auditor::{self, Findings},
    copying::{self, Copy, Restored},
    facts, idempotent,
    keeper::Keeper,
    market::Market,
    outages,
    progress::Progress,
    run::{Run, Seen},
    scenario::{EndBy, Scenario},
    workload,
};

/// Which gateway is loaded.
#[derive(Clone, Debug)]
pub enum Place {
    /// One that runs, at this URL.
    Running(String),
    /// One that is started here, and ended afterwards.
    Own {
        /// The gateway's binary.
        binary: PathBuf,
        /// Where its store, emptied first, and its log are.
        directory: PathBuf,
    },
}

/// What came of a scenario.
pub struct Played {
    /// What was run.
    pub scenario: Scenario,
    /// What decided everything that chance decides.
    pub seed: u64,
    /// What was seen.
    pub seen: Seen,
    /// What the audit found.
    pub findings: Findings,
    /// What sellers found wrong with calls.
    pub seller_complaints: Vec<String>,
    /// Acknowledged facts that are not so any more.
    pub facts_lost: Vec<String>,
    /// How many facts were asked for again.
    pub facts: u64,
    /// What came of a copy of the store.
    pub restored: Option<Restored>,
}

/// Plays a scenario: opens the market, makes the load, asks for every fact again, audits the books.
///
/// # Errors
/// When it cannot be played to its end. What the gateway does wrong is no error, but a figure.
pub async fn play(scenario: Scenario, seed: u64, place: &Place) -> anyhow::Result<Played> {
    scenario.check()?;
    let can_be_ended = matches!(place, Place::Own { .. });
    let ends_it = scenario.outages.is_some() || scenario.copying.is_some();
    ensure!(can_be_ended || !ends_it, "outages and copies need a gateway that is started here: --serve BINARY");
    let (base, keeper) = match place {
        Place::Running(base) => (base.clone(), None),
        Place::Own { binary, directory } => {
            let keeper = Keeper::new(binary, directory, &scenario)?;
            (keeper.start().await?, Some(keeper))
        }
    };
    ensure!(is_loopback(&base), "only this machine is loaded, not {base}: sellers of the load listen on loopback");
    let market = Market::open(&Api::new(&base)?, &scenario, seed).await.context("opening the market")?;
    let run = Arc::new(Run::new(market, scenario, seed));
    let copy = make_load(&run, keeper.as_ref(), place).await?;
    let seen = run.take_seen();
    let progress = Progress::new("every fact again", seen.purchases.len() as u64);
    let (facts_lost, facts) = facts::check(&run, &seen.purchases, &progress).await?;
    progress.finish();
    let kills = run.scenario.outages.is_some_and(|outages| outages.signal == EndBy::Kill);
    let findings = auditor::audit(&run.market, &told_once(&seen), kills).await.context("the audit")?;
    let restored = match (copy, keeper.as_ref(), place) {
        (Some(copy), Some(keeper), Place::Own { directory, .. }) => {
            Some(copying::restore(&run, keeper, copy, directory).await.context("the copy")?)
        }
        _ => None,
    };
    let seller_complaints = run.market.shops.iter().flat_map(|shop| shop.server.complaints()).collect();
    let scenario = run.scenario.clone();
    Ok(Played { scenario, seed, seen, findings, seller_complaints, facts_lost, facts, restored })
}

/// Purchases whose buyer gave up in the idempotent scenario stand there twice; the audit wants each once.
fn told_once(seen: &Seen) -> Vec<crate::books::Purchase> {
    let is_repeat = |purchase: &crate::books::Purchase| seen.repeats.is_some() && purchase.gave_up;
    seen.purchases.iter().filter(|purchase| !is_repeat(purchase)).cloned().collect()
}

async fn make_load(run: &Arc<Run>, keeper: Option<&Keeper>, place: &Place) -> anyhow::Result<Option<Copy>> {
    let (name, purchases) = (run.scenario.name.clone(), run.scenario.purchases());
    if let Some(plan) = run.scenario.idempotent {
        let progress = Progress::new(&name, (plan.clients * plan.ids) as u64);
        idempotent::run(run, plan, &progress).await?;
        progress.finish();
        return Ok(None);
    }
    if let (Some(plan), Some(keeper), Place::Own { directory, .. }) = (run.scenario.copying, keeper, place) {
        let progress = Progress::new(&name, purchases);
        let made = tokio::join!(
            workload::run(run, &progress),
            workload::be_hostile(run),
            copying::make(run, keeper, plan, directory)
        );
        progress.finish();
        return made.0.and(made.1).and(made.2).map(Some);
    }
    let Some(outages) = run.scenario.outages else {
        let progress = Progress::new(&name, purchases);
        let (load, hostile) = tokio::join!(workload::run(run, &progress), workload::be_hostile(run));
        progress.finish();
        return load.and(hostile).map(|()| None);
    };
    let keeper = keeper.context("a gateway that is started here")?;
    let progress = Progress::new(&format!("{name}, outages"), outages.count.into());
    let aside = Progress::hidden();
    let made = tokio::join!(
        workload::run(run, &aside),
        workload::be_hostile(run),
        outages::make(run, keeper, outages, &progress)
    );
    progress.finish();
    made.0.and(made.1).and(made.2).map(|()| None)
}

fn is_loopback(base: &str) -> bool {
    let address = base.strip_prefix("http://").unwrap_or(base);
    address.starts_with("127.0.0.1:") || address.starts_with("[::1]:") || address.starts_with("localhost:")
}
