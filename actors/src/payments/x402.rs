//! The x402 rail, version 2: the buyer signs a transfer, and a facilitator settles it on the chain.
//! Source: the x402 specification, version 2, and ERC-3009.
//!
//! *Never:* asks anybody to move money before what was signed is durable, or takes an answer that did not come for one
//! that says no.

mod attest;
pub mod authorization;
mod chain;
mod facilitator;
mod offer;
mod receipt;
pub mod wire;

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use storage::{
    Store,
    model::{Clock, Evidence, Intent, Micros, OriginCurrency, ProfileId, Quote, Rail, UnixMillis},
};
use tokio::time::Instant;

use super::{
    Checked, Gone, Offered, PaymentProvider, ProviderError, RailRecord,
    client::{Client, Credential},
};
use crate::refusal::{Code, Refusal};
use attest::Attester;
use authorization::{Account, Domain, ExactEvm, Transfer, Wanted, account, transfer_named};
use chain::{Chain, Found, Stands};
use facilitator::{Expected, Settled};
pub(crate) use receipt::response;
pub use receipt::settlement;
use wire::{PaymentPayload, Requirements, SIGNATURE_HEADER, VERSION};

/// The scheme that is spoken: a transfer of exactly the price.
const SCHEME: &str = "exact";
/// Between two looks at the chain.
const CHAIN_PAUSE: Duration = Duration::from_millis(500);
/// The extension by which a buyer names its payment.
const IDENTIFIER: &str = "payment-identifier";

/// What a buyer signed, as far as its form goes.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    payload: PaymentPayload,
    exact: ExactEvm,
    /// Names the money.
    pub(crate) proof_key: String,
    /// The buyer's own name for it, made the buyer's.
    pub(crate) identifier: Option<String>,
}

/// Why nothing can be done with what a buyer signed.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It cannot be read.
    Garbage(Box<Refusal>),
    /// It can, and it is not what was asked for: x402's own word for why.
    Reason(&'static str),
}

/// What came of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// The money is there.
    Done(RailRecord),
    /// It did not move: x402's word for why.
    Refused(String),
    /// It is not known.
    Unknown,
}

/// What is kept of a signed transfer: all that settling it again needs.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    payload: PaymentPayload,
    requirements: Requirements,
}

/// The provider.
pub(crate) struct X402 {
    client: Client,
    /// A node of the chain, where one may be asked.
    chain: Option<Chain>,
    store: Arc<dyn Store>,
    clock: Clock,
    network: String,
    asset: String,
    domain: Domain,
    pay_to: String,
    payee: Account,
    minimums: Vec<(OriginCurrency, Micros)>,
    retry_after: Duration,
    patience: Duration,
    max_timeout_seconds: u64,
    margin_seconds: u64,
    attester: Option<Attester>,
}

