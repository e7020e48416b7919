//! The end of a node's connections: paced, each between two messages, told when to come back.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Hub;
use crate::protocol::Close;

/// Spread of the wait that a closing node asks of its clients: the closes themselves are paced.
const RECONNECT_SPREAD_MS: u64 = 1000;

/// What a drain did.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// Connections closed.
    pub closed: usize,
    /// Connections that had not ended by then.
    pub forced: usize,
}

impl Hub {
    /// Closes every connection, spread evenly over `window`, each between two messages, and waits for the last to end, at most `flush` longer.
    pub async fn drain(&self, window: Duration, flush: Duration) -> Drained {
        let mut connections = self.connections();
        fastrand::shuffle(&mut connections);
        let closed = connections.len();
        let slot = window.div_f64(closed.max(1) as f64);
        let start = Instant::now();
        for (n, connection) in connections.into_iter().enumerate() {
            sleep_until(start + slot.mul_f64(n as f64 + fastrand::f64())).await;
            connection.retire(restart());
        }
        self.closing.store(true, Ordering::SeqCst);
        self.connections().iter().for_each(|connection| connection.retire(restart()));
        // First what is under way may end; who is still there then is closed in the middle of it.
        let _ = timeout(flush / 2, self.empty()).await;
        self.connections().iter().for_each(|connection| connection.close(restart()));
        let _ = timeout(flush / 2, self.empty()).await;
        Drained { closed, forced: self.connection_count() }
    }

    async fn empty(&self) {
        while self.connection_count() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Come back, soon.
pub(super) fn restart() -> Close {
    Close::Restart { after_ms: fastrand::u64(0..=RECONNECT_SPREAD_MS) }
}
