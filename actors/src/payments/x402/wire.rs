//! What travels in x402's headers: JSON in standard base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// The version that is spoken.
pub const VERSION: u32 = 2;
/// The header of a 402: [`PaymentRequired`].
pub const REQUIRED_HEADER: &str = "PAYMENT-REQUIRED";
/// The buyer's header: [`PaymentPayload`].
pub const SIGNATURE_HEADER: &str = "PAYMENT-SIGNATURE";
/// The header of every answer after a settlement: [`SettlementResponse`].
pub const RESPONSE_HEADER: &str = "PAYMENT-RESPONSE";
/// No payload is longer: a head has 16 KiB in all.
const HEADER_MAX: usize = 12 << 10;

/// What the buyer may pay with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// [`VERSION`].
    pub x402_version: u32,
    /// Why it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is sold.
    pub resource: Resource,
    /// The ways to pay; one is enough.
    pub accepts: Vec<Requirements>,
    /// By the extension's name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extensions: Map<String, Value>,
}

/// What is sold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Where.
    pub url: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
}

/// One way to pay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirements {
    /// `exact`.
    pub scheme: String,
    /// The chain, as CAIP-2 names it: `eip155:8453`.
    pub network: String,
    /// In the asset's smallest unit, as a decimal number.
    pub amount: String,
    /// The token's contract.
    pub asset: String,
    /// Who is paid.
    pub pay_to: String,
    /// How long the settlement may take, seconds.
    pub max_timeout_seconds: u64,
    /// The scheme's own: the token's EIP-712 `name` and `version`.
    #[serde(default)]
    pub extra: Map<String, Value>,
}

/// What the buyer signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// [`VERSION`].
    pub x402_version: u32,
    /// What the buyer believes to buy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// Which way was taken, as it was offered.
    pub accepted: Requirements,
    /// The scheme's own.
    pub payload: Value,
    /// By the extension's name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extensions: Map<String, Value>,
}

/// What came of a settlement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettlementResponse {
    /// Whether the money moved.
    pub success: bool,
    /// The transaction; empty when there is none.
    #[serde(default)]
    pub transaction: String,
    /// The chain.
    #[serde(default)]
    pub network: String,
    /// Who paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    /// Why it did not move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// By the extension's name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extensions: Map<String, Value>,
}

/// A header that is not base64 of the JSON that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadHeader(String);

/// The value of a header.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> String {
    // These types hold nothing that JSON cannot.
    STANDARD.encode(serde_json::to_vec(value).unwrap_or_default())
}

/// Reads a header.
///
/// # Errors
/// What is wrong with it, in words for the buyer.
pub fn decode<T: DeserializeOwned>(text: &str) -> Result<T, BadHeader> {
    if text.len() > HEADER_MAX {
        return Err(BadHeader(format!("must have at most {HEADER_MAX} characters")));
    }
    let bytes = STANDARD.decode(text.trim()).map_err(|_| BadHeader("must be standard base64".into()))?;
    serde_json::from_slice(&bytes).map_err(|error| BadHeader(format!("must be base64 of x402's JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_clients_send_is_read_and_written_back_the_same() {
        let sent = json!({
            "x402Version": 2,
            "resource": { "url": "https://gateway.example.org/api/v1/gateway/a" },
            "accepted": {
                "scheme": "exact", "network": "eip155:84532", "amount": "10000",
                "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
                "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "maxTimeoutSeconds": 60,
                "extra": { "name": "USDC", "version": "2" },
            },
            "payload": { "signature": "0x", "authorization": {} },
            "extensions": { "payment-identifier": { "info": { "required": false, "id": "0123456789abcdef" } } },
        });
        let header = STANDARD.encode(sent.to_string());
        let read: PaymentPayload = decode(&header).expect("read");
        assert_eq!(read.accepted.amount, "10000");
        assert_eq!(serde_json::to_value(&read).expect("written"), sent);
        assert_eq!(decode::<PaymentPayload>(&encode(&read)), Ok(read));
    }

    #[test]
    fn what_is_no_payload_is_told_in_words() {
        for (text, why) in [
            ("%%%", "standard base64"),
            ("e30=", "missing field"),
            ("W10=", "x402's JSON"),
            (&"A".repeat(HEADER_MAX + 1), "at most"),
        ] {
            let fault = decode::<PaymentPayload>(text).expect_err(text).to_string();
            assert!(fault.contains(why), "{fault}");
        }
    }
}
