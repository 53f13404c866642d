//! The client that calls sellers: head and body in one send, connections pooled per listing, address and thread, and
//! never a second send once a byte may have reached the seller.

mod answer;
mod connection;
mod pool;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use actors::seller::{SellerAnswer, SellerClient, SellerFault, SellerRequest, Target};
use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use config::Config;
use pingora_timeout::timeout;
use rustls::{ClientConfig, RootCertStore};

use answer::{AnswerBody, AnswerHead};
use connection::Connection;
use pool::{Pool, PoolKey};

/// A connection must stand by then, or by the seller's own time-out.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a name's address is believed.
const ADDRESS_TTL: Duration = Duration::from_secs(60);
/// Up to here head and body are copied together; above it the kernel gathers them.
const COPY_MAX: usize = 32 << 10;

/// The seller client of this process. Its pools are per thread: a socket belongs to the runtime that opened it.
pub struct Sellers {
    tls: Arc<ClientConfig>,
    idle_timeout: Duration,
    idle_max: usize,
}

impl Sellers {
    /// A client with the web's certificate authorities.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let tls = match builder {
            Ok(builder) => builder.with_root_certificates(roots).with_no_client_auth(),
            // The provider is a constant that knows the default versions.
            Err(error) => unreachable!("{error}"),
        };
        Self {
            tls: Arc::new(tls),
            idle_timeout: config.proxy.seller_idle_timeout,
            idle_max: config.proxy.seller_connections_max,
        }
    }

    async fn connect(&self, target: &Target, address: SocketAddr, deadline: Instant) -> Result<Connection, SellerFault> {
        let patience = CONNECT_PATIENCE.min(deadline.saturating_duration_since(Instant::now()));
        let connecting = Connection::open(target, address, &self.tls);
        match timeout(patience, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(_)) | Err(_) => Err(SellerFault::Unreachable),
        }
    }

    /// Sends on a pooled connection, else on a new one. Only a pooled one that took no byte is replaced.
    async fn send_once(&self, request: &SellerRequest, deadline: Instant) -> Result<(Connection, PoolKey), SellerFault> {
        let address = resolve(&request.target, deadline).await?;
        let key = PoolKey { listing: request.target.listing, address, is_tls: request.target.is_tls };
        if let Some(mut connection) = Pool::take(&key, self.idle_timeout) {
            match write_request(&mut connection, request, deadline).await {
                Ok(()) => return Ok((connection, key)),
                Err(WriteFault::Nothing) => {}
                Err(WriteFault::Some(fault)) => return Err(fault),
            }
        }
        let mut connection = self.connect(&request.target, address, deadline).await?;
        match write_request(&mut connection, request, deadline).await {
            Ok(()) => Ok((connection, key)),
            Err(WriteFault::Nothing) => Err(SellerFault::Unreachable),
            Err(WriteFault::Some(fault)) => Err(fault),
        }
    }
}

#[async_trait]
impl SellerClient for Sellers {
    async fn send(&self, request: SellerRequest) -> Result<SellerAnswer, SellerFault> {
        let deadline = Instant::now() + request.timeout;
        let (mut connection, key) = self.send_once(&request, deadline).await?;
        let mut buffer = BytesMut::with_capacity(4096);
        let head = match timeout(left(deadline), AnswerHead::read(&mut connection, &mut buffer)).await {
            Ok(head) => head?,
            Err(_) => return Err(SellerFault::TimedOut { answered: false }),
        };
        let body = AnswerBody::new(connection, buffer, &head, deadline, head.is_kept.then_some((key, self.idle_max)));
        Ok(SellerAnswer {
            status: head.status,
            content_type: head.content_type,
            retry_after: head.retry_after,
            length: head.length,
            body: Box::new(body),
        })
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The address that this request goes to: a literal, or what the name says now.
async fn resolve(target: &Target, deadline: Instant) -> Result<SocketAddr, SellerFault> {
    if let Ok(address) = target.host.parse() {
        return Ok(SocketAddr::new(address, target.port));
    }
    if let Some(address) = Pool::known_address(&target.authority, ADDRESS_TTL) {
        return Ok(address);
    }
    let patience = CONNECT_PATIENCE.min(left(deadline));
    let looking = tokio::net::lookup_host((target.host.as_str(), target.port));
    let found = timeout(patience, looking).await.map_err(|_| SellerFault::Unreachable)?;
    let address = found.map_err(|_| SellerFault::Unreachable)?.next().ok_or(SellerFault::Unreachable)?;
    Pool::remember_address(&target.authority, address);
    Ok(address)
}

enum WriteFault {
    /// Not a byte was taken.
    Nothing,
    /// Some may have reached the seller.
    Some(SellerFault),
}

async fn write_request(
    connection: &mut Connection,
    request: &SellerRequest,
    deadline: Instant,
) -> Result<(), WriteFault> {
    let mut is_begun = false;
    let writing = async {
        if request.head.len() + request.body.len() <= COPY_MAX {
            let mut whole = BytesMut::with_capacity(request.head.len() + request.body.len());
            whole.extend_from_slice(&request.head);
            whole.extend_from_slice(&request.body);
            return connection.write_all(&mut whole.freeze(), &mut is_begun).await;
        }
        connection.write_all(&mut request.head.as_slice().chain(request.body.clone()), &mut is_begun).await
    };
    let written = timeout(left(deadline), writing).await;
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) if !is_begun => Err(WriteFault::Nothing),
        // A seller may answer and close before it has read everything: its answer, if any, is still to be read.
        Ok(Err(_)) => Ok(()),
        Err(_) => Err(WriteFault::Some(SellerFault::TimedOut { answered: false })),
    }
}
