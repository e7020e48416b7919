//! One room on this node: its members, those on their way in, and who sends them what waits in its inbox.
//!
//! One lock guards all of it and is never held across a write to a socket. Reads no log itself: it says from where to read ([`Work::Repair`]).

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OnceCell},
    time::Instant,
};

use super::{
    Connection,
    batch::Batch,
    inbox::{Due, Inbox},
    presence::Presence,
    replay::Shelf,
};
use crate::{
    broadcaster::Publication,
    metrics::RepairCause,
    protocol::{Close, Frame, MessageId, RoomName},
};

/// Rooms up to this size are flushed by the publisher's own task.
pub(super) const INLINE: usize = 64;

/// Those in a room at one moment: who comes or goes while somebody holds it changes a copy, so that a delivery counts no references.
pub(super) type Members = Arc<Vec<Arc<Connection>>>;

/// What the flusher has to do next.
pub(super) enum Work {
    /// Send this to these.
    Send(Batch, Members),
    /// Read the log from here: something was missed.
    Repair(MessageId, RepairCause),
    /// Nothing; this flusher is not one any more.
    Done,
}

/// A member that does not get live messages yet.
struct Joiner {
    connection: Arc<Connection>,
    /// Of this time in the room: a connection that leaves and comes back has another one.
    seat: u64,
    /// Where replay ends and `frames` go on; known once the room is open.
    from: Option<MessageId>,
    frames: Vec<Frame>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    members: Members,
    joiners: Vec<Joiner>,
    inbox: Inbox,
    next_seat: u64,
    /// Batches taken by the flusher, and those of them that it has sent.
    taken: u64,
    sent: u64,
    /// A flusher is at work.
    flushing: bool,
    empty_since: Option<Instant>,
}

impl State {
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.joiners.is_empty()
    }

    /// Moves on behind a batch. Returns everybody who gets it now.
    fn advance(&mut self, room: &RoomName, batch: &Batch) -> Members {
        self.taken += 1;
        self.inbox.pass(batch);
        for joiner in self.joiners.iter_mut().filter(|joiner| batch.is_for(room, &joiner.connection)) {
            joiner.bytes += batch.frame.wire_len();
            if joiner.bytes > joiner.connection.outbox_bytes() {
                joiner.frames = Vec::new();
                joiner.connection.close(Close::Slow);
            } else {
                joiner.frames.push(batch.frame.clone());
            }
        }
        if batch.is_for_all() {
            return self.members.clone();
        }
        Arc::new(self.members.iter().filter(|member| batch.is_for(room, member)).cloned().collect())
    }
}

/// See the module.
pub(super) struct Room {
    pub(super) name: RoomName,
    /// Set once the room is subscribed and its position known.
    pub(super) opened: OnceCell<()>,
    state: Mutex<State>,
    /// Absent where it is not kept. Never locked together with the rest.
    pub(super) presence: Option<Mutex<Presence>>,
    /// Pages of the log, shared by those who resume.
    pub(super) shelf: Shelf,
    /// The flusher has sent what it had taken.
    settled: Notify,
}

impl Room {
    pub(super) fn new(name: RoomName, presence: Option<Mutex<Presence>>) -> Self {
        Self {
            name,
            opened: OnceCell::new(),
            state: Mutex::default(),
            presence,
            shelf: Shelf::default(),
            settled: Notify::new(),
        }
    }

    /// Takes a joiner; what is live is held for it from now on. Returns its seat, and whether the room was empty.
    pub(super) fn enter(&self, connection: Arc<Connection>) -> (u64, bool) {
        let state = &mut *self.state.lock();
        let first = state.is_empty();
        state.empty_since = None;
        state.next_seat += 1;
        let seat = state.next_seat;
        state.joiners.push(Joiner { connection, seat, from: state.inbox.position(), frames: Vec::new(), bytes: 0 });
        (seat, first)
    }

    /// The room is subscribed and its log stood at `position` after that.
    pub(super) fn open(&self, position: MessageId) {
        let state = &mut *self.state.lock();
        state.inbox.open(position);
        state.joiners.iter_mut().for_each(|joiner| joiner.from = Some(position));
    }

    /// Where a joiner's replay ends; `None`: it has left.
    pub(super) fn replay_end(&self, seat: u64) -> Option<MessageId> {
        let state = self.state.lock();
        state.joiners.iter().find(|joiner| joiner.seat == seat).and_then(|joiner| joiner.from)
    }

    /// What was held for a joiner; `None`: nothing was, and it is a member now, or has left.
    pub(super) fn release(&self, seat: u64) -> Option<Vec<Frame>> {
        let state = &mut *self.state.lock();
        let index = state.joiners.iter().position(|joiner| joiner.seat == seat)?;
        let joiner = state.joiners.get_mut(index)?;
        if joiner.frames.is_empty() {
            let joiner = state.joiners.swap_remove(index);
            Arc::make_mut(&mut state.members).push(joiner.connection);
            return None;
        }
        joiner.bytes = 0;
        Some(std::mem::take(&mut joiner.frames))
    }

