//! The reference at `/docs`: how it is served, and what Chromium shows.

use std::process::Command;

use crate::support::{Node, repository, run};

#[tokio::test]
async fn the_reference_is_served_under_the_strict_policy() {
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", crate::support::token::SECRET);
    let node = node.start().await;
    let chat = node.get("/").await.header("content-security-policy").to_owned();
    for (path, content_type) in [
        ("/docs", "text/html; charset=utf-8"),
        ("/assets/docs.js", "text/javascript; charset=utf-8"),
        ("/assets/schemas.js", "text/javascript; charset=utf-8"),
        ("/assets/docs.css", "text/css; charset=utf-8"),
    ] {
        let file = node.get(path).await;
        assert_eq!((file.status, file.header("content-type")), (200, content_type), "{path}");
        assert_eq!(
            (file.header("content-security-policy"), file.header("x-content-type-options")),
            (chat.as_str(), "nosniff")
        );
    }
    for path in ["/api/chat-api/openapi.json", "/api/chat-api/asyncapi.json"] {
        let document = node.get(path).await;
        assert_eq!((document.status, document.header("content-type")), (200, "application/json"), "{path}");
        let known = [("if-none-match", document.header("etag"))];
        assert_eq!(crate::support::http::get(node.public, path, &known).await.status, 304, "{path}");
    }
}

/// What is checked is in tests/page/docs.mjs.
#[tokio::test(flavor = "multi_thread")]
async fn the_reference_shows_everything() {
    let node = Node::builder().start().await;
    let mut command = Command::new("node");
    command.arg(repository("tests/page/docs.mjs")).arg(format!("http://{}/", node.public));
    if let Some(folder) = std::env::var_os("PAGE_SCREENSHOTS") {
        command.arg(folder);
    }
    let output = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ends");
    assert!(output.contains(" 0 failed"), "{output}");
}
