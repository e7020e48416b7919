//! The frames: what a talker sends, and what of a server's frames a member looks at.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{outbox::Due, plan::Plan};

/// What a message of this program begins with.
const MARK: &str = "chat-load/";

/// What the server says to a session; what it does not have is ignored.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    pub(super) id: Option<&'a str>,
    pub(super) room: Option<&'a str>,
    pub(super) code: Option<&'a str>,
    pub(super) n: Option<u64>,
    pub(super) last_n: Option<u64>,
    pub(super) after_ms: Option<u64>,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) heartbeat_ms: Option<u64>,
    #[serde(default)]
    pub(super) retryable: bool,
    #[serde(default)]
    pub(super) recovered: bool,
    pub(super) rollback: Option<&'a str>,
    #[serde(borrow, default)]
    pub(super) rooms: HashMap<&'a str, &'a str>,
    #[serde(borrow)]
    pub(super) payload: Option<&'a RawValue>,
}

/// A message of this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// Among the talkers of its room.
    pub(super) talker: usize,
    pub(super) n: u64,
    /// When it was due, in nanoseconds.
    pub(super) at: u64,
}

impl Said {
    /// As a JSON string of about so many bytes.
    fn text(self, plan: &Plan) -> String {
        let Self { talker, n, at } = self;
        let mut text = format!("\"{MARK}{}/{talker}/{n}/{at}/", plan.mark());
        while text.len() + 1 < plan.payload_bytes {
            text.push('x');
        }
        text.push('"');
        text
    }

    /// Found anywhere in a frame or a payload; none if it is somebody else's.
    pub(super) fn find(frame: &str, plan: &Plan) -> Option<Self> {
        let (_, rest) = frame.split_once(MARK)?;
        let mut parts = rest.split('/');
        if parts.next()? != plan.mark() {
            return None;
        }
        Some(Self {
            talker: parts.next()?.parse().ok()?,
            n: parts.next()?.parse().ok()?,
            at: parts.next()?.parse().ok()?,
        })
    }
}

/// A message as a frame. A sender is known by the run, its room and its number in it: nobody else can guess that.
pub(super) fn frame(plan: &Plan, room: usize, talker: usize, due: Due) -> String {
    let Due { n, base, at } = due;
    let message = Said { talker, n, at }.text(plan);
    match &plan.frame {
        Some(frame) => frame.replace("{room}", &plan.room_name(room)).replace("{message}", &message),
        None => {
            let run = &plan.run;
            format!(r#"{{"sender":"{run}.{room}.{talker}","n":{n},"base":{base},"payload":{message}}}"#)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::plan::tests::plan, *};

    #[test]
    fn a_message_is_found_in_whatever_envelope() {
        let plan = plan();
        let due = Due { n: 7, base: 5, at: 123_456_789_000 };
        let sent = frame(&plan, 3, 1, due);
        let said = Said { talker: 1, n: 7, at: 123_456_789_000 };
        assert_eq!(Said::find(&sent, &plan), Some(said));
        let message = said.text(&plan);
        assert_eq!(message.len(), plan.payload_bytes);
        serde_json::from_str::<String>(&message).expect("a JSON string");
        let envelope = format!(r#"{{"type":"chat","id":"1-1","room":"r","n":7,"payload":{message}}}"#);
        let event: Event<'_> = serde_json::from_str(&envelope).expect("an event");
        assert_eq!((event.kind, event.id, event.n), ("chat", Some("1-1"), Some(7)));
        assert_eq!(event.payload.and_then(|payload| Said::find(payload.get(), &plan)), Some(said));
        let foreign = Plan { run: "ffffffffffffffffffffffffffffffff".into(), ..plan.clone() };
        assert_eq!(Said::find(&sent, &foreign), None);
        let plain = Plan { frame: Some(r#"["join",{message}]"#.into()), ..plan };
        assert_eq!(Said::find(&frame(&plain, 3, 1, due), &plain), Some(said));
    }
}
