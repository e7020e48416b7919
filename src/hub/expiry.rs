//! Tokens that expire while their sockets are open.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{MissedTickBehavior, interval};

use super::{Connection, Hub};

/// How late a socket may be closed.
const CHECK: Duration = Duration::from_secs(1);

/// No token expires before this, in seconds since 1970: until then nothing is looked at.
#[derive(Debug)]
pub(super) struct Expiry(AtomicU64);

impl Default for Expiry {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Hub {
    /// The connection has a new token.
    pub(super) fn expect_expiry(&self, connection: &Connection) {
        if let Some(voucher) = connection.voucher() {
            self.expiry.0.fetch_min(voucher.expires_at, Ordering::SeqCst);
        }
    }

    /// Closes whose token has expired; for ever.
    pub(super) async fn expire(&self) {
        let mut tick = interval(CHECK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            if self.expiry.0.load(Ordering::SeqCst) > now {
                continue;
            }
            self.expiry.0.store(u64::MAX, Ordering::SeqCst); // before looking: who attaches meanwhile is counted in
            for shard in &self.shards {
                let next = shard.connections.lock().values().filter_map(|connection| connection.expire(now)).min();
                self.expiry.0.fetch_min(next.unwrap_or(u64::MAX), Ordering::SeqCst);
            }
        }
    }
}
