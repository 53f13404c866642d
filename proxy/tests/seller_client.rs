//! The seller client against sellers that do not behave, over real sockets.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what is not as it should be ends it"
)]

#[path = "seller_client/seller.rs"]
mod seller;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use actors::seller::{SellerClient as _, SellerFault, Target};
use config::Config;
use proxy::upstream::Sellers;
use seller::{LONG, Seller, TIMEOUT, call, client_with, read_request, said, sellers, whole};
use storage::model::{ListingId, UnixMillis};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

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
    // One that has no body and announces one all the same may send it later, in the place of the next answer.
    for fields in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let seller = Seller::saying(format!("HTTP/1.1 204 None\r\n{fields}\r\n"), false).await;
        let (client, listing) = (sellers(), ListingId::mint(UnixMillis(1)));
        for _ in 0..2 {
            let answer = client.send(seller.request_of(listing, b"{}")).await.expect("an answer");
            assert_eq!(whole(answer).await, Ok(Vec::new()), "{fields}");
        }
        assert_eq!(seller.connections.load(Ordering::SeqCst), 2, "{fields}");
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
