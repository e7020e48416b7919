//! A Redis user with no more rights than are needed: the line of docs/operations.md is what is tested.

use serde_json::{Value, json};

use crate::support::{Client, Node, NodeBuilder, Redis, chat_api, client::Offer, eventually, repository, run};

const PATH: &str = "/api/chat-api/ws/r";

/// The documented line, as words.
fn documented() -> Vec<String> {
    let text = std::fs::read_to_string(repository("docs/operations.md")).expect("the page");
    let line = text.replace("\\\n", " ");
    let line = line.lines().find(|line| line.starts_with("ACL SETUSER chat ")).expect("the line").to_owned();
    line.split_whitespace().map(|word| word.replace(">PASSWORD", ">pw")).collect()
}

/// With that user, and changes to its rights; it has it after a restart too.
async fn redis(changes: &[&str]) -> Redis {
    let words = documented();
    let user = words[2..].iter().map(String::as_str).chain(changes.iter().copied());
    Redis::start_with(&std::iter::once("--user").chain(user).collect::<Vec<_>>()).await
}

async fn load(redis: &Redis) {
    let functions = run(chat_api().arg("redis-functions"));
    let reply = redis.command(&["FUNCTION", "LOAD", "REPLACE", &functions]).await;
    assert!(reply.contains("chat_"), "{reply}");
}

fn as_user(redis: &Redis) -> NodeBuilder {
    let node = Node::builder().env("REDIS_URL", &format!("redis://chat:pw@{}", redis.address()));
    node.env("CHAT_PRESENCE__LINGER", "1s").env("CHAT_LIMITS__HEARTBEAT", "4s") // empty rooms are found at its pace
}

async fn session(node: &Node, query: &str) -> (Client, Value) {
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let mut client = Client::open(node.public, &format!("{PATH}{query}"), offer).await.expect("the upgrade succeeds");
    let welcome = client.next().await;
    (client, welcome)
}

