//! The least a server can do for a message in a room: read it, and send it to each member's socket. And for a quiet socket: ping it, and
//! read the answer.
//!
//! One thread, blocking sockets, no checks, nothing kept: what is left is what the kernel takes. With a batch of one it is a bare loop of
//! `send`; with more, so many messages are joined and each member gets them in one `send`.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use rustix::event::{Timespec, epoll};
use tokio_tungstenite::tungstenite::{
    Message, accept_hdr,
    handshake::server::{Request, Response},
    protocol::frame::coding::{Data, OpCode},
};

use crate::frames::{self, Frames};

/// Read at once from one socket.
const READ_BYTES: usize = 64 * 1024;
/// Events taken at once.
const EVENTS: usize = 256;
/// The event of the listener; members have their numbers.
const LISTENER: u64 = u64::MAX;
/// Parts of a heartbeat; each pings its share of the members.
const TURNS: u32 = 25;
const PING: [u8; 2] = [0x89, 0];

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Messages that are joined before they are sent.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Members are pinged once in this time, and need not say that they are there.
    #[arg(long, value_parser = humantime::parse_duration)]
    heartbeat: Option<Duration>,
}

struct Member {
    stream: TcpStream,
    frames: Frames,
    room: usize,
}

#[derive(Default)]
struct Room {
    members: Vec<usize>,
    /// Frames that are ready to go, and how many.
    waiting: Vec<u8>,
    count: usize,
}

struct Server {
    listener: TcpListener,
    epoll: OwnedFd,
    members: Vec<Member>,
    rooms: Vec<Room>,
    /// Index of a room by its path.
    paths: HashMap<String, usize>,
    batch: usize,
    pulse: Option<Pulse>,
}

/// Whose turn it is to be pinged, and when.
struct Pulse {
    interval: Duration,
    due: Instant,
    turn: usize,
}

/// Says where it listens, then serves until the first socket ends.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let (members, rooms, paths) = Default::default();
    let pulse = |heartbeat| Pulse { interval: heartbeat / TURNS, due: Instant::now(), turn: 0 };
    let pulse = options.heartbeat.map(pulse);
    let mut server = Server { listener, epoll, members, rooms, paths, batch: options.batch.max(1), pulse };
    writeln!(std::io::stdout(), "{address}")?;
    server.serve()?;
    Ok(ExitCode::SUCCESS)
}

impl Server {
    fn serve(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let wait = self.ping()?.map(Timespec::try_from).transpose()?;
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), wait.as_ref())?;
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    n if self.read(usize::try_from(n)?, &mut buffer)? => {}
                    _ => return Ok(()),
                }
            }
        }
    }

    /// Pings those whose turn it is. How long until the next turn.
    fn ping(&mut self) -> anyhow::Result<Option<Duration>> {
        let Some(Pulse { interval, due, turn }) = &mut self.pulse else { return Ok(None) };
        if Instant::now() >= *due {
            for member in self.members.iter_mut().skip(*turn).step_by(TURNS as usize) {
                member.stream.write_all(&PING)?;
            }
            (*due, *turn) = ((*due + *interval).max(Instant::now()), (*turn + 1) % TURNS as usize);
        }
        Ok(Some(due.saturating_duration_since(Instant::now())))
    }

    /// Upgrades a socket, puts it into the room of its path, and answers the ping that asks whether this is done.
    fn accept(&mut self) -> anyhow::Result<()> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nodelay(true)?;
        let mut path = String::new();
        #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
        let note = |request: &Request, response: Response| {
            request.uri().path().clone_into(&mut path);
            Ok(response)
        };
        let mut socket = accept_hdr(stream, note).map_err(|error| anyhow!("{error}"))?;
        if self.pulse.is_none() {
            socket.read()?;
            socket.send(Message::text(r#"{"type":"pong"}"#))?;
        }
        let stream = socket.into_inner();
        let n = self.members.len();
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(n as u64), epoll::EventFlags::IN)?;
        let next = self.rooms.len();
        let room = *self.paths.entry(path).or_insert(next);
        if room == next {
            self.rooms.push(Room::default());
        }
        self.rooms.get_mut(room).context("a room")?.members.push(n);
        self.members.push(Member { stream, frames: Frames::default(), room });
        Ok(())
    }

    /// Reads once from a socket and passes on what came. False: it has ended.
    fn read(&mut self, n: usize, buffer: &mut [u8]) -> anyhow::Result<bool> {
        let Member { stream, frames, room } = self.members.get_mut(n).context("a member")?;
        let room = self.rooms.get_mut(*room).context("a room")?;
        let read = stream.read(buffer)?;
        let mut due = Vec::new();
        frames.feed(buffer.get(..read).unwrap_or_default(), |header, payload, _| {
            if header.opcode != OpCode::Data(Data::Text) {
                return Ok(()); // the answer to a ping
            }
            let mask = header.mask.unwrap_or_default();
            let text = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            frames::text(text, &mut room.waiting)?;
            room.count += 1;
            if room.count == self.batch {
                due.push(std::mem::take(&mut room.waiting));
                room.count = 0;
            }
            Ok(())
        })?;
        for frames in due {
            for member in &room.members {
                self.members.get_mut(*member).context("a member")?.stream.write_all(&frames)?;
            }
        }
        Ok(read > 0)
    }
}
