//! A connection's two directions. A request's body and its answer are two values that are used in turn; both reach the
//! socket through this.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::timeout;

use crate::{alarm::Alarm, reply::Gone};

/// Room that a read wants to find.
const READ: usize = 2 << 10;
/// Room that is made when there is less.
const ROOM: usize = 4 << 10;

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes came, at least one.
    Bytes(usize),
    /// Nothing more will come.
    Ended,
    /// Nothing came in time.
    Late,
}

/// A socket that the body and the answer share.
pub(super) struct Wire<IO> {
    /// Held while a poll lasts and never across one.
    ends: Mutex<Ends<IO>>,
    write_timeout: Duration,
}

struct Ends<IO> {
    io: IO,
    alarm: Alarm,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + Send> Wire<IO> {
    pub(super) fn new(io: IO, write_timeout: Duration) -> Self {
        Self { ends: Mutex::new(Ends { io, alarm: Alarm::default() }), write_timeout }
    }

    /// The socket alone.
    pub(super) fn into_io(self) -> IO {
        self.ends.into_inner().io
    }

    /// Reads what is there, and waits for it so long.
    pub(super) async fn read(&self, buffer: &mut BytesMut, patience: Duration) -> Read {
        let mut due = None;
        std::future::poll_fn(|cx| self.poll_read(buffer, patience, &mut due, cx)).await
    }

    /// As [`read`](Self::read), to be polled beside something else; `due` is set by the first poll.
    pub(super) fn poll_read(
        &self,
        buffer: &mut BytesMut,
        patience: Duration,
        due: &mut Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Read> {
        if buffer.capacity() - buffer.len() < READ {
            buffer.reserve(ROOM);
        }
        self.poll_read_into(buffer, patience, due, cx)
    }

    /// Reads into the room that is there.
    pub(super) async fn read_into<B: BufMut + Send>(&self, buffer: &mut B, patience: Duration) -> Read {
        let mut due = None;
        std::future::poll_fn(|cx| self.poll_read_into(buffer, patience, &mut due, cx)).await
    }

    fn poll_read_into<B: BufMut + Send>(
        &self,
        buffer: &mut B,
        patience: Duration,
        due: &mut Option<Instant>,
        cx: &mut Context<'_>,
    ) -> Poll<Read> {
        let Ends { io, alarm } = &mut *self.ends.lock();
        match pin!(io.read_buf(buffer)).poll(cx) {
            Poll::Ready(Ok(count @ 1..)) => Poll::Ready(Read::Bytes(count)),
            Poll::Ready(_) => Poll::Ready(Read::Ended),
            Poll::Pending => alarm.poll_past(due_in(due, patience), cx).map(|()| Read::Late),
        }
    }

    /// Writes all parts, in order, and sees that they leave.
    pub(super) async fn write(&self, parts: &mut [IoSlice<'_>]) -> Result<(), Gone> {
        let (mut rest, mut due) = (parts, None);
        let writing = std::future::poll_fn(|cx| {
            let Ends { io, alarm } = &mut *self.ends.lock();
            match poll_write_all(io, &mut rest, cx) {
                Poll::Ready(written) => Poll::Ready(written.map_err(|_| Gone)),
                Poll::Pending => alarm.poll_past(due_in(&mut due, self.write_timeout), cx).map(|()| Err(Gone)),
            }
        });
        writing.await
    }

    /// Says that nothing more comes, and takes what the other side still sends: a socket closed over unread bytes
    /// resets the connection, and the answer would be lost with it.
    pub(super) async fn linger(&self, buffer: &mut BytesMut, patience: Duration, bytes_max: usize) {
        let leaving = async {
            let ended = std::future::poll_fn(|cx| Pin::new(&mut self.ends.lock().io).poll_shutdown(cx)).await;
            let mut left = bytes_max;
            while ended.is_ok() && left > 0 {
                buffer.clear();
                match self.read(buffer, patience).await {
                    Read::Bytes(count) => left = left.saturating_sub(count),
                    Read::Ended | Read::Late => break,
                }
            }
        };
        let _ = timeout(patience, leaving).await;
    }
}

/// The clock is asked only once there is something to wait for.
fn due_in(due: &mut Option<Instant>, patience: Duration) -> Instant {
    *due.get_or_insert_with(|| Instant::now() + patience)
}

fn poll_write_all<IO>(io: &mut IO, rest: &mut &mut [IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<()>>
where
    IO: AsyncWrite + Unpin,
{
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
    Pin::new(io).poll_flush(cx)
}
