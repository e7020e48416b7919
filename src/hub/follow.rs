//! The room that the node itself reads, for what nodes say to each other; and what comes of it.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Connection, Hub, PAGE, READ_RETRY};
use crate::{
    auth::Voucher,
    broadcaster::{Publication, Relation, Stretch},
    protocol::{Close, MessageId, RoomName, UserId},
};

/// Longest time between two looks at the log, whether something was heard or not.
const EVERY: Duration = Duration::from_secs(60);

impl Hub {
    /// Hands each message of a room's log to `take`, from the oldest kept on; what is live is only the sign to read. `current` is called whenever all
    /// have been handed over. Does not return.
    pub async fn follow(&self, room: &RoomName, take: impl Fn(&[Publication]), current: impl Fn()) {
        self.broadcaster.want(room);
        self.broadcaster.subscribe(room).await;
        let mut position = MessageId::START;
        loop {
            let page = match self.broadcaster.read(room, Stretch::After(position), PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::debug!(%room, %error, "reading the log again");
                    sleep(READ_RETRY.mul_f64(fastrand::f64())).await;
                    continue;
                }
            };
            if page.relation != Relation::Exact && position != MessageId::START {
                tracing::warn!(%room, "the room's log has lost its position; reading what it has");
            }
            take(&page.publications);
            position = page.through;
            if page.through == page.top {
                current();
                let _ = timeout(EVERY, self.said.notified()).await;
            }
        }
    }

    /// Closes, 4401, every connection whose token counts no more; `refuses` says why. Returns how many.
    pub fn close_refused(&self, refuses: impl Fn(Option<&UserId>, &Voucher) -> Option<&'static str>) -> usize {
        let close = |connection: &Connection| {
            let reason = refuses(connection.user(), &connection.voucher()?)?;
            connection.close(Close::Unauthorized { reason });
            Some(())
        };
        self.connections().iter().filter_map(|connection| close(connection)).count()
    }
}
