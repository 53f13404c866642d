//! A completed call's stored answer, for its parties, while it is kept.

use actors::refusal::Refusal;
use serde::Serialize;
use serde_json::value::RawValue;
use storage::model::{Payment, PaymentId, ResultEncoding, ResultPlace, UnixMillis};

use crate::{door::Door, reply::Shown};

/// A larger result is fetched by sending the same call again, which streams it.
const SHOWN_MAX: usize = 4 << 20;

/// What the seller answered, or why it is not here.
#[derive(Debug, Serialize)]
pub(crate) struct ResultView {
    seller_status_code: u16,
    seller_content_type: String,
    bytes: u64,
    sha256: String,
    kept_until: Option<Shown<UnixMillis>>,
    /// Whether the same call, sent again, is answered from what is kept; also where it is too large to be shown here.
    is_kept: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    seller_response_encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seller_response: Option<Box<RawValue>>,
}

impl ResultView {
    /// The result of a payment; `None` while there is none.
    pub(crate) async fn of(door: &Door, id: PaymentId, now: UnixMillis) -> Result<Option<Self>, Refusal> {
        let Some(payment) = door.store.payment_get(id).await? else { return Ok(None) };
        let Some(result) = payment.progress.result.clone() else { return Ok(None) };
        let is_kept = !matches!(result.place, ResultPlace::NotKept | ResultPlace::Resent) && now < result.kept_until;
        let is_shown = is_kept && result.bytes <= SHOWN_MAX as u64;
        let kept = if is_shown { read_whole(door, &payment).await? } else { None };
        let encoding = if result.encoding == ResultEncoding::Base64 { Some("base64") } else { None };
        Ok(Some(Self {
            seller_status_code: result.seller_status_code,
            seller_content_type: result.content_type,
            bytes: result.bytes,
            sha256: hex::encode(result.sha256),
            kept_until: is_kept.then_some(Shown(result.kept_until)),
            is_kept,
            seller_response_encoding: encoding,
            seller_response: match result.encoding {
                ResultEncoding::Events => kept.and_then(as_text),
                _ => kept.and_then(as_json),
            },
        }))
    }
}

/// What is kept: the answer as it stands in the envelope. `None` when it went while it was being read.
async fn read_whole(door: &Door, payment: &Payment) -> Result<Option<Vec<u8>>, Refusal> {
    let mut kept = Vec::new();
    let mut n = 0;
    while let Some(chunk) = door.store.result_read(payment, n).await? {
        kept.extend_from_slice(&chunk);
        if kept.len() > SHOWN_MAX {
            return Ok(None);
        }
        n += 1;
    }
    Ok(Some(kept))
}

/// The kept bytes are JSON in any encoding; what is not (it was cut) is not shown.
fn as_json(kept: Vec<u8>) -> Option<Box<RawValue>> {
    let text = String::from_utf8(kept).ok()?;
    RawValue::from_string(text.trim().into()).ok()
}

/// Events are kept as they came, and shown as one text.
fn as_text(kept: Vec<u8>) -> Option<Box<RawValue>> {
    RawValue::from_string(serde_json::to_string(&String::from_utf8(kept).ok()?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_it_is_kept() {
        let shown = |kept: &[u8]| as_json(kept.to_vec()).map(|value| value.get().to_string());
        assert_eq!(shown(b" {\"a\": 1.0}\n"), Some("{\"a\": 1.0}".into()));
        assert_eq!(shown("\"ä\\\"\"".as_bytes()), Some("\"ä\\\"\"".into()));
        assert_eq!(shown(b"null"), Some("null".into()));
        let events = as_text(b"data: 1\n\n".to_vec()).map(|value| value.get().to_string());
        assert_eq!(events, Some(r#""data: 1\n\n""#.into()));
        for broken in [&b"{"[..], b"", b"\xff", b"{} {}"] {
            assert_eq!(shown(broken), None);
        }
    }
}
