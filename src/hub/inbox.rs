//! What waits in a room to be flushed, and how far in the room's log that is.
//!
//! Takes what comes in any order and gives it out in the log's: what came twice goes out once, and where something is missing the log is to be read
//! ([`Due::Repair`]). Knows no members.

use std::collections::VecDeque;

use super::batch::{Batch, Item};
use crate::{
    broadcaster::Publication,
    metrics::RepairCause,
    protocol::{Frame, MessageId},
};

/// Publications that may wait for the flusher; more and the room reads the log instead.
const SIZE: usize = 1024;

/// What is to be done next.
pub(super) enum Due {
    /// Send this.
    Batch(Batch),
    /// Read the log from here: something was missed.
    Repair(MessageId, RepairCause),
    Nothing,
}

/// See the module.
#[derive(Default)]
pub(super) struct Inbox {
    items: VecDeque<Item>,
    /// Of the last message given out; absent until the room is open.
    position: Option<MessageId>,
    /// Something was missed: read the log.
    stale: Option<RepairCause>,
    /// The log is being read; what is live is collected.
    repairing: bool,
}

impl Inbox {
    pub(super) fn position(&self) -> Option<MessageId> {
        self.position
    }

    pub(super) fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// Whether [`Inbox::next`] has something.
    pub(super) fn is_due(&self) -> bool {
        self.position.is_some() && !self.repairing && (self.is_stale() || !self.items.is_empty())
    }

    /// The log stood at `position` once the room was subscribed.
    pub(super) fn open(&mut self, position: MessageId) {
        self.position = Some(position);
        self.prune(position);
    }

    /// The log is to be read, for the reason that was there first.
    pub(super) fn miss(&mut self, cause: RepairCause) {
        self.stale.get_or_insert(cause);
    }

    /// Takes a publication, if it is the next one. If something is missing before it, the room is stale instead: the log has both.
    pub(super) fn push(&mut self, publication: Publication) {
        let Some(place) = publication.place else {
            // Ephemeral: gets through while the room keeps up, and is nobody's loss otherwise.
            if self.position.is_some() && self.stale.is_none() && !self.repairing && self.items.len() < SIZE {
                self.items.push_back(Item::Message(publication));
            }
            return;
        };
        let behind = if self.repairing { None } else { self.position };
        let last = self.items.iter().rev().find_map(Item::place).map(|place| place.id);
        match last.or(behind) {
            Some(last) if place.id <= last => {}
            Some(last) if place.prev != last => self.miss(RepairCause::Hole),
            _ if self.items.len() >= SIZE => self.miss(RepairCause::Overflow),
            _ => self.items.push_back(Item::Message(publication)),
        }
    }

    /// Takes a notice. False: there is no room for it.
    pub(super) fn push_notice(&mut self, frame: Frame) -> bool {
        let takes = self.position.is_some() && self.items.len() < SIZE;
        if takes {
            self.items.push_back(Item::Notice(frame));
        }
        takes
    }

    pub(super) fn next(&mut self) -> Due {
        if let Some(batch) = Batch::take(&mut self.items) {
            return Due::Batch(batch);
        }
        match (self.position, self.stale) {
            (Some(position), Some(cause)) => {
                self.stale = None;
                self.repairing = true;
                Due::Repair(position, cause)
            }
            _ => Due::Nothing,
        }
    }

    /// A batch was given out, from here or from the log.
    pub(super) fn pass(&mut self, batch: &Batch) {
        self.position = batch.last.or(self.position);
    }

    /// The repair has reached the log's end.
    pub(super) fn end_repair(&mut self, position: MessageId) {
        self.repairing = false;
        self.open(position);
    }

    /// Drops what the log has given already; what does not follow it exactly makes the room stale.
    fn prune(&mut self, position: MessageId) {
        self.items.retain(|item| item.place().is_none_or(|place| place.id > position));
        let first = self.items.iter().find_map(Item::place);
        if first.is_some_and(|first| first.prev != position) {
            self.items.retain(|item| matches!(item, Item::Notice(_)));
            self.miss(RepairCause::Hole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broadcaster::Place,
        protocol::{Event, RoomName},
    };

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

    fn opened(seq: u64) -> Inbox {
        let mut inbox = Inbox::default();
        inbox.open(id(seq));
        inbox
    }

    /// How many messages there are, and from where the log is to be read behind them.
    fn flushed(inbox: &mut Inbox) -> (usize, Option<MessageId>) {
        let mut messages = 0;
        loop {
            match inbox.next() {
                Due::Batch(batch) => {
                    messages += batch.messages;
                    inbox.pass(&batch);
                }
                Due::Repair(from, _) => return (messages, Some(from)),
                Due::Nothing => return (messages, None),
            }
        }
    }

    #[test]
    fn what_follows_goes_out_and_what_came_twice_does_not() {
        let mut inbox = Inbox::default();
        inbox.push(publication(1));
        assert!(!inbox.is_due(), "not before the room is open");
        inbox.open(id(1));
        assert!(!inbox.is_due(), "the log had it already");
        inbox.push(publication(2));
        inbox.push(publication(2));
        inbox.push(publication(3));
        assert!(inbox.is_due());
        assert_eq!(flushed(&mut inbox), (2, None));
        inbox.push(publication(1));
        assert!(!inbox.is_due());
    }

    #[test]
    fn ephemeral_ones_pass_in_order_and_move_nothing() {
        let mut inbox = Inbox::default();
        inbox.push(ephemeral());
        inbox.open(id(1));
        assert!(!inbox.is_due(), "nobody was there");
        inbox.push(ephemeral());
        inbox.push(publication(2));
        inbox.push(ephemeral());
        inbox.push(publication(3));
        assert_eq!(flushed(&mut inbox), (4, None));
        assert_eq!(inbox.position(), Some(id(3)));
        inbox.push(publication(5));
        inbox.push(ephemeral());
        assert!(inbox.is_stale());
        assert_eq!(flushed(&mut inbox), (0, Some(id(3))), "a hole: not past what is missing");
    }

    #[test]
    fn a_hole_makes_the_room_read_the_log_and_nothing_is_lost_meanwhile() {
        let mut inbox = opened(1);
        inbox.push(publication(2));
        inbox.push(publication(4));
        assert_eq!(flushed(&mut inbox), (1, Some(id(2))));
        inbox.push(publication(5));
        inbox.push(publication(6));
        assert!(!inbox.is_due(), "the log is being read");
        for batch in Batch::split(&[publication(3), publication(4), publication(5)]) {
            inbox.pass(&batch);
        }
        inbox.end_repair(id(5));
        assert_eq!(flushed(&mut inbox), (1, None), "6 follows, 5 came with the log");
    }

    #[test]
    fn a_hole_behind_the_repair_is_repaired_too() {
        let mut inbox = opened(1);
        inbox.push(publication(3));
        assert_eq!(flushed(&mut inbox), (0, Some(id(1))));
        inbox.push(publication(6));
        inbox.end_repair(id(4));
        assert_eq!(flushed(&mut inbox), (0, Some(id(4))));
    }
}
