//! What hostile sellers do, and how a paid call to each must end.

use std::{io::Write as _, pin::Pin, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use crate::support::tls::{Authority, self_signed};

pub const BODY: &str = r#"{"task":"run"}"#;

pub type Playing = Pin<Box<dyn Future<Output = ()> + Send>>;
pub type Play = Box<dyn Fn(TcpStream) -> Playing + Send + Sync>;

/// How a paid call must end.
#[derive(Clone, Debug)]
pub enum Ending {
    /// Refused: status, code, `seller_endpoint_called`, `seller_status_code`. The payment stays usable.
    Refused(u16, &'static str, Value, Value),
    /// One of two codes, where it is a race whether a byte was taken.
    Either(&'static str, &'static str),
    /// It had begun, and was cut. The payment stays usable.
    Cut,
    /// The seller earned its money.
    Handled(Value),
}

pub struct Case {
    pub name: &'static str,
    pub scheme: &'static str,
    /// `None`: nobody listens there.
    pub play: Option<Play>,
    pub limits: Value,
    pub ending: Ending,
}

pub fn plays<F, W>(play: F) -> Play
where
    F: Fn(TcpStream) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    Box::new(move |stream| Box::pin(play(stream)))
}

/// Reads the request, says this, and closes.
pub fn says(text: impl Into<Vec<u8>>) -> Play {
    let text = Arc::new(text.into());
    plays(move |mut stream| {
        let text = text.clone();
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(&text).await;
            let _ = stream.shutdown().await;
            let _ = stream.read(&mut [0; 64]).await;
        }
    })
}

/// Reads the request, says this, and then one byte after the other.
pub fn drips(text: &'static str, byte: &'static [u8]) -> Play {
    plays(move |mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(text.as_bytes()).await;
        while stream.write_all(byte).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    })
}

/// Says this, and then the same for ever, as fast as it is taken.
pub fn pours(text: &'static str, more: &'static str) -> Play {
    plays(move |mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(text.as_bytes()).await;
        let more = more.repeat(4096);
        while stream.write_all(more.as_bytes()).await.is_ok() {}
    })
}

pub fn over_tls(acceptor: TlsAcceptor, answers: bool) -> Play {
    plays(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            read_request(&mut stream).await;
            if answers {
                let _ = stream.write_all(JSON_OK.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    })
}

pub const JSON_OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

pub async fn read_request<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let mut seen = Vec::new();
    while !seen.ends_with(BODY.as_bytes()) {
        if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
            return;
        }
    }
}

pub fn json_answer(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into()
}

pub fn packed_answer(body: &[u8]) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: ";
    let mut text = format!("{head}{}\r\n\r\n", body.len()).into_bytes();
    text.extend_from_slice(body);
    text
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).expect("packed");
    encoder.finish().expect("packed")
}

