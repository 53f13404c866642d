//! What a handler is given: the request taken apart, the caller known, the rate taken, the body read within its bound.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
    time::Instant,
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header, header::HeaderMap},
    web,
};
use actors::{
    keys::{self, Caller},
    limiter::{ControlKind, ControlSubject},
    refusal::{Code, Refusal},
};
use bytes::Bytes;
use storage::model::{Scope, UnixMillis};

use crate::{
    door::Door,
    fields::Fields,
    identity::sessions::SignedIn,
    query::Query,
    reply::{self, Frame, Reply},
    routes::Access,
};

/// The one header that only our own proxy may set.
const CLIENT_ADDRESS: &str = "x-crochet-client-address";
const REQUEST_ID: &str = "x-request-id";

/// A request, with its body read.
pub(crate) struct Ask {
    pub(crate) door: Arc<Door>,
    /// Who asks, when a key was given where none is needed.
    pub(crate) visitor: Option<Arc<Caller>>,
    pub(crate) now: UnixMillis,
    request: HttpRequest,
    body: Bytes,
}

/// Who asks where a key and a session do as well.
pub(crate) enum Who {
    /// A program with a key.
    Key(Arc<Caller>),
    /// A human who is signed in.
    Human(SignedIn),
}

impl Ask {
    /// The header fields.
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// A part of the path.
    pub(crate) fn segment(&self, name: &str) -> &str {
        self.request.match_info().get(name).unwrap_or_default()
    }

    /// An id in the path.
    ///
    /// # Errors
    /// `missing`, when it is no id: what cannot be named does not exist.
    pub(crate) fn id<T: FromStr>(&self, name: &str, missing: Code) -> Result<T, Refusal> {
        self.segment(name).parse().map_err(|_| missing.into())
    }

    /// The query, read by name.
    ///
    /// # Errors
    /// `ValidationFailed`.
    pub(crate) fn query<T>(&self, read: impl FnOnce(&mut Query) -> T) -> Result<T, Refusal> {
        Query::read(self.request.query_string(), read)
    }

    /// Refuses any query parameter.
    ///
    /// # Errors
    /// `ValidationFailed`.
    pub(crate) fn no_query(&self) -> Result<(), Refusal> {
        self.query(|_| ())
    }

    /// The body's fields, read by name.
    ///
    /// # Errors
    /// `UnsupportedMediaType`, `InvalidJson`, `ValidationFailed`.
    pub(crate) fn fields<T>(&self, read: impl FnOnce(&mut Fields) -> Option<T>) -> Result<T, Refusal> {
        if !self.body.is_empty() {
            check_media_type(&self.request)?;
        }
        Fields::read(&self.body, read)
    }

    /// The body as it came.
    pub(crate) fn raw_body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the client asks for a page for people by name.
    pub(crate) fn takes_html(&self) -> bool {
        header_text(&self.request, header::ACCEPT.as_str()).unwrap_or_default().contains("text/html")
    }

    /// Whether the client would rather have JSON than a page for people.
    pub(crate) fn prefers_json(&self) -> bool {
        let accept = header_text(&self.request, header::ACCEPT.as_str()).unwrap_or_default();
        accept.contains("application/json") && !accept.contains("text/html")
    }
}

/// Serves a route that needs no key.
pub(crate) async fn open<F, R>(request: HttpRequest, payload: web::Payload, access: Access, handler: F) -> HttpResponse
where
    F: FnOnce(Ask) -> R,
    R: Future<Output = Result<Reply, Refusal>>,
{
    let Some(mut visit) = Visit::begin(&request) else { return HttpResponse::InternalServerError().finish() };
    let answer = async {
        let visitor = visit.admit_visitor(&request, access).await?;
        let ask = visit.ask(request.clone(), payload, visitor).await?;
        handler(ask).await
    };
    let answer = answer.await;
    visit.end(&request, answer)
}

/// Serves a route that needs a key.
pub(crate) async fn keyed<F, R>(request: HttpRequest, payload: web::Payload, access: Access, handler: F) -> HttpResponse
where
    F: FnOnce(Ask, Arc<Caller>) -> R,
    R: Future<Output = Result<Reply, Refusal>>,
{
    let Some(mut visit) = Visit::begin(&request) else { return HttpResponse::InternalServerError().finish() };
    let answer = async {
        let caller = visit.admit_caller(&request, access).await?;
        let ask = visit.ask(request.clone(), payload, None).await?;
        handler(ask, caller).await
    };
    let answer = answer.await;
    visit.end(&request, answer)
}

