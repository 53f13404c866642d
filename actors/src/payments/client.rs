//! The connection to a payment provider: one host, a credential, bounded answers, and nothing that is sure unless it was
//! answered.

use std::{future::poll_fn, io, pin::Pin, sync::Arc, time::Duration};

use config::Secret;
use hyper::{
    Request,
    body::{Body as _, Incoming},
    client::conn::http1::{SendRequest, handshake},
    header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use url::Url;

/// The longest answer that is read, bytes.
const ANSWER_MAX: usize = 512 << 10;
/// Connections that are kept for the next request.
const IDLE_MAX: usize = 8;

/// What the provider answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// `Retry-After` in seconds.
    pub(crate) retry_after: Option<Duration>,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// No answer: whether the request had an effect is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// It took too long.
    #[error("no answer in time")]
    Late,
    /// The connection.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// What came is no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// More came than is read.
    #[error("the answer is too long")]
    Long,
    /// The request could not be written.
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
}

/// What a provider knows us by: a header and its value.
pub(crate) struct Credential(&'static str, Secret);

impl Credential {
    /// `x-api-key`.
    pub(crate) fn api_key(key: Secret) -> Option<Self> {
        (!key.is_empty()).then_some(Self("x-api-key", key))
    }

    /// A bearer token.
    pub(crate) fn bearer(token: &Secret) -> Option<Self> {
        (!token.is_empty()).then(|| Self("authorization", Secret::new(format!("Bearer {}", token.expose()))))
    }
}

/// A client of one provider.
pub(crate) struct Client {
    base: Url,
    credential: Option<Credential>,
    timeout: Duration,
    tls: TlsConnector,
    idle: Mutex<Vec<SendRequest<String>>>,
}

impl Client {
    /// A client of the API at `base`.
    ///
    /// # Errors
    /// When the base is no URL, or TLS cannot be set up.
    pub(crate) fn new(base: &str, credential: Option<Credential>, timeout: Duration) -> io::Result<Self> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
        let tls = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
        let base = Url::parse(base).map_err(io::Error::other)?;
        Ok(Self { base, credential, timeout, tls: TlsConnector::from(Arc::new(tls)), idle: Mutex::default() })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Lost> {
        self.ask("GET", path, String::new()).await
    }

    /// `POST path` with JSON.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) async fn post(&self, path: &str, json: String) -> Result<Answer, Lost> {
        self.ask("POST", path, json).await
    }

    /// `POST path` with JSON on a connection of its own, sent once: whatever comes of it is this request's own answer.
    ///
    /// # Errors
    /// [`Lost`].
    pub(crate) async fn post_once(&self, path: &str, json: String) -> Result<Answer, Lost> {
        let sent = async { self.exchange(self.connect().await?, "POST", path, json).await };
        tokio::time::timeout(self.timeout, sent).await.map_err(|_| Lost::Late)?
    }

    async fn ask(&self, method: &str, path: &str, body: String) -> Result<Answer, Lost> {
        tokio::time::timeout(self.timeout, self.try_ask(method, path, body)).await.map_err(|_| Lost::Late)?
    }

    /// Nothing that is asked so moves money, so a connection that had died unseen is no reason to give up.
    async fn try_ask(&self, method: &str, path: &str, body: String) -> Result<Answer, Lost> {
        let kept = self.idle.lock().pop().filter(|sender| !sender.is_closed());
        if let Some(sender) = kept
            && let Ok(answer) = self.exchange(sender, method, path, body.clone()).await
        {
            return Ok(answer);
        }
        let sender = self.connect().await?;
        self.exchange(sender, method, path, body).await
    }

    async fn exchange(
        &self,
        mut sender: SendRequest<String>,
        method: &str,
        path: &str,
        body: String,
    ) -> Result<Answer, Lost> {
        sender.ready().await?;
        let target = format!("{}{path}", self.base.path().trim_end_matches('/'));
        let mut request = Request::builder().method(method).uri(if target.is_empty() { "/" } else { &target });
        request = request.header(HOST, self.base.authority()).header(ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(Credential(name, value)) = &self.credential {
            request = request.header(*name, value.expose());
        }
        let request = request.body(body)?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = read(response.into_body()).await?;
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
        Ok(Answer { status, retry_after: retry_after.map(Duration::from_secs), body })
    }

    async fn connect(&self) -> Result<SendRequest<String>, Lost> {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']).to_string();
        let stream = TcpStream::connect((host.as_str(), self.base.port_or_known_default().unwrap_or(443))).await?;
        stream.set_nodelay(true)?;
        if self.base.scheme() == "http" {
            return begin(stream).await;
        }
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        begin(self.tls.connect(name, stream).await?).await
    }
}

async fn begin<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<SendRequest<String>, Lost> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a payment provider ended");
        }
    });
    Ok(sender)
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, Lost> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > ANSWER_MAX {
            return Err(Lost::Long);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
