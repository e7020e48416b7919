//! The AsyncAPI document against what it describes: the decoder, and the frames of real servers.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use chat_api::protocol::{self, RESERVED_TYPES};
use serde_json::{Value, json};

use crate::support::{Node, chat_api, repository, run};

const DOCUMENT: &str = "docs/asyncapi.json";

/// A frame that a server sent, and whether to a session.
pub struct Heard {
    pub session: bool,
    pub frame: Value,
}

/// Holds frames against the document's schemas. Returns the kinds that were among them.
pub fn validate_heard(heard: &[Heard]) -> BTreeSet<String> {
    let frame =
        |Heard { session, frame }: &Heard| json!({ "side": "send", "frame": frame, "good": true, "session": session });
    validate(heard.iter().map(frame).collect(), "send")
}

fn validate(frames: Vec<Value>, side: &str) -> BTreeSet<String> {
    let mut command = Command::new("node");
    command.arg(repository("tests/page/asyncapi.mjs")).arg(repository(DOCUMENT));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node");
    child.stdin.take().expect("a pipe").write_all(Value::from(frames).to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    assert!(output.status.success() && report["failed"] == 0, "{}: {text}", output.status);
    let seen = report["seen"][side].as_array().expect("a list").iter();
    seen.map(|kind| kind.as_str().expect("a word").to_owned()).collect()
}

#[tokio::test]
async fn the_document_is_the_committed_one() {
    let printed = run(chat_api().arg("asyncapi"));
    let committed = std::fs::read_to_string(repository(DOCUMENT)).unwrap_or_default();
    assert!(printed == committed, "run `make generated` and commit {DOCUMENT}");
    let document: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(document["asyncapi"], "3.0.0");
    let channels = &document["channels"];
    assert_eq!(channels["lobby"]["address"], "/api/chat-api/ws");
    assert_eq!(channels["room"]["address"], "/api/chat-api/ws/{room}");
    assert!(channels["room"]["parameters"]["room"].is_object());
    for (name, codes) in [
        ("x-error-codes", json!(protocol::ErrorCode::ALL.map(protocol::ErrorCode::as_str))),
        ("x-close-codes", json!(protocol::Close::ALL.map(protocol::Close::code))),
    ] {
        let listed: Vec<_> = document[name].as_array().expect(name).iter().map(|row| row["code"].clone()).collect();
        assert_eq!(json!(listed), codes);
    }
    let node = Node::builder().start().await;
    let served = node.get("/api/chat-api/asyncapi.json").await;
    assert_eq!((served.header("content-type"), served.json()), ("application/json", document));
}

/// Every field with a value that suits it.
const FIELDS: [(&str, &str); 11] = [
    ("payload", "1"),
    ("room", r#""red""#),
    ("ref", r#""x""#),
    ("traceparent", r#""t""#),
    ("sender", r#""s""#),
    ("n", "2"),
    ("base", "1"),
    ("ephemeral", "true"),
    ("after", r#""1764000000000-42""#),
    ("rooms", r#"{"red":"1764000000000-42","blue":""}"#),
    ("token", r#""t""#),
];

/// One field after the other with other values, at the edge of what is allowed and beyond.
fn edges() -> Vec<(&'static str, String)> {
    let text = |length| json!("x".repeat(length)).to_string();
    let mut edges = vec![
        ("type", text(64)),
        ("type", text(65)),
        ("room", text(128)),
        ("room", text(129)),
        ("ref", text(128)),
        ("ref", text(129)),
        ("sender", text(64)),
        ("sender", text(65)),
    ];
    for (field, values) in [
        ("type", &[r#""""#, r#""Chat""#, r#""a b""#, r#""a.b-c_1""#, r#""chat_x""#, r#""chatty""#, "7"][..]),
        ("room", &[r#""""#, r#""..""#, r#"".""#, r#""...""#, r#""a b""#, r#""é""#, "1"]),
        ("ref", &[r#""""#, "1"]),
        ("sender", &[r#""""#, "1"]),
        ("n", &["0", "1", "9007199254740992", "9007199254740994", "-1", "1.5", r#""1""#]),
        ("base", &["0", "1.5", r#""1""#]),
        ("ephemeral", &["false", r#""yes""#, "1"]),
        ("after", &[r#""""#, r#""0-0""#, r#""x""#, r#""1-""#, r#""12345678901234567-1""#, "1"]),
        ("rooms", &["{}", r#"{"a b":""}"#, r#"{"red":"x"}"#, r#"{"red":1}"#, "[]", r#"{"..":""}"#]),
        ("token", &[r#""""#, "1"]),
        ("payload", &["{}", "[]", r#""""#, "false", r#"{"a":[null]}"#]),
        ("colour", &["1"]),
    ] {
        edges.extend(values.iter().map(|value| (field, (*value).to_owned())));
    }
    edges
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let fields: Vec<_> = fields.into_iter().map(|(field, value)| format!("{}:{value}", json!(field))).collect();
    format!("{{{}}}", fields.join(","))
}

/// Every combination of fields under every type, and every edge: the schemas take what the decoder takes.
#[test]
fn the_schemas_take_what_the_decoder_takes() {
    let types: Vec<String> =
        RESERVED_TYPES.iter().chain(&["note", "chat", "chat_x"]).map(|kind| json!(kind).to_string()).collect();
    let types: Vec<Option<&str>> = types.iter().map(|kind| Some(kind.as_str())).chain([None]).collect();
    let mut texts = BTreeSet::new();
    for kind in &types {
        let kind = kind.map(|kind| ("type", kind));
        for some in 0..1_u32 << FIELDS.len() {
            let fields = FIELDS.iter().enumerate().filter(|(index, _)| some >> index & 1 == 1).map(|(_, field)| *field);
            texts.insert(object(kind.into_iter().chain(fields)));
        }
    }
    for base in [
        &[("payload", "1")][..],
        &[("payload", "1"), ("n", "2"), ("base", "1")],
        &[("type", r#""subscribe""#), ("room", r#""red""#)],
        &[("type", r#""subscribe""#), ("rooms", r#"{"red":""}"#)],
        &[("type", r#""unsubscribe""#), ("room", r#""red""#)],
        &[("type", r#""auth""#), ("token", r#""t""#)],
        &[("type", r#""ping""#)],
    ] {
        // `"ephemeral":false` says nothing: the decoder takes it anywhere, the schemas only where it belongs.
        let says_nothing = |field: &str, value: &str| (field, value) == ("ephemeral", "false") && base[0].0 == "type";
        for (field, value) in edges().iter().filter(|(field, value)| !says_nothing(field, value)) {
            let rest = base.iter().copied().filter(|(name, _)| name != field);
            texts.insert(object(rest.chain([(*field, value.as_str())])));
        }
    }
    let judged = |text: &String| {
        let frame: Value = serde_json::from_str(text).expect(text);
        json!({ "side": "receive", "frame": frame, "good": protocol::Command::decode(text).is_ok() })
    };
    let frames: Vec<Value> = texts.iter().map(judged).collect();
    let good = frames.iter().filter(|frame| frame["good"] == true).count();
    assert!(good > 100 && good < frames.len(), "{good} of {} are good", frames.len());
    let seen = validate(frames, "receive");
    assert_eq!(seen, ["auth", "ping", "publish", "subscribe", "unsubscribe"].map(str::to_owned).into());
}
