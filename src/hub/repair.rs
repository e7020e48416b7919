//! What a room missed: read from its log and delivered, or, where the log itself has lost something, told.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{
    Connection, Hub,
    batch::Batch,
    room::{Members, Room},
};
use crate::{
    broadcaster::Relation,
    metrics::RepairCause,
    protocol::{Close, Event, MessageId},
};

/// Longest wait, a page of a repair, for the members to take what they missed.
const REPAIR_PACE: Duration = Duration::from_millis(250);
/// Spread of the wait asked of clients where a whole room has to come back at once.
const RESET_SPREAD_MS: u64 = 5000;

impl Hub {
    /// Reads what a room missed and delivers it. Members never see that there was a hole, unless the log has lost it.
    pub(super) async fn repair(&self, room: &Room, mut from: MessageId, cause: RepairCause) {
        self.metrics.repair(cause).inc();
        loop {
            let page = self.read(&room.name, from).await;
            match page.relation {
                Relation::Exact => {}
                Relation::Rollback(to) => self.roll_back(room, to, page.top),
                Relation::Reset => return self.reset(room, from, page.top),
            }
            let mut members = Members::default();
            for batch in Batch::split(&page.publications) {
                members = room.repaired(&batch);
                self.send_paced(room, &batch, &members).await;
            }
            // A few seconds of a busy room are more than an outbox holds, and no reader's fault.
            let taken = join_all(members.iter().map(|member| member.drained()));
            let _ = timeout(REPAIR_PACE, taken).await;
            from = page.through;
            if page.through == page.top {
                return room.end_repair(page.top);
            }
        }
    }

    /// The log does not have the members' position any more: sessions are told, plain sockets come back and read what it has. In the same epoch
    /// nothing was lost: the log has only trimmed what was not read in time.
    fn reset(&self, room: &Room, from: MessageId, top: MessageId) {
        room.end_repair(top);
        let (members, joiners) = room.everybody();
        let connections = members.len() + joiners.len();
        if from.epoch == top.epoch {
            self.metrics.overruns.inc();
            tracing::warn!(room = %room.name, connections, "more was said than the room's log keeps; its members start over");
        } else {
            self.metrics.resets.inc();
            tracing::warn!(room = %room.name, connections, "the room's log has lost its position; its members start over");
        }
        tell_apart(room, members, top, None);
        start_over(&joiners);
    }

    /// The log has lost its last messages, those after `to`: sessions are told to drop them, plain sockets come back.
    fn roll_back(&self, room: &Room, to: MessageId, top: MessageId) {
        self.metrics.rollbacks.inc();
        let (members, joiners) = room.everybody();
        tracing::warn!(room = %room.name, %to, connections = members.len(), "the room's log has lost its last messages; its members are told");
        tell_apart(room, members, top, Some(to));
        start_over(&joiners);
    }
}

/// What joiners have taken already of their replay cannot be told apart from what follows.
fn start_over(joiners: &[Arc<Connection>]) {
    joiners.iter().for_each(|joiner| joiner.close(come_back()));
}

/// Tells sessions where a log stands that has lost something; plain sockets, which cannot be told, come back.
fn tell_apart(room: &Room, connections: Vec<Arc<Connection>>, id: MessageId, rollback: Option<MessageId>) {
    let recovered = rollback.is_some();
    let subscribed =
        Event::Subscribed { room: room.name.as_str(), id, recovered, rollback, presence: None, r#ref: None }.frame();
    for connection in connections {
        if connection.is_session() {
            connection.send(&subscribed);
        } else {
            connection.close(come_back());
        }
    }
}

/// For many at once.
fn come_back() -> Close {
    Close::Restart { after_ms: fastrand::u64(0..=RESET_SPREAD_MS) }
}
