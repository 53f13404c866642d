//! Payment rails: how money is asked for and how its arrival is known. A rail reports facts; this module compares them
//! with the quote, and nothing that a client says counts.

mod client;
pub mod relay;
pub mod sandbox;
pub mod x402;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::{Value, json};
use storage::model::{ChainFamily, Evidence, Listing, Micros, OriginCurrency, Payment, Quote, Rail, UnixMillis};

use crate::refusal::{Code, Refusal};
use relay::Relay;
use sandbox::Sandbox;
use x402::{X402, wire::REQUIRED_HEADER};

/// When a provider that does not answer may be asked again.
const PROVIDER_PAUSE: Duration = Duration::from_secs(2);

/// What a rail says of a payment right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Nothing final yet; ask again after so long.
    Pending(Duration),
    /// Money arrived, for good as far as the rail can tell.
    Settled(RailRecord),
    /// It will not arrive.
    Failed,
}

/// What a rail's own record says of money that it brought before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It is still there.
    Nothing,
    /// So much of it has gone back, for good.
    Back(Micros),
    /// There is no record that could tell.
    Untold,
}

/// What a rail's own record says about money that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RailRecord {
    /// Names the money; unique over all payments.
    pub proof_key: String,
    /// The rail's reference.
    pub reference: String,
    /// How much arrived.
    pub amount: Micros,
    /// With whom it arrived.
    pub payee: String,
    /// On which rail: a payment can be made on any that it was offered on.
    pub rail: Rail,
}

/// The rail cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Not now: nothing is known, nothing has changed.
    #[error("the payment provider does not answer")]
    Unavailable,
    /// Never on this route.
    #[error("the payment cannot be made on this route")]
    RouteUnavailable,
    /// Not now; ask again after so long.
    #[error("the payment provider is asked too often")]
    Busy(Duration),
    /// The price is too low for the route.
    #[error("the price is too low for this route")]
    BelowMinimum,
    /// Never from this payer.
    #[error("the payment provider refuses this payer")]
    PayerRefused,
    /// The buyer has no wallet that money could go back to.
    #[error("the buyer has no payment wallet of this family")]
    NoWallet(ChainFamily),
}

impl From<ProviderError> for Refusal {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Unavailable => Self::from(Code::PaymentProviderUnavailable).retry_about(PROVIDER_PAUSE),
            ProviderError::Busy(after) => {
                Self::from(Code::PaymentProviderUnavailable).retry_about(after.max(Duration::from_secs(1)))
            }
            ProviderError::RouteUnavailable => Code::PaymentRouteUnavailable.into(),
            ProviderError::BelowMinimum => Code::PaymentRouteMinimumNotMet.into(),
            ProviderError::PayerRefused => {
                Self::from(Code::Forbidden).message("The payment provider does not take payments from this wallet.")
            }
            ProviderError::NoWallet(family) => {
                let chain = match family {
                    ChainFamily::Evm => "EVM",
                    ChainFamily::Solana => "Solana",
                };
                Self::from(Code::PaymentRouteUnavailable).message(format!(
                    "Paying in this currency needs an active {chain} wallet with the payment capability; link one at \
                     POST /api/v1/me/wallets, or name another currency in X-Crochet-Origin-Currency."
                ))
            }
        }
    }
}

/// What a rail adds to a quote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// The provider's own id.
    pub provider_ref: String,
    /// What the rail wants to find again.
    pub terms: Vec<u8>,
}

/// One payment rail. Every method may be called any number of times, for ever.
#[async_trait]
pub trait PaymentProvider: Send + Sync {
    /// Which rail it is.
    fn rail(&self) -> Rail;

    /// The lowest price on the route of this currency; `None`: there is no such route.
    fn minimum(&self, currency: OriginCurrency) -> Option<Micros>;

    /// Who must have been paid.
    fn payee(&self) -> &str;

    /// Who must have been paid for this quote: the wallet may have changed since.
    fn payee_of(&self, _quote: &Quote) -> String {
        self.payee().to_string()
    }

    /// Whether an offer costs something, so that one which stands is used again.
    fn is_dear(&self) -> bool {
        false
    }

    /// Whether a quote that was made on another rail can be paid here all the same, with nothing prepared.
    fn joins(&self, _quote: &Quote) -> bool {
        false
    }

    /// Prepares the payment at the provider, before the quote is durable.
    ///
    /// # Errors
    /// [`ProviderError`].
    async fn offer(&self, quote: &Quote) -> Result<Offered, ProviderError>;

    /// What the buyer must do, as the 402 shows it. `site` is the public URL.
    fn requirements(&self, quote: &Quote, site: &str) -> Value;

    /// Reads the provider's own record.
    ///
    /// # Errors
    /// [`ProviderError`]: nothing is known; never to be taken for a no.
    async fn check(&self, quote: &Quote) -> Result<Checked, ProviderError>;

