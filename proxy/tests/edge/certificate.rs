//! Certificates of the tests' own, and clients that believe in exactly one.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::Gateway;

/// A certificate for `localhost` and its key, in two files.
pub struct Certificate {
    directory: TempDir,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub fn new() -> Self {
        let mut certificate =
            Self { directory: TempDir::new().expect("a directory"), der: CertificateDer::from(vec![]) };
        certificate.renew();
        certificate
    }

    /// Replaces both files by a new pair.
    pub fn renew(&mut self) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("made");
        self.der = made.cert.der().clone();
        std::fs::write(self.file(), made.cert.pem()).expect("written");
        std::fs::write(self.key_file(), made.signing_key.serialize_pem()).expect("written");
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// A gateway that serves over TLS with it, and more knobs.
    pub fn gateway(&self, more: &[(&str, &str)]) -> Gateway {
        let (file, key_file) = (self.file().display().to_string(), self.key_file().display().to_string());
        let mut knobs = vec![
            ("CROCHET__PROXY__TLS__ENABLED", "true"),
            ("CROCHET__PROXY__TLS__CERTIFICATE_FILE", file.as_str()),
            ("CROCHET__PROXY__TLS__KEY_FILE", key_file.as_str()),
        ];
        knobs.extend_from_slice(more);
        Gateway::with(&knobs)
    }

    /// Shakes hands, offering these protocols, believing in this certificate alone.
    pub async fn connect(
        &self,
        address: SocketAddr,
        protocols: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("known");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}
