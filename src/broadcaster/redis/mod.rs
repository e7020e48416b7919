//! The room log in Redis, shared by any number of nodes.
//!
//! Appending and fanning out is one atomic command ([`function`], `chat.lua`). [`publisher`] sends them, [`subscriber`] listens on one
//! connection of its own for the rooms that have members here, reads go through a pool.

mod entry;
mod function;
mod presence;
mod publisher;
mod subscriber;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::Context as _;
use deadpool_redis::{Manager, Pool, PoolError, Runtime, Timeouts};
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, RedisError, io::tcp::TcpSettings};

use uuid::Uuid;

use self::{function::Caller, publisher::Publisher, subscriber::Subscriptions};
use super::{Attendance, Counted, Draft, Outlet, Page, PublishError, ReadError, Relation, Sender, Stretch};
use crate::{
    config::{Config, Secret},
    metrics::Metrics,
    protocol::{MessageId, RoomName, Roster, UserId},
    shutdown::{Readiness, Tasks},
};

/// How long a room's epoch and last position are kept after its last message.
const META_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Messages kept of what nodes say to each other.
const INTERNAL_MESSAGES: u64 = 100_000;
/// Connections for reads; each read holds one for a round trip.
const READERS: usize = 4;

/// Of `read` in `chat.lua`: the last position, the one up to which the entries go, how they relate to the one asked for, and they.
type Reply = (String, String, String, Vec<Vec<u8>>);

/// See the module.
#[derive(Debug)]
pub struct Redis {
    /// This node among those that have somebody in a room.
    node: String,
    keys: Keys,
    caller: Caller,
    publisher: Publisher,
    subscriptions: Arc<Subscriptions>,
    metrics: Arc<Metrics>,
}

/// How to reach Redis, what it keeps, and pools that connect when first used.
#[derive(Debug)]
pub struct Settings {
    server: Server,
    keys: Keys,
    readers: Pool,
    writers: Pool,
    publishers: usize,
    deadline: Duration,
    retention: publisher::Retention,
    internal: publisher::Retention,
}

impl Settings {
    pub(super) fn new(url: &Secret, config: &Config) -> anyhow::Result<Self> {
        let server = Server::new(url, config.redis.timeout)?;
        let (log, messages) = (config.history.age, config.history.messages);
        Ok(Self {
            readers: server.pool(READERS)?,
            writers: server.pool(config.redis.publishers)?,
            publishers: config.redis.publishers,
            deadline: config.redis.publish_deadline,
            keys: Keys { prefix: config.redis.prefix.as_str().into() },
            retention: publisher::Retention { messages, log, meta: META_AGE.max(log) },
            internal: publisher::Retention {
                messages: INTERNAL_MESSAGES,
                log: config.auth.max_token_age,
                meta: META_AGE.max(config.auth.max_token_age),
            },
            server,
        })
    }
}

impl Redis {
    pub(super) fn start(
        settings: Settings,
        outlet: Weak<dyn Outlet>,
        tasks: &Tasks,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Settings { server, keys, readers, writers, publishers, deadline, retention, internal } = settings;
        let publisher = Publisher::start(&writers, publishers, &keys, (retention, internal), deadline, &metrics);
        let subscriptions = Arc::new(Subscriptions::default());
        let (caller, node) = (Caller::new(readers), Uuid::new_v4().simple().to_string());
        let subscriber = subscriber::Subscriber {
            server,
            caller: caller.clone(),
            node: node.clone(),
            keys: keys.clone(),
            subscriptions: subscriptions.clone(),
            outlet,
            readiness,
            metrics: metrics.clone(),
        };
        tasks.spawn_until_stopped(subscriber.run());
        Self { node, keys, caller, publisher, subscriptions, metrics }
    }

    pub(super) async fn publish(&self, draft: Draft) -> Result<Option<MessageId>, PublishError> {
        self.publisher.publish(draft).await
    }

    pub(super) fn want(&self, room: &RoomName) {
        self.subscriptions.want(room);
    }

    pub(super) async fn subscribe(&self, room: &RoomName) {
        self.subscriptions.confirmed(room).await;
    }

    pub(super) fn unsubscribe(&self, room: &RoomName) {
        self.subscriptions.drop_room(room);
    }

    pub(super) async fn read(&self, room: &RoomName, stretch: Stretch, limit: usize) -> Result<Page, ReadError> {
        let (position, direction) = match stretch {
            Stretch::After(after) => (after, "after"),
            Stretch::Before(before) => (before, "before"),
            Stretch::Newest => (MessageId::START, "newest"),
        };
        let mut call = function::read();
        call.arg(2).arg(self.keys.log(room)).arg(self.keys.meta(room));
        call.arg(position.epoch).arg(position.seq).arg(limit).arg(direction);
        let mut reply: Reply = self.caller.ask(&call).await?;
        if reply.2 == "fence" {
            // Another history of the data than the room's last message was written in: settled once, by whoever comes first.
            let mut fence = function::fence();
            fence.arg(2).arg(self.keys.log(room)).arg(self.keys.meta(room));
            let () = self.caller.ask(&fence).await?;
            reply = self.caller.ask(&call).await?;
        }
        self.page(room, &reply)
    }

    fn page(&self, room: &RoomName, (top, through, relation, entries): &Reply) -> Result<Page, ReadError> {
        let position = |text: &str| text.parse().map_err(|_| ReadError(format!("{text:?} is no position")));
        let relation = match relation.as_str() {
            "exact" => Relation::Exact,
            "reset" => Relation::Reset,
            earlier => Relation::Rollback(position(earlier)?),
        };
        let mut publications = Vec::with_capacity(entries.len());
        for bytes in entries {
            match entry::decode(room, bytes) {
                Ok(publication) => publications.push(publication),
                Err(error) => {
                    self.metrics.invalid_entries.inc();
                    tracing::warn!(%room, %error, "an entry of the log was ignored");
                }
            }
        }
        Ok(Page { publications, relation, through: position(through)?, top: position(top)? })
    }

