//! Measuring in pairs: reference, candidate, reference. Only the ratio of neighbours in time means something on a machine that others use.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    cpu::{Cores, Snapshot, Usage},
    crowd::{Count, Crowd},
    process::Process,
    report::say,
};

/// Most of the server's core that others may use.
pub(crate) const FOREIGN: f64 = 0.10;
/// Most by which the larger of the two references may exceed the smaller.
const DRIFT: f64 = 0.20;
/// Talk before each measurement: caches, congestion windows and the client's own rhythm.
const WARM_UP: Duration = Duration::from_millis(100);
/// Until a server that has sent the last frame sleeps, so that its CPU is counted to the end.
pub(crate) const SETTLE: Duration = Duration::from_millis(5);

/// A server under load.
pub(crate) struct Side {
    pub(crate) crowd: Crowd,
    pub(crate) process: Process,
    /// What else has to run meanwhile: Redis, another node.
    pub(crate) beside: Vec<Process>,
    /// It runs on the clients' core as well.
    pub(crate) on_both: bool,
}

impl Side {
    fn snapshot(&self, cores: Cores) -> anyhow::Result<Snapshot> {
        if self.on_both {
            return Snapshot::take_beside_us(self.process.id(), cores);
        }
        Snapshot::take(self.process.id(), cores.server)
    }
}

/// How often, and for how long.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rules {
    /// Clean pairs wanted.
    pub(crate) pairs: usize,
    /// Most pairs tried.
    pub(crate) tries: usize,
    /// Of one measurement, in milliseconds.
    pub(crate) leg_ms: u64,
}

impl Rules {
    /// Of one measurement.
    pub(crate) fn leg(self) -> Duration {
        Duration::from_millis(self.leg_ms)
    }

    /// Takes pairs until enough of them are clean; fewer, where none is among the first twice as many.
    pub(crate) fn collect(self, mut pair: impl FnMut() -> anyhow::Result<Pair>) -> anyhow::Result<Vec<Pair>> {
        let mut pairs: Vec<Pair> = Vec::new();
        let hopeless = |pairs: &[Pair]| pairs.len() >= 2 * self.pairs && clean(pairs).next().is_none();
        while pairs.len() < self.tries && clean(&pairs).count() < self.pairs && !hopeless(&pairs) {
            let next = pair()?;
            say(format_args!("  {next}"))?;
            pairs.push(next);
        }
        Ok(pairs)
    }
}

/// Those that count.
pub(crate) fn clean(pairs: &[Pair]) -> impl Iterator<Item = &Pair> {
    pairs.iter().filter(|pair| pair.rejected.is_none())
}

/// One measurement of one server.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Leg {
    pub(crate) messages: u64,
    pub(crate) deliveries: u64,
    /// Frames with messages, headers included.
    pub(crate) bytes: u64,
    /// By the server, in user space and kernel.
    pub(crate) cpu_ns: u64,
    /// While messages were under way.
    pub(crate) wall_ns: u64,
    /// Share of the server's core that others used.
    pub(crate) foreign: f64,
    pub(crate) cpu_ns_per_delivery: f64,
}

impl Leg {
    /// Measures for about so long.
    pub(crate) fn run(side: &mut Side, cores: Cores, duration: Duration) -> anyhow::Result<Self> {
        side.crowd.talk(WARM_UP.min(duration))?;
        std::thread::sleep(SETTLE);
        let before = side.snapshot(cores)?;
        let (Count { messages, deliveries, bytes }, wall) = side.crowd.talk(duration)?;
        std::thread::sleep(SETTLE);
        let Usage { process, foreign } = before.until(&side.snapshot(cores)?);
        let (cpu_ns, wall_ns) = (nanos(process), nanos(wall));
        let cpu_ns_per_delivery = cpu_ns as f64 / deliveries.max(1) as f64;
        Ok(Self { messages, deliveries, bytes, cpu_ns, wall_ns, foreign, cpu_ns_per_delivery })
    }

