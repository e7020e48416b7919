//! A connection's way into its rooms: held, brought up to date from the log, then live.

use std::{sync::Arc, time::Duration};

use tokio::{sync::SetOnce, time::timeout};

use super::{
    Connection, Hub,
    room::{Batch, Room},
};
use crate::protocol::{MessageId, RoomName};

/// Longest that a client's first frame waits for its rooms.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);

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
    async fn replay(&self, room: &Room, after: MessageId) {
        let mut from = after;
        let mut first = true;
        while self.connection.is_open() {
            let Some(end) = room.replay_end(&self.connection).filter(|end| first || from < *end) else { return };
            let mut page = self.hub.read(&room.name, from).await;
            if std::mem::take(&mut first) {
                let outcome =
                    if page.continuous { &self.hub.metrics.resumes_recovered } else { &self.hub.metrics.resumes_reset };
                outcome.inc();
            }
            page.publications.retain(|publication| publication.id <= end);
            let Some(last) = page.publications.last() else { return };
            from = last.id;
            for batch in Batch::split(&page.publications) {
                self.hub.metrics.messages_out.inc_by(batch.messages as u64);
                self.connection.send(&batch.frame);
                self.connection.drained().await;
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.hub.detach(&self.connection, &self.rooms);
    }
}
