//! Redis goes away and comes back: sockets stay, nothing acknowledged is lost.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Chat, Client, Node, Over, PATIENCE, Redis, eventually,
    proxy::{Flow, Proxy, Way, Which},
    redis::free_port,
};

/// Publishes until it is acknowledged; returns how often it was refused before, all retryable.
async fn insist(client: &mut Client, payload: &Value) -> usize {
    let mut refusals = 0;
    loop {
        client.send(json!({ "payload": payload, "ref": "insist" })).await;
        loop {
            let event = client.next().await;
            match event["type"].as_str() {
                Some("ack") => return refusals,
                Some("error") => {
                    assert_eq!((&event["code"], &event["retryable"]), (&json!("unavailable"), &json!(true)), "{event}");
                    assert!(event["outcome"] == "refused" || event["outcome"] == "unknown", "{event}");
                    assert!(event["retry_after_ms"].is_u64(), "{event}");
                    refusals += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    break;
                }
                _ => {}
            }
        }
    }
}

/// More is said than the log keeps while a node does not hear it: its members start over, but Redis has lost nothing.
#[tokio::test]
async fn more_was_said_than_the_log_keeps() {
    let chat = Chat::start_with(Over::Redis, |node| node.env("CHAT_HISTORY__MESSAGES", "1")).await;
    let mut reader = chat.client(1, "/api/chat-api/ws/r").await;
    let say = async |n: usize| {
        let body = format!(r#"{{"payload":{n}}}"#);
        assert_eq!(chat.nodes[0].post("/api/chat-api/rooms/r/messages", &body, &[]).await.status, 201);
    };
    say(0).await;
    assert_eq!(reader.message().await["payload"], 0);
    chat.nodes[1].signal("STOP");
    chat.redis.as_ref().expect("over Redis").command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    for n in 1..4 {
        say(n).await;
    }
    chat.nodes[1].signal("CONT");
    assert_eq!(reader.closed().await.0, 1012);
    chat.nodes[1].wait_for_metric("chat_overruns_total", 1.0).await;
    assert_eq!(chat.nodes[1].metric("chat_resets_total").await, 0.0);
}

#[tokio::test]
async fn killed_and_started_again() {
    let mut chat = Chat::start(Over::Redis).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let mut reader = chat.client(1, "/api/chat-api/ws/r").await;
    for n in 0..100 {
        sender.publish(json!(n)).await;
    }
    // The log is on disk within a second; until then a kill may lose it, as `everysec` says.
    let redis = chat.redis.as_mut().expect("redis");
    eventually("the log is flushed", || async {
        redis.command(&["INFO", "persistence"]).await.contains("aof_pending_bio_fsync:0")
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    redis.kill();

    sender.send(json!({ "payload": "meanwhile", "ref": "lost" })).await;
    let refusal = loop {
        let event = sender.next().await;
        if event["ref"] == "lost" {
            break event;
        }
    };
    assert_eq!((&refusal["code"], &refusal["retryable"]), (&json!("unavailable"), &json!(true)));
    for node in &chat.nodes {
        node.wait_for_metric("chat_redis_up", 0.0).await;
        assert_eq!(node.manage("/readyz").await.status, 200, "everyone's fault: the nodes stay ready for the grace");
        assert_eq!(node.manage("/livez").await.status, 200);
    }
    chat.redis.as_mut().expect("redis").restart().await;
    insist(&mut sender, &json!("after")).await;

    let mut seen: Vec<Value> = Vec::new();
    while seen.last() != Some(&json!("after")) {
        seen.push(reader.message().await["payload"].clone());
    }
    let acked: Vec<Value> = (0..100).map(Value::from).collect();
    assert_eq!(seen[..100], acked, "the same socket saw every acknowledged message, in order");
    assert!(seen[100..].iter().all(|payload| payload == "meanwhile" || payload == "after"), "{:?}", &seen[100..]);
    let mut late = chat.nodes[0].connect("/api/chat-api/ws/r?after=0-0").await;
    for expected in acked {
        assert_eq!(late.message().await["payload"], expected, "and the log has them");
    }
}

/// The subscription alone breaks, again and again, while messages flow: holes are repaired from the log before anyone sees them.
#[tokio::test]
async fn a_cut_subscription_is_repaired_unseen() {
    let chat = Chat::start(Over::Redis).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let mut reader = chat.client(1, "/api/chat-api/ws/r").await;
    let reading = tokio::task::spawn(async move {
        for expected in 0..600 {
            assert_eq!(reader.message().await["payload"], expected);
        }
        reader
    });
    for n in 0..600 {
        if n % 100 == 50 {
            chat.redis.as_ref().expect("redis").command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
        sender.publish(json!(n)).await;
    }
    let _reader = tokio::time::timeout(PATIENCE, reading).await.expect("all arrive").expect("in order");
    let repairs = chat.nodes[0].total("chat_repairs_total").await + chat.nodes[1].total("chat_repairs_total").await;
    assert!(repairs > 0.0 && chat.nodes[1].metric("chat_redis_reconnects_total").await > 0.0);
}

/// A client comes from a node that is ahead of this one, whose subscription is just broken: what it has does not come again.
#[tokio::test]
async fn a_client_ahead_of_its_node_gets_nothing_twice() {
    let chat = Chat::start(Over::Redis).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let _member = chat.client(1, "/api/chat-api/ws/r").await;
    for _ in 0..10 {
        chat.redis.as_ref().expect("redis").command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        sender.publish(json!("seen elsewhere")).await;
        let seen = sender.publish(json!("seen elsewhere")).await;
        let mut client = chat.nodes[1].connect(&format!("/api/chat-api/ws/r?after={seen}")).await;
        let next = sender.publish(json!("next")).await;
        assert_eq!(client.message().await["id"], next.as_str());
    }
}

/// A log that lost everything does not pretend: its members are sent away to start over.
#[tokio::test]
async fn a_log_that_was_emptied_sends_its_members_to_start_over() {
    let mut chat = Chat::start(Over::Redis).await;
    let mut client = chat.client(0, "/api/chat-api/ws/r").await;
    let old = client.publish(json!("lost")).await;
    let redis = chat.redis.as_mut().expect("redis");
    redis.command(&["FLUSHALL"]).await;
    redis.written().await;
    redis.kill();
    redis.restart().await;
    let (code, reason) = client.closed().await;
    assert!(code == 1012 && reason.starts_with("reconnect after "), "{code} {reason}");
    let mut back = chat.nodes[1].connect(&format!("/api/chat-api/ws/r?after={old}")).await;
    let new = back.publish(json!("new")).await;
    assert_ne!(old, new, "an old position never names a new message");
}

/// Redis has restarted more often than a room remembers: what the log still has is read from any position, to its end.
#[tokio::test]
async fn a_log_of_many_histories_is_read_to_its_end() {
    const OLD: usize = 130; // more than one page
    const HISTORIES: usize = 20;
    let chat = Chat::start(Over::Redis).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let mut ids = Vec::new();
    for n in 0..OLD {
        ids.push(sender.publish(json!(n)).await);
    }
    for history in 0..HISTORIES {
        // As after a restart: the data is of another history than the one that Redis is in now.
        let redis = chat.redis.as_ref().expect("over Redis");
        redis.command(&["HSET", "{chat:r}:meta", "r", &format!("history-{history}")]).await;
        ids.push(sender.publish(json!(OLD + history)).await);
    }
    let epoch = |id: &String| id.split_once('-').expect("a position").0.to_owned();
    assert_eq!(ids.iter().map(epoch).collect::<std::collections::BTreeSet<_>>().len(), HISTORIES + 1);
    let page = async |query: &str| {
        let path = format!("/api/chat-api/rooms/r/messages?limit=50&{query}");
        let page = chat.nodes[1].get(&path).await.json();
        assert_eq!(page["recovered"], true, "{query}");
        let messages = page["messages"].as_array().expect("messages");
        messages.iter().map(|message| message["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let (mut forwards, mut back) = (Vec::new(), page("").await);
    while forwards.len() < ids.len() {
        let after = forwards.last().map_or("0-0", String::as_str);
        forwards.extend(page(&format!("after={after}")).await);
    }
    assert_eq!(forwards, ids);
    while back.len() < ids.len() {
        let before = page(&format!("before={}", back[0])).await;
        back.splice(..0, before);
    }
    assert_eq!(back, ids);
    for seen in [0, 49, 99, OLD] {
        let mut reader = chat.nodes[1].connect(&format!("/api/chat-api/ws/r?after={}", ids[seen])).await;
        for id in &ids[seen + 1..] {
            assert_eq!(reader.message().await["id"], id.as_str());
        }
    }
}

#[tokio::test]
async fn a_start_without_redis_waits_for_it() {
    let mut redis = Redis::absent();
    let node = Node::builder().env("REDIS_URL", &redis.url()).launch().await;
    assert_eq!(node.manage("/livez").await.status, 200);
    let ready = node.manage("/readyz").await;
    assert_eq!((ready.status, ready.json()["reasons"][0].as_str()), (503, Some("redis: not reached yet")));
    assert_eq!(node.manage("/startupz").await.status, 200, "a restart would not help");
    redis.restart().await;
    eventually("the node is ready", || async { node.manage("/readyz").await.status == 200 }).await;
    node.client("/api/chat-api/ws/r").await.publish(json!("hi")).await;
}

#[tokio::test]
async fn readiness_goes_after_the_grace() {
    let mut redis = Redis::absent();
    redis.restart().await;
    let node = Node::builder().env("REDIS_URL", &redis.url()).env("CHAT_READINESS__REDIS_GRACE", "1s").start().await;
    redis.kill();
    eventually("the node is not ready", || async { node.manage("/readyz").await.status == 503 }).await;
    assert_eq!(node.manage("/livez").await.status, 200, "a restart would help nobody");
    redis.restart().await;
    eventually("the node is ready again", || async { node.manage("/readyz").await.status == 200 }).await;
}

/// Where a node connects anew there is but a replica, while what it has open still reaches the master: it hears nothing, and nobody else does.
#[tokio::test]
async fn a_node_that_finds_no_master_to_subscribe_at_sends_its_clients_away() {
    const SUBSCRIBER: &str = "SUBSCRIBE\r\n";
    let (master, replica) = (Redis::start().await, Redis::start().await);
    replica.follow(&master).await;
    let link = Proxy::start(master.address(), &[SUBSCRIBER]).await;
    let node = Node::builder().env("REDIS_URL", &format!("redis://{}", link.address)).start().await;
    let mut client = node.client("/api/chat-api/ws/r").await;
    client.publish(json!("before")).await;
    link.retarget(replica.address());
    assert!(link.cut(Which::Saying(SUBSCRIBER)) > 0);
    eventually("the node is not ready", || async {
        let ready = node.manage("/readyz").await;
        ready.status == 503 && ready.json()["reasons"][0] == "redis: what it publishes does not arrive here"
    })
    .await;
    link.retarget(master.address());
    eventually("the node is ready again", || async { node.manage("/readyz").await.status == 200 }).await;
    client.publish(json!("after")).await;
}

/// A room is being opened while the subscription is gone for a moment: what is said in that moment is not left for the next message to show.
#[tokio::test]
async fn what_is_said_while_a_room_is_opened_arrives() {
    const HERE: &str = "{chat:r}:here";
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.address(), &[HERE, "SUBSCRIBE"]).await;
    let node = |address| Node::builder().env("REDIS_URL", &format!("redis://{address}"));
    let opening =
        node(proxy.address).env("CHAT_REDIS__TIMEOUT", "15s").env("CHAT_REDIS__PUBLISH_DEADLINE", "15s").start().await;
    let other = node(redis.address()).start().await;
    proxy.rule(Which::Saying(HERE), Way::Up, Flow { hold: true, ..Flow::default() });
    let mut reader = opening.connect("/api/chat-api/ws/r").await;
    eventually("it says who is there", || async { proxy.connections(Which::Saying(HERE)) > 0 }).await;
    let reads = r#"chat_redis_command_duration_seconds_count{command="read"}"#;
    eventually("it has read the log", || async { opening.metric(reads).await > 0.0 }).await;
    proxy.retarget(([127, 0, 0, 1], free_port()).into());
    assert!(proxy.cut(Which::Saying("SUBSCRIBE")) > 0);
    other.client("/api/chat-api/ws/r").await.publish(json!("meanwhile")).await;
    proxy.retarget(redis.address());
    eventually("it is subscribed again", || async { opening.metric("chat_redis_reconnects_total").await > 0.0 }).await;
    proxy.heal();
    assert_eq!(reader.message().await["payload"], "meanwhile");
}

/// All of Redis waits for a read, and whoever asked has to hold it: it ends after so many bytes, and goes on from there.
#[tokio::test]
async fn a_read_of_long_messages_ends_early_and_goes_on() {
    let redis = Redis::start().await;
    let node = Node::builder().env("REDIS_URL", &redis.url()).start().await;
    let mut sender = node.client("/api/chat-api/ws/r").await;
    for n in 0..150 {
        let length = if n % 20 < 9 { 10 } else { 30_000 };
        sender.publish(json!({ "n": n, "text": "x".repeat(length) })).await;
    }
    let sent = async || redis.info("total_net_output_bytes").await.parse::<u64>().expect("a number");
    let before = sent().await;
    for query in ["", "&after=0-0"] {
        assert_eq!(node.get(&format!("/api/chat-api/rooms/r/messages?limit=200{query}")).await.status, 200);
    }
    let taken = sent().await - before;
    assert!(taken < 2 << 20, "{taken} bytes for two pages");
    let mut reader = node.connect("/api/chat-api/ws/r?after=0-0").await;
    for n in 0..150 {
        assert_eq!(reader.message().await["payload"]["n"], n);
    }
}
