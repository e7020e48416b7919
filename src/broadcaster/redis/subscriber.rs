//! Listens on one connection for the rooms that have members here.
//!
//! Which rooms those are is a set ([`Subscriptions`]); the task makes the connection agree with it, now and after every reconnect. What was
//! missed meanwhile is the outlet's to read from the log: it is told that every room is stale.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use redis::{Client, PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, oneshot},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Keys, Server, entry, presence};
use crate::{broadcaster::Outlet, metrics::Metrics, protocol::RoomName, shutdown::Readiness};

/// Channels in one SUBSCRIBE.
const CHUNK: usize = 1000;
/// A server that was stopped sends nothing, so it is asked this often.
const PING_EVERY: Duration = Duration::from_secs(2);
/// First and longest wait before the next try to connect; each is taken with full jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Rooms that are wanted, and those that Redis has confirmed.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    wanted: HashSet<RoomName>,
    confirmed: HashSet<RoomName>,
    waiting: HashMap<RoomName, Vec<oneshot::Sender<()>>>,
}

impl Subscriptions {
    pub(super) fn want(&self, room: &RoomName) {
        if self.state.lock().wanted.insert(room.clone()) {
            self.changed.notify_one();
        }
    }

    pub(super) fn drop_room(&self, room: &RoomName) {
        let state = &mut *self.state.lock();
        state.waiting.remove(room);
        if state.wanted.remove(room) {
            self.changed.notify_one();
        }
    }

    /// Returns once what is published to `room` arrives here.
    pub(super) async fn confirmed(&self, room: &RoomName) {
        loop {
            let confirmation = {
                let state = &mut *self.state.lock();
                if state.confirmed.contains(room) {
                    return;
                }
                let (sender, confirmation) = oneshot::channel();
                let waiting = state.waiting.entry(room.clone()).or_default();
                waiting.retain(|sender| !sender.is_closed()); // joins that were given up meanwhile
                waiting.push(sender);
                confirmation
            };
            // An error means that a reconnect came between: ask again.
            if confirmation.await.is_ok() {
                return;
            }
        }
    }

    fn lost(&self) {
        self.state.lock().confirmed.clear();
    }

    /// What to subscribe and unsubscribe for the connection to agree with what is wanted. What is to be unsubscribed counts as gone at once: a
    /// room that comes back meanwhile waits for a SUBSCRIBE that follows.
    fn difference(&self) -> (Vec<RoomName>, Vec<RoomName>) {
        let state = &mut *self.state.lock();
        let missing = state.wanted.difference(&state.confirmed).cloned().collect();
        let surplus: Vec<RoomName> = state.confirmed.difference(&state.wanted).cloned().collect();
        state.confirmed.retain(|room| state.wanted.contains(room));
        (missing, surplus)
    }

    fn subscribed(&self, rooms: &[RoomName]) {
        let state = &mut *self.state.lock();
        for room in rooms {
            state.confirmed.insert(room.clone());
            for waiting in state.waiting.remove(room).into_iter().flatten() {
                let _ = waiting.send(());
            }
        }
    }
}

pub(super) struct Subscriber {
    pub(super) server: Server,
    pub(super) keys: Keys,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) outlet: Weak<dyn Outlet>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Arc<Metrics>,
}

impl Subscriber {
    pub(super) async fn run(self) {
        let mut connected_before = false;
        let mut failures: u32 = 0;
        loop {
            let closed = Arc::new(Notify::new());
            match self.connect(&closed).await {
                Ok(mut connection) => {
                    tracing::info!(reconnect = connected_before, "subscribed to Redis");
                    failures = 0;
                    let error = self.serve(&mut connection, connected_before, &closed).await;
                    tracing::warn!(%error, "lost the subscription to Redis; sockets stay, publishes are refused until it is back");
                    connected_before = true;
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "cannot reach Redis; trying on");
                    }
                    failures = failures.saturating_add(1);
                }
            }
            self.subscriptions.lost();
            self.readiness.redis_down();
            self.metrics.redis_up.set(0);
            let longest = (BACKOFF.0 * 2_u32.saturating_pow(failures.min(8))).min(BACKOFF.1);
            sleep(longest.mul_f64(fastrand::f64())).await;
        }
    }

    /// A connection with every wanted room subscribed.
    async fn connect(&self, closed: &Arc<Notify>) -> RedisResult<MultiplexedConnection> {
        let client = Client::open(self.server.info.clone())?;
        let settings = self.server.settings().set_push_sender(self.receiver(closed.clone()));
        let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
        self.reconcile(&mut connection).await?;
        Ok(connection)
    }

    /// Keeps the connection in agreement and alive until it fails.
    async fn serve(&self, connection: &mut MultiplexedConnection, again: bool, closed: &Notify) -> String {
        self.readiness.redis_up();
        self.metrics.redis_up.set(1);
        if again {
            self.metrics.redis_reconnects.inc();
        }
        if let Some(outlet) = self.outlet.upgrade() {
            outlet.stale();
        }
        let mut ping = interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let result = tokio::select! {
                () = closed.notified() => return "closed by Redis".into(),
                () = self.subscriptions.changed.notified() => self.reconcile(connection).await,
                _ = ping.tick() => redis::cmd("PING").query_async(connection).await,
            };
            if let Err(error) = result {
                return error.to_string();
            }
        }
    }

    async fn reconcile(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let (missing, surplus) = self.subscriptions.difference();
        let channels = |rooms: &[RoomName]| rooms.iter().map(|room| self.keys.channel(room)).collect::<Vec<_>>();
        for rooms in missing.chunks(CHUNK) {
            connection.subscribe(channels(rooms)).await?;
            self.subscriptions.subscribed(rooms);
        }
        for rooms in surplus.chunks(CHUNK) {
            connection.unsubscribe(channels(rooms)).await?;
        }
        Ok(())
    }

    /// Called by the connection's own task for everything that Redis pushes; must not block.
    fn receiver(
        &self,
        closed: Arc<Notify>,
    ) -> impl Fn(PushInfo) -> Result<(), std::convert::Infallible> + Send + Sync + 'static {
        let (keys, outlet, metrics) = (self.keys.clone(), self.outlet.clone(), self.metrics.clone());
        move |push| {
            match (push.kind, push.data.as_slice()) {
                (PushKind::Disconnection, _) => closed.notify_one(),
                (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) => {
                    receive(&keys, &outlet, &metrics, channel, payload);
                }
                _ => {}
            }
            Ok(())
        }
    }
}

fn receive(keys: &Keys, outlet: &Weak<dyn Outlet>, metrics: &Metrics, channel: &[u8], payload: &[u8]) {
    let (Some(room), Some(outlet)) = (keys.room_of(channel), outlet.upgrade()) else { return };
    if let Some(roster) = presence::decode(payload) {
        return outlet.roster(&room, roster);
    }
    match entry::decode(&room, payload) {
        Ok(publication) => {
            outlet.push(publication);
            outlet.flush(&room);
        }
        Err(error) => {
            metrics.invalid_entries.inc();
            tracing::debug!(%room, %error, "a publication was ignored; the room's next one makes it read the log");
        }
    }
}