/// Every way to be a bad seller, and a few odd but good ones beside.
pub fn cases(authority: &Authority) -> Vec<Case> {
    let broken = |status: Value| Ending::Refused(502, "SELLER_INVALID_RESPONSE", json!(true), status);
    let late = |status: Value| Ending::Refused(504, "SELLER_TIMEOUT", json!(true), status);
    let gone = || Ending::Refused(502, "SELLER_ERROR", Value::Null, Value::Null);
    let unreachable = || Ending::Refused(502, "SELLER_UNREACHABLE", json!(false), Value::Null);
    let none = || broken(Value::Null);
    let after_200 = || broken(json!(200));
    let mut cases = Vec::new();
    let mut case = |name, play, ending| {
        cases.push(Case { name, scheme: "http", play: Some(play), limits: json!({}), ending });
    };
    // Time.
    case(
        "never answers",
        plays(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.read(&mut [0; 64]).await;
        }),
        late(Value::Null),
    );
    case("drips its head", drips("HTTP/1.1 200 OK\r\nX-Slow: ", b"a"), late(Value::Null));
    case("drips its body", drips("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "), late(json!(200)));
    case(
        "drips chunks",
        drips("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        late(json!(200)),
    );
    case(
        "reads nothing and says nothing",
        plays(|stream| async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(stream);
        }),
        late(Value::Null),
    );
    // Size.
    case("has no end", pours("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\"", "xxxxxxxx"), Ending::Cut);
    case(
        "has no end, in chunks of nothing",
        pours(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "1;x=yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n \r\n",
        ),
        after_200(),
    );
    case(
        "says that it is larger than allowed",
        says("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n{}"),
        after_200(),
    );
    case(
        "has a header of 1 MiB",
        says(format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\n{{}}", "a".repeat(1 << 20))),
        none(),
    );
    case(
        "has 500 headers",
        says(format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\n{{}}", "X: a\r\n".repeat(500))),
        none(),
    );
    case("is a gzip bomb", says(packed_answer(&gzip(&vec![b' '; 32 << 20]))), after_200());
    // Framing.
    case("is shorter than it said", says("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}"), after_200());
    case("is cut in its chunks", says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\""), after_200());
    case(
        "has length and chunks",
        says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        none(),
    );
    case("has two lengths", says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "), none());
    case(
        "has a chunk that overflows",
        says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n"),
        after_200(),
    );
    case(
        "has a chunk size with a sign",
        says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n"),
        after_200(),
    );
    case("has folded headers", says("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}"), none());
    case("ends lines as it likes", says("HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"), none());
    case("speaks HTTP/0.9", says("<html>hello</html>"), none());
    case("speaks something else", says("SSH-2.0-OpenSSH_9.9\r\n"), none());
    case("has status 999", says("HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"), none());
    case("has status 199 for ever", says("HTTP/1.1 199 Odd\r\n\r\n".repeat(9)), none());
    case(
        "switches protocols unasked",
        says("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"),
        none(),
    );
    case("floods with 1xx", pours("", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), none());
    // Content.
    case("says two JSON values", says(json_answer("{} {}")), after_200());
    case("is 10 000 arrays deep", says(json_answer(&"[".repeat(10_000))), after_200());
    case("has half a surrogate pair", says(json_answer("\"\\ud800\"")), after_200());
    case("is not JSON though it says so", says(json_answer("<html>")), after_200());
    case("is broken gzip", says(packed_answer(&gzip(b"{}")[..12])), after_200());
    case("is gzip of something else", says(packed_answer(b"{\"a\":1}")), after_200());
    case(
        "redirects to the inside",
        says("HTTP/1.1 307 Go\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"),
        Ending::Refused(502, "SELLER_REDIRECTED", json!(true), json!(307)),
    );
    // Connections.
    case("closes when it has read", says(""), gone());
    case("breaks off in its head", says("HTTP/1.1 200 OK\r\nContent-Le"), gone());
    case(
        "resets before its head",
        plays(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.set_zero_linger();
        }),
        gone(),
    );
    case(
        "resets in its body",
        plays(|mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{").await;
            // The head must have been taken before it is swept away.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let _ = stream.set_zero_linger();
        }),
        after_200(),
    );
    case(
        "accepts and closes",
        plays(|stream| async move { drop(stream) }),
        Ending::Either("SELLER_ERROR", "SELLER_UNREACHABLE"),
    );
    // Odd, and good.
    case("goes on behind its end", says(format!("{JSON_OK}HTTP/1.1 200 OK\r\n")), Ending::Handled(json!({})));
    case("is compressed all the same", says(packed_answer(&gzip(b"{\"a\":1}"))), Ending::Handled(json!({"a": 1})));
    case(
        "hints eight times",
        says(format!("{}{JSON_OK}", "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(8))),
        Ending::Handled(json!({})),
    );
    let small = json!({ "max_response_bytes": 65_536 });
    let endless = pours("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n\"", "xxxxxxxx");
    cases.push(Case {
        name: "has no end, and little was allowed",
        scheme: "http",
        play: Some(endless),
        limits: small,
        ending: after_200(),
    });
    cases.push(Case { name: "is not there", scheme: "http", play: None, limits: json!({}), ending: unreachable() });
    let names = &["127.0.0.1"];
    let mut tls = |name, play, ending| {
        cases.push(Case { name, scheme: "https", play: Some(play), limits: json!({}), ending });
    };
    tls(
        "has the certificate of another name",
        over_tls(authority.acceptor(&["other.example.org"]), true),
        unreachable(),
    );
    tls("has an expired certificate", over_tls(authority.expired(names), true), unreachable());
    tls("has signed its certificate itself", over_tls(self_signed(names), true), unreachable());
    tls("has a certificate of nobody's", over_tls(Authority::new().acceptor(names), true), unreachable());
    tls(
        "speaks garbage for TLS",
        plays(|mut stream| async move {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read(&mut [0; 64]).await;
        }),
        unreachable(),
    );
    tls(
        "never ends its handshake",
        plays(|stream| async move {
            tokio::time::sleep(Duration::from_secs(20)).await;
            drop(stream);
        }),
        unreachable(),
    );
    tls("closes behind a good handshake", over_tls(authority.acceptor(names), false), gone());
    tls("is well over TLS", over_tls(authority.acceptor(names), true), Ending::Handled(json!({})));
    cases
}
