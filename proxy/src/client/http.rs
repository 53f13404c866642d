//! One request, one answer, one connection: all of HTTP that a client of the gateway needs, in the clear or by TLS.
//!
//! An answer comes whole ([`Server::send`]) or piece by piece ([`Server::open`]), as long ones do.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use http::{Uri, uri::Scheme};
use httparse::Status;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    http1::chunked::{Chunked, Decoded},
    upstream::trust,
};

/// How long nothing may come: a seller has five minutes at most, and the gateway a little for itself.
pub(crate) const SILENCE: Duration = Duration::from_secs(330);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is taken whole; a listing's answer may have 1 GiB, which is a third more as base64.
pub(super) const ANSWER_MAX: u64 = 2 << 30;
const HEAD_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 64;

/// What is asked. A body is JSON.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) key: Option<&'a str>,
    /// More header fields.
    pub(crate) more: Vec<(&'static str, String)>,
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
        [key, body].into_iter().flatten().chain(self.more.iter().cloned()).collect()
    }

    /// # Errors
    /// When a value would end its line: what follows would be read as something else.
    fn bytes(&self, host: &str) -> Result<Vec<u8>> {
        let body = self.body.as_deref().unwrap_or_default();
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", self.method, self.path);
        for (name, value) in self.fields() {
            ensure!(!value.contains(|c: char| c.is_control()), "{name} may not hold control characters");
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.body.is_some() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        Ok(format!("{head}\r\n{body}").into_bytes())
    }
}

impl Answer {
    /// The first header field of this name, given in lower case; empty when there is none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.as_str())
    }

    /// The text at a place in the answer (a JSON pointer).
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn text(&self, place: &str) -> Result<&str> {
        let found = self.json.pointer(place).and_then(Value::as_str);
        found.with_context(|| format!("the answer has no text at {place}"))
    }

    /// The whole number at a place in the answer.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn number(&self, place: &str) -> Result<u64> {
        let found = self.json.pointer(place).and_then(Value::as_u64);
        found.with_context(|| format!("the answer has no whole number at {place}"))
    }
}

/// A server, and how it is reached.
pub(crate) struct Server {
    site: String,
    name: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    silence: Duration,
}

impl Server {
    /// The one that listens in the clear at this address.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        let (site, name) = (format!("http://{address}"), address.ip().to_string());
        Self { site, name, port: address.port(), tls: None, silence: SILENCE }
    }

    /// The one with this `http` or `https` URL. The certificate and the name are always verified, against the web's
    /// authorities and those of the file `ca`.
    ///
    /// # Errors
    /// When the URL is none of a gateway, or the file holds no certificates.
    pub(crate) fn at(url: &str, ca: Option<&Path>, silence: Duration) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let authority = uri.authority().with_context(|| format!("{url:?} names no host"))?;
        ensure!(!authority.as_str().contains('@'), "a gateway's URL holds no user and no password");
        ensure!(
            uri.query().is_none() && matches!(uri.path(), "" | "/"),
            "a gateway's URL ends behind its host and port"
        );
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => bail!("a gateway's URL begins with http:// or https://"),
        };
        ensure!(is_tls || ca.is_none(), "certificates are of use for an https URL only");
        let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = if is_tls { Some(tls(&name, ca)?) } else { None };
        let scheme = if is_tls { "https" } else { "http" };
        let site = format!("{scheme}://{}", authority.as_str().to_ascii_lowercase());
        Ok(Self { site, name, port, tls, silence })
    }

    /// Its URL, without a slash at the end.
    pub(crate) fn site(&self) -> &str {
        &self.site
    }

    /// Whether what is sent there can be read on the way.
    pub(crate) fn is_overheard(&self) -> bool {
        let is_here = self.name == "localhost" || self.name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.tls.is_none() && !is_here
    }

    /// Asks, and reads the answer to its end.
    ///
    /// # Errors
    /// When the server cannot be reached, or what it says is no whole answer.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Answer> {
        self.open(request).await?.whole().await
    }

    /// Asks, and reads the answer's head.
    ///
    /// # Errors
    /// As [`Server::send`].
    pub(crate) async fn open(&self, request: &Request<'_>) -> Result<Opened> {
        let host = self.site.split_once("://").map_or("", |(_, host)| host);
        let bytes = request.bytes(host)?;
        let mut stream = within(CONNECT_TIMEOUT, self.connect()).await?;
        let sent = async { stream.write_all(&bytes).await.context("the request could not be sent") };
        // Who refuses early may not read to the end, and still says why.
        let sent = within(self.silence, sent).await;
        match Opened::read(stream, self.silence).await {
            Ok(opened) => Ok(opened),
            Err(unread) => Err(sent.err().unwrap_or(unread)),
        }
    }

    async fn connect(&self) -> Result<Box<dyn Stream>> {
        let told = || format!("{} cannot be reached", self.site);
        let stream = TcpStream::connect((self.name.as_str(), self.port)).await.with_context(told)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => {
                let told = || format!("{} does not prove who it is", self.site);
                Ok(Box::new(connector.connect(name.clone(), stream).await.with_context(told)?))
            }
        }
    }
}

