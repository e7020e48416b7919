//! What a token allows, room by room, and what a newer one takes away.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use crate::support::{
    Chat, Client, Node, NodeBuilder, Over, Signer, both,
    client::Offer,
    eventually, http,
    token::{SECRET, changed, claims},
};

fn guarded(node: NodeBuilder) -> NodeBuilder {
    node.env("AUTH_ENABLED", "true").env("CHAT_AUTH__SECRET", SECRET)
}

/// A token for rooms and letters.
fn token(sub: &str, rooms: &Value) -> String {
    let claims = changed(&claims(sub), &json!({ "chat": { "rooms": rooms } }));
    Signer::secret(Algorithm::HS256).token(&claims)
}

fn offer(token: &str, protocol: &str) -> Offer {
    Offer::default().header("sec-websocket-protocol", format!("{protocol}, bearer.{token}"))
}

async fn plain(node: &Node, path: &str, token: &str) -> Client {
    let mut client = Client::open(node.public, path, offer(token, "chat.plain")).await.expect("in");
    client.ping().await;
    client
}

async fn session(node: &Node, path: &str, token: &str) -> (Client, Value) {
    let mut client = Client::open(node.public, path, offer(token, "chat.v1")).await.expect("in");
    let welcome = client.next().await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (client, welcome)
}

/// The answer to a frame with a `ref`, passing over everything else.
async fn answer(client: &mut Client, mut frame: Value) -> Value {
    let reference = uuid::Uuid::new_v4().to_string();
    frame["ref"] = json!(reference);
    client.send(frame).await;
    loop {
        let event = client.next().await;
        if event["ref"] == reference.as_str() {
            return event;
        }
    }
}

async fn post(node: &Node, room: &str, token: &str, payload: usize) -> http::Answer {
    let bearer = format!("Bearer {token}");
    let path = format!("/api/chat-api/rooms/{room}/messages");
    node.post(&path, &json!({ "payload": payload }).to_string(), &[("authorization", &bearer)]).await
}

