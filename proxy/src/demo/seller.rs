//! A sample seller, as one might write it: an HTTP server that works for whoever the gateway vouches for, and for
//! nobody else.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::RwLock;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use storage::model::Clock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// How far the gateway's clock and the seller's may be apart, in seconds.
const CLOCKS_APART_MAX: u64 = 300;
const HEAD_MAX: usize = 16 << 10;
const BODY_MAX: usize = 2 << 20;
const FIELDS_MAX: usize = 64;

/// A seller that is serving.
pub(super) struct Seller {
    address: SocketAddr,
    shop: Arc<Shop>,
}

/// What all of its connections share.
struct Shop {
    clock: Clock,
    /// The signing secrets of each listing; there are two while one replaces the other.
    secrets: RwLock<HashMap<String, Vec<Vec<u8>>>>,
    served: AtomicU64,
}

struct Received {
    fields: HashMap<String, String>,
    body: Vec<u8>,
}

impl Seller {
    /// Starts serving on a free port, for as long as the runtime lives on which this is called.
    pub(super) async fn start(clock: Clock) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shop = Arc::new(Shop { clock, secrets: RwLock::default(), served: AtomicU64::new(0) });
        let seller = Self { address: listener.local_addr()?, shop: shop.clone() };
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(serve(shop.clone(), stream))),
                    // Out of descriptors, most likely: that passes.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Ok(seller)
    }

    /// Where it takes work.
    pub(super) fn url(&self) -> String {
        format!("http://{}/work", self.address)
    }

    /// From now on it works for calls of this listing that were signed with `secret`, besides those it trusts already.
    pub(super) fn trust(&self, listing: &str, secret: &str) -> Result<()> {
        let coded = secret.strip_prefix("whsec_").context("the signing secret does not begin with whsec_")?;
        let key = STANDARD.decode(coded).context("the signing secret is not base64")?;
        self.shop.secrets.write().entry(listing.to_string()).or_default().push(key);
        Ok(())
    }

    /// How many calls it worked for.
    pub(super) fn served(&self) -> u64 {
        self.shop.served.load(Ordering::Relaxed)
    }
}

impl Shop {
    fn answer(&self, received: &Received) -> (u16, Value) {
        if !self.is_genuine(received) {
            return (401, json!({"error": "The signature is missing, wrong or too old."}));
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        let asked: Value = serde_json::from_slice(&received.body).unwrap_or_default();
        match asked.get("input").and_then(Value::as_str) {
            Some(input) => {
                let words = input.split_whitespace().count();
                (200, json!({"result": {"words": words, "upper_case": input.to_uppercase()}}))
            }
            None => (400, json!({"error": "Send {\"input\": \"some text\"}."})),
        }
    }

    /// Whether the gateway sent this, just now, and every byte of it: the body (`v1`), and the context too (`v2`).
    fn is_genuine(&self, received: &Received) -> bool {
        let field = |name: &str| received.fields.get(name).map(String::as_str).unwrap_or_default();
        let (id, time) = (field("x-crochet-request-id"), field("x-crochet-timestamp"));
        let now = self.clock.now().seconds();
        if !time.parse::<u64>().is_ok_and(|time| time.abs_diff(now) <= CLOCKS_APART_MAX) {
            return false;
        }
        let listing = field("x-crochet-listing-id");
        let mut v1 = format!("{id}.{time}.").into_bytes();
        v1.extend_from_slice(&received.body);
        let v2 = format!(
            "v2.{id}.{time}.{listing}.{}.{}.{}.{}",
            field("x-crochet-buyer-id"),
            field("x-crochet-attempt"),
            field("x-crochet-charged-micros"),
            hex::encode(Sha256::digest(&received.body)),
        );
        let signatures = field("x-crochet-signature");
        let secrets = self.secrets.read();
        let mut keys = secrets.get(listing).into_iter().flatten();
        keys.any(|key| is_signed(signatures, "v1,", key, &v1) && is_signed(signatures, "v2,", key, v2.as_bytes()))
    }
}

/// Whether one of the signatures of this version is that of `key` over `covered`. The comparison takes as long for a
/// near miss as for a far one, so that nobody can feel their way to a good signature.
fn is_signed(signatures: &str, version: &str, key: &[u8], covered: &[u8]) -> bool {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
    let mac = mac.chain_update(covered);
    let mut given = signatures.split(' ').filter_map(|part| STANDARD.decode(part.strip_prefix(version)?).ok());
    given.any(|tag| mac.clone().verify_slice(&tag).is_ok())
}

/// Answers one request after the other on a connection, until the client ends it or sends what is no request.
async fn serve(shop: Arc<Shop>, mut stream: TcpStream) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let received = loop {
            if let Some((received, length)) = take_request(&buffer)? {
                buffer.drain(..length);
                break received;
            }
            if stream.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        let (status, body) = shop.answer(&received);
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            reason(status),
            body.len(),
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        401 => "Unauthorized",
        _ => "Bad Request",
    }
}

