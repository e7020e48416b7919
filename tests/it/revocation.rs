//! An administrator takes a user's access away: sockets are closed on every node, older tokens refused, also where it was not heard at once.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    Chat, Client, Node, NodeBuilder, Over, both,
    client::Offer,
    eventually, http,
    token::{SECRET, Signer, claims},
};

const PATH: &str = "/api/chat-api/ws/general";

fn guarded(node: NodeBuilder) -> NodeBuilder {
    node.env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET)
}

fn token(user: &str, admin: bool) -> String {
    let mut claims = claims(user);
    claims["chat"] = json!({ "rooms": { "*": "spw" }, "admin": admin });
    Signer::secret(jsonwebtoken::Algorithm::HS256).token(&claims)
}

async fn open(node: &Node, token: &str) -> Result<Client, u16> {
    let offer = Offer::default().header("authorization", format!("Bearer {token}"));
    Client::open(node.public, PATH, offer).await.map_err(|refused| refused.status)
}

async fn revoke(node: &Node, user: &str, token: &str) -> u16 {
    let headers = [("authorization", &*format!("Bearer {token}"))];
    let path = format!("/api/chat-api/users/{user}/connections");
    http::send(node.public, hyper::Method::DELETE, &path, &headers, String::new()).await.status
}

async fn a_user_is_closed_everywhere_and_older_tokens_are_refused(over: Over) {
    let chat = Chat::start_with(over, guarded).await;
    let (first, last) = (&chat.nodes[0], &chat.nodes[chat.nodes.len() - 1]);
    let (alice, bob, admin) = (token("alice", false), token("bob", false), token("root", true));
    let mut sockets = vec![open(first, &alice).await.expect("let in"), open(last, &alice).await.expect("let in")];
    let mut other = open(last, &bob).await.expect("let in");
    other.ping().await;
    assert_eq!(revoke(first, "alice", &bob).await, 403);
    assert_eq!(revoke(first, "alice", "nonsense").await, 401);
    assert_eq!(revoke(first, &"x".repeat(129), &admin).await, 400);
    sockets[0].ping().await;

    assert_eq!(revoke(first, "alice", &admin).await, 204);
    for socket in &mut sockets {
        let (code, reason) = socket.closed().await;
        assert_eq!((code, reason.contains("revoked")), (4401, true), "{reason}");
    }
    for node in &chat.nodes {
        assert_eq!(open(node, &alice).await.err(), Some(401));
        assert!(node.metric(r#"chat_auth_failures_total{reason="revoked"}"#).await >= 1.0);
    }
    other.ping().await;
    eventually("a newer token counts", || async { open(last, &token("alice", false)).await.is_ok() }).await;
}

/// Somebody whose socket takes nothing, not even its close, and who goes on talking.
#[tokio::test]
async fn who_was_closed_is_not_heard_any_more() {
    let node = guarded(Node::builder()).env("CHAT_LIMITS__OUTBOX_BYTES", "64MiB").env("CHAT_LIMITS__OUTBOX_AGE", "60s");
    let node = node.start().await;
    let mut stopped = open(&node, &token("alice", false)).await.expect("let in");
    let mut sender = open(&node, &token("bob", false)).await.expect("let in");
    stopped.ping().await;
    for _ in 0..400 {
        sender.publish(json!("x".repeat(8 * 1024))).await;
    }
    let admin = token("root", true);
    assert_eq!(revoke(&node, "alice", &admin).await, 204);
    for _ in 0..5 {
        stopped.send(json!({ "payload": "late" })).await;
    }
    node.wait_for_metric("chat_connections", 1.0).await;
    sender.publish(json!("end")).await;
    let headers = [("authorization", &*format!("Bearer {admin}"))];
    let history = http::get(node.public, "/api/chat-api/rooms/general/messages?limit=2", &headers).await.json();
    assert_ne!(history["messages"][0]["payload"], "late");
    assert_eq!(history["messages"][1]["payload"], "end");
}

/// The subscription is cut at the moment it is said, and one node starts only afterwards.
#[tokio::test]
async fn who_did_not_hear_it_reads_it() {
    let chat = Chat::start_with(Over::Redis, guarded).await;
    let redis = chat.redis.as_ref().expect("over Redis");
    let (alice, admin) = (token("alice", false), token("root", true));
    let mut socket = open(&chat.nodes[1], &alice).await.expect("let in");
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert_eq!(revoke(&chat.nodes[0], "alice", &admin).await, 204);
    assert_eq!(socket.closed().await.0, 4401);
    let late = guarded(Node::builder()).env("REDIS_URL", &redis.url()).start().await;
    assert_eq!(open(&late, &alice).await.err(), Some(401));
}

/// By the difference that clocks may have, a token counts for longer than `auth.max_token_age`, and so does what takes it away.
#[tokio::test]
async fn a_revocation_outlives_the_tokens() {
    let node = guarded(Node::builder()).env("CHAT_AUTH__MAX_TOKEN_AGE", "2s").start().await;
    let (alice, issued) = (token("alice", false), Instant::now());
    assert_eq!(revoke(&node, "alice", &token("root", true)).await, 204);
    eventually("the token is older than it should get", async || {
        assert_eq!(revoke(&node, "bob", &token("root", true)).await, 204); // forgets those that are over
        issued.elapsed() > Duration::from_secs(4)
    })
    .await;
    assert_eq!(open(&node, &alice).await.err(), Some(401));
    assert!(node.metric(r#"chat_auth_failures_total{reason="revoked"}"#).await >= 1.0, "not for its age");
}

/// No client can speak in the room in which nodes say it.
#[tokio::test]
async fn clients_cannot_name_the_room() {
    let node = guarded(Node::builder()).start().await;
    let admin = format!("Bearer {}", token("root", true));
    let path = "/api/chat-api/rooms/~revocations/messages";
    let body = r#"{"payload":{"user":"bob","before":9999999999}}"#;
    assert_eq!(node.post(path, body, &[("authorization", &admin)]).await.status, 400);
    let answer = http::get(node.public, "/api/chat-api/ws/~revocations", &[("authorization", &admin)]).await;
    assert!(answer.status >= 400);
    assert!(open(&node, &token("bob", false)).await.is_ok());
}

both!(a_user_is_closed_everywhere_and_older_tokens_are_refused);
