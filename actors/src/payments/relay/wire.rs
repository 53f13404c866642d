//! What Relay answers, and what an answer must say before it counts. Everything here is pure: a quote is refused
//! unless it pays us, in our currency, on our chain, at least the price; a settlement likewise.
//! Source: Relay's API, `/quote/v2`, `/intents/status/v3`, `/requests/v3`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use storage::model::{Micros, UnixMillis};

use super::route::{Chain, Token};

/// The answer to `/quote/v2`, as far as it counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuoteAnswer {
    steps: Vec<Step>,
    details: Details,
    protocol: Option<Protocol>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    id: String,
    request_id: Option<String>,
    deposit_address: Option<String>,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Clone, Debug, Deserialize)]
struct Item {
    data: Option<Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    recipient: String,
    currency_in: Side,
    currency_out: Side,
    time_estimate: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    currency: Currency,
    amount: String,
    minimum_amount: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Currency {
    chain_id: u64,
    address: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Protocol {
    v2: Option<ProtocolV2>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProtocolV2 {
    order_id: String,
    order_data: OrderData,
}

#[derive(Clone, Debug, Deserialize)]
struct OrderData {
    output: Output,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    payments: Vec<OrderPayment>,
    deadline: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderPayment {
    recipient: String,
    currency: String,
    minimum_amount: String,
}

/// What was asked of Relay.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What the buyer pays in.
    pub origin: Token,
    /// What we are paid in.
    pub destination: Token,
    /// Our wallet there.
    pub recipient: String,
    /// What must arrive at least.
    pub price: Micros,
    /// The buyer may pay until then.
    pub expires_at: UnixMillis,
}

/// What a quote came to: what the buyer sends where, and by what it is found again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deposit {
    /// Relay's id of the payment.
    pub request_id: String,
    /// The order that the deposit is for.
    pub order_id: String,
    /// Where the buyer sends the money.
    pub address: String,
    /// How much, in the smallest unit of what the buyer pays in.
    pub amount: String,
    /// A transaction that a wallet can sign as it is, when Relay made one.
    pub transaction: Option<Value>,
    /// How long it will take, seconds.
    pub seconds: Option<u64>,
}

/// A quote or a record that does not say what it must; the text is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotOurs(pub &'static str);

fn demand(holds: bool, otherwise: &'static str) -> Result<(), NotOurs> {
    if holds { Ok(()) } else { Err(NotOurs(otherwise)) }
}

/// A decimal number of a smallest unit; nothing else is an amount.
fn units(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

impl QuoteAnswer {
    /// Checks the quote against what was asked.
    ///
    /// # Errors
    /// The first thing that is not as asked.
    pub fn deposit(&self, asked: &Asked) -> Result<Deposit, NotOurs> {
        let deposits: Vec<&Step> = self.steps.iter().filter(|step| step.id == "deposit").collect();
        let [step] = deposits[..] else { return Err(NotOurs("not exactly one deposit step")) };
        demand(self.steps.len() == 1, "a step beside the deposit")?;
        let request_id = step.request_id.as_deref().filter(|id| is_request_id(id)).ok_or(NotOurs("no request id"))?;
        let address = step.deposit_address.as_deref().filter(|address| !address.is_empty());
        let address = address.ok_or(NotOurs("no deposit address"))?;
        let destination = &asked.destination;
        demand(destination.chain.same_account(&self.details.recipient, &asked.recipient), "another recipient")?;
        let out = &self.details.currency_out;
        demand(destination.is(out.currency.chain_id, &out.currency.address), "another destination currency")?;
        let minimum = out.minimum_amount.as_deref().and_then(units).ok_or(NotOurs("no minimum amount"))?;
        demand(minimum >= asked.price.0, "less than the price would arrive")?;
        let paid_in = &self.details.currency_in;
        demand(asked.origin.is(paid_in.currency.chain_id, &paid_in.currency.address), "another origin currency")?;
        demand(units(&paid_in.amount).is_some_and(|amount| amount > 0), "no amount to pay")?;
        let order = self.protocol.as_ref().and_then(|protocol| protocol.v2.as_ref()).ok_or(NotOurs("no order"))?;
        let [payment] = &order.order_data.output.payments[..] else { return Err(NotOurs("not one order payment")) };
        demand(destination.chain.same_account(&payment.recipient, &asked.recipient), "the order pays somebody else")?;
        demand(
            destination.chain.same_account(&payment.currency, destination.address),
            "the order pays in another currency",
        )?;
        let minimum = units(&payment.minimum_amount).ok_or(NotOurs("no order amount"))?;
        demand(minimum >= asked.price.0, "the order pays less than the price")?;
        let deadline = order.order_data.output.deadline;
        demand(deadline.saturating_mul(1000) >= asked.expires_at.0, "the order ends before our quote")?;
        Ok(Deposit {
            request_id: request_id.to_string(),
            order_id: order.order_id.clone(),
            address: address.to_string(),
            amount: paid_in.amount.clone(),
            transaction: step.items.first().and_then(|item| item.data.clone()),
            seconds: self.details.time_estimate,
        })
    }
}

/// `0x` and 64 hexadecimal digits.
fn is_request_id(text: &str) -> bool {
    text.strip_prefix("0x").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The answer to `/intents/status/v3`. It holds no amount and no recipient: alone it proves nothing.
#[derive(Clone, Debug, Deserialize)]
pub struct StatusAnswer {
    /// The status word.
    pub status: String,
}

/// What a status word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nothing final.
    Pending,
    /// To be checked against the record.
    Success,
    /// The money went back to the payer, or never came: a new payment is needed.
    Over,
}

impl StatusAnswer {
    /// The money went back to the payer.
    #[must_use]
    pub fn is_refund(&self) -> bool {
        self.status == "refund"
    }

    /// What the word means; one that is not known is not final.
    #[must_use]
    pub fn meaning(&self) -> Status {
        match self.status.as_str() {
            "success" => Status::Success,
            "refund" | "failure" => Status::Over,
            _ => Status::Pending,
        }
    }
}

/// The answer to `/requests/v3`.
#[derive(Clone, Debug, Deserialize)]
pub struct RequestsAnswer {
    requests: Vec<Request>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    id: String,
    status: String,
    recipient: String,
    deposit_address: Option<RecordedDeposit>,
    protocol: Option<RecordedOrder>,
    data: RequestData,
}

#[derive(Clone, Debug, Deserialize)]
struct RecordedDeposit {
    address: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedOrder {
    order_id: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestData {
    referrer: Option<String>,
    route: Option<Route>,
    #[serde(default)]
    out_txs: Vec<Transaction>,
}

#[derive(Clone, Debug, Deserialize)]
struct Route {
    actual: Option<ActualRoute>,
}

#[derive(Clone, Debug, Deserialize)]
struct ActualRoute {
    origin: Option<ActualSide>,
    destination: Option<ActualSide>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActualSide {
    output_currency: Option<OutputCurrency>,
}

#[derive(Clone, Debug, Deserialize)]
struct OutputCurrency {
    currency: Currency,
    amount: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    hash: String,
    chain_id: u64,
    status: Option<String>,
}

/// What a record must say, beside what was asked.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// What was asked of Relay.
    pub asked: &'a Asked,
    /// What the quote came to.
    pub deposit: &'a Deposit,
    /// Our random token, sent with the quote.
    pub referrer: &'a str,
}

/// Money that arrived: facts, not yet compared with the price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// How much.
    pub amount: Micros,
    /// Relay's transaction on our chain.
    pub transaction: String,
}

impl RequestsAnswer {
    /// What the provider's own record says about the payment; `None` while it is not final.
    ///
    /// # Errors
    /// The first thing that shows that it is not the payment which was quoted.
    pub fn arrived(&self, expected: &Expected<'_>) -> Result<Option<Arrived>, NotOurs> {
        let [request] = &self.requests[..] else { return Err(NotOurs("not exactly one record")) };
        demand(request.id.eq_ignore_ascii_case(&expected.deposit.request_id), "the record of another payment")?;
        if request.status != "success" {
            return Ok(None);
        }
        let Asked { origin, destination, recipient, .. } = expected.asked;
        let address = request.deposit_address.as_ref().ok_or(NotOurs("no deposit address in the record"))?;
        demand(address.kind == "strict", "the deposit address is not strict")?;
        demand(origin.chain.same_account(&address.address, &expected.deposit.address), "another deposit address")?;
        let order = request.protocol.as_ref().ok_or(NotOurs("no order in the record"))?;
        demand(order.order_id == expected.deposit.order_id, "another order")?;
        demand(request.data.referrer.as_deref() == Some(expected.referrer), "another referrer")?;
        demand(destination.chain.same_account(&request.recipient, recipient), "another recipient")?;
        let actual = request.data.route.as_ref().and_then(|route| route.actual.as_ref());
        let actual = actual.ok_or(NotOurs("no actual route"))?;
        let side = if origin.chain == destination.chain { &actual.origin } else { &actual.destination };
        let output = side.as_ref().and_then(|side| side.output_currency.as_ref()).ok_or(NotOurs("no actual output"))?;
        demand(destination.is(output.currency.chain_id, &output.currency.address), "another currency arrived")?;
        let amount = units(&output.amount).filter(|amount| *amount > 0).ok_or(NotOurs("no amount arrived"))?;
        let is_ours = |transaction: &&Transaction| {
            let is_good = transaction.status.as_deref().is_none_or(|status| status == "success");
            is_good && transaction.chain_id == destination.chain.id() && !transaction.hash.is_empty()
        };
        let transaction = request.data.out_txs.iter().find(is_ours).ok_or(NotOurs("no transaction on our chain"))?;
        Ok(Some(Arrived { amount: Micros(amount), transaction: transaction.hash.clone() }))
    }
}

/// Relay's error body.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ErrorAnswer {
    /// For the log.
    pub message: String,
    /// What went wrong.
    pub error_code: String,
}

/// What an error of the quote means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteFault {
    /// The price is too low for the route.
    BelowMinimum,
    /// Not now.
    Busy,
    /// Never for this payer.
    Sanctioned,
    /// Not on this route.
    Route,
}

impl ErrorAnswer {
    /// What an answer with this status and body means.
    #[must_use]
    pub fn meaning(&self, status: u16) -> QuoteFault {
        match self.error_code.as_str() {
            "AMOUNT_TOO_LOW" => QuoteFault::BelowMinimum,
            "PRICE_FETCH_FAILED" | "REQUEST_TIMED_OUT" | "RPC_HTTP_ERROR" | "SERVICE_UNAVAILABLE" => QuoteFault::Busy,
            code if code.starts_with("SANCTIONED_") => QuoteFault::Sanctioned,
            code if ["INVALID_", "UNSUPPORTED_", "NO_"].iter().any(|prefix| code.starts_with(prefix)) => {
                QuoteFault::Route
            }
            _ if status == 429 || status >= 500 => QuoteFault::Busy,
            _ => QuoteFault::Route,
        }
    }
}

impl Chain {
    /// Whether two texts name one account of this chain: EVM by its 20 bytes, Solana to the letter.
    #[must_use]
    pub fn same_account(self, one: &str, other: &str) -> bool {
        if self.is_evm() { one.eq_ignore_ascii_case(other) } else { one == other }
    }
}
