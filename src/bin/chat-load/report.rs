//! What was measured, as a table for people, as JSON for later comparison, and as an exit code.

use std::{fmt, fs, io::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde::Serialize;

use crate::{
    pairs::{Pair, Spread},
    scenario::{Over, Scenario},
};

/// Exit code: a median is above its goal.
pub(crate) const ABOVE_GOAL: u8 = 3;
/// Exit code: the machine was too busy to tell.
pub(crate) const TOO_FEW: u8 = 4;

/// How it was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rules {
    /// Clean pairs wanted.
    pub(crate) pairs: usize,
    /// Most pairs tried.
    pub(crate) tries: usize,
    /// Of one measurement.
    #[serde(serialize_with = "millis", rename = "leg_ms")]
    pub(crate) leg: Duration,
    /// The figures mean nothing and are held to nothing.
    pub(crate) short: bool,
}

fn millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(duration.as_millis())
}

/// Where it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
}

impl Machine {
    pub(crate) fn this() -> anyhow::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let cpu = model.map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':'])).to_owned();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let kernel = kernel.trim().split('-').next().unwrap_or_default().to_owned();
        let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
        Ok(Self { cpu, cores, kernel })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel } = self;
        write!(f, "{cpu}, {cores} cores, Linux {kernel}")
    }
}

/// One scenario with its pairs.
#[derive(Debug, Serialize)]
struct Measured {
    #[serde(flatten)]
    scenario: Scenario,
    over: Over,
    frame_bytes: u64,
    /// Of the clean pairs.
    clean: usize,
    ratio: Option<Spread>,
    reference_ns_per_delivery: Option<Spread>,
    candidate_ns_per_delivery: Option<Spread>,
    pairs: Vec<Pair>,
}

/// See the module.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rules: Rules,
    scenarios: Vec<Measured>,
}

impl Report {
    pub(crate) fn new(rules: Rules) -> anyhow::Result<Self> {
        Ok(Self { machine: Machine::this().context("the machine")?, rules, scenarios: Vec::new() })
    }

    pub(crate) fn add(&mut self, over: Over, scenario: Scenario, pairs: Vec<Pair>) {
        let clean: Vec<&Pair> = pairs.iter().filter(|pair| pair.rejected.is_none()).collect();
        let references = clean.iter().flat_map(|pair| pair.reference.map(|leg| leg.cpu_ns_per_delivery));
        self.scenarios.push(Measured {
            scenario,
            over,
            frame_bytes: pairs.last().map_or(0, |pair| pair.candidate.frame_bytes()),
            clean: clean.len(),
            ratio: Spread::of(clean.iter().map(|pair| pair.ratio)),
            reference_ns_per_delivery: Spread::of(references),
            candidate_ns_per_delivery: Spread::of(clean.iter().map(|pair| pair.candidate.cpu_ns_per_delivery)),
            pairs,
        });
    }

    /// Prints the table and the verdict.
    pub(crate) fn print(&self) -> anyhow::Result<ExitCode> {
        let machine = &self.machine;
        say(format_args!("\nCPU per delivery; {machine}; median [min–max] of the clean pairs\n"))?;
        say(format_args!(
            "| scenario | rooms × members | over | ratio | goal | reference, µs | chat-api, µs | bytes | clean pairs |"
        ))?;
        say(format_args!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |"))?;
        for measured in &self.scenarios {
            say(format_args!("{measured}"))?;
        }
        self.verdict()
    }

    /// A median above its goal weighs more than one that could not be had.
    fn verdict(&self) -> anyhow::Result<ExitCode> {
        if self.rules.short {
            say(format_args!("\nshort: the figures mean nothing"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let (mut above, mut few) = (false, false);
        say(format_args!(""))?;
        for Measured { scenario: Scenario { name, goal, .. }, over, clean, ratio, pairs, .. } in &self.scenarios {
            let over = over.as_str();
            match ratio {
                Some(Spread { median, .. }) if *clean >= self.rules.pairs => {
                    if median > goal {
                        say(format_args!("above the goal: {name} over {over}: {median:.2}, the goal is {goal}"))?;
                        above = true;
                    }
                }
                _ => {
                    let (wanted, tried) = (self.rules.pairs, pairs.len());
                    say(format_args!(
                        "too busy to tell: {name} over {over}: {clean} clean pairs of {tried}, {wanted} are needed"
                    ))?;
                    few = true;
                }
            }
        }
        Ok(match (above, few) {
            (true, _) => ExitCode::from(ABOVE_GOAL),
            (false, true) => ExitCode::from(TOO_FEW),
            (false, false) => {
                say(format_args!("every goal is reached"))?;
                ExitCode::SUCCESS
            }
        })
    }
}

/// A row of the table.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { name, rooms, members, goal, .. } = self.scenario;
        let micros = |ns: Option<Spread>| ns.map_or("-".to_owned(), |ns| format!("{:.2}", ns.median / 1000.0));
        let ratio =
            self.ratio.map_or("-".to_owned(), |Spread { median, min, max }| format!("{median:.2} [{min:.2}–{max:.2}]"));
        let (reference, candidate) = (micros(self.reference_ns_per_delivery), micros(self.candidate_ns_per_delivery));
        let (over, bytes, clean, tried) = (self.over.as_str(), self.frame_bytes, self.clean, self.pairs.len());
        write!(
            f,
            "| {name} | {rooms} × {members} | {over} | {ratio} | {goal} | {reference} | {candidate} | {bytes} | {clean} of {tried} |"
        )
    }
}

/// One line to whoever reads; a closed pipe is not worth a panic.
pub(crate) fn say(line: fmt::Arguments<'_>) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
