//! Input that is meant to hurt, by the dozen: each gets a typed answer, the node lives, and those who behave notice nothing.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Chat, Client, Node, Over, client::Offer, eventually};

const ROOM: &str = "/api/chat-api/ws/general";

/// A socket that reads until the server ends it, at most so long.
fn ended(mut socket: TcpStream, patience: Duration) -> bool {
    socket.set_read_timeout(Some(patience)).expect("a socket");
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn raw(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the node listens");
    socket.write_all(bytes).expect("taken");
    socket
}

/// Half a request line, half a header, nothing at all, and sockets that fall silent behind the 101.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_falls_silent_is_closed_and_holds_nobody_up() {
    let node =
        Node::builder().env("CHAT_SERVER__HEADER_TIMEOUT", "2s").env("CHAT_LIMITS__HEARTBEAT", "2s").start().await;
    let address = node.public;
    let upgrade = format!(
        "GET {ROOM} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let silent: Vec<TcpStream> = tokio::task::spawn_blocking(move || {
        let begun = ["", "GE", "GET / HTTP/1.1\r\nHost: h\r\nX-Half: ", &upgrade];
        (0..1000).map(|n| raw(address, begun[n % begun.len()].as_bytes())).collect()
    })
    .await
    .expect("all are open");
    for _ in 0..20 {
        node.connect(ROOM).await.publish(json!("meanwhile")).await;
    }
    let start = Instant::now();
    let all = tokio::task::spawn_blocking(move || {
        silent.into_iter().all(|socket| ended(socket, Duration::from_secs(30).saturating_sub(start.elapsed())))
    });
    assert!(all.await.expect("read"), "each was ended");
    node.wait_for_metric("chat_connections", 0.0).await;
    let closed = node.metric(r#"chat_connections_closed_total{code="4408"}"#).await;
    assert!(closed >= 200.0, "{closed} of those behind the 101");
}

/// Frames that break RFC 6455.
#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_rules_are_closed_by_name() {
    let node = Node::builder().start().await;
    let huge = [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    let long_ping = [&[0x89, 0xfe, 0, 126][..], &[0; 130]].concat();
    let cases: [(&str, &[u8], u16); 8] = [
        ("2^63 bytes", &huge, 1009),
        ("unmasked", &[0x81, 0x02, b'{', b'}'], 1002),
        ("a reserved bit", &[0xc1, 0x80, 1, 2, 3, 4], 1002),
        ("a reserved opcode", &[0x83, 0x80, 1, 2, 3, 4], 1002),
        ("a fragmented ping", &[0x09, 0x80, 1, 2, 3, 4], 1002),
        ("a long ping", &long_ping, 1002),
        ("a fragment of nothing", &[0x80, 0x80, 1, 2, 3, 4], 1002),
        ("a binary message", &[0x82, 0x80, 1, 2, 3, 4], 1003),
    ];
    for (what, bytes, code) in cases {
        let mut client = node.client(ROOM).await;
        tokio::io::AsyncWriteExt::write_all(client.socket.get_mut(), bytes).await.expect("taken");
        let closed = tokio::time::timeout(std::time::Duration::from_secs(5), client.closed()).await;
        assert_eq!(closed.map(|close| close.0), Ok(code), "{what}");
    }
}

/// A message in the smallest pieces there are is a message.
#[tokio::test]
async fn one_byte_fragments_are_a_message() {
    let node = Node::builder().start().await;
    let mut client = node.client(ROOM).await;
    let text = br#"{"type":"ping","ref":"bytes"}"#;
    for (n, byte) in text.iter().enumerate() {
        let opcode = u8::from(n == 0) | if n + 1 == text.len() { 0x80 } else { 0 };
        let frame = [opcode, 0x81, 9, 9, 9, 9, byte ^ 9];
        tokio::io::AsyncWriteExt::write_all(client.socket.get_mut(), &frame).await.expect("taken");
    }
    assert_eq!(client.next().await, json!({ "type": "pong", "ref": "bytes" }));
}

