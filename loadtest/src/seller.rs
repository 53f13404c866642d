//! A seller: a small HTTP/1.1 server that checks every signature and writes down every call.
//!
//! By seed, some calls fail on their first attempts, some are answered with a 4xx of their own, and some are slow: what
//! a gateway must bill, and what it must not. A call is written down when it has come whole, before any answer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{books::SellerBook, scenario::Moods, seed::Seed};

/// The largest head and the largest body that are read.
const HEAD_MAX: usize = 16 << 10;
const BODY_MAX: usize = 1 << 20;
/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A connection without a whole request is closed after this.
const IDLE: Duration = Duration::from_secs(120);

/// One call, as the seller means to answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handled {
    /// `X-Crochet-Attempt`.
    pub attempt: u32,
    /// The status it answered.
    pub status: u16,
    /// `X-Crochet-Charged-Micros`.
    pub charged_micros: i64,
}

/// A running seller.
#[derive(Clone)]
pub struct Seller {
    address: SocketAddr,
    inside: Arc<Inside>,
}

struct Inside {
    seed: u64,
    moods: Moods,
    secrets: Mutex<HashMap<String, Vec<u8>>>,
    book: Mutex<SellerBook>,
    complaints: Mutex<Vec<String>>,
}

struct Request {
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Seller {
    /// A seller on a free loopback port, whose mood at each call `seed` decides.
    ///
    /// # Errors
    /// When no port could be opened.
    pub async fn start(seed: u64, moods: Moods) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let inside = Arc::new(Inside {
            seed,
            moods,
            secrets: Mutex::default(),
            book: Mutex::default(),
            complaints: Mutex::default(),
        });
        let serving = inside.clone();
        tokio::spawn(async move {
            loop {
                // Out of descriptors, most likely: the next one may do better in a while.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let inside = serving.clone();
                tokio::spawn(async move {
                    // A broken connection is the gateway's to report.
                    let _ = serve(&inside, stream).await;
                });
            }
        });
        Ok(Self { address, inside })
    }

