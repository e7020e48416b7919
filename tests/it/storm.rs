//! Hostile clients against the real binary: whatever they send, it goes on, and two who behave chat undisturbed.

use std::{
    env,
    net::SocketAddr,
    time::{Duration, Instant},
};

use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::json;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::support::{Chat, Client, Over, eventually};

/// How many are at it at a time, and how often each at least.
const HOSTILE: u64 = 24;
const ATTACKS: u64 = 4;
/// Files that a node may have opened for itself meanwhile.
const REDIS_POOL: f64 = 16.0;
/// Longest that one of them waits for anything.
const MOMENT: Duration = Duration::from_millis(50);

const COMMANDS: [&str; 13] = [
    r#"{"payload":{"text":"hi"}}"#,
    r#"{"type":"note.v1","payload":[1,2,3],"ref":"x","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#,
    r#"{"sender":"s","n":1,"payload":1}"#,
    r#"{"sender":"s","n":2,"base":1,"payload":"\ud83d\ude00"}"#,
    r#"{"sender":"s","n":9007199254740992,"payload":null}"#,
    r#"{"type":"typing","ephemeral":true,"payload":{}}"#,
    r#"{"type":"ping","ref":"p"}"#,
    r#"{"type":"subscribe","room":"a","after":"0-0","ref":"s"}"#,
    r#"{"type":"subscribe","rooms":{"a":"","b":"1764000000000-7","c":"9999999999999999-9999999999999999"}}"#,
    r#"{"type":"unsubscribe","room":"a"}"#,
    r#"{"type":"auth","token":"x.y.z"}"#,
    r#"{"room":"a","payload":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}"#,
    r#"{"type":"subscribed","room":"a","id":"1-1","recovered":true}"#,
];

/// A well-formed request of one kind or another.
fn request(rng: &mut Rng) -> Vec<u8> {
    let body = COMMANDS[rng.usize(..COMMANDS.len())];
    let length = body.len();
    let head = match rng.u8(..4) {
        0 => format!(
            "POST /api/chat-api/rooms/storm/messages HTTP/1.1\r\nhost: h\r\nidempotency-key: k\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
        1 => format!(
            "POST /api/chat-api/rooms/storm/messages HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
        ),
        2 => "GET /api/chat-api/rooms/storm/messages?after=0-0&limit=200 HTTP/1.1\r\nhost: h\r\n\r\n".to_owned(),
        _ => return upgrade(rng),
    };
    head.into_bytes()
}

fn upgrade(rng: &mut Rng) -> Vec<u8> {
    let protocol = ["", "sec-websocket-protocol: chat.v1\r\n", "sec-websocket-protocol: chat.plain, bearer.x.y.z\r\n"];
    let (protocol, after) = (protocol[rng.usize(..3)], ["", "?after=0-0", "?after=1-1"][rng.usize(..3)]);
    format!(
        "GET /api/chat-api/ws/storm{after} HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
    )
    .into_bytes()
}

/// A masked frame: mostly a command; now and then a control frame, a fragment, or a length that is not true.
fn frame(rng: &mut Rng) -> Vec<u8> {
    let mut payload = COMMANDS[rng.usize(..COMMANDS.len())].as_bytes().to_vec();
    let first = match rng.u8(..12) {
        0 => [0x01, 0x00, 0x80, 0x82][rng.usize(..4)],
        1 | 2 => [0x89, 0x8a, 0x88][rng.usize(..3)],
        3 => rng.u8(..),
        _ => 0x81,
    };
    if first & 0x08 != 0 {
        payload.truncate(125);
    } else if rng.u8(..10) == 0 {
        payload.resize(rng.usize(..40_000), b' ');
    }
    let mask: [u8; 4] = rng.u32(..).to_be_bytes();
    let length = if rng.u8(..30) == 0 { rng.u64(..) } else { payload.len() as u64 };
    let mut frame = match length {
        0..=125 => vec![first, 0x80 | length as u8],
        126..=0xffff => [&[first, 0xfe], &(length as u16).to_be_bytes()[..]].concat(),
        _ => [&[first, 0xff], &length.to_be_bytes()[..]].concat(),
    };
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Turns bytes over, cuts some out or puts some in.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..=bytes.len());
        let to = bytes.len().min(at + rng.usize(..20));
        match rng.u8(..4) {
            0 => bytes[at..to].iter_mut().for_each(|byte| *byte ^= rng.u8(..)),
            1 => drop(bytes.drain(at..to)),
            2 => drop(bytes.splice(at..at, (0..rng.u8(..8)).map(|_| rng.u8(..)).collect::<Vec<_>>())),
            _ => drop(bytes.splice(at..at, bytes[at..to].repeat(rng.usize(..50)))),
        }
    }
}