    /// `None`: Redis does not know this node there; say everybody.
    pub(super) async fn attend(
        &self,
        room: &RoomName,
        attendance: &Attendance,
        most: usize,
    ) -> Result<Option<Roster>, ReadError> {
        let (word, roster): (String, Vec<u8>) =
            self.caller.ask(&presence::attend(&self.keys, &self.node, room, attendance, most)).await?;
        match (word.as_str(), presence::decode(&roster)) {
            ("ok", Some(roster)) => Ok(Some(roster)),
            ("whole", _) => Ok(None),
            _ => Err(ReadError(format!("{word:?} is no reply of the function's"))),
        }
    }

    pub(super) async fn roster(&self, room: &RoomName, most: usize) -> Result<Roster, ReadError> {
        let roster: Vec<u8> = self.caller.ask(&presence::roster(&self.keys, room, most)).await?;
        presence::decode(&roster).ok_or_else(|| ReadError("the reply is no roster".into()))
    }

    /// Where the logs of some rooms stand; `None`: it has to be read.
    pub(super) async fn tops(&self, rooms: &[RoomName]) -> Result<Vec<Option<MessageId>>, ReadError> {
        let mut call = function::tops();
        call.arg(rooms.len());
        for room in rooms {
            call.arg(self.keys.meta(room));
        }
        let tops: Vec<String> = self.caller.ask(&call).await?;
        Ok(tops.iter().map(|top| top.parse().ok()).collect())
    }

    pub(super) async fn finish(&self, limit: Duration) -> bool {
        self.publisher.finish(limit).await
    }
}

impl From<RedisError> for ReadError {
    fn from(error: RedisError) -> Self {
        Self(error.to_string())
    }
}

/// The names of a room's keys and channel, all in one hash slot.
#[derive(Debug, Clone)]
struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    fn channel(&self, room: &RoomName) -> String {
        format!("{{{}:{room}}}", self.prefix)
    }

    fn log(&self, room: &RoomName) -> String {
        format!("{{{}:{room}}}:log", self.prefix)
    }

    fn here(&self, room: &RoomName) -> String {
        format!("{{{}:{room}}}:here", self.prefix)
    }

    fn meta(&self, room: &RoomName) -> String {
        format!("{{{}:{room}}}:meta", self.prefix)
    }

    /// The key of a counted message's sender. The user's length keeps two pairs of user and sender apart that read the same together.
    fn sender(&self, draft: &Draft, counted: &Counted) -> String {
        let user = draft.user.as_ref().map_or("", UserId::as_str);
        let (kind, sender) = match &counted.sender {
            Sender::Client(sender) => ('n', sender),
            Sender::Key(key) => ('k', key),
        };
        format!("{{{}:{}}}:{kind}:{}:{user}:{sender}", self.prefix, draft.room, user.len())
    }

    /// The key of the node itself as a sender, under one of its random ids.
    fn own(&self, room: &RoomName, id: Uuid) -> String {
        format!("{{{}:{room}}}:m:{}", self.prefix, id.simple())
    }

    /// The channel on which a node hears itself.
    fn canary(&self, node: &str) -> String {
        format!("{{{}}}:canary:{node}", self.prefix)
    }

    /// The room that a channel belongs to.
    fn room_of(&self, channel: &[u8]) -> Option<RoomName> {
        let channel = std::str::from_utf8(channel).ok()?;
        let name = channel.strip_prefix('{')?.strip_prefix(&*self.prefix)?.strip_prefix(':')?.strip_suffix('}')?;
        RoomName::stored(name).ok()
    }
}

/// How to reach Redis.
#[derive(Debug, Clone)]
struct Server {
    info: ConnectionInfo,
    timeout: Duration,
}

impl Server {
    fn new(url: &Secret, timeout: Duration) -> anyhow::Result<Self> {
        let client = Client::open(url.expose()).context("redis.url is not valid")?;
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = client.get_connection_info().clone().set_tcp_settings(tcp);
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Ok(Self { info: info.set_redis_settings(settings), timeout })
    }

    /// Timeouts on everything: the crate's own response timeout is 500 ms, its pools wait for ever.
    fn settings(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(1024)
    }

    fn pool(&self, size: usize) -> anyhow::Result<Pool> {
        let manager = Manager::new_with_config(self.info.clone(), self.settings()).context("redis.url is not valid")?;
        let wait = Some(self.timeout);
        let timeouts = Timeouts { wait, create: wait, recycle: wait };
        Pool::builder(manager)
            .max_size(size)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .context("cannot make the Redis pool")
    }
}

/// A pool's error in one line, without the URL.
fn reason(error: &PoolError) -> String {
    match error {
        PoolError::Timeout(_) => "no answer in time".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_name_their_room() {
        let keys = Keys { prefix: "chat".into() };
        let room = RoomName::new("team.rust-1").unwrap();
        assert_eq!(keys.log(&room), "{chat:team.rust-1}:log");
        assert_eq!(keys.room_of(keys.channel(&room).as_bytes()), Some(room));
        for foreign in ["chat:x", "{other:x}", "{chat:}", "{chat:a b}", "{chat:x}:log", ""] {
            assert_eq!(keys.room_of(foreign.as_bytes()), None, "{foreign}");
        }
    }
}
