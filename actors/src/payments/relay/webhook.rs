//! Relay's notices: signed with the API key, and never more than a reason to look at Relay's own record.

use std::time::Duration;

use config::Secret;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use storage::model::UnixMillis;

/// A notice that is older, or from so far in the future, is not looked at.
const AGE_MAX: Duration = Duration::from_secs(300);
/// Where a notice may name its request.
const PLACES: [&str; 4] = ["/data/requestId", "/requestId", "/data/id", "/data/request/id"];

/// Whether Relay signed these bytes, not long ago. The signature is over the moment, a dot and the raw body.
pub(super) fn is_signed(key: &Secret, timestamp: &str, signature: &str, body: &[u8], now: UnixMillis) -> bool {
    let Some(at) = moment(timestamp) else { return false };
    let age = if now > at { now.since(at) } else { at.since(now) };
    let Ok(expected) = hex::decode(signature) else { return false };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()) else { return false };
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    // In the same time whatever the difference is.
    mac.verify_slice(&expected).is_ok() && age <= AGE_MAX
}

/// Seconds or milliseconds since 1970.
fn moment(timestamp: &str) -> Option<UnixMillis> {
    let number: u64 = timestamp.parse().ok()?;
    Some(UnixMillis(if number < 100_000_000_000 { number.checked_mul(1000)? } else { number }))
}

/// Which of Relay's requests a notice is about.
pub(super) fn request_id(body: &[u8]) -> Option<String> {
    let notice: Value = serde_json::from_slice(body).ok()?;
    let id = PLACES.iter().find_map(|place| notice.pointer(place)?.as_str())?;
    let digits = id.strip_prefix("0x").filter(|digits| digits.len() == 64)?;
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| id.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_500_623_000);

    fn sign(timestamp: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"key").expect("key");
        mac.update(format!("{timestamp}.").as_bytes());
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }

    #[test]
    fn f5_only_fresh_bytes_that_were_signed_with_the_key_are_relays() {
        let key = Secret::new("key".into());
        let body = br#"{"event":"request.status.updated"}"#;
        let is = |timestamp: &str, signature: &str, body: &[u8]| is_signed(&key, timestamp, signature, body, NOW);
        for timestamp in ["1795500623", "1795500623000", "1795500323", "1795500923"] {
            assert!(is(timestamp, &sign(timestamp, body), body), "{timestamp}");
        }
        for timestamp in ["1795500322", "1795500924", "0", "", "-1", "x"] {
            assert!(!is(timestamp, &sign(timestamp, body), body), "{timestamp}");
        }
        let good = sign("1795500623", body);
        assert!(!is("1795500624", &good, body) && !is("1795500623", &good, b"{}"));
        for signature in ["", "00", &good[..62], &good.replace(&good[..2], "zz")] {
            assert!(!is("1795500623", signature, body), "{signature}");
        }
    }

    #[test]
    fn a_notice_names_its_request_or_nothing() {
        let id = format!("0x{}", "Ab".repeat(32));
        let lower = id.to_ascii_lowercase();
        for body in [format!("{{\"data\":{{\"requestId\":\"{id}\"}}}}"), format!("{{\"requestId\":\"{id}\"}}")] {
            assert_eq!(request_id(body.as_bytes()).as_deref(), Some(lower.as_str()), "{body}");
        }
        for body in ["", "[]", "{\"data\":{\"requestId\":1}}", "{\"requestId\":\"0x12\"}"] {
            assert_eq!(request_id(body.as_bytes()), None, "{body}");
        }
    }
}
