//! S33: faults of all kinds that a node outlives, one after the other in random order for half an hour; and what has grown by then.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use crate::{
    faults,
    rig::{NODES, Rig},
    rows::Scale,
    support::{Node, eventually},
};

type Fault = for<'a> fn(&'a mut Rig) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Each in its short form. The first node is the one that dies, so that the others are as old as the soak.
const FAULTS: [(&str, Fault); 11] = [
    ("killed node", |rig| Box::pin(faults::kill_node(rig, 0))),
    ("frozen node", |rig| Box::pin(faults::freeze_a_node(rig, Scale::Short))),
    ("killed Redis", |rig| Box::pin(faults::kill_redis(rig, Scale::Short))),
    ("frozen Redis", |rig| Box::pin(faults::freeze_redis(rig, Scale::Short))),
    ("full Redis", |rig| Box::pin(faults::fill_redis(rig, Scale::Short))),
    ("killed subscriptions", |rig| Box::pin(faults::kill_subscriptions(rig, Scale::Short))),
    ("silent subscription", |rig| Box::pin(faults::blackhole_a_subscription(rig, Scale::Short))),
    ("cut replies", |rig| Box::pin(faults::cut_replies(rig, Scale::Short))),
    ("slow links", |rig| Box::pin(faults::slow_links(rig, Scale::Short))),
    ("cut clients", |rig| Box::pin(faults::cut_all_clients(rig, Scale::Short))),
    ("garbage", |rig| Box::pin(faults::write_garbage(rig, Scale::Short))),
];

const MINUTE: Duration = Duration::from_secs(60);
/// From the first fault on.
const LONG: Duration = Duration::from_secs(30 * 60);
const SHORT: Duration = Duration::from_secs(15);
/// Until a node has its size: what it starts with is not growth.
const SETTLING: Duration = Duration::from_secs(5 * 60);
/// Messages from one fault to the next.
const BREATH: usize = 150;
/// Bytes a minute by which a node may grow.
const GROWTH: f64 = 1024.0 * 1024.0;
/// Open files and tasks, besides those of its connections, that a node may have more at the end: the pools of Redis come and go.
const SLACK: f64 = 16.0;

/// What a node holds when nothing is wrong.
#[derive(Debug, Clone, Copy)]
struct Size {
    at: Instant,
    memory: f64,
    /// Besides one for each connection.
    files: f64,
    tasks: f64,
}

impl Size {
    async fn of(node: &Node) -> Self {
        let connections = node.metric("chat_connections").await;
        Self {
            at: Instant::now(),
            memory: node.metric("process_resident_memory_bytes").await,
            files: node.metric("process_open_fds").await - connections,
            tasks: node.metric("chat_tokio_alive_tasks").await - connections,
        }
    }

    /// What has grown too much since then.
    fn grown(self, before: Self) -> Vec<String> {
        let minutes = self.at.duration_since(before.at).as_secs_f64() / 60.0;
        let slope = (self.memory - before.memory) / minutes;
        let mut failures = Vec::new();
        if slope > GROWTH {
            failures.push(format!("a node grew by {:.2} MiB a minute", slope / GROWTH));
        }
        for (what, now, before) in [("files", self.files, before.files), ("tasks", self.tasks, before.tasks)] {
            if now > before + SLACK {
                failures.push(format!("a node has {now} {what} besides its connections', {before} before"));
            }
        }
        failures
    }
}

/// Those of the nodes that nobody kills.
async fn sizes(rig: &Rig) -> Vec<Size> {
    rig.ready().await;
    let mut sizes = Vec::new();
    for node in rig.nodes.iter().skip(1) {
        sizes.push(Size::of(node).await);
    }
    sizes
}

pub async fn random_faults(rig: &mut Rig, scale: Scale) {
    let (length, settling) = if scale == Scale::Long { (LONG, SETTLING) } else { (SHORT, SHORT / 5) };
    let (start, mut counts) = (Instant::now(), [0; FAULTS.len()]);
    let mut before = None;
    while start.elapsed() < length {
        let n = rig.rng.usize(..FAULTS.len());
        (FAULTS[n].1)(rig).await;
        counts[n] += 1;
        rig.progress(BREATH).await;
        if before.is_none() && start.elapsed() >= settling {
            before = Some(sizes(rig).await);
        }
    }
    let (before, after) = (before.expect("it was longer than its beginning"), sizes(rig).await);
    assert_eq!(after.len(), NODES - 1);
    let (mut memory, mut failures) = (Vec::new(), Vec::new());
    for (before, after) in before.iter().zip(&after) {
        memory.push(format!("{:.1} MiB, then {:.1}", before.memory / GROWTH, after.memory / GROWTH));
        failures.extend(after.grown(*before));
    }
    rig.notes.retain(|note| note.contains("Redis lost")); // each fault has its own row for the rest
    let counts = counts.iter().zip(FAULTS).filter(|(count, _)| **count > 0);
    let counts: Vec<_> = counts.map(|(count, (name, _))| format!("{count} × {name}")).collect();
    let minutes = start.elapsed().as_secs_f64() / MINUTE.as_secs_f64();
    rig.notes.push(format!("{} in {minutes:.1} minutes; nodes had {}", counts.join(", "), memory.join(" and ")));
    if scale == Scale::Long {
        rig.failures.append(&mut failures);
    }
    // Nobody is left behind by the last of them.
    eventually("everybody has a socket", || async { rig.metric("chat_connections").await >= rig.clients() as f64 })
        .await;
}