    /// Where it answers.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/work", self.address)
    }

    /// Calls for `listing` are signed with `secret` (`whsec_` and base64).
    ///
    /// # Errors
    /// When the secret has another form.
    pub fn expect_listing(&self, listing: &str, secret: &str) -> anyhow::Result<()> {
        let encoded = secret.strip_prefix("whsec_").context("a secret begins with whsec_")?;
        let secrets = &self.inside.secrets;
        let key = STANDARD.decode(encoded).context("a secret is base64")?;
        secrets.lock().unwrap_or_else(PoisonError::into_inner).insert(listing.to_owned(), key);
        Ok(())
    }

    /// Every call so far.
    #[must_use]
    pub fn book(&self) -> SellerBook {
        self.inside.book.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it was called for this gateway request so far.
    #[must_use]
    pub fn calls(&self, request: &str) -> usize {
        self.inside.book.lock().unwrap_or_else(PoisonError::into_inner).get(request).map_or(0, Vec::len)
    }

    /// What was wrong with calls so far; at most a hundred lines.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.inside.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(inside: &Inside, mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = tokio::time::timeout(IDLE, read(&mut stream, &mut buffer)).await?? {
        let (status, body) = match inside.checked(&request) {
            Ok((id, handled, delay)) => {
                inside.book.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default().push(handled);
                tokio::time::sleep(delay).await;
                (handled.status, format!(r#"{{"request":"{id}","attempt":{}}}"#, handled.attempt))
            }
            Err(error) => {
                let mut complaints = inside.complaints.lock().unwrap_or_else(PoisonError::into_inner);
                if complaints.len() < 100 {
                    complaints.push(format!("{error:#}"));
                }
                (401, r#"{"error":"signature"}"#.to_owned())
            }
        };
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

impl Inside {
    /// Checks signature and time, and decides how to answer and after how long.
    fn checked(&self, request: &Request) -> anyhow::Result<(String, Handled, Duration)> {
        let id = request.header("x-crochet-request-id")?;
        let listing = request.header("x-crochet-listing-id")?;
        let attempt = request.header("x-crochet-attempt")?.parse()?;
        let charged_micros = request.header("x-crochet-charged-micros")?.parse()?;
        let timestamp = request.header("x-crochet-timestamp")?;
        if unix_seconds().abs_diff(timestamp.parse()?) > 300 {
            bail!("{id}: its time is more than 300 s off");
        }
        let key = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).get(listing).cloned();
        let key = key.with_context(|| format!("{id}: the listing {listing} is not ours"))?;
        verify(request, &key, id, listing, timestamp).with_context(|| id.to_owned())?;
        let (status, delay) = self.mood(id, attempt);
        Ok((id.to_owned(), Handled { attempt, status, charged_micros }, delay))
    }

    fn mood(&self, id: &str, attempt: u32) -> (u16, Duration) {
        let mut seed = Seed::stream(self.seed, id, 0);
        let (moods, mood) = (&self.moods, u8::try_from(seed.below(100)).unwrap_or(0));
        let fails = moods.failing;
        let refuses = fails.saturating_add(moods.refusing);
        let slow = refuses.saturating_add(moods.slow);
        let stalls = slow.saturating_add(moods.stalled);
        let slowness = Duration::from_millis(moods.base_ms + seed.below(moods.slow_ms + 1));
        // Of those that fail, every fourth does so twice.
        if mood < fails {
            let failures = if mood % 4 == 3 { 2 } else { 1 };
            (if attempt <= failures { 500 + u16::from(mood % 4) } else { 200 }, Duration::ZERO)
        } else if mood < refuses {
            (422, Duration::ZERO)
        } else if mood < slow {
            (200, slowness)
        } else if mood < stalls && attempt <= 1 {
            (200, Duration::from_millis(u64::from(moods.timeout_ms) * 2))
        } else {
            (200, Duration::from_millis(moods.base_ms))
        }
    }
}

/// Both signatures of the current secret must be there and be right.
fn verify(request: &Request, key: &[u8], id: &str, listing: &str, timestamp: &str) -> anyhow::Result<()> {
    let given: Vec<&str> = request.header("x-crochet-signature")?.split(' ').collect();
    let hash = hex::encode(Sha256::digest(&request.body));
    let buyer = request.header("x-crochet-buyer-id")?;
    let (attempt, charged) = (request.header("x-crochet-attempt")?, request.header("x-crochet-charged-micros")?);
    let mut plain = format!("{id}.{timestamp}.").into_bytes();
    plain.extend_from_slice(&request.body);
    let context = format!("v2.{id}.{timestamp}.{listing}.{buyer}.{attempt}.{charged}.{hash}");
    for (version, message) in [("v1,", plain), ("v2,", context.into_bytes())] {
        let mac = Hmac::<Sha256>::new_from_slice(key)?.chain_update(&message);
        let right = given
            .iter()
            .filter_map(|one| one.strip_prefix(version))
            .any(|encoded| STANDARD.decode(encoded).is_ok_and(|bytes| mac.clone().verify_slice(&bytes).is_ok()));
        if !right {
            bail!("no {version} signature is right");
        }
    }
    Ok(())
}

impl Request {
    fn header(&self, name: &str) -> anyhow::Result<&str> {
        self.headers.get(name).map(String::as_str).with_context(|| format!("{name} is missing"))
    }
}

/// Reads one request; `None` when the connection ends between two.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<Option<Request>> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if buffer.len() > HEAD_MAX {
            bail!("a head of more than {HEAD_MAX} bytes");
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { bail!("cut off in the head") };
        }
    };
    let text = String::from_utf8(buffer.drain(..head).collect())?;
    let fields = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    let headers: HashMap<_, _> =
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let length: usize = headers.get("content-length").context("no Content-Length")?.parse()?;
    if length > BODY_MAX {
        bail!("a body of more than {BODY_MAX} bytes");
    }
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            bail!("cut off in the body");
        }
    }
    Ok(Some(Request { headers, body: buffer.drain(..length).collect() }))
}

#[expect(clippy::disallowed_methods, reason = "a black box has a clock of its own")]
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends one call as a gateway would, with `body` signed and `sent` sent.
    async fn call(seller: &Seller, key: &[u8], body: &str, sent: &str) -> u16 {
        let mac = |message: &str| {
            let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message);
            STANDARD.encode(mac.finalize().into_bytes())
        };
        let now = unix_seconds();
        let hash = hex::encode(Sha256::digest(body));
        let (v1, v2) = (mac(&format!("gw_req_1.{now}.{body}")), mac(&format!("v2.gw_req_1.{now}.l.b.9.100.{hash}")));
        let request = reqwest::Client::new().post(seller.url()).body(sent.to_owned());
        let request = request.header("X-Crochet-Request-Id", "gw_req_1").header("X-Crochet-Timestamp", now);
        let request = request.header("X-Crochet-Signature", format!("v1,{v1} v2,{v2}"));
        let request = request.header("X-Crochet-Listing-Id", "l").header("X-Crochet-Buyer-Id", "b");
        let request = request.header("X-Crochet-Attempt", "9").header("X-Crochet-Charged-Micros", "100");
        request.send().await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn a_signed_call_is_handled_and_any_other_is_complained_of() {
        let seller = Seller::start(1, Moods::default()).await.unwrap();
        seller.expect_listing("l", &format!("whsec_{}", STANDARD.encode([7; 32]))).unwrap();
        let handled = call(&seller, &[7; 32], "{}", "{}").await;
        assert!([200, 422].contains(&handled), "{handled}");
        assert_eq!(call(&seller, &[7; 32], "{}", "{ }").await, 401);
        assert_eq!(call(&seller, &[8; 32], "{}", "{}").await, 401);
        assert_eq!(seller.book()["gw_req_1"], [Handled { attempt: 9, status: handled, charged_micros: 100 }]);
        assert_eq!(seller.complaints().len(), 2);
    }
}
