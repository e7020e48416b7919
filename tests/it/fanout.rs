//! Many members: one order for all, and nobody waits for the slow.

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Chat, Over};

async fn members_see_one_order(over: Over) {
    const MEMBERS: usize = 200;
    const SENDERS: usize = 8;
    const EACH: usize = 25;
    let chat = Chat::start(over).await;
    let members = join_all((0..MEMBERS).map(|n| chat.client(n, "/api/chat-api/ws/hall"))).await;
    let senders = join_all((0..SENDERS).map(|n| chat.client(n, "/api/chat-api/ws/hall"))).await;
    let sending = join_all(senders.into_iter().enumerate().map(|(n, mut sender)| async move {
        for i in 0..EACH {
            sender.send(json!({ "payload": [n, i] })).await;
        }
        // Reads its own copies, so that nothing is left unread when it goes.
        for _ in 0..SENDERS * EACH {
            sender.message().await;
        }
    }));
    let reading = join_all(members.into_iter().map(|mut member| async move {
        let mut seen = Vec::new();
        for _ in 0..SENDERS * EACH {
            let message = member.message().await;
            seen.push((message["id"].as_str().expect("an id").to_owned(), message["payload"].clone()));
        }
        seen
    }));
    let (_, seen) = tokio::join!(sending, reading);
    let first = &seen[0];
    for (n, (id, payload)) in first.iter().enumerate() {
        assert!(id.ends_with(&format!("-{}", n + 1)), "no hole and no duplicate: {id} at {n}");
        let before = first[..n].iter().filter(|(_, earlier)| earlier[0] == payload[0]).count();
        assert_eq!(payload[1], before, "each sender's own order is kept");
    }
    assert!(seen.iter().all(|other| other == first), "every member sees the same");
}

#[tokio::test]
async fn two_hundred_members_see_one_order_local() {
    members_see_one_order(Over::Local).await;
}

#[tokio::test]
async fn two_hundred_members_see_one_order_redis() {
    members_see_one_order(Over::Redis).await;
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_the_others_keep_theirs() {
    let chat = Chat::start_with(Over::Local, |node| {
        node.env("CHAT_LIMITS__OUTBOX_BYTES", "72KiB")
            .env("CHAT_LIMITS__OUTBOX_AGE", "60s")
            .env("CHAT_HISTORY__MESSAGES", "10000")
    })
    .await;
    let mut slow = chat.client(0, "/api/chat-api/ws/hall").await;
    let mut fast = chat.client(0, "/api/chat-api/ws/hall").await;
    let mut sender = chat.client(0, "/api/chat-api/ws/hall").await;
    let text = "x".repeat(8 * 1024);
    let mut ids = Vec::new();
    // The kernel takes some hundred KiB before a write fails; after that the outbox fills.
    let closed = r#"chat_connections_closed_total{code="1013"}"#;
    for n in 0..2000 {
        ids.push(sender.publish(json!(text)).await);
        assert_eq!(fast.message().await["id"], ids[n].as_str(), "nobody waits for the slow one");
        if n % 50 == 49 && chat.nodes[0].metric(closed).await > 0.0 {
            break;
        }
    }
    chat.nodes[0].wait_for_metric(closed, 1.0).await;
    // What it was sent before is whole and in order; then comes the close, or the cut after it.
    let mut got = 0;
    let close = loop {
        match slow.next_or_close().await {
            Ok(message) => assert_eq!(message["id"], ids[got].as_str()),
            Err(close) => break close,
        }
        got += 1;
    };
    assert!(close.is_none_or(|(code, _)| code == 1013) && got < ids.len());
    // It comes back and resumes: nothing is missing.
    let after = if got == 0 { "0-0" } else { &ids[got - 1] };
    let mut back = chat.nodes[0].connect(&format!("/api/chat-api/ws/hall?after={after}")).await;
    for id in &ids[got..] {
        assert_eq!(back.message().await["id"], id.as_str());
    }
}

#[tokio::test]
async fn a_reader_that_stops_is_closed_by_age() {
    let chat = Chat::start_with(Over::Local, |node| node.env("CHAT_LIMITS__OUTBOX_AGE", "300ms")).await;
    let _stopped = chat.client(0, "/api/chat-api/ws/hall").await;
    let mut sender = chat.client(0, "/api/chat-api/ws/hall").await;
    let text = "x".repeat(8 * 1024);
    let closed = r#"chat_connections_closed_total{code="1013"}"#;
    for n in 0..400 {
        sender.publish(json!(text)).await;
        if n % 20 == 19 && chat.nodes[0].metric(closed).await > 0.0 {
            break;
        }
    }
    chat.nodes[0].wait_for_metric(closed, 1.0).await;
    assert!((chat.nodes[0].metric("chat_connections").await - 1.0).abs() < f64::EPSILON, "the sender stays");
}
