//! The page in real Chromium, and how it is served. What is done there and checked is in tests/page/; here is what happens to it meanwhile.

use std::{process::Command, time::Duration};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::{
    Node, Redis, Script, Signer, eventually,
    proxy::{Proxy, Which},
    repository, run,
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
    for entry in repository("src/http/page").read_dir().expect("a folder") {
        let name = entry.expect("a file").file_name().into_string().expect("text");
        if name == "index.html" {
            continue;
        }
        let file = node.get(&format!("/assets/{name}")).await;
        assert_eq!((file.status, file.header("x-content-type-options")), (200, "nosniff"), "{name}");
        assert!(name == "chat.js" || name == "icon.svg" || page.body.contains(&format!("assets/{name}")), "{name}");
    }
    assert_eq!(node.get("/assets/secret.txt").await.status, 404);
}

/// A scenario of tests/page/chat.mjs; pictures go to target/page/.
fn script(scenario: &str, address: impl std::fmt::Display) -> Script {
    let pictures = repository("target/page").display().to_string();
    Script::start("tests/page/chat.mjs", [scenario.to_owned(), pictures, format!("http://{address}/")])
}

/// Plays a scenario that asks for nothing.
async fn play(scenario: &str) {
    let node = Node::builder().env("CHAT_HISTORY__MESSAGES", "2000").start().await;
    assert_eq!(script(scenario, node.public).asks().await, None);
}

#[tokio::test]
async fn people_talk_and_a_reload_resumes() {
    play("talk").await;
}

#[tokio::test]
async fn several_rooms_are_followed_and_their_past_is_read() {
    play("rooms").await;
}

#[tokio::test]
async fn it_fits_and_is_accessible_on_desktop_and_phone() {
    play("looks").await;
}

/// Nodes are killed and replaced behind one address, and Redis loses what it had.
#[tokio::test]
async fn outages_are_survived_and_told_of() {
    let mut redis = Redis::start().await;
    let url = redis.url();
    let start = || Node::builder().env("REDIS_URL", &url).start();
    let mut node = start().await;
    let proxy = Proxy::start(node.public, &[]).await;
    let mut script = script("outages", proxy.address);
    let mut backup = None;
    while let Some(what) = script.asks().await {
        match what.as_str() {
            "cut" => assert!(proxy.cut(Which::All) > 0, "they were connected"),
            "kill" => {
                node.signal("KILL");
                node.wait(Duration::from_secs(20)).await;
            }
            "start" => {
                node = start().await;
                proxy.retarget(node.public);
            }
            "drain" => {
                let next = start().await;
                proxy.retarget(next.public);
                node.signal("TERM");
                node.wait(Duration::from_secs(20)).await;
                node = next;
            }
            "back up redis" => backup = Some(redis.backup().await),
            "restore redis" | "empty redis" => {
                redis.lose(backup.as_ref().filter(|_| what == "restore redis")).await;
                eventually("the node has it back", || async { node.manage("/readyz").await.status == 200 }).await;
            }
            other => panic!("{other}"),
        }
        script.answer(&json!(null));
    }
}

/// The page asks for a token, says why, and goes on with the next one.
#[tokio::test]
async fn tokens_are_asked_for_in_words() {
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET).start().await;
    let signer = Signer::secret(Algorithm::HS256);
    let token = |sub: &str, seconds, rooms: Value| signer.timed(sub, seconds, json!({ "rooms": rooms }));
    let all = json!({ "*": "spw" });
    let mut script = script("tokens", node.public);
    while let Some(what) = script.asks().await {
        script.answer(&json!(match what.as_str() {
            "good" => token("alice", 600, all.clone()),
            "bob" => token("bob", 600, all.clone()),
            "short" => token("alice", 12, all.clone()),
            "expired" => token("alice", -600, all.clone()),
            "guest" => token("alice", 600, json!({ "lobby": "sp", "general": "spw", "board": "s" })),
            other => panic!("{other}"),
        }));
    }
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
