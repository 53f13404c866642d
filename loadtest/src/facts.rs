//! Whether everything that was acknowledged is still so: every result is asked for again, every payment looked up.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use reqwest::Method;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    api::Lost,
    books::{End, Purchase},
    progress::Progress,
    purchase::Buyer,
    run::Run,
};

/// Questions at once.
const AT_ONCE: usize = 64;
/// Tries of a question that got no answer.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Asks for all facts again. Returns what was lost, and how many facts there were.
///
/// # Errors
/// When a task of ours fails.
pub async fn check(run: &Arc<Run>, purchases: &[Purchase], progress: &Progress) -> anyhow::Result<(Vec<String>, u64)> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    let (mut lost, mut facts) = (Vec::new(), 0);
    for purchase in purchases.iter().filter(|purchase| !purchase.payment.is_empty()) {
        // The quote, the money, the result.
        facts += 1 + u64::from(purchase.is_pay_acknowledged) + u64::from(purchase.answer.is_some());
        let place = places.clone().acquire_owned().await?;
        let (run, purchase, progress) = (run.clone(), purchase.clone(), progress.clone());
        tasks.spawn(async move {
            let checked = one(&run, &purchase).await;
            progress.advance();
            drop(place);
            checked.err().map(|error| format!("{}: {error:#}", purchase.payment))
        });
        while let Some(ended) = tasks.try_join_next() {
            lost.extend(ended?);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        lost.extend(ended?);
    }
    Ok((lost, facts))
}

/// A result that was seen is asked for by the paid call itself; else the quote, and the money at its provider.
async fn one(run: &Run, purchase: &Purchase) -> anyhow::Result<()> {
    let key = &run.market.buyers.get(purchase.buyer).context("a buyer")?.key;
    if let Some(answer) = purchase.answer {
        let again = Buyer::new(run, purchase.number, Instant::now()).redeem(purchase, key).await?.expect_status(200)?;
        ensure!(again.replayed, "its result was not a replay");
        ensure!(again.digest == answer, "its result is another one: {}", again.body);
        return Ok(());
    }
    let quote = ask(run, &format!("/payments/{}", purchase.payment), key).await.context("its quote")?;
    let price = quote.number("/data/amount/amount_micros")?;
    ensure!(price == purchase.price_micros, "its price is {price}, and was {}", purchase.price_micros);
    if purchase.is_pay_acknowledged {
        let record = ask(run, &format!("/sandbox/payments/{}", purchase.payment), key).await.context("its money")?;
        ensure!(record.text("/data/status")? == "success", "its money: {}", record.body);
    }
    let state = quote.text("/data/state")?;
    ensure!(purchase.end != End::Paid || state != "completed", "completed, and nobody was told");
    Ok(())
}

async fn ask(run: &Run, path: &str, key: &str) -> anyhow::Result<crate::api::Answer> {
    let mut last = Lost::Refused;
    for _ in 0..TRIES {
        match run.market.api.try_send(run.market.api.request(Method::GET, path, Some(key))).await {
            Ok(answer) => return answer.expect_status(200),
            Err(lost) => last = lost,
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(last.into())
}
