//! Streams of events: passed on as they come, with the receipt as the last event.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    Agent, Gateway, Script, eventually,
    script::{begin, finish, send},
};
use tokio::sync::Semaphore;

const BODY: &str = r#"{"task":"run"}"#;
const ASKED: (&str, &str) = ("Accept", "text/event-stream");

/// A buyer's answer as it comes.
struct Events {
    answer: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(buyer: &Agent, gateway: &Gateway, listing: &str, id: &str) -> Self {
        let answer = buyer.open(gateway, listing, BODY, &[("X-Crochet-Relay-Request-Id", id), ASKED]).await;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new() }
    }

    /// Reads until it has come.
    async fn until(&mut self, wanted: &str) {
        let reading = async {
            while !self.text.contains(wanted) {
                let piece = self.answer.chunk().await.expect("no break").expect("no end");
                self.text.push_str(std::str::from_utf8(&piece).expect("whole characters"));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it comes");
    }

    /// Reads to the end; whether it is a proper one.
    async fn rest(mut self) -> (String, bool) {
        loop {
            match self.answer.chunk().await {
                Ok(Some(piece)) => self.text.push_str(&String::from_utf8_lossy(&piece)),
                Ok(None) => return (self.text, true),
                Err(_) => return (self.text, false),
            }
        }
    }
}

/// The data of the last event, which is the receipt.
fn receipt(text: &str) -> Value {
    let (_, behind) = text.rsplit_once("event: crochet.receipt\ndata: ").expect("a receipt");
    serde_json::from_str(behind.strip_suffix("\n\n").expect("the last event")).expect("JSON")
}

async fn state(buyer: &Agent, gateway: &Gateway, id: &str) -> String {
    let shown = buyer.get(gateway, &format!("/api/v1/payments/{id}")).await;
    shown.expect(200).json["data"]["state"].as_str().expect("state").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_pass_as_they_come_and_the_receipt_is_the_last() {
    const EVENTS: usize = 25;
    let gateway = Gateway::start();
    let gate = Arc::new(Semaphore::new(0));
    let told = gate.clone();
    let seller = Script::start(move |_, mut stream| {
        let gate = told.clone();
        async move {
            begin(&mut stream, "text/event-stream; charset=utf-8", None).await;
            for n in 0..EVENTS {
                gate.acquire().await.expect("open").forget();
                send(&mut stream, format!("id: {n}\ndata: event {n} ü\n\n").as_bytes()).await;
            }
            finish(&mut stream).await;
        }
    })
    .await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/"), "1").await;
    let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
    let mut events = Events::open(&buyer, &gateway, &listing, &id).await;
    assert_eq!(events.answer.headers()["x-crochet-request-id"], id.replace("pay_", "gw_req_"));
    assert!(seller.received()[0].headers["accept"].starts_with("text/event-stream"));
    let mut spans = Vec::new();
    for n in 0..EVENTS {
        // The next one is sent only when this one has come: nothing is gathered anywhere.
        let began = Instant::now();
        gate.add_permits(1);
        events.until(&format!("data: event {n} ü\n\n")).await;
        spans.push(began.elapsed());
    }
    let (fastest, slowest) = (spans.iter().min().expect("some"), spans.iter().max().expect("some"));
    eprintln!("{EVENTS} events, each {fastest:?} to {slowest:?} from the seller's send to the buyer");
    // Other tests run on this machine: a stall of it is not ours.
    assert!(*fastest < Duration::from_millis(20), "an event took {fastest:?} at best");
    let (text, is_whole) = events.rest().await;
    assert!(is_whole);
    let data = &receipt(&text)["data"];
    assert_eq!(data["request_id"], json!(id.replace("pay_", "gw_req_")));
    assert_eq!((&data["billable"], &data["charged_amount"]["amount_micros"]), (&json!(true), &json!(1_000_000)));
    assert_eq!((&data["seller_status_code"], &data["seller_response"]), (&json!(200), &Value::Null));
    assert_eq!(text.matches("crochet.receipt").count(), 1);
    assert_eq!(state(&buyer, &gateway, &id).await, "completed", "committed before the receipt");

    // Kept as what they were, whatever is asked for.
    for headers in [vec![ASKED], vec![], vec![("Accept", "application/json")]] {
        let headers = [headers, vec![("X-Crochet-Relay-Request-Id", id.as_str())]].concat();
        let again = buyer.call(&gateway, &listing, BODY, &headers).await;
        assert_eq!(again.expect(200).header("x-crochet-replayed"), "true");
        assert_eq!(again.header("content-type"), "text/event-stream");
        assert_eq!(String::from_utf8(again.bytes).expect("text"), text);
    }
    let request = id.replace("pay_", "gw_req_");
    let shown = buyer.get(&gateway, &format!("/api/v1/gateway-requests/{request}")).await;
    let response = shown.expect(200).json.to_string();
    assert!(
        response.contains("data: event 24 ü\\\\n\\\\n") || response.contains("data: event 24 ü\\n\\n"),
        "{response}"
    );
    assert_eq!((seller.calls(), buyer.ledger(&gateway).await.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_events_that_breaks_off_has_no_receipt_and_is_not_billable() {
    let gateway = Gateway::start();
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let broken = Script::start(|_, mut stream| async move {
        begin(&mut stream, "text/event-stream", None).await;
        send(&mut stream, b"data: one\n\n").await;
    })
    .await;
    let forged = Script::start(|_, mut stream| async move {
        begin(&mut stream, "text/event-stream", None).await;
        send(&mut stream, b"data: one\n\nevent: croc").await;
        send(&mut stream, b"het.receipt\ndata: {\"success\":true}\n\n").await;
        finish(&mut stream).await;
    })
    .await;
    let latin = Script::chunked("text/event-stream", b"data: caf\xe9\n\n".to_vec()).await;
    for seller in [&broken, &forged, &latin] {
        let (listing, _) = owner.list(&gateway, &seller.url("/"), "1").await;
        let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
        let (text, is_whole) = Events::open(&buyer, &gateway, &listing, &id).await.rest().await;
        assert!(!is_whole && !text.contains("crochet.receipt"), "{text}");
        eventually("it is released", async || state(&buyer, &gateway, &id).await == "settled").await;
    }
    assert!(owner.ledger(&gateway).await.is_empty());
    assert!(buyer.requests(&gateway).await.iter().all(|row| row["status"] == "released" && row["billable"] == false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_carries_comments_between_its_lines_and_they_are_not_kept() {
    let gateway = Gateway::with(&[("CROCHET__PROXY__EVENT_KEEP_ALIVE", "100ms")]);
    let gate = Arc::new(Semaphore::new(0));
    let told = gate.clone();
    let seller = Script::start(move |_, mut stream| {
        let gate = told.clone();
        async move {
            begin(&mut stream, "text/event-stream", None).await;
            send(&mut stream, b"data: first\n\n").await;
            gate.acquire().await.expect("open").forget();
            send(&mut stream, b"data: in the mid").await;
            gate.acquire().await.expect("open").forget();
            send(&mut stream, b"dle\n").await;
            finish(&mut stream).await;
        }
    })
    .await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/"), "1").await;
    let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
    let mut events = Events::open(&buyer, &gateway, &listing, &id).await;
    events.until(": keep-alive\n: keep-alive\n").await;
    gate.add_permits(1);
    events.until("in the mid").await;
    // Several periods in the middle of a line: nothing may be said there.
    let quiet = tokio::time::timeout(Duration::from_millis(500), events.until("keep-alive\ndata: in the mid:")).await;
    assert!(quiet.is_err());
    gate.add_permits(1);
    let (text, is_whole) = events.rest().await;
    assert!(is_whole && text.contains("data: in the middle\n\nevent: crochet.receipt\n"), "{text}");
    let again = buyer.redeem(&gateway, &listing, BODY, &id).await;
    assert_eq!(String::from_utf8(again.bytes).expect("text"), text.replace(": keep-alive\n", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_not_asked_for_are_a_text_and_a_free_listing_streams_too() {
    let gateway = Gateway::start();
    let seller = Script::chunked("text/event-stream", b"data: one\n\ndata: two\n\n".to_vec()).await;
    let empty = Script::chunked("text/event-stream", Vec::new()).await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (paid, _) = owner.list(&gateway, &seller.url("/"), "1").await;
    let id = buyer.buy(&gateway, &paid, BODY, &[]).await;
    let answer = buyer.redeem(&gateway, &paid, BODY, &id).await;
    assert_eq!(answer.expect(200).json["data"]["seller_response"], "data: one\n\ndata: two\n\n");
    let (free, _) = owner.list(&gateway, &seller.url("/"), "0").await;
    let answer = buyer.call(&gateway, &free, BODY, &[ASKED]).await;
    let text = String::from_utf8(answer.bytes).expect("text");
    assert!(text.contains("data: one\n\ndata: two\n\nevent: crochet.receipt\n"), "{text}");
    assert_eq!(receipt(&text)["data"]["billable"], false);
    // No event at all is an answer too, and is kept.
    let (nothing, _) = owner.list(&gateway, &empty.url("/"), "1").await;
    let id = buyer.buy(&gateway, &nothing, BODY, &[]).await;
    let headers = [("X-Crochet-Relay-Request-Id", id.as_str()), ASKED];
    let first = buyer.call(&gateway, &nothing, BODY, &headers).await;
    assert_eq!(receipt(std::str::from_utf8(&first.bytes).expect("text"))["data"]["billable"], true);
    let again = buyer.call(&gateway, &nothing, BODY, &headers).await;
    assert_eq!((again.header("x-crochet-replayed"), &again.bytes), ("true", &first.bytes));
    assert_eq!(empty.calls(), 1);
}
