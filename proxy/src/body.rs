//! A request's body: read within its limits, held against one budget, hashed. A protocol implements
//! [`RequestBody`].

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actors::refusal::{Code, Refusal};
use bytes::Bytes;
use config::Proxy;
use sha2::{Digest, Sha256};

/// How fast a body must come, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyPace {
    /// For so long any rate will do.
    pub grace: Duration,
    /// From then on, so many bytes a second at least.
    pub min_bytes_per_second: u64,
    /// By then it must be whole.
    pub timeout: Duration,
}

impl BodyPace {
    /// As configured.
    #[must_use]
    pub fn new(config: &Proxy) -> Self {
        Self {
            grace: config.body_grace,
            min_bytes_per_second: config.body_min_bytes_per_second,
            timeout: config.body_timeout,
        }
    }

    /// Until when the next bytes must come, seen from the beginning of the body, when `received` have come.
    #[must_use]
    pub fn next_due(&self, received: u64) -> Duration {
        let paced = Duration::from_millis(received.saturating_mul(1000) / self.min_bytes_per_second.max(1));
        self.grace.saturating_add(paced).min(self.timeout)
    }
}

/// The memory that held bodies may take, over all calls.
#[derive(Debug)]
pub struct Budget {
    taken: AtomicU64,
    max: u64,
}

impl Budget {
    /// A budget of `max` bytes.
    #[must_use]
    pub fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), max })
    }

    /// How many bytes are held.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A share of the budget; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    /// An empty share.
    #[must_use]
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// `Overloaded` when the budget has none.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        let before = self.budget.taken.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.budget.max {
            self.budget.taken.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refusal::from(Code::Overloaded).retry_after(Duration::from_secs(1)));
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body that is there as a whole. Its share of the budget goes back when this is dropped.
#[derive(Debug)]
pub struct HeldBody {
    /// The raw bytes.
    pub bytes: Bytes,
    /// Their SHA-256.
    pub sha256: [u8; 32],
    share: Share,
}

impl HeldBody {
    /// Holds `bytes`, which `share` was taken for.
    #[must_use]
    pub fn new(bytes: Bytes, share: Share) -> Self {
        let sha256 = Sha256::digest(&bytes).into();
        Self { bytes, sha256, share }
    }

    /// How much of the budget it takes.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.share.bytes
    }
}

/// The body of the request at hand.
pub trait RequestBody: Send {
    /// The length that was announced, if it was.
    fn announced(&self) -> Option<u64>;

    /// Reads it whole, once; a second call finds an empty body.
    ///
    /// # Errors
    /// `PayloadTooLarge` above `limit`, seen from the announced length before a byte is read, and again while reading;
    /// `RequestTimeout` when it comes too slowly; `Overloaded` when no memory is free; `BadRequest` when it is framed
    /// wrongly or ends early.
    fn read(&mut self, limit: u64) -> impl Future<Output = Result<HeldBody, Refusal>> + Send;

    /// Reads what is left of it and forgets it, so that the connection can be used again.
    ///
    /// # Errors
    /// As [`read`](Self::read), with the largest limit there is.
    fn discard(&mut self) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// The refusal of a body above `limit` bytes.
#[must_use]
pub fn too_large(limit: u64) -> Refusal {
    Refusal::from(Code::PayloadTooLarge).detail("limit_bytes", limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d4_a_share_is_refused_when_none_is_free_and_returned_when_dropped() {
        let budget = Budget::new(100);
        let mut first = Share::new(&budget);
        first.grow(60).expect("free");
        let mut second = Share::new(&budget);
        let refusal = second.grow(50).expect_err("none free");
        assert_eq!((refusal.code(), refusal.retry_after_seconds()), (Code::Overloaded, Some(1)));
        assert_eq!(budget.taken(), 60);
        let held = HeldBody::new(Bytes::from_static(b"{}"), first);
        assert_eq!(held.held_bytes(), 60);
        assert_eq!(hex::encode(held.sha256), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
        drop(held);
        second.grow(100).expect("all free again");
    }

    #[test]
    fn d2_the_next_bytes_are_due_by_grace_then_rate_then_the_end() {
        let pace =
            BodyPace { grace: Duration::from_secs(5), min_bytes_per_second: 1024, timeout: Duration::from_secs(30) };
        assert_eq!(pace.next_due(0), Duration::from_secs(5));
        assert_eq!(pace.next_due(10 * 1024), Duration::from_secs(15));
        assert_eq!(pace.next_due(u64::MAX), Duration::from_secs(30));
    }
}
