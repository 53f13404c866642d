//! A Relay of our own: quotes, statuses and records over real HTTP, steered over HTTP too, so that a test can have it
//! delay, refuse, lose answers, lie about any field, and go backwards.
//!
//! `POST /_steer` replaces how it behaves, `POST /_pay` pays a deposit, `GET /_seen` tells what it was asked.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};

use crate::provider::{Answer, Fault, Request, lie, note, read, serve_all, unix_seconds, write};

/// How it behaves until it is told otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Steering {
    /// What to say instead in a quote, by JSON pointer; null takes the field away.
    quote: Map<String, Value>,
    /// What to say instead in a record.
    record: Map<String, Value>,
    /// The status word, instead of the payment's.
    status: Option<String>,
    /// Faults by path.
    faults: HashMap<String, Fault>,
}

/// What a payer does with a deposit address.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pay {
    request_id: String,
    /// Less or more than was quoted.
    amount: Option<String>,
    /// How it ends; `success` by default.
    status: Option<String>,
    /// The transaction on the destination chain; one of its own by default.
    transaction: Option<String>,
}

#[derive(Clone, Debug)]
struct Deposit {
    asked: Value,
    id: String,
    order: String,
    address: String,
    status: String,
    amount: String,
    transaction: Option<String>,
}

#[derive(Default)]
struct Books {
    steering: Steering,
    deposits: HashMap<String, Deposit>,
    seen: Map<String, Value>,
    made: u64,
}

/// A running provider.
#[derive(Clone)]
pub struct Relay {
    address: SocketAddr,
    key: String,
    books: Arc<Mutex<Books>>,
}

impl Relay {
    /// A provider at `address` (port 0: a free one), which takes this API key alone.
    ///
    /// # Errors
    /// When the port could not be opened.
    pub async fn start(address: SocketAddr, key: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let relay = Self { address: listener.local_addr()?, key: key.to_owned(), books: Arc::default() };
        serve_all(listener, relay.clone(), |relay, stream| async move { relay.serve(stream).await });
        Ok(relay)
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut buffer = Vec::new();
        while let Some(request) = read(&mut stream, &mut buffer).await? {
            let fault = self.books().steering.faults.get(&request.path).cloned().unwrap_or_default();
            tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
            let answer = match fault.status {
                Some(status) => {
                    self.note(&request);
                    Answer { status, body: fault.body, retry_after: fault.retry_after }
                }
                None => self.answer(&request),
            };
            if fault.drop {
                return Ok(());
            }
            write(&mut stream, &answer).await?;
        }
        Ok(())
    }

    /// Remembers how often a path was asked for, and what was asked last.
    fn note(&self, request: &Request) {
        note(&mut self.books().seen, request);
    }

