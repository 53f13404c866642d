//! The x402 rail's knobs, and what it cannot do without.

use std::time::Duration;

use crate::{
    read::Reader,
    relay::{is_evm_address, is_loopback, provider_url},
    secret::key_of_32_bytes,
    sections::{Config, Mode, X402},
};

const SECOND: Duration = Duration::from_secs(1);

/// A token that clients know on a chain: the chain, the contract, and what its signatures call it.
const KNOWN: [(&str, &str, &str, &str); 2] = [
    ("eip155:8453", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USD Coin", "2"),
    ("eip155:84532", "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "2"),
];

pub(crate) fn read(r: &Reader<'_>) -> X402 {
    let quick = Duration::from_millis(100);
    let network = r.text("payments.x402.network");
    let known = KNOWN.iter().find(|(name, ..)| *name == network);
    let or =
        |given: String, usual: Option<&str>| if given.is_empty() { usual.unwrap_or("").to_string() } else { given };
    X402 {
        enabled: r.flag("payments.x402.enabled"),
        facilitator_url: r.parsed("payments.x402.facilitator_url", provider_url, String::new()),
        // With their twins "payments.x402.api_key_file", "payments.x402.signing_key_file" and
        // "payments.x402.chain_url_file".
        api_key: r.secret("payments.x402.api_key", |_| Ok(())),
        signing_key: r.secret("payments.x402.signing_key", key_of_32_bytes),
        chain_url: r.secret("payments.x402.chain_url", |text| provider_url(text).map(drop)),
        chain_blocks: r.count("payments.x402.chain_blocks", 1..=1_000_000_000),
        pay_to: r.text("payments.x402.pay_to"),
        asset: or(r.text("payments.x402.asset"), known.map(|known| known.1)),
        asset_name: or(r.text("payments.x402.asset_name"), known.map(|known| known.2)),
        asset_version: or(r.text("payments.x402.asset_version"), known.map(|known| known.3)),
        network,
        max_timeout: r.duration("payments.x402.max_timeout", SECOND..=3600 * SECOND),
        margin: r.duration("payments.x402.margin", Duration::ZERO..=600 * SECOND),
        timeout: r.duration("payments.x402.timeout", quick..=300 * SECOND),
        route_minimum_micros: r.numbers("payments.x402.route_minimum_micros"),
    }
}

/// What is wrong when the rail is on: key, value, reason.
pub(crate) fn contradictions(config: &Config) -> Vec<(&'static str, String, &'static str)> {
    let x402 = &config.payments.x402;
    let mut problems = Vec::new();
    if !x402.enabled {
        return problems;
    }
    if !is_evm_address(&x402.pay_to) {
        let reason = "x402 pays USDC to this wallet: 0x and 40 hexadecimal digits";
        problems.push(("payments.x402.pay_to", x402.pay_to.clone(), reason));
    }
    if chain_of(&x402.network).is_none() {
        let reason = "an EVM chain as CAIP-2 names it: eip155:8453 is Base, eip155:84532 Base Sepolia";
        problems.push(("payments.x402.network", x402.network.clone(), reason));
    }
    if !is_evm_address(&x402.asset) || x402.asset_name.is_empty() || x402.asset_version.is_empty() {
        let reason = "this network has no token that is known here: give asset (0x and 40 hexadecimal digits), \
                      asset_name and asset_version as its EIP-712 domain has them";
        problems.push(("payments.x402.asset", x402.asset.clone(), reason));
    }
    if x402.margin >= x402.max_timeout {
        let reason = "must be less than max_timeout: no transfer could be good for long enough";
        problems.push(("payments.x402.margin", format!("{:?}", x402.margin), reason));
    }
    let is_safe = |url: &str| url.starts_with("https://") || config.mode == Mode::Dev && is_loopback(url);
    let reason = "must be https://; plain http:// is for a loopback address in dev mode";
    if !is_safe(&x402.facilitator_url) {
        problems.push(("payments.x402.facilitator_url", x402.facilitator_url.clone(), reason));
    }
    if !x402.chain_url.is_empty() && !is_safe(x402.chain_url.expose()) {
        problems.push(("payments.x402.chain_url", String::new(), reason));
    }
    problems
}

/// The chain's number in `eip155:{number}`.
fn chain_of(network: &str) -> Option<u64> {
    network.strip_prefix("eip155:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "pay_to = \"0x00000000000000000000000000000000000000aa\"\n";

    fn said(text: &str) -> String {
        Config::from_parts(Some(text), []).map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn x402_is_on_only_with_a_wallet_a_known_token_and_a_safe_address() {
        let on = |more: &str| format!("[payments.x402]\nenabled = true\n{more}");
        assert_eq!(said(&on(GOOD)), "");
        assert!(said(&on("")).contains("payments.x402.pay_to"));
        let with = |more: &str| said(&on(&format!("{GOOD}{more}\n")));
        for network in ["base", "eip155:", "eip155:x", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"] {
            assert!(with(&format!("network = \"{network}\"")).contains("payments.x402.network"), "{network}");
        }
        assert!(with("network = \"eip155:1\"").contains("payments.x402.asset"), "no token is known there");
        let own = "network = \"eip155:1\"\nasset = \"0x00000000000000000000000000000000000000bb\"\n\
                   asset_name = \"USD Coin\"\nasset_version = \"2\"";
        assert_eq!(with(own), "");
        assert!(with("margin = \"60s\"").contains("payments.x402.margin"));
        assert!(with("facilitator_url = \"http://facilitator.example\"").contains("payments.x402.facilitator_url"));
        assert_eq!(with("facilitator_url = \"http://127.0.0.1:9\""), "");
        let node = |url: &str| {
            let url = ("CROCHET__PAYMENTS__X402__CHAIN_URL".to_string(), url.to_string());
            Config::from_parts(Some(&on(GOOD)), [url]).map_or_else(|problems| problems.to_string(), |_| String::new())
        };
        assert_eq!((node("https://node.example/key"), node("http://127.0.0.1:9")), (String::new(), String::new()));
        let unsafe_node = node("http://node.example/its-key");
        assert!(unsafe_node.contains("payments.x402.chain_url") && !unsafe_node.contains("its-key"), "{unsafe_node}");
        let production =
            format!("mode = \"production\"\n{}", on(&format!("{GOOD}facilitator_url = \"http://127.0.0.1:9\"\n")));
        assert!(said(&production).contains("payments.x402.facilitator_url"));
        assert_eq!(said("[payments.x402]\npay_to = \"\"\n"), "", "off, it needs nothing");
    }

    #[test]
    fn each_known_chain_brings_the_name_that_its_token_signs_with() {
        let token = |network: &str| {
            let text = format!("[payments.x402]\nnetwork = \"{network}\"\n");
            let x402 = Config::from_parts(Some(&text), []).expect("good").payments.x402;
            (x402.asset.to_lowercase(), x402.asset_name, x402.asset_version)
        };
        let base = ("0x833589fcd6edb6e08f4c7c32d4f71b54bda02913".into(), "USD Coin".into(), "2".into());
        assert_eq!(token("eip155:8453"), base);
        let sepolia = ("0x036cbd53842c5426634e7929541ec2318f3dcf7e".into(), "USDC".into(), "2".into());
        assert_eq!(token("eip155:84532"), sepolia);
    }
}
