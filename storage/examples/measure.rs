//! Measures the embedded store alone: paid calls of two durable steps each, as the paid path makes them.
//!
//! `cargo run --release -p storage --example measure -- calls <folder> <seconds> <at once>`
//! `cargo run --release -p storage --example measure -- fill <folder> <calls>` (ends as `kill -9` would), then
//! `cargo run --release -p storage --example measure -- start <folder>`

use std::{
    io::Write,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use storage::{
    ClaimRequest, Embedded, PaymentStore, QuoteOpened, SettleOutcome, StepOutcome, Store, StoreError, StoreResult,
    model::*,
};

/// Latencies of steps in buckets of 50 microseconds.
struct Latencies(Vec<AtomicU64>);

impl Latencies {
    fn new() -> Self {
        Self((0..20_000).map(|_| AtomicU64::new(0)).collect())
    }

    fn note(&self, begun: Instant) {
        let slot = usize::try_from(begun.elapsed().as_micros() / 50).unwrap_or(usize::MAX).min(self.0.len() - 1);
        if let Some(count) = self.0.get(slot) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The latency that so many of a thousand steps did not exceed, microseconds.
    fn per_mille(&self, share: u64) -> usize {
        let total: u64 = self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        let mut seen = 0;
        let slot = self.0.iter().position(|count| {
            seen += count.load(Ordering::Relaxed);
            seen * 1000 >= total * share
        });
        (slot.unwrap_or(0) + 1) * 50
    }
}

fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn settings(folder: &Path) -> StoreResult<config::Storage> {
    let text = format!("[storage]\npath = {folder:?}\n");
    config::Config::from_parts(Some(&text), [])
        .map(|config| config.storage)
        .map_err(|problems| StoreError::Unavailable(problems.to_string()))
}

fn quote(buyer: ProfileId, seller: ProfileId, listing: ListingId, now: UnixMillis) -> Quote {
    let id = PaymentId::mint(now);
    let mut body_sha256 = [0; 32];
    body_sha256[..16].copy_from_slice(&id.bytes());
    Quote {
        id,
        buyer,
        seller,
        listing,
        body_sha256,
        price: Micros(50_000),
        fee_rate: FeeRate(49_000),
        currency: OriginCurrency::Usdc,
        rail: Rail::Sandbox,
        provider_ref: id.to_string(),
        terms: vec![7; 200],
        idempotency_key: None,
        created_at: now,
        expires_at: now.plus(Duration::from_secs(900)),
    }
}

/// One call: a quote, then the two steps of the paid retry, which are timed.
async fn call(store: &Embedded, quote: Quote, latencies: &Latencies) -> StoreResult<()> {
    let (id, now) = (quote.id, quote.created_at);
    let QuoteOpened::Opened(payment) = store.quote_open(quote, u32::MAX).await? else {
        return Err(StoreError::Corrupt("not a new quote".into()));
    };
    store.payment_get(id).await?;
    let money = Evidence {
        proof_key: format!("sandbox:{id}"),
        rail: Rail::Sandbox,
        reference: "0x0123456789abcdef".into(),
        amount: payment.quote.price,
        recorded_at: now,
    };
    let request = ClaimRequest { owner: store.owner(), request_bytes: 200 };
    let begun = Instant::now();
    let settled = store.payment_settle(id, money, Some(request)).await?;
    latencies.note(begun);
    let SettleOutcome::Recorded { claimed: Some(Claimed::Won(claim)), .. } = settled else {
        return Err(StoreError::Corrupt("not claimed".into()));
    };
    let facts = CallFacts { http_status: 200, seller_status_code: Some(200), ..CallFacts::default() };
    let result = KeptResult {
        place: ResultPlace::Inline,
        encoding: ResultEncoding::Json,
        seller_status_code: 200,
        content_type: "application/json".into(),
        bytes: 300,
        sha256: [7; 32],
        kept_until: now.plus(Duration::from_secs(72 * 3600)),
    };
    let begun = Instant::now();
    let ended = store.payment_complete(id, claim, facts, result, Some(Bytes::from(vec![b'x'; 300]))).await?;
    latencies.note(begun);
    match ended {
        StepOutcome::Step(Ended::Done, _) => Ok(()),
        _ => Err(StoreError::Corrupt("not completed".into())),
    }
}

/// Makes calls until there were `most`, or for `span`; returns how many.
async fn calls(store: &Arc<Embedded>, at_once: usize, most: u64, span: Duration, latencies: &Arc<Latencies>) -> u64 {
    let (begun, made, clock) = (Instant::now(), Arc::new(AtomicU64::new(0)), Clock::system());
    let seller = ProfileId::mint(clock.now());
    let listing = ListingId::mint(clock.now());
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (store, made, clock, latencies) =
                (Arc::clone(store), Arc::clone(&made), clock.clone(), Arc::clone(latencies));
            let buyer = ProfileId::mint(clock.now());
            tokio::spawn(async move {
                while begun.elapsed() < span && made.fetch_add(1, Ordering::Relaxed) < most {
                    call(&store, quote(buyer, seller, listing, clock.now()), &latencies).await?;
                }
                StoreResult::Ok(())
            })
        })
        .collect();
    for task in tasks {
        if let Ok(Err(error)) = task.await {
            say(&format!("a call failed: {error}"));
        }
    }
    made.load(Ordering::Relaxed).min(most)
}

