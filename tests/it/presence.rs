//! Who is in a room: told to sessions by user, over all nodes, without storms.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{
    Chat, Client, Node, NodeBuilder, Over, PATIENCE, Redis, both,
    client::Offer,
    eventually, mint,
    proxy::{Flow, Proxy, Way, Which},
};

fn user(name: &str) -> Offer {
    Offer::default().header("authorization", format!("Bearer {}", mint(SECRET, name)))
}

const SECRET: &str = "presence-presence-presence-presence";
const PATH: &str = "/api/chat-api/ws/general";

fn with_users(node: NodeBuilder) -> NodeBuilder {
    node.env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET).env("CHAT_PRESENCE__LINGER", "1s")
}

/// A session in `general` and who it was told is there.
async fn session(node: &Node, offer: Offer) -> (Client, Value) {
    let offer = offer.header("sec-websocket-protocol", "chat.v1");
    let mut client = Client::open(node.public, PATH, offer).await.expect("the upgrade succeeds");
    let welcome = client.next().await;
    assert!(welcome["presence"]["lobby"].is_null(), "{welcome}");
    (client, welcome["presence"]["general"].clone())
}

/// The next news that are not about a client's own coming.
async fn news(client: &mut Client, own: &str) -> Value {
    loop {
        let event = client.next().await;
        assert_eq!((&event["type"], &event["room"]), (&json!("presence"), &json!("general")), "{event}");
        if event["joined"] != json!([{ "from": own }]) {
            return event;
        }
    }
}

async fn sessions_are_told_who_comes_and_goes(over: Over) {
    let chat = Chat::start_with(over, with_users).await;
    let other = &chat.nodes[chat.nodes.len() - 1];
    let (mut alice, here) = session(&chat.nodes[0], user("alice")).await;
    assert_eq!(here, json!({ "count": 1, "here": [{ "from": "alice" }] }));
    let (mut bob, here) = session(other, user("bob")).await;
    assert_eq!(here["here"].as_array().expect("a list").last(), Some(&json!({ "from": "bob" })));
    let event = news(&mut alice, "alice").await;
    assert_eq!(event, json!({ "type": "presence", "room": "general", "joined": [{ "from": "bob" }], "count": 2 }));

    // A second tab is nobody new, and a user whose tabs are all gone is away only after a while.
    let (second, here) = session(&chat.nodes[0], user("bob")).await;
    assert_eq!(here, json!({ "count": 2, "here": [{ "from": "alice" }, { "from": "bob" }] }));
    bob.leave().await;
    drop(second);
    let (mut back, _) = session(other, user("bob")).await;
    let mut carol = Client::open(other.public, PATH, user("carol")).await.expect("a plain socket is there too");
    carol.ping().await;
    let event = news(&mut alice, "alice").await;
    assert_eq!((&event["joined"], &event["left"]), (&json!([{ "from": "carol" }]), &Value::Null), "bob never left");
    carol.leave().await;
    let event = news(&mut alice, "alice").await;
    assert_eq!(event, json!({ "type": "presence", "room": "general", "left": [{ "from": "carol" }], "count": 2 }));

    let token = format!("Bearer {}", mint(SECRET, "carol"));
    let path = "/api/chat-api/rooms/general/presence";
    let answer = crate::support::http::get(other.public, path, &[("authorization", &token)]).await;
    assert_eq!(answer.json(), json!({ "count": 2, "here": [{ "from": "alice" }, { "from": "bob" }] }));
    let answer = crate::support::http::get(other.public, path, &[]).await;
    assert_eq!(answer.status, 401);
    // What is told of presence stands in order with the messages, and is in no log.
    let id = back.publish(json!("hello")).await;
    let path = "/api/chat-api/rooms/general/messages";
    let history = crate::support::http::get(other.public, path, &[("authorization", &token)]).await.json();
    assert_eq!((history["messages"].as_array().map(Vec::len), &history["top"]), (Some(1), &json!(id)));
}