impl X402 {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, knobs: &config::Payments) -> io::Result<Self> {
        let x402 = &knobs.x402;
        let minimums = x402
            .route_minimum_micros
            .iter()
            .filter_map(|(name, micros)| Some((OriginCurrency::named(name)?, Micros(i64::try_from(*micros).ok()?))));
        let chain_id = x402.network.strip_prefix("eip155:").and_then(|id| id.parse().ok());
        let domain = Domain {
            name: x402.asset_name.clone(),
            version: x402.asset_version.clone(),
            chain_id: chain_id.ok_or_else(|| io::Error::other("no EVM chain"))?,
            contract: account(&x402.asset).map_err(io::Error::other)?,
        };
        let attester = match x402.signing_key.is_empty() {
            true => None,
            false => {
                let attester = Attester::new(x402.signing_key.expose(), domain.chain_id);
                let attester = attester.ok_or_else(|| io::Error::other("payments.x402.signing_key makes no key"))?;
                tracing::info!(signer = attester.address(), "offers and receipts of x402 are signed");
                Some(attester)
            }
        };
        let chain = match x402.chain_url.is_empty() {
            true => {
                tracing::warn!(
                    "payments.x402.chain_url is not set: what becomes of a transfer whose settlement is not told, and \
                     what a reorganisation of the chain takes back, nobody can say"
                );
                None
            }
            false => Some(Chain::new(Client::new(x402.chain_url.expose(), None, x402.timeout)?, x402.chain_blocks)),
        };
        Ok(Self {
            attester,
            chain,
            client: Client::new(&x402.facilitator_url, Credential::bearer(&x402.api_key), x402.timeout)?,
            store,
            clock,
            network: x402.network.clone(),
            asset: x402.asset.clone(),
            domain,
            pay_to: x402.pay_to.clone(),
            payee: account(&x402.pay_to).map_err(io::Error::other)?,
            minimums: minimums.collect(),
            retry_after: knobs.pending_retry_after,
            patience: x402.timeout,
            max_timeout_seconds: x402.max_timeout.as_secs(),
            margin_seconds: x402.margin.as_secs(),
        })
    }

    /// How long a settlement is waited for: a client pays once, and a 202 is the end of it for many.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Reads what a buyer signed.
    ///
    /// # Errors
    /// [`Unusable`].
    pub(crate) fn read(&self, header: &str, buyer: ProfileId) -> Result<Signed, Unusable> {
        let payload: PaymentPayload = wire::decode(header).map_err(|fault| garbage(&fault))?;
        let identifier = identifier(&payload.extensions, buyer)?;
        if payload.x402_version != VERSION {
            return Err(Unusable::Reason("invalid_x402_version"));
        }
        if payload.accepted.scheme != SCHEME {
            return Err(Unusable::Reason("unsupported_scheme"));
        }
        if payload.accepted.network != self.network {
            return Err(Unusable::Reason("invalid_network"));
        }
        let exact = ExactEvm::deserialize(&payload.payload).map_err(|_| Unusable::Reason("invalid_payload"))?;
        let name = exact.name().map_err(|_| Unusable::Reason("invalid_payload"))?;
        let proof_key = format!("x402:{}:0x{}:{name}", self.network, hex::encode(self.domain.contract));
        Ok(Signed { payload, exact, proof_key, identifier })
    }

    /// Compares what was signed with a quote, asking nobody.
    ///
    /// # Errors
    /// x402's word for what is wrong.
    pub(crate) fn check_signed(&self, signed: &Signed, quote: &Quote) -> Result<(), String> {
        let accepted = &signed.payload.accepted;
        if account(&accepted.asset) != Ok(self.domain.contract) || accepted.amount != quote.price.0.to_string() {
            return Err("invalid_payment_requirements".into());
        }
        let wanted = self.wanted(quote, self.margin_seconds).ok_or("invalid_payment_requirements")?;
        signed.exact.check(&wanted, self.clock.now()).map(|_| ()).map_err(|fault| fault.to_string())
    }

    /// Asks the facilitator whether the transfer could be settled; nothing is moved. `Err`: x402's word for why not.
    ///
    /// # Errors
    /// `PaymentProviderUnavailable` when it cannot be told.
    pub(crate) async fn verify(&self, signed: &Signed, quote: &Quote) -> Result<Result<(), String>, Refusal> {
        let payer = account(&signed.exact.authorization.from).map_err(|_| Code::InvalidRequest)?;
        let question = facilitator::question(&signed.payload, &self.requirements_of(quote));
        match facilitator::verify(&self.client, question, payer).await {
            facilitator::Checked::Good => Ok(Ok(())),
            facilitator::Checked::Bad(reason) => Ok(Err(reason)),
            facilitator::Checked::Unknown => Err(ProviderError::Unavailable.into()),
        }
    }

    /// What is made durable before anything is moved.
    pub(crate) fn intent(&self, signed: Signed, quote: &Quote) -> Intent {
        let seconds = signed.exact.authorization.valid_before.parse().unwrap_or(u64::MAX);
        let kept = Kept { payload: signed.payload, requirements: self.requirements_of(quote) };
        Intent {
            proof_key: signed.proof_key,
            identifier: signed.identifier,
            rail: Rail::X402,
            // These types hold nothing that JSON cannot.
            signed: serde_json::to_vec(&kept).unwrap_or_default(),
            expires_at: UnixMillis(seconds.saturating_mul(1000)),
            recorded_at: self.clock.now(),
        }
    }

    /// Settles what was signed, or learns that it was settled before. Only the answer to the first question can be a
    /// no: to a later one it may mean that the money has moved. Where a node of the chain may be asked, it tells what the
    /// facilitator does not.
    pub(crate) async fn settle(&self, intent: &Intent, quote: &Quote, is_first: bool) -> Settlement {
        let Some((kept, transfer)) = self.transfer(intent) else {
            tracing::error!(payment = %quote.id, "what was signed for a payment cannot be read");
            return Settlement::Unknown;
        };
        let began = Instant::now();
        let question = facilitator::question(&kept.payload, &kept.requirements);
        let network = kept.requirements.network.as_str();
        let expected = Expected { network, payer: transfer.from, amount: transfer.value };
        let transaction = match facilitator::settle(&self.client, question, &expected).await {
            Settled::Done(transaction) => transaction,
            Settled::Refused(reason) if is_first => return Settlement::Refused(reason),
            Settled::Refused(_) | Settled::Unknown => {
                // A first answer that is lost may be on its way to the chain: who signed may not come again.
                let until = if is_first { began + self.patience } else { began };
                match self.look_at_chain(&kept, &transfer, until).await {
                    Found::Moved(transaction) => transaction,
                    Found::Never => return Settlement::Refused("authorization_never_used".into()),
                    Found::Unknown => {
                        tracing::warn!(payment = %quote.id, "it is not known whether a signed transfer was settled");
                        return Settlement::Unknown;
                    }
                }
            }
        };
        let Ok(amount) = i64::try_from(transfer.value) else { return Settlement::Unknown };
        Settlement::Done(RailRecord {
            proof_key: intent.proof_key.clone(),
            reference: transaction,
            amount: Micros(amount),
            payee: self.payee_in(&kept),
            rail: Rail::X402,
        })
    }

    /// What the chain says of a transfer, asked again until then while it says nothing.
    async fn look_at_chain(&self, kept: &Kept, transfer: &Transfer, until: Instant) -> Found {
        let Some(chain) = &self.chain else { return Found::Unknown };
        let parties = (account(&kept.requirements.asset), account(&kept.requirements.pay_to));
        let (Ok(token), Ok(payee)) = parties else { return Found::Unknown };
        loop {
            let found = chain.look(token, payee, transfer).await;
            if found != Found::Unknown || Instant::now() >= until {
                return found;
            }
            tokio::time::sleep(CHAIN_PAUSE).await;
        }
    }

    /// The value of `PAYMENT-RESPONSE` for a transfer that was refused.
    pub(crate) fn refused(&self, intent: &Intent, reason: &str) -> String {
        receipt::refused(&self.network, &intent.proof_key, reason)
    }

    /// The transfer in what was kept, and that it is what was asked for then.
    fn transfer(&self, intent: &Intent) -> Option<(Kept, Transfer)> {
        let kept: Kept = serde_json::from_slice(&intent.signed).ok()?;
        let exact = ExactEvm::deserialize(&kept.payload.payload).ok()?;
        let extra = |name: &str| Some(kept.requirements.extra.get(name)?.as_str()?.to_string());
        let domain = Domain {
            name: extra("name")?,
            version: extra("version")?,
            chain_id: kept.requirements.network.strip_prefix("eip155:")?.parse().ok()?,
            contract: account(&kept.requirements.asset).ok()?,
        };
        let payee = account(&kept.requirements.pay_to).ok()?;
        let value = kept.requirements.amount.parse().ok()?;
        let wanted = Wanted { domain, payee, value, margin_seconds: 0 };
        // Its time is the facilitator's to judge by now.
        let transfer = exact.check(&wanted, intent.recorded_at).ok()?;
        Some((kept, transfer))
    }

    /// The transfer that was settled, as its proof names it; `None` when it was on another network.
    fn transfer_of(&self, evidence: &Evidence) -> Option<(Account, Transfer)> {
        let name = evidence.proof_key.strip_prefix("x402:")?.strip_prefix(&self.network)?.strip_prefix(':')?;
        let (token, name) = name.split_once(':')?;
        let (from, nonce) = transfer_named(name)?;
        let settled_by = evidence.recorded_at.seconds().saturating_add(self.max_timeout_seconds);
        let transfer =
            Transfer { from, nonce, value: u64::try_from(evidence.amount.0).ok()?, valid_before: settled_by };
        Some((account(token).ok()?, transfer))
    }

    /// Who was paid. A transfer that was ours when it was signed stays ours, whatever wallet is configured by now.
    fn payee_in(&self, kept: &Kept) -> String {
        match account(&kept.requirements.pay_to) {
            Ok(payee) if payee == self.payee => self.pay_to.clone(),
            _ => {
                tracing::info!(wallet = %kept.requirements.pay_to, "paid to an earlier wallet of ours");
                self.pay_to.clone()
            }
        }
    }

    fn wanted(&self, quote: &Quote, margin_seconds: u64) -> Option<Wanted> {
        let value = u64::try_from(quote.price.0).ok()?;
        Some(Wanted { domain: self.domain.clone(), payee: self.payee, value, margin_seconds })
    }

    /// One way to pay, as x402 writes it. A micro-dollar is the token's smallest unit.
    fn requirements_of(&self, quote: &Quote) -> Requirements {
        let mut extra = Map::new();
        extra.insert("name".into(), self.domain.name.clone().into());
        extra.insert("version".into(), self.domain.version.clone().into());
        Requirements {
            scheme: SCHEME.into(),
            network: self.network.clone(),
            amount: quote.price.0.to_string(),
            asset: self.asset.clone(),
            pay_to: self.pay_to.clone(),
            max_timeout_seconds: self.max_timeout_seconds,
            extra,
        }
    }
}

