//! Who checks and settles transfers: three answers are told apart, and only two of them decide anything.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    authorization::{Account, account},
    wire::{PaymentPayload, Requirements, VERSION},
};
use crate::payments::client::{Answer, Client};

/// The longest reason that is passed on, characters.
const REASON_MAX: usize = 80;

/// How reasons begin that are about the facilitator itself.
const UNEXPECTED: &str = "unexpected_";

/// What is known after a facilitator was asked to check a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// It could be settled.
    Good,
    /// It could not, and nothing was moved.
    Bad(String),
    /// No answer that can be believed; nothing was moved.
    Unknown,
}

/// What is known after a facilitator was asked to settle a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The money moved in this transaction.
    Done(String),
    /// It did not, for this reason, as far as this one question goes.
    Refused(String),
    /// It may have.
    Unknown,
}

/// What a settlement must say.
pub(super) struct Expected<'a> {
    pub(super) network: &'a str,
    pub(super) payer: Account,
    pub(super) amount: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VerifyAnswer {
    is_valid: bool,
    invalid_reason: Option<String>,
    payer: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SettleAnswer {
    success: bool,
    error_reason: Option<String>,
    payer: Option<String>,
    transaction: Option<String>,
    network: Option<String>,
    amount: Option<String>,
}

/// What both questions carry.
pub(super) fn question(payload: &PaymentPayload, requirements: &Requirements) -> String {
    json!({ "x402Version": VERSION, "paymentPayload": payload, "paymentRequirements": requirements }).to_string()
}

/// Asks whether a transfer could be settled.
pub(super) async fn verify(client: &Client, question: String, payer: Account) -> Checked {
    let answer = match client.post("/verify", question).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(%error, "the facilitator does not answer");
            return Checked::Unknown;
        }
    };
    match read::<VerifyAnswer>(&answer) {
        Some(said) if said.is_valid && is_payer(said.payer.as_deref(), payer) => Checked::Good,
        Some(said) if said.is_valid => {
            tracing::error!("the facilitator found a transfer good that is another payer's");
            Checked::Unknown
        }
        Some(said) => match reason(said.invalid_reason.as_deref()) {
            // Nothing moves here, so any word that is not about itself is a no.
            reason if reason.starts_with(UNEXPECTED) => {
                tracing::warn!(%reason, "the facilitator cannot tell");
                Checked::Unknown
            }
            reason => Checked::Bad(reason),
        },
        None => {
            tracing::warn!(status = answer.status, "the facilitator's answer cannot be read");
            Checked::Unknown
        }
    }
}

/// Asks to settle a transfer.
pub(super) async fn settle(client: &Client, question: String, expected: &Expected<'_>) -> Settled {
    let answer = match client.post_once("/settle", question).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(%error, "the facilitator does not say whether it settled");
            return Settled::Unknown;
        }
    };
    match read::<SettleAnswer>(&answer) {
        Some(said) if said.success => match said.transaction_of(expected) {
            Ok(transaction) => Settled::Done(transaction),
            Err(what) => {
                // Money may have moved all the same: neither a yes nor a no.
                tracing::error!(what, "the facilitator's settlement is not of the transfer that was signed");
                Settled::Unknown
            }
        },
        Some(said) => match reason(said.error_reason.as_deref()) {
            reason if is_fault_of_its_own(&reason) => {
                tracing::warn!(%reason, "the facilitator does not say whether it settled");
                Settled::Unknown
            }
            reason => Settled::Refused(reason),
        },
        None => {
            tracing::warn!(status = answer.status, "the facilitator's answer cannot be read");
            Settled::Unknown
        }
    }
}

impl SettleAnswer {
    /// The transaction, when all that is said is of the transfer that was signed; else what is not.
    fn transaction_of(&self, expected: &Expected<'_>) -> Result<String, &'static str> {
        if !is_payer(self.payer.as_deref(), expected.payer) {
            return Err("payer");
        }
        if self.network.as_deref().is_some_and(|network| network != expected.network) {
            return Err("network");
        }
        if self.amount.as_deref().is_some_and(|amount| amount != expected.amount.to_string()) {
            return Err("amount");
        }
        let transaction = self.transaction.as_deref().unwrap_or_default();
        let digits = transaction.strip_prefix("0x").unwrap_or_default();
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("transaction");
        }
        Ok(transaction.to_ascii_lowercase())
    }
}

