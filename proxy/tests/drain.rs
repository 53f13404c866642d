//! SIGTERM under load: readiness off, work in flight ends, exit 0.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use support::{Agent, Gateway, Seller, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn no_request_that_was_accepted_is_cut() {
    let (mut gateway, seller) = (Gateway::start(), Seller::start().await);
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/slow"), "0").await;
    let answered = Arc::new(AtomicUsize::new(0));
    let url = format!("{}/api/v1/gateway/{listing}", gateway.url);
    let clients: Vec<_> = (0..32)
        .map(|_| {
            let (url, key, answered) = (url.clone(), buyer.key.clone(), answered.clone());
            tokio::spawn(async move {
                let http = reqwest::Client::new();
                for _ in 0..200 {
                    let request = http.post(&url).bearer_auth(&key).header("content-type", "application/json");
                    match request.body("{}").send().await {
                        // An answer that began must be whole.
                        Ok(answer) => {
                            assert_eq!(answer.status(), 200);
                            answer.bytes().await.expect("whole");
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        // The listener is gone: nothing was accepted.
                        Err(error) if error.is_connect() => return,
                        // A kept connection was closed between two requests: reqwest could not send on it.
                        Err(error) => assert!(error.is_request(), "{error:?}"),
                    }
                }
            })
        })
        .collect();
    eventually("calls are under way", async || answered.load(Ordering::Relaxed) > 32).await;
    gateway.terminate();
    let status = tokio::task::spawn_blocking(move || (gateway.wait(), gateway)).await.expect("joined");
    assert_eq!(status.0.code(), Some(0), "{}", status.1.log());
    for client in clients {
        client.await.expect("no answer was cut");
    }
    assert_eq!(seller.calls(), answered.load(Ordering::Relaxed), "every call that reached the seller was answered");
}
