//! One struct a section of `default.toml`, where each knob's why stands; the names are the same.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    Problem, Secret,
    edge::{self, Http2, Network, Tls, TrustedHeader},
    read::Reader,
    relay,
    rereads::{self, Rereads},
    secret::key_of_32_bytes,
    x402,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What a deployment permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Sandbox rail, http and loopback sellers; loopback only.
    Dev,
    /// None of these.
    Production,
}

/// The whole configuration.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each knob is described where it is set: default.toml")]
pub struct Config {
    pub mode: Mode,
    pub proxy: Proxy,
    pub control: Control,
    pub identity: Identity,
    pub limits: Limits,
    pub actors: Actors,
    pub payments: Payments,
    pub storage: Storage,
    pub telemetry: Telemetry,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[expect(missing_docs, reason = "each knob is described where it is set: default.toml")]
        pub struct $name { $(pub $field: $type),* }
    };
}

section!(
    /// The public address and its bounds.
    Proxy {
        listen: SocketAddr,
        public_url: String,
        hosts: Vec<String>,
        trusted_proxies: Vec<Network>,
        trusted_proxies_header: TrustedHeader,
        workers: usize,
        head_timeout: Duration,
        head_max_bytes: usize,
        head_max_fields: usize,
        idle_timeout: Duration,
        body_grace: Duration,
        body_min_bytes_per_second: u64,
        body_timeout: Duration,
        request_max_bytes: u64,
        write_timeout: Duration,
        connections_max: usize,
        connections_per_address_max: usize,
        held_max_bytes: u64,
        hold_bytes: usize,
        keep_bytes: u64,
        stream_hold_kept: Duration,
        stream_hold_max: Duration,
        event_keep_alive: Duration,
        seller_idle_timeout: Duration,
        seller_connections_max: usize,
        own_hosts: Vec<String>,
        name_servers: Vec<SocketAddr>,
        resolve_timeout: Duration,
        resolve_ttl: Duration,
        resolve_names_max: usize,
        seller_connect_timeout: Duration,
        seller_stall_timeout: Duration,
        seller_head_max_bytes: usize,
        seller_head_max_fields: usize,
        seller_interim_max: usize,
        seller_unpack_ratio: u32,
        seller_unpackers_max: usize,
        dev_ca: PathBuf,
        drain_grace: Duration,
        http2: Http2,
        tls: Tls,
    }
);
section!(
    /// The control API.
    Control {
        listen: String,
        workers: usize,
        body_max_bytes: usize,
        endpoint_test_timeout: Duration,
        search_matches_max: usize,
        roll_up_every: Duration,
        scores_every: Duration,
        review_window: Duration,
        terms_file: PathBuf,
    }
);
section!(
    /// Proof of work and challenges; wallets, humans, passwords, sessions.
    Identity {
        pow_difficulty: u8,
        pow_busy_per_minute: u32,
        pow_more: PowMore,
        challenge_ttl: Duration,
        wallets_max: usize,
        agents_max: usize,
        session_idle: Duration,
        session_max: Duration,
        session_noted_every: Duration,
        password_memory: u64,
        password_passes: u32,
        password_hashers: usize,
        password_waiting: usize,
    }
);
section!(
    /// Digits of proof of work on top of the usual, by purpose.
    PowMore { register: u8, recover: u8, listing: u8 }
);
section!(
    /// Request rates.
    Limits {
        control_reads_per_minute: u32,
        control_writes_per_minute: u32,
        auth_per_five_minutes: u32,
        logins_per_five_minutes: u32,
        gateway_per_second: u32,
        gateway_burst: u32,
        endpoint_tests_per_minute: u32,
        endpoint_tests_per_day: u32,
        dev_multiplier: u32,
    }
);
section!(
    /// Listing actors, their gates, and the read caches.
    Actors {
        arbiters: usize,
        mailbox: usize,
        idle_stop: Duration,
        gates_max: usize,
        gate_quotes_max: usize,
        unknown_listings_max: usize,
        unknown_listings_ttl: Duration,
        keys_max: usize,
        keys_ttl: Duration,
        key_use_every: Duration,
        buyers_max: usize,
        waiting_room: usize,
        waiting_time: Duration,
        circuit_window: Duration,
        circuit_min_calls: u32,
        circuit_failures_in_row: u32,
        circuit_pause_min: Duration,
        circuit_pause_max: Duration,
    }
);
section!(
    /// Quotes, payments, results.
    Payments {
        fee_rate_ppm: u32,
        quote_ttl: Duration,
        window: Duration,
        attempts_max: u32,
        open_quotes_max: u32,
        result_ttl: Duration,
        in_progress_wait: Duration,
        pending_retry_after: Duration,
        default_rail: DefaultRail,
        rereads: Rereads,
        sandbox: Sandbox,
        relay: Relay,
        x402: X402,
    }
);
section!(
    /// The sandbox rail.
    Sandbox {
        enabled: bool,
        recipient: String,
        reorg_after: Duration,
        route_minimum_micros: Vec<(String, u64)>,
    }
);
section!(
    /// The Relay rail.
    Relay {
        enabled: bool,
        base_url: String,
        api_key: Secret,
        recipient: String,
        timeout: Duration,
        quotes_per_minute: u32,
        pause: Duration,
        reread_pause: Duration,
        route_minimum_micros: Vec<(String, u64)>,
    }
);
section!(
    /// The x402 rail.
    X402 {
        enabled: bool,
        facilitator_url: String,
        api_key: Secret,
        signing_key: Secret,
        chain_url: Secret,
        chain_blocks: u64,
        pay_to: String,
        network: String,
        asset: String,
        asset_name: String,
        asset_version: String,
        max_timeout: Duration,
        margin: Duration,
        timeout: Duration,
        route_minimum_micros: Vec<(String, u64)>,
    }
);
section!(
    /// Where everything is kept.
    Storage {
        backend: Backend,
        path: PathBuf,
        master_key: Secret,
        previous_master_key: Secret,
        reseal_rows: usize,
        cache_bytes: u64,
        memtable_bytes: u64,
        journal_bytes: u64,
        commit_max_steps: usize,
        commit_max_bytes: u64,
        commit_queue_max: usize,
        commit_delay: Duration,
        commit_delay_steps: usize,
        commit_deadline: Duration,
        result_bucket: Duration,
        result_ttl: Duration,
        attempts_max: u32,
        results_max_bytes: u64,
        disk_free_min_bytes: u64,
        payment_cache: usize,
        unpaid_kept: Duration,
        changes_max: usize,
        backup_bytes_per_second: u64,
    }
);
section!(
    /// Logs and metrics.
    Telemetry {
        listen: SocketAddr,
        log: String,
        log_format: LogFormat,
        busiest_listings: usize,
        debug_listings_max: usize,
    }
);

