//! The seller client against sellers that do not behave, over real sockets.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what is not as it should be ends it"
)]

#[path = "support/tls.rs"]
mod tls;

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use actors::seller::{SellerAnswer, SellerClient as _, SellerFault, SellerRequest, Target};
use async_trait::async_trait;
use bytes::Bytes;
use config::Config;
use proxy::upstream::{Resolved, Resolver, Sellers};
use storage::model::{ListingId, UnixMillis};
use tls::Authority;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

const TIMEOUT: Duration = Duration::from_millis(400);

/// A seller that reads a request and then does as told, for each connection by its number.
struct Seller {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Seller {
    async fn new<F, W>(play: F) -> Self
    where
        F: Fn(TcpStream, usize, Arc<AtomicUsize>) -> W + Send + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, seen) = (connections.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(play(stream, number, seen.clone()));
            }
        });
        Self { address, connections, requests }
    }

    /// Answers every request of every connection with the same bytes, then closes if told.
    async fn saying(text: impl Into<Vec<u8>>, closes: bool) -> Self {
        let text = Arc::new(text.into());
        Self::new(move |mut stream, _, requests| {
            let text = text.clone();
            async move {
                while read_request(&mut stream).await {
                    requests.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(&text).await;
                    if closes {
                        return;
                    }
                }
            }
        })
        .await
    }

    fn request(&self, body: &[u8]) -> SellerRequest {
        self.request_of(ListingId::mint(UnixMillis(1)), body)
    }

    fn request_of(&self, listing: ListingId, body: &[u8]) -> SellerRequest {
        let target = Target::parse(listing, &format!("http://{}/work", self.address)).expect("a target");
        let head = format!("POST /work HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", self.address, body.len());
        let body = Bytes::copy_from_slice(body);
        SellerRequest { target: Arc::new(target), head: head.into_bytes(), body, timeout: TIMEOUT }
    }
}

/// Reads a request with a length; `false` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut seen = Vec::new();
    loop {
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).to_string();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .map_or(0, |n| n.parse().expect("n"));
            if seen.len() >= end + 4 + length {
                return true;
            }
        }
        if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
            return false;
        }
    }
}

fn sellers() -> Sellers {
    Sellers::new(&Config::from_parts(None, []).expect("defaults"), "").expect("a client")
}

async fn whole(mut answer: SellerAnswer) -> Result<Vec<u8>, SellerFault> {
    let mut body = Vec::new();
    while let Some(piece) = answer.body.chunk().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The status and the body of the answer, or how the call failed.
async fn call(seller: &Seller) -> Result<(u16, Vec<u8>), SellerFault> {
    let answer = sellers().send(seller.request(b"{}")).await?;
    let status = answer.status;
    whole(answer).await.map(|body| (status, body))
}

async fn said(text: &str) -> Result<(u16, Vec<u8>), SellerFault> {
    call(&Seller::saying(text, true).await).await
}

const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

#[tokio::test]
async fn an_answer_is_delimited_by_length_by_chunks_or_by_the_end() {
    assert_eq!(said(LONG).await, Ok((200, b"{}".to_vec())));
    let chunks = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n";
    assert_eq!(said(chunks).await, Ok((201, b"{}".to_vec())));
    assert_eq!(said("HTTP/1.1 200 OK\r\n\r\n{}").await, Ok((200, b"{}".to_vec())));
    assert_eq!(said("HTTP/1.0 200 OK\r\n\r\n{}").await, Ok((200, b"{}".to_vec())));
    assert_eq!(said("HTTP/1.1 204 No Content\r\n\r\n").await, Ok((204, vec![])));
    assert_eq!(said("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n").await, Ok((302, vec![])));
    assert_eq!(
        said("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}").await,
        Ok((200, b"{}".to_vec()))
    );
}

#[tokio::test]
async fn what_the_head_says_is_told() {
    let text = "HTTP/1.1 503 Busy\r\nContent-Type: text/plain\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno";
    let seller = Seller::saying(text, true).await;
    let answer = sellers().send(seller.request(b"{}")).await.expect("an answer");
    assert_eq!((answer.status, answer.content_type.as_str()), (503, "text/plain"));
    assert_eq!((answer.retry_after, answer.length), (Some(Duration::from_secs(7)), Some(2)));
    let text = "HTTP/1.1 503 Busy\r\nRetry-After: Tue, 24 Nov 2026 06:10:23 GMT\r\nContent-Length: 0\r\n\r\n";
    let seller = Seller::saying(text, true).await;
    assert_eq!(sellers().send(seller.request(b"{}")).await.expect("an answer").retry_after, None);
}

#[tokio::test]
async fn what_is_not_http_is_broken() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Type : a\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\x15\x03\x01\x00\x02\x02\x46",
    ] {
        assert_eq!(said(text).await, Err(SellerFault::Broken), "{text:?}");
    }
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    assert_eq!(said(&huge).await, Err(SellerFault::Broken));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(500));
    assert_eq!(said(&many).await, Err(SellerFault::Broken));
}

