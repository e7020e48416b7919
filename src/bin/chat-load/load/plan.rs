//! What a run does, and which of its sockets does what: the same for all workers, handed to them as JSON.

use std::{net::IpAddr, ops::Range, path::PathBuf};

use serde::{Deserialize, Serialize};

/// See the module. Sockets are counted through all rooms: the members of the first, those of the second, …
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    /// 128 random bits in hexadecimal: rooms and senders are this run's own.
    pub(super) run: String,
    /// Such as `ws://host:8080`, without a path.
    pub(super) urls: Vec<String>,
    /// With `{room}` in it.
    pub(super) path: String,
    /// What room names begin with.
    pub(super) room_prefix: String,
    /// How a plain socket sends a message: JSON with `{message}` in it. Absent: sessions, `chat.v1`.
    pub(super) frame: Option<String>,
    pub(super) rooms: usize,
    /// Of each room.
    pub(super) members: usize,
    /// Of each room: as many of its members talk.
    pub(super) talkers: usize,
    /// Talkers are on the first URL, all others elsewhere.
    pub(super) cross: bool,
    /// Messages a second in all.
    pub(super) rate: f64,
    pub(super) payload_bytes: usize,
    /// Sockets opened a second in all; 0: as fast as they get in.
    pub(super) ramp: f64,
    /// Sockets a second in all that leave and come back.
    pub(super) churn: f64,
    /// Longest wait for anything, in milliseconds.
    pub(super) patience_ms: u64,
    /// Pause between the last upgrade and the first message, in milliseconds: plain sockets have no sign that they have joined.
    pub(super) settle_ms: u64,
    pub(super) pass: Pass,
    /// Addresses to connect from; none: the system's choice.
    pub(super) sources: Vec<IpAddr>,
    pub(super) workers: usize,
}

/// What sockets show as they come in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Pass {
    Nothing,
    /// In turn.
    Tokens(Vec<String>),
    /// One for each socket, by the service's own configuration, read from this file and the environment.
    Minted(Option<PathBuf>),
}

impl Plan {
    pub(super) fn sockets(&self) -> usize {
        self.rooms * self.members
    }

    /// The sockets of a worker.
    pub(super) fn share(&self, worker: usize) -> Range<usize> {
        let start = |worker: usize| worker * self.sockets() / self.workers.max(1);
        start(worker)..start(worker + 1)
    }

    pub(super) fn room_of(&self, socket: usize) -> usize {
        socket / self.members.max(1)
    }

    pub(super) fn room_name(&self, room: usize) -> String {
        format!("{}-{}-{room}", self.room_prefix, self.mark())
    }

    /// A short form of the run: in names that others see.
    pub(super) fn mark(&self) -> &str {
        self.run.get(..8).unwrap_or(&self.run)
    }

    /// A talker's number among those of its room. They are spread over the room, and so over URLs and workers.
    pub(super) fn talker(&self, socket: usize) -> Option<usize> {
        let members = self.members.max(1);
        let place = (socket % members) * self.talkers;
        (place % members < self.talkers).then_some(place / members)
    }

    /// Which of the URLs; after each loss the next one.
    pub(super) fn url_of(&self, socket: usize, losses: usize) -> usize {
        if !self.cross {
            return (socket + losses) % self.urls.len().max(1);
        }
        match socket % self.members.max(1) {
            0 => 0,
            place => 1 + (place - 1) % self.urls.len().saturating_sub(1).max(1),
        }
    }

    /// Which of the addresses to connect from.
    pub(super) fn source_of(&self, socket: usize) -> usize {
        socket / self.urls.len().max(1) % self.sources.len().max(1)
    }

    /// Nanoseconds between the start and a talker's message: all talkers of all rooms take turns.
    pub(super) fn schedule(&self, socket: usize, message: u64) -> Option<u64> {
        let turn = (self.room_of(socket) * self.talkers + self.talker(socket)?) as f64;
        let all = (self.rooms * self.talkers) as f64;
        Some((((turn + message as f64 * all) / self.rate) * 1e9) as u64)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn plan() -> Plan {
        Plan {
            run: "0123456789abcdef0123456789abcdef".into(),
            urls: vec!["ws://a".into(), "ws://b".into()],
            path: "/{room}".into(),
            room_prefix: "load".into(),
            frame: None,
            rooms: 4,
            members: 6,
            talkers: 2,
            cross: false,
            rate: 100.0,
            payload_bytes: 100,
            ramp: 0.0,
            churn: 0.0,
            patience_ms: 1000,
            settle_ms: 0,
            pass: Pass::Nothing,
            sources: Vec::new(),
            workers: 3,
        }
    }

    #[test]
    fn every_socket_has_one_worker_and_every_room_its_talkers() {
        let plan = plan();
        let shares: Vec<_> = (0..3).flat_map(|worker| plan.share(worker)).collect();
        assert_eq!(shares, (0..24).collect::<Vec<_>>());
        let talkers: Vec<_> = (0..24).filter_map(|n| Some((plan.room_of(n), plan.talker(n)?))).collect();
        let expected: Vec<_> = (0..4).flat_map(|room| [(room, 0), (room, 1)]).collect();
        assert_eq!(talkers, expected);
        let mut times: Vec<_> = (0..24).filter_map(|n| plan.schedule(n, 1)).collect();
        times.sort_unstable();
        assert_eq!(times, (8..16).map(|turn| turn * 10_000_000).collect::<Vec<_>>(), "100 a second, in turn");
        let all = Plan { talkers: 6, ..plan.clone() };
        assert!((0..24).all(|n| all.talker(n) == Some(n % 6)));
        let cross = Plan { cross: true, talkers: 1, ..plan };
        assert!((0..24).all(|n| (cross.url_of(n, 1) == 0) == cross.talker(n).is_some()));
    }
}
