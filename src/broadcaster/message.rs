//! A message on its way to its log, as a [`Draft`], and from there to its readers, as a [`Publication`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    protocol::{ClientId, Count, Frame, MessageId, Outcome, RoomName, UserId},
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
    pub(super) fn n(&self) -> Option<u64> {
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
pub(super) enum Turn {
    /// The log has it already.
    Again,
    /// It is the next.
    Next,
    /// Something before it never arrived.
    Gap { last_n: u64 },
}

impl Turn {
    /// The same rule as in `log.lua`.
    pub(super) fn of(count: Count, last: u64) -> Self {
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