async fn a_crowd_is_a_number(over: Over) {
    let chat =
        Chat::start_with(over, |node| node.env("CHAT_PRESENCE__EVENTS_MAX", "2").env("CHAT_PRESENCE__LINGER", "0s"))
            .await;
    let (mut first, here) = session(&chat.nodes[0], Offer::default()).await;
    assert_eq!(here["count"], 1);
    let mut crowd = vec![chat.client(1, PATH).await];
    while first.next().await["count"] != 2 {}
    crowd.push(chat.client(0, PATH).await);
    assert_eq!(first.next().await, json!({ "type": "presence", "room": "general", "count": 3 }));
    let (fourth, here) = session(&chat.nodes[0], Offer::default()).await;
    assert_eq!(here, json!({ "count": 3 }), "as the others were told: it is news itself");
    while first.next().await["count"] != 4 {}
    drop(fourth);
    crowd.pop();
    let event = loop {
        let event = first.next().await;
        if event["count"] == 2 {
            break event;
        }
        assert_eq!(event["here"], Value::Null, "{event}");
    };
    assert_eq!(event["here"].as_array().map(Vec::len), Some(2), "{event}");
    assert!(event["here"][0]["client_id"].is_string(), "{event}");
    crowd[0].quiet().await; // plain sockets are told nothing

    first.send(json!({ "type": "subscribe", "room": "red" })).await;
    let subscribed = first.next().await;
    assert_eq!((&subscribed["type"], &subscribed["presence"]["count"]), (&json!("subscribed"), &json!(1)));
    for (path, status) in [("rooms/lobby/presence", 404), ("rooms/a%20b/presence", 400), ("rooms/nobody/presence", 200)]
    {
        let answer = chat.nodes[0].get(&format!("/api/chat-api/{path}")).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    assert_eq!(
        chat.nodes[0].get("/api/chat-api/rooms/nobody/presence").await.json(),
        json!({ "count": 0, "here": [] })
    );
}

async fn it_can_be_switched_off(over: Over) {
    let chat = Chat::start_with(over, |node| node.env("CHAT_PRESENCE__ENABLED", "false")).await;
    let (mut alone, here) = session(&chat.nodes[0], Offer::default()).await;
    assert!(here.is_null());
    let _other = chat.client(1, PATH).await;
    alone.quiet().await;
    assert_eq!(chat.nodes[0].get("/api/chat-api/rooms/general/presence").await.status, 404);
}

/// Drains one node of two: its clients come back to the other one at once, and nobody hears of it. Then the other is killed: who was there counts
/// until its lease ends.
#[tokio::test]
async fn a_rollout_shows_nobody_leaving_and_a_crash_does_after_the_lease() {
    let mut chat =
        Chat::start_with(Over::Redis, |node| node.env("CHAT_PRESENCE__LINGER", "3s").env("CHAT_PRESENCE__LEASE", "3s"))
            .await;
    let (mut watcher, _) = session(&chat.nodes[1], Offer::default()).await;
    let mut mover = chat.client(0, PATH).await;
    while watcher.next().await["count"] != 2 {}
    chat.nodes[0].signal("TERM");
    assert_eq!(mover.closed().await.0, 1012);
    let path = "/api/chat-api/rooms/general/presence";
    assert_eq!(chat.nodes[1].get(path).await.json()["count"], 2, "lingers");
    let gone = watcher.next().await;
    assert_eq!((&gone["count"], gone["left"].as_array().map(Vec::len)), (&json!(1), Some(1)), "{gone}");
    chat.nodes[1].signal("KILL");
    let redis = chat.redis.take().expect("over Redis");
    let third = Node::builder().env("REDIS_URL", &redis.url()).start().await;
    eventually("the lease ends", || async { third.get(path).await.json()["count"] == 0 }).await;
}

/// Without a linger nobody of a node that goes counts as there, even if it goes in the middle of everything.
#[tokio::test]
async fn without_a_linger_a_node_leaves_nobody_behind() {
    let mut chat =
        Chat::start_with(Over::Redis, |node| node.env("CHAT_PRESENCE__LINGER", "0s").env("CHAT_DRAIN__DELAY", "60s"))
            .await;
    let (mut watcher, _) = session(&chat.nodes[1], Offer::default()).await;
    let _mover = chat.client(0, PATH).await;
    while watcher.next().await["count"] != 2 {}
    chat.nodes[0].signal("TERM");
    chat.nodes[0].wait_for_metric("chat_draining", 1.0).await;
    chat.nodes[0].signal("TERM");
    assert!(chat.nodes[0].wait(PATIENCE).await.success());
    let path = "/api/chat-api/rooms/general/presence";
    assert_eq!(chat.nodes[1].get(path).await.json()["count"], 1);
    while watcher.next().await["count"] != 1 {}
}

/// A node is held up for longer than its lease, and goes on before anybody has noticed more than that: who was there is there again.
#[tokio::test]
async fn a_node_that_was_held_up_still_has_its_own() {
    let redis = Redis::start().await;
    let node = |lease: &str| {
        Node::builder()
            .env("REDIS_URL", &redis.url())
            .env("CHAT_PRESENCE__LINGER", "1s")
            .env("CHAT_PRESENCE__LEASE", lease)
    };
    // The other one has no reason to look at the leases meanwhile.
    let (held_up, other) = (node("3s").start().await, node("1h").start().await);
    let (_watcher, _) = session(&other, Offer::default()).await;
    let mut client = held_up.client(PATH).await;
    let path = "/api/chat-api/rooms/general/presence";
    let count = async || other.get(path).await.json()["count"].clone();
    eventually("both are there", async || count().await == 2).await;
    held_up.signal("STOP");
    eventually("its lease has ended", async || count().await == 1).await;
    held_up.signal("CONT");
    eventually("it is there again", async || count().await == 2).await;
    client.ping().await;
}

/// Rooms in which nothing happens: their leases are renewed together, and hold.
#[tokio::test]
async fn idle_rooms_share_the_renewal_of_their_leases() {
    const ROOMS: usize = 90;
    let redis = Redis::start().await;
    let node = Node::builder().env("REDIS_URL", &redis.url()).env("CHAT_PRESENCE__LINGER", "1s");
    let node = node.env("CHAT_PRESENCE__LEASE", "3s").start().await;
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let mut client = Client::open(node.public, "/api/chat-api/ws", offer).await.expect("the upgrade succeeds");
    assert_eq!(client.next().await["type"], "welcome");
    for n in 0..ROOMS {
        client.send(json!({ "type": "subscribe", "room": format!("idle-{n}") })).await;
        while client.next().await["type"] != "subscribed" {}
    }
    let calls = async |function: &str| {
        node.metric(&format!("chat_redis_command_duration_seconds_count{{command=\"{function}\"}}")).await
    };
    let (renewed, said) = (calls("renew").await, calls("attend").await + calls("recede").await);
    // Of 25 parts of the rooms in turn, each three times a lease: for longer than one lease.
    eventually("leases are renewed", async || calls("renew").await >= renewed + 100.0).await;
    assert_eq!(calls("attend").await + calls("recede").await, said, "one by one");
    for n in 0..ROOMS {
        let answer = node.get(&format!("/api/chat-api/rooms/idle-{n}/presence")).await;
        assert_eq!(answer.json()["count"], 1, "idle-{n}");
    }
}

/// Redis forgets everything: the nodes say again who is there.
#[tokio::test]
async fn who_is_there_survives_a_redis_that_lost_its_data() {
    let chat =
        Chat::start_with(Over::Redis, |node| node.env("CHAT_PRESENCE__LINGER", "0s").env("CHAT_PRESENCE__LEASE", "3s"))
            .await;
    let (mut watcher, _) = session(&chat.nodes[0], Offer::default()).await;
    let other = chat.client(1, PATH).await;
    while watcher.next().await["count"] != 2 {}
    chat.redis.as_ref().expect("over Redis").command(&["FLUSHALL"]).await;
    let path = "/api/chat-api/rooms/general/presence";
    assert!(chat.nodes[0].get(path).await.json()["count"] != 2, "Redis has forgotten them");
    eventually("both have said it again", || async { chat.nodes[0].get(path).await.json()["count"] == 2 }).await;
    drop(other);
    while watcher.next().await["count"] != 1 {}
    let keys = chat.redis.as_ref().expect("over Redis").command(&["TTL", "{chat:general}:here"]).await;
    assert!(keys.starts_with(":2") || keys.starts_with(":3") || keys.starts_with(":1"), "it expires: {keys}");
}

both!(sessions_are_told_who_comes_and_goes, a_crowd_is_a_number, it_can_be_switched_off);

/// A node says who is there, gives up waiting for the answer, says it again by another connection, and the first arrives after all.
#[tokio::test]
async fn a_report_that_arrives_late_hides_nobody() {
    const HERE: &str = "{chat:general}:here";
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.address(), &[HERE]).await;
    let node = |address: SocketAddr| {
        let node = with_users(Node::builder()).env("REDIS_URL", &format!("redis://{address}"));
        node.env("CHAT_REDIS__TIMEOUT", "1s").env("CHAT_PRESENCE__LEASE", "3s").start()
    };
    let (slow, other) = (node(proxy.address).await, node(redis.address()).await);
    let hold = Flow { hold: true, ..Flow::default() };
    proxy.rule(Which::Saying(HERE), Way::Up, hold);
    let public = slow.public;
    let early = tokio::spawn(async move { Client::open(public, PATH, user("bob")).await });
    eventually("a report is held", || async { proxy.connections(Which::Saying(HERE)) > 0 }).await;
    // That one stays held; all others are new and are not.
    proxy.rule(Which::Saying(HERE), Way::Up, Flow::default());
    proxy.rule_for_open(Which::Saying(HERE), Way::Up, hold);
    proxy.cut(Which::NotSaying(HERE));
    let mut late = Client::open(slow.public, PATH, user("alice")).await.expect("the upgrade succeeds");
    let mut early = early.await.expect("a task").expect("the upgrade succeeds");
    tokio::join!(early.ping(), late.ping());
    let token = format!("Bearer {}", mint(SECRET, "carol"));
    let count = async || {
        let path = "/api/chat-api/rooms/general/presence";
        crate::support::http::get(other.public, path, &[("authorization", &token)]).await.json()["count"].clone()
    };
    eventually("both are there", || async { count().await == 2 }).await;
    proxy.heal();
    // What was held is carried out at once; renewals come every second.
    let renewals = r#"chat_redis_command_duration_seconds_count{command="renew"}"#;
    let before = slow.metric(renewals).await;
    eventually("leases were renewed", || async { slow.metric(renewals).await >= before + 3.0 }).await;
    assert_eq!(count().await, 2);
}
