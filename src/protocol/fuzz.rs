//! The decoder against everything, and the small words with it.

use std::borrow::Cow;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json, value::RawValue};

use super::{
    ClientId, Command, Count, ErrorCode, Message, MessageId, Publish, Refusal, RoomName, UserId, decode::is_kind,
};
use crate::fuzz::{any_text, fuzz, json, mutated, object, texts};

/// What an answer may add to what it repeats.
const ANSWER: usize = 2048;

/// What a field may hold, for the most part.
fn suits(key: &str) -> BoxedStrategy<String> {
    let one_of = |texts: &'static [&str]| select(texts).prop_map(str::to_owned).boxed();
    let word = |words: &'static [&str]| select(words).prop_map(|word| json!(word).to_string());
    let quoted = |text: String| json!(text).to_string();
    const ROOMS: &[&str] = &["general", "lobby", "..", "a b", "é"];
    const IDS: &[&str] = &["", "0-0", "1764000000000-42", "9999999999999999-9999999999999999", "1-", "x"];
    match key {
        "type" => word(&["chat", "note.v1", "x", "", "Chat", "auth", "ack", "chat_x"]).boxed(),
        "room" => word(ROOMS).boxed(),
        "ref" => prop_oneof![4 => word(&["x", ""]), 4 => any_text().prop_map(quoted), 1 => texts("x{120,140}").prop_map(quoted)].boxed(),
        "traceparent" => word(&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x"]).boxed(),
        "sender" => prop_oneof![8 => word(&["s", "é"]), 1 => texts("[a-zé]{60,70}").prop_map(quoted)].boxed(),
        "n" => one_of(&["1", "2", "17", "9007199254740992", "9007199254740993", "0", "-1", "1.5", "1e3", "1e999"]),
        "base" => one_of(&["1", "2", "17", "0"]),
        "token" => word(&["a.b.c", ""]).boxed(),
        "ephemeral" => one_of(&["true", "false"]),
        "after" => word(IDS).boxed(),
        "rooms" => vec((select(ROOMS), select(IDS)), 0..4)
            .prop_map(|rooms| object(rooms.into_iter().map(|(room, id)| (room, json!(id).to_string()))))
            .boxed(),
        _ => json().boxed(),
    }
}

/// A frame with some of these fields, each as often as said.
fn of(fields: &[(&'static str, f64)]) -> impl Strategy<Value = String> + use<> {
    let field = |(key, likely): &(&'static str, f64)| {
        let (key, likely) = (*key, *likely);
        let value = prop_oneof![20 => suits(key), 1 => json(), 1 => Just("null".to_owned())];
        option::weighted(likely, value.prop_map(move |value| (key, value)))
    };
    let fields: Vec<_> = fields.iter().map(field).collect();
    fields.prop_map(|fields| fields.into_iter().flatten().collect::<Vec<_>>()).prop_shuffle().prop_map(object)
}

fn frame() -> impl Strategy<Value = String> {
    let command = select(&["ping", "auth", "subscribe", "subscribe", "unsubscribe"][..]);
    let fields = [("room", 0.6), ("after", 0.3), ("rooms", 0.3), ("ref", 0.5), ("token", 0.1), ("n", 0.03)];
    let command = (command, of(&fields))
        .prop_map(|(kind, rest)| rest.replacen('{', &format!(r#"{{"type":"{kind}","#), 1).replace(",}", "}"));
    let message =
        [("type", 0.5), ("payload", 0.97), ("room", 0.5), ("ref", 0.2), ("traceparent", 0.2), ("sender", 0.3)];
    let message =
        [&message[..], &[("n", 0.4), ("base", 0.2), ("ephemeral", 0.3), ("after", 0.02), ("colour", 0.02)]].concat();
    prop_oneof![3 => of(&message), 1 => command]
}

fn text() -> impl Strategy<Value = String> {
    let hostile = mutated(frame().prop_map(String::into_bytes));
    let hostile = hostile.prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    prop_oneof![4 => frame(), 4 => hostile, 1 => json(), 1 => any_text()]
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[test]
fn fuzz_decoder() {
    fuzz(file!(), text(), |text| match Command::decode(&text) {
        Ok(Command::Publish(publish)) => accepted(&text, &publish),
        Ok(command) => {
            assert!(command.tags().0.is_none_or(|reference| reference.len() <= 128));
            assert!(!matches!(command, Command::Subscribe { rooms, .. } if rooms.is_empty()));
        }
        Err(refusal) => refused(&text, &refusal),
    });
}

/// What was taken is as documented, and leaves as a message that every reader can read.
fn accepted(text: &str, publish: &Publish<'_>) {
    let Publish { kind, payload, reference, sender, count, ephemeral, .. } = publish;
    assert!(is_kind(kind) && !kind.starts_with("chat_"), "{kind}");
    assert!(reference.as_ref().is_none_or(|reference| reference.len() <= 128));
    assert!(sender.as_ref().is_none_or(|sender| (1..=64).contains(&sender.chars().count())));
    assert!(count.is_none_or(|Count { n, base }| 1 <= base && base <= n && n <= 1 << 53));
    assert!(!ephemeral || (count.is_none() && reference.is_none()));
    assert!(text.as_bytes().as_ptr_range().contains(&payload.get().as_ptr()), "the sender's own bytes");

    let room = publish.room.clone().unwrap_or_else(RoomName::lobby);
    let id = (!ephemeral).then_some(MessageId { epoch: 1_764_000_000_000, seq: 42 });
    let client_id = ClientId::random().to_string();
    let n = count.map(|count| count.n);
    let message = Message { kind, id, room: &room, from: None, client_id: &client_id, timestamp_ms: 0, n, payload };
    let frame = message.frame();
    assert!(frame.wire_len() <= payload.get().len() + ANSWER);
    #[derive(Deserialize)]
    struct Wire<'a> {
        r#type: String,
        room: String,
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let wire: Wire<'_> = serde_json::from_slice(frame.json_text()).unwrap();
    assert_eq!((wire.r#type.as_str(), wire.room.as_str(), wire.payload.get()), (&**kind, room.as_str(), payload.get()));
    // Deep nesting and lone surrogates would fail here; a number too large for a double is the reader's to round.
    let value = serde_json::from_str::<Value>(payload.get());
    assert!(value.as_ref().err().is_none_or(|error| error.to_string().starts_with("number out of range")), "{value:?}");
    assert!(Command::decode(std::str::from_utf8(frame.json_text()).unwrap()).is_err(), "a message is no command");
}

/// What was refused gets the right word, and an answer that does not grow with it.
fn refused(text: &str, refusal: &Refusal) {
    use ErrorCode::{InvalidJson, InvalidMessage, InvalidRoom, ReservedType};
    let known = matches!(refusal.code, InvalidJson | InvalidMessage | InvalidRoom | ReservedType);
    assert!(known && !refusal.message.is_empty(), "{refusal:?}");
    assert_eq!(refusal.code == InvalidJson, !is_json(text), "{refusal:?}");
    let frame = refusal.frame();
    assert!(frame.wire_len() <= ANSWER, "{refusal:?}");
    let answer: Value = serde_json::from_slice(frame.json_text()).unwrap();
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(refusal.code.as_str())));
    assert_eq!(answer["ref"].as_str(), refusal.reference.as_deref());
    assert_eq!(answer["n"].as_u64(), refusal.n);
    assert!(Command::decode(&answer.to_string()).is_err(), "an answer is no command");
}

/// A message as a client writes it comes out as it was meant.
#[test]
fn fuzz_good_messages() {
    let kind = texts("[a-z][a-z0-9.-]{0,63}")
        .prop_filter("reserved", |kind| Command::decode(&format!(r#"{{"type":"{kind}","payload":1}}"#)).is_ok());
    let payload =
        json().prop_filter("refused", |payload| Command::decode(&format!(r#"{{"payload":{payload}}}"#)).is_ok());
    let reference = option::of(texts("\\PC{0,32}"));
    let message = (kind, texts("[A-Za-z0-9_.-]{3,128}"), payload, reference, texts("\\PC{1,64}"), 1..=1_u64 << 53);
    fuzz(file!(), message, |(kind, room, payload, reference, sender, n)| {
        let mut fields = vec![("type", json!(kind).to_string()), ("room", json!(room).to_string())];
        fields.extend(reference.iter().map(|reference| ("ref", json!(reference).to_string())));
        fields.extend([("sender", json!(sender).to_string()), ("payload", payload.clone()), ("n", n.to_string())]);
        let frame = object(fields);
        let Ok(Command::Publish(publish)) = Command::decode(&frame) else { panic!("{frame}") };
        assert_eq!((&*publish.kind, publish.payload.get()), (kind.as_str(), payload.as_str()));
        assert_eq!(publish.room, RoomName::new(&room).ok());
        assert_eq!(publish.reference, reference.map(Cow::Owned));
        assert_eq!(publish.sender, Some(Cow::Owned(sender)));
        assert_eq!(publish.count, Some(Count { n, base: n }));
    });
}

#[test]
fn fuzz_names_and_positions() {
    let id = texts("[0-9+ x-]{0,4}[0-9]{0,18}-[0-9]{0,18}[0-9 -]{0,2}");
    let words = prop_oneof![any_text(), texts("[A-Za-z0-9_.*{}-]{0,140}"), id, texts("\\.{0,3}")];
    fuzz(file!(), words, |word| {
        if let Ok(name) = RoomName::new(&word) {
            assert_eq!(name.as_str(), word);
            assert!(
                !word.contains(|c: char| !c.is_ascii_graphic() || "{}*?[]\"\\/:%".contains(c)),
                "not safe in a key"
            );
        }
        if let Ok(id) = word.parse::<MessageId>() {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert!(id.to_string().len() <= word.len() && id.seq.checked_add(1).is_some());
        }
        if let Ok(user) = UserId::new(&word) {
            assert_eq!(user.to_string(), word);
        }
    });
}
