//! Whom the seller client connects to: names resolved by ourselves, addresses vetted, certificates verified.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: what is not as it should be ends it"
)]

#[path = "seller_client/seller.rs"]
mod seller;
#[path = "support/tls.rs"]
mod tls;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actors::seller::{SellerClient as _, SellerFault, Target};
use async_trait::async_trait;
use config::Config;
use proxy::upstream::{Resolved, Resolver, Sellers};
use seller::{LONG, Seller, client_with, whole};
use storage::model::{ListingId, UnixMillis};
use tls::Authority;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

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
