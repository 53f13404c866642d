//! What went otherwise than it should, told so that the reader knows what to do next.

use std::{error, fmt};

use serde_json::{Value, json};

use super::{http::Answer, table::plain};

/// The gateway said no.
#[derive(Debug)]
pub(super) struct Refused(pub(super) Answer);

impl Refused {
    /// The stable code; empty when whoever answered is no gateway.
    pub(super) fn code(&self) -> &str {
        self.0.json.pointer("/error/code").and_then(Value::as_str).unwrap_or_default()
    }

    fn next_action(&self) -> Option<&str> {
        self.0.json.pointer("/error/recovery/next_action")?.as_str()
    }

    /// When to come back, in seconds.
    pub(super) fn retry_after(&self) -> Option<u64> {
        self.0.json.pointer("/error/recovery/retry_after_seconds")?.as_u64()
    }
}

/// What a stable `next_action` means for somebody who types commands.
fn advice(next_action: &str) -> Option<&'static str> {
    Some(match next_action {
        "recover_account" => "run `crochet recover`: the wallet has a profile here already",
        "register" => "run `crochet register`: the wallet has no profile here yet",
        "use_valid_api_key" => "run `crochet recover` for a new key, or `crochet keys use FILE` with one that you have",
        "request_scope" => "use a key with that scope; `crochet keys create --scopes` makes one",
        "request_new_challenge" => "run the same command again: it asks for a new challenge",
        "wait_and_retry" => "wait, and run the same command again",
        "retry_same_request" => "run the same command again",
        "retry_same_payment" => "run the same command again: the payment is kept, and nothing is paid twice",
        "complete_payment_then_retry" => "run it again with --pay, or pay and run it again with --payment ID",
        "request_new_payment" => "run the call again for a new offer",
        "send_identical_body" => "send exactly the bytes that the payment was made for",
        "choose_another_listing" => "look for another one with `crochet listings search`, or agree to more",
        "retry_with_solana_payment_route" => "run it again with --currency SOL",
        "fix_request" => "change what the message names",
        "contact_support" => "ask the operator of this gateway",
        "contact_seller" => "ask the seller",
        _ => return None,
    })
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { status, reason, json, .. } = &self.0;
        let Some(message) = json.pointer("/error/message").and_then(Value::as_str) else {
            return write!(f, "the server answered {status} {}, and not as a gateway does", plain(reason));
        };
        write!(f, "{} ({status}): {}", plain(self.code()), plain(message))?;
        let fields = json.pointer("/error/details/fields").and_then(Value::as_object);
        for (name, reason) in fields.into_iter().flatten() {
            write!(f, "\n  {}: {}", plain(name), plain(reason.as_str().unwrap_or("is wrong")))?;
        }
        if let Some(state) = json.pointer("/error/details/payment_state").and_then(Value::as_str) {
            let called = match json.pointer("/error/details/seller_endpoint_called") {
                Some(Value::Bool(true)) => "called",
                Some(Value::Bool(false)) => "not called",
                _ => "called, as far as can be told",
            };
            write!(f, "\n  payment: {}; the seller was {called}", plain(state))?;
        }
        if let Some(summary) = json.pointer("/error/recovery/summary").and_then(Value::as_str) {
            write!(f, "\n  {}", plain(summary))?;
        }
        if let Some(next) = self.next_action() {
            write!(f, "\n  next: {}", plain(next))?;
            advice(next).map_or(Ok(()), |advice| write!(f, " — {advice}"))?;
        }
        if let Some(seconds) = self.retry_after() {
            write!(f, "\n  again in: {seconds} s")?;
        }
        if let Some(url) = json.pointer("/error/recovery/docs_url").and_then(Value::as_str) {
            write!(f, "\n  more: {}", plain(url))?;
        }
        let id = [self.0.field("x-crochet-request-id"), self.0.field("x-request-id")];
        id.iter().find(|id| !id.is_empty()).map_or(Ok(()), |id| write!(f, "\n  request: {}", plain(id)))
    }
}

impl error::Error for Refused {}

/// The same for programs: the gateway's own answer, or one of the same form for what never reached it.
pub(super) fn as_json(fault: &anyhow::Error) -> Value {
    match fault.downcast_ref::<Refused>() {
        Some(refused) if !refused.code().is_empty() => refused.0.json.clone(),
        _ => json!({"success": false, "error": {"code": "CLIENT_FAILED", "message": format!("{fault:#}")}}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use actors::refusal::Code;

    use super::*;

    fn refused(status: u16, json: Value) -> Refused {
        let fields = vec![("X-Request-Id".to_string(), "r1".to_string())];
        Refused(Answer { status, reason: "No".into(), fields, body: Vec::new(), json })
    }

    #[test]
    fn there_is_advice_for_every_next_action() {
        let without: BTreeSet<_> =
            Code::ALL.iter().map(|code| code.row().next_action).filter(|next| advice(next).is_none()).collect();
        assert!(without.is_empty(), "{without:?}");
    }

    #[test]
    fn a_refusal_is_told_whole_and_harmless() {
        let told = refused(
            422,
            json!({"error": {
                "code": "VALIDATION_FAILED", "message": "Some \u{1b}[31mfields",
                "details": {"fields": {"name": "is required"}, "seller_endpoint_called": false},
                "recovery": {"next_action": "fix_request", "retry_after_seconds": 3, "docs_url": "http://a/docs"},
            }}),
        );
        assert_eq!(
            told.to_string(),
            "VALIDATION_FAILED (422): Some \u{fffd}[31mfields\n  name: is required\n  next: fix_request — change what \
             the message names\n  again in: 3 s\n  more: http://a/docs\n  request: r1"
        );
        assert_eq!(as_json(&told.into())["error"]["code"], "VALIDATION_FAILED");
    }

    #[test]
    fn who_is_no_gateway_is_named_so() {
        let told = refused(502, Value::Null);
        assert_eq!(told.to_string(), "the server answered 502 No, and not as a gateway does");
        assert_eq!(as_json(&told.into())["error"]["code"], "CLIENT_FAILED");
    }
}
