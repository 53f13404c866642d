//! A payer over x402: signs the transfer that a 402 asks for (ERC-3009), and what both sides compute of it.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};

use crate::{provider::unix_seconds, seed::Seed, wallet::Wallet};

const TRANSFER: &str = "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 \
                        validBefore,bytes32 nonce)";
const DOMAIN: &str = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

/// Somebody with tokens.
pub struct Payer {
    wallet: Wallet,
    nonces: AtomicU64,
}

impl Payer {
    /// The payer that a seed fixes.
    ///
    /// # Errors
    /// When no key can be made of it.
    pub fn from_seed(seed: Seed) -> anyhow::Result<Self> {
        Ok(Self { wallet: Wallet::from_seed(seed)?, nonces: AtomicU64::new(1) })
    }

    /// `0x` and 40 hexadecimal digits.
    #[must_use]
    pub fn address(&self) -> &str {
        self.wallet.address()
    }

    /// The value of `PAYMENT-SIGNATURE` that pays the first way of a `PAYMENT-REQUIRED`.
    ///
    /// # Errors
    /// When that header is not x402's.
    pub fn pay(&self, required: &str) -> anyhow::Result<String> {
        Ok(encode(&self.payload(&decode(required)?, |_| {})?))
    }

    /// What it would send, after `change` changed the authorization that it signs.
    ///
    /// # Errors
    /// When what is required is not x402's.
    pub fn payload(&self, required: &Value, change: impl FnOnce(&mut Value)) -> anyhow::Result<Value> {
        let accepted = required.pointer("/accepts/0").context("nothing is accepted")?;
        let seconds = unix_seconds();
        let lasts = accepted.get("maxTimeoutSeconds").and_then(Value::as_u64).context("no time-out")?;
        let count = self.nonces.fetch_add(1, Ordering::Relaxed);
        let nonce = Keccak256::digest(format!("{}.{seconds}.{count}", self.address()));
        let mut authorization = json!({
            "from": self.address(), "to": accepted["payTo"], "value": accepted["amount"],
            "validAfter": (seconds - 600).to_string(), "validBefore": (seconds + lasts).to_string(),
            "nonce": format!("0x{}", hex::encode(nonce)),
        });
        change(&mut authorization);
        let signature = self.wallet.sign_digest(&digest(accepted, &authorization)?);
        Ok(json!({
            "x402Version": 2, "resource": required["resource"], "accepted": accepted,
            "payload": { "signature": signature, "authorization": authorization },
        }))
    }
}

/// A header of x402.
#[must_use]
pub fn encode(value: &Value) -> String {
    STANDARD.encode(value.to_string())
}

/// What a header of x402 says.
///
/// # Errors
/// When it is not base64 of JSON.
pub fn decode(header: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&STANDARD.decode(header)?)?)
}

/// What is signed: the transfer, in the domain of the token that the requirements name.
///
/// # Errors
/// When a part is missing or not in its form.
pub fn digest(requirements: &Value, authorization: &Value) -> anyhow::Result<[u8; 32]> {
    let chain = text(requirements, "/network")?.strip_prefix("eip155:").context("no EVM chain")?.parse()?;
    let domain = [
        keccak(DOMAIN.as_bytes()),
        keccak(text(requirements, "/extra/name")?.as_bytes()),
        keccak(text(requirements, "/extra/version")?.as_bytes()),
        number(chain),
        word(text(requirements, "/asset")?)?,
    ];
    let transfer = [
        keccak(TRANSFER.as_bytes()),
        word(text(authorization, "/from")?)?,
        word(text(authorization, "/to")?)?,
        number(text(authorization, "/value")?.parse()?),
        number(text(authorization, "/validAfter")?.parse()?),
        number(text(authorization, "/validBefore")?.parse()?),
        word(text(authorization, "/nonce")?)?,
    ];
    let mut hash = Keccak256::new_with_prefix(b"\x19\x01");
    hash.update(keccak(&domain.concat()));
    hash.update(keccak(&transfer.concat()));
    Ok(hash.finalize().into())
}

