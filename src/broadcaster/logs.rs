//! The logs of a single node: a bounded ring per room in memory, bounded over all rooms, by age too. Knows nobody who listens.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use super::{Draft, Page, Place, Publication, Relation, Stamp, senders::Senders};
use crate::{
    config,
    protocol::{ClientId, Frame, Message, MessageId, RoomName, UserId},
};

/// What an entry costs besides its bytes, roughly.
const ENTRY_OVERHEAD: usize = 200;

/// See the module.
pub(super) struct Logs {
    rooms: HashMap<RoomName, Log>,
    /// Every entry of every log from the oldest on; some may be gone from their log by now.
    order: VecDeque<Reference>,
    pub(super) senders: Senders,
    entries: usize,
    bytes: usize,
    /// The last epoch given out.
    epoch: u64,
    messages_max: usize,
    bytes_max: usize,
    age_max: Duration,
}

struct Log {
    top: MessageId,
    entries: VecDeque<Entry>,
}

/// A message, without what its log knows: all its entries are of one epoch, one after the other.
struct Entry {
    seq: u64,
    frame: Frame,
    received: Stamp,
}

/// Where an entry is, and how old.
struct Reference {
    room: RoomName,
    id: MessageId,
    at_ms: i64,
}

impl Entry {
    fn cost(&self) -> usize {
        self.frame.wire_len() + ENTRY_OVERHEAD
    }
}

impl Log {
    fn place(&self, seq: u64) -> Place {
        let id = MessageId { seq, ..self.top };
        Place { id, prev: if seq == 1 { MessageId::START } else { MessageId { seq: seq - 1, ..id } } }
    }

    fn oldest(&self) -> Option<MessageId> {
        self.entries.front().map(|entry| MessageId { seq: entry.seq, ..self.top })
    }

    fn publication(&self, room: &RoomName, entry: &Entry) -> Publication {
        Publication {
            room: room.clone(),
            place: Some(self.place(entry.seq)),
            frame: entry.frame.clone(),
            trace: None,
            received: Some(entry.received),
        }
    }
}

impl Logs {
    pub(super) fn new(history: &config::History) -> Self {
        Self {
            rooms: HashMap::new(),
            order: VecDeque::new(),
            senders: Senders::default(),
            entries: 0,
            bytes: 0,
            epoch: 0,
            messages_max: usize::try_from(history.messages).unwrap_or(usize::MAX),
            bytes_max: history.local_bytes,
            age_max: history.age,
        }
    }

    pub(super) fn append(&mut self, draft: &Draft, now_ms: i64) -> (Publication, MessageId) {
        let room = &draft.room;
        let log = match self.rooms.get_mut(room) {
            Some(log) => log,
            None => {
                // Later than any before it, so that a forgotten log never reuses a position.
                self.epoch = (self.epoch + 1).max(now_ms.unsigned_abs());
                let top = MessageId { epoch: self.epoch, seq: 0 };
                self.rooms.entry(room.clone()).or_insert(Log { top, entries: VecDeque::new() })
            }
        };
        log.top.seq += 1;
        let id = log.top;
        let publication = publication(draft, Some(log.place(id.seq)), now_ms);
        let entry = Entry { seq: id.seq, frame: publication.frame.clone(), received: draft.received };
        self.bytes += entry.cost();
        self.entries += 1;
        log.entries.push_back(entry);
        let too_many = log.entries.len() > self.messages_max;
        self.order.push_back(Reference { room: room.clone(), id, at_ms: now_ms });
        if too_many {
            self.drop_oldest_of(room);
            self.forget_dead_references();
        }
        (publication, id)
    }

    /// Entries dropped by their own room's bound leave a reference in `order`, mostly near its front. Two at most: a message may drop one entry.
    fn forget_dead_references(&mut self) {
        for _ in 0..2 {
            if self.order.front().is_none_or(|Reference { room, id, .. }| self.is_there(room, *id)) {
                return;
            }
            self.order.pop_front();
        }
    }

