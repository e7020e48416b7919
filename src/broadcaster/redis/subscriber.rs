//! Listens on one connection for the rooms that have members here.
//!
//! Which rooms those are is a set ([`Subscriptions`]); the task makes the connection agree with it, now and after every reconnect. What was
//! missed meanwhile is the outlet's to read from the log: it is told that every room is stale.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use redis::{PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use super::{
    Keys, entry,
    function::{self, Call, Caller, Function},
    master::{Master, Site},
    presence,
    server::Server,
    trouble::Trouble,
};
use crate::{broadcaster::Outlet, config::Durability, metrics::Metrics, protocol::RoomName, shutdown::Readiness};

/// Channels in one SUBSCRIBE.
const CHUNK: usize = 1000;
/// How often the node speaks to itself through Redis: a server that was stopped, and a subscription that leads nowhere, send nothing.
const CANARY_EVERY: Duration = Duration::from_secs(2);
/// Silence of the subscription, while Redis answers, from which on it counts as dead.
const SILENCE: Duration = Duration::from_secs(6);
/// Canaries in a row that Redis may leave unanswered.
const UNANSWERED: u32 = 2;
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
    pub(super) master: Arc<Master>,
    /// For the canary: another connection than the subscription's.
    pub(super) caller: Caller,
    pub(super) node: String,
    pub(super) keys: Keys,
    pub(super) durability: Durability,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) outlet: Weak<dyn Outlet>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) known: Known,
}

/// What is known of Redis, so that news are noticed.
#[derive(Default)]
pub(super) struct Known {
    /// Which history of the data it has.
    identity: Option<String>,
    server: Option<Server>,
    trouble: Option<Trouble>,
    /// When a canary last came back.
    heard: Option<Instant>,
}

/// What the connection's own task says to ours.
#[derive(Default)]
struct Signs {
    /// Redis has closed the connection.
    closed: Notify,
    /// The canary has come back.
    heard: Notify,
}

/// The subscription: a connection, and where it goes.
struct Link {
    site: Arc<Site>,
    connection: MultiplexedConnection,
    signs: Arc<Signs>,
}

