//! What came of a run: for people, as JSON, and as an exit code. It says plainly when the limit was on this side.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    crew::{Row, Use},
    options::Run,
    servers::Change,
    shared::RoomCount,
    tally::{Counts, Names, Quantiles, Tally, Times},
};
use crate::report::say;

/// Share of a core from which on a worker is no fair client.
const BUSY: f64 = 0.85;
/// The same for how late it sends, in microseconds, for one of 100 messages.
const LATE_US: u64 = 10_000;
/// Rooms with something wrong that are named.
const NAMED: usize = 20;

/// See the module. Times are in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    scenario: &'static str,
    sockets: usize,
    rooms: usize,
    talkers: usize,
    rate: f64,
    payload_bytes: usize,
    /// As asked for, in seconds.
    duration: f64,
    interrupted: bool,
    counts: Counts,
    /// Deliveries that every member should have had, and those that did not come.
    expected: u64,
    missing: u64,
    /// Messages without an answer.
    unanswered: u64,
    closes: Names,
    refusals: Names,
    errors: Names,
    times: Latencies,
    /// Rooms with something wrong, by number; the first few.
    bad_rooms: Vec<(usize, RoomCount)>,
    pub(super) rounds: Vec<Round>,
    pub(super) rows: Vec<Row>,
    pub(super) servers: Vec<Change>,
    workers: Vec<Use>,
    /// Why the figures may be this program's and not the server's.
    client_limits: Vec<String>,
    hints: Vec<&'static str>,
    /// Why the run did not go well; empty: it did.
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Latencies {
    handshake: Option<Quantiles>,
    join: Option<Quantiles>,
    deliver: Option<Quantiles>,
    ack: Option<Quantiles>,
    away: Option<Quantiles>,
    closed_at: Option<Quantiles>,
    lag: Option<Quantiles>,
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
            unanswered: workers.iter().map(Use::pending).sum(),
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

    fn print(&self) -> anyhow::Result<()> {
        let Self { scenario, sockets, rooms, talkers, rate, counts, .. } = self;
        say(format_args!(
            "\n{scenario}: {sockets} sockets in {rooms} rooms, {talkers} talkers in each, {rate} messages a second in all"
        ))?;
        say(format_args!(
            "  sockets     {} joined, {} failed, {} back again, {} pings answered",
            counts.joined, counts.failed, counts.reconnects, counts.pings
        ))?;
        for (number, round) in (1..).zip(&self.rounds) {
            let rate = round.joined as f64 / round.seconds.max(0.001);
            say(format_args!(
                "  round {number}     {} in {:.2} s ({rate:.0} a second), {} failed",
                round.joined, round.seconds, round.failed
            ))?;
        }
        if *talkers > 0 {
            say(format_args!(
                "  messages    {} sent, {} stored, {} without an answer",
                counts.sent, counts.stored, self.unanswered
            ))?;
            say(format_args!(
                "  deliveries  {} of {}: {} missing, {} doubled, {} out of order",
                counts.delivered - counts.duplicates,
                self.expected,
                self.missing,
                counts.duplicates,
                counts.reordered
            ))?;
        }
        self.print_times()?;
        for (name, names) in [("closes", &self.closes), ("refusals", &self.refusals), ("errors", &self.errors)] {
            if !names.is_empty() {
                let names: Vec<_> = names.iter().map(|(name, count)| format!("{name}: {count}")).collect();
                say(format_args!("  {name:<11} {}", names.join(", ")))?;
            }
        }
        for (room, count) in &self.bad_rooms {
            say(format_args!(
                "  room {room}: {} missing, {} doubled, {} out of order",
                count.missing(),
                count.duplicates,
                count.reordered
            ))?;
        }
        self.print_growth()?;
        let shares: Vec<_> = self
            .workers
            .iter()
            .map(|worker| format!("{:.0}/{:.0} %", worker.opening.of_core() * 100.0, worker.talking.of_core() * 100.0))
            .collect();
        say(format_args!("  this side   {} of a core opening/talking, by process", shares.join(", ")))?;
        for limit in &self.client_limits {
            say(format_args!("THE CLIENT WAS THE LIMIT: {limit}"))?;
        }
        for hint in &self.hints {
            say(format_args!("hint: {hint}"))?;
        }
        for failure in &self.failures {
            say(format_args!("FAILED: {failure}"))?;
        }
        if self.interrupted {
            say(format_args!("ended early, as asked"))?;
        }
        Ok(())
    }

    fn print_times(&self) -> anyhow::Result<()> {
        let Latencies { handshake, join, deliver, ack, away, closed_at, lag } = &self.times;
        let rows = [
            ("handshake", handshake),
            ("in the room", join),
            ("deliver", deliver),
            ("ack", ack),
            ("sent late", lag),
            ("away", away),
            ("closed at", closed_at),
        ];
        say(format_args!(
            "  {:<11} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "", "min", "p50", "p90", "p99", "p99.9", "max"
        ))?;
        for (name, quantiles) in rows {
            if let Some(Quantiles { min, p50, p90, p99, p999, max, .. }) = quantiles {
                let [min, p50, p90, p99, p999, max] = [min, p50, p90, p99, p999, max].map(|us| Times::human(*us));
                say(format_args!("  {name:<11} {min:>9} {p50:>9} {p90:>9} {p99:>9} {p999:>9} {max:>9}"))?;
            }
        }
        Ok(())
    }

    /// What has grown between the first interval and the last, and in the servers.
    fn print_growth(&self) -> anyhow::Result<()> {
        const MB: f64 = 1e6;
        if let [first, .., last] = self.rows.as_slice() {
            let p99 = |row: &Row| row.deliver.map_or_else(|| "-".to_owned(), |deliver| Times::human(deliver.p99));
            let rss = |row: &Row| row.rss_bytes as f64 / MB;
            say(format_args!(
                "  growth      p99 {} to {}, this side's memory {:.1} to {:.1} MB",
                p99(first),
                p99(last),
                rss(first),
                rss(last)
            ))?;
        }
        for Change { url, rss_bytes: [before, after], open_files, cpu_seconds } in &self.servers {
            let files = (open_files[0], open_files[1]);
            say(format_args!(
                "  {url}: memory {:.1} to {:.1} MB, files {} to {}, CPU {cpu_seconds:.2} s",
                before / MB,
                after / MB,
                files.0,
                files.1
            ))?;
        }
        Ok(())
    }
}

/// Seconds since then.
pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
