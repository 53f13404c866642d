//! A facilitator of our own: checks and settles transfers over real HTTP with books instead of a chain, steered over
//! HTTP too, so that a test can have it delay, lose answers after settling, refuse for any reason, lie, and be down.
//!
//! `POST /_steer` replaces how it behaves, `GET /_books` tells what was settled, `GET /_seen` what it was asked.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    relay::{ACCEPT_PAUSE, Answer, Fault, Request, lie, read, unix_seconds, write},
    x402::{digest, signer, text},
};

/// How it behaves until it is told otherwise.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Steering {
    /// What to say instead in the answer of a path, by JSON pointer; a field that is not there is added.
    lies: HashMap<String, Map<String, Value>>,
    /// The reason for which a path refuses.
    refuse: HashMap<String, String>,
    /// A transfer that was settled is refused when it comes again, as a chain does, instead of being told again.
    forgetful: bool,
    /// What payers have left, by address; who is not listed has enough.
    balances: HashMap<String, u64>,
    /// Faults by path.
    faults: HashMap<String, Fault>,
}

#[derive(Clone, Debug)]
struct Transfer {
    from: String,
    to: String,
    value: u64,
    transaction: String,
}

#[derive(Default)]
struct Books {
    steering: Steering,
    /// What was settled, by payer and nonce.
    settled: HashMap<(String, String), Transfer>,
    seen: Map<String, Value>,
}

/// A running facilitator.
#[derive(Clone)]
pub struct Facilitator {
    address: SocketAddr,
    books: Arc<Mutex<Books>>,
}

impl Facilitator {
    /// A facilitator at `address` (port 0: a free one).
    ///
    /// # Errors
    /// When the port could not be opened.
    pub async fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let facilitator = Self { address: listener.local_addr()?, books: Arc::default() };
        let serving = facilitator.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let facilitator = serving.clone();
                tokio::spawn(async move {
                    // A broken connection is the client's to report.
                    let _ = facilitator.serve(stream).await;
                });
            }
        });
        Ok(facilitator)
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
            self.note(&request);
            let fault = self.books().steering.faults.get(&request.path).cloned().unwrap_or_default();
            let answer = match fault.status {
                Some(status) => Answer { status, body: fault.body, retry_after: fault.retry_after },
                None => self.answer(&request),
            };
            // The work is done by then: who does not wait does not know.
            tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
            if fault.drop {
                return Ok(());
            }
            write(&mut stream, &answer).await?;
        }
        Ok(())
    }

    /// Remembers how often a path was asked for, and what was asked last.
    fn note(&self, request: &Request) {
        let mut books = self.books();
        let seen = books.seen.entry(request.path.clone()).or_insert_with(|| json!({"count": 0}));
        let count = seen.get("count").and_then(Value::as_u64).unwrap_or(0);
        *seen = json!({"count": count + 1, "last": request.body});
    }

    fn answer(&self, request: &Request) -> Answer {
        let mut body = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/_steer") => match Steering::deserialize(&request.body) {
                Ok(steering) => {
                    self.books().steering = steering;
                    json!({})
                }
                Err(error) => return Answer { status: 400, body: json!(error.to_string()), retry_after: None },
            },
            ("GET", "/_seen") => Value::Object(self.books().seen.clone()),
            ("GET", "/_books") => self.told(),
            ("GET", "/supported") => json!({
                "kinds": [
                    { "x402Version": 2, "scheme": "exact", "network": "eip155:84532" },
                    { "x402Version": 2, "scheme": "exact", "network": "eip155:8453" },
                ],
                "extensions": [], "signers": {},
            }),
            ("POST", "/verify") => self.verify(&request.body),
            ("POST", "/settle") => self.settle(&request.body),
            _ => return Answer { status: 404, body: json!({"message": "not found"}), retry_after: None },
        };
        if let Some(lies) = self.books().steering.lies.get(&request.path) {
            for pointer in lies.keys() {
                if let (Some(name), Value::Object(fields)) = (pointer.strip_prefix('/'), &mut body) {
                    fields.entry(name).or_insert(Value::Null);
                }
            }
            lie(&mut body, lies);
        }
        Answer { status: 200, body, retry_after: None }
    }

    fn told(&self) -> Value {
        let books = self.books();
        let transfers = books.settled.values().map(|transfer| {
            json!({
                "from": transfer.from, "to": transfer.to, "value": transfer.value,
                "transaction": transfer.transaction,
            })
        });
        json!({ "transfers": transfers.collect::<Vec<_>>() })
    }

    fn verify(&self, asked: &Value) -> Value {
        let payer = asked.pointer("/paymentPayload/payload/authorization/from").cloned().unwrap_or_default();
        match self.check("/verify", asked) {
            Ok(_) => json!({ "isValid": true, "payer": payer }),
            Err(reason) => json!({ "isValid": false, "invalidReason": reason, "payer": payer }),
        }
    }

    fn settle(&self, asked: &Value) -> Value {
        let network = asked.pointer("/paymentRequirements/network").cloned().unwrap_or_default();
        let payer = asked.pointer("/paymentPayload/payload/authorization/from").cloned().unwrap_or_default();
        let refused = |reason: String| {
            json!({
                "success": false, "errorReason": reason, "transaction": "", "network": network, "payer": payer,
            })
        };
        let name = match name_of(asked) {
            Ok(name) => name,
            Err(_) => return refused("invalid_payload".into()),
        };
        let told = |transfer: &Transfer| json!({ "success": true, "transaction": transfer.transaction, "network": network, "payer": payer });
        let standing = self.books().settled.get(&name).cloned();
        if let Some(transfer) = standing.filter(|_| !self.books().steering.forgetful) {
            return told(&transfer);
        }
        match self.check("/settle", asked) {
            Err(reason) => refused(reason),
            Ok(transfer) => {
                let mut books = self.books();
                if books.settled.contains_key(&name) {
                    return refused("invalid_exact_evm_nonce_already_used".into());
                }
                if let Some(left) = books.steering.balances.get_mut(&transfer.from) {
                    *left = left.saturating_sub(transfer.value);
                }
                let answer = told(&transfer);
                books.settled.insert(name, transfer);
                answer
            }
        }
    }

    /// What the chain and the token would check.
    fn check(&self, path: &str, asked: &Value) -> Result<Transfer, String> {
        if let Some(reason) = self.books().steering.refuse.get(path) {
            return Err(reason.clone());
        }
        let name = name_of(asked).map_err(|_| "invalid_payload")?;
        let transfer = transfer_of(asked, &name).map_err(|_| "invalid_payload")??;
        let books = self.books();
        if books.settled.contains_key(&name) {
            return Err("invalid_exact_evm_nonce_already_used".into());
        }
        match books.steering.balances.get(&transfer.from) {
            Some(left) if *left < transfer.value => Err("insufficient_funds".into()),
            _ => Ok(transfer),
        }
    }
}

