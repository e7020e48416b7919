//! A rollout under load, seen from outside the cluster. Run by `make e2e`: tests/e2e/run.sh.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, client::Offer, eventually};

const SOCKETS: usize = 200;
const ROOMS: usize = 5;
const SEND_EVERY: Duration = Duration::from_millis(500);

/// What all clients know together.
#[derive(Default)]
struct Record {
    stop_sending: AtomicBool,
    stop: AtomicBool,
    acked: Mutex<Vec<HashSet<String>>>,
    received: AtomicUsize,
    closes: Mutex<BTreeMap<String, usize>>,
}

fn seq(id: &str) -> u64 {
    id.rsplit_once('-').expect("epoch-seq").1.parse().expect("a number")
}

/// A client as users have it: comes back after a close and resumes where it was. Returns every id it received, in order.
async fn user(address: SocketAddr, n: usize, record: Arc<Record>) -> Vec<String> {
    let room = n % ROOMS;
    let mut ids: Vec<String> = Vec::new();
    while !record.stop.load(Ordering::Relaxed) {
        let after = ids.last().map(|id| format!("?after={id}")).unwrap_or_default();
        let opened = Client::open(address, &format!("/api/chat-api/ws/room-{room}{after}"), Offer::default()).await;
        let Ok(mut client) = opened else {
            tokio::time::sleep(Duration::from_millis(200)).await; // a pod that goes away says 503
            continue;
        };
        let wait = talk(&mut client, n, room, &record, &mut ids).await;
        tokio::time::sleep(wait).await;
    }
    ids
}

/// Sends and receives until the close; returns how long to stay away.
async fn talk(client: &mut Client, n: usize, room: usize, record: &Record, ids: &mut Vec<String>) -> Duration {
    let mut tick = tokio::time::interval(SEND_EVERY);
    loop {
        if record.stop.load(Ordering::Relaxed) {
            client.leave().await;
            return Duration::ZERO;
        }
        let event = tokio::select! {
            _ = tick.tick() => {
                if !record.stop_sending.load(Ordering::Relaxed) {
                    let frame = json!({ "payload": { "from": n }, "ref": "r" }).to_string();
                    let _ = client.socket.send(Message::text(frame)).await;
                }
                continue;
            }
            event = client.next_or_close() => event,
        };
        match event {
            Ok(event) if event["type"] == "ack" => {
                let id = event["id"].as_str().expect("an id").to_owned();
                record.acked.lock().expect("no panic")[room].insert(id);
            }
            Ok(event) if event["room"] == format!("room-{room}") => {
                ids.push(event["id"].as_str().expect("an id").to_owned());
                record.received.fetch_add(1, Ordering::Relaxed);
            }
            Ok(event) => assert!(event["retryable"] == true, "{event}"),
            Err(close) => {
                let code = close.as_ref().map_or("none".to_owned(), |(code, _)| code.to_string());
                *record.closes.lock().expect("no panic").entry(code).or_default() += 1;
                let hint = close
                    .and_then(|(_, reason)| reason.strip_prefix("reconnect after ")?.strip_suffix(" ms")?.parse().ok());
                return Duration::from_millis(hint.unwrap_or(500));
            }
        }
    }
}

