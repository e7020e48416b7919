//! Two releases share one Redis, as they do during a rollout: what one does not understand of the other's is passed over, and the chat goes on.

use serde_json::json;

use crate::support::{Chat, Over, chat_api, eventually, run};

const PATH: &str = "/api/chat-api/ws/r";

/// The function library as a later release has it: under another name, with entries of another version.
fn later_library() -> (String, String) {
    let library = run(chat_api().arg("redis-functions"));
    let name =
        library.split("name=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a name").to_owned();
    let later = library.replace(&name, "chat_later").replace(r#"{"v":1,"id":"#, r#"{"v":2,"id":"#);
    assert_ne!(library.replace(&name, "chat_later"), later, "its entries are of another version");
    (later, "chat_later_publish".to_owned())
}

#[tokio::test]
async fn a_later_release_is_passed_over_and_nothing_of_ours_is_lost() {
    let chat = Chat::start_with(Over::Redis, |node| node.env("CHAT_PRESENCE__ENABLED", "false")).await;
    let redis = chat.redis.as_ref().expect("over Redis");
    let (library, publish) = later_library();
    let loaded = redis.command(&["FUNCTION", "LOAD", &library]).await;
    assert!(loaded.contains("chat_later"), "{loaded}");
    let mut sender = chat.client(0, PATH).await;
    let mut reader = chat.client(1, PATH).await;
    let first = sender.publish(json!("ours")).await;
    assert_eq!(reader.message().await["payload"], "ours");

    for n in ["1", "2", "3"] {
        let answer = redis
            .command(&[
                "FCALL",
                &publish,
                "4",
                "{chat:r}:log",
                "{chat:r}:meta",
                "{chat:r}",
                "{chat:r}:m:later",
                r#""kind":"what ours does not know"}"#,
                "1000",
                "3600000",
                "3600000",
                n,
                n,
                "60000",
            ])
            .await;
        assert!(answer.contains("ok"), "{answer}");
    }
    eventually("they are counted", || async { chat.nodes[1].metric("chat_invalid_entries_total").await >= 3.0 }).await;
    sender.publish(json!("ours again")).await;
    assert_eq!(reader.message().await["payload"], "ours again", "the hole was read and passed over");

    // Who resumes from before them, and who asks for history, gets what there is of ours.
    let mut back = chat.nodes[1].connect(&format!("{PATH}?after={first}")).await;
    assert_eq!(back.message().await["payload"], "ours again");
    let history = chat.nodes[0].get("/api/chat-api/rooms/r/messages").await.json();
    let payloads: Vec<_> = history["messages"].as_array().expect("a list").iter().map(|one| &one["payload"]).collect();
    assert_eq!(payloads, [&json!("ours"), &json!("ours again")]);
}
