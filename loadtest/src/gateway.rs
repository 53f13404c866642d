//! A gateway process of one's own: started, awaited, ended.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

/// A log that is larger is begun anew.
const LOG_MAX: u64 = 64 << 20;
/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running gateway. It ends when this is dropped.
pub struct Gateway {
    child: Child,
    ready: Ready,
}

#[derive(Deserialize)]
struct Ready {
    ready: bool,
    public: String,
    operations: String,
}

impl Gateway {
    /// Starts `crochet serve` with these settings (`limits.gateway_burst`, `1000`) on free ports; what it logs goes
    /// to the end of `log`, which begins anew when it is large. It dies with the calling thread, so call this from one that lives long.
    ///
    /// # Errors
    /// When it does not print its ready line in time; the log says why.
    pub fn start(binary: &Path, settings: &[(String, String)], log: &Path) -> anyhow::Result<Self> {
        let mut child = spawn(binary, settings, log)?;
        match await_ready(&mut child) {
            Ok(ready) => Ok(Self { child, ready }),
            Err(error) => {
                end(&mut child);
                Err(error.context(format!("{} did not become ready; see {}", binary.display(), log.display())))
            }
        }
    }

    /// Starts it as [`Gateway::start`] does, and kills it `after` a while, ready or not.
    ///
    /// # Errors
    /// When it cannot be started or killed.
    pub fn stumble(binary: &Path, settings: &[(String, String)], log: &Path, after: Duration) -> anyhow::Result<()> {
        let mut child = spawn(binary, settings, log)?;
        thread::sleep(after);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// `127.0.0.1:port` of the public listener.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.ready.public
    }

    /// `127.0.0.1:port` of the operations listener.
    #[must_use]
    pub fn operations(&self) -> &str {
        &self.ready.operations
    }

    /// `kill -9`: nothing is flushed, nothing is said. Returns when it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, as a supervisor does, and returns its exit code: `None` when a signal ended it, ours at last.
    pub fn terminate(&mut self) -> Option<i32> {
        end(&mut self.child);
        self.child.try_wait().ok().flatten().and_then(|status| status.code())
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Settings as the environment has them.
pub fn variables(settings: &[(String, String)]) -> impl Iterator<Item = (String, &String)> {
    settings.iter().map(|(key, value)| (format!("CROCHET__{}", key.to_uppercase().replace('.', "__")), value))
}

fn spawn(binary: &Path, settings: &[(String, String)], log: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "--"]).arg(binary).arg("serve");
    command.envs(variables(settings));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file(log)?);
    command.spawn().context("setpriv (util-linux) could not be started")
}

/// Reads standard output until the ready line, and goes on draining it so that the process never blocks on it.
fn await_ready(child: &mut Child) -> anyhow::Result<Ready> {
    let output = child.stdout.take().context("no standard output")?;
    let (told, asked) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Ok(ready) = serde_json::from_str::<Ready>(&line) {
                // Nobody listens after the first; that is fine.
                let _ = told.send(ready);
            }
        }
    });
    let ready = asked.recv_timeout(PATIENCE).context("no ready line")?;
    if !ready.ready {
        bail!("it says that it is not ready");
    }
    Ok(ready)
}

fn log_file(path: &Path) -> anyhow::Result<File> {
    let is_large = path.metadata().is_ok_and(|metadata| metadata.len() > LOG_MAX);
    Ok(if is_large { File::create(path)? } else { OpenOptions::new().create(true).append(true).open(path)? })
}

/// Asks a process to end, waits, and ends it.
fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let due = Instant::now() + PATIENCE;
    while Instant::now() < due {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}
