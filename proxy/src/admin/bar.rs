//! A progress bar: on a terminal only, and only when it takes longer than a second.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

const WIDTH: u64 = 40;
const PATIENCE: Duration = Duration::from_secs(1);

/// How far something is.
pub(crate) struct Bar {
    what: &'static str,
    begun: Instant,
    is_terminal: bool,
    is_drawn: bool,
    done: u64,
    total: u64,
}

impl Bar {
    /// Nothing is done yet.
    pub(crate) fn new(what: &'static str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { what, begun: Instant::now(), is_terminal, is_drawn: false, done: 0, total: 0 }
    }

    /// So many more are done, of this many when that is known anew.
    pub(crate) fn advance(&mut self, more: u64, total: Option<u64>) {
        self.done += more;
        self.total = total.unwrap_or(self.total).max(self.done);
        if self.is_terminal && self.begun.elapsed() > PATIENCE {
            self.is_drawn = true;
            let _ = write!(std::io::stderr().lock(), "\r{}", self.line());
        }
    }

    fn line(&self) -> String {
        let full = (self.done * WIDTH).checked_div(self.total).unwrap_or(WIDTH).min(WIDTH);
        let (full, left) = (usize::try_from(full).unwrap_or(0), usize::try_from(WIDTH - full).unwrap_or(0));
        format!("[{}{}] {} of {} {}", "#".repeat(full), ".".repeat(left), self.done, self.total, self.what)
    }

    /// It is done.
    pub(crate) fn end(self) {
        if self.is_drawn {
            let _ = writeln!(std::io::stderr().lock());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_up_and_never_runs_over() {
        let mut bar = Bar::new("sealed");
        assert_eq!(bar.line(), format!("[{}] 0 of 0 sealed", "#".repeat(40)), "nothing to do is done");
        bar.advance(1, Some(4));
        assert_eq!(bar.line(), format!("[{}{}] 1 of 4 sealed", "#".repeat(10), ".".repeat(30)));
        bar.advance(7, None);
        assert_eq!(bar.line(), format!("[{}] 8 of 8 sealed", "#".repeat(40)));
    }
}
