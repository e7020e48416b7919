//! The end of a node's connections: paced, each between two messages, told when to come back; who does not go is cut in time to be counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{Connection, Hub};
use crate::protocol::Close;

/// Spread of the wait that a closing node asks of its clients: the closes themselves are paced.
const RECONNECT_SPREAD_MS: u64 = 1000;

/// What a drain did.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// Connections closed.
    pub closed: usize,
    /// Those of them that had to be cut.
    pub forced: usize,
}

impl Hub {
    /// Closes every connection, spread evenly over `window`, each between two messages. One that has not ended `flush` after its turn is cut.
    pub async fn drain(&self, window: Duration, flush: Duration) -> Drained {
        let mut connections = self.connections();
        fastrand::shuffle(&mut connections);
        let slot = window.div_f64(connections.len().max(1) as f64);
        let start = Instant::now();
        let mut departures = Departures::new(self, flush);
        for (n, connection) in connections.into_iter().enumerate() {
            departures.watch_until(start + slot.mul_f64(n as f64 + fastrand::f64())).await;
            connection.retire(restart());
            departures.add(&connection);
        }
        self.closing.store(true, Ordering::SeqCst);
        let late = self.connections().into_iter().filter(|connection| connection.retire(restart()));
        late.for_each(|connection| departures.add(&connection));
        let end = Instant::now() + flush;
        tokio::select! {
            () = self.empty() => {}
            () = departures.watch_until(end) => {}
        }
        self.connections().iter().for_each(|connection| departures.cut(connection));
        Drained { closed: departures.closed, forced: departures.forced }
    }

    async fn empty(&self) {
        while self.connection_count() > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Connections on their way out, in the order in which they were told; those that have gone are not kept open by it.
struct Departures<'a> {
    hub: &'a Hub,
    patience: Duration,
    /// They may finish what is under way until then.
    retired: VecDeque<(Instant, Weak<Connection>)>,
    /// They were closed in the middle of it, and may take what waits for them until then.
    closed_early: VecDeque<(Instant, Weak<Connection>)>,
    closed: usize,
    forced: usize,
}

impl<'a> Departures<'a> {
    fn new(hub: &'a Hub, flush: Duration) -> Self {
        let (retired, closed_early) = (VecDeque::new(), VecDeque::new());
        Self { hub, patience: flush / 2, retired, closed_early, closed: 0, forced: 0 }
    }

    /// One that was told just now.
    fn add(&mut self, connection: &Arc<Connection>) {
        self.closed += 1;
        self.retired.push_back((Instant::now() + self.patience, Arc::downgrade(connection)));
    }

    fn cut(&mut self, connection: &Connection) {
        if self.hub.has_connection(connection) && connection.cut() {
            self.forced += 1;
            self.hub.metrics.drain_forced.inc();
        }
    }

    /// Sees to those whose time is over, until then.
    async fn watch_until(&mut self, end: Instant) {
        loop {
            let due =
                [self.retired.front(), self.closed_early.front()].into_iter().flatten().map(|(due, _)| *due).min();
            sleep_until(due.map_or(end, |due| due.min(end))).await;
            let now = Instant::now();
            self.hurry(now);
            if now >= end {
                return;
            }
        }
    }

    fn hurry(&mut self, now: Instant) {
        while let Some(connection) = take_due(&mut self.closed_early, now) {
            if let Some(connection) = connection.upgrade() {
                self.cut(&connection);
            }
        }
        while let Some(connection) = take_due(&mut self.retired, now) {
            if let Some(open) = connection.upgrade() {
                open.close(restart());
                self.closed_early.push_back((now + self.patience, connection));
            }
        }
    }
}

fn take_due(queue: &mut VecDeque<(Instant, Weak<Connection>)>, now: Instant) -> Option<Weak<Connection>> {
    let due = queue.front().is_some_and(|(due, _)| *due <= now);
    due.then(|| queue.pop_front()).flatten().map(|(_, connection)| connection)
}

/// Come back, soon.
pub(super) fn restart() -> Close {
    Close::Restart { after_ms: fastrand::u64(0..=RECONNECT_SPREAD_MS) }
}