/// Serves a route that needs a key or a session. A key that is given counts, whatever cookies come along.
pub(crate) async fn either<F, R>(
    request: HttpRequest,
    payload: web::Payload,
    access: Access,
    handler: F,
) -> HttpResponse
where
    F: FnOnce(Ask, Who) -> R,
    R: Future<Output = Result<Reply, Refusal>>,
{
    let Some(mut visit) = Visit::begin(&request) else { return HttpResponse::InternalServerError().finish() };
    let answer = async {
        let by_session =
            !request.headers().contains_key(header::AUTHORIZATION) && visit.door.sessions.is_given(request.headers());
        let who = if by_session {
            Who::Human(visit.admit_human(&request).await?)
        } else {
            Who::Key(visit.admit_caller(&request, access).await?)
        };
        let ask = visit.ask(request.clone(), payload, None).await?;
        handler(ask, who).await
    };
    let answer = answer.await;
    visit.end(&request, answer)
}

/// Serves a route that needs a session.
pub(crate) async fn signed_in<F, R>(
    request: HttpRequest,
    payload: web::Payload,
    _access: Access,
    handler: F,
) -> HttpResponse
where
    F: FnOnce(Ask, SignedIn) -> R,
    R: Future<Output = Result<Reply, Refusal>>,
{
    let Some(mut visit) = Visit::begin(&request) else { return HttpResponse::InternalServerError().finish() };
    let answer = async {
        let signed_in = visit.admit_human(&request).await?;
        let ask = visit.ask(request.clone(), payload, None).await?;
        handler(ask, signed_in).await
    };
    let answer = answer.await;
    visit.end(&request, answer)
}

/// Answers what no route or no method of a route takes.
pub(crate) fn refuse(request: &HttpRequest, code: Code, allow: Option<&'static str>) -> HttpResponse {
    let Some(mut visit) = Visit::begin(request) else { return HttpResponse::InternalServerError().finish() };
    visit.frame.allow = allow;
    visit.end(request, Err(code.into()))
}

/// One request from its arrival to its answer.
struct Visit {
    door: Arc<Door>,
    frame: Frame,
    address: IpAddr,
    begun: Instant,
}

impl Visit {
    fn begin(request: &HttpRequest) -> Option<Self> {
        let door = request.app_data::<Arc<Door>>()?.clone();
        let frame = Frame { request_id: request_id(request), ..Frame::default() };
        Some(Self { door, frame, address: network_of(client_address(request)), begun: Instant::now() })
    }

    /// Takes the rate of an address, or of the key given where one may be.
    async fn admit_visitor(&mut self, request: &HttpRequest, access: Access) -> Result<Option<Arc<Caller>>, Refusal> {
        if access == Access::Optional && request.headers().contains_key(header::AUTHORIZATION) {
            return self.admit_caller(request, access).await.map(Some);
        }
        // What lets somebody in carries challenges and keys.
        self.frame.is_private = access == Access::Auth;
        let kind = if access == Access::Auth { ControlKind::Auth } else { kind_of(request) };
        self.take(ControlSubject::Address(self.address), kind)?;
        Ok(None)
    }

    async fn admit_caller(&mut self, request: &HttpRequest, access: Access) -> Result<Arc<Caller>, Refusal> {
        self.frame.is_private = true;
        let caller = match self.caller(request).await {
            Ok(caller) => caller,
            Err(refusal) if refusal.code() == Code::Unauthenticated => {
                // Guesses are counted by address, so that trying keys is no faster than asking to be let in.
                self.take(ControlSubject::Address(self.address), ControlKind::Auth)?;
                return Err(refusal);
            }
            Err(refusal) => return Err(refusal),
        };
        self.take(ControlSubject::Profile(caller.profile.id), kind_of(request))?;
        if caller.profile.is_suspended {
            return Err(Code::ProfileSuspended.into());
        }
        match access {
            Access::Read | Access::ReadEither => caller.require(Scope::Read)?,
            Access::Write | Access::WriteEither => caller.require(Scope::Write)?,
            Access::Open | Access::Auth | Access::Optional => {}
            Access::Key | Access::Either | Access::Session => {}
        }
        Ok(caller)
    }

