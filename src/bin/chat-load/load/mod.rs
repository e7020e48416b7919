//! Load on a service that runs already: `chat-load fanout`, `rooms`, `idle`, `storm`, `cross`, `drain`, `soak`.
//!
//! One process conducts ([`crew`]), others hold the sockets ([`worker`]). Messages are sent when their time has come, whatever became of those
//! before ([`pacer`]), and latencies count from that time: a server that stalls is not asked less.

mod crew;
mod dial;
mod hear;
mod machine;
mod member;
mod options;
mod outbox;
mod pacer;
mod plan;
mod print;
mod pulse;
mod report;
mod servers;
mod shared;
mod tally;
mod window;
mod wire;
mod worker;

use std::{
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::anyhow;

pub(crate) use self::options::Scenario;
use self::{
    crew::Crew,
    dial::Dialler,
    options::Run,
    plan::Plan,
    pulse::Task,
    report::{Report, Round, seconds},
    servers::Change,
};

/// Exit code: something was lost, or the service could not be reached.
const FAILED: u8 = 1;
/// Exit code: the command line makes no sense; clap's own.
const USAGE: u8 = 2;
/// Until all workers have read that they are to talk, in nanoseconds.
const HEAD_START: u64 = 100_000_000;
/// Without lines of the report.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Runs a scenario, prints, and says in the exit code what came of it.
pub(crate) fn run(scenario: Scenario) -> anyhow::Result<ExitCode> {
    let run = match scenario.run() {
        Ok(run) => run,
        Err(text) => return Ok(error(&text, USAGE)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let finished = runtime.block_on(conduct(&run)).and_then(|report| report.finish(run.json.as_deref()));
    Ok(finished.unwrap_or_else(|failed| error(&format!("{failed:#}"), FAILED)))
}

/// One line that says what is wrong.
fn error(text: &str, code: u8) -> ExitCode {
    crew::end_progress();
    let _ = writeln!(std::io::stderr(), "error: {text}");
    ExitCode::from(code)
}

/// The process that holds sockets.
pub(crate) fn work() -> anyhow::Result<ExitCode> {
    worker::run()
}

async fn conduct(run: &Run) -> anyhow::Result<Report> {
    let plan = &run.plan;
    for worker in 0..plan.workers {
        machine::allow_sockets(plan.share(worker).len())?;
    }
    knock(plan).await?;
    let mut crew = Crew::start(plan, run.interval.unwrap_or(NEVER))?;
    let mut rounds = Vec::new();
    let mut rooms = Vec::new();
    for round in 1.. {
        let (start, before) = (Instant::now(), crew.total.counts);
        rooms = crew.all("open", &Task::Open).await?;
        let counts = crew.total.counts;
        let (joined, failed) = (counts.joined - before.joined, counts.failed - before.failed);
        let Some(wanted) = run.rounds else { break };
        rounds.push(Round { seconds: seconds(start.elapsed()), joined, failed });
        crew.all("close", &Task::Close).await?;
        if round >= wanted || crew.interrupted {
            break;
        }
    }
    let mut changes = Vec::new();
    if run.rounds.is_none() {
        let before = servers::look(&run.metrics).await?;
        let start = machine::now() + HEAD_START;
        let end = start.saturating_add(u64::try_from(run.duration.as_nanos()).unwrap_or(u64::MAX));
        let stored = crew.all("talk", &Task::Talk { start, end }).await?.iter().map(|room| room.stored).collect();
        rooms = crew.all("settle", &Task::Settle { stored }).await?;
        changes = Change::between(&before, &servers::look(&run.metrics).await?);
        crew.all("close", &Task::Close).await?;
    }
    crew::end_progress();
    let (workers, interrupted) = (crew.usage(), crew.interrupted);
    let (rows, total) = (std::mem::take(&mut crew.rows), crew.total.take());
    drop(crew);
    let mut report = Report::new(run, &total, &rooms, workers, interrupted);
    (report.rounds, report.rows, report.servers) = (rounds, rows, changes);
    Ok(report)
}

/// One socket to each URL: what would fail for all is said once.
async fn knock(plan: &Plan) -> anyhow::Result<()> {
    let dialler = Dialler::new(plan)?;
    for (number, url) in plan.urls.iter().enumerate() {
        let Some(socket) = (0..plan.sockets()).find(|socket| plan.url_of(*socket, 0) == number) else { continue };
        match dialler.dial(plan, socket, 0, None).await {
            Ok(mut socket) => drop(tokio::time::timeout(Duration::from_secs(2), socket.close(None)).await),
            Err(refusal) if refusal.is_passing() && refusal.retry_after().is_some() => {}
            Err(refusal) => return Err(anyhow!("{url}: {refusal}")),
        }
    }
    Ok(())
}