    /// Drops what is too old or too much over all rooms.
    pub(super) fn trim(&mut self, now_ms: i64, subscribed: &HashSet<RoomName>) {
        let horizon = now_ms.saturating_sub(i64::try_from(self.age_max.as_millis()).unwrap_or(i64::MAX));
        while self.order.front().is_some_and(|oldest| self.bytes > self.bytes_max || oldest.at_ms < horizon) {
            let Some(Reference { room, id, .. }) = self.order.pop_front() else { break };
            if self.is_there(&room, id) {
                self.drop_oldest_of(&room);
                self.forget_if_idle(&room, subscribed);
            }
        }
        // Those behind an old one of a room in which little is said.
        if self.order.len() > 2 * self.entries + 1024 {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|Reference { room, id, .. }| self.is_there(room, *id));
            self.order = order;
        }
    }

    /// Whether a log still has an entry.
    fn is_there(&self, room: &RoomName, id: MessageId) -> bool {
        self.rooms.get(room).and_then(Log::oldest).is_some_and(|oldest| oldest <= id)
    }

    fn drop_oldest_of(&mut self, room: &RoomName) {
        if let Some(entry) = self.rooms.get_mut(room).and_then(|log| log.entries.pop_front()) {
            self.bytes -= entry.cost();
            self.entries -= 1;
        }
    }

    pub(super) fn forget_if_idle(&mut self, room: &RoomName, subscribed: &HashSet<RoomName>) {
        let idle = self.rooms.get(room).is_some_and(|log| log.entries.is_empty());
        if idle && !subscribed.contains(room) {
            self.rooms.remove(room);
        }
    }

    pub(super) fn read(&self, room: &RoomName, after: MessageId, limit: usize) -> Page {
        let Some(log) = self.rooms.get(room) else {
            let relation = relation(after == MessageId::START);
            return Page { publications: Vec::new(), relation, through: MessageId::START, top: MessageId::START };
        };
        let first = log.oldest().map_or(log.top.seq + 1, |oldest| oldest.seq);
        let same_log = after == MessageId::START || after.epoch == log.top.epoch;
        let continuous = same_log && after.seq + 1 >= first && after.seq <= log.top.seq;
        let skip = if continuous { usize::try_from(after.seq + 1 - first).unwrap_or(usize::MAX) } else { 0 };
        let entries = log.entries.iter().skip(skip).take(limit);
        let publications: Vec<_> = entries.map(|entry| log.publication(room, entry)).collect();
        let through = publications.last().and_then(|last| last.place).map_or(log.top, |place| place.id);
        Page { publications, relation: relation(continuous), through, top: log.top }
    }

    /// What comes before a position, or is the newest.
    pub(super) fn read_back(&self, room: &RoomName, before: Option<MessageId>, limit: usize) -> Page {
        let top = self.rooms.get(room).map_or(MessageId::START, |log| log.top);
        let end = before.map_or(top.seq + 1, |before| before.seq);
        let known = top != MessageId::START;
        let continuous = match before {
            None => true,
            Some(before) if !known => before == MessageId::START,
            Some(before) => before.epoch == top.epoch && before.seq <= top.seq + 1,
        };
        let mut publications = Vec::new();
        if let Some(log) = self.rooms.get(room).filter(|_| continuous) {
            let entries = log.entries.iter().rev().skip_while(|entry| entry.seq >= end).take(limit);
            publications.extend(entries.map(|entry| log.publication(room, entry)));
            publications.reverse();
        }
        Page { publications, relation: relation(continuous), through: top, top }
    }
}

/// This log never rolls back: it ends with the process.
fn relation(continuous: bool) -> Relation {
    if continuous { Relation::Exact } else { Relation::Reset }
}

