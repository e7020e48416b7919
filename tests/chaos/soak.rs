//! S33: faults of all kinds that a node outlives, one after the other in random order for half an hour; and what has grown by then.

use std::time::{Duration, Instant};

use crate::{
    faults,
    load::Shape,
    rig::{Build, NODES, Rig},
    rows::{ROW, ROWS, Row, Scale},
    support::{Node, eventually},
};

/// Half an hour by itself: only for those who pick it.
pub const SOAK: Row = Row {
    id: "S33",
    fault: "one fault after the other for 30 minutes, in random order",
    build: Build {
        redis: &["--appendfsync", "always"],
        shape: Shape { rate: 100, patience: Duration::from_secs(5), ..Shape::USUAL },
        ..Build::USUAL
    },
    inject: |rig, scale| Box::pin(random_faults(rig, scale)),
    recovery: Duration::from_secs(30),
    ..ROW
};

/// Rows whose faults it takes, each in its short form. The first node is the one that dies (S1), so that the others are as old as the soak.
const FAULTS: [&str; 11] = ["S1", "S3", "S4", "S6", "S10", "S11", "S14", "S15", "S16", "S19", "S31"];

/// From the first fault on.
const LONG: Duration = Duration::from_secs(30 * 60);
const SHORT: Duration = Duration::from_secs(5);
/// Until a node has its size: what it starts with is not growth.
const SETTLING: Duration = Duration::from_secs(5 * 60);
/// Messages from one fault to the next.
const BREATH: usize = 150;
const MIB: f64 = 1024.0 * 1024.0;
/// Bytes a minute by which a node may grow.
const GROWTH: f64 = MIB / 4.0;
/// Open files and tasks, besides those of its connections, that a node may have more at the end: pools come and go.
const SLACK: f64 = 16.0;

/// What a node holds when nothing is wrong.
#[derive(Debug, Clone, Copy)]
struct Size {
    minutes: f64,
    memory: f64,
    /// Besides one for each connection.
    files: f64,
    tasks: f64,
}

impl Size {
    async fn of(node: &Node, start: Instant) -> Self {
        let connections = node.metric("chat_connections").await;
        Self {
            minutes: start.elapsed().as_secs_f64() / 60.0,
            memory: node.metric("process_resident_memory_bytes").await,
            files: node.metric("process_open_fds").await - connections,
            tasks: node.metric("chat_tokio_alive_tasks").await - connections,
        }
    }
}

/// Bytes a minute: the line through all readings.
fn slope(sizes: &[Size]) -> f64 {
    let count = sizes.len() as f64;
    let mean = |of: fn(&Size) -> f64| sizes.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|size| size.minutes), mean(|size| size.memory));
    let above: f64 = sizes.iter().map(|size| (size.minutes - x) * (size.memory - y)).sum();
    let below: f64 = sizes.iter().map(|size| (size.minutes - x).powi(2)).sum();
    above / below
}

/// What has grown too much.
fn growth(sizes: &[Size]) -> Vec<String> {
    let mut failures = Vec::new();
    if slope(sizes) > GROWTH {
        failures.push(format!("a node grew by {:.2} MiB a minute", slope(sizes) / MIB));
    }
    let lowest = |sizes: &[Size], of: fn(&Size) -> f64| sizes.iter().map(of).fold(f64::INFINITY, f64::min);
    let (first, last) = sizes.split_at(sizes.len() / 2);
    for (what, of) in [("files", (|size| size.files) as fn(&Size) -> f64), ("tasks", |size| size.tasks)] {
        let (before, after) = (lowest(first, of), lowest(last, of));
        if after > before + SLACK {
            failures.push(format!("a node has {after} {what} besides its connections', {before} before"));
        }
    }
    failures
}

async fn inject(rig: &mut Rig, id: &str) {
    if id == "S1" {
        return faults::kill_node(rig, 0).await;
    }
    let row = ROWS.iter().find(|row| row.id == id).expect("a row of the scorecard");
    (row.inject)(rig, Scale::Short).await;
}

async fn random_faults(rig: &mut Rig, scale: Scale) {
    let length = if scale == Scale::Long { LONG } else { SHORT };
    let (start, mut counts) = (Instant::now(), [0; FAULTS.len()]);
    let mut sizes: [Vec<Size>; NODES - 1] = Default::default();
    while start.elapsed() < length {
        let n = rig.rng.usize(..FAULTS.len());
        inject(rig, FAULTS[n]).await;
        counts[n] += 1;
        // All is well before the next: every node serves, messages flow, nobody is left without a socket.
        rig.ready().await;
        rig.progress(BREATH).await;
        let clients = rig.clients() as f64;
        eventually("everybody has a socket", || async { rig.metric("chat_connections").await >= clients }).await;
        for (sizes, node) in sizes.iter_mut().zip(rig.nodes.iter().skip(1)) {
            sizes.push(Size::of(node, start).await);
        }
    }
    let settled = |sizes: &Vec<Size>| sizes.iter().position(|size| size.minutes * 60.0 > SETTLING.as_secs_f64());
    rig.notes.retain(|note| note.contains("Redis lost")); // each fault has its own row for the rest
    let done = counts.iter().zip(FAULTS).filter(|(count, _)| **count > 0);
    let done: Vec<_> = done.map(|(count, id)| format!("{count} × {id}")).collect();
    rig.notes.push(format!("{} in {:.1} minutes", done.join(", "), start.elapsed().as_secs_f64() / 60.0));
    for sizes in sizes.iter().filter(|_| scale == Scale::Long) {
        let sizes = &sizes[settled(sizes).expect("readings after the beginning")..];
        let [first, .., last] = sizes else { panic!("too few readings") };
        let (first, last, slope) = (first.memory / MIB, last.memory / MIB, slope(sizes) / MIB);
        rig.notes.push(format!(
            "a node had {first:.1} MiB, then {last:.1}: {slope:+.3} a minute over {} readings",
            sizes.len()
        ));
        rig.failures.extend(growth(sizes));
    }
    if scale == Scale::Long && counts.contains(&0) {
        rig.failures.push("does not count: a fault never had its turn".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(memory: impl Fn(f64) -> f64, files: impl Fn(f64) -> f64) -> Vec<Size> {
        let at = |n: u32| f64::from(n) / 4.0;
        (0..100).map(|n| Size { minutes: at(n), memory: memory(at(n)), files: files(at(n)), tasks: 20.0 }).collect()
    }

    #[test]
    fn growth_is_what_stays() {
        let noisy = |at: f64| 20.0 * MIB + (at * 4.0).rem_euclid(3.0) * MIB;
        assert_eq!(growth(&sizes(noisy, |at| (at * 4.0).rem_euclid(30.0))), [] as [String; 0]);
        assert_eq!(growth(&sizes(|at| noisy(at) + at * MIB / 3.0, |_| 12.0)).len(), 1, "a third of a MiB a minute");
        assert_eq!(growth(&sizes(noisy, |at| 12.0 + at * 4.0)).len(), 1, "a file with each fault");
    }
}