/// The rail that a quote is made on when the buyer does not say and several are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultRail {
    /// The sandbox.
    Sandbox,
    /// Relay.
    Relay,
    /// x402.
    X402,
}

/// A storage implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One directory, one process.
    Embedded,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For the eye.
    Pretty,
}

fn fee_rate(text: &str) -> Result<u32, String> {
    let wanted = || "a decimal number from 0 to below 1 with at most 6 decimals, such as \"0.049\"".to_string();
    let decimals = text.strip_prefix("0.").or_else(|| text.strip_prefix('0').filter(|rest| rest.is_empty()));
    let decimals = decimals.filter(|rest| rest.len() <= 6 && rest.bytes().all(|b| b.is_ascii_digit()));
    format!("{:0<6}", decimals.ok_or_else(wanted)?).parse().map_err(|_| wanted())
}

impl Config {
    pub(crate) fn read(r: &Reader<'_>) -> Self {
        let mode = r.choice("mode", &[("dev", Mode::Dev), ("production", Mode::Production)], Mode::Dev);
        let payments = Payments {
            fee_rate_ppm: r.parsed("payments.fee_rate", fee_rate, 0),
            quote_ttl: r.duration("payments.quote_ttl", SECOND..=DAY),
            window: r.duration("payments.window", SECOND..=30 * DAY),
            attempts_max: r.number("payments.attempts_max", 1..=100),
            open_quotes_max: r.number("payments.open_quotes_max", 1..=1_000_000),
            result_ttl: r.duration("payments.result_ttl", HOUR..=30 * DAY),
            in_progress_wait: r.duration("payments.in_progress_wait", Duration::ZERO..=30 * SECOND),
            pending_retry_after: r.duration("payments.pending_retry_after", SECOND..=60 * SECOND),
            sandbox: Sandbox {
                enabled: r.flag("payments.sandbox.enabled"),
                recipient: r.text("payments.sandbox.recipient"),
                reorg_after: r.duration("payments.sandbox.reorg_after", Duration::ZERO..=30 * DAY),
                route_minimum_micros: r.numbers("payments.sandbox.route_minimum_micros"),
            },
            default_rail: r.choice(
                "payments.default_rail",
                &[("sandbox", DefaultRail::Sandbox), ("relay", DefaultRail::Relay), ("x402", DefaultRail::X402)],
                DefaultRail::Sandbox,
            ),
            rereads: rereads::read(r),
            relay: relay::read(r),
            x402: x402::read(r),
        };
        let digits = |key: &str| u8::try_from(r.count(key, 0..=4)).unwrap_or(0);
        Self {
            mode,
            proxy: Proxy {
                listen: r.address("proxy.listen"),
                public_url: r.parsed("proxy.public_url", public_url, String::new()),
                hosts: r.list("proxy.hosts", edge::host),
                trusted_proxies: r.list("proxy.trusted_proxies", str::parse),
                trusted_proxies_header: edge::trusted_header(r),
                workers: r.size("proxy.workers", 0..=256),
                head_timeout: r.duration("proxy.head_timeout", 100 * MS..=60 * SECOND),
                head_max_bytes: usize::try_from(r.bytes("proxy.head_max_bytes", KIB..=64 * KIB)).unwrap_or(16_384),
                head_max_fields: r.size("proxy.head_max_fields", 16..=256),
                idle_timeout: r.duration("proxy.idle_timeout", SECOND..=HOUR),
                body_grace: r.duration("proxy.body_grace", Duration::ZERO..=60 * SECOND),
                body_min_bytes_per_second: r.bytes("proxy.body_min_bytes_per_second", 1..=GIB),
                body_timeout: r.duration("proxy.body_timeout", 100 * MS..=600 * SECOND),
                request_max_bytes: r.bytes("proxy.request_max_bytes", KIB..=16 * MIB),
                write_timeout: r.duration("proxy.write_timeout", 100 * MS..=600 * SECOND),
                connections_max: r.size("proxy.connections_max", 1..=1_000_000),
                connections_per_address_max: r.size("proxy.connections_per_address_max", 1..=1_000_000),
                held_max_bytes: r.bytes("proxy.held_max_bytes", MIB..=64 * GIB),
                hold_bytes: usize::try_from(r.bytes("proxy.hold_bytes", KIB..=4 * MIB)).unwrap_or(262_144),
                keep_bytes: r.bytes("proxy.keep_bytes", KIB..=GIB),
                stream_hold_kept: r.duration("proxy.stream_hold_kept", Duration::ZERO..=60 * SECOND),
                stream_hold_max: r.duration("proxy.stream_hold_max", SECOND..=HOUR),
                event_keep_alive: r.duration("proxy.event_keep_alive", 100 * MS..=600 * SECOND),
                seller_idle_timeout: r.duration("proxy.seller_idle_timeout", 100 * MS..=4 * SECOND),
                seller_connections_max: r.size("proxy.seller_connections_max", 1..=65_536),
                own_hosts: r.parsed(
                    "proxy.own_hosts",
                    |text| Ok(parts(text).map(str::to_string).collect()),
                    Vec::new(),
                ),
                name_servers: r.parsed("proxy.name_servers", name_servers, Vec::new()),
                resolve_timeout: r.duration("proxy.resolve_timeout", 10 * MS..=2 * SECOND),
                resolve_ttl: r.duration("proxy.resolve_ttl", Duration::ZERO..=60 * SECOND),
                resolve_names_max: r.size("proxy.resolve_names_max", 1..=10_000_000),
                seller_connect_timeout: r.duration("proxy.seller_connect_timeout", 10 * MS..=60 * SECOND),
                seller_stall_timeout: r.duration("proxy.seller_stall_timeout", 10 * MS..=300 * SECOND),
                seller_head_max_bytes: usize::try_from(r.bytes("proxy.seller_head_max_bytes", KIB..=MIB))
                    .unwrap_or(65_536),
                seller_head_max_fields: r.size("proxy.seller_head_max_fields", 1..=128),
                seller_interim_max: r.size("proxy.seller_interim_max", 0..=8),
                seller_unpack_ratio: r.number("proxy.seller_unpack_ratio", 1..=2_000),
                seller_unpackers_max: r.size("proxy.seller_unpackers_max", 0..=65_536),
                dev_ca: PathBuf::from(r.text("proxy.dev_ca")),
                drain_grace: r.duration("proxy.drain_grace", Duration::ZERO..=300 * SECOND),
                http2: Http2::read(r),
                tls: Tls::read(r),
            },
            control: Control {
                listen: r.text("control.listen"),
                workers: r.size("control.workers", 1..=64),
                body_max_bytes: usize::try_from(r.bytes("control.body_max_bytes", KIB..=16 * MIB)).unwrap_or(262_144),
                endpoint_test_timeout: r.duration("control.endpoint_test_timeout", 100 * MS..=25 * SECOND),
                search_matches_max: r.size("control.search_matches_max", 100..=1_000_000),
                roll_up_every: r.duration("control.roll_up_every", 10 * MS..=30 * SECOND),
                scores_every: r.duration("control.scores_every", 10 * MS..=30 * SECOND),
                review_window: r.duration("control.review_window", HOUR..=3650 * DAY),
                terms_file: PathBuf::from(r.text("control.terms_file")),
            },
            identity: Identity {
                pow_difficulty: u8::try_from(r.count("identity.pow_difficulty", 1..=8)).unwrap_or(4),
                pow_busy_per_minute: r.number("identity.pow_busy_per_minute", 1..=1_000_000_000),
                pow_more: PowMore {
                    register: digits("identity.pow_more.register"),
                    recover: digits("identity.pow_more.recover"),
                    listing: digits("identity.pow_more.listing"),
                },
                challenge_ttl: r.duration("identity.challenge_ttl", 10 * SECOND..=HOUR),
                wallets_max: r.size("identity.wallets_max", 1..=1000),
                agents_max: r.size("identity.agents_max", 1..=10_000),
                session_idle: r.duration("identity.session_idle", 60 * SECOND..=365 * DAY),
                session_max: r.duration("identity.session_max", 60 * SECOND..=365 * DAY),
                session_noted_every: r.duration("identity.session_noted_every", SECOND..=DAY),
                password_memory: r.bytes("identity.password_memory", 64 * KIB..=GIB),
                password_passes: r.number("identity.password_passes", 1..=100),
                password_hashers: r.size("identity.password_hashers", 1..=64),
                password_waiting: r.size("identity.password_waiting", 0..=10_000),
            },
            limits: Limits {
                control_reads_per_minute: r.number("limits.control_reads_per_minute", 1..=1_000_000),
                control_writes_per_minute: r.number("limits.control_writes_per_minute", 1..=1_000_000),
                auth_per_five_minutes: r.number("limits.auth_per_five_minutes", 1..=1_000_000),
                logins_per_five_minutes: r.number("limits.logins_per_five_minutes", 1..=1_000_000),
                gateway_per_second: r.number("limits.gateway_per_second", 1..=1_000_000),
                gateway_burst: r.number("limits.gateway_burst", 1..=10_000_000),
                endpoint_tests_per_minute: r.number("limits.endpoint_tests_per_minute", 1..=1_000_000),
                endpoint_tests_per_day: r.number("limits.endpoint_tests_per_day", 1..=1_000_000),
                dev_multiplier: r.number("limits.dev_multiplier", 1..=100_000),
            },
            actors: Actors {
                arbiters: r.size("actors.arbiters", 1..=64),
                mailbox: r.size("actors.mailbox", 1..=65_536),
                idle_stop: r.duration("actors.idle_stop", SECOND..=DAY),
                gates_max: r.size("actors.gates_max", 16..=10_000_000),
                gate_quotes_max: r.size("actors.gate_quotes_max", 16..=10_000_000),
                unknown_listings_max: r.size("actors.unknown_listings_max", 16..=1_000_000),
                unknown_listings_ttl: r.duration("actors.unknown_listings_ttl", 100 * MS..=60 * SECOND),
                keys_max: r.size("actors.keys_max", 16..=10_000_000),
                keys_ttl: r.duration("actors.keys_ttl", 100 * MS..=600 * SECOND),
                key_use_every: r.duration("actors.key_use_every", SECOND..=HOUR),
                buyers_max: r.size("actors.buyers_max", 16..=10_000_000),
                waiting_room: r.size("actors.waiting_room", 0..=65_536),
                waiting_time: r.duration("actors.waiting_time", Duration::ZERO..=10 * SECOND),
                circuit_window: r.duration("actors.circuit_window", SECOND..=600 * SECOND),
                circuit_min_calls: r.number("actors.circuit_min_calls", 1..=10_000),
                circuit_failures_in_row: r.number("actors.circuit_failures_in_row", 1..=10_000),
                circuit_pause_min: r.duration("actors.circuit_pause_min", 10 * MS..=60 * SECOND),
                circuit_pause_max: r.duration("actors.circuit_pause_max", 10 * MS..=HOUR),
            },
            storage: Storage {
                backend: r.choice("storage.backend", &[("embedded", Backend::Embedded)], Backend::Embedded),
                path: PathBuf::from(r.text("storage.path")),
                // With their twins "storage.master_key_file" and "storage.previous_master_key_file".
                master_key: r.secret("storage.master_key", key_of_32_bytes),
                previous_master_key: r.secret("storage.previous_master_key", key_of_32_bytes),
                reseal_rows: r.size("storage.reseal_rows", 1..=4096),
                cache_bytes: r.bytes("storage.cache_bytes", MIB..=256 * GIB),
                memtable_bytes: r.bytes("storage.memtable_bytes", MIB..=GIB),
                journal_bytes: r.bytes("storage.journal_bytes", 24 * MIB..=16 * GIB),
                commit_max_steps: r.size("storage.commit_max_steps", 1..=65_536),
                commit_max_bytes: r.bytes("storage.commit_max_bytes", 64 * KIB..=GIB),
                commit_queue_max: r.size("storage.commit_queue_max", 1..=1_000_000),
                commit_delay: r.duration("storage.commit_delay", Duration::ZERO..=10 * MS),
                commit_delay_steps: r.size("storage.commit_delay_steps", 2..=65_536),
                commit_deadline: r.duration("storage.commit_deadline", 100 * MS..=600 * SECOND),
                result_bucket: r.duration("storage.result_bucket", 60 * SECOND..=DAY),
                result_ttl: payments.result_ttl,
                attempts_max: payments.attempts_max,
                results_max_bytes: r.bytes("storage.results_max_bytes", MIB..=1 << 50),
                disk_free_min_bytes: r.bytes("storage.disk_free_min_bytes", 0..=1 << 60),
                payment_cache: r.size("storage.payment_cache", 16..=10_000_000),
                unpaid_kept: r.duration("storage.unpaid_kept", HOUR..=30 * DAY),
                changes_max: r.size("storage.changes_max", 16..=10_000_000),
                backup_bytes_per_second: r.bytes("storage.backup_bytes_per_second", MIB..=64 * GIB),
            },
            telemetry: Telemetry {
                listen: r.address("telemetry.listen"),
                log: r.text("telemetry.log"),
                log_format: r.choice(
                    "telemetry.log_format",
                    &[("json", LogFormat::Json), ("pretty", LogFormat::Pretty)],
                    LogFormat::Pretty,
                ),
                busiest_listings: r.size("telemetry.busiest_listings", 0..=1_000),
                debug_listings_max: r.size("telemetry.debug_listings_max", 1..=100_000),
            },
            payments,
        }
    }

