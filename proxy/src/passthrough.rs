//! Every request that is not a call goes on to the control API: the same method, target, fields and body over a
//! connection of our own, its answer streamed back. One field tells it the client's address; no client can set it.

mod exchange;
mod link;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use actors::refusal::{Code, Refusal};
use bytes::Bytes;
use config::Config;
use control_api::Listen;

use crate::{
    body::RequestBody,
    http1::head::{Head, Header},
    reply::{Gone, RelayedHead, Reply, ResponseSink},
};
use exchange::{Answer, Fault};
use link::Links;

/// The field that only we may set.
pub const CLIENT_ADDRESS: &str = "x-crochet-client-address";

/// Fields that are about one connection, that we say ourselves, or that nobody may claim.
const DROPPED: [&str; 17] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "expect",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// Fields of a request that the control API takes, and how many of them are ours.
const FIELDS_MAX: usize = 96;
const OWN_FIELDS: usize = 3;
/// What an answer to somebody in particular says to caches.
const NOT_KEPT: &[u8] = b"Cache-Control: no-store\r\n";

/// The way to the control API.
pub struct Passthrough {
    links: Links,
    body_max: u64,
    site: String,
}

impl Passthrough {
    /// The control API at `listen`. `site` is the public URL, for refusals.
    #[must_use]
    pub fn new(config: &Config, listen: &Listen, site: String) -> Self {
        Self { links: Links::new(listen), body_max: config.control.body_max_bytes as u64, site }
    }

    /// Passes one request on and its answer back. An answer is always given, unless the client is gone.
    pub async fn pass<B: RequestBody, S: ResponseSink>(
        &self,
        head: &Head,
        body: &mut B,
        out: &mut S,
        peer: SocketAddr,
    ) {
        // A client that left has no use for an answer.
        let _: Result<(), Gone> = match self.ask(head, body, peer).await {
            Ok(answer) => self.relay(answer, is_private(head), out).await,
            Err(refusal) => out.whole(Reply::refusal(&refusal, &self.site)).await,
        };
    }

    async fn ask<B: RequestBody>(&self, head: &Head, body: &mut B, peer: SocketAddr) -> Result<Answer, Refusal> {
        if head.fields().count() > FIELDS_MAX - OWN_FIELDS {
            return Err(Code::HeadersTooLarge.into());
        }
        let body = body.read(self.body_max).await?;
        let mut request = request_head(head, body.bytes.len(), peer.ip());
        request.extend_from_slice(&body.bytes);
        let request = Bytes::from(request);
        let is_safe = matches!(head.method(), "GET" | "HEAD");
        let unavailable = |fault: Fault| {
            tracing::warn!(%fault, "the control API does not answer");
            Refusal::from(Code::Overloaded).retry_after(Duration::from_secs(1))
        };
        let kept = self.links.take();
        let was_kept = kept.is_some();
        let first = async {
            let link = match kept {
                Some(link) => link,
                None => self.links.open().await?,
            };
            exchange::exchange(link, &request, head.method()).await
        };
        match first.await {
            // The control API had closed a kept connection: what it cannot have acted on may be sent once more.
            Err(Fault::Unsent) if was_kept => {}
            Err(Fault::BrokenOff) if was_kept && is_safe => {}
            result => return result.map_err(unavailable),
        }
        let link = self.links.open().await.map_err(unavailable)?;
        exchange::exchange(link, &request, head.method()).await.map_err(unavailable)
    }

    async fn relay<S: ResponseSink>(&self, mut answer: Answer, is_private: bool, out: &mut S) -> Result<(), Gone> {
        let Answer { status, length, has_body, .. } = answer;
        let mut fields = std::mem::take(&mut answer.fields);
        if is_private && !answer.has_cache_control {
            fields = [&fields, NOT_KEPT].concat().into();
        }
        out.relay(RelayedHead { status, fields, length, has_body }).await?;
        loop {
            match answer.next().await {
                Ok(Some(piece)) => out.chunk(piece).await?,
                Ok(None) => break,
                Err(fault) => {
                    tracing::warn!(%fault, "the control API broke off an answer");
                    out.cut();
                    return Ok(());
                }
            }
        }
        if let Some(link) = answer.into_link() {
            self.links.keep(link);
        }
        out.end().await
    }
}

/// Whether the answer may be for the caller alone.
fn is_private(head: &Head) -> bool {
    [Header::Authorization, Header::Cookie].iter().any(|header| head.header(*header).is_some())
}

fn request_head(head: &Head, body_bytes: usize, client: IpAddr) -> Vec<u8> {
    // The field may be there several times; what it may not name is what the request cannot be read without.
    let options = head.fields().filter(|(name, _)| name.eq_ignore_ascii_case(Header::Connection.name()));
    let nominated: Vec<&[u8]> = options.flat_map(|(_, value)| value.split(|b| *b == b',')).collect();
    let is_nominated = |name: &str| {
        let is = |option: &&[u8]| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        !name.eq_ignore_ascii_case(Header::Host.name()) && nominated.iter().any(is)
    };
    let mut request = Vec::with_capacity(1024 + body_bytes);
    let mut push = |parts: &[&[u8]]| parts.iter().for_each(|part| request.extend_from_slice(part));
    push(&[head.method().as_bytes(), b" ", head.path().as_bytes()]);
    if let Some(query) = head.query() {
        push(&[b"?", query.as_bytes()]);
    }
    push(&[b" HTTP/1.1\r\n"]);
    for (name, value) in head.fields() {
        let is = |other: &str| other.eq_ignore_ascii_case(name);
        if !DROPPED.iter().any(|dropped| is(dropped)) && !is(CLIENT_ADDRESS) && !is_nominated(name) {
            push(&[name.as_bytes(), b": ", value, b"\r\n"]);
        }
    }
    push(&[b"X-Request-Id: ", head.request_id().as_bytes(), b"\r\n"]);
    push(&[CLIENT_ADDRESS.as_bytes(), b": ", client.to_string().as_bytes(), b"\r\n"]);
    if body_bytes > 0 || !matches!(head.method(), "GET" | "HEAD" | "OPTIONS" | "DELETE") {
        push(&[b"Content-Length: ", itoa::Buffer::new().format(body_bytes).as_bytes(), b"\r\n"]);
    }
    push(&[b"\r\n"]);
    request
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use config::Mode;

    use super::*;
    use crate::http1::head::{HeadRules, Hosts};

    #[test]
    fn b3_b6_what_is_about_a_connection_or_claims_an_address_does_not_pass() {
        let rules = HeadRules {
            max_bytes: 4096,
            max_fields: 32,
            hosts: Hosts::new(Mode::Dev, "", SocketAddr::from(([127, 0, 0, 1], 1))),
        };
        let text = "GET http://localhost/api/v1/listings?q=a%20b HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\
                    Connection: keep-alive, X-Odd, Host\r\nX-Odd: 1\r\nX-Forwarded-For: 1.2.3.4\r\n\
                    Connection: X-Odder\r\nX-Odder: 1\r\n\
                    X-Crochet-Client-Address: 1.2.3.4\r\nTE: trailers\r\nX-Request-Id: mine\r\nCookie: a=b\r\n\r\n";
        let head = Head::parse(&mut BytesMut::from(text), &rules).expect("good").expect("whole");
        let request = request_head(&head, 0, IpAddr::from([127, 0, 0, 9]));
        let wanted = "GET /api/v1/listings?q=a%20b HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nCookie: a=b\r\n\
                      X-Request-Id: mine\r\nx-crochet-client-address: 127.0.0.9\r\n\r\n";
        assert_eq!(String::from_utf8(request).expect("text"), wanted);
    }
}
