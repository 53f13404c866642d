//! Every row of the billable table, against a seller that really misbehaves.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "helpers of tests say what they expected")]

mod support;

use serde_json::{Value, json};
use support::{Agent, Gateway, Seller, agent::Answer};

const BODY: &str = r#"{"task":"run"}"#;

struct House {
    gateway: Gateway,
    seller: Seller,
    owner: Agent,
    buyer: Agent,
}

impl House {
    async fn build() -> Self {
        let (gateway, seller) = (Gateway::start(), Seller::start().await);
        let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
        Self { gateway, seller, owner, buyer }
    }

    /// One paid call to a listing of its own whose endpoint is `url`. Returns the answer and the payment's state after it.
    async fn paid_call(&self, url: &str) -> (Answer, String) {
        let (listing, _) = self.owner.list_with(&self.gateway, url, "1", json!({"timeout_ms": 700})).await;
        let id = self.buyer.buy(&self.gateway, &listing, BODY, &[]).await;
        let answer = self.buyer.redeem(&self.gateway, &listing, BODY, &id).await;
        let shown = self.buyer.get(&self.gateway, &format!("/api/v1/payments/{id}")).await;
        (answer, shown.json["data"]["state"].as_str().unwrap_or("").to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handled_answers_are_billable_whatever_they_say() {
    let house = House::build().await;
    for (path, status, response, encoding) in [
        ("/ok", 200, json!({"result": "ok"}), Value::Null),
        ("/status/201", 201, json!({"error": "as told"}), Value::Null),
        ("/status/400", 400, json!({"error": "as told"}), Value::Null),
        ("/status/402", 402, json!({"error": "as told"}), Value::Null),
        ("/status/404", 404, json!({"error": "as told"}), Value::Null),
        ("/status/409", 409, json!({"error": "as told"}), Value::Null),
        ("/status/422", 422, json!({"error": "as told"}), Value::Null),
        ("/empty", 204, Value::Null, Value::Null),
        ("/empty-200", 200, Value::Null, Value::Null),
        ("/text", 200, json!("grüße \"and\" \u{1}"), Value::Null),
        ("/binary", 200, json!("AJ+Slg=="), json!("base64")),
    ] {
        let (answer, state) = house.paid_call(&house.seller.url(path)).await;
        let data = &answer.expect(200).json["data"];
        assert_eq!(data["billable"], true, "{path}");
        assert_eq!(data["seller_status_code"], status, "{path}");
        assert_eq!(data["seller_response"], response, "{path}");
        assert_eq!(data["seller_response_encoding"], encoding, "{path}");
        assert_eq!(state, "completed", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_seller_are_not_billable() {
    let house = House::build().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("address");
    let unreachable = format!("http://{closed}/");
    let url = |path: &str| house.seller.url(path);
    for (url, status, code, called, seller_status) in [
        (url("/status/401"), 502, "SELLER_ERROR", json!(true), json!(401)),
        (url("/status/403"), 502, "SELLER_ERROR", json!(true), json!(403)),
        (url("/status/405"), 502, "SELLER_ERROR", json!(true), json!(405)),
        (url("/status/407"), 502, "SELLER_ERROR", json!(true), json!(407)),
        (url("/status/408"), 503, "SELLER_BUSY", json!(true), json!(408)),
        (url("/status/415"), 502, "SELLER_ERROR", json!(true), json!(415)),
        (url("/status/421"), 502, "SELLER_ERROR", json!(true), json!(421)),
        (url("/status/425"), 503, "SELLER_BUSY", json!(true), json!(425)),
        (url("/busy"), 503, "SELLER_BUSY", json!(true), json!(429)),
        (url("/redirect"), 502, "SELLER_REDIRECTED", json!(true), json!(302)),
        (url("/status/500"), 502, "SELLER_ERROR", json!(true), json!(500)),
        (url("/status/503"), 502, "SELLER_ERROR", json!(true), json!(503)),
        (unreachable, 502, "SELLER_UNREACHABLE", json!(false), Value::Null),
        (url("/break"), 502, "SELLER_ERROR", Value::Null, Value::Null),
        (url("/hang"), 504, "SELLER_TIMEOUT", json!(true), Value::Null),
        (url("/stall"), 504, "SELLER_TIMEOUT", json!(true), json!(200)),
        (url("/cut"), 502, "SELLER_INVALID_RESPONSE", json!(true), json!(200)),
        (url("/not-json"), 502, "SELLER_INVALID_RESPONSE", json!(true), json!(200)),
        (url("/two-values"), 502, "SELLER_INVALID_RESPONSE", json!(true), json!(200)),
        (url("/switching"), 502, "SELLER_INVALID_RESPONSE", json!(true), Value::Null),
        (url("/size/9000000"), 502, "SELLER_INVALID_RESPONSE", json!(true), json!(200)),
    ] {
        let (answer, state) = house.paid_call(&url).await;
        answer.refused(status, code);
        assert_eq!(answer.details()["seller_endpoint_called"], called, "{url}");
        assert_eq!(answer.details()["seller_status_code"], seller_status, "{url}");
        assert_eq!(answer.details()["payment_state"], "settled", "{url}");
        assert_eq!(state, "settled", "{url}");
        if url.ends_with("/busy") {
            assert_eq!(answer.header("retry-after"), "7");
        }
    }
    let rows = house.buyer.requests(&house.gateway).await;
    assert!(rows.iter().all(|row| row["status"] == "released" && row["billable"] == false));
    let paid = house.buyer.ledger(&house.gateway).await;
    assert!(paid.iter().all(|row| row["entry_type"] == "gateway_payment"));
    assert!(house.owner.ledger(&house.gateway).await.is_empty(), "nobody earned");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_the_money_is_the_buyers_again() {
    let gateway =
        Gateway::with(&[("CROCHET__PAYMENTS__ATTEMPTS_MAX", "3"), ("CROCHET__ACTORS__CIRCUIT_FAILURES_IN_ROW", "100")]);
    let seller = Seller::start().await;
    let (owner, buyer) = (Agent::register(&gateway).await, Agent::register(&gateway).await);
    let (listing, _) = owner.list(&gateway, &seller.url("/status/500"), "1").await;
    let id = buyer.buy(&gateway, &listing, BODY, &[]).await;
    for state in ["settled", "settled", "owed"] {
        let failed = buyer.redeem(&gateway, &listing, BODY, &id).await;
        failed.refused(502, "SELLER_ERROR");
        assert_eq!(failed.details()["payment_state"], state);
    }
    buyer.redeem(&gateway, &listing, BODY, &id).await.refused(409, "PAYMENT_CLOSED");
    let attempts: Vec<Value> = buyer.requests(&gateway).await.iter().map(|row| row["attempt"].clone()).collect();
    assert_eq!(attempts, [json!(3), json!(2), json!(1)]);
    let ids: Vec<String> = seller.received().iter().map(|got| got.headers["x-crochet-request-id"].clone()).collect();
    assert!(ids.iter().all(|got| *got == id.replace("pay_", "gw_req_")), "one id for every attempt");
    let tries: Vec<String> = seller.received().iter().map(|got| got.headers["x-crochet-attempt"].clone()).collect();
    assert_eq!(tries, ["1", "2", "3"]);
}
