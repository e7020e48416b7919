//! Counted messages: each is stored once, whatever its sender has to repeat, over whichever connection and node.

use serde_json::{Value, json};

use crate::support::{Chat, Client, Over};

/// Sends a counted message and returns the answer to it.
async fn send(client: &mut Client, n: u64, base: Option<u64>) -> Value {
    let mut frame = json!({ "sender": "browser-1", "n": n, "payload": n });
    if let Some(base) = base {
        frame["base"] = base.into();
    }
    client.send(frame).await;
    loop {
        let event = client.next().await;
        if event["type"] == "ack" || event["type"] == "error" {
            return event;
        }
    }
}

async fn repeated_messages_are_stored_once(over: Over) {
    let chat = Chat::start(over).await;
    let mut reader = chat.client(1, "/api/chat-api/ws/r").await;
    let mut first = chat.client(0, "/api/chat-api/ws/r").await;
    let one = send(&mut first, 1, None).await;
    assert_eq!((&one["type"], &one["n"], one["id"].is_string()), (&json!("ack"), &json!(1), true), "{one}");
    assert_eq!(send(&mut first, 1, None).await["id"], one["id"], "the last one is acknowledged with its id");
    // The socket breaks before an answer; the client repeats itself over another connection, on another node.
    let mut second = chat.client(1, "/api/chat-api/ws/r").await;
    assert_eq!(send(&mut second, 1, None).await["id"], one["id"]);
    let two = send(&mut second, 2, Some(1)).await;
    assert_eq!(two["type"], "ack");
    let old = send(&mut first, 1, None).await;
    assert_eq!(
        (&old["type"], &old["id"]),
        (&json!("ack"), &Value::Null),
        "an older one: only that it was stored is known"
    );
    send(&mut first, 3, Some(2)).await;
    for n in 1..=3 {
        let message = reader.message().await;
        assert_eq!(
            (&message["payload"], &message["n"]),
            (&json!(n), &json!(n)),
            "each once, in order, with its counter"
        );
    }
    reader.quiet().await;
}

async fn a_gap_says_where_to_go_on(over: Over) {
    let chat = Chat::start(over).await;
    let mut client = chat.client(0, "/api/chat-api/ws/r").await;
    send(&mut client, 1, None).await;
    let gap = send(&mut client, 5, Some(2)).await;
    assert_eq!(
        (&gap["code"], &gap["n"], &gap["last_n"], &gap["retryable"]),
        (&json!("gap"), &json!(5), &json!(1), &json!(true)),
        "{gap}"
    );
    for n in 2..=5 {
        assert_eq!(send(&mut client, n, Some(2)).await["type"], "ack", "{n}");
    }
    // A log that forgot the sender takes up at what the sender still holds.
    if let Some(redis) = &chat.redis {
        redis.command(&["DEL", "{chat:r}:n:0::browser-1"]).await;
        assert_eq!(send(&mut client, 9, Some(7)).await["last_n"], 6);
        assert_eq!(send(&mut client, 7, Some(7)).await["type"], "ack");
    }
    // A refused message uses up no n.
    client.send(json!({ "type": "welcome", "n": 6, "payload": 0 })).await;
    let refused = loop {
        let event = client.next().await;
        if event["type"] == "error" {
            break event;
        }
    };
    assert_eq!((&refused["code"], &refused["n"]), (&json!("reserved_type"), &json!(6)), "it says which it was");
    // Each room has its own sequence, and each sender.
    let mut other = chat.client(0, "/api/chat-api/ws/r").await;
    client.send(json!({ "room": "lobby", "n": 1, "payload": "lobby" })).await;
    while client.next().await["type"] != "ack" {}
    other.send(json!({ "sender": "browser-2", "n": 1, "payload": "other" })).await;
    while other.next().await["type"] != "ack" {}
}

async fn the_sender_is_said_once(over: Over) {
    let chat = Chat::start(over).await;
    let mut client = chat.client(0, "/api/chat-api/ws/r").await;
    client.send(json!({ "n": 1, "payload": 1 })).await;
    assert_eq!(client.next().await["code"], "invalid_message", "who counts?");
    send(&mut client, 1, None).await;
    client.send(json!({ "sender": "somebody-else", "n": 2, "payload": 2 })).await;
    while client.next().await["code"] != "invalid_message" {}
    client.send(json!({ "n": 2, "payload": 2 })).await;
    while client.next().await["n"] != 2 {}
}

#[tokio::test]
async fn repeated_local() {
    repeated_messages_are_stored_once(Over::Local).await;
}

#[tokio::test]
async fn repeated_redis() {
    repeated_messages_are_stored_once(Over::Redis).await;
}

#[tokio::test]
async fn gap_local() {
    a_gap_says_where_to_go_on(Over::Local).await;
}

#[tokio::test]
async fn gap_redis() {
    a_gap_says_where_to_go_on(Over::Redis).await;
}

#[tokio::test]
async fn sender_local() {
    the_sender_is_said_once(Over::Local).await;
}

#[tokio::test]
async fn sender_redis() {
    the_sender_is_said_once(Over::Redis).await;
}

/// Redis is killed again and again while a client sends; it repeats what it got no answer to. Nothing is lost, nothing comes twice.
#[tokio::test]
async fn nothing_twice_over_a_failing_redis() {
    let mut chat = Chat::start(Over::Redis).await;
    let mut reader = chat.client(1, "/api/chat-api/ws/r").await;
    let mut client = chat.client(0, "/api/chat-api/ws/r").await;
    for n in 1..=60 {
        if n % 20 == 10 {
            // Frozen for longer than the timeout: the answer is unknown, and the message may well be stored.
            chat.redis.as_ref().expect("redis").freeze();
        }
        let mut answer = send(&mut client, n, Some(n)).await;
        while answer["type"] != "ack" {
            assert_eq!(answer["retryable"], true, "{answer}");
            chat.redis.as_mut().expect("redis").thaw();
            answer = send(&mut client, n, Some(n)).await;
        }
    }
    for n in 1..=60 {
        assert_eq!(reader.message().await["payload"], n);
    }
    reader.quiet().await;
}
