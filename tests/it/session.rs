//! Sessions (`chat.v1`): many rooms on one socket, each joined, resumed and left by itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Chat, Client, NodeBuilder, Over, both, client::Offer, eventually};

/// Without presence, which has tests of its own.
async fn start_with(over: Over, configure: impl Fn(NodeBuilder) -> NodeBuilder) -> Chat {
    Chat::start_with(over, |node| configure(node.env("CHAT_PRESENCE__ENABLED", "false"))).await
}

/// A session and its `welcome`.
async fn session(chat: &Chat, n: usize, path: &str) -> (Client, Value) {
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let node = &chat.nodes[n % chat.nodes.len()];
    let mut client = Client::open(node.public, path, offer).await.expect("the upgrade succeeds");
    assert_eq!(client.protocol.as_deref(), Some("chat.v1"));
    let welcome = client.next().await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (client, welcome)
}

async fn subscribe(client: &mut Client, room: &str, after: &str) -> Value {
    client.send(json!({ "type": "subscribe", "room": room, "after": after, "ref": room })).await;
    client.next().await
}

async fn publish(client: &mut Client, room: &str, payload: Value) -> String {
    client.send(json!({ "room": room, "payload": payload, "ref": "p" })).await;
    loop {
        let event = client.next().await;
        if event["ref"] == "p" {
            assert_eq!(event["type"], "ack", "{event}");
            return event["id"].as_str().expect("an id").to_owned();
        }
    }
}

async fn a_session_is_welcomed_and_holds_many_rooms(over: Over) {
    let chat = start_with(over, |node| node).await;
    let (mut session, welcome) = session(&chat, 0, "/api/chat-api/ws/general").await;
    assert_eq!(welcome["rooms"], json!({ "general": "0-0", "lobby": "0-0" }));
    assert_eq!(welcome["limits"], json!({ "message_bytes": 32 * 1024, "rooms": 100 }));
    assert_eq!((&welcome["heartbeat_ms"], welcome["client_id"].as_str().map(str::len)), (&json!(25_000), Some(32)));
    assert!(welcome["from"].is_null() && welcome["node"].is_string(), "{welcome}");

    let joined = subscribe(&mut session, "red", "").await;
    assert_eq!(joined, json!({ "type": "subscribed", "room": "red", "id": "0-0", "recovered": false, "ref": "red" }));
    session.send(json!({ "type": "subscribe", "rooms": { "blue": "", "green": "0-0" } })).await;
    assert_eq!(session.next().await["room"], "blue");
    assert_eq!(session.next().await["recovered"], true, "from the start of a log that has nothing: exactly");

    let mut plain = chat.client(1, "/api/chat-api/ws/red").await;
    plain.publish(json!("to red")).await;
    assert_eq!(session.message().await["payload"], "to red");
    let id = publish(&mut session, "red", json!("from the session")).await;
    loop {
        let message = plain.message().await;
        if message["payload"] == "from the session" {
            break assert_eq!((&message["id"], &message["client_id"]), (&json!(id), &welcome["client_id"]));
        }
    }
    session.send(json!({ "type": "unsubscribe", "room": "red", "ref": "bye" })).await;
    while session.next().await != json!({ "type": "unsubscribed", "room": "red", "ref": "bye" }) {}
    plain.publish(json!("nobody hears")).await;
    session.quiet().await;
    for (frame, code) in [
        (json!({ "room": "red", "payload": 1 }), "not_subscribed"),
        (json!({ "type": "unsubscribe", "room": "red" }), "not_subscribed"),
        (json!({ "type": "subscribe", "room": "a b" }), "invalid_room"),
        (json!({ "type": "subscribe", "room": "x", "after": "nonsense" }), "invalid_message"),
    ] {
        session.send(frame).await;
        assert_eq!(session.next().await["code"], code);
    }
    plain.send(json!({ "type": "subscribe", "room": "x", "ref": "s" })).await;
    while plain.next().await["code"] != "invalid_message" {}
}

