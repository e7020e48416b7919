//! The workers, seen from whoever started them: processes that are told what to do, and whose counts are added up.

use std::{
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, Interval, interval},
};

use super::{
    plan::Plan,
    pulse::{Pulse, Report, Row, Task, Use},
    shared::RoomCount,
    tally::Tally,
};

/// A worker that says nothing for so long is lost.
const SILENCE: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Crew {
    workers: Vec<Worker>,
    reports: mpsc::UnboundedReceiver<(usize, Option<Report>)>,
    ticks: Interval,
    signals: [Signal; 2],
    started: Instant,
    phase: &'static str,
    /// Of the whole run.
    pub(super) total: Tally,
    /// Since the last progress line, and since the last row.
    second: Tally,
    since_row: Tally,
    row_every: Duration,
    row_at: Instant,
    pub(super) rows: Vec<Row>,
    /// Somebody has asked to end early.
    pub(super) interrupted: bool,
}

struct Worker {
    child: Child,
    tasks: ChildStdin,
    heard: Instant,
    usage: Use,
}

impl Crew {
    /// Starts the workers.
    pub(super) fn start(plan: &Plan, row_every: Duration) -> anyhow::Result<Self> {
        let (said, reports) = mpsc::unbounded_channel();
        let mut workers = Vec::new();
        for number in 0..plan.workers {
            workers.push(Worker::start(number, plan, said.clone()).context("cannot start a worker")?);
        }
        let now = Instant::now();
        Ok(Self {
            workers,
            reports,
            ticks: interval(Duration::from_secs(1)),
            signals: [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?],
            started: now,
            phase: "",
            total: Tally::new()?,
            second: Tally::new()?,
            since_row: Tally::new()?,
            row_every,
            row_at: now + row_every,
            rows: Vec::new(),
            interrupted: false,
        })
    }

    /// Has all workers do something; returns how the rooms stand when all have done it.
    pub(super) async fn all(&mut self, phase: &'static str, task: &Task) -> anyhow::Result<Vec<RoomCount>> {
        self.phase = phase;
        self.tell(task)?;
        let now = Instant::now();
        self.workers.iter_mut().for_each(|worker| worker.heard = now);
        let (mut rooms, mut missing) = (Vec::<RoomCount>::new(), self.workers.len());
        while missing > 0 {
            let [interrupt, terminate] = &mut self.signals;
            tokio::select! {
                report = self.reports.recv() => match report {
                    Some((number, Some(Report::Pulse(pulse)))) => self.pulse(number, *pulse),
                    Some((_, Some(Report::Done(counts)))) => {
                        missing -= 1;
                        rooms.resize(counts.len().max(rooms.len()), RoomCount::default());
                        rooms.iter_mut().zip(counts).for_each(|(sum, count)| sum.add(count));
                    }
                    Some((number, Some(Report::Failed(text)))) => bail!("worker {number}: {text}"),
                    Some((number, None)) => bail!("worker {number} has ended"),
                    None => bail!("the workers have ended"),
                },
                _ = self.ticks.tick() => self.tick()?,
                _ = interrupt.recv() => self.interrupt()?,
                _ = terminate.recv() => self.interrupt()?,
            }
        }
        Ok(rooms)
    }

    /// What each worker used.
    pub(super) fn usage(&self) -> Vec<Use> {
        self.workers.iter().map(|worker| worker.usage).collect()
    }

    fn tell(&mut self, task: &Task) -> anyhow::Result<()> {
        self.workers.iter_mut().try_for_each(|worker| worker.tell(task)).context("a worker has ended")
    }

    /// Once: end early, and report. Twice: just end.
    fn interrupt(&mut self) -> anyhow::Result<()> {
        if self.interrupted {
            bail!("interrupted");
        }
        self.interrupted = true;
        self.tell(&Task::Stop)
    }

    fn pulse(&mut self, number: usize, pulse: Pulse) {
        let Pulse { tally, open, pending, cpu_ns, wall_ns, rss_bytes } = pulse;
        if let Some(worker) = self.workers.get_mut(number) {
            worker.heard = Instant::now();
            let usage = &mut worker.usage;
            (usage.open, usage.pending) = (open, pending);
            usage.rss_bytes = usage.rss_bytes.max(rss_bytes);
            match self.phase {
                "open" => usage.opening.add(cpu_ns, wall_ns),
                "talk" => usage.talking.add(cpu_ns, wall_ns),
                _ => {}
            }
            if wall_ns > 500_000_000 {
                usage.peak = usage.peak.max(cpu_ns as f64 / wall_ns as f64);
            }
        }
        self.second.add(tally.clone());
        self.since_row.add(tally.clone());
        self.total.add(tally);
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        if let Some(number) = self.workers.iter().position(|worker| worker.heard.elapsed() > SILENCE) {
            bail!("worker {number} has said nothing for {SILENCE:?}");
        }
        let second = self.row(&self.second);
        self.second.take();
        let pending: u64 = self.workers.iter().map(|worker| worker.usage.pending).sum();
        progress(&format!(
            "{} {second}{}",
            self.phase,
            if pending > 0 { format!(", {pending} under way") } else { String::new() }
        ));
        if Instant::now() >= self.row_at {
            self.row_at += self.row_every;
            let row = self.row(&self.since_row);
            self.since_row.take();
            crate::report::say(format_args!("{row}"))?;
            self.rows.push(row);
        }
        Ok(())
    }

    fn row(&self, tally: &Tally) -> Row {
        let sum = |of: fn(&Use) -> u64| self.workers.iter().map(|worker| of(&worker.usage)).sum();
        Row {
            seconds: self.started.elapsed().as_secs_f64(),
            open: sum(|usage| usage.open),
            counts: tally.counts,
            closes: tally.closes.values().sum(),
            deliver: tally.deliver.quantiles(),
            rss_bytes: sum(|usage| usage.rss_bytes),
        }
    }
}

impl Worker {
    fn start(number: usize, plan: &Plan, said: mpsc::UnboundedSender<(usize, Option<Report>)>) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        // In a group of its own: an interrupt of the terminal is ours alone.
        command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn()?;
        let tasks = child.stdin.take().context("its input")?;
        let output = child.stdout.take().context("its output")?;
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let report = serde_json::from_str(&line);
                let report = report.unwrap_or_else(|error| Report::Failed(format!("it said `{line}`: {error}")));
                if said.send((number, Some(report))).is_err() {
                    return;
                }
            }
            let _ = said.send((number, None));
        });
        let mut worker = Self { child, tasks, heard: Instant::now(), usage: Use::default() };
        worker.tell(&(number, plan))?;
        Ok(worker)
    }

    fn tell(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(line)?;
        Ok(writeln!(self.tasks, "{line}")?)
    }
}

/// A worker ends with its input; one that does not is killed.
impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line on a terminal, again and again; one line each for a file.
fn progress(line: &str) {
    let mut stderr = std::io::stderr();
    let _ = if stderr.is_terminal() { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
}

/// The progress line has done its work.
pub(super) fn end_progress() {
    if std::io::stderr().is_terminal() {
        progress("");
    }
}
