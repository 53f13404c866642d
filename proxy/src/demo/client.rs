//! One request, one answer, one connection: all of HTTP that the demo needs.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use httparse::Status;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_MAX: usize = 4 << 20;
const FIELDS_MAX: usize = 64;

/// What is asked. A body is JSON.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) key: Option<&'a str>,
    pub(crate) payment: Option<&'a str>,
    pub(crate) body: Option<String>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) json: Value,
}

impl Request<'_> {
    /// The header fields that mean something to a reader; the others only frame the message.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let key = self.key.map(|key| ("Authorization", format!("Bearer {key}")));
        let body = self.body.as_ref().map(|_| ("Content-Type", "application/json".to_string()));
        let payment = self.payment.map(|id| ("X-Crochet-Relay-Request-Id", id.to_string()));
        [key, body, payment].into_iter().flatten().collect()
    }

    fn bytes(&self, host: SocketAddr) -> Vec<u8> {
        let body = self.body.as_deref().unwrap_or_default();
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", self.method, self.path);
        for (name, value) in self.fields() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.body.is_some() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        format!("{head}\r\n{body}").into_bytes()
    }
}

impl Answer {
    /// The first header field of this name, given in lower case; empty when there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.as_str())
    }
}

/// Asks, and reads the answer to its end.
pub(crate) async fn send(to: SocketAddr, request: &Request<'_>) -> Result<Answer> {
    tokio::time::timeout(PATIENCE, exchange(to, request)).await.context("no answer came in time")?
}

async fn exchange(to: SocketAddr, request: &Request<'_>) -> Result<Answer> {
    let mut stream = TcpStream::connect(to).await.with_context(|| format!("{to} cannot be reached"))?;
    stream.write_all(&request.bytes(to)).await.context("the request could not be sent")?;
    let mut raw = Vec::new();
    loop {
        let read = stream.read_buf(&mut raw).await.context("the answer could not be read")?;
        if let Some(answer) = parse(&raw)? {
            return Ok(answer);
        }
        ensure!(read > 0, "the connection ended before the answer did");
        ensure!(raw.len() <= ANSWER_MAX, "the answer is larger than {ANSWER_MAX} bytes");
    }
}

/// The answer when it is there as a whole.
fn parse(raw: &[u8]) -> Result<Option<Answer>> {
    let mut room = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut room);
    let Status::Complete(start) = head.parse(raw).context("the answer is not HTTP")? else { return Ok(None) };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let fields = head.headers.iter().map(|field| (field.name.to_string(), text(field.value))).collect();
    let (status, reason) = (head.code.unwrap_or(0), head.reason.unwrap_or_default().to_string());
    let mut answer = Answer { status, reason, fields, body: Vec::new(), json: Value::Null };
    let rest = raw.get(start..).unwrap_or_default();
    let body = if answer.field("transfer-encoding").eq_ignore_ascii_case("chunked") {
        unchunk(rest)?
    } else {
        let length: usize = answer.field("content-length").parse().context("the answer does not say how long it is")?;
        rest.get(..length).map(<[u8]>::to_vec)
    };
    let Some(body) = body else { return Ok(None) };
    answer.json = serde_json::from_slice(&body).unwrap_or_default();
    answer.body = body;
    Ok(Some(answer))
}

/// The chunks' contents once the last chunk is there.
fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(rest).map_err(|_| anyhow!("a chunk of the answer is malformed"))?;
        let Status::Complete((start, size)) = size else { return Ok(None) };
        if size == 0 {
            return Ok(Some(body));
        }
        let piece = rest.get(start..).and_then(|rest| rest.split_at_checked(usize::try_from(size).ok()?));
        let Some((piece, after)) = piece.filter(|(_, after)| after.len() >= 2) else { return Ok(None) };
        let Some(next) = after.strip_prefix(b"\r\n") else { bail!("a chunk of the answer is longer than it says") };
        body.extend_from_slice(piece);
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Crochet-Replayed: true\r\n\r\n\
        7\r\n{\"a\":1,\r\n6;x=y\r\n\"b\":2}\r\n0\r\n\r\n";

    #[test]
    fn chunks_are_put_together() {
        let answer = parse(CHUNKED).expect("HTTP").expect("whole");
        assert_eq!((answer.status, answer.reason.as_str()), (200, "OK"));
        assert_eq!(answer.json, serde_json::json!({"a": 1, "b": 2}));
        assert_eq!(answer.field("x-crochet-replayed"), "true");
    }

    #[test]
    fn what_is_cut_anywhere_is_not_whole() {
        // The empty line behind the last chunk says nothing more.
        for end in 0..CHUNKED.len() - 4 {
            assert!(parse(&CHUNKED[..end]).is_ok_and(|answer| answer.is_none()), "{end}");
        }
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert!(parse(&plain[..plain.len() - 1]).expect("HTTP").is_none());
        assert_eq!(parse(plain).expect("HTTP").expect("whole").body, b"{}");
    }

    #[test]
    fn malformed_chunks_are_told() {
        assert!(unchunk(b"zz\r\n").is_err());
        assert!(unchunk(b"1\r\nabc\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
