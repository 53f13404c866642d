//! A facilitator of our own: checks and settles transfers over real HTTP with books instead of a chain, steered over
//! HTTP too, so that a test can have it delay, lose answers after settling, refuse for any reason, lie, and be down.
//!
//! It plays a node of the chain as well, at `/chain`. `POST /_steer` replaces how it behaves, `POST /_reorg` reorganises
//! the chain, `GET /_books` tells what was settled, `GET /_seen` what it was asked.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::Sha256;
use sha3::{Digest, Keccak256};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    provider::{Answer, Fault, Request, lie, note, read, serve_all, unix_seconds, write},
    x402::{digest, signer, text},
};

const TRANSFER: &str = "Transfer(address,address,uint256)";
const USED: &str = "AuthorizationUsed(address,bytes32)";
/// The last block of the chain, and the one that holds all that happened.
const HEAD: u64 = 0x1_0000;
const MINED_AT: u64 = HEAD - 16;
const CANCELED: &str = "AuthorizationCanceled(address,bytes32)";

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
    /// The chain's clock runs so many seconds ahead.
    ahead: u64,
    /// What is final on the chain is so many seconds old.
    final_after: u64,
    /// Nonces that their payers have cancelled.
    cancelled: Vec<String>,
    /// Faults by path.
    faults: HashMap<String, Fault>,
}

#[derive(Clone, Debug)]
struct Transfer {
    from: String,
    to: String,
    value: u64,
    transaction: String,
    token: String,
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
        serve_all(listener, facilitator.clone(), |facilitator, stream| async move { facilitator.serve(stream).await });
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
            note(&mut self.books().seen, &request);
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

    fn answer(&self, request: &Request) -> Answer {
        let mut body = match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/_steer") => match Steering::deserialize(&request.body) {
                Ok(steering) => {
                    self.books().steering = steering;
                    json!({})
                }
                Err(error) => return Answer { status: 400, body: json!(error.to_string()), retry_after: None },
            },
            ("POST", "/_reorg") => {
                self.reorganise(request.body.get("again").and_then(Value::as_bool).unwrap_or_default());
                json!({})
            }
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
            ("POST", "/chain") => json!({ "jsonrpc": "2.0", "id": 1, "result": self.chain(&request.body) }),
            _ => return Answer { status: 404, body: json!({"message": "not found"}), retry_after: None },
        };
        if let Some(lies) = self.books().steering.lies.get(&request.path) {
            for pointer in lies.keys() {
                let name = pointer.strip_prefix('/').filter(|name| !name.contains('/'));
                if let (Some(name), Value::Object(fields)) = (name, &mut body) {
                    fields.entry(name).or_insert(Value::Null);
                }
            }
            lie(&mut body, lies);
        }
        Answer { status: 200, body, retry_after: None }
    }

    /// The chain is another one: what was settled is on it no more, or again in other transactions.
    fn reorganise(&self, again: bool) {
        let mut books = self.books();
        if !again {
            books.settled.clear();
        }
        for transfer in books.settled.values_mut() {
            transfer.transaction = format!("0x{}", hex::encode(Sha256::digest(&transfer.transaction)));
        }
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

    /// What a node of the chain would answer, of what a payment rail asks.
    fn chain(&self, asked: &Value) -> Value {
        let books = self.books();
        let param = |pointer: &str| asked.pointer(&format!("/params{pointer}")).and_then(Value::as_str).unwrap_or("");
        let topic = |event: &str| format!("0x{}", hex::encode(Keccak256::digest(event)));
        let long = |address: &str| format!("0x{:0>64}", address.trim_start_matches("0x"));
        match asked.get("method").and_then(Value::as_str) {
            Some("eth_getBlockByNumber") => {
                let late = if param("/0") == "finalized" { books.steering.final_after } else { 0 };
                let seconds = unix_seconds() + books.steering.ahead - late;
                json!({ "number": format!("{HEAD:#x}"), "timestamp": format!("{seconds:#x}") })
            }
            Some("eth_getLogs") => {
                let (payer, nonce) = (param("/0/topics/1"), param("/0/topics/2"));
                let found = books.settled.iter().find(|((from, n), _)| long(from) == payer && n == nonce);
                let cancelled = books.steering.cancelled.iter().any(|n| n == nonce);
                let event = if cancelled { CANCELED } else { USED };
                let hash = found.map(|(_, transfer)| transfer.transaction.clone()).or(cancelled.then(|| long("0x1")));
                let log = hash.map(|hash| {
                    json!({
                        "address": param("/0/address"), "topics": [topic(event), payer, nonce], "data": "0x",
                        "transactionHash": hash, "blockNumber": format!("{MINED_AT:#x}"),
                    })
                });
                let from = u64::from_str_radix(param("/0/fromBlock").trim_start_matches("0x"), 16).unwrap_or(0);
                json!(log.into_iter().filter(|_| from <= MINED_AT).collect::<Vec<_>>())
            }
            Some("eth_getTransactionReceipt") => {
                let found = books.settled.iter().find(|(_, transfer)| transfer.transaction == param("/0"));
                found.map_or(Value::Null, |((_, nonce), transfer)| {
                    let topics = [topic(TRANSFER), long(&transfer.from), long(&transfer.to)];
                    let data = format!("0x{:064x}", transfer.value);
                    let used = [topic(USED), long(&transfer.from), nonce.clone()];
                    json!({
                        "status": "0x1",
                        "logs": [
                            { "address": transfer.token, "topics": topics, "data": data },
                            { "address": transfer.token, "topics": used, "data": "0x" },
                        ],
                    })
                })
            }
            Some("eth_call") => {
                let is_known = |nonce: &str| param("/0/data").ends_with(nonce.trim_start_matches("0x"));
                let taken = books.settled.keys().any(|(_, nonce)| is_known(nonce));
                json!(long(if taken { "0x1" } else { "0x0" }))
            }
            _ => Value::Null,
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
    let token = text(requirements, "/asset")?.to_ascii_lowercase();
    Ok(Ok(Transfer { from: name.0.clone(), to, value, transaction, token }))
}
