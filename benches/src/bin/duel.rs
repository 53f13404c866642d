//! `duel`: our gateway beside others on this machine; `./dev bench peers` and `./dev bench sustain` run it.

#![expect(clippy::print_stdout, reason = "a report is printed")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use benches::peers::{
    contest::{self, BEHIND, Contestant, Load},
    crochet::Crochet,
    generator::Repeat,
    machine::{LOAD_CORE, pin},
    process::{Process, empty_folder},
    report::{self, Report},
    rivals, sustain,
};
use clap::{Parser, Subcommand};

/// Measures our gateway beside others. Everything runs on loopback, and ends with this program.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Our gateway, a release build. Absent: only the others are measured.
    #[arg(long, global = true)]
    crochet: Option<PathBuf>,
    /// The x402-axum rival of `peers/x402-axum`. Absent: it is left out.
    #[arg(long, global = true)]
    x402_axum: Option<PathBuf>,
    /// Where stores and logs go, in a folder `run` that is emptied first; on the disk to be measured.
    #[arg(long, global = true, default_value = "target/duel")]
    run: PathBuf,
    /// The page that a run that counts is written to.
    #[arg(long, global = true)]
    page: Option<PathBuf>,
    /// A setting of our gateway, `storage.memtable_bytes=64MiB`; may be repeated.
    #[arg(long = "set", global = true)]
    settings: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// All in turn, 50 ms each.
    Peers {
        /// How many turns each.
        #[arg(long, default_value_t = 120)]
        rounds: usize,
    },
    /// Our paid calls, saturated.
    Sustain {
        /// For how long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    pin(LOAD_CORE)?;
    let run = std::path::absolute(empty_folder(arguments.run.join("run"))?)?;
    let seller = rivals::seller(&run)?;
    match arguments.command {
        Command::Peers { rounds } => peers(&arguments, &run, &seller, rounds),
        Command::Sustain { seconds } => sustained(&arguments, &run, &seller, Duration::from_secs(seconds)),
    }
}

fn peers(arguments: &Arguments, run: &Path, seller: &Process, rounds: usize) -> anyhow::Result<ExitCode> {
    let at = seller.address;
    let mut rivals = vec![
        ("nginx", rivals::nginx(run, "nginx", at)?),
        ("nginx, again", rivals::nginx(run, "nginx-again", at)?),
        ("nginx-lua", rivals::nginx_lua(run, at)?),
    ];
    if let Some(binary) = &arguments.x402_axum {
        rivals.push(("x402-axum", rivals::x402_axum(run, binary, at)?));
    }
    let start = |name| {
        let binary = arguments.crochet.as_ref();
        binary.map(|binary| Crochet::start(run, name, binary, at, &arguments.settings)).transpose()
    };
    let gateways = [start("crochet-free")?, start("crochet-free-again")?, start("crochet-paid")?];
    let mut contestants = Vec::new();
    let mut ours = seller.family();
    for (name, rival) in &rivals {
        let family = rival.process.family();
        ours.extend(&family);
        let load = Load::Same(Repeat::new(rival.request.clone(), 200));
        let (address, id) = (rival.process.address, rival.process.id());
        contestants.push(Contestant::new(name, address, id, Duration::ZERO, load)?);
    }
    if let [Some(free), Some(again), Some(paid)] = &gateways {
        ours.extend([free, again, paid].map(Crochet::id));
        let same = |name, gateway: &Crochet, request, status| {
            let load = Load::Same(Repeat::new(request, status));
            Contestant::new(name, gateway.address, gateway.id(), BEHIND, load)
        };
        contestants.push(same("free", free, free.free_call(), 200)?);
        contestants.push(same("free, again", again, again.free_call(), 200)?);
        contestants.push(same("401", free, free.bad_key(), 401)?);
        contestants.push(same("402", free, free.quoted_call(), 402)?);
        let (stock, mint, redeem) = paid.payments();
        let load = Load::Paid { redeem, mint: Box::new(mint), stock, used: 0 };
        // A paid call writes nothing behind its answer. What the engine makes of the tables later, most of it of the
        // payments that were made ahead, is in the sustained figure.
        contestants.push(Contestant::new("paid", paid.address, paid.id(), Duration::ZERO, load)?);
    }
    let foreign = contest::run(&mut contestants, &ours, rounds)?;
    let found = report::duel(&mut contestants, rounds, foreign)?;
    conclude(arguments, "duel", "./dev bench peers", &found)
}

fn sustained(arguments: &Arguments, run: &Path, seller: &Process, span: Duration) -> anyhow::Result<ExitCode> {
    let Some(binary) = &arguments.crochet else { anyhow::bail!("--crochet is needed") };
    let rival =
        arguments.x402_axum.as_ref().map(|binary| rivals::x402_axum(run, binary, seller.address)).transpose()?;
    let crochet = Crochet::start(run, "crochet-paid", binary, seller.address, &arguments.settings)?;
    let found = sustain::run(&crochet, seller, rival, span)?;
    conclude(arguments, "sustain", "./dev bench sustain", &found)
}

/// Prints a run, and publishes it when it counts.
fn conclude(arguments: &Arguments, section: &str, command: &str, found: &Report) -> anyhow::Result<ExitCode> {
    print!("{}", found.text);
    if !found.void.is_empty() {
        println!("this run does not count: {}", found.void.join("; "));
        return Ok(ExitCode::FAILURE);
    }
    if let Some(page) = &arguments.page {
        report::publish(page, section, command, &found.text)?;
    }
    Ok(ExitCode::SUCCESS)
}
