//! A progress bar, on a terminal; elsewhere nothing.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How far something is.
#[derive(Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Of `total` steps of `what`; shown on standard error when that is a terminal.
    #[must_use]
    pub fn new(what: &str, total: u64) -> Self {
        let bar = ProgressBar::new(total).with_message(what.to_owned());
        let style = ProgressStyle::with_template("{msg:24} [{wide_bar}] {human_pos}/{human_len} {per_sec} {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// One that is never shown.
    #[must_use]
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// One step is done.
    pub fn advance(&self) {
        self.0.inc(1);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}
