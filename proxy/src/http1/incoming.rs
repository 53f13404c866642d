//! A request's body as it comes over HTTP/1.

use std::{
    io::IoSlice,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use actors::refusal::{Code, Refusal};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Rules,
    chunked::{BadChunk, Chunked, Decoded},
    head::{Framing, Head},
    wire::{Read, Wire},
};
use crate::body::{HeldBody, RequestBody, Share, too_large};

/// A body's buffer grows by at most what has come, and by this at least.
const GROWTH_MIN: usize = 8 << 10;

enum Rest {
    Nothing,
    Length(u64),
    Chunks(Chunked),
}

pub(super) struct Incoming<'c, IO> {
    wire: &'c Wire<IO>,
    buffer: &'c mut BytesMut,
    rules: &'c Rules,
    rest: Rest,
    /// The client waits for our word.
    is_awaited: bool,
    /// Whether something of the body has not been read; the answer looks at it too.
    unread: &'c AtomicBool,
    /// Where the next request begins is unknown.
    must_close: &'c AtomicBool,
    began: Option<Instant>,
    received: u64,
}

impl<'c, IO: AsyncRead + AsyncWrite + Unpin + Send> Incoming<'c, IO> {
    pub(super) fn new(
        wire: &'c Wire<IO>,
        buffer: &'c mut BytesMut,
        rules: &'c Rules,
        head: &Head,
        unread: &'c AtomicBool,
        must_close: &'c AtomicBool,
    ) -> Self {
        let rest = match head.framing() {
            Framing::None | Framing::Length(0) => Rest::Nothing,
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunks(Chunked::default()),
        };
        unread.store(!matches!(rest, Rest::Nothing), Ordering::Relaxed);
        let is_awaited = head.expects_continue() && buffer.is_empty() && !matches!(rest, Rest::Nothing);
        Self { wire, buffer, rules, rest, is_awaited, unread, must_close, began: None, received: 0 }
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    async fn invite(&mut self) -> Result<(), Refusal> {
        if std::mem::take(&mut self.is_awaited) {
            let mut parts = [IoSlice::new(b"HTTP/1.1 100 Continue\r\n\r\n")];
            self.wire.write(&mut parts).await.map_err(|_| self.lost(Code::InvalidRequest.into()))?;
        }
        Ok(())
    }

    fn ended(&mut self) {
        self.rest = Rest::Nothing;
        self.unread.store(false, Ordering::Relaxed);
    }

    /// Nothing more can be read of this body, nor a next request.
    fn lost(&mut self, refusal: Refusal) -> Refusal {
        self.ended();
        self.must_close.store(true, Ordering::Relaxed);
        refusal
    }

    /// How long the next bytes may take.
    fn patience(&mut self) -> Duration {
        let began = *self.began.get_or_insert_with(Instant::now);
        let due = began + self.rules.pace.next_due(self.received);
        due.saturating_duration_since(Instant::now())
    }

    fn arrived(&mut self, read: Read) -> Result<usize, Refusal> {
        match read {
            Read::Bytes(count) => {
                self.received = self.received.saturating_add(count as u64);
                Ok(count)
            }
            Read::Ended => Err(self.lost(Refusal::from(Code::InvalidRequest).message("The body ended early."))),
            Read::Late => Err(self.lost(Code::RequestTimeout.into())),
        }
    }

    /// Reads a body of known length. What of it came with the head is taken without a copy.
    async fn read_length(&mut self, length: u64, limit: u64) -> Result<HeldBody, Refusal> {
        let whole = usize::try_from(length).map_err(|_| too_large(limit))?;
        let mut share = Share::new(&self.rules.budget);
        if self.buffer.len() >= whole {
            share.grow(length)?;
            let bytes = self.buffer.split_to(whole).freeze();
            self.ended();
            return Ok(HeldBody::new(bytes, share));
        }
        share.grow(self.buffer.len() as u64)?;
        self.invite().await?;
        let mut body = self.buffer.split();
        while body.len() < whole {
            let missing = whole - body.len();
            let room = missing.min(body.len().max(GROWTH_MIN));
            if body.capacity() == body.len() {
                body.reserve(room);
            }
            let patience = self.patience();
            let read = self.wire.read_into(&mut (&mut body).limit(missing), patience).await;
            let count = self.arrived(read)?;
            if let Err(refusal) = share.grow(count as u64) {
                // What has come is let go of; the rest is read by and by, without being held.
                self.rest = Rest::Length((whole - body.len()) as u64);
                return Err(refusal);
            }
        }
        self.ended();
        Ok(HeldBody::new(body.freeze(), share))
    }

    async fn read_chunks(&mut self, limit: u64) -> Result<HeldBody, Refusal> {
        let mut share = Share::new(&self.rules.budget);
        let mut body = BytesMut::new();
        while let Some(piece) = self.next_chunk().await? {
            if (body.len() + piece.len()) as u64 > limit {
                return Err(too_large(limit));
            }
            share.grow(piece.len() as u64)?;
            body.extend_from_slice(&piece);
        }
        Ok(HeldBody::new(body.freeze(), share))
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let Rest::Chunks(decoder) = &mut self.rest else { return Ok(None) };
            match decoder.decode(self.buffer) {
                Ok(Decoded::Piece(piece)) => return Ok(Some(piece)),
                Ok(Decoded::End) => {
                    self.ended();
                    return Ok(None);
                }
                Ok(Decoded::NeedMore) => {}
                Err(BadChunk) => {
                    let refusal = Refusal::from(Code::InvalidRequest).message("The body's chunks are malformed.");
                    return Err(self.lost(refusal));
                }
            }
            self.invite().await?;
            let patience = self.patience();
            let read = self.wire.read(self.buffer, patience).await;
            self.arrived(read)?;
        }
    }

    async fn discard_length(&mut self, length: u64) -> Result<(), Refusal> {
        let mut left = length;
        loop {
            let here = usize::try_from(left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
            let _ = self.buffer.split_to(here);
            left -= here as u64;
            if left == 0 {
                self.ended();
                return Ok(());
            }
            let patience = self.patience();
            let read = self.wire.read(self.buffer, patience).await;
            self.arrived(read)?;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> RequestBody for Incoming<'_, IO> {
    fn announced(&self) -> Option<u64> {
        match self.rest {
            Rest::Nothing => Some(0),
            Rest::Length(length) => Some(length),
            Rest::Chunks(_) => None,
        }
    }

    async fn read(&mut self, limit: u64) -> Result<HeldBody, Refusal> {
        match self.rest {
            Rest::Nothing => Ok(HeldBody::new(Bytes::new(), Share::new(&self.rules.budget))),
            Rest::Length(length) if length > limit => Err(too_large(limit)),
            Rest::Length(length) => self.read_length(length, limit).await,
            Rest::Chunks(_) => self.read_chunks(limit).await,
        }
    }

    async fn discard(&mut self) -> Result<(), Refusal> {
        let max = self.rules.body_max;
        match self.rest {
            Rest::Nothing => Ok(()),
            Rest::Length(length) if length > max => Err(self.lost(too_large(max))),
            Rest::Length(length) => self.discard_length(length).await,
            Rest::Chunks(_) => {
                let mut left = max;
                while let Some(piece) = self.next_chunk().await? {
                    match left.checked_sub(piece.len() as u64) {
                        Some(rest) => left = rest,
                        None => return Err(self.lost(too_large(max))),
                    }
                }
                Ok(())
            }
        }
    }
}
