//! The client that calls sellers: head and body in one send, connections pooled per listing, address and thread, and
//! never a second send once a byte may have reached the seller.

mod answer;
mod connection;
mod dial;
mod pool;
mod resolve;
pub(crate) mod trust;
mod unpack;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use actors::{
    seller::{SellerAnswer, SellerBody, SellerClient, SellerFault, SellerRequest},
    vetting::Vetting,
};
use async_trait::async_trait;
use config::Config;

pub use resolve::{Resolved, Resolver};

use answer::{AnswerBody, AnswerHead, HeadBounds};
use connection::{Connection, Written};
use dial::Dialer;
use pool::{Home, Pools};
use resolve::NameServers;
use unpack::Unpacking;

/// Up to here head and body are copied together; above it the kernel gathers them.
const COPY_MAX: usize = 32 << 10;

/// The seller client of this process. Its pools are per thread: a socket belongs to the runtime that opened it.
pub struct Sellers {
    dialer: Dialer,
    pools: Pools,
    bounds: HeadBounds,
    stall: Duration,
    unpacking: Unpacking,
}

impl Sellers {
    /// A client that trusts the web's certificate authorities and asks the name servers of the configuration, or of the
    /// system as they are now. `site` is our public URL: nobody is called there.
    ///
    /// # Errors
    /// When there are no name servers in production mode; when `proxy.dev_ca` cannot be used.
    pub fn new(config: &Config, site: &str) -> io::Result<Self> {
        Self::with_resolver(config, site, Arc::new(NameServers::new(config)?))
    }

    /// The same, with names resolved by somebody else.
    ///
    /// # Errors
    /// When `proxy.dev_ca` cannot be used.
    pub fn with_resolver(config: &Config, site: &str, resolver: Arc<dyn Resolver>) -> io::Result<Self> {
        let knobs = &config.proxy;
        let tls = trust::connector(&knobs.dev_ca)?;
        Ok(Self {
            dialer: Dialer::new(Vetting::new(config, site), resolver, tls, knobs),
            pools: Pools::new(knobs.seller_idle_timeout, knobs.seller_connections_max),
            bounds: HeadBounds::new(knobs),
            stall: knobs.seller_stall_timeout,
            unpacking: Unpacking::new(knobs),
        })
    }

    /// Sends on a pooled connection, else on a new one. Only a pooled one that took no byte is replaced.
    async fn send_once(
        &self,
        request: SellerRequest,
        now: Instant,
        deadline: Instant,
    ) -> Result<(Connection, Home), SellerFault> {
        let SellerRequest { target, mut head, body, timeout } = request;
        let home = self.pools.home(&target);
        let body = if head.len() + body.len() <= COPY_MAX {
            head.extend_from_slice(&body);
            None
        } else {
            Some(body)
        };
        let body = body.as_deref().unwrap_or_default();
        while let Some(mut connection) = home.take(now) {
            match connection.write(&head, body, timeout).await {
                Written::Nothing => {}
                Written::Some => return Err(SellerFault::TimedOut { answered: false }),
                Written::All => return Ok((connection, home)),
            }
        }
        let mut connection = self.dialer.dial(&target, deadline).await?;
        match connection.write(&head, body, left(deadline)).await {
            Written::Nothing => Err(SellerFault::Unreachable),
            Written::Some => Err(SellerFault::TimedOut { answered: false }),
            Written::All => Ok((connection, home)),
        }
    }
}

#[async_trait]
impl SellerClient for Sellers {
    async fn send(&self, request: SellerRequest) -> Result<SellerAnswer, SellerFault> {
        let now = Instant::now();
        let deadline = now + request.timeout;
        let (mut connection, home) = self.send_once(request, now, deadline).await?;
        let head = AnswerHead::read(&mut connection, self.bounds, deadline).await?;
        let tls = connection.tls_version();
        let body = AnswerBody::new(connection, &head, deadline, self.stall, home);
        let length = head.plain_length();
        let body: Box<dyn SellerBody> = match head.packing {
            None => Box::new(body),
            Some(packing) => Box::new(self.unpacking.unpack(body, packing)),
        };
        Ok(SellerAnswer {
            status: head.status,
            content_type: head.content_type,
            retry_after: head.retry_after,
            length,
            tls,
            body,
        })
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// A way in for hostile bytes without a socket: what the fuzz target of sellers' answers calls, and nothing else.
#[doc(hidden)]
pub mod fuzzing {
    use actors::seller::SellerFault;
    use bytes::BytesMut;

    /// What a seller's head says about its answer.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Seen {
        /// 200 to 599.
        pub status: u16,
        /// As it came.
        pub content_type: String,
        /// The body's length, when it is told.
        pub length: Option<u64>,
        /// Whether the body comes in chunks.
        pub is_chunked: bool,
        /// Whether another request may follow on the connection.
        pub is_kept: bool,
    }

    /// Takes an answer's head, and the interim ones before it, off the front of `buffer`. `None` when it has not come
    /// whole.
    ///
    /// # Errors
    /// As reading it from a seller would.
    pub fn read_answer(buffer: &mut BytesMut) -> Result<Option<Seen>, SellerFault> {
        super::answer::take_head(buffer)
    }
}
