//! One text frame of a client, decoded into a [`Command`] or a [`Refusal`].

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Command, Count, ErrorCode, Publish, RESERVED_TYPES, Refusal, RoomName, Token, payload};

/// Longest `type`, in bytes.
const LONGEST_KIND: usize = 64;
/// Longest `ref`, in bytes.
const LONGEST_REF: usize = 128;
/// Longest `sender`, in characters.
const LONGEST_SENDER: usize = 64;
/// Largest `n`: what JSON readers and the log both keep exactly.
const LARGEST_N: u64 = 1 << 53;
/// Longest part of an error that is repeated, in characters: it may quote what the client sent.
const LONGEST_ERROR: usize = 200;

/// The frame as JSON. One struct for all types: a tagged enum cannot hold a `RawValue`. What the schema cannot say of a field, such as bytes, is in
/// words.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wire<'a> {
    /// Your own word for the message; `chat` if absent or empty. It is none of the server's own types.
    #[serde(rename = "type", borrow, default)]
    #[schema(pattern = "^([a-z][a-z0-9_.-]{0,63})?$")]
    kind: Option<Cow<'a, str>>,
    /// Which room; a message without it goes to the path's room.
    #[serde(borrow, default)]
    #[schema(value_type = Option<RoomName>)]
    room: Option<Cow<'a, str>>,
    /// The message: any JSON, up to 64 levels deep and without lone surrogates.
    #[serde(borrow, default, deserialize_with = "present")]
    #[schema(value_type = Value)]
    payload: Option<&'a RawValue>,
    /// Your word for this frame, at most 128 bytes; its answer has it.
    #[serde(rename = "ref", borrow, default)]
    #[schema(max_length = 128)]
    reference: Option<Cow<'a, str>>,
    /// W3C trace context that the server's spans continue; ignored if it is none.
    #[serde(borrow, default)]
    traceparent: Option<Cow<'a, str>>,
    /// Your id for yourself over all your sockets, to send exactly once; with the first counted message of a socket. Secret for anonymous users.
    #[serde(borrow, default)]
    #[schema(min_length = 1, max_length = 64)]
    sender: Option<Cow<'a, str>>,
    /// Counts your messages to one room from 1, to have each stored once.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 9007199254740992_i64)]
    n: Option<u64>,
    /// The lowest `n` that you still hold, at most `n`.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 9007199254740992_i64)]
    base: Option<u64>,
    /// The position from which to take the room up again; empty: none.
    #[serde(borrow, default)]
    #[schema(pattern = "^([0-9]{1,16}-[0-9]{1,16})?$")]
    after: Option<Cow<'a, str>>,
    /// For whoever is there now: not stored, no position, no acknowledgement.
    #[serde(default)]
    ephemeral: bool,
    /// Rooms, each with the position from which to take it up again, or an empty text.
    #[serde(default)]
    #[schema(schema_with = super::schema::positions)]
    rooms: Option<BTreeMap<String, String>>,
    /// The newer token.
    #[serde(borrow, default)]
    token: Option<Cow<'a, str>>,
}

/// Keeps `"payload":null` apart from no payload.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Command<'a> {
    /// Decodes one text frame.
    pub fn decode(text: &'a str) -> Result<Self, Refusal> {
        let wire = Wire::decode(text)?;
        let n = wire.n;
        // A refused message uses up no `n`, so its sender has to know which it was.
        Self::of(wire).map_err(|refusal| Refusal { n, ..refusal })
    }

    fn of(wire: Wire<'a>) -> Result<Self, Refusal> {
        let reference = wire.reference.as_deref();
        let refuse = |code, message: String| Refusal::new(code, message, reference);
        if reference.is_some_and(|reference| reference.len() > LONGEST_REF) {
            let message = format!("`ref` is longer than {LONGEST_REF} bytes");
            return Err(Refusal::new(ErrorCode::InvalidMessage, message, None));
        }
        if wire.token.is_some() && wire.kind.as_deref() != Some("auth") {
            return Err(wire.invalid("`token` belongs to `auth`"));
        }
        match wire.kind.as_deref() {
            Some("auth") => wire.auth(),
            Some("ping") => wire.ping(),
            Some("subscribe") => wire.subscribe(),
            Some("unsubscribe") => wire.unsubscribe(),
            Some(kind) if RESERVED_TYPES.contains(&kind) || kind.starts_with("chat_") => {
                let message = format!("type `{}` is the server's own: use another word", shown(kind));
                Err(refuse(ErrorCode::ReservedType, message))
            }
            Some(kind) if !kind.is_empty() && !is_kind(kind) => {
                let message = "`type` must match ^[a-z][a-z0-9_.-]{0,63}$";
                Err(refuse(ErrorCode::InvalidMessage, message.into()))
            }
            _ => wire.publish(),
        }
    }
}

