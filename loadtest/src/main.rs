//! `loadtest`: makes traffic against a gateway, then audits its books. Exit 1 when they are wrong.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, ensure};
use clap::Parser;
use loadtest::{
    api::Api,
    auditor,
    gateway::Gateway,
    report::report,
    workload::{self, Plan},
};

/// Buyers and sellers by seed, paid calls at a rate, and an audit with books of its own.
#[derive(Parser)]
struct Arguments {
    /// The gateway's public address, in dev mode: http://127.0.0.1:8080.
    #[arg(long, required_unless_present = "serve", conflicts_with = "serve")]
    gateway: Option<String>,
    /// Starts this gateway binary on free ports and an empty store, and ends it afterwards.
    #[arg(long)]
    serve: Option<PathBuf>,
    /// Where a gateway that is started here keeps its store, emptied first, and its log.
    #[arg(long, default_value = "target/loadtest")]
    directory: PathBuf,
    /// Decides everything that chance decides.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Buyers.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    buyers: u16,
    /// Sellers, each with a server and a listing of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    sellers: u16,
    /// Purchases a second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// For how long.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
}

#[expect(clippy::print_stdout, reason = "a report is printed")]
fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let started = arguments.serve.as_ref().map(|binary| start(binary, &arguments)).transpose()?;
    let base = match &started {
        Some(gateway) => format!("http://{}", gateway.public()),
        None => arguments.gateway.clone().context("no gateway")?,
    };
    let address = base.strip_prefix("http://").unwrap_or(&base);
    ensure!(address.starts_with("127.0.0.1:") || address.starts_with("[::1]:"), "only loopback is loaded, not {base}");
    let plan = Plan {
        seed: arguments.seed,
        buyers: arguments.buyers.into(),
        sellers: arguments.sellers.into(),
        rate: arguments.rate,
        seconds: arguments.seconds,
    };
    let passed = tokio::runtime::Runtime::new()?.block_on(async {
        let market = Arc::new(workload::open_market(&Api::new(&base)?, plan).await?);
        let seen = workload::run(market.clone(), plan).await?;
        let findings = auditor::audit(&market, &seen.purchases).await?;
        print!("{}", report(plan, &seen, &findings)?);
        anyhow::Ok(findings.wrong.is_empty())
    })?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(binary: &std::path::Path, arguments: &Arguments) -> anyhow::Result<Gateway> {
    let directory = &arguments.directory;
    let store = directory.join("store");
    if store.exists() {
        std::fs::remove_dir_all(&store)?;
    }
    std::fs::create_dir_all(directory)?;
    let settings = [
        ("proxy.listen", "127.0.0.1:0".to_owned()),
        ("telemetry.listen", "127.0.0.1:0".to_owned()),
        ("telemetry.log", "warn".to_owned()),
        ("identity.pow_difficulty", "2".to_owned()),
        ("storage.path", store.display().to_string()),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value));
    Gateway::start(binary, &settings, &directory.join("gateway.log"))
}
