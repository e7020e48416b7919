//! One room on this node: its members, what is to be flushed to them, and how far they are in the room's log.
//!
//! One lock guards all of it and is never held across a write to a socket. Reads no log itself: it says from where to read ([`Work::Repair`]).

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OnceCell},
    time::Instant,
};

use super::{
    Connection,
    batch::{Batch, Item},
    presence::Presence,
    replay::Shelf,
};
use crate::{
    broadcaster::Publication,
    metrics::RepairCause,
    protocol::{Close, Frame, MessageId, RoomName},
};

/// Publications that may wait for the flusher; more and the room reads the log instead.
const INBOX: usize = 1024;
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

struct State {
    members: Members,
    joiners: Vec<Joiner>,
    inbox: VecDeque<Item>,
    /// Of the last message flushed; absent until the room is open.
    position: Option<MessageId>,
    next_seat: u64,
    /// Batches taken by the flusher, and those of them that it has sent.
    taken: u64,
    sent: u64,
    /// A flusher is at work.
    flushing: bool,
    /// Something was missed: read the log.
    stale: Option<RepairCause>,
    /// The log is being read; the inbox collects what is live.
    repairing: bool,
    empty_since: Option<Instant>,
}

impl State {
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.joiners.is_empty()
    }

    /// The log is to be read, for the reason that was there first.
    fn miss(&mut self, cause: RepairCause) {
        self.stale.get_or_insert(cause);
    }

    /// Moves on behind a batch. Returns everybody who gets it now.
    fn advance(&mut self, room: &RoomName, batch: &Batch) -> Members {
        self.taken += 1;
        self.position = batch.last.or(self.position);
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
        let state = State {
            members: Members::default(),
            joiners: Vec::new(),
            inbox: VecDeque::new(),
            position: None,
            next_seat: 0,
            taken: 0,
            sent: 0,
            flushing: false,
            stale: None,
            repairing: false,
            empty_since: None,
        };
        Self {
            name,
            opened: OnceCell::new(),
            state: Mutex::new(state),
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
        state.joiners.push(Joiner { connection, seat, from: state.position, frames: Vec::new(), bytes: 0 });
        (seat, first)
    }

    /// The room is subscribed and its log stood at `position` after that.
    pub(super) fn open(&self, position: MessageId) {
        let state = &mut *self.state.lock();
        state.position = Some(position);
        state.joiners.iter_mut().for_each(|joiner| joiner.from = Some(position));
        prune(state, position);
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
        self.state.lock().position
    }

    /// Takes a publication, if it is the next one. If something is missing before it, the room is stale instead: the log has both.
    pub(super) fn push(&self, publication: Publication) {
        let state = &mut *self.state.lock();
        let Some(place) = publication.place else {
            // Ephemeral: gets through while the room keeps up, and is nobody's loss otherwise.
            if state.position.is_some() && state.stale.is_none() && !state.repairing && state.inbox.len() < INBOX {
                state.inbox.push_back(Item::Message(publication));
            }
            return;
        };
        let behind = if state.repairing { None } else { state.position };
        let last = state.inbox.iter().rev().find_map(Item::place).map(|place| place.id);
        match last.or(behind) {
            Some(last) if place.id <= last => {}
            Some(last) if place.prev != last => state.miss(RepairCause::Hole),
            _ if state.inbox.len() >= INBOX => state.miss(RepairCause::Overflow),
            _ => state.inbox.push_back(Item::Message(publication)),
        }
    }

    /// Takes a frame for the room's sessions, which comes to them in order with its messages. False: there is no room for it.
    pub(super) fn push_notice(&self, frame: Frame) -> bool {
        let state = &mut *self.state.lock();
        let takes = state.position.is_some() && state.inbox.len() < INBOX;
        if takes {
            state.inbox.push_back(Item::Notice(frame));
        }
        takes
    }

    /// Something may have been missed. In a room that is being opened too: its log may have been looked at before that.
    pub(super) fn mark_stale(&self, cause: RepairCause) {
        self.state.lock().miss(cause);
    }

    /// Becomes the room's flusher, if there is something to do and nobody does it. `Some(true)`: small enough to do it at once.
    pub(super) fn begin_flush(&self) -> Option<bool> {
        let state = &mut *self.state.lock();
        let open = state.position.is_some() && !state.flushing && !state.repairing;
        if !open || (state.inbox.is_empty() && state.stale.is_none()) {
            return None;
        }
        state.flushing = true;
        Some(state.stale.is_none() && state.members.len() + state.joiners.len() <= INLINE)
    }

    /// The flusher's next piece of work, and whom it is for; what it took before has been sent.
    pub(super) fn next(&self) -> Work {
        let state = &mut *self.state.lock();
        self.settle(state);
        if let Some(batch) = Batch::take(&mut state.inbox) {
            let members = state.advance(&self.name, &batch);
            return Work::Send(batch, members);
        }
        if let Some(position) = state.position
            && let Some(cause) = state.stale.take()
        {
            state.repairing = true;
            return Work::Repair(position, cause);
        }
        state.flushing = false;
        Work::Done
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
        end_repair(state, position);
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
            joiner.from = state.position;
        }
    }
}