/// The buyer's own name for its payment, when it gives one.
fn identifier(extensions: &Map<String, Value>, buyer: ProfileId) -> Result<Option<String>, Unusable> {
    let Some(id) = extensions.get(IDENTIFIER).and_then(|extension| extension.pointer("/info/id")) else {
        return Ok(None);
    };
    let id = id.as_str().filter(|id| {
        (16..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    });
    match id {
        Some(id) => Ok(Some(format!("x402-id:{buyer}:{id}"))),
        None => Err(garbage(&"payment-identifier must be 16 to 128 letters, digits, '_' or '-'")),
    }
}

fn garbage(fault: &impl ToString) -> Unusable {
    let message = format!("{SIGNATURE_HEADER} {}.", fault.to_string());
    Unusable::Garbage(Box::new(Refusal::from(Code::InvalidRequest).message(message)))
}

#[async_trait]
impl PaymentProvider for X402 {
    fn rail(&self) -> Rail {
        Rail::X402
    }

    fn minimum(&self, currency: OriginCurrency) -> Option<Micros> {
        self.minimums.iter().find(|(known, _)| *known == currency).map(|(_, minimum)| *minimum)
    }

    fn payee(&self) -> &str {
        &self.pay_to
    }

    /// What is signed names all that is needed.
    fn joins(&self, quote: &Quote) -> bool {
        self.minimum(OriginCurrency::Usdc).is_some_and(|least| quote.price >= least)
    }

    async fn offer(&self, quote: &Quote) -> Result<Offered, ProviderError> {
        Ok(Offered { provider_ref: quote.id.to_string(), terms: Vec::new() })
    }

    fn requirements(&self, quote: &Quote, _site: &str) -> Value {
        json!({
            "provider": "x402",
            "x402Version": VERSION,
            "accepts": [self.requirements_of(quote)],
            "header": SIGNATURE_HEADER,
            "amount": { "amount_micros": quote.price.0, "currency": "USD" },
            "expires_at": quote.expires_at.to_string(),
        })
    }

    /// What was signed is settled again, once nobody can move money with it any more: until then only the buyer's own
    /// request may, when its call can run.
    async fn check(&self, quote: &Quote) -> Result<Checked, ProviderError> {
        let intent = self.store.payment_intent(quote.id).await.map_err(|_| ProviderError::Unavailable)?;
        let Some(intent) = intent.filter(|intent| intent.expires_at <= self.clock.now()) else {
            return Ok(Checked::Pending(self.retry_after));
        };
        match self.settle(&intent, quote, false).await {
            Settlement::Done(record) => Ok(Checked::Settled(record)),
            Settlement::Refused(_) => Ok(Checked::Failed),
            Settlement::Unknown => Ok(Checked::Pending(self.retry_after)),
        }
    }

    /// The protocol has no question for it: a facilitator verifies and settles, and says nothing of what it settled
    /// before. The chain itself does, where a node of it may be asked.
    async fn gone(&self, quote: &Quote, evidence: &Evidence) -> Result<Gone, ProviderError> {
        let Some(chain) = &self.chain else { return Ok(Gone::Untold) };
        let Some((token, transfer)) = self.transfer_of(evidence) else {
            tracing::warn!(payment = %quote.id, proof = evidence.proof_key, "settled on a network that is not asked");
            return Ok(Gone::Untold);
        };
        match chain.still(token, self.payee, &transfer, &evidence.reference).await {
            Stands::Yes => Ok(Gone::Nothing),
            Stands::No => Ok(Gone::Back(evidence.amount)),
            Stands::Unknown => Err(ProviderError::Unavailable),
        }
    }
}
