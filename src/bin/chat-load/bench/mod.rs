//! `chat-load bench`: what a chat costs next to the least it can cost and next to a plain axum chat, section by section, and whether each
//! target holds.

mod charts;
mod churn;
mod connect;
mod contest;
mod document;
mod fanout;
mod idle;
mod latency;
mod nodes;
mod peer;
mod plan;
mod plot;
mod report;
mod rooms;
mod row;
mod stopped;
mod watch;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use self::{plan::Plan, report::Report};
use crate::{
    cpu::{self, Cores},
    pairs::Rules,
    process::{self, Process},
    report::say,
};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The server [default: the one beside this program].
    #[arg(long, value_name = "PROGRAM")]
    chat_api: Option<PathBuf>,
    /// The plain axum chat of benches/peer [default: the one beside this program].
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
    /// Clean pairs wanted for each ratio.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Most pairs tried for each ratio.
    #[arg(long, default_value_t = 15)]
    tries: usize,
    /// How long one measurement takes; a pair has three.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    leg: Duration,
    /// Only these sections, with commas between.
    #[arg(long, value_name = "SECTIONS", value_delimiter = ',')]
    only: Vec<String>,
    /// Few sockets, one short pair each. What no clock can spoil is held to its target, the rest is printed. Does without the peer where it is not built.
    #[arg(long)]
    quick: bool,
    /// Write the tables and plots of a whole measurement into benchmarks.md and beside it, in this folder.
    #[arg(long, value_name = "FOLDER", conflicts_with = "quick")]
    docs: Option<PathBuf>,
    /// Write everything measured to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What all measurements have in common.
struct Bed {
    program: PathBuf,
    /// None: not built, and not asked for.
    peer: Option<PathBuf>,
    cores: Cores,
    plan: Plan,
    rules: Rules,
}

impl Bed {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let plan = if options.quick { Plan::QUICK } else { Plan::FULL };
        let peer = process::program(options.peer.as_ref(), "chat-peer")?;
        if !peer.exists() && (!options.quick || options.peer.is_some()) {
            bail!("there is no peer at {}: `make bench` builds it from benches/peer", peer.display());
        }
        let rules = if options.quick {
            Rules { pairs: 1, tries: 1, leg_ms: 50 }
        } else {
            let leg_ms = u64::try_from(options.leg.as_millis())?;
            Rules { pairs: options.pairs, tries: options.tries.max(options.pairs), leg_ms }
        };
        Ok(Self {
            program: process::program(options.chat_api.as_ref(), "chat-api")?,
            peer: peer.exists().then_some(peer),
            cores: Cores::choose(options.quick)?,
            plan,
            rules,
        })
    }

    /// A node by itself, on the server's core.
    fn node(&self, settings: &[(&str, &str)]) -> anyhow::Result<Process> {
        Process::chat_api(&self.program, settings, self.cores)
    }

    /// The peer, on the server's core.
    fn peer(&self, peer: &Path, read_buffer: Option<usize>) -> anyhow::Result<Process> {
        Process::peer(peer, read_buffer, self.cores)
    }
}

type Section = fn(&Bed, &mut Report) -> anyhow::Result<()>;

/// In the order of the document, each under the name of its table there.
const SECTIONS: [(&str, Section); 9] = [
    ("fan-out", fanout::measure),
    ("rooms", rooms::measure),
    ("peer", peer::measure),
    ("nodes", nodes::measure),
    ("idle", idle::measure),
    ("connect", connect::measure),
    ("stopped", stopped::measure),
    ("churn", churn::measure),
    ("latency", latency::measure),
];

/// Measures, prints, writes, and says in the exit code what came of it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let sections = chosen(&options.only)?;
    let bed = Bed::new(options)?;
    cpu::pin(bed.cores.client)?;
    process::raise_file_limit(bed.plan.files)?;
    let mut report = Report::new(&bed)?;
    for (name, measure) in sections {
        let start = Instant::now();
        say(format_args!("\n# {name}"))?;
        report.section = name;
        measure(&bed, &mut report).with_context(|| format!("section {name}"))?;
        say(format_args!("({:.0} s)", start.elapsed().as_secs_f64()))?;
    }
    report.print()?;
    if let Some(path) = &options.json {
        report.write_json(path)?;
    }
    if let Some(folder) = &options.docs {
        document::write(folder, &report)?;
    }
    report.verdict()
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<(&'static str, Section)>> {
    let names = SECTIONS.map(|(name, _)| name);
    for name in only {
        ensure!(names.contains(&name.as_str()), "no section is named `{name}`: there are {}", names.join(", "));
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    Ok(SECTIONS.into_iter().filter(|(name, _)| wanted(name)).collect())
}
