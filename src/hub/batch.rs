//! Publications joined into one piece, so that each member gets one write.

use std::collections::VecDeque;

use super::Connection;
use crate::{
    broadcaster::{Place, Publication, Stamp},
    protocol::{Frame, MessageId, RoomName},
    telemetry::trace::TraceContext,
};

/// Most bytes joined into one write.
const BATCH_BYTES: usize = 16 * 1024;

/// What waits in a room.
pub(super) enum Item {
    /// For every member.
    Message(Publication),
    /// For sessions that may see who is there.
    Notice(Frame),
}

impl Item {
    pub(super) fn place(&self) -> Option<Place> {
        self.message()?.place
    }

    fn message(&self) -> Option<&Publication> {
        match self {
            Self::Message(publication) => Some(publication),
            Self::Notice(_) => None,
        }
    }
}

/// Some publications as one piece.
pub(super) struct Batch {
    pub(super) frame: Frame,
    /// 0: a notice of who is there, for sessions that may see it.
    pub(super) messages: usize,
    /// Position of the last of them that has one.
    pub(super) last: Option<MessageId>,
    /// When the first of them came from its sender.
    pub(super) oldest: Option<Stamp>,
    /// Of those among them that are traced.
    pub(super) traces: Vec<(TraceContext, Option<MessageId>)>,
}

impl Batch {
    /// Whether every member gets it.
    pub(super) fn is_for_all(&self) -> bool {
        self.messages > 0
    }

    /// Whether a member of `room` gets it.
    pub(super) fn is_for(&self, room: &RoomName, member: &Connection) -> bool {
        self.is_for_all() || (member.is_session() && member.permissions().sees(room))
    }

    /// A stretch of a log in pieces that an outbox takes. Traces end with the live delivery.
    pub(super) fn split(publications: &[Publication]) -> Vec<Self> {
        let mut batches = Vec::new();
        let mut rest = publications;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(fitting(rest.iter()));
            batches.push(Self { traces: Vec::new(), ..Self::of(piece.iter()) });
            rest = tail;
        }
        batches
    }

    /// Joins what waits, up to the size of a batch; a notice goes by itself.
    pub(super) fn take(inbox: &mut VecDeque<Item>) -> Option<Self> {
        let batch = match inbox.front()? {
            Item::Notice(frame) => {
                Self { frame: frame.clone(), messages: 0, last: None, oldest: None, traces: Vec::new() }
            }
            Item::Message(_) => {
                let messages = inbox.iter().map_while(Item::message);
                Self::of(messages.clone().take(fitting(messages)))
            }
        };
        inbox.drain(..batch.messages.max(1));
        Some(batch)
    }

    fn of<'a>(publications: impl Iterator<Item = &'a Publication> + Clone) -> Self {
        let id = |publication: &Publication| publication.place.map(|place| place.id);
        let traced = |publication: &Publication| publication.trace.clone().map(|trace| (trace, id(publication)));
        Self {
            frame: Frame::join(publications.clone().map(|publication| &publication.frame)),
            messages: publications.clone().count(),
            last: publications.clone().filter_map(id).last(),
            oldest: publications.clone().filter_map(|publication| publication.received).min(),
            traces: publications.filter_map(traced).collect(),
        }
    }
}

/// How many of them make a batch, from the first on; at least one.
fn fitting<'a>(publications: impl Iterator<Item = &'a Publication>) -> usize {
    let mut bytes = 0;
    let fits = |publication: &&Publication| {
        bytes += publication.frame.wire_len();
        bytes <= BATCH_BYTES
    };
    publications.take_while(fits).count().max(1)
}