/// The request at the beginning of `buffer` and its length; `None` inside when it is not whole yet, outside when it is
/// none or too large.
fn take_request(buffer: &[u8]) -> Option<Option<(Received, usize)>> {
    let mut room = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut room);
    let httparse::Status::Complete(start) = head.parse(buffer).ok()? else {
        return (buffer.len() <= HEAD_MAX).then_some(None);
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let fields: HashMap<String, String> =
        head.headers.iter().map(|field| (field.name.to_ascii_lowercase(), text(field.value))).collect();
    let length: usize = fields.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
    if length > BODY_MAX {
        return None;
    }
    let end = start.checked_add(length)?;
    Some(buffer.get(start..end).map(|body| (Received { fields, body: body.to_vec() }, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_500_623;
    const BODY: &[u8] = b"{\"input\":\"one two\"}";
    const CONTEXT: [(&str, &str); 6] = [
        ("x-crochet-request-id", "gw_req_0190"),
        ("x-crochet-timestamp", "1795500623"),
        ("x-crochet-listing-id", "listing"),
        ("x-crochet-buyer-id", "buyer"),
        ("x-crochet-attempt", "1"),
        ("x-crochet-charged-micros", "1000000"),
    ];

    async fn shop(now: u64) -> Arc<Shop> {
        let millis = Arc::new(AtomicU64::new(now * 1000));
        let seller = Seller::start(Clock::scripted(millis)).await.expect("started");
        seller.trust("listing", &format!("whsec_{}", STANDARD.encode([7; 32]))).expect("a secret");
        seller.shop
    }

    fn tag(key: u8, covered: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(&[key; 32]).expect("key").chain_update(covered);
        STANDARD.encode(mac.finalize().into_bytes())
    }

    fn signed(key: u8) -> String {
        let v1 = [b"gw_req_0190.1795500623.", BODY].concat();
        let hash = hex::encode(Sha256::digest(BODY));
        let v2 = format!("v2.gw_req_0190.1795500623.listing.buyer.1.1000000.{hash}");
        format!("v1,{} v2,{}", tag(key, &v1), tag(key, v2.as_bytes()))
    }

    fn received(signature: &str) -> Received {
        let fields = CONTEXT.into_iter().chain([("x-crochet-signature", signature)]);
        Received { fields: fields.map(|(name, value)| (name.into(), value.into())).collect(), body: BODY.to_vec() }
    }

    #[tokio::test]
    async fn works_for_a_signed_call() {
        let shop = shop(NOW).await;
        let answer = shop.answer(&received(&signed(7)));
        assert_eq!(answer, (200, json!({"result": {"words": 2, "upper_case": "ONE TWO"}})));
        // While a secret is replaced, the call is signed with both, newest first.
        let both = format!("{} {}", signed(8), signed(7));
        assert_eq!(shop.answer(&received(&both)).0, 200);
        assert_eq!(shop.served.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn refuses_every_change_of_one_bit() {
        let shop = shop(NOW).await;
        for bit in 0..BODY.len() * 8 {
            let mut call = received(&signed(7));
            call.body[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(shop.answer(&call).0, 401, "bit {bit} of the body");
        }
        for (name, value) in CONTEXT {
            let mut call = received(&signed(7));
            let mut bytes = value.as_bytes().to_vec();
            *bytes.last_mut().expect("not empty") ^= 1;
            call.fields.insert(name.into(), String::from_utf8(bytes).expect("ASCII"));
            assert_eq!(shop.answer(&call).0, 401, "{name}");
        }
        assert_eq!(shop.served.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn refuses_half_a_signature_and_a_foreign_one() {
        let shop = shop(NOW).await;
        let good = signed(7);
        let (v1, v2) = good.split_once(' ').expect("two");
        let of_two_keys = format!("{v1} {}", signed(8).split_once(' ').expect("two").1);
        for signature in ["", v1, v2, "v1, v2,", "v1,x v2,y", &signed(8), &of_two_keys] {
            assert_eq!(shop.answer(&received(signature)).0, 401, "{signature}");
        }
    }

    #[tokio::test]
    async fn refuses_what_is_old_or_early() {
        for (now, status) in [(NOW + 300, 200), (NOW + 301, 401), (NOW - 300, 200), (NOW - 301, 401)] {
            assert_eq!(shop(now).await.answer(&received(&signed(7))).0, status, "{now}");
        }
    }

    #[test]
    fn requests_are_taken_one_by_one() {
        let two = b"POST /work HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\n\r\n";
        let (first, length) = take_request(two).expect("HTTP").expect("whole");
        assert_eq!((first.body.as_slice(), length), (b"{}".as_slice(), 44));
        assert!(take_request(&two[length..]).expect("HTTP").is_some());
        assert!(take_request(&two[..43]).expect("HTTP").is_none());
        assert!(take_request(b"POST / HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n").is_none());
    }
}
