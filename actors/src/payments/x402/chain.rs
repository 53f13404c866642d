//! What the chain itself says of a transfer whose settlement nobody tells of. Read over JSON-RPC from any node; nothing is
//! ever sent to the chain from here. Source: ERC-3009's events and `authorizationState`, ERC-20's `Transfer`.

use serde::Deserialize;
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};

use super::authorization::{Account, Transfer, account, uint, word};
use crate::payments::client::Client;

const USED: &str = "AuthorizationUsed(address,bytes32)";
const CANCELED: &str = "AuthorizationCanceled(address,bytes32)";
const TRANSFER: &str = "Transfer(address,address,uint256)";
const STATE: &str = "authorizationState(address,bytes32)";

/// What became of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is in this transaction.
    Moved(String),
    /// It is in none, and never will be.
    Never,
    /// It cannot be told, or not yet.
    Unknown,
}

/// Whether a transfer that was settled is on the chain still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// In this or another transaction.
    Yes,
    /// In none of those that are final, and the moment after it is final.
    No,
    /// It cannot be told, or not yet.
    Unknown,
}

/// A node of a chain.
pub(super) struct Chain {
    client: Client,
    /// How far back transfers are looked for.
    blocks: u64,
}

/// The present end of the chain.
struct Head {
    number: u64,
    seconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    #[serde(default)]
    address: String,
    topics: Vec<String>,
    #[serde(default)]
    data: String,
    #[serde(default)]
    transaction_hash: String,
    #[serde(default)]
    block_number: Value,
}

#[derive(Debug, Deserialize)]
struct TransactionReceipt {
    status: String,
    logs: Vec<Log>,
}

impl Chain {
    pub(super) fn new(client: Client, blocks: u64) -> Self {
        Self { client, blocks }
    }

    /// Looks for a transfer of this token to `payee`.
    pub(super) async fn look(&self, token: Account, payee: Account, transfer: &Transfer) -> Found {
        self.try_look(token, payee, transfer).await.unwrap_or(Found::Unknown)
    }

    /// `None`: the node does not answer, or not in its form.
    async fn try_look(&self, token: Account, payee: Account, transfer: &Transfer) -> Option<Found> {
        let head = self.head("latest").await?;
        let is_over = head.seconds >= transfer.valid_before;
        let Some(log) = self.log_of(token, transfer, &head).await? else {
            // Not seen: it never will be when its time is over and the token has not taken it earlier than we look.
            let is_free = is_over && !self.is_taken(token, transfer, "latest").await?;
            return Some(if is_free { Found::Never } else { Found::Unknown });
        };
        if log.topics.first() == Some(&topic(CANCELED)) {
            return Some(Found::Never);
        }
        let receipt = self.receipt(&log.transaction_hash).await??;
        if receipt.pays(token, payee, transfer) {
            return Some(Found::Moved(log.transaction_hash.to_ascii_lowercase()));
        }
        // The payer signed another transfer of the same name, and that one was taken.
        Some(if is_over { Found::Never } else { Found::Unknown })
    }

    /// Looks whether a transfer that `transaction` settled is there still. `transfer.valid_before`: by then it was.
    pub(super) async fn still(&self, token: Account, payee: Account, transfer: &Transfer, transaction: &str) -> Stands {
        self.try_still(token, payee, transfer, transaction).await.unwrap_or(Stands::Unknown)
    }

    async fn try_still(
        &self,
        token: Account,
        payee: Account,
        transfer: &Transfer,
        transaction: &str,
    ) -> Option<Stands> {
        // A transaction's hash is all of it: where it is, so is what it moved.
        if self.receipt(transaction).await?.is_some_and(|receipt| receipt.uses(token, transfer)) {
            return Some(Stands::Yes);
        }
        let end = self.head("finalized").await?;
        let head = self.head("latest").await?;
        if let Some(log) = self.log_of(token, transfer, &head).await? {
            let is_ours = self.receipt(&log.transaction_hash).await??.pays(token, payee, transfer);
            let is_final = quantity(&log.block_number).is_some_and(|number| number <= end.number);
            // Taken by another transfer of the same name, or cancelled.
            return Some(match (is_ours, is_final) {
                (true, _) => Stands::Yes,
                (false, true) => Stands::No,
                (false, false) => Stands::Unknown,
            });
        }
        if self.is_taken(token, transfer, "latest").await? {
            // What was taken by something else was seen when it was younger.
            tracing::warn!(transaction, "a transfer was taken further back than payments.x402.chain_blocks reaches");
            return Some(Stands::Yes);
        }
        let is_final = end.seconds >= transfer.valid_before;
        let is_free = is_final && !self.is_taken(token, transfer, "finalized").await?;
        Some(if is_free { Stands::No } else { Stands::Unknown })
    }

