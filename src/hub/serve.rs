//! The task of a [`Connection`]: reads its socket, writes what nobody else could, and ends it.
//!
//! During normal fan-out it sleeps: a delivery is one write by the deliverer. It wakes to read and when the socket was full. What is read goes to a
//! [`Receive`]; what to write is the outbox's matter.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use socket2::SockRef;
use tokio::time::{self, timeout, timeout_at};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::{CapacityError, ProtocolError},
        protocol::{Role, WebSocketConfig},
    },
};

use super::{Connection, outbox::Next, transport::Transport};
use crate::{limits::Bucket, protocol::Close};

/// The code of a connection that ended without a close frame (RFC 6455 §7.1.5).
const ABNORMAL: u16 = 1006;
/// The code of a close frame without one.
const NO_STATUS: u16 = 1000;
/// How long a peer gets to close its side after ours: unread input would turn the close into a reset, which eats what is in flight.
const LINGER: Duration = Duration::from_secs(2);
/// How much it may still send in that time: a peer that hears us stops; one that does not is let go.
const LINGER_BYTES: usize = 1 << 20;
/// tungstenite zeroes this buffer at each poll and keeps it for ever; it grows to the longest message.
const READ_BUFFER: usize = 256;
/// Room for one pong: while it waits, only the last ping after it counts.
const CONTROL_BUFFER: usize = 128;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Of the close frame, ours or theirs; 1006 for none.
    pub code: u16,
    /// Its text.
    pub reason: String,
}

/// Who handles what a client sends.
pub trait Receive: Send {
    /// One text message. The next is read once this is done, so a client that sends faster is held back by its own socket.
    fn receive(&mut self, text: &str) -> impl Future<Output = ()> + Send;

    /// One binary message, which this protocol has not. `None`: it is taken all the same.
    fn binary(&mut self, _: &[u8]) -> Option<Close> {
        Some(Close::Binary)
    }
}

impl Connection {
    /// Serves the socket to its end. `leftover` is what was read behind the upgrade request.
    pub async fn run(self: &Arc<Self>, leftover: Vec<u8>, mut receiver: impl Receive) -> Ending {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(CONTROL_BUFFER)
            .max_message_size(Some(self.limits.message_bytes))
            .max_frame_size(Some(self.limits.message_bytes));
        let transport = Transport::new(self.clone(), self.limits.bytes, self.limits.message_deadline);
        // Boxed: this is the largest wait, and over at once.
        let socket = WebSocketStream::from_partially_read(transport, leftover, Role::Server, Some(config));
        let mut socket = Box::pin(socket).await;
        // Writing comes first, so that a pong the library holds back is taken up as soon as the outbox is empty.
        let ending = tokio::select! {
            biased;
            () = self.write() => None,
            ending = self.read(&mut socket, &mut receiver) => {
                self.write().await;
                Some(ending)
            }
        };
        let (ours, dead) = {
            let outbox = self.outbox.lock();
            (outbox.close(), outbox.is_dead())
        };
        if !dead {
            self.linger().await;
        }
        let abnormal = Ending { code: ABNORMAL, reason: String::new() };
        ours.map(|close| Ending { code: close.code(), reason: close.reason() }).or(ending).unwrap_or(abnormal)
    }

    /// Ends a connection whose handler has failed: 1011.
    pub async fn fail(&self) -> Ending {
        self.close(Close::Bug);
        self.write().await;
        self.linger().await;
        Ending { code: Close::Bug.code(), reason: Close::Bug.reason() }
    }

