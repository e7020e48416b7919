//! A node by itself: who publishes, subscribes, reads and is there. The logs are in `logs`.

use std::{collections::HashSet, sync::Weak};

use jiff::Timestamp;
use parking_lot::Mutex;

use super::{
    Attendance, Draft, Outlet, Page, PublishError, Stretch, Turn,
    logs::{Logs, publication},
    presence::Rooms,
};
use crate::{
    config,
    protocol::{MessageId, RoomName, Roster},
};

/// See the module.
pub struct Local {
    /// Held while the outlet takes a publication, so the outlet may not hold a lock of its own when it waits for this one.
    logs: Mutex<Logs>,
    /// Taken inside `logs`; by itself where the outlet says who comes and goes, whatever it holds then.
    interest: Mutex<Interest>,
    presence: Mutex<Rooms>,
    outlet: Weak<dyn Outlet>,
}

/// Rooms with members: their position must not be forgotten.
#[derive(Default)]
struct Interest {
    subscribed: HashSet<RoomName>,
    /// Left since the last look at the logs.
    left: Vec<RoomName>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl Local {
    pub(super) fn new(history: &config::History, outlet: Weak<dyn Outlet>) -> Self {
        let logs = Mutex::new(Logs::new(history));
        Self { logs, interest: Mutex::default(), presence: Mutex::default(), outlet }
    }

    pub(super) fn publish(&self, draft: &Draft) -> Result<Option<MessageId>, PublishError> {
        let now = Timestamp::now().as_millisecond();
        let mut logs = self.logs.lock();
        if draft.ephemeral {
            let publication = publication(draft, None, now);
            if let Some(outlet) = self.outlet.upgrade() {
                outlet.push(publication);
            }
            return Ok(None);
        }
        match logs.senders.turn(draft, now) {
            (Turn::Next, _) => {}
            (Turn::Again, id) => return Ok(id),
            (Turn::Gap { last_n }, _) => return Err(PublishError::Gap { last_n }),
        }
        self.trim(&mut logs, now);
        let (publication, id) = logs.append(draft, now);
        logs.senders.stored(draft, id, now);
        // Under the lock, so that the outlet sees the log's order.
        if let Some(outlet) = self.outlet.upgrade() {
            outlet.push(publication);
        }
        Ok(Some(id))
    }

    pub(super) fn subscribe(&self, room: &RoomName) {
        self.interest.lock().subscribed.insert(room.clone());
    }

    pub(super) fn unsubscribe(&self, room: &RoomName) {
        let interest = &mut *self.interest.lock();
        if interest.subscribed.remove(room) {
            interest.left.push(room.clone());
        }
    }

    pub(super) fn read(&self, room: &RoomName, stretch: Stretch, limit: usize) -> Page {
        let mut logs = self.logs.lock();
        self.trim(&mut logs, Timestamp::now().as_millisecond());
        match stretch {
            Stretch::After(after) => logs.read(room, after, limit),
            Stretch::Before(before) => logs.read_back(room, Some(before), limit),
            Stretch::Newest => logs.read_back(room, None, limit),
        }
    }

    pub(super) fn attend(&self, room: &RoomName, attendance: &Attendance, most: usize) -> Roster {
        self.presence.lock().attend(room, attendance, most)
    }

    pub(super) fn roster(&self, room: &RoomName, most: usize) -> Roster {
        self.presence.lock().roster(room, most)
    }

    fn trim(&self, logs: &mut Logs, now_ms: i64) {
        let interest = &mut *self.interest.lock();
        logs.trim(now_ms, &interest.subscribed);
        for room in interest.left.drain(..) {
            logs.forget_if_idle(&room, &interest.subscribed);
        }
    }
}
