//! Nobody waits for the slow.

use serde_json::json;

use crate::support::{Chat, Over};

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
