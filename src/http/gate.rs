//! What one node lets in, over all its clients: upgrades, connections of a user or an address, new rooms, messages to the lobby, answers
//! that nobody takes.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Problem;
use crate::{
    config::Limits,
    limits::{Bucket, Buckets, Rate, Recent},
    metrics::{Limit, Metrics},
    protocol::{Occupant, ProblemCode, RoomName, UserId},
};

/// Most bytes of history that wait for those who asked for them, each page of them for `limits.outbox_age` at most since it last moved.
const ANSWERS: usize = 64 << 20;
/// Rooms that are remembered for having been published to by request.
const ROOMS: usize = 10_000;
/// How soon there may be room for more.
const ANSWERS_RETRY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Gate {
    connections_per_user: u32,
    connections_per_address: u32,
    users: Mutex<HashMap<UserId, u32>>,
    addresses: Mutex<HashMap<IpAddr, u32>>,
    upgrade_rate: Rate,
    upgrades: Mutex<Bucket>,
    lobby_rate: Rate,
    lobby: Mutex<Bucket>,
    new_rooms: Mutex<Buckets<Occupant>>,
    requests: Mutex<Buckets<UserId>>,
    published: Mutex<Recent<RoomName>>,
    answers: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A connection's place among those of its user and address, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    user: Option<UserId>,
    address: Option<IpAddr>,
}

impl Gate {
    /// As configured.
    #[must_use]
    pub fn new(limits: &Limits, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            connections_per_user: limits.connections_per_user,
            connections_per_address: limits.connections_per_address,
            users: Mutex::default(),
            addresses: Mutex::default(),
            upgrade_rate: limits.upgrade_rate(),
            upgrades: Mutex::default(),
            lobby_rate: limits.lobby_rate(),
            lobby: Mutex::default(),
            new_rooms: Mutex::new(Buckets::new(limits.new_room_rate())),
            requests: Mutex::new(Buckets::new(limits.message_rate())),
            published: Mutex::new(Recent::new(ROOMS)),
            answers: Arc::new(Semaphore::new(ANSWERS)),
            metrics,
        })
    }

    /// One upgrade of the node's.
    pub(super) fn upgrade(&self) -> Result<(), Problem> {
        let taken = self.upgrades.lock().take(self.upgrade_rate, Instant::now());
        self.note(Limit::Upgrades, taken).map_err(|wait| {
            let detail = "this node opens as many sockets a second as it may; another one takes you";
            Problem::new(ProblemCode::Busy, detail).retry_after(wait)
        })
    }

    /// A place for one connection.
    pub(super) fn admit(self: &Arc<Self>, user: Option<&UserId>, address: IpAddr) -> Result<Place, Problem> {
        let refuse = |limit: Limit, code: ProblemCode, detail: &str| {
            self.metrics.limited(limit).inc();
            Problem::new(code, detail)
        };
        let user = user.filter(|_| self.connections_per_user > 0);
        let address = Some(network(address)).filter(|_| self.connections_per_address > 0);
        let mut place = Place { gate: self.clone(), user: None, address: None };
        if let Some(user) = user {
            if !enter(&self.users, user, self.connections_per_user) {
                let detail = "this user has as many connections to this node as one user may: close one";
                return Err(refuse(Limit::UserConnections, ProblemCode::UserConnections, detail));
            }
            place.user = Some(user.clone());
        }
        if let Some(address) = address {
            if !enter(&self.addresses, &address, self.connections_per_address) {
                let detail = "this address has as many connections to this node as one address may: close one";
                return Err(refuse(Limit::AddressConnections, ProblemCode::AddressConnections, detail));
            }
            place.address = Some(address);
        }
        Ok(place)
    }

    /// A room that nobody on this node was in; or how long to wait.
    pub(super) fn new_room(&self, occupant: &Occupant) -> Result<(), Duration> {
        let taken = self.new_rooms.lock().take(occupant, Instant::now());
        self.note(Limit::NewRooms, taken)
    }

    /// Whether a room was published to by request lately: it is no new one, though nobody here is in it.
    pub(super) fn was_published_to(&self, room: &RoomName) -> bool {
        self.published.lock().has(room)
    }

    /// A room was published to by request.
    pub(super) fn published_to(&self, room: &RoomName) {
        self.published.lock().note(room);
    }

    /// A message to the lobby; or how long to wait.
    pub(super) fn lobby_message(&self) -> Result<(), Duration> {
        let taken = self.lobby.lock().take(self.lobby_rate, Instant::now());
        self.note(Limit::Lobby, taken)
    }

    /// A user's message by request; or how long to wait.
    pub(super) fn request(&self, user: &UserId) -> Result<(), Duration> {
        let taken = self.requests.lock().take(user, Instant::now());
        self.note(Limit::Messages, taken)
    }

    /// An answer of some size, which counts until it is sent.
    pub(super) fn answer(&self, text: Vec<u8>) -> Result<Bytes, Problem> {
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        match self.answers.clone().try_acquire_many_owned(bytes) {
            Ok(place) => Ok(Bytes::from_owner(Answer { text, _place: place })),
            Err(_) => {
                self.metrics.limited(Limit::Answers).inc();
                let detail =
                    "too many answers of this node wait for readers that do not take them; another one takes you";
                Err(Problem::new(ProblemCode::Busy, detail).retry_after(ANSWERS_RETRY))
            }
        }
    }

    fn note(&self, limit: Limit, taken: Result<(), Duration>) -> Result<(), Duration> {
        if taken.is_err() {
            self.metrics.limited(limit).inc();
        }
        taken
    }
}

/// See [`Gate::answer`].
struct Answer {
    text: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.text
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            leave(&self.gate.users, user);
        }
        if let Some(address) = &self.address {
            leave(&self.gate.addresses, address);
        }
    }
}

/// Of a user who opens one room after the other.
pub(super) fn new_rooms(wait: Duration) -> Problem {
    Problem::new(ProblemCode::NewRooms, "you open new rooms faster than one user may").retry_after(wait)
}

/// Who counts as one address: of IPv6 the /64, which is the least that anybody is given.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

fn enter<K: Hash + Eq + Clone>(counts: &Mutex<HashMap<K, u32>>, key: &K, most: u32) -> bool {
    let mut counts = counts.lock();
    let count = counts.entry(key.clone()).or_default();
    let enters = *count < most;
    *count += u32::from(enters);
    enters
}

fn leave<K: Hash + Eq>(counts: &Mutex<HashMap<K, u32>>, key: &K) {
    let mut counts = counts.lock();
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
