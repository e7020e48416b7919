//! `chat-load redis`: what Redis costs. A message at the server, the way over it, rooms in which nothing happens.

mod call;
mod hop;
mod idle;
pub(crate) mod metrics;
mod publish;
pub(crate) mod server;
mod through;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use serde::Serialize;

use self::{publish::Cost, server::Server, through::Commands};
use crate::{
    cpu::{self, Cores},
    pairs::Rules,
    process::{self, Process},
    report::{ABOVE_GOAL, Machine, TOO_FEW, say},
};

/// Most CPU of Redis for a message, in units of the plain transaction's.
const GOAL: f64 = 4.0;

/// Open files that are needed here or in a server, with room to spare.
const FILES: u64 = 4096;

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The server [default: the one beside this program].
    #[arg(long, value_name = "PROGRAM")]
    chat_api: Option<PathBuf>,
    /// A Redis to measure, such as `redis://127.0.0.1:6379`; it should have nothing else to do [default: a new redis-server].
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Clean pairs wanted for each row.
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Most pairs tried for each row.
    #[arg(long, default_value_t = 25)]
    tries: usize,
    /// How long one measurement takes; a pair has three.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    leg: Duration,
    /// Messages whose way is timed, with and without Redis.
    #[arg(long, default_value_t = 5000)]
    messages: u64,
    /// Rooms in which nothing happens.
    #[arg(long, default_value_t = 20_000)]
    rooms: usize,
    /// How long nothing happens in them, twice. Each room is checked once a minute.
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    idle: Duration,
    /// Little of each: everything runs, the figures mean nothing.
    #[arg(long)]
    short: bool,
    /// Write everything measured to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How much of each is measured.
#[derive(Debug, Clone, Copy, Serialize)]
struct Size {
    pairs: usize,
    tries: usize,
    leg_ms: u64,
    hops: u64,
    idle_rooms: usize,
    idle_ms: u64,
    short: bool,
}

impl Size {
    fn of(options: &Options) -> anyhow::Result<Self> {
        let Options { pairs, tries, leg, messages, rooms, idle, .. } = options;
        if options.short {
            return Ok(Self { pairs: 1, tries: 1, leg_ms: 50, hops: 20, idle_rooms: 250, idle_ms: 50, short: true });
        }
        Ok(Self {
            pairs: *pairs,
            tries: *tries.max(pairs),
            leg_ms: u64::try_from(leg.as_millis())?,
            hops: *messages,
            idle_rooms: *rooms,
            idle_ms: u64::try_from(idle.as_millis())?,
            short: false,
        })
    }

    fn rules(self) -> Rules {
        Rules { pairs: self.pairs, tries: self.tries, leg_ms: self.leg_ms }
    }

    fn leg(self) -> Duration {
        Duration::from_millis(self.leg_ms)
    }

    fn idle(self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }
}

/// What all measurements have in common.
struct Bed<'a> {
    program: &'a Path,
    /// The Redis that was named.
    redis: Option<&'a str>,
    cores: Cores,
    size: Size,
}

impl Bed<'_> {
    /// The Redis that was named, or a new one on that core.
    fn server(&self, core: usize) -> anyhow::Result<Server> {
        match self.redis {
            Some(url) => Server::named(url),
            None => Server::own(core, self.cores),
        }
    }

    /// A node on that core.
    fn node(&self, redis: Option<&Server>, core: usize, settings: &[(&str, &str)]) -> anyhow::Result<Process> {
        let mut all = settings.to_vec();
        all.extend(redis.iter().flat_map(|redis| redis.settings()));
        Process::chat_api(self.program, &all, Cores { server: core, ..self.cores })
    }
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    size: Size,
    commands: Commands,
    publish: Vec<Cost>,
    hop: hop::Hop,
    idle: idle::Idle,
}

/// Measures, prints, and says in the exit code what came of it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let program = process::program(options.chat_api.as_ref(), "chat-api")?;
    let cores = Cores::choose(options.short)?;
    cpu::pin(cores.client)?;
    process::raise_file_limit(FILES)?;
    let size = Size::of(options)?;
    let bed = Bed { program: &program, redis: options.redis.as_deref(), cores, size };
    let mut publish = publish::costs(&bed).context("CPU of a message")?;
    let (commands, through) = through::measure(&bed).context("messages through a node")?;
    publish.push(through);
    let hop = hop::measure(&bed).context("the way over Redis")?;
    let idle = idle::measure(&bed).context("idle rooms")?;
    let report = Report { machine: Machine::this()?, size, commands, publish, hop, idle };
    if let Some(path) = &options.json {
        let file = fs::File::create(path).with_context(|| path.display().to_string())?;
        serde_json::to_writer_pretty(file, &report)?;
    }
    report.print()?;
    report.verdict()
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        let Self { machine, commands, publish, hop, idle, .. } = self;
        say(format_args!("What Redis costs; {machine}; median [min–max] of the clean pairs\n"))?;
        say(format_args!(
            "| Redis CPU | messages in a pipeline | ratio | transaction, µs | function, µs | clean pairs |"
        ))?;
        say(format_args!("| --- | --- | --- | --- | --- | --- |"))?;
        publish.iter().try_for_each(|cost| say(format_args!("{cost}")))?;
        let Commands { messages, functions, pipelines, .. } = commands;
        say(format_args!(
            "\n{messages} messages through a node: {functions} calls of functions in {pipelines} pipelines, the node's own among them\n"
        ))?;
        say(format_args!("{hop}\n{idle}"))
    }

    /// A median above the goal weighs more than one that could not be had.
    fn verdict(&self) -> anyhow::Result<ExitCode> {
        if self.size.short {
            say(format_args!("short: the figures mean nothing"))?;
            return Ok(ExitCode::SUCCESS);
        }
        if self.publish.iter().any(|cost| cost.ratio.is_some_and(|ratio| ratio.median > GOAL)) {
            say(format_args!("above the goal: a ratio of at most {GOAL}"))?;
            return Ok(ExitCode::from(ABOVE_GOAL));
        }
        if self.publish.iter().any(|cost| cost.clean < self.size.pairs) {
            say(format_args!("too busy to tell: {} clean pairs are needed", self.size.pairs))?;
            return Ok(ExitCode::from(TOO_FEW));
        }
        say(format_args!("the goal is reached: a ratio of at most {GOAL}"))?;
        Ok(ExitCode::SUCCESS)
    }
}