/// Every operation of the protocol that reaches Redis, over two nodes, also after a restart; the server refuses nothing.
async fn chat_works(redis: &mut Redis) {
    let nodes = (as_user(redis).start().await, as_user(redis).start().await);
    let (mut sender, _) = session(&nodes.0, "").await;
    let (mut reader, welcome) = session(&nodes.1, "").await;
    assert_eq!(welcome["presence"]["r"]["count"], 2, "{welcome}");
    let first = sender.publish(json!("one")).await;
    sender.send(json!({ "payload": "typing", "ephemeral": true })).await;
    sender.send(json!({ "sender": "s", "n": 1, "payload": "two", "ref": "two" })).await;
    for payload in ["one", "typing", "two"] {
        assert_eq!(reader.message().await["payload"], payload);
    }
    let (mut late, _) = session(&nodes.1, &format!("?after={first}")).await;
    assert_eq!(late.next().await["recovered"], true);
    assert_eq!(late.message().await["payload"], "two");
    for query in ["", "?after=0-0", &format!("?before={first}")] {
        assert_eq!(nodes.0.get(&format!("/api/chat-api/rooms/r/messages{query}")).await.status, 200, "{query}");
    }
    let here = || async { nodes.0.get("/api/chat-api/rooms/r/presence").await.json()["count"].clone() };
    eventually("all three are there", || async { here().await == 3 }).await;
    // Connections are used again, which takes a right too.
    let before = connections(redis).await;
    for _ in 0..20 {
        let path = "/api/chat-api/rooms/r/messages";
        assert_eq!(nodes.0.post(path, r#"{"payload":1}"#, &[("content-type", "application/json")]).await.status, 201);
        assert_eq!(nodes.1.get(path).await.status, 200);
    }
    let made = connections(redis).await - before;
    assert!(made < 15, "{made} connections");
    refused_nothing(redis).await;
    redis.kill();
    redis.restart().await;
    eventually("redis is back", || async {
        nodes.0.metric("chat_redis_up").await + nodes.1.metric("chat_redis_up").await > 1.0
    })
    .await;
    let (mut sender, _) = session(&nodes.0, &format!("?after={first}")).await;
    sender.publish(json!("three")).await;
    while reader.message().await["payload"] != "three" {}
    // The last one leaves a room, and then nobody listens to it.
    let mut alone = nodes.0.client("/api/chat-api/ws/other").await;
    alone.publish(json!("hi")).await;
    alone.leave().await;
    eventually("the room is left", || async {
        !redis.command(&["PUBSUB", "CHANNELS", "{chat:other}"]).await.contains("other")
    })
    .await;
    refused_nothing(redis).await;
}

async fn connections(redis: &Redis) -> u32 {
    redis.info("total_connections_received").await.parse().expect("a number")
}

async fn refused_nothing(redis: &Redis) {
    let log = redis.command(&["ACL", "LOG"]).await;
    assert!(log.starts_with("*0"), "{log}");
}

#[tokio::test]
async fn functions_that_an_admin_loaded() {
    let mut redis = redis(&[]).await;
    load(&redis).await;
    chat_works(&mut redis).await;
    // The user may do nothing else.
    for command in [
        ["GET", "chat"].as_slice(),
        &["FUNCTION", "FLUSH"],
        &["CONFIG", "GET", "*"],
        &["PSUBSCRIBE", "*"],
        &["EVAL", "return 1", "0"],
        &["PUBLISH", "other", "x"],
    ] {
        let mut words = vec!["ACL", "DRYRUN", "chat"];
        words.extend(command);
        let reply = redis.command(&words).await;
        assert!(reply.contains("permissions") || reply.contains("NOPERM"), "{command:?}: {reply}");
    }
}

#[tokio::test]
async fn functions_that_the_service_loads() {
    let mut redis = redis(&["+function|load"]).await;
    chat_works(&mut redis).await;
}

#[tokio::test]
async fn functions_that_nobody_loaded() {
    let redis = redis(&[]).await;
    let node = as_user(&redis).launch().await;
    let reason = || async { node.manage("/readyz").await.json()["reasons"][0].as_str().unwrap_or_default().to_owned() };
    eventually("it says what is missing", || async {
        reason().await.contains("is missing, and this user may not load it")
    })
    .await;
    let line = node.line(|line| line["level"] == "ERROR" && line["message"] == "Redis cannot be used; trying on");
    let trouble = line.expect("an error")["trouble"].as_str().expect("a text").to_owned();
    assert!(trouble.contains("chat-api redis-functions | redis-cli -x FUNCTION LOAD REPLACE"), "{trouble}");
    load(&redis).await;
    eventually("the node is ready", || async { node.manage("/readyz").await.status == 200 }).await;
    node.client(PATH).await.publish(json!("hi")).await;
    let errors = node.log().iter().filter(|line| line.contains("Redis cannot be used")).count();
    assert_eq!(errors, 1, "said once");
}

/// As some managed servers have it: nothing notices lost messages then, and that is said.
#[tokio::test]
async fn a_redis_that_tells_nothing_of_itself() {
    let mut redis = redis(&["+function|load", "-info", "-role"]).await;
    let nodes = (as_user(&redis).start().await, as_user(&redis).start().await);
    let (mut reader, _) = session(&nodes.1, "").await;
    let (mut sender, _) = session(&nodes.0, "").await;
    let before = sender.publish(json!("before")).await;
    assert_eq!(reader.message().await["payload"], "before");
    for node in [&nodes.0, &nodes.1] {
        assert_eq!((node.metric("chat_redis_up").await, node.metric("chat_redis_fenced").await), (1.0, 0.0));
        let unknown = r#"chat_redis_durability{declared="everysec",found="unknown"}"#;
        assert_eq!(node.metric(unknown).await, 1.0);
        assert!(node.line(|line| line["level"] == "WARN" && line.to_string().contains("replication id")).is_some());
    }
    redis.kill();
    redis.restart().await;
    eventually("redis is back", || async { nodes.0.metric("chat_redis_up").await > 0.0 }).await;
    let after = sender.publish(json!("after")).await;
    assert_eq!(before.split('-').next(), after.split('-').next(), "one epoch");
    assert_eq!(reader.message().await["payload"], "after");
}

/// A function that calls another command needs another right.
#[test]
fn every_command_of_the_functions_is_documented() {
    let source = run(chat_api().arg("redis-functions"));
    let calls = source.split("call('").skip(1).filter_map(|rest| rest.split('\'').next());
    let rights = documented();
    for command in calls {
        assert!(rights.contains(&format!("+{}", command.to_lowercase())), "{command} is not in docs/operations.md");
    }
}