fn tls(name: &str, ca: Option<&Path>) -> Result<(TlsConnector, ServerName<'static>)> {
    let connector = trust::connector(ca.unwrap_or(Path::new(""))).map_err(|error| match ca {
        Some(file) => anyhow!("{} holds no certificates (PEM)", file.display()),
        None => error.into(),
    })?;
    let name = ServerName::try_from(name.to_string()).with_context(|| format!("{name:?} is no host's name"))?;
    Ok((connector, name))
}

async fn within<T>(time: Duration, what: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(time, what).await.with_context(|| format!("nothing came for {} s", time.as_secs()))?
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An answer whose head has come.
pub(crate) struct Opened {
    /// All but the body.
    pub(crate) answer: Answer,
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    rest: Rest,
    silence: Duration,
}

/// What is still to come of a body.
enum Rest {
    Bytes(u64),
    Chunks(Chunked),
}

impl Opened {
    async fn read(stream: Box<dyn Stream>, silence: Duration) -> Result<Self> {
        let answer =
            Answer { status: 0, reason: String::new(), fields: Vec::new(), body: Vec::new(), json: Value::Null };
        let mut opened = Self { answer, stream, buffer: BytesMut::new(), rest: Rest::Bytes(0), silence };
        loop {
            opened.more().await?;
            while let Some((answer, start)) = parse_head(&opened.buffer)? {
                let _ = opened.buffer.split_to(start);
                // What is said before the answer itself tells us nothing.
                if answer.status >= 200 {
                    opened.rest = rest(&answer)?;
                    opened.answer = answer;
                    return Ok(opened);
                }
            }
            ensure!(opened.buffer.len() <= HEAD_MAX, "the answer's head is larger than {HEAD_MAX} bytes");
        }
    }

    async fn more(&mut self) -> Result<()> {
        let (stream, buffer) = (&mut self.stream, &mut self.buffer);
        let read = async { stream.read_buf(buffer).await.context("the answer could not be read") };
        ensure!(within(self.silence, read).await? > 0, "the connection ended before the answer did");
        Ok(())
    }

    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off: what came is not the whole.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            match take(&mut self.rest, &mut self.buffer)? {
                Decoded::Piece(piece) => return Ok(Some(piece)),
                Decoded::End => return Ok(None),
                Decoded::NeedMore => self.more().await?,
            }
        }
    }

    /// The answer with its whole body.
    ///
    /// # Errors
    /// As [`Opened::piece`]; when it is too large.
    pub(crate) async fn whole(mut self) -> Result<Answer> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
            ensure!(body.len() as u64 <= ANSWER_MAX, "the answer is larger than {ANSWER_MAX} bytes");
        }
        self.answer.json = serde_json::from_slice(&body).unwrap_or_default();
        self.answer.body = body;
        Ok(self.answer)
    }
}

/// The head, without a body yet, and where that begins; `None` until the head is there as a whole.
fn parse_head(raw: &[u8]) -> Result<Option<(Answer, usize)>> {
    let mut room = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut room);
    let Status::Complete(start) = head.parse(raw).context("the answer is not HTTP")? else { return Ok(None) };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let fields = head.headers.iter().map(|field| (field.name.to_string(), text(field.value))).collect();
    let (status, reason) = (head.code.unwrap_or(0), head.reason.unwrap_or_default().to_string());
    Ok(Some((Answer { status, reason, fields, body: Vec::new(), json: Value::Null }, start)))
}

