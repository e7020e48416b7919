//! One socket: read by tungstenite, written by whoever delivers, both through one outbox.
//!
//! During normal fan-out its task sleeps: a delivery is one write by the deliverer. The task wakes to read and when the socket was full.
//! Knows nothing of rooms or JSON.

use std::{
    io,
    os::fd::AsRawFd as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{self, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::{CapacityError, ProtocolError},
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    drain,
    outbox::{Limits, Next, Outbox},
    transport::Transport,
};
use crate::{
    auth::{Identity, Permissions, Voucher},
    config,
    limits::{Bucket, Rate},
    protocol::{ClientId, Close, Frame, Occupant, UserId},
};

/// The code of a connection that ended without a close frame (RFC 6455 §7.1.5).
const ABNORMAL: u16 = 1006;
/// The code of a close frame without one.
const NO_STATUS: u16 = 1000;
/// How long a peer gets to close its side after ours: unread input would turn the close into a reset, which eats what is in flight.
const LINGER: Duration = Duration::from_secs(2);
/// How much it may still send in that time: a peer that hears us stops; one that does not is let go.
const LINGER_BYTES: usize = 1 << 20;
/// What the kernel may hold back unsent; without it a reader could be megabytes behind before a write fails.
const NOTSENT_LOWAT: u32 = 16 * 1024;
/// tungstenite zeroes this buffer at each poll and keeps it for ever; it grows to the longest message.
const READ_BUFFER: usize = 256;
/// Room for one pong: while it waits, only the last ping after it counts.
const CONTROL_BUFFER: usize = 128;

/// Limits of one connection, from the configuration; all share them.
#[derive(Debug)]
pub struct ConnectionLimits {
    message_bytes: usize,
    message_deadline: Duration,
    bytes: Rate,
    pings: Rate,
    age: Duration,
    outbox: Limits,
}

impl ConnectionLimits {
    /// Longest message, in bytes.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Longest that a message may take to arrive.
    #[must_use]
    pub fn message_deadline(&self) -> Duration {
        self.message_deadline
    }

    /// As configured.
    #[must_use]
    pub fn new(limits: &config::Limits) -> Arc<Self> {
        let outbox = Limits { bytes: limits.outbox_bytes, age: limits.outbox_age };
        Arc::new(Self {
            message_bytes: limits.message_bytes,
            message_deadline: limits.message_deadline,
            bytes: limits.byte_rate(),
            pings: limits.message_rate(),
            age: limits.connection_age,
            outbox,
        })
    }
}

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

/// See the module. What a delivery touches stands together at the front: of a thousand members each has left the cache when its turn comes.
#[derive(Debug)]
#[repr(C)]
pub struct Connection {
    pub(super) outbox: Mutex<Outbox>,
    pub(super) socket: TcpStream,
    limits: Arc<ConnectionLimits>,
    /// A session (`chat.v1`) rather than a plain socket.
    session: bool,
    /// Heartbeats since the peer was last heard.
    pub(super) silent: AtomicU8,
    /// A message is being handled, and nothing read meanwhile.
    busy: AtomicBool,
    /// The task has to look at the outbox, or at [`Self::retiring`].
    pub(super) wake: Notify,
    /// The outbox has become empty.
    drained: Notify,
    id: ClientId,
    user: Option<UserId>,
    permissions: Mutex<Arc<Permissions>>,
    /// What the client's latest token says of itself.
    voucher: Mutex<Option<Voucher>>,
    /// When it has lasted long enough.
    ends: Option<Instant>,
    /// How to close once the message under way is done.
    retiring: OnceLock<Close>,
}

impl Connection {
    /// Takes an upgraded socket.
    pub fn new(
        socket: TcpStream,
        id: ClientId,
        identity: Identity,
        session: bool,
        limits: Arc<ConnectionLimits>,
    ) -> io::Result<Self> {
        let Identity { user, permissions, voucher } = identity;
        socket.set_nodelay(true)?;
        SockRef::from(&socket).set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        let outbox = Mutex::new(Outbox::new(session));
        // Those that came together, say after a rollout, do not go together.
        let age = limits.age.mul_f64(0.9 + fastrand::f64() / 5.0);
        let ends = (!age.is_zero()).then(|| Instant::now() + age);
        Ok(Self {
            id,
            user,
            permissions: Mutex::new(permissions),
            voucher: Mutex::new(voucher),
            session,
            socket,
            limits,
            outbox,
            wake: Notify::new(),
            drained: Notify::new(),
            ends,
            silent: AtomicU8::new(0),
            busy: AtomicBool::new(false),
            retiring: OnceLock::new(),
        })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Who it belongs to.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Whom it makes present in its rooms.
    #[must_use]
    pub fn occupant(&self) -> Occupant {
        self.user.clone().map_or(Occupant::Anonymous(self.id), Occupant::User)
    }

    /// What its client may do at this moment.
    #[must_use]
    pub fn permissions(&self) -> Arc<Permissions> {
        self.permissions.lock().clone()
    }

    /// What its client's latest token says of itself; `None`: there is none.
    #[must_use]
    pub fn voucher(&self) -> Option<Voucher> {
        *self.voucher.lock()
    }

    /// Takes what a newer token of the same user says.
    pub(super) fn renew(&self, permissions: Arc<Permissions>, voucher: Option<Voucher>) {
        *self.permissions.lock() = permissions;
        *self.voucher.lock() = voucher;
    }

    /// Whether it is a session.
    #[must_use]
    pub fn is_session(&self) -> bool {
        self.session
    }

    /// Bytes that waited as it was closed for being slow.
    #[must_use]
    pub fn evicted(&self) -> usize {
        self.outbox.lock().evicted()
    }

    /// Whether it still takes frames.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.outbox.lock().is_open()
    }

    /// Sends at once, or queues behind what waits. Never blocks; a reader over its limits is closed 1013.
    pub fn send(&self, frame: &Frame) {
        let look = self.outbox.lock().send(&self.socket, frame, self.limits.outbox);
        if look {
            self.wake.notify_one();
        }
    }

    /// Asks for what [`Self::send`] will touch: many at once are there as soon as one.
    pub(super) fn warm(&self) {
        std::hint::black_box((self.outbox.is_locked(), self.socket.as_raw_fd()));
    }

    /// Closes after what waits (a slow one: instead of what waits). Does nothing when already closing.
    pub fn close(&self, close: Close) {
        if self.outbox.lock().start_close(close) {
            self.wake.notify_one();
        }
    }

    /// Closes between two messages: one that is under way still gets its answer. False: it was told so before.
    pub(super) fn retire(&self, close: Close) -> bool {
        let first = self.retiring.set(close).is_ok();
        if first {
            self.wake.notify_one();
        }
        first
    }

    /// Ends it at once, whatever waits. False: it has ended by itself.
    pub(super) fn cut(&self) -> bool {
        let alive = {
            let mut outbox = self.outbox.lock();
            let alive = !outbox.is_dead();
            outbox.kill();
            alive
        };
        self.wake.notify_one();
        alive
    }

    /// Returns once nothing waits, or the connection is closing.
    pub(super) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let outbox = self.outbox.lock();
                if outbox.is_empty() || !outbox.is_open() {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Most bytes that may wait here.
    pub(super) fn outbox_bytes(&self) -> usize {
        self.limits.outbox.bytes
    }

    /// Closes whose token has expired at `now`, in seconds since 1970. Returns when else it does.
    pub(super) fn expire(&self, now: u64) -> Option<u64> {
        let expires_at = self.voucher()?.expires_at;
        if expires_at > now {
            return Some(expires_at);
        }
        self.close(Close::Unauthorized { reason: "expired" });
        None
    }

    /// One heartbeat: pings, and closes who was silent for two or has been here for long enough.
    pub(super) fn heartbeat(&self) {
        if self.ends.is_some_and(|ends| ends <= Instant::now()) {
            self.retire(drain::restart());
            return;
        }
        if self.busy.load(Ordering::Relaxed) {
            // It is us who do not read at the moment. Whether the peer takes what it is sent, the outbox knows.
            self.silent.store(0, Ordering::Relaxed);
        } else if self.silent.fetch_add(1, Ordering::Relaxed) >= 2 {
            self.close(Close::Heartbeat);
        } else {
            self.send(&Frame::ping());
        }
    }

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
