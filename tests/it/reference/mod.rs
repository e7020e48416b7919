//! docs/protocol.md plays: its conversations against real nodes, its lists of fields against what was said in them.

mod fields;
mod names;
mod player;
mod transcript;

use std::collections::{BTreeSet, HashMap};

use futures_util::{StreamExt as _, stream};

use self::{
    fields::Frames,
    player::Player,
    transcript::{Conversation, Get, Step, conversations},
};
use crate::{
    asyncapi,
    support::{Over, both, mint, repository, token::SECRET},
};

const DOCUMENT: &str = "docs/protocol.md";
/// Conversations at one time.
const AT_ONCE: usize = 4;

fn read() -> (String, Vec<Conversation>) {
    let document = std::fs::read_to_string(repository(DOCUMENT)).expect("the reference");
    let conversations = conversations(&document).unwrap_or_else(|error| panic!("{DOCUMENT}: {error}"));
    assert!(!conversations.is_empty(), "{DOCUMENT} has no conversations");
    (document, conversations)
}

/// All of them over Redis; without it those in which nothing happens to Redis.
async fn the_conversations_play(over: Over) {
    let (_, conversations) = read();
    let tokens = tokens(&conversations);
    let played = conversations.iter().filter(|conversation| over == Over::Redis || !conversation.needs_redis());
    let played = played.map(|conversation| Player::play(conversation, over, tokens.clone()));
    let (mut heard, mut failures) = (Vec::new(), Vec::new());
    let results: Vec<_> = stream::iter(played).buffer_unordered(AT_ONCE).collect().await;
    for result in results {
        match result {
            Ok(frames) => heard.extend(frames),
            Err(failure) => failures.push(failure),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let seen = asyncapi::validate_heard(&heard);
    for kind in ["ack", "error", "message", "pong", "presence", "reconnect", "subscribed", "unsubscribed", "welcome"] {
        assert!(seen.contains(kind), "no {kind} was heard, only {seen:?}");
    }
}

both!(the_conversations_play);

/// One for each user, as a developer gets them.
fn tokens(conversations: &[Conversation]) -> HashMap<String, String> {
    let steps = conversations.iter().flat_map(|conversation| &conversation.steps);
    let names = steps.filter_map(|(_, step)| match step {
        Step::Open { client, .. } | Step::Ask { client, .. } if client != "nobody" => Some(client.clone()),
        _ => None,
    });
    let names: BTreeSet<_> = names.collect();
    let token = |name: String| {
        let token = mint(SECRET, &name);
        (name, token)
    };
    names.into_iter().map(token).collect()
}

#[test]
fn the_lists_of_fields_are_those_of_the_conversations() {
    let (document, conversations) = read();
    let (mut sent, mut got) = (Frames::default(), Frames::default());
    for (line, step) in conversations.iter().flat_map(|conversation| &conversation.steps) {
        match step {
            // What is no JSON is an example of that.
            Step::Send { text, .. } => sent.see(*line, &serde_json::from_str(text).unwrap_or_default()),
            Step::Get(receipts) => {
                for receipt in receipts {
                    if let Get::Frame(frame) = &receipt.what {
                        got.see(receipt.line, frame);
                    }
                }
            }
            _ => {}
        }
    }
    sent.are_listed(&document, "| you send |");
    got.are_listed(&document, "| you get |");
}

/// What is wrong in a document is found, by line.
#[test]
fn mistakes_in_the_document_are_named_by_line() {
    for (text, mistake) in [
        ("x\n\n```json\n{}\n```\n", "line 3: a block of \"json\""),
        ("x\n`{\"payload\":1}`\n", "line 2: a frame outside"),
        ("```chat\nalice opens /\nalice writes\n```\n", "line 3: a line that is no step"),
        ("```chat\nalice ← {\"type\"\n```\n", "line 2: not JSON"),
        ("```chat\nalice ← nothing\n```\n", "line 2: neither"),
        ("```chat\n", "does not end"),
    ] {
        let error = conversations(text).expect_err(text);
        assert!(error.contains(mistake), "{error}");
    }
}
