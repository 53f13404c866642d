//! Every metric once: name, type, labels with the values they may have, what it means, and what to do when it is bad.
//! The descriptions in `/metrics` and `docs/metrics.md` come from here, and a scrape of a running gateway is compared
//! with it in both directions.

use std::fmt::Write as _;

use metrics::{describe_counter, describe_gauge, describe_histogram};
use storage::embedded::{OPEN_STATES, OPERATIONS};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Fixed buckets.
    Histogram,
}

impl Kind {
    /// As Prometheus names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a label may say.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// One of these.
    OneOf(&'static [&'static str]),
    /// One value for each build.
    Build,
    /// The ids of the busiest listings, `telemetry.busiest_listings` of them.
    Busiest,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels and what they may say.
    pub labels: &'static [(&'static str, Values)],
    /// What it means.
    pub meaning: &'static str,
    /// What to do when it is bad.
    pub when_bad: &'static str,
}

const RAILS: Values = Values::OneOf(&["sandbox", "relay", "x402", "mpp", "free"]);
const BACKENDS: Values = Values::OneOf(&["embedded"]);

macro_rules! catalogue {
    ($($name:literal $kind:ident [$($label:literal: $values:expr),*] $meaning:literal $when_bad:literal)*) => {
        /// All of them, in the order of the documentation.
        pub const METRICS: &[Metric] = &[$(Metric {
            name: $name, kind: Kind::$kind, labels: &[$(($label, $values)),*], meaning: $meaning, when_bad: $when_bad,
        }),*];
    };
}

catalogue! {
    "crochet_gateway_requests_total" Counter
        ["outcome": Values::OneOf(&["refused", "completed", "released", "replayed", "pending"]),
         "status_class": Values::OneOf(&["1xx", "2xx", "3xx", "4xx", "5xx"])]
        "Gateway calls that have ended, by outcome and class of the answer's status."
        "Many `released` 5xx: sellers fail; see `crochet_circuit_state` and the lines of calls. Many `refused` 5xx: we do; see `crochet_store_up` and `crochet_ready`."
    "crochet_gateway_request_duration_seconds" Histogram
        ["phase": Values::OneOf(&["total", "admission", "payment", "store", "seller_ttfb", "seller_total"])]
        "Time of a gateway call, by phase; a phase that did not happen is not counted."
        "`store` slow: the disk; compare `crochet_store_operation_duration_seconds`. `seller_ttfb` slow: sellers. `payment` slow: the rail; compare `crochet_payment_verify_duration_seconds`."
    "crochet_gateway_inflight" Gauge []
        "Gateway calls being worked on."
        "Rising without more calls: something they wait for is slow; the phases tell which."
    "crochet_payments_total" Counter
        ["provider": RAILS,
         "result": Values::OneOf(&["quoted", "failed", "underpaid", "expired", "owed", "found", "taken_back", "orphan", "completed", "released", "replayed", "pending"])]
        "What became of payments, by rail: quoted, seen as failed, underpaid or expired, owed back, found when nobody had asked, taken back by the rail, outcomes that came after their claim was taken over, and how paid calls ended."
        "`taken_back` above zero: read `docs/money.md`. `orphan` above zero: this process stood still for long, or another took its claims; no money moved. `failed` or `underpaid` rising: the rail or a client is broken. `owed` rising: money waits to be given back; list it with `crochet admin stuck`."
    "crochet_payments_open" Gauge
        ["state": Values::OneOf(&OPEN_STATES)]
        "Payments that still may buy a call, by state; counted every 30 seconds, up to 100 000 of a kind."
        "`claimed` that does not fall: calls hang. `settled` that only rises: buyers pay and do not come for their calls, or are turned away; see `crochet_circuit_state`."
    "crochet_payment_verify_duration_seconds" Histogram ["provider": RAILS]
        "Time that a rail took to show its record of a payment, or to fail."
        "Slow or stopped: the provider; calls answer 202 or 503 and nothing is lost."
    "crochet_ledger_micros_total" Counter
        ["entry_type": Values::OneOf(&["gateway_payment", "seller_credit", "marketplace_fee"])]
        "Micro-dollars posted by completed calls since the start, by entry type."
        "`gateway_payment` is the sum of the other two; if not, stop and run the audit."
    "crochet_rate_limited_total" Counter
        ["scope": Values::OneOf(&["buyer", "seller", "route", "address", "account"])]
        "Requests refused with 429, by whose rate it was."
        "`address` rising: somebody guesses or floods. `seller` rising: a seller's own rate is too low for its buyers."
    "crochet_circuit_state" Gauge
        ["state": Values::OneOf(&["closed", "open", "half_open"])]
        "Listings of this node by the state of their circuit."
        "Many `open`: sellers fail, or this node cannot reach them. `/debug/state` lists them first."
    "crochet_circuit_changes_total" Counter
        ["state": Values::OneOf(&["open", "closed"])]
        "Circuits that opened, also again after a failed probe, and that closed."
        "`open` rising fast: a seller flaps; ask it."
    "crochet_slots_waiting" Gauge []
        "Calls that wait for a slot of a busy seller."
        "Steadily above zero: a seller's `max_concurrency` is too low for its buyers."
    "crochet_actor_active" Gauge []
        "Listing actors that live on this node."
        "At its bound `actors.gates_max`: raise it, or lower `actors.idle_stop`."
    "crochet_actor_mailbox_depth" Gauge []
        "Questions that wait in the mailboxes of all listing actors."
        "Steadily high: the actor threads are busy; raise `actors.arbiters`."
    "crochet_actor_mailbox_full_total" Counter []
        "Questions that a full mailbox refused with 503."
        "Rising: one listing is asked for more quotes than it can make; `/debug/state` shows which."
    "crochet_actor_restarts_total" Counter []
        "Listing actors that died of a fault and were replaced."
        "Any: a fault of ours; the log has the panic. No payment is lost."
    "crochet_actor_messages_total" Counter []
        "Questions that listing actors handled."
        "None while quotes are made: see `crochet_actor_active`."
    "crochet_store_up" Gauge ["backend": BACKENDS]
        "1 when a step written now would be durable, else 0."
        "0: nothing is acknowledged and calls get 503. Look at the disk (space, errors) and the log; it goes on by itself when it can."
    "crochet_store_operation_duration_seconds" Histogram
        ["backend": BACKENDS, "operation": Values::OneOf(OPERATIONS)]
        "Time of a store operation, its commit included."
        "Writes slow and reads fast: the disk's sync. Both slow: the machine."
    "crochet_store_group_commit_size" Histogram ["backend": BACKENDS]
        "Steps that one commit held."
        "Always at `storage.commit_max_steps`: the disk is the limit."
    "crochet_store_results_bytes" Gauge []
        "Bytes of kept results, those of larger answers in files."
        "Near `storage.results_max_bytes`: large answers are not kept any more, and a quarter above it nothing is sold; raise it, or lower `payments.result_ttl`."
    "crochet_upstream_connections" Gauge
        ["state": Values::OneOf(&["idle"])]
        "Connections to sellers, by state."
        "Many `idle`: lower `proxy.seller_idle_timeout`."
    "crochet_connections_open" Gauge []
        "Connections of the public address."
        "Near `proxy.connections_max`: raise it, or look who holds them."
    "crochet_connections_refused_total" Counter []
        "Connections that found no place."
        "Rising: too many in all, or one address without a valid key holds its share."
    "crochet_free_rows_lost_total" Counter []
        "History rows of free calls that the store did not take."
        "Any: the store was unavailable or too slow; no money is concerned."
    "crochet_log_lines_lost_total" Counter []
        "Lines of calls that the log did not take."
        "Any: whatever reads standard error is too slow."
    "crochet_ready" Gauge []
        "1 when `/readyz` says so, else 0."
        "0: `/readyz` gives the reasons."
    "crochet_build_info" Gauge ["version": Values::Build, "commit": Values::Build]
        "1; the labels name the build."
        "More than one at a time: a roll-out is under way, or stuck."
    "crochet_listing_calls_total" Counter ["listing": Values::Busiest]
        "Calls admitted to the busiest listings since their gates were made. Off unless `telemetry.busiest_listings` is set."
        "One far above the others: look whether its buyers are one and the same."
    "crochet_listing_running" Gauge ["listing": Values::Busiest]
        "Calls that run towards the sellers of the busiest listings. Off unless `telemetry.busiest_listings` is set."
        "At the seller's `max_concurrency`: it is slow, or its limit low."
    "process_cpu_seconds_total" Counter []
        "Processor time of the process, user and system."
        "A whole core for each worker: add workers or machines."
    "process_resident_memory_bytes" Gauge []
        "Memory of the process that is in use."
        "Growing without end: report it, with `/debug/state`."
    "process_virtual_memory_bytes" Gauge []
        "Address space of the process."
        "Of interest beside the resident memory only."
    "process_threads" Gauge []
        "Threads of the process."
        "It does not grow with work; if it does, report it."
    "process_open_fds" Gauge []
        "Open file descriptors."
        "Near `process_max_fds`: raise the limit, or lower `proxy.connections_max`."
    "process_max_fds" Gauge []
        "The limit of open file descriptors."
        "Below twice `proxy.connections_max`: raise it."
    "process_start_time_seconds" Gauge []
        "When the process started, in Unix seconds."
        "Changing: it is being restarted; the log says why."
}

