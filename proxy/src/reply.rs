//! What goes back to the one who asked: a whole reply, or one that streams. A protocol implements [`ResponseSink`];
//! nothing else in this crate writes to a client.

use std::{borrow::Cow, future::Future};

use actors::refusal::Refusal;
use bytes::Bytes;

/// A header of ours: the name is a constant, the value a constant or a checked text.
pub type ReplyHeader = (&'static str, Cow<'static, str>);

/// An answer that is there as a whole. `X-Request-Id`, the length and what the connection needs are the sink's.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Our headers.
    pub headers: Vec<ReplyHeader>,
    /// The body.
    pub body: Bytes,
}

/// The head of an answer whose body follows piece by piece.
#[derive(Clone, Debug)]
pub struct ReplyHead {
    /// The status.
    pub status: u16,
    /// Our headers.
    pub headers: Vec<ReplyHeader>,
}

/// The head of an answer that the control API gave: its own fields go on as they came.
#[derive(Clone, Debug)]
pub struct RelayedHead {
    /// The status.
    pub status: u16,
    /// Lines of `Name: value\r\n`, checked and without framing, hop-by-hop fields and `X-Request-Id`.
    pub fields: Bytes,
    /// The body's length, when it is known ahead; for an answer without a body, what to say it would be.
    pub length: Option<u64>,
    /// Whether a body follows at all: not for `HEAD`, 204 and 304.
    pub has_body: bool,
}

/// The one who asked has left, or does not take its answer: nothing more can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

impl Reply {
    /// A JSON answer that no cache keeps.
    #[must_use]
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        let mut headers = Vec::with_capacity(8);
        headers.push(("Content-Type", Cow::Borrowed("application/json")));
        headers.push(("Cache-Control", Cow::Borrowed("no-store")));
        Self { status, headers, body: body.into() }
    }

    /// A refusal as an answer. `site` is the public URL without a slash at its end.
    #[must_use]
    pub fn refusal(refusal: &Refusal, site: &str) -> Self {
        let mut reply = Self::json(refusal.status(), refusal.body(site));
        if let Some(seconds) = refusal.retry_after_seconds() {
            reply.headers.push(("Retry-After", Cow::Owned(seconds.to_string())));
        }
        let more = refusal.headers().iter();
        reply.headers.extend(more.map(|(name, value)| (*name, Cow::Owned(value.to_string()))));
        if reply.status == 401 {
            reply.headers.push(("WWW-Authenticate", Cow::Borrowed("Bearer")));
        }
        reply
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl ReplyHead {
    /// The head of a stream of events that no cache keeps.
    #[must_use]
    pub fn events(status: u16) -> Self {
        let mut headers = Vec::with_capacity(8);
        headers.push(("Content-Type", Cow::Borrowed("text/event-stream")));
        headers.push(("Cache-Control", Cow::Borrowed("no-store")));
        Self { status, headers }
    }

    /// The head of a JSON answer that no cache keeps.
    #[must_use]
    pub fn json(status: u16) -> Self {
        let Reply { status, headers, .. } = Reply::json(status, Bytes::new());
        Self { status, headers }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Where one request's answer goes: once [`whole`](Self::whole), or [`begin`](Self::begin) or
/// [`relay`](Self::relay), then any number of [`chunk`](Self::chunk), then [`end`](Self::end) or [`cut`](Self::cut).
///
/// An answer may be given before the request's body was read: the connection then reads the body within its limits
/// first, or closes.
pub trait ResponseSink: Send {
    /// Writes an answer that is there as a whole.
    ///
    /// # Errors
    /// [`Gone`] when it could not be written.
    fn whole(&mut self, reply: Reply) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Begins an answer of unknown length.
    ///
    /// # Errors
    /// [`Gone`] when it could not be written.
    fn begin(&mut self, head: ReplyHead) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Begins an answer of the control API's.
    ///
    /// # Errors
    /// [`Gone`] when it could not be written.
    fn relay(&mut self, head: RelayedHead) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Writes a piece, and sees that it leaves at once.
    ///
    /// # Errors
    /// [`Gone`] when it could not be written.
    fn chunk(&mut self, piece: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Ends a streamed answer properly.
    ///
    /// # Errors
    /// [`Gone`] when it could not be written.
    fn end(&mut self) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Breaks a streamed answer off, so that its reader sees that it is not whole.
    fn cut(&mut self);

    /// The caller showed a valid key: its connection no longer counts against its address.
    fn caller_known(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actors::refusal::Code;

    use super::*;

    fn value<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        reply.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }

    #[test]
    fn a_refusal_says_how_to_go_on_in_its_headers_too() {
        let busy = Refusal::from(Code::SellerBusy).retry_after(Duration::from_millis(1500));
        let reply = Reply::refusal(&busy, "http://127.0.0.1:8080");
        assert_eq!((reply.status, value(&reply, "Retry-After")), (503, Some("2")));
        assert_eq!(value(&reply, "Cache-Control"), Some("no-store"));
        assert_eq!(value(&reply, "WWW-Authenticate"), None);
        let unknown = Reply::refusal(&Code::Unauthenticated.into(), "");
        assert_eq!((unknown.status, value(&unknown, "WWW-Authenticate")), (401, Some("Bearer")));
        let body: serde_json::Value = serde_json::from_slice(&unknown.body).expect("JSON");
        assert_eq!(body["success"], false);
    }
}
