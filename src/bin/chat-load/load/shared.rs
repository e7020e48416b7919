//! What the sockets of a worker have in common.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{dial::Dialler, plan::Plan, tally::Tally};

/// See the module.
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) dialler: Dialler,
    pub(super) state: Mutex<State>,
    /// When the talk began, in nanoseconds.
    pub(super) talk_began: AtomicU64,
}

/// What is counted.
pub(super) struct State {
    pub(super) tally: Tally,
    /// By number; only those of this worker's sockets are used.
    pub(super) rooms: Vec<RoomCount>,
    /// Sockets that are in their rooms now.
    pub(super) open: u64,
    /// Messages that were due and are not yet acknowledged.
    pub(super) pending: u64,
}

/// A room as the sockets of one worker see it; added up, as all do.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct RoomCount {
    /// Sockets that were in it at some time.
    pub(super) members: u64,
    /// Messages acknowledged to its talkers.
    pub(super) stored: u64,
    /// Deliveries to its members, each message once for each.
    pub(super) arrived: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
}

impl RoomCount {
    pub(super) fn add(&mut self, other: Self) {
        self.members += other.members;
        self.stored += other.stored;
        self.arrived += other.arrived;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
    }

    /// Deliveries that did not come.
    pub(super) fn missing(&self) -> u64 {
        (self.stored * self.members).saturating_sub(self.arrived)
    }
}

impl Shared {
    pub(super) fn new(plan: Plan) -> anyhow::Result<Self> {
        let rooms = vec![RoomCount::default(); plan.rooms];
        let state = State { tally: Tally::new()?, rooms, open: 0, pending: 0 };
        let dialler = Dialler::new(&plan)?;
        Ok(Self { plan, dialler, state: Mutex::new(state), talk_began: AtomicU64::new(0) })
    }

    /// Notes the end of a socket that nobody here wanted.
    pub(super) fn closed(&self, name: String, now: u64) {
        let mut state = self.state.lock();
        *state.tally.closes.entry(name).or_default() += 1;
        let began = self.talk_began.load(Ordering::Relaxed);
        if began > 0 {
            state.tally.closed_at.record(began, now);
        }
    }
}
