//! What the server sends: messages and answers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{ClientId, Frame, MessageId, Occupant, RoomName, Roster, UserId};

/// The closed list of error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The text frame is not JSON.
    InvalidJson,
    /// JSON, but not a frame of this protocol.
    InvalidMessage,
    /// `type` is one of the server's own.
    ReservedType,
    /// `room` is no room name.
    InvalidRoom,
    /// The socket is not in that room.
    NotSubscribed,
    /// The token does not allow it.
    Forbidden,
    /// The session holds as many rooms as it may.
    TooManyRooms,
    /// Too many at once; see `retry_after_ms`.
    RateLimited,
    /// The log could not take it; see `outcome`.
    Unavailable,
    /// Messages before this one never arrived; see `last_n`.
    Gap,
}

impl ErrorCode {
    /// One of each.
    pub const ALL: [Self; 10] = [
        Self::InvalidJson,
        Self::InvalidMessage,
        Self::ReservedType,
        Self::InvalidRoom,
        Self::NotSubscribed,
        Self::Forbidden,
        Self::TooManyRooms,
        Self::RateLimited,
        Self::Unavailable,
        Self::Gap,
    ];

    /// The word on the wire and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidMessage => "invalid_message",
            Self::ReservedType => "reserved_type",
            Self::InvalidRoom => "invalid_room",
            Self::NotSubscribed => "not_subscribed",
            Self::Forbidden => "forbidden",
            Self::TooManyRooms => "too_many_rooms",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Gap => "gap",
        }
    }

    /// Whether the same frame may succeed later.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::Gap)
    }

    /// What it means, for the reference.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::InvalidJson => "not JSON",
            Self::InvalidMessage => "JSON, but not a frame of this protocol, or not one that fits here",
            Self::ReservedType => "`type` is one of the server's own",
            Self::InvalidRoom => "`room` is no room name",
            Self::Forbidden => "the token does not allow it",
            Self::NotSubscribed => "the socket is not in that room",
            Self::TooManyRooms => "the session is in as many rooms as it may be",
            Self::RateLimited => {
                "too fast: wait `retry_after_ms`. The frame used up no `n`. Who goes on is closed with 4429"
            }
            Self::Unavailable => {
                "the log could not take it: `outcome` is `refused` (it was not stored) or `unknown` (it may have been)"
            }
            Self::Gap => "counted messages before this one never arrived: send again from `last_n` + 1",
        }
    }
}

/// What is known of a publish that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was not stored.
    Refused,
    /// It may or may not have been stored.
    Unknown,
}

impl Outcome {
    /// The word on the wire and in traces.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Bytes of a message besides its texts: names of fields, ids, the time.
const ENVELOPE: usize = 160;
/// Bytes of most answers.
const ANSWER: usize = 200;

/// A message as every member of its room receives it.
#[derive(Debug)]
pub struct Message<'a> {
    /// The sender's own word, `chat` by default.
    pub kind: &'a str,
    /// Position in the room's log; an ephemeral message has none.
    pub id: Option<MessageId>,
    /// Where it was sent.
    pub room: &'a RoomName,
    /// The sender's user id; absent for an anonymous one.
    pub from: Option<&'a str>,
    /// The sender's connection.
    pub client_id: &'a str,
    /// The log's clock, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The sender's counter, if it gave one.
    pub n: Option<u64>,
    /// Any JSON, byte for byte as sent.
    pub payload: &'a RawValue,
}

impl Message<'_> {
    /// Encodes it, once for all members.
    #[must_use]
    pub fn frame(&self) -> Frame {
        let texts = [self.kind, self.room.as_str(), self.from.unwrap_or_default(), self.payload.get()];
        Frame::json(&self.delivery(), ENVELOPE + texts.map(str::len).iter().sum::<usize>())
    }

    pub(super) fn delivery(&self) -> Delivery<'_> {
        Delivery {
            kind: self.kind,
            id: self.id,
            room: self.room.as_str(),
            from: self.from,
            client_id: self.client_id,
            timestamp: Millis(self.timestamp_ms),
            n: self.n,
            payload: self.payload,
        }
    }
}

/// A message as every member of its room receives it.
#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
pub(crate) struct Delivery<'a> {
    /// The sender's own word, `chat` by default.
    #[serde(rename = "type")]
    #[schema(pattern = "^[a-z][a-z0-9_.-]{0,63}$", example = "chat")]
    kind: &'a str,
    /// Its position in the room's log; an ephemeral message has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<MessageId>,
    /// Where it was sent.
    #[schema(value_type = RoomName)]
    room: &'a str,
    /// The sender's user id; absent for an anonymous one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UserId>)]
    from: Option<&'a str>,
    /// The sender's socket; of a message sent over HTTP, one of its own.
    #[schema(value_type = ClientId)]
    client_id: &'a str,
    /// The log's clock: UTC, three decimals.
    #[schema(value_type = String, format = DateTime, example = "2026-11-23T07:40:01.123Z")]
    timestamp: Millis,
    /// The sender's counter, if it gave one.
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    /// Any JSON, byte for byte as sent.
    #[schema(value_type = Value)]
    payload: &'a RawValue,
}

/// RFC 3339 in UTC with exactly three decimals.
struct Millis(i64);

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = Timestamp::from_millisecond(self.0).unwrap_or_default();
        serializer.collect_str(&format_args!("{time:.3}"))
    }
}