async fn history(node: &Node, room: &str, token: &str) -> http::Answer {
    let path = format!("/api/chat-api/rooms/{room}/messages");
    http::get(node.public, &path, &[("authorization", &format!("Bearer {token}"))]).await
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_everywhere() {
    let node = guarded(Node::builder()).start().await;
    let rooms = json!({ "team.*": "sp", "team.board": "s", "team.secret": "", "drop": "p", "u.{sub}": "sp" });
    let alice = token("alice", &rooms);
    for room in ["other", "team.secret", "drop", "u.bob", "lobby"] {
        for after in ["", "?after=0-0"] {
            let path = format!("/api/chat-api/ws/{room}{after}");
            let refused = Client::open(node.public, &path, offer(&alice, "chat.plain")).await.err().expect("refused");
            assert_eq!((refused.status, &refused.problem["code"]), (403, &json!("forbidden")), "{path}");
        }
        assert_eq!(history(&node, room, &alice).await.status, 403, "{room}");
    }
    let lobby =
        Client::open(node.public, "/api/chat-api/ws", offer(&alice, "chat.plain")).await.err().expect("refused");
    assert_eq!(lobby.status, 403, "a plain socket in no room hears nothing");
    assert!(node.metric(r#"chat_upgrade_failures_total{reason="forbidden"}"#).await > 10.0);
    assert!(node.metric("chat_connections_opened_total").await < 1.0);

    for (room, status) in [("team.a", 201), ("drop", 201), ("u.alice", 201), ("team.board", 403), ("other", 403)] {
        let answer = post(&node, room, &alice, 1).await;
        assert_eq!(answer.status, status, "{room}: {}", answer.body);
    }
    assert_eq!(history(&node, "team.a", &alice).await.status, 200);

    // A session needs no room of its path to subscribe to others.
    let (mut session, welcome) = session(&node, "/api/chat-api/ws", &alice).await;
    assert_eq!(welcome["rooms"], json!({}));
    for (frame, expected) in [
        (json!({ "type": "subscribe", "room": "team.a" }), "subscribed"),
        (json!({ "type": "subscribe", "room": "team.board", "after": "0-0" }), "subscribed"),
        (json!({ "type": "subscribe", "room": "team.secret" }), "forbidden"),
        (json!({ "type": "subscribe", "room": "drop", "after": "0-0" }), "forbidden"),
        (json!({ "type": "subscribe", "rooms": { "u.bob": "0-0" } }), "forbidden"),
        (json!({ "room": "team.a", "payload": 1 }), "ack"),
        (json!({ "room": "team.board", "payload": 1 }), "forbidden"),
        (json!({ "room": "team.board", "payload": 1, "sender": "s", "n": 1 }), "forbidden"),
        (json!({ "room": "u.bob", "payload": 1 }), "forbidden"),
        (json!({ "payload": 1 }), "forbidden"),
        (json!({ "room": "drop", "payload": 1 }), "not_subscribed"),
    ] {
        let answer = answer(&mut session, frame.clone()).await;
        let word = if answer["type"] == "error" { &answer["code"] } else { &answer["type"] };
        assert_eq!(word, expected, "{frame}: {answer}");
        assert_eq!(answer["n"], frame["n"], "{answer}");
    }
    let refusals = node.metric(r#"chat_refusals_total{code="forbidden"}"#).await;
    assert!((refusals - 7.0).abs() < f64::EPSILON, "{refusals}");
}

#[tokio::test]
async fn the_defaults_are_for_tokens_without_the_claim_and_for_everybody() {
    let rooms = ("CHAT_AUTH__DEFAULT_ROOMS", "*=sp, board.*=s, u.{sub}=sp, u.*=");
    let node = guarded(Node::builder()).env(rooms.0, rooms.1).start().await;
    let alice = Signer::secret(Algorithm::HS256).token(&claims("alice"));
    for (room, status) in [("r", 201), ("board.x", 403), ("u.alice", 201), ("u.bob", 403)] {
        assert_eq!(post(&node, room, &alice, 1).await.status, status, "{room}");
    }
    let node = Node::builder().env(rooms.0, rooms.1).start().await;
    for (room, status) in [("r", 201), ("board.x", 403), ("u.alice", 403)] {
        let answer = node.post(&format!("/api/chat-api/rooms/{room}/messages"), r#"{"payload":1}"#, &[]).await;
        assert_eq!(answer.status, status, "{room}");
    }
    let mut anyone = node.client("/api/chat-api/ws/board.x").await;
    assert_eq!(answer(&mut anyone, json!({ "payload": 1 })).await["code"], "forbidden");
    assert_eq!(answer(&mut anyone, json!({ "room": "lobby", "payload": 1 })).await["type"], "ack");
    let renewal = answer(&mut anyone, json!({ "type": "auth", "token": alice })).await;
    assert_eq!(renewal["code"], "invalid_message", "there is nothing to renew");
}

#[tokio::test]
async fn who_may_not_read_the_lobby_is_not_in_it() {
    let node = guarded(Node::builder()).start().await;
    let with = token("alice", &json!({ "r": "sp", "lobby": "sp" }));
    let without = token("bob", &json!({ "r": "sp", "lobby": "p" }));
    let mut alice = plain(&node, "/api/chat-api/ws/r", &with).await;
    let mut bob = plain(&node, "/api/chat-api/ws/r", &without).await;
    let (mut session, welcome) = session(&node, "/api/chat-api/ws/r", &without).await;
    assert_eq!(welcome["rooms"], json!({ "r": "0-0" }));
    answer(&mut alice, json!({ "room": "lobby", "payload": "to all" })).await;
    alice.publish(json!("to the room")).await;
    assert_eq!(bob.message().await["payload"], "to the room");
    assert_eq!(session.message().await["payload"], "to the room");
    assert_eq!(answer(&mut bob, json!({ "room": "lobby", "payload": 1 })).await["code"], "not_subscribed");

    // Once it may, it is; and the other way round.
    assert_eq!(
        answer(&mut bob, json!({ "type": "auth", "token": token("bob", &json!({ "r": "sp", "lobby": "s" })) })).await["type"],
        "ack"
    );
    let renewal = json!({ "type": "auth", "token": token("alice", &json!({ "r": "sp", "lobby": "p" })) });
    assert_eq!(answer(&mut alice, renewal).await["type"], "ack");
    assert_eq!(post(&node, "lobby", &with, 2).await.status, 201);
    assert_eq!(bob.message().await["payload"], 2);
    alice.quiet().await;
}

#[tokio::test]
async fn a_renewal_by_another_or_with_a_bad_token_closes() {
    let node = guarded(Node::builder()).start().await;
    let all = json!({ "*": "sp" });
    let expired = changed(&claims("alice"), &json!({ "exp": 1 }));
    for (renewal, reason) in [
        (token("bob", &all), "another_user"),
        ("nonsense".to_owned(), "malformed"),
        (String::new(), "malformed"),
        (token("alice", &json!({ "*": "x" })), "bad_permissions"),
        (Signer::secret(Algorithm::HS256).token(&expired), "expired"),
    ] {
        let mut client = plain(&node, "/api/chat-api/ws/r", &token("alice", &all)).await;
        client.send(json!({ "type": "auth", "token": renewal, "ref": "x" })).await;
        assert_eq!(client.closed().await, (4401, format!("get a new token: {reason}")));
        assert!(node.metric(&format!(r#"chat_auth_failures_total{{reason="{reason}"}}"#)).await > 0.0);
    }
    let mut client = plain(&node, "/api/chat-api/ws/r", &token("alice", &all)).await;
    assert_eq!(
        answer(&mut client, json!({ "type": "auth" })).await["code"],
        "invalid_message",
        "not understood: not refused"
    );
    let renewed = answer(&mut client, json!({ "type": "auth", "token": token("alice", &all) })).await;
    assert_eq!(renewed.as_object().expect("an object").len(), 2, "{renewed}");
}

#[tokio::test]
async fn a_plain_socket_that_loses_its_room_is_closed() {
    let node = guarded(Node::builder()).start().await;
    let all = token("alice", &json!({ "*": "sp" }));
    for (path, left) in [("/api/chat-api/ws/r", json!({ "lobby": "sp" })), ("/api/chat-api/ws", json!({ "r": "sp" }))] {
        let mut client = plain(&node, path, &all).await;
        client.send(json!({ "type": "auth", "token": token("alice", &left) })).await;
        assert_eq!(client.closed().await.0, 4403, "{path}");
    }
    // Less than before, but still its room.
    let mut client = plain(&node, "/api/chat-api/ws/r", &all).await;
    let renewal = json!({ "type": "auth", "token": token("alice", &json!({ "r": "s" })) });
    assert_eq!(answer(&mut client, renewal).await["type"], "ack");
    assert_eq!(answer(&mut client, json!({ "payload": 1 })).await["code"], "forbidden");
    assert_eq!(post(&node, "r", &all, 7).await.status, 201);
    assert_eq!(client.message().await["payload"], 7);
}

/// Messages flow into both rooms all the time; one is taken away.
async fn a_lost_room_leaks_nothing(over: Over) {
    let chat = Chat::start_with(over, guarded).await;
    let all = token("alice", &json!({ "*": "sp" }));
    let (mut session, _) = session(&chat.nodes[0], "/api/chat-api/ws/kept", &all).await;
    answer(&mut session, json!({ "type": "subscribe", "room": "lost" })).await;
    let publishers = ["kept", "lost"].map(|room| {
        let node = &chat.nodes[chat.nodes.len() - 1];
        let path = format!("/api/chat-api/ws/{room}");
        let all = &all;
        async move {
            let mut client = plain(node, &path, all).await;
            for n in 0..400 {
                client.publish(json!(n)).await;
            }
        }
    });
    let [kept, lost] = publishers;
    let less = token("alice", &json!({ "kept": "sp", "lobby": "s" }));
    let reading = async {
        let (mut from_kept, mut from_lost, mut gone) = (0, 0, false);
        while from_kept < 400 {
            let event = session.next().await;
            match (event["type"].as_str(), event["room"].as_str()) {
                (Some("chat"), Some("kept")) => {
                    assert_eq!(event["payload"], from_kept, "no hole in what is kept");
                    from_kept += 1;
                    if from_kept == 100 {
                        session.send(json!({ "type": "auth", "token": less, "ref": "less" })).await;
                    }
                }
                (Some("chat"), Some("lost")) => {
                    assert!(!gone, "{event}");
                    from_lost += 1;
                }
                (Some("unsubscribed"), room) => {
                    assert_eq!((room, &event["reason"]), (Some("lost"), &json!("forbidden")));
                    gone = true;
                }
                (Some("ack"), _) => assert!(gone && event["ref"] == "less", "{event}"),
                _ => panic!("{event}"),
            }
        }
        assert!(gone && from_lost > 0 && from_lost < 400, "{from_lost}");
    };
    tokio::join!(kept, lost, reading);
    for frame in [
        json!({ "type": "subscribe", "room": "lost", "after": "0-0" }),
        json!({ "type": "subscribe", "rooms": { "lost": "" } }),
        json!({ "room": "lost", "payload": 1 }),
    ] {
        assert_eq!(answer(&mut session, frame.clone()).await["code"], "forbidden", "{frame}");
    }
    session.quiet().await;
    for node in &chat.nodes {
        assert_eq!(history(node, "lost", &less).await.status, 403);
        let path = "/api/chat-api/ws/lost?after=0-0";
        assert_eq!(Client::open(node.public, path, offer(&less, "chat.v1")).await.err().expect("refused").status, 403);
    }
}

/// A room with more history than any buffer holds.
async fn long_room(over: Over) -> (Chat, String) {
    let chat = Chat::start_with(over, |node| {
        guarded(node).env("CHAT_LIMITS__OUTBOX_BYTES", "128KiB").env("CHAT_LIMITS__OUTBOX_AGE", "60s")
    })
    .await;
    let all = token("alice", &json!({ "*": "sp" }));
    let mut writer = plain(&chat.nodes[0], "/api/chat-api/ws/long", &all).await;
    let text = "x".repeat(30_000);
    for _ in 0..LONG {
        writer.send(json!({ "payload": text })).await;
        writer.message().await;
    }
    (chat, all)
}

const LONG: usize = 900;

/// A replay is under way when its room is taken away: the rest does not follow.
async fn a_replay_ends_with_its_permission(over: Over) {
    let (chat, all) = long_room(over).await;
    for protocol in ["chat.v1", "chat.plain"] {
        let path = "/api/chat-api/ws/long?after=0-0";
        let mut client = Client::open(chat.nodes[0].public, path, offer(&all, protocol)).await.expect("in");
        while client.next().await["type"] != "chat" {}
        let less = token("alice", &json!({ "lobby": "s" }));
        client.send(json!({ "type": "auth", "token": less, "ref": "less" })).await;
        let (mut messages, mut gone) = (1, false);
        let close = loop {
            match client.next_or_close().await {
                Ok(event) if event["type"] == "chat" => {
                    assert!(!gone, "after it was told that the room is gone");
                    messages += 1;
                }
                Ok(event) if event["type"] == "unsubscribed" => gone = true,
                Ok(event) if event["ref"] == "less" => break None,
                Ok(event) => panic!("{event}"),
                Err(close) => break close.map(|(code, _)| code),
            }
        };
        assert_eq!((gone, close), (protocol == "chat.v1", (protocol == "chat.plain").then_some(4403)));
        assert!(messages < LONG, "nothing was left to take away");
        if close.is_none() {
            client.quiet().await;
        }
    }
}

/// One room is being replayed and another waits its turn when both are taken away.
async fn a_lost_room_in_line_is_never_joined(over: Over) {
    let (chat, all) = long_room(over).await;
    let node = &chat.nodes[chat.nodes.len() - 1];
    let (mut session, _) = session(node, "/api/chat-api/ws", &all).await;
    session.send(json!({ "type": "subscribe", "rooms": { "kept": "", "long": "0-0", "next": "0-0" } })).await;
    while session.next().await["type"] != "chat" {}
    let less = token("alice", &json!({ "lobby": "s", "kept": "s" }));
    session.send(json!({ "type": "auth", "token": less, "ref": "less" })).await;
    let mut gone = Vec::new();
    loop {
        let event = session.next().await;
        match event["type"].as_str() {
            Some("chat") => assert!(gone.is_empty(), "{}", event["id"]),
            Some("unsubscribed") => gone.push(event["room"].as_str().expect("a room").to_owned()),
            _ => break assert_eq!(event, json!({ "type": "ack", "ref": "less" })),
        }
    }
    gone.sort();
    assert_eq!(gone, ["long", "next"]);
    for room in ["next", "kept"] {
        assert_eq!(post(node, room, &all, 1).await.status, 201);
    }
    assert_eq!(session.next().await["room"], "kept");
    session.quiet().await;
}

/// Who is in a room is for those who may see it.
async fn who_may_not_see_is_not_told(over: Over) {
    let chat = Chat::start_with(over, guarded).await;
    let node = &chat.nodes[0];
    let (sees, sees_not) = (token("alice", &json!({ "*": "spw" })), token("bob", &json!({ "*": "sp" })));
    let (mut bob, welcome) = session(node, "/api/chat-api/ws/r", &sees_not).await;
    assert!(welcome["presence"].is_null(), "{welcome}");
    let (mut alice, welcome) = session(node, "/api/chat-api/ws/r", &sees).await;
    assert!(welcome["presence"]["r"]["count"].is_u64(), "{welcome}");
    let subscribed = answer(&mut bob, json!({ "type": "subscribe", "room": "x" })).await;
    assert!(subscribed["presence"].is_null(), "{subscribed}");
    let _carol = session(node, "/api/chat-api/ws/r", &token("carol", &json!({ "*": "s" }))).await;
    loop {
        let event = alice.next().await;
        if event["joined"].as_array().is_some_and(|joined| joined.contains(&json!({ "from": "carol" }))) {
            break assert!(event["count"].is_u64(), "{event}");
        }
    }
    bob.quiet().await;
    for (token, status) in [(&sees, 200), (&sees_not, 403)] {
        let path = "/api/chat-api/rooms/r/presence";
        let answer = http::get(node.public, path, &[("authorization", &format!("Bearer {token}"))]).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
}

both!(
    a_lost_room_leaks_nothing,
    a_replay_ends_with_its_permission,
    a_lost_room_in_line_is_never_joined,
    who_may_not_see_is_not_told
);

/// The new expiry counts, also where it is the earlier one.
#[tokio::test]
async fn a_renewed_token_counts_from_then_on() {
    let node = guarded(Node::builder()).start().await;
    let until = |seconds: u64| {
        let exp = jsonwebtoken::get_current_timestamp() + seconds;
        Signer::secret(Algorithm::HS256).token(&changed(&claims("alice"), &json!({ "exp": exp })))
    };
    let mut longer = plain(&node, "/api/chat-api/ws/r", &until(1)).await;
    let mut shorter = plain(&node, "/api/chat-api/ws/r", &until(600)).await;
    let mut neither = plain(&node, "/api/chat-api/ws/r", &until(1)).await;
    for (client, seconds) in [(&mut longer, 600), (&mut shorter, 1)] {
        assert_eq!(answer(client, json!({ "type": "auth", "token": until(seconds) })).await["type"], "ack");
    }
    for client in [&mut neither, &mut shorter] {
        assert_eq!(client.closed().await, (4401, "get a new token: expired".to_owned()));
    }
    longer.ping().await;
    eventually("they are gone", || async { node.metric("chat_connections").await < 2.0 }).await;
}
