//! Signed offers and receipts, which a buyer can show to others (x402's extension `offer-receipt`, version 1, in its
//! EIP-712 form).

use k256::ecdsa::SigningKey;
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};

use super::{
    authorization::{Account, account, uint, word},
    wire::Requirements,
};

/// The extension's name.
pub(super) const EXTENSION: &str = "offer-receipt";
const DOMAIN_TYPE: &str = "EIP712Domain(string name,string version,uint256 chainId)";
const OFFER_TYPE: &str = "Offer(string resourceUrl,string scheme,string network,string asset,address payTo,string amount,\
                          uint256 maxTimeoutSeconds,uint256 issuedAt)";
const RECEIPT_TYPE: &str =
    "Receipt(string network,string resourceUrl,string payer,uint256 issuedAt,string transaction)";

/// Who signs.
pub(super) struct Attester {
    key: SigningKey,
    address: Account,
    chain_id: u64,
}

/// What a receipt tells.
pub(super) struct Receipt<'a> {
    pub(super) network: &'a str,
    pub(super) resource_url: &'a str,
    pub(super) payer: &'a str,
    pub(super) transaction: &'a str,
    /// Unix seconds.
    pub(super) issued_at: u64,
}

impl Attester {
    /// A signer with the key in these hexadecimal digits; `None` when they make no key.
    pub(super) fn new(digits: &str, chain_id: u64) -> Option<Self> {
        let key = SigningKey::from_slice(&hex::decode(digits).ok()?).ok()?;
        let point = key.verifying_key().to_sec1_point(false);
        let hash = Keccak256::digest(point.as_bytes().get(1..)?);
        let address = hash.get(12..)?.try_into().ok()?;
        Some(Self { key, address, chain_id })
    }

    /// Whose signatures these are.
    pub(super) fn address(&self) -> String {
        format!("0x{}", hex::encode(self.address))
    }

    /// The extension of a 402: the way to pay, signed.
    pub(super) fn offer(&self, resource_url: &str, wanted: &Requirements, issued_at: u64) -> Value {
        let payload = json!({
            "resourceUrl": resource_url, "scheme": wanted.scheme, "network": wanted.network, "asset": wanted.asset,
            "payTo": wanted.pay_to, "amount": wanted.amount, "maxTimeoutSeconds": wanted.max_timeout_seconds,
            "issuedAt": issued_at,
        });
        let payee = account(&wanted.pay_to).unwrap_or_default();
        let fields = [
            text(resource_url),
            text(&wanted.scheme),
            text(&wanted.network),
            text(&wanted.asset),
            word(&payee),
            text(&wanted.amount),
            uint(wanted.max_timeout_seconds),
            uint(issued_at),
        ];
        let signature = self.sign("x402 offer", OFFER_TYPE, &fields);
        let offer = json!({ "format": "eip712", "payload": payload, "signature": signature });
        json!({ "info": { "version": 1, "offers": [offer], "signer": self.address() } })
    }

    /// The extension of a settlement: that it was paid for and delivered, signed.
    pub(super) fn receipt(&self, told: &Receipt<'_>) -> Value {
        let payload = json!({
            "network": told.network, "resourceUrl": told.resource_url, "payer": told.payer,
            "issuedAt": told.issued_at, "transaction": told.transaction,
        });
        let fields = [
            text(told.network),
            text(told.resource_url),
            text(told.payer),
            uint(told.issued_at),
            text(told.transaction),
        ];
        let signature = self.sign("x402 receipt", RECEIPT_TYPE, &fields);
        let receipt = json!({ "format": "eip712", "payload": payload, "signature": signature });
        json!({ "info": { "version": 1, "receipt": receipt, "signer": self.address() } })
    }

    /// EIP-712, in the domain that the extension gives to each of its two kinds.
    fn sign(&self, name: &str, kind: &str, fields: &[[u8; 32]]) -> String {
        let mut domain = Keccak256::new_with_prefix(text(DOMAIN_TYPE));
        for part in [text(name), text("1"), uint(self.chain_id)] {
            domain.update(part);
        }
        let message = fields.iter().fold(Keccak256::new_with_prefix(text(kind)), Keccak256::chain_update);
        let mut hash = Keccak256::new_with_prefix(b"\x19\x01");
        hash.update(domain.finalize());
        hash.update(message.finalize());
        let (signature, recovery) = self.key.sign_prehash_recoverable(&hash.finalize());
        format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + recovery.to_byte())
    }
}

/// A text in a hash of fields is its own hash.
fn text(text: &str) -> [u8; 32] {
    Keccak256::digest(text).into()
}
