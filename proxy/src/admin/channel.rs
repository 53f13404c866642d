//! The way to the process that owns a running store: `POST /internal/admin` at its operations port, from this machine
//! only, with a token that stands in a file which only the store's owner may read. A new token for each start.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, task::JoinHandle};

use super::order::{Desk, Done, Errand, Failed, Order};
use crate::client::http::{Opened, Request, Server};

/// Where orders are posted.
pub(crate) const PATH: &str = "/internal/admin";
const FILE: &str = "operator.json";
/// Pieces of lines that wait for whoever takes them.
pub(super) const PIECES: usize = 8;
/// An order is no longer than this, bytes.
pub(crate) const BODY_MAX: usize = 16 << 10;

/// Where the process listens, and the word that it listens to.
#[derive(Serialize, Deserialize)]
pub(super) struct Operator {
    address: SocketAddr,
    token: String,
}

impl Operator {
    /// As the running process wrote it down.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let told = || {
            format!(
                "another process has the store, and {} cannot be read: run this as the user who runs the gateway, when \
                 it is ready",
                path.display()
            )
        };
        serde_json::from_str(&fs::read_to_string(&path).with_context(told)?).with_context(told)
    }

    /// Has an order carried out there.
    pub(super) async fn ask(&self, errand: &Errand) -> Result<Done> {
        let answer = self.open(errand).await?.whole().await.context("the running gateway did not answer")?;
        serde_json::from_value(answer.json).context("the gateway answered something else")
    }

    /// Has every record told there, piece by piece into `take`.
    pub(super) async fn export(&self, errand: &Errand, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut opened = self.open(errand).await?;
        while let Some(piece) = opened.piece().await.context("it broke off: what came is not the whole")? {
            take(&piece)?;
        }
        Ok(())
    }

    /// The answer's head, when it is good.
    async fn open(&self, errand: &Errand) -> Result<Opened> {
        let body = Some(serde_json::to_string(errand)?);
        let request = Request { method: "POST", path: PATH.into(), key: Some(&self.token), body, ..Request::default() };
        let opened = Server::plain(self.address).open(&request).await.context("the running gateway did not answer")?;
        if opened.answer.status == 200 {
            return Ok(opened);
        }
        let answer = opened.whole().await?;
        let why = answer.json.get("error").and_then(Value::as_str).map(str::to_string);
        Err(anyhow!(why.unwrap_or_else(|| format!("the gateway answered {}", answer.status))))
    }
}

/// The counter that a running process takes orders at.
pub(crate) struct Counter {
    desk: Arc<Desk>,
    token_sha256: [u8; 32],
    file: PathBuf,
}

/// An answer.
pub(crate) enum Answer {
    /// The status line's part, and JSON.
    Whole(&'static str, Value),
    /// Lines, as they come.
    Lines(Lines),
}

/// Lines on their way.
pub(crate) struct Lines {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Bytes>,
    work: JoinHandle<Result<(), Failed>>,
}

impl Lines {
    /// The next ones; `None` behind the last.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        match self.first.take() {
            Some(first) => Some(first),
            None => self.rest.recv().await,
        }
    }

    /// Whether none is missing.
    pub(crate) async fn are_whole(self) -> bool {
        matches!(self.work.await, Ok(Ok(())))
    }
}

impl Counter {
    /// Opens it: draws a token and writes down where it may be used.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn open(desk: Desk, directory: &Path, address: SocketAddr) -> io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let token = hex::encode(bytes);
        let token_sha256 = Sha256::digest(token.as_bytes()).into();
        let file = directory.join(FILE);
        write(&file, &serde_json::to_string(&Operator { address: here(address), token })?)?;
        Ok(Self { desk: Arc::new(desk), token_sha256, file })
    }

    /// Answers an order that came from `peer` to `local` with this `Authorization`. Both ends have one address only
    /// when both are on this machine.
    pub(crate) async fn answer(
        &self,
        (peer, local): (SocketAddr, SocketAddr),
        authorization: Option<&str>,
        body: &[u8],
    ) -> Answer {
        let error = |status, why: &str| Answer::Whole(status, json!({ "error": why }));
        let (peer, local) = (peer.ip().to_canonical(), local.ip().to_canonical());
        if !peer.is_loopback() && peer != local {
            return error("403 Forbidden", "orders are taken from this machine only");
        }
        if !self.knows(authorization) {
            return error("401 Unauthorized", "the token in operator.json is needed");
        }
        let errand: Errand = match serde_json::from_slice(body) {
            Ok(errand) => errand,
            Err(why) => return error("400 Bad Request", &format!("this is no order: {why}")),
        };
        if errand.why.trim().is_empty() || errand.who.trim().is_empty() {
            return error("400 Bad Request", "an order says who gives it, and why");
        }
        let failed = |failed: &Failed| error(status_of(failed), &failed.to_string());
        if errand.order == Order::Export {
            return self.export(errand).await.unwrap_or_else(|fault| failed(&fault));
        }
        self.desk
            .perform(&errand)
            .await
            .map_or_else(|fault| failed(&fault), |done| Answer::Whole("200 OK", json!(done)))
    }

    /// Begins to tell; what cannot be begun is told by its reason.
    async fn export(&self, errand: Errand) -> Result<Answer, Failed> {
        let (out, mut rest) = mpsc::channel(PIECES);
        let desk = Arc::clone(&self.desk);
        let work = tokio::spawn(async move { desk.export(&errand, out).await });
        let first = rest.recv().await;
        if first.is_none() {
            work.await.map_err(|_| Failed::Bad("the export was broken off".into()))??;
            return Err(Failed::Bad("there was nothing to tell".into()));
        }
        Ok(Answer::Lines(Lines { first, rest, work }))
    }

    /// Hashes are compared: how long that takes tells nothing about the token.
    fn knows(&self, authorization: Option<&str>) -> bool {
        let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        digest == self.token_sha256
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

fn status_of(failed: &Failed) -> &'static str {
    match failed {
        Failed::Bad(_) => "422 Unprocessable Content",
        Failed::NotFound(_) => "404 Not Found",
        Failed::Busy => "409 Conflict",
        Failed::Record(_) | Failed::Store(_) => "503 Service Unavailable",
    }
}

/// An address that listens everywhere is reached from here by loopback.
fn here(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (std::net::Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

/// Written aside and moved: a reader finds the old file or the new one, and nobody else may read either.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("json.new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&draft, path)
}
