//! The Relay rail: buyers pay SOL, ether or USDC on their own chain, we are paid USDC on ours.
//!
//! *Never:* believes a status word. Money counts when Relay's own record names our recipient, currency, order and
//! token, and a transaction on our chain.

pub mod route;
mod webhook;
pub mod wire;
#[cfg(test)]
mod wire_tests;

use std::{
    io,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use config::Secret;
use governor::{DefaultDirectRateLimiter, Quota, clock::Clock as _, clock::QuantaClock};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use storage::{
    Store,
    model::{ChainFamily, Clock, Evidence, Micros, OriginCurrency, Quote, Rail, UnixMillis, WalletCapability},
    reference_key,
};

use super::{
    Checked, Gone, Offered, PaymentProvider, ProviderError, RailRecord,
    client::{Answer, Client, Credential},
};
use crate::{
    refusal::{Code, Refusal},
    wallets,
};
use route::{Chain, SETTLEMENT, Token};
use wire::{Asked, Deposit, ErrorAnswer, Expected, QuoteAnswer, QuoteFault, RequestsAnswer, Status, StatusAnswer};

/// Relay's order outlives our quote by this much: its clock is not ours.
const DEADLINE_MARGIN: Duration = Duration::from_secs(60);

/// What is kept of Relay's quote, in the quote's terms.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Terms {
    /// Our wallet at that time: a new one does not make what was quoted before somebody else's.
    recipient: String,
    /// Our random token.
    referrer: String,
    deposit: Deposit,
}

/// The provider.
pub struct Relay {
    client: Client,
    /// What Relay signs its notices with.
    key: Secret,
    store: Arc<dyn Store>,
    clock: Clock,
    recipient: String,
    minimums: Vec<(OriginCurrency, Micros)>,
    retry_after: Duration,
    pause: Duration,
    reread_pause: Duration,
    quotes: DefaultDirectRateLimiter,
    /// No quote is asked for before this moment, milliseconds.
    paused_until: AtomicU64,
}

