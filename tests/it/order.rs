//! One order for all, while others come, go and resume: members' streams are compared byte for byte, with each other and with the log.

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::support::{Chat, Client, Over, PATIENCE, client::Offer};

const PATH: &str = "/api/chat-api/ws/hall";
const MEMBERS: usize = 200;
const SENDERS: usize = 16;
const EACH: usize = 200;
const SENT: usize = SENDERS * EACH;
/// The last message; written when all others are in the log.
const END: &str = "end";

/// Comings and goings of each kind at a time.
const RESUMERS: usize = 4;
const PASSERS: usize = 4;
/// How many messages they read before they go again.
const STAYS: [usize; 5] = [1, 40, 7, 150, 300];

/// What members are sent, as bytes: whoever is first writes it down, all others must be sent the same.
#[derive(Default)]
struct Stream(Mutex<Vec<u8>>);

impl Stream {
    /// Takes what a member got at this place of its stream. True: that was the end.
    fn take(&self, at: usize, bytes: &[u8]) -> bool {
        let known = &mut *self.0.lock();
        let (same, new) = bytes.split_at(bytes.len().min(known.len() - at));
        assert!(known[at..].starts_with(same), "another order from byte {at} on");
        known.extend_from_slice(new);
        known[..at + bytes.len()].ends_with(format!("\"payload\":\"{END}\"}}").as_bytes())
    }
}

/// A member of the room from before the first message to behind the last. A sender writes its next message whenever it has read something.
async fn member(mut socket: TcpStream, messages: Vec<Vec<u8>>, stream: &Stream) {
    let (mut at, mut buffer, mut messages) = (0, vec![0; 64 * 1024], messages.into_iter());
    loop {
        if let Some(message) = messages.next() {
            socket.write_all(&message).await.expect("the socket is open");
        }
        let read =
            timeout(PATIENCE, socket.read(&mut buffer)).await.expect("more in time").expect("the socket is open");
        assert_ne!(read, 0, "closed at byte {at}");
        if stream.take(at, &buffer[..read]) {
            return assert_eq!(messages.next(), None, "all were sent");
        }
        at += read;
    }
}

/// A sender's messages as frames on the wire, with a mask of zeros.
fn messages(sender: usize) -> Vec<Vec<u8>> {
    let texts = (0..EACH).map(|n| json!({ "payload": [sender, n] }).to_string().into_bytes());
    texts.map(|text| [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_slice()].concat()).collect()
}

/// A message's id and payload.
fn read(message: &Value) -> (String, Value) {
    assert_eq!((&message["type"], &message["room"]), (&json!("chat"), &json!("hall")), "{message}");
    (message["id"].as_str().expect("an id").to_owned(), message["payload"].clone())
}

/// Reads all, says that it is over, then writes the end.
async fn witness(mut client: Client, over: &CancellationToken) {
    for _ in 0..SENT {
        client.message().await;
    }
    over.cancel();
    client.publish(json!(END)).await;
}

/// Drops its socket again and again, and goes on from its last message on another node.
async fn resumes_by_url(chat: &Chat, n: usize) -> Vec<(String, Value)> {
    let mut seen: Vec<(String, Value)> = Vec::new();
    for (turn, stay) in STAYS.iter().cycle().skip(n).enumerate() {
        let after = seen.last().map_or("0-0", |(id, _)| id);
        let mut client = chat.nodes[(n + turn) % chat.nodes.len()].connect(&format!("{PATH}?after={after}")).await;
        for _ in 0..*stay {
            seen.push(read(&client.message().await));
            if seen.last().is_some_and(|(_, payload)| payload == END) {
                return seen;
            }
        }
    }
    seen
}

/// The same on one session that leaves the room and joins it again.
async fn resumes_by_subscribing(chat: &Chat, n: usize) -> Vec<(String, Value)> {
    let offer = Offer::default().header("sec-websocket-protocol", "chat.v1");
    let node = &chat.nodes[n % chat.nodes.len()];
    let mut client = Client::open(node.public, "/api/chat-api/ws", offer).await.expect("the upgrade succeeds");
    assert_eq!(client.next().await["type"], "welcome");
    let mut seen: Vec<(String, Value)> = Vec::new();
    for stay in STAYS.iter().cycle().skip(n) {
        let after = seen.last().map_or("0-0", |(id, _)| id);
        client.send(json!({ "type": "subscribe", "room": "hall", "after": after })).await;
        let subscribed = client.next().await;
        assert_eq!(
            (&subscribed["type"], &subscribed["recovered"]),
            (&json!("subscribed"), &json!(true)),
            "{subscribed}"
        );
        for _ in 0..*stay {
            seen.push(read(&client.next().await));
            if seen.last().is_some_and(|(_, payload)| payload == END) {
                return seen;
            }
        }
        client.send(json!({ "type": "unsubscribe", "room": "hall" })).await;
        loop {
            let event = client.next().await;
            if event["type"] == "unsubscribed" {
                break;
            }
            seen.push(read(&event));
        }
        if seen.last().is_some_and(|(_, payload)| payload == END) {
            return seen;
        }
    }
    seen
}

