//! Rooms, users, clients and positions. Each type is valid once it exists.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};
use uuid::Uuid;

/// Longest room name and user id, in characters.
const LONGEST: usize = 128;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not `^[A-Za-z0-9_.-]{1,128}$`, or `.` or `..`.
    #[error("a room name is 1 to 128 of A-Z a-z 0-9 _ . - (but not `.` or `..`)")]
    Room,
    /// Empty, too long, or with control characters.
    #[error("a user id is 1 to 128 characters without control characters")]
    User,
}

/// The name of a room; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// The room that every connection is in.
    pub const LOBBY: &'static str = "lobby";
    const REVOCATIONS: &'static str = "~revocations";

    /// Checks and takes a name. Braces and wildcards are outside the grammar, so a name can stand in a Redis key.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        let valid = (1..=LONGEST).contains(&name.len()) && Self::is_part(name) && name != "." && name != "..";
        if valid { Ok(Self(name.into())) } else { Err(InvalidName::Room) }
    }

    /// The room of what nodes say to each other about tokens. Outside the grammar, so that no client can name it.
    #[must_use]
    pub fn revocations() -> Self {
        Self(Self::REVOCATIONS.into())
    }

    /// Whether only nodes use it.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        &*self.0 == Self::REVOCATIONS
    }

    /// As it stands in Redis.
    pub(crate) fn stored(name: &str) -> Result<Self, InvalidName> {
        if name == Self::REVOCATIONS { Ok(Self::revocations()) } else { Self::new(name) }
    }

    /// The lobby's name.
    #[must_use]
    pub fn lobby() -> Self {
        Self(Self::LOBBY.into())
    }

    /// Whether all characters of a text may stand in a name.
    pub(crate) fn is_part(text: &str) -> bool {
        text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for RoomName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Who a token speaks for; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks and takes an id.
    pub fn new(id: &str) -> Result<Self, InvalidName> {
        let valid = (1..=LONGEST).contains(&id.chars().count()) && !id.chars().any(char::is_control);
        if valid { Ok(Self(id.into())) } else { Err(InvalidName::User) }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One connection, unique over all nodes and time (UUID version 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Uuid);

impl ClientId {
    /// A new id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::now_v7())
    }

    /// Room for [`ClientId::encode`].
    #[must_use]
    pub fn buffer() -> [u8; 32] {
        [0; 32]
    }

    /// The id as text.
    pub fn encode(self, buffer: &mut [u8; 32]) -> &str {
        self.0.simple().encode_lower(buffer)
    }

    /// A number spread evenly over all ids, for sharding.
    #[must_use]
    pub fn spread(self) -> usize {
        self.0.as_bytes()[15].into() // version 7 ends in random bits
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}

impl FromStr for ClientId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Uuid::try_parse(text).map(Self).map_err(|_| InvalidId::Client)
    }
}

impl Serialize for ClientId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.encode(&mut Self::buffer()))
    }
}

/// A text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Of a message.
    #[error("a message id is one that the server gave, such as `1764000000000-42`, or `0-0` for the start of the log")]
    Message,
    /// Of a connection.
    #[error("a client id is 32 hexadecimal digits")]
    Client,
}

/// A position in a room's log: `<epoch>-<seq>`.
///
/// A log that lost everything opens a later epoch, so that an old position never names a new message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct MessageId {
    /// Milliseconds since 1970 when the log opened this epoch.
    pub epoch: u64,
    /// 1 for the first message of a log; goes on over a change of epoch.
    pub seq: u64,
}

impl MessageId {
    /// Before the first message of any log.
    pub const START: Self = Self { epoch: 0, seq: 0 };
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for MessageId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let number = |digits: &str| {
            let plain = (1..=16).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { digits.parse().map_err(|_| InvalidId::Message) } else { Err(InvalidId::Message) }
        };
        let (epoch, seq) = text.split_once('-').ok_or(InvalidId::Message)?;
        Ok(Self { epoch: number(epoch)?, seq: number(seq)? })
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names_keep_to_the_grammar() {
        for good in ["a", "general", "team.rust-1_x", &"x".repeat(128)] {
            assert!(RoomName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a{b}", "*", "é", "a\r\n", "a\0", "a/b", &"x".repeat(129)] {
            assert_eq!(RoomName::new(bad), Err(InvalidName::Room), "{bad:?}");
        }
    }

    #[test]
    fn positions_print_parse_and_order() {
        let id = MessageId { epoch: 1_764_000_000_000, seq: 42 };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id > MessageId::START && MessageId { epoch: id.epoch + 1, seq: 1 } > id);
        for bad in ["", "1", "1-", "-1", "1-2-3", "+1-2", "1- 2", "x-1", "99999999999999999-1"] {
            assert_eq!(bad.parse::<MessageId>(), Err(InvalidId::Message), "{bad:?}");
        }
    }
}
