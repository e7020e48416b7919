//! What clients write down while they run: every send, every answer, every message, and what they were told about their place in a room.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

/// Whatever a client did or saw.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// Since the start of the run.
    pub at: Duration,
    /// Whose.
    pub client: usize,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum What {
    /// A message was sent, for the first time or again.
    Send { room: String, key: String, n: Option<u64>, ephemeral: bool },
    /// What became of the last send of this key.
    Answer { key: String, outcome: Outcome },
    /// The server wants everything behind `last_n` again.
    Gap { room: String, last_n: u64 },
    /// There was no socket to be had: the status of the answer, if there was one.
    Refused { status: Option<u16> },
    /// A socket is open.
    Open,
    /// It is gone; with the code of its close frame.
    Close { code: Option<u16> },
    /// The client is in a room from here on, or is told anew where it stands.
    Join { room: String, after: Option<String>, told: Told },
    /// A message.
    Receive { room: String, id: Option<String>, key: String, n: Option<u64> },
    /// A page of a room's history that a client read as it had to start over; oldest first, up to its position.
    Page { room: String, entries: Vec<Entry> },
}

/// What is known of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// Acknowledged; with its position, unless only that it was stored is still known.
    Stored(Option<String>),
    /// Not stored.
    Refused,
    /// No answer, or an answer that says so.
    Unknown,
}

/// What a client is told about its place in a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Told {
    /// Live from here: it asked for nothing else. `None`: a plain socket without a position.
    Live(Option<String>),
    /// What follows continues exactly after its position, or after an earlier one that it has to go back to.
    Recovered { rollback: Option<String> },
    /// Start over; live from here.
    Reset(String),
    /// A plain socket with a position: nothing is said.
    Nothing,
}

/// A message as a log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub id: String,
    pub key: String,
}

/// The log of each room at the end, as each node gave it.
pub type Logs = BTreeMap<String, Vec<Vec<Entry>>>;

/// The position before the first message.
pub const START: &str = "0-0";
