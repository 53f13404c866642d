//! Answers that come compressed although plain bytes were asked for: unpacked as they stream, within a bound on each
//! step and on the whole, or they are broken.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use actors::seller::{SellerBody, SellerFault};
use async_trait::async_trait;
use brotli_decompressor::DecompressorWriter;
use bytes::{Buf as _, Bytes};
use config::Proxy;
use flate2::{Decompress, FlushDecompress, Status, write::MultiGzDecoder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zstd::stream::{
    raw::{DParameter, Decoder},
    zio::Writer,
};

use super::answer::AnswerBody;

/// What is unpacked in one step, and what may come of it.
const STEP: usize = 1 << 10;
const STEP_OUT_MAX: usize = (1 << 20) + FREE as usize;
/// A short answer may be as dull as it likes.
const FREE: u64 = 64 << 10;
/// A piece that is passed on has this size or, for its last step, somewhat more.
const PIECE: usize = 64 << 10;
/// 8 MiB: the largest window that a receiver must support, and the largest that we do.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const BUFFER: usize = 16 << 10;

/// How an answer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zlib,
    Brotli,
    Zstd,
    /// In a way, or in several, that nobody here can undo.
    Unknown,
}

impl Packing {
    /// By the value of `Content-Encoding`; `None`: it is not.
    pub(super) fn named(value: &[u8]) -> Option<Self> {
        Some(match value.to_ascii_lowercase().as_slice() {
            b"" | b"identity" => return None,
            b"gzip" | b"x-gzip" => Self::Gzip,
            b"deflate" => Self::Zlib,
            b"br" => Self::Brotli,
            b"zstd" => Self::Zstd,
            _ => Self::Unknown,
        })
    }
}

/// How many answers may be unpacked at a time, and how far.
pub(super) struct Unpacking {
    places: Arc<Semaphore>,
    ratio: u64,
}

impl Unpacking {
    pub(super) fn new(knobs: &Proxy) -> Self {
        let places = Arc::new(Semaphore::new(knobs.seller_unpackers_max));
        Self { places, ratio: u64::from(knobs.seller_unpack_ratio) }
    }

    /// The plain body of a compressed one. Without a place, or a way, it is broken from its beginning.
    pub(super) fn unpack(&self, body: AnswerBody, packing: Packing) -> UnpackedBody {
        let place = self.places.clone().try_acquire_owned().ok();
        let unpacker = place.and_then(|place| Some((Unpacker::new(packing)?, place)));
        UnpackedBody { body, packed: Bytes::new(), unpacker, received: 0, unpacked: 0, ratio: self.ratio }
    }
}

/// A body that is unpacked as it is read.
pub(super) struct UnpackedBody {
    body: AnswerBody,
    packed: Bytes,
    unpacker: Option<(Unpacker, OwnedSemaphorePermit)>,
    received: u64,
    unpacked: u64,
    ratio: u64,
}

impl UnpackedBody {
    async fn next(&mut self) -> Result<Option<Bytes>, SellerFault> {
        loop {
            let Some((unpacker, _)) = &mut self.unpacker else { return Err(SellerFault::Broken) };
            while !self.packed.is_empty() && unpacker.out().len() < PIECE {
                let step = self.packed.split_to(self.packed.len().min(STEP));
                self.received += step.len() as u64;
                unpacker.push(&step).map_err(|_| SellerFault::Broken)?;
            }
            if let Some(piece) = self.take()? {
                return Ok(Some(piece));
            }
            match self.body.next().await? {
                Some(packed) => self.packed = packed,
                None => return self.finish(),
            }
        }
    }

