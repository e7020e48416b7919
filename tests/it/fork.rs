//! A Redis that comes back without its last messages, as after a failover: everybody is told what was lost, and senders send it again.

use serde_json::{Value, json};

use crate::support::{
    Chat, Client, Node, NodeBuilder, Over, Redis,
    client::Offer,
    eventually,
    proxy::{Flow, Proxy, Way, Which},
};

const PATH: &str = "/api/chat-api/ws/r";

fn quiet(node: NodeBuilder) -> NodeBuilder {
    node.env("CHAT_PRESENCE__ENABLED", "false")
}

async fn session(node: &Node, path: &str) -> Client {
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let mut session = Client::open(node.public, path, offer).await.expect("the upgrade succeeds");
    assert_eq!(session.next().await["type"], "welcome");
    session
}

async fn count(sender: &mut Client, n: u64, base: u64) -> Value {
    sender.send(json!({ "sender": "s", "n": n, "base": base, "payload": n })).await;
    loop {
        let event = sender.next().await;
        if event["type"] == "ack" || event["type"] == "error" {
            return event;
        }
    }
}

/// The next frame that is no message.
async fn told(client: &mut Client) -> Value {
    loop {
        let event = client.next().await;
        if event["payload"].is_null() {
            return event;
        }
    }
}

#[tokio::test]
async fn lost_messages_are_told_and_sent_again() {
    let mut chat = Chat::start_with(Over::Redis, quiet).await;
    let mut sender = session(&chat.nodes[0], PATH).await;
    let mut reader = session(&chat.nodes[1], PATH).await;
    let mut plain = chat.client(1, PATH).await;
    let mut ids = vec![Value::Null];
    for n in 1..=5 {
        ids.push(count(&mut sender, n, n).await["id"].clone());
    }
    let redis = chat.redis.as_mut().expect("over Redis");
    let backup = redis.backup().await;
    for n in 6..=8 {
        ids.push(count(&mut sender, n, 1).await["id"].clone());
    }
    for n in 1..=8 {
        assert_eq!(reader.message().await["payload"], n);
    }
    redis.kill();
    redis.restore(&backup);
    redis.restart().await;

    // Whoever is there is told, in the order of the room; a plain socket comes back.
    for client in [&mut reader, &mut sender] {
        let news = told(client).await;
        assert_eq!(
            (&news["type"], &news["recovered"], &news["rollback"]),
            (&json!("subscribed"), &json!(true), &ids[5])
        );
    }
    assert_eq!(plain.closed().await.0, 1012);
    assert!(chat.nodes[1].metric("chat_rollbacks_total").await >= 1.0);

    // The sender, which still holds what it sent lately, learns what is missing.
    let gap = count(&mut sender, 9, 6).await;
    assert_eq!((&gap["code"], &gap["last_n"]), (&json!("gap"), &json!(5)), "{gap}");
    let mut again = Vec::new();
    for n in 6..=9 {
        again.push(count(&mut sender, n, 6).await["id"].clone());
    }
    for (n, id) in (6..=9).zip(&again) {
        let message = reader.message().await;
        assert_eq!((&message["payload"], &message["id"]), (&json!(n), id));
    }
    assert!(again.iter().all(|id| !ids.contains(id)), "a position never names another message");

    // Who comes back from a lost position: rolled back, then what really followed.
    let lost = ids[8].as_str().expect("an id");
    let mut late = session(&chat.nodes[1], &format!("{PATH}?after={lost}")).await;
    let subscribed = late.next().await;
    assert_eq!((&subscribed["recovered"], &subscribed["rollback"]), (&json!(true), &ids[5]), "{subscribed}");
    for n in 6..=9 {
        assert_eq!(late.next().await["payload"], n);
    }
    let history = chat.nodes[0].get(&format!("/api/chat-api/rooms/r/messages?after={lost}")).await.json();
    assert_eq!((&history["rollback"], history["messages"].as_array().map(Vec::len)), (&ids[5], Some(4)));
    // From before the loss nothing is special.
    let kept = ids[4].as_str().expect("an id");
    let mut kept = session(&chat.nodes[0], &format!("{PATH}?after={kept}")).await;
    let subscribed = kept.next().await;
    assert_eq!((&subscribed["recovered"], &subscribed["rollback"]), (&json!(true), &Value::Null));
    for n in 5..=9 {
        assert_eq!(kept.next().await["payload"], n);
    }
}

/// A restart that lost nothing is another history too; nobody is told anything.
#[tokio::test]
async fn a_restart_that_lost_nothing_is_unseen() {
    let mut chat = Chat::start_with(Over::Redis, quiet).await;
    let mut reader = session(&chat.nodes[1], PATH).await;
    let mut plain = chat.client(0, PATH).await;
    let before = plain.publish(json!("before")).await;
    assert_eq!(reader.next().await["payload"], "before");
    let redis = chat.redis.as_mut().expect("over Redis");
    redis.written().await;
    redis.kill();
    redis.restart().await;
    eventually("redis is back", || async { chat.nodes[0].metric("chat_redis_up").await > 0.0 }).await;
    let after = plain.publish(json!("after")).await;
    assert_ne!(before.split('-').next(), after.split('-').next(), "another epoch");
    assert_eq!(reader.next().await["payload"], "after");
    let mut back = session(&chat.nodes[1], &format!("{PATH}?after={before}")).await;
    assert_eq!(back.next().await["recovered"], true);
    assert_eq!(back.next().await["payload"], "after");
    assert_eq!(
        chat.nodes[1].metric("chat_rollbacks_total").await + chat.nodes[1].metric("chat_resets_total").await,
        0.0
    );
}

