//! Shapes of load.

use serde::Serialize;

/// Rooms of equal size, all talked in at the same time.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Scenario {
    /// Rooms.
    pub(crate) rooms: usize,
    /// Sockets in each, the speaker's among them.
    pub(crate) members: usize,
    /// Messages in flight in each room: the next is sent when all members have the oldest.
    pub(crate) in_flight: usize,
    /// The members talk in turn, instead of one for all.
    pub(crate) all_talk: bool,
    /// The one room is the lobby.
    pub(crate) lobby: bool,
}

impl Scenario {
    /// One room, in which one member talks.
    pub(crate) const fn room(members: usize, in_flight: usize) -> Self {
        Self { rooms: 1, members, in_flight, all_talk: false, lobby: false }
    }

    /// Rooms in which everybody talks, one message under way in each.
    pub(crate) const fn rooms(rooms: usize, members: usize) -> Self {
        Self { rooms, members, in_flight: 1, all_talk: true, lobby: false }
    }

    /// What follows the path of the lobby.
    pub(crate) fn path(&self, room: usize) -> String {
        if self.lobby { String::new() } else { format!("/bench-{room}") }
    }
}
