//! A connection's way into its rooms: held, brought up to date from the log, then live.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::SetOnce,
    time::{sleep, timeout},
};

use super::{
    Connection, Hub,
    room::{Batch, Room},
};
use crate::protocol::{Close, Event, Frame, MessageId, RoomName};

/// Longest that a client's first frame waits for its rooms.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);
/// How often a joiner looks whether its node has caught up with it.
const CATCH_UP_POLL: Duration = Duration::from_millis(20);

/// A connection's place in the hub.
pub struct Attached {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
    rooms: Mutex<Vec<RoomName>>,
    joined: SetOnce<()>,
}

/// Redis did not confirm a subscription in time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the room cannot be joined while the message log is away")]
pub struct JoinError;

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
    pub async fn join(&self, after: Option<MessageId>, welcome: impl Fn(&[(RoomName, MessageId)]) -> Frame) {
        let names = self.rooms.lock().clone();
        let entered: Vec<_> = names.iter().filter_map(|name| self.hub.enter(name, &self.connection)).collect();
        let mut positions = Vec::with_capacity(entered.len());
        for room in &entered {
            room.opened.get_or_init(|| self.hub.open(room)).await;
            positions.extend(room.replay_end(&self.connection).map(|position| (room.name.clone(), position)));
        }
        if self.connection.is_session() {
            self.connection.send(&welcome(&positions));
        }
        let _ = self.joined.set(());
        for (n, room) in entered.iter().enumerate() {
            if let Some(after) = after.filter(|_| n + 1 == entered.len()) {
                self.replay(room, after, None).await;
            }
            self.go_live(room).await;
        }
    }

    /// Joins one more room, or the same anew from another position. `subscribed` is sent in its place: after what was live before, ahead of
    /// what was missed.
    pub async fn subscribe(
        &self,
        name: &RoomName,
        after: Option<MessageId>,
        reference: Option<&str>,
    ) -> Result<(), JoinError> {
        if self.is_in(name) {
            self.hub.leave(name, &self.connection);
        } else {
            self.rooms.lock().push(name.clone());
        }
        let Some(room) = self.hub.enter(name, &self.connection) else { return Err(JoinError) };
        if timeout(JOIN_PATIENCE, room.opened.get_or_init(|| self.hub.open(&room))).await.is_err() {
            self.unsubscribe(name);
            return Err(JoinError);
        }
        match after {
            Some(after) => self.replay(&room, after, reference).await,
            None => self.announce(&room, false, reference),
        }
        self.go_live(&room).await;
        Ok(())
    }

    /// Leaves a room. False: it was not in it.
    pub fn unsubscribe(&self, name: &RoomName) -> bool {
        let rooms = &mut *self.rooms.lock();
        let Some(index) = rooms.iter().position(|room| room == name) else { return false };
        rooms.swap_remove(index);
        self.hub.leave(name, &self.connection);
        true
    }

    /// Tells a session that it is in a room.
    fn announce(&self, room: &Room, recovered: bool, reference: Option<&str>) {
        if let Some(id) = room.replay_end(&self.connection).filter(|_| self.connection.is_session()) {
            let subscribed = Event::Subscribed { room: room.name.as_str(), id, recovered, r#ref: reference };
            self.connection.send(&subscribed.frame());
        }
    }

    /// Sends what was held, then lets live messages through.
    async fn go_live(&self, room: &Arc<Room>) {
        while let Some(held) = room.release(&self.connection) {
            for frame in held {
                self.connection.send(&frame);
                self.connection.drained().await;
            }
        }
        self.hub.flush_room(room.clone(), false);
    }

    /// Sends what the log has after `after`, up to where live messages are held. If it no longer reaches back that far, a session is told so
    /// and a plain socket gets all that the log has.
    async fn replay(&self, room: &Arc<Room>, after: MessageId, reference: Option<&str>) {
        let mut from = after;
        let mut page = self.hub.read(&room.name, from).await;
        self.hub.metrics.resume(page.continuous).inc();
        if page.continuous {
            self.catch_up(room, after).await;
        }
        self.announce(room, page.continuous, reference);
        if self.connection.is_session() && !page.continuous {
            return;
        }
        while let Some(end) = room.replay_end(&self.connection) {
            page.publications.retain(|publication| publication.place.is_some_and(|place| place.id <= end));
            for batch in Batch::split(&page.publications) {
                self.hub.metrics.messages_out.inc_by(batch.messages as u64);
                self.connection.send(&batch.frame);
                self.connection.drained().await;
            }
            from = page.through;
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
    async fn catch_up(&self, room: &Arc<Room>, after: MessageId) {
        let behind = || room.replay_end(&self.connection).is_some_and(|end| end < after);
        if !behind() {
            return;
        }
        room.mark_stale();
        self.hub.flush_room(room.clone(), false);
        while self.connection.is_open() && room.position().is_some_and(|position| position < after) {
            sleep(CATCH_UP_POLL).await;
        }
        room.hold_from_here(&self.connection);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.hub.detach(&self.connection, &self.rooms.lock());
    }
}
