//! The page in real Chromium, and how it is served.

use std::process::Command;

use crate::support::{Node, repository, run};

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