    /// How much of money that this rail brought has gone back for good, by the rail's own record.
    ///
    /// # Errors
    /// [`ProviderError`]: nothing is known, and it is asked again.
    async fn gone(&self, _quote: &Quote, _evidence: &Evidence) -> Result<Gone, ProviderError> {
        Ok(Gone::Untold)
    }

    /// How long to pause after a look that nobody asked for: buyers' own come first.
    fn reread_pause(&self) -> Duration {
        Duration::ZERO
    }
}

/// What came of comparing a rail's facts with the quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The money is ours: how much, the store decides upon.
    Ours(Evidence),
    /// It went to somebody else: no money of ours.
    NotOurs,
}

/// Compares a rail's record with what the quote asked for.
#[must_use]
pub fn verify(quote: &Quote, payee: &str, record: RailRecord, now: UnixMillis) -> Verified {
    // What costs nothing is paid by nothing.
    if quote.rail == Rail::Free || record.payee != payee || record.amount <= Micros::ZERO {
        return Verified::NotOurs;
    }
    Verified::Ours(Evidence {
        proof_key: record.proof_key,
        rail: record.rail,
        reference: record.reference,
        amount: record.amount,
        recorded_at: now,
    })
}

/// All rails of this deployment that are on.
pub struct Rails {
    providers: HashMap<Rail, Arc<dyn PaymentProvider>>,
    sandbox: Option<Arc<Sandbox>>,
    relay: Option<Arc<Relay>>,
    x402: Option<Arc<X402>>,
    /// The rails that are on, the default first.
    order: Vec<Rail>,
    site: String,
}

impl Rails {
    pub(crate) fn new(
        sandbox: Option<Arc<Sandbox>>,
        relay: Option<Arc<Relay>>,
        x402: Option<Arc<X402>>,
        default: config::DefaultRail,
        site: String,
    ) -> Self {
        let mut providers: HashMap<Rail, Arc<dyn PaymentProvider>> = HashMap::new();
        if let Some(sandbox) = &sandbox {
            providers.insert(Rail::Sandbox, sandbox.clone());
        }
        if let Some(relay) = &relay {
            providers.insert(Rail::Relay, relay.clone());
        }
        if let Some(x402) = &x402 {
            providers.insert(Rail::X402, x402.clone());
        }
        let first = match default {
            config::DefaultRail::Sandbox => Rail::Sandbox,
            config::DefaultRail::Relay => Rail::Relay,
            config::DefaultRail::X402 => Rail::X402,
        };
        let mut order: Vec<Rail> = providers.keys().copied().collect();
        order.sort_by_key(|rail| (*rail != first, *rail));
        Self { providers, sandbox, relay, x402, order, site }
    }

    /// One rail, for tests.
    #[cfg(test)]
    pub(crate) fn only(provider: Arc<dyn PaymentProvider>) -> Self {
        let rail = provider.rail();
        let providers = HashMap::from([(rail, provider)]);
        Self { order: vec![rail], providers, sandbox: None, relay: None, x402: None, site: String::new() }
    }

    /// With one more rail, for tests.
    #[cfg(test)]
    pub(crate) fn and(mut self, provider: Arc<dyn PaymentProvider>) -> Self {
        self.order.push(provider.rail());
        self.providers.insert(provider.rail(), provider);
        self
    }

    /// The rail of a quote that exists.
    ///
    /// # Errors
    /// `PaymentProviderUnavailable` when the rail was switched off since.
    pub(crate) fn of(&self, rail: Rail) -> Result<&Arc<dyn PaymentProvider>, Refusal> {
        self.providers.get(&rail).ok_or_else(|| ProviderError::Unavailable.into())
    }

    /// The rail that a new quote is made on.
    ///
    /// # Errors
    /// `PaymentRouteUnavailable` when none is on.
    pub(crate) fn default(&self) -> Result<&Arc<dyn PaymentProvider>, Refusal> {
        self.of(*self.order.first().ok_or(Code::PaymentRouteUnavailable)?)
    }

    /// The rail that a new quote in this currency is made on: the default, or another that has such a route.
    ///
    /// # Errors
    /// `PaymentRouteMinimumNotMet`, `PaymentRouteUnavailable`.
    pub(crate) fn pick(&self, currency: OriginCurrency, price: Micros) -> Result<&Arc<dyn PaymentProvider>, Refusal> {
        let on = || self.order.iter().filter_map(|rail| self.providers.get(rail));
        let has_route = |provider: &&Arc<dyn PaymentProvider>| provider.minimum(currency).is_some();
        let takes =
            |provider: &&Arc<dyn PaymentProvider>| provider.minimum(currency).is_some_and(|least| price >= least);
        if let Some(provider) = on().find(takes) {
            return Ok(provider);
        }
        let provider = on().find(has_route).or_else(|| on().next()).ok_or(Code::PaymentRouteUnavailable)?;
        self.check_minimum(provider, currency, price)?;
        Ok(provider)
    }

    /// The sandbox's own side, for its routes.
    pub(crate) fn sandbox(&self) -> Option<&Arc<Sandbox>> {
        self.sandbox.as_ref()
    }

