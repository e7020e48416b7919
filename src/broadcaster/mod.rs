//! The room log and its fan-out between nodes.
//!
//! Every message goes through here, on one node or many: it is appended to its room's log, gets its position there, and comes back as a
//! [`Publication`] on every node that has members in the room. Knows nothing of members or sockets: publications leave through an [`Outlet`].

mod local;
mod logs;
mod presence;
mod redis;
mod senders;

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use self::{
    presence::Attendance,
    redis::{CertificateError, Certificates, Inspection, functions, place_of},
};

use crate::{
    config::{self, Config},
    metrics::Metrics,
    protocol::{ClientId, Count, Frame, MessageId, Outcome, RoomName, Roster, UserId},
    shutdown::{Readiness, Tasks},
    telemetry::trace::TraceContext,
};

/// A moment by the clock of some node, which another node's may differ from: microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(u64);

impl Stamp {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Seconds since then; 0 where the clocks say that it is still to come.
    #[must_use]
    pub fn elapsed(self) -> f64 {
        Self::now().0.saturating_sub(self.0) as f64 / 1e6
    }
}

/// A message that wants a place in a log.
#[derive(Debug)]
pub struct Draft {
    /// Where to.
    pub room: RoomName,
    /// The sender's own word for what it is.
    pub kind: String,
    /// The sender's connection.
    pub client: ClientId,
    /// The sender's user id; absent for an anonymous one.
    pub user: Option<UserId>,
    /// Any JSON.
    pub payload: Box<RawValue>,
    /// Asks for exactly once.
    pub counted: Option<Counted>,
    /// Not for the log: whoever is there now gets it, in order with what is stored.
    pub ephemeral: bool,
    /// Carried to the nodes that deliver; absent when the message is not traced.
    pub trace: Option<TraceContext>,
    /// When it came.
    pub received: Stamp,
}

impl Draft {
    /// The counter as the message shows it: its sender's own, and none for a key.
    fn n(&self) -> Option<u64> {
        let counted = self.counted.as_ref()?;
        matches!(counted.sender, Sender::Client(_)).then_some(counted.count.n)
    }
}

/// Who counts: two kinds that never meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sender {
    /// A client's own id for itself, the same over its connections.
    Client(String),
    /// The `Idempotency-Key` of one request.
    Key(String),
}

/// A sender's place in its own sequence. The log keeps the last one per (room, user, sender) and stores each `n` at most once.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Who counts.
    pub sender: Sender,
    /// Where this message stands.
    pub count: Count,
    /// How long the log remembers it.
    pub keep: Duration,
}

/// How a counted message relates to the last one that the log has.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// The log has it already.
    Again,
    /// It is the next.
    Next,
    /// Something before it never arrived.
    Gap { last_n: u64 },
}

impl Turn {
    /// The same rule as in `chat.lua`.
    fn of(count: Count, last: u64) -> Self {
        if count.n <= last {
            Self::Again
        } else if count.n == last + 1 || count.n == count.base {
            Self::Next
        } else {
            Self::Gap { last_n: last.max(count.base - 1) }
        }
    }
}

/// How long a sender's last counter is kept after its last message.
pub const SENDER_AGE: Duration = Duration::from_secs(2 * 3600);

/// Where a publication stands in its room's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its position.
    pub id: MessageId,
    /// The position before it. A reader that is not there has missed something.
    pub prev: MessageId,
}

/// A message on its way to every member of its room.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Whose log.
    pub room: RoomName,
    /// Its place there; an ephemeral one has none.
    pub place: Option<Place>,
    /// The message, encoded.
    pub frame: Frame,
    /// The publisher's trace.
    pub trace: Option<TraceContext>,
    /// When the publisher's node had it; absent where an older release published it.
    pub received: Option<Stamp>,
}

/// Which part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// What follows a position; [`MessageId::START`] for the log's beginning.
    After(MessageId),
    /// What comes right before a position.
    Before(MessageId),
    /// The newest.
    Newest,
}

/// How what was read relates to the position asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It touches the position exactly.
    Exact,
    /// The log lost what stood at the position: it follows this earlier one exactly, where the lost part began.
    Rollback(MessageId),
    /// The log does not know the position, or no longer has what is next to it. What is asked for after it begins with the oldest kept; before it
    /// there is nothing.
    Reset,
}

