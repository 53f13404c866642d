//! Slow clients by the thousand, made by somebody else's tool: <https://github.com/shekyan/slowhttptest>. They are
//! closed in time, a probe beside them is always answered, and memory stays where it was. For the nightly tier: it takes
//! a minute, and the tool is Debian's package `slowhttptest`.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod edge;
mod support;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use edge::{address, metric, raw::Raw, resident_kib};
use support::Gateway;

const CONNECTIONS: u64 = 1000;
/// From when all are connected.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);
const GROWTH_MAX_KIB: u64 = 64 << 10;
const PROBE: &str = "GET /api/v1/listings HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The tool at work; ended with the test.
struct Attack(Child);

impl Drop for Attack {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `None`: not this time, and why.
fn attack(gateway: &Gateway, mode: &[&str]) -> Option<Attack> {
    if std::env::var_os("CROCHET_NIGHTLY").is_none() {
        eprintln!("SKIPPED: slow clients are for the nightly tier; ./dev test --nightly runs it");
        return None;
    }
    let path = if mode.contains(&"-X") { "/openapi.json" } else { "/api/v1/auth/challenge" };
    let started = Command::new("slowhttptest")
        .args(mode)
        .args(["-c", "1000", "-r", "1000", "-l", "60", "-i", "2", "-u"])
        .arg(format!("{}{path}", gateway.url))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    match started {
        Ok(child) => Some(Attack(child)),
        Err(error) => {
            eprintln!("SKIPPED: slowhttptest does not start: {error}");
            None
        }
    }
}

/// Probes all the while; all slow ones must have come and gone in time.
async fn survive(name: &str, gateway: &Gateway, mode: &[&str]) {
    let before = resident_kib(gateway);
    let Some(attack) = attack(gateway, mode) else { return };
    let (mut peak, mut grown, mut full_at, mut probes, mut slowest) = (0, 0, None, 0, Duration::ZERO);
    loop {
        let asked = Instant::now();
        let answer = Raw::connect(address(gateway)).await.ask(PROBE).await;
        assert_eq!(answer.status, 200, "{name}: the probe");
        (probes, slowest) = (probes + 1, slowest.max(asked.elapsed()));
        let open = metric(gateway, "crochet_connections_open").await;
        grown = grown.max(resident_kib(gateway).saturating_sub(before));
        peak = peak.max(open);
        if open >= CONNECTIONS && full_at.is_none() {
            full_at = Some(Instant::now());
        }
        if let Some(since) = full_at {
            if open <= CONNECTIONS / 100 {
                let took = since.elapsed();
                eprintln!(
                    "{name}: {peak} connections, gone after {took:?}; {grown} KiB more; {probes} probes, the slowest {slowest:?}"
                );
                break;
            }
            assert!(since.elapsed() < CLOSED_WITHIN, "{name}: {open} are open still");
        } else {
            assert!(asked.elapsed() < CLOSED_WITHIN && probes < 10_000, "{name}: {peak} connections at most");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(attack);
    assert!(grown <= GROWTH_MAX_KIB, "{name}: {grown} KiB more");
    assert!(slowest < Duration::from_secs(5), "{name}: a probe took {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_d2_d3_a_thousand_slow_clients_are_closed_and_harm_nobody() {
    let gateway = Gateway::start();
    survive("slow heads", &gateway, &["-H"]).await;
    survive("slow bodies", &gateway, &["-B", "-s", "8192"]).await;
    // A long text: of a short one all lies in the attacker's own kernel, and its connection is idle, as any kept one.
    survive("slow readers", &gateway, &["-X", "-w", "1", "-y", "10", "-n", "5", "-z", "32", "-k", "3"]).await;
}
