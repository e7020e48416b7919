//! Where it was measured, and how that and what came of it is said.

use std::{fmt, fs, io::Write as _, process::Command};

use anyhow::Context as _;
use serde::Serialize;

/// Exit code: a median is above its goal.
pub(crate) const ABOVE_GOAL: u8 = 3;
/// Exit code: the machine was too busy to tell.
pub(crate) const TOO_FEW: u8 = 4;

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    /// The compiler that is installed: none, if none is.
    rustc: Option<String>,
}

impl Machine {
    pub(crate) fn this() -> anyhow::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let cpu = model.map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':'])).to_owned();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel")?;
        let kernel = kernel.trim().split('-').next().unwrap_or_default().to_owned();
        let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        let said = Command::new("rustc").arg("--version").output().ok();
        let said = said.and_then(|output| String::from_utf8(output.stdout).ok());
        let rustc = said.and_then(|text| Some(text.split_whitespace().nth(1)?.to_owned()));
        Ok(Self { cpu, cores, kernel, rustc })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, rustc } = self;
        write!(f, "{cpu}, {cores} cores, Linux {kernel}")?;
        rustc.iter().try_for_each(|rustc| write!(f, ", rustc {rustc}"))
    }
}

/// One line to whoever reads; a closed pipe is not worth a panic.
pub(crate) fn say(line: fmt::Arguments<'_>) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
