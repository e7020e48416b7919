//! What the workers and whoever started them tell each other, one line of JSON each.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    shared::RoomCount,
    tally::{Counts, Quantiles, Tally, Times},
};

/// What a worker is told, one line of JSON each; the plan and its number come first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Task {
    /// Open all sockets; answered when each is in its room or has given up.
    Open,
    /// Talk between two moments in nanoseconds; answered with what each room has got when nothing waits for an acknowledgement.
    Talk { start: u64, end: u64 },
    /// Wait until every member has so many messages, by room; answered with what they have.
    Settle { stored: Vec<u64> },
    /// Close all sockets; answered when they are.
    Close,
    /// End what is under way sooner. Not answered.
    Stop,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// Once a second.
    Pulse(Box<Pulse>),
    /// A task is done; how its rooms stand.
    Done(Vec<RoomCount>),
    /// It cannot go on.
    Failed(String),
}

/// What happened since the last one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pulse {
    pub(super) tally: Tally,
    pub(super) open: u64,
    pub(super) pending: u64,
    pub(super) cpu_ns: u64,
    pub(super) wall_ns: u64,
    pub(super) rss_bytes: u64,
}

/// A worker's use of its machine.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Use {
    /// Shares of a core: while sockets were opened, and while they talked.
    pub(super) opening: Share,
    pub(super) talking: Share,
    /// Most of a core in one second.
    pub(super) peak: f64,
    pub(super) rss_bytes: u64,
    #[serde(skip)]
    pub(super) open: u64,
    #[serde(skip)]
    pub(super) pending: u64,
}

/// CPU over time.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Share {
    cpu_ns: u64,
    wall_ns: u64,
}

impl Share {
    pub(super) fn add(&mut self, cpu_ns: u64, wall_ns: u64) {
        self.cpu_ns += cpu_ns;
        self.wall_ns += wall_ns;
    }

    pub(super) fn of_core(self) -> f64 {
        self.cpu_ns as f64 / self.wall_ns.max(1) as f64
    }
}

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((self.of_core() * 1000.0).round() / 1000.0)
    }
}

/// What happened within an interval.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// Since the start, at its end.
    pub(super) seconds: f64,
    pub(super) open: u64,
    pub(super) counts: Counts,
    pub(super) closes: u64,
    pub(super) deliver: Option<Quantiles>,
    /// Of all workers.
    pub(super) rss_bytes: u64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { sent, delivered, reconnects, .. } = self.counts;
        write!(f, "{:>5.0} s: {} open, {sent} sent, {delivered} delivered", self.seconds, self.open)?;
        if let Some(Quantiles { p50, p99, max, .. }) = self.deliver {
            write!(f, " in p50 {} p99 {} max {}", Times::human(p50), Times::human(p99), Times::human(max))?;
        }
        if self.closes + reconnects > 0 {
            write!(f, ", {} closed, {reconnects} back", self.closes)?;
        }
        Ok(())
    }
}