async fn rooms_are_resumed_each_from_its_position(over: Over) {
    let chat = start_with(over, |node| node).await;
    let (mut first, _) = session(&chat, 0, "/api/chat-api/ws").await;
    subscribe(&mut first, "a", "").await;
    subscribe(&mut first, "b", "").await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(publish(&mut first, "a", json!(n)).await);
        publish(&mut first, "b", json!(n)).await;
    }
    drop(first);
    let (mut back, _) = session(&chat, 1, "/api/chat-api/ws").await;
    back.send(json!({ "type": "subscribe", "rooms": { "a": ids[6], "b": "0-0", "c": "" } })).await;
    let joined = back.next().await;
    assert_eq!(joined, json!({ "type": "subscribed", "room": "a", "id": ids[9], "recovered": true }));
    for n in 7..10 {
        assert_eq!(back.next().await["payload"], n);
    }
    assert_eq!(back.next().await["recovered"], true);
    for n in 0..10 {
        assert_eq!(back.next().await["payload"], n);
    }
    assert_eq!(back.next().await["room"], "c");

    // A position that no log has: told so, and nothing is replayed.
    back.send(json!({ "type": "unsubscribe", "room": "a" })).await;
    assert_eq!(back.next().await["type"], "unsubscribed");
    let lost = subscribe(&mut back, "a", "1-1").await;
    assert_eq!((&lost["recovered"], &lost["id"]), (&json!(false), &json!(ids[9])));
    publish(&mut back, "c", json!("live")).await;
    // The path's room is resumed by the URL; what is told comes in the same order.
    let (mut path, welcome) = session(&chat, 0, &format!("/api/chat-api/ws/a?after={}", ids[7])).await;
    assert_eq!(welcome["rooms"]["a"], ids[9].as_str());
    assert_eq!(path.next().await, json!({ "type": "subscribed", "room": "a", "id": ids[9], "recovered": true }));
    assert_eq!(path.next().await["payload"], 8);
    assert_eq!(path.next().await["payload"], 9);
}

async fn rooms_are_limited(over: Over) {
    let chat = start_with(over, |node| node.env("CHAT_LIMITS__ROOMS", "3")).await;
    let (mut session, _) = session(&chat, 0, "/api/chat-api/ws/general").await;
    assert_eq!(subscribe(&mut session, "third", "").await["type"], "subscribed");
    let refused = subscribe(&mut session, "fourth", "").await;
    assert_eq!((&refused["code"], &refused["ref"]), (&json!("too_many_rooms"), &json!("fourth")));
    session.send(json!({ "type": "subscribe", "rooms": { "fifth": "", "third": "" } })).await;
    for (code, room) in [("too_many_rooms", "fifth"), ("invalid_message", "third")] {
        let refused = session.next().await;
        assert_eq!((&refused["code"], &refused["room"]), (&json!(code), &json!(room)), "which of them");
    }
    assert_eq!(subscribe(&mut session, "third", "").await["code"], "invalid_message", "it is in there");
    session.send(json!({ "type": "unsubscribe", "room": "lobby" })).await;
    assert_eq!(session.next().await["room"], "lobby");
    assert_eq!(subscribe(&mut session, "fourth", "").await["type"], "subscribed");
}

/// A session that leaves and joins again while messages flow, from where it was: no hole, no duplicate, nothing after `unsubscribed`.
async fn leaving_and_coming_back_under_load(over: Over) {
    let chat = start_with(over, |node| node).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    for n in 0..200 {
        sender.publish(json!(n)).await;
    }
    let sending = tokio::task::spawn(async move {
        for n in 200..800 {
            sender.publish(json!(n)).await;
        }
    });
    // Leaves in the middle of its first replay already.
    let (mut session, _) = session(&chat, 1, "/api/chat-api/ws/r?after=0-0").await;
    let (mut expected, mut last, mut position) = (0, String::new(), "0-0".to_owned());
    let mut take = |event: &Value| {
        assert_eq!(event["payload"], expected, "{event}");
        expected += 1;
        event["id"].as_str().expect("an id").clone_into(&mut last);
        (expected, last.clone())
    };
    let mut seen = 0;
    while seen < 800 {
        session.send(json!({ "type": "unsubscribe", "room": "r" })).await;
        let mut after = None;
        loop {
            let event = session.next().await;
            match event["type"].as_str() {
                Some("unsubscribed") => break,
                Some("subscribed") => assert_eq!(event["recovered"], true, "of the first join: {event}"),
                _ => {
                    let (count, id) = take(&event);
                    (seen, after) = (count, Some(id));
                }
            }
        }
        let after = after.unwrap_or_else(|| position.clone());
        let joined = subscribe(&mut session, "r", &after).await;
        assert_eq!((&joined["type"], &joined["recovered"]), (&json!("subscribed"), &json!(true)), "{joined}");
        position = after;
        let until = 800.min(seen + 40);
        while seen < until {
            (seen, position) = take(&session.next().await);
        }
    }
    sending.await.expect("the sender");
}

#[tokio::test]
async fn leaving_local() {
    leaving_and_coming_back_under_load(Over::Local).await;
}

#[tokio::test]
async fn leaving_redis() {
    leaving_and_coming_back_under_load(Over::Redis).await;
}

#[tokio::test]
async fn many_rooms_local() {
    a_session_is_welcomed_and_holds_many_rooms(Over::Local).await;
}

