//! The document's lists of frames: every field of every frame that its conversations show, and no other.

use std::collections::{BTreeMap, BTreeSet};

use chat_api::protocol::RESERVED_TYPES;
use serde_json::Value;

use super::{DOCUMENT, names};

/// How messages are listed, which have no type of their own.
const MESSAGE: &str = "a message";

/// A frame of a conversation: its line and its fields.
type Seen = (usize, BTreeSet<String>);

/// Frames that were seen, by type.
#[derive(Default)]
pub struct Frames(BTreeMap<String, Vec<Seen>>);

impl Frames {
    pub fn see(&mut self, line: usize, frame: &Value) {
        let Some(object) = frame.as_object() else { return };
        let mut fields = names::fields(object);
        let own = frame["type"].as_str().filter(|kind| RESERVED_TYPES.contains(kind));
        if own.is_some() {
            fields.remove("type");
        }
        self.0.entry(own.unwrap_or(MESSAGE).to_owned()).or_default().push((line, fields));
    }

    /// Holds them against the table that begins with `head`: type, fields (`?`: may be absent), anything.
    pub fn are_listed(mut self, document: &str, head: &str) {
        let rows = document.lines().skip_while(|line| !line.starts_with(head)).skip(2);
        for row in rows.take_while(|line| line.starts_with('|')) {
            let mut cells = row.split('|').skip(1).map(str::trim);
            let (kind, list) = (cells.next().expect("a type").trim_matches('`'), cells.next().expect("fields"));
            let seen = self.0.remove(kind).unwrap_or_else(|| panic!("{DOCUMENT}: no example of {kind}"));
            let fields = |optional: bool| {
                let some = list.split_whitespace().filter(|field| field.ends_with('?') == optional);
                some.map(|field| field.trim_end_matches('?').trim_matches('`').to_owned()).collect::<BTreeSet<_>>()
            };
            is_list(kind, &fields(false), &fields(true), &seen);
        }
        assert!(self.0.is_empty(), "{DOCUMENT}: not listed below `{head}`: {:?}", self.0);
    }
}

fn is_list(kind: &str, required: &BTreeSet<String>, optional: &BTreeSet<String>, seen: &[Seen]) {
    for (line, fields) in seen {
        let less: Vec<_> = required.difference(fields).collect();
        let more: Vec<_> =
            fields.iter().filter(|field| !required.contains(*field) && !optional.contains(*field)).collect();
        assert!(less.is_empty() && more.is_empty(), "{DOCUMENT}:{line}: {kind}: missing {less:?}, not listed {more:?}");
    }
    let unseen: Vec<_> =
        optional.iter().filter(|field| seen.iter().all(|(_, fields)| !fields.contains(*field))).collect();
    assert!(unseen.is_empty(), "{DOCUMENT}: no example of {kind} has {unseen:?}");
}
