//! The sandbox rail: a payment provider of our own for development. It keeps its own books, and the gateway reads them
//! as it would read any provider's: through the rail, compared with the quote.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use dashmap::DashMap;
use serde_json::{Value, json};
use storage::{
    Store, StoreResult,
    model::{Clock, Evidence, Micros, OriginCurrency, Payment, PaymentId, Quote, Rail, SandboxOutcome, SandboxPayment},
};

use super::{Checked, Gone, Offered, PaymentProvider, ProviderError, RailRecord};
use crate::refusal::Refusal;

/// What a payer asks the sandbox to do; all of it optional.
#[derive(Clone, Debug, Default)]
pub struct SandboxPay {
    /// Pay so much instead of the price.
    pub amount: Option<Micros>,
    /// Leave it pending so long.
    pub delay: Duration,
    /// How it ends.
    pub outcome: SandboxOutcome,
    /// Pay somebody else.
    pub recipient: Option<String>,
}

/// The provider and its books.
pub struct Sandbox {
    store: Arc<dyn Store>,
    clock: Clock,
    recipient: String,
    minimums: Vec<(OriginCurrency, Micros)>,
    retry_after: Duration,
    reorg_after: Duration,
    recent: DashMap<PaymentId, SandboxPayment>,
}

/// Payments that are looked up without the store: those made on this node a while ago at most.
const RECENT_MAX: usize = 65_536;

impl Sandbox {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, knobs: &config::Payments) -> Self {
        let minimums =
            knobs.sandbox.route_minimum_micros.iter().filter_map(|(name, micros)| {
                Some((OriginCurrency::named(name)?, Micros(i64::try_from(*micros).ok()?)))
            });
        Self {
            store,
            clock,
            recipient: knobs.sandbox.recipient.clone(),
            minimums: minimums.collect(),
            retry_after: knobs.pending_retry_after,
            reorg_after: knobs.sandbox.reorg_after,
            recent: DashMap::new(),
        }
    }

    /// Pays, once: paying again returns the first payment.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn pay(&self, payment: &Payment, pay: SandboxPay) -> Result<SandboxPayment, Refusal> {
        let now = self.clock.now();
        let id = payment.quote.id;
        let record = SandboxPayment {
            payment: id,
            reference: format!("sbx_{}", id.to_string().trim_start_matches("pay_")),
            amount: pay.amount.unwrap_or(payment.quote.price),
            recipient: pay.recipient.unwrap_or_else(|| self.recipient.clone()),
            outcome: pay.outcome,
            paid_at: now,
            settles_at: now.plus(pay.delay),
        };
        let record = self.store.sandbox_pay(record).await?;
        if self.recent.len() >= RECENT_MAX {
            crate::bound::make_room(&self.recent, RECENT_MAX);
        }
        self.recent.insert(id, record.clone());
        Ok(record)
    }

    /// The sandbox's record of a payment.
    ///
    /// # Errors
    /// `StoreUnavailable`.
    pub async fn record(&self, id: PaymentId) -> Result<Option<SandboxPayment>, Refusal> {
        Ok(self.find(id).await?)
    }

    /// Where a payment stands, in a provider's words.
    #[must_use]
    pub fn status(&self, record: &SandboxPayment) -> &'static str {
        record.status(self.clock.now(), self.reorg_after)
    }

    /// A record never changes once it is durable, so the copy in memory is as good.
    async fn find(&self, id: PaymentId) -> StoreResult<Option<SandboxPayment>> {
        if let Some(record) = self.recent.get(&id) {
            return Ok(Some(record.clone()));
        }
        self.store.sandbox_get(id).await
    }
}

#[async_trait]
impl PaymentProvider for Sandbox {
    fn rail(&self) -> Rail {
        Rail::Sandbox
    }

    fn minimum(&self, currency: OriginCurrency) -> Option<Micros> {
        self.minimums.iter().find(|(known, _)| *known == currency).map(|(_, minimum)| *minimum)
    }

    fn payee(&self) -> &str {
        &self.recipient
    }

    /// It finds a payment by our own id.
    fn joins(&self, quote: &Quote) -> bool {
        self.minimum(quote.currency).is_some_and(|least| quote.price >= least)
    }

    async fn offer(&self, quote: &Quote) -> Result<Offered, ProviderError> {
        Ok(Offered { provider_ref: quote.id.to_string(), terms: Vec::new() })
    }

    fn requirements(&self, quote: &Quote, site: &str) -> Value {
        json!({
            "provider": "sandbox",
            "amount": { "amount_micros": quote.price.0, "currency": "USD" },
            "expires_at": quote.expires_at.to_string(),
            "pay": { "method": "POST", "url": format!("{site}/api/v1/sandbox/payments/{}/pay", quote.id) },
        })
    }

    async fn check(&self, quote: &Quote) -> Result<Checked, ProviderError> {
        let record = self.find(quote.id).await.map_err(|_| ProviderError::Unavailable)?;
        let now = self.clock.now();
        let Some(record) = record else { return Ok(Checked::Pending(self.retry_after)) };
        Ok(match self.status(&record) {
            "success" => Checked::Settled(RailRecord {
                proof_key: format!("sandbox:{}", record.reference),
                reference: record.reference,
                amount: record.amount,
                payee: record.recipient,
                rail: Rail::Sandbox,
            }),
            "pending" => Checked::Pending(record.settles_at.since(now).max(Duration::from_millis(1))),
            _ => Checked::Failed,
        })
    }

    async fn gone(&self, quote: &Quote, evidence: &Evidence) -> Result<Gone, ProviderError> {
        let record = self.find(quote.id).await.map_err(|_| ProviderError::Unavailable)?;
        let is_back = record.is_some_and(|record| self.status(&record) == "refund");
        Ok(if is_back { Gone::Back(evidence.amount) } else { Gone::Nothing })
    }
}
