//! The duel: contestants in turn, a slice each, over and over.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{
    figures::Slice,
    generator::{Lanes, Repeat, Work},
    machine::{busy_nanos, cpu_nanos, family},
    stock::{Mint, Redeem, Stock},
};

/// Connections to each contestant.
pub const CONNECTIONS: usize = 32;
/// One turn of one contestant.
pub const SLICE: Duration = Duration::from_millis(50);
/// Turns that are not counted, at first.
const WARM_UP_ROUNDS: usize = 3;
/// Our gateway writes a free call's row up to 50 ms behind its answer: the CPU clock is read only after that.
pub const BEHIND: Duration = Duration::from_millis(60);
/// Payments that wait at least, when a paid slice begins.
const STOCK_MIN: usize = 1500;

/// One contestant.
pub struct Contestant {
    /// How it is called in the report.
    pub name: &'static str,
    /// What came of its turns.
    pub slices: Vec<Slice>,
    /// What it is asked.
    pub load: Load,
    family: Vec<u32>,
    lanes: Lanes,
    behind: Duration,
}

/// What a contestant is asked.
pub enum Load {
    /// The same request.
    Same(Repeat),
    /// Paid calls, each with a payment made before.
    Paid {
        /// Uses payments.
        redeem: Redeem,
        /// Makes them.
        mint: Box<Mint>,
        /// Those that wait.
        stock: Stock,
        /// The most that a slice has used.
        used: usize,
    },
}

impl Load {
    fn work(&mut self) -> &mut dyn Work {
        match self {
            Self::Same(repeat) => repeat,
            Self::Paid { redeem, .. } => redeem,
        }
    }

    /// The times of counted answers, nanoseconds.
    pub fn nanos(&mut self) -> &mut Vec<u64> {
        match self {
            Self::Same(repeat) => &mut repeat.nanos,
            Self::Paid { redeem, .. } => &mut redeem.nanos,
        }
    }

    /// Answers of an unexpected status.
    #[must_use]
    pub fn bad(&self) -> u64 {
        match self {
            Self::Same(repeat) => repeat.bad,
            Self::Paid { redeem, .. } => redeem.bad,
        }
    }
}

impl Contestant {
    /// Opens connections to `address`, whose process is the first of `family`; `behind` is how long after its last
    /// answer it may still be working on it.
    ///
    /// # Errors
    /// When it refuses connections.
    pub fn new(
        name: &'static str,
        address: std::net::SocketAddr,
        process: u32,
        behind: Duration,
        load: Load,
    ) -> anyhow::Result<Self> {
        let lanes = Lanes::open(address, CONNECTIONS)?;
        Ok(Self { name, slices: Vec::new(), load, family: family(process), lanes, behind })
    }

    /// CPU time used so far by its processes.
    fn cpu_nanos(&self) -> anyhow::Result<u64> {
        self.family.iter().map(|process| cpu_nanos(*process)).sum()
    }

    /// What must be there before its turn, made outside of any slice.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let Load::Paid { mint, stock, used, .. } = &mut self.load else { return Ok(()) };
        let wanted = (*used + *used / 2).max(STOCK_MIN);
        mint.order(wanted.saturating_sub(stock.borrow().len()));
        self.lanes.run(&mut **mint, Duration::MAX)?;
        Ok(())
    }

    fn turn(&mut self) -> anyhow::Result<Slice> {
        let before = self.cpu_nanos()?;
        let ran = self.lanes.run(self.load.work(), SLICE)?;
        thread::sleep(self.behind);
        let cpu_nanos = self.cpu_nanos()? - before;
        if let Load::Paid { used, .. } = &mut self.load {
            *used = (*used).max(usize::try_from(ran.answers)?);
        }
        Ok(Slice { answers: ran.answers, cpu_nanos, wall_nanos: u64::try_from(ran.wall.as_nanos())? })
    }
}

/// Runs the rounds; returns how much of a core others than `ours` used meanwhile.
///
/// # Errors
/// When a contestant stalls, dies or closes a busy connection.
pub fn run(contestants: &mut [Contestant], ours: &[u32], rounds: usize) -> anyhow::Result<f64> {
    ensure!(!contestants.is_empty() && rounds > 0, "nobody to measure");
    for _ in 0..WARM_UP_ROUNDS {
        for contestant in &mut *contestants {
            contestant.prepare()?;
            contestant.turn()?;
            contestant.load.nanos().clear();
        }
    }
    let foreign = Foreign::begin(ours)?;
    for round in 0..rounds {
        for contestant in &mut *contestants {
            contestant.prepare()?;
        }
        for place in 0..contestants.len() {
            // Turned by one each round, and every other round backwards, so that nobody always follows the same one.
            let place = if round % 2 == 0 { place } else { contestants.len() - 1 - place };
            let turned = (place + round / 2) % contestants.len();
            if let Some(contestant) = contestants.get_mut(turned) {
                let slice = contestant.turn()?;
                contestant.slices.push(slice);
            }
        }
    }
    foreign.end(ours)
}

/// The work on this machine that is not part of the run.
pub struct Foreign {
    since: Instant,
    others: u64,
}

impl Foreign {
    /// Begins to watch; `ours` and this process are not foreign.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn begin(ours: &[u32]) -> anyhow::Result<Self> {
        Ok(Self { since: Instant::now(), others: others_nanos(ours)? })
    }

    /// The share of one core that others used since then.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn end(self, ours: &[u32]) -> anyhow::Result<f64> {
        let used = others_nanos(ours)?.saturating_sub(self.others);
        Ok(used as f64 / self.since.elapsed().as_nanos() as f64)
    }
}

fn others_nanos(ours: &[u32]) -> anyhow::Result<u64> {
    let own: u64 = ours.iter().chain([&std::process::id()]).map(|id| cpu_nanos(*id)).sum::<anyhow::Result<_>>()?;
    Ok(busy_nanos()?.saturating_sub(own))
}