    /// Reads until the peer closes or breaks the rules.
    async fn read(&self, socket: &mut WebSocketStream<Transport>, receiver: &mut impl Receive) -> Ending {
        let mut pings = Bucket::default();
        loop {
            let next = socket.next().await;
            if let Some(close) = self.retiring.get() {
                // What comes after it is not taken: it could not be answered.
                self.close(*close);
                return Ending { code: close.code(), reason: close.reason() };
            }
            if matches!(next, Some(Ok(ref message)) if !message.is_close()) && !self.is_open() {
                // Closed meanwhile, as for a token that was taken back, and only not read yet.
                return Ending { code: ABNORMAL, reason: String::new() };
            }
            let close = match next {
                Some(Ok(Message::Text(text))) => {
                    socket.get_mut().message();
                    self.busy.store(true, Ordering::Relaxed);
                    Box::pin(receiver.receive(&text)).await; // boxed: an idle connection should not carry the room for it
                    self.busy.store(false, Ordering::Relaxed);
                    match self.retiring.get() {
                        Some(close) => *close,
                        None => continue,
                    }
                }
                Some(Ok(Message::Ping(payload) | Message::Pong(payload))) => {
                    socket.get_mut().control(payload.len());
                    if pings.take(self.limits.pings, Instant::now()).is_ok() {
                        continue;
                    }
                    Close::Flooding
                }
                Some(Ok(Message::Frame(_))) => continue,
                Some(Ok(Message::Binary(bytes))) => {
                    socket.get_mut().message();
                    match receiver.binary(&bytes) {
                        Some(close) => close,
                        None => continue,
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    // In kind. The library's own answer could get lost behind its pongs.
                    let status = frame.as_ref().map(|frame| (frame.code.into(), frame.reason.as_str()));
                    self.outbox.lock().answer_close(status);
                    let (code, reason) = status.unwrap_or((NO_STATUS, ""));
                    return Ending { code, reason: reason.to_owned() };
                }
                Some(Err(error)) => match fault(&error) {
                    Some(close) => close,
                    None => break,
                },
                None => break,
            };
            self.close(close);
            return Ending { code: close.code(), reason: close.reason() };
        }
        self.outbox.lock().kill();
        self.drained.notify_waiters();
        Ending { code: ABNORMAL, reason: String::new() }
    }

    /// Writes what waits whenever the socket takes it; returns when nothing will follow.
    async fn write(&self) {
        loop {
            if let Some(close) = self.retiring.get()
                && !self.busy.load(Ordering::Relaxed)
            {
                self.close(*close);
            }
            let next = self.outbox.lock().flush(&self.socket, self.limits.outbox);
            if next != Next::Finished && self.outbox.lock().is_empty() {
                self.drained.notify_waiters();
            }
            match next {
                Next::Idle => self.wake.notified().await,
                Next::Blocked(until) => Box::pin(self.blocked(until)).await, // boxed: rare
                Next::Finished => {
                    self.drained.notify_waiters();
                    return;
                }
            }
        }
    }

    /// Waits until the socket takes more or there is something else to do; a peer that has not taken anything by `until` is slow.
    async fn blocked(&self, until: time::Instant) {
        let writable = tokio::select! {
            writable = timeout_at(until, self.socket.writable()) => writable.is_ok(),
            () = self.wake.notified() => true,
        };
        if !writable && !self.outbox.lock().start_close(Close::Slow) {
            self.outbox.lock().kill(); // closing already, and not even that was taken
        }
    }

    /// Ends our side, then reads what the peer still sends, for a while.
    async fn linger(&self) {
        if SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write).is_err() {
            return;
        }
        let rest = async {
            let mut taken = 0;
            while taken < LINGER_BYTES && self.socket.readable().await.is_ok() {
                let mut scratch = [0; 1024]; // not a part of the task, which has the size of its largest wait
                match self.socket.try_read(&mut scratch) {
                    Ok(read @ 1..) => taken += read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(0) | Err(_) => return,
                }
            }
        };
        let _ = timeout(LINGER, rest).await;
    }
}

/// The close code for what the peer did wrong; `None`: it has gone.
fn fault(error: &Error) -> Option<Close> {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(Close::TooBig),
        Error::Utf8(_) => Some(Close::NotUtf8),
        Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Some(Close::TooLong),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) => None,
        Error::ConnectionClosed | Error::AlreadyClosed => None,
        _ => Some(Close::Protocol),
    }
}
