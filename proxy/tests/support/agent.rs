//! A program with a wallet: registers, lists, pays, calls.

use k256::ecdsa::SigningKey;
use reqwest::{Client, Method, header::HeaderMap};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sha3::Keccak256;

use super::{Gateway, described};

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    pub json: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or("")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub fn payment_id(&self) -> String {
        let id = self.json["data"]["payment"]["relay_request_id"].as_str();
        id.unwrap_or_else(|| panic!("no payment id in {}: {}", self.status, self.json)).to_string()
    }

    /// Panics when it is not as the OpenAPI document says.
    #[track_caller]
    pub fn is_described(&self, method: &str, path: &str) {
        described::check(&described::Exchange {
            method,
            path,
            status: self.status,
            content_type: self.header("content-type"),
            headers: &|name| self.headers.contains_key(name),
            body: &self.json,
        });
    }

    pub fn details(&self) -> &Value {
        &self.json["error"]["details"]
    }

    #[track_caller]
    pub fn expect(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", self.json);
        self
    }

    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.json);
        self
    }
}

#[derive(Clone)]
pub struct Agent {
    pub key: String,
    pub profile: String,
    http: Client,
}

pub struct Wallet(SigningKey);

impl Wallet {
    pub fn new() -> Self {
        loop {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).expect("randomness");
            if let Ok(key) = SigningKey::from_slice(&bytes) {
                return Self(key);
            }
        }
    }

    pub fn address(&self) -> String {
        let point = self.0.verifying_key().to_sec1_point(false);
        let hash = Keccak256::digest(&point.as_bytes()[1..]);
        format!("0x{}", hex::encode(&hash[12..]))
    }

    pub fn sign(&self, message: &str) -> String {
        let prefixed = format!("\x19Ethereum Signed Message:\n{}{message}", message.len());
        let digest = Keccak256::digest(prefixed.as_bytes());
        let (signature, recovery) = self.0.sign_prehash_recoverable(&digest);
        format!("0x{}{:02x}", hex::encode(signature.to_bytes()), 27 + recovery.to_byte())
    }
}

/// The smallest number whose text solves a proof of work.
pub fn solve(challenge: &str, difficulty: u64) -> String {
    let zeros = "0".repeat(usize::try_from(difficulty).expect("small"));
    (0u64..)
        .map(|n| n.to_string())
        .find(|n| hex::encode(Sha256::digest(format!("{challenge}{n}"))).starts_with(&zeros))
        .expect("found")
}

pub async fn send(
    http: &Client,
    method: Method,
    url: String,
    key: &str,
    headers: &[(&str, &str)],
    body: Option<Vec<u8>>,
) -> Answer {
    let asked = (method.to_string(), url.splitn(4, '/').nth(3).map_or_else(String::new, |path| format!("/{path}")));
    let mut request = http.request(method, url);
    if !key.is_empty() {
        request = request.bearer_auth(key);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body);
    }
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.map(|bytes| bytes.to_vec()).unwrap_or_default();
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let answer = Answer { status, headers, bytes, json };
    // What broke off on the way is no answer; a whole one must be as the OpenAPI document says. The operations port is
    // described elsewhere.
    if answer.json != Value::Null && asked.1.starts_with("/api/") {
        answer.is_described(&asked.0, &asked.1);
    }
    answer
}

impl Agent {
    pub async fn register(gateway: &Gateway) -> Self {
        let (http, wallet) = (Client::new(), Wallet::new());
        let post = async |path: &str, body: Value| {
            send(&http, Method::POST, format!("{}{path}", gateway.url), "", &[], Some(body.to_string().into())).await
        };
        let challenge = post("/api/v1/auth/challenge", json!({"wallet_address": wallet.address()})).await;
        let data = &challenge.expect(200).json["data"];
        let pow = &data["pow"];
        let solution =
            solve(pow["challenge"].as_str().expect("challenge"), pow["difficulty"].as_u64().expect("difficulty"));
        let registered = post(
            "/api/v1/register",
            json!({
                "wallet_address": wallet.address(),
                "signature": wallet.sign(data["message"].as_str().expect("message")),
                "nonce": data["nonce"],
                "pow_nonce": solution,
            }),
        )
        .await;
        let data = &registered.expect(201).json["data"];
        let text = |value: &Value| value.as_str().expect("text").to_string();
        Self { key: text(&data["api_key"]), profile: text(&data["profile"]["id"]), http }
    }

