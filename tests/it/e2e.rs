//! Sockets into a cluster that stay open while things are done to it. Run by `make e2e`: tests/e2e/run.sh.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use serde_json::json;

use crate::support::{Client, client::Offer};

/// Sockets that are opened at each of some addresses and stay: none of them may be closed before `E2E_STATE/done` is there.
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
    while !state.join("done").exists() {
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
