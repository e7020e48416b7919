//! With `AUTH_ENABLED=true`: a token, or 401 before the upgrade.

use serde_json::json;

use crate::support::{
    Client, Node, NodeBuilder, chat_api,
    client::{Offer, Refused},
    eventually, run,
    token::SECRET,
};

fn guarded() -> NodeBuilder {
    Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET)
}

/// As a developer gets one.
fn token(sub: &str, ttl: &str) -> String {
    let mut command = chat_api();
    command.args(["token", "--sub", sub, "--ttl", ttl]).env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET);
    run(&mut command).trim().to_owned()
}

fn header(token: &str) -> Offer {
    Offer::default().header("authorization", format!("Bearer {token}"))
}

async fn refused(node: &Node, offer: Offer) -> Refused {
    match Client::open(node.public, "/api/chat-api/ws/general", offer).await {
        Err(refused) => refused,
        Ok(_) => panic!("it was let in"),
    }
}

#[tokio::test]
async fn no_token_or_a_bad_one_is_401_before_101() {
    let node = guarded().start().await;
    let good = token("alice", "1h");
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let offers = [
        Offer::default(),
        header(""),
        header("nonsense"),
        header(&forged),
        header(&format!("{head}.")),
        Offer::default().header("authorization", "Basic YTpi"),
        Offer::default().header("sec-websocket-protocol", "chat.plain, bearer.nonsense"),
        header(&good).header("sec-websocket-protocol", format!("chat.plain, bearer.{good}")),
    ];
    let count = offers.len();
    for offer in offers {
        let what = format!("{offer:?}");
        let refused = refused(&node, offer).await;
        assert_eq!(refused.status, 401, "{what}");
        assert!(refused.headers.iter().any(|(name, value)| name == "www-authenticate" && value == "Bearer"));
        let problem = refused.problem;
        assert_eq!(
            (&problem["status"], &problem["title"], &problem["code"]),
            (&json!(401), &json!("Unauthorized"), &json!("auth"))
        );
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(!detail.is_empty() && !detail.contains(&good), "{detail}");
    }
    let refusals = node.metric(r#"chat_upgrade_failures_total{reason="auth"}"#).await;
    assert!((refusals - count as f64).abs() < f64::EPSILON, "{refusals} of {count}");
    assert!(node.metric("chat_connections_opened_total").await.abs() < f64::EPSILON, "nobody got in");
    assert!(!node.log().join("\n").contains(&good), "tokens are not logged");
}

#[tokio::test]
async fn a_token_opens_and_names_the_sender() {
    let node = guarded().start().await;
    let path = "/api/chat-api/ws/general";
    let mut alice = Client::open(node.public, path, header(&token("alice", "1h"))).await.expect("by header");
    alice.ping().await;
    let browser =
        Offer::default().header("sec-websocket-protocol", format!("chat.plain, bearer.{}", token("bob", "1h")));
    let mut bob = Client::open(node.public, path, browser).await.expect("by subprotocol");
    bob.ping().await;
    assert_eq!(bob.protocol.as_deref(), Some("chat.plain"), "the token is not echoed");
    alice.publish(json!("hi")).await;
    assert_eq!(bob.message().await["from"], "alice");
    let connected = || node.line(|line| line["message"] == "connected" && line["user_id"] == "bob");
    eventually("the connect is logged", || async { connected().is_some() }).await;
    let alone = Offer::default().header("sec-websocket-protocol", format!("bearer.{}", token("bob", "1h")));
    assert_eq!(refused(&node, alone).await.status, 400, "a browser would drop the socket: it is told why instead");
}

#[tokio::test]
async fn a_live_socket_is_closed_when_its_token_expires() {
    let node = guarded().env("CHAT_LIMITS__HEARTBEAT", "500ms").start().await;
    let mut client = Client::open(node.public, "/api/chat-api/ws", header(&token("alice", "1s"))).await.expect("open");
    assert_eq!(client.closed().await.0, 4401);
    let expired = token("alice", "1s");
    let open = async || Client::open(node.public, "/api/chat-api/ws", header(&expired)).await;
    eventually("the token is refused", || async { open().await.is_err() }).await;
    let refused = refused(&node, header(&expired)).await;
    assert_eq!(refused.status, 401);
    assert!(refused.problem["detail"].as_str().expect("a detail").contains("expired"));
}

/// What a minted token allows, and what cannot be minted.
#[tokio::test]
async fn the_command_line_mints_permissions() {
    let mint = |arguments: &[&str]| {
        let mut command = chat_api();
        command.args(["token", "--sub", "alice"]).args(arguments).env("CHAT_AUTH__SECRET", SECRET);
        command
    };
    let node = guarded().start().await;
    let token = run(&mut mint(&["--rooms", "team.*=sp, u.{sub}=s", "--admin"])).trim().to_owned();
    for (room, status) in [("team.a", None), ("u.alice", None), ("u.bob", Some(403)), ("lobby", Some(403))] {
        let opened = Client::open(node.public, &format!("/api/chat-api/ws/{room}"), header(&token)).await;
        assert_eq!(opened.err().map(|refused| refused.status), status, "{room}");
    }
    for bad in [["--rooms", "team"], ["--rooms", "team=x"], ["--ttl", "2days"], ["--ttl", "0s"]] {
        assert!(!mint(&bad).output().expect("it runs").status.success(), "{bad:?}");
    }
}

#[tokio::test]
async fn check_goes_through_a_guarded_service() {
    let node = guarded().start().await;
    let mut check = chat_api();
    check.args(["check", "--url", &format!("http://{}", node.public)]);
    let output = check.output().expect("it runs");
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("401"), "{output:?}");
    check.args(["--management", &format!("http://{}", node.management)]);
    let text = run(check.env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET));
    let words = ["from one socket to another", "a socket that came back", "series of metrics"];
    assert!(text.lines().count() == 3 && words.iter().all(|words| text.contains(words)), "{text}");
}