impl Relay {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, knobs: &config::Payments) -> io::Result<Self> {
        let relay = &knobs.relay;
        let minimums = relay
            .route_minimum_micros
            .iter()
            .filter_map(|(name, micros)| Some((OriginCurrency::named(name)?, Micros(i64::try_from(*micros).ok()?))));
        let rate = NonZeroU32::new(relay.quotes_per_minute).unwrap_or(NonZeroU32::MIN);
        Ok(Self {
            client: Client::new(&relay.base_url, Credential::api_key(relay.api_key.clone()), relay.timeout)?,
            key: relay.api_key.clone(),
            store,
            clock,
            recipient: relay.recipient.clone(),
            minimums: minimums.collect(),
            retry_after: knobs.pending_retry_after,
            pause: relay.pause,
            reread_pause: relay.reread_pause,
            quotes: DefaultDirectRateLimiter::direct(Quota::per_minute(rate)),
            paused_until: AtomicU64::new(0),
        })
    }

    /// What leads to the payment that one of Relay's notices is about; `None` when it names none.
    ///
    /// # Errors
    /// `Forbidden` when Relay did not sign it, or long ago.
    pub(crate) fn noticed(&self, timestamp: &str, signature: &str, body: &[u8]) -> Result<Option<String>, Refusal> {
        if !webhook::is_signed(&self.key, timestamp, signature, body, self.clock.now()) {
            let message =
                "X-Signature-SHA256 is not Relay's over X-Signature-Timestamp and these bytes, or is too old.";
            return Err(Refusal::from(Code::Forbidden).message(message));
        }
        Ok(webhook::request_id(body).map(|id| reference_key(&id)))
    }

    /// The address that a payer on this chain pays from, and gets its money back to.
    async fn payer(&self, quote: &Quote, chain: Chain) -> Result<String, ProviderError> {
        let wallets = self.store.wallet_list(quote.buyer).await.map_err(|_| ProviderError::Unavailable)?;
        let family = if chain.is_evm() { ChainFamily::Evm } else { ChainFamily::Solana };
        let wallet = wallets::preferred(&wallets, WalletCapability::Payment, |wallet| wallet.family == family);
        wallet.map(wallets::address).ok_or(ProviderError::NoWallet(family))
    }

    /// Waits for nobody: what the key does not allow now is not asked.
    fn take_turn(&self, now: UnixMillis) -> Result<(), ProviderError> {
        let until = UnixMillis(self.paused_until.load(Ordering::Relaxed));
        if now < until {
            return Err(ProviderError::Busy(until.since(now)));
        }
        let clock = QuantaClock::default();
        self.quotes.check().map_err(|not_until| ProviderError::Busy(not_until.wait_time_from(clock.now())))
    }

    fn pause(&self, answer: &Answer) -> Duration {
        let pause = answer.retry_after.unwrap_or(self.pause).max(self.pause);
        self.paused_until.fetch_max(self.clock.now().plus(pause).0, Ordering::Relaxed);
        pause
    }

    fn refused(&self, answer: &Answer, quote: &Quote) -> ProviderError {
        let said: ErrorAnswer = serde_json::from_slice(&answer.body).unwrap_or_default();
        tracing::warn!(payment = %quote.id, status = answer.status, code = %said.error_code, message = %said.message,
            "Relay gives no quote");
        if answer.status == 429 {
            return ProviderError::Busy(self.pause(answer));
        }
        match said.meaning(answer.status) {
            QuoteFault::BelowMinimum => ProviderError::BelowMinimum,
            QuoteFault::Busy => ProviderError::Unavailable,
            QuoteFault::Sanctioned => ProviderError::PayerRefused,
            QuoteFault::Route => ProviderError::RouteUnavailable,
        }
    }

    /// Reads one of Relay's records; `None`: Relay knows no such thing, yet.
    async fn read<T: DeserializeOwned>(&self, path: &str, quote: &Quote) -> Result<Option<T>, ProviderError> {
        let answer = self.client.get(path).await.map_err(|error| {
            tracing::warn!(payment = %quote.id, %error, "Relay does not answer");
            ProviderError::Unavailable
        })?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map(Some).map_err(|error| {
                tracing::error!(payment = %quote.id, %error, "Relay's answer cannot be read");
                ProviderError::Unavailable
            }),
            404 => Ok(None),
            429 => Err(ProviderError::Busy(answer.retry_after.unwrap_or(self.pause))),
            status => {
                tracing::warn!(payment = %quote.id, status, "Relay does not answer");
                Err(ProviderError::Unavailable)
            }
        }
    }
}

fn asked(quote: &Quote, recipient: &str) -> Asked {
    Asked {
        origin: Token::of(quote.currency),
        destination: SETTLEMENT,
        recipient: recipient.to_string(),
        price: quote.price,
        expires_at: quote.expires_at,
    }
}

fn terms(quote: &Quote) -> Result<Terms, ProviderError> {
    serde_json::from_slice(&quote.terms).map_err(|error| {
        tracing::error!(payment = %quote.id, %error, "the terms of a quote cannot be read");
        ProviderError::Unavailable
    })
}

#[async_trait]
impl PaymentProvider for Relay {
    fn rail(&self) -> Rail {
        Rail::Relay
    }

    fn minimum(&self, currency: OriginCurrency) -> Option<Micros> {
        self.minimums.iter().find(|(known, _)| *known == currency).map(|(_, minimum)| *minimum)
    }

    fn payee(&self) -> &str {
        &self.recipient
    }

    fn payee_of(&self, quote: &Quote) -> String {
        terms(quote).map_or_else(|_| self.recipient.clone(), |terms| terms.recipient)
    }

    fn is_dear(&self) -> bool {
        true
    }

