//! TLS towards clients: one certificate from two files, taken up anew when they change. TLS 1.2 and 1.3 only; HTTP/2 or
//! HTTP/1.1, as ALPN says.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::BytesMut;
use config::Tls as Knobs;
use parking_lot::RwLock;
use pingora::server::ShutdownWatch;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::socket::Socket;

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";
/// The first byte of a TLS handshake; no HTTP request begins with it.
const HANDSHAKE: u8 = 22;
/// What is read before the handshake, to see whether it is one.
const FIRST_READ: usize = 2 << 10;
/// What a client gets that speaks HTTP where TLS is spoken.
const PLAIN_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\
Cache-Control: no-store\r\nContent-Length: 52\r\n\r\nThis port speaks TLS: use an https URL to reach it.\n\n";

/// A client's connection after its handshake.
pub type Secured = TlsStream<Socket<TcpStream>>;

/// The certificate in use, and the way to a newer one.
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Certificate>,
    knobs: Knobs,
    write_timeout: Duration,
}

impl Tls {
    /// Reads the files. `write_timeout` bounds every write of the connections.
    ///
    /// # Errors
    /// When a file cannot be read, or the key is not the certificate's.
    pub fn load(knobs: &Knobs, write_timeout: Duration) -> anyhow::Result<Arc<Self>> {
        let provider = Arc::new(ring::default_provider());
        let files = Files::read(knobs)?;
        let key = files.certified(&provider)?;
        let certificate = Arc::new(Certificate {
            current: RwLock::new(Arc::new(key)),
            seen: RwLock::new(files.digest()),
            provider: provider.clone(),
        });
        let builder = ServerConfig::builder_with_provider(provider);
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let mut config =
            builder.with_protocol_versions(&versions)?.with_no_client_auth().with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        config.ticketer = ring::Ticketer::new()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Arc::new(Self { acceptor, certificate, knobs: knobs.clone(), write_timeout }))
    }

    /// Shakes hands, within its time. `None`: the client cannot, or would not in time.
    pub async fn accept(&self, stream: TcpStream) -> Option<Secured> {
        timeout(self.knobs.handshake_timeout, self.shake_hands(stream)).await.ok()?
    }

    async fn shake_hands(&self, mut stream: TcpStream) -> Option<Secured> {
        let mut ahead = BytesMut::with_capacity(FIRST_READ);
        stream.read_buf(&mut ahead).await.ok()?;
        if ahead.first().is_some_and(u8::is_ascii_alphabetic) {
            // It is told why; whether it listens is its matter.
            let _ = stream.write_all(PLAIN_REQUEST).await;
            let _ = stream.shutdown().await;
            return None;
        }
        if ahead.first() != Some(&HANDSHAKE) {
            return None;
        }
        let socket = Socket::new(stream, ahead, self.write_timeout);
        match self.acceptor.accept(socket).await {
            Ok(secured) => Some(secured),
            Err(error) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }

    /// Looks at the files every now and then until `stop` says so, and takes up a new pair.
    pub async fn watch(self: Arc<Self>, mut stop: ShutdownWatch) {
        loop {
            let pause = tokio::time::sleep(self.knobs.reload_interval);
            tokio::select! {
                () = pause => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let tls = self.clone();
            // Files may be on a disk that takes its time: not on a thread that serves.
            let looked = tokio::task::spawn_blocking(move || tls.look()).await;
            match looked {
                Ok(Ok(true)) => tracing::info!("a new certificate is in use"),
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::error!(error = %format!("{error:#}"), "the certificate stays as it was"),
                Err(error) => tracing::error!(%error, "the certificate's files could not be looked at"),
            }
        }
    }

    /// Takes up what the files hold now. Returns whether it is new; a bad pair is an error once, not at every look.
    fn look(&self) -> anyhow::Result<bool> {
        let files = Files::read(&self.knobs)?;
        let digest = files.digest();
        if *self.certificate.seen.read() == digest {
            return Ok(false);
        }
        *self.certificate.seen.write() = digest;
        let key = files.certified(&self.certificate.provider)?;
        *self.certificate.current.write() = Arc::new(key);
        Ok(true)
    }
}

/// Whether a client asked for HTTP/2.
#[must_use]
pub fn speaks_http2(secured: &Secured) -> bool {
    secured.get_ref().1.alpn_protocol() == Some(HTTP_2)
}

/// What is shown to clients.
struct Certificate {
    current: RwLock<Arc<CertifiedKey>>,
    /// The digest of the files as they were last seen, good or bad.
    seen: RwLock<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().clone())
    }
}

/// Both files, as they are on disk.
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(knobs: &Knobs) -> anyhow::Result<Self> {
        let read = |name: &'static str, path: &Path| {
            std::fs::read(path).with_context(|| format!("{name}: {} cannot be read", path.display()))
        };
        Ok(Self {
            certificate: read("proxy.tls.certificate_file", &knobs.certificate_file)?,
            key: read("proxy.tls.key_file", &knobs.key_file)?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new().chain_update(&self.certificate).chain_update([0]).chain_update(&self.key).finalize().into()
    }

    fn certified(&self, provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.context("proxy.tls.certificate_file is not PEM")?;
        anyhow::ensure!(!chain.is_empty(), "proxy.tls.certificate_file holds no certificate");
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("proxy.tls.key_file holds no private key in PEM")?;
        CertifiedKey::from_der(chain, key, provider).context("proxy.tls.key_file is not the certificate's key")
    }
}
