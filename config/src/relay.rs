//! The Relay rail's knobs, and what it cannot do without.

use std::{net::SocketAddr, time::Duration};

use crate::{
    read::Reader,
    sections::{Config, Mode, Relay},
};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn read(r: &Reader<'_>) -> Relay {
    let quick = Duration::from_millis(100);
    Relay {
        enabled: r.flag("payments.relay.enabled"),
        base_url: r.parsed("payments.relay.base_url", provider_url, String::new()),
        api_key: r.secret("payments.relay.api_key", |_| Ok(())),
        recipient: r.text("payments.relay.recipient"),
        timeout: r.duration("payments.relay.timeout", quick..=60 * SECOND),
        quotes_per_minute: r.number("payments.relay.quotes_per_minute", 1..=100_000),
        pause: r.duration("payments.relay.pause", quick..=600 * SECOND),
        reread_pause: r.duration("payments.relay.reread_pause", Duration::ZERO..=60 * SECOND),
        route_minimum_micros: r.numbers("payments.relay.route_minimum_micros"),
    }
}

/// What is wrong when the rail is on: key, value, reason.
pub(crate) fn contradictions(config: &Config) -> Vec<(&'static str, String, &'static str)> {
    let relay = &config.payments.relay;
    let mut problems = Vec::new();
    if !relay.enabled {
        return problems;
    }
    if relay.api_key.is_empty() {
        let reason = "Relay needs an API key (or CROCHET__PAYMENTS__RELAY__API_KEY): payments are checked with it";
        problems.push(("payments.relay.api_key_file", String::new(), reason));
    }
    if !is_evm_address(&relay.recipient) {
        let reason = "Relay pays USDC on Base to this wallet: 0x and 40 hexadecimal digits";
        problems.push(("payments.relay.recipient", relay.recipient.clone(), reason));
    }
    let is_our_own = config.mode == Mode::Dev && is_loopback(&relay.base_url);
    if !relay.base_url.starts_with("https://") && !is_our_own {
        let reason = "must be https://; plain http:// is for a loopback address in dev mode";
        problems.push(("payments.relay.base_url", relay.base_url.clone(), reason));
    }
    problems
}

/// A provider's base URL, without a slash at its end.
pub(crate) fn provider_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() => Ok(text.trim_end_matches('/').to_string()),
        _ => Err("an http:// or https:// URL".into()),
    }
}

/// Whether a URL is served by this machine alone.
pub(crate) fn is_loopback(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or("").split('/').next().unwrap_or("");
    host.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

/// 20 bytes in hexadecimal digits after `0x`.
pub(crate) fn is_evm_address(text: &str) -> bool {
    text.strip_prefix("0x").is_some_and(|hex| hex.len() == 40 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "recipient = \"0x00000000000000000000000000000000000000aa\"\n";

    fn said(text: &str, key: &str) -> String {
        let key = ("CROCHET__PAYMENTS__RELAY__API_KEY".to_string(), key.to_string());
        let read = Config::from_parts(Some(text), [key]);
        read.map_or_else(|problems| problems.to_string(), |_| String::new())
    }

    #[test]
    fn relay_is_on_only_with_a_key_a_wallet_and_a_safe_address() {
        let on = |more: &str| format!("[payments.relay]\nenabled = true\n{more}");
        assert_eq!(said(&on(GOOD), "k"), "");
        assert!(said(&on(GOOD), "").contains("payments.relay.api_key_file"));
        assert!(said(&on(""), "k").contains("payments.relay.recipient"));
        assert!(said(&on("recipient = \"0x12\"\n"), "k").contains("40 hexadecimal digits"));
        let at = |url: &str| on(&format!("{GOOD}base_url = \"{url}\"\n"));
        assert_eq!(said(&at("http://127.0.0.1:9000"), "k"), "");
        for url in ["http://relay.example", "http://127.0.0.1.example:80", "http://10.0.0.1:80"] {
            assert!(said(&at(url), "k").contains("payments.relay.base_url"), "{url}");
        }
        assert!(said(&at("ftp://relay.example"), "k").contains("an http:// or https:// URL"));
        let production = format!("mode = \"production\"\n{}", at("http://127.0.0.1:9000"));
        assert!(said(&production, "k").contains("payments.relay.base_url"));
        assert_eq!(said("[payments.relay]\nrecipient = \"\"\n", ""), "", "off, it needs nothing");
    }
}
