//! What an idle connection costs.

use futures_util::future::join_all;
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Node, PATIENCE};

const SECRET: &str = "an example secret of more than 32 bytes";
const FEW: usize = 500;
const MANY: usize = 5000;
const ROOM: usize = 5;
/// In bytes of the server's resident memory, in any build. What the kernel keeps for a socket is not in it.
const MOST: f64 = 5000.0;
/// Sockets opened at one time.
const AT_ONCE: usize = 50;

#[tokio::test]
async fn an_idle_connection_costs_at_most_5_kb() {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).expect("up to the hard limit");
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET);
    let node = node.env("CHAT_LIMITS__UPGRADES_PER_SECOND", "0");
    let node = node.env("CHAT_LIMITS__HEARTBEAT", "1h").start().await; // these clients answer none
    let mut sockets = Vec::new();
    let mut resident = Vec::new();
    for size in [FEW, MANY] {
        while sockets.len() < size {
            let next = sockets.len()..size.min(sockets.len() + AT_ONCE);
            sockets.extend(join_all(next.map(|n| open(&node, n))).await);
        }
        resident.push(node.metric("process_resident_memory_bytes").await);
    }
    let each = (resident[1] - resident[0]) / (MANY - FEW) as f64;
    println!("{each:.0} bytes for each idle connection");
    assert!(each <= MOST, "{each:.0} bytes for each idle connection");
}

/// A socket of its own user's in its room, which has sent something and has read the answer.
async fn open(node: &Node, n: usize) -> TcpStream {
    let now = get_current_timestamp();
    let claims = json!({ "sub": format!("user-{n}"), "iat": now, "exp": now + 3600 });
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token");
    let request = format!(
        "GET /api/chat-api/ws/room-{} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        n / ROOM,
        node.public
    );
    let mut socket = TcpStream::connect(node.public).await.expect("the node listens");
    socket.write_all(request.as_bytes()).await.expect("it reads");
    expect_end(&mut socket, b"\r\n\r\n").await;
    // Masked with zeros. The pong says that the room is joined.
    let ping = br#"{"type":"ping"}"#;
    let frame = [&[0x81, 0x80 | ping.len() as u8, 0, 0, 0, 0], ping.as_slice()].concat();
    socket.write_all(&frame).await.expect("it reads");
    expect_end(&mut socket, br#"{"type":"pong"}"#).await;
    socket
}

async fn expect_end(socket: &mut TcpStream, end: &[u8]) {
    let mut answer = Vec::new();
    let reading = async {
        while !answer.ends_with(end) {
            let read = socket.read_buf(&mut answer).await.expect("the socket is open");
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
        }
    };
    timeout(PATIENCE, reading).await.expect("an answer in time");
}
