//! One line a call. The data plane appends a small record under a short mutex; a thread of its own takes all that came,
//! formats it, and writes it at once.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use actors::refusal::Code;
use config::LogFormat;
use parking_lot::Mutex;
use storage::model::{Clock, GatewayRequestId, ListingId, Micros, ProfileId, UnixMillis};

use crate::trace::{Ended, Phase, Trace};

/// Lines that may wait; a call never waits for its line.
const QUEUE: usize = 65_536;
/// How late a line may be.
const PERIOD: Duration = Duration::from_millis(50);

struct Line {
    at: UnixMillis,
    client_request_id: String,
    request_id: Option<GatewayRequestId>,
    listing: Option<ListingId>,
    buyer: Option<ProfileId>,
    attempt: u32,
    status: u16,
    code: Option<Code>,
    seller_status_code: Option<u16>,
    ended: Ended,
    charged: Micros,
    buyer_left: bool,
    micros: [u64; 4],
}

struct Queue {
    lines: Mutex<Vec<Line>>,
    is_lossy: AtomicBool,
}

/// Takes lines. When the last clone is dropped the thread writes what is left and ends.
pub(super) struct CallLog {
    queue: Arc<Queue>,
    clock: Clock,
    thread: Option<thread::JoinHandle<()>>,
}

impl CallLog {
    pub(super) fn start(format: LogFormat) -> io::Result<Self> {
        let queue = Arc::new(Queue { lines: Mutex::new(Vec::new()), is_lossy: AtomicBool::new(false) });
        let watched = Arc::downgrade(&queue);
        let thread = thread::Builder::new().name("call-log".into()).spawn(move || write_lines(&watched, format))?;
        Ok(Self { queue, clock: Clock::system(), thread: Some(thread) })
    }

    pub(super) fn push(&self, trace: &Trace, client_request_id: &str) {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let line = Line {
            at: self.clock.now(),
            client_request_id: client_request_id.chars().take(128).collect(),
            request_id: trace.request_id(),
            listing: trace.listing(),
            buyer: trace.buyer(),
            attempt: trace.attempt(),
            status: trace.status(),
            code: trace.code(),
            seller_status_code: trace.seller_status_code(),
            ended: trace.end(),
            charged: trace.charged(),
            buyer_left: trace.did_buyer_leave(),
            micros: [
                micros(trace.total()),
                micros(trace.phase(Phase::Payment)),
                micros(trace.phase(Phase::Store)),
                micros(trace.phase(Phase::Seller)),
            ],
        };
        let mut lines = self.queue.lines.lock();
        if lines.len() < QUEUE {
            lines.push(line);
        } else if !self.queue.is_lossy.swap(true, Ordering::Relaxed) {
            drop(lines);
            metrics::counter!("crochet_log_lines_lost_total").increment(1);
            tracing::warn!("the log does not take the lines of calls; some are lost");
        } else {
            drop(lines);
            metrics::counter!("crochet_log_lines_lost_total").increment(1);
        }
    }
}

impl Drop for CallLog {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // The thread sees that nobody pushes any more, writes what is left, and ends within a period.
        self.queue = Arc::new(Queue { lines: Mutex::new(Vec::new()), is_lossy: AtomicBool::new(false) });
        let _ = thread.join();
    }
}

fn write_lines(watched: &Weak<Queue>, format: LogFormat) {
    let mut text = String::new();
    loop {
        let Some(queue) = watched.upgrade() else { return };
        let lines = std::mem::take(&mut *queue.lines.lock());
        queue.is_lossy.store(false, Ordering::Relaxed);
        for line in &lines {
            match format {
                LogFormat::Json => json_line(&mut text, line),
                LogFormat::Pretty => pretty_line(&mut text, line),
            }
        }
        if !text.is_empty() {
            // A log that cannot be written is not worth a call.
            let _ = io::stderr().lock().write_all(text.as_bytes());
            text.clear();
        }
        // The last handle may be gone by now: what it pushed before is written in the next round.
        if Arc::strong_count(&queue) == 1 && queue.lines.lock().is_empty() {
            return;
        }
        drop(queue);
        thread::sleep(PERIOD);
    }
}

/// The fields of a line, in order; those that do not apply are left out. Every value is a number, a constant or a
/// checked id, so none needs escaping.
fn fields(line: &Line, mut add: impl FnMut(&str, &dyn std::fmt::Display, bool)) {
    if let Some(id) = &line.request_id {
        add("request_id", id, true);
    }
    add("client_request_id", &line.client_request_id, true);
    if let Some(listing) = &line.listing {
        add("listing", listing, true);
    }
    if let Some(buyer) = &line.buyer {
        add("buyer", buyer, true);
    }
    add("status", &line.status, false);
    add("outcome", &line.ended.name(), true);
    if let Some(code) = line.code {
        add("code", &code.row().code, true);
        add("blame", &code.row().blame.name(), true);
    }
    if let Some(status) = line.seller_status_code {
        add("seller_status_code", &status, false);
    }
    if line.attempt > 0 {
        add("attempt", &line.attempt, false);
    }
    add("charged_micros", &line.charged, false);
    if line.buyer_left {
        add("buyer_left", &true, false);
    }
    for (name, micros) in ["total_us", "payment_us", "store_us", "seller_us"].into_iter().zip(line.micros) {
        add(name, &micros, false);
    }
}

fn json_line(text: &mut String, line: &Line) {
    let _ = write!(text, "{{\"timestamp\":\"{}\",\"level\":\"INFO\",\"target\":\"call\"", line.at);
    fields(line, |name, value, is_text| {
        let _ = if is_text { write!(text, ",\"{name}\":\"{value}\"") } else { write!(text, ",\"{name}\":{value}") };
    });
    text.push_str("}\n");
}

fn pretty_line(text: &mut String, line: &Line) {
    let _ = write!(text, "{}  INFO call:", line.at);
    fields(line, |name, value, _| {
        let _ = write!(text, " {name}={value}");
    });
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            at: UnixMillis(0),
            client_request_id: "req_1".into(),
            request_id: None,
            listing: None,
            buyer: None,
            attempt: 0,
            status: 401,
            code: Some(Code::Unauthenticated),
            seller_status_code: None,
            ended: Ended::Refused,
            charged: Micros::ZERO,
            buyer_left: false,
            micros: [1, 2, 3, 4],
        }
    }

    #[test]
    fn a_line_is_json_and_leaves_out_what_does_not_apply() {
        let mut text = String::new();
        json_line(&mut text, &line());
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&value["status"], &value["code"]), (&401.into(), &"UNAUTHENTICATED".into()));
        assert!(value.get("listing").is_none());
        text.clear();
        pretty_line(&mut text, &line());
        assert!(text.contains(" status=401 outcome=refused code=UNAUTHENTICATED blame=buyer "), "{text}");
    }
}