    pub async fn get(&self, gateway: &Gateway, path: &str) -> Answer {
        send(&self.http, Method::GET, format!("{}{path}", gateway.url), &self.key, &[], None).await
    }

    pub async fn send(&self, gateway: &Gateway, method: Method, path: &str, body: Value) -> Answer {
        let body = Some(body.to_string().into_bytes());
        send(&self.http, method, format!("{}{path}", gateway.url), &self.key, &[], body).await
    }

    /// A listing at this private URL; the price is decimal text, "0" for a free one. Returns its id and secret.
    pub async fn list(&self, gateway: &Gateway, url: &str, price: &str) -> (String, String) {
        self.list_with(gateway, url, price, json!({})).await
    }

    pub async fn list_with(&self, gateway: &Gateway, url: &str, price: &str, more: Value) -> (String, String) {
        let challenge = self.send(gateway, Method::POST, "/api/v1/listings/challenge", json!({})).await;
        let data = &challenge.json["data"];
        let solution =
            solve(data["challenge"].as_str().expect("challenge"), data["difficulty"].as_u64().expect("difficulty"));
        let mut listing = json!({
            "pow_nonce": solution, "name": "A test listing", "description": "It answers as it is told.",
            "delivery_type": "api", "auth_method": "none", "formats": ["json"],
            "pricing_model": if price == "0" { "free" } else { "per_call" },
            "pricing_amount": price.parse::<serde_json::Number>().expect("number"), "pricing_currency": "USD",
            "private_endpoint_url": url, "status": "active",
        });
        listing.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        let created = self.send(gateway, Method::POST, "/api/v1/listings", listing).await;
        let data = &created.expect(201).json["data"];
        let secret = data["gateway_endpoint"]["signing_secret"].as_str().expect("secret");
        (data["id"].as_str().expect("id").to_string(), secret.to_string())
    }

    pub async fn call(&self, gateway: &Gateway, listing: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let url = format!("{}/api/v1/gateway/{listing}", gateway.url);
        send(&self.http, Method::POST, url, &self.key, headers, Some(body.as_bytes().to_vec())).await
    }

    /// The paid retry, whose answer the test reads by itself.
    pub async fn open(
        &self,
        gateway: &Gateway,
        listing: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> reqwest::Response {
        let url = format!("{}/api/v1/gateway/{listing}", gateway.url);
        let mut request = self.http.post(url).bearer_auth(&self.key).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.to_string()).send().await.expect("an answer")
    }

    /// The same profile with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: key.to_string(), ..self.clone() }
    }

    /// The paid retry.
    pub async fn redeem(&self, gateway: &Gateway, listing: &str, body: &str, payment: &str) -> Answer {
        self.call(gateway, listing, body, &[("X-Crochet-Relay-Request-Id", payment)]).await
    }

    pub async fn pay_with(&self, gateway: &Gateway, payment: &str, how: Value) -> Answer {
        self.send(gateway, Method::POST, &format!("/api/v1/sandbox/payments/{payment}/pay"), how).await
    }

    /// Asks, gets the 402, pays. Returns the payment's id.
    pub async fn buy(&self, gateway: &Gateway, listing: &str, body: &str, headers: &[(&str, &str)]) -> String {
        let quoted = self.call(gateway, listing, body, headers).await;
        quoted.refused(402, "PAYMENT_REQUIRED");
        let id = quoted.payment_id();
        self.pay_with(gateway, &id, json!({})).await.expect(200);
        id
    }

    /// All ledger rows.
    pub async fn ledger(&self, gateway: &Gateway) -> Vec<Value> {
        self.all(gateway, "/api/v1/ledger?limit=100").await
    }

    /// All gateway requests.
    pub async fn requests(&self, gateway: &Gateway) -> Vec<Value> {
        self.all(gateway, "/api/v1/gateway-requests?limit=100").await
    }

    async fn all(&self, gateway: &Gateway, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut next = String::new();
        for _ in 0..1_000 {
            let page = self.get(gateway, &format!("{path}{next}")).await;
            rows.extend(page.expect(200).json["data"].as_array().expect("array").clone());
            match page.json["pagination"]["next_cursor"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => return rows,
            }
        }
        panic!("no end of {path}");
    }
}
