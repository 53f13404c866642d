//! What every answer after a settlement says of it.

use storage::model::{Payment, Rail};

use super::wire::{self, SettlementResponse};

/// The value of `PAYMENT-RESPONSE` for a payment that a transfer paid for; `None` when none did.
#[must_use]
pub fn receipt(payment: &Payment) -> Option<String> {
    let evidence = payment.progress.evidence.iter().find(|evidence| evidence.rail == Rail::X402)?;
    let (network, payer) = parties(&evidence.proof_key)?;
    Some(wire::encode(&SettlementResponse {
        success: true,
        transaction: evidence.reference.clone(),
        network: network.to_string(),
        payer: Some(payer.to_string()),
        error_reason: None,
    }))
}

/// Its value for a transfer that was refused.
pub(super) fn refused(network: &str, proof_key: &str, reason: &str) -> String {
    wire::encode(&SettlementResponse {
        success: false,
        transaction: String::new(),
        network: network.to_string(),
        payer: parties(proof_key).map(|(_, payer)| payer.to_string()),
        error_reason: Some(reason.to_string()),
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
