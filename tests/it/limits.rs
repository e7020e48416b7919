//! What one client, one user and one node may use: each limit has its own answer and is counted.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use futures_util::SinkExt as _;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, Node, client::Offer, eventually, mint};

const SECRET: &str = "limits-limits-limits-limits-limits";
const ROOM: &str = "/api/chat-api/ws/general";

async fn node(limits: &[(&str, &str)]) -> Node {
    let limits = limits.iter().map(|(key, value)| (format!("CHAT_LIMITS__{key}"), value));
    limits.fold(Node::builder(), |node, (key, value)| node.env(&key, value)).start().await
}

async fn session(node: &Node) -> Client {
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let mut session = Client::open(node.public, ROOM, offer).await.expect("the upgrade succeeds");
    assert_eq!(session.next().await["type"], "welcome");
    session
}

#[tokio::test]
async fn frames_over_the_rate_are_refused_and_a_flood_is_closed() {
    let node = node(&[("MESSAGES_PER_SECOND", "1")]).await;
    let mut client = node.connect(ROOM).await;
    for n in 1..=3 {
        client.send(json!({ "sender": "s", "n": n, "base": 1, "payload": n, "ref": n.to_string() })).await;
    }
    let refused = loop {
        let event = client.next().await;
        if event["type"] == "error" {
            break event;
        }
    };
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("rate_limited"), &json!(true)), "{refused}");
    assert_eq!((&refused["ref"], &refused["n"]), (&json!("3"), &json!(3)));
    let wait = refused["retry_after_ms"].as_u64().expect("how long to wait");
    assert!((1..=1001).contains(&wait), "{wait}");
    tokio::time::sleep(Duration::from_millis(wait)).await;
    client.send(json!({ "n": 3, "base": 3, "payload": 3, "ref": "again" })).await;
    while client.next().await["ref"] != "again" {}
    for _ in 0..10 {
        let _ = client.socket.send(Message::text("{}")).await; // closed in the middle of it
    }
    assert_eq!(client.closed().await.0, 4429);
    assert!(node.metric(r#"chat_limited_total{limit="messages"}"#).await >= 3.0);
    node.wait_for_metric(r#"chat_connections_closed_total{code="4429"}"#, 1.0).await;
}

#[tokio::test]
async fn websocket_pings_count() {
    let node = node(&[("MESSAGES_PER_SECOND", "1")]).await;
    let mut client = node.client(ROOM).await;
    for _ in 0..5 {
        let _ = client.socket.send(Message::Ping("x".into())).await;
    }
    assert_eq!(client.closed().await.0, 4429);
}

#[tokio::test]
async fn rooms_are_asked_for_and_opened_at_a_rate() {
    let node = node(&[("SUBSCRIBES_PER_SECOND", "1"), ("NEW_ROOMS_PER_USER", "4")]).await;
    let mut session = session(&node).await;
    let ask = async |session: &mut Client, rooms: &[&str]| {
        let rooms: serde_json::Map<_, _> = rooms.iter().map(|room| ((*room).to_owned(), json!(""))).collect();
        session.send(json!({ "type": "subscribe", "rooms": rooms })).await;
        let mut answers = Vec::new();
        while answers.len() < rooms.len() {
            let event = session.next().await;
            if event["type"] != "presence" {
                assert!(event["room"].is_string(), "it says which: {event}");
                answers.push(event["code"].as_str().unwrap_or("subscribed").to_owned());
            }
        }
        answers.sort();
        answers
    };
    let new = ask(&mut session, &["a", "b", "c", "d"]).await;
    assert_eq!(
        new,
        ["rate_limited", "subscribed", "subscribed", "subscribed"],
        "the path's room and three more in a minute"
    );
    assert!(node.metric(r#"chat_limited_total{limit="new_rooms"}"#).await > 0.0);
    let more = ask(&mut session, &["e", "f", "g", "h", "i", "j", "k", "l"]).await;
    assert!(more.iter().all(|answer| answer == "rate_limited"), "{more:?}");
    assert!(node.metric(r#"chat_limited_total{limit="subscribes"}"#).await > 0.0);
}

#[tokio::test]
async fn the_lobby_has_a_rate_of_its_own() {
    let node = node(&[("LOBBY_MESSAGES_PER_SECOND", "1")]).await;
    let (mut one, mut two) = (node.client(ROOM).await, node.client(ROOM).await);
    let mut refused = 0;
    for n in 0..4 {
        let client = if n % 2 == 0 { &mut one } else { &mut two };
        client.send(json!({ "room": "lobby", "payload": n, "ref": "l" })).await;
        let answer = loop {
            let event = client.next().await;
            if event["ref"] == "l" {
                break event;
            }
        };
        refused += usize::from(answer["code"] == "rate_limited");
    }
    assert!(refused > 0, "over all clients of the node");
    one.publish(json!("a room is not the lobby")).await;
    let answer = node.post("/api/chat-api/rooms/lobby/messages", r#"{"payload":1}"#, &[]).await;
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("rate_limited")));
    assert!(!answer.header("retry-after").is_empty());
}

#[tokio::test]
async fn a_user_and_an_address_have_so_many_connections() {
    let node = Node::builder()
        .env("AUTH_ENABLED", "true")
        .env("CHAT_AUTH__SECRET", SECRET)
        .env("CHAT_LIMITS__CONNECTIONS_PER_USER", "2")
        .env("CHAT_LIMITS__CONNECTIONS_PER_ADDRESS", "3")
        .env("CHAT_SERVER__TRUSTED_PROXIES", "127.0.0.0/8")
        .start()
        .await;
    let open = async |user: &str, address: &str| {
        let offer = Offer::default()
            .header("authorization", format!("Bearer {}", mint(SECRET, user)))
            .header("x-forwarded-for", address);
        Client::open(node.public, ROOM, offer).await
    };
    let mut alice = open("alice", "9.9.9.9").await.expect("one");
    let _two = open("alice", "9.9.9.9").await.expect("two");
    let refused = open("alice", "8.8.8.8").await.err().expect("three are too many");
    assert_eq!((refused.status, &refused.problem["code"]), (429, &json!("user_connections")));
    let _bob = open("bob", "9.9.9.9").await.expect("three of an address");
    let refused = open("carol", "9.9.9.9").await.err().expect("four are too many");
    assert_eq!((refused.status, &refused.problem["code"]), (429, &json!("address_connections")));
    let _carol = open("carol", "9.9.9.8").await.expect("another address");
    let mut neighbours = Vec::new();
    for (user, address) in [("dave", "2001:db8::1"), ("erin", "2001:db8::2"), ("frank", "2001:db8::f:0:0:3")] {
        neighbours.push(open(user, address).await.expect("three of a network"));
    }
    assert!(open("grace", "2001:db8::4").await.is_err(), "whoever has an IPv6 address has all of its /64");
    neighbours.push(open("grace", "2001:db8:0:1::4").await.expect("another network"));
    alice.leave().await;
    node.wait_for_metric("chat_connections", 7.0).await;
    eventually("the place is free again", || async { open("alice", "9.9.9.9").await.is_ok() }).await;
    for (reason, limit) in [("user_connections", "user_connections"), ("address_connections", "address_connections")] {
        assert!(node.metric(&format!(r#"chat_upgrade_failures_total{{reason="{reason}"}}"#)).await > 0.0);
        assert!(node.metric(&format!(r#"chat_limited_total{{limit="{limit}"}}"#)).await > 0.0);
    }
}

#[tokio::test]
async fn a_node_opens_so_many_sockets_a_second() {
    let node = node(&[("UPGRADES_PER_SECOND", "2")]).await;
    let mut refused = None;
    let mut open = Vec::new();
    for _ in 0..50 {
        match Client::open(node.public, ROOM, Offer::default()).await {
            Ok(client) => open.push(client),
            Err(refusal) => refused = Some(refusal),
        }
    }
    let refused = refused.expect("not all of them");
    assert_eq!((refused.status, &refused.problem["code"]), (503, &json!("busy")));
    assert!(refused.headers.iter().any(|(name, _)| name == "retry-after"));
    open[0].ping().await;
}

/// A raw socket behind the upgrade.
fn raw(node: &Node) -> TcpStream {
    let mut socket = TcpStream::connect(node.public).expect("the node listens");
    let head = format!(
        "GET {ROOM} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        node.public
    );
    socket.write_all(head.as_bytes()).expect("the head is taken");
    let mut answer = [0; 1024];
    let read = socket.read(&mut answer).expect("an answer");
    assert!(answer[..read].starts_with(b"HTTP/1.1 101"));
    socket
}

/// Reads to the end; the close code.
fn closed(mut socket: TcpStream) -> u16 {
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    let close = bytes.iter().rposition(|byte| *byte == 0x88).unwrap_or_else(|| panic!("no close frame: {bytes:?}"));
    u16::from_be_bytes([bytes[close + 2], bytes[close + 3]])
}

/// Who may not come in at all does not use up what the others need.
#[tokio::test]
async fn refused_upgrades_cost_nobody_else() {
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET);
    let node = node.env("CHAT_LIMITS__UPGRADES_PER_SECOND", "1").start().await;
    for _ in 0..10 {
        assert_eq!(
            Client::open(node.public, ROOM, Offer::default()).await.err().map(|refused| refused.status),
            Some(401)
        );
    }
    let offer = Offer::default().header("authorization", format!("Bearer {}", mint(SECRET, "alice")));
    assert!(Client::open(node.public, ROOM, offer).await.is_ok());
}

/// A backend writes to a user who is not here: that is a new room once, not with each message.
#[tokio::test]
async fn a_room_is_new_to_requests_once() {
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET);
    let node = node.env("CHAT_LIMITS__NEW_ROOMS_PER_USER", "2").start().await;
    let token = format!("Bearer {}", mint(SECRET, "backend"));
    let post = async |room: &str| {
        let path = format!("/api/chat-api/rooms/{room}/messages");
        node.post(&path, r#"{"payload":1}"#, &[("authorization", &token)]).await.status
    };
    for _ in 0..5 {
        assert_eq!((post("a").await, post("b").await), (201, 201));
    }
    assert_eq!((post("c").await, post("a").await), (429, 201));
}

/// Bytes that never become a message: empty fragments without end, and one byte now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_ends_is_closed() {
    let node = node(&[("MESSAGE_DEADLINE", "2s"), ("BYTES_PER_SECOND", "128KiB")]).await;
    let mut good = node.client(ROOM).await;
    let [mut flood, mut drip] = [raw(&node), raw(&node)];
    let start = Instant::now();
    let flooding = std::thread::spawn(move || {
        flood.write_all(&[0x01, 0x80, 1, 2, 3, 4]).expect("begun");
        let empty = [0x00, 0x80, 1, 2, 3, 4].repeat(1000);
        let mut sent = 0_usize;
        while flood.write_all(&empty).is_ok() && start.elapsed() < Duration::from_secs(20) {
            sent += empty.len();
        }
        (closed(flood), sent)
    });
    let dripping = std::thread::spawn(move || {
        drip.write_all(&[0x01, 0x80, 1, 2, 3, 4]).expect("begun");
        // A ping between the fragments is no sign that the message goes on.
        while drip.write_all(&[0x00, 0x81, 1, 2, 3, 4, b'x' ^ 1, 0x89, 0x80, 1, 2, 3, 4]).is_ok() {
            assert!(start.elapsed() < Duration::from_secs(20), "still open");
            std::thread::sleep(Duration::from_millis(100));
        }
        closed(drip)
    });
    good.publish(json!("meanwhile")).await;
    let ends = move || (flooding.join().expect("it ends"), dripping.join().expect("it ends"));
    let ((flooded, sent), dripped) = tokio::task::spawn_blocking(ends).await.expect("both end");
    assert_eq!((flooded, dripped), (1008, 1008));
    assert!(sent < 32 << 20, "it took {sent} bytes; the kernel's buffers alone hold some");
    good.publish(json!("and after")).await;
}

/// A client that pings and never reads: closed, and what it was to be answered is not kept.
#[tokio::test(flavor = "multi_thread")]
async fn pings_that_are_never_read_are_not_collected() {
    let node = node(&[("BYTES_PER_SECOND", "0")]).await;
    let _warm = node.client(ROOM).await;
    let before = node.rss();
    let mut socket = raw(&node);
    let flood = std::thread::spawn(move || {
        let mut ping = vec![0x89, 0xfd, 1, 2, 3, 4];
        ping.resize(131, b'x');
        let pings = ping.repeat(100);
        let start = Instant::now();
        let mut sent = 0_usize;
        while start.elapsed() < Duration::from_secs(3) && socket.write_all(&pings).is_ok() {
            sent += pings.len();
        }
        sent
    });
    let sent = tokio::task::spawn_blocking(|| flood.join().expect("it ends")).await.expect("it ends");
    let grown = node.rss().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for {sent} bytes of pings");
}

/// A connection that has lasted long enough is asked to come back, as at a drain, and misses nothing.
#[tokio::test]
async fn a_connection_has_its_age() {
    let node = Node::builder().env("CHAT_LIMITS__HEARTBEAT", "200ms").env("CHAT_LIMITS__CONNECTION_AGE", "1s");
    let node = node.start().await;
    let start = Instant::now();
    let mut client = node.client(ROOM).await;
    let id = client.publish(json!("before")).await;
    assert_eq!(client.closed().await.0, 1012);
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    let mut other = node.client(ROOM).await;
    other.publish(json!("meanwhile")).await;
    let mut client = node.connect(&format!("{ROOM}?after={id}")).await;
    assert_eq!(client.message().await["payload"], "meanwhile");
}
