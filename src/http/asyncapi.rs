//! The AsyncAPI document: the sockets as channels, their frames as messages. Frames are described by `protocol::schema`.

use serde_json::{Map, Value, json};

use super::{
    docs::print,
    ws::{PLAIN, SESSION},
};
use crate::protocol::{
    Close, ErrorCode, RoomName,
    schema::{self, Kind},
};

/// The document as JSON, ready to print.
pub fn document() -> serde_json::Result<String> {
    let (commands, events) = (schema::commands(), schema::events());
    let mut operations = Map::new();
    for channel in CHANNELS {
        for command in &commands {
            let (action, name) = ("receive", command.name.as_str());
            let reply = command.answers.iter().copied().chain(["error"]);
            let operation = json!({
                "action": action,
                "channel": reference(&["channels", channel.name]),
                "title": format!("{name}, {}", channel.place),
                "summary": command.summary,
                "messages": [of_channel(channel.name, name)],
                "reply": {
                    "channel": reference(&["channels", channel.name]),
                    "messages": reply.map(|answer| of_channel(channel.name, answer)).collect::<Vec<_>>(),
                },
            });
            operations.insert(format!("{}.{name}", channel.name), operation);
        }
        let answers: Vec<_> = commands.iter().flat_map(|command| command.answers).collect();
        let unasked = |event: &&Kind| {
            // A session is told `subscribed` and `unsubscribed` also without having asked.
            event.sessions || !answers.contains(&&event.name.as_str())
        };
        let operation = json!({
            "action": "send",
            "channel": reference(&["channels", channel.name]),
            "title": format!("deliver, {}", channel.place),
            "summary": "What comes without being asked for, in the order of each room's log.",
            "messages": events.iter().filter(unasked).map(|event| of_channel(channel.name, &event.name)).collect::<Vec<_>>(),
        });
        operations.insert(format!("{}.deliver", channel.name), operation);
    }
    let kinds = || commands.iter().chain(&events);
    let messages: Map<_, _> = kinds().map(|kind| (kind.name.clone(), message(kind))).collect();
    let channels: Map<_, _> =
        CHANNELS.iter().map(|channel| (channel.name.to_owned(), channel.describe(kinds()))).collect();
    let document = json!({
        "asyncapi": "3.0.0",
        "id": "urn:chat-api",
        "info": {
            "title": env!("CARGO_PKG_NAME"),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Real-time chat over WebSockets: one message, one text frame of JSON. The side without sockets is in openapi.json; \
                            docs/protocol.md has both in words. Later versions may add fields to what the server sends, and for sessions new \
                            types: ignore what you do not know.",
            "license": { "name": env!("CARGO_PKG_LICENSE") },
            "tags": TAGS.map(|(name, description)| json!({ "name": name, "description": description })),
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:8080",
                "protocol": "ws",
                "protocolVersion": "13",
                "description": "As `make run` starts it. Tokens are needed where `AUTH_ENABLED` is true, and then in one of these ways.",
                "security": SECURITY.map(|name| reference(&["components", "securitySchemes", name])),
            },
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schema::shared(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "`Authorization: Bearer <jwt>`" },
                "subprotocol": {
                    "type": "httpApiKey",
                    "in": "header",
                    "name": "Sec-WebSocket-Protocol",
                    "description": "For browsers: `bearer.<jwt>` as a second subprotocol, behind `chat.v1` or `chat.plain`. It is never answered.",
                },
                "query": {
                    "type": "httpApiKey",
                    "in": "query",
                    "name": "token",
                    "description": "For clients that can do neither; refused unless `auth.query_token` is on, as URLs end up in logs.",
                },
            },
        },
        "x-subprotocols": [
            { "name": PLAIN, "description": format!("{} Also what a socket is that offers none.", TAGS[0].1) },
            { "name": SESSION, "description": TAGS[1].1 },
            { "name": "bearer.<jwt>", "description": "The token, beside one of the others." },
        ],
        "x-error-codes": ErrorCode::ALL.map(|code| {
            json!({ "code": code.as_str(), "retryable": code.retryable(), "meaning": code.meaning() })
        }),
        "x-close-codes": Close::ALL.map(|close| {
            json!({ "code": close.code(), "reconnect": close.may_reconnect(), "reason": close.reason(), "meaning": close.meaning() })
        }),
    });
    print(&document)
}

