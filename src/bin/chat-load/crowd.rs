//! The clients: sockets in rooms that talk, and check that every member gets every message once and in order.
//!
//! One thread, one epoll, busy: a client that slept would have its wake-ups charged to the server that sends to it.

mod paced;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use rustix::{
    event::{Timespec, epoll},
    io::Errno,
};
use tokio_tungstenite::tungstenite::{
    Message, WebSocket,
    client::{IntoClientRequest as _, client_with_config},
    handshake::client::Request,
    protocol::{
        WebSocketConfig,
        frame::coding::{Control, Data, OpCode},
    },
};

use crate::{
    frames::{self, Frames},
    scenario::Scenario,
};

/// Length of the JSON that a client sends: a short message.
pub(crate) const TEXT_BYTES: usize = 64;
/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Read at once from one socket.
const READ_BYTES: usize = 64 * 1024;
/// Events taken at once.
const EVENTS: usize = 256;
/// A message is a JSON string that ends in its number, and the envelope ends with the message.
const DIGITS: usize = 10;
const END: &str = "\"}";
const START: &str = "{\"payload\":\"";

/// What has arrived.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Count {
    /// Messages that every member has.
    pub(crate) messages: u64,
    /// Frames with a message in them.
    pub(crate) deliveries: u64,
    /// Of these frames, headers included.
    pub(crate) bytes: u64,
}

struct Member {
    stream: TcpStream,
    frames: Frames,
    room: usize,
    /// Number of the message that it has to get next.
    next: u64,
    /// On another server than the one that is measured: what it gets is checked, but is no delivery of that one.
    away: bool,
}

#[derive(Default)]
struct Room {
    sent: u64,
    complete: u64,
    /// Members that have a message, by its number modulo the messages in flight.
    arrived: Vec<usize>,
}

/// See the module.
pub(crate) struct Crowd {
    epoll: OwnedFd,
    members: Vec<Member>,
    rooms: Vec<Room>,
    scenario: Scenario,
    /// Length of the text that is sent for a message.
    text_bytes: usize,
    count: Count,
    buffer: Vec<u8>,
    /// When each message was due, if that is asked.
    schedule: Option<paced::Schedule>,
}

impl Crowd {
    /// Opens all sockets, one after the other; they have joined their rooms when this returns.
    pub(crate) fn connect(address: SocketAddr, scenario: Scenario, text_bytes: usize) -> anyhow::Result<Self> {
        Self::connect_apart(address, address, scenario, text_bytes)
    }

