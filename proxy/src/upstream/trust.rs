//! Whom we believe when a seller says who it is: the web's certificate authorities and, in dev mode, those of a file.
//! There is no way to ask less: certificate and name are always verified, by TLS 1.2 or newer.

use std::{io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsConnector;

/// The connector for all sellers. `dev_ca` is empty, or a file of certificates.
///
/// # Errors
/// When the file cannot be read or holds no certificate.
pub(crate) fn connector(dev_ca: &Path) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if !dev_ca.as_os_str().is_empty() {
        add(&mut roots, dev_ca)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
    let config = builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn add(roots: &mut RootCertStore, file: &Path) -> io::Result<()> {
    let unusable = || io::Error::other(format!("proxy.dev_ca: {} holds no certificates", file.display()));
    let certificates = CertificateDer::pem_file_iter(file).map_err(|_| unusable())?;
    let mut count = 0;
    for certificate in certificates {
        roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
        count += 1;
    }
    if count == 0 { Err(unusable()) } else { Ok(()) }
}