impl Relation {
    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "recovered",
            Self::Rollback(_) => "rollback",
            Self::Reset => "reset",
        }
    }
}

/// A stretch of a log.
#[derive(Debug)]
pub struct Page {
    /// In order, without holes.
    pub publications: Vec<Publication>,
    /// To the position asked for.
    pub relation: Relation,
    /// The position up to which the page goes; `top` when nothing follows.
    pub through: MessageId,
    /// The log's last position when it was read.
    pub top: MessageId,
}

/// Where publications go: the hub.
pub trait Outlet: Send + Sync {
    /// Takes a publication, in the order of its room's log. Must not block; nothing is sent yet.
    fn push(&self, publication: Publication);
    /// Sends what was pushed for a room, from a task of the outlet's own.
    fn flush(&self, room: &RoomName);
    /// Who is in a room has changed.
    fn roster(&self, room: &RoomName, roster: Roster);
    /// Something may have been missed in every room.
    fn stale(&self);
}

/// Why a publish was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// It never reached the log.
    #[error("the message log cannot be reached; nothing was stored")]
    Refused,
    /// The log did not answer.
    #[error("the message log did not answer; the message may or may not be stored")]
    Unknown,
    /// A counted message came before its turn; nothing was stored.
    #[error("messages before this one never arrived: send again from n = {}", last_n + 1)]
    Gap {
        /// The last that is settled.
        last_n: u64,
    },
}

impl PublishError {
    /// What is known of the message.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused | Self::Gap { .. } => Outcome::Refused,
            Self::Unknown => Outcome::Unknown,
        }
    }
}

/// The log could not be read; worth another try.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the message log cannot be read: {0}")]
pub struct ReadError(String);

/// The log and its fan-out: in this process, or in Redis.
#[derive(Debug)]
pub enum Broadcaster {
    /// One node; the log is in memory and ends with it.
    Local(Box<local::Local>),
    /// Any number of nodes.
    Redis(Box<redis::Redis>),
}

/// A broadcaster whose settings are known to be good.
#[derive(Debug)]
pub enum Prepared {
    /// See [`Broadcaster::Local`].
    Local(config::History),
    /// See [`Broadcaster::Redis`].
    Redis(Box<redis::Settings>),
}

impl Prepared {
    /// As configured. An invalid `redis.url` is an error; a Redis that is down is not.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        match &config.redis.url {
            None => Ok(Self::Local(config.history.clone())),
            Some(url) => Ok(Self::Redis(Box::new(redis::Settings::new(url, config)?))),
        }
    }

    /// An error if what is configured is there, and will never do.
    pub async fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Local(_) => Ok(()),
            Self::Redis(settings) => settings.check().await,
        }
    }

    /// What there is to know of the Redis that is configured, if one is.
    ///
    /// # Errors
    /// When it cannot be used at the moment, with the reason.
    pub async fn inspect(&self) -> anyhow::Result<Option<Inspection>> {
        match self {
            Self::Local(_) => Ok(None),
            Self::Redis(settings) => Ok(Some(settings.inspect().await?)),
        }
    }

    /// Starts the tasks it needs.
    #[must_use]
    pub fn start(
        self,
        outlet: Weak<dyn Outlet>,
        tasks: &Tasks,
        readiness: Arc<Readiness>,
        metrics: Arc<Metrics>,
    ) -> Broadcaster {
        match self {
            Self::Local(history) => Broadcaster::Local(Box::new(local::Local::new(&history, outlet))),
            Self::Redis(settings) => {
                Broadcaster::Redis(Box::new(redis::Redis::start(*settings, outlet, tasks, readiness, metrics)))
            }
        }
    }
}

