//! A minute of paid calls, saturated: what a slice cannot see. Compaction, stalls, memory.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{
    answer::Answer,
    contest::{CONNECTIONS, Foreign},
    crochet::Crochet,
    figures::quantile,
    generator::{Lanes, Ran, Repeat, Work},
    machine::{cpu_nanos, resident_bytes},
    process::Process,
    report::{FOREIGN_MAX, Report, verdict},
    rivals::Rival,
    stock::{Mint, Redeem, Stock},
};

/// One buyer may have a million open quotes at most, by any configuration.
const AHEAD_MAX: usize = 990_000;
/// Payments are made ahead for at most so long.
const MINT_MAX: Duration = Duration::from_secs(600);
/// Memory is judged from this much before the end on.
const JUDGED: Duration = Duration::from_secs(45);
/// A shorter run has not begun to be steady by then, and proves nothing.
const JUDGED_FROM: Duration = Duration::from_secs(60);
/// How long the rival is measured for its own cost.
const RIVAL: Duration = Duration::from_secs(10);
/// A second of answers is looked at this often.
const SAMPLE: Duration = Duration::from_secs(1);

/// The bars: no answer for so long, milliseconds; memory growth over the last 45 s; CPU beside x402-axum.
const STALL_MAX_MS: f64 = 500.0;
const GROWTH_MAX: f64 = 0.10;
const COST_MAX: f64 = 0.70;

/// What was measured.
struct Sustained {
    ran: Ran,
    cpu_nanos: u64,
    nanos: Vec<u64>,
    bad: u64,
    resident: Vec<(Duration, u64)>,
    foreign: f64,
}

/// Makes as many payments as `span` may use, then uses them as fast as the gateway answers.
///
/// # Errors
/// When the gateway stalls, dies, or refuses what should be accepted.
pub fn run(crochet: &Crochet, seller: &Process, rival: Option<Rival>, span: Duration) -> anyhow::Result<Report> {
    let (stock, mut mint, mut redeem) = crochet.payments();
    let mut lanes = Lanes::open(crochet.address, CONNECTIONS)?;
    // Two seconds tell how many payments the whole run will use.
    fill(&mut lanes, &mut mint, &stock, 50_000)?;
    let burst = lanes.run(&mut redeem, Duration::from_secs(2))?;
    let a_second = burst.answers as f64 / burst.wall.as_secs_f64();
    let wanted = ((a_second * span.as_secs_f64() * 1.6) as usize).min(AHEAD_MAX);
    let made_in = fill(&mut lanes, &mut mint, &stock, wanted)?;
    redeem.nanos.clear();
    let beside = rival.map(|rival| alone(&rival)).transpose()?;
    let ours: Vec<u32> = seller.family().into_iter().chain([crochet.id()]).collect();
    let sustained = measure(crochet, &mut lanes, redeem, span, &ours)?;
    let mut void = Vec::new();
    if sustained.foreign > FOREIGN_MAX {
        void.push(format!("a foreign load of {:.2} core", sustained.foreign));
    }
    if span < JUDGED_FROM {
        void.push(format!("shorter than {} s", JUDGED_FROM.as_secs()));
    }
    if sustained.ran.wall + SAMPLE < span {
        void.push("the payments made ahead did not last".to_owned());
    }
    Ok(Report { text: lines(&sustained, span, (wanted, made_in), beside), void })
}

/// Fills the stock up to `wanted` payments; returns how long that took.
fn fill(lanes: &mut Lanes, mint: &mut Mint, stock: &Stock, wanted: usize) -> anyhow::Result<Duration> {
    mint.order(wanted.saturating_sub(stock.borrow().len()));
    Ok(lanes.run(mint, MINT_MAX)?.wall)
}

fn measure(
    crochet: &Crochet,
    lanes: &mut Lanes,
    redeem: Redeem,
    span: Duration,
    ours: &[u32],
) -> anyhow::Result<Sustained> {
    let start = Instant::now();
    let mut sampled = Sampled { redeem, process: crochet.id(), start, resident: Vec::new(), due: Duration::ZERO };
    let (foreign, before) = (Foreign::begin(ours)?, cpu_nanos(crochet.id())?);
    let ran = lanes.run(&mut sampled, span)?;
    let used = cpu_nanos(crochet.id())? - before;
    let Sampled { redeem, resident, .. } = sampled;
    ensure!(redeem.bad == 0, "{} bad answers, the first: {:?}", redeem.bad, redeem.first_bad);
    let foreign = foreign.end(ours)?;
    Ok(Sustained { ran, cpu_nanos: used, nanos: redeem.nanos, bad: redeem.bad, resident, foreign })
}