    /// The newest event by which the token took a transfer of this payer and nonce, or the payer cancelled it.
    async fn log_of(&self, token: Account, transfer: &Transfer, head: &Head) -> Option<Option<Log>> {
        let (from, nonce) = (hex_word(&word(&transfer.from)), hex_word(&transfer.nonce));
        let filter = json!([{
            "address": hex_account(&token), "topics": [[topic(USED), topic(CANCELED)], from, nonce],
            "fromBlock": format!("{:#x}", head.number.saturating_sub(self.blocks)), "toBlock": "latest",
        }]);
        let logs: Vec<Log> = serde_json::from_value(self.ask("eth_getLogs", filter).await?).ok()?;
        Some(logs.into_iter().next_back())
    }

    /// What became of a transaction; `Some(None)`: it is in no block.
    async fn receipt(&self, transaction: &str) -> Option<Option<TransactionReceipt>> {
        let asked = self.ask_any("eth_getTransactionReceipt", json!([transaction])).await?;
        serde_json::from_value(asked).ok()
    }

    async fn head(&self, tag: &str) -> Option<Head> {
        let block = self.ask("eth_getBlockByNumber", json!([tag, false])).await?;
        Some(Head { number: quantity(block.get("number")?)?, seconds: quantity(block.get("timestamp")?)? })
    }

    /// Whether the token has taken a transfer of this payer and nonce, or the payer has cancelled it.
    async fn is_taken(&self, token: Account, transfer: &Transfer, tag: &str) -> Option<bool> {
        let selector = Keccak256::digest(STATE);
        let call = [selector.get(..4)?, &word(&transfer.from), &transfer.nonce].concat();
        let call = json!([{ "to": hex_account(&token), "data": format!("0x{}", hex::encode(call)) }, tag]);
        let answer = self.ask("eth_call", call).await?;
        let digits = answer.as_str()?.strip_prefix("0x").filter(|digits| digits.len() == 64)?;
        Some(digits.bytes().any(|digit| digit != b'0'))
    }

    async fn ask(&self, method: &str, params: Value) -> Option<Value> {
        self.ask_any(method, params).await.filter(|result| !result.is_null())
    }

    /// As [`Chain::ask`], where nothing is an answer too.
    async fn ask_any(&self, method: &str, params: Value) -> Option<Value> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = match self.client.post("", body.to_string()).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, method, "the chain's node does not answer");
                return None;
            }
        };
        let mut answer: Value = serde_json::from_slice(&answer.body).ok()?;
        if let Some(error) = answer.get("error") {
            tracing::warn!(%error, method, "the chain's node refuses");
            return None;
        }
        answer.get_mut("result").map(Value::take)
    }
}

impl TransactionReceipt {
    /// Whether it moved exactly this to the payee.
    fn pays(&self, token: Account, payee: Account, transfer: &Transfer) -> bool {
        let wanted = [topic(TRANSFER), hex_word(&word(&transfer.from)), hex_word(&word(&payee))];
        let is_amount = |log: &Log| log.data.eq_ignore_ascii_case(&hex_word(&uint(transfer.value)));
        self.status == "0x1" && self.logs.iter().any(|log| log.is(token, &wanted) && is_amount(log))
    }

    /// Whether the token took a transfer of this payer and nonce in it.
    fn uses(&self, token: Account, transfer: &Transfer) -> bool {
        let wanted = [topic(USED), hex_word(&word(&transfer.from)), hex_word(&transfer.nonce)];
        self.status == "0x1" && self.logs.iter().any(|log| log.is(token, &wanted))
    }
}

impl Log {
    fn is(&self, token: Account, topics: &[String; 3]) -> bool {
        account(&self.address) == Ok(token)
            && self.topics.iter().map(|topic| topic.to_ascii_lowercase()).eq(topics.iter().cloned())
    }
}

/// A number as JSON-RPC writes it.
fn quantity(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

fn topic(event: &str) -> String {
    format!("0x{}", hex::encode(Keccak256::digest(event)))
}

fn hex_word(word: &[u8; 32]) -> String {
    format!("0x{}", hex::encode(word))
}

fn hex_account(account: &Account) -> String {
    format!("0x{}", hex::encode(account))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_hashes_come_out() {
        assert_eq!(topic(TRANSFER), "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
        assert_eq!(topic(USED), "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5");
        assert_eq!(topic(CANCELED), "0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81");
        assert_eq!(hex::encode(&Keccak256::digest(STATE)[..4]), "e94a0102");
        assert_eq!((quantity(&json!("0x10")), quantity(&json!("16")), quantity(&json!(16))), (Some(16), None, None));
    }
}
