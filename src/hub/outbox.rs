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
    /// What waited for a reader that was too slow.
    evicted: usize,
    /// The peer is told more than the close frame says.
    session: bool,
}

impl Outbox {
    pub(super) fn new(session: bool) -> Self {
        Self { queue: VecDeque::new(), bytes: 0, begun: false, phase: Phase::Open, close: None, evicted: 0, session }
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

    pub(super) fn evicted(&self) -> usize {
        self.evicted
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

    /// Takes what the WebSocket library writes: whole pongs. `None`: one is waiting already.
    pub(super) fn control(&mut self, socket: &TcpStream, frames: &[u8]) -> Option<io::Result<bool>> {
        match self.phase {
            Phase::Dead => return Some(Err(io::ErrorKind::BrokenPipe.into())),
            Phase::Closing { .. } => return Some(Ok(false)), // our close frame is the last word
            Phase::Open => {}
        }
        if self.queue.iter().any(|waiting| waiting.control) {
            return None;
        }
        let bytes = Bytes::copy_from_slice(frames);
        let idle = self.queue.is_empty();
        let sent = idle && self.write_now(socket, &bytes, true);
        if !idle {
            self.push(bytes, true);
        }
        Some(Ok(!sent || self.is_dead()))
    }

    /// Makes a close frame the last thing to go out. False: it is closing already.
    pub(super) fn start_close(&mut self, close: Close) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        if close == Close::Slow {
            self.evicted = self.bytes;
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
        self.end_with(&Frame::close(close));
        true
    }

    /// Answers the peer's close frame, unless ours is on its way.
    pub(super) fn answer_close(&mut self, status: Option<(u16, &str)>) {
        if self.phase == Phase::Open {
            self.end_with(&Frame::closing(status));
        }
    }

    fn end_with(&mut self, frame: &Frame) {
        self.push(frame.bytes().clone(), false);
        self.phase = Phase::Closing { until: Instant::now() + CLOSE_PATIENCE };
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpSocket},
        runtime, task,
    };

    use super::*;
    use crate::fuzz::fuzz;

    /// The longest, which may be over the limit.
    const PONG: usize = 127;
    const LIMITS: Limits = Limits { bytes: 100_000, age: Duration::from_secs(60) };
    /// So small that a frame leaves in several writes.
    const SOCKET_BUFFER: u32 = 4096;

    #[derive(Debug, Clone)]
    enum Step {
        Send(usize),
        Pong(usize),
        Flush,
        Read(usize),
        Close(Close),
        Answer,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            20 => (0_usize..20_000).prop_map(Step::Send),
            8 => (0_usize..=125).prop_map(Step::Pong),
            8 => Just(Step::Flush),
            8 => (1_usize..30_000).prop_map(Step::Read),
            1 => proptest::sample::select(&Close::ALL[..]).prop_map(Step::Close),
            1 => Just(Step::Answer),
        ]
    }

    /// An outbox, the other end of its socket, and what has gone in and come out.
    struct Run {
        outbox: Outbox,
        ours: TcpStream,
        theirs: TcpStream,
        accepted: Vec<Bytes>,
        received: Vec<u8>,
    }

    impl Run {
        async fn start(listener: &TcpListener) -> Self {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
            let (theirs, ours) = tokio::join!(socket.connect(listener.local_addr().unwrap()), listener.accept());
            let (theirs, ours) = (theirs.unwrap(), ours.unwrap().0);
            socket2::SockRef::from(&ours).set_send_buffer_size(SOCKET_BUFFER as usize).unwrap();
            Self { outbox: Outbox::new(false), ours, theirs, accepted: Vec::new(), received: Vec::new() }
        }

        async fn step(&mut self, step: &Step) {
            let open = self.outbox.is_open();
            let taken = match step {
                Step::Send(length) => {
                    let frame = Frame::data(0x82, &vec![self.accepted.len() as u8; *length]);
                    self.outbox.send(&self.ours, &frame, LIMITS);
                    Some(frame)
                }
                Step::Pong(length) => {
                    let frame = Frame::data(0x8a, &vec![self.accepted.len() as u8; *length]);
                    let taken = self.outbox.control(&self.ours, frame.bytes());
                    taken.map(Result::unwrap).map(|_| frame)
                }
                Step::Flush => {
                    self.outbox.flush(&self.ours, LIMITS);
                    None
                }
                Step::Read(length) => {
                    let mut buffer = vec![0; *length];
                    let read = self.theirs.try_read(&mut buffer).unwrap_or(0);
                    self.received.extend(&buffer[..read]);
                    None
                }
                Step::Close(close) => self.outbox.start_close(*close).then(|| Frame::close(*close)),
                Step::Answer => {
                    self.outbox.answer_close(None);
                    Some(Frame::closing(None))
                }
            };
            self.accepted.extend(taken.filter(|_| open).map(|frame| frame.bytes().clone()));
            if open && self.outbox.close() == Some(Close::Slow) && !matches!(step, Step::Close(_)) {
                self.accepted.push(Frame::close(Close::Slow).bytes().clone());
            }
            let waiting = self.outbox.queue.iter().map(|waiting| waiting.bytes.len()).sum::<usize>();
            assert_eq!(self.outbox.bytes, waiting, "what waits is counted");
            assert!(!open || !self.outbox.is_open() || waiting <= LIMITS.bytes + PONG, "and limited");
            assert!(self.outbox.queue.iter().filter(|waiting| waiting.control).count() <= 1, "one pong at most waits");
            task::yield_now().await; // lets the runtime look at the sockets
        }

        /// Closes, if nobody has, and lets everything out.
        async fn end(mut self) -> (Vec<Bytes>, Vec<u8>) {
            self.step(&Step::Close(Close::Normal)).await;
            let Self { mut outbox, ours, mut theirs, accepted, mut received } = self;
            let flush = async move {
                while let Next::Blocked(_) = outbox.flush(&ours, LIMITS) {
                    ours.writable().await.unwrap();
                }
            };
            tokio::join!(flush, theirs.read_to_end(&mut received)).1.unwrap();
            (accepted, received)
        }
    }

    /// Frames leave whole, in order and without anything between them, however the socket takes them; the last is the close frame. Only a close
    /// that says so drops any, and never one that has begun.
    #[test]
    fn fuzz_outbox() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        fuzz(file!(), vec(step(), 0..60), |steps| {
            let (mut accepted, received) = runtime.block_on(async {
                let mut run = Run::start(&listener).await;
                for step in &steps {
                    run.step(step).await;
                }
                run.end().await
            });
            let close = accepted.pop().unwrap();
            let mut rest = received.strip_suffix(&close[..]).expect("the close frame comes last");
            let left: Vec<_> = accepted
                .iter()
                .take_while(|frame| match rest.strip_prefix(&frame[..]) {
                    Some(more) => {
                        rest = more;
                        true
                    }
                    None => false,
                })
                .collect();
            let dropped = [Close::Slow, Close::Heartbeat].map(|close| Frame::close(close).bytes().clone());
            assert!(rest.is_empty(), "nothing but what was accepted");
            assert!(left.len() == accepted.len() || dropped.contains(&close), "nothing is dropped");
        });
    }
}
