//! A publication as it stands in Redis: versioned JSON, the same in the log and on the channel.
//!
//! What comes out of Redis is decoded as strictly as what comes from clients.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::{Draft, Place, Publication, Stamp};
use crate::{
    protocol::{Message, MessageId, RoomName, UserId},
    telemetry::trace::TraceContext,
};

/// The version that this release writes and reads. Releases that share a Redis during a rollout ignore each other's newer ones.
const VERSION: u32 = 1;

/// Why an entry was ignored.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidEntry {
    #[error("not an entry: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("version {0} is not known to this release")]
    Version(u32),
    #[error("its position is no message id")]
    Position,
}

/// What the publisher gives; `log.lua` puts `v`, `id`, `prev` and `ts` in front.
#[derive(Serialize)]
struct Tail<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    payload: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    at: Stamp,
}

#[derive(Deserialize)]
struct Wire<'a> {
    v: u32,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    prev: Option<Cow<'a, str>>,
    ts: i64,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    client_id: Cow<'a, str>,
    #[serde(default)]
    n: Option<u64>,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, default)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(default)]
    at: Option<Stamp>,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

/// The entry without its opening brace and what the log assigns.
pub(super) fn tail(draft: &Draft) -> String {
    let tail = Tail {
        kind: &draft.kind,
        from: draft.user.as_ref().map(UserId::as_str),
        client_id: draft.client.to_string(),
        n: draft.n(),
        payload: &draft.payload,
        traceparent: draft.trace.as_ref().map(ToString::to_string),
        at: draft.received,
    };
    let json = serde_json::to_string(&tail).unwrap_or_default();
    json.get(1..).unwrap_or_default().to_owned()
}

/// Decodes an entry of `room` and encodes the message for its members.
pub(super) fn decode(room: &RoomName, bytes: &[u8]) -> Result<Publication, InvalidEntry> {
    let wire: Wire<'_> =
        serde_json::from_slice(bytes).map_err(|error| match serde_json::from_slice::<Version>(bytes) {
            Ok(Version { v }) if v != VERSION => InvalidEntry::Version(v),
            _ => InvalidEntry::Malformed(error),
        })?;
    if wire.v != VERSION {
        return Err(InvalidEntry::Version(wire.v));
    }
    let position = |text: &str| text.parse::<MessageId>().map_err(|_| InvalidEntry::Position);
    let place = match (&wire.id, &wire.prev) {
        (None, None) => None, // ephemeral
        (Some(id), Some(prev)) => Some(Place { id: position(id)?, prev: position(prev)? }),
        _ => return Err(InvalidEntry::Position),
    };
    let message = Message {
        kind: &wire.kind,
        id: place.map(|place| place.id),
        room,
        from: wire.from.as_deref(),
        client_id: &wire.client_id,
        timestamp_ms: wire.ts,
        n: wire.n,
        payload: wire.payload,
    };
    let trace = wire.traceparent.as_deref().and_then(|text| text.parse::<TraceContext>().ok());
    Ok(Publication { room: room.clone(), place, frame: message.frame(), trace, received: wire.at })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::{
        fuzz::{any_text, fuzz, json, mutated, texts},
        protocol::ClientId,
    };

    fn draft() -> impl Strategy<Value = Draft> {
        let payload = json().prop_map(|json| RawValue::from_string(json).unwrap());
        let trace = option::of(texts("00-[0-9a-f]{31}1-[0-9a-f]{15}1-0[01]").prop_map(|text| text.parse().unwrap()));
        let user = any_text().prop_map(|text| UserId::new(&text).ok());
        (texts("[a-z][a-z0-9_.-]{0,63}"), user, payload, trace).prop_map(|(kind, user, payload, trace)| Draft {
            room: RoomName::lobby(),
            kind,
            client: ClientId::random(),
            user,
            payload,
            counted: None,
            ephemeral: false,
            trace,
            received: Stamp::now(),
        })
    }

    /// As `log.lua` completes it.
    fn completed(draft: &Draft) -> String {
        format!(r#"{{"v":1,"id":"7-2","prev":"7-1","ts":1764000000000,{}"#, tail(draft))
    }

    /// What Redis says becomes a message, or is refused; it is never repeated as it came.
    #[test]
    fn fuzz_entry() {
        let hostile = mutated(draft().prop_map(|draft| completed(&draft).into_bytes()));
        fuzz(file!(), (draft(), prop_oneof![9 => hostile, 1 => vec(any::<u8>(), 0..200)]), |(draft, bytes)| {
            let publication = decode(&draft.room, completed(&draft).as_bytes()).unwrap();
            assert_eq!((publication.trace, publication.place.unwrap().id.seq), (draft.trace, 2));
            assert_eq!(publication.received, Some(draft.received));
            let message = std::str::from_utf8(publication.frame.json_text()).unwrap();
            assert!(message.ends_with(&format!(r#","payload":{}}}"#, draft.payload)), "{message}");
            let Ok(publication) = decode(&draft.room, &bytes) else { return };
            assert!(serde_json::from_slice::<serde::de::IgnoredAny>(publication.frame.json_text()).is_ok());
            assert!(publication.frame.wire_len() <= bytes.len() + 256);
        });
    }

    #[test]
    fn an_entry_comes_back_as_it_was_written() {
        let room = RoomName::new("r").unwrap();
        let draft = Draft {
            room: room.clone(),
            kind: "note".into(),
            client: ClientId::random(),
            user: crate::protocol::UserId::new("a\"b").ok(),
            payload: RawValue::from_string(r#"{ "x": [1e400] }"#.into()).unwrap(),
            counted: None,
            ephemeral: false,
            trace: None,
            received: Stamp::now(),
        };
        let json = format!(r#"{{"v":1,"id":"7-2","prev":"7-1","ts":1764000000000,{}"#, tail(&draft));
        let publication = decode(&room, json.as_bytes()).unwrap();
        let text = String::from_utf8_lossy(publication.frame.bytes()).into_owned();
        assert!(text.contains(r#""from":"a\"b""#) && text.contains(r#""payload":{ "x": [1e400] }"#), "{text}");
        assert_eq!(publication.place.map(|place| (place.id.seq, place.prev.seq)), Some((2, 1)));
        let json = format!(r#"{{"v":1,"ts":1764000000000,{}"#, tail(&draft));
        assert_eq!(decode(&room, json.as_bytes()).unwrap().place, None);
    }

    #[test]
    fn what_is_not_ours_is_refused_by_name() {
        let room = RoomName::new("r").unwrap();
        let refuse = |json: &str| decode(&room, json.as_bytes()).unwrap_err();
        assert!(matches!(refuse("\u{1}garbage"), InvalidEntry::Malformed(_)));
        assert!(matches!(refuse(r#"{"v":2,"anything":1}"#), InvalidEntry::Version(2)));
        let bad_id = r#"{"v":1,"id":"x","prev":"7-1","ts":1,"type":"a","client_id":"c","payload":1}"#;
        assert!(matches!(refuse(bad_id), InvalidEntry::Position));
    }
}
