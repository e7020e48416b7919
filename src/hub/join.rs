//! A connection's way into its rooms: held, brought up to date from the log, then live.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::SetOnce,
    time::{sleep, timeout},
};

use super::{
    Connection, Hub,
    room::{Batch, Room},
};
use crate::protocol::{Close, MessageId, RoomName};

/// Longest that a client's first frame waits for its rooms.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);
/// How often a joiner looks whether its node has caught up with it.
const CATCH_UP_POLL: Duration = Duration::from_millis(20);

/// A connection's place in the hub.
pub struct Attached {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
    rooms: Vec<RoomName>,
    joined: SetOnce<()>,
}

impl Attached {
    pub(super) fn new(hub: Arc<Hub>, connection: Arc<Connection>, rooms: Vec<RoomName>) -> Self {
        Self { hub, connection, rooms, joined: SetOnce::new() }
    }

    /// Returns once what is published to the rooms reaches the connection, the client's own messages among it; or after a while, when
    /// Redis is away.
    pub async fn joined(&self) {
        let _ = timeout(JOIN_PATIENCE, self.joined.wait()).await;
    }

    /// Joins the rooms, live, and the last of them from `after` on, if given. Waits for Redis as long as it takes; safe to drop at any time.
    pub async fn join(&self, after: Option<MessageId>) {
        let entered: Vec<_> = self.rooms.iter().filter_map(|name| self.hub.enter(name, &self.connection)).collect();
        for room in &entered {
            room.opened.get_or_init(|| self.hub.open(room)).await;
        }
        let _ = self.joined.set(());
        for (n, room) in entered.iter().enumerate() {
            if let Some(after) = after.filter(|_| n + 1 == entered.len()) {
                self.replay(room, after).await;
            }
            while let Some(held) = room.release(&self.connection) {
                for frame in held {
                    self.connection.send(&frame);
                    self.connection.drained().await;
                }
            }
            self.hub.flush_room(room.clone(), false);
        }
    }

    /// Sends what the log has after `after`, up to where live messages are held. If it no longer reaches back that far: all it has.
    async fn replay(&self, room: &Arc<Room>, after: MessageId) {
        let mut from = after;
        let mut page = self.hub.read(&room.name, from).await;
        self.hub.metrics.resume(page.continuous).inc();
        if page.continuous {
            self.catch_up(room, after).await;
        }
        while let Some(end) = room.replay_end(&self.connection) {
            page.publications.retain(|publication| publication.id <= end);
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
        self.hub.detach(&self.connection, &self.rooms);
    }
}