/// JSON that is none, too deep, too large, doubled, unknown: a typed error each, and the socket lives.
#[tokio::test]
async fn bad_json_is_answered_by_name() {
    let node = Node::builder().start().await;
    let mut client = node.client(ROOM).await;
    let mut rooms = String::from(r#"{"type":"subscribe","rooms":{"#);
    rooms += &(0..1000).map(|n| format!(r#""room-{n}":"""#)).collect::<Vec<_>>().join(",");
    rooms += "}}";
    let corpus = [
        "".to_owned(),
        "null".into(),
        "[]".into(),
        "{".into(),
        "NaN".into(),
        r#"{"payload":NaN}"#.into(),
        r#"{"payload":1}{"payload":2}"#.into(),
        r#"{"payload":1,"payload":2}"#.into(),
        r#"{"type":"chat","type":"note","payload":1}"#.into(),
        r#"{"payload":1,"unknown":2}"#.into(),
        r#"{"type":"subscribed","room":"r","id":"1-1"}"#.into(),
        r#"{"type":"chat_admin","payload":1}"#.into(),
        r#"{"type":"UPPER","payload":1}"#.into(),
        r#"{"type":5,"payload":1}"#.into(),
        r#"{"payload":"\ud800"}"#.into(),
        r#"{"room":"a/b","payload":1}"#.into(),
        r#"{"n":1e99,"payload":1}"#.into(),
        format!(r#"{{"payload":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000)),
        format!(r#"{{"payload":{}}}"#, r#"{"a":"#.repeat(5_000)),
        format!(r#"{{"payload":1,"ref":"{}"}}"#, "x".repeat(1000)),
        rooms,
    ];
    let before = node.metric(r#"chat_refusals_total{code="invalid_json"}"#).await;
    for frame in &corpus {
        client.send_text(frame).await;
        let answer = client.next().await;
        assert_eq!(answer["type"], "error", "{}: {answer}", &frame[..frame.len().min(60)]);
        assert!(answer["message"].as_str().is_some_and(|text| text.len() > 10), "{answer}");
    }
    assert!(node.metric(r#"chat_refusals_total{code="invalid_json"}"#).await > before);
    client.ping().await;
    client.send_text(&format!(r#"{{"payload":"{}"}}"#, "x".repeat(1 << 20))).await;
    assert_eq!(client.closed().await.0, 1009);
}

/// Names outside the grammar make no key in Redis and no label in metrics.
#[tokio::test]
async fn hostile_room_names_leave_no_trace() {
    let chat = Chat::start(Over::Redis).await;
    let node = &chat.nodes[0];
    let names =
        ["*", "{", "}", "{chat:general}", "a b", "..", ".", "", "é", "gеneral", "a%00b", "a\tb", "~revocations", "a:b"];
    let long = "x".repeat(10 * 1024);
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let mut session = Client::open(node.public, ROOM, offer).await.expect("the upgrade succeeds");
    assert_eq!(session.next().await["type"], "welcome");
    for name in names.into_iter().chain([long.as_str()]) {
        for frame in [
            json!({ "type": "subscribe", "room": name }),
            json!({ "room": name, "payload": 1 }),
            json!({ "type": "subscribe", "rooms": { name: "" } }),
            json!({ "type": "unsubscribe", "room": name }),
        ] {
            session.send(frame.clone()).await;
            let answer = loop {
                let event = session.next().await;
                if event["type"] != "presence" {
                    break event;
                }
            };
            assert_eq!(answer["code"], "invalid_room", "{frame}: {answer}");
        }
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path =
            format!("/api/chat-api/rooms/{}/messages", if encoded.len() > 4000 { &name[..4000] } else { &encoded });
        let answer = node.post(&path, r#"{"payload":1}"#, &[]).await;
        assert!((400..500).contains(&answer.status), "{name:?}: {}", answer.status);
    }
    let keys = chat.redis.as_ref().expect("over Redis").command(&["KEYS", "*"]).await;
    let foreign = keys
        .lines()
        .filter(|line| line.starts_with("{chat"))
        .find(|key| !["{chat:general}:", "{chat:lobby}:"].iter().any(|room| key.starts_with(room)));
    assert_eq!(foreign, None);
    let metrics = node.manage("/metrics").await.body;
    assert!(!metrics.contains("general") && !metrics.contains("xxxx"), "no room is a label");
}

/// Out of files: those that are open stay, newcomers are refused or wait, and it recovers.
#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_files_hurts_newcomers_only() {
    let node = Node::builder().start().await;
    let mut good = node.client(ROOM).await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.id())).expect("it runs").count();
    let limit = format!("--nofile={}", open + 20);
    crate::support::run(Command::new("prlimit").arg("--pid").arg(node.id().to_string()).arg(limit));
    let address = node.public;
    let crowd: Vec<TcpStream> =
        tokio::task::spawn_blocking(move || (0..100).map(|_| raw(address, b"GET / HTTP/1.1\r\n")).collect())
            .await
            .expect("in the kernel's queue");
    for _ in 0..5 {
        good.publish(json!("still here")).await;
    }
    let warned = || node.line(|line| line["message"].as_str().is_some_and(|text| text.contains("cannot accept")));
    eventually("it says so", || async { warned().is_some() }).await;
    drop(crowd);
    eventually("it recovers", || async { node.get("/api/chat-api/openapi.json").await.status == 200 }).await;
    good.publish(json!("and afterwards")).await;
    let panics: Vec<Value> = node.line(|line| line.to_string().contains("panicked")).into_iter().collect();
    assert!(panics.is_empty(), "{panics:?}");
}
