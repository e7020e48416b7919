//! This node's rooms and connections.
//!
//! Publishing goes to the broadcaster; what comes back from it is delivered to the members that are connected here. Knows no HTTP and no
//! Redis. A room's log is the broadcaster's; the hub knows how far its members are in it and reads what they missed.

mod attendance;
mod batch;
mod check;
mod connection;
mod drain;
mod expiry;
mod flush;
mod follow;
#[cfg(test)]
mod fuzz;
mod inbox;
mod join;
mod outbox;
mod presence;
mod repair;
mod replay;
mod room;
mod serve;
mod transport;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Notify, Semaphore},
    time::{MissedTickBehavior, interval, sleep},
};

use self::{attendance::Desk, expiry::Expiry, room::Room};
pub use self::{
    connection::{Connection, ConnectionLimits},
    drain::Drained,
    join::{Attached, JoinError, Joined},
    serve::{Ending, Receive},
};
use crate::{
    broadcaster::{Broadcaster, Draft, Outlet, Page, Prepared, Publication, PublishError, ReadError, Stretch},
    config,
    metrics::Metrics,
    protocol::{ClientId, MessageId, RoomName, Roster},
    shutdown::{Readiness, Tasks},
};

/// One is looked after in each of this many parts of a heartbeat.
const SHARDS: usize = 25;
/// How long an empty room stays subscribed: reconnects and page changes come back at once.
const LINGER: Duration = Duration::from_secs(5);
/// Messages in one read of a log.
const PAGE: usize = 100;
/// Reads of logs at one time, over all rooms: for those who join, and what was missed.
const READS: usize = 16;
/// The same for requests, which must not stand in their way.
const REQUESTED_READS: usize = 4;
/// Longest wait before a failed read is tried again; taken with full jitter.
const READ_RETRY: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Shard {
    rooms: RwLock<HashMap<RoomName, Arc<Room>>>,
    connections: Mutex<HashMap<ClientId, Arc<Connection>>>,
}

