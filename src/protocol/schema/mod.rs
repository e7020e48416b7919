//! Every kind of frame as a JSON schema with examples, for documents. The schemas are derived from the types that decode and encode the frames;
//! what a type cannot say (which fields go together) stands here, and tests hold it against the decoder.

mod examples;
mod names;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

pub(super) use self::names::positions;
use super::{Event, RESERVED_TYPES, decode::Wire, event::Delivery};

/// A kind of frame.
#[derive(Debug)]
pub struct Kind {
    /// Its `type`, or `publish` and `message` for those whose type is the sender's own word.
    pub name: String,
    /// What it is, in a sentence or two.
    pub summary: String,
    /// Of the whole frame; refers to [`shared`] as `#/components/schemas/…`.
    pub schema: Value,
    /// Whole frames.
    pub examples: Vec<Value>,
    /// Only sessions send or get it.
    pub sessions: bool,
    /// What it may be answered with, apart from `error`.
    pub answers: &'static [&'static str],
}

/// What a client sends.
#[must_use]
pub fn commands() -> Vec<Kind> {
    COMMANDS.iter().map(Shape::kind).collect()
}

/// What the server sends.
#[must_use]
pub fn events() -> Vec<Kind> {
    let examples = examples::events();
    let derived = plain(&Event::schema());
    let events = derived["oneOf"].as_array().into_iter().flatten().map(|schema| {
        let name = tag(schema).unwrap_or_default();
        (name, schema.clone())
    });
    let message = (MESSAGE.to_owned(), plain(&Delivery::schema()));
    let described = [message].into_iter().chain(events).map(|(name, mut schema)| {
        let summary = schema["description"].take().as_str().unwrap_or_default().to_owned();
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("description");
        }
        let of_kind = |example: &&Value| match example["type"].as_str() {
            Some(kind) if RESERVED_TYPES.contains(&kind) => kind == name,
            _ => name == MESSAGE,
        };
        let examples = examples.iter().filter(of_kind).cloned().collect();
        let sessions = OF_SESSIONS.contains(&name.as_str());
        Kind { name, summary, schema, examples, sessions, answers: &[] }
    });
    described.collect()
}

/// What the schemas of frames refer to, by name.
#[must_use]
pub fn shared() -> BTreeMap<String, Value> {
    let mut schemas = Vec::new();
    Event::schemas(&mut schemas);
    Delivery::schemas(&mut schemas);
    Wire::schemas(&mut schemas);
    schemas.into_iter().map(|(name, schema)| (name, plain(&schema))).collect()
}

/// The name of what all members of a room get.
const MESSAGE: &str = "message";
/// Events that plain sockets are not told.
const OF_SESSIONS: [&str; 5] = ["presence", "reconnect", "subscribed", "unsubscribed", "welcome"];

/// What the decoder asks of a command beyond the type of each field.
struct Shape {
    name: &'static str,
    summary: &'static str,
    /// The fields it may have; `!`: has to have.
    fields: &'static [&'static str],
    /// Rules over several fields, as JSON schemas that all hold.
    rules: &'static str,
    examples: &'static [&'static str],
    sessions: bool,
    answers: &'static [&'static str],
}

