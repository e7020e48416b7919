//! What came of a run: for people, as JSON, and as an exit code. It says plainly when the limit was on this side.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    options::Run,
    pulse::{Row, Use},
    servers::Change,
    shared::RoomCount,
    tally::{Counts, Names, Quantiles, Tally, Times},
};

/// Share of a core from which on a worker is no fair client.
const BUSY: f64 = 0.85;
/// The same for how late it sends, in microseconds, for one of 100 messages.
const LATE_US: u64 = 10_000;
/// Rooms with something wrong that are named.
const NAMED: usize = 20;

/// See the module. Times are in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) scenario: &'static str,
    pub(super) sockets: usize,
    pub(super) rooms: usize,
    pub(super) talkers: usize,
    pub(super) rate: f64,
    pub(super) payload_bytes: usize,
    /// As asked for, in seconds.
    pub(super) duration: f64,
    pub(super) interrupted: bool,
    pub(super) counts: Counts,
    /// Deliveries that every member should have had, and those that did not come.
    pub(super) expected: u64,
    pub(super) missing: u64,
    /// Messages without an answer.
    pub(super) unanswered: u64,
    pub(super) closes: Names,
    pub(super) refusals: Names,
    pub(super) errors: Names,
    pub(super) times: Latencies,
    /// Rooms with something wrong, by number; the first few.
    pub(super) bad_rooms: Vec<(usize, RoomCount)>,
    pub(super) rounds: Vec<Round>,
    pub(super) rows: Vec<Row>,
    pub(super) servers: Vec<Change>,
    pub(super) workers: Vec<Use>,
    /// Why the figures may be this program's and not the server's.
    pub(super) client_limits: Vec<String>,
    pub(super) hints: Vec<&'static str>,
    /// Why the run did not go well; empty: it did.
    pub(super) failures: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Latencies {
    pub(super) handshake: Option<Quantiles>,
    pub(super) join: Option<Quantiles>,
    pub(super) deliver: Option<Quantiles>,
    pub(super) ack: Option<Quantiles>,
    pub(super) away: Option<Quantiles>,
    pub(super) closed_at: Option<Quantiles>,
    pub(super) lag: Option<Quantiles>,
}

/// All sockets came once.
#[derive(Debug, Serialize)]
pub(super) struct Round {
    /// Until the last was in.
    pub(super) seconds: f64,
    pub(super) joined: u64,
    pub(super) failed: u64,
}

impl Report {
    pub(super) fn new(run: &Run, total: &Tally, rooms: &[RoomCount], workers: Vec<Use>, interrupted: bool) -> Self {
        let plan = &run.plan;
        let Tally { counts, closes, refusals, errors, .. } = total;
        let bad = |room: &RoomCount| room.missing() + room.duplicates + room.reordered > 0;
        let bad_rooms = rooms.iter().copied().enumerate().filter(|(_, room)| bad(room)).take(NAMED).collect();
        let mut report = Self {
            scenario: run.name,
            sockets: plan.sockets(),
            rooms: plan.rooms,
            talkers: plan.talkers,
            rate: plan.rate,
            payload_bytes: plan.payload_bytes,
            duration: run.duration.as_secs_f64(),
            interrupted,
            counts: *counts,
            expected: rooms.iter().map(|room| room.stored * room.members).sum(),
            missing: rooms.iter().map(RoomCount::missing).sum(),
            unanswered: workers.iter().map(|worker| worker.pending).sum(),
            closes: closes.clone(),
            refusals: refusals.clone(),
            errors: errors.clone(),
            times: Latencies {
                handshake: total.handshake.quantiles(),
                join: total.join.quantiles(),
                deliver: total.deliver.quantiles(),
                ack: total.ack.quantiles(),
                away: total.away.quantiles(),
                closed_at: total.closed_at.quantiles(),
                lag: total.lag.quantiles(),
            },
            bad_rooms,
            rounds: Vec::new(),
            rows: Vec::new(),
            servers: Vec::new(),
            workers,
            client_limits: Vec::new(),
            hints: Vec::new(),
            failures: Vec::new(),
        };
        report.judge();
        report
    }

    fn judge(&mut self) {
        let Counts { failed, duplicates, reordered, abandoned, unrecovered, rolled_back, overrun, .. } = self.counts;
        let reasons = [
            (failed, "sockets never came into their room"),
            (self.missing, "deliveries are missing"),
            (duplicates, "deliveries came again"),
            (reordered, "deliveries came out of order"),
            (self.unanswered, "messages have no answer"),
            (abandoned, "messages were refused for good or given up"),
            (unrecovered, "resumptions came too late for the log"),
            (rolled_back, "acknowledged messages were lost by the log"),
            (overrun, "messages were not sent, as too many waited before them"),
        ];
        self.failures = reasons.iter().filter(|(n, _)| *n > 0).map(|(n, reason)| format!("{n} {reason}")).collect();
        for (number, worker) in self.workers.iter().enumerate() {
            let share = worker.opening.of_core().max(worker.talking.of_core());
            if share > BUSY {
                let percent = share * 100.0;
                self.client_limits
                    .push(format!("worker {number} used {percent:.0} % of a core: start more with `--processes`"));
            }
        }
        if let Some(lag) = self.times.lag.filter(|lag| lag.p99 > LATE_US) {
            let late = Times::human(lag.p99);
            self.client_limits
                .push(format!("one of 100 messages was sent {late} late or more; latencies include that"));
        }
        let met = |names: &Names, name: &str| names.keys().any(|key| key.ends_with(name));
        let hints = [
            (
                met(&self.errors, "rate_limited"),
                "rate_limited: the service's limits.messages_per_second is for one socket; lower --rate, have more talkers, or raise it",
            ),
            (
                met(&self.refusals, " busy"),
                "503 busy: limits.upgrades_per_second, for one node; set --ramp below it, or raise it",
            ),
            (
                met(&self.refusals, " new_rooms"),
                "429 new_rooms: limits.new_rooms_per_user; use fewer --rooms, --mint, or raise it",
            ),
            (
                met(&self.refusals, "_connections"),
                "429: limits.connections_per_user or connections_per_address; use --mint, or raise it",
            ),
            (
                self.scenario == "drain" && self.closes.is_empty(),
                "nobody was closed: was anything rolled while this ran?",
            ),
        ];
        self.hints = hints.iter().filter(|(met, _)| *met).map(|(_, hint)| *hint).collect();
    }

    /// Prints it, writes it where asked, and says in the exit code what came of it.
    pub(super) fn finish(&self, json: Option<&Path>) -> anyhow::Result<ExitCode> {
        if let Some(path) = json {
            let file = fs::File::create(path).with_context(|| path.display().to_string())?;
            serde_json::to_writer_pretty(file, self)?;
        }
        self.print()?;
        Ok(if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Seconds since then.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
