//! `client.js` in Node against real nodes. What it does and checks is in tests/page/client.mjs; here is what happens to it meanwhile.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::{
    Chat, Node, Over, Redis, Script, Signer,
    proxy::{Proxy, Which},
    redis::free_port,
    repository,
    token::SECRET,
};

fn url(address: impl std::fmt::Display) -> String {
    format!("http://{address}")
}

fn script(scenario: &str, urls: &[String]) -> Script {
    let file = repository("src/http/client/client.js").display().to_string();
    Script::start("tests/page/client.mjs", [&[file, scenario.to_owned()], urls].concat())
}

/// Plays a scenario that asks for nothing.
async fn play(scenario: &str, nodes: &[Node]) {
    let mut script = script(scenario, &nodes.iter().map(|node| url(node.public)).collect::<Vec<_>>());
    assert_eq!(script.asks().await, None);
}

#[tokio::test]
async fn two_chats_over_two_nodes() {
    play("conversation", &Chat::start(Over::Redis).await.nodes).await;
}

#[tokio::test]
async fn slow_callbacks_leave_the_rest_to_the_log() {
    play("slow", &Chat::start_with(Over::Local, |node| node.env("CHAT_HISTORY__MESSAGES", "5000")).await.nodes).await;
}

#[tokio::test]
async fn a_bot_that_waits_for_its_answers_catches_up() {
    play("bot", &Chat::start_with(Over::Local, |node| node.env("CHAT_HISTORY__MESSAGES", "5000")).await.nodes).await;
}

#[tokio::test]
async fn rooms_are_opened_late_and_many_at_once() {
    play("late", &[Node::builder().start().await]).await;
}

#[tokio::test]
async fn a_room_left_and_entered_again_at_once_is_a_new_one() {
    play("quick", &[Node::builder().start().await]).await;
}

#[tokio::test]
async fn rooms_are_left_over_the_rate_of_frames() {
    play("limited", &[Node::builder().env("CHAT_LIMITS__MESSAGES_PER_SECOND", "20").start().await]).await;
}

#[tokio::test]
async fn what_can_never_be_sent_is_refused_at_once() {
    play("refused", &[Node::builder().start().await]).await;
}

#[tokio::test]
async fn half_a_frame_does_not_end_it() {
    play("tunnel", &[Node::builder().env("CHAT_LIMITS__MESSAGE_DEADLINE", "1s").start().await]).await;
}

#[tokio::test]
async fn what_is_no_token_is_told_and_asked_for_again() {
    play("errorPage", &[Node::builder().start().await]).await;
}

#[tokio::test]
async fn lost_sockets_and_nodes_lose_and_double_nothing() {
    let redis = Redis::start().await;
    let start = || Node::builder().env("REDIS_URL", &redis.url()).start();
    let mut node = start().await;
    let proxy = Proxy::start(node.public, &[]).await;
    let mut script = script("losses", &[url(proxy.address)]);
    while let Some(what) = script.asks().await {
        match what.as_str() {
            "cut" => assert!(proxy.cut(Which::All) > 0, "they were connected"),
            "restart" => {
                node.signal("KILL");
                node = start().await;
                proxy.retarget(node.public);
            }
            "drain" => {
                let next = start().await;
                node.signal("TERM");
                proxy.retarget(next.public);
                node.wait(Duration::from_secs(20)).await;
                node = next;
            }
            other => panic!("{other}"),
        }
        script.answer(&json!(null));
    }
}

#[tokio::test]
async fn a_minute_away_is_made_good() {
    let mut redis = Redis::start().await;
    let url_of_redis = redis.url();
    let start = || Node::builder().env("REDIS_URL", &url_of_redis).start();
    let (mut node, other) = (start().await, start().await);
    let proxy = Proxy::start(node.public, &[]).await;
    let mut script = script("minute", &[url(proxy.address), url(other.public)]);
    while let Some(what) = script.asks().await {
        match what.as_str() {
            "unplug" => {
                assert!(proxy.cut(Which::All) > 0, "it was connected");
                node.signal("KILL");
            }
            "plug in" => {
                node = start().await;
                proxy.retarget(node.public);
            }
            "kill redis" => {
                redis.written().await;
                redis.kill();
            }
            "start redis" => redis.restart().await,
            other => panic!("{other}"),
        }
        script.answer(&json!(null));
    }
}