    /// The same with the first member of each room, who talks, on another server.
    pub(crate) fn connect_apart(
        address: SocketAddr,
        first: SocketAddr,
        scenario: Scenario,
        text_bytes: usize,
    ) -> anyhow::Result<Self> {
        let (epoll, home) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, address);
        let mut members = Vec::new();
        for n in 0..scenario.rooms * scenario.members {
            let room = n / scenario.members;
            let address = if n % scenario.members == 0 { first } else { address };
            let away = address != home;
            let stream = open(address, &scenario.path(room)).with_context(|| format!("socket {n} to {address}"))?;
            epoll::add(&epoll, &stream, epoll::EventData::new_u64(n as u64), epoll::EventFlags::IN)?;
            members.push(Member { stream, frames: Frames::default(), room, next: 0, away });
        }
        let room = || Room { arrived: vec![0; scenario.in_flight], ..Room::default() };
        let rooms = (0..scenario.rooms).map(|_| room()).collect();
        let count = Count::default();
        let buffer = vec![0; READ_BYTES];
        Ok(Self { epoll, members, rooms, scenario, text_bytes, count, buffer, schedule: None })
    }

    /// What has arrived so far.
    pub(crate) fn count(&self) -> Count {
        self.count
    }

    /// Makes the messages longer or shorter from here on.
    pub(crate) fn set_text_bytes(&mut self, text_bytes: usize) {
        self.text_bytes = text_bytes;
    }

    /// Talks for so long, then waits until everything has arrived; fails on a frame that is missing, doubled or out of order.
    /// Returns what has arrived and how long that took.
    pub(crate) fn talk(&mut self, duration: Duration) -> anyhow::Result<(Count, Duration)> {
        let (before, start) = (self.count, Instant::now());
        let end = start + duration;
        (0..self.rooms.len()).try_for_each(|room| self.speak(room, false))?;
        let mut events = Vec::with_capacity(EVENTS);
        let mut heard = Instant::now();
        while self.rooms.iter().any(|room| room.complete < room.sent) {
            self.wait(&mut events)?;
            let now = Instant::now();
            if events.is_empty() {
                ensure!(now.duration_since(heard) < PATIENCE, "{}", self.missing());
                std::thread::yield_now();
                continue;
            }
            heard = now;
            for event in events.drain(..) {
                let room = self.read(usize::try_from(event.data.u64())?)?;
                self.speak(room, now >= end)?;
            }
        }
        let count = Count {
            messages: self.count.messages - before.messages,
            deliveries: self.count.deliveries - before.deliveries,
            bytes: self.count.bytes - before.bytes,
        };
        Ok((count, start.elapsed()))
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> anyhow::Result<()> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&at_once)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what may be in flight in a room, in one write; at the end only what makes the number of messages a round one: who joins so
    /// many before sending them would wait for the rest.
    fn speak(&mut self, room: usize, end: bool) -> anyhow::Result<()> {
        let in_flight = self.scenario.in_flight as u64;
        let state = self.rooms.get(room).context("a room")?;
        let free = (state.complete + in_flight).saturating_sub(state.sent);
        let free = if end { free.min(state.sent.next_multiple_of(in_flight) - state.sent) } else { free };
        if free == 0 { Ok(()) } else { self.say(room, free) }
    }

    /// Sends the next messages of a room, in one write.
    fn say(&mut self, room: usize, messages: u64) -> anyhow::Result<()> {
        let Scenario { members, all_talk, .. } = self.scenario;
        let state = self.rooms.get_mut(room).context("a room")?;
        let speaker = if all_talk { usize::try_from(state.sent)? % members } else { 0 };
        let speaker = self.members.get_mut(room * members + speaker).context("a member")?;
        let mut bytes = Vec::new();
        for _ in 0..messages {
            frames::masked_text(message(state.sent, self.text_bytes), &mut bytes)?;
            state.sent += 1;
        }
        speaker.stream.write_all(&bytes).context("cannot send")
    }

    /// Reads one socket once; returns its room.
    fn read(&mut self, n: usize) -> anyhow::Result<usize> {
        let Self { members, rooms, scenario, count, buffer, schedule, .. } = self;
        let Member { stream, frames, room, next, away } = members.get_mut(n).context("a member")?;
        let Room { arrived, complete, .. } = rooms.get_mut(*room).context("a room")?;
        let read = stream.read(buffer)?;
        ensure!(read > 0, "member {n}: the connection ended");
        let mut pongs = Vec::new();
        let mut take = |opcode: OpCode, payload: &[u8], length: usize| {
            match opcode {
                OpCode::Data(Data::Text) => {}
                OpCode::Control(Control::Ping) => return frames::masked_pong(payload.to_vec(), &mut pongs),
                other => bail!("a frame of kind {other}: {}", String::from_utf8_lossy(payload)),
            }
            let number =
                number(payload).with_context(|| format!("no message: {}", String::from_utf8_lossy(payload)))?;
            ensure!(number == *next, "message {number} instead of {next}");
            *next += 1;
            if !*away {
                count.deliveries += 1;
                count.bytes += length as u64;
            }
            if let Some(schedule) = schedule {
                schedule.arrived(number);
            }
            let slot = usize::try_from(number)? % scenario.in_flight;
            let arrived = arrived.get_mut(slot).context("a slot")?;
            *arrived += 1;
            if *arrived == scenario.members {
                *arrived = 0;
                *complete += 1;
                count.messages += 1;
            }
            Ok(())
        };
        frames
            .feed(buffer.get(..read).unwrap_or_default(), |header, payload, length| {
                take(header.opcode, payload, length)
            })
            .with_context(|| format!("member {n}"))?;
        stream.write_all(&pongs)?;
        Ok(*room)
    }

    fn missing(&self) -> anyhow::Error {
        let open = self.rooms.iter().map(|room| room.sent - room.complete).sum::<u64>();
        let behind = self
            .members
            .iter()
            .filter(|member| self.rooms.get(member.room).is_some_and(|room| member.next < room.sent));
        anyhow!("{open} messages have not reached every member in {PATIENCE:?}; {} members wait", behind.count())
    }
}

/// Upgrades a socket, and returns once it has joined its room.
fn open(address: SocketAddr, room: &str) -> anyhow::Result<TcpStream> {
    Ok(upgraded(request(address, room)?, address)?.into_inner())
}

/// For a socket in a room (`/room`) or in the lobby alone (nothing).
pub(crate) fn request(address: SocketAddr, room: &str) -> anyhow::Result<Request> {
    Ok(format!("ws://{address}/api/chat-api/ws{room}").into_client_request()?)
}

/// Opens a socket and waits for the answer to a ping: it has joined its room then. Nothing is read behind that.
pub(crate) fn upgraded(request: Request, address: SocketAddr) -> anyhow::Result<WebSocket<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let (mut socket, _) = client_with_config(request, stream, Some(config)).map_err(|error| anyhow!("{error}"))?;
    socket.send(Message::text(r#"{"type":"ping"}"#))?;
    answered(&mut socket)?;
    Ok(socket)
}

/// Waits for the answer to a ping: the first frame of all but heartbeats and a session's welcome, and nothing is read behind it.
fn answered(socket: &mut WebSocket<TcpStream>) -> anyhow::Result<()> {
    loop {
        match socket.read()? {
            Message::Text(text) if text.contains("pong") => return Ok(()),
            Message::Text(text) if text.starts_with(r#"{"type":"welcome""#) => {}
            Message::Ping(_) => {}
            other => bail!("not a pong: {other}"),
        }
    }
}

/// A message of that number, as a client sends it, in so many bytes.
pub(crate) fn message(number: u64, text_bytes: usize) -> String {
    let width = text_bytes.saturating_sub(START.len() + END.len()).max(DIGITS);
    format!("{START}{number:0width$}{END}")
}

/// Of a message, in whatever envelope.
pub(crate) fn number(envelope: &[u8]) -> Option<u64> {
    let digits = envelope.strip_suffix(END.as_bytes())?;
    let digits = digits.get(digits.len().checked_sub(DIGITS)?..)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_and_its_number() {
        for length in [24, 64, 200] {
            let text = message(1234, length);
            assert_eq!(text.len(), length);
            assert_eq!(number(text.as_bytes()), Some(1234));
        }
        assert_eq!(number(br#"{"type":"error","code":"unavailable"}"#), None);
        assert_eq!(number(b"\"}"), None);
    }
}
