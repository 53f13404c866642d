//! `loadtest`: plays scenarios against a gateway, then audits its books. Exit 1 when a figure misses its target, 2 when
//! a scenario could not be played to its end.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use loadtest::{
    facilitator::Facilitator,
    figures::{Figure, figures},
    page::page,
    play::{Place, Played, play},
    relay::Relay,
    report::report,
    scenario::{Phase, Scenario},
};

/// Buyers and sellers by seed, purchases at a rate, and an audit with books of its own.
#[derive(Parser)]
struct Arguments {
    /// What to play: steady, spike, one_hot_listing, slow_sellers, hostile_mix, kill, idempotent, drain, backup, all
    /// of them, or a TOML file. Several, separated by commas, are played one after the other.
    #[arg(long, default_value = "steady", value_delimiter = ',')]
    scenario: Vec<String>,
    /// The gateway's public address, in dev mode: http://127.0.0.1:8080.
    #[arg(long, conflicts_with = "serve")]
    gateway: Option<String>,
    /// Starts this gateway binary on free ports and an empty store, and ends it afterwards. Without this and --gateway:
    /// the one that CROCHET_BIN names, or the `crochet` beside this program.
    #[arg(long)]
    serve: Option<PathBuf>,
    /// Where a gateway that is started here keeps its store, emptied first, and its log.
    #[arg(long, default_value = "target/loadtest")]
    directory: PathBuf,
    /// Decides everything that chance decides.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Buyers, instead of the scenario's.
    #[arg(long)]
    buyers: Option<usize>,
    /// Sellers, each with a server and a listing of its own, instead of the scenario's.
    #[arg(long)]
    sellers: Option<usize>,
    /// Purchases a second, instead of the scenario's.
    #[arg(long)]
    rate: Option<u32>,
    /// For how long, instead of the scenario's; with outages, at most.
    #[arg(long)]
    seconds: Option<u32>,
    /// How often the gateway is ended, instead of the scenario's.
    #[arg(long)]
    outages: Option<u32>,
    /// Writes the report as one HTML file too.
    #[arg(long)]
    page: Option<PathBuf>,
    #[command(subcommand)]
    other: Option<Other>,
}

/// What else it does than to play scenarios.
#[derive(Subcommand)]
enum Other {
    /// Plays the payment provider Relay until it is interrupted; steered by POST /_steer and /_pay.
    Relay {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:9090")]
        listen: SocketAddr,
        /// The API key that it takes.
        #[arg(long, default_value = "relay-key")]
        key: String,
    },
    /// Plays an x402 facilitator until it is interrupted, with books instead of a chain; steered by POST /_steer.
    Facilitator {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:9091")]
        listen: SocketAddr,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.other {
        Some(Other::Relay { listen, key }) => play_relay(*listen, key).map(|()| true),
        Some(Other::Facilitator { listen }) => play_facilitator(*listen).map(|()| true),
        None => play_all(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stdout, reason = "where it listens is printed")]
fn play_relay(listen: SocketAddr, key: &str) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let relay = Relay::start(listen, key).await?;
        println!("{}", relay.url());
        Ok(tokio::signal::ctrl_c().await?)
    })
}

#[expect(clippy::print_stdout, reason = "where it listens is printed")]
fn play_facilitator(listen: SocketAddr) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let facilitator = Facilitator::start(listen).await?;
        println!("{}", facilitator.url());
        Ok(tokio::signal::ctrl_c().await?)
    })
}

/// Whether all figures reach their targets.
#[expect(clippy::print_stdout, reason = "a report is printed")]
fn play_all(arguments: &Arguments) -> anyhow::Result<bool> {
    let scenarios = arguments.scenarios()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut runs: Vec<(Played, Vec<Figure>, String)> = Vec::new();
    for scenario in scenarios {
        let (name, seed) = (scenario.name.clone(), arguments.seed);
        println!("{name} begins with seed {seed}");
        let place = arguments.place(&name)?;
        let played = runtime.block_on(play(scenario, seed, &place)).with_context(|| format!("{name}, seed {seed}"))?;
        let figures = figures(&played)?;
        let text = report(&played, &figures)?;
        println!("{text}");
        runs.push((played, figures, text));
    }
    if let Some(path) = &arguments.page {
        let shown: Vec<_> =
            runs.iter().map(|(played, figures, text)| (played, figures.as_slice(), text.as_str())).collect();
        std::fs::write(path, page(&shown)?).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(runs.iter().flat_map(|(_, figures, _)| figures).all(Figure::is_passed))
}

impl Arguments {
    fn scenarios(&self) -> anyhow::Result<Vec<Scenario>> {
        let all = self.scenario.iter().any(|name| name == "all");
        let names: Vec<&str> =
            if all { Scenario::names().collect() } else { self.scenario.iter().map(String::as_str).collect() };
        names.into_iter().map(|name| self.adapted(Scenario::find(name)?)).collect()
    }

    fn adapted(&self, mut scenario: Scenario) -> anyhow::Result<Scenario> {
        scenario.buyers = self.buyers.unwrap_or(scenario.buyers);
        scenario.sellers.count = self.sellers.unwrap_or(scenario.sellers.count);
        if self.rate.is_some() || self.seconds.is_some() {
            ensure!(scenario.phases.len() == 1, "{}: --rate and --seconds need one phase", scenario.name);
        }
        for Phase { rate, seconds } in &mut scenario.phases {
            *rate = self.rate.unwrap_or(*rate);
            *seconds = self.seconds.unwrap_or(*seconds);
        }
        if let Some(count) = self.outages {
            let name = &scenario.name;
            let outages = scenario.outages.as_mut().with_context(|| format!("{name} has no outages"))?;
            outages.count = count;
            if let Some(target) = scenario.targets.get_mut("outages") {
                target.at_least = Some(count.into());
            }
        }
        scenario.check().with_context(|| scenario.name.clone())?;
        Ok(scenario)
    }

    fn place(&self, scenario: &str) -> anyhow::Result<Place> {
        if let Some(base) = &self.gateway {
            return Ok(Place::Running(base.clone()));
        }
        let binary = self.serve.clone().or_else(|| std::env::var_os("CROCHET_BIN").map(PathBuf::from));
        let binary = binary.map_or_else(beside_us, Ok)?;
        ensure!(binary.is_file(), "no gateway: {} is no file; name one with --serve or --gateway", binary.display());
        Ok(Place::Own { binary, directory: self.directory.join(scenario) })
    }
}

fn beside_us() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("crochet"))
}
