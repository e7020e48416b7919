//! Who is in a room: what one node says of it, and who is there over all nodes.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::protocol::{Occupant, RoomName, Roster};

/// What a node has to say of who is in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attendance {
    /// Who has come.
    pub joined: Vec<Occupant>,
    /// Who has gone.
    pub left: Vec<Occupant>,
    /// `joined` is everybody that the node has there, whatever it said before.
    pub whole: bool,
    /// How long this holds unless it is said again; zero: the node has nobody there any more.
    pub lease: Duration,
}

/// Who is where, for a node alone.
#[derive(Debug, Default)]
pub(super) struct Rooms(HashMap<RoomName, BTreeSet<Occupant>>);

impl Rooms {
    pub(super) fn attend(&mut self, room: &RoomName, attendance: &Attendance, most: usize) -> Roster {
        let here = self.0.entry(room.clone()).or_default();
        if attendance.whole {
            here.clear();
        }
        here.extend(attendance.joined.iter().cloned());
        attendance.left.iter().for_each(|occupant| {
            here.remove(occupant);
        });
        let roster = roster(here, most);
        if here.is_empty() {
            self.0.remove(room);
        }
        roster
    }

    pub(super) fn roster(&self, room: &RoomName, most: usize) -> Roster {
        self.0.get(room).map_or_else(|| Roster::of(Vec::new(), most), |here| roster(here, most))
    }
}

fn roster(here: &BTreeSet<Occupant>, most: usize) -> Roster {
    Roster { count: here.len(), here: (here.len() <= most).then(|| here.iter().cloned().collect()) }
}
