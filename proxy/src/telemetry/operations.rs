//! The operators' own listener: metrics, liveness, readiness, what the actors show, and the counter that takes orders.
//! Never the public address.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use actors::Actors;
use config::Config;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::scrape;
use crate::admin::{
    channel::{self, Answer, Counter, Lines},
    order::Desk,
};

/// A request's head must be there by then, and its answer be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Who takes no line for so long is left: the store holds on to what it tells meanwhile.
const LINES_PATIENCE: Duration = Duration::from_secs(60);
const HEAD_MAX: usize = 8 << 10;
/// How often recorded samples are folded into their buckets, so that they do not pile up between two scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// Scrapes at a time.
const CONNECTIONS_MAX: usize = 64;

/// Whether load balancers may send work.
#[derive(Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on work may or may not come.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct Operations {
    metrics: PrometheusHandle,
    readiness: Readiness,
    actors: Actors,
    busiest: usize,
    debug_max: usize,
    counter: Counter,
}

/// A request: its head as far as it matters here, and its body.
struct Asked {
    method: String,
    path: String,
    authorization: Option<String>,
    body: Vec<u8>,
}

/// Serves on a thread of its own until the process ends. Returns the address that was got.
///
/// # Errors
/// When the address cannot be listened on, or the operators' token cannot be written down.
pub fn serve(
    config: &Config,
    metrics: PrometheusHandle,
    readiness: Readiness,
    actors: Actors,
) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(config.telemetry.listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let path = &config.storage.path;
    let desk = Desk::new(actors.store().clone(), Some(actors.clone()), actors.clock().clone(), path);
    let counter = Counter::open(desk, path, address)?;
    let operations = Arc::new(Operations {
        metrics,
        readiness,
        actors,
        busiest: config.telemetry.busiest_listings,
        debug_max: config.telemetry.debug_listings_max,
        counter,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("operations".into()).spawn(move || {
        runtime.block_on(async {
            if let Err(error) = accept(listener, operations).await {
                tracing::error!(%error, "the operations port ended");
            }
        });
    })?;
    Ok(address)
}

async fn accept(listener: std::net::TcpListener, operations: Arc<Operations>) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            _ = upkeep.tick() => operations.metrics.run_upkeep(),
            accepted = listener.accept() => {
                // Out of descriptors or a client that left: the next one may do better.
                let Ok((stream, peer)) = accepted else { continue };
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let operations = operations.clone();
                tokio::spawn(async move {
                    let _place = place;
                    // Lines are taken as long as whoever asked goes on taking them.
                    if let Ok(Ok(Some(told))) = timeout(PATIENCE * 2, operations.answer(stream, peer)).await {
                        let _ = told.send().await;
                    }
                });
            }
        }
    }
}

impl Operations {
    /// Answers; what comes in lines is left to be sent.
    async fn answer(&self, mut stream: TcpStream, peer: SocketAddr) -> std::io::Result<Option<Told>> {
        let Some(asked) = timeout(PATIENCE, read(&mut stream)).await.ok().flatten() else { return Ok(None) };
        let (status, content_type, body) = match (asked.method.as_str(), asked.path.as_str()) {
            ("POST", channel::PATH) => {
                let ends = (peer, stream.local_addr()?);
                match self.counter.answer(ends, asked.authorization.as_deref(), &asked.body).await {
                    Answer::Whole(status, json) => (status, "application/json", json.to_string()),
                    Answer::Lines(lines) => return Ok(Some(Told { stream, lines })),
                }
            }
            ("GET", path) => self.route(path),
            _ => ("405 Method Not Allowed", "text/plain; charset=utf-8", "GET, or POST /internal/admin\n".into()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await?;
        Ok(None)
    }

    fn route(&self, path: &str) -> (&'static str, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        match path {
            "/metrics" => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", self.metrics()),
            "/livez" => verdict("alive", &self.reasons_to_end()),
            "/readyz" => verdict("ready", &self.reasons_to_wait()),
            "/debug/state" => ("200 OK", "application/json", self.actors.debug_state(self.debug_max).to_string()),
            _ => ("404 Not Found", TEXT, "/metrics /livez /readyz /debug/state\n".into()),
        }
    }
}

impl Operations {
    fn metrics(&self) -> String {
        let mut page = self.metrics.render();
        let is_ready = self.reasons_to_wait().is_empty();
        scrape::append(&mut page, &self.actors, is_ready, self.busiest);
        page
    }

    /// What only a new process mends.
    fn reasons_to_end(&self) -> Vec<String> {
        let dead = !self.actors.health().has_actors;
        dead.then(|| "the threads of the listing actors have ended".to_string()).into_iter().collect()
    }

    /// Why no work should be sent here now.
    fn reasons_to_wait(&self) -> Vec<String> {
        let mut reasons = self.reasons_to_end();
        if !self.readiness.is_ready() {
            reasons.push("it has not begun to serve, or is ending".into());
        }
        reasons.extend(self.actors.health().store.map(|reason| format!("store: {reason}")));
        reasons
    }
}

/// Lines, and who asked for them.
struct Told {
    stream: TcpStream,
    lines: Lines,
}

impl Told {
    /// Sends them; when one is missing the last chunk does not come.
    async fn send(mut self) -> std::io::Result<()> {
        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\
            Connection: close\r\n\r\n";
        self.stream.write_all(HEAD).await?;
        while let Some(piece) = self.lines.next().await {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
            timeout(LINES_PATIENCE, self.stream.write_all(&chunk)).await??;
        }
        if self.lines.are_whole().await {
            self.stream.write_all(b"0\r\n\r\n").await?;
        }
        self.stream.shutdown().await
    }
}

/// 200 when nothing speaks against it, else 503 with the reasons.
fn verdict(word: &str, reasons: &[String]) -> (&'static str, &'static str, String) {
    let status = if reasons.is_empty() { "200 OK" } else { "503 Service Unavailable" };
    let body = json!({ word: reasons.is_empty(), "reasons": reasons });
    (status, "application/json", format!("{body}\n"))
}

/// A request, whole; `None` for what is none, or too long.
async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut buffer = Vec::with_capacity(1024);
    let (start, length, mut asked) = loop {
        if stream.read_buf(&mut buffer).await.ok()? == 0 || buffer.len() > HEAD_MAX + channel::BODY_MAX {
            return None;
        }
        if let Some(found) = read_head(&buffer)? {
            break found;
        }
    };
    while buffer.len() < start + length {
        if stream.read_buf(&mut buffer).await.ok()? == 0 {
            return None;
        }
    }
    asked.body = buffer.get(start..start + length)?.to_vec();
    Some(asked)
}

/// Where the body begins, how long it is, and the head; `Some(None)` when the head has not ended yet.
#[expect(clippy::option_option, reason = "not one, not yet, here it is")]
fn read_head(buffer: &[u8]) -> Option<Option<(usize, usize, Asked)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = request.parse(buffer).ok()? else {
        return (buffer.len() <= HEAD_MAX).then_some(None);
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::to_string)
    };
    let length = header("content-length").map_or(Some(0), |text| text.parse().ok())?;
    let path = request.path?;
    let asked = Asked {
        method: request.method?.to_string(),
        path: path.split('?').next().unwrap_or(path).to_string(),
        authorization: header("authorization"),
        body: Vec::new(),
    };
    (length <= channel::BODY_MAX).then_some(Some((start, length, asked)))
}