/// An answer to one client.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The log has the message; or a newer token counts.
    Ack {
        /// The sender's own word for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Option<&'a str>,
        /// The sender's counter.
        #[serde(skip_serializing_if = "Option::is_none")]
        n: Option<u64>,
        /// Where it stands; absent where only that it was stored is still known.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<MessageId>,
    },
    /// A frame was refused; the socket lives on.
    Error {
        /// Which of the closed list.
        code: ErrorCode,
        /// What was wrong and what to do.
        message: &'a str,
        /// Whether the same frame may succeed later.
        retryable: bool,
        /// Milliseconds to wait before that.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        /// For a publish: whether it may have been stored.
        #[serde(skip_serializing_if = "Option::is_none")]
        outcome: Option<Outcome>,
        /// For a subscribe, which may name many: the room that was refused.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<RoomName>)]
        room: Option<&'a str>,
        /// The sender's own word for the frame.
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Option<&'a str>,
        /// The sender's counter.
        #[serde(skip_serializing_if = "Option::is_none")]
        n: Option<u64>,
        /// For a gap: the last counter that is settled.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_n: Option<u64>,
    },
    /// The first frame of a session.
    Welcome {
        /// The connection's id, as in its messages.
        client_id: ClientId,
        /// Who the token speaks for.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<UserId>)]
        from: Option<&'a str>,
        /// The node that holds the socket, for support.
        node: &'a str,
        /// Milliseconds between two pings of the server, and of a quiet client.
        heartbeat_ms: u64,
        /// What a client has to keep to.
        limits: Limits,
        /// The rooms the session is in, and where live begins in each.
        rooms: BTreeMap<&'a str, MessageId>,
        /// Who is in them.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        presence: BTreeMap<&'a str, Roster>,
    },
    /// The session is in a room.
    Subscribed {
        /// Which room.
        #[schema(value_type = RoomName)]
        room: &'a str,
        /// Where live begins.
        id: MessageId,
        /// What follows continues exactly after the position asked for; if not, start over from history.
        recovered: bool,
        /// What the client has after this position was lost: to be dropped.
        #[serde(skip_serializing_if = "Option::is_none")]
        rollback: Option<MessageId>,
        /// Who is there.
        #[serde(skip_serializing_if = "Option::is_none")]
        presence: Option<Roster>,
        /// That of the frame which this answers.
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Option<&'a str>,
    },
    /// The session is not in a room any more.
    Unsubscribed {
        /// Which room.
        #[schema(value_type = RoomName)]
        room: &'a str,
        /// Why, if it did not ask for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<ErrorCode>,
        /// That of the frame which this answers.
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Option<&'a str>,
    },
    /// Who is in a room has changed. With neither list nor changes only the number is known.
    Presence {
        /// Which room.
        #[schema(value_type = RoomName)]
        room: &'a str,
        /// Who has come.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schema(value_type = Vec<Occupant>)]
        joined: Vec<&'a Occupant>,
        /// Who has gone.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        #[schema(value_type = Vec<Occupant>)]
        left: Vec<&'a Occupant>,
        /// Everybody: instead of changes, where the list was not known before.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Vec<Occupant>>)]
        here: Option<&'a [Occupant]>,
        /// How many there are.
        count: usize,
    },
    /// Before a close 1012: when to come back.
    Reconnect {
        /// Milliseconds to wait before the next socket.
        after_ms: u64,
    },
    /// The answer to an application's `ping`.
    Pong {
        /// That of the frame which this answers.
        #[serde(skip_serializing_if = "Option::is_none")]
        r#ref: Option<&'a str>,
    },
}

/// What a session is told of its limits.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Limits {
    /// Longest text frame, in bytes.
    pub message_bytes: usize,
    /// Most rooms at one time.
    pub rooms: usize,
}

impl Event<'_> {
    /// Encodes it.
    #[must_use]
    pub fn frame(&self) -> Frame {
        Frame::json(self, ANSWER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(frame: &Frame) -> String {
        String::from_utf8_lossy(&frame.bytes()[if frame.wire_len() > 127 { 4 } else { 2 }..]).into_owned()
    }

    #[test]
    fn a_message_has_every_field_and_keeps_its_payload_byte_for_byte() {
        let payload = RawValue::from_string(r#"{ "text" : "h\u00e9", "n":1e400 }"#.into()).unwrap();
        let room = RoomName::new("general").unwrap();
        let mut message = Message {
            kind: "chat",
            id: Some(MessageId { epoch: 1_764_000_000_000, seq: 42 }),
            room: &room,
            from: Some("alice"),
            client_id: "c1",
            timestamp_ms: 1_764_000_000_120,
            n: None,
            payload: &payload,
        };
        assert_eq!(
            text(&message.frame()),
            r#"{"type":"chat","id":"1764000000000-42","room":"general","from":"alice","client_id":"c1","timestamp":"2025-11-24T16:00:00.120Z","payload":{ "text" : "h\u00e9", "n":1e400 }}"#
        );
        (message.from, message.id) = (None, None);
        assert!(
            text(&message.frame()).starts_with(r#"{"type":"chat","room":"general","client_id""#),
            "absent means absent"
        );
    }

    #[test]
    fn answers_have_no_null_fields() {
        assert_eq!(text(&Event::Pong { r#ref: None }.frame()), r#"{"type":"pong"}"#);
        let id = MessageId { epoch: 1, seq: 2 };
        let ack = Event::Ack { r#ref: Some("x"), n: None, id: Some(id) };
        assert_eq!(text(&ack.frame()), r#"{"type":"ack","ref":"x","id":"1-2"}"#);
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.as_str()));
        }
    }
}
