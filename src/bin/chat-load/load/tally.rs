//! What was counted and timed: taken away second by second by the workers, added up by whoever started them.

use std::collections::BTreeMap;

use anyhow::anyhow;
use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest time that is told from longer ones, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;
/// Digits of a time that count.
const DIGITS: u8 = 3;

/// Times in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).map_err(|error| anyhow!("{error}"))?))
    }

    /// Notes the time between two moments in nanoseconds.
    pub(super) fn record(&mut self, from: u64, to: u64) {
        self.0.saturating_record((to.saturating_sub(from) / 1000).max(1));
    }

    pub(super) fn add(&mut self, other: &Self) {
        for value in other.0.iter_recorded() {
            self.0.saturating_record_n(value.value_iterated_to(), value.count_at_value());
        }
    }

    /// Of microseconds, for people.
    pub(super) fn human(us: u64) -> String {
        match us {
            0..1000 => format!("{us} µs"),
            1000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
            _ => format!("{:.1} s", us as f64 / 1e6),
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.reset();
    }

    /// Figures for a report; none where nothing was noted.
    pub(super) fn quantiles(&self) -> Option<Quantiles> {
        let at = |quantile| self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Quantiles {
            count: self.0.len(),
            min: self.0.min(),
            p10: at(0.1),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max(),
        })
    }
}

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let recorded = self.0.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value()));
        serializer.collect_seq(recorded)
    }
}

impl<'de> Deserialize<'de> for Times {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut times = Self::new().map_err(de::Error::custom)?;
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            times.0.saturating_record_n(value, count);
        }
        Ok(times)
    }
}

/// Of some times, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Quantiles {
    pub(super) count: u64,
    pub(super) min: u64,
    pub(super) p10: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

/// Counted by name.
pub(super) type Names = BTreeMap<String, u64>;

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    /// Sockets that ended, by close code; `cut`: without a close frame; `silent`: given up.
    pub(super) closes: Names,
    /// Upgrades that did not succeed, by status and code, or by what went wrong below HTTP.
    pub(super) refusals: Names,
    /// Error frames, by code.
    pub(super) errors: Names,
    /// From the start of the connection to the 101.
    pub(super) handshake: Times,
    /// From the start of the connection until it was in its room.
    pub(super) join: Times,
    /// From the time for which a message was scheduled to its arrival at each member.
    pub(super) deliver: Times,
    /// From the same time to the acknowledgement.
    pub(super) ack: Times,
    /// From the end of a socket until its successor was in the room.
    pub(super) away: Times,
    /// From the start of the talk to each close that the server asked for, or that nobody did.
    pub(super) closed_at: Times,
    /// From the time for which a message was scheduled until it was handed to its socket.
    pub(super) lag: Times,
}

/// Simple counts.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Sockets that came into their room for the first time.
    pub(super) joined: u64,
    /// Sockets that never did.
    pub(super) failed: u64,
    pub(super) reconnects: u64,
    /// Messages written, those that were repeated too.
    pub(super) sent: u64,
    /// Messages acknowledged; of plain sockets: written.
    pub(super) stored: u64,
    /// Given up, as they were refused for good.
    pub(super) abandoned: u64,
    /// Not even sent, as too many waited for it.
    pub(super) overrun: u64,
    /// Acknowledged, and later lost by the log.
    pub(super) rolled_back: u64,
    /// Resumptions from a position that the log did not have any more.
    pub(super) unrecovered: u64,
    /// Deliveries, those that came again too.
    pub(super) delivered: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
    /// Heartbeats answered.
    pub(super) pings: u64,
}

impl Tally {
    pub(super) fn new() -> anyhow::Result<Self> {
        let times = Times::new;
        Ok(Self {
            counts: Counts::default(),
            closes: Names::new(),
            refusals: Names::new(),
            errors: Names::new(),
            handshake: times()?,
            join: times()?,
            deliver: times()?,
            ack: times()?,
            away: times()?,
            closed_at: times()?,
            lag: times()?,
        })
    }

    /// Returns it and begins anew.
    pub(super) fn take(&mut self) -> Self {
        let taken = self.clone();
        self.counts = Counts::default();
        self.names_mut().into_iter().for_each(BTreeMap::clear);
        self.times_mut().into_iter().for_each(Times::clear);
        taken
    }

    pub(super) fn add(&mut self, mut other: Self) {
        let sums = self.counts.each_mut().into_iter().zip(other.counts.each_mut());
        sums.for_each(|(sum, count)| *sum += *count);
        for (sums, counts) in self.names_mut().into_iter().zip(other.names_mut()) {
            counts.iter().for_each(|(name, count)| *sums.entry(name.clone()).or_default() += count);
        }
        for (sum, times) in self.times_mut().into_iter().zip(other.times_mut()) {
            sum.add(times);
        }
    }

    fn names_mut(&mut self) -> [&mut Names; 3] {
        [&mut self.closes, &mut self.refusals, &mut self.errors]
    }

    fn times_mut(&mut self) -> [&mut Times; 7] {
        let Self { handshake, join, deliver, ack, away, closed_at, lag, .. } = self;
        [handshake, join, deliver, ack, away, closed_at, lag]
    }
}

impl Counts {
    fn each_mut(&mut self) -> [&mut u64; 13] {
        let Self { joined, failed, reconnects, sent, stored, abandoned, overrun, .. } = self;
        let Self { rolled_back, unrecovered, delivered, duplicates, reordered, pings, .. } = self;
        [
            joined,
            failed,
            reconnects,
            sent,
            stored,
            abandoned,
            overrun,
            rolled_back,
            unrecovered,
            delivered,
            duplicates,
            reordered,
            pings,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_adds_up_again() {
        let mut tally = Tally::new().expect("bounds");
        let mut sum = Tally::new().expect("bounds");
        for round in 1..=3 {
            tally.counts.sent += round;
            *tally.closes.entry("1012".into()).or_default() += 1;
            tally.deliver.record(0, round * 1_000_000);
            let wire = serde_json::to_string(&tally.take()).expect("JSON");
            sum.add(serde_json::from_str(&wire).expect("the same"));
        }
        assert_eq!((sum.counts.sent, sum.closes["1012"]), (6, 3));
        let deliver = sum.deliver.quantiles().expect("three");
        assert_eq!((deliver.count, deliver.p50 / 10, deliver.max / 10), (3, 200, 300));
        assert!(tally.deliver.quantiles().is_none() && tally.counts.sent == 0);
    }
}