/// Redis freezes while a message is on its way: it is sent again under the node's own counter, and stored once.
#[tokio::test]
async fn an_unknown_outcome_is_settled_by_the_node() {
    let chat = Chat::start_with(Over::Redis, |node| quiet(node).env("CHAT_REDIS__TIMEOUT", "300ms")).await;
    let redis = chat.redis.as_ref().expect("over Redis");
    let mut reader = session(&chat.nodes[1], PATH).await;
    let mut sender = chat.client(0, PATH).await;
    sender.publish(json!("warm")).await;
    assert_eq!(reader.message().await["payload"], "warm");
    redis.freeze();
    sender.send(json!({ "payload": "once", "ref": "x" })).await;
    eventually("it was tried again", || async { chat.nodes[0].metric("chat_publish_retries_total").await > 0.0 }).await;
    redis.thaw();
    loop {
        let event = sender.next().await;
        if event["ref"] == "x" {
            break assert_eq!(event["type"], "ack", "{event}");
        }
    }
    sender.publish(json!("end")).await;
    assert_eq!(reader.message().await["payload"], "once");
    assert_eq!(reader.message().await["payload"], "end");
}

/// A node that has not heard for a while, and a Redis that lost its last messages: who resumes there from a lost position gets nothing twice.
#[tokio::test]
async fn a_rollback_at_a_node_that_lags_repeats_nothing() {
    const SUBSCRIBE: &str = "SUBSCRIBE";
    let mut redis = Redis::start().await;
    let proxy = Proxy::start(redis.address(), &[SUBSCRIBE]).await;
    let node = |address| quiet(Node::builder()).env("REDIS_URL", &format!("redis://{address}"));
    let (ahead, lags) = (node(redis.address()).start().await, node(proxy.address).start().await);
    let mut sender = session(&ahead, PATH).await;
    let mut member = session(&lags, PATH).await;
    count(&mut sender, 1, 1).await;
    assert_eq!(member.message().await["payload"], 1);
    proxy.rule(Which::Saying(SUBSCRIBE), Way::Down, Flow { hold: true, ..Flow::default() });
    count(&mut sender, 2, 1).await;
    let kept = count(&mut sender, 3, 1).await["id"].clone();
    let backup = redis.backup().await;
    let lost = count(&mut sender, 4, 1).await["id"].clone();
    redis.kill();
    redis.restore(&backup);
    redis.restart().await;
    let mut late = session(&lags, &format!("{PATH}?after={}", lost.as_str().expect("an id"))).await;
    let subscribed = late.next().await;
    assert_eq!((&subscribed["recovered"], &subscribed["rollback"]), (&json!(true), &kept), "{subscribed}");
    proxy.heal();
    eventually("the sender goes on", || async { ahead.metric("chat_redis_up").await > 0.0 }).await;
    while count(&mut sender, 4, 4).await["type"] != "ack" {}
    assert_eq!(late.message().await["payload"], 4, "two and three it has");
    for n in 2..=4 {
        assert_eq!(member.message().await["payload"], n);
    }
}

/// Somebody who is still being brought up to date when the log is lost: nothing of the old log follows the news.
#[tokio::test]
async fn nothing_old_follows_a_reset() {
    let mut redis = Redis::start().await;
    let node = quiet(Node::builder()).env("REDIS_URL", &redis.url()).start().await;
    let mut sender = node.client(PATH).await;
    for n in 0..300 {
        sender.publish(json!({ "n": n, "text": "x".repeat(4096) })).await;
    }
    let proxy = Proxy::start(node.public, &[]).await;
    proxy.rule(Which::All, Way::Down, Flow { bytes_per_second: Some(200_000), ..Flow::default() });
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let mut slow =
        Client::open(proxy.address, &format!("{PATH}?after=0-0"), offer).await.expect("the upgrade succeeds");
    assert_eq!(slow.next().await["type"], "welcome");
    assert_eq!(slow.next().await["type"], "subscribed");
    for _ in 0..10 {
        assert!(slow.next().await["payload"].is_object());
    }
    redis.lose(None).await;
    node.wait_for_metric("chat_resets_total", 1.0).await;
    node.client(PATH).await.publish(json!("end")).await;
    // Whoever had all of it before the loss stays, and is told; the others are closed.
    let mut was_reset = false;
    while let Ok(event) = slow.next_or_close().await {
        was_reset |= event["type"] == "subscribed";
        if event["payload"] == "end" {
            return assert!(was_reset, "nothing was said of the loss");
        }
        assert!(!was_reset || event["payload"].is_null(), "after the reset: {}", event["id"]);
    }
}
