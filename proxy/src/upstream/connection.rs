//! One connection to a seller: TCP, or TLS with the certificate and the name verified, always.

use std::{io, net::SocketAddr, sync::Arc};

use actors::seller::Target;
use bytes::{Buf, BytesMut};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    pub(super) async fn open(target: &Target, address: SocketAddr, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        if !target.is_tls {
            return Self::open_plain(address).await;
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
        Ok(Self::Tls(Box::new(stream)))
    }

    async fn open_plain(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::Plain(stream))
    }

    /// Whether nothing has come and the other side has not closed. Costs no system call while the socket is quiet.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match self {
            Self::Plain(stream) => stream.try_read(&mut byte),
            Self::Tls(stream) => stream.get_ref().0.try_read(&mut byte),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes all of `bytes`; `is_begun` tells whether any were taken when it fails or is given up.
    pub(super) async fn write_all(&mut self, bytes: &mut (impl Buf + Send), is_begun: &mut bool) -> io::Result<()> {
        while bytes.has_remaining() {
            let taken = match self {
                Self::Plain(stream) => stream.write_buf(bytes).await?,
                Self::Tls(stream) => stream.write_buf(bytes).await?,
            };
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            *is_begun = true;
        }
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush().await,
        }
    }

    /// Reads what is there; 0 at the end.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
        }
    }
}