    /// What has been unpacked, if it is not too much for what it came from.
    fn take(&mut self) -> Result<Option<Bytes>, SellerFault> {
        let Some((unpacker, _)) = &mut self.unpacker else { return Ok(None) };
        let out = std::mem::take(unpacker.out());
        self.unpacked += out.len() as u64;
        if self.unpacked > FREE.saturating_add(self.received.saturating_mul(self.ratio)) {
            return Err(SellerFault::Broken);
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }

    /// The end of the packed bytes must be the end of what is packed; nothing at all is an empty body.
    fn finish(&mut self) -> Result<Option<Bytes>, SellerFault> {
        let Some((mut unpacker, place)) = self.unpacker.take() else { return Err(SellerFault::Broken) };
        if self.received > 0 {
            unpacker.finish().map_err(|_| SellerFault::Broken)?;
        }
        self.unpacker = Some((unpacker, place));
        let last = self.take();
        self.unpacker = Some((Unpacker::Over(Vec::new()), self.unpacker.take().ok_or(SellerFault::Broken)?.1));
        last
    }
}

#[async_trait]
impl SellerBody for UnpackedBody {
    async fn chunk(&mut self) -> Result<Option<Bytes>, SellerFault> {
        if matches!(self.unpacker, Some((Unpacker::Over(_), _))) {
            return Ok(None);
        }
        let next = self.next().await;
        if next.is_err() {
            self.unpacker = None;
            self.body.abandon();
        }
        next
    }

    fn extend(&mut self, by: Duration) {
        self.body.extend(by);
    }
}

/// Bytes that were unpacked and not taken yet; refuses more than one step may yield.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room = self.room.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Unpacker {
    Gzip(MultiGzDecoder<Out>),
    Zlib(Box<Zlib>),
    Brotli(Box<DecompressorWriter<Out>>),
    Zstd(Writer<Out, Decoder<'static>>),
    Over(Vec<u8>),
}

impl Unpacker {
    fn new(packing: Packing) -> Option<Self> {
        Some(match packing {
            Packing::Gzip => Self::Gzip(MultiGzDecoder::new(Out::default())),
            Packing::Zlib => Self::Zlib(Box::new(Zlib::new())),
            Packing::Brotli => Self::Brotli(Box::new(DecompressorWriter::new(Out::default(), BUFFER))),
            Packing::Zstd => {
                let mut decoder = Decoder::new().ok()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
                Self::Zstd(Writer::new(Out::default(), decoder))
            }
            Packing::Unknown => return None,
        })
    }

    fn push(&mut self, packed: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => {
                decoder.get_mut().room = STEP_OUT_MAX;
                decoder.write_all(packed)?;
                decoder.flush()
            }
            Self::Zlib(decoder) => {
                decoder.out.room = STEP_OUT_MAX;
                decoder.push(packed)
            }
            Self::Brotli(decoder) => {
                decoder.get_mut().room = STEP_OUT_MAX;
                decoder.write_all(packed)
            }
            Self::Zstd(decoder) => {
                decoder.writer_mut().room = STEP_OUT_MAX;
                decoder.write_all(packed)?;
                decoder.flush()
            }
            Self::Over(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Whether all that was begun has ended.
    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zlib(decoder) if decoder.has_ended => Ok(()),
            Self::Zlib(_) | Self::Over(_) => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Brotli(decoder) => decoder.close(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }

    fn out(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(decoder) => &mut decoder.get_mut().bytes,
            Self::Zlib(decoder) => &mut decoder.out.bytes,
            Self::Brotli(decoder) => &mut decoder.get_mut().bytes,
            Self::Zstd(decoder) => &mut decoder.writer_mut().bytes,
            Self::Over(nothing) => nothing,
        }
    }
}

/// What `deflate` names: a zlib stream.
struct Zlib {
    decoder: Decompress,
    out: Out,
    has_ended: bool,
}

impl Zlib {
    fn new() -> Self {
        Self { decoder: Decompress::new(true), out: Out::default(), has_ended: false }
    }

    fn push(&mut self, mut packed: &[u8]) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.has_ended {
                // Behind the end there is nothing.
                return if packed.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
            let (read, written) = (self.decoder.total_in(), self.decoder.total_out());
            let status = self.decoder.decompress(packed, &mut buffer, FlushDecompress::None)?;
            let read = usize::try_from(self.decoder.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(self.decoder.total_out() - written).unwrap_or(usize::MAX);
            self.out.write_all(buffer.get(..written).unwrap_or_default())?;
            packed.advance(read.min(packed.len()));
            self.has_ended = status == Status::StreamEnd;
            if !self.has_ended && read == 0 && written == 0 {
                return if packed.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) };
            }
        }
    }
}
