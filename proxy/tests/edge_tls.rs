//! TLS at the public address of a real process.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod edge;
mod support;

use std::io;

use edge::{
    address,
    certificate::Certificate,
    http2::Http2,
    raw::{Raw, answer_to},
};
use rustls::{
    ALL_VERSIONS,
    version::{TLS12, TLS13},
};
use support::{Gateway, eventually};

const LISTINGS: &str = "GET /api/v1/listings HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_chooses_http_2_or_http_1_in_the_handshake() {
    let certificate = Certificate::new();
    let gateway = certificate.gateway(&[]);
    let there = address(&gateway);
    for (offered, chosen) in
        [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        for versions in [ALL_VERSIONS, &[&TLS12], &[&TLS13]] {
            let stream = certificate.connect(there, offered, versions).await.expect("shaken hands");
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
            let status = if chosen == Some(b"h2") {
                let mut http2 = Http2::over(stream, "localhost".into(), &h2::client::Builder::new()).await;
                http2.get("/api/v1/listings", &[]).await.expect("an answer").status
            } else {
                Raw::new(stream).ask(LISTINGS).await.status
            };
            assert_eq!(status, 200, "{offered:?}");
        }
    }
    let odd = certificate.connect(there, &["spdy/3"], ALL_VERSIONS).await;
    assert!(odd.is_err(), "a protocol that is not spoken is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_tells_browsers_to_stay_with_tls_and_links_are_https() {
    let certificate = Certificate::new();
    let gateway = certificate.gateway(&[("CROCHET__PROXY__TLS__HSTS_MAX_AGE", "1d")]);
    let there = address(&gateway);
    let stream = certificate.connect(there, &[], ALL_VERSIONS).await.expect("shaken hands");
    let mut raw = Raw::new(stream);
    for path in ["/api/v1/listings", "/api/v1/gateway/nobody"] {
        let answer = raw.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert_eq!(answer.field("Strict-Transport-Security"), Some("max-age=86400"), "{path}");
    }
    let refused = raw.ask("GET /api/v1/gateway/nobody HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let docs = refused.json()["error"]["recovery"]["docs_url"].as_str().expect("a link").to_string();
    assert!(docs.starts_with("https://"), "{docs}");
    assert_eq!(raw.ask("GET / HTTP/1.1\n\n").await.field("Strict-Transport-Security"), Some("max-age=86400"));
    let stream = certificate.connect(there, &["h2"], ALL_VERSIONS).await.expect("shaken hands");
    let mut http2 = Http2::over(stream, "localhost".into(), &h2::client::Builder::new()).await;
    let answer = http2.get("/api/v1/listings", &[]).await.expect("an answer");
    assert_eq!(answer.field("strict-transport-security"), "max-age=86400");
    let plain = Gateway::start();
    let answer = answer_to(address(&plain), LISTINGS, false).await;
    assert_eq!(answer.field("Strict-Transport-Security"), None, "a promise that plain HTTP must not make");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_pair_is_taken_up_and_a_bad_one_is_not() {
    let mut certificate = Certificate::new();
    let gateway = certificate.gateway(&[("CROCHET__PROXY__TLS__RELOAD_INTERVAL", "100ms")]);
    let there = address(&gateway);
    let before = certificate.connect(there, &[], ALL_VERSIONS).await.expect("shaken hands");
    let good_key = std::fs::read(certificate.key_file()).expect("there");
    // A key of another certificate's: nothing changes for clients, and the log says why.
    std::fs::write(certificate.key_file(), rcgen::KeyPair::generate().expect("made").serialize_pem()).expect("written");
    eventually("the log complains", async || gateway.log().contains("proxy.tls.key_file is not the certificate's key"))
        .await;
    certificate.connect(there, &[], ALL_VERSIONS).await.expect("the pair before is in use");
    std::fs::write(certificate.file(), "not a certificate").expect("written");
    eventually("the log complains", async || gateway.log().contains("holds no certificate")).await;
    certificate.connect(there, &[], ALL_VERSIONS).await.expect("the pair before is in use");
    std::fs::write(certificate.key_file(), good_key).expect("written");
    certificate.renew();
    eventually("the new one is shown", async || certificate.connect(there, &[], ALL_VERSIONS).await.is_ok()).await;
    let mut before = Raw::new(before);
    assert_eq!(before.ask(LISTINGS).await.status, 200, "connections stay");
    assert_eq!(gateway.log().matches("the certificate stays as it was").count(), 2, "each bad pair is told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_tls_is_told_or_dropped_in_time() {
    let certificate = Certificate::new();
    let gateway = certificate.gateway(&[("CROCHET__PROXY__TLS__HANDSHAKE_TIMEOUT", "200ms")]);
    let there = address(&gateway);
    let mut plain = Raw::connect(there).await;
    let told = plain.ask(LISTINGS).await;
    assert_eq!((told.status, told.field("Connection")), (400, Some("close")));
    assert!(String::from_utf8_lossy(&told.body).contains("https"));
    let mut noise = Raw::connect(there).await;
    noise.send([0x80, 0x2e, 0x01]).await;
    assert!(noise.is_closed().await);
    for first in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut silent = Raw::connect(there).await;
        silent.send(first).await;
        assert!(silent.is_closed().await, "{first:?}");
    }
    let stream = certificate.connect(there, &["http/1.1"], ALL_VERSIONS).await.expect("shaken hands");
    let mut prior = Raw::new(stream);
    prior.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(prior.is_closed().await, "who chose HTTP/1.1 does not get HTTP/2");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_before_1_2_are_not_spoken() {
    let certificate = Certificate::new();
    let gateway = certificate.gateway(&[]);
    // The greeting of a client that knows TLS 1.1 and nothing later, one suite of that time, and modern signatures.
    let signatures = [0, 10, 0, 13, 0, 6, 0, 4, 4, 3, 8, 4];
    let head = [0x16, 3, 1, 0, 57, 1, 0, 0, 53, 3, 2];
    let hello = [&head[..], &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0], &signatures].concat();
    let mut old = Raw::connect(address(&gateway)).await;
    old.send(hello).await;
    while old.more().await {}
    // A fatal alert: protocol_version (70).
    assert_eq!(old.seen.first(), Some(&0x15), "{:?}", old.seen);
    assert_eq!(old.seen.get(5..7), Some(&[2, 70][..]), "{:?}", old.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_a_usable_pair_says_what_is_wrong() {
    let certificate = Certificate::new();
    let start = |file: &std::path::Path, key: &std::path::Path| -> io::Result<(Option<i32>, String)> {
        let data = tempfile::TempDir::new()?;
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_crochet"))
            .arg("serve")
            .env("CROCHET__STORAGE__PATH", data.path())
            .env("CROCHET__PROXY__LISTEN", "127.0.0.1:0")
            .env("CROCHET__TELEMETRY__LISTEN", "127.0.0.1:0")
            .env("CROCHET__PROXY__TLS__ENABLED", "true")
            .env("CROCHET__PROXY__TLS__CERTIFICATE_FILE", file)
            .env("CROCHET__PROXY__TLS__KEY_FILE", key)
            .output()?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
    };
    let (code, told) = start("/nowhere.pem".as_ref(), &certificate.key_file()).expect("ran");
    assert!(code == Some(1) && told.contains("proxy.tls.certificate_file: /nowhere.pem"), "{code:?} {told}");
    let (code, told) = start(&certificate.file(), &certificate.file()).expect("ran");
    assert!(code == Some(1) && told.contains("proxy.tls.key_file holds no private key"), "{code:?} {told}");
}
