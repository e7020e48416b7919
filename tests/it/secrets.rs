//! What nobody may read afterwards: tokens, secrets and what people write. Planted everywhere, found nowhere.

use serde_json::json;

use crate::support::{
    Chat, Client, Over, chat_api,
    client::Offer,
    collector::{Collector, Otlp},
    eventually, http, run,
    token::{SECRET, Signer, claims},
};

/// In every payload, reference and key of the test.
const CANARY: &str = "canary7f3a";
const PATH: &str = "/api/chat-api/ws/general";

#[tokio::test]
async fn logs_metrics_and_spans_hold_no_secret_and_no_word_of_the_chat() {
    let collector = Collector::start(Otlp::Http).await;
    let chat = Chat::start_with(Over::Redis, |node| {
        collector
            .configure(node)
            .env("AUTH_ENABLED", "true")
            .env("CHAT_AUTH__SECRET", SECRET)
            .env("CHAT_AUTH__QUERY_TOKEN", "true")
            .env("CHAT_LOG__FILTER", "info,chat_api=trace")
            .env("CHAT_LIMITS__OUTBOX_AGE", "1s")
    })
    .await;
    let signer = Signer::secret(jsonwebtoken::Algorithm::HS256);
    let mut admin = claims("root");
    admin["chat"] = json!({ "rooms": { "*": "spw" }, "admin": true });
    let tokens =
        [signer.token(&claims("alice")), signer.token(&admin), format!("{}x", signer.token(&claims("mallory")))];
    let bearer = |n: usize| format!("Bearer {}", tokens[n]);

    // By header, subprotocol and query; good and bad.
    let header = Offer::default().header("authorization", bearer(0)).header("sec-websocket-protocol", "chat.v1");
    let mut session = Client::open(chat.nodes[0].public, PATH, header).await.expect("let in");
    let offer = Offer::default().header("sec-websocket-protocol", format!("chat.plain, bearer.{}", tokens[0]));
    let mut plain = Client::open(chat.nodes[1].public, PATH, offer).await.expect("let in");
    let in_url = format!("{PATH}?token={}", tokens[0]);
    Client::open(chat.nodes[1].public, &in_url, Offer::default()).await.expect("let in");
    for path in [PATH, &format!("{PATH}?token={}", tokens[2]), &format!("{PATH}?token={}&after=x", tokens[0])] {
        let offer = Offer::default().header("authorization", bearer(2));
        assert!(Client::open(chat.nodes[0].public, path, offer).await.is_err());
    }

    // Said, refused, repeated, resumed.
    for frame in [
        json!({ "payload": CANARY, "ref": CANARY }).to_string(),
        json!({ "sender": CANARY, "n": 1, "payload": { "text": CANARY } }).to_string(),
        json!({ "n": 9, "payload": CANARY }).to_string(),
        json!({ "type": "auth", "token": tokens[0], "ref": CANARY }).to_string(),
        json!({ "room": "elsewhere", "payload": CANARY }).to_string(),
        json!({ "payload": CANARY, "unknown": CANARY }).to_string(),
        format!("not JSON {CANARY}"),
        json!({ "ephemeral": true, "payload": CANARY }).to_string(),
    ] {
        session.send_text(&frame).await;
    }
    plain.publish(json!({ "text": CANARY })).await;
    let messages = "/api/chat-api/rooms/general/messages";
    for (n, body) in [(0, json!({ "payload": CANARY }).to_string()), (0, CANARY.to_owned()), (2, CANARY.to_owned())] {
        chat.nodes[0].post(messages, &body, &[("authorization", &bearer(n)), ("idempotency-key", CANARY)]).await;
    }
    let redis = chat.redis.as_ref().expect("over Redis");
    redis.command(&["PUBLISH", "{chat:general}", CANARY]).await;
    redis.command(&["XADD", "{chat:general}:log", "*", "d", CANARY]).await;
    http::get(chat.nodes[0].public, &format!("{messages}?after=0-0"), &[("authorization", &bearer(0))]).await;
    session.send_text(&json!({ "type": "auth", "token": tokens[2] }).to_string()).await;
    assert_eq!(session.closed().await.0, 4401);
    let headers = [("authorization", &*bearer(1))];
    let path = "/api/chat-api/users/alice/connections";
    assert_eq!(
        http::send(chat.nodes[0].public, hyper::Method::DELETE, path, &headers, String::new()).await.status,
        204
    );
    assert_eq!(plain.closed().await.0, 4401);
    eventually("spans arrive", || async { collector.spans().len() > 5 }).await;

    let mut config = chat_api();
    config.arg("config").env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET);
    let mut texts = vec![("config".to_owned(), run(config.env("REDIS_URL", "redis://:hidden-password@localhost")))];
    for (n, node) in chat.nodes.iter().enumerate() {
        texts.push((format!("log of node {n}"), node.log().join("\n")));
        texts.push((format!("metrics of node {n}"), node.manage("/metrics").await.body));
    }
    let spans = collector.spans().iter().map(|span| format!("{} {:?}", span.name, span.attributes)).collect::<Vec<_>>();
    texts.push(("spans".to_owned(), spans.join("\n")));
    let signature = |token: &str| token.rsplit('.').next().unwrap_or_default().to_owned();
    let mut forbidden = vec![CANARY.to_owned(), SECRET.to_owned(), "hidden-password".to_owned(), "eyJ".to_owned()];
    forbidden.extend(tokens.iter().map(|token| signature(token)));
    for (place, text) in &texts {
        assert!(!text.is_empty(), "{place} says something");
        for secret in &forbidden {
            let found = text.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(found, None, "{secret:?} is in the {place}");
        }
    }
}
