//! CPU: which core runs what, and how much of it was used.
//!
//! Linux alone: affinity, and the scheduler's own counts below `/proc`.

use std::{
    collections::HashMap,
    fs, io,
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Ticks a second in `/proc/stat`: fixed in the kernel's interface.
const TICKS: u32 = 100;

/// Who runs where: the server alone on one core, everything else on the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    /// The server under measurement.
    pub(crate) server: usize,
    /// The clients, and Redis.
    pub(crate) client: usize,
}

impl Cores {
    /// The first two that this process may use; `share`: one will do.
    pub(crate) fn choose(share: bool) -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None).context("affinity")?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let server = cores.next().context("no core to run on")?;
        let second = cores.next();
        ensure!(share || second.is_some(), "two cores are needed: one for the server, one for its clients");
        Ok(Self { server, client: second.unwrap_or(server) })
    }
}

/// Binds the calling thread to a core; what it starts inherits that.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    pin_to(&[core])
}

fn pin_to(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Starts a process on these cores, all of its threads with it.
pub(crate) fn spawn_on(cores: &[usize], home: usize, command: &mut Command) -> io::Result<Child> {
    pin_to(cores)?;
    let child = command.spawn();
    pin(home)?;
    child
}

/// CPU used up to a moment, by a process and on a core.
#[derive(Debug)]
pub(crate) struct Snapshot {
    at: Instant,
    /// Nanoseconds per thread.
    threads: HashMap<u32, u64>,
    /// What else of ours runs there.
    beside: HashMap<u32, u64>,
    /// Of the cores, by whomever; counted in ticks.
    busy: Duration,
}

/// CPU used between two moments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// By the process.
    pub(crate) process: Duration,
    /// Share of a core's time that others used.
    pub(crate) foreign: f64,
}

impl Snapshot {
    pub(crate) fn take(process: u32, core: usize) -> anyhow::Result<Self> {
        Ok(Self { at: Instant::now(), threads: threads(process)?, beside: HashMap::new(), busy: busy(core)? })
    }

    /// Of a process on both cores, where this one is too.
    pub(crate) fn take_beside_us(process: u32, cores: Cores) -> anyhow::Result<Self> {
        let beside = threads(std::process::id())?;
        Ok(Self { beside, busy: busy(cores.server)? + busy(cores.client)?, ..Self::take(process, cores.server)? })
    }

    /// What was used since.
    pub(crate) fn until(&self, later: &Self) -> Usage {
        let process = used(&self.threads, &later.threads);
        let wall = later.at.duration_since(self.at).max(Duration::from_nanos(1));
        let ours = process + used(&self.beside, &later.beside);
        let foreign = later.busy.saturating_sub(self.busy).saturating_sub(ours);
        Usage { process, foreign: foreign.div_duration_f64(wall) }
    }
}

/// By these threads from then to then. One that has ended meanwhile is not counted: nothing that serves does that.
fn used(before: &HashMap<u32, u64>, after: &HashMap<u32, u64>) -> Duration {
    let used = |(thread, ns): (&u32, &u64)| ns.saturating_sub(before.get(thread).copied().unwrap_or(0));
    Duration::from_nanos(after.iter().map(used).sum())
}

/// Nanoseconds on a core so far, per thread: exact while the thread sleeps.
fn threads(process: u32) -> anyhow::Result<HashMap<u32, u64>> {
    let folder = format!("/proc/{process}/task");
    let mut threads = HashMap::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.clone())? {
        let entry = entry?;
        let path = entry.path().join("schedstat");
        let Ok(text) = fs::read_to_string(&path) else { continue }; // it has ended just now
        let ns = text.split_whitespace().next().and_then(|ns| ns.parse().ok());
        let thread = entry.file_name().to_str().and_then(|name| name.parse().ok()).context("a thread's number")?;
        threads.insert(thread, ns.with_context(|| format!("{}: no time in it", path.display()))?);
    }
    Ok(threads)
}

/// Time that a core was not idle, for any reason. Interrupts and what the hypervisor took count as well.
fn busy(core: usize) -> anyhow::Result<Duration> {
    /// In a line of `/proc/stat`.
    const IDLE: [usize; 2] = [3, 4];
    const FIELDS: usize = 8; // guests are in `user` already
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).context("the core is not in /proc/stat")?;
    let fields = line.split_whitespace().take(FIELDS).enumerate();
    let ticks = fields.filter(|(n, _)| !IDLE.contains(n)).map(|(_, ticks)| ticks.parse::<u64>());
    let ticks = ticks.sum::<Result<u64, _>>().context("/proc/stat")?;
    Ok(Duration::from_millis(ticks * 1000 / u64::from(TICKS)))
}
