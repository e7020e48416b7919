//! Proves from what clients wrote down, and from the logs at the end, that nothing was lost, doubled, reordered or leaked, and that whoever was
//! told something was told the truth.
//!
//! Pure: events in, verdict out. Knows the wire's promises (docs/protocol.md) and nothing of the server. Ids are opaque here too.

mod log;
mod sends;
#[cfg(test)]
mod tests;
mod views;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use self::{log::Log, sends::Sends};
use crate::history::{Event, Logs, Told, What};

/// What the log went through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Promise {
    /// It lost some of what it had acknowledged: those who are concerned have to be told, and counted messages to come again.
    pub log_lost: bool,
    /// It was cut to its newest entries meanwhile: a position may be too old.
    pub log_trimmed: bool,
}

/// What is wrong, as few words as possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Acknowledged, and not in the log.
    Lost,
    /// In the log, or at a client, more than once.
    Duplicate,
    /// A client went past a message without getting it.
    Missed,
    /// A client got messages in another order than the log has.
    Order,
    /// A message of a room came to somebody else, or under another room's name.
    Leak,
    /// Something that nobody sent, or that was refused.
    Phantom,
    /// What a client was told about its place is not so.
    Untrue,
    /// A client has messages that the log lost, and was not told.
    Untold,
    /// A client did not get to the end of a room.
    Behind,
    /// Nodes, or clients, have different messages at one position.
    Fork,
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Violation {
    pub kind: Kind,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.kind, self.text)
    }
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Different messages.
    pub sent: usize,
    /// Of them acknowledged.
    pub acked: usize,
    /// Acknowledged and in no log at the end, though it should be.
    pub lost: usize,
    /// Acknowledged, not counted by its sender, and gone with a log that lost data: as declared.
    pub forfeited: usize,
    /// Deliveries and entries beyond the first.
    pub duplicated: usize,
    /// Deliveries.
    pub received: usize,
    /// Answers.
    pub refused: usize,
    pub unknown: usize,
    /// Sends beyond the first of a message.
    pub resent: usize,
    /// Sockets lost.
    pub reconnects: usize,
    /// Told to a client: start over; go back; send again.
    pub resets: usize,
    pub rollbacks: usize,
    pub gaps: usize,
    /// Resumed exactly.
    pub recovered: usize,
    /// Clients in rooms that got what the log lost later.
    pub affected: usize,
}

#[derive(Debug, Default)]
pub struct Verdict {
    pub counts: Counts,
    pub violations: Vec<Violation>,
}

impl Verdict {
    fn add(&mut self, kind: Kind, text: String) {
        self.violations.push(Violation { kind, text });
    }

    /// How many of each kind.
    pub fn kinds(&self) -> BTreeMap<Kind, usize> {
        let mut kinds = BTreeMap::new();
        self.violations.iter().for_each(|violation| *kinds.entry(violation.kind).or_default() += 1);
        kinds
    }

    /// The first few of each kind, and how many there are.
    pub fn summary(&self) -> String {
        let mut text = format!("{} violations: {:?}\n", self.violations.len(), self.kinds());
        for kind in self.kinds().into_keys() {
            for violation in self.violations.iter().filter(|violation| violation.kind == kind).take(5) {
                text += &format!("  {violation}\n");
            }
        }
        text
    }
}

/// Judges a run. `events` in the order in which they happened, at least for each client.
pub fn check(events: &[Event], logs: &Logs, promise: Promise) -> Verdict {
    let mut verdict = Verdict::default();
    count(events, &mut verdict.counts);
    let sends = Sends::collect(events, &mut verdict);
    let observed = views::successions(events);
    let mut logs: HashMap<&str, Log> = logs
        .iter()
        .map(|(room, copies)| (room.as_str(), Log::assemble(room, copies, &observed, promise, &mut verdict)))
        .collect();
    let messages = log::messages(events);
    for (room, followers) in views::followers(events) {
        if let Some(log) = logs.get_mut(room) {
            log.locate(&followers, messages.get(room).unwrap_or(&HashSet::new()));
        }
    }
    log::one_message_per_position(events, &logs, &mut verdict);
    sends.check(&logs, promise, &mut verdict);
    views::check(events, &logs, &sends, promise, &mut verdict);
    verdict
}

fn count(events: &[Event], counts: &mut Counts) {
    use crate::history::Outcome::{Refused, Unknown};
    for event in events {
        match &event.what {
            What::Receive { .. } => counts.received += 1,
            What::Answer { outcome: Refused, .. } => counts.refused += 1,
            What::Answer { outcome: Unknown, .. } => counts.unknown += 1,
            What::Close { .. } => counts.reconnects += 1,
            What::Gap { .. } => counts.gaps += 1,
            What::Join { told: Told::Reset(_), .. } => counts.resets += 1,
            What::Join { told: Told::Recovered { rollback }, .. } => {
                counts.recovered += 1;
                counts.rollbacks += usize::from(rollback.is_some());
            }
            _ => {}
        }
    }
}
