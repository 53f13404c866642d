//! The load: a closed loop over a few kept connections, one thread, one epoll. It must be cheap, since seller and
//! generator share a core, and it must not run ahead: each connection has one request outstanding.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::answer::Answer;

/// A contestant that does not answer for so long ends the run.
const STALL_MAX: Duration = Duration::from_secs(10);

/// What is asked on the connections, and what becomes of the answers.
pub trait Work {
    /// Puts the next request of a connection into `request`, which is empty. `false`: there is none.
    fn ask(&mut self, connection: usize, request: &mut Vec<u8>) -> bool;

    /// Takes a whole answer and the time it took, nanoseconds.
    ///
    /// # Errors
    /// Ends the run.
    fn take(&mut self, connection: usize, answer: &Answer<'_>, nanos: u64) -> anyhow::Result<()>;
}

/// Some connections to one address.
pub struct Lanes {
    address: SocketAddr,
    epoll: Epoll,
    lanes: Vec<Lane>,
    request: Vec<u8>,
    part: Box<[u8]>,
}

struct Lane {
    stream: TcpStream,
    input: Vec<u8>,
    sent: Option<Instant>,
}

/// What a run of the loop did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ran {
    /// Answers.
    pub answers: u64,
    /// From the first request to the last answer.
    pub wall: Duration,
    /// The longest time without any answer.
    pub gap: Duration,
}

impl Lanes {
    /// Opens `count` connections.
    ///
    /// # Errors
    /// When the address is not loopback, or refuses.
    pub fn open(address: SocketAddr, count: usize) -> anyhow::Result<Self> {
        ensure!(address.ip().is_loopback(), "only loopback is loaded, not {address}");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let lanes = (0..count).map(|number| Lane::open(address, &epoll, number)).collect::<Result<_, _>>()?;
        Ok(Self { address, epoll, lanes, request: Vec::new(), part: vec![0; 64 << 10].into_boxed_slice() })
    }

    /// Asks on every connection, again after each answer, until the time is over or nothing is left to ask; returns
    /// when the last answer is there.
    ///
    /// # Errors
    /// When a busy connection is closed, an answer is none, or nothing comes for ten seconds.
    pub fn run(&mut self, work: &mut dyn Work, span: Duration) -> anyhow::Result<Ran> {
        let mut ran = Ran::default();
        let mut busy = 0;
        let start = Instant::now();
        for number in 0..self.lanes.len() {
            busy += usize::from(self.send(work, number)?);
        }
        let mut events = [EpollEvent::empty(); 64];
        let mut last = start;
        while busy > 0 {
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(100u8))?;
            let mut now = Instant::now();
            ensure!(now - last < STALL_MAX, "{} stalls", self.address);
            for event in events.iter().take(ready) {
                let number = usize::try_from(event.data())?;
                if !self.receive(work, number)? {
                    continue;
                }
                now = Instant::now();
                ran.gap = ran.gap.max(now - last);
                last = now;
                ran.answers += 1;
                if now - start >= span || !self.send(work, number)? {
                    busy -= 1;
                }
            }
        }
        ran.wall = last - start;
        Ok(ran)
    }

    fn send(&mut self, work: &mut dyn Work, number: usize) -> anyhow::Result<bool> {
        self.request.clear();
        if !work.ask(number, &mut self.request) {
            return Ok(false);
        }
        let lane = self.lanes.get_mut(number).context("a lane")?;
        lane.input.clear();
        lane.sent = Some(Instant::now());
        lane.stream.write_all(&self.request).with_context(|| format!("sending to {}", self.address))?;
        Ok(true)
    }

    /// Reads what has come; returns whether an answer is whole now.
    fn receive(&mut self, work: &mut dyn Work, number: usize) -> anyhow::Result<bool> {
        let lane = self.lanes.get_mut(number).context("a lane")?;
        let length = match lane.stream.read(&mut self.part) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).with_context(|| format!("receiving from {}", self.address)),
        };
        let Some(sent) = lane.sent else {
            // Closed while idle, which is anybody's right: opened anew.
            ensure!(length == 0, "{} answers unasked", self.address);
            *lane = Lane::open(self.address, &self.epoll, number)?;
            return Ok(false);
        };
        if length == 0 {
            bail!("{} closed a busy connection after {:?}", self.address, String::from_utf8_lossy(&lane.input));
        }
        lane.input.extend_from_slice(self.part.get(..length).unwrap_or_default());
        let Some(answer) = Answer::read(&lane.input).map_err(anyhow::Error::msg)? else { return Ok(false) };
        lane.sent = None;
        work.take(number, &answer, u64::try_from(sent.elapsed().as_nanos())?)?;
        Ok(true)
    }
}

impl Lane {
    fn open(address: SocketAddr, epoll: &Epoll, number: usize) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        Ok(Self { stream, input: Vec::with_capacity(16 << 10), sent: None })
    }
}

/// Asks the same over and over.
pub struct Repeat {
    request: Vec<u8>,
    expected: u16,
    /// The times of all answers since the last `clear`, nanoseconds.
    pub nanos: Vec<u64>,
    /// Answers of another status than the expected one.
    pub bad: u64,
}

impl Repeat {
    /// This request, which is answered with this status.
    #[must_use]
    pub fn new(request: Vec<u8>, expected: u16) -> Self {
        Self { request, expected, nanos: Vec::new(), bad: 0 }
    }
}

impl Work for Repeat {
    fn ask(&mut self, _: usize, request: &mut Vec<u8>) -> bool {
        request.extend_from_slice(&self.request);
        true
    }

    fn take(&mut self, _: usize, answer: &Answer<'_>, nanos: u64) -> anyhow::Result<()> {
        self.bad += u64::from(answer.status != self.expected);
        self.nanos.push(nanos);
        Ok(())
    }
}

/// The bytes of a `POST` with a JSON body of this connection-keeping kind; `fields` end in `\r\n` each.
#[must_use]
pub fn post(path: &str, host: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A body of 300 bytes, the same for every contestant.
#[must_use]
pub fn body() -> String {
    let frame = r#"{"task":"measure","input":""}"#;
    let (open, close) = frame.split_at(frame.len() - 2);
    format!("{open}{}{close}", "x".repeat(300 - frame.len()))
}
