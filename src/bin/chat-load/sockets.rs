//! Many sockets that only are there: opened as fast as the server takes them, held, closed.
//!
//! A socket here is a stream, what is left of its last frame and a flag, so that tens of thousands fit beside the server that is measured.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::{
    event::{Timespec, epoll},
    io::Errno,
};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::{
    crowd::PATIENCE,
    frames::{self, Frames},
};

/// Upgrades under way at one time.
const AT_ONCE: usize = 64;
/// Events taken at once.
const EVENTS: usize = 256;
/// Read at once from one socket; what is larger is read in pieces.
const READ_BYTES: usize = 16 * 1024;
/// Source addresses, 127.0.0.1 and those behind it: one alone has some 28,000 ports.
const SOURCES: usize = 16;
/// The longest wait for events.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Not to wait at all: a server that wakes a sleeping client pays for it.
const AWAKE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// How the head of an answer ends.
const HEAD_END: &[u8] = b"\r\n\r\n";
const UPGRADED: &[u8] = b"HTTP/1.1 101 ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The request is out since then.
    Upgrading(Instant),
    Open,
    /// A ping of the protocol is out: its answer says that the room is joined.
    Joining,
    Ended,
}

struct One {
    stream: TcpStream,
    state: State,
    /// Before the upgrade: what there is of the answer's head.
    head: Vec<u8>,
    frames: Frames,
}

/// See the module.
pub(crate) struct Sockets {
    epoll: OwnedFd,
    address: SocketAddr,
    all: Vec<One>,
    /// Those in each state but the ended ones.
    upgrading: usize,
    joining: usize,
    open: usize,
    /// Why those ended that never were open.
    failures: Vec<String>,
    /// From the connect to the answer, in milliseconds, of each one.
    upgrade_ms: Vec<f64>,
    /// Pings answered.
    heartbeats: usize,
    buffer: Vec<u8>,
    /// Bytes that the kernel may keep for a socket that does not read.
    receive_buffer: Option<usize>,
}

