//! A real `crochet serve` process on free ports and a directory of its own.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub struct Gateway {
    child: Option<Child>,
    pub url: String,
    pub operations: String,
    directory: TempDir,
    knobs: Vec<(String, String)>,
    /// A shell's commands that end with `exec "$@"`; empty: none.
    wrapper: String,
}

impl Gateway {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts with more knobs: `("CROCHET__PROXY__HOLD_BYTES", "4KiB")`.
    pub fn with(knobs: &[(&str, &str)]) -> Self {
        Self::wrapped("", knobs)
    }

    /// Starts by way of a shell, whose commands end with `exec "$@"`; the data directory is `$DATA`.
    pub fn wrapped(wrapper: &str, knobs: &[(&str, &str)]) -> Self {
        let knobs = knobs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
        let directory = TempDir::new().expect("temporary directory");
        let wrapper = wrapper.to_string();
        let mut gateway =
            Self { child: None, url: String::new(), operations: String::new(), directory, knobs, wrapper };
        gateway.spawn();
        gateway
    }

    /// Other knobs from the next start on.
    pub fn set(&mut self, knobs: &[(&str, &str)]) {
        self.knobs = knobs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
    }

    fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("log");
        // Figures are taken of a release build.
        let binary = std::env::var_os("CROCHET_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_crochet").into());
        let mut command = Command::new(if self.wrapper.is_empty() { &*binary } else { "sh".as_ref() });
        if !self.wrapper.is_empty() {
            command.args(["-c", &self.wrapper, "sh"]).arg(&binary).env("DATA", self.directory.path().join("data"));
        }
        command
            .arg("serve")
            .env("CROCHET__STORAGE__PATH", self.directory.path().join("data"))
            .env("CROCHET__PROXY__LISTEN", "127.0.0.1:0")
            .env("CROCHET__PROXY__WORKERS", "1")
            .env("CROCHET__TELEMETRY__LISTEN", "127.0.0.1:0")
            .env("CROCHET__IDENTITY__POW_DIFFICULTY", "1")
            .envs(self.knobs.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().expect("crochet starts");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        while !line.contains("\"ready\":true") {
            line.clear();
            let read = output.read_line(&mut line).expect("ready line");
            assert!(read > 0, "the gateway ended before it was ready:\n{}", self.log());
        }
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        let ready: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        self.url = format!("http://{}", ready["public"].as_str().expect("public"));
        self.operations = format!("http://{}", ready["operations"].as_str().expect("operations"));
        self.child = Some(child);
    }

    fn log_path(&self) -> std::path::PathBuf {
        self.directory.path().join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.directory.path().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// `kill -9`: nothing is flushed, nothing is said.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("reaped");
        }
    }

    /// `kill -9`, then a start on the same directory. Other ports, same data.
    pub fn kill_and_restart(&mut self) -> Duration {
        self.kill();
        let began = Instant::now();
        self.spawn();
        began.elapsed()
    }

    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Asks it to end, as a supervisor does.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("running");
        for _ in 0..3_000 {
            if let Some(status) = child.try_wait().expect("waited") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        panic!("the gateway did not end:\n{}", self.log());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- gateway's log ---\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
