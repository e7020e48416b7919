//! Publications joined into one piece, so that each member gets one write.

use std::{collections::VecDeque, sync::Arc};

use super::Connection;
use crate::{
    broadcaster::Publication,
    protocol::{Frame, MessageId},
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

/// Some publications as one piece.
pub(super) struct Batch {
    pub(super) frame: Frame,
    pub(super) messages: usize,
    /// Position of the last of them that has one.
    pub(super) last: Option<MessageId>,
    /// Of those among them that are traced.
    pub(super) traces: Vec<(TraceContext, Option<MessageId>)>,
}

impl Batch {
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

    /// Joins what waits, up to the size of a batch.
    pub(super) fn take(inbox: &mut VecDeque<Publication>, frames: &mut Vec<Frame>) -> Option<Self> {
        let (mut last, mut bytes, mut traces) = (None, 0, Vec::new());
        frames.clear();
        while let Some(publication) = inbox.front() {
            bytes += publication.frame.wire_len();
            if bytes > BATCH_BYTES && !frames.is_empty() {
                break;
            }
            let Some(publication) = inbox.pop_front() else { break };
            let id = publication.place.map(|place| place.id);
            last = id.or(last);
            traces.extend(publication.trace.map(|trace| (trace, id)));
            frames.push(publication.frame);
        }
        (!frames.is_empty()).then(|| Self { frame: Frame::join(frames), messages: frames.len(), last, traces })
    }
}
