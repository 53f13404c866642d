//! What providers of our own have in common: requests over real HTTP, faults at a path, lies, and what they remember of
//! what they were asked.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The largest request that is read, bytes.
const REQUEST_MAX: usize = 1 << 20;
/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How it misbehaves at one path.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fault {
    /// Answers this status instead of 200.
    pub(crate) status: Option<u16>,
    /// With this body.
    pub(crate) body: Value,
    /// And `Retry-After`, seconds.
    pub(crate) retry_after: Option<u64>,
    /// Does the work, and closes the connection without an answer.
    pub(crate) drop: bool,
    /// Waits so long first.
    pub(crate) delay_ms: u64,
}

/// What a provider was asked.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: HashMap<String, String>,
    pub(crate) key: String,
    pub(crate) body: Value,
}

/// What it answers.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) retry_after: Option<u64>,
}

/// Serves each connection with a clone of `provider`, for ever.
pub(crate) fn serve_all<P, F>(listener: TcpListener, provider: P, serve: impl Fn(P, TcpStream) -> F + Send + 'static)
where
    P: Clone + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let serving = serve(provider.clone(), stream);
            tokio::spawn(async move {
                // A broken connection is the client's to report.
                let _ = serving.await;
            });
        }
    });
}

/// Remembers how often a path was asked for, and what was asked last.
pub(crate) fn note(seen: &mut Map<String, Value>, request: &Request) {
    let seen = seen.entry(request.path.clone()).or_insert_with(|| json!({"count": 0}));
    let count = seen.get("count").and_then(Value::as_u64).unwrap_or(0);
    *seen = json!({"count": count + 1, "last": request.body});
}

/// Says what it was told to say, in the place of the truth.
pub(crate) fn lie(answer: &mut Value, lies: &Map<String, Value>) {
    for (pointer, said) in lies {
        if let Some(place) = answer.pointer_mut(pointer) {
            *place = said.clone();
        }
    }
}

/// Reads one request; `None` when the connection ends between two.
pub(crate) async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<Option<Request>> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if buffer.len() > REQUEST_MAX {
            bail!("a head that is too long");
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { bail!("cut off in the head") };
        }
    };
    let text = String::from_utf8(buffer.drain(..head).collect())?;
    let mut line = text.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
    let field = |name: &str| {
        let mut fields = text.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    };
    let length = field("content-length").parse::<usize>().unwrap_or(0).min(REQUEST_MAX);
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            bail!("cut off in the body");
        }
    }
    let body: Vec<u8> = buffer.drain(..length).collect();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    Ok(Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        key: field("x-api-key").to_owned(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    }))
}

pub(crate) async fn write(stream: &mut TcpStream, answer: &Answer) -> anyhow::Result<()> {
    let body = answer.body.to_string();
    let after = answer.retry_after.map(|after| format!("Retry-After: {after}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {} Answer\r\nContent-Type: application/json\r\n{after}Content-Length: {}\r\n\r\n",
        answer.status,
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    Ok(())
}

/// Seconds since 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a black box has a clock of its own")]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs())
}
