//! A connection's two directions. A request's body and its answer are two values that are used in turn; both reach the
//! socket through this.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use pingora::prelude::timeout;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::reply::Gone;

/// Room that a read wants to find.
const READ: usize = 2 << 10;
/// Room that is made when there is less.
const ROOM: usize = 4 << 10;

/// A socket that the body and the answer share.
pub(super) struct Wire<IO> {
    /// Held while a poll lasts and never across one.
    io: Mutex<IO>,
    write_timeout: Duration,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Wire<IO> {
    pub(super) fn new(io: IO, write_timeout: Duration) -> Self {
        Self { io: Mutex::new(io), write_timeout }
    }

    /// Reads what is there; 0 at the end.
    pub(super) async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        if buffer.capacity() - buffer.len() < READ {
            buffer.reserve(ROOM);
        }
        self.read_into(buffer).await
    }

    /// Reads what is there into the room that is there.
    pub(super) async fn read_into<B: BufMut + Send>(&self, buffer: &mut B) -> io::Result<usize> {
        std::future::poll_fn(|cx| pin!(self.io.lock().read_buf(buffer)).poll(cx)).await
    }

    /// Writes all parts, in order, and sees that they leave.
    pub(super) async fn write(&self, parts: &mut [IoSlice<'_>]) -> Result<(), Gone> {
        let mut rest = parts;
        let writing = std::future::poll_fn(|cx| self.poll_write_all(&mut rest, cx));
        match timeout(self.write_timeout, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    fn poll_write_all(&self, rest: &mut &mut [IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut io = self.io.lock();
        loop {
            let written = match &**rest {
                [] => break,
                [only] if only.is_empty() => break,
                [only] => ready!(Pin::new(&mut *io).poll_write(cx, only))?,
                parts => ready!(Pin::new(&mut *io).poll_write_vectored(cx, parts))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            IoSlice::advance_slices(rest, written);
        }
        Pin::new(&mut *io).poll_flush(cx)
    }

    /// Says that nothing more comes, and takes what the other side still sends: a socket closed over unread bytes
    /// resets the connection, and the answer would be lost with it.
    pub(super) async fn linger(&self, buffer: &mut BytesMut, patience: Duration, bytes_max: usize) {
        let leaving = async {
            let ended = std::future::poll_fn(|cx| Pin::new(&mut *self.io.lock()).poll_shutdown(cx)).await;
            let mut left = bytes_max;
            while ended.is_ok() && left > 0 {
                buffer.clear();
                match self.read(buffer).await {
                    Ok(read @ 1..) => left = left.saturating_sub(read),
                    _ => break,
                }
            }
        };
        let _ = timeout(patience, leaving).await;
    }
}