    async fn offer(&self, quote: &Quote) -> Result<Offered, ProviderError> {
        let asked = asked(quote, &self.recipient);
        let payer = self.payer(quote, asked.origin.chain).await?;
        let now = self.clock.now();
        self.take_turn(now)?;
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|_| ProviderError::Unavailable)?;
        let referrer = hex::encode(token);
        let body = json!({
            "user": payer, "refundTo": payer,
            "originChainId": asked.origin.chain.id(), "originCurrency": asked.origin.address,
            "destinationChainId": SETTLEMENT.chain.id(), "destinationCurrency": SETTLEMENT.address,
            "amount": quote.price.0.to_string(), "tradeType": "EXACT_OUTPUT", "recipient": self.recipient,
            "useDepositAddress": true, "strict": true, "includeProtocolData": true, "referrer": referrer,
            "ttl": (quote.expires_at.since(now) + DEADLINE_MARGIN).as_secs(),
        });
        let answer = self.client.post("/quote/v2", body.to_string()).await.map_err(|error| {
            tracing::warn!(%error, "Relay does not answer");
            ProviderError::Unavailable
        })?;
        if answer.status != 200 {
            return Err(self.refused(&answer, quote));
        }
        let found = serde_json::from_slice::<QuoteAnswer>(&answer.body).map_err(|error| error.to_string());
        let found = found.and_then(|answer| answer.deposit(&asked).map_err(|fault| fault.to_string()));
        let deposit = found.map_err(|reason| {
            tracing::error!(%reason, "Relay's quote is not what was asked for");
            ProviderError::RouteUnavailable
        })?;
        let provider_ref = deposit.request_id.clone();
        let terms = Terms { recipient: self.recipient.clone(), referrer, deposit };
        let terms = serde_json::to_vec(&terms).map_err(|_| ProviderError::Unavailable)?;
        Ok(Offered { provider_ref, terms })
    }

    fn requirements(&self, quote: &Quote, _site: &str) -> Value {
        let Ok(Terms { deposit, .. }) = terms(quote) else { return Value::Null };
        let origin = Token::of(quote.currency);
        json!({
            "provider": "relay",
            "request_id": deposit.request_id,
            "order_id": deposit.order_id,
            "origin_currency": quote.currency.name(),
            "origin_chain_id": origin.chain.id(),
            "origin_token": origin.address,
            "deposit_address": deposit.address,
            "deposit_amount": deposit.amount,
            "transaction": deposit.transaction,
            "time_estimate_seconds": deposit.seconds,
            "amount": { "amount_micros": quote.price.0, "currency": "USD" },
            "expires_at": quote.expires_at.to_string(),
        })
    }

    async fn check(&self, quote: &Quote) -> Result<Checked, ProviderError> {
        let Terms { recipient, referrer, deposit } = terms(quote)?;
        let id = &deposit.request_id;
        let pending = Ok(Checked::Pending(self.retry_after));
        let status: Option<StatusAnswer> = self.read(&format!("/intents/status/v3?requestId={id}"), quote).await?;
        match status.map(|status| status.meaning()) {
            None | Some(Status::Pending) => return pending,
            Some(Status::Over) => return Ok(Checked::Failed),
            Some(Status::Success) => {}
        }
        let record: Option<RequestsAnswer> = self.read(&format!("/requests/v3?id={id}"), quote).await?;
        let Some(record) = record else { return pending };
        let asked = asked(quote, &recipient);
        let expected = Expected { asked: &asked, deposit: &deposit, referrer: &referrer };
        match record.arrived(&expected) {
            Ok(None) => pending,
            Ok(Some(arrived)) => Ok(Checked::Settled(RailRecord {
                // The transaction that paid us: two payments can share neither it nor Relay's request.
                proof_key: format!("fill:{}:{}", SETTLEMENT.chain.id(), arrived.transaction.to_ascii_lowercase()),
                reference: arrived.transaction,
                amount: arrived.amount,
                payee: recipient,
                rail: Rail::Relay,
            })),
            // Money may have landed all the same: neither a yes nor a no.
            Err(reason) => {
                tracing::error!(payment = %quote.id, %reason, "Relay's record is not of the payment that was quoted");
                Err(ProviderError::Unavailable)
            }
        }
    }

    /// Relay's word for it is final. A mere failure of what was filled before is a backward step, and says nothing.
    async fn gone(&self, quote: &Quote, evidence: &Evidence) -> Result<Gone, ProviderError> {
        let id = terms(quote)?.deposit.request_id;
        let status: Option<StatusAnswer> = self.read(&format!("/intents/status/v3?requestId={id}"), quote).await?;
        let is_back = status.is_some_and(|status| status.is_refund());
        Ok(if is_back { Gone::Back(evidence.amount) } else { Gone::Nothing })
    }

    fn reread_pause(&self) -> Duration {
        self.reread_pause
    }
}
