//! The rooms that a session asks for, joined one after the other beside the reading of its frames: a long replay holds up nothing else.

use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Service,
    socket::{rate_limited, refuse, unavailable},
};
use crate::{
    hub::{Attached, Connection, JoinError},
    limits::Bucket,
    metrics::Limit,
    protocol::{ErrorCode, MessageId, Outcome, Refusal, RoomName},
};

/// See the module.
pub(super) struct Joins<'a> {
    service: &'a Service,
    connection: &'a Connection,
    attached: &'a Attached,
    /// No longer than a session may have rooms.
    queue: Mutex<VecDeque<Join>>,
    subscribes: Mutex<Bucket>,
    asked: Notify,
}

struct Join {
    room: RoomName,
    after: Option<MessageId>,
    reference: Option<String>,
}

impl<'a> Joins<'a> {
    pub(super) fn new(service: &'a Service, connection: &'a Connection, attached: &'a Attached) -> Self {
        Self {
            service,
            connection,
            attached,
            queue: Mutex::default(),
            subscribes: Mutex::default(),
            asked: Notify::new(),
        }
    }

    /// Each room is answered by itself, now or when its turn has come.
    pub(super) fn ask(&self, rooms: Vec<(RoomName, Option<MessageId>)>, reference: Option<&str>) {
        for (room, after) in rooms {
            if let Err(wait) = self.allow(&room) {
                let refusal = rate_limited(format!("`{room}`: too fast"), wait, reference);
                refuse(self.service, self.connection, &Refusal { room: Some(room), ..refusal });
                continue;
            }
            match self.attached.reserve(&room, self.service.rooms_max) {
                Ok(()) => {
                    let reference = reference.map(ToOwned::to_owned);
                    self.queue.lock().push_back(Join { room, after, reference });
                    self.asked.notify_one();
                }
                Err(error) => self.refuse(&room, error, reference),
            }
        }
    }

    /// How long to wait for one more room.
    fn allow(&self, room: &RoomName) -> Result<(), Duration> {
        let taken = self.subscribes.lock().take(self.service.frame_rates.subscribes, Instant::now());
        taken.inspect_err(|_| self.service.metrics.limited(Limit::Subscribes).inc())?;
        if self.service.hub.has_room(room) {
            return Ok(());
        }
        self.service.gate.new_room(&self.connection.occupant())
    }

    /// The session has left a room: it is not to be joined any more.
    pub(super) fn forget(&self, room: &RoomName) {
        self.queue.lock().retain(|join| join.room != *room);
    }

    /// Joins what is asked for, as long as the connection lives.
    pub(super) async fn run(&self) -> Infallible {
        loop {
            self.asked.notified().await;
            Box::pin(self.join()).await; // boxed: an idle connection should not carry the room for it
        }
    }

    async fn join(&self) {
        let mut away = false; // once one room has waited in vain, the others need not
        while let Some(Join { room, after, reference }) = self.next() {
            let joined = if away {
                self.attached.leave(&room).await;
                Err(JoinError::Away)
            } else {
                self.attached.subscribe(&room, after, reference.as_deref()).await
            };
            if let Err(error) = joined {
                away |= error == JoinError::Away;
                self.refuse(&room, error, reference.as_deref());
            }
        }
    }

    fn next(&self) -> Option<Join> {
        self.queue.lock().pop_front()
    }

    fn refuse(&self, room: &RoomName, error: JoinError, reference: Option<&str>) {
        let message = format!("`{room}`: {error}");
        let refusal = match error {
            JoinError::Already => Refusal::new(ErrorCode::InvalidMessage, message, reference),
            JoinError::Forbidden => Refusal::new(ErrorCode::Forbidden, message, reference),
            JoinError::TooMany(_) => Refusal::new(ErrorCode::TooManyRooms, message, reference),
            JoinError::Away => unavailable(message, Outcome::Refused, reference),
        };
        refuse(self.service, self.connection, &Refusal { room: Some(room.clone()), ..refusal });
    }
}
