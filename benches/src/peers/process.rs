//! Processes that are started for a run, and end with it.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::machine;

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running process with an address. It ends when this is dropped, and when the runner dies in any way.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts `command` on `core` and waits until it answers at `address`; what it prints goes to `log`.
    ///
    /// # Errors
    /// When it ends, or does not listen in time.
    pub fn start(core: usize, command: &[&str], address: SocketAddr, log: &Path) -> anyhow::Result<Self> {
        let output = File::create(log)?;
        let mut started = Command::new("setpriv");
        started.args(["--pdeathsig", "TERM", "--"]).args(command);
        started.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = on_core(core, || started.spawn().context("setpriv (util-linux) could not be started"))?;
        let mut process = Self { child, address };
        let due = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if process.child.try_wait()?.is_some() || Instant::now() > due {
                bail!("{} did not start:\n{}", command.join(" "), fs::read_to_string(log).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// Starts nginx on `core` with a configuration template of `peers/` and an address of its own, in a folder of
    /// its own below `run`.
    ///
    /// # Errors
    /// When a file cannot be written, or nginx does not start.
    pub fn nginx(core: usize, run: &Path, name: &str, template: &str, facts: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (folder, address) = (run.join(name), free_address()?);
        fs::create_dir_all(&folder)?;
        let (own, listen) = (folder.display().to_string(), address.to_string());
        let mut text = template.replace("{run}", &own).replace("{listen}", &listen);
        for (key, value) in facts {
            text = text.replace(&format!("{{{key}}}"), value);
        }
        let configuration = folder.join("nginx.conf");
        fs::write(&configuration, text)?;
        let path = configuration.display().to_string();
        // Without -e it first tries its system-wide log, which is somebody else's.
        let errors = folder.join("error.log").display().to_string();
        let command = ["nginx", "-e", &errors, "-c", &path, "-g", "daemon off;"];
        Self::start(core, &command, address, &folder.join("output.log"))
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// It and all that it has started.
    #[must_use]
    pub fn family(&self) -> Vec<u32> {
        machine::family(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let due = Instant::now() + PATIENCE;
        while Instant::now() < due {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `start` while this thread is bound to `core`, which what it starts inherits; then goes back to the load core.
///
/// # Errors
/// What `start` returns, or when there is no such core.
pub fn on_core<T>(core: usize, start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    machine::pin(core)?;
    let started = start();
    machine::pin(machine::LOAD_CORE)?;
    started
}

/// A loopback address that was free a moment ago.
///
/// # Errors
/// When no port could be opened.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// An empty folder for this run's files; what an earlier run left there is removed.
///
/// # Errors
/// When it cannot be made.
pub fn empty_folder(path: PathBuf) -> anyhow::Result<PathBuf> {
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}
