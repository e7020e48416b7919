//! The room log in Redis, shared by any number of nodes.
//!
//! Appending and fanning out is one atomic command ([`function`], `log.lua`). [`publisher`] sends them, [`subscriber`] listens on one connection of
//! its own for the rooms that have members here, reads go through a pool; [`master`] knows where all of them connect to. Who is in a room is
//! [`presence`]'s (`presence.lua`).

mod certificates;
mod entry;
mod function;
mod inspect;
mod master;
mod presence;
mod publisher;
mod sentinel;
mod server;
mod subscriber;
mod trouble;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::bail;
use tokio::time::timeout;
use uuid::Uuid;

pub use self::{
    certificates::{CertificateError, Certificates},
    inspect::Inspection,
    sentinel::place_of,
};
use self::{
    function::{Caller, Function},
    master::Master,
    publisher::Publisher,
    server::Server,
    subscriber::{Known, Subscriber, Subscriptions},
    trouble::Trouble,
};
use super::{Attendance, Counted, Draft, Outlet, Page, PublishError, ReadError, Relation, Sender, Stretch};
use crate::{
    config::{Config, Durability, Secret},
    metrics::Metrics,
    protocol::{MessageId, RoomName, Roster, UserId},
    shutdown::{Readiness, Tasks},
};

/// How long a room's epoch and last position are kept after its last message.
const META_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Messages kept of what nodes say to each other.
const INTERNAL_MESSAGES: u64 = 100_000;

/// Of `read` in `log.lua`: the last position, the one up to which the entries go, how they relate to the one asked for, and they.
type Reply = (String, String, String, Vec<Vec<u8>>);
/// Of `attend` in `presence.lua`: a word, and who is in the room.
type Attended = (String, Vec<u8>);

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

/// How to reach Redis, and what it keeps.
#[derive(Debug)]
pub struct Settings {
    master: Arc<Master>,
    keys: Keys,
    publishers: usize,
    timeout: Duration,
    deadline: Duration,
    durability: Durability,
    retention: publisher::Retention,
    internal: publisher::Retention,
}

impl Settings {
    pub(super) fn new(url: &Secret, config: &Config) -> anyhow::Result<Self> {
        let (log, messages) = (config.history.age, config.history.messages);
        Ok(Self {
            master: Arc::new(Master::new(url, &config.redis)?),
            publishers: config.redis.publishers,
            timeout: config.redis.timeout,
            deadline: config.redis.publish_deadline,
            durability: config.redis.durability,
            keys: Keys { prefix: config.redis.prefix.as_str().into() },
            retention: publisher::Retention { messages, log, meta: META_AGE.max(log) },
            internal: publisher::Retention {
                messages: INTERNAL_MESSAGES,
                log: config.auth.longest_life(),
                meta: META_AGE.max(config.auth.longest_life()),
            },
        })
    }

    /// An error if Redis is there, and will never do. One that is not there, or not fit now, is waited for.
    pub(super) async fn check(&self) -> anyhow::Result<()> {
        let look = async {
            let site = self.master.find().await?;
            let mut connection = site.subscriber(|_| Ok(())).await?;
            Server::examine(&mut connection).await
        };
        match timeout(self.timeout, look).await {
            Ok(Err(trouble @ Trouble::Cluster)) => bail!("redis.url: {trouble}"),
            _ => Ok(()),
        }
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
        let Settings { master, keys, publishers, deadline, durability, retention, internal, .. } = settings;
        let publisher = Publisher::start(&master, publishers, &keys, (retention, internal), deadline, &metrics);
        let subscriptions = Arc::new(Subscriptions::default());
        let (caller, node) = (Caller::new(master.clone(), metrics.clone()), Uuid::new_v4().simple().to_string());
        let subscriber = Subscriber {
            master: master.clone(),
            caller: caller.clone(),
            node: node.clone(),
            keys: keys.clone(),
            durability,
            subscriptions: subscriptions.clone(),
            outlet,
            readiness,
            metrics: metrics.clone(),
            known: Known::default(),
        };
        tasks.spawn_until_stopped(master.keep_found());
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
        let mut call = Function::Read.call();
        call.arg(2).arg(self.keys.log(room)).arg(self.keys.meta(room));
        call.arg(position.epoch).arg(position.seq).arg(limit).arg(direction);
        let mut reply: Reply = self.caller.ask(&call).await?;
        if reply.2 == "fence" {
            // Another history of the data than the room's last message was written in: settled once, by whoever comes first.
            let mut fence = Function::Fence.call();
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
        let reply: Attended =
            self.caller.ask(&presence::attend(&self.keys, &self.node, room, attendance, most)).await?;
        attended(&reply)
    }

    /// The same for rooms of which there is nothing new to say.
    pub(super) async fn renew(
        &self,
        rooms: &[RoomName],
        lease: Duration,
        most: usize,
    ) -> Result<Vec<Option<Roster>>, ReadError> {
        let replies: Vec<Attended> =
            self.caller.ask(&presence::renew(&self.keys, &self.node, rooms, lease, most)).await?;
        replies.iter().map(attended).collect()
    }

    pub(super) async fn roster(&self, room: &RoomName, most: usize) -> Result<Roster, ReadError> {
        let roster: Vec<u8> = self.caller.ask(&presence::roster(&self.keys, room, most)).await?;
        presence::decode(&roster).ok_or_else(|| ReadError("the reply is no roster".into()))
    }

    /// Where the logs of some rooms stand; `None`: it has to be read.
    pub(super) async fn tops(&self, rooms: &[RoomName]) -> Result<Vec<Option<MessageId>>, ReadError> {
        let mut call = Function::Tops.call();
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

fn attended((word, roster): &Attended) -> Result<Option<Roster>, ReadError> {
    match (word.as_str(), presence::decode(roster)) {
        ("ok", Some(roster)) => Ok(Some(roster)),
        ("whole", _) => Ok(None),
        _ => Err(ReadError(format!("{word:?} is no reply of the function's"))),
    }
}

/// The function library, for whoever loads it beforehand.
#[must_use]
pub fn functions() -> String {
    function::source()
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

    /// The channel on which a node hears itself; no room's, as those have names.
    fn canary(&self, node: &str) -> String {
        format!("{{{}:}}:canary:{node}", self.prefix)
    }

    /// The room that a channel belongs to.
    fn room_of(&self, channel: &[u8]) -> Option<RoomName> {
        let channel = std::str::from_utf8(channel).ok()?;
        let name = channel.strip_prefix('{')?.strip_prefix(&*self.prefix)?.strip_prefix(':')?.strip_suffix('}')?;
        RoomName::stored(name).ok()
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
