//! What is measured: shapes of load and the goals for them.

use serde::Serialize;

/// Rooms of equal size, all talked in at the same time.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Scenario {
    /// For tables and `--only`.
    pub(crate) name: &'static str,
    /// Rooms.
    pub(crate) rooms: usize,
    /// Sockets in each, the speaker's among them.
    pub(crate) members: usize,
    /// Messages in flight in each room: the next is sent when all members have the oldest.
    pub(crate) in_flight: usize,
    /// The members talk in turn, instead of one for all.
    pub(crate) all_talk: bool,
    /// Most CPU per delivery, in units of the reference.
    pub(crate) goal: f64,
}

impl Scenario {
    /// As published.
    pub(crate) const FULL: [Self; 3] = [
        Self { name: "one-in-flight", rooms: 1, members: 1000, in_flight: 1, all_talk: false, goal: 1.15 },
        Self { name: "64-in-flight", rooms: 1, members: 1000, in_flight: 64, all_talk: false, goal: 1.35 },
        Self { name: "rooms", rooms: 200, members: 5, in_flight: 1, all_talk: true, goal: 1.2 },
    ];
    /// The same shapes, small: to see that they work.
    pub(crate) const SHORT: [Self; 3] = [
        Self { members: 20, ..Self::FULL[0] },
        Self { members: 20, ..Self::FULL[1] },
        Self { rooms: 4, ..Self::FULL[2] },
    ];
}

/// What carries the messages of the chat between its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Over {
    Local,
    Redis,
}

impl Over {
    pub(crate) const ALL: [Self; 2] = [Self::Local, Self::Redis];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Redis => "redis",
        }
    }
}
