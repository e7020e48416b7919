//! The page in real Chromium, and how it is served.

use std::process::Command;

use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::support::{
    Node, Signer, repository, run,
    token::{SECRET, claims},
};

#[tokio::test]
async fn files_are_served_under_a_strict_policy() {
    let node = Node::builder().start().await;
    let page = node.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for name in ["chat.js", "connection.js", "rows.js", "store.js", "chat.css", "icon.svg"] {
        let file = node.get(&format!("/assets/{name}")).await;
        assert_eq!((file.status, file.header("x-content-type-options")), (200, "nosniff"), "{name}");
    }
    assert_eq!(node.get("/assets/secret.txt").await.status, 404);
}

/// Two tabs chat; one is reloaded and resumes. What is checked is in tests/page/chat.mjs.
#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_chat_and_a_reload_resumes() {
    let node = Node::builder().env("CHAT_HISTORY__MESSAGES", "1000").start().await;
    let mut command = Command::new("node");
    command.arg(repository("tests/page/chat.mjs")).arg(format!("http://{}/", node.public));
    if let Some(folder) = std::env::var_os("PAGE_SCREENSHOTS") {
        command.arg(folder);
    }
    let output = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ends");
    assert!(output.contains(" 0 failed"), "{output}");
}

/// A page of another server with `new WebSocket(url, ["chat.plain", "bearer." + token])` and nothing more, let in or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_passes_its_token_as_a_subprotocol() {
    let (host, foreign) = (Node::builder().start().await, Node::builder().start().await);
    let origin = |node: &Node| format!("http://{}", node.public);
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET);
    let node = node.env("CHAT_SERVER__ORIGINS", &origin(&host)).start().await;
    let socket = format!("ws://{}/api/chat-api/ws/general", node.public);
    let signer = Signer::secret(Algorithm::HS256);
    let (good, expired) = (signer.token(&claims("alice")), signer.changed(&json!({ "exp": 1 })));
    // Not the chat page, which may connect to its own server only.
    let page = |node: &Node| format!("{}/nothing", origin(node));
    let cases = json!([[page(&host), socket, good], [page(&host), socket, expired], [page(&foreign), socket, good]]);
    let mut command = Command::new("node");
    command.arg(repository("tests/page/bearer.mjs")).arg(cases.to_string());
    let output = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ends");
    let outcomes: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    let refused = json!({ "closed": 1006 });
    assert_eq!(outcomes, json!([{ "protocol": "chat.plain", "from": "alice" }, refused, refused]));
}
