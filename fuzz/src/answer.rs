//! The two sides of a seller's call: the signed head that it gets, and the head of its answer.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use proxy::upstream::fuzzing::{Seen, read_answer};
use sha2::{Digest as _, Sha256};
use storage::model::{
    Endpoint, EndpointLimits, EndpointStatus, GatewayRequestId, ListingId, Micros, PreviousSecret, ProfileId,
    SigningSecret, UnixMillis, UpstreamAuth,
};

use actors::seller::{CallContext, SellerFault, Signer};

type Read = Result<Option<(Seen, usize)>, SellerFault>;

fn read(bytes: &[u8]) -> Read {
    let mut buffer = BytesMut::from(bytes);
    let seen = read_answer(&mut buffer)?;
    Ok(seen.map(|seen| (seen, bytes.len() - buffer.len())))
}

/// An answer's head is read in one way only, and what is kept of it leaves no doubt where its body ends.
pub fn answer(data: &[u8]) {
    let whole = read(data);
    if let Ok(Some((seen, taken))) = &whole {
        let text = &data[..*taken];
        assert!(text.ends_with(b"\r\n\r\n"), "a head ends with a blank line");
        assert!(!(0..text.len()).any(|at| text[at] == b'\n' && (at == 0 || text[at - 1] != b'\r')));
        assert!((200..=599).contains(&seen.status));
        let heads = text.windows(4).filter(|window| *window == b"\r\n\r\n").count();
        assert!(heads <= 9, "at most eight interim answers");
        let is_framed = seen.is_chunked || seen.length.is_some();
        assert!(!seen.is_kept || is_framed, "kept, and nobody knows where its body ends");
        // Where two readers could differ, the connection is not used again.
        let lower = text.to_ascii_lowercase();
        let last = lower[..lower.len() - 4].windows(4).rposition(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
        let has = |name: &[u8]| lower[last..].windows(name.len()).any(|window| window == name);
        let announces_body =
            has(b"\r\ntransfer-encoding:") || (1..=9).any(|n| has(format!("\r\ncontent-length: {n}").as_bytes()));
        if has(b"\r\ntransfer-encoding:") && has(b"\r\ncontent-length:") {
            panic!("a body with two ends was taken");
        }
        if matches!(seen.status, 204 | 304) && announces_body {
            assert!(!seen.is_kept, "a body that is announced and cannot be");
        }
    }
    for length in (0..data.len()).step_by(data.len() / 64 + 1) {
        match (read(&data[..length]), &whole) {
            (Ok(None), _) | (Err(_), Err(_)) => {}
            (Ok(Some(front)), Ok(Some(whole))) => assert_eq!(&front, whole, "what came behind changed a head"),
            (front, whole) => panic!("a beginning is {front:?}, the whole {whole:?}"),
        }
    }
}

/// HMAC-SHA256 from its definition, with nothing of the library that signs.
fn hmac(key: &[u8; 32], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(place, byte)| *place ^= byte);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// Takes numbers off the front of hostile bytes.
fn number(data: &mut &[u8]) -> u64 {
    let Some((first, rest)) = data.split_first_chunk::<8>() else { return u64::try_from(data.len()).unwrap_or(0) };
    *data = rest;
    u64::from_le_bytes(*first)
}

/// Whatever the body, the numbers and the URL: the head has the lines that it must have and no other, and both
/// signatures are those of an independent reader with the same secret.
pub fn signature(data: &[u8]) {
    let mut rest = data;
    let numbers: [u64; 5] = std::array::from_fn(|_| number(&mut rest));
    let [time, attempt, charged, deadline, url_length] = numbers;
    let url_length = usize::try_from(url_length % 64).unwrap_or(0).min(rest.len());
    let (url, body) = rest.split_at(url_length);
    let url = format!("https://seller.example.org/{}", String::from_utf8_lossy(url));
    let url = super::text::read_url(&url, false).unwrap_or_else(|_| "https://s.example.org/".into());
    let now = UnixMillis(time % (1 << 45));
    let has_previous = attempt & 1 == 1;
    let previous = SigningSecret { key: [9; 32], created_at: now };
    let endpoint = Endpoint {
        listing: ListingId::mint(now),
        url,
        upstream_auth: Some(UpstreamAuth { header: "Authorization".into(), value: "Bearer a".into() }),
        timeout_ms: 1000,
        limits: EndpointLimits::default(),
        status: EndpointStatus::Active,
        secret: SigningSecret { key: [7; 32], created_at: now },
        previous_secret: has_previous.then(|| PreviousSecret { secret: previous, expires_at: UnixMillis(now.0 + 1) }),
        last_test: None,
        version: 0,
    };
    let body_sha256: [u8; 32] = Sha256::digest(body).into();
    let call = CallContext {
        request_id: GatewayRequestId::mint(now),
        buyer: ProfileId::mint(now),
        attempt: u32::try_from(attempt >> 32).unwrap_or(0),
        charged: Micros(i64::try_from(charged >> 1).unwrap_or(0)),
        body_sha256: &body_sha256,
        traceparent: None,
        accept: "application/json",
        deadline_ms: deadline,
        now,
        is_test: deadline & 1 == 1,
    };
    let signer = Signer::new(&endpoint).expect("a URL that was accepted is a target");
    let head = String::from_utf8(signer.head(&call, body)).expect("a head is text");
    let mut lines = head.strip_suffix("\r\n\r\n").expect("a blank line at the end").split("\r\n");
    let request_line = lines.next().expect("a request line");
    assert!(request_line.starts_with("POST /") && request_line.split(' ').count() == 3, "{request_line}");
    let fields: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").expect("name and value")).collect();
    assert_eq!(fields.len(), 18 + usize::from(call.is_test), "{head}");
    assert!(!head.contains(|c: char| c.is_control() && !matches!(c, '\r' | '\n')) && head.is_ascii());
    let field = |name: &str| {
        let mut found = fields.iter().filter(|(known, _)| *known == name);
        let value = found.next().unwrap_or_else(|| panic!("no {name}")).1;
        assert!(found.next().is_none(), "{name} is there twice");
        value
    };
    assert_eq!(field("Content-Length"), body.len().to_string());
    let (id, seconds) = (field("X-Crochet-Request-Id"), field("X-Crochet-Timestamp"));
    assert_eq!(seconds, (now.0 / 1000).to_string());
    let covered = format!(
        "v2.{id}.{seconds}.{}.{}.{}.{}.{}",
        field("X-Crochet-Listing-Id"),
        field("X-Crochet-Buyer-Id"),
        field("X-Crochet-Attempt"),
        field("X-Crochet-Charged-Micros"),
        hex::encode(Sha256::digest(body)),
    );
    let signed = [format!("{id}.{seconds}.").as_bytes(), body].concat();
    let (mut ours, mut standard) = (Vec::new(), Vec::new());
    for key in [[7; 32], [9; 32]].iter().take(1 + usize::from(has_previous)) {
        let v1 = format!("v1,{}", STANDARD.encode(hmac(key, &signed)));
        ours.extend([v1.clone(), format!("v2,{}", STANDARD.encode(hmac(key, covered.as_bytes())))]);
        standard.push(v1);
    }
    assert_eq!(field("X-Crochet-Signature"), ours.join(" "));
    assert_eq!(field("webhook-signature"), standard.join(" "));
    assert_eq!((field("webhook-id"), field("webhook-timestamp")), (id, seconds));
}
