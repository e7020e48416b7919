//! What a node logs: a line for everybody who comes and goes, and no more of anything than somebody can read.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Chat, Client, Node, Over, client::Offer, eventually, http};

const PATH: &str = "/api/chat-api/ws/general";

fn lines(node: &Node, message: &str) -> Vec<Value> {
    let lines = node.log();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// Of one kind since then: ten at once, and one a second.
fn most_lines(begun: Instant) -> usize {
    11 + begun.elapsed().as_secs() as usize
}

/// However many come at once, each of them has its two lines.
#[tokio::test]
async fn everybody_who_comes_and_goes_has_a_line() {
    const CROWD: usize = 60;
    let node = Node::builder().start().await;
    for n in 0..CROWD {
        let mut client = node.client(PATH).await;
        if n == 0 {
            client.publish(json!("hi")).await;
            client.send_text("nonsense").await;
            while client.next().await["type"] != "error" {}
        }
        client.leave().await;
    }
    eventually("all have gone", || async { lines(&node, "disconnected").len() == CROWD }).await;
    let (came, went) = (lines(&node, "connected"), lines(&node, "disconnected"));
    assert_eq!(came.len(), CROWD);
    for (came, went) in came.iter().zip(&went) {
        assert_eq!((&came["level"], &came["target"]), (&json!("INFO"), &json!("chat_api::record")));
        assert_eq!((&went["level"], &went["target"]), (&came["level"], &came["target"]));
        assert_eq!(
            (&came["client_id"], &came["user_id"], &came["room"]),
            (&went["client_id"], &json!("-"), &json!("general"))
        );
        assert_eq!((&went["user_id"], &went["room"], &went["code"]), (&json!("-"), &json!("general"), &json!(1000)));
        assert!(went["reason"].is_string() && went["seconds"].as_f64().expect("a number") < 60.0, "{went}");
    }
    let most = went.iter().filter_map(|line| line["messages"].as_u64()).max();
    assert_eq!(most, Some(3), "the first one: a ping, a message and nonsense");
}

/// Refused upgrades are a client's to cause, entries that cannot be read somebody's with Redis at hand: as many as they like.
#[tokio::test]
async fn lines_that_somebody_can_cause_at_will_are_held_back_and_counted() {
    const FLOOD: usize = 300;
    let chat = Chat::start(Over::Redis).await;
    let node = &chat.nodes[0];
    let begun = Instant::now();
    for _ in 0..FLOOD {
        assert_eq!(node.get(PATH).await.status, 426);
    }
    let most = most_lines(begun);
    let suppressed = node.metric("chat_log_lines_suppressed_total").await as usize;
    let refused = || lines(node, "an upgrade was refused");
    eventually("each is a line, or counted", || async { suppressed + refused().len() == FLOOD }).await;
    let refused = refused();
    assert!((10..=most).contains(&refused.len()), "{} lines, {most} at most", refused.len());
    assert_eq!((&refused[0]["code"], &refused[0]["level"]), (&json!("upgrade"), &json!("INFO")));

    // Another kind of line is not held back for it.
    let redis = chat.redis.as_ref().expect("over Redis");
    let mut client = node.client(PATH).await;
    client.publish(json!("a message")).await;
    for _ in 0..50 {
        redis.command(&["XADD", "{chat:general}:log", "*", "d", "no entry"]).await;
    }
    let begun = Instant::now();
    for _ in 0..10 {
        http::get(node.public, "/api/chat-api/rooms/general/messages?limit=200", &[]).await;
    }
    let most = most_lines(begun);
    let read = node.metric("chat_invalid_entries_total").await as usize;
    assert!(read >= 100, "{read}");
    let more = node.metric("chat_log_lines_suppressed_total").await as usize - suppressed;
    let ignored = || lines(node, "an entry of the log was ignored").len();
    eventually("each is a line, or counted", || async { ignored() + more == read }).await;
    assert!((10..=most).contains(&ignored()), "{} lines, {most} at most", ignored());

    // What was held back is said by the next line of its kind.
    eventually("it says how many there were", || async {
        node.get(PATH).await;
        lines(node, "an upgrade was refused").iter().any(|line| line["suppressed"].as_u64() >= Some(suppressed as u64))
    })
    .await;
}

/// Who is refused for a token is told apart, without the token.
#[tokio::test]
async fn a_refused_token_is_logged_with_its_reason() {
    let secret = crate::support::token::SECRET;
    let node = Node::builder().env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", secret).start().await;
    let offer = Offer::default().header("authorization", "Bearer no.token.atall");
    assert_eq!(Client::open(node.public, PATH, offer).await.err().map(|refused| refused.status), Some(401));
    let refused = || lines(&node, "an upgrade was refused");
    eventually("it is logged", || async { !refused().is_empty() }).await;
    assert_eq!((&refused()[0]["code"], &refused()[0]["reason"]), (&json!("auth"), &json!("malformed")));
}