impl Sockets {
    pub(crate) fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (all, failures, upgrade_ms) = Default::default();
        let buffer = vec![0; READ_BYTES];
        Ok(Self {
            epoll,
            address,
            all,
            upgrading: 0,
            joining: 0,
            open: 0,
            failures,
            upgrade_ms,
            heartbeats: 0,
            buffer,
            receive_buffer: None,
        })
    }

    /// With as little kept by the kernel as it allows.
    pub(crate) fn small(self) -> Self {
        Self { receive_buffer: Some(1), ..self }
    }

    /// Opens so many more, each in the room and with the further lines of the request's head that `request` says for its number.
    /// Those that were refused are counted, see [`Self::failures`].
    pub(crate) fn open(&mut self, more: usize, request: impl Fn(usize) -> (String, String)) -> anyhow::Result<()> {
        let end = self.all.len() + more;
        let mut heard = Instant::now();
        while self.all.len() < end || self.upgrading > 0 {
            while self.all.len() < end && self.upgrading < AT_ONCE {
                let (room, lines) = request(self.all.len());
                self.start(&room, &lines).with_context(|| format!("socket {} to {}", self.all.len(), self.address))?;
            }
            self.step(&mut heard)?;
        }
        Ok(())
    }

    /// Waits until all that are open have joined their rooms.
    pub(crate) fn join(&mut self) -> anyhow::Result<()> {
        let mut ping = Vec::new();
        frames::masked_text(r#"{"type":"ping"}"#.to_owned(), &mut ping)?;
        let mut heard = Instant::now();
        for n in 0..self.all.len() {
            while self.joining >= AT_ONCE {
                self.step(&mut heard)?;
            }
            let one = self.all.get_mut(n).context("a socket")?;
            if one.state == State::Open {
                one.stream.write_all(&ping)?;
                one.state = State::Joining;
                self.joining += 1;
            }
        }
        while self.joining > 0 {
            self.step(&mut heard)?;
        }
        Ok(())
    }

    /// Answers heartbeats for so long, wide awake. How many they were.
    pub(crate) fn hold(&mut self, duration: Duration) -> anyhow::Result<usize> {
        let (start, before) = (Instant::now(), self.heartbeats);
        while start.elapsed() < duration {
            self.look(&AWAKE)?;
        }
        Ok(self.heartbeats - before)
    }

    /// Says goodbye on all, and waits until the server has ended each.
    pub(crate) fn close(mut self) -> anyhow::Result<()> {
        let mut close = Vec::new();
        frames::masked_close(&mut close)?;
        for one in self.all.iter_mut().filter(|one| one.state == State::Open) {
            one.stream.write_all(&close)?;
        }
        let mut heard = Instant::now();
        while self.open > 0 {
            self.step(&mut heard)?;
        }
        Ok(())
    }

    /// Those that are open, joined or not.
    pub(crate) fn len(&self) -> usize {
        self.open
    }

    /// Why sockets were not opened, one text for each.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// From the connect to the answer, in milliseconds, of each upgrade.
    pub(crate) fn upgrade_ms(&self) -> &[f64] {
        &self.upgrade_ms
    }

    fn start(&mut self, room: &str, lines: &str) -> anyhow::Result<()> {
        let n = self.all.len();
        let mut source = Ipv4Addr::LOCALHOST.octets();
        source[3] += u8::try_from(n % SOURCES)?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), None)?;
        socket.bind(&SockAddr::from(SocketAddr::new(IpAddr::from(source), 0)))?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let start = Instant::now();
        socket.connect(&SockAddr::from(self.address))?;
        socket.set_tcp_nodelay(true)?;
        let mut stream = TcpStream::from(socket);
        let address = self.address;
        write!(
            stream,
            "GET /api/chat-api/ws{room} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        )?;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(n as u64), epoll::EventFlags::IN)?;
        let (head, frames) = Default::default();
        self.all.push(One { stream, state: State::Upgrading(start), head, frames });
        self.upgrading += 1;
        Ok(())
    }

    /// Takes what is there, and gives up after a long silence.
    fn step(&mut self, heard: &mut Instant) -> anyhow::Result<()> {
        if self.look(&TICK)? {
            *heard = Instant::now();
        }
        let (upgrading, joining, open) = (self.upgrading, self.joining, self.open);
        ensure!(
            heard.elapsed() < PATIENCE,
            "silence for {PATIENCE:?}; {open} sockets are open, {upgrading} wait to be, {joining} wait for their rooms"
        );
        Ok(())
    }

    /// Reads what is there. False: nothing.
    fn look(&mut self, wait: &Timespec) -> anyhow::Result<bool> {
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(wait)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let n = usize::try_from(event.data.u64())?;
            self.read(n).with_context(|| format!("socket {n}"))?;
        }
        Ok(!events.is_empty())
    }

    fn read(&mut self, n: usize) -> anyhow::Result<()> {
        let one = self.all.get_mut(n).context("a socket")?;
        let read = match one.stream.read(&mut self.buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(error.into()),
        };
        let bytes = self.buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return self.ended(n);
        }
        let State::Upgrading(since) = one.state else {
            let bytes = bytes.to_vec();
            return self.frames(n, &bytes);
        };
        one.head.extend_from_slice(bytes);
        let Some(end) = one.head.windows(HEAD_END.len()).position(|some| some == HEAD_END) else { return Ok(()) };
        self.upgrading -= 1;
        if one.head.starts_with(UPGRADED) {
            self.upgrade_ms.push(since.elapsed().as_secs_f64() * 1e3);
            let rest = one.head.split_off(end + HEAD_END.len()); // a heartbeat, perhaps
            (one.state, one.head) = (State::Open, Vec::new());
            self.open += 1;
            self.frames(n, &rest)?;
        } else {
            let head = String::from_utf8_lossy(&one.head);
            self.failures.push(head.lines().next().unwrap_or_default().to_owned());
            one.state = State::Ended;
            epoll::delete(&self.epoll, &one.stream)?;
        }
        Ok(())
    }

    fn frames(&mut self, n: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let One { stream, state, frames, .. } = self.all.get_mut(n).context("a socket")?;
        let mut pongs = Vec::new();
        let (joining, heartbeats) = (&mut self.joining, &mut self.heartbeats);
        frames.feed(bytes, |header, payload, _| {
            match header.opcode {
                OpCode::Control(Control::Ping) => {
                    frames::masked_pong(payload.to_vec(), &mut pongs)?;
                    *heartbeats += 1;
                }
                OpCode::Control(Control::Close) | OpCode::Data(Data::Text) if *state == State::Open => {}
                OpCode::Data(Data::Text) if payload == br#"{"type":"pong"}"# => {
                    *state = State::Open;
                    *joining -= 1;
                }
                other => bail!("a frame of kind {other}: {}", String::from_utf8_lossy(payload)),
            }
            Ok(())
        })?;
        Ok(stream.write_all(&pongs)?)
    }

    fn ended(&mut self, n: usize) -> anyhow::Result<()> {
        let one = self.all.get_mut(n).context("a socket")?;
        match one.state {
            State::Upgrading(_) => {
                self.upgrading -= 1;
                self.failures.push("the connection ended before an answer".to_owned());
            }
            State::Joining => bail!("the connection ended before the room was joined"),
            State::Open => self.open -= 1,
            State::Ended => {}
        }
        one.state = State::Ended;
        Ok(epoll::delete(&self.epoll, &one.stream)?)
    }
}