/// What one connection sends: anything, a request that is not quite one, or frames behind an upgrade.
fn stream(rng: &mut Rng) -> Vec<u8> {
    let kind = rng.u8(..10);
    match kind {
        0 => (0..rng.usize(..3000)).map(|_| rng.u8(..)).collect(),
        1..=3 => {
            let mut request = request(rng);
            mutate(rng, &mut request);
            request
        }
        _ => {
            let mut frames: Vec<u8> = (0..rng.usize(..60)).flat_map(|_| frame(rng)).collect();
            if kind < 7 {
                mutate(rng, &mut frames);
            }
            [upgrade(rng), frames].concat()
        }
    }
}

/// One connection after the other: sends in pieces, reads or not, closes, vanishes or resets.
async fn attack(node: SocketAddr, mut rng: Rng, end: Instant) -> u64 {
    let mut attacks = 0;
    while attacks < ATTACKS || Instant::now() < end {
        attacks += 1;
        let Ok(Ok(mut socket)) = timeout(MOMENT, TcpStream::connect(node)).await else { continue };
        let bytes = stream(&mut rng);
        let piece = [1, 13, 200, 5000][rng.usize(..4)].max(bytes.len() / 500);
        for piece in bytes.chunks(piece) {
            if !matches!(timeout(MOMENT, socket.write_all(piece)).await, Ok(Ok(()))) {
                break;
            }
            if rng.u8(..8) == 0 {
                sleep(Duration::from_millis(rng.u64(..5))).await;
            }
        }
        match rng.u8(..4) {
            0 => SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a socket"), // a reset
            1 => _ = socket.shutdown().await,
            _ => {}
        }
        if rng.bool() {
            let _ = timeout(MOMENT, socket.read_to_end(&mut Vec::new())).await;
        }
    }
    attacks
}

/// Sends and has it received by both, again and again, at the pace of people who are quick.
async fn chat_on(pair: &mut [Client; 2], over: &CancellationToken) -> u64 {
    let mut sent = 0;
    while !over.is_cancelled() {
        pair[sent as usize % 2].send(json!({ "payload": sent })).await;
        for client in &mut *pair {
            let message = client.message().await;
            assert_eq!((&message["room"], &message["payload"]), (&json!("hall"), &json!(sent)));
        }
        sent += 1;
        sleep(MOMENT).await;
    }
    sent
}

async fn survives(over: Over) {
    let number = |key| env::var(key).ok().map(|number| number.parse::<u64>().expect("a number"));
    let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("FUZZ_SEED={seed}");
    // One node holds them back as it would; the other two take all they can.
    let rate = if over == Over::Local { "20" } else { "0" };
    let chat = Chat::start_with(over, |node| {
        node.env("CHAT_SERVER__HEADER_TIMEOUT", "500ms").env("CHAT_LIMITS__MESSAGES_PER_SECOND", rate)
    })
    .await;
    let mut pair = [chat.client(0, "/api/chat-api/ws/hall").await, chat.client(1, "/api/chat-api/ws/hall").await];
    let files = join_all(chat.nodes.iter().map(|node| node.metric("process_open_fds"))).await;

    let (end, over) =
        (Instant::now() + Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(0)), CancellationToken::new());
    let attacks = join_all((0..HOSTILE).map(|n| {
        let node = &chat.nodes[n as usize % chat.nodes.len()];
        attack(node.public, Rng::with_seed(seed.wrapping_add(n)), end)
    }));
    let attacks = async {
        let attacks = attacks.await;
        over.cancel();
        attacks
    };
    let (attacks, sent) = tokio::join!(attacks, chat_on(&mut pair, &over));
    println!("{} attacks, {sent} messages meanwhile", attacks.iter().sum::<u64>());

    for (node, files) in chat.nodes.iter().zip(files) {
        assert!(!node.exited());
        let bugs = node.metric(r#"chat_connections_closed_total{code="1011"}"#).await;
        let panicked = node.log().into_iter().find(|line| line.contains("panicked"));
        assert!(bugs == 0.0 && panicked.is_none(), "{bugs} {panicked:?}");
        node.wait_for_metric("chat_connections", 2.0 / chat.nodes.len() as f64).await;
        node.wait_for_metric("chat_rooms", 2.0).await;
        node.wait_for_metric("chat_invalid_entries_total", 0.0).await;
        assert_eq!(node.get("/api/chat-api/rooms/storm/messages?limit=200").await.status, 200, "the log can be read");
        eventually("nothing is left open", || async { node.metric("process_open_fds").await <= files + REDIS_POOL })
            .await;
    }
}

#[tokio::test]
async fn fuzz_storm_local() {
    survives(Over::Local).await;
}

#[tokio::test]
async fn fuzz_storm_redis() {
    survives(Over::Redis).await;
}