    /// Takes a connection out; whether it was the last, or `None` if it was not there.
    pub(super) fn leave(&self, connection: &Arc<Connection>) -> Option<bool> {
        let state = &mut *self.state.lock();
        if let Some(index) = state.members.iter().position(|member| Arc::ptr_eq(member, connection)) {
            Arc::make_mut(&mut state.members).swap_remove(index);
        } else {
            let index = state.joiners.iter().position(|joiner| Arc::ptr_eq(&joiner.connection, connection))?;
            state.joiners.swap_remove(index);
        }
        let empty = state.is_empty();
        if empty {
            state.empty_since = Some(Instant::now());
        }
        Some(empty)
    }

    /// Since when nobody is here.
    pub(super) fn empty_since(&self) -> Option<Instant> {
        self.state.lock().empty_since
    }

    /// How far the room is.
    pub(super) fn position(&self) -> Option<MessageId> {
        self.state.lock().inbox.position()
    }

    /// Takes a publication, in the order of the room's log.
    pub(super) fn push(&self, publication: Publication) {
        self.state.lock().inbox.push(publication);
    }

    /// Takes a frame for the room's sessions, which comes to them in order with its messages. False: there is no room for it.
    pub(super) fn push_notice(&self, frame: Frame) -> bool {
        self.state.lock().inbox.push_notice(frame)
    }

    /// Something may have been missed. In a room that is being opened too: its log may have been looked at before that.
    pub(super) fn mark_stale(&self, cause: RepairCause) {
        self.state.lock().inbox.miss(cause);
    }

    /// Becomes the room's flusher, if there is something to do and nobody does it. `Some(true)`: small enough to do it at once.
    pub(super) fn begin_flush(&self) -> Option<bool> {
        let state = &mut *self.state.lock();
        if state.flushing || !state.inbox.is_due() {
            return None;
        }
        state.flushing = true;
        Some(!state.inbox.is_stale() && state.members.len() + state.joiners.len() <= INLINE)
    }

    /// The flusher's next piece of work, and whom it is for; what it took before has been sent.
    pub(super) fn next(&self) -> Work {
        let state = &mut *self.state.lock();
        self.settle(state);
        match state.inbox.next() {
            Due::Batch(batch) => {
                let members = state.advance(&self.name, &batch);
                Work::Send(batch, members)
            }
            Due::Repair(position, cause) => Work::Repair(position, cause),
            Due::Nothing => {
                state.flushing = false;
                Work::Done
            }
        }
    }

    /// A stretch of the log was read for a repair: moves on behind it. Returns everybody who gets it.
    pub(super) fn repaired(&self, batch: &Batch) -> Members {
        let state = &mut *self.state.lock();
        self.settle(state);
        state.advance(&self.name, batch)
    }

    fn settle(&self, state: &mut State) {
        if state.sent != state.taken {
            state.sent = state.taken;
            self.settled.notify_waiters();
        }
    }

    /// Returns once nothing that was taken before is still to be sent: who has left by now gets no more.
    pub(super) async fn settled(&self) {
        let taken = self.state.lock().taken;
        loop {
            let settled = self.settled.notified();
            if self.state.lock().sent >= taken {
                return;
            }
            settled.await;
        }
    }

    /// The repair has reached the log's end.
    pub(super) fn end_repair(&self, position: MessageId) {
        let state = &mut *self.state.lock();
        self.settle(state);
        state.inbox.end_repair(position);
    }

    /// Members, and those on their way.
    pub(super) fn everybody(&self) -> (Vec<Arc<Connection>>, Vec<Arc<Connection>>) {
        let state = self.state.lock();
        (state.members.to_vec(), state.joiners.iter().map(|joiner| joiner.connection.clone()).collect())
    }

    /// Forgets what was held for a joiner, whose replay ends at the room's present position instead.
    pub(super) fn hold_from_here(&self, seat: u64) {
        let state = &mut *self.state.lock();
        if let Some(joiner) = state.joiners.iter_mut().find(|joiner| joiner.seat == seat) {
            joiner.frames.clear();
            joiner.bytes = 0;
            joiner.from = state.inbox.position();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Event;

    #[test]
    fn one_flusher_is_at_work_at_a_time() {
        let room = Room::new(RoomName::lobby(), None);
        room.open(MessageId::START);
        assert_eq!(room.begin_flush(), None, "nothing waits");
        assert!(room.push_notice(Event::Pong { r#ref: None }.frame()));
        assert_eq!(room.begin_flush(), Some(true));
        assert_eq!(room.begin_flush(), None, "somebody does it");
        assert!(matches!(room.next(), Work::Send(..)));
        assert!(matches!(room.next(), Work::Done));
        room.mark_stale(RepairCause::Hole);
        assert_eq!(room.begin_flush(), Some(false), "the log is read elsewhere");
    }
}
