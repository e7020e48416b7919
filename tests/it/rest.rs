//! REST beside the sockets: one log, whichever way a message came and goes.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{
    Chat, Node, Over, eventually, fill,
    http::{self, Answer},
};

const ROOM: &str = "/api/chat-api/rooms/r/messages";
/// Half a megabyte, once the room is full.
const LONG: &str = "/api/chat-api/rooms/r/messages?limit=200";

async fn publish(chat: &Chat, n: usize, body: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[("content-type", "application/json")], headers].concat();
    chat.nodes[n % chat.nodes.len()].post(ROOM, body, &headers).await
}

fn payloads(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["messages"].as_array().expect("messages").iter().map(|message| message["payload"].clone()).collect()
}

async fn messages_go_both_ways(over: Over) {
    let chat = Chat::start(over).await;
    let mut socket = chat.client(1, "/api/chat-api/ws/r").await;
    let answer = publish(&chat, 0, r#"{"type":"note","payload":{ "x" :1E5}}"#, &[]).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let message = socket.message().await;
    assert_eq!(
        (&message["type"], &message["id"], &message["room"]),
        (&json!("note"), &answer.json()["id"], &json!("r"))
    );
    let id = socket.publish(json!("from the socket")).await;
    let history = chat.nodes[0].get(ROOM).await;
    assert_eq!(payloads(&history), [json!({ "x": 1e5 }), json!("from the socket")]);
    assert!(history.body.contains(r#"{ "x" :1E5}"#), "byte for byte: {}", history.body);
    assert_eq!((&history.json()["top"], &history.json()["recovered"]), (&json!(id), &json!(true)));
    assert_eq!(history.json()["messages"][0], message, "as on a socket");
}

async fn an_idempotency_key_stores_once(over: Over) {
    let chat = Chat::start(over).await;
    let key = [("idempotency-key", "order-17")];
    let first = publish(&chat, 0, r#"{"payload":1}"#, &key).await;
    let again = publish(&chat, 1, r#"{"payload":1}"#, &key).await;
    assert_eq!((first.status, again.status, first.json()), (201, 201, again.json()));
    publish(&chat, 0, r#"{"payload":2}"#, &[("idempotency-key", "order-18")]).await;
    let history = chat.nodes[0].get(ROOM).await;
    assert_eq!(payloads(&history), [1, 2]);
    assert_eq!(history.json()["messages"][0]["n"], Value::Null, "a key is no counter");
}

async fn history_is_paged(over: Over) {
    let chat = Chat::start_with(over, |node| node.env("CHAT_HISTORY__MESSAGES", "8")).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        let answer = publish(&chat, n, &format!(r#"{{"payload":{n}}}"#), &[]).await;
        ids.push(answer.json()["id"].as_str().expect("an id").to_owned());
    }
    let get = async |query: String| chat.nodes[0].get(&format!("{ROOM}?{query}")).await;
    assert_eq!(payloads(&get("limit=3".into()).await), [7, 8, 9]);
    assert_eq!(payloads(&get(format!("before={}&limit=3", ids[7])).await), [4, 5, 6]);
    assert_eq!(payloads(&get(format!("through={}&limit=3", ids[7])).await), [5, 6, 7]);
    assert_eq!(payloads(&get(format!("after={}&limit=3", ids[4])).await), [5, 6, 7]);
    assert_eq!(payloads(&get(format!("before={}", ids[2])).await), [] as [Value; 0], "dropped by now");
    let lost = get(format!("after={}", ids[0])).await;
    assert_eq!((payloads(&lost).len(), &lost.json()["recovered"]), (8, &json!(false)));
    assert_eq!(get("after=1-1".into()).await.json()["recovered"], false);
    assert_eq!(payloads(&get("before=1-1".into()).await), [] as [Value; 0]);
    for bad in ["after=x", "limit=0", "limit=201", "limit=x", "colour=red", &format!("after={0}&before={0}", ids[0])] {
        let refused = get((*bad).to_owned()).await;
        assert_eq!((refused.status, refused.header("content-type")), (400, "application/problem+json"), "{bad}");
    }
}

async fn bad_messages_are_refused(over: Over) {
    let chat = Chat::start(over).await;
    for (body, status, code) in [
        ("", 400, "invalid_json"),
        ("nonsense", 400, "invalid_json"),
        ("{}", 400, "invalid_message"),
        (r#"{"type":"ping"}"#, 400, "invalid_message"),
        (r#"{"payload":1,"room":"x"}"#, 400, "invalid_message"),
        (r#"{"payload":1,"sender":"s","n":1}"#, 400, "invalid_message"),
        (r#"{"type":"ack","payload":1}"#, 400, "reserved_type"),
        (&format!(r#"{{"payload":"{}"}}"#, "x".repeat(40_000)), 413, "too_large"),
    ] {
        let refused = publish(&chat, 0, body, &[]).await;
        assert_eq!((refused.status, &refused.json()["code"]), (status, &json!(code)), "{body:.60}");
    }
    let long = "k".repeat(65);
    assert_eq!(publish(&chat, 0, r#"{"payload":1}"#, &[("idempotency-key", &long)]).await.status, 400);
    assert_eq!(chat.nodes[0].get("/api/chat-api/rooms/a%20b/messages").await.status, 400);
    assert_eq!(payloads(&chat.nodes[0].get(ROOM).await), [] as [Value; 0], "nothing was stored");
}

#[tokio::test]
async fn both_ways_local() {
    messages_go_both_ways(Over::Local).await;
}

#[tokio::test]
async fn both_ways_redis() {
    messages_go_both_ways(Over::Redis).await;
}

#[tokio::test]
async fn once_local() {
    an_idempotency_key_stores_once(Over::Local).await;
}

#[tokio::test]
async fn once_redis() {
    an_idempotency_key_stores_once(Over::Redis).await;
}

#[tokio::test]
async fn paged_local() {
    history_is_paged(Over::Local).await;
}

#[tokio::test]
async fn paged_redis() {
    history_is_paged(Over::Redis).await;
}

#[tokio::test]
async fn refused_local() {
    bad_messages_are_refused(Over::Local).await;
}

#[tokio::test]
async fn refused_redis() {
    bad_messages_are_refused(Over::Redis).await;
}

#[tokio::test]
async fn the_same_auth_and_origins_as_sockets() {
    let secret = "an example secret of more than 32 bytes";
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", secret);
    let node = node.env("CHAT_SERVER__ORIGINS", "https://app.example").start().await;
    let refused = node.get(ROOM).await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(node.post(ROOM, r#"{"payload":1}"#, &[]).await.status, 401);
    let mut mint = crate::support::chat_api();
    mint.args(["token", "--sub", "alice"]).env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", secret);
    let bearer = format!("Bearer {}", crate::support::run(&mut mint).trim());
    let origin = ("origin", "https://app.example");
    let stored = node.post(ROOM, r#"{"payload":1}"#, &[("authorization", &bearer), origin]).await;
    assert_eq!((stored.status, stored.header("access-control-allow-origin")), (201, "https://app.example"));
    let foreign =
        node.post(ROOM, r#"{"payload":1}"#, &[("authorization", &bearer), ("origin", "https://evil.example")]).await;
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, ""));
    let mut history = crate::support::http::get(node.public, ROOM, &[("authorization", &bearer)]).await.json();
    assert_eq!(history["messages"][0]["from"].take(), "alice");
}

#[tokio::test]
async fn a_lost_redis_is_503_with_an_outcome() {
    let mut chat = Chat::start(Over::Redis).await;
    chat.redis.as_mut().expect("redis").kill();
    eventually("it is noticed", || async { chat.nodes[0].metric("chat_redis_up").await < 1.0 }).await;
    let refused = publish(&chat, 0, r#"{"payload":1}"#, &[]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert_eq!((&refused.json()["code"], &refused.json()["outcome"]), (&json!("unavailable"), &json!("refused")));
    assert_eq!(chat.nodes[0].get(ROOM).await.status, 503);
}

async fn node_with_a_long_room(outbox_age: &str) -> Node {
    let node = Node::builder().env("CHAT_LIMITS__OUTBOX_AGE", outbox_age).start().await;
    fill(&node, "r").await;
    node
}

fn files(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.id())).expect("it runs").count()
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends() {
    let node = node_with_a_long_room("3s").await;
    let before = files(&node);
    let stopped = join_all((0..20).map(|_| http::unread(node.public, LONG))).await;
    // Each is answered, and takes no more than its kernel does by itself.
    join_all(stopped.iter().map(TcpStream::readable)).await;
    eventually("they are let go", || async { files(&node) <= before }).await;
    assert_eq!(node.get(LONG).await.status, 200);
}

#[tokio::test]
async fn answers_that_wait_have_their_limit_over_all() {
    let node = node_with_a_long_room("60s").await;
    let mut stopped = join_all((0..150).map(|_| http::unread(node.public, LONG))).await;
    let refused = r#"chat_limited_total{limit="answers"}"#;
    eventually("some are refused", || async { node.metric(refused).await >= 10.0 }).await;
    let answer = node.get(LONG).await;
    assert_eq!((answer.status, &answer.json()["code"], answer.header("retry-after")), (503, &json!("busy"), "1"));
    let mut client = node.client("/api/chat-api/ws/r").await;
    client.publish(json!("the chat goes on")).await;
    stopped.clear();
    eventually("there is room again", || async { node.get(LONG).await.status == 200 }).await;
}