    fn answer(&self, request: &Request) -> Answer {
        if !request.path.starts_with("/_") {
            self.note(request);
        }
        let answered = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/_steer") => self.steer(&request.body),
            ("POST", "/_pay") => self.pay(&request.body),
            ("GET", "/_seen") => Ok(Value::Object(self.books().seen.clone())),
            _ if request.key != self.key => {
                return Answer { status: 401, body: json!({"message": "no such key"}), retry_after: None };
            }
            ("POST", "/quote/v2") => self.quote(&request.body),
            ("GET", "/intents/status/v3") => self.status(request.query.get("requestId")),
            ("GET", "/requests/v3") => self.records(request.query.get("id")),
            _ => return Answer { status: 404, body: json!({"message": "not found"}), retry_after: None },
        };
        match answered {
            Ok(body) => Answer { status: 200, body, retry_after: None },
            Err(error) => {
                let body = json!({"message": format!("{error:#}"), "errorCode": "INVALID_INPUT"});
                Answer { status: 400, body, retry_after: None }
            }
        }
    }

    fn steer(&self, body: &Value) -> anyhow::Result<Value> {
        self.books().steering = Steering::deserialize(body)?;
        Ok(json!({}))
    }

    fn pay(&self, body: &Value) -> anyhow::Result<Value> {
        let pay = Pay::deserialize(body)?;
        let mut books = self.books();
        let deposit = books.deposits.get_mut(&pay.request_id).context("no such request")?;
        deposit.status = pay.status.unwrap_or_else(|| "success".into());
        deposit.amount = pay.amount.unwrap_or_else(|| deposit.amount.clone());
        deposit.transaction = Some(pay.transaction.unwrap_or_else(|| id_of("fill", &pay.request_id)));
        Ok(json!({}))
    }

    fn quote(&self, asked: &Value) -> anyhow::Result<Value> {
        let text = |name: &str| asked.get(name).and_then(Value::as_str).with_context(|| format!("{name} is missing"));
        for name in ["user", "originCurrency", "destinationCurrency", "refundTo", "referrer"] {
            text(name)?;
        }
        let is = |name: &str| asked.get(name).and_then(Value::as_bool) == Some(true);
        if !(is("useDepositAddress") && is("strict") && is("includeProtocolData")) {
            bail!("not a strict deposit address with protocol data");
        }
        let (amount, recipient) = (text("amount")?, text("recipient")?);
        let ttl = asked.get("ttl").and_then(Value::as_u64).context("ttl is missing")?;
        let mut books = self.books();
        books.made += 1;
        let seed = format!("{}.{}", books.made, text("referrer")?);
        let deposit = Deposit {
            asked: asked.clone(),
            id: id_of("request", &seed),
            order: id_of("order", &seed),
            address: id_of("deposit", &seed).chars().take(42).collect(),
            status: "waiting".into(),
            amount: amount.to_owned(),
            transaction: None,
        };
        let mut answer = json!({
            "steps": [{
                "id": "deposit", "kind": "transaction",
                "requestId": deposit.id, "depositAddress": deposit.address,
                "items": [{
                    "status": "incomplete",
                    "data": {"to": deposit.address, "value": "123456", "chainId": asked["originChainId"]},
                    "check": {"endpoint": format!("/intents/status/v3?requestId={}", deposit.id), "method": "GET"},
                }],
            }],
            "details": {
                "recipient": recipient,
                "currencyIn": {
                    "currency": {"chainId": asked["originChainId"], "address": asked["originCurrency"]},
                    "amount": "123456", "minimumAmount": "123456",
                },
                "currencyOut": {
                    "currency": {"chainId": asked["destinationChainId"], "address": asked["destinationCurrency"]},
                    "amount": amount, "minimumAmount": amount,
                },
                "timeEstimate": 3,
            },
            "protocol": {"v2": {"orderId": deposit.order, "orderData": {"output": {
                "chainId": "base",
                "payments": [{
                    "recipient": recipient, "currency": asked["destinationCurrency"], "minimumAmount": amount,
                }],
                "deadline": unix_seconds() + ttl,
            }}}},
        });
        lie(&mut answer, &books.steering.quote);
        books.deposits.insert(deposit.id.clone(), deposit);
        Ok(answer)
    }

    fn status(&self, id: Option<&String>) -> anyhow::Result<Value> {
        let books = self.books();
        let deposit = id.and_then(|id| books.deposits.get(id)).context("no such request")?;
        Ok(json!({"status": books.steering.status.as_ref().unwrap_or(&deposit.status)}))
    }

    fn records(&self, id: Option<&String>) -> anyhow::Result<Value> {
        let books = self.books();
        let Some(deposit) = id.and_then(|id| books.deposits.get(id)) else { return Ok(json!({"requests": []})) };
        let asked = &deposit.asked;
        let output = json!({"outputCurrency": {
            "currency": {"chainId": asked["destinationChainId"], "address": asked["destinationCurrency"]},
            "amount": deposit.amount,
        }});
        let fills: Vec<Value> = deposit
            .transaction
            .iter()
            .map(|hash| json!({"hash": hash, "chainId": asked["destinationChainId"], "status": "success"}))
            .collect();
        let mut answer = json!({"requests": [{
            "id": deposit.id, "status": deposit.status, "user": asked["user"], "recipient": asked["recipient"],
            "depositAddress": {"address": deposit.address, "type": "strict"},
            "protocol": {"orderId": deposit.order},
            "data": {
                "referrer": asked["referrer"],
                "route": {"actual": {"origin": {}, "destination": output}},
                "outTxs": fills,
            },
        }]});
        lie(&mut answer, &books.steering.record);
        Ok(answer)
    }
}

/// `0x` and 64 hexadecimal digits, the same for the same words.
fn id_of(kind: &str, seed: &str) -> String {
    format!("0x{}", hex::encode(Sha256::digest(format!("{kind}.{seed}"))))
}
