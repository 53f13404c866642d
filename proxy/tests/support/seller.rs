//! A seller on a real socket. The path of the endpoint's URL says how it behaves; every request is kept.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

#[derive(Clone)]
pub struct Seller {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    gate: Arc<Semaphore>,
    status: Arc<Mutex<u16>>,
}

impl Seller {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let seller = Self {
            address: listener.local_addr().expect("address"),
            received: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            status: Arc::new(Mutex::new(200)),
        };
        let serving = seller.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seller = serving.clone();
                tokio::spawn(async move { seller.serve(stream).await });
            }
        });
        seller
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

    /// Lets `n` requests to `/gated` answer.
    pub fn open(&self, n: usize) {
        self.gate.add_permits(n);
    }

    /// What `/switch` answers from now on.
    pub fn answer_with(&self, status: u16) {
        *self.status.lock().expect("not poisoned") = status;
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let request = read_request(&mut stream, &mut buffer).await?;
            self.received.lock().expect("not poisoned").push(request.clone());
            self.behave(&mut stream, &request).await?;
        }
    }

    /// `None` closes the connection.
    async fn behave(&self, stream: &mut TcpStream, request: &Received) -> Option<()> {
        let json = |status: u16, body: &str| answer(status, "application/json", body.as_bytes());
        let out = match request.path.as_str() {
            "/gated" => {
                self.gate.acquire().await.ok()?.forget();
                json(200, "{\"result\":\"gated\"}")
            }
            "/switch" => json(*self.status.lock().expect("not poisoned"), "{\"result\":\"switched\"}"),
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                json(200, "{\"result\":\"slow\"}")
            }
            "/hang" => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                return None;
            }
            "/stall" => {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
                    .await
                    .ok()?;
                tokio::time::sleep(Duration::from_secs(30)).await;
                return None;
            }
            "/break" => return None,
            "/cut" => {
                stream
                    .write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"a\":",
                    )
                    .await
                    .ok()?;
                return None;
            }
            "/not-json" => json(200, "{\"a\":"),
            "/two-values" => json(200, "{} {}"),
            "/text" => answer(200, "text/plain", "grüße \"and\" \u{1}".as_bytes()),
            "/binary" => answer(200, "image/png", &[0, 159, 146, 150]),
            "/empty" => answer(204, "", b""),
            "/empty-200" => answer(200, "application/json", b""),
            "/redirect" => b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "/busy" => b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "/switching" => b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n".to_vec(),
            path if path.starts_with("/status/") => {
                let status = path.trim_start_matches("/status/").parse().unwrap_or(500);
                json(status, "{\"error\":\"as told\"}")
            }
            path if path.starts_with("/size/") => {
                let size = path.trim_start_matches("/size/").parse().unwrap_or(0);
                json(200, &format!("\"{}\"", "x".repeat(size)))
            }
            path if path.starts_with("/cut-after/") => {
                let size: usize = path.trim_start_matches("/cut-after/").parse().unwrap_or(0);
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n\"",
                    size * 2
                );
                stream.write_all(head.as_bytes()).await.ok()?;
                stream.write_all("x".repeat(size).as_bytes()).await.ok()?;
                return None;
            }
            _ => json(200, "{\"result\":\"ok\"}"),
        };
        stream.write_all(&out).await.ok()
    }
}

fn answer(status: u16, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} Told\r\n").into_bytes();
    if !content_type.is_empty() {
        out.extend_from_slice(format!("Content-Type: {content_type}\r\n").as_bytes());
    }
    if status != 204 {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

pub async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_string();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while buffer.len() < end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some(Received { path, headers, body })
}
