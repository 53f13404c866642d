//! The client that calls sellers: head and body in one send, connections pooled per listing, address and thread, and
//! never a second send once a byte may have reached the seller.

mod answer;
mod connection;
mod dial;
mod pool;

use std::time::{Duration, Instant};

use actors::seller::{SellerAnswer, SellerClient, SellerFault, SellerRequest};
use async_trait::async_trait;
use config::Config;

use answer::{AnswerBody, AnswerHead};
use connection::{Connection, Written};
use dial::Dialer;
use pool::{Home, Pools};

/// Up to here head and body are copied together; above it the kernel gathers them.
const COPY_MAX: usize = 32 << 10;

/// The seller client of this process. Its pools are per thread: a socket belongs to the runtime that opened it.
pub struct Sellers {
    dialer: Dialer,
    pools: Pools,
}

impl Sellers {
    /// A client with the web's certificate authorities.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            dialer: Dialer::new(config.mode),
            pools: Pools::new(config.proxy.seller_idle_timeout, config.proxy.seller_connections_max),
        }
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
        let head = AnswerHead::read(&mut connection, deadline).await?;
        let body = AnswerBody::new(connection, &head, deadline, home);
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
