//! This process and its machine: clocks, CPU, memory, files.

use std::fs;

use anyhow::{Context as _, ensure};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, Timespec, clock_gettime},
};

/// Files that a process has open beside its sockets, with room to spare.
const OWN_FILES: u64 = 64;

/// Nanoseconds of the monotonic clock: the same in all processes of a machine.
pub(super) fn now() -> u64 {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds of CPU that this process has used, in user space and kernel.
pub(super) fn cpu() -> u64 {
    nanos(clock_gettime(ClockId::ProcessCPUTime))
}

fn nanos(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}

/// The same backwards, for timers.
pub(super) fn timespec(nanos: u64) -> Timespec {
    let part = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Timespec { tv_sec: part(nanos / 1_000_000_000), tv_nsec: part(nanos % 1_000_000_000) }
}

/// Bytes of memory that this process has; 0 where that cannot be read.
pub(super) fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Lets a process (and those that it starts) have so many sockets. Fails with what to do where it may not.
pub(super) fn allow_sockets(sockets: usize) -> anyhow::Result<()> {
    let needed = sockets as u64 + OWN_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let most = maximum.unwrap_or(u64::MAX);
    ensure!(
        most >= needed,
        "a process may open {most} files and needs {needed} for {sockets} sockets: start more with `--processes`, or raise `ulimit -Hn`"
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .context("cannot raise the limit of open files")
}
