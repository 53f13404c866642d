//! A connection's socket under a protocol that reads and writes by itself: what was read ahead is read again, and a
//! write that waits for too long fails.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alarm::Alarm;

/// A socket with its first bytes in hand.
#[derive(Debug)]
pub struct Socket<IO> {
    io: IO,
    ahead: BytesMut,
    write_timeout: Duration,
    /// When what waits to be written must have left; set while something waits.
    due: Option<Instant>,
    alarm: Alarm,
}

impl<IO> Socket<IO> {
    /// `ahead` was read from `io` already. A write or flush that is not done after `write_timeout` is an error.
    #[must_use]
    pub fn new(io: IO, ahead: BytesMut, write_timeout: Duration) -> Self {
        Self { io, ahead, write_timeout, due: None, alarm: Alarm::default() }
    }

    /// What was read ahead and not taken yet.
    #[must_use]
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Turns waiting that has lasted for too long into an error.
    fn in_time<T>(&mut self, done: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.due = None;
            return done;
        }
        let due = *self.due.get_or_insert_with(|| Instant::now() + self.write_timeout);
        self.alarm.poll_past(due, cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Socket<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, into);
        }
        let count = self.ahead.len().min(into.remaining());
        into.put_slice(self.ahead.get(..count).unwrap_or_default());
        self.ahead.advance(count);
        if self.ahead.is_empty() {
            // Nothing is read ahead again: its memory is not wanted any more.
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Socket<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.in_time(done, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.in_time(done, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(cx);
        self.in_time(done, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_shutdown(cx);
        self.in_time(done, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_is_read_first_and_a_write_has_a_deadline() {
        let (mut there, here) = tokio::io::duplex(8);
        there.write_all(b"cd").await.expect("room");
        let mut socket = Socket::new(here, BytesMut::from(&b"ab"[..]), Duration::from_millis(30));
        assert_eq!(socket.ahead(), b"ab");
        let mut read = [0; 4];
        socket.read_exact(&mut read).await.expect("four bytes");
        assert_eq!(&read, b"abcd");
        socket.write_all(b"12345678").await.expect("room");
        let late = socket.write_all(b"9").await.expect_err("nobody reads");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }
}