fn rest(answer: &Answer) -> Result<Rest> {
    if answer.field("transfer-encoding").eq_ignore_ascii_case("chunked") {
        return Ok(Rest::Chunks(Chunked::default()));
    }
    Ok(Rest::Bytes(answer.field("content-length").parse().context("the answer does not say how long it is")?))
}

fn take(rest: &mut Rest, buffer: &mut BytesMut) -> Result<Decoded> {
    match rest {
        Rest::Chunks(chunks) => chunks.decode(buffer).context("a chunk of the answer is malformed"),
        Rest::Bytes(0) => Ok(Decoded::End),
        Rest::Bytes(_) if buffer.is_empty() => Ok(Decoded::NeedMore),
        Rest::Bytes(left) => {
            let length = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
            *left -= length as u64;
            Ok(Decoded::Piece(buffer.split_to(length).freeze()))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const CHUNKED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
        X-Crochet-Replayed: true\r\n\r\n7\r\n{\"a\":1,\r\n6;x=y\r\n\"b\":2}\r\n0\r\n\r\n";

    /// What is made of these bytes when a server says them and hangs up.
    async fn said(bytes: &'static [u8]) -> Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let server = Server::plain(listener.local_addr().expect("address"));
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await.expect("a request");
            stream.write_all(bytes).await.expect("written");
        };
        let request = Request { method: "GET", path: "/".into(), ..Request::default() };
        tokio::join!(server.send(&request), serve).0
    }

    #[tokio::test]
    async fn chunks_are_put_together_and_interim_answers_passed_over() {
        let answer = said(CHUNKED).await.expect("an answer");
        assert_eq!((answer.status, answer.reason.as_str()), (200, "OK"));
        assert_eq!(answer.json, serde_json::json!({"a": 1, "b": 2}));
        assert_eq!(answer.field("x-crochet-replayed"), "true");
    }

    #[tokio::test]
    async fn what_is_cut_anywhere_is_no_answer() {
        for end in (0..CHUNKED.len()).step_by(7) {
            assert!(said(&CHUNKED[..end]).await.is_err(), "{end}");
        }
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert!(said(&plain[..plain.len() - 1]).await.is_err());
        assert_eq!(said(plain).await.expect("an answer").body, b"{}");
    }

    #[tokio::test]
    async fn what_is_not_framed_is_told() {
        for bad in [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".as_slice(),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
        ] {
            assert!(said(bad).await.is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_gateways_url_is_scheme_host_and_port() {
        let at = |url: &str| Server::at(url, None, SILENCE);
        let good = at("HTTPS://Gateway.Example:8443/").expect("a URL");
        assert_eq!(
            (good.site(), good.name.as_str(), good.port),
            ("https://gateway.example:8443", "gateway.example", 8443)
        );
        assert_eq!(at("http://[::1]:80").expect("a URL").name, "::1");
        for bad in ["gateway.example", "ftp://a", "http://u:p@a", "http://a/api", "http://a?b", "http://", "a b"] {
            assert!(at(bad).is_err(), "{bad}");
        }
        assert!(Server::at("http://a", Some(Path::new("/ca.pem")), SILENCE).is_err());
    }

    #[test]
    fn a_key_is_overheard_in_the_clear_beyond_this_machine_only() {
        for (url, is_overheard) in [
            ("http://127.0.0.1:1", false),
            ("http://localhost", false),
            ("https://a.example", false),
            ("http://a.example", true),
        ] {
            assert_eq!(Server::at(url, None, SILENCE).expect("a URL").is_overheard(), is_overheard, "{url}");
        }
    }

    #[test]
    fn no_value_ends_its_line() {
        let more = vec![("X-A", "b\r\nX-C: d".to_string())];
        assert!(Request { method: "GET", path: "/".into(), more, ..Request::default() }.bytes("a").is_err());
    }
}
