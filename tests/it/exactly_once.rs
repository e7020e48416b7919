//! Counted messages: each is stored once, whatever its sender has to repeat, over whichever connection and node.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::support::{
    Chat, Client, Node, Over, Redis, eventually,
    proxy::{Proxy, Tamper},
};

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

/// What befalls the first of two messages that go to Redis together.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mishap {
    /// Neither had an answer, and as they go again Redis refuses the first.
    Refused,
    /// Redis does not know the function yet, and has it by the second.
    Unknown,
}

/// Lets the first publish wait, so that others go together behind it, and has them meet a [`Mishap`].
struct Spoiler {
    mishap: Mishap,
    pipelines: Arc<AtomicUsize>,
}

impl Tamper for Spoiler {
    fn up(&mut self, bytes: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(bytes);
        let publishes = text.matches("_publish\r\n").count();
        if publishes == 0 {
            return bytes.to_vec();
        }
        let lost = Vec::new();
        match (self.pipelines.fetch_add(1, Ordering::SeqCst), self.mishap) {
            (0, _) | (2, Mishap::Refused) => lost,
            (2, Mishap::Unknown) => text.replacen("_publish\r\n", "_publisx\r\n", 1).into_bytes(),
            (3, Mishap::Refused) => text.replacen("FCALL", "XCALL", 1).into_bytes(),
            _ => bytes.to_vec(),
        }
    }
}

/// Messages without a counter of their own stand under one of the node: the one behind must not make Redis take the one before for stored.
async fn nothing_is_acknowledged_that_was_overtaken(mishap: Mishap) {
    let redis = Redis::start().await;
    let pipelines = Arc::new(AtomicUsize::new(0));
    let spoiler = {
        let pipelines = pipelines.clone();
        move || -> Box<dyn Tamper> { Box::new(Spoiler { mishap, pipelines: pipelines.clone() }) }
    };
    let proxy = Proxy::tampering(redis.address(), Box::new(spoiler)).await;
    let node = Node::builder().env("REDIS_URL", &format!("redis://{}", proxy.address));
    let node = node.env("CHAT_REDIS__TIMEOUT", "1s").start().await;
    let publish = async |text: &str| {
        let answer = node.post("/api/chat-api/rooms/r/messages", &json!({ "payload": text }).to_string(), &[]).await;
        (text.to_owned(), answer.status)
    };
    let behind = async |text: &str| {
        eventually("the first is under way", || async { pipelines.load(Ordering::SeqCst) > 0 }).await;
        publish(text).await
    };
    let (first, second, third) = tokio::join!(publish("first"), behind("second"), behind("third"));
    let acknowledged: Vec<_> =
        [first, second, third].into_iter().filter_map(|(text, status)| (status == 201).then_some(text)).collect();
    assert!(pipelines.load(Ordering::SeqCst) >= 3 && acknowledged.len() >= 2, "{mishap:?}: {acknowledged:?}");
    let history = node.get("/api/chat-api/rooms/r/messages").await.json();
    let mut stored: Vec<String> = history["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| message["payload"].as_str().expect("text").to_owned())
        .collect();
    stored.retain(|text| acknowledged.contains(text));
    stored.sort_unstable();
    let mut acknowledged = acknowledged;
    acknowledged.sort_unstable();
    assert_eq!(stored, acknowledged, "{mishap:?}: each once");
}

#[tokio::test]
async fn a_message_that_redis_refuses_amid_others_is_not_taken_for_stored() {
    nothing_is_acknowledged_that_was_overtaken(Mishap::Refused).await;
}

#[tokio::test]
async fn a_message_that_met_no_function_is_not_taken_for_stored() {
    nothing_is_acknowledged_that_was_overtaken(Mishap::Unknown).await;
}