    async fn admit_human(&mut self, request: &HttpRequest) -> Result<SignedIn, Refusal> {
        self.frame.is_private = true;
        let door = self.door.clone();
        let found = door.sessions.find(door.store.as_ref(), request.headers(), door.clock.now()).await;
        let signed_in = match found {
            Ok(signed_in) => signed_in,
            Err(refusal) => {
                if refusal.code() == Code::SessionRequired {
                    self.take(ControlSubject::Address(self.address), ControlKind::Auth)?;
                }
                return Err(refusal);
            }
        };
        self.take(ControlSubject::Profile(signed_in.profile.id), kind_of(request))?;
        if signed_in.profile.is_suspended {
            return Err(Code::ProfileSuspended.into());
        }
        door.sessions.check_change(request.method(), request.headers(), &signed_in)?;
        Ok(signed_in)
    }

    async fn caller(&self, request: &HttpRequest) -> Result<Arc<Caller>, Refusal> {
        let mut given = request.headers().get_all(header::AUTHORIZATION);
        let (first, second) = (given.next(), given.next());
        let text = first.filter(|_| second.is_none()).and_then(|value| value.to_str().ok());
        let token = keys::bearer(text)?;
        self.door.actors.keys().caller(token.as_bytes()).await
    }

    /// Takes one request off a rate; the answer tells what is left, a refusal too.
    fn take(&mut self, who: ControlSubject, kind: ControlKind) -> Result<(), Refusal> {
        let limits = self.door.actors.limits();
        match limits.check_control(who, kind) {
            Ok(rate) => {
                self.frame.rate = Some(rate);
                Ok(())
            }
            Err(refusal) => {
                self.frame.rate = Some(limits.spent(kind, refusal.retry_after_seconds().unwrap_or_default()));
                Err(refusal)
            }
        }
    }

    async fn ask(
        &self,
        request: HttpRequest,
        payload: web::Payload,
        visitor: Option<Arc<Caller>>,
    ) -> Result<Ask, Refusal> {
        let knobs = &self.door.config;
        let body = match *request.method() {
            Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {
                let whole = read_body(&request, payload, knobs.control.body_max_bytes);
                tokio::time::timeout(knobs.proxy.body_timeout, whole).await.map_err(|_| Code::RequestTimeout)??
            }
            _ => Bytes::new(),
        };
        Ok(Ask { door: self.door.clone(), visitor, now: self.door.clock.now(), request, body })
    }

    fn end(self, request: &HttpRequest, answer: Result<Reply, Refusal>) -> HttpResponse {
        let code = answer.as_ref().err().map(|refusal| refusal.code().row().code);
        let route = request.match_pattern().unwrap_or_default();
        let request_id = self.frame.request_id.clone();
        let response = reply::write(answer, self.frame, &self.door.site);
        let (method, status) = (request.method().as_str(), response.status().as_u16());
        let total_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(method, route, status, code, total_ms, request_id, "control request");
        response
    }
}

fn kind_of(request: &HttpRequest) -> ControlKind {
    match *request.method() {
        Method::GET | Method::HEAD => ControlKind::Read,
        _ => ControlKind::Write,
    }
}

fn header_text<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

/// The client's own id when it is well-formed, else a new one.
fn request_id(request: &HttpRequest) -> String {
    let is_good = |id: &&str| {
        (1..=128).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    if let Some(id) = header_text(request, REQUEST_ID).filter(is_good) {
        return id.to_string();
    }
    let mut bytes = [0; 16];
    // Without randomness the id is dull, and the request is served all the same.
    let _ = getrandom::fill(&mut bytes);
    format!("req_{}", hex::encode(bytes))
}

/// Where the client is: what the proxy says, else the peer, which on a Unix socket is this machine.
fn client_address(request: &HttpRequest) -> IpAddr {
    let told = header_text(request, CLIENT_ADDRESS).and_then(|text| text.parse().ok());
    told.or_else(|| request.peer_addr().map(|peer| peer.ip())).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// Whose rate an address counts on: of IPv6 it is the network, since one host has all addresses of it.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

fn check_media_type(request: &HttpRequest) -> Result<(), Refusal> {
    let encoding = header_text(request, header::CONTENT_ENCODING.as_str()).unwrap_or("identity");
    let media_type = header_text(request, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") && encoding.eq_ignore_ascii_case("identity") {
        return Ok(());
    }
    Err(Code::UnsupportedMediaType.into())
}

async fn read_body(request: &HttpRequest, payload: web::Payload, max: usize) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::from(Code::PayloadTooLarge).detail("max_bytes", max);
    let told = header_text(request, header::CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<usize>().ok());
    if told.is_some_and(|told| told > max) {
        return Err(too_large());
    }
    match payload.to_bytes_limited(max).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(Code::InvalidRequest.into()),
        Err(_) => Err(too_large()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_has_one_rate() {
        let network = |text: &str| network_of(text.parse().expect("an address")).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
    }
}