impl<'a> Wire<'a> {
    fn decode(text: &'a str) -> Result<Self, Refusal> {
        // A derived struct would also take an array.
        let decoded = text.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(text));
        let message = match decoded {
            Some(Ok(wire)) => return Ok(wire),
            Some(Err(error)) => error.to_string().chars().take(LONGEST_ERROR).collect(),
            None => r#"a frame is a JSON object such as {"type":"chat","payload":{"text":"hi"}}"#.to_owned(),
        };
        // Decoding ends at the first field that does not fit; what follows may not even be JSON.
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        let code = if is_json { ErrorCode::InvalidMessage } else { ErrorCode::InvalidJson };
        Err(Refusal::new(code, message, None))
    }

    /// Whether the frame has something that only a message has.
    fn has_message(&self) -> bool {
        let counted = self.sender.is_some() || self.n.is_some() || self.base.is_some();
        self.payload.is_some() || self.traceparent.is_some() || self.ephemeral || counted
    }

    fn invalid(&self, message: impl Into<String>) -> Refusal {
        Refusal::new(ErrorCode::InvalidMessage, message, self.reference.as_deref())
    }

    fn room_name(&self, name: &str) -> Result<RoomName, Refusal> {
        RoomName::new(name)
            .map_err(|error| Refusal::new(ErrorCode::InvalidRoom, error.to_string(), self.reference.as_deref()))
    }

    fn auth(self) -> Result<Command<'a>, Refusal> {
        if self.has_message() || self.room.is_some() || self.after.is_some() || self.rooms.is_some() {
            return Err(self.invalid("`auth` takes `token` and `ref`"));
        }
        match self.token {
            Some(token) => Ok(Command::Auth { token: Token(token), reference: self.reference }),
            None => Err(self.invalid("`auth` brings a `token`")),
        }
    }

    fn ping(self) -> Result<Command<'a>, Refusal> {
        if self.has_message() || self.room.is_some() || self.after.is_some() || self.rooms.is_some() {
            return Err(self.invalid("`ping` takes no field but `ref`"));
        }
        Ok(Command::Ping { reference: self.reference })
    }

    fn subscribe(self) -> Result<Command<'a>, Refusal> {
        if self.has_message() {
            return Err(self.invalid("`subscribe` takes `room` and `after`, or `rooms`, and `ref`"));
        }
        let position = |text: &str| match text {
            "" => Ok(None),
            id => id.parse().map(Some).map_err(|error| self.invalid(format!("`after`: {error}"))),
        };
        let rooms = match (&self.room, &self.after, &self.rooms) {
            (Some(room), after, None) => vec![(self.room_name(room)?, position(after.as_deref().unwrap_or_default())?)],
            (None, None, Some(rooms)) if !rooms.is_empty() => rooms
                .iter()
                .map(|(room, after)| Ok((self.room_name(room)?, position(after)?)))
                .collect::<Result<_, Refusal>>()?,
            _ => return Err(self.invalid("`subscribe` names a `room`, or `rooms` with a position or \"\" for each")),
        };
        Ok(Command::Subscribe { rooms, reference: self.reference })
    }

    fn unsubscribe(self) -> Result<Command<'a>, Refusal> {
        if self.has_message() || self.after.is_some() || self.rooms.is_some() {
            return Err(self.invalid("`unsubscribe` takes `room` and `ref`"));
        }
        let room = self.room.as_deref().ok_or_else(|| self.invalid("`unsubscribe` names the `room` to leave"))?;
        Ok(Command::Unsubscribe { room: self.room_name(room)?, reference: self.reference })
    }

    fn publish(self) -> Result<Command<'a>, Refusal> {
        let refuse = |code, message: String| Refusal::new(code, message, self.reference.as_deref());
        let invalid = |message: String| refuse(ErrorCode::InvalidMessage, message);
        if self.after.is_some() || self.rooms.is_some() {
            return Err(invalid("`after` and `rooms` belong to `subscribe`".into()));
        }
        let payload =
            self.payload.ok_or_else(|| invalid("`payload` is missing: it holds the message, as any JSON".into()))?;
        payload::check(payload.get()).map_err(|error| invalid(error.to_string()))?;
        let room = self.room.as_deref().map(RoomName::new).transpose();
        let room = room.map_err(|error| refuse(ErrorCode::InvalidRoom, error.to_string()))?;
        if self.ephemeral && (self.n.is_some() || self.reference.is_some()) {
            return Err(invalid("an ephemeral message is not stored: it has neither `n` nor `ref`".into()));
        }
        let count = self.count().map_err(|message| invalid(message.to_owned()))?;
        let kind = self.kind.filter(|kind| !kind.is_empty()).unwrap_or(Cow::Borrowed("chat"));
        let (reference, traceparent, sender) = (self.reference, self.traceparent, self.sender);
        let ephemeral = self.ephemeral;
        Ok(Command::Publish(Publish { kind, room, payload, reference, traceparent, sender, count, ephemeral }))
    }

    fn count(&self) -> Result<Option<Count>, &'static str> {
        if self.sender.as_deref().is_some_and(|sender| !(1..=LONGEST_SENDER).contains(&sender.chars().count())) {
            return Err("`sender` is 1 to 64 characters");
        }
        match (self.n, self.base) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err("`base` says which `n` you still hold: give `n` too"),
            (Some(n), _) if !(1..=LARGEST_N).contains(&n) => Err("`n` starts at 1 and goes up by 1"),
            (Some(n), base) => match base.unwrap_or(n) {
                base if (1..=n).contains(&base) => Ok(Some(Count { n, base })),
                _ => Err("`base` is the lowest `n` you still hold: 1 to `n`"),
            },
        }
    }
}

