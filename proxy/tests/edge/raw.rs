//! A client that sends any bytes and sees every byte.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::PATIENCE;

pub struct Raw<IO> {
    pub io: IO,
    pub seen: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_string()
    }
}

impl Raw<TcpStream> {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.expect("connected"))
    }

    /// From another address of the loopback.
    pub async fn connect_from(from: [u8; 4], to: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((from, 0))).expect("bound");
        Self::new(socket.connect(to).await.expect("connected"))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Raw<IO> {
    pub fn new(io: IO) -> Self {
        Self { io, seen: Vec::new() }
    }

    /// The other side may have closed already, having seen enough.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.io.write_all(bytes.as_ref()).await;
        let _ = self.io.flush().await;
    }

    /// More bytes; `false` at the end.
    pub async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.io.read_buf(&mut self.seen)).await.expect("something in time");
        matches!(read, Ok(1..))
    }

    /// An answer with a length; `None` when the connection ends instead.
    pub async fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.seen.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                assert!(self.seen.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.seen));
                return None;
            }
        };
        let head = String::from_utf8(self.seen.drain(..end).collect()).expect("text");
        let mut answer = Answer { status: head[9..12].parse().expect("a status"), head, body: Vec::new() };
        let length = answer.field("Content-Length").map_or(0, |length| length.parse().expect("a length"));
        while self.seen.len() < length && self.more().await {}
        assert!(self.seen.len() >= length, "the body is short");
        answer.body = self.seen.drain(..length).collect();
        Some(answer)
    }

    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await.expect("an answer")
    }

    /// Reads to the end of the connection, and says whether nothing more came before it.
    pub async fn is_closed(&mut self) -> bool {
        while self.more().await {}
        self.seen.is_empty()
    }
}

/// One answer on a connection of its own, which must be closed behind it if `closes`.
pub async fn answer_to(address: SocketAddr, request: impl AsRef<[u8]>, closes: bool) -> Answer {
    let mut raw = Raw::connect(address).await;
    let answer = raw.ask(request).await;
    assert_eq!(answer.field("Connection"), closes.then_some("close"), "{}", answer.head);
    if closes {
        assert!(raw.is_closed().await, "more came behind {}", answer.head);
    }
    answer
}
