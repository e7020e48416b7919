//! Finds rooms that have missed something, without reading each one's log: their logs are asked where they stand, many in one question.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Hub, READ_RETRY, SHARDS, room::Room};
use crate::{
    metrics::RepairCause,
    protocol::{MessageId, RoomName},
};

/// How often a room is looked at when nothing is suspected: a lost publication that nothing follows leaves no hole.
const EVERY: Duration = Duration::from_secs(60);
/// Rooms in one question.
const AT_ONCE: usize = 256;

impl Hub {
    /// Looks at all rooms when something may have been missed, and at each once a minute; for ever. Not needed where the log is in this process.
    pub async fn keep_checked(self: Arc<Self>) {
        if !self.broadcaster.is_remote() {
            return;
        }
        let mut tick = interval(EVERY / SHARDS as u32);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shards = self.shards.iter().cycle();
        loop {
            tokio::select! {
                () = self.suspicion.notified() => self.check(self.rooms(), RepairCause::Reconnect).await,
                _ = tick.tick() => if let Some(shard) = shards.next() {
                    let rooms = shard.rooms.read().values().cloned().collect();
                    self.check(rooms, RepairCause::Check).await;
                },
            }
        }
    }

    async fn check(&self, rooms: Vec<Arc<Room>>, cause: RepairCause) {
        let mut open: Vec<(Arc<Room>, MessageId)> = Vec::with_capacity(rooms.len());
        for room in rooms {
            match room.position() {
                Some(position) => open.push((room, position)),
                None if cause == RepairCause::Reconnect => room.mark_stale(cause), // read again once it is open
                None => {}
            }
        }
        for some in open.chunks(AT_ONCE) {
            let names: Vec<RoomName> = some.iter().map(|(room, _)| room.name.clone()).collect();
            let tops = loop {
                match self.broadcaster.tops(&names).await {
                    Ok(tops) => break tops,
                    Err(_) => sleep(READ_RETRY.mul_f64(fastrand::f64())).await,
                }
            };
            for ((room, before), top) in some.iter().zip(tops) {
                // Messages go on meanwhile.
                let agrees = top.is_some_and(|top| *before <= top && room.position().is_some_and(|now| top <= now));
                if !agrees {
                    room.mark_stale(cause);
                    self.flush_room(room.clone(), false);
                }
            }
        }
    }
}
