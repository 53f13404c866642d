//! HTTP/2 before somebody else's judge: <https://github.com/summerwind/h2spec>, strict. `CROCHET_H2SPEC` names the
//! program; `./dev test` installs it.
//!
//! Over TLS nothing may fail. In the clear one case cannot be met: "Sends invalid connection preface" (3.5/2) wants a
//! connection closed without a word, or with a frame. That port speaks HTTP/1.1 too, and what does not begin as HTTP/2
//! is an HTTP/1.1 request that is malformed: it is answered so, with 400, and then closed.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod edge;
mod support;

use std::process::Command;

use edge::{address, certificate::Certificate};
use support::Gateway;

struct Verdict {
    tests: u32,
    failures: Vec<String>,
    output: String,
}

/// `None`: there is no judge.
fn judge(gateway: &Gateway, more: &[&str]) -> Option<Verdict> {
    let Some(h2spec) = std::env::var_os("CROCHET_H2SPEC") else {
        eprintln!("SKIPPED: CROCHET_H2SPEC does not name h2spec; ./dev test does");
        return None;
    };
    let there = address(gateway);
    let output = Command::new(h2spec)
        .args(["--strict", "--timeout", "10", "--path", "/api/v1/listings", "--host", &there.ip().to_string()])
        .args(["--port", &there.port().to_string()])
        .args(more)
        .output()
        .expect("h2spec runs");
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let sums = output.lines().find(|line| line.contains(" tests, ")).unwrap_or_else(|| panic!("no sums: {output}"));
    let tests = sums.split(' ').next().and_then(|count| count.parse().ok()).expect("a count");
    let (_, failed) = output.split_once("Failures:").unwrap_or_default();
    let failures = failed.lines().filter_map(|line| line.trim().strip_prefix("× ")).map(str::to_string).collect();
    Some(Verdict { tests, failures, output })
}

#[test]
fn c8_h2spec_finds_nothing_over_tls() {
    let certificate = Certificate::new();
    let gateway = certificate.gateway(&[]);
    let Some(verdict) = judge(&gateway, &["--tls", "--insecure"]) else { return };
    assert!(verdict.failures.is_empty(), "{}", verdict.output);
    assert!(verdict.tests >= 146 && verdict.output.contains(" 0 failed"), "{}", verdict.output);
}

#[test]
fn c8_h2spec_finds_only_what_a_port_that_speaks_http_1_cannot_do_in_the_clear() {
    let gateway = Gateway::start();
    let Some(verdict) = judge(&gateway, &[]) else { return };
    assert_eq!(verdict.failures, ["2: Sends invalid connection preface"], "{}", verdict.output);
    assert!(verdict.tests >= 146 && verdict.output.contains(" 1 failed"), "{}", verdict.output);
}
