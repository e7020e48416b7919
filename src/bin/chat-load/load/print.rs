//! The report as people read it.

use super::{
    pulse::Row,
    report::{Latencies, Report},
    servers::Change,
    tally::{Quantiles, Times},
};
use crate::report::say;

impl Report {
    pub(super) fn print(&self) -> anyhow::Result<()> {
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
