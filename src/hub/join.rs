//! A connection's way into its rooms: held, brought up to date from the log, then live.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::SetOnce,
    time::{sleep, timeout},
};

use super::{Connection, Hub, batch::Batch, room::Room};
use crate::{
    broadcaster::Page,
    protocol::{Close, Event, Frame, MessageId, RoomName, Roster},
};

/// Longest that a client's first frame waits for its rooms.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);
/// Longest that an `unsubscribed` waits for what is on its way.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);
/// Longest that a joiner waits for a node that is behind it.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(10);
/// How often a joiner looks whether its node has caught up with it.
const CATCH_UP_POLL: Duration = Duration::from_millis(20);

/// A connection's place in the hub.
pub struct Attached {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
    rooms: Mutex<Vec<RoomName>>,
    joined: SetOnce<()>,
}

/// A room that a connection has joined.
#[derive(Debug)]
pub struct Joined {
    /// Which.
    pub room: RoomName,
    /// Where live begins.
    pub position: MessageId,
    /// Who is there, where that is kept.
    pub roster: Option<Roster>,
}

/// Why a session was not let into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Redis did not answer in time.
    #[error("the room cannot be joined while the message log is away")]
    Away,
    /// It is in there.
    #[error("the session is in this room already: unsubscribe first to take it up from another position")]
    Already,
}

impl Attached {
    pub(super) fn new(hub: Arc<Hub>, connection: Arc<Connection>, rooms: Vec<RoomName>) -> Self {
        Self { hub, connection, rooms: Mutex::new(rooms), joined: SetOnce::new() }
    }

    /// Returns once what is published to the rooms reaches the connection, the client's own messages among it; or after a while, when
    /// Redis is away.
    pub async fn joined(&self) {
        let _ = timeout(JOIN_PATIENCE, self.joined.wait()).await;
    }

