//! One client's connection, as all who deliver to it hold it: who it is, what it may do, and how it is sent to and closed.
//!
//! Whoever delivers writes to the socket, through the outbox; the connection's own task is `serve`. Knows nothing of rooms or JSON.

use std::{
    io,
    os::fd::AsRawFd as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{net::TcpStream, sync::Notify};

use super::{
    drain,
    outbox::{Limits, Outbox},
};
use crate::{
    auth::{Identity, Permissions, Voucher},
    config,
    limits::Rate,
    protocol::{ClientId, Close, Frame, Occupant, UserId},
};

/// What the kernel may hold back unsent; without it a reader could be megabytes behind before a write fails.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// Limits of one connection, from the configuration; all share them.
#[derive(Debug)]
pub struct ConnectionLimits {
    pub(super) message_bytes: usize,
    pub(super) message_deadline: Duration,
    pub(super) bytes: Rate,
    pub(super) pings: Rate,
    age: Duration,
    pub(super) outbox: Limits,
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

/// See the module. What a delivery touches stands together at the front: of a thousand members each has left the cache when its turn comes.
#[derive(Debug)]
#[repr(C)]
pub struct Connection {
    pub(super) outbox: Mutex<Outbox>,
    pub(super) socket: TcpStream,
    pub(super) limits: Arc<ConnectionLimits>,
    /// A session (`chat.v1`) rather than a plain socket.
    session: bool,
    /// Heartbeats since the peer was last heard.
    pub(super) silent: AtomicU8,
    /// A message is being handled, and nothing read meanwhile.
    pub(super) busy: AtomicBool,
    /// The task has to look at the outbox, or at [`Self::retiring`].
    pub(super) wake: Notify,
    /// The outbox has become empty.
    pub(super) drained: Notify,
    id: ClientId,
    user: Option<UserId>,
    permissions: Mutex<Arc<Permissions>>,
    /// What the client's latest token says of itself.
    voucher: Mutex<Option<Voucher>>,
    /// When it has lasted long enough.
    ends: Option<Instant>,
    /// How to close once the message under way is done.
    pub(super) retiring: OnceLock<Close>,
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
}
