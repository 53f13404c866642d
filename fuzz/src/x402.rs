//! What buyers put into x402's headers: transfers that nobody signed, and the one that somebody did in other words.

use std::sync::OnceLock;

use actors::payments::x402::{
    authorization::{Domain, ExactEvm, Wanted, account},
    wire::{PaymentPayload, PaymentRequired, SettlementResponse, decode, encode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use storage::model::UnixMillis;

/// Within the time of the transfer below.
const NOW: UnixMillis = UnixMillis(1_795_500_100_000);

/// A transfer that was signed elsewhere, as its header holds it: the same in Python's and JavaScript's clients.
const SIGNED: &str = r#"{"x402Version":2,"accepted":{"scheme":"exact","network":"eip155:84532","amount":"10000",
"asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
"maxTimeoutSeconds":60,"extra":{"name":"USDC","version":"2"}},"payload":{
"signature":"0x655d813f188190b95b6668299f8f5e0e8bafdea01f372f9661eaa49fb9fe1c330c4e65e38ee39f9a357d9b282e88222ff9115793b4469af3989486cd4c17d27e1c",
"authorization":{"from":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8","to":"0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
"value":"10000","validAfter":"1795499963","validBefore":"1795500623",
"nonce":"0x4717fe6a73f215d2e015255464d43557fa705e0255650130f45753a7b6c8722a"}}}"#;

fn wanted() -> &'static Wanted {
    static WANTED: OnceLock<Wanted> = OnceLock::new();
    WANTED.get_or_init(|| Wanted {
        domain: Domain {
            name: "USDC".into(),
            version: "2".into(),
            chain_id: 84532,
            contract: account("0x036CbD53842c5426634e7929541eC2318f3dCF7e").expect("an address"),
        },
        payee: account("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC").expect("an address"),
        value: 10_000,
        margin_seconds: 6,
    })
}

/// A header is read or refused; what was read can be written and read again; and no transfer is good but the one that was
/// signed.
pub fn x402(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    header::<PaymentPayload>(&text);
    header::<PaymentRequired>(&text);
    header::<SettlementResponse>(&text);
    // The bytes as what stands in a header, so that what is made up comes further than to base64.
    let packed = STANDARD.encode(data);
    if let Some(payload) = header::<PaymentPayload>(&packed) {
        transfer(&payload);
    }
    if let Some(payload) = header::<PaymentPayload>(&STANDARD.encode(laid_over(data))) {
        transfer(&payload);
    }
}

fn header<T: DeserializeOwned + Serialize>(text: &str) -> Option<T> {
    let read: T = decode(text).ok()?;
    let again = encode(&read);
    // A number may be written longer than it came.
    assert!(again.len() > text.len() || decode::<T>(&again).is_ok(), "what was written is not read");
    Some(read)
}

/// The signed transfer with the bytes laid over it from some place on: the first two say where.
fn laid_over(data: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNED.as_bytes().to_vec();
    let place = data.iter().take(2).fold(0, |place, byte| place << 8 | usize::from(*byte)) % bytes.len();
    bytes.iter_mut().skip(place).zip(data.iter().skip(2)).for_each(|(old, new)| *old = *new);
    bytes
}

fn transfer(payload: &PaymentPayload) {
    let Ok(exact) = ExactEvm::deserialize(&payload.payload) else { return };
    let name = exact.name();
    if let Ok(name) = &name {
        assert_eq!(name.len(), 2 + 40 + 1 + 2 + 64, "a name has one form: {name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_digit() || b"abcdefx:".contains(&byte)), "{name}");
    }
    let Ok(good) = exact.check(wanted(), NOW) else { return };
    // Whoever makes up the bytes has no key: it is the one transfer, perhaps written in other letters.
    let signed: PaymentPayload = serde_json::from_str(SIGNED).expect("a payload");
    let signed = ExactEvm::deserialize(&signed.payload).expect("a transfer");
    assert_eq!((good.value, good.valid_before), (10_000, 1_795_500_623));
    assert_eq!(name, signed.name(), "and it has one name, so it pays once");
    let [ours, theirs] = [&signed, &exact].map(|exact| exact.signature.to_ascii_lowercase());
    assert_eq!(ours[..130], theirs[..130], "another signature was taken");
}