fn end_repair(state: &mut State, position: MessageId) {
    state.position = Some(position);
    state.repairing = false;
    prune(state, position);
}

/// Drops from the inbox what the log has given already; what does not follow it exactly makes the room stale.
fn prune(state: &mut State, position: MessageId) {
    state.inbox.retain(|item| item.place().is_none_or(|place| place.id > position));
    let first = state.inbox.iter().find_map(Item::place);
    if first.is_some_and(|first| first.prev != position) {
        state.inbox.retain(|item| matches!(item, Item::Notice(_)));
        state.miss(RepairCause::Hole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{broadcaster::Place, protocol::Event};

    fn id(seq: u64) -> MessageId {
        if seq == 0 { MessageId::START } else { MessageId { epoch: 1, seq } }
    }

    fn publication(seq: u64) -> Publication {
        let frame = Event::Pong { r#ref: None }.frame();
        let place = Some(Place { id: id(seq), prev: id(seq - 1) });
        Publication { room: RoomName::lobby(), place, frame, trace: None, received: None }
    }

    fn ephemeral() -> Publication {
        Publication { place: None, ..publication(1) }
    }

    fn flushed(room: &Room) -> (usize, Option<MessageId>) {
        let mut messages = 0;
        loop {
            match room.next() {
                Work::Send(batch, _) => messages += batch.messages,
                Work::Repair(from, _) => return (messages, Some(from)),
                Work::Done => return (messages, None),
            }
        }
    }

    #[test]
    fn what_follows_is_flushed_and_what_came_twice_is_not() {
        let room = Room::new(RoomName::lobby(), None);
        room.push(publication(1));
        assert_eq!(room.begin_flush(), None, "not before the room is open");
        room.open(id(1));
        assert_eq!(room.begin_flush(), None, "the log had it already");
        room.push(publication(2));
        room.push(publication(2));
        room.push(publication(3));
        assert_eq!(room.begin_flush(), Some(true));
        assert_eq!(room.begin_flush(), None, "one flusher at a time");
        assert_eq!(flushed(&room), (2, None));
        room.push(publication(1));
        assert_eq!(room.begin_flush(), None);
    }

    #[test]
    fn ephemeral_ones_pass_in_order_and_move_nothing() {
        let room = Room::new(RoomName::lobby(), None);
        room.push(ephemeral());
        room.open(id(1));
        assert_eq!(room.begin_flush(), None, "nobody was there");
        room.push(ephemeral());
        room.push(publication(2));
        room.push(ephemeral());
        room.push(publication(3));
        assert_eq!(room.begin_flush(), Some(true));
        assert_eq!(flushed(&room), (4, None));
        assert_eq!(room.position(), Some(id(3)));
        room.push(publication(5));
        room.push(ephemeral());
        assert_eq!(room.begin_flush(), Some(false));
        assert_eq!(flushed(&room), (0, Some(id(3))), "a hole: not past what is missing");
    }

    #[test]
    fn a_hole_makes_the_room_read_the_log_and_nothing_is_lost_meanwhile() {
        let room = Room::new(RoomName::lobby(), None);
        room.open(id(1));
        room.push(publication(2));
        room.push(publication(4));
        assert_eq!(room.begin_flush(), Some(false));
        assert_eq!(flushed(&room), (1, Some(id(2))));
        room.push(publication(5));
        room.push(publication(6));
        assert_eq!(room.begin_flush(), None, "the flusher is reading");
        for batch in Batch::split(&[publication(3), publication(4), publication(5)]) {
            room.repaired(&batch);
        }
        room.end_repair(id(5));
        assert_eq!(flushed(&room), (1, None), "6 follows, 5 came with the log");
    }

    #[test]
    fn a_hole_behind_the_repair_is_repaired_too() {
        let room = Room::new(RoomName::lobby(), None);
        room.open(id(1));
        room.push(publication(3));
        assert_eq!(room.begin_flush(), Some(false));
        assert_eq!(flushed(&room), (0, Some(id(1))));
        room.push(publication(6));
        room.end_repair(id(4));
        assert_eq!(flushed(&room), (0, Some(id(4))));
    }
}