#[tokio::test]
async fn many_rooms_redis() {
    a_session_is_welcomed_and_holds_many_rooms(Over::Redis).await;
}

#[tokio::test]
async fn resumed_local() {
    rooms_are_resumed_each_from_its_position(Over::Local).await;
}

#[tokio::test]
async fn resumed_redis() {
    rooms_are_resumed_each_from_its_position(Over::Redis).await;
}

#[tokio::test]
async fn limited_local() {
    rooms_are_limited(Over::Local).await;
}

#[tokio::test]
async fn limited_redis() {
    rooms_are_limited(Over::Redis).await;
}

#[tokio::test]
async fn a_drain_tells_sessions_when_to_come_back() {
    let chat = Chat::start(Over::Local).await;
    let (mut session, _) = session(&chat, 0, "/api/chat-api/ws").await;
    chat.nodes[0].signal("TERM");
    let reconnect = session.next().await;
    assert_eq!(reconnect["type"], "reconnect");
    let (code, reason) = session.closed().await;
    assert_eq!((code, reason), (1012, format!("reconnect after {} ms", reconnect["after_ms"])));
}

/// A log that lost everything: sessions are told and stay.
#[tokio::test]
async fn an_emptied_log_is_told_to_sessions() {
    let mut chat = start_with(Over::Redis, |node| node).await;
    let (mut session, _) = session(&chat, 0, "/api/chat-api/ws/r").await;
    publish(&mut session, "r", json!("lost")).await;
    let redis = chat.redis.as_mut().expect("redis");
    redis.command(&["FLUSHALL"]).await;
    redis.written().await;
    redis.kill();
    redis.restart().await;
    loop {
        let event = session.next().await;
        if event["type"] == "subscribed" {
            break assert_eq!(event, json!({ "type": "subscribed", "room": "r", "id": "0-0", "recovered": false }));
        }
    }
    // The first may meet a connection that died with the old Redis: its outcome is unknown, and being counted it may be sent again.
    loop {
        session.send(json!({ "sender": "s", "n": 1, "payload": "goes on" })).await;
        let answer = session.next().await;
        if answer["type"] == "ack" || answer["payload"] == "goes on" {
            break;
        }
        assert_eq!(answer["retryable"], true, "{answer}");
    }
}

/// While Redis is away a session cannot join, is told so, and can later.
#[tokio::test]
async fn joining_without_redis_is_refused_as_retryable() {
    let mut chat = start_with(Over::Redis, |node| node).await;
    let (mut session, _) = session(&chat, 0, "/api/chat-api/ws").await;
    chat.redis.as_mut().expect("redis").kill();
    chat.nodes[0].wait_for_metric("chat_redis_up", 0.0).await;
    let refused = subscribe(&mut session, "r", "").await;
    assert_eq!((&refused["code"], &refused["outcome"]), (&json!("unavailable"), &json!("refused")), "{refused}");
    chat.redis.as_mut().expect("redis").restart().await;
    eventually("redis is back", || async { chat.nodes[0].metric("chat_redis_up").await > 0.0 }).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(subscribe(&mut session, "r", "").await["type"], "subscribed");
}

/// A long replay holds up nothing else: while its client does not read, what it sends is taken.
async fn a_replay_runs_beside_the_reading(over: Over) {
    let chat = start_with(over, |node| node.env("CHAT_LIMITS__OUTBOX_AGE", "1m")).await;
    let (mut writer, _) = session(&chat, 0, "/api/chat-api/ws/long").await;
    let text = "x".repeat(30_000);
    let mut last = String::new();
    for _ in 0..100 {
        last = publish(&mut writer, "long", json!(text)).await;
    }
    let mut listener = chat.client(1, "/api/chat-api/ws/other").await;
    let (mut session, _) = session(&chat, 0, "/api/chat-api/ws").await;
    session.send(json!({ "type": "subscribe", "rooms": { "long": "0-0", "other": "" } })).await;
    session.send(json!({ "type": "ping", "ref": "unread" })).await;
    session.send(json!({ "room": "lobby", "payload": "3 MB behind" })).await;
    assert_eq!(listener.message().await["payload"], "3 MB behind");
    session.send(json!({ "room": "other", "payload": "its room's turn is yet to come" })).await;
    let (mut replayed, mut pong) = (0, false);
    loop {
        let event = session.next().await;
        pong |= event["ref"] == "unread";
        replayed += usize::from(event["room"] == "long" && !event["payload"].is_null());
        if event["payload"] == "its room's turn is yet to come" {
            break;
        }
        assert!(event["room"] != "other" || (replayed, &event["type"]) == (100, &json!("subscribed")), "{event}");
    }
    assert!(pong && replayed == 100 && !last.is_empty());
}

both!(a_replay_runs_beside_the_reading);