    /// The rail that tells by itself, when it is on.
    pub(crate) fn relay(&self) -> Option<&Arc<Relay>> {
        self.relay.as_ref()
    }

    /// The rail that takes what a buyer signed, when it is on.
    pub(crate) fn x402(&self) -> Option<&Arc<X402>> {
        self.x402.as_ref()
    }

    /// Refuses a price below the route's minimum, naming a currency that works.
    ///
    /// # Errors
    /// `PaymentRouteMinimumNotMet`, `PaymentRouteUnavailable`.
    fn check_minimum(
        &self,
        provider: &Arc<dyn PaymentProvider>,
        currency: OriginCurrency,
        price: Micros,
    ) -> Result<(), Refusal> {
        let works = |currency: &OriginCurrency| provider.minimum(*currency).is_some_and(|minimum| price >= minimum);
        if works(&currency) {
            return Ok(());
        }
        let other = OriginCurrency::ALL.into_iter().find(works);
        let code = match provider.minimum(currency) {
            Some(_) => Code::PaymentRouteMinimumNotMet,
            None => Code::PaymentRouteUnavailable,
        };
        let mut refusal = Refusal::from(code);
        if let Some(minimum) = provider.minimum(currency) {
            refusal = refusal.detail("minimum_micros", minimum.0);
        }
        if let Some(other) = other {
            let is_solana = matches!(other, OriginCurrency::Sol | OriginCurrency::UsdcSol);
            refusal = refusal
                .detail("recommended_origin_currency", other.name())
                .detail("recommended_gateway_headers", json!({ "X-Crochet-Origin-Currency": other.name() }))
                .recovery("retry_same_route", false)
                .recovery("use_new_idempotency_key", true)
                .next_action(if is_solana { "retry_with_solana_payment_route" } else { "fix_request" });
        }
        Err(refusal)
    }

    /// The rails beside its own that a quote can be paid on.
    pub(crate) fn others<'a>(&'a self, quote: &'a Quote) -> impl Iterator<Item = &'a Arc<dyn PaymentProvider>> {
        let on = self.order.iter().filter(|rail| **rail != quote.rail && quote.rail != Rail::Free);
        on.filter_map(|rail| self.providers.get(rail)).filter(|provider| provider.joins(quote))
    }

    /// The public URL without a slash at its end.
    pub(crate) fn site(&self) -> &str {
        &self.site
    }

    /// The 402 that offers a quote. `reason`: x402's word for why what was signed for it did not do.
    #[must_use]
    pub(crate) fn offer(&self, payment: &Payment, listing: &Listing, reason: Option<&str>) -> Refusal {
        let refusal = match &self.x402 {
            Some(x402) if payment.quote.rail == Rail::X402 || x402.joins(&payment.quote) => {
                let required = x402.required(&payment.quote, listing, &self.site, reason);
                Refusal::from(Code::PaymentRequired).header(REQUIRED_HEADER, required)
            }
            _ => Code::PaymentRequired.into(),
        };
        refusal
            .payment_state(payment.progress.state)
            .recovery("preserve", vec!["body", "Authorization", "Idempotency-Key"])
            .recovery("retry_with_headers", json!({ "X-Crochet-Relay-Request-Id": payment.quote.id.to_string() }))
            .data(json!({ "payment": self.view(payment) }))
    }

    /// `data.payment` of the 402, and what the payment's own page shows.
    #[must_use]
    pub fn view(&self, payment: &Payment) -> Value {
        let quote = &payment.quote;
        let split = quote.split();
        let amount = json!({
            "amount_cents": quote.price.cents(), "amount_micros": quote.price.0, "currency": "USD",
        });
        let requirements =
            self.providers.get(&quote.rail).map_or(Value::Null, |rail| rail.requirements(quote, &self.site));
        let mut offers = vec![json!({ "provider": quote.rail.name(), "requirements": requirements })];
        offers.extend(self.others(quote).map(|provider| {
            json!({ "provider": provider.rail().name(), "requirements": provider.requirements(quote, &self.site) })
        }));
        let mut view = json!({
            "relay_request_id": quote.id.to_string(),
            "gateway_request_id": quote.gateway_request_id().to_string(),
            "requirements": requirements.clone(),
            "amount": amount,
            "origin_currency": quote.currency.name(),
            "expires_at": quote.expires_at.to_string(),
            "provider": quote.rail.name(),
            "body_sha256": hex::encode(quote.body_sha256),
            "status_url": format!("{}/api/v1/payments/{}", self.site, quote.id),
            "offers": offers,
        });
        let rate: serde_json::Number = quote.fee_rate.decimal().parse().unwrap_or_else(|_| 0.into());
        let fees = json!({
            "fee_rate": rate,
            "fee_amount_cents": split.fee.cents(),
            "fee_amount_micros": split.fee.0,
            "seller_receives_cents": split.seller_cents(),
            "seller_receives_micros": split.seller.0,
        });
        if let Value::Object(fields) = &mut view {
            fields.insert("fees".into(), fees);
        }
        view
    }
}
