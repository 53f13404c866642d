//! A disk that takes no more: nothing is acknowledged that is not durable, the gateway says so everywhere, no seller is
//! called, and service resumes by itself, in the same process, with whole books.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use reqwest::{Client, Method};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::json;
use support::{
    Agent, Gateway, Seller,
    agent::{Answer, send},
    eventually,
    operations::{Scrape, look},
};

const BODY: &str = r#"{"task":"run"}"#;
const DONE: usize = 6;
const WAITING: usize = 6;

/// The gateway as a whole, before, while and after its disk is full.
struct Story {
    gateway: Gateway,
    seller: Seller,
    owner: Agent,
    buyer: Agent,
    listing: String,
    done: Vec<(String, Vec<u8>)>,
    waiting: Vec<String>,
}

impl Story {
    /// Some calls are completed, some are paid and wait.
    async fn begin(gateway: Gateway) -> Self {
        let seller = Seller::start().await;
        let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
        let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
        let mut ids = Vec::new();
        for n in 0..DONE + WAITING {
            ids.push(buyer.buy(&gateway, &listing, BODY, &[("Idempotency-Key", &format!("n{n}"))]).await);
        }
        let waiting = ids.split_off(DONE);
        let mut done = Vec::new();
        for id in ids {
            let answer = buyer.redeem(&gateway, &listing, BODY, &id).await;
            done.push((id, answer.expect(200).bytes.clone()));
        }
        Self { gateway, seller, owner, buyer, listing, done, waiting }
    }

    async fn redeem(&self, id: &str) -> Answer {
        self.buyer.redeem(&self.gateway, &self.listing, BODY, id).await
    }

    async fn health(&self) -> Answer {
        send(&Client::new(), Method::GET, format!("{}/api/v1/health", self.gateway.url), "", &[], None).await
    }

