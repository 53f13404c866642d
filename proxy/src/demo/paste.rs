//! Commands that a reader can paste into bash as they are: curl and sed, nothing else.

use std::net::SocketAddr;

/// A free call; then a paid one: ask, pay, ask again with the payment's id.
pub(super) fn commands(public: SocketAddr, key: &str, free: &str, paid: &str) -> String {
    format!(
        r#"
# A free call.
curl -sS 'http://{public}/api/v1/gateway/{free}' -w '\n' \
  -H 'Authorization: Bearer {key}' \
  -H 'Content-Type: application/json' -d '{{"input": "hello from the shell"}}'

# A paid call: ask, and keep the payment's id from the 402.
GATEWAY='http://{public}/api/v1'
LISTING='{paid}'
KEY='{key}'
BODY='{{"input": "one dollar, please"}}'
ANSWER=$(curl -sS "$GATEWAY/gateway/$LISTING" \
  -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d "$BODY")
PAYMENT=$(echo "$ANSWER" | sed -n 's/.*"relay_request_id":"\([^"]*\)".*/\1/p')
echo "$ANSWER"

# Pay on the sandbox.
curl -sS "$GATEWAY/sandbox/payments/$PAYMENT/pay" -w '\n' \
  -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' -d '{{}}'

# Ask again with the payment's id; the body must be the same.
curl -sS "$GATEWAY/gateway/$LISTING" -w '\n' \
  -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
  -H "X-Crochet-Relay-Request-Id: $PAYMENT" -d "$BODY"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_nothing_is_left_open() {
        let (key, id) = (format!("am_k_{}", "x".repeat(38)), "01890000-0000-7000-8000-000000000000");
        let text = commands(([127, 0, 0, 1], 65_535).into(), &key, id, id);
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        assert!(text.contains(&format!("KEY='{key}'")) && !text.contains("{{"));
    }
}
