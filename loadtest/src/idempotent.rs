//! Every paid id is asked for by every client, in an order of its own, all at once: one seller call, one set of
//! postings, one answer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Context;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    books::{End, Purchase},
    progress::Progress,
    purchase::{Buyer, GaveUp},
    run::{Repeats, Run, Sample, micros},
    scenario::Idempotent,
    seed::Seed,
};

#[derive(Default)]
struct Answers {
    first: Mutex<HashMap<u64, [u8; 32]>>,
    given: AtomicU64,
    differing: AtomicU64,
    replayed: AtomicU64,
}

/// Buys all ids, then asks for each from every client.
///
/// # Errors
/// When an id cannot be bought or a key cannot be made.
pub async fn run(run: &Arc<Run>, plan: Idempotent, progress: &Progress) -> anyhow::Result<()> {
    let purchases: Arc<[Purchase]> = buy_all(run, plan).await?.into();
    let answers = Arc::new(Answers::default());
    let buyer = run.market.buyers.first().context("a buyer")?;
    let mut clients = JoinSet::new();
    for number in 0..plan.clients as u64 {
        let key = buyer.another_key(&run.market.api, &format!("Client {number}")).await?;
        let (run, purchases, answers, progress) = (run.clone(), purchases.clone(), answers.clone(), progress.clone());
        clients.spawn(async move { client(&run, &purchases, &answers, &progress, (number, &key)).await });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let shops = &run.market.shops;
    let called = |one: &Purchase| shops.get(one.listing).map_or(0, |shop| shop.server.calls(&one.request_id())) as u64;
    let calls = || purchases.iter().map(called);
    let repeats = Repeats {
        answers: answers.given.load(Ordering::Relaxed),
        differing: answers.differing.load(Ordering::Relaxed),
        replayed: answers.replayed.load(Ordering::Relaxed),
        seller_calls: (calls().min().unwrap_or(0), calls().max().unwrap_or(0)),
    };
    let first = answers.first.lock().unwrap_or_else(PoisonError::into_inner).clone();
    run.note(|seen| {
        seen.repeats = Some(repeats);
        seen.load_micros = run.since_start(Instant::now());
        seen.purchases.extend(purchases.iter().cloned().map(|mut one| {
            one.answer = first.get(&one.number).copied();
            one.seller_micros = one.price_micros - crate::books::fee_micros(one.price_micros);
            one.end = if one.answer.is_some() { End::Completed } else { End::Unknown };
            one
        }));
    });
    Ok(())
}

async fn buy_all(run: &Arc<Run>, plan: Idempotent) -> anyhow::Result<Vec<Purchase>> {
    let places = Arc::new(Semaphore::new(plan.clients));
    let mut tasks = JoinSet::new();
    for number in 0..plan.ids as u64 {
        let place = places.clone().acquire_owned().await?;
        let run = run.clone();
        tasks.spawn(async move {
            let listing = Seed::stream(run.seed, "purchase", number).below(run.market.shops.len() as u64);
            let mut purchase = Purchase::new(number, 0, usize::try_from(listing)?);
            Buyer::new(&run, number, Instant::now()).prepay(&mut purchase).await?;
            drop(place);
            anyhow::Ok(purchase)
        });
    }
    let mut purchases = Vec::new();
    while let Some(bought) = tasks.join_next().await {
        purchases.push(bought??);
    }
    Ok(purchases)
}

async fn client(
    run: &Run,
    purchases: &[Purchase],
    answers: &Answers,
    progress: &Progress,
    (number, key): (u64, &str),
) -> anyhow::Result<()> {
    let mut chance = Seed::stream(run.seed, "client", number);
    let mut order: Vec<&Purchase> = purchases.iter().collect();
    order.sort_by_cached_key(|_| chance.draw());
    for purchase in order {
        let asked = Instant::now();
        match Buyer::new(run, purchase.number, asked).redeem(purchase, key).await {
            Ok(answer) => answers.take(purchase, answer.status, answer.digest, answer.replayed),
            Err(error) if error.is::<GaveUp>() => {
                let gave_up = Purchase { gave_up: true, end: End::Unknown, ..purchase.clone() };
                run.note(|seen| seen.purchases.push(gave_up));
            }
            Err(error) => return Err(error),
        }
        let sample = Sample { due_micros: run.since_start(asked), took_micros: micros(asked.elapsed()), is_hot: false };
        run.note(|seen| seen.samples.push(sample));
        progress.advance();
    }
    Ok(())
}

impl Answers {
    fn take(&self, purchase: &Purchase, status: u16, digest: [u8; 32], is_replay: bool) {
        self.given.fetch_add(1, Ordering::Relaxed);
        self.replayed.fetch_add(u64::from(is_replay), Ordering::Relaxed);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = status == 200 && *first.entry(purchase.number).or_insert(digest) == digest;
        self.differing.fetch_add(u64::from(!is_same), Ordering::Relaxed);
    }
}
