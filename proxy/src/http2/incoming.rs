//! A request's body as it comes over HTTP/2: piece by piece, and the sender is told to go on only when a piece was
//! taken.

use std::time::{Duration, Instant};

use actors::refusal::{Code, Refusal};
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::{
    body::{HeldBody, RequestBody, Share, too_large},
    http1::{
        Rules,
        head::{Framing, Head},
    },
};

pub(super) struct Incoming<'r> {
    stream: RecvStream,
    /// Where the client is told to send, while it waits for our word.
    inviting: Option<&'r Mutex<SendResponse<Bytes>>>,
    rules: &'r Rules,
    announced: Option<u64>,
    /// Nothing more is to be read: it has ended, or it cannot go on.
    is_over: bool,
    began: Option<Instant>,
    received: u64,
}

impl<'r> Incoming<'r> {
    pub(super) fn new(
        stream: RecvStream,
        respond: &'r Mutex<SendResponse<Bytes>>,
        rules: &'r Rules,
        head: &Head,
    ) -> Self {
        let is_over = stream.is_end_stream();
        let announced = match head.framing() {
            _ if is_over => Some(0),
            Framing::Length(length) => Some(length),
            Framing::None | Framing::Chunked => None,
        };
        let inviting = (head.expects_continue() && !is_over).then_some(respond);
        Self { stream, inviting, rules, announced, is_over, began: None, received: 0 }
    }

    /// A client that waits for our word gets it.
    fn invite(&mut self) {
        if let Some(respond) = self.inviting.take() {
            let mut word = Response::new(());
            *word.status_mut() = StatusCode::CONTINUE;
            // When it cannot be said, the stream is gone, and reading on tells.
            let _ = respond.lock().send_informational(word);
        }
    }

    fn over(&mut self, code: Code) -> Refusal {
        self.is_over = true;
        Refusal::from(code)
    }

    /// How long the next bytes may take.
    fn patience(&mut self) -> Duration {
        let began = *self.began.get_or_insert_with(Instant::now);
        let due = began + self.rules.pace.next_due(self.received);
        due.saturating_duration_since(Instant::now())
    }

    /// The next piece; `None` at the proper end. Its room at the connection is given back at once: what is held is
    /// counted elsewhere.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        if self.is_over {
            return Ok(None);
        }
        self.invite();
        let patience = self.patience();
        match timeout(patience, self.stream.data()).await {
            Ok(Some(Ok(piece))) => {
                self.received = self.received.saturating_add(piece.len() as u64);
                // It can only be more than was received if the count is wrong.
                let _ = self.stream.flow_control().release_capacity(piece.len());
                self.is_over = self.stream.is_end_stream();
                Ok(Some(piece))
            }
            Ok(None) => {
                self.is_over = true;
                Ok(None)
            }
            Ok(Some(Err(_))) => Err(self.over(Code::InvalidRequest).message("The body ended early.")),
            Err(_) => Err(self.over(Code::RequestTimeout)),
        }
    }

    async fn read_pieces(&mut self, limit: u64) -> Result<HeldBody, Refusal> {
        let mut share = Share::new(&self.rules.budget);
        let mut body = BytesMut::new();
        while let Some(piece) = self.next().await? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(too_large(limit));
            }
            share.grow(piece.len() as u64)?;
            if self.is_over && body.is_empty() {
                // The usual body: it came in one piece, and is taken without a copy.
                return Ok(HeldBody::new(piece, share));
            }
            body.extend_from_slice(&piece);
        }
        Ok(HeldBody::new(body.freeze(), share))
    }
}

impl RequestBody for Incoming<'_> {
    fn announced(&self) -> Option<u64> {
        self.announced
    }

    async fn read(&mut self, limit: u64) -> Result<HeldBody, Refusal> {
        match self.announced {
            Some(length) if length > limit => Err(too_large(limit)),
            _ => self.read_pieces(limit).await,
        }
    }

    async fn discard(&mut self) -> Result<(), Refusal> {
        // The client has its answer: if it still waits for our word, it sends nothing.
        if self.is_over || self.inviting.is_some() {
            return Ok(());
        }
        let max = self.rules.body_max;
        if self.announced.is_some_and(|length| length > max) {
            return Err(self.over(Code::PayloadTooLarge));
        }
        let mut left = max;
        while let Some(piece) = self.next().await? {
            match left.checked_sub(piece.len() as u64) {
                Some(rest) => left = rest,
                None => return Err(self.over(Code::PayloadTooLarge)),
            }
        }
        Ok(())
    }
}