/// Whether `kind` may stand as the type of a message.
pub(super) fn is_kind(kind: &str) -> bool {
    let mut bytes = kind.bytes();
    kind.len() <= LONGEST_KIND
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-'))
}

/// A client's word as it may be repeated to it.
fn shown(word: &str) -> String {
    word.chars().take(LONGEST_KIND).collect::<String>().escape_debug().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (ErrorCode, Option<String>) {
        let refusal = Command::decode(text).expect_err(text);
        assert!(!refusal.message.is_empty());
        (refusal.code, refusal.reference)
    }

    #[test]
    fn a_message_without_a_type_is_chat() {
        for frame in [r#"{"payload":1}"#, r#"{"type":null,"payload":1}"#, r#"{"type":"","payload":1}"#] {
            let Ok(Command::Publish(Publish { kind, room: None, reference: None, .. })) = Command::decode(frame) else {
                panic!("{frame}")
            };
            assert_eq!(kind, "chat");
        }
    }

    #[test]
    fn payloads_pass_untouched_even_null() {
        for payload in ["null", "1e400", r#"{ "a" : [1, 2] }"#, r#""\u00e9""#] {
            let frame = format!(r#"{{"type":"note","room":"r","payload":{payload},"ref":"\u0041"}}"#);
            let Ok(Command::Publish(Publish { kind, room, payload: got, reference, .. })) = Command::decode(&frame)
            else {
                panic!("{frame}")
            };
            assert_eq!((&*kind, got.get(), reference.as_deref()), ("note", payload, Some("A")));
            assert_eq!(room, RoomName::new("r").ok());
        }
    }

    #[test]
    fn a_token_is_taken_and_not_shown() {
        let command = Command::decode(r#"{"type":"auth","token":"hunter2","ref":"x"}"#).unwrap();
        assert!(!format!("{command:?}").contains("hunter2"));
        assert!(matches!(command, Command::Auth { token, reference: Some(_) } if token.expose() == "hunter2"));
    }

    #[test]
    fn bad_frames_are_refused_by_name() {
        use ErrorCode::*;
        for (frame, code) in [
            ("", InvalidJson),
            ("hello", InvalidJson),
            ("{", InvalidJson),
            (r#"{"payload":1} {}"#, InvalidJson),
            (r#"{"payload":NaN}"#, InvalidJson),
            (r#"{"colour":1,"payload":}"#, InvalidJson),
            (r#"{"payload":1,"ref":"\ud800"}"#, InvalidMessage),
            (r#"{"payload":1,"n":1e999}"#, InvalidMessage),
            ("[null,1]", InvalidMessage),
            ("1", InvalidMessage),
            ("{}", InvalidMessage),
            (r#"{"payload":1,"payload":2}"#, InvalidMessage),
            (r#"{"payload":1,"colour":2}"#, InvalidMessage),
            (r#"{"type":7,"payload":1}"#, InvalidMessage),
            (r#"{"type":"Chat","payload":1}"#, InvalidMessage),
            (r#"{"type":"subscribe"}"#, InvalidMessage),
            (r#"{"type":"subscribe","rooms":{}}"#, InvalidMessage),
            (r#"{"type":"subscribe","room":"x","rooms":{"y":""}}"#, InvalidMessage),
            (r#"{"type":"subscribe","room":"x","after":"yesterday"}"#, InvalidMessage),
            (r#"{"type":"subscribe","room":"x","payload":1}"#, InvalidMessage),
            (r#"{"type":"subscribe","rooms":{"a b":""}}"#, InvalidRoom),
            (r#"{"type":"unsubscribe"}"#, InvalidMessage),
            (r#"{"payload":1,"after":"0-0"}"#, InvalidMessage),
            (r#"{"type":"auth"}"#, InvalidMessage),
            (r#"{"type":"auth","token":null}"#, InvalidMessage),
            (r#"{"type":"auth","token":"t","payload":1}"#, InvalidMessage),
            (r#"{"type":"auth","token":"t","room":"r"}"#, InvalidMessage),
            (r#"{"payload":1,"token":"t"}"#, InvalidMessage),
            (r#"{"type":"subscribe","room":"r","token":"t"}"#, InvalidMessage),
            (r#"{"type":"ping","payload":1}"#, InvalidMessage),
            (r#"{"payload":"\ud800"}"#, InvalidMessage),
            (r#"{"payload":1,"ephemeral":true,"ref":"x"}"#, InvalidMessage),
            (r#"{"payload":1,"ephemeral":true,"n":1}"#, InvalidMessage),
            (r#"{"payload":1,"ephemeral":"yes"}"#, InvalidMessage),
            (r#"{"type":"ping","ephemeral":true}"#, InvalidMessage),
            (r#"{"payload":1,"n":0}"#, InvalidMessage),
            (r#"{"payload":1,"n":-1}"#, InvalidMessage),
            (r#"{"payload":1,"n":1.5}"#, InvalidMessage),
            (r#"{"payload":1,"base":1}"#, InvalidMessage),
            (r#"{"payload":1,"n":2,"base":3}"#, InvalidMessage),
            (r#"{"payload":1,"n":9007199254740993}"#, InvalidMessage),
            (r#"{"payload":1,"n":1,"sender":""}"#, InvalidMessage),
            (r#"{"type":"ping","n":1}"#, InvalidMessage),
            (r#"{"type":"ack","payload":1}"#, ReservedType),
            (r#"{"type":"chat_x","payload":1}"#, ReservedType),
            (r#"{"room":"a b","payload":1}"#, InvalidRoom),
        ] {
            assert_eq!(refused(frame).0, code, "{frame}");
        }
        assert_eq!(refused(&format!(r#"{{"payload":{}}}"#, "[".repeat(65) + &"]".repeat(65))).0, InvalidMessage);
        assert_eq!(refused(r#"{"type":"ack","ref":"x"}"#), (ReservedType, Some("x".into())));
        let long = format!(r#"{{"payload":1,"{}":2}}"#, "x".repeat(10_000));
        assert!(
            Command::decode(&long).unwrap_err().message.len() <= LONGEST_ERROR,
            "a refusal does not grow with the frame"
        );
    }
}
