//! Three nodes over one Redis, every link through a proxy, and a load on top.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tempfile::NamedTempFile;
use tokio::time::sleep;

use crate::{
    checker::{self, Promise, Verdict},
    history::Event,
    load::{self, Load, Shape, Ways},
    measure::{self, Share},
    mutant::Plot,
    support::{
        Node, NodeBuilder, Redis, eventually,
        proxy::Proxy,
        sentinel::{self, Sentinels},
    },
};

/// Nodes in a rig.
pub const NODES: usize = 3;
/// What only the subscriber of a node says to Redis.
pub const SUBSCRIBER: &str = "SUBSCRIBE\r\n";
/// What only its publishers say.
pub const PUBLISHER: &str = "_publish\r\n";
/// Longest wait for progress of any kind. A busy machine may need it; a broken server uses it up.
const PATIENCE: Duration = Duration::from_secs(120);
/// The most memory that a node may take, in bytes.
const MEMORY: u64 = 300 * 1024 * 1024;

/// What a rig is made of.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// Options of the Redis server.
    pub redis: &'static [&'static str],
    /// A second server that follows the first.
    pub replica: bool,
    /// Three of them watch both; the nodes ask them for the master.
    pub sentinels: bool,
    /// The clock of the first node can be set.
    pub clock: bool,
    /// Settings of the nodes.
    pub env: &'static [(&'static str, &'static str)],
    pub shape: Shape,
}

impl Build {
    pub const USUAL: Self =
        Self { redis: &[], replica: false, sentinels: false, clock: false, env: &[], shape: Shape::USUAL };
}

pub struct Rig {
    pub rng: fastrand::Rng,
    pub redis: Redis,
    pub replica: Option<Redis>,
    pub sentinels: Option<Sentinels>,
    /// From the nodes to each sentinel.
    pub watches: Vec<Proxy>,
    pub nodes: Vec<Node>,
    /// From the clients to each node.
    pub doors: Vec<Proxy>,
    /// From each node to Redis.
    pub links: Vec<Proxy>,
    pub load: Load,
    /// Observations of the fault itself.
    pub notes: Vec<String>,
    /// What a fault found that no checker can know.
    pub failures: Vec<String>,
    build: Build,
    clock: NamedTempFile,
    began: Option<Instant>,
    healed: Option<Instant>,
    marks: Vec<Instant>,
    traces: usize,
    found: Option<Duration>,
    shares: Vec<Share>,
    lost: bool,
    gone: NodeCounts,
}

/// What the nodes say about themselves, all together.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeCounts {
    pub repairs: u64,
    pub reconnects: u64,
    pub invalid: u64,
    /// Publishes that were tried again as their outcome was not known.
    pub retries: u64,
    /// Slow readers that were closed.
    pub slow: u64,
    /// Lines of their logs that tell of a panic.
    pub panics: u64,
    /// Of one node, in bytes.
    pub memory: u64,
}

/// What a run was like.
#[derive(Default)]
pub struct Outcome {
    pub verdict: Verdict,
    pub nodes: NodeCounts,
    /// Acknowledged from shortly before the fault to shortly after it.
    pub around: usize,
    /// From the end of the fault until everybody has something that was sent after it, in every room.
    pub recovery: Option<Duration>,
    /// How long a node took to notice the fault by itself.
    pub found: Option<Duration>,
    /// How much slower the machine was than an idle one, from the fault on: 1 or more. Limits on time are that much longer.
    pub pace: f64,
    pub notes: Vec<String>,
    pub failures: Vec<String>,
    pub events: Vec<Event>,
    /// When the fault began and ended, since the start of the load.
    pub fault: (Duration, Duration),
    /// Moments that the fault marked.
    pub marks: Vec<Duration>,
    /// How much of the fault is to be seen: what was unknown or refused, sockets and subscriptions lost, repairs, and what it saw itself.
    pub traces: usize,
}

impl Rig {
    pub async fn start(build: Build, seed: u64) -> Self {
        Self::start_with(build, seed, None).await
    }

    /// The same with a mutant between clients and nodes.
    pub async fn start_tampered(build: Build, seed: u64, plot: &Arc<Plot>) -> Self {
        Self::start_with(build, seed, Some(plot)).await
    }