/// See the module.
pub struct Hub {
    me: Weak<Self>,
    shards: [Shard; SHARDS],
    hasher: RandomState,
    broadcaster: Broadcaster,
    desk: Desk,
    reads: Semaphore,
    requested_reads: Semaphore,
    /// Something may have been missed in every room.
    suspicion: Notify,
    /// Something was said in the room that the node itself follows, or may have been.
    said: Notify,
    /// The node goes away: who attaches now is closed at once.
    closing: AtomicBool,
    expiry: Expiry,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

impl Hub {
    /// Makes the hub and starts its broadcaster, whose publications it delivers.
    #[must_use]
    pub fn start(
        broadcaster: Prepared,
        presence: config::Presence,
        tasks: Tasks,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: me.clone(),
            shards: std::array::from_fn(|_| Shard::default()),
            hasher: RandomState::new(),
            broadcaster: broadcaster.start(me.clone(), &tasks, readiness, metrics.clone()),
            desk: Desk::new(presence),
            reads: Semaphore::new(READS),
            requested_reads: Semaphore::new(REQUESTED_READS),
            suspicion: Notify::new(),
            said: Notify::new(),
            closing: AtomicBool::new(false),
            expiry: Expiry::default(),
            tasks,
            metrics,
        })
    }

    /// The broadcaster behind it.
    #[must_use]
    pub fn broadcaster(&self) -> &Broadcaster {
        &self.broadcaster
    }

    /// Sends a message to its room: see [`Broadcaster::publish`]. Every member gets it, the sender too.
    pub async fn publish(&self, draft: Draft) -> Result<Option<MessageId>, PublishError> {
        let room = draft.room.clone();
        let id = self.broadcaster.publish(draft).await?;
        // A log in this process has pushed it by now, and this is a connection's own task: deliver from here.
        if let Some(room) = self.room(&room) {
            self.flush_room(room, true);
        }
        Ok(id)
    }

    /// A stretch of a room's log, tried once, for a request.
    pub async fn history(&self, room: &RoomName, stretch: Stretch, limit: usize) -> Result<Page, ReadError> {
        let _permit = self.requested_reads.acquire().await;
        self.broadcaster.read(room, stretch, limit).await
    }

    /// Whether somebody on this node is in a room, or was a moment ago.
    #[must_use]
    pub fn has_room(&self, room: &RoomName) -> bool {
        self.room(room).is_some()
    }

    /// Registers a connection for its rooms; it leaves everything when the guard goes.
    #[must_use]
    pub fn attach(self: &Arc<Self>, connection: Arc<Connection>, rooms: Vec<RoomName>) -> Attached {
        if let Some(shard) = self.shard_of_connection(&connection) {
            shard.connections.lock().insert(connection.id(), connection.clone());
        }
        self.expect_expiry(&connection);
        if self.closing.load(Ordering::SeqCst) {
            connection.retire(drain::restart()); // an upgrade that was under way when the drain ended
        }
        self.metrics.opened.inc();
        self.metrics.connections.inc();
        Attached::new(self.clone(), connection, rooms)
    }

    fn detach<'a>(&self, connection: &Arc<Connection>, rooms: impl Iterator<Item = &'a RoomName>) {
        rooms.for_each(|name| self.leave(name, connection));
        if let Some(shard) = self.shard_of_connection(connection) {
            shard.connections.lock().remove(&connection.id());
        }
        self.metrics.connections.dec();
    }

    fn shard_of_connection(&self, connection: &Connection) -> Option<&Shard> {
        self.shards.get(connection.id().spread() % SHARDS)
    }

    /// Heartbeats, tokens that expire, and rooms that nobody came back to; for ever.
    pub async fn look_after(self: Arc<Self>, heartbeat: Duration) {
        tokio::join!(self.beat(heartbeat), self.expire());
    }

    async fn beat(&self, heartbeat: Duration) {
        let mut tick = interval(heartbeat / SHARDS as u32);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            for shard in &self.shards {
                tick.tick().await;
                let connections: Vec<_> = shard.connections.lock().values().cloned().collect();
                flush::in_turn(&connections, Connection::heartbeat);
                self.forget_empty_rooms(shard);
            }
        }
    }

    /// Connections at this moment.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.connections.lock().len()).sum()
    }

    fn has_connection(&self, connection: &Connection) -> bool {
        self.shard_of_connection(connection)
            .is_some_and(|shard| shard.connections.lock().contains_key(&connection.id()))
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        self.shards.iter().flat_map(|shard| shard.connections.lock().values().cloned().collect::<Vec<_>>()).collect()
    }

    fn rooms(&self) -> Vec<Arc<Room>> {
        self.shards.iter().flat_map(|shard| shard.rooms.read().values().cloned().collect::<Vec<_>>()).collect()
    }

    fn shard_of(&self, room: &RoomName) -> Option<&Shard> {
        self.shards.get((self.hasher.hash_one(room) % SHARDS as u64) as usize)
    }

    fn room(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.shard_of(name)?.rooms.read().get(name).cloned()
    }

    /// Puts a connection into a room, held until [`Attached::join`] has brought it up to date.
    fn enter(&self, name: &RoomName, connection: &Arc<Connection>) -> Option<(Arc<Room>, u64)> {
        let mut rooms = self.shard_of(name)?.rooms.write();
        let room = rooms.entry(name.clone()).or_insert_with(|| {
            self.broadcaster.want(name);
            Arc::new(Room::new(name.clone(), self.desk.open(name)))
        });
        // Under the map's lock, so that an empty room is not forgotten at this moment.
        let (seat, first) = room.enter(connection.clone());
        self.desk.entered(room, connection);
        self.metrics.subscriptions.inc();
        if first {
            self.metrics.rooms.inc();
        }
        Some((room.clone(), seat))
    }

    fn leave(&self, name: &RoomName, connection: &Arc<Connection>) {
        let Some(room) = self.room(name) else { return };
        let Some(last) = room.leave(connection) else { return };
        self.desk.left(&room, connection);
        self.metrics.subscriptions.dec();
        if last {
            self.metrics.rooms.dec();
        }
    }

    fn forget_empty_rooms(&self, shard: &Shard) {
        let is_over = |room: &Room| {
            let settled = room.presence.as_ref().is_none_or(|presence| presence.lock().is_settled());
            settled && room.empty_since().is_some_and(|since| since.elapsed() >= LINGER)
        };
        if !shard.rooms.read().values().any(|room| is_over(room)) {
            return;
        }
        shard.rooms.write().retain(|name, room| {
            let over = is_over(room);
            if over {
                self.broadcaster.unsubscribe(name);
            }
            !over
        });
    }

    /// Subscribes a room and finds where its log stands. Waits for Redis as long as it takes.
    async fn open(&self, room: &Room) {
        self.broadcaster.subscribe(&room.name).await;
        let top = async {
            loop {
                match self.broadcaster.top(&room.name).await {
                    Ok(top) => return top,
                    Err(_) => sleep(READ_RETRY.mul_f64(fastrand::f64())).await,
                }
            }
        };
        let (top, ()) = tokio::join!(top, self.report(room));
        if let Some(presence) = &room.presence {
            presence.lock().news(&room.name); // who joins is told in another way
        }
        room.open(top);
    }

    /// A page of a log, tried until it can be read.
    async fn read(&self, room: &RoomName, after: MessageId) -> Page {
        loop {
            let page = {
                let _permit = self.reads.acquire().await;
                self.broadcaster.read(room, Stretch::After(after), PAGE).await
            };
            match page {
                Ok(page) => return page,
                Err(error) => tracing::debug!(%room, %error, "reading the log again"),
            }
            sleep(READ_RETRY.mul_f64(fastrand::f64())).await;
        }
    }
}

impl Outlet for Hub {
    fn push(&self, publication: Publication) {
        if publication.room.is_internal() {
            return self.said.notify_one();
        }
        if let Some(room) = self.room(&publication.room) {
            room.push(publication);
        }
    }

    fn flush(&self, room: &RoomName) {
        if let Some(room) = self.room(room) {
            self.flush_room(room, false);
        }
    }

    fn roster(&self, room: &RoomName, roster: Roster) {
        if let Some(room) = self.room(room) {
            self.desk.learn(&room, roster);
        }
    }

    fn stale(&self) {
        self.desk.doubt();
        self.suspicion.notify_one();
        self.said.notify_one();
    }
}
