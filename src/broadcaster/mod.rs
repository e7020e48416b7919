//! The room log and its fan-out between nodes.
//!
//! Every message goes through here, on one node or many: it is appended to its room's log, gets its position there, and comes back as a
//! [`Publication`] on every node that has members in the room. Knows nothing of members or sockets: publications leave through an [`Outlet`].

mod local;
mod logs;
mod message;
mod page;
mod presence;
mod redis;
mod senders;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use self::message::Turn;
pub use self::{
    message::{Counted, Draft, Place, Publication, PublishError, SENDER_AGE, Sender, Stamp},
    page::{Page, ReadError, Relation, Stretch},
    presence::Attendance,
    redis::{CertificateError, Certificates, Inspection, functions, place_of},
};

use crate::{
    config::{self, Config},
    metrics::Metrics,
    protocol::{MessageId, RoomName, Roster},
    shutdown::{Readiness, Tasks},
};

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
