//! Copies the gateway's store under load, makes another store of the copy, and asks that one for everything that was
//! acknowledged before the copy began.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{
    auditor::{self, Findings},
    books::{Purchase, SellerBook},
    facts,
    keeper::Keeper,
    progress::Progress,
    rows::{Account, Histories},
    run::{Run, micros},
    scenario::{Copying, EndBy},
};

/// A copy that was made under load.
pub struct Copy {
    folder: PathBuf,
    /// What had been acknowledged when it began.
    before: Vec<Purchase>,
    micros: u64,
}

/// What came of the store that was made of it.
#[derive(Debug)]
pub struct Restored {
    /// How long the copy took, microseconds.
    pub copy_micros: u64,
    /// Purchases that had ended when it began.
    pub purchases: u64,
    /// Their acknowledged facts.
    pub facts: u64,
    /// Those that are not so in the restored store.
    pub facts_lost: Vec<String>,
    /// Whether the gateway's own proof of the restored books holds; else what it says.
    pub proof: Result<(), String>,
    /// What our own audit of these purchases found there.
    pub findings: Findings,
}

/// Makes a copy when the load has gone on for some time; the load goes on beside it.
///
/// # Errors
/// When no copy is made.
pub async fn make(run: &Run, keeper: &Keeper, plan: Copying, directory: &Path) -> anyhow::Result<Copy> {
    tokio::time::sleep(Duration::from_millis(plan.after_ms)).await;
    let folder = directory.join("copy");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let before = run.note(|seen| seen.purchases.clone());
    let begun = Instant::now();
    let ran = keeper.run(&["backup", folder.to_str().context("a folder whose name is text")?]).await?;
    ensure!(ran.is_good, "no copy was made: {}", ran.said);
    ensure!(!run.is_over(), "the load was over before the copy was made: let it last longer");
    Ok(Copy { folder, before, micros: micros(begun.elapsed()) })
}

/// Ends the gateway, makes a store of the copy, starts a gateway on that, and asks for everything again.
///
/// # Errors
/// When there is no such store or gateway; what is missing in it is no error, but a figure.
pub async fn restore(run: &Arc<Run>, keeper: &Keeper, copy: Copy, directory: &Path) -> anyhow::Result<Restored> {
    ensure!(keeper.end(EndBy::Term).await?, "the gateway did not end as it must");
    let store = directory.join("restored");
    if store.exists() {
        std::fs::remove_dir_all(&store)?;
    }
    keeper.move_to(&store).await?;
    let ran = keeper.run(&["restore", copy.folder.to_str().context("a folder whose name is text")?]).await?;
    ensure!(ran.is_good, "the copy makes no store: {}", ran.said);
    let proof = keeper.run(&["admin", "audit"]).await?;
    run.market.api.move_to(&keeper.start().await?);
    let progress = Progress::new("every fact again, in the copy", copy.before.len() as u64);
    let (facts_lost, facts) = facts::check(run, &copy.before, &progress).await?;
    progress.finish();
    Ok(Restored {
        copy_micros: copy.micros,
        purchases: copy.before.len() as u64,
        facts,
        facts_lost,
        proof: if proof.is_good { Ok(()) } else { Err(proof.said) },
        findings: audit(run, &copy.before).await?,
    })
}

/// Our books against those of the restored gateway, as far as they are about these purchases: what came later may be in
/// the copy, or not.
async fn audit(run: &Run, before: &[Purchase]) -> anyhow::Result<Findings> {
    let payments: HashSet<&str> = before.iter().map(|one| one.payment.as_str()).collect();
    let requests: HashSet<String> = before.iter().map(Purchase::request_id).collect();
    let kept = |histories: &mut Histories| {
        histories.ledger.retain(|row| payments.contains(row.payment.as_str()));
        histories.requests.retain(|row| requests.contains(&row.id));
    };
    let mut account = Account::read(&run.market).await?;
    account.buyers.iter_mut().chain(&mut account.sellers).for_each(kept);
    let of_theirs = |book: SellerBook| book.into_iter().filter(|(id, _)| requests.contains(id)).collect();
    let books: Vec<SellerBook> = run.market.shops.iter().map(|shop| of_theirs(shop.server.book())).collect();
    Ok(auditor::compare(before, &books, &account, false))
}
