//! The protocol of plain sockets: one suite, over a node alone and over two nodes on one Redis.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use crate::support::{Chat, Client, Node, Over, client::Offer, http};

/// Each test over both.
macro_rules! over_both {
    ($($(#[$meta:meta])* $name:ident)*) => {
        mod local {
            $($(#[$meta])* #[tokio::test] async fn $name() { super::$name(super::Over::Local).await; })*
        }
        mod redis {
            $($(#[$meta])* #[tokio::test] async fn $name() { super::$name(super::Over::Redis).await; })*
        }
    };
}

over_both! {
    websocket_upgrade
    broadcast
    room_isolation
    ping_pong
    the_lobby_reaches_everyone
    ephemeral_messages_are_for_those_who_are_there
    messages_are_as_documented
    bad_frames_get_their_error_and_the_socket_lives
    bad_requests_are_refused_before_the_upgrade
    too_big_and_binary_messages_close
}

async fn websocket_upgrade(over: Over) {
    let chat = Chat::start(over).await;
    let node = &chat.nodes[0];
    assert!((node.metric("chat_connections").await).abs() < f64::EPSILON);
    let mut client = node.client("/api/chat-api/ws/general").await;
    assert!((node.metric("chat_connections").await - 1.0).abs() < f64::EPSILON, "the connection is registered");
    let connected = node.line(|line| line["message"] == "connected").expect("the connect is logged");
    let client_id = connected["client_id"].as_str().expect("a client id").to_owned();
    assert_eq!((client_id.len(), &connected["user_id"]), (32, &json!("-")));

    assert_eq!(client.leave().await, Some((1000, String::new())), "the close is answered in kind");
    node.wait_for_metric("chat_connections", 0.0).await;
    node.wait_for_metric(r#"chat_connections_closed_total{code="1000"}"#, 1.0).await;
    let gone = |line: &Value| line["message"] == "disconnected" && line["client_id"] == client_id.as_str();
    let gone = node.line(gone).expect("the disconnect is logged");
    assert_eq!((&gone["user_id"], &gone["room"]), (&json!("-"), &json!("general")));
}

async fn broadcast(over: Over) {
    let chat = Chat::start(over).await;
    let mut clients = Vec::new();
    for n in 0..6 {
        clients.push(chat.client(n, "/api/chat-api/ws").await);
    }
    clients[0].send(json!({ "payload": { "text": "hi" } })).await;
    let first = clients[0].message().await;
    assert_eq!(
        (&first["type"], &first["room"], &first["payload"]["text"]),
        (&json!("chat"), &json!("lobby"), &json!("hi"))
    );
    for client in &mut clients[1..] {
        assert_eq!(client.message().await, first, "everyone gets the same message");
    }
}

async fn room_isolation(over: Over) {
    let chat = Chat::start(over).await;
    let mut red = [chat.client(0, "/api/chat-api/ws/red").await, chat.client(1, "/api/chat-api/ws/red").await];
    let mut blue = [chat.client(0, "/api/chat-api/ws/blue").await, chat.client(1, "/api/chat-api/ws/blue").await];
    let mut lobby = chat.client(1, "/api/chat-api/ws").await;
    red[0].publish(json!("for red")).await;
    blue[1].publish(json!("for blue")).await;
    // What the first of each sent has been read over for its ack, or not; the second of each gets it for sure.
    assert_eq!(red[1].message().await["payload"], "for red");
    assert_eq!(blue[0].message().await["payload"], "for blue");
    for client in [&mut red[1], &mut blue[0], &mut lobby] {
        client.quiet().await;
    }
}

async fn ping_pong(over: Over) {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;
    let chat = Chat::start_with(over, |node| node.env("CHAT_LIMITS__HEARTBEAT", "500ms")).await;
    let mut client = chat.client(0, "/api/chat-api/ws").await;
    client.socket.send(Message::Ping("are you there".into())).await.expect("the socket is open");
    loop {
        match client.socket.next().await.expect("an answer").expect("a frame") {
            Message::Pong(payload) => break assert_eq!(&payload[..], b"are you there"),
            Message::Ping(_) => {} // the server's own heartbeat
            other => panic!("{other:?}"),
        }
    }
    client.send(json!({ "type": "ping", "ref": "x" })).await;
    assert_eq!(client.next().await, json!({ "type": "pong", "ref": "x" }));
    client.send(json!({ "type": "ping" })).await;
    assert_eq!(client.next().await, json!({ "type": "pong" }));
    // A client that answers pings stays; one that does not read is closed.
    let mut silent = chat.client(0, "/api/chat-api/ws").await;
    let started = std::time::Instant::now();
    while started.elapsed().as_millis() < 2500 {
        let next = tokio::time::timeout(std::time::Duration::from_millis(100), client.socket.next()).await;
        assert!(!matches!(next, Ok(None | Some(Err(_) | Ok(Message::Close(_))))), "{next:?}");
    }
    assert_eq!(silent.closed().await.0, 4408);
    client.ping().await;
}

async fn the_lobby_reaches_everyone(over: Over) {
    let chat = Chat::start(over).await;
    let mut red = chat.client(0, "/api/chat-api/ws/red").await;
    let mut blue = chat.client(1, "/api/chat-api/ws/blue").await;
    let mut lobby = chat.client(1, "/api/chat-api/ws").await;
    lobby.publish(json!(1)).await;
    assert_eq!(red.message().await["room"], "lobby");
    assert_eq!(blue.message().await["room"], "lobby");
    red.send(json!({ "room": "lobby", "payload": 2, "ref": "r" })).await;
    assert_eq!(blue.message().await["payload"], 2);
    loop {
        if lobby.message().await["payload"] == 2 {
            break;
        }
    }
}

async fn ephemeral_messages_are_for_those_who_are_there(over: Over) {
    let chat = Chat::start(over).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/r").await;
    let mut reader = chat.client(1, "/api/chat-api/ws/r").await;
    let stored = sender.publish(json!("stored")).await;
    for n in 0..20 {
        sender.send(json!({ "type": "typing", "ephemeral": true, "payload": n })).await;
    }
    let last = sender.publish(json!("stored too")).await;
    assert_eq!(reader.message().await["id"], stored.as_str());
    for n in 0..20 {
        let typing = reader.message().await;
        assert_eq!((&typing["type"], &typing["payload"], &typing["id"]), (&json!("typing"), &json!(n), &Value::Null));
        assert!(typing["client_id"].is_string() && typing["timestamp"].is_string());
    }
    assert_eq!(reader.message().await["id"], last.as_str(), "in order, and the log goes on without them");
    let mut late = chat.nodes[0].connect("/api/chat-api/ws/r?after=0-0").await;
    assert_eq!(late.message().await["id"], stored.as_str());
    assert_eq!(late.message().await["id"], last.as_str(), "not stored");
}

async fn messages_are_as_documented(over: Over) {
    let chat = Chat::start(over).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/general").await;
    let mut reader = chat.client(1, "/api/chat-api/ws/general").await;
    sender.send_text(r#"{"payload": {"a" :1E5,"b":"\u00e9"} , "type":"note.v1", "ref":"r1"}"#).await;
    let (first, second) = (sender.next().await, sender.next().await);
    let (ack, own) = if first["type"] == "ack" { (first, second) } else { (second, first) };
    assert_eq!(ack, json!({ "type": "ack", "ref": "r1", "id": own["id"] }));
    use futures_util::StreamExt as _;
    let frame = reader.socket.next().await.expect("a frame").expect("a message").into_text().expect("text");
    let id = own["id"].as_str().expect("an id");
    let client_id = own["client_id"].as_str().expect("a client id");
    let timestamp = own["timestamp"].as_str().expect("a time");
    let expected = format!(
        r#"{{"type":"note.v1","id":"{id}","room":"general","client_id":"{client_id}","timestamp":"{timestamp}","payload":{{"a" :1E5,"b":"\u00e9"}}}}"#
    );
    assert_eq!(frame.as_str(), expected, "fields, their order, and the payload byte for byte");
    let time: jiff::Timestamp = timestamp.parse().expect("RFC 3339");
    assert!(time.duration_since(jiff::Timestamp::now()).abs() < jiff::SignedDuration::from_secs(60));
    let next = sender.publish(json!(null)).await;
    let seq = |id: &str| id.split_once('-').expect("epoch-seq").1.parse::<u64>().expect("a number");
    assert_eq!(seq(&next), seq(id) + 1);
    assert_eq!(reader.next().await["payload"], Value::Null, "null is a payload");
}

async fn bad_frames_get_their_error_and_the_socket_lives(over: Over) {
    let chat = Chat::start(over).await;
    let mut client = chat.client(1, "/api/chat-api/ws/general").await;
    for (frame, code) in [
        ("hello", "invalid_json"),
        ("[1]", "invalid_message"),
        (r#"{"type":"chat"}"#, "invalid_message"),
        (r#"{"type":"welcome","payload":1}"#, "reserved_type"),
        (r#"{"room":"no room","payload":1}"#, "invalid_room"),
        (r#"{"room":"elsewhere","payload":1}"#, "not_subscribed"),
        (&format!(r#"{{"payload":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000)), "invalid_message"),
    ] {
        client.send_text(frame).await;
        let error = client.next().await;
        assert_eq!(
            (&error["type"], &error["code"], &error["retryable"]),
            (&json!("error"), &json!(code), &json!(false)),
            "{frame:.80}"
        );
        assert!(!error["message"].as_str().expect("a message").is_empty());
    }
    client.send(json!({ "type": "ack", "ref": "mine", "payload": 1 })).await;
    assert_eq!(client.next().await["ref"], "mine", "an error says which frame it is about");
    client.publish(json!("still here")).await;
    let refused = chat.nodes[1 % chat.nodes.len()].metric(r#"chat_refusals_total{code="invalid_message"}"#).await;
    assert!((refused - 3.0).abs() < f64::EPSILON, "{refused}");
}

async fn bad_requests_are_refused_before_the_upgrade(over: Over) {
    let chat = Chat::start(over).await;
    let node = &chat.nodes[0];
    let plain = node.get("/api/chat-api/ws/general").await;
    assert_eq!(
        (plain.status, plain.header("content-type"), plain.header("upgrade")),
        (426, "application/problem+json", "websocket")
    );
    assert_eq!(plain.json()["code"], "upgrade");
    let refused = async |path: &str, offer: Offer| match Client::open(node.public, path, offer).await {
        Err(refused) => refused.status,
        Ok(_) => 101,
    };
    let protocol = |value: &str| Offer::default().header("sec-websocket-protocol", value);
    let origin = |value: &str| Offer::default().header("origin", value);
    for bad in ["a%20b", "%2e%2e", "a%7bb%7d", "*", "%ff", &"x".repeat(129)] {
        assert_eq!(refused(&format!("/api/chat-api/ws/{bad}"), Offer::default()).await, 400, "{bad}");
    }
    assert_eq!(refused("/api/chat-api/ws/a/b", Offer::default()).await, 404);
    assert_eq!(refused("/api/chat-api/ws?after=yesterday", Offer::default()).await, 400);
    assert_eq!(refused("/api/chat-api/ws?before=0-0", Offer::default()).await, 400);
    assert_eq!(refused("/api/chat-api/ws", protocol("bearer.abc")).await, 400);
    assert_eq!(refused("/api/chat-api/ws", protocol("mqtt")).await, 400);
    assert_eq!(refused("/api/chat-api/ws", origin("https://evil.example")).await, 403);
    assert_eq!(refused("/api/chat-api/ws", origin(&format!("http://{}", node.public))).await, 101);
    let client = Client::open(node.public, "/api/chat-api/ws", protocol("chat.plain, bearer.abc")).await.expect("open");
    assert_eq!(client.protocol.as_deref(), Some("chat.plain"), "only the kind is echoed");
    assert!((node.metric(r#"chat_upgrade_failures_total{reason="invalid_room"}"#).await - 6.0).abs() < f64::EPSILON);
}

async fn too_big_and_binary_messages_close(over: Over) {
    use futures_util::SinkExt as _;
    use tokio_tungstenite::tungstenite::Message;
    let chat = Chat::start(over).await;
    let mut client = chat.client(0, "/api/chat-api/ws").await;
    let fits = "x".repeat(32 * 1024 - 60);
    client.publish(json!(fits)).await;
    // Too big is said in the header: the rest need not even arrive.
    let _ = client.socket.send(Message::text("x".repeat(33 * 1024))).await;
    assert_eq!(client.closed().await.0, 1009);
    let mut client = chat.client(1, "/api/chat-api/ws").await;
    client.socket.send(Message::binary(vec![1, 2, 3])).await.expect("sent");
    assert_eq!(client.closed().await.0, 1003);
}

#[tokio::test]
async fn one_listener_takes_both_families() {
    let node = Node::builder().env("CHAT_SERVER__ADDRESS", "[::]:0").env("CHAT_SERVER__MANAGEMENT_ADDRESS", "[::]:0");
    let node = node.start().await;
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let at = |port| SocketAddr::new(address, port);
        let client = Client::open(at(node.public.port()), "/api/chat-api/ws", Offer::default()).await;
        client.expect("the upgrade succeeds").publish(json!(address)).await;
        assert_eq!(http::get(at(node.management.port()), "/readyz", &[]).await.status, 200, "{address}");
    }
}
