//! Requests over HTTP/1.1, and what a refusal of one looks like.

use super::{address, raw::answer_to};
use crate::support::Gateway;

pub const LISTINGS: &str = "GET /api/v1/listings HTTP/1.1\r\nHost: localhost\r\n\r\n";
const CALL: &str = "/api/v1/gateway/nobody";

pub fn get(fields: &str) -> String {
    format!("GET /api/v1/listings HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

pub fn post(fields: &str, body: &str) -> String {
    format!("POST {CALL} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{fields}\r\n{body}")
}

/// The answer must refuse with this status and code, say that no seller was called, and end the connection.
pub async fn refused_and_closed(gateway: &Gateway, name: &str, request: String, status: u16, code: &str) {
    let answer = answer_to(address(gateway), request, true).await;
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{name}: {}", answer.head);
    assert_eq!(answer.json()["error"]["details"]["seller_endpoint_called"], false, "{name}");
    assert_eq!(answer.field("Server"), None, "{name}");
    assert!(answer.field("X-Request-Id").is_some(), "{name}");
}
