// Cargo.toml: base64 = "0.23", hex = "0.4", hmac = "0.13", sha2 = "0.11"
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Whether the gateway sent this. `secrets`: those of the listing; `header`: the value by
/// lower-case name; `body`: the raw bytes; `now`: Unix seconds.
pub fn verify(secrets: &[&str], header: impl Fn(&str) -> String, body: &[u8], now: u64) -> bool {
    let field = |name: &str| header(&format!("x-crochet-{name}"));
    if !field("timestamp").parse::<u64>().is_ok_and(|time| time.abs_diff(now) <= 300) {
        return false;
    }
    let covered = format!(
        "v2.{}.{}.{}.{}.{}.{}.{}",
        field("request-id"),
        field("timestamp"),
        field("listing-id"),
        field("buyer-id"),
        field("attempt"),
        field("charged-micros"),
        hex::encode(Sha256::digest(body)),
    );
    secrets.iter().filter(|secret| secret.starts_with("whsec_")).any(|secret| {
        let Ok(key) = STANDARD.decode(secret.trim_start_matches("whsec_")) else { return false };
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(&key) else { return false };
        let mac = mac.chain_update(&covered);
        let signature = field("signature");
        let mut given = signature.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix("v2,")?).ok());
        given.any(|tag| mac.clone().verify_slice(&tag).is_ok())
    })
}