/// One after the other, each with what Redis said: the identity. Waits for nobody: rooms are subscribed meanwhile.
fn canaries(caller: Caller, call: Call) -> impl Stream<Item = Result<String, Trouble>> {
    let mut tick = interval_at(Instant::now() + CANARY_EVERY, CANARY_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream::unfold((tick, caller, call), async |(mut tick, caller, call)| {
        tick.tick().await;
        Some((caller.ask(&call).await, (tick, caller, call)))
    })
}

impl Subscriber {
    pub(super) async fn run(mut self) {
        let mut connected_before = false;
        let mut failures: u32 = 0;
        loop {
            let trouble = match self.connect().await {
                Ok(link) => {
                    tracing::info!(reconnect = connected_before, "subscribed to Redis");
                    failures = 0;
                    self.known.trouble = None;
                    if connected_before {
                        self.metrics.redis_reconnects.inc();
                    }
                    connected_before = true;
                    self.serve(link).await
                }
                Err(trouble) => {
                    failures = failures.saturating_add(1);
                    trouble
                }
            };
            self.subscriptions.lost();
            self.metrics.redis_up.set(0);
            self.note_trouble(trouble);
            if self.is_deaf().await {
                self.readiness.redis_deaf();
            }
            let longest = (BACKOFF.0 * 2_u32.saturating_pow(failures.min(8))).min(BACKOFF.1);
            sleep(longest.mul_f64(fastrand::f64())).await;
        }
    }

    /// A connection to the master on which a call has succeeded, with every wanted room, and the canary, subscribed.
    async fn connect(&mut self) -> Result<Link, Trouble> {
        let site = self.master.find().await?;
        let signs = Arc::new(Signs::default());
        let mut connection = site.subscriber(self.receiver(signs.clone())).await?;
        self.note_server(Server::examine(&mut connection).await?);
        connection.subscribe(self.keys.canary(&self.node)).await?;
        let identity = function::ask(&mut connection, &self.canary()).await?;
        self.note_identity(identity);
        // Open before the subscription's is lost: a later one may lead where that leads (see is_deaf).
        drop(site.canary().await?);
        self.reconcile(&mut connection).await?;
        Ok(Link { site, connection, signs })
    }

    /// Keeps the connection in agreement and proves it, until it fails.
    async fn serve(&mut self, link: Link) -> Trouble {
        let Link { site, mut connection, signs } = link;
        self.stale();
        let mut canaries = pin!(canaries(self.caller.clone(), self.canary()));
        let (mut heard, mut unanswered) = (Instant::now(), 0);
        loop {
            tokio::select! {
                () = signs.closed.notified() => return Trouble::Unreachable("it closed the connection".into()),
                () = site.left() => return Trouble::Unreachable("the master is elsewhere now".into()),
                () = signs.heard.notified() => {
                    heard = Instant::now();
                    self.known.heard = Some(heard);
                    self.readiness.redis_up();
                    self.metrics.canary_heard();
                    self.metrics.redis_up.set(1);
                }
                () = self.subscriptions.changed.notified() => {
                    if let Err(error) = self.reconcile(&mut connection).await {
                        return error.into();
                    }
                }
                Some(answer) = canaries.next() => match answer {
                    Ok(identity) => {
                        unanswered = 0;
                        self.note_identity(identity);
                        if heard.elapsed() > SILENCE {
                            self.readiness.redis_deaf();
                            return Trouble::Unreachable("it is silent here, while it answers elsewhere".into());
                        }
                    }
                    Err(trouble) => {
                        unanswered += 1;
                        if unanswered >= UNANSWERED || matches!(trouble, Trouble::Replica | Trouble::NoLibrary) {
                            return trouble;
                        }
                    }
                },
            }
        }
    }

    /// Redis answers on another connection, though none for the subscription has been had for longer than it may be silent.
    async fn is_deaf(&self) -> bool {
        self.known.heard.is_some_and(|heard| heard.elapsed() > SILENCE)
            && self.caller.ask::<String>(&self.canary()).await.is_ok()
    }

    fn canary(&self) -> Call {
        let mut call = Function::Canary.call();
        call.arg(1).arg(self.keys.canary(&self.node));
        call
    }

    /// Says it where it counts, and in the log if it is news.
    fn note_trouble(&mut self, trouble: Trouble) {
        self.readiness.redis_down(trouble.is_answer().then(|| trouble.to_string()));
        if self.known.trouble.as_ref() != Some(&trouble) {
            if trouble.is_answer() {
                tracing::error!(%trouble, "Redis cannot be used; trying on");
            } else {
                tracing::warn!(%trouble, "Redis is away; sockets stay, publishes are refused until it is back");
            }
        }
        self.known.trouble = Some(trouble);
    }

    fn note_server(&mut self, server: Server) {
        self.metrics.durability(self.durability.as_str(), server.durability(self.durability).as_str());
        if self.known.server.as_ref() != Some(&server) {
            server.report(self.durability);
        }
        self.known.server = Some(server);
    }

    /// Another history of the data: every room has to be looked at.
    fn note_identity(&mut self, present: String) {
        let known = &mut self.known.identity;
        if known.as_ref() == Some(&present) {
            return;
        }
        self.metrics.redis_fenced.set(i64::from(!present.is_empty()));
        if present.is_empty() {
            tracing::warn!(
                "this Redis does not show its replication id: messages that it loses in a failover are not noticed"
            );
        }
        if known.replace(present).is_some() {
            tracing::warn!("Redis was restarted or failed over; looking at every room");
            self.stale();
        }
    }

    fn stale(&self) {
        if let Some(outlet) = self.outlet.upgrade() {
            outlet.stale();
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
        signs: Arc<Signs>,
    ) -> impl Fn(PushInfo) -> Result<(), std::convert::Infallible> + Send + Sync + 'static {
        let (keys, outlet, metrics) = (self.keys.clone(), self.outlet.clone(), self.metrics.clone());
        let canary = self.keys.canary(&self.node);
        move |push| {
            match (push.kind, push.data.as_slice()) {
                (PushKind::Disconnection, _) => signs.closed.notify_one(),
                (PushKind::Message, [Value::BulkString(channel), _]) if *channel == canary.as_bytes() => {
                    signs.heard.notify_one();
                }
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
