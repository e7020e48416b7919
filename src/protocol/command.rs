//! What a client may ask for. How a frame says so is in `decode`.

use std::{borrow::Cow, fmt};

use serde_json::value::RawValue;

use super::{MessageId, RoomName};

/// Types that are the server's own, besides `chat_*`.
pub const RESERVED_TYPES: [&str; 13] = [
    "ack",
    "auth",
    "error",
    "ping",
    "pong",
    "presence",
    "reconnect",
    "rollback",
    "subscribe",
    "subscribed",
    "unsubscribe",
    "unsubscribed",
    "welcome",
];

/// What a client asks for.
#[derive(Debug)]
pub enum Command<'a> {
    /// Append a message to a room's log.
    Publish(Publish<'a>),
    /// Join rooms, each from a position on, if given.
    Subscribe {
        /// At least one.
        rooms: Vec<(RoomName, Option<MessageId>)>,
        /// Echoed.
        reference: Option<Cow<'a, str>>,
    },
    /// Leave a room.
    Unsubscribe {
        /// Which.
        room: RoomName,
        /// Echoed.
        reference: Option<Cow<'a, str>>,
    },
    /// Go on with a newer token.
    Auth {
        /// Unchecked.
        token: Token<'a>,
        /// Echoed.
        reference: Option<Cow<'a, str>>,
    },
    /// Ask for a `pong`.
    Ping {
        /// Echoed.
        reference: Option<Cow<'a, str>>,
    },
}

impl Command<'_> {
    /// What its answer carries: `ref` and `n`.
    #[must_use]
    pub fn tags(&self) -> (Option<&str>, Option<u64>) {
        match self {
            Self::Publish(publish) => (publish.reference.as_deref(), publish.count.map(|count| count.n)),
            Self::Subscribe { reference, .. }
            | Self::Unsubscribe { reference, .. }
            | Self::Auth { reference, .. }
            | Self::Ping { reference } => (reference.as_deref(), None),
        }
    }
}

/// A token on its way to its check. `Debug` does not show it.
pub struct Token<'a>(pub(super) Cow<'a, str>);

impl Token<'_> {
    /// The text itself; never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A message as its sender gives it.
#[derive(Debug)]
pub struct Publish<'a> {
    /// `chat` when the frame named none.
    pub kind: Cow<'a, str>,
    /// Absent: the room of the socket's path.
    pub room: Option<RoomName>,
    /// Any JSON, untouched.
    pub payload: &'a RawValue,
    /// Asks for an acknowledgement.
    pub reference: Option<Cow<'a, str>>,
    /// W3C trace context of the sender; checked by whoever uses it.
    pub traceparent: Option<Cow<'a, str>>,
    /// Who counts, if the frame says so; said once per connection.
    pub sender: Option<Cow<'a, str>>,
    /// Asks for exactly once.
    pub count: Option<Count>,
    /// For whoever is there now: not stored, no position.
    pub ephemeral: bool,
}

/// Where a message stands among its sender's in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// 1 for the first, then one more each.
    pub n: u64,
    /// The lowest that the sender still holds; at most `n`.
    pub base: u64,
}