/// An answer that says nothing of the payer says nothing wrong.
fn is_payer(said: Option<&str>, payer: Account) -> bool {
    said.is_none_or(|said| account(said) == Ok(payer))
}

/// A refusal comes with any status below 500; what comes with a higher one, or cannot be read, decides nothing.
fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Option<T> {
    if answer.status >= 500 || answer.status == 429 {
        return None;
    }
    let value: Value = serde_json::from_slice(&answer.body).ok()?;
    serde_json::from_value(value).ok()
}

/// A reason as it may be shown: a word of the protocol, nothing else.
fn reason(said: Option<&str>) -> String {
    let is_word = |text: &&str| {
        (1..=REASON_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    said.filter(is_word).unwrap_or("unexpected_error").to_string()
}

/// Reasons that are about the facilitator or its chain rather than about the transfer, or that a transfer has which was
/// settled before: what became of the money they do not say.
fn is_fault_of_its_own(reason: &str) -> bool {
    let about_the_transfer = reason.starts_with("invalid_") || reason.starts_with("unsupported_");
    let is_known = reason == "insufficient_funds" || reason.contains("insufficient_balance");
    let may_be_settled = ["nonce", "transaction", "already", "used", "time_out", "timeout", "timed_out"];
    !(about_the_transfer || is_known) || may_be_settled.iter().any(|word| reason.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    fn expected() -> Expected<'static> {
        Expected { network: "eip155:84532", payer: account(PAYER).expect("address"), amount: 10_000 }
    }

    fn settlement() -> Value {
        json!({
            "success": true, "payer": PAYER.to_lowercase(), "network": "eip155:84532",
            "transaction": format!("0x{}", "Ab".repeat(32)), "amount": "10000",
        })
    }

    #[test]
    fn a_settlement_counts_when_all_that_it_says_is_of_the_transfer() {
        let said = |change: &dyn Fn(&mut Value)| {
            let mut answer = settlement();
            change(&mut answer);
            serde_json::from_value::<SettleAnswer>(answer).expect("read").transaction_of(&expected())
        };
        assert_eq!(said(&|_| {}), Ok(format!("0x{}", "ab".repeat(32))));
        for optional in ["payer", "network", "amount"] {
            assert!(said(&|answer| answer[optional] = Value::Null).is_ok(), "{optional} may be left out");
        }
        assert_eq!(said(&|answer| answer["payer"] = json!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC")), Err("payer"));
        assert_eq!(said(&|answer| answer["payer"] = json!("")), Err("payer"));
        assert_eq!(said(&|answer| answer["network"] = json!("eip155:8453")), Err("network"));
        assert_eq!(said(&|answer| answer["amount"] = json!("9999")), Err("amount"));
        for transaction in
            [Value::Null, json!(""), json!("0x12"), json!("ab".repeat(32)), json!(format!("0x{}", "zz".repeat(32)))]
        {
            assert_eq!(said(&|answer| answer["transaction"] = transaction.clone()), Err("transaction"));
        }
    }

    #[test]
    fn only_a_word_about_the_transfer_is_a_no() {
        for no in [
            "insufficient_funds",
            "invalid_exact_evm_payload_signature",
            "invalid_exact_evm_payload_authorization_valid_before",
            "invalid_exact_evm_payload_recipient_mismatch",
            "invalid_network",
            "invalid_payload",
            "invalid_payment_requirements",
            "unsupported_scheme",
        ] {
            assert!(!is_fault_of_its_own(no), "{no}");
        }
        for unknown in [
            "unexpected_error",
            "unexpected_settle_error",
            "invalid_transaction_state",
            "invalid_exact_evm_nonce_already_used",
            "settle_exact_evm_transaction_confirmation_timed_out",
            "a_word_of_next_year",
        ] {
            assert!(is_fault_of_its_own(unknown), "{unknown}");
        }
        assert_eq!(reason(Some("<script>")), "unexpected_error");
        assert_eq!(reason(None), "unexpected_error");
        assert_eq!(reason(Some(&"a".repeat(81))), "unexpected_error");
    }
}
