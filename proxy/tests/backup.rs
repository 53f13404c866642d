//! `crochet backup` of a gateway that serves, and `crochet restore`: who paid before the copy finds the same answer in
//! the restored store, to the byte, and buys on.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use support::{Agent, Gateway, Seller};

const BODY: &str = r#"{"task":"run"}"#;
const KEY: &str = "3333333333333333333333333333333333333333333333333333333333333333";

/// Runs `crochet` for the store in `data`, off this test's runtime.
async fn crochet(data: &Path, arguments: [&str; 2]) -> Output {
    let (data, arguments) = (data.to_path_buf(), arguments.map(str::to_string));
    let run = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crochet"));
        command.args(arguments).env("CROCHET__STORAGE__PATH", data).env("CROCHET__STORAGE__MASTER_KEY", KEY);
        command.output().expect("crochet runs")
    };
    tokio::task::spawn_blocking(run).await.expect("ran")
}

#[track_caller]
fn said(output: &Output, is_success: bool) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, fault) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.success(), is_success, "{out}{fault}");
    if is_success { out } else { fault }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_copied_while_it_serves_and_goes_on_from_the_copy() {
    let mut gateway = Gateway::with(&[("CROCHET__STORAGE__MASTER_KEY", KEY)]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/ok"), "1").await;
    let (done, waiting) =
        (buyer.buy(&gateway, &listing, BODY, &[]).await, buyer.buy(&gateway, &listing, "[1]", &[]).await);
    let answer = buyer.redeem(&gateway, &listing, BODY, &done).await.expect(200).bytes.clone();

    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy");
    let copy_text = copy.to_str().expect("text").to_string();
    let told = said(&crochet(&gateway.data(), ["backup", &copy_text]).await, true);
    assert!(told.contains("are copied into"), "{told}");
    let again = said(&crochet(&gateway.data(), ["backup", &copy_text]).await, false);
    assert!(again.contains("exists"), "{again}");
    let later = buyer.buy(&gateway, &listing, "[2]", &[]).await;
    buyer.redeem(&gateway, &listing, "[2]", &later).await.expect(200);
    assert!(!holds(&copy, &seller.url("/ok")), "the private URL is sealed in the copy too");

    gateway.kill();
    let in_the_way = said(&crochet(&gateway.data(), ["restore", &copy_text]).await, false);
    assert!(in_the_way.contains("not empty"), "{in_the_way}");
    fs::rename(gateway.data(), folder.path().join("lost")).expect("moved away");
    let told = said(&crochet(&gateway.data(), ["restore", &copy_text]).await, true);
    assert!(told.contains("are restored into"), "{told}");
    gateway.restart();
    let replayed = buyer.redeem(&gateway, &listing, BODY, &done).await;
    assert_eq!((replayed.status, &replayed.bytes), (200, &answer));
    assert_eq!(seller.calls(), 2, "no call is made again for what was answered");
    buyer.redeem(&gateway, &listing, "[1]", &waiting).await.expect(200);
    let gone = buyer.redeem(&gateway, &listing, "[2]", &later).await;
    assert_eq!(gone.status, 404, "what was bought after the copy is not in it: {}", gone.json);
    let fresh = buyer.buy(&gateway, &listing, "[3]", &[]).await;
    buyer.redeem(&gateway, &listing, "[3]", &fresh).await.expect(200);
}

/// Whether any file below `folder` holds this text.
fn holds(folder: &Path, text: &str) -> bool {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("entry").path());
    entries.into_iter().any(|path: PathBuf| {
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = fs::read(path).expect("read");
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
