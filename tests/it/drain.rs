//! SIGTERM: nobody loses what was acknowledged, and the node ends in time.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Chat, Client, NodeBuilder, Over, eventually, http};

/// Between two messages of a client.
const PAUSE: Duration = Duration::from_millis(300);

/// What a client knows when its node has closed it.
struct Survivor {
    acked: Vec<String>,
    close: Option<(u16, String)>,
    closed_at: Instant,
}

/// Sends one message after the other until the close.
async fn talk(mut client: Client) -> Survivor {
    let mut acked = Vec::new();
    let mut n = 0;
    loop {
        if futures_util::SinkExt::send(
            &mut client.socket,
            tokio_tungstenite::tungstenite::Message::text(json!({ "payload": n, "ref": n.to_string() }).to_string()),
        )
        .await
        .is_err()
        {
            // Closed while sending: what the server said before is still there to read.
        }
        loop {
            match client.next_or_close().await {
                Ok(event) if event["type"] == "ack" => {
                    acked.push(event["id"].as_str().expect("an id").to_owned());
                    break;
                }
                Ok(_) => {}
                Err(close) => return Survivor { acked, close, closed_at: Instant::now() },
            }
        }
        n += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_sockets_lose_nothing_acknowledged() {
    const SOCKETS: usize = 500;
    // So small that clients keep up on any machine: who is seconds behind when it is closed may lose the close frame.
    const ROOMS: usize = 25;
    let room = |n: usize| format!("/api/chat-api/ws/{}", n % ROOMS);
    let mut chat = Chat::start_with(Over::Redis, |node| {
        node.env("CHAT_DRAIN__WINDOW", "8s").env("CHAT_HISTORY__MESSAGES", "100000")
    })
    .await;
    let node = &chat.nodes[0];
    let paths: Vec<_> = (0..SOCKETS).map(room).collect();
    let clients = join_all(paths.iter().map(|path| node.client(path))).await;
    let talking: Vec<_> = clients.into_iter().map(|client| tokio::task::spawn(talk(client))).collect();
    eventually("messages flow", || async { node.metric("chat_messages_received_total").await > 500.0 }).await;
    let start = Instant::now();
    node.signal("TERM");
    eventually("it drains", || async { node.metric("chat_draining").await > 0.0 }).await;
    assert_eq!(node.manage("/readyz").await.status, 503);
    eventually("new sockets are refused", || async {
        let refused = Client::open(node.public, "/api/chat-api/ws", crate::support::client::Offer::default()).await;
        refused.is_err_and(|refused| {
            let retry = refused.headers.iter().any(|(name, value)| name == "retry-after" && value == "1");
            refused.status == 503 && refused.problem["code"] == "draining" && retry
        })
    })
    .await;
    let survivors: Vec<Survivor> =
        join_all(talking).await.into_iter().map(|result| result.expect("a client")).collect();
    let status = chat.nodes[0].wait(Duration::from_secs(20)).await;
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(20), "inside window and flush: {:?}", start.elapsed());

    for survivor in &survivors {
        let (code, reason) = survivor.close.as_ref().expect("a close frame, not a cut");
        let hint = reason.strip_prefix("reconnect after ").and_then(|rest| rest.strip_suffix(" ms"));
        assert!(*code == 1012 && hint.is_some_and(|hint| hint.parse::<u64>().is_ok()), "{code} {reason}");
    }
    let spread = |part: usize| {
        let mut times: Vec<_> = survivors.iter().map(|survivor| survivor.closed_at - start).collect();
        times.sort();
        times[SOCKETS * part / 100]
    };
    assert!(
        spread(90) - spread(10) > Duration::from_secs(1),
        "paced, not all at once: {:?} to {:?}",
        spread(10),
        spread(90)
    );

    // The other node has every acknowledged message.
    for (n, room) in paths.iter().take(ROOMS).enumerate() {
        let end = chat.nodes[1].client(room).await.publish(json!("end")).await;
        let mut reader = chat.nodes[1].connect(&format!("{room}?after=0-0")).await;
        let mut kept = std::collections::HashSet::new();
        while !kept.contains(&end) {
            kept.insert(reader.message().await["id"].as_str().expect("an id").to_owned());
        }
        let mut acked = survivors.iter().skip(n).step_by(ROOMS).flat_map(|survivor| &survivor.acked).peekable();
        assert!(acked.peek().is_some());
        let lost: Vec<_> = acked.filter(|id| !kept.contains(*id)).collect();
        assert!(lost.is_empty(), "{} acknowledged messages are lost: {lost:?}", lost.len());
    }
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut chat = Chat::start_with(Over::Local, |node| node.env("CHAT_DRAIN__DELAY", "60s")).await;
    let mut client = chat.client(0, "/api/chat-api/ws").await;
    chat.nodes[0].signal("TERM");
    eventually("it drains", || async { chat.nodes[0].metric("chat_draining").await > 0.0 }).await;
    client.publish(json!("still served during the delay")).await;
    assert_eq!(http::get(chat.nodes[0].public, "/", &[]).await.status, 200, "and still accepting");
    chat.nodes[0].signal("TERM");
    assert!(chat.nodes[0].wait(Duration::from_secs(10)).await.success());
}

/// A node that gives up no reader before its drain, which takes that long.
fn patient(node: NodeBuilder, window: &str, flush: &str) -> NodeBuilder {
    node.env("CHAT_LIMITS__OUTBOX_BYTES", "64MiB")
        .env("CHAT_LIMITS__OUTBOX_AGE", "60s")
        .env("CHAT_DRAIN__DELAY", "0s")
        .env("CHAT_DRAIN__WINDOW", window)
        .env("CHAT_DRAIN__FLUSH", flush)
}

/// Says more than the sockets of members that do not read can hold.
async fn fill(sender: &mut Client) {
    for _ in 0..400 {
        sender.publish(json!("x".repeat(8 * 1024))).await;
    }
}

/// Readers that take nothing any more, not even their close: each is cut when its own time is over, and counted while there is somebody to see it.
#[tokio::test]
async fn who_does_not_go_is_cut_and_counted() {
    const STOPPED: usize = 3;
    let mut chat = Chat::start_with(Over::Local, |node| patient(node, "9s", "1s")).await;
    let stopped = join_all((0..STOPPED).map(|_| chat.client(0, "/api/chat-api/ws/hall"))).await;
    let mut sender = chat.client(0, "/api/chat-api/ws/hall").await;
    fill(&mut sender).await;
    drop(sender);
    chat.nodes[0].wait_for_metric("chat_connections", STOPPED as f64).await;
    chat.nodes[0].signal("TERM");
    eventually("one is counted before the node ends", || async {
        chat.nodes[0].metric("chat_drain_forced_total").await >= 1.0
    })
    .await;
    assert!(chat.nodes[0].wait(Duration::from_secs(20)).await.success());
    let drained = chat.nodes[0].line(|line| line["message"] == "drained").expect("it says what it did");
    assert_eq!((&drained["closed"], &drained["forced"]), (&json!(STOPPED), &json!(STOPPED)));
    drop(stopped);
}

/// Somebody whose socket takes nothing at the moment, and who says something after the node has begun to close it: it is not taken, since it could not
/// be answered. Who sends it again elsewhere has it there once.
#[tokio::test]
async fn what_comes_after_the_close_is_not_taken() {
    let mut chat = Chat::start_with(Over::Redis, |node| patient(node, "0s", "8s")).await;
    let mut stopped = chat.client(0, "/api/chat-api/ws/hall").await;
    let mut beside = chat.client(0, "/api/chat-api/ws/beside").await;
    let mut sender = chat.client(1, "/api/chat-api/ws/hall").await;
    fill(&mut sender).await;
    chat.nodes[0].signal("TERM");
    assert_eq!(beside.closed().await.0, 1012);
    drop(beside);
    chat.nodes[0].wait_for_metric("chat_connections", 1.0).await;
    stopped.send(json!({ "payload": "late" })).await;
    assert!(chat.nodes[0].wait(Duration::from_secs(20)).await.success());
    let after = sender.publish(json!("end")).await;
    let history = http::get(chat.nodes[1].public, "/api/chat-api/rooms/hall/messages?limit=2", &[]).await.json();
    let payloads: Vec<_> = history["messages"].as_array().expect("messages").iter().map(|m| &m["payload"]).collect();
    assert!(
        payloads.last() == Some(&&json!("end")) && payloads.first() != Some(&&json!("late")),
        "{after}: {payloads:?}"
    );
}

#[tokio::test]
async fn an_idle_node_ends_at_once() {
    let mut chat = Chat::start(Over::Redis).await;
    let start = Instant::now();
    chat.nodes[0].signal("TERM");
    assert!(chat.nodes[0].wait(Duration::from_secs(10)).await.success());
    assert!(start.elapsed() < Duration::from_secs(5));
}
