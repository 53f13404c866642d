//! Keeps a gateway of one's own: starts it, ends it, starts it again on the same store.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use tokio::sync::oneshot;

use crate::{
    gateway::{Gateway, variables},
    scenario::{EndBy, Scenario},
};

/// The setting that names the store's folder.
const STORE: &str = "storage.path";

/// Starts and ends a gateway from one thread that lives as long as this: the process dies with its starter.
pub struct Keeper {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Start(oneshot::Sender<anyhow::Result<String>>),
    Stumble(Duration, oneshot::Sender<anyhow::Result<()>>),
    End(EndBy, oneshot::Sender<anyhow::Result<bool>>),
    Run(Vec<String>, oneshot::Sender<anyhow::Result<Ran>>),
    Move(PathBuf, oneshot::Sender<anyhow::Result<()>>),
}

/// What a command of the gateway's binary said.
pub struct Ran {
    /// Whether it exited with 0.
    pub is_good: bool,
    /// Its standard output and error.
    pub said: String,
}

struct Kept {
    binary: PathBuf,
    settings: Vec<(String, String)>,
    log: PathBuf,
    running: Option<Gateway>,
}

impl Keeper {
    /// Of this binary, with an empty store and a log in `directory`. Nothing is started yet.
    ///
    /// # Errors
    /// When the directory cannot be made, or an old store in it cannot be removed.
    pub fn new(binary: &Path, directory: &Path, scenario: &Scenario) -> anyhow::Result<Self> {
        let store = directory.join("store");
        if store.exists() {
            std::fs::remove_dir_all(&store)?;
        }
        std::fs::create_dir_all(directory)?;
        let log = directory.join("gateway.log");
        if log.exists() {
            std::fs::remove_file(&log)?;
        }
        let mut kept = Kept { binary: binary.to_owned(), settings: settings(&store, scenario), log, running: None };
        let (orders, taken) = mpsc::channel();
        let thread = thread::spawn(move || {
            for order in taken {
                // Whoever ordered may have gone.
                match order {
                    Order::Start(told) => drop(told.send(kept.start())),
                    Order::Stumble(after, told) => drop(told.send(kept.stumble(after))),
                    Order::End(how, told) => drop(told.send(kept.end(how))),
                    Order::Run(arguments, told) => drop(told.send(kept.run(&arguments))),
                    Order::Move(store, told) => drop(told.send(kept.move_to(&store))),
                }
            }
        });
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Starts it and returns its public address as a URL.
    ///
    /// # Errors
    /// When it does not become ready; its log says why.
    pub async fn start(&self) -> anyhow::Result<String> {
        let (told, answer) = oneshot::channel();
        self.order(Order::Start(told))?;
        answer.await.context("the keeper's thread is gone")?
    }

    /// Starts it and kills it `after` a while, ready or not: a crash on the way up.
    ///
    /// # Errors
    /// When it cannot be started or killed.
    pub async fn stumble(&self, after: Duration) -> anyhow::Result<()> {
        let (told, answer) = oneshot::channel();
        self.order(Order::Stumble(after, told))?;
        answer.await.context("the keeper's thread is gone")?
    }

    /// Ends it and waits until it is gone. Returns whether it ended as it must.
    ///
    /// # Errors
    /// When it does not run, or cannot be killed.
    pub async fn end(&self, how: EndBy) -> anyhow::Result<bool> {
        let (told, answer) = oneshot::channel();
        self.order(Order::End(how, told))?;
        answer.await.context("the keeper's thread is gone")?
    }

    /// Runs a command of the gateway's binary on its store, beside it or without it, and waits for its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<Ran> {
        let (told, answer) = oneshot::channel();
        self.order(Order::Run(arguments.iter().map(|text| (*text).to_owned()).collect(), told))?;
        answer.await.context("the keeper's thread is gone")?
    }

    /// From now on its store is in `store`. It must not run.
    ///
    /// # Errors
    /// When it runs.
    pub async fn move_to(&self, store: &Path) -> anyhow::Result<()> {
        let (told, answer) = oneshot::channel();
        self.order(Order::Move(store.to_owned(), told))?;
        answer.await.context("the keeper's thread is gone")?
    }

    fn order(&self, order: Order) -> anyhow::Result<()> {
        let orders = self.orders.as_ref().context("the keeper is leaving")?;
        orders.send(order).ok().context("the keeper's thread is gone")
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic over there has been printed over there.
            let _ = thread.join();
        }
    }
}

impl Kept {
    fn start(&mut self) -> anyhow::Result<String> {
        let gateway = Gateway::start(&self.binary, &self.settings, &self.log)?;
        let base = format!("http://{}", gateway.public());
        self.running = Some(gateway);
        Ok(base)
    }

    fn stumble(&self, after: Duration) -> anyhow::Result<()> {
        Gateway::stumble(&self.binary, &self.settings, &self.log, after)
    }

    fn run(&self, arguments: &[String]) -> anyhow::Result<Ran> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).envs(variables(&self.settings)).stdin(Stdio::null());
        let output = command.output().with_context(|| self.binary.display().to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran { is_good: output.status.success(), said: text(&output.stdout) + &text(&output.stderr) })
    }

    fn move_to(&mut self, store: &Path) -> anyhow::Result<()> {
        ensure!(self.running.is_none(), "a gateway that runs does not move");
        self.settings.retain(|(key, _)| key != STORE);
        self.settings.push((STORE.to_owned(), store.display().to_string()));
        Ok(())
    }

    fn end(&mut self, how: EndBy) -> anyhow::Result<bool> {
        let Some(mut gateway) = self.running.take() else { bail!("no gateway is running") };
        match how {
            EndBy::Kill => gateway.kill().map(|()| true),
            EndBy::Term => Ok(gateway.terminate() == Some(0)),
        }
    }
}

/// Free ports, little proof of work, and as many connections from here as the load needs; then the scenario's own.
fn settings(store: &Path, scenario: &Scenario) -> Vec<(String, String)> {
    let ours = [
        ("mode", "dev"),
        ("proxy.listen", "127.0.0.1:0"),
        ("proxy.connections_per_address_max", "8000"),
        ("telemetry.listen", "127.0.0.1:0"),
        ("telemetry.log", "warn"),
        ("identity.pow_difficulty", "2"),
    ];
    let mut settings: Vec<_> = ours.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    settings.push((STORE.to_owned(), store.display().to_string()));
    settings.extend(scenario.gateway.clone());
    settings
}
