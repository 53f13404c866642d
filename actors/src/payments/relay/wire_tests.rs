//! Every lie is refused for its own reason; what is true is taken.

use serde_json::{Value, json};
use storage::model::{Micros, OriginCurrency, UnixMillis};

use super::{
    route::{SETTLEMENT, Token},
    wire::{
        Arrived, Asked, Deposit, ErrorAnswer, Expected, NotOurs, QuoteAnswer, QuoteFault, RequestsAnswer, Status,
        StatusAnswer,
    },
};

const OURS: &str = "0xAbCdEf0000000000000000000000000000000001";
const OTHER: &str = "0x00000000000000000000000000000000000000bb";

fn asked() -> Asked {
    Asked {
        origin: Token::of(OriginCurrency::UsdcSol),
        destination: SETTLEMENT,
        recipient: OURS.into(),
        price: Micros(1_000),
        expires_at: UnixMillis(9_000),
    }
}

fn request_id() -> String {
    format!("0x{}", "aF".repeat(32))
}

fn quote() -> Value {
    let origin = Token::of(OriginCurrency::UsdcSol);
    json!({
        "steps": [{"id": "deposit", "requestId": request_id(), "depositAddress": "So1", "items": [{"data": {"a": 1}}]}],
        "details": {
            "recipient": OURS.to_ascii_lowercase(),
            "currencyIn": {"currency": {"chainId": origin.chain.id(), "address": origin.address}, "amount": "1010"},
            "currencyOut": {
                "currency": {"chainId": 8453, "address": SETTLEMENT.address.to_ascii_uppercase().replace("0X", "0x")},
                "amount": "1000", "minimumAmount": "1000",
            },
            "timeEstimate": 3,
        },
        "protocol": {"v2": {"orderId": "0xorder", "orderData": {"output": {
            "payments": [{"recipient": OURS, "currency": SETTLEMENT.address, "minimumAmount": "1000"}], "deadline": 9,
        }}}},
    })
}

fn with(mut answer: Value, pointer: &str, said: Value) -> Value {
    *answer.pointer_mut(pointer).expect(pointer) = said;
    answer
}

fn read_quote(answer: Value) -> Result<Deposit, NotOurs> {
    serde_json::from_value::<QuoteAnswer>(answer).expect("shaped as a quote").deposit(&asked())
}

#[test]
fn a_quote_that_pays_us_is_taken() {
    let deposit = read_quote(quote()).expect("ours");
    assert_eq!((deposit.request_id, deposit.order_id.as_str()), (request_id(), "0xorder"));
    assert_eq!((deposit.address.as_str(), deposit.amount.as_str(), deposit.seconds), ("So1", "1010", Some(3)));
    assert_eq!(deposit.transaction, Some(json!({"a": 1})));
}

#[test]
fn each_lie_in_a_quote_is_refused_for_its_own_reason() {
    let step = quote()["steps"][0].clone();
    let approve = with(json!([step.clone(), step.clone()]), "/1/id", json!("approve"));
    let order = "/protocol/v2/orderData/output";
    for (pointer, said, reason) in [
        ("/steps".to_string(), json!([]), "not exactly one deposit step"),
        ("/steps".into(), json!([step.clone(), step]), "not exactly one deposit step"),
        ("/steps".into(), approve, "a step beside the deposit"),
        ("/steps/0/requestId".into(), json!("0x1"), "no request id"),
        ("/steps/0/requestId".into(), json!(format!("0x{}", "g".repeat(64))), "no request id"),
        ("/steps/0/depositAddress".into(), json!(""), "no deposit address"),
        ("/details/recipient".into(), json!(OTHER), "another recipient"),
        ("/details/currencyOut/currency/chainId".into(), json!(10), "another destination currency"),
        ("/details/currencyOut/currency/address".into(), json!(OTHER), "another destination currency"),
        ("/details/currencyOut/minimumAmount".into(), json!("999"), "less than the price would arrive"),
        ("/details/currencyOut/minimumAmount".into(), json!("-1"), "no minimum amount"),
        ("/details/currencyOut/minimumAmount".into(), json!("1e9"), "no minimum amount"),
        ("/details/currencyOut/minimumAmount".into(), json!("99999999999999999999"), "no minimum amount"),
        ("/details/currencyIn/currency/chainId".into(), json!(1), "another origin currency"),
        // Solana's letters count.
        (
            "/details/currencyIn/currency/address".into(),
            json!("epjfWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"),
            "another origin currency",
        ),
        ("/details/currencyIn/amount".into(), json!("0"), "no amount to pay"),
        ("/protocol/v2".into(), Value::Null, "no order"),
        (format!("{order}/payments"), json!([]), "not one order payment"),
        (format!("{order}/payments/0/recipient"), json!(OTHER), "the order pays somebody else"),
        (format!("{order}/payments/0/currency"), json!(OTHER), "the order pays in another currency"),
        (format!("{order}/payments/0/minimumAmount"), json!("999"), "the order pays less than the price"),
        (format!("{order}/deadline"), json!(8), "the order ends before our quote"),
    ] {
        assert_eq!(read_quote(with(quote(), &pointer, said.clone())), Err(NotOurs(reason)), "{pointer} {said}");
    }
}

