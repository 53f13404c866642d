//! What every answer after a settlement says of it.

use serde_json::{Map, Value};
use storage::model::{Evidence, ListingId, Payment, Rail, UnixMillis};

use super::{
    X402,
    attest::{EXTENSION, Receipt},
    offer::resource_url,
    wire::{self, SettlementResponse},
};

/// The money that a transfer brought for a payment; `None` when none did.
#[must_use]
pub fn settlement(payment: &Payment) -> Option<&Evidence> {
    payment.progress.evidence.iter().find(|evidence| evidence.rail == Rail::X402)
}

/// The value of `PAYMENT-RESPONSE` after a settlement. `attested`: what else is signed and said of it.
pub(crate) fn response(evidence: &Evidence, attested: Option<Value>) -> Option<String> {
    let (network, payer) = parties(&evidence.proof_key)?;
    Some(wire::encode(&SettlementResponse {
        success: true,
        transaction: evidence.reference.clone(),
        network: network.to_string(),
        payer: Some(payer.to_string()),
        error_reason: None,
        extensions: attested.map(|attested| Map::from_iter([(EXTENSION.to_string(), attested)])).unwrap_or_default(),
    }))
}

impl X402 {
    /// The signed receipt of a call that was paid for and delivered; `None` where nothing is signed.
    pub(crate) fn attested(&self, evidence: &Evidence, listing: ListingId, site: &str) -> Option<Value> {
        let (network, payer) = parties(&evidence.proof_key)?;
        let UnixMillis(recorded_at) = evidence.recorded_at;
        Some(self.attester.as_ref()?.receipt(&Receipt {
            network,
            resource_url: &resource_url(listing, site),
            payer,
            transaction: &evidence.reference,
            issued_at: recorded_at / 1000,
        }))
    }
}

/// Its value for a transfer that was refused.
pub(super) fn refused(network: &str, proof_key: &str, reason: &str) -> String {
    wire::encode(&SettlementResponse {
        success: false,
        transaction: String::new(),
        network: network.to_string(),
        payer: parties(proof_key).map(|(_, payer)| payer.to_string()),
        error_reason: Some(reason.to_string()),
        extensions: Map::new(),
    })
}

/// Network and payer in `x402:{network}:{asset}:{payer}:{nonce}`; the network has a colon of its own.
fn parties(proof_key: &str) -> Option<(&str, &str)> {
    let mut parts = proof_key.strip_prefix("x402:")?.rsplitn(4, ':');
    let (_nonce, payer, _asset, network) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((network, payer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_money_s_name_tells_network_and_payer() {
        assert_eq!(parties("x402:eip155:84532:0xasset:0xpayer:0xnonce"), Some(("eip155:84532", "0xpayer")));
        for other in ["sandbox:sbx_1", "x402:", "x402:eip155:0xpayer:0xnonce", "fill:8453:0xabc"] {
            assert_eq!(parties(other), None, "{other}");
        }
    }
}
