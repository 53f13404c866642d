//! A child process: this test binary again, running one test that does nothing unless it is told a folder.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Instant,
};

use super::PATIENCE;

const FOLDER: &str = "CROCHET_TEST_CHILD_FOLDER";
const MARK: &str = "told: ";

/// The folder that this process is to work in, when it is a child.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Tells the parent something; one write, so a line is whole or not there.
pub fn tell(line: &str) {
    // A line of its own: the test harness may have left one unfinished.
    let line = format!("\n{MARK}{line}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("the parent listens");
}

/// A child on its way; killed when the test gives up.
pub struct Running {
    child: Child,
    told: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// Starts the test `name` of this binary as a child that works in `folder`.
pub fn start(name: &str, folder: &Path) -> Running {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let told = Arc::new(Mutex::new(Vec::new()));
    let book = Arc::clone(&told);
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Some(line) = line.strip_prefix(MARK) {
                book.lock().expect("the book").push(line.to_string());
            }
        }
    });
    Running { child, told, reader: Some(reader) }
}

impl Running {
    /// Waits until the child has told so many lines, or has ended.
    pub fn wait_told(&mut self, lines: usize) {
        let begun = Instant::now();
        while self.told.lock().expect("the book").len() < lines && self.child.try_wait().expect("alive").is_none() {
            assert!(begun.elapsed() < PATIENCE, "the child tells nothing");
            std::thread::yield_now();
        }
    }

    /// Kills it at once, as `kill -9` does, and returns what it had told.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.book()
    }

    /// Waits for its end; returns how it ended and what it told.
    pub fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return (status, self.book());
            }
            if begun.elapsed() > PATIENCE {
                self.child.kill().expect("killed");
                panic!("the child does not end; it told {:?}", self.book());
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    fn book(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader");
        }
        std::mem::take(&mut self.told.lock().expect("the book"))
    }
}
