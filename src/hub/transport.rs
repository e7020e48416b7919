//! The socket as tungstenite sees it: what it writes goes through the outbox, what it reads is measured.
//!
//! Some floods never surface above the library (a message that is all empty fragments, or never ends), so bytes and time are counted here.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use super::Connection;
use crate::limits::{Bucket, Rate};

/// What a client's control frame has beside its payload: header and mask.
const CONTROL_HEAD: usize = 6;

/// Read at once from a socket.
const READ_BYTES: usize = 4 * 1024;

thread_local! {
    /// Where a worker reads: all its sockets share it, and none needs room of its own for more than it has begun.
    static INBOUND: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// See the module.
pub(super) struct Transport {
    connection: Arc<Connection>,
    intake: Intake,
    /// Read, and not taken by the library yet.
    rest: Bytes,
    /// Reading goes on after it: bytes were taken ahead of their time.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Transport {
    pub(super) fn new(connection: Arc<Connection>, bytes: Rate, deadline: Duration) -> Self {
        let intake = Intake { rate: bytes, deadline, bucket: Bucket::default(), begun: 0, since: None };
        Self { connection, intake, rest: Bytes::new(), pause: None }
    }

    /// A message has come out of what was read.
    pub(super) fn message(&mut self) {
        self.intake.message();
    }

    /// A ping or pong has.
    pub(super) fn control(&mut self, payload: usize) {
        self.intake.control(payload);
    }

    /// Reads once, and keeps what does not fit.
    fn read(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        INBOUND.with_borrow_mut(|inbound| {
            let read = read_once(&self.connection.socket, inbound)?;
            let bytes = inbound.get(..read).unwrap_or_default();
            let (fits, rest) = bytes.split_at(read.min(buffer.remaining()));
            buffer.put_slice(fits);
            self.rest = Bytes::copy_from_slice(rest);
            Ok(read)
        })
    }
}

/// What was read, and since when it has been no whole message.
struct Intake {
    rate: Rate,
    deadline: Duration,
    bucket: Bucket,
    /// Bytes that nothing has come out of yet.
    begun: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

impl Intake {
    /// How long to read nothing more; an error when a message has taken too long.
    fn read(&mut self, bytes: usize, now: Instant) -> io::Result<Duration> {
        self.begun += bytes;
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) > self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(self.bucket.spend(u32::try_from(bytes).unwrap_or(u32::MAX), self.rate, now))
    }

    fn message(&mut self) {
        self.begun = 0;
        self.since = None;
    }

    /// It may stand between the fragments of a message, whose time goes on.
    fn control(&mut self, payload: usize) {
        self.begun = self.begun.saturating_sub(CONTROL_HEAD + payload);
        if self.begun == 0 {
            self.since = None;
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            let fits = self.rest.len().min(buffer.remaining());
            buffer.put_slice(&self.rest.split_to(fits));
            return Poll::Ready(Ok(()));
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        loop {
            ready!(self.connection.socket.poll_read_ready(cx))?;
            match self.read(buffer) {
                Ok(read) => {
                    self.connection.silent.store(0, Ordering::Relaxed);
                    let wait = self.intake.read(read, Instant::now())?;
                    self.pause = (!wait.is_zero()).then(|| Box::pin(sleep(wait)));
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// What one read gives. A read that leaves room in the buffer has emptied the socket: it is not ready any more, and nobody asks it in vain
/// before epoll says so. (tokio does the same where it owns the socket; this one is shared.)
fn read_once(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let full = socket.try_io(Interest::READABLE, || {
        let read = rustix::io::read(socket, &mut *buffer)?;
        if read == 0 || read == buffer.len() {
            return Ok(read);
        }
        short = Some(read);
        Err(io::ErrorKind::WouldBlock.into()) // what has come since the read still counts as news
    });
    short.map_or(full, Ok)
}

impl AsyncWrite for Transport {
    /// A whole frame or nothing. Pending needs no waker: the task polls the library again when it has written what waits.
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.connection.outbox.lock().control(&self.connection.socket, bytes) {
            None => Poll::Pending,
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(look)) => {
                if look {
                    self.connection.wake.notify_one();
                }
                Poll::Ready(Ok(bytes.len()))
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_time_whatever_stands_between_its_fragments() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let intake = || Intake {
            rate: Rate::per_second(0, 0),
            deadline: Duration::from_secs(10),
            bucket: Bucket::default(),
            begun: 0,
            since: None,
        };
        let mut pings = intake();
        for second in (0..100).step_by(5) {
            assert!(pings.read(CONTROL_HEAD + 4, at(second)).is_ok(), "a client that only pings");
            pings.control(4);
        }
        let mut endless = intake();
        for second in 0..=10 {
            assert!(endless.read(CONTROL_HEAD + 50, at(second)).is_ok());
            endless.control(10);
        }
        assert_eq!(endless.read(1, at(11)).map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        let mut chatting = intake();
        for second in 0..100 {
            assert!(chatting.read(100, at(second)).is_ok());
            chatting.message();
        }
    }
}