/// Who sends or gets a message.
const TAGS: [(&str, &str); 2] = [
    (PLAIN, "A plain socket: messages, answers to what it asked, and errors."),
    (SESSION, "A session: also told where it stands, and in many rooms."),
];

/// Any of them will do.
const SECURITY: [&str; 3] = ["bearer", "subprotocol", "query"];

/// A kind of socket by its path.
struct Channel {
    name: &'static str,
    address: &'static str,
    title: &'static str,
    description: &'static str,
    /// For titles.
    place: &'static str,
}

const CHANNELS: [Channel; 2] = [
    Channel {
        name: "lobby",
        address: "/api/chat-api/ws",
        title: "The lobby",
        description: "What is sent here without a `room` reaches everyone, whatever room they opened.",
        place: "in the lobby",
    },
    Channel {
        name: "room",
        address: "/api/chat-api/ws/{room}",
        title: "A room",
        description: "What is sent here without a `room` reaches that room only; what is sent to the lobby is received too.",
        place: "in a room",
    },
];

impl Channel {
    fn describe<'a>(&self, kinds: impl Iterator<Item = &'a Kind>) -> Value {
        let messages: Map<_, _> =
            kinds.map(|kind| (kind.name.clone(), reference(&["components", "messages", &kind.name]))).collect();
        let mut channel = json!({
            "address": self.address,
            "title": self.title,
            "description": self.description,
            "messages": messages,
            "servers": [reference(&["servers", "local"])],
            "bindings": { "ws": { "method": "GET", "query": query(), "headers": headers(), "bindingVersion": "0.1.0" } },
        });
        if self.address.contains("{room}") {
            channel["parameters"] = json!({
                "room": {
                    "description": format!(
                        "The room: 1 to 128 of `A-Z a-z 0-9 _ . -`, but not `.` or `..`; case counts. `{}` is the lobby.",
                        RoomName::LOBBY
                    ),
                    "examples": ["general"],
                },
            });
        }
        channel
    }
}

fn query() -> Value {
    json!({
        "type": "object",
        "properties": {
            "after": {
                "description": "Id of the last message that the client has in the path's room; what followed it is sent first.",
                "allOf": [reference(&["components", "schemas", "MessageId"])],
            },
            "token": { "type": "string", "description": "The token, for clients that can send it in no other way." },
        },
        "additionalProperties": false,
    })
}

fn headers() -> Value {
    json!({
        "type": "object",
        "properties": {
            "Sec-WebSocket-Protocol": {
                "type": "string",
                "description": "`chat.plain` (the default) or `chat.v1`: of several the first that the server knows. Browsers add their token as \
                                `bearer.<jwt>`.",
                "examples": [SESSION, format!("{SESSION}, bearer.<jwt>"), PLAIN],
            },
            "Authorization": { "type": "string", "description": "`Bearer <jwt>`", "pattern": "^Bearer .+$" },
            "traceparent": { "type": "string", "description": "W3C trace context of who opens the socket." },
        },
    })
}

fn message(kind: &Kind) -> Value {
    let all = [PLAIN, SESSION];
    let tags = if kind.sessions { &all[1..] } else { &all };
    let mut message = json!({
        "name": kind.name,
        "title": kind.name,
        "summary": kind.summary,
        "payload": kind.schema,
        "examples": kind.examples.iter().map(|example| json!({ "payload": example })).collect::<Vec<_>>(),
        "tags": tags.iter().map(|tag| json!({ "name": tag })).collect::<Vec<_>>(),
    });
    if !kind.schema["properties"]["ref"].is_null() {
        message["correlationId"] =
            json!({ "location": "$message.payload#/ref", "description": "The client's own word for its frame." });
    }
    message
}

fn of_channel(channel: &str, message: &str) -> Value {
    reference(&["channels", channel, "messages", message])
}

fn reference(path: &[&str]) -> Value {
    json!({ "$ref": format!("#/{}", path.join("/")) })
}
