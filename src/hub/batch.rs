//! Publications joined into one piece, so that each member gets one write.

use std::{collections::VecDeque, sync::Arc};

use super::Connection;
use crate::{
    broadcaster::{Place, Publication},
    protocol::{Frame, MessageId, RoomName},
    telemetry::trace::TraceContext,
};

/// Most bytes joined into one write.
const BATCH_BYTES: usize = 16 * 1024;

/// What a flusher reuses from one flush to the next.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) members: Vec<Arc<Connection>>,
    pub(super) frames: Vec<Frame>,
}

/// What waits in a room.
pub(super) enum Item {
    /// For every member.
    Message(Publication),
    /// For sessions that may see who is there.
    Notice(Frame),
}

impl Item {
    pub(super) fn place(&self) -> Option<Place> {
        match self {
            Self::Message(publication) => publication.place,
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
    /// Of those among them that are traced.
    pub(super) traces: Vec<(TraceContext, Option<MessageId>)>,
}

impl Batch {
    /// Whether a member of `room` gets it.
    pub(super) fn is_for(&self, room: &RoomName, member: &Connection) -> bool {
        self.messages > 0 || (member.is_session() && member.permissions().sees(room))
    }

    /// A stretch of a log in pieces that an outbox takes. Traces end with the live delivery.
    pub(super) fn split(publications: &[Publication]) -> Vec<Self> {
        let mut batches = Vec::new();
        let mut rest = publications;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|publication| {
                bytes += publication.frame.wire_len();
                bytes <= BATCH_BYTES
            });
            let (piece, tail) = rest.split_at(fits.count().max(1));
            let frames: Vec<Frame> = piece.iter().map(|publication| publication.frame.clone()).collect();
            let last = piece.last().and_then(|publication| publication.place).map(|place| place.id);
            batches.push(Self { frame: Frame::join(&frames), messages: frames.len(), last, traces: Vec::new() });
            rest = tail;
        }
        batches
    }

    /// Joins what waits, up to the size of a batch; a notice goes by itself.
    pub(super) fn take(inbox: &mut VecDeque<Item>, frames: &mut Vec<Frame>) -> Option<Self> {
        if let Some(Item::Notice(frame)) = inbox.front() {
            let notice = Self { frame: frame.clone(), messages: 0, last: None, traces: Vec::new() };
            inbox.pop_front();
            return Some(notice);
        }
        let (mut last, mut bytes, mut traces) = (None, 0, Vec::new());
        frames.clear();
        while let Some(Item::Message(publication)) = inbox.front() {
            bytes += publication.frame.wire_len();
            if bytes > BATCH_BYTES && !frames.is_empty() {
                break;
            }
            let Some(Item::Message(publication)) = inbox.pop_front() else { break };
            let id = publication.place.map(|place| place.id);
            last = id.or(last);
            traces.extend(publication.trace.map(|trace| (trace, id)));
            frames.push(publication.frame);
        }
        (!frames.is_empty()).then(|| Self { frame: Frame::join(frames), messages: frames.len(), last, traces })
    }
}