    /// Values that are fine alone and wrong together.
    pub(crate) fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, value: String, reason: &str| {
            problems.push(Problem { key: key.into(), value, reason: reason.into() });
        };
        match self.mode {
            Mode::Dev => {
                if !self.proxy.listen.ip().is_loopback() {
                    let reason = "dev mode listens on loopback only; set mode = \"production\" to serve others";
                    problem("proxy.listen", self.proxy.listen.to_string(), reason);
                }
            }
            Mode::Production => {
                if self.payments.sandbox.enabled {
                    problem("payments.sandbox.enabled", "true".into(), "production mode refuses the sandbox rail");
                }
                if self.storage.master_key.is_empty() {
                    let reason = "production mode needs a master key (or CROCHET__STORAGE__MASTER_KEY): what is secret \
                                  is kept sealed with it";
                    problem("storage.master_key_file", String::new(), reason);
                }
                if self.proxy.public_url.is_empty() {
                    problem("proxy.public_url", String::new(), "production mode needs the public URL");
                }
                if !self.proxy.dev_ca.as_os_str().is_empty() {
                    let value = self.proxy.dev_ca.display().to_string();
                    problem("proxy.dev_ca", value, "production mode trusts the web's authorities alone");
                }
            }
        }
        for (key, value, reason) in relay::contradictions(self)
            .into_iter()
            .chain(rereads::contradictions(self))
            .chain(x402::contradictions(self))
        {
            problem(key, value, reason);
        }
        if self.actors.circuit_pause_min > self.actors.circuit_pause_max {
            let value = humantime::format_duration(self.actors.circuit_pause_min).to_string();
            problem("actors.circuit_pause_min", value, "must not exceed actors.circuit_pause_max");
        }
        let identity = &self.identity;
        if identity.session_noted_every > identity.session_idle || identity.session_idle > identity.session_max {
            let value = humantime::format_duration(identity.session_idle).to_string();
            let reason = "must lie between identity.session_noted_every and identity.session_max";
            problem("identity.session_idle", value, reason);
        }
        if self.storage.master_key.is_empty() && !self.storage.previous_master_key.is_empty() {
            let reason = "needs storage.master_key beside it: a rotation has a key to go to";
            problem("storage.previous_master_key", "***".into(), reason);
        }
        if self.proxy.hold_bytes as u64 > self.proxy.keep_bytes {
            problem("proxy.hold_bytes", self.proxy.hold_bytes.to_string(), "must not exceed proxy.keep_bytes");
        }
        problems.extend(self.proxy.tls.contradictions(&self.proxy.public_url));
        problems
    }

    /// How request rates are multiplied: in dev mode by `limits.dev_multiplier`.
    #[must_use]
    pub fn limit(&self, rate: u32) -> u32 {
        match self.mode {
            Mode::Dev => rate.saturating_mul(self.limits.dev_multiplier),
            Mode::Production => rate,
        }
    }
}

