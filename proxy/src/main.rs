//! The process: arguments → configuration → store → actors → control API → proxy → drain.

use std::{path::Path, process::ExitCode, sync::Arc};

use actors::Actors;
use anyhow::Context as _;
use clap::Parser as _;
use config::{Config, Mode};
use control_api::Listen;
use proxy::{
    admin::{self, AdminCommand},
    body::Budget,
    cli::{self, Arguments, Command, EXIT_CONFIGURATION},
    client, demo,
    gateway::Gateway,
    passthrough::Passthrough,
    server::Bound,
    telemetry::{self, Telemetry, operations},
    upstream::Sellers,
    verify_signature,
};
use storage::model::Clock;

/// Rows, lines and steps are made on one thread and dropped on another: an allocator that is at home with that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let result = match &command {
        Command::Client(order) => return client::run(order),
        Command::Completions { shell } => Ok(say(&cli::completions(*shell))),
        Command::Serve(file) => file.load(false).map(|config| serve(config, false)),
        Command::Demo(file) => file.load(true).map(|config| serve(config, true)),
        Command::Check(file) => file.load(false).map(|config| check(&config)),
        Command::Config { default: true, .. } => Ok(say(config::DEFAULT)),
        Command::Backup { into, file } => file.load(false).map(|config| back_up(&config, into)),
        Command::Restore { from, file } => {
            file.load(false).map(|config| admin::restore(&config, from).and_then(|text| say(&text)))
        }
        Command::Export { file, .. } => file.load(false).map(|config| export(&config)),
        Command::Admin(order) => order.file().load(false).map(|config| operate(&config, order)),
        Command::VerifySignature(asked) => return verify_signature::run(asked, |text| drop(say(text)), complain),
        Command::Config { file, .. } => file.effective().map(|text| say(&text)),
    };
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            complain(&format!("crochet: {error:#}"));
            ExitCode::from(if matches!(command, Command::Check(_)) { EXIT_CONFIGURATION } else { 1 })
        }
        Err(problems) => {
            complain(&problems.to_string());
            ExitCode::from(EXIT_CONFIGURATION)
        }
    }
}

fn serve(config: Config, plays: bool) -> anyhow::Result<()> {
    let metrics = telemetry::record_metrics()?;
    telemetry::log(&config)?;
    let (config, clock) = (Arc::new(config), Clock::system());
    let bound = Bound::bind(&config.proxy).context("the public address cannot be listened on")?;
    let site = bound.site(&config.proxy);
    if config.mode == Mode::Dev {
        tracing::warn!("DEV MODE on {site}: sandbox money, http and loopback sellers; loopback only");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("main").enable_all().build()?;
    let store = storage::open(&config.storage, clock.clone())?;
    let sellers = Arc::new(Sellers::new(&config, &site).context("sellers cannot be called")?);
    let actors =
        runtime.block_on(Actors::start(config.clone(), store.clone(), clock.clone(), sellers, site.clone()))?;
    let listen = control_listen(&config)?;
    let passthrough = Passthrough::new(&config, &listen, site.clone());
    let control = control_api::start(config.clone(), store.clone(), actors.clone(), clock, site.clone(), listen)?;
    let readiness = operations::Readiness::default();
    let operations = operations::serve(&config, metrics, readiness.clone(), actors.clone())
        .context("the operations address cannot be listened on")?;
    let gateway = Arc::new(Gateway {
        actors: actors.clone(),
        site,
        budget: Budget::new(config.proxy.held_max_bytes),
        passthrough,
        telemetry: Telemetry::start(&config)?,
        config,
    });
    let public = bound.address();
    let ready = move || {
        readiness.set(true);
        let _ = say(&format!("{{\"ready\":true,\"public\":\"{public}\",\"operations\":\"{operations}\"}}\n"));
        if plays {
            std::thread::spawn(move || demo::play(public));
        }
        readiness
    };
    proxy::server::run(bound, gateway, ready)?;
    runtime.block_on(control.stop());
    actors.stop();
    runtime.block_on(store.close())?;
    Ok(())
}

/// A Unix socket in the data directory, unless an address is configured.
fn control_listen(config: &Config) -> anyhow::Result<Listen> {
    if config.control.listen.is_empty() {
        return Ok(Listen::UnixSocket(config.storage.path.join("control.sock")));
    }
    Ok(Listen::Tcp(config.control.listen.parse().context("control.listen is not an address")?))
}

fn operate(config: &Config, order: &AdminCommand) -> anyhow::Result<()> {
    telemetry::log(config)?;
    let said = admin::run(config, order, cli::user())?;
    say(&said.text)?;
    match said.fault {
        Some(fault) => Err(anyhow::anyhow!(fault)),
        None => Ok(()),
    }
}

fn back_up(config: &Config, into: &Path) -> anyhow::Result<()> {
    telemetry::log(config)?;
    say(&admin::backup(config, into, cli::user())?)
}

fn export(config: &Config) -> anyhow::Result<()> {
    telemetry::log(config)?;
    admin::export(config, cli::user())
}

fn check(config: &Config) -> anyhow::Result<()> {
    let store = storage::open(&config.storage, Clock::system())?;
    store.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(store.close())?;
    if config.proxy.tls.enabled {
        proxy::tls::Tls::load(&config.proxy.tls, config.proxy.write_timeout)?;
    }
    say("the configuration and the store are good\n")
}

fn say(text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn complain(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