/// Payer and nonce: a token takes each pair once.
fn name_of(asked: &Value) -> anyhow::Result<(String, String)> {
    let part = |name: &str| text(asked, &format!("/paymentPayload/payload/authorization/{name}"));
    Ok((part("from")?.to_ascii_lowercase(), part("nonce")?.to_ascii_lowercase()))
}

fn transfer_of(asked: &Value, name: &(String, String)) -> anyhow::Result<Result<Transfer, String>> {
    let requirements = asked.get("paymentRequirements").unwrap_or(&Value::Null);
    let payload = asked.pointer("/paymentPayload/payload").unwrap_or(&Value::Null);
    let authorization = payload.get("authorization").unwrap_or(&Value::Null);
    let (to, wanted) = (text(authorization, "/to")?.to_ascii_lowercase(), text(requirements, "/payTo")?);
    let value: u64 = text(authorization, "/value")?.parse()?;
    let (after, before) = (text(authorization, "/validAfter")?.parse()?, text(authorization, "/validBefore")?.parse()?);
    let no = |reason: &str| Ok(Err(reason.to_string()));
    if asked.pointer("/paymentPayload/accepted/network") != requirements.get("network") {
        return no("invalid_network");
    }
    let signed = digest(requirements, authorization)?;
    if signer(&signed, text(payload, "/signature")?).ok().as_ref() != Some(&name.0) {
        return no("invalid_exact_evm_payload_signature");
    }
    if to != wanted.to_ascii_lowercase() {
        return no("invalid_exact_evm_payload_recipient_mismatch");
    }
    if value.to_string() != text(requirements, "/amount")? {
        return no("invalid_exact_evm_payload_authorization_value_mismatch");
    }
    let now = unix_seconds();
    if now < after {
        return no("invalid_exact_evm_payload_authorization_valid_after");
    }
    if now >= before {
        return no("invalid_exact_evm_payload_authorization_valid_before");
    }
    let transaction = format!("0x{}", hex::encode(Sha256::digest(format!("{}.{}", name.0, name.1))));
    Ok(Ok(Transfer { from: name.0.clone(), to, value, transaction }))
}
