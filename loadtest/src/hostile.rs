//! Acts that must be refused: each is one request, or what looks like one, and says what must come of it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use reqwest::{Method, RequestBuilder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{run::Run, seed::Seed};

/// How long somebody slow goes on, and between two bytes of it.
const SLOW: Duration = Duration::from_secs(2);
const SLOW_STEP: Duration = Duration::from_millis(200);
/// The longest wait for an answer to something raw.
const RAW_PATIENCE: Duration = Duration::from_secs(30);
const BODY: &str = r#"{"task":"hostile"}"#;
/// More than a listing takes by default.
const LARGE: usize = (1 << 20) + 1;

/// Act `number` of a run.
///
/// # Errors
/// When it was not refused as it must be; says what came instead.
pub async fn act(run: &Run, number: u64) -> anyhow::Result<()> {
    let mut seed = Seed::stream(run.seed, "hostile", number);
    match seed.below(16) {
        0 => refused(run, "no key", 401, bare(run)?.body(BODY)).await,
        1 => refused(run, "a bad key", 401, bare(run)?.bearer_auth(bad_key(&mut seed)).body(BODY)).await,
        2 => refused(run, "a cut key", 401, bare(run)?.bearer_auth(cut(key(run)?)).body(BODY)).await,
        3 => refused(run, "bad JSON", 400, call(run)?.body(r#"{"task":}"#)).await,
        4 => refused(run, "no JSON at all", 400, call(run)?.body("task=hostile")).await,
        5 => refused(run, "two values", 400, call(run)?.body("{}{}")).await,
        6 => {
            let invented = format!("pay_{:016x}{:016x}", seed.draw(), seed.draw());
            refused(run, "an invented payment", 404, paid(run, &invented)?).await
        }
        7 => refused(run, "no payment id", 404, paid(run, "pay_1' OR '1'='1")?).await,
        8 => refused(run, "two payment ids", 400, paid(run, "pay_1")?.header(PAYMENT, "pay_2")).await,
        9 => refused(run, "a body too large", 413, call(run)?.body(format!("\"{}\"", "x".repeat(LARGE)))).await,
        10 => refused(run, "another media type", 415, typed(run, "text/plain")?.body(BODY)).await,
        11 => refused(run, "an unknown listing", 404, elsewhere(run, &mut seed)?).await,
        12 => slow_body(run).await.context("a slow body"),
        13 => hang_up(run, &mut seed).await.context("a hang-up"),
        14 => unpaid(run, number).await.context("a payment that nobody made"),
        _ => garbage(run, &mut seed).await.context("garbage"),
    }
}

const PAYMENT: &str = "X-Crochet-Relay-Request-Id";

async fn refused(run: &Run, what: &str, status: u16, request: RequestBuilder) -> anyhow::Result<()> {
    let sent = Instant::now();
    let answer = run.market.api.try_send(request).await;
    run.note_answer(sent, &answer, false);
    match answer {
        Ok(answer) => {
            ensure!(answer.status == status, "{what}: {status} was expected, got {} {}", answer.status, answer.body);
            ensure!(!answer.code().is_empty(), "{what}: {status} without a code: {}", answer.body);
        }
        // A gateway that is away, or out of places for strangers, accepts nothing.
        Err(lost) => ensure!(run.scenario.outages.is_some(), "{what}: {lost}"),
    }
    Ok(())
}

/// A quote is asked for, and used as if it had been paid.
async fn unpaid(run: &Run, number: u64) -> anyhow::Result<()> {
    let body = format!(r#"{{"task":"unpaid","number":{}}}"#, number % 256);
    let api = &run.market.api;
    let asked = api.send(call(run)?.header("X-Crochet-Origin-Currency", "SOL").body(body.clone())).await?;
    let id = asked.expect_status(402)?.text("/data/payment/relay_request_id")?.to_owned();
    let sent = Instant::now();
    let answer = api.try_send(call(run)?.header(PAYMENT, id).body(body)).await;
    run.note_answer(sent, &answer, false);
    ensure!([202, 402].contains(&answer?.status), "it was taken");
    Ok(())
}

/// A body that comes a byte at a time, and stops.
async fn slow_body(run: &Run) -> anyhow::Result<()> {
    let mut stream = connect(run).await?;
    stream.write_all(head(run, 4096)?.as_bytes()).await?;
    let began = Instant::now();
    while began.elapsed() < SLOW {
        if stream.write_all(b" ").await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(SLOW_STEP).await;
    }
    no_success(&mut stream, Duration::from_millis(1)).await
}

/// A request that ends in its head, or in its body.
async fn hang_up(run: &Run, seed: &mut Seed) -> anyhow::Result<()> {
    let mut stream = connect(run).await?;
    let whole = head(run, 4096)? + "{\"task\":";
    let length = usize::try_from(seed.below(whole.len() as u64))?;
    stream.write_all(whole.as_bytes().get(..length).context("a shorter request")?).await?;
    Ok(())
}

/// Bytes that are no request.
async fn garbage(run: &Run, seed: &mut Seed) -> anyhow::Result<()> {
    let mut stream = connect(run).await?;
    let mut bytes = [seed.bytes(), seed.bytes()].concat();
    bytes.extend_from_slice(b"\r\n\r\n");
    // It may have closed the connection already.
    let _ = stream.write_all(&bytes).await;
    no_success(&mut stream, RAW_PATIENCE).await
}

/// Whatever comes back, it is no success.
async fn no_success(stream: &mut TcpStream, patience: Duration) -> anyhow::Result<()> {
    let mut first = [0; 16];
    let Ok(Ok(length)) = tokio::time::timeout(patience, stream.read(&mut first)).await else { return Ok(()) };
    let told = String::from_utf8_lossy(first.get(..length).unwrap_or_default());
    if told.starts_with("HTTP/1.1 2") {
        bail!("it was answered with {told}");
    }
    Ok(())
}

async fn connect(run: &Run) -> anyhow::Result<TcpStream> {
    let base = run.market.api.base();
    let address = base.strip_prefix("http://").context("an http address")?.to_owned();
    Ok(TcpStream::connect(address).await?)
}

fn head(run: &Run, length: usize) -> anyhow::Result<String> {
    let (base, key, path) = (run.market.api.base(), key(run)?, path(run)?);
    let host = base.strip_prefix("http://").unwrap_or(&base);
    Ok(format!(
        "POST /api/v1{path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ))
}

fn call(run: &Run) -> anyhow::Result<RequestBuilder> {
    Ok(bare(run)?.bearer_auth(key(run)?))
}

fn paid(run: &Run, payment: &str) -> anyhow::Result<RequestBuilder> {
    Ok(call(run)?.header(PAYMENT, payment).body(BODY))
}

fn bare(run: &Run) -> anyhow::Result<RequestBuilder> {
    let request = run.market.api.request(Method::POST, &path(run)?, None);
    Ok(request.header("Content-Type", "application/json"))
}

fn typed(run: &Run, media_type: &str) -> anyhow::Result<RequestBuilder> {
    let request = run.market.api.request(Method::POST, &path(run)?, Some(key(run)?));
    Ok(request.header("Content-Type", media_type))
}

fn elsewhere(run: &Run, seed: &mut Seed) -> anyhow::Result<RequestBuilder> {
    let path = format!("/gateway/no-such-listing-{:016x}", seed.draw());
    let request = run.market.api.request(Method::POST, &path, Some(key(run)?));
    Ok(request.header("Content-Type", "application/json").body(BODY))
}

fn path(run: &Run) -> anyhow::Result<String> {
    Ok(format!("/gateway/{}", run.market.shops.first().context("a seller")?.listing.id))
}

fn key(run: &Run) -> anyhow::Result<&str> {
    Ok(&run.market.buyers.first().context("a buyer")?.key)
}

fn bad_key(seed: &mut Seed) -> String {
    format!("am_k_{:016x}{:016x}abcdef", seed.draw(), seed.draw())
}

fn cut(key: &str) -> &str {
    key.get(..key.len().saturating_sub(1)).unwrap_or_default()
}