    async fn start_with(build: Build, seed: u64, plot: Option<&Arc<Plot>>) -> Self {
        let redis = Redis::start_with(build.redis).await;
        let replica = if build.replica {
            let replica = Redis::start_with(build.redis).await;
            replica.follow(&redis).await;
            Some(replica)
        } else {
            None
        };
        let (mut nodes, mut doors, mut links, mut watches) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let sentinels = if build.sentinels { Some(Sentinels::start(&redis).await) } else { None };
        for address in sentinels.iter().flat_map(|sentinels| &sentinels.addresses) {
            watches.push(Proxy::start(*address, &[SUBSCRIBER]).await);
        }
        let clock = NamedTempFile::new().expect("a file");
        std::fs::write(clock.path(), "+0").expect("the file can be written");
        for number in 0..NODES {
            let link = Proxy::start(redis.address(), &[SUBSCRIBER, PUBLISHER]).await;
            let node = builder(&build, &link, &watches, clock.path(), number).start().await;
            let door = match plot.cloned() {
                None => Proxy::start(node.public, &[]).await,
                Some(plot) => Proxy::tampering(node.public, Box::new(move || plot.tamper())).await,
            };
            doors.push(door);
            nodes.push(node);
            links.push(link);
        }
        let addresses: Vec<_> = doors.iter().map(|door| door.address).collect();
        let direct: Vec<_> = nodes.iter().map(|node| node.public).collect();
        let ways = Ways { doors: &addresses, nap_doors: &direct, pass: &|_| None };
        let load = Load::start(build.shape, &ways, seed);
        Self {
            rng: fastrand::Rng::with_seed(seed),
            redis,
            replica,
            sentinels,
            watches,
            nodes,
            doors,
            links,
            load,
            notes: Vec::new(),
            failures: Vec::new(),
            build,
            clock,
            began: None,
            healed: None,
            marks: Vec::new(),
            traces: 0,
            found: None,
            shares: Vec::new(),
            lost: false,
            gone: NodeCounts::default(),
        }
    }

    pub fn replica(&self) -> &Redis {
        self.replica.as_ref().expect("this rig has a replica")
    }

    /// Everybody is in, and so many messages have been acknowledged.
    pub async fn warm_up(&mut self, messages: usize) {
        if !self.load.joined(PATIENCE).await {
            self.failures.push("not everybody got into its rooms".into());
        }
        self.progress(messages).await;
    }

    /// So many more messages are acknowledged.
    pub async fn progress(&mut self, messages: usize) {
        let target = self.load.acked() + messages;
        if !self.load.acked_to(target, PATIENCE).await {
            let acked = self.load.acked();
            self.failures.push(format!("no progress: {acked} acknowledged, waited for {target}"));
        }
    }