/// CPU microseconds a call of the rival, saturated alone.
fn alone(rival: &Rival) -> anyhow::Result<f64> {
    let mut lanes = Lanes::open(rival.process.address, CONNECTIONS)?;
    let mut repeat = Repeat::new(rival.request.clone(), 200);
    let used = || rival.process.family().iter().map(|id| cpu_nanos(*id)).sum::<anyhow::Result<u64>>();
    lanes.run(&mut repeat, Duration::from_secs(1))?;
    let before = used()?;
    let ran = lanes.run(&mut repeat, RIVAL)?;
    ensure!(repeat.bad == 0, "{} bad answers of the rival", repeat.bad);
    Ok((used()? - before) as f64 / 1000.0 / ran.answers.max(1) as f64)
}

/// Uses payments, and looks at the gateway's memory each second.
struct Sampled {
    redeem: Redeem,
    process: u32,
    start: Instant,
    resident: Vec<(Duration, u64)>,
    due: Duration,
}

impl Work for Sampled {
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool {
        self.redeem.ask(connection, request)
    }

    fn take(&mut self, connection: usize, answer: &Answer<'_>, nanos: u64) -> anyhow::Result<()> {
        self.redeem.take(connection, answer, nanos)?;
        let now = self.start.elapsed();
        if now >= self.due {
            self.resident.push((now, resident_bytes(self.process)?));
            self.due = now + SAMPLE;
        }
        Ok(())
    }
}

fn lines(run: &Sustained, span: Duration, (made, made_in): (usize, Duration), beside: Option<f64>) -> String {
    let calls = run.ran.answers.max(1) as f64;
    let cost = run.cpu_nanos as f64 / 1000.0 / calls;
    let millis = |share| quantile(run.nanos.iter().map(|nanos| *nanos as f64 / 1e6), share);
    let (wall, wanted) = (run.ran.wall.as_secs_f64(), span.as_secs_f64());
    let mut lines = vec![
        format!(
            "paid calls, closed loop, c={CONNECTIONS}, {wall:.1} s of {wanted:.0}; foreign load {:.2} core",
            run.foreign
        ),
        format!("made ahead {made} payments in {:.1} s (quote and pay, two requests each)", made_in.as_secs_f64()),
        format!("calls/s {:.0} · CPU µs/call {cost:.1}, the whole process · bad {}", calls / wall, run.bad),
        format!(
            "latency ms p50 {:.2} · p99 {:.1} · p99.9 {:.1} · max {:.1}",
            millis(0.5),
            millis(0.99),
            millis(0.999),
            millis(1.0)
        ),
    ];
    if let Some(rival) = beside {
        let (ratio, passes) = (cost / rival, cost / rival <= COST_MAX);
        lines.push(format!("P3 sustained paid/x402-axum {ratio:.2} ≤{COST_MAX:.2} {}", verdict(passes)));
    }
    let stall = run.ran.gap.as_secs_f64() * 1000.0;
    lines.push(format!("stall max {stall:.0} ms ≤{STALL_MAX_MS:.0} {}", verdict(stall <= STALL_MAX_MS)));
    lines.push(memory(&run.resident, span));
    lines.push(String::new());
    lines.join("\n")
}

fn memory(resident: &[(Duration, u64)], span: Duration) -> String {
    if span < JUDGED_FROM {
        return format!("memory growth not judged: a run of {} s is needed", JUDGED_FROM.as_secs());
    }
    let (growth, from, to) = growth(resident);
    format!(
        "memory growth {:.1} % ≤{:.0} % {} (last {} s: {from} → {to} MiB)",
        growth * 100.0,
        GROWTH_MAX * 100.0,
        verdict(growth <= GROWTH_MAX),
        JUDGED.as_secs()
    )
}

/// How much more the second half of the judged time needs than the first, peak against peak; and both peaks, MiB.
fn growth(resident: &[(Duration, u64)]) -> (f64, u64, u64) {
    let end = resident.last().map_or(Duration::ZERO, |(at, _)| *at);
    let begin = end.saturating_sub(JUDGED);
    let middle = begin + (end - begin) / 2;
    let peak = |from: Duration, to: Duration| {
        resident.iter().filter(|(at, _)| *at >= from && *at <= to).map(|(_, bytes)| *bytes).max().unwrap_or(0)
    };
    let (first, second) = (peak(begin, middle), peak(middle, end));
    (second as f64 / first.max(1) as f64 - 1.0, first >> 20, second >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_peak_against_peak() {
        let sample = |second: u64, mebibytes: u64| (Duration::from_secs(second), mebibytes << 20);
        let flat: Vec<_> = (0..60).map(|second| sample(second, 100 + second % 5)).collect();
        assert!(growth(&flat).0.abs() < 0.001);
        let growing: Vec<_> = (0..60).map(|second| sample(second, 100 + second * 10)).collect();
        assert!(growth(&growing).0 > GROWTH_MAX);
    }
}