impl Broadcaster {
    /// The word for `messaging.system` in traces.
    #[must_use]
    pub fn system(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::Redis(_) => "redis",
        }
    }

    /// Appends a message to its room's log. `Ok` only once the log has it: with its position, unless it is a repetition of an older one. An
    /// ephemeral one is only fanned out, and has none.
    pub async fn publish(&self, draft: Draft) -> Result<Option<MessageId>, PublishError> {
        match self {
            Self::Local(local) => local.publish(&draft),
            Self::Redis(redis) => redis.publish(draft).await,
        }
    }

    /// From its return on, what is published to `room` reaches the outlet. Waits as long as it takes.
    pub async fn subscribe(&self, room: &RoomName) {
        match self {
            Self::Local(local) => local.subscribe(room),
            Self::Redis(redis) => redis.subscribe(room).await,
        }
    }

    /// Says that `room` is wanted, ahead of [`Broadcaster::subscribe`]. Does not wait.
    pub fn want(&self, room: &RoomName) {
        if let Self::Redis(redis) = self {
            redis.want(room);
        }
    }

    /// The room has no members here any more.
    pub fn unsubscribe(&self, room: &RoomName) {
        match self {
            Self::Local(local) => local.unsubscribe(room),
            Self::Redis(redis) => redis.unsubscribe(room),
        }
    }

    /// At most `limit` publications of a log, oldest first.
    pub async fn read(&self, room: &RoomName, stretch: Stretch, limit: usize) -> Result<Page, ReadError> {
        match self {
            Self::Local(local) => Ok(local.read(room, stretch, limit)),
            Self::Redis(redis) => redis.read(room, stretch, limit).await,
        }
    }

    /// The last position of a room's log.
    pub async fn top(&self, room: &RoomName) -> Result<MessageId, ReadError> {
        Ok(self.read(room, Stretch::Newest, 0).await?.top)
    }

    /// Says who of this node is in a room, and learns who is there over all nodes, listed if they are at most `most`. `None`: what this node said
    /// before is not known any more; say everybody.
    pub async fn attend(
        &self,
        room: &RoomName,
        attendance: &Attendance,
        most: usize,
    ) -> Result<Option<Roster>, ReadError> {
        match self {
            Self::Local(local) => Ok(Some(local.attend(room, attendance, most))),
            Self::Redis(redis) => redis.attend(room, attendance, most).await,
        }
    }

    /// The same for some rooms in which nobody of this node has come or gone: they count as there for `lease` more. One answer for each, far
    /// cheaper than asking for each.
    pub async fn renew(
        &self,
        rooms: &[RoomName],
        lease: Duration,
        most: usize,
    ) -> Result<Vec<Option<Roster>>, ReadError> {
        match self {
            Self::Local(local) => Ok(rooms.iter().map(|room| Some(local.roster(room, most))).collect()),
            Self::Redis(redis) => redis.renew(rooms, lease, most).await,
        }
    }

    /// Who is in a room over all nodes, listed if they are at most `most`.
    pub async fn roster(&self, room: &RoomName, most: usize) -> Result<Roster, ReadError> {
        match self {
            Self::Local(local) => Ok(local.roster(room, most)),
            Self::Redis(redis) => redis.roster(room, most).await,
        }
    }

    /// Where the logs of some rooms stand; `None`: it has to be read. Far cheaper than reading each.
    pub async fn tops(&self, rooms: &[RoomName]) -> Result<Vec<Option<MessageId>>, ReadError> {
        match self {
            Self::Local(_) => Ok(vec![None; rooms.len()]),
            Self::Redis(redis) => redis.tops(rooms).await,
        }
    }

    /// Whether messages can get lost between the log and this node.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// Takes no more messages and waits for those under way, at most `limit`. False: some were left.
    pub async fn finish(&self, limit: Duration) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Redis(redis) => redis.finish(limit).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_n_has_its_turn_once() {
        let turn = |n, base, last| Turn::of(Count { n, base }, last);
        assert_eq!(turn(1, 1, 0), Turn::Next);
        assert_eq!(turn(5, 5, 4), Turn::Next);
        assert_eq!(turn(5, 5, 5), Turn::Again);
        assert_eq!(turn(3, 1, 5), Turn::Again);
        assert_eq!(turn(7, 5, 5), Turn::Gap { last_n: 5 });
        assert_eq!(turn(7, 6, 0), Turn::Gap { last_n: 5 }, "the log forgot the sender, who still holds 6");
        assert_eq!(turn(6, 6, 0), Turn::Next, "and nothing before it");
    }
}
