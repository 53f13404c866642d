//! Answers that come compressed although plain bytes were asked for.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what is not as it should be ends it"
)]

#[path = "seller_client/seller.rs"]
mod seller;

use std::{io::Write as _, sync::atomic::Ordering, time::Duration};

use actors::seller::{SellerClient as _, SellerFault};
use seller::{Seller, call, client_with, said, sellers, whole};
use storage::model::{ListingId, UnixMillis};

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