/// Encodes a draft, once for all members.
pub(super) fn publication(draft: &Draft, place: Option<Place>, now_ms: i64) -> Publication {
    let mut client_id = ClientId::buffer();
    let message = Message {
        kind: &draft.kind,
        id: place.map(|place| place.id),
        room: &draft.room,
        from: draft.user.as_ref().map(UserId::as_str),
        client_id: draft.client.encode(&mut client_id),
        timestamp_ms: now_ms,
        n: draft.n(),
        payload: &draft.payload,
    };
    Publication {
        room: draft.room.clone(),
        place,
        frame: message.frame(),
        trace: draft.trace.clone(),
        received: Some(draft.received),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn logs(messages_max: u64, local_bytes: usize) -> Logs {
        let age = Duration::from_secs(60);
        Logs::new(&config::History { messages: messages_max, age, local_bytes })
    }

    fn draft(room: &str) -> Draft {
        Draft {
            room: RoomName::new(room).unwrap(),
            kind: "chat".into(),
            client: ClientId::random(),
            user: None,
            payload: RawValue::from_string("1".into()).unwrap(),
            counted: None,
            ephemeral: false,
            trace: None,
            received: Stamp::now(),
        }
    }

    fn seqs(page: &Page) -> Vec<u64> {
        page.publications.iter().flat_map(|publication| publication.place).map(|place| place.id.seq).collect()
    }

    #[test]
    fn positions_chain_and_reads_continue_exactly() {
        let (mut logs, room) = (logs(3, usize::MAX), draft("r").room);
        assert_eq!(logs.read(&room, MessageId::START, 9).relation, Relation::Exact);
        let first = Place { id: MessageId { epoch: 5, seq: 1 }, prev: MessageId::START };
        assert_eq!(logs.append(&draft("r"), 5).0.place, Some(first));
        assert_eq!(logs.append(&draft("r"), 6).0.place.map(|place| place.prev), Some(first.id));
        assert_eq!(seqs(&logs.read(&room, MessageId::START, 9)), [1, 2]);
        assert_eq!(seqs(&logs.read(&room, first.id, 9)), [2]);
        assert_eq!(seqs(&logs.read(&room, MessageId::START, 1)), [1]);

        logs.append(&draft("r"), 7);
        let top = logs.append(&draft("r"), 7).1;
        let from_first = logs.read(&room, first.id, 9);
        assert!(from_first.relation == Relation::Exact && seqs(&from_first) == [2, 3, 4] && from_first.top == top);
        let trimmed = logs.read(&room, MessageId::START, 9);
        assert!(trimmed.relation == Relation::Reset && seqs(&trimmed) == [2, 3, 4]);
        for never in [MessageId { epoch: 5, seq: 9 }, MessageId { epoch: 4, seq: 2 }] {
            assert_eq!(logs.read(&room, never, 9).relation, Relation::Reset, "{never}");
        }
    }

    #[test]
    fn history_is_read_backwards_too() {
        let (mut logs, room) = (logs(4, usize::MAX), draft("r").room);
        assert!(logs.read_back(&room, None, 9).publications.is_empty());
        let ids: Vec<MessageId> = (0..6).map(|n| logs.append(&draft("r"), n).1).collect();
        assert_eq!(seqs(&logs.read_back(&room, None, 3)), [4, 5, 6]);
        assert_eq!(seqs(&logs.read_back(&room, Some(ids[3]), 9)), [3]);
        assert_eq!(seqs(&logs.read_back(&room, Some(ids[0]), 9)), [] as [u64; 0], "dropped by now");
        let other = logs.read_back(&room, Some(MessageId { epoch: 9, seq: 5 }), 9);
        assert!(other.relation == Relation::Reset && other.publications.is_empty());
    }

    #[test]
    fn a_forgotten_room_opens_a_later_epoch() {
        let (mut logs, room) = (logs(9, usize::MAX), draft("r").room);
        let old = logs.append(&draft("r"), 1000).1;
        let nobody = HashSet::new();
        logs.trim(61_001, &nobody);
        assert!(logs.rooms.is_empty() && logs.order.is_empty() && logs.bytes == 0 && logs.entries == 0);
        let new = logs.append(&draft("r"), 900).1;
        assert!(new > old && new.seq == 1, "even when the clock went back");
        logs.trim(99_999, &HashSet::from([room.clone()]));
        assert_eq!(logs.read(&room, new, 9).top, new, "a room with members keeps its position");
        logs.forget_if_idle(&room, &nobody);
        assert!(logs.rooms.is_empty(), "until they have left");
    }

    #[test]
    fn bounds_hold_over_all_rooms_and_nothing_leaks() {
        let mut logs = logs(10, 20_000);
        for n in 0..5000 {
            logs.append(&draft(if n % 10 == 0 { "rare" } else { "busy" }), n);
            logs.trim(n, &HashSet::new());
            assert!(logs.bytes <= 20_000 && logs.order.len() <= 2 * logs.entries + 1025);
        }
        let kept: usize = logs.rooms.values().map(|log| log.entries.len()).sum();
        assert_eq!(kept, logs.entries);
        assert!(logs.rooms.values().all(|log| log.entries.len() <= 10));
    }
}
