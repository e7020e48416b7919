//! The master moves: sentinels fail over, a name leads elsewhere, replicas come and go. The chat goes on, and nobody is told less than the truth.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Client, Node, NodeBuilder, Redis,
    client::Offer,
    eventually,
    proxy::{Proxy, Which},
    redis::{command, free_port},
    sentinel::{MASTER, Sentinels},
};

const PATH: &str = "/api/chat-api/ws/r";

fn over(url: &str) -> NodeBuilder {
    Node::builder().env("REDIS_URL", url).env("CHAT_PRESENCE__ENABLED", "false")
}

async fn session(node: &Node) -> Client {
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let mut session = Client::open(node.public, PATH, offer).await.expect("the upgrade succeeds");
    assert_eq!(session.next().await["type"], "welcome");
    session
}

/// A sender that counts: it keeps what it sent, and sends again what a gap asks for.
struct Counting {
    session: Client,
    sent: u64,
}

impl Counting {
    /// Sends the next number until it is acknowledged, with all that is found missing before it.
    async fn send(&mut self) {
        self.sent += 1;
        let mut n = self.sent;
        while n <= self.sent {
            let frame = json!({ "sender": "s", "n": n, "base": 1, "payload": n });
            self.session.send(frame).await;
            n = loop {
                let event = self.session.next().await;
                match event["type"].as_str() {
                    Some("ack") if event["n"] == n => break n + 1,
                    Some("error") if event["code"] == "gap" => break event["last_n"].as_u64().expect("a number") + 1,
                    Some("error") => {
                        assert_eq!(event["code"], "unavailable", "{event}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        break n;
                    }
                    _ => {}
                }
            };
        }
    }
}

/// Reads up to a payload, doing what the protocol says: a rollback takes back what came after a position.
async fn read_until(session: &mut Client, last: u64) -> Vec<u64> {
    let mut seen: Vec<(Value, u64)> = Vec::new();
    while seen.last().is_none_or(|(_, payload)| *payload != last) {
        let event = session.next().await;
        if let Some(payload) = event["payload"].as_u64() {
            seen.push((event["id"].clone(), payload));
        } else if event["type"] == "subscribed" {
            assert_eq!(event["recovered"], true, "{event}");
            if let Some(kept) = seen.iter().position(|(id, _)| *id == event["rollback"]) {
                seen.truncate(kept + 1);
            }
        }
    }
    seen.into_iter().map(|(_, payload)| payload).collect()
}

async fn history(node: &Node) -> Value {
    let page = node.get("/api/chat-api/rooms/r/messages?limit=100").await.json();
    page["messages"].as_array().expect("a list").iter().map(|message| message["payload"].clone()).collect()
}

#[tokio::test]
async fn sentinels_fail_over_and_the_chat_goes_on() {
    let (master, replica) = (Redis::start().await, Redis::start().await);
    replica.follow(&master).await;
    let sentinels = Sentinels::start(&master).await;
    for address in &sentinels.addresses {
        let rights = ["-@all", "+sentinel|master", "+sentinel|get-master-addr-by-name"];
        let user = [["ACL", "SETUSER", "chat", "on", ">pw"].as_slice(), &rights].concat();
        assert!(command(*address, &user).await.expect("it answers").contains("OK"));
    }
    // One of them is never there.
    let members: Vec<_> = sentinels.addresses.iter().map(SocketAddr::to_string).collect();
    let members = format!("127.0.0.1:{},{}", free_port(), members.join(","));
    let node = |set: &str, password: &str| {
        let node = over(&format!("redis://{set}")).env("CHAT_REDIS__SENTINELS", &members);
        node.env("CHAT_REDIS__SENTINEL_USER", "chat").env("CHAT_REDIS__SENTINEL_PASSWORD", password)
    };
    let nodes = (node(MASTER, "pw").start().await, node(MASTER, "pw").start().await);
    for (lost, why) in [
        (node("nobody", "pw").launch().await, "redis: a sentinel says: it knows no master named \"nobody\""),
        (node(MASTER, "wrong").launch().await, "redis: a sentinel says: Password authentication failed"),
    ] {
        let reason = || async { lost.manage("/readyz").await.json()["reasons"][0].to_string().replace('\\', "") };
        eventually(why, || async { reason().await.contains(why) }).await;
    }
    let mut sender = Counting { session: session(&nodes.0).await, sent: 0 };
    let mut reader = session(&nodes.1).await;
    for _ in 0..20 {
        sender.send().await;
    }
    eventually("it begins", || async {
        command(sentinels.addresses[0], &["SENTINEL", "FAILOVER", MASTER]).await.is_ok_and(|reply| reply.contains("OK"))
    })
    .await;
    // Until the nodes are at the new master and what they publish arrives there.
    while !replica.command(&["PUBSUB", "NUMSUB", "{chat:r}"]).await.ends_with(":2\r\n") {
        sender.send().await;
        tokio::time::sleep(Duration::from_millis(20)).await; // a room keeps 1000 messages
    }
    for _ in 0..20 {
        sender.send().await;
    }
    let all: Vec<u64> = (1..=sender.sent).collect();
    assert_eq!(read_until(&mut reader, sender.sent).await, all, "each once, in order");
    assert_eq!(read_until(&mut session_from_start(&nodes.0).await, sender.sent).await, all, "and so says the log");
    assert!(
        replica.command(&["XLEN", "{chat:r}:log"]).await.contains(&format!(":{}", sender.sent)),
        "the new master's"
    );
    for node in [&nodes.0, &nodes.1] {
        let moves = node.log().iter().filter(|line| line.contains("another Redis is the master")).count();
        assert!((1..=3).contains(&moves), "it moves once, and not to and fro: {moves}");
        assert_eq!(node.manage("/readyz").await.status, 200);
    }
}

async fn session_from_start(node: &Node) -> Client {
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let mut session =
        Client::open(node.public, &format!("{PATH}?after=0-0"), offer).await.expect("the upgrade succeeds");
    assert_eq!(session.next().await["type"], "welcome");
    session
}

/// A name that leads to another server, as a Service in front of a pair does: connections that are open stay with the old one.
#[tokio::test]
async fn a_demoted_master_is_left() {
    let (first, second) = (Redis::start().await, Redis::start().await);
    second.follow(&first).await;
    let name = Proxy::start(first.address(), &[]).await;
    let nodes = (
        over(&format!("redis://{}", name.address)).start().await,
        over(&format!("redis://{}", name.address)).start().await,
    );
    let mut sender = Counting { session: session(&nodes.0).await, sent: 0 };
    let mut reader = session(&nodes.1).await;
    for _ in 0..5 {
        sender.send().await;
    }
    eventually("the replica has it", || async { second.command(&["XLEN", "{chat:r}:log"]).await.contains(":5") }).await;
    second.promote().await;
    first.follow(&second).await;
    // Nothing is read from a replica, which may lack what the master has.
    let reading = nodes.0.get("/api/chat-api/rooms/r/messages").await;
    assert_eq!(reading.status, 503, "{}", reading.body);
    name.retarget(second.address());
    sender.send().await;
    let all: Vec<u64> = (1..=6).collect();
    assert_eq!(read_until(&mut reader, 6).await, all);
    eventually("reads are back", || async { nodes.0.get("/api/chat-api/rooms/r/messages").await.status == 200 }).await;
    assert_eq!(history(&nodes.0).await, json!(all));
    eventually("nobody is at the old master", || async {
        let listening = first.command(&["PUBSUB", "NUMSUB", "{chat:r}"]).await.ends_with(":1\r\n");
        !listening && name.connections(Which::All) == connections(&second).await
    })
    .await;
}

/// Clients of a server, but for its replicas and the one that asks.
async fn connections(redis: &Redis) -> usize {
    let list = redis.command(&["CLIENT", "LIST", "TYPE", "NORMAL"]).await;
    let pubsub = redis.command(&["CLIENT", "LIST", "TYPE", "PUBSUB"]).await;
    let count = |list: &str| list.lines().filter(|line| line.starts_with("id=")).count();
    count(&list) + count(&pubsub) - 1
}

/// When the last replica has left, the master takes a new replication id, as after a failover. Nothing is lost, and nobody is told anything.
#[tokio::test]
async fn the_last_replica_leaves_unseen() {
    let master = Redis::start_with(&["--repl-backlog-ttl", "1"]).await;
    let mut replica = Redis::start().await;
    replica.follow(&master).await;
    let nodes = (over(&master.url()).start().await, over(&master.url()).start().await);
    let mut sender = Counting { session: session(&nodes.0).await, sent: 0 };
    let (mut reader, mut plain) = (session(&nodes.1).await, nodes.0.client(PATH).await);
    sender.send().await;
    let before = master.info("master_replid").await;
    replica.kill();
    eventually("the id changes", || async { master.info("master_replid").await != before }).await;
    sender.send().await;
    eventually("each node has noticed", || async {
        let noticed = |node: &Node| node.log().iter().any(|line| line.contains("looking at every room"));
        noticed(&nodes.0) && noticed(&nodes.1)
    })
    .await;
    sender.send().await;
    for n in 1..=3 {
        assert_eq!(reader.next().await["payload"], n);
        assert_eq!(plain.next().await["payload"], n);
    }
    reader.quiet().await;
    plain.quiet().await;
    for node in [&nodes.0, &nodes.1] {
        assert_eq!(node.metric("chat_rollbacks_total").await + node.metric("chat_resets_total").await, 0.0);
    }
}
