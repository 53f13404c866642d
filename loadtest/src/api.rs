//! Asking the gateway's HTTP API, nothing assumed but its documented answers.

use std::{
    fmt::{self, Display},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, bail};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A gateway's public address. Clones follow when it moves.
#[derive(Clone)]
pub struct Api {
    base: Arc<RwLock<String>>,
    http: reqwest::Client,
}

/// Why no whole answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// No connection could be made: nothing was asked.
    Refused,
    /// The connection ended, or time ran out, before an answer began.
    Unanswered,
    /// The answer began, and broke off.
    Cut,
}

impl Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "no connection",
            Self::Unanswered => "no answer",
            Self::Cut => "an answer cut off",
        })
    }
}

impl std::error::Error for Lost {}

/// What came back.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Whether `X-Crochet-Replayed` was set.
    pub replayed: bool,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
    /// The body; `null` when it was not JSON.
    pub body: Value,
    /// SHA-256 of the body's bytes: what a replay must repeat.
    pub digest: [u8; 32],
}

impl Answer {
    /// The value at this JSON pointer, as text.
    ///
    /// # Errors
    /// Names the pointer and shows the answer when there is none.
    pub fn text(&self, pointer: &str) -> anyhow::Result<&str> {
        let value = self.body.pointer(pointer).and_then(Value::as_str);
        value.with_context(|| format!("no text at {pointer} in {} {}", self.status, self.body))
    }

    /// The value at this JSON pointer, as a whole number.
    ///
    /// # Errors
    /// Names the pointer and shows the answer when there is none.
    pub fn number(&self, pointer: &str) -> anyhow::Result<i64> {
        let value = self.body.pointer(pointer).and_then(Value::as_i64);
        value.with_context(|| format!("no whole number at {pointer} in {} {}", self.status, self.body))
    }

    /// The refusal's code; empty when it was none.
    #[must_use]
    pub fn code(&self) -> &str {
        self.body.pointer("/error/code").and_then(Value::as_str).unwrap_or_default()
    }

    /// The refusal's `next_action`; empty when there was none.
    #[must_use]
    pub fn next_action(&self) -> &str {
        self.body.pointer("/error/recovery/next_action").and_then(Value::as_str).unwrap_or_default()
    }

    /// This answer, when its status is `status`.
    ///
    /// # Errors
    /// Shows the answer when it is another.
    pub fn expect_status(self, status: u16) -> anyhow::Result<Self> {
        if self.status != status {
            bail!("{status} was expected, got {} {}", self.status, self.body);
        }
        Ok(self)
    }
}

impl Api {
    /// The gateway at `base`, for example `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When no HTTP client could be made.
    pub fn new(base: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build()?;
        Ok(Self { base: Arc::new(RwLock::new(base.trim_end_matches('/').to_owned())), http })
    }

    /// The same gateway over connections of one's own.
    ///
    /// # Errors
    /// When no HTTP client could be made.
    pub fn with_own_connections(&self) -> anyhow::Result<Self> {
        Ok(Self { base: self.base.clone(), ..Self::new("")? })
    }

    /// From now on the gateway is at `base`: it was started again on another port.
    pub fn move_to(&self, base: &str) {
        base.trim_end_matches('/').clone_into(&mut self.base.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Where the gateway is, for example `http://127.0.0.1:8080`.
    #[must_use]
    pub fn base(&self) -> String {
        self.base.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A request that has not been sent yet.
    pub fn request(&self, method: Method, path: &str, key: Option<&str>) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.base()));
        match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends it and takes the whole answer.
    ///
    /// # Errors
    /// When no whole answer came; the error is a [`Lost`].
    pub async fn send(&self, request: RequestBuilder) -> anyhow::Result<Answer> {
        Ok(self.try_send(request).await?)
    }

    /// Sends it and takes the whole answer.
    ///
    /// # Errors
    /// How the answer was lost.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Answer, Lost> {
        let sent = request.send().await;
        let response = sent.map_err(|error| if error.is_connect() { Lost::Refused } else { Lost::Unanswered })?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after = header("retry-after").and_then(|value| value.parse().ok());
        let replayed = header("x-crochet-replayed") == Some("true");
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(|_| Lost::Cut)?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Answer { status, replayed, retry_after, body, digest: Sha256::digest(&bytes).into() })
    }

    /// `POST` of a JSON value.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn post(&self, path: &str, key: Option<&str>, body: &Value) -> anyhow::Result<Answer> {
        self.send(self.request(Method::POST, path, key).json(body)).await
    }

    /// `GET`.
    ///
    /// # Errors
    /// When no whole answer came.
    pub async fn get(&self, path: &str, key: &str) -> anyhow::Result<Answer> {
        self.send(self.request(Method::GET, path, Some(key))).await
    }

    /// All rows of a history, newest first, page after page, each read by `read`.
    ///
    /// # Errors
    /// When a page is not a list, a row cannot be read, or there are more than 100 000 pages.
    pub async fn history<T>(
        &self,
        path: &str,
        key: &str,
        read: impl Fn(&Value) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<T>> {
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        let separator = if path.contains('?') { '&' } else { '?' };
        for _ in 0..100_000 {
            let page = match &cursor {
                Some(cursor) => format!("{path}{separator}limit=100&cursor={cursor}"),
                None => format!("{path}{separator}limit=100"),
            };
            let answer = self.get(&page, key).await?.expect_status(200)?;
            let data = answer.body.pointer("/data").and_then(Value::as_array).context("a page without data")?;
            for row in data {
                rows.push(read(row).with_context(|| format!("a row of {path}: {row}"))?);
            }
            match answer.body.pointer("/pagination/next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = Some(next.to_owned()),
                None => return Ok(rows),
            }
        }
        bail!("{path} has no end")
    }
}
