//! `chat-load probe`: chat-api next to the limit, shape by shape.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    cpu::{self, Cores},
    crowd::Crowd,
    frames,
    pairs::{Leg, Pair, Side},
    process::Process,
    report::{Report, Rules, say},
    scenario::{Over, Scenario},
};

/// Length of the JSON that a client sends: a short message.
pub(crate) const TEXT_BYTES: usize = 64;
/// Open files that the largest scenario needs, in the client or in a server, with room to spare.
const FILES: u64 = 4096;

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The server [default: the one beside this program].
    #[arg(long, value_name = "PROGRAM")]
    chat_api: Option<PathBuf>,
    /// Clean pairs wanted for each scenario.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Most pairs tried for each scenario.
    #[arg(long, default_value_t = 25)]
    tries: usize,
    /// How long one measurement takes; a pair has three.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    leg: Duration,
    /// Only the scenarios that have this in their names, such as `rooms` or `redis`.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// One short pair of each scenario with few sockets: everything runs, the figures mean nothing.
    #[arg(long)]
    short: bool,
    /// Write everything measured to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    fn rules(&self) -> Rules {
        if self.short {
            Rules { pairs: 1, tries: 1, leg: Duration::from_millis(50), short: true }
        } else {
            Rules { pairs: self.pairs, tries: self.tries.max(self.pairs), leg: self.leg, short: false }
        }
    }
}

/// Measures, prints, and says in the exit code what came of it.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let program = program(options.chat_api.as_ref())?;
    let cores = Cores::choose(options.short)?;
    cpu::pin(cores.client)?;
    raise_file_limit()?;
    let rules = options.rules();
    let mut report = Report::new(rules)?;
    let scenarios = if options.short { Scenario::SHORT } else { Scenario::FULL };
    let all = Over::ALL.into_iter().flat_map(|over| scenarios.map(|scenario| (over, scenario)));
    let chosen =
        |(over, scenario): &(Over, Scenario)| format!("{} {}", scenario.name, over.as_str()).contains(&options.only);
    let wanted: Vec<_> = all.filter(chosen).collect();
    ensure!(!wanted.is_empty(), "no scenario has `{}` in its name", options.only);
    for (over, scenario) in wanted {
        let bench = Bench::start(&program, over, scenario, cores)?;
        report.add(over, scenario, bench.measure(over, rules)?);
    }
    if let Some(path) = &options.json {
        let file = fs::File::create(path).with_context(|| path.display().to_string())?;
        serde_json::to_writer_pretty(file, &report)?;
    }
    report.print()
}

/// The server that was named, or the one beside this program.
pub(crate) fn program(named: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    Ok(match named {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("chat-api"),
    })
}

/// The usual soft limit is 1024; the servers inherit ours.
pub(crate) fn raise_file_limit() -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < FILES) {
        ensure!(maximum.is_none_or(|maximum| maximum >= FILES), "{FILES} open files are needed: raise the limit");
        setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum })?;
    }
    Ok(())
}

/// Both servers with their clients, ready to be compared.
struct Bench {
    scenario: Scenario,
    cores: Cores,
    reference: Side,
    candidate: Side,
    _redis: Option<Process>,
}

impl Bench {
    fn start(program: &std::path::Path, over: Over, scenario: Scenario, cores: Cores) -> anyhow::Result<Self> {
        let redis = match over {
            Over::Local => None,
            Over::Redis => Some(Process::redis(cores.client, cores)?),
        };
        let side = |process: Process| -> anyhow::Result<Side> {
            let crowd = Crowd::connect(process.address, scenario, TEXT_BYTES)?;
            Ok(Side { crowd, process })
        };
        let url = redis.as_ref().map(|redis| format!("redis://{}", redis.address)).unwrap_or_default();
        let node = Process::chat_api(program, &[("REDIS_URL", &url)], cores)?;
        let candidate = side(node).context("chat-api")?;
        let reference = side(Process::reference(scenario.in_flight, cores)?).context("the reference")?;
        Ok(Self { scenario, cores, reference, candidate, _redis: redis })
    }

    /// Pairs until enough of them are clean.
    fn measure(mut self, over: Over, rules: Rules) -> anyhow::Result<Vec<Pair>> {
        let name = self.scenario.name;
        say(format_args!("\n{name} over {}", over.as_str()))?;
        let mut frame_bytes = Leg::run(&mut self.candidate, self.cores, rules.leg)?.frame_bytes();
        let mut pairs: Vec<Pair> = Vec::new();
        while pairs.len() < rules.tries && pairs.iter().filter(|pair| pair.rejected.is_none()).count() < rules.pairs {
            let pair = self.pair(rules.leg, frame_bytes)?;
            frame_bytes = pair.candidate.frame_bytes();
            pairs.push(pair);
            say(format_args!("  {pair}"))?;
        }
        Ok(pairs)
    }

    /// The reference sends frames as long as chat-api's: it passes on what it gets, so it gets messages of that length.
    fn pair(&mut self, leg: Duration, frame_bytes: u64) -> anyhow::Result<Pair> {
        self.reference.crowd.set_text_bytes(frames::text_bytes(usize::try_from(frame_bytes)?));
        let first = Leg::run(&mut self.reference, self.cores, leg)?;
        let candidate = Leg::run(&mut self.candidate, self.cores, leg)?;
        let second = Leg::run(&mut self.reference, self.cores, leg)?;
        Ok(Pair::new(first, candidate, second))
    }
}
