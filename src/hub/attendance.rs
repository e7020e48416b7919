//! Keeps the rooms' [`Presence`] true: tells the broadcaster who has come and gone, renews the node's leases, and tells sessions what has changed.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{Connection, Hub, SHARDS, Shard, presence::Presence, room::Room};
use crate::{
    broadcaster::ReadError,
    config,
    protocol::{RoomName, Roster},
};

/// How often rooms that have something to say are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Rooms that are seen to at one time.
const CONCURRENT: usize = 16;
/// Rooms whose leases are renewed by one call, for which Redis does nothing else.
const AT_ONCE: usize = 64;
/// How often a lease is renewed before it would end.
const RENEWALS: u32 = 3;

/// What the hub keeps for the presence of all rooms.
pub(super) struct Desk {
    settings: config::Presence,
    /// Rooms to look at.
    pending: Mutex<HashSet<RoomName>>,
    /// What others have said may have been missed in every room.
    doubted: Notify,
}

impl Desk {
    pub(super) fn new(settings: config::Presence) -> Self {
        Self { settings, pending: Mutex::default(), doubted: Notify::new() }
    }

    /// Of a room that begins; the lobby, where everybody is, has none.
    pub(super) fn open(&self, room: &RoomName) -> Option<Mutex<Presence>> {
        let kept = self.settings.enabled && room.as_str() != RoomName::LOBBY;
        kept.then(|| Mutex::new(Presence::new()))
    }

    pub(super) fn entered(&self, room: &Room, connection: &Connection) {
        self.change(room, |presence| presence.enter(connection.occupant()));
    }

    pub(super) fn left(&self, room: &Room, connection: &Connection) {
        let until = Instant::now() + self.settings.linger;
        self.change(room, |presence| presence.leave(&connection.occupant(), until));
    }

    pub(super) fn learn(&self, room: &Room, roster: Roster) {
        self.change(room, |presence| presence.learn(roster));
    }

    /// What others have said may have been missed: every room's lease is renewed, which tells.
    pub(super) fn doubt(&self) {
        self.doubted.notify_one();
    }

    fn change(&self, room: &Room, change: impl FnOnce(&mut Presence)) {
        let Some(presence) = &room.presence else { return };
        let pending = {
            let presence = &mut *presence.lock();
            change(presence);
            presence.is_pending()
        };
        if pending {
            self.pending.lock().insert(room.name.clone());
        }
    }
}

impl Hub {
    /// Sees to the rooms' presence until the node goes away.
    pub async fn keep_presence(self: Arc<Self>) {
        if !self.desk.settings.enabled {
            return;
        }
        let mut tick = every(TICK);
        let mut renewal = every(self.desk.settings.lease / RENEWALS / SHARDS as u32);
        let mut shards = self.shards.iter().cycle();
        while !self.closing.load(Ordering::SeqCst) {
            tokio::select! {
                _ = tick.tick() => self.see_to_rooms().await,
                _ = renewal.tick() => if let Some(shard) = shards.next() {
                    self.renew_leases(shard).await;
                },
                () = self.desk.doubted.notified() => for shard in &self.shards {
                    if !self.renew_leases(shard).await {
                        break; // it is said again when Redis is back
                    }
                },
            }
        }
    }

    /// Who is in a room, over all nodes. `None`: that is not kept.
    pub async fn presence(&self, room: &RoomName) -> Option<Result<Roster, ReadError>> {
        if !self.desk.settings.enabled || room.as_str() == RoomName::LOBBY {
            return None;
        }
        Some(self.broadcaster.roster(room, self.desk.settings.events_max).await)
    }