    /// Whether the connection is in a room, or on its way there.
    #[must_use]
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.rooms.lock().contains(room)
    }

    /// How many rooms it is in.
    #[must_use]
    pub fn room_count(&self) -> usize {
        self.rooms.lock().len()
    }

    /// Joins the rooms that the connection was opened for, live, and the last of them from `after` on, if given. `welcome` makes a session's
    /// first frame of where live begins in each. Waits for Redis as long as it takes; safe to drop at any time.
    pub async fn join(&self, after: Option<MessageId>, welcome: impl Fn(&[Joined]) -> Frame) {
        let names = self.rooms.lock().clone();
        let entered: Vec<_> = names.iter().filter_map(|name| self.hub.enter(name, &self.connection)).collect();
        let mut joined = Vec::with_capacity(entered.len());
        for (room, seat) in &entered {
            room.opened.get_or_init(|| self.hub.open(room)).await;
            let position = room.replay_end(*seat);
            joined.extend(position.map(|position| Joined {
                room: room.name.clone(),
                position,
                roster: self.roster(room),
            }));
        }
        if self.connection.is_session() {
            self.connection.send(&welcome(&joined));
        }
        let _ = self.joined.set(());
        for (n, (room, seat)) in entered.iter().enumerate() {
            if let Some(after) = after.filter(|_| n + 1 == entered.len()) {
                let page = self.hub.read(&room.name, after).await;
                self.replay(room, *seat, after, page, None).await;
            }
            self.go_live(room, *seat).await;
        }
    }

    /// Joins one more room. `subscribed` is sent in its place: ahead of what was missed.
    pub async fn subscribe(
        &self,
        name: &RoomName,
        after: Option<MessageId>,
        reference: Option<&str>,
    ) -> Result<(), JoinError> {
        if self.is_in(name) {
            return Err(JoinError::Already);
        }
        self.rooms.lock().push(name.clone());
        let Some((room, seat)) = self.hub.enter(name, &self.connection) else { return Err(JoinError::Away) };
        let ready = async {
            room.opened.get_or_init(|| self.hub.open(&room)).await;
            match after {
                Some(after) => Some((after, self.hub.read(name, after).await)),
                None => None,
            }
        };
        match timeout(JOIN_PATIENCE, ready).await {
            Ok(Some((after, page))) => self.replay(&room, seat, after, page, reference).await,
            Ok(None) => self.announce(&room, seat, false, reference),
            Err(_) => {
                self.unsubscribe(name).await;
                return Err(JoinError::Away);
            }
        }
        self.go_live(&room, seat).await;
        Ok(())
    }

    /// Leaves a room; once it returns nothing more comes from there. False: it was not in it.
    pub async fn unsubscribe(&self, name: &RoomName) -> bool {
        {
            let rooms = &mut *self.rooms.lock();
            let Some(index) = rooms.iter().position(|room| room == name) else { return false };
            rooms.swap_remove(index);
        }
        self.hub.leave(name, &self.connection);
        if let Some(room) = self.hub.room(name) {
            let _ = timeout(SETTLE_PATIENCE, room.settled()).await;
        }
        true
    }

    /// Tells a session that it is in a room.
    fn announce(&self, room: &Room, seat: u64, recovered: bool, reference: Option<&str>) {
        if let Some(id) = room.replay_end(seat).filter(|_| self.connection.is_session()) {
            let (room, presence) = (room.name.as_str(), self.roster(room));
            let subscribed = Event::Subscribed { room, id, recovered, presence, r#ref: reference };
            self.connection.send(&subscribed.frame());
        }
    }

    /// Who is in a room, for this connection.
    fn roster(&self, room: &Room) -> Option<Roster> {
        room.presence.as_ref()?.lock().roster_for(&self.connection.occupant())
    }

    /// Sends what was held, then lets live messages through.
    async fn go_live(&self, room: &Arc<Room>, seat: u64) {
        while let Some(held) = room.release(seat) {
            for frame in held {
                if room.replay_end(seat).is_none() {
                    return;
                }
                self.connection.send(&frame);
                self.connection.drained().await;
            }
        }
        self.hub.flush_room(room.clone(), false);
    }

    /// Sends what the log has after `after`, beginning with `page`, up to where live messages are held. If it no longer reaches back that far, a
    /// session is told so and a plain socket gets all that the log has. Ends when the connection leaves the room meanwhile.
    async fn replay(&self, room: &Arc<Room>, seat: u64, after: MessageId, mut page: Page, reference: Option<&str>) {
        self.hub.metrics.resume(page.continuous).inc();
        if page.continuous {
            self.catch_up(room, seat, after).await;
        }
        self.announce(room, seat, page.continuous, reference);
        if self.connection.is_session() && !page.continuous {
            return;
        }
        while let Some(end) = room.replay_end(seat) {
            page.publications.retain(|publication| publication.place.is_some_and(|place| place.id <= end));
            for batch in Batch::split(&page.publications) {
                if room.replay_end(seat).is_none() {
                    return;
                }
                self.hub.metrics.messages_out.inc_by(batch.messages as u64);
                self.connection.send(&batch.frame);
                self.connection.drained().await;
            }
            let from = page.through;
            if from >= end || !self.connection.is_open() {
                return;
            }
            page = self.hub.read(&room.name, from).await;
            if !page.continuous {
                // Trimmed away while a slow joiner took its time: it starts over rather than miss something in silence.
                return self.connection.close(Close::Restart { after_ms: 0 });
            }
        }
    }

    /// A client that comes from another node may be ahead of this one, whose subscription lags. What it has already must not reach it again.
    async fn catch_up(&self, room: &Arc<Room>, seat: u64, after: MessageId) {
        if room.replay_end(seat).is_none_or(|end| end >= after) {
            return;
        }
        room.mark_stale();
        self.hub.flush_room(room.clone(), false);
        let caught_up = async {
            while room.replay_end(seat).is_some() && room.position().is_some_and(|position| position < after) {
                sleep(CATCH_UP_POLL).await;
            }
        };
        match timeout(CATCH_UP_PATIENCE, caught_up).await {
            Ok(()) => room.hold_from_here(seat),
            Err(_) => self.connection.close(Close::Restart { after_ms: 0 }),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.hub.detach(&self.connection, &self.rooms.lock());
    }
}
