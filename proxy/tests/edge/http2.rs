//! A client that speaks HTTP/2, in the clear or over TLS.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::{
    SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Method, Request};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use super::PATIENCE;

pub struct Http2 {
    pub requests: SendRequest<Bytes>,
    /// Ends with the connection, and says how.
    pub connection: JoinHandle<Result<(), h2::Error>>,
    pub authority: String,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl Http2 {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        Self::over(stream, address.to_string(), &Builder::new()).await
    }

    pub async fn over<IO>(io: IO, authority: String, builder: &Builder) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = builder.handshake(io).await.expect("it speaks HTTP/2");
        Self { requests, connection: tokio::spawn(connection), authority }
    }

    pub fn request(&self, method: Method, path: &str, fields: &[(&str, &str)]) -> Request<()> {
        let uri = format!("http://{}{path}", self.authority);
        let request = Request::builder().method(method).uri(uri);
        fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).expect("a request")
    }

    /// Sends a head, and leaves the body open when `is_open`.
    pub async fn begin(&mut self, request: Request<()>, is_open: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let ready = timeout(PATIENCE, self.requests.clone().ready()).await.expect("in time").expect("takes requests");
        self.requests = ready;
        self.requests.send_request(request, !is_open).expect("sent")
    }

    pub async fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Answer, h2::Error> {
        let request = self.request(Method::GET, path, fields);
        let (answer, _) = self.begin(request, false).await;
        whole(answer).await
    }

    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)], body: &str) -> Result<Answer, h2::Error> {
        let request = self.request(Method::POST, path, fields);
        let (answer, mut stream) = self.begin(request, true).await;
        stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true).expect("sent");
        whole(answer).await
    }

    /// A call with a key.
    pub async fn call(&mut self, listing: &str, key: &str, body: &str) -> Result<Answer, h2::Error> {
        let (path, bearer) = (format!("/api/v1/gateway/{listing}"), format!("Bearer {key}"));
        self.post(&path, &[("authorization", &bearer), ("content-type", "application/json")], body).await
    }

    /// Waits for the end of the connection.
    pub async fn ended(self) -> Result<(), h2::Error> {
        // A client that could still send would keep the connection open.
        drop(self.requests);
        timeout(PATIENCE, self.connection).await.expect("it ends in time").expect("no panic")
    }
}

/// An answer with its whole body.
pub async fn whole(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let reading = async {
        let (parts, mut stream) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = stream.data().await {
            let piece = piece?;
            body.extend_from_slice(&piece);
            stream.flow_control().release_capacity(piece.len())?;
        }
        Ok(Answer { status: parts.status.as_u16(), fields: parts.headers, body })
    };
    timeout(PATIENCE, reading).await.expect("an answer in time")
}
