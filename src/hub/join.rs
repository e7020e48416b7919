//! A connection's way into its rooms: held, brought up to date from the log, then live.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use super::{Connection, Hub, replay::Stretch, room::Room};
use crate::{
    auth::Identity,
    broadcaster::Relation,
    protocol::{Event, Frame, MessageId, RoomName, Roster},
};

/// Longest that a client's frame waits for the rooms that it asked for.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);
/// Longest that an `unsubscribed` waits for what is on its way.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// A connection's place in the hub.
pub struct Attached {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
    rooms: Mutex<Vec<Place>>,
    changed: Notify,
}

/// A room that the connection is in, or on its way to.
struct Place {
    room: RoomName,
    /// What is published there from now on reaches the connection.
    ready: bool,
}

/// A room that a connection has joined.
#[derive(Debug)]
pub struct Joined {
    /// Which.
    pub room: RoomName,
    /// Where live begins.
    pub position: MessageId,
    /// Who is there, where that is kept.
    pub roster: Option<Roster>,
}

/// Why a session was not let into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Redis did not answer in time.
    #[error("the room cannot be joined while the message log is away")]
    Away,
    /// Its token does not allow it.
    #[error("you may not read this room")]
    Forbidden,
    /// It is in as many as it may.
    #[error("one room too many: at most {0} at a time")]
    TooMany(usize),
    /// It is in there.
    #[error("the session is in this room already: unsubscribe first to take it up from another position")]
    Already,
}

impl Attached {
    pub(super) fn new(hub: Arc<Hub>, connection: Arc<Connection>, rooms: Vec<RoomName>) -> Self {
        let places = rooms.into_iter().map(|room| Place { room, ready: false }).collect();
        Self { hub, connection, rooms: Mutex::new(places), changed: Notify::new() }
    }

    /// Returns once what is published to the rooms reaches the connection, the client's own messages among it; or after a while, when
    /// Redis is away.
    pub async fn joined(&self) {
        self.all_ready(|_| true).await;
    }

    /// The same for one room.
    pub async fn ready(&self, room: &RoomName) {
        self.all_ready(|place| place.room == *room).await;
    }

