//! What a joiner missed: read from the log page by page, and sent at the pace of its socket.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{Connection, Hub, batch::Batch, room::Room};
use crate::{
    broadcaster::{Page, Publication, Relation},
    metrics::RepairCause,
    protocol::{Close, MessageId},
};

/// Longest that a joiner waits for a node that is behind it.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(10);
/// How often a joiner looks whether its node has caught up with it.
const CATCH_UP_POLL: Duration = Duration::from_millis(20);

/// The page of a room's log that was read last, kept while others wait for theirs: after a lost node a whole room comes back at once, from the
/// same few positions.
#[derive(Default)]
pub(super) struct Shelf {
    /// With the position it was read from.
    last: Mutex<Option<(MessageId, Arc<Page>)>>,
    waiting: AtomicUsize,
}

/// Somebody in line.
struct Waiting<'a>(&'a Shelf);

impl<'a> Waiting<'a> {
    fn at(shelf: &'a Shelf) -> Self {
        shelf.waiting.fetch_add(1, Ordering::Relaxed);
        Self(shelf)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1
            && let Ok(mut last) = self.0.last.try_lock()
        {
            *last = None;
        }
    }
}

/// What follows a position.
pub(super) struct Stretch {
    page: Arc<Page>,
    /// Publications of the page before the position.
    skip: usize,
    /// How it relates to the position.
    pub(super) relation: Relation,
}

impl Shelf {
    /// One read of the log at a time; who has waited may find what it wants.
    pub(super) async fn read(&self, hub: &Hub, room: &Room, after: MessageId) -> Stretch {
        let _waiting = Waiting::at(self);
        let mut last = self.last.lock().await;
        if let Some(found) = last.as_ref().and_then(|(from, page)| Stretch::in_page(page, *from, after)) {
            return found;
        }
        let page = Arc::new(hub.read(&room.name, after).await);
        *last = Some((after, page.clone()));
        Stretch { relation: page.relation, page, skip: 0 }
    }
}

impl Stretch {
    /// What follows `after` in a page that was read from `from` on. Only where that is something: who has the page already wants the next.
    fn in_page(page: &Arc<Page>, from: MessageId, after: MessageId) -> Option<Self> {
        let skip = if from == after {
            0
        } else {
            let at = |publication: &Publication| publication.place.is_some_and(|place| place.id == after);
            page.publications.iter().position(at)? + 1
        };
        (skip < page.publications.len()).then(|| Self {
            relation: if skip > 0 { Relation::Exact } else { page.relation },
            page: page.clone(),
            skip,
        })
    }

    /// Up to `end`.
    fn until(&self, end: MessageId) -> &[Publication] {
        let rest = self.page.publications.get(self.skip..).unwrap_or_default();
        let count = rest.partition_point(|publication| publication.place.is_some_and(|place| place.id <= end));
        rest.get(..count).unwrap_or_default()
    }
}

impl Hub {
    /// Sends what the log has, beginning with `stretch`, up to where live messages are held. Ends when the connection leaves the room meanwhile.
    pub(super) async fn replay(&self, room: &Room, seat: u64, connection: &Connection, mut stretch: Stretch) {
        while let Some(end) = room.replay_end(seat) {
            for batch in Batch::split(stretch.until(end)) {
                if room.replay_end(seat).is_none() {
                    return;
                }
                self.metrics.messages_out.inc_by(batch.messages as u64);
                connection.send(&batch.frame);
                connection.drained().await;
            }
            let from = stretch.page.through;
            if from >= end || !connection.is_open() {
                return;
            }
            stretch = room.shelf.read(self, room, from).await;
            if stretch.relation != Relation::Exact {
                // Trimmed away while a slow joiner took its time: it starts over rather than miss something in silence.
                return connection.close(Close::Restart { after_ms: 0 });
            }
        }
    }

    /// A client that comes from another node may be ahead of this one, whose subscription lags. What it has already must not reach it again.
    pub(super) async fn catch_up(&self, room: &Arc<Room>, seat: u64, connection: &Connection, after: MessageId) {
        if room.replay_end(seat).is_none_or(|end| end >= after) {
            return;
        }
        room.mark_stale(RepairCause::Behind);
        self.flush_room(room.clone(), false);
        let caught_up = async {
            while room.replay_end(seat).is_some() && room.position().is_some_and(|position| position < after) {
                sleep(CATCH_UP_POLL).await;
            }
        };
        match timeout(CATCH_UP_PATIENCE, caught_up).await {
            Ok(()) => room.hold_from_here(seat),
            Err(_) => connection.close(Close::Restart { after_ms: 0 }),
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
        MessageId { epoch: 1, seq }
    }

    fn page(seqs: std::ops::RangeInclusive<u64>, relation: Relation) -> Arc<Page> {
        let (through, top) = (id(*seqs.end()), id(99));
        let publication = |seq| Publication {
            room: RoomName::lobby(),
            place: Some(Place { id: id(seq), prev: id(seq - 1) }),
            frame: Event::Pong { r#ref: None }.frame(),
            trace: None,
            received: None,
        };
        Arc::new(Page { publications: seqs.map(publication).collect(), relation, through, top })
    }

    #[test]
    fn a_page_serves_every_position_in_it() {
        let seqs = |stretch: &Stretch| -> Vec<u64> {
            stretch.until(id(8)).iter().flat_map(|publication| publication.place).map(|place| place.id.seq).collect()
        };
        let found = |after| Stretch::in_page(&page(5..=9, Relation::Exact), id(4), after);
        assert_eq!(seqs(&found(id(4)).unwrap()), [5, 6, 7, 8]);
        assert_eq!(seqs(&found(id(7)).unwrap()), [8]);
        assert!(found(id(9)).is_none() && found(id(3)).is_none(), "the next page, and one before");
        assert!(found(MessageId { epoch: 2, seq: 7 }).is_none(), "of another log");
        let trimmed = |after| Stretch::in_page(&page(5..=9, Relation::Reset), id(1), after).unwrap().relation;
        assert_eq!(
            (trimmed(id(1)), trimmed(id(6))),
            (Relation::Reset, Relation::Exact),
            "its own position is gone; later ones are not"
        );
    }
}