    /// The node goes away: those who were here count as there for `presence.linger` more. By then they are on another node.
    pub async fn leave_presence(&self) {
        self.closing.store(true, Ordering::SeqCst); // nothing is renewed behind this
        let held = |room: &Arc<Room>| room.presence.as_ref().is_some_and(|presence| !presence.lock().is_settled());
        let rooms: Vec<RoomName> = self.rooms().into_iter().filter(held).map(|room| room.name.clone()).collect();
        let config::Presence { linger, events_max, .. } = self.desk.settings;
        for some in rooms.chunks(AT_ONCE) {
            if let Err(error) = self.broadcaster.renew(some, linger, events_max).await {
                return tracing::warn!(rooms = rooms.len(), %error, "presence ends with its lease");
            }
        }
    }

    /// Renews this node's leases, and learns what others have said meanwhile. What fails has its next turn before the lease ends; if it ends all the
    /// same, the broadcaster says so. False: something failed.
    async fn renew_leases(&self, shard: &Shard) -> bool {
        let config::Presence { lease, events_max, .. } = self.desk.settings;
        let all: Vec<Arc<Room>> = shard.rooms.read().values().cloned().collect();
        all.iter().for_each(|room| self.desk.change(room, Presence::make_sure));
        let leased = |room: &Arc<Room>| room.presence.as_ref().is_some_and(|presence| presence.lock().is_known());
        let rooms: Vec<Arc<Room>> = all.into_iter().filter(leased).collect();
        for some in rooms.chunks(AT_ONCE) {
            let names: Vec<RoomName> = some.iter().map(|room| room.name.clone()).collect();
            let rosters = match self.broadcaster.renew(&names, lease, events_max).await {
                Ok(rosters) => rosters,
                Err(error) => {
                    tracing::debug!(rooms = rooms.len(), %error, "leases of presence are renewed later");
                    return false;
                }
            };
            for (room, roster) in some.iter().zip(rosters) {
                match roster {
                    Some(roster) => self.desk.learn(room, roster),
                    None => self.desk.change(room, Presence::forgotten),
                }
            }
        }
        true
    }

    async fn see_to_rooms(&self) {
        let pending = std::mem::take(&mut *self.desk.pending.lock());
        let rooms = pending.iter().filter_map(|name| self.room(name));
        let see_to = async |room: Arc<Room>| {
            if self.see_to(&room).await {
                self.desk.pending.lock().insert(room.name.clone());
            }
        };
        stream::iter(rooms).for_each_concurrent(CONCURRENT, see_to).await;
    }

    /// One round of a room. True: it has to be looked at again.
    async fn see_to(&self, room: &Arc<Room>) -> bool {
        let Some(presence) = &room.presence else { return false };
        if !presence.lock().begin_round(Instant::now()) {
            return true;
        }
        self.report(room).await;
        let news = presence.lock().news(&room.name);
        if let Some(frame) = news {
            if !room.push_notice(frame) {
                presence.lock().untold();
            }
            self.flush_room(room.clone(), true);
        }
        presence.lock().is_pending()
    }

    /// Tells the broadcaster what there is to tell, and learns who is there over all nodes.
    pub(super) async fn report(&self, room: &Room) {
        let Some(presence) = &room.presence else { return };
        let config::Presence { lease, events_max, .. } = self.desk.settings;
        for _ in 0..2 {
            let Some(attendance) = presence.lock().report(Instant::now(), lease) else { return };
            let mut report = Report { presence, answered: false };
            match self.broadcaster.attend(&room.name, &attendance, events_max).await {
                Ok(roster) => {
                    let heard = roster.is_some();
                    report.answer(roster);
                    if heard {
                        return;
                    }
                    // Once more, with everybody.
                }
                Err(error) => return tracing::debug!(room = %room.name, %error, "presence is told again later"),
            }
        }
    }
}

/// A report under way; given up without an answer when dropped.
struct Report<'a> {
    presence: &'a Mutex<Presence>,
    answered: bool,
}

impl Report<'_> {
    fn answer(&mut self, roster: Option<Roster>) {
        self.answered = true;
        self.presence.lock().reported(roster);
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.presence.lock().unanswered();
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