    async fn all_ready(&self, which: impl Fn(&Place) -> bool) {
        let ready = || self.rooms.lock().iter().filter(|place| which(place)).all(|place| place.ready);
        if ready() {
            return; // as nearly always: no clock is asked
        }
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if ready() {
                    return;
                }
                changed.await;
            }
        };
        let _ = timeout(JOIN_PATIENCE, waiting).await;
    }

    fn mark_ready(&self, room: &RoomName) {
        let mut rooms = self.rooms.lock();
        rooms.iter_mut().filter(|place| place.room == *room).for_each(|place| place.ready = true);
        drop(rooms);
        self.changed.notify_waiters();
    }

    /// Whether the connection is in a room, or on its way there.
    #[must_use]
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.rooms.lock().iter().any(|place| place.room == *room)
    }

    /// The rooms that it is in, or on its way to.
    #[must_use]
    pub fn rooms(&self) -> Vec<RoomName> {
        self.rooms.lock().iter().map(|place| place.room.clone()).collect()
    }

    /// Takes a place in one more room, of at most `most`; [`Attached::subscribe`] follows.
    pub fn reserve(&self, room: &RoomName, most: usize) -> Result<(), JoinError> {
        if !self.connection.permissions().reads(room) {
            return Err(JoinError::Forbidden);
        }
        let rooms = &mut *self.rooms.lock();
        if rooms.iter().any(|place| place.room == *room) {
            return Err(JoinError::Already);
        }
        if rooms.len() >= most {
            return Err(JoinError::TooMany(most));
        }
        rooms.push(Place { room: room.clone(), ready: false });
        Ok(())
    }

    /// Takes what a newer token of the same user says. The rooms that it does not allow any more are for the caller to leave.
    pub fn renew(&self, identity: Identity) {
        self.connection.renew(identity.permissions, identity.voucher);
        self.hub.expect_expiry(&self.connection);
    }

    /// Joins the rooms that the connection was opened for, live, and the last of them from `after` on, if given. `welcome` makes a session's
    /// first frame of where live begins in each. Waits for Redis as long as it takes; safe to drop at any time.
    pub async fn join(&self, after: Option<MessageId>, welcome: impl Fn(&[Joined]) -> Frame) {
        let names = self.rooms();
        let entered: Vec<_> = names.iter().filter_map(|name| self.hub.enter(name, &self.connection)).collect();
        let mut joined = Vec::with_capacity(entered.len());
        for (room, seat) in &entered {
            room.opened.get_or_init(|| self.hub.open(room)).await;
            let position = room.replay_end(*seat);
            joined.extend(position.map(|position| Joined {
                room: room.name.clone(),
                position,
                roster: self.roster(room),
            }));
        }
        if self.connection.is_session() {
            self.connection.send(&welcome(&joined));
        }
        names.iter().for_each(|name| self.mark_ready(name));
        for (n, (room, seat)) in entered.iter().enumerate() {
            if let Some(after) = after.filter(|_| n + 1 == entered.len()) {
                let stretch = room.shelf.read(&self.hub, room, after).await;
                self.resume(room, *seat, after, stretch, None).await;
            }
            self.go_live(room, *seat).await;
        }
    }

    /// Joins a room whose place is reserved. `subscribed` is sent in its place: ahead of what was missed.
    pub async fn subscribe(
        &self,
        name: &RoomName,
        after: Option<MessageId>,
        reference: Option<&str>,
    ) -> Result<(), JoinError> {
        let Some((room, seat)) = self.hub.enter(name, &self.connection) else { return Err(JoinError::Away) };
        let ready = async {
            room.opened.get_or_init(|| self.hub.open(&room)).await;
            self.mark_ready(name);
            match after {
                Some(after) => Some((after, room.shelf.read(&self.hub, &room, after).await)),
                None => None,
            }
        };
        match timeout(JOIN_PATIENCE, ready).await {
            Ok(Some((after, stretch))) => self.resume(&room, seat, after, stretch, reference).await,
            Ok(None) => self.announce(&room, seat, None, reference),
            Err(_) => {
                self.leave(name).await;
                return Err(JoinError::Away);
            }
        }
        self.go_live(&room, seat).await;
        Ok(())
    }

    /// Leaves a room; once it returns nothing more comes from there. False: it was not in it.
    pub async fn leave(&self, name: &RoomName) -> bool {
        {
            let rooms = &mut *self.rooms.lock();
            let Some(index) = rooms.iter().position(|place| place.room == *name) else { return false };
            rooms.swap_remove(index);
        }
        self.changed.notify_waiters();
        self.hub.leave(name, &self.connection);
        if let Some(room) = self.hub.room(name) {
            let _ = timeout(SETTLE_PATIENCE, room.settled()).await;
        }
        true
    }

    /// Tells a session that it is in a room, and how what follows relates to its position, if it gave one.
    fn announce(&self, room: &Room, seat: u64, relation: Option<Relation>, reference: Option<&str>) {
        if let Some(id) = room.replay_end(seat).filter(|_| self.connection.is_session()) {
            let rollback = match relation {
                Some(Relation::Rollback(to)) => Some(to),
                _ => None,
            };
            let recovered = relation.is_some_and(|relation| relation != Relation::Reset);
            let (room, presence) = (room.name.as_str(), self.roster(room));
            let subscribed = Event::Subscribed { room, id, recovered, rollback, presence, r#ref: reference };
            self.connection.send(&subscribed.frame());
        }
    }

    /// Who is in a room, for this connection, if it may see that.
    fn roster(&self, room: &Room) -> Option<Roster> {
        if !self.connection.permissions().sees(&room.name) {
            return None;
        }
        room.presence.as_ref()?.lock().roster_for(&self.connection.occupant())
    }

    /// Sends what was held, then lets live messages through.
    async fn go_live(&self, room: &Arc<Room>, seat: u64) {
        while let Some(held) = room.release(seat) {
            for frame in held {
                if room.replay_end(seat).is_none() {
                    return;
                }
                self.connection.send(&frame);
                self.connection.drained().await;
            }
        }
        self.hub.flush_room(room.clone(), false);
    }

    /// Brings a joiner from `after` up to where live messages are held. If the log no longer reaches back that far, a session is told so and a plain
    /// socket gets all that the log has.
    async fn resume(&self, room: &Arc<Room>, seat: u64, after: MessageId, stretch: Stretch, reference: Option<&str>) {
        let relation = stretch.relation;
        self.hub.metrics.resume(relation.as_str()).inc();
        let keeps = match relation {
            Relation::Exact => Some(after),
            Relation::Rollback(to) => Some(to),
            Relation::Reset => None,
        };
        if let Some(position) = keeps {
            self.hub.catch_up(room, seat, &self.connection, position).await;
        }
        self.announce(room, seat, Some(relation), reference);
        if relation != Relation::Reset || !self.connection.is_session() {
            self.hub.replay(room, seat, &self.connection, stretch).await;
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let rooms = std::mem::take(&mut *self.rooms.lock());
        self.hub.detach(&self.connection, rooms.iter().map(|place| &place.room));
    }
}
