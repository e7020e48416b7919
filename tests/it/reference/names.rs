//! What the document's examples are called in reality, and whether the rest is as documented.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::transcript::ELISION;

/// What `…` stands for at the end of a message, and of a `welcome`.
const OF_MESSAGES: &[&str] = &["client_id", "from", "room", "timestamp"];
const OF_WELCOMES: &[&str] = &["client_id", "from", "heartbeat_ms", "limits", "node"];

/// One for one.
#[derive(Default, Clone)]
pub struct Names {
    real: BTreeMap<String, String>,
}

impl Names {
    /// A text of the document with the real ids in it.
    pub fn real(&self, text: &str) -> String {
        // The longest first: one may begin with another.
        let mut names: Vec<_> = self.real.iter().collect();
        names.sort_by_key(|(documented, _)| std::cmp::Reverse(documented.len()));
        names.into_iter().fold(text.to_owned(), |text, (documented, real)| text.replace(documented, real))
    }

    /// Compares, and learns the real names of examples. `key`: under which the values stand.
    pub fn learn(&mut self, key: &str, documented: &Value, real: &Value) -> Result<(), String> {
        match (documented, real) {
            (Value::Object(documented), Value::Object(real)) => {
                let all: BTreeSet<_> = real.keys().cloned().collect();
                if fields(documented) != all {
                    return Err(format!("the fields are {all:?}"));
                }
                let mut shown = documented.iter().filter(|(key, _)| *key != ELISION);
                shown.try_for_each(|(key, documented)| self.learn(key, documented, &real[key]))
            }
            (Value::Array(documented), Value::Array(real)) if documented.len() == real.len() => {
                documented.iter().zip(real).try_for_each(|(documented, real)| self.learn(key, documented, real))
            }
            (Value::String(documented), Value::String(real)) => match key {
                "node" if !real.is_empty() => Ok(()),
                "message" | "detail" if is_like(documented, real) => Ok(()),
                "timestamp" if is_time(documented) && is_time(real) => Ok(()),
                "client_id" if is_client(documented) && is_client(real) => self.name(documented, real),
                _ if documented == real => Ok(()),
                _ if is_id(documented) && is_id(real) => self.name(documented, real),
                _ => Err(format!("`{key}` is {real:?}")),
            },
            (Value::Number(_), Value::Number(_)) if key == "retry_after_ms" => Ok(()),
            (Value::Number(documented), Value::Number(real)) if key == "after_ms" => {
                self.name(&documented.to_string(), &real.to_string())
            }
            _ if documented == real => Ok(()),
            _ => Err(format!("`{key}` is {real}")),
        }
    }

    fn name(&mut self, documented: &str, real: &str) -> Result<(), String> {
        let epoch = |id: &str| id.split_once('-').map(|(epoch, _)| epoch.to_owned());
        let conflict = self.real.iter().find(|(name, known)| {
            // Two rooms may both have an id: then the document gives them two epochs.
            let taken = *known == real && (epoch(name).is_none() || epoch(name) == epoch(documented));
            (*name == documented) != (*known == real) && (*name == documented || taken)
        });
        if let Some((name, known)) = conflict {
            return Err(format!("{real:?} for {documented:?}, but it was {known:?} for {name:?}"));
        }
        self.real.insert(documented.to_owned(), real.to_owned());
        Ok(())
    }
}

/// The fields of a frame, those that it leaves out among them.
pub fn fields(frame: &Map<String, Value>) -> BTreeSet<String> {
    let mut fields: BTreeSet<String> = frame.keys().cloned().collect();
    let elided = match frame.get("type").and_then(Value::as_str) {
        Some("welcome") => OF_WELCOMES,
        _ if frame.contains_key("payload") => OF_MESSAGES,
        _ => return fields, // nothing else can be left out: an elision will be one field too many
    };
    if fields.remove(ELISION) {
        fields.extend(elided.iter().map(|field| (*field).to_owned()));
    }
    fields
}

/// A text in which `…` stands for any other.
fn is_like(documented: &str, real: &str) -> bool {
    match documented.split_once(ELISION) {
        None => documented == real,
        Some((start, rest)) => real.strip_prefix(start).is_some_and(|real| {
            real.char_indices().map(|(at, _)| &real[at..]).chain([""]).any(|real| is_like(rest, real))
        }),
    }
}

/// `<epoch>-<seq>`; `0-0` is one by name.
fn is_id(text: &str) -> bool {
    let number = |part: &str| (1..=16).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    text != "0-0" && text.split_once('-').is_some_and(|(epoch, seq)| number(epoch) && number(seq))
}

fn is_client(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// RFC 3339, UTC, three decimals.
fn is_time(text: &str) -> bool {
    text.len() == "2026-11-23T07:40:01.123Z".len() && text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()
}