const COMMANDS: [Shape; 5] = [
    Shape {
        name: "publish",
        summary: "A message for a room. All members get it as `message`; with `ref` or `n` it is acknowledged.",
        fields: &["type", "payload!", "room", "ref", "sender", "n", "base", "ephemeral", "traceparent"],
        rules: r#"[
            {"anyOf": [{"required": ["n"]}, {"not": {"required": ["base"]}}]},
            {"anyOf": [
                {"not": {"required": ["ephemeral"], "properties": {"ephemeral": {"const": true}}}},
                {"not": {"anyOf": [{"required": ["n"]}, {"required": ["ref"]}]}}
            ]}
        ]"#,
        examples: &[
            r#"{"payload":{"text":"hi"}}"#,
            r#"{"type":"note","room":"lobby","payload":"everyone","ref":"a","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}"#,
            r#"{"sender":"0f8fad5bd9cb469fa165","n":3,"base":2,"payload":"exactly once"}"#,
            r#"{"type":"typing","ephemeral":true,"payload":null}"#,
        ],
        sessions: false,
        answers: &["ack"],
    },
    Shape {
        name: "subscribe",
        summary: "Join a room, or many, each from a position on, if given. Each room is answered by itself.",
        fields: &["room", "after", "rooms", "ref"],
        rules: r#"[
            {"oneOf": [
                {"required": ["room"], "not": {"required": ["rooms"]}},
                {"required": ["rooms"], "not": {"anyOf": [{"required": ["room"]}, {"required": ["after"]}]}}
            ]}
        ]"#,
        examples: &[
            r#"{"type":"subscribe","room":"red","after":"1764000000000-42","ref":"s"}"#,
            r#"{"type":"subscribe","rooms":{"blue":"","red":"1764000000000-42"}}"#,
        ],
        sessions: true,
        answers: &["subscribed"],
    },
    Shape {
        name: "unsubscribe",
        summary: "Leave a room.",
        fields: &["room!", "ref"],
        rules: "[]",
        examples: &[r#"{"type":"unsubscribe","room":"red","ref":"u"}"#],
        sessions: true,
        answers: &["unsubscribed"],
    },
    Shape {
        name: "auth",
        summary: "Go on with a newer token of the same user; from the acknowledgement on it counts.",
        fields: &["token!", "ref"],
        rules: "[]",
        examples: &[r#"{"type":"auth","token":"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl","ref":"t"}"#],
        sessions: false,
        answers: &["ack"],
    },
    Shape {
        name: "ping",
        summary: "Ask for a `pong`: is the way to the server still there?",
        fields: &["ref"],
        rules: "[]",
        examples: &[r#"{"type":"ping","ref":"p"}"#],
        sessions: false,
        answers: &["pong"],
    },
];

impl Shape {
    fn kind(&self) -> Kind {
        let wire = plain(&Wire::schema());
        let named = self.fields.iter().map(|field| field.trim_end_matches('!'));
        let mut properties: BTreeMap<&str, Value> =
            named.map(|field| (field, wire["properties"][field].clone())).collect();
        let mut required: Vec<&str> = self.fields.iter().filter_map(|field| field.strip_suffix('!')).collect();
        match properties.get_mut("type") {
            Some(word) => {
                word["not"] = json!({ "anyOf": [{ "enum": RESERVED_TYPES }, { "pattern": "^chat_" }] });
                word["default"] = json!("chat");
            }
            None => {
                properties.insert("type", json!({ "const": self.name }));
                required.insert(0, "type");
            }
        }
        let mut schema = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        if let Ok(Value::Array(rules)) = serde_json::from_str(self.rules)
            && !rules.is_empty()
        {
            schema["allOf"] = rules.into();
        }
        Kind {
            name: self.name.to_owned(),
            summary: self.summary.to_owned(),
            schema,
            examples: self.examples.iter().filter_map(|text| serde_json::from_str(text).ok()).collect(),
            sessions: self.sessions,
            answers: self.answers,
        }
    }
}

/// The `type` that a schema asks for.
fn tag(schema: &Value) -> Option<String> {
    schema["properties"]["type"]["enum"][0].as_str().map(str::to_owned)
}

/// A derived schema as JSON.
fn plain(schema: &RefOr<Schema>) -> Value {
    let mut schema = serde_json::to_value(schema).unwrap_or_default();
    without_null(&mut schema);
    with_examples(&mut schema);
    schema
}

/// What is an example in OpenAPI stands in a list in JSON Schema.
fn with_examples(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(with_examples),
        Value::Object(fields) => {
            if let Some(example) = fields.remove("example") {
                fields.insert("examples".into(), json!([example]));
            }
            fields.values_mut().for_each(with_examples);
        }
        _ => {}
    }
}

/// Derived schemas, wherever they stand in a document, let optional fields be `null`. On the wire they are absent.
pub(crate) fn without_null(schema: &mut Value) {
    match schema {
        Value::Array(schemas) => schemas.iter_mut().for_each(without_null),
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [kind] = &types[..] {
                    let kind = kind.clone();
                    fields.insert("type".into(), kind);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("oneOf") {
                choices.retain(|choice| *choice != json!({ "type": "null" }));
                if let [Value::Object(only)] = &choices[..] {
                    let only = only.clone();
                    fields.remove("oneOf");
                    fields.extend(only);
                }
            }
            fields.values_mut().for_each(without_null);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protocol::{Command, ErrorCode};

    fn named(kinds: &[Kind]) -> BTreeSet<&str> {
        kinds.iter().map(|kind| kind.name.as_str()).collect()
    }

    #[test]
    fn every_command_is_described_by_frames_that_the_decoder_takes() {
        for shape in &COMMANDS {
            let kind = shape.kind();
            assert_eq!(kind.examples.len(), shape.examples.len(), "{}: an example is no JSON", shape.name);
            assert!(!kind.examples.is_empty(), "{}", shape.name);
            for text in shape.examples {
                // A new command does not compile before it has a name, and that is no good before it is described.
                let name = match Command::decode(text).expect(text) {
                    Command::Publish(_) => "publish",
                    Command::Subscribe { .. } => "subscribe",
                    Command::Unsubscribe { .. } => "unsubscribe",
                    Command::Auth { .. } => "auth",
                    Command::Ping { .. } => "ping",
                };
                assert_eq!(name, shape.name, "{text}");
            }
            serde_json::from_str::<Vec<Value>>(shape.rules).expect(shape.name);
        }
        let fields = plain(&Wire::schema());
        let fields: BTreeSet<_> = fields["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let used: BTreeSet<_> =
            COMMANDS.iter().flat_map(|shape| shape.fields).map(|field| field.trim_end_matches('!')).collect();
        assert_eq!(used, fields, "each field that is decoded belongs to a command, and no other");
    }

    #[test]
    fn every_event_is_described_and_shown() {
        let events = events();
        for Kind { name, summary, schema, examples, .. } in &events {
            assert!(!examples.is_empty(), "{name} has no example");
            assert!(!summary.is_empty() && schema["properties"].is_object(), "{name}: {schema}");
            let shown: BTreeSet<_> = examples.iter().flat_map(|example| example.as_object().unwrap().keys()).collect();
            let required: BTreeSet<_> =
                schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            for field in required {
                assert!(
                    examples.iter().all(|example| !example[field].is_null() || field == "payload"),
                    "{name}.{field}"
                );
            }
            let fields: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
            assert!(shown.is_subset(&fields), "{name}: {shown:?} but {fields:?}");
        }
        assert!(OF_SESSIONS.iter().all(|name| named(&events).contains(name)));
        for kind in commands() {
            for answer in kind.answers {
                assert!(named(&events).contains(answer), "{}: {answer}", kind.name);
            }
        }
    }

    /// A code that is not listed would not stand in any table.
    #[test]
    fn the_listed_codes_are_all_that_there_are() {
        assert_eq!(plain(&ErrorCode::schema())["enum"], json!(ErrorCode::ALL.map(ErrorCode::as_str)));
    }

    #[test]
    fn nothing_is_null_and_everything_referred_to_is_there() {
        let shared = shared();
        let kinds = commands().into_iter().chain(events()).map(|kind| kind.schema);
        let all = serde_json::to_string(&kinds.chain(shared.values().cloned()).collect::<Vec<_>>()).unwrap();
        assert!(!all.contains("\"null\""), "{all}");
        for reference in all.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(shared.contains_key(name), "{name}");
        }
    }
}