/// Comes for what is live and goes, in one way or the other, until it is over. Returns what each visit saw.
async fn passes(chat: &Chat, n: usize, over: &CancellationToken) -> Vec<Vec<(String, Value)>> {
    let mut visits = Vec::new();
    for (turn, stay) in STAYS.iter().cycle().skip(n).enumerate() {
        let mut client = chat.nodes[(n + turn) % chat.nodes.len()].connect(PATH).await;
        let mut seen = Vec::new();
        while seen.len() < *stay && !over.is_cancelled() {
            tokio::select! {
                message = client.message() => seen.push(read(&message)),
                () = over.cancelled() => {}
            }
        }
        visits.push(seen);
        if over.is_cancelled() {
            break;
        }
        if turn % 2 == 0 {
            client.socket.close(None).await.expect("a close"); // else it is just gone
        }
    }
    visits
}

/// The whole log, as history gives it.
async fn log(chat: &Chat) -> Vec<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Page {
        messages: Vec<Box<RawValue>>,
        top: String,
    }
    let (mut log, mut after) = (Vec::new(), "0-0".to_owned());
    loop {
        let answer = chat.nodes[0].get(&format!("/api/chat-api/rooms/hall/messages?after={after}&limit=200")).await;
        let page: Page = serde_json::from_str(&answer.body).expect("a page");
        log.extend(page.messages);
        after = read(&serde_json::from_str(log.last().expect("a message").get()).expect("JSON")).0;
        if after == page.top {
            return log;
        }
    }
}

/// What a member is sent for these messages.
fn frames(messages: &[Box<RawValue>]) -> Vec<u8> {
    let frame = |message: &RawValue| {
        let text = message.get().as_bytes();
        let [high, low] = (text.len() as u16).to_be_bytes();
        [&[0x81, 126, high, low], text].concat()
    };
    messages.iter().flat_map(|message| frame(message)).collect()
}

async fn members_see_one_order_while_others_come_and_go(over_what: Over) {
    // Without heartbeats and presence a member's stream is messages alone. How slow a reader may be is not the question here.
    let chat = Chat::start_with(over_what, |node| {
        node.env("CHAT_HISTORY__MESSAGES", "10000")
            .env("CHAT_LIMITS__HEARTBEAT", "1h")
            .env("CHAT_PRESENCE__ENABLED", "false")
            .env("CHAT_LIMITS__OUTBOX_BYTES", "4MiB")
            .env("CHAT_LIMITS__OUTBOX_AGE", "60s")
    })
    .await;
    let (stream, over) = (Stream::default(), CancellationToken::new());
    let members = join_all((0..MEMBERS).map(|n| chat.client(n, PATH))).await;
    let members = join_all(members.into_iter().enumerate().map(|(n, client)| {
        let messages = if n < SENDERS { messages(n) } else { Vec::new() };
        member(client.socket.into_inner(), messages, &stream)
    }));
    let witness = witness(chat.client(0, PATH).await, &over);
    let by_url = join_all((0..RESUMERS).map(|n| resumes_by_url(&chat, n)));
    let by_subscribing = join_all((0..RESUMERS).map(|n| resumes_by_subscribing(&chat, n)));
    let passing = join_all((0..PASSERS).map(|n| passes(&chat, n, &over)));
    let (_, (), by_url, by_subscribing, passing) = tokio::join!(members, witness, by_url, by_subscribing, passing);

    let log = log(&chat).await;
    assert!(*stream.0.lock() == frames(&log), "members got the log, the whole log and nothing but the log");
    let log: Vec<_> = log.iter().map(|raw| read(&serde_json::from_str(raw.get()).expect("JSON"))).collect();
    let mut next = [0; SENDERS];
    for (n, (id, payload)) in log.iter().enumerate() {
        assert!(id.ends_with(&format!("-{}", n + 1)), "no hole and no duplicate: {id} at {n}");
        if let Some(sender) = payload[0].as_u64() {
            let next = &mut next[sender as usize];
            assert_eq!(payload[1], *next, "each sender's own order is kept");
            *next += 1;
        }
    }
    assert_eq!(log.len(), SENT + 1);
    assert!(by_url.iter().chain(&by_subscribing).all(|seen| *seen == log), "resumers missed and repeated nothing");
    assert!(passing.iter().flatten().count() > 5 * PASSERS, "they came and went all the while: {passing:?}");
    for visit in passing.iter().flatten().filter(|visit| !visit.is_empty()) {
        let first = log.iter().position(|message| *message == visit[0]).expect("it is in the log");
        assert!(log[first..].starts_with(visit), "a visit saw a stretch of the log");
    }
}

#[tokio::test]
async fn order_under_churn_local() {
    members_see_one_order_while_others_come_and_go(Over::Local).await;
}

#[tokio::test]
async fn order_under_churn_redis() {
    members_see_one_order_while_others_come_and_go(Over::Redis).await;
}