    /// Measures something else that a server does than deliveries, such as connects: `work` says how many it were.
    pub(crate) fn of(
        server: &Process,
        cores: Cores,
        work: impl FnOnce() -> anyhow::Result<usize>,
    ) -> anyhow::Result<Self> {
        std::thread::sleep(SETTLE);
        let (before, start) = (Snapshot::take(server.id(), cores.server)?, Instant::now());
        let things = work()?;
        let wall_ns = nanos(start.elapsed());
        std::thread::sleep(SETTLE);
        let Usage { process, foreign } = before.until(&Snapshot::take(server.id(), cores.server)?);
        let (cpu_ns, deliveries) = (nanos(process), things as u64);
        let cpu_ns_per_delivery = cpu_ns as f64 / deliveries.max(1) as f64;
        Ok(Self { messages: deliveries, deliveries, bytes: 0, cpu_ns, wall_ns, foreign, cpu_ns_per_delivery })
    }

    /// Length of a frame, rounded.
    pub(crate) fn frame_bytes(&self) -> u64 {
        (self.bytes + self.deliveries / 2) / self.deliveries.max(1)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A candidate between two measurements of the reference.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Pair {
    pub(crate) reference: [Leg; 2],
    pub(crate) candidate: Leg,
    /// CPU per delivery of the candidate in units of the reference.
    pub(crate) ratio: f64,
    /// Why it does not count.
    pub(crate) rejected: Option<Rejection>,
}

/// Why a pair does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rejection {
    /// Others used the core.
    Foreign,
    /// The two references differ.
    Drift,
}

impl Pair {
    pub(crate) fn new(first: Leg, candidate: Leg, second: Leg) -> Self {
        let (a, b) = (first.cpu_ns_per_delivery, second.cpu_ns_per_delivery);
        let rejected = if [first, candidate, second].iter().any(|leg| leg.foreign > FOREIGN) {
            Some(Rejection::Foreign)
        } else if a.max(b) > a.min(b) * (1.0 + DRIFT) {
            Some(Rejection::Drift)
        } else {
            None
        };
        let ratio = candidate.cpu_ns_per_delivery / f64::midpoint(a, b);
        Self { reference: [first, second], candidate, ratio, rejected }
    }

    /// The largest share that others had.
    fn foreign(&self) -> f64 {
        let [first, second] = self.reference;
        first.foreign.max(self.candidate.foreign).max(second.foreign)
    }
}

/// For whoever waits for the table.
impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = self.reference.map(|leg| leg.cpu_ns_per_delivery / 1000.0);
        let candidate = self.candidate.cpu_ns_per_delivery / 1000.0;
        let (ratio, foreign) = (self.ratio, self.foreign() * 100.0);
        let verdict = match self.rejected {
            None => "",
            Some(Rejection::Foreign) => ", rejected: others used the core",
            Some(Rejection::Drift) => ", rejected: the references differ",
        };
        write!(f, "{first:.3} {candidate:.3} {second:.3} µs: {ratio:.3} (others {foreign:.0} %{verdict})")
    }
}

/// Middle and ends of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` for no values.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(cpu_ns_per_delivery: f64, foreign: f64) -> Leg {
        Leg { messages: 1, deliveries: 2, bytes: 401, cpu_ns: 0, wall_ns: 0, foreign, cpu_ns_per_delivery }
    }

    #[test]
    fn a_pair_counts_if_nothing_disturbed_it() {
        let pair = Pair::new(leg(5.0, 0.02), leg(6.6, 0.1), leg(6.0, 0.0));
        assert!((pair.ratio - 1.2).abs() < 1e-9);
        assert_eq!(pair.rejected, None);
        let foreign = Pair::new(leg(5.0, 0.0), leg(5.0, 0.11), leg(5.0, 0.0));
        assert_eq!(foreign.rejected, Some(Rejection::Foreign));
        let drift = Pair::new(leg(6.1, 0.0), leg(5.0, 0.0), leg(5.0, 0.0));
        assert_eq!(drift.rejected, Some(Rejection::Drift));
        assert_eq!(leg(1.0, 0.0).frame_bytes(), 201);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of([].into_iter()), None);
        let odd = Spread { median: 2.0, min: 1.0, max: 9.0 };
        assert_eq!(Spread::of([9.0, 1.0, 2.0].into_iter()), Some(odd));
        let even = Spread { median: 1.5, min: 1.0, max: 2.0 };
        assert_eq!(Spread::of([2.0, 1.0].into_iter()), Some(even));
    }
}
