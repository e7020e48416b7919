//! Sending what has gathered in a room to its members: by the publisher's own task where that is short, else by one of the room's own.

use std::{sync::Arc, time::Instant};

use tracing::Span;

use super::{
    Connection, Hub,
    batch::Batch,
    room::{INLINE, Room, Work},
};
use crate::{
    metrics::{Metrics, RepairCause},
    protocol::{Frame, MessageId},
    telemetry::trace,
};

/// Members whose memory is asked for at one time.
const WARM: usize = 16;
/// Batches that a publisher's own task sends before it hands over.
const INLINE_BATCHES: usize = 16;

impl Hub {
    /// Flushes a room if it needs it: at once where that is short and allowed, else in a task.
    pub(super) fn flush_room(&self, room: Arc<Room>, inline: bool) {
        match room.begin_flush() {
            None => {}
            Some(true) if inline => {
                for _ in 0..INLINE_BATCHES {
                    match room.next() {
                        Work::Send(batch, members) => self.send(&room, &batch, &members),
                        Work::Repair(from, cause) => return self.spawn_flusher(room, Some((from, cause))),
                        Work::Done => return,
                    }
                }
                self.spawn_flusher(room, None); // others keep publishing: not this publisher's task for ever
            }
            Some(_) => self.spawn_flusher(room, None),
        }
    }

    fn spawn_flusher(&self, room: Arc<Room>, repair: Option<(MessageId, RepairCause)>) {
        let Some(hub) = self.me.upgrade() else { return };
        self.tasks.spawn_until_stopped(async move {
            // Boxed: a flusher is spawned and moved often, and repairs seldom.
            if let Some((from, cause)) = repair {
                Box::pin(hub.repair(&room, from, cause)).await;
            }
            loop {
                match room.next() {
                    Work::Send(batch, members) => hub.send_paced(&room, &batch, &members).await,
                    Work::Repair(from, cause) => Box::pin(hub.repair(&room, from, cause)).await,
                    Work::Done => return,
                }
            }
        });
    }

    /// Begins to deliver a batch; what it costs and how late it is counts once, whoever many get it.
    fn delivery<'a>(&'a self, room: &Room, batch: &'a Batch) -> Delivery<'a> {
        let spans = batch.traces.iter().map(|(remote, id)| trace::deliver(remote, &room.name, *id)).collect();
        Delivery { metrics: &self.metrics, batch, begun: Instant::now(), spans }
    }

    /// One write per member.
    fn send(&self, room: &Room, batch: &Batch, members: &[Arc<Connection>]) {
        let delivery = self.delivery(room, batch);
        send_to(members, &batch.frame);
        delivery.done(members.len());
    }

    /// One write per member of a large room: lets others run in between.
    pub(super) async fn send_paced(&self, room: &Room, batch: &Batch, members: &[Arc<Connection>]) {
        let delivery = self.delivery(room, batch);
        for some in members.chunks(INLINE) {
            send_to(some, &batch.frame);
            tokio::task::yield_now().await;
        }
        delivery.done(members.len());
    }
}

/// One write for each.
fn send_to(members: &[Arc<Connection>], frame: &Frame) {
    in_turn(members, |member| member.send(frame));
}

/// Does it to one connection after the other, their memory asked for ahead.
pub(super) fn in_turn(connections: &[Arc<Connection>], act: impl Fn(&Connection)) {
    for some in connections.chunks(WARM) {
        some.iter().for_each(|connection| connection.warm());
        some.iter().for_each(|connection| act(connection));
    }
}

/// A batch on its way to the members.
struct Delivery<'a> {
    metrics: &'a Metrics,
    batch: &'a Batch,
    begun: Instant,
    spans: Vec<Span>,
}

impl Delivery<'_> {
    fn done(self, members: usize) {
        let Self { metrics, batch, begun, spans } = self;
        for span in spans {
            trace::delivered(&span, members);
            span.in_scope(|| tracing::debug!(members, "delivered"));
        }
        if batch.messages > 0 {
            metrics.deliver_seconds.observe(begun.elapsed().as_secs_f64());
        }
        metrics.messages_out.inc_by((batch.messages * members) as u64);
        metrics.bytes_out.inc_by((batch.frame.wire_len() * members) as u64);
        if let Some(received) = batch.oldest {
            metrics.latency_seconds.observe(received.elapsed());
        }
    }
}