/// Who signed a digest: `0x` and 40 hexadecimal digits in lower case.
///
/// # Errors
/// When nobody can have.
pub fn signer(digest: &[u8; 32], signature: &str) -> anyhow::Result<String> {
    let bytes = hex::decode(signature.strip_prefix("0x").unwrap_or(signature))?;
    let Some((scalars, &[v])) = bytes.split_at_checked(64) else { bail!("not 65 bytes") };
    let recovery = RecoveryId::from_byte(if v >= 27 { v - 27 } else { v }).context("no such recovery id")?;
    let key = VerifyingKey::recover_from_prehash(digest, &Signature::from_slice(scalars)?, recovery)?;
    let point = key.to_sec1_point(false);
    let hash = Keccak256::digest(point.as_bytes().get(1..).context("an empty point")?);
    Ok(format!("0x{}", hex::encode(hash.get(12..).context("a short hash")?)))
}

/// Who signed an offer or a receipt (x402's extension `offer-receipt` in its EIP-712 form), by its domain's name, its
/// kind, and the names and types of its fields.
///
/// # Errors
/// When it is not in its form.
pub fn signer_of(name: &str, kind: &str, fields: &[(&str, &str)], signed: &Value) -> anyhow::Result<String> {
    let payload = signed.get("payload").context("no payload")?;
    let chain = text(payload, "/network")?.strip_prefix("eip155:").context("no EVM chain")?.parse()?;
    let domain = [
        keccak(b"EIP712Domain(string name,string version,uint256 chainId)"),
        keccak(name.as_bytes()),
        keccak(b"1"),
        number(chain),
    ];
    let shape: Vec<String> = fields.iter().map(|(name, kind)| format!("{kind} {name}")).collect();
    let mut message = vec![keccak(format!("{kind}({})", shape.join(",")).as_bytes())];
    for (name, kind) in fields {
        let value = payload.get(*name).with_context(|| format!("{name} is missing"))?;
        message.push(match *kind {
            "uint256" => number(value.as_u64().context("no number")?),
            "address" => word(value.as_str().context("no text")?)?,
            _ => keccak(value.as_str().context("no text")?.as_bytes()),
        });
    }
    let mut hash = Keccak256::new_with_prefix(b"\x19\x01");
    hash.update(keccak(&domain.concat()));
    hash.update(keccak(&message.concat()));
    signer(&hash.finalize().into(), text(signed, "/signature")?)
}

/// The text at a JSON pointer.
///
/// # Errors
/// When there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> anyhow::Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("{pointer} is missing"))
}

fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

fn number(number: u64) -> [u8; 32] {
    let mut word = [0; 32];
    let (_, end) = word.split_at_mut(24);
    end.copy_from_slice(&number.to_be_bytes());
    word
}

/// Hexadecimal digits at the end of a word.
fn word(digits: &str) -> anyhow::Result<[u8; 32]> {
    let bytes = hex::decode(digits.strip_prefix("0x").context("no 0x")?)?;
    let start = 32usize.checked_sub(bytes.len()).context("more than a word")?;
    let mut word = [0; 32];
    let (_, end) = word.split_at_mut(start);
    end.copy_from_slice(&bytes);
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_an_outside_client_signed_is_its_payers() {
        let requirements = json!({
            "network": "eip155:84532", "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "extra": { "name": "USDC", "version": "2" },
        });
        let authorization = json!({
            "from": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "to": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            "value": "10000", "validAfter": "1795499963", "validBefore": "1795500623",
            "nonce": "0x4717fe6a73f215d2e015255464d43557fa705e0255650130f45753a7b6c8722a",
        });
        let digest = digest(&requirements, &authorization).expect("digest");
        assert_eq!(hex::encode(digest), "ffea1e955a52713f75b777ea64a1488265d747520182800b6af9beee29d8480c");
        let signature = "0x655d813f188190b95b6668299f8f5e0e8bafdea01f372f9661eaa49fb9fe1c330c4e65e38ee39f9a357d9b282e88\
                         222ff9115793b4469af3989486cd4c17d27e1c";
        let payer = signer(&digest, signature).expect("a signer");
        assert_eq!(payer, "0x70997970c51812dc3a010c7d01b50e0d17dc79c8");
    }
}
