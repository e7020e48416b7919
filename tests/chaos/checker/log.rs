//! A room's log as the end of the run shows it.

use std::collections::{HashMap, HashSet};

use super::{Kind, Promise, Verdict, views::Successions};
use crate::history::{Entry, Event, Outcome, START, What};

/// One room's log, oldest first.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Vec<Entry>,
    by_id: HashMap<String, usize>,
    by_key: HashMap<String, usize>,
    /// Positions that are no message's: a log that begins a new epoch names the place behind its last message anew. By what came behind them.
    places: HashMap<String, usize>,
    /// It begins with the first message that the room ever had.
    whole: bool,
}

impl Log {
    /// From the copies that the nodes gave, which have to be the same. What was trimmed away is put in front of them again, as far as clients saw
    /// it.
    pub(super) fn assemble(
        room: &str,
        copies: &[Vec<Entry>],
        observed: &Successions<'_>,
        promise: Promise,
        verdict: &mut Verdict,
    ) -> Self {
        let mut entries = copies.first().cloned().unwrap_or_default();
        for copy in copies.iter().skip(1).filter(|copy| **copy != entries) {
            let at = entries.iter().zip(copy).take_while(|(one, other)| one == other).count();
            let (one, other) = (entries.get(at), copy.get(at));
            verdict.add(Kind::Fork, format!("`{room}`: two nodes give {one:?} and {other:?} at the same place"));
        }
        let mut whole = !promise.log_trimmed;
        if promise.log_trimmed {
            whole = extend(room, &mut entries, observed);
        }
        let (mut by_id, mut by_key) = (HashMap::new(), HashMap::new());
        for (at, entry) in entries.iter().enumerate() {
            for (before, what) in
                [(by_id.insert(entry.id.clone(), at), &entry.id), (by_key.insert(entry.key.clone(), at), &entry.key)]
            {
                if let Some(before) = before {
                    verdict.counts.duplicated += 1;
                    verdict.add(
                        Kind::Duplicate,
                        format!("the log of `{room}` has {what} twice, at {before} and {at} of {}", entries.len()),
                    );
                }
            }
        }
        Self { entries, by_id, by_key, places: HashMap::new(), whole }
    }

    /// Finds where positions are that no message ever had: right before the first of what came behind them anywhere.
    pub(super) fn locate(&mut self, followers: &HashMap<&str, Vec<&str>>, messages: &HashSet<&str>) {
        for (position, next) in followers {
            let foreign = *position != START && !messages.contains(position) && !self.by_id.contains_key(*position);
            let first = next.iter().filter_map(|id| self.by_id.get(*id)).min();
            if let Some(first) = first.filter(|_| foreign) {
                self.places.insert((*position).to_owned(), *first);
            }
        }
    }

    /// How many entries stand before and at a position; `None`: the log does not have it.
    pub(super) fn reach(&self, id: &str) -> Option<usize> {
        if id == START {
            return self.whole.then_some(0);
        }
        self.by_id.get(id).map(|at| at + 1).or_else(|| self.places.get(id).copied())
    }

    pub(super) fn entry_of(&self, key: &str) -> Option<&Entry> {
        self.by_key.get(key).and_then(|at| self.entries.get(*at))
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// A few entries from a place on, as text.
    pub(super) fn excerpt(&self, from: usize, to: usize) -> String {
        let some: Vec<_> = self
            .entries
            .iter()
            .take(to)
            .skip(from)
            .take(5)
            .map(|entry| format!("{} at {}", entry.key, entry.id))
            .collect();
        let more = if to > from + 5 { format!(" and {} more", to - from - 5) } else { String::new() };
        some.join(", ") + &more
    }
}

/// True: it reaches back to the first message.
fn extend(room: &str, entries: &mut Vec<Entry>, observed: &Successions<'_>) -> bool {
    let Some(observed) = observed.get(room) else { return false };
    let mut front = Vec::new();
    let mut seen = HashSet::new();
    let mut id = match entries.first() {
        Some(first) => first.id.clone(),
        None => return false,
    };
    let whole = loop {
        let Some(step) = observed.get(id.as_str()) else { break false };
        if step.prev == START {
            break true;
        }
        let Some(before) = observed.get(step.prev).filter(|_| seen.insert(step.prev)) else { break false };
        front.push(Entry { id: step.prev.to_owned(), key: before.key.to_owned() });
        step.prev.clone_into(&mut id);
    };
    front.reverse();
    front.append(entries);
    *entries = front;
    whole
}

/// The ids of all messages that anybody ever got, by room.
pub(super) fn messages(events: &[Event]) -> HashMap<&str, HashSet<&str>> {
    let mut messages: HashMap<&str, HashSet<&str>> = HashMap::new();
    for event in events {
        if let What::Receive { room, id: Some(id), .. } = &event.what {
            messages.entry(room).or_default().insert(id);
        }
    }
    messages
}

/// An id names one message, whoever says so.
pub(super) fn one_message_per_position(events: &[Event], logs: &HashMap<&str, Log>, verdict: &mut Verdict) {
    let mut rooms = HashMap::new();
    let mut keys: HashMap<(&str, &str), &str> = HashMap::new();
    for (room, log) in logs {
        keys.extend(log.entries.iter().map(|entry| ((*room, entry.id.as_str()), entry.key.as_str())));
    }
    let mut reported = HashSet::new();
    for event in events {
        let (room, id, key) = match &event.what {
            What::Send { room, key, .. } => {
                rooms.insert(key.as_str(), room.as_str());
                continue;
            }
            What::Receive { room, id: Some(id), key, .. } => (room.as_str(), id, key),
            What::Answer { key, outcome: Outcome::Stored(Some(id)) } => match rooms.get(key.as_str()) {
                Some(room) => (*room, id, key),
                None => continue,
            },
            _ => continue,
        };
        let known = *keys.entry((room, id)).or_insert(key);
        if known != key && reported.insert((room, id)) {
            let client = event.client;
            verdict.add(Kind::Fork, format!("`{room}`: client {client} has {key} at {id}, where others have {known}"));
        }
    }
}