    /// Whatever is asked for, the disk is full: 503, the seller is not called, and everybody can see it.
    async fn is_refused(&self) {
        let calls = self.seller.calls();
        // Until something is written nobody can know.
        let first = self.redeem(&self.waiting[0]).await;
        self.says_no(&first);
        eventually("readiness is off", async || look(&self.gateway, "/readyz").await.status == 503).await;
        for id in &self.waiting {
            let answer = self.redeem(id).await;
            self.says_no(&answer);
            assert_eq!(answer.json["error"]["recovery"]["next_action"], "retry_same_payment");
        }
        let sale = self.buyer.call(&self.gateway, &self.listing, r#"{"task":"another"}"#, &[]).await;
        self.says_no(&sale);
        let health = self.health().await;
        health.refused(503, "STORE_UNAVAILABLE");
        assert_eq!(
            (&health.json["data"]["status"], &health.json["data"]["checks"]["store"]),
            (&json!("degraded"), &json!("unavailable"))
        );
        let ready = look(&self.gateway, "/readyz").await;
        assert_eq!((ready.status, &ready.json["ready"]), (503, &json!(false)));
        assert!(
            ready.json["reasons"][0].as_str().is_some_and(|reason| reason.starts_with("store: ")),
            "{}",
            ready.json
        );
        look(&self.gateway, "/livez").await.expect(200);
        let scrape = Scrape::of(&self.gateway).await;
        assert_eq!((scrape.sum("crochet_store_up", &[]), scrape.sum("crochet_ready", &[])), (0.0, 0.0));
        assert_eq!(self.seller.calls(), calls, "no seller was called for what cannot be recorded");
    }

    fn says_no(&self, answer: &Answer) {
        answer.refused(503, "STORE_UNAVAILABLE");
        assert_eq!(answer.details()["seller_endpoint_called"], false);
        let place = answer.details()["payment_state"].as_str().expect("the money's place is said");
        assert!(["none", "quoted", "settled", "unknown"].contains(&place), "{place}");
        assert!(!answer.header("retry-after").is_empty());
    }

    /// The disk has room again: the same process serves, and the books are whole.
    async fn resumes(mut self) {
        eventually("the store is open again by itself", async || look(&self.gateway, "/readyz").await.status == 200)
            .await;
        assert_eq!(self.health().await.expect(200).json["data"]["checks"]["store"], "ok");
        assert_eq!(Scrape::of(&self.gateway).await.sum("crochet_store_up", &[]), 1.0);
        for id in self.waiting.clone() {
            let answer = self.redeem(&id).await;
            self.done.push((id, answer.expect(200).bytes.clone()));
        }
        for (id, bytes) in &self.done {
            let again = self.redeem(id).await;
            assert_eq!(&again.expect(200).bytes, bytes, "what was acknowledged is answered again");
            assert_eq!(again.header("x-crochet-replayed"), "true");
        }
        let all = DONE + WAITING;
        assert_eq!(self.seller.calls(), all, "each payment bought one call");
        assert_eq!(self.buyer.ledger(&self.gateway).await.len(), all, "one posting each: none lost, none doubled");
        assert_eq!(self.owner.ledger(&self.gateway).await.len(), all);
        let rows = self.buyer.requests(&self.gateway).await;
        assert_eq!(rows.iter().filter(|row| row["status"] == "completed").count(), all);
        // And a kill -9 changes nothing of it.
        self.gateway.kill_and_restart();
        for (id, bytes) in &self.done {
            assert_eq!(&self.redeem(id).await.expect(200).bytes, bytes);
        }
        assert_eq!(self.buyer.ledger(&self.gateway).await.len(), all);
    }
}

/// Lets a process write no file past `bytes`; `None`: any.
fn limit_files(pid: u32, bytes: Option<u64>) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process");
    let maximum = getrlimit(Resource::Fsize).maximum;
    prlimit(Some(pid), Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).expect("a limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_fail_are_told_truly_and_service_resumes_without_a_restart() {
    // The signal ignored, a write past the limit fails as on a full disk.
    let gateway = Gateway::wrapped(r#"trap "" XFSZ; exec "$@""#, &[]);
    let pid = gateway.pid();
    let story = Story::begin(gateway).await;
    limit_files(pid, Some(4_096));
    story.is_refused().await;
    limit_files(pid, None);
    assert_eq!(story.gateway.pid(), pid);
    story.resumes().await;
}

/// Whether this user may mount a file system of its own, out of everybody's sight.
fn may_mount() -> bool {
    let mut tried = Command::new("unshare");
    tried.args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/tmp"]);
    tried.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_system_is_told_truly_and_service_resumes_without_a_restart() {
    if !may_mount() {
        eprintln!("SKIPPED: a file system of our own cannot be mounted here");
        return;
    }
    // A restart would find an empty file system: this directory lives as long as the process does.
    let mount = r#"mkdir -p "$DATA" && exec unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=96m tmpfs "$DATA" && exec "$@"' sh "$@""#;
    let knobs = [
        ("CROCHET__STORAGE__JOURNAL_BYTES", "24MiB"),
        ("CROCHET__STORAGE__MEMTABLE_BYTES", "1MiB"),
        ("CROCHET__STORAGE__CACHE_BYTES", "1MiB"),
        // It sells until the disk is full.
        ("CROCHET__STORAGE__DISK_FREE_MIN_BYTES", "0B"),
    ];
    let gateway = Gateway::wrapped(mount, &knobs);
    let filler = inside(&gateway).join("filler");
    let mut story = Story::begin(gateway).await;
    // The journal has room left that it took before, and a store that is opened again may free some: take it all.
    let (mut n, mut refused) = (0, 0);
    while refused < 20 {
        fill(&filler);
        let sale = story.buyer.call(&story.gateway, &story.listing, &format!("{{\"fill\":{n}}}"), &[]).await;
        refused = if sale.status == 402 { 0 } else { refused + 1 };
        n += 1;
        assert!(n < 100_000, "the file system is never full");
    }
    story.is_refused().await;
    std::fs::remove_file(&filler).expect("room again");
    let pid = story.gateway.pid();
    eventually("the store is open again by itself", async || look(&story.gateway, "/readyz").await.status == 200).await;
    assert_eq!(story.gateway.pid(), pid);
    for id in story.waiting.clone() {
        story.done.push((id.clone(), story.redeem(&id).await.expect(200).bytes.clone()));
    }
    for (id, bytes) in &story.done {
        assert_eq!(&story.redeem(id).await.expect(200).bytes, bytes);
    }
    assert_eq!(story.seller.calls(), DONE + WAITING);
    assert_eq!(story.buyer.ledger(&story.gateway).await.len(), DONE + WAITING);
    assert_eq!(story.owner.ledger(&story.gateway).await.len(), DONE + WAITING);
}

/// The gateway's data directory, as the gateway sees it.
fn inside(gateway: &Gateway) -> PathBuf {
    let data = gateway.data();
    PathBuf::from(format!("/proc/{}/root", gateway.pid())).join(data.strip_prefix("/").expect("absolute"))
}

/// Writes until nothing more is taken.
fn fill(filler: &std::path::Path) {
    let mut file = std::fs::File::options().create(true).append(true).open(filler).expect("a file");
    let mut piece = vec![7; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}