#[tokio::test]
async fn b2_interim_answers_are_skipped_but_not_for_ever() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    assert_eq!(said(&format!("{}{LONG}", interim.repeat(8))).await, Ok((200, b"{}".to_vec())));
    assert_eq!(said(&format!("{}{LONG}", interim.repeat(9))).await, Err(SellerFault::Broken));
}

#[tokio::test]
async fn d9_a_body_that_ends_early_is_broken() {
    assert_eq!(said("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}").await, Err(SellerFault::Broken));
    for chunks in
        ["5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "5\r\nhelloo\r\n0\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n"]
    {
        let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(said(&text).await, Err(SellerFault::Broken), "{chunks:?}");
    }
}

#[tokio::test]
async fn who_breaks_off_before_an_answer_may_have_done_the_work() {
    assert_eq!(said("").await, Err(SellerFault::BrokenOff));
    assert_eq!(said("HTTP/1.1 200 OK\r\nContent-Le").await, Err(SellerFault::BrokenOff));
}

#[tokio::test]
async fn a_reset_in_the_body_is_broken() {
    let seller = Seller::new(|mut stream, _, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
        let _ = stream.set_zero_linger();
    })
    .await;
    assert_eq!(call(&seller).await, Err(SellerFault::Broken));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let gone = Seller { address, connections: Arc::default(), requests: Arc::default() };
    assert_eq!(call(&gone).await, Err(SellerFault::Unreachable));
}