    /// Waits for something to happen under the load.
    pub async fn until(&mut self, happened: impl Fn() -> bool) {
        let start = Instant::now();
        while !happened() && start.elapsed() < PATIENCE {
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The fault begins now; of several, the first.
    pub fn begin(&mut self) {
        if self.began.is_some() {
            return;
        }
        let processes = self.nodes.iter().map(Node::id).chain([std::process::id()]);
        self.shares = processes.filter_map(Share::of).collect();
        self.began = Some(Instant::now());
    }

    /// See [`Outcome::pace`].
    pub fn pace(&self) -> f64 {
        measure::slowdown(&self.shares)
    }

    /// The fault is over now; of several, this one.
    pub fn heal(&mut self) {
        self.links.iter().chain(&self.doors).for_each(Proxy::heal);
        self.healed = Some(Instant::now());
    }

    /// Remembers this moment.
    pub fn mark(&mut self) {
        self.marks.push(Instant::now());
    }

    /// Redis itself has lost so many of the writes that it had acknowledged to the harness.
    pub fn redis_lost(&mut self, writes: u64) {
        if writes > 0 {
            self.notes.push(format!("Redis lost the last {writes} writes of the harness's own"));
            self.lost = true;
        }
    }

    /// A node noticed the fault by itself, after so long.
    pub fn found(&mut self, after: Duration) {
        self.notes.push(format!("noticed after {:.1} s", after.as_secs_f64()));
        self.found = Some(after);
    }

    /// The fault was seen at work, where no client or node notices it.
    pub fn trace(&mut self, seen: bool) {
        self.traces += usize::from(seen);
    }

    pub fn rooms(&self) -> usize {
        self.build.shape.rooms
    }

    /// Sockets when nothing is wrong.
    pub fn clients(&self) -> usize {
        self.build.shape.clients()
    }

    /// Sets the first node's clock so many seconds off, and looks whether it went there.
    pub async fn set_clock(&mut self, offset: &str) {
        std::fs::write(self.clock.path(), offset).expect("the file can be written");
        let off: i64 = offset.parse().expect("seconds");
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
        let node = &self.nodes[0];
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // Each socket leaves a line in the log.
            drop(node.connect("/api/chat-api/ws").await);
            let log = node.log();
            let newest = log.iter().rev().find_map(|line| timestamp(line));
            if newest.is_some_and(|newest| (newest - now() - off).abs() < 600) {
                self.trace(off != 0);
                self.notes.push(format!("its clock was seen {off} s off"));
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.failures.push(format!("the clock did not go to {offset}"));
    }

    pub fn since_heal(&self) -> Duration {
        self.healed.map_or(Duration::ZERO, |healed| healed.elapsed())
    }

    /// Starts a node in the place of one that has ended.
    pub async fn replace(&mut self, node: usize) {
        self.gone.add(&self.nodes[node]).await;
        let new = builder(&self.build, &self.links[node], &self.watches, self.clock.path(), node).start().await;
        self.doors[node].retarget(new.public);
        self.nodes[node] = new;
    }

    /// Waits until all nodes are ready.
    pub async fn ready(&self) {
        for node in &self.nodes {
            eventually("the node is ready", || async { node.manage("/readyz").await.status == 200 }).await;
        }
    }

    /// The sum of one metric over the nodes that run.
    pub async fn metric(&self, series: &str) -> f64 {
        let mut sum = 0.0;
        for node in &self.nodes {
            sum += node.metric(series).await;
        }
        sum
    }

    /// Ends the load and judges it.
    pub async fn finish(mut self, promise: Promise) -> Outcome {
        let started = self.load.started;
        let since = |at: Option<Instant>| at.map_or(Duration::ZERO, |at| at - started);
        let fault = (since(self.began), since(self.healed.or(self.began)));
        let pace = self.pace();
        let events = self.load.finish(PATIENCE).await;
        let logs = load::logs(&self.build.shape, self.nodes.iter().map(|node| node.public), None).await;
        let promise = Promise { log_lost: promise.log_lost || self.lost, ..promise };
        let verdict = checker::check(&events, &logs, promise);
        for node in &self.nodes {
            self.gone.add(node).await;
        }
        if self.gone.panics > 0 {
            self.failures.push(format!("{} panics in the nodes' logs", self.gone.panics));
        }
        if self.gone.memory > MEMORY {
            self.failures.push(format!("a node took {} MiB", self.gone.memory / 1024 / 1024));
        }
        let (counts, nodes) = (&verdict.counts, self.gone);
        let at_nodes = (nodes.repairs + nodes.reconnects + nodes.retries + nodes.invalid) as usize;
        let traces = counts.unknown + counts.refused + counts.reconnects + at_nodes;
        Outcome {
            traces: traces + self.traces,
            marks: self.marks.iter().map(|mark| *mark - started).collect(),
            verdict,
            nodes,
            around: measure::acked_around(&events, fault),
            found: self.found,
            pace,
            recovery: measure::recovery(&events, fault.1),
            notes: self.notes,
            failures: self.failures,
            events,
            fault,
        }
    }
}

impl NodeCounts {
    /// Adds what a node says; one that has ended says nothing more.
    async fn add(&mut self, node: &Node) {
        self.panics += node.log().iter().filter(|line| line.contains("panicked")).count() as u64;
        if node.exited() {
            return;
        }
        self.repairs += node.total("chat_repairs_total").await as u64;
        self.reconnects += node.metric("chat_redis_reconnects_total").await as u64;
        self.invalid += node.metric("chat_invalid_entries_total").await as u64;
        self.retries += node.metric("chat_publish_retries_total").await as u64;
        self.slow += node.metric(r#"chat_connections_closed_total{code="1013"}"#).await as u64;
        self.memory = self.memory.max(node.peak_rss());
    }
}

fn builder(build: &Build, link: &Proxy, watches: &[Proxy], clock: &Path, number: usize) -> NodeBuilder {
    let mut node = Node::builder().env("CHAT_HISTORY__MESSAGES", "1000000");
    if build.sentinels {
        let addresses: Vec<_> = watches.iter().map(|watch| watch.address.to_string()).collect();
        node = node.env("REDIS_URL", &format!("redis://{}", sentinel::MASTER));
        node = node.env("CHAT_REDIS__SENTINELS", &addresses.join(","));
    } else {
        node = node.env("REDIS_URL", &format!("redis://{}", link.address));
    }
    if build.clock && number == 0 {
        node = node.env("LD_PRELOAD", &fake_time()).env("FAKETIME_TIMESTAMP_FILE", &clock.to_string_lossy());
        node = node.env("FAKETIME_CACHE_DURATION", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    build.env.iter().fold(node, |node, (key, value)| node.env(key, value))
}

/// Debian's libfaketime, whatever the machine.
fn fake_time() -> String {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut found =
        folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("libfaketime is installed: run `make tools`").to_string_lossy().into_owned()
}

/// When a line was logged, in seconds since 1970.
fn timestamp(line: &str) -> Option<i64> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(line["timestamp"].as_str()?.parse::<jiff::Timestamp>().ok()?.as_second())
}