fn record() -> Value {
    json!({"requests": [{
        "id": request_id().to_ascii_lowercase(), "status": "success", "recipient": OURS.to_ascii_lowercase(),
        "depositAddress": {"address": "So1", "type": "strict"},
        "protocol": {"orderId": "0xorder"},
        "data": {
            "referrer": "token",
            "route": {"actual": {"destination": {"outputCurrency": {
                "currency": {"chainId": 8453, "address": SETTLEMENT.address}, "amount": "1000",
            }}}},
            "outTxs": [
                {"hash": "0xelsewhere", "chainId": 1, "status": "success"},
                {"hash": "0xfailed", "chainId": 8453, "status": "failure"},
                {"hash": "0xfill", "chainId": 8453, "status": "success"},
            ],
        },
    }]})
}

fn read_record(answer: Value) -> Result<Option<Arrived>, NotOurs> {
    let (asked, deposit) = (asked(), read_quote(quote()).expect("ours"));
    let expected = Expected { asked: &asked, deposit: &deposit, referrer: "token" };
    serde_json::from_value::<RequestsAnswer>(answer).expect("shaped as a record").arrived(&expected)
}

#[test]
fn a_record_of_our_payment_is_money_and_one_that_is_not_final_is_not() {
    let arrived = Arrived { amount: Micros(1_000), transaction: "0xfill".into() };
    assert_eq!(read_record(record()), Ok(Some(arrived.clone())));
    for status in ["waiting", "pending", "refund", "failure", "SUCCESS"] {
        assert_eq!(read_record(with(record(), "/requests/0/status", json!(status))), Ok(None), "{status}");
    }
    // How much is compared with the price elsewhere: too little is still the buyer's money.
    let output = "/requests/0/data/route/actual/destination/outputCurrency/amount";
    let less = read_record(with(record(), output, json!("1")));
    assert_eq!(less, Ok(Some(Arrived { amount: Micros(1), ..arrived })));
}

#[test]
fn each_lie_in_a_record_is_refused_for_its_own_reason() {
    let one = record()["requests"][0].clone();
    let output = "/data/route/actual/destination/outputCurrency";
    let lies = [
        ("/id", json!(format!("0x{}", "1".repeat(64))), "the record of another payment"),
        ("/depositAddress", Value::Null, "no deposit address in the record"),
        ("/depositAddress/type", json!("open"), "the deposit address is not strict"),
        ("/depositAddress/address", json!("so1"), "another deposit address"),
        ("/protocol", Value::Null, "no order in the record"),
        ("/protocol/orderId", json!("0xother"), "another order"),
        ("/data/referrer", json!("tokem"), "another referrer"),
        ("/data/referrer", Value::Null, "another referrer"),
        ("/recipient", json!(OTHER), "another recipient"),
        ("/data/route", Value::Null, "no actual route"),
        ("/data/route/actual/destination", Value::Null, "no actual output"),
        ("/data/outTxs", json!([]), "no transaction on our chain"),
    ];
    for (pointer, said, reason) in lies {
        let answer = with(record(), &format!("/requests/0{pointer}"), said.clone());
        assert_eq!(read_record(answer), Err(NotOurs(reason)), "{pointer} {said}");
    }
    for (pointer, said, reason) in [
        ("/currency/chainId", json!(1), "another currency arrived"),
        ("/currency/address", json!(OTHER), "another currency arrived"),
        ("/amount", json!("0"), "no amount arrived"),
        ("/amount", json!("1.5"), "no amount arrived"),
    ] {
        let answer = with(record(), &format!("/requests/0{output}{pointer}"), said.clone());
        assert_eq!(read_record(answer), Err(NotOurs(reason)), "{pointer} {said}");
    }
    for requests in [json!([]), json!([one.clone(), one])] {
        let answer = json!({"requests": requests});
        assert_eq!(read_record(answer), Err(NotOurs("not exactly one record")));
    }
}

#[test]
fn only_known_last_words_are_final() {
    for (word, meaning) in [
        ("waiting", Status::Pending),
        ("depositing", Status::Pending),
        ("pending", Status::Pending),
        ("submitted", Status::Pending),
        ("delayed", Status::Pending),
        ("", Status::Pending),
        ("Success", Status::Pending),
        ("success", Status::Success),
        ("refund", Status::Over),
        ("failure", Status::Over),
    ] {
        assert_eq!(StatusAnswer { status: word.into() }.meaning(), meaning, "{word}");
    }
}

#[test]
fn what_is_not_known_of_a_server_fault_is_not_a_no() {
    let meaning = |code: &str, status| ErrorAnswer { message: String::new(), error_code: code.into() }.meaning(status);
    assert_eq!(meaning("AMOUNT_TOO_LOW", 400), QuoteFault::BelowMinimum);
    assert_eq!(meaning("SANCTIONED_WALLET_ADDRESS", 403), QuoteFault::Sanctioned);
    assert_eq!(meaning("NO_QUOTES", 400), QuoteFault::Route);
    assert_eq!(meaning("PRICE_FETCH_FAILED", 400), QuoteFault::Busy);
    assert_eq!(meaning("A_NEW_ONE", 500), QuoteFault::Busy);
    assert_eq!(meaning("", 429), QuoteFault::Busy);
    assert_eq!(meaning("A_NEW_ONE", 400), QuoteFault::Route);
}
