//! What operators see: metrics, one line a call, and the logs of everything else. The hot path counts and hands a line
//! over; formatting and writing happen on a thread of their own.

mod call_log;
pub mod catalogue;
mod lines;
pub mod operations;
mod scrape;

use std::time::Duration;

use config::Config;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use storage::model::Rail;
use tracing_subscriber::EnvFilter;

use crate::trace::{Ended, Phase, Trace};
use call_log::CallLog;
use lines::Lines;

/// The target that the lines of calls are filtered by.
pub const CALL_TARGET: &str = "call";

/// Seconds: fit for a refusal from memory and for a seller that takes a minute.
const BUCKETS: [f64; 18] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
const SIZES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Something in this process records metrics already.
    #[error("metrics are recorded by somebody else already")]
    Taken,
    /// The exporter refused its settings.
    #[error("metrics cannot be exported: {0}")]
    Exporter(#[from] BuildError),
    /// The filter of `telemetry.log` cannot be read.
    #[error("telemetry.log is not a filter: {0}")]
    Filter(String),
    /// The thread that writes the lines of calls could not be started.
    #[error("the log's thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Begins to record metrics; before anything that keeps handles is made.
///
/// # Errors
/// [`TelemetryError`].
pub fn record_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)?
        .set_buckets_for_metric(Matcher::Full("crochet_store_group_commit_size".into()), &SIZES)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Taken)?;
    Ok(handle)
}

/// Begins to log: standard error, lines of JSON or for the eye.
///
/// # Errors
/// [`TelemetryError::Filter`].
pub fn log(config: &Config) -> Result<(), TelemetryError> {
    let bad = |error: tracing_subscriber::filter::ParseError| TelemetryError::Filter(error.to_string());
    let mut filter = EnvFilter::try_new(&config.telemetry.log).map_err(bad)?;
    // What operators do, and what a mode permits, is logged whatever else is. What resolves names tells them, and where
    // a seller is stands in no log.
    let always = ["admin=info", "crochet=warn", "hickory_resolver=off", "hickory_net=off", "hickory_proto=off"];
    for directive in always {
        filter = filter.add_directive(directive.parse().map_err(bad)?);
    }
    // Where standard error cannot be written (a full disk), saying so there would end the thread that logs.
    let lines =
        tracing_subscriber::fmt().log_internal_errors(false).event_format(Lines::new(config.telemetry.log_format));
    // A second log in one process (tests) keeps the first.
    let _ = lines.with_env_filter(filter).with_writer(std::io::stderr).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let said = panic.payload_as_str().unwrap_or_default();
        tracing::error!(target: "panic", place, said, "a thread panicked");
    }));
    Ok(())
}

/// The handles of the data plane, made once.
pub struct Telemetry {
    requests: Vec<Counter>,
    inflight: Gauge,
    phases: [Histogram; 6],
    payments: [[Counter; 4]; 5],
    ledger: [Counter; 3],
    log: CallLog,
}

const ENDS: [Ended; 5] = [Ended::Refused, Ended::Completed, Ended::Released, Ended::Replayed, Ended::Pending];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const PHASES: [&str; 6] = ["total", "admission", "payment", "store", "seller_ttfb", "seller_total"];
const RAILS: [Rail; 5] = [Rail::Sandbox, Rail::Relay, Rail::X402, Rail::Mpp, Rail::Free];
/// What the door sees become of a payment; the rest is counted where it is decided.
const RESULTS: [&str; 4] = ["completed", "released", "replayed", "pending"];
const ENTRIES: [&str; 3] = ["gateway_payment", "seller_credit", "marketplace_fee"];

impl Telemetry {
    /// Makes the handles and starts the thread that writes the lines of calls.
    ///
    /// # Errors
    /// [`TelemetryError::Thread`].
    pub fn start(config: &Config) -> Result<Self, TelemetryError> {
        catalogue::describe();
        build_info();
        let request = |ended: Ended, class: &'static str| counter!("crochet_gateway_requests_total", "outcome" => ended.name(), "status_class" => class);
        let phase = |name: &'static str| histogram!("crochet_gateway_request_duration_seconds", "phase" => name);
        let payment = |rail: Rail| {
            RESULTS.map(|result| counter!("crochet_payments_total", "provider" => rail.name(), "result" => result))
        };
        let entry = |name: &'static str| counter!("crochet_ledger_micros_total", "entry_type" => name);
        Ok(Self {
            requests: ENDS.iter().flat_map(|ended| CLASSES.map(|class| request(*ended, class))).collect(),
            inflight: gauge!("crochet_gateway_inflight"),
            phases: PHASES.map(phase),
            payments: RAILS.map(payment),
            ledger: ENTRIES.map(entry),
            log: CallLog::start(config.telemetry.log_format)?,
        })
    }

    /// A call is being worked on until the guard is dropped.
    pub fn call_began(&self) -> Inflight {
        self.inflight.increment(1.0);
        Inflight(self.inflight.clone())
    }

    /// A call has ended: counted, and its line handed over.
    pub fn call_ended(&self, trace: &Trace, client_request_id: &str) {
        let outcome = ENDS.iter().position(|ended| *ended == trace.end()).unwrap_or_default();
        let class = usize::from(trace.status() / 100).clamp(1, 5) - 1;
        if let Some(requests) = self.requests.get(outcome * CLASSES.len() + class) {
            requests.increment(1);
        }
        self.count_phases(trace);
        self.count_money(trace);
        if tracing::enabled!(target: CALL_TARGET, tracing::Level::INFO) {
            self.log.push(trace, client_request_id);
        }
    }

    fn count_phases(&self, trace: &Trace) {
        let spent = [
            trace.total(),
            trace.phase(Phase::Auth) + trace.phase(Phase::Actor),
            trace.phase(Phase::Payment),
            trace.phase(Phase::Store),
            trace.first_byte(),
            trace.phase(Phase::Seller),
        ];
        for (histogram, spent) in self.phases.iter().zip(spent) {
            if spent > Duration::ZERO {
                histogram.record(spent.as_secs_f64());
            }
        }
    }

    fn count_money(&self, trace: &Trace) {
        let Some((rail, fee_rate)) = trace.money() else { return };
        let result = match trace.end() {
            Ended::Completed => 0,
            Ended::Released => 1,
            Ended::Replayed => 2,
            Ended::Pending => 3,
            // Whatever refused it says so by its code.
            Ended::Refused => return,
        };
        let place = RAILS.iter().position(|known| *known == rail);
        let results = place.and_then(|place| self.payments.get(place));
        if let Some(counter) = results.and_then(|results| results.get(result)) {
            counter.increment(1);
        }
        if trace.end() == Ended::Completed {
            let split = fee_rate.split(trace.charged());
            for (entry, amount) in self.ledger.iter().zip([split.charged, split.seller, split.fee]) {
                entry.increment(u64::try_from(amount.0).unwrap_or_default());
            }
        }
    }
}

/// A call under way, counted.
pub struct Inflight(Gauge);

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

fn build_info() {
    gauge!(
        "crochet_build_info",
        "version" => env!("CARGO_PKG_VERSION"),
        "commit" => option_env!("CROCHET_COMMIT").unwrap_or("unknown"),
    )
    .set(1.0);
    // Losses are counted from zero: what was never seen cannot be told from what is not there.
    for name in ["crochet_free_rows_lost_total", "crochet_log_lines_lost_total"] {
        counter!(name).increment(0);
    }
}
