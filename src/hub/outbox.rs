//! What waits for one socket: whole frames, bounded in bytes and age, written without ever blocking the writer.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use tokio::{net::TcpStream, time::Instant};

use crate::protocol::{Close, Event, Frame};

/// Longest wait for a peer to take what is left once its socket is closing.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Most frames in one vectored write.
const SLICES: usize = 64;
const OPCODE: u8 = 0x0f;
const OPCODE_CLOSE: u8 = 0x8;

/// When a reader is slow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    pub(super) age: Duration,
}

/// Where a socket is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// A close frame is the last thing queued; nothing else is taken.
    Closing {
        until: Instant,
    },
    /// The socket failed; nothing goes out any more.
    Dead,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    bytes: Bytes,
    /// Made by the WebSocket library: a pong.
    control: bool,
}

/// What there is to do for the connection's task.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing waits.
    Idle,
    /// The socket is full; too slow if it still is at this time.
    Blocked(Instant),
    /// The last byte has left, or none will any more.
    Finished,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: VecDeque<Waiting>,
    bytes: usize,
    /// Part of the first frame has left: it must be completed before anything else.
    begun: bool,
    phase: Phase,
    /// Why we close, once we do.
    close: Option<Close>,
    /// The peer is told more than the close frame says.
    session: bool,
}

impl Outbox {
    pub(super) fn new(session: bool) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, begun: false, phase: Phase::Open, close: None, session }
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn close(&self) -> Option<Close> {
        self.close
    }

    /// Sends at once if nothing waits, else queues. True: the connection's task has to look.
    pub(super) fn send(&mut self, socket: &TcpStream, frame: &Frame, limits: Limits) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let idle = self.queue.is_empty();
        if idle && self.write_now(socket, frame.bytes(), false) {
            return self.is_dead();
        }
        if !idle {
            self.push(frame.bytes().clone(), false);
        }
        if self.bytes > limits.bytes {
            self.start_close(Close::Slow);
            return true;
        }
        idle
    }

    /// Takes what the WebSocket library writes: whole control frames. `None`: one is waiting already.
    pub(super) fn control(&mut self, socket: &TcpStream, frames: &[u8]) -> Option<io::Result<bool>> {
        match self.phase {
            Phase::Dead => return Some(Err(io::ErrorKind::BrokenPipe.into())),
            Phase::Closing { .. } => return Some(Ok(false)), // our close frame is the last word
            Phase::Open => {}
        }
        let closes = holds_close(frames);
        if !closes && self.queue.iter().any(|waiting| waiting.control) {
            return None;
        }
        let bytes = Bytes::copy_from_slice(frames);
        let idle = self.queue.is_empty();
        let sent = idle && self.write_now(socket, &bytes, true);
        if !idle {
            self.push(bytes, true);
        }
        if closes && self.phase == Phase::Open {
            self.phase = Phase::Closing { until: Instant::now() + CLOSE_PATIENCE };
            return Some(Ok(true));
        }
        Some(Ok(!sent || self.is_dead()))
    }

    /// Makes a close frame the last thing to go out. False: it is closing already.
    pub(super) fn start_close(&mut self, close: Close) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        if close.discards_outbox() {
            self.queue.truncate(usize::from(self.begun));
            self.bytes = self.queue.iter().map(|waiting| waiting.bytes.len()).sum();
        }
        self.close = Some(close);
        if let Close::Restart { after_ms } = close
            && self.session
        {
            // Queued together they leave in one write.
            self.push(Event::Reconnect { after_ms }.frame().bytes().clone(), false);
        }
        self.push(Frame::close(close).bytes().clone(), false);
        self.phase = Phase::Closing { until: Instant::now() + CLOSE_PATIENCE };
        true
    }

    /// The peer has gone.
    pub(super) fn kill(&mut self) {
        self.phase = Phase::Dead;
        self.queue = VecDeque::new();
        self.bytes = 0;
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self, socket: &TcpStream, limits: Limits) -> Next {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.queue.len().min(SLICES);
            for (slice, waiting) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(&waiting.bytes);
            }
            match socket.try_write_vectored(&slices[..count]) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.blocked(limits),
                Err(_) => self.kill(),
            }
        }
        if self.queue.capacity() > SLICES {
            self.queue = VecDeque::new(); // what a slow moment took is given back
        }
        if self.phase == Phase::Open { Next::Idle } else { Next::Finished }
    }

    fn blocked(&self, limits: Limits) -> Next {
        match self.phase {
            Phase::Closing { until } => Next::Blocked(until),
            Phase::Open | Phase::Dead => {
                let since = self.queue.front().map_or_else(Instant::now, |waiting| waiting.since);
                Next::Blocked(since + limits.age)
            }
        }
    }

    /// Only for an empty queue. True: all of it has left, or never will; else the rest is queued.
    fn write_now(&mut self, socket: &TcpStream, bytes: &Bytes, control: bool) -> bool {
        match socket.try_write(bytes) {
            Ok(written) if written == bytes.len() => true,
            Ok(written) => {
                self.push(bytes.slice(written..), control);
                self.begun = written > 0;
                false
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.push(bytes.clone(), control);
                false
            }
            Err(_) => {
                self.kill();
                true
            }
        }
    }

    fn push(&mut self, bytes: Bytes, control: bool) {
        self.bytes += bytes.len();
        self.queue.push_back(Waiting { since: Instant::now(), bytes, control });
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(first) = self.queue.front_mut() {
            if written < first.bytes.len() {
                first.bytes.advance(written);
                self.begun |= written > 0;
                return;
            }
            written -= first.bytes.len();
            self.queue.pop_front();
            self.begun = false;
        }
    }
}

/// Whether a run of whole, unmasked control frames has a close frame in it.
fn holds_close(mut frames: &[u8]) -> bool {
    while let [first, length, rest @ ..] = frames {
        if first & OPCODE == OPCODE_CLOSE {
            return true;
        }
        frames = rest.get(usize::from(length & 0x7f)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_is_found_behind_a_pong() {
        assert!(!holds_close(&[0x8a, 2, 0x88, 0x88]));
        assert!(holds_close(&[0x8a, 2, 1, 2, 0x88, 2, 3, 232]));
        assert!(holds_close(&[0x88, 0]));
        assert!(!holds_close(&[]));
    }
}
