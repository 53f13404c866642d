//! A seller that does with each connection what a test says, byte by byte.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::seller::{Received, read_request};

pub struct Script {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Script {
    /// Reads one request a connection and hands it over; the connection ends with what the test does.
    pub async fn start<F, Fut>(behave: F) -> Self
    where
        F: Fn(Received, TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (kept, behave) = (received.clone(), Arc::new(behave));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (kept, behave) = (kept.clone(), behave.clone());
                tokio::spawn(async move {
                    if let Some(request) = read_request(&mut stream, &mut Vec::new()).await {
                        kept.lock().expect("not poisoned").push(request.clone());
                        behave(request, stream).await;
                    }
                });
            }
        });
        Self { address, received }
    }

    /// Answers every request with this body, chunked, so that its length is not known ahead.
    pub async fn chunked(content_type: &'static str, body: Vec<u8>) -> Self {
        let body = Arc::new(body);
        Self::start(move |_, mut stream| {
            let body = body.clone();
            async move {
                begin(&mut stream, content_type, None).await;
                for piece in body.chunks(16 << 10) {
                    if !send(&mut stream, piece).await {
                        return;
                    }
                }
                finish(&mut stream).await;
            }
        })
        .await
    }

    /// Answers every request with a JSON string of so many bytes, of a length that is known ahead, without holding it.
    pub async fn sized(size: usize) -> Self {
        Self::start(move |_, mut stream| async move {
            begin(&mut stream, "application/json", Some(size)).await;
            let block = vec![b'x'; 64 << 10];
            let mut left = size - 2;
            let _ = stream.write_all(b"\"").await;
            while left > 0 {
                let now = left.min(block.len());
                if stream.write_all(&block[..now]).await.is_err() {
                    return;
                }
                left -= now;
            }
            let _ = stream.write_all(b"\"").await;
        })
        .await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("not poisoned").clone()
    }

    pub fn calls(&self) -> usize {
        self.received.lock().expect("not poisoned").len()
    }
}

/// The head of an answer: chunked, unless its length is known ahead.
pub async fn begin(stream: &mut TcpStream, content_type: &str, length: Option<usize>) {
    let framing = match length {
        Some(length) => format!("Content-Length: {length}"),
        None => "Transfer-Encoding: chunked".to_string(),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{framing}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
}

/// A chunk; `false` when nobody takes it.
pub async fn send(stream: &mut TcpStream, piece: &[u8]) -> bool {
    let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
    chunk.extend_from_slice(piece);
    chunk.extend_from_slice(b"\r\n");
    stream.write_all(&chunk).await.is_ok()
}

/// The proper end of a chunked answer.
pub async fn finish(stream: &mut TcpStream) {
    let _ = stream.write_all(b"0\r\n\r\n").await;
}