#[tokio::test]
async fn silence_and_drips_end_in_time() {
    let silent = Seller::new(|mut stream, _, _| async move {
        read_request(&mut stream).await;
        let _ = stream.read_u8().await;
    })
    .await;
    let began = Instant::now();
    assert_eq!(call(&silent).await, Err(SellerFault::TimedOut { answered: false }));
    assert!(began.elapsed() < TIMEOUT + Duration::from_millis(250));
    let dripping = Seller::new(|mut stream, _, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let began = Instant::now();
    assert_eq!(call(&dripping).await, Err(SellerFault::TimedOut { answered: true }));
    assert!(began.elapsed() < TIMEOUT + Duration::from_millis(250));
    let slow_head = Seller::new(|mut stream, _, _| async move {
        read_request(&mut stream).await;
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: ".iter().chain(&[b'a'; 1000]) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(call(&slow_head).await, Err(SellerFault::TimedOut { answered: false }));
}

#[tokio::test]
async fn a_connection_is_used_again_by_the_same_listing_only() {
    let seller = Seller::saying(LONG, false).await;
    let client = sellers();
    let listing = ListingId::mint(UnixMillis(1));
    for _ in 0..5 {
        let answer = client.send(seller.request_of(listing, b"{}")).await.expect("an answer");
        assert_eq!(whole(answer).await, Ok(b"{}".to_vec()));
    }
    assert_eq!(seller.connections.load(Ordering::SeqCst), 1);
    let answer = client.send(seller.request_of(ListingId::mint(UnixMillis(2)), b"{}")).await.expect("an answer");
    whole(answer).await.expect("a body");
    assert_eq!(seller.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn c5_a_connection_with_surplus_or_without_a_proper_end_is_not_used_again() {
    for text in [
        format!("{LONG}surplus"),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".into(),
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}".into(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n".into(),
    ] {
        let seller = Seller::saying(text.clone(), false).await;
        let (client, listing) = (sellers(), ListingId::mint(UnixMillis(1)));
        for _ in 0..2 {
            let answer = client.send(seller.request_of(listing, b"{}")).await.expect("an answer");
            assert_eq!(whole(answer).await, Ok(b"{}".to_vec()), "{text}");
        }
        assert_eq!(seller.connections.load(Ordering::SeqCst), 2, "{text}");
    }
    // An answer that was not read to its end gives its connection up.
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n{}", "x".repeat(300_000));
    let seller = Seller::saying(long, false).await;
    let (client, listing) = (sellers(), ListingId::mint(UnixMillis(1)));
    for _ in 0..2 {
        drop(client.send(seller.request_of(listing, b"{}")).await.expect("an answer"));
    }
    assert_eq!(seller.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn c6_a_request_is_never_sent_twice() {
    // The first request of a connection is answered, the second read and then cut off.
    let seller = Seller::new(|mut stream, _, requests| async move {
        for turn in 0..2 {
            if !read_request(&mut stream).await {
                return;
            }
            requests.fetch_add(1, Ordering::SeqCst);
            if turn == 0 {
                let _ = stream.write_all(LONG.as_bytes()).await;
            }
        }
    })
    .await;
    let (client, listing) = (sellers(), ListingId::mint(UnixMillis(1)));
    whole(client.send(seller.request_of(listing, b"{}")).await.expect("an answer")).await.expect("a body");
    let second = client.send(seller.request_of(listing, b"{}")).await.err();
    assert_eq!(second, Some(SellerFault::BrokenOff));
    assert_eq!(seller.requests.load(Ordering::SeqCst), 2);
    assert_eq!(seller.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_is_replaced() {
    let seller = Seller::saying(LONG, true).await;
    let (client, listing) = (sellers(), ListingId::mint(UnixMillis(1)));
    for _ in 0..3 {
        let answer = client.send(seller.request_of(listing, b"{}")).await.expect("an answer");
        assert_eq!(whole(answer).await, Ok(b"{}".to_vec()));
        // The end of the connection arrives behind the answer.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(seller.requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let large: Vec<u8> = (0..16u32 << 20).map(|n| (n % 251) as u8).collect();
    let wanted = large.clone();
    let seller = Seller::new(move |mut stream, _, _| {
        let wanted = wanted.clone();
        async move {
            let mut seen = Vec::new();
            let mut head = 0;
            // Slowly at first, so that the request is taken in many pieces.
            while head == 0 || seen.len() < head + wanted.len() {
                tokio::time::sleep(Duration::from_millis(if seen.len() < 1 << 20 { 2 } else { 0 })).await;
                let mut some = [0; 65_536];
                let Ok(read @ 1..) = stream.read(&mut some).await else { return };
                seen.extend_from_slice(&some[..read]);
                head = seen.windows(4).take(4096).position(|four| four == b"\r\n\r\n").map_or(0, |end| end + 4);
            }
            if seen[head..] == wanted {
                let _ = stream.write_all(LONG.as_bytes()).await;
            }
        }
    })
    .await;
    let mut request = seller.request(&large);
    request.timeout = Duration::from_secs(10);
    let answer = sellers().send(request).await.expect("an answer");
    assert_eq!(whole(answer).await, Ok(b"{}".to_vec()));
}

#[tokio::test]
async fn a_seller_that_answers_before_it_has_read_the_body_is_heard() {
    let seller = Seller::new(|mut stream, _, requests| async move {
        let mut some = [0; 1024];
        while stream.read(&mut some).await.is_ok_and(|read| read > 0) {
            if requests.fetch_add(1, Ordering::SeqCst) == 0 {
                let _ = stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").await;
                // It reads no more, and does not close either.
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
    let (client, listing) = (sellers(), ListingId::mint(UnixMillis(1)));
    for turn in 1..=2 {
        let answer = client.send(seller.request_of(listing, &vec![b'x'; 8 << 20])).await.expect("an answer");
        assert_eq!(answer.status, 413);
        assert_eq!(whole(answer).await, Ok(b"no".to_vec()));
        assert_eq!(seller.connections.load(Ordering::SeqCst), turn, "what was not sent whole cannot be used again");
        seller.requests.store(0, Ordering::SeqCst);
    }
}

/// An answer with this coding, its body in chunks of so many bytes.
fn packed(coding: &str, body: &[u8], chunk: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut text = head.into_bytes();
    for piece in body.chunks(chunk) {
        text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        text.extend_from_slice(piece);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    text
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).expect("packed");
    encoder.finish().expect("packed")
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).expect("packed");
    encoder.finish().expect("packed")
}

const PLAIN: &[u8] = b"{\"packed\":\"yes\"}";
/// `PLAIN`, and 64 MiB of zeros.
const BROTLI: &str = "8b07807b227061636b6564223a22796573227d03";
const BROTLI_BOMB: &str = "cbffff3ff82700e2b14020f7fe8fffff7ff04f00c4611180eefd1fffffffe09f0088c30200ddfb3ffeffffc13f0110870500\
                           baf77ffcffff837f02200e0b0074effff8ffff07ff04401c1600e8defff1ffff0ffe0980382c00d0bdffcbffff3ffc130071\
                           5800a07bff07";

fn small_packings() -> [(&'static str, Vec<u8>); 5] {
    let brotli = hex::decode(BROTLI).expect("hex");
    let zstd = zstd::encode_all(PLAIN, 3).expect("packed");
    [("gzip", gzip(PLAIN)), ("X-GZip", gzip(PLAIN)), ("deflate", zlib(PLAIN)), ("br", brotli), ("zstd", zstd)]
}

#[tokio::test]
async fn d5_an_answer_that_is_compressed_all_the_same_is_unpacked_as_it_comes() {
    for (coding, body) in small_packings() {
        for chunk in [1, 7, 100_000] {
            let seller = Seller::saying(packed(coding, &body, chunk), false).await;
            let (client, listing) = (sellers(), ListingId::mint(UnixMillis(1)));
            for _ in 0..2 {
                let answer = client.send(seller.request_of(listing, b"{}")).await.expect("an answer");
                assert_eq!(answer.length, None, "of the plain bytes nobody knows");
                assert_eq!(whole(answer).await.as_deref(), Ok(PLAIN), "{coding} by {chunk}");
            }
            assert_eq!(seller.connections.load(Ordering::SeqCst), 1, "{coding}: used again");
        }
    }
    // Large and hardly compressible, and two members in a row.
    let large: Vec<u8> = (0..3u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let zstd = zstd::encode_all(large.as_slice(), 1).expect("packed");
    for (coding, body) in [("gzip", gzip(&large)), ("deflate", zlib(&large)), ("zstd", zstd)] {
        let mut request = Seller::saying(packed(coding, &body, 60_000), true).await.request(b"{}");
        request.timeout = Duration::from_secs(20);
        let answer = sellers().send(request).await.expect("an answer");
        assert!(whole(answer).await.as_ref() == Ok(&large), "{coding}");
    }
    let two = [gzip(b"{\"a\":"), gzip(b"1}")].concat();
    let seller = Seller::saying(packed("gzip", &two, 9), true).await;
    assert_eq!(call(&seller).await, Ok((200, b"{\"a\":1}".to_vec())));
}

#[tokio::test]
async fn d5_what_cannot_be_unpacked_is_broken() {
    let answer = |coding: &str, body: &[u8]| Seller::saying(packed(coding, body, 100_000), true);
    for (coding, body) in small_packings() {
        let cut = &body[..body.len() - 2];
        assert_eq!(call(&answer(coding, cut).await).await, Err(SellerFault::Broken), "{coding}, cut");
        let mut more = body.clone();
        more.extend_from_slice(b"{\"more\":1}");
        assert_eq!(call(&answer(coding, &more).await).await, Err(SellerFault::Broken), "{coding}, and more");
        assert_eq!(call(&answer(coding, PLAIN).await).await, Err(SellerFault::Broken), "{coding}, not");
    }
    for coding in ["compress", "gzip, br", "gzip, gzip", "x", "identity, gzip", "\u{1F}"] {
        let refused = call(&answer(coding, &gzip(PLAIN)).await).await;
        assert_eq!(refused, Err(SellerFault::Broken), "{coding}");
    }
    assert_eq!(call(&answer("identity", PLAIN).await).await, Ok((200, PLAIN.to_vec())));
    assert_eq!(call(&answer("gzip", b"").await).await, Ok((200, vec![])), "nothing is not compressed");
    let twice = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(said(twice).await, Err(SellerFault::Broken));
    // Its status tells all the same: a failure of the seller's needs no body.
    let seller =
        Seller::saying("HTTP/1.1 500 Oh\r\nContent-Encoding: rot13\r\nContent-Length: 2\r\n\r\n{}", true).await;
    assert_eq!(sellers().send(seller.request(b"{}")).await.expect("an answer").status, 500);
}

#[tokio::test]
async fn d5_a_bomb_is_cut_long_before_it_is_whole() {
    let zeros = vec![0; 32 << 20];
    let zstd = zstd::encode_all(zeros.as_slice(), 3).expect("packed");
    let brotli = hex::decode(BROTLI_BOMB).expect("hex");
    for (coding, body) in [("gzip", gzip(&zeros)), ("deflate", zlib(&zeros)), ("br", brotli), ("zstd", zstd)] {
        let received = body.len();
        let seller = Seller::saying(packed(coding, &body, 100_000), true).await;
        let mut request = seller.request(b"{}");
        request.timeout = Duration::from_secs(20);
        let mut answer = sellers().send(request).await.expect("an answer");
        let mut unpacked = 0;
        let fault = loop {
            match answer.body.chunk().await {
                Ok(Some(piece)) => unpacked += piece.len(),
                Ok(None) => panic!("{coding}: all {unpacked} bytes were passed on"),
                Err(fault) => break fault,
            }
        };
        assert_eq!(fault, SellerFault::Broken, "{coding}");
        assert!(unpacked <= (64 << 10) + 100 * received, "{coding}: {unpacked} of {received}");
        eprintln!("{coding}: {received} bytes, {unpacked} passed on, then cut");
    }
}

#[tokio::test]
async fn d5_no_more_answers_are_unpacked_at_a_time_than_configured() {
    let client = client_with("seller_unpackers_max = 1");
    let seller = Seller::saying(packed("gzip", &gzip(PLAIN), 100), true).await;
    let first = client.send(seller.request(b"{}")).await.expect("an answer");
    let second = client.send(seller.request(b"{}")).await.expect("an answer");
    assert_eq!(whole(second).await, Err(SellerFault::Broken));
    assert_eq!(whole(first).await.as_deref(), Ok(PLAIN));
    let third = client.send(seller.request(b"{}")).await.expect("an answer");
    assert_eq!(whole(third).await.as_deref(), Ok(PLAIN), "the place is free again");
}

fn client_with(knobs: &str) -> Sellers {
    let config = Config::from_parts(Some(&format!("[proxy]\n{knobs}\n")), []).expect("a good configuration");
    Sellers::new(&config, "").expect("a client")
}

#[tokio::test]
async fn d7_a_body_that_stands_still_ends_before_the_whole_time_is_over() {
    let seller = Seller::new(|mut stream, _, _| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{").await;
        let _ = stream.read_u8().await;
    })
    .await;
    let mut request = seller.request(b"{}");
    request.timeout = Duration::from_secs(60);
    let began = Instant::now();
    let answer = client_with("seller_stall_timeout = \"100ms\"").send(request).await.expect("an answer");
    assert_eq!(whole(answer).await, Err(SellerFault::TimedOut { answered: true }));
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn b2_d9_the_bounds_of_a_head_are_configured() {
    let client = client_with("seller_head_max_bytes = \"1KiB\"\nseller_head_max_fields = 3\nseller_interim_max = 1");
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n";
    for (text, is_good) in [
        (format!("{interim}{LONG}"), true),
        (format!("{interim}{interim}{LONG}"), false),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(1000)), false),
        ("HTTP/1.1 200 OK\r\nA: 1\r\nB: 1\r\nContent-Length: 0\r\n\r\n".into(), true),
        ("HTTP/1.1 200 OK\r\nA: 1\r\nB: 1\r\nC: 1\r\nContent-Length: 0\r\n\r\n".into(), false),
        ("HTTP/1.1 200 OK\r\nA: 1\r\n folded\r\nContent-Length: 0\r\n\r\n".into(), false),
    ] {
        let seller = Seller::saying(text.clone(), true).await;
        let got = client.send(seller.request(b"{}")).await;
        assert_eq!(got.is_ok(), is_good, "{text}");
    }
}

/// Always these addresses.
struct Fixed(Vec<IpAddr>);

#[async_trait]
impl Resolver for Fixed {
    async fn resolve(&self, _name: &str) -> Option<Resolved> {
        Some(Resolved { addresses: self.0.clone(), ttl: Duration::ZERO })
    }
}

#[tokio::test]
async fn when_one_address_does_not_answer_one_other_is_tried() {
    let seller = Seller::saying(LONG, true).await;
    let port = seller.address.port();
    let config = Config::from_parts(None, []).expect("defaults");
    // Nobody listens on 127.0.0.2 and 127.0.0.3.
    for (last, wanted) in [("127.0.0.2 127.0.0.1", true), ("127.0.0.2 127.0.0.3 127.0.0.1", false)] {
        let addresses = last.split(' ').map(|text| text.parse().expect("an address")).collect();
        let client = Sellers::with_resolver(&config, "", Arc::new(Fixed(addresses))).expect("a client");
        let mut request = seller.request(b"{}");
        let url = format!("http://seller.example.org:{port}/work");
        request.target = Arc::new(Target::parse(request.target.listing, &url).expect("a target"));
        assert_eq!(client.send(request).await.is_ok(), wanted, "{last}");
    }
}

/// A name server that knows one name, and is asked over UDP.
async fn name_server(name: &'static str, address: [u8; 4]) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let bound = socket.local_addr().expect("bound");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut query = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            count.fetch_add(1, Ordering::SeqCst);
            let end = 12 + query[12..length].iter().position(|byte| *byte == 0).expect("the root") + 5;
            let labels: Vec<String> =
                name.split('.').map(|label| format!("{}{label}", label.len() as u8 as char)).collect();
            let is_known = query[12..end - 5].eq_ignore_ascii_case(labels.concat().as_bytes());
            let has_answer = is_known && query[end - 3] == 1;
            let mut answer = query[..2].to_vec();
            let code = if is_known { 0x80 } else { 0x83 };
            answer.extend_from_slice(&[0x81, code, 0, 1, 0, u8::from(has_answer), 0, 0, 0, 0]);
            answer.extend_from_slice(&query[12..end]);
            if has_answer {
                answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
                answer.extend_from_slice(&address);
            }
            let _ = socket.send_to(&answer, from).await;
        }
    });
    (bound, asked)
}

#[tokio::test]
async fn a8_names_are_resolved_by_ourselves_and_their_addresses_vetted() {
    let seller = Seller::saying(LONG, true).await;
    for (address, called) in [([127, 0, 0, 1], true), ([10, 0, 0, 1], false), ([169, 254, 169, 254], false)] {
        let (server, asked) = name_server("seller.example.org", address).await;
        let client = client_with(&format!("name_servers = \"{server}\""));
        let answer = async |name: &str| {
            let mut request = seller.request(b"{}");
            request.timeout = Duration::from_secs(10);
            let url = format!("http://{name}:{}/work", seller.address.port());
            request.target = Arc::new(Target::parse(request.target.listing, &url).expect("a target"));
            client.send(request).await.map(|answer| answer.status)
        };
        let wanted = if called { Ok(200) } else { Err(SellerFault::Unreachable) };
        assert_eq!(answer("seller.example.org").await, wanted, "{address:?}");
        let once = asked.load(Ordering::SeqCst);
        assert!(once >= 2, "both families");
        assert_eq!(answer("seller.example.org").await, wanted);
        assert_eq!(asked.load(Ordering::SeqCst), once, "believed for a while");
        assert_eq!(answer("other.example.org").await, Err(SellerFault::Unreachable));
        assert_eq!(answer("localhost").await, Ok(200), "in dev mode");
    }
}

/// A seller behind this certificate; tells how many requests it read.
async fn tls_seller(acceptor: TlsAcceptor) -> Seller {
    Seller::new(move |stream, _, requests| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut seen = Vec::new();
            while matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
                if seen.ends_with(b"\r\n\r\n{}") {
                    seen.clear();
                    requests.fetch_add(1, Ordering::SeqCst);
                    let _ = stream.write_all(LONG.as_bytes()).await;
                    let _ = stream.flush().await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn tls_is_verified_always_certificate_and_name_alike() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let knobs = format!("dev_ca = \"{}\"", authority.file().display());
    let names = &["localhost", "127.0.0.1"];
    for (what, acceptor, host, is_called) in [
        ("good", authority.acceptor(names), "localhost", true),
        ("good", authority.acceptor(names), "127.0.0.1", true),
        ("other name", authority.acceptor(&["other.example.org"]), "localhost", false),
        ("other address", authority.acceptor(&["localhost"]), "127.0.0.1", false),
        ("expired", authority.expired(names), "localhost", false),
        ("self-signed", tls::self_signed(names), "localhost", false),
        ("of an unknown authority", stranger.acceptor(names), "localhost", false),
    ] {
        let seller = tls_seller(acceptor).await;
        let (client, listing) = (client_with(&knobs), ListingId::mint(UnixMillis(1)));
        for turn in 1..=2 {
            let mut request = seller.request_of(listing, b"{}");
            request.timeout = Duration::from_secs(10);
            let url = format!("https://{host}:{}/work", seller.address.port());
            request.target = Arc::new(Target::parse(listing, &url).expect("a target"));
            let answer = client.send(request).await;
            assert_eq!(answer.is_ok(), is_called, "{what}");
            if let Ok(answer) = answer {
                assert_eq!(answer.tls, Some("TLSv1.3"));
                assert_eq!(whole(answer).await, Ok(b"{}".to_vec()));
                assert_eq!(seller.connections.load(Ordering::SeqCst), 1, "used again");
            }
            let requests = if is_called { turn } else { 0 };
            assert_eq!(seller.requests.load(Ordering::SeqCst), requests, "{what}");
        }
    }
    let production = "mode = \"production\"\n[proxy]\npublic_url = \"https://g.example.org\"\ndev_ca = \"x.pem\"\n\
                      [payments.sandbox]\nenabled = false\n";
    assert!(Config::from_parts(Some(production), []).expect_err("refused").to_string().contains("proxy.dev_ca"));
    let missing = Config::from_parts(Some("[proxy]\ndev_ca = \"/nowhere/ca.pem\""), []).expect("good");
    assert!(Sellers::new(&missing, "").is_err());
}

#[tokio::test]
async fn a_connection_that_is_kept_too_long_is_let_go() {
    let closed = Arc::new(tokio::sync::Notify::new());
    let seen = closed.clone();
    let seller = Seller::new(move |mut stream, _, _| {
        let seen = seen.clone();
        async move {
            while read_request(&mut stream).await {
                let _ = stream.write_all(LONG.as_bytes()).await;
            }
            seen.notify_one();
        }
    })
    .await;
    let config = Config::from_parts(Some("[proxy]\nseller_idle_timeout = \"100ms\""), []).expect("good");
    let answer = Sellers::new(&config, "").expect("a client").send(seller.request(b"{}")).await.expect("an answer");
    whole(answer).await.expect("a body");
    tokio::time::timeout(Duration::from_secs(10), closed.notified()).await.expect("closed without another call");
}

#[tokio::test]
async fn a_refused_connection_over_tls_is_unreachable() {
    // A seller that speaks no TLS where TLS is wanted: not a byte of the request reaches it.
    let seller = Seller::saying(LONG, false).await;
    let mut request = seller.request(b"{}");
    let url = format!("https://{}/work", seller.address);
    request.target = Arc::new(Target::parse(request.target.listing, &url).expect("a target"));
    assert_eq!(sellers().send(request).await.err(), Some(SellerFault::Unreachable));
    assert_eq!(seller.requests.load(Ordering::SeqCst), 0);
}
