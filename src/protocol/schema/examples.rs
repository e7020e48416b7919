//! Events as the server sends them, by the types that encode them.

use std::collections::BTreeMap;

use serde_json::{Value, value::RawValue};

use crate::protocol::{
    ClientId, ErrorCode, Event, Limits, Message, MessageId, Occupant, Outcome, RoomName, Roster, UserId,
};

/// At least one of each, encoded as it is sent.
pub(super) fn events() -> Vec<Value> {
    let (room, red) = (RoomName::lobby(), MessageId { epoch: 1_764_000_000_000, seq: 42 });
    let client: Option<ClientId> = "019346a7d8f27c3e8a51b2c3d4e5f607".parse().ok();
    let client_id = client.unwrap_or_else(ClientId::random);
    let alice = UserId::new("alice").map_or(Occupant::Anonymous(client_id), Occupant::User);
    let bob = Occupant::Anonymous(client_id);
    let roster = Roster::of(vec![alice.clone(), bob.clone()], 2);
    let r#ref = Some("a");
    let limits = Limits { message_bytes: 32_768, rooms: 100 };
    let (from, node, heartbeat_ms) = (Some("alice"), "chat-api-6f9d6685b4-jh9tx", 25_000);
    let rooms = BTreeMap::from([("general", red), (RoomName::LOBBY, MessageId::START)]);
    let presence = BTreeMap::from([("general", roster.clone())]);
    let refused = |code: ErrorCode, message| Event::Error {
        code,
        message,
        retryable: code.retryable(),
        retry_after_ms: None,
        outcome: None,
        room: None,
        r#ref,
        n: None,
        last_n: None,
    };
    let mut unknown = refused(ErrorCode::Unavailable, "the message log did not answer in time");
    if let Event::Error { outcome, retry_after_ms, .. } = &mut unknown {
        (*outcome, *retry_after_ms) = (Some(Outcome::Unknown), Some(1000));
    }
    let mut gap = refused(ErrorCode::Gap, "messages before this one never arrived: send again from `last_n` + 1");
    if let Event::Error { r#ref, n, last_n, .. } = &mut gap {
        (*r#ref, *n, *last_n) = (None, Some(3), Some(1));
    }
    let events = [
        Event::Ack { r#ref, n: None, id: Some(red) },
        Event::Ack { r#ref: None, n: Some(3), id: Some(red) },
        refused(ErrorCode::InvalidMessage, "`payload` is missing: it holds the message, as any JSON"),
        unknown,
        gap,
        Event::Welcome { client_id, from, node, heartbeat_ms, limits, rooms, presence },
        Event::Subscribed {
            room: "general",
            id: red,
            recovered: true,
            rollback: None,
            presence: Some(roster.clone()),
            r#ref,
        },
        Event::Subscribed {
            room: "general",
            id: red,
            recovered: true,
            rollback: Some(MessageId { seq: 39, ..red }),
            presence: None,
            r#ref: None,
        },
        Event::Unsubscribed { room: "general", reason: None, r#ref },
        Event::Unsubscribed { room: "general", reason: Some(ErrorCode::Forbidden), r#ref: None },
        Event::Presence { room: "general", joined: vec![&bob], left: vec![&alice], here: None, count: 1 },
        Event::Presence { room: "general", joined: vec![], left: vec![], here: roster.here.as_deref(), count: 2 },
        Event::Reconnect { after_ms: 740 },
        Event::Pong { r#ref },
    ];
    let client_id = client_id.to_string();
    let hi = RawValue::from_string(r#"{"text":"hi"}"#.into()).unwrap_or_default();
    let null = <Box<RawValue>>::default();
    let message = Message {
        kind: "chat",
        id: Some(red),
        room: &room,
        from,
        client_id: &client_id,
        timestamp_ms: 1_764_000_000_120,
        n: None,
        payload: &hi,
    };
    let typing = Message { kind: "typing", id: None, from: None, payload: &null, ..message };
    let messages = [message, typing].map(|message| serde_json::to_value(message.delivery()));
    let events = events.iter().map(serde_json::to_value);
    messages.into_iter().chain(events).filter_map(Result::ok).collect()
}