#[tokio::test]
async fn a_redis_that_fails_and_forgets_is_told_of() {
    let mut chat = Chat::start(Over::Redis).await;
    let mut redis = chat.redis.take().expect("over Redis");
    let mut script = script("redis", &chat.nodes.iter().map(|node| url(node.public)).collect::<Vec<_>>());
    let mut backup = None;
    while let Some(what) = script.asks().await {
        match what.as_str() {
            "kill redis" => {
                redis.written().await;
                redis.kill();
            }
            "start redis" => redis.restart().await,
            "back up redis" => backup = Some(redis.backup().await),
            "restore redis" => redis.lose(backup.as_ref()).await,
            "empty redis" => redis.lose(None).await,
            other => panic!("{other}"),
        }
        script.answer(&json!(null));
    }
}

#[tokio::test]
async fn tokens_are_renewed_on_the_socket_and_replaced_when_taken_away() {
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET).start().await;
    let signer = Signer::secret(Algorithm::HS256);
    let token = |sub: &str, seconds, rooms: Value| {
        signer.timed(sub, seconds, json!({ "rooms": rooms, "admin": sub == "root" }))
    };
    let mut script = script("tokens", &[url(node.public)]);
    while let Some(what) = script.asks().await {
        let answer = match what.as_str() {
            "token" => json!(token("alice", 8, json!({ "red": "spw" }))),
            "expired" => json!(token("bob", -600, json!({ "red": "sp" }))),
            "guest" => json!(token("carol", 600, json!({ "red": "s" }))),
            "revoke" => {
                let bearer = format!("Bearer {}", token("root", 60, json!({})));
                let path = "/api/chat-api/users/alice/connections";
                let headers = [("authorization", bearer.as_str())];
                let answer =
                    crate::support::http::send(node.public, hyper::Method::DELETE, path, &headers, String::new()).await;
                json!(answer.status)
            }
            other => panic!("{other}"),
        };
        script.answer(&answer);
    }
}

#[tokio::test]
async fn a_clock_that_is_ahead_asks_for_no_more_tokens() {
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET).start().await;
    let signer = Signer::secret(Algorithm::HS256);
    let mut script = script("clock", &[url(node.public)]);
    while let Some(what) = script.asks().await {
        assert_eq!(what, "token");
        script.answer(&json!(signer.timed("alice", 600, json!({ "rooms": { "red": "spw" } }))));
    }
}

#[tokio::test]
async fn without_a_server_messages_wait_up_to_a_bound() {
    let proxy = Proxy::start(([127, 0, 0, 1], free_port()).into(), &[]).await;
    let mut script = script("offline", &[url(proxy.address)]);
    assert_eq!(script.asks().await.as_deref(), Some("connect"));
    let node = Node::builder().start().await;
    proxy.retarget(node.public);
    script.answer(&json!(null));
    assert_eq!(script.asks().await, None);
}

/// Other pages may load it, if they may connect; nobody has to load it twice.
#[tokio::test]
async fn it_is_served_to_the_pages_that_may_connect() {
    let node = Node::builder().env("CHAT_SERVER__ORIGINS", "https://app.example").start().await;
    for (name, content_type) in [("client.js", "text/javascript"), ("client.d.ts", "text/plain")] {
        let path = format!("/api/chat-api/{name}");
        let get = async |headers: &[(&str, &str)]| crate::support::http::get(node.public, &path, headers).await;
        let file = get(&[("origin", "https://app.example")]).await;
        assert_eq!(file.status, 200);
        assert!(file.header("content-type").starts_with(content_type), "{}", file.header("content-type"));
        assert_eq!(file.header("access-control-allow-origin"), "https://app.example");
        assert_eq!(file.body, std::fs::read_to_string(repository(&format!("src/http/client/{name}"))).expect("a file"));
        let again = get(&[("if-none-match", file.header("etag"))]).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""));
        assert_eq!(get(&[("origin", "https://evil.example")]).await.header("access-control-allow-origin"), "");
    }
}
