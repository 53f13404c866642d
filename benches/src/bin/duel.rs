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
    /// Our gateway as it was, a release build: what a change costs, call by call, in one run. Needs `--crochet`.
    #[arg(long, global = true)]
    before: Option<PathBuf>,
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
    let mut contestants = Vec::new();
    let mut ours = seller.family();
    for (name, rival) in &rivals {
        let family = rival.process.family();
        ours.extend(&family);
        let load = Load::Same(Repeat::new(rival.request.clone(), 200));
        let (address, id) = (rival.process.address, rival.process.id());
        contestants.push(Contestant::new(name, address, id, Duration::ZERO, load)?);
    }
    let start = |name, binary| Crochet::start(run, name, binary, at, &arguments.settings);
    let mut gateways = Vec::new();
    if let Some(binary) = &arguments.crochet {
        let free = start("crochet-free", binary)?;
        let again = start("crochet-free-again", binary)?;
        let paid = start("crochet-paid", binary)?;
        contestants.push(same("free", &free, free.free_call(), 200)?);
        contestants.push(same("free, again", &again, again.free_call(), 200)?);
        contestants.push(same("401", &free, free.bad_key(), 401)?);
        contestants.push(same("402", &free, free.quoted_call(), 402)?);
        contestants.push(bought("paid", &paid)?);
        gateways.extend([free, again, paid]);
        if let Some(binary) = &arguments.before {
            let free = start("crochet-free-before", binary)?;
            let paid = start("crochet-paid-before", binary)?;
            contestants.push(same("free, before", &free, free.free_call(), 200)?);
            contestants.push(same("401, before", &free, free.bad_key(), 401)?);
            contestants.push(same("402, before", &free, free.quoted_call(), 402)?);
            contestants.push(bought("paid, before", &paid)?);
            gateways.extend([free, paid]);
        }
    }
    ours.extend(gateways.iter().map(Crochet::id));
    let foreign = contest::run(&mut contestants, &ours, rounds)?;
    let found = report::duel(&mut contestants, rounds, foreign)?;
    conclude(arguments, "duel", "./dev bench peers", &found)
}

/// A contestant that is asked the same again and again.
fn same(name: &'static str, gateway: &Crochet, request: Vec<u8>, status: u16) -> anyhow::Result<Contestant> {
    Contestant::new(name, gateway.address, gateway.id(), BEHIND, Load::Same(Repeat::new(request, status)))
}

/// A contestant of which calls are bought.
fn bought(name: &'static str, gateway: &Crochet) -> anyhow::Result<Contestant> {
    let (stock, mint, redeem) = gateway.payments();
    let load = Load::Paid { redeem, mint: Box::new(mint), stock, used: 0 };
    // A paid call writes nothing behind its answer. What the engine makes of the tables later, most of it of the
    // payments that were made ahead, is in the sustained figure.
    Contestant::new(name, gateway.address, gateway.id(), Duration::ZERO, load)
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
