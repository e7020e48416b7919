//! What the plots show, gathered while it is measured.

use std::collections::BTreeMap;

use serde::Serialize;

use super::plot::{Axis, Bars, Line, Lines};
use crate::pairs::{Pair, Spread, clean};

/// In the order of the legend: the same server has the same colour in every plot.
const SERVERS: [&str; 4] = ["chat-api", "a bare `send`", "axum, 4 KiB buffers", "axum, its own buffers"];
/// On a message's way over Redis.
const PARTS: [&str; 3] = ["node of the sender", "Redis", "node of the members"];

/// A server's points of a line: where, and how much.
type Points = BTreeMap<&'static str, Vec<[f64; 2]>>;

/// See the module.
#[derive(Debug, Default, Serialize)]
pub(super) struct Charts {
    /// CPU of a delivery in units of the bare one's, by server and messages under way.
    delivery: BTreeMap<usize, BTreeMap<&'static str, f64>>,
    /// Megabytes by sockets.
    memory: Points,
    /// Milliseconds by thousands of deliveries a second.
    p50: Points,
    p99: Points,
    /// Microseconds of each part, by members.
    across: Vec<(usize, [f64; 3])>,
}

fn ratio(pairs: &[Pair]) -> Option<f64> {
    Spread::of(clean(pairs).map(|pair| pair.ratio)).map(|spread| spread.median)
}

impl Charts {
    pub(super) fn against_bare(&mut self, in_flight: usize, pairs: &[Pair]) {
        if let Some(ratio) = ratio(pairs) {
            self.delivery.entry(in_flight).or_default().extend([(SERVERS[0], ratio), (SERVERS[1], 1.0)]);
        }
    }

    /// The peer was measured against the node: by way of that, against the bare one.
    pub(super) fn against_peer(&mut self, in_flight: usize, name: &'static str, pairs: &[Pair]) {
        let costs = self.delivery.entry(in_flight).or_default();
        if let (Some(ours), Some(ratio)) = (costs.get(SERVERS[0]).copied(), ratio(pairs)) {
            costs.insert(name, ours / ratio);
        }
    }

    pub(super) fn memory(&mut self, name: &'static str, bytes: &[(usize, f64)]) {
        let points = bytes.iter().map(|(sockets, bytes)| [*sockets as f64, bytes / 1e6]);
        self.memory.entry(name).or_default().extend(points);
    }

    pub(super) fn latency(&mut self, name: &'static str, deliveries: f64, p50: f64, p99: f64) {
        self.p50.entry(name).or_default().push([deliveries / 1e3, p50]);
        self.p99.entry(name).or_default().push([deliveries / 1e3, p99]);
    }

    pub(super) fn across(&mut self, members: usize, micros: [f64; 3]) {
        self.across.push((members, micros));
    }

    /// Each plot for which there is something, as the name of its file and what is in it.
    pub(super) fn files(&self) -> Vec<(&'static str, String)> {
        let (memory, latency) =
            (lines(&self.memory, false), [lines(&self.p50, false), lines(&self.p99, true)].concat());
        let mut files = Vec::new();
        if !self.delivery.is_empty() {
            files.push(("bench-delivery.svg", self.delivery()));
        }
        if !memory.is_empty() {
            let plot = Lines {
                title: "Resident memory of the server",
                x: Axis::linear("idle sockets"),
                y: Axis::log("MB"),
                lines: memory,
            };
            files.push(("bench-memory.svg", plot.svg()));
        }
        if !latency.is_empty() {
            let plot = Lines {
                title: "How late a delivery is, one room of 1000",
                x: Axis::linear("thousands of deliveries a second, as they are due"),
                y: Axis::log("ms; p50 solid, p99 dashed"),
                lines: latency,
            };
            files.push(("bench-latency.svg", plot.svg()));
        }
        if !self.across.is_empty() {
            files.push(("bench-nodes.svg", self.nodes()));
        }
        files
    }

    fn delivery(&self) -> String {
        let groups = self.delivery.keys().map(|in_flight| format!("{in_flight} under way")).collect();
        let bars = |server: &'static str| {
            let values = self.delivery.values().map(|costs| costs.get(server).copied().unwrap_or(f64::NAN));
            (server, values.collect())
        };
        let plot = Bars {
            title: "CPU of a delivery, 1 → 1000",
            y: Axis::linear("times the kernel's least"),
            groups,
            series: SERVERS.map(bars).to_vec(),
        };
        plot.svg()
    }

    fn nodes(&self) -> String {
        let groups = self.across.iter().map(|(members, _)| format!("1 → {members}")).collect();
        let series = PARTS.iter().enumerate().map(|(part, name)| {
            let value = |(_, micros): &(usize, [f64; 3])| micros.get(part).copied().unwrap_or(f64::NAN);
            (*name, self.across.iter().map(value).collect())
        });
        let plot = Bars {
            title: "CPU of a message from one node to members on another",
            y: Axis::log("µs"),
            groups,
            series: series.collect(),
        };
        plot.svg()
    }
}

/// In the order of the legend.
fn lines(points: &Points, dashed: bool) -> Vec<Line> {
    let line = |(colour, name): (usize, &&'static str)| {
        points.get(name).map(|points| Line { name, colour, dashed, points: points.clone() })
    };
    SERVERS.iter().enumerate().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_plot_for_what_was_measured_and_for_nothing_else() {
        let mut charts = Charts::default();
        assert!(charts.files().is_empty());
        charts.delivery = BTreeMap::from([
            (1, BTreeMap::from([(SERVERS[0], 1.08), (SERVERS[1], 1.0), (SERVERS[2], 1.4), (SERVERS[3], 3.5)])),
            (64, BTreeMap::from([(SERVERS[0], 1.1), (SERVERS[1], 1.0), (SERVERS[2], 2.9), (SERVERS[3], 3.3)])),
        ]);
        charts.memory(SERVERS[0], &[(500, 9e6), (15_000, 76e6)]);
        charts.memory(SERVERS[3], &[(500, 70e6), (5000, 650e6)]);
        for (deliveries, late) in [(10e3, 3.0), (100e3, 4.5), (300e3, 12.0)] {
            charts.latency(SERVERS[0], deliveries, late, late * 2.0);
        }
        for (members, micros) in [(1, [40.0, 30.0, 25.0]), (1000, [41.0, 31.0, 5600.0])] {
            charts.across(members, micros);
        }
        let files = charts.files();
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["bench-delivery.svg", "bench-memory.svg", "bench-latency.svg", "bench-nodes.svg"]);
        for (name, svg) in &files {
            assert!(svg.contains("chat-api") || svg.contains("Redis"), "{name}: {svg}");
        }
    }
}