/// The metric of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Tells the recorder what each metric means.
pub(super) fn describe() {
    for Metric { name, kind, meaning, .. } in METRICS {
        match kind {
            Kind::Counter => describe_counter!(*name, *meaning),
            Kind::Gauge => describe_gauge!(*name, *meaning),
            Kind::Histogram => describe_histogram!(*name, *meaning),
        }
    }
}

/// `docs/metrics.md`.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         Served as text for Prometheus at `/metrics` of the operations address (`telemetry.listen`), never of the public\n\
         one. Labels have the values listed here and no others: no series grows with users. Histograms have fixed buckets;\n\
         those of times go from 0.1 ms to 60 s. `deploy/prometheus.yml` scrapes them, `deploy/alerts.yml` watches them.\n\n\
         This page is written from `proxy/src/telemetry/catalogue.rs`; a test fails when it, the code and a running gateway\n\
         disagree.\n",
    );
    for metric in METRICS {
        let _ = writeln!(text, "\n## `{}`\n\n{}. {}\n", metric.name, metric.kind.name(), metric.meaning);
        for (label, values) in metric.labels {
            let _ = writeln!(text, "- `{label}`: {}", shown(*values));
        }
        let gap = if metric.labels.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{gap}When it is bad: {}", metric.when_bad);
    }
    text
}

fn shown(values: Values) -> String {
    match values {
        Values::OneOf(values) => values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" · "),
        Values::Build => "one value for each build".into(),
        Values::Busiest => "the ids of the busiest listings, at most `telemetry.busiest_listings`".into(),
    }
}
