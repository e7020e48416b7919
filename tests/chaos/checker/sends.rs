//! What was sent, and what became of it.

use std::collections::HashMap;

use super::{Kind, Promise, Verdict, log::Log};
use crate::history::{Event, Outcome, What};

/// One message.
#[derive(Debug)]
pub(super) struct Sent<'a> {
    pub(super) client: usize,
    pub(super) room: &'a str,
    pub(super) n: Option<u64>,
    pub(super) ephemeral: bool,
    /// Among those of its client to its room.
    order: usize,
    /// Which of its client's sockets it first went over.
    socket: usize,
    attempts: usize,
    refused: usize,
    /// As the acknowledgements said; the last counts.
    acked: Option<Option<&'a str>>,
}

/// By key.
#[derive(Debug, Default)]
pub(super) struct Sends<'a>(HashMap<&'a str, Sent<'a>>);

impl<'a> Sends<'a> {
    pub(super) fn collect(events: &'a [Event], verdict: &mut Verdict) -> Self {
        let mut sends = Self::default();
        let mut orders: HashMap<(usize, &str), usize> = HashMap::new();
        let mut sockets: HashMap<usize, usize> = HashMap::new();
        for event in events {
            match &event.what {
                What::Open => *sockets.entry(event.client).or_default() += 1,
                What::Send { room, key, n, ephemeral } => {
                    let sent = sends.0.entry(key).or_insert_with(|| {
                        let order = orders.entry((event.client, room)).or_default();
                        *order += 1;
                        let (client, n, ephemeral, order) = (event.client, *n, *ephemeral, *order);
                        let socket = sockets.get(&client).copied().unwrap_or_default();
                        Sent { client, room, n, ephemeral, order, socket, attempts: 0, refused: 0, acked: None }
                    });
                    sent.attempts += 1;
                    verdict.counts.resent += usize::from(sent.attempts > 1);
                }
                What::Answer { key, outcome } => {
                    let Some(sent) = sends.0.get_mut(key.as_str()) else { continue };
                    match outcome {
                        Outcome::Stored(id) => sent.acked = Some(id.as_deref().or(sent.acked.flatten())),
                        Outcome::Refused => sent.refused += 1,
                        Outcome::Unknown => {}
                    }
                }
                _ => {}
            }
        }
        verdict.counts.sent = sends.0.values().filter(|sent| !sent.ephemeral).count();
        verdict.counts.acked = sends.0.values().filter(|sent| sent.acked.is_some()).count();
        sends
    }

    pub(super) fn get(&self, key: &str) -> Option<&Sent<'a>> {
        self.0.get(key)
    }

    pub(super) fn check(&self, logs: &HashMap<&str, Log>, promise: Promise, verdict: &mut Verdict) {
        let mut keys: Vec<_> = self.0.iter().collect();
        keys.sort_by_key(|(_, sent)| (sent.client, sent.room, sent.order));
        for (key, sent) in keys {
            self.check_one(key, sent, logs, promise, verdict);
        }
        let mut rooms: Vec<_> = logs.iter().collect();
        rooms.sort_by_key(|(room, _)| **room);
        for (room, log) in rooms {
            self.check_log(room, log, verdict);
        }
    }

    fn check_one(
        &self,
        key: &str,
        sent: &Sent<'_>,
        logs: &HashMap<&str, Log>,
        promise: Promise,
        verdict: &mut Verdict,
    ) {
        let Sent { client, room, n, .. } = sent;
        let stored = logs.get(room).and_then(|log| log.entry_of(key));
        match (&sent.acked, stored) {
            (_, Some(entry)) if sent.ephemeral => {
                verdict.add(Kind::Phantom, format!("`{room}`: {key} is ephemeral, and in the log at {}", entry.id));
            }
            (Some(_), None) if promise.log_lost && n.is_none() => verdict.counts.forfeited += 1,
            (Some(id), None) => {
                verdict.counts.lost += 1;
                let id = id.unwrap_or("?");
                verdict.add(
                    Kind::Lost,
                    format!(
                        "`{room}`: client {client} had {key} (n {n:?}) acknowledged at {id}; the log does not have it"
                    ),
                );
            }
            (None, Some(entry)) if sent.refused == sent.attempts => {
                let id = &entry.id;
                verdict.add(
                    Kind::Phantom,
                    format!("`{room}`: {key} of client {client} was refused, and is in the log at {id}"),
                );
            }
            (Some(Some(id)), Some(entry)) if *id != entry.id && !promise.log_lost => {
                verdict.add(
                    Kind::Untrue,
                    format!("`{room}`: {key} was acknowledged at {id}, and is in the log at {}", entry.id),
                );
            }
            _ => {}
        }
    }

    /// Each entry was sent there; each client's messages stand as it sent them, the counted ones without a gap. Of one that is not counted, and
    /// that a lost socket left behind, nobody says when it arrives.
    fn check_log(&self, room: &str, log: &Log, verdict: &mut Verdict) {
        let mut last: HashMap<usize, (&Sent<'_>, &str)> = HashMap::new();
        for entry in log.entries() {
            let (id, key) = (&entry.id, &entry.key);
            let Some(sent) = self.0.get(key.as_str()) else {
                verdict.add(Kind::Phantom, format!("the log of `{room}` has {key} at {id}, which nobody sent"));
                continue;
            };
            if sent.room != room {
                verdict.add(
                    Kind::Leak,
                    format!("{key} was sent to `{}`, and is in the log of `{room}` at {id}", sent.room),
                );
                continue;
            }
            let before = last.insert(sent.client, (sent, key));
            match (sent.n, before) {
                (_, Some((before, other)))
                    if before.order > sent.order && (sent.n.is_some() || before.socket == sent.socket) =>
                {
                    verdict.add(
                        Kind::Order,
                        format!("`{room}`: {key} at {id} stands behind {other}, which was sent after it"),
                    );
                }
                (Some(n), Some((Sent { n: Some(before), .. }, other))) if n > before + 1 => {
                    verdict.add(Kind::Order, format!("`{room}`: n {n} ({key} at {id}) follows n {before} ({other})"));
                }
                (Some(n), None) if n > 1 && log.is_whole() => {
                    verdict.add(
                        Kind::Order,
                        format!("`{room}`: n {n} ({key} at {id}) is the first of client {}", sent.client),
                    );
                }
                _ => {}
            }
        }
    }
}