/// What stands between commas.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn name_servers(text: &str) -> Result<Vec<SocketAddr>, String> {
    let parse = |part: &str| part.parse().map_err(|_| "addresses with ports, such as \"10.0.0.2:53\"".to_string());
    parts(text).map(parse).collect()
}

fn public_url(text: &str) -> Result<String, String> {
    let good = text.is_empty()
        || ["http://", "https://"].iter().any(|scheme| {
            text.strip_prefix(scheme).is_some_and(|rest| {
                !rest.is_empty() && !rest.ends_with('/') && rest.bytes().all(|b| b.is_ascii_graphic())
            })
        });
    if good { Ok(text.to_string()) } else { Err("an http or https URL without a slash at its end".to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect()
    }

    #[test]
    fn defaults_are_good() {
        let config = Config::from_parts(None, []).expect("defaults");
        assert_eq!(config.payments.fee_rate_ppm, 49_000);
        assert_eq!(config.payments.window, 7 * DAY);
        assert_eq!(config.proxy.head_max_bytes, 16 << 10);
        assert_eq!(config.limit(500), 50_000);
    }

    #[test]
    fn environment_wins_over_file_over_default() {
        let file = "[proxy]\nlisten = \"127.0.0.1:1111\"\nworkers = 3\n";
        let config = Config::from_parts(Some(file), environment(&[("CROCHET__PROXY__LISTEN", "127.0.0.1:2222")]));
        let config = config.expect("good");
        assert_eq!((config.proxy.listen.port(), config.proxy.workers), (2222, 3));
    }

    #[test]
    fn all_problems_at_once_by_key() {
        let file = "mode = \"prod\"\n[proxy]\nlisten = \"here\"\nhead_timeot = \"1s\"\nworkers = \"two\"\n\
                    [payments]\nfee_rate = \"1e-3\"\nquote_ttl = \"0s\"\n";
        let problems = Config::from_parts(Some(file), environment(&[("CROCHET__STORAGE__PATHS", "x")]));
        let problems = problems.expect_err("bad").0;
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        for key in [
            "mode",
            "proxy.listen",
            "proxy.head_timeot",
            "proxy.workers",
            "payments.fee_rate",
            "payments.quote_ttl",
            "CROCHET__STORAGE__PATHS",
        ] {
            assert!(keys.contains(&key), "{key} is not among {keys:?}");
        }
        let typo = problems.iter().find(|problem| problem.key == "proxy.head_timeot").expect("there");
        assert!(typo.reason.contains("did you mean head_timeout?"), "{}", typo.reason);
    }

    #[test]
    fn production_refuses_what_dev_permits() {
        let problems = Config::from_parts(Some("mode = \"production\""), []).expect_err("sandbox is on").to_string();
        assert!(problems.contains("payments.sandbox.enabled") && problems.contains("proxy.public_url"), "{problems}");
        let open = Config::from_parts(Some("[proxy]\nlisten = \"0.0.0.0:80\""), []);
        assert!(open.expect_err("dev").to_string().contains("loopback only"));
    }

    #[test]
    fn no_knob_is_read_that_the_defaults_lack_and_none_stands_unread() {
        // Reading the defaults finds no missing key; each key of the file is named in the sources.
        let files = [
            include_str!("sections.rs"),
            include_str!("edge.rs"),
            include_str!("relay.rs"),
            include_str!("rereads.rs"),
            include_str!("x402.rs"),
        ];
        let source = files.concat();
        let table: toml::Table = toml::from_str(crate::DEFAULT).expect("toml");
        for (section, value) in &table {
            let Some(keys) = value.as_table() else { continue };
            for (key, value) in keys {
                assert!(source.contains(&format!("\"{section}.{key}")), "{section}.{key} is never read");
                for inner in value.as_table().into_iter().flat_map(toml::Table::keys) {
                    let is_read = source.contains(&format!("\"{section}.{key}.{inner}\""));
                    assert!(is_read || key == "sandbox", "{section}.{key}.{inner} is never read");
                }
            }
        }
    }
}
