//! A seller on a real socket, as bad as a test wants it, and the client that is tested with it.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actors::seller::{SellerAnswer, SellerClient as _, SellerFault, SellerRequest, Target};
use bytes::Bytes;
use config::Config;
use proxy::upstream::Sellers;
use storage::model::{ListingId, UnixMillis};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub const TIMEOUT: Duration = Duration::from_millis(400);

/// A seller that reads a request and then does as told, for each connection by its number.
pub struct Seller {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
}

impl Seller {
    pub async fn new<F, W>(play: F) -> Self
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
    pub async fn saying(text: impl Into<Vec<u8>>, closes: bool) -> Self {
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

    pub fn request(&self, body: &[u8]) -> SellerRequest {
        self.request_of(ListingId::mint(UnixMillis(1)), body)
    }

    pub fn request_of(&self, listing: ListingId, body: &[u8]) -> SellerRequest {
        let target = Target::parse(listing, &format!("http://{}/work", self.address)).expect("a target");
        let head = format!("POST /work HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", self.address, body.len());
        let body = Bytes::copy_from_slice(body);
        SellerRequest { target: Arc::new(target), head: head.into_bytes(), body, timeout: TIMEOUT }
    }
}

/// Reads a request with a length; `false` at the end of the connection.
pub async fn read_request(stream: &mut TcpStream) -> bool {
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

pub fn sellers() -> Sellers {
    Sellers::new(&Config::from_parts(None, []).expect("defaults"), "").expect("a client")
}

pub async fn whole(mut answer: SellerAnswer) -> Result<Vec<u8>, SellerFault> {
    let mut body = Vec::new();
    while let Some(piece) = answer.body.chunk().await? {
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The status and the body of the answer, or how the call failed.
pub async fn call(seller: &Seller) -> Result<(u16, Vec<u8>), SellerFault> {
    let answer = sellers().send(seller.request(b"{}")).await?;
    let status = answer.status;
    whole(answer).await.map(|body| (status, body))
}

pub async fn said(text: &str) -> Result<(u16, Vec<u8>), SellerFault> {
    call(&Seller::saying(text, true).await).await
}

pub const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

pub fn client_with(knobs: &str) -> Sellers {
    let config = Config::from_parts(Some(&format!("[proxy]\n{knobs}\n")), []).expect("a good configuration");
    Sellers::new(&config, "").expect("a client")
}
