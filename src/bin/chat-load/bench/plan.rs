//! How much of everything is measured.

use serde::Serialize;

/// See the module.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Plan {
    /// The clock says nothing here: only what it cannot spoil is held to its target.
    pub(super) quick: bool,
    /// Open files that are needed here or in a server.
    #[serde(skip)]
    pub(super) files: u64,
    /// Sockets of the usual room.
    pub(super) members: usize,
    /// Rooms of five.
    pub(super) rooms: usize,
    /// Sockets of the large room.
    pub(super) large_room: usize,
    /// Sockets of the lobby.
    pub(super) lobby: usize,
    /// Idle sockets: memory is read at each number.
    pub(super) idle: &'static [usize],
    /// Most idle sockets of the peer with axum's own buffers, which take 130 KB each.
    pub(super) idle_heavy: usize,
    /// Sockets whose heartbeats are measured.
    pub(super) heartbeats: usize,
    /// How often: more than usual, so that there are many in a short time.
    pub(super) heartbeat_ms: u64,
    /// Sockets opened at once.
    pub(super) connects: usize,
    /// Rounds of connecting and closing, and sockets in each.
    pub(super) rounds: usize,
    pub(super) round: usize,
    /// How often readers stop, and how long they may until they are closed.
    pub(super) stops: usize,
    pub(super) outbox_age_s: u64,
    /// Messages a second for which latency is measured, and for how long each.
    pub(super) rates: &'static [u32],
    pub(super) rate_ms: u64,
    /// Members on the other node.
    pub(super) across: &'static [usize],
}

impl Plan {
    /// As published.
    pub(super) const FULL: Self = Self {
        quick: false,
        files: 20_000,
        members: 1000,
        rooms: 200,
        large_room: 5000,
        lobby: 15_000,
        idle: &[500, 2500, 5000, 10_000, 15_000],
        idle_heavy: 5000,
        heartbeats: 10_000,
        heartbeat_ms: 2000,
        connects: 10_000,
        rounds: 10,
        round: 5000,
        stops: 3,
        outbox_age_s: 10,
        rates: &[10, 25, 50, 75, 100, 125, 150, 175, 200, 250, 300],
        rate_ms: 1500,
        across: &[1, 10, 100, 1000],
    };
    /// That everything runs, in debug builds too.
    pub(super) const QUICK: Self = Self {
        quick: true,
        files: 4096,
        members: 20,
        rooms: 4,
        large_room: 100,
        lobby: 100,
        idle: &[100, 400, 1800],
        idle_heavy: 400,
        heartbeats: 100,
        heartbeat_ms: 500,
        connects: 300,
        rounds: 3,
        round: 300,
        stops: 1,
        outbox_age_s: 1,
        rates: &[50, 200],
        rate_ms: 200,
        across: &[1, 20],
    };
}
