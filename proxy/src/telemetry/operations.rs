//! The operators' own listener: metrics, liveness, readiness, and what the actors show. Never the public address.

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
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A request's head must be there by then, and its answer be taken.
const PATIENCE: Duration = Duration::from_secs(5);
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
}

/// Serves on a thread of its own until the process ends. Returns the address that was got.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(
    listen: SocketAddr,
    metrics: PrometheusHandle,
    readiness: Readiness,
    actors: Actors,
) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let operations = Arc::new(Operations { metrics, readiness, actors });
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
                let Ok((stream, _)) = accepted else { continue };
                let Ok(place) = places.clone().try_acquire_owned() else { continue };
                let operations = operations.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _ = timeout(PATIENCE * 2, operations.answer(stream)).await;
                });
            }
        }
    }
}

impl Operations {
    async fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let Some(path) = timeout(PATIENCE, read_path(&mut stream)).await.ok().flatten() else { return Ok(()) };
        let (status, content_type, body) = self.route(&path);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    }

    fn route(&self, path: &str) -> (&'static str, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        match path {
            "/metrics" => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", self.metrics.render()),
            "/livez" => ("200 OK", TEXT, "alive\n".into()),
            "/readyz" => match self.actors.health().store {
                _ if !self.readiness.is_ready() => ("503 Service Unavailable", TEXT, "not ready\n".into()),
                Some(reason) => ("503 Service Unavailable", TEXT, format!("store: {reason}\n")),
                None => ("200 OK", TEXT, "ready\n".into()),
            },
            "/debug/state" => ("200 OK", "application/json", self.actors.debug_state().to_string()),
            _ => ("404 Not Found", TEXT, "/metrics /livez /readyz /debug/state\n".into()),
        }
    }
}

/// The path of a `GET`; `None` for anything else.
async fn read_path(stream: &mut TcpStream) -> Option<String> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut buffer).await.ok()? == 0 || buffer.len() > HEAD_MAX {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(&buffer).ok()?.is_complete() {
            let path = request.path.filter(|_| request.method == Some("GET"))?;
            return Some(path.split('?').next().unwrap_or(path).to_string());
        }
    }
}