/// Sockets that are opened at each of some addresses and stay: none of them may be closed before `E2E_STATE/release` is there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn sockets_stay() {
    let variable = |name: &str| std::env::var(name).expect(name);
    let state = PathBuf::from(variable("E2E_STATE"));
    let count: usize = variable("E2E_SOCKETS").parse().expect("a number");
    let offer = match std::env::var("E2E_KEY") {
        Ok(key) => Offer::default().header("authorization", format!("Bearer {}", token(&key))),
        Err(_) => Offer::default(),
    };
    let mut held = Vec::new();
    for address in variable("E2E_ADDRESSES").split(',') {
        let address: SocketAddr = address.parse().expect("an address");
        for _ in 0..count {
            let socket = Client::open(address, "/api/chat-api/ws/held", offer.clone()).await;
            held.push(socket.expect("the upgrade succeeds"));
        }
    }
    std::fs::write(state.join("held"), "").expect("the state folder");
    let total = held.len();
    let closed = Arc::new(AtomicUsize::new(0));
    let reading: Vec<_> = held
        .into_iter()
        .map(|mut socket| {
            let closed = closed.clone();
            tokio::spawn(async move {
                while socket.socket.next().await.is_some_and(|frame| frame.is_ok_and(|frame| !frame.is_close())) {}
                closed.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    while !state.join("release").exists() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let closed = closed.load(Ordering::Relaxed);
    reading.iter().for_each(tokio::task::JoinHandle::abort);
    println!("{total} sockets held, {closed} closed");
    assert_eq!(closed, 0);
}

/// Signed with a shared key whose id and text are `key`.
fn token(key: &str) -> String {
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = Some(key.to_owned());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({ "sub": "held", "iat": now, "exp": now + 3600 });
    let key = jsonwebtoken::EncodingKey::from_secret(key.repeat(8).as_bytes());
    jsonwebtoken::encode(&header, &claims, &key).expect("a token")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn rollout_under_load() {
    let address: SocketAddr = std::env::var("E2E_ADDRESS").expect("E2E_ADDRESS").parse().expect("an address");
    let state = PathBuf::from(std::env::var("E2E_STATE").expect("E2E_STATE"));
    let record = Arc::new(Record::default());
    *record.acked.lock().expect("no panic") = vec![HashSet::new(); ROOMS];
    let users: Vec<_> = (0..SOCKETS).map(|n| tokio::task::spawn(user(address, n, record.clone()))).collect();
    eventually("messages flow", || async { record.received.load(Ordering::Relaxed) > SOCKETS * 20 }).await;
    std::fs::write(state.join("flowing"), "").expect("the state folder");
    let start = Instant::now();
    while !state.join("rolled").exists() {
        assert!(start.elapsed() < Duration::from_secs(600), "the rollout did not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    record.stop_sending.store(true, Ordering::Relaxed);
    // Quiet for three seconds: everything has arrived.
    let mut before = usize::MAX;
    while before != record.received.load(Ordering::Relaxed) {
        before = record.received.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    record.stop.store(true, Ordering::Relaxed);
    for room in 0..ROOMS {
        // Wakes those that wait for a message.
        if let Ok(mut client) = Client::open(address, &format!("/api/chat-api/ws/room-{room}"), Offer::default()).await
        {
            client.send(json!({ "type": "bye", "payload": 0 })).await;
            client.next().await;
        }
    }
    let received: Vec<Vec<String>> = join_all(users).await.into_iter().map(|user| user.expect("a user")).collect();

    let acked = record.acked.lock().expect("no panic");
    let (mut lost, mut checked) = (0, 0);
    for (n, ids) in received.iter().enumerate() {
        let (first, last) = (seq(&ids[0]), seq(&ids[ids.len() - 1]));
        let contiguous = ids.iter().zip(first..).all(|(id, expected)| seq(id) == expected);
        assert!(contiguous && last - first + 1 == ids.len() as u64, "user {n} saw a hole or a duplicate");
        let seen: HashSet<&String> = ids.iter().collect();
        let due = acked[n % ROOMS].iter().filter(|id| seq(id) >= first);
        for id in due {
            checked += 1;
            lost += usize::from(!seen.contains(id));
        }
    }
    let total: usize = acked.iter().map(HashSet::len).sum();
    println!(
        "{SOCKETS} sockets in {ROOMS} rooms: {total} messages acknowledged, {checked} deliveries of them checked, {lost} lost"
    );
    println!(
        "received {}; closes by code {:?}",
        record.received.load(Ordering::Relaxed),
        record.closes.lock().expect("no panic")
    );
    assert_eq!(lost, 0);
}
