//! What the tests of the public address share: a client that sends any bytes, and one that speaks HTTP/2.
#![allow(
    dead_code,
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test binary uses its own part of this"
)]

pub mod certificate;
pub mod http1;
pub mod http2;
pub mod raw;

use std::{net::SocketAddr, time::Duration};

use super::support::Gateway;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn address(gateway: &Gateway) -> SocketAddr {
    gateway.url.trim_start_matches("http://").parse().expect("an address")
}

/// What a client that speaks HTTP/2 says first.
pub fn http2_preface() -> &'static [u8] {
    proxy::http2::PREFACE
}

/// A figure of the operations port's.
pub async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let text =
        reqwest::get(format!("{}/metrics", gateway.operations)).await.expect("there").text().await.expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name).filter(|rest| rest.starts_with(' ')));
    line.map_or(0, |value| value.trim().split('.').next().and_then(|value| value.parse().ok()).expect("a number"))
}

/// What a process holds in memory, in KiB.
pub fn resident_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("running");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