/// CPU time of this process, user and system, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or(0)
}

async fn run(arguments: &[String]) -> StoreResult<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().map_err(|_| StoreError::Unavailable(format!("{text}: no number")));
    match words[..] {
        ["calls", folder, seconds, at_once] => {
            let store = Arc::new(Embedded::open(&settings(Path::new(folder))?, Clock::system())?);
            let latencies = Arc::new(Latencies::new());
            let (begun, commits, cpu, written) = (Instant::now(), store.commits(), cpu_ticks(), written_bytes());
            let at_once = usize::try_from(number(at_once)?).unwrap_or(1);
            let made = calls(&store, at_once, u64::MAX, Duration::from_secs(number(seconds)?), &latencies).await;
            let (took, commits, written) = (begun.elapsed(), store.commits() - commits, written_bytes() - written);
            let calls_per_second = u128::from(made) * 1000 / took.as_millis().max(1);
            store.close().await?;
            let cpu = cpu_ticks() - cpu;
            say(&format!(
                "{made} calls (3 steps each), {calls_per_second} calls/s; {commits} commits of {}.{} steps; \
                 CPU {} us a call; {} bytes written a call",
                made * 3 / commits.max(1),
                made * 30 / commits.max(1) % 10,
                cpu * 10_000 / made.max(1),
                written / made.max(1),
            ));
            say(&format!(
                "step latency us: p50 {} p90 {} p99 {} p99.9 {} max {}",
                latencies.per_mille(500),
                latencies.per_mille(900),
                latencies.per_mille(990),
                latencies.per_mille(999),
                latencies.per_mille(1000)
            ));
            Ok(())
        }
        ["fill", folder, wanted] => {
            let store = Arc::new(Embedded::open(&settings(Path::new(folder))?, Clock::system())?);
            let latencies = Arc::new(Latencies::new());
            let made = calls(&store, 128, number(wanted)?, Duration::from_secs(3600), &latencies).await;
            say(&format!("{made} calls"));
            std::process::abort();
        }
        ["start", folder] => {
            let settings = settings(Path::new(folder))?;
            let begun = Instant::now();
            let store = Embedded::open(&settings, Clock::system())?;
            let opened = begun.elapsed();
            let now = Clock::system().now();
            let party = ProfileId::mint(now);
            store.quote_open(quote(party, party, ListingId::mint(now), now), 1).await?;
            let first = begun.elapsed();
            let begun = Instant::now();
            let overdue = store.claims_overdue(1000).await?.len();
            say(&format!(
                "open {} ms, first durable step after {} ms; {overdue} overdue claims found in {} ms",
                opened.as_millis(),
                first.as_millis(),
                begun.elapsed().as_millis()
            ));
            store.close().await
        }
        _ => Err(StoreError::Unavailable(
            "calls <folder> <seconds> <at once> | fill <folder> <calls> | start <folder>".into(),
        )),
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
