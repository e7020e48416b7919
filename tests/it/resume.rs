//! `?after=`: a client that was away continues exactly.

use serde_json::{Value, json};

use crate::support::{Chat, Over, eventually};

async fn payloads(chat: &Chat, node: usize, after: &str, count: usize) -> Vec<Value> {
    let path = format!("/api/chat-api/ws/r?after={after}");
    let mut client = chat.nodes[node % chat.nodes.len()].connect(&path).await;
    let mut got = Vec::new();
    for _ in 0..count {
        got.push(client.message().await["payload"].clone());
    }
    client.quiet().await;
    got
}

async fn continues_after_the_position_then_live(over: Over) {
    let chat = Chat::start(over).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let mut ids = Vec::new();
    for n in 0..250 {
        ids.push(sender.publish(json!(n)).await);
    }
    let all: Vec<Value> = (0..250).map(Value::from).collect();
    assert_eq!(payloads(&chat, 1, "0-0", 250).await, all, "from the start, over several pages");
    assert_eq!(payloads(&chat, 1, &ids[99], 150).await, all[100..], "from the middle");
    assert_eq!(payloads(&chat, 1, &ids[249], 0).await, [] as [Value; 0], "from the end");
    let mut back = chat.nodes[chat.nodes.len() - 1].connect(&format!("/api/chat-api/ws/r?after={}", ids[247])).await;
    sender.publish(json!("live")).await;
    for expected in [json!(248), json!(249), json!("live")] {
        assert_eq!(back.message().await["payload"], expected);
    }
    let node = &chat.nodes[chat.nodes.len() - 1];
    node.wait_for_metric(r#"chat_resumes_total{outcome="recovered"}"#, 4.0).await;
}

async fn joins_under_load_see_neither_hole_nor_duplicate(over: Over) {
    let chat = Chat::start(over).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let first = sender.publish(json!(0)).await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let sending = tokio::task::spawn(async move {
        let mut last = 0;
        while stopped.try_recv().is_err() {
            last += 1;
            sender.publish(json!(last)).await;
        }
        last
    });
    let joins = (0..40).map(|n| {
        let (chat, first) = (&chat, &first);
        async move {
            let node = &chat.nodes[n % chat.nodes.len()];
            let mut client = node.connect(&format!("/api/chat-api/ws/r?after={first}")).await;
            for expected in 1..200 {
                assert_eq!(client.message().await["payload"], expected);
            }
        }
    });
    futures_util::future::join_all(joins).await;
    stop.send(()).expect("the sender is there");
    assert!(sending.await.expect("the sender") >= 199);
}

async fn what_the_log_dropped_is_not_replayed(over: Over) {
    let chat = Chat::start_with(over, |node| node.env("CHAT_HISTORY__MESSAGES", "10")).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let first = sender.publish(json!(0)).await;
    for n in 1..30 {
        sender.publish(json!(n)).await;
    }
    let kept: Vec<Value> = (20..30).map(Value::from).collect();
    assert_eq!(payloads(&chat, 0, &first, 10).await, kept, "all that the log still has");
    assert_eq!(payloads(&chat, 0, "1-1", 10).await, kept, "a position of another log");
    assert_eq!(payloads(&chat, 0, "9999999999999999-0", 10).await, kept, "a position that never was");
    chat.nodes[0].wait_for_metric(r#"chat_resumes_total{outcome="reset"}"#, 3.0).await;
}

#[tokio::test]
async fn continues_local() {
    continues_after_the_position_then_live(Over::Local).await;
}

#[tokio::test]
async fn continues_redis() {
    continues_after_the_position_then_live(Over::Redis).await;
}

#[tokio::test]
async fn joins_under_load_local() {
    joins_under_load_see_neither_hole_nor_duplicate(Over::Local).await;
}

#[tokio::test]
async fn joins_under_load_redis() {
    joins_under_load_see_neither_hole_nor_duplicate(Over::Redis).await;
}

#[tokio::test]
async fn dropped_local() {
    what_the_log_dropped_is_not_replayed(Over::Local).await;
}

#[tokio::test]
async fn dropped_redis() {
    what_the_log_dropped_is_not_replayed(Over::Redis).await;
}

/// An empty room is forgotten after a while and comes back with its log.
#[tokio::test]
async fn an_empty_room_is_left_and_found_again() {
    let chat = Chat::start_with(Over::Redis, |node| node.env("CHAT_LIMITS__HEARTBEAT", "500ms")).await;
    let mut client = chat.client(0, "/api/chat-api/ws/r").await;
    let id = client.publish(json!("before")).await;
    client.socket.close(None).await.expect("a close");
    let channels = async || chat.redis.as_ref().expect("redis").command(&["PUBSUB", "CHANNELS", "{chat:r}"]).await;
    eventually("the channel is left", || async { channels().await == "*0\r\n" }).await;
    let mut client = chat.client(0, "/api/chat-api/ws/r").await;
    let next = client.publish(json!("after")).await;
    assert_ne!(id, next);
    assert_eq!(payloads(&chat, 1, "0-0", 2).await, [json!("before"), json!("after")]);
}

/// A room whose members come back all at once reads its log once for them, not once each.
#[tokio::test]
async fn who_resumes_at_the_same_time_shares_the_reads() {
    const CLIENTS: usize = 60;
    let chat = Chat::start_with(Over::Redis, |node| node.env("CHAT_PRESENCE__ENABLED", "false")).await;
    let (node, redis) = (&chat.nodes[0], chat.redis.as_ref().expect("over Redis"));
    let mut member = node.client("/api/chat-api/ws/r").await;
    let first = member.publish(json!(0)).await;
    for n in 1..=20 {
        member.publish(json!(n)).await;
    }
    redis.command(&["CONFIG", "RESETSTAT"]).await;
    redis.freeze();
    let mut back = Vec::new();
    for _ in 0..CLIENTS {
        back.push(node.connect(&format!("/api/chat-api/ws/r?after={first}")).await);
    }
    redis.thaw();
    for client in &mut back {
        for n in 1..=20 {
            assert_eq!(client.message().await["payload"], n);
        }
    }
    let stats = redis.command(&["INFO", "commandstats"]).await;
    let calls = stats.split("cmdstat_fcall:calls=").nth(1).and_then(|rest| rest.split(',').next()).expect("reads");
    assert!(calls.parse::<usize>().expect("a number") < CLIENTS / 2, "{calls} reads for {CLIENTS} clients");
}
