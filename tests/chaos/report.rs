//! Runs a row and tells what became of it: as text for people, as a page for the documentation.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use tokio::task::JoinSet;

use crate::{
    checker::{Counts, Kind},
    history::Event,
    load::Shape,
    rig::{NODES, Outcome, Rig},
    rows::{Row, Scale},
    support::repository,
};

/// Acknowledged messages that a run needs to count: all together, and around the fault.
const ENOUGH: (usize, usize) = (1000, 100);

pub struct Report {
    pub row: &'static Row,
    seed: u64,
    outcome: Outcome,
    /// Why it did not pass.
    pub failures: Vec<String>,
}

/// `CHAOS_SEED`, or one by chance.
pub fn seed() -> u64 {
    let given = std::env::var("CHAOS_SEED").ok();
    given.map_or_else(|| fastrand::u64(..1 << 32), |seed| seed.parse().expect("CHAOS_SEED is a number"))
}

/// Runs a row and judges it. A run that breaks down in the middle has failed.
pub async fn run(row: &'static Row, scale: Scale) -> Report {
    let seed = seed();
    eprintln!("{}: {} (seed {seed})", row.id, row.fault);
    let mut running = JoinSet::new();
    running.spawn(outcome(row, scale, seed));
    let (outcome, failures) = match running.join_next().await {
        Some(Ok(outcome)) => {
            let failures = failures(row, scale, &outcome);
            (outcome, failures)
        }
        broken => (Outcome::default(), vec![format!("{:?}", broken.and_then(Result::err))]),
    };
    let report = Report { row, seed, outcome, failures };
    eprint!("{}", report.text());
    report
}

/// Before the fault, the fault, and after it.
async fn outcome(row: &Row, scale: Scale, seed: u64) -> Outcome {
    let mut build = row.build;
    if scale == Scale::Short {
        build.shape.rate /= 2;
    }
    let mut rig = Rig::start(build, seed).await;
    rig.warm_up(300).await;
    (row.inject)(&mut rig, scale).await;
    rig.progress(300).await;
    let short_of = ENOUGH.0.saturating_sub(rig.load.acked());
    rig.progress(short_of).await;
    rig.finish(row.promise).await
}

fn failures(row: &Row, scale: Scale, outcome: &Outcome) -> Vec<String> {
    let mut failures = outcome.failures.clone();
    let verdict = &outcome.verdict;
    if !verdict.violations.is_empty() {
        failures.push(verdict.summary());
    }
    failures.extend((row.judge)(outcome, scale));
    if outcome.traces == 0 {
        failures.push("does not count: the fault left no trace".into());
    }
    if verdict.counts.acked < ENOUGH.0 || outcome.around < ENOUGH.1 {
        let (acked, around) = (verdict.counts.acked, outcome.around);
        failures.push(format!("does not count: {acked} messages acknowledged, {around} around the fault"));
    }
    let limit = row.recovery.mul_f64(outcome.pace);
    match outcome.recovery {
        None => failures.push("it never was well again in every room".into()),
        Some(recovery) if scale == Scale::Long && recovery > limit => {
            failures.push(format!("well again after {recovery:?}, more than {limit:?}"));
        }
        Some(_) => {}
    }
    failures
}

impl Report {
    /// What came of it, as one line for the table and one paragraph for people.
    fn text(&self) -> String {
        let Outcome { verdict, around, notes, .. } = &self.outcome;
        let Counts { sent, acked, received, lost, duplicated, .. } = verdict.counts;
        let mut text = format!(
            "  {sent} messages, {acked} acknowledged ({around} around the fault), {received} deliveries, {lost} lost, {duplicated} duplicated, \
             well again after {} (machine slower by {:.1})\n  {}\n",
            seconds(self.outcome.recovery),
            self.outcome.pace,
            self.happened(),
        );
        for note in notes {
            let _ = writeln!(text, "  {note}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "  FAILED: {failure}");
        }
        text
    }

    /// The traces that the fault left.
    fn happened(&self) -> String {
        let (counts, nodes) = (&self.outcome.verdict.counts, &self.outcome.nodes);
        if counts.sent == 0 {
            return "did not run".into();
        }
        let all = [
            (counts.refused, "sends refused"),
            (counts.unknown, "unknown"),
            (counts.resent, "sent again"),
            (counts.reconnects, "sockets lost"),
            (counts.recovered, "resumed"),
            (counts.resets, "told to start over"),
            (counts.rollbacks, "told to go back"),
            (counts.gaps, "told to send again"),
            (counts.affected, "times a client had what the log lost"),
            (counts.forfeited, "uncounted messages gone with the log"),
            (nodes.retries as usize, "publishes tried again"),
            (nodes.reconnects as usize, "subscriptions renewed"),
            (nodes.repairs as usize, "repairs"),
            (nodes.invalid as usize, "entries ignored"),
            (nodes.slow as usize, "slow readers closed"),
        ];
        let some: Vec<_> =
            all.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        format!("{}; at most {} MiB a node", some.join(", "), nodes.memory / 1024 / 1024)
    }

    /// Fails the test if the row failed; keeps the history then.
    pub fn assert(&self) {
        if self.failures.is_empty() {
            return;
        }
        let history = self.keep_history();
        let text = format!(
            "{} failed (CHAOS_SEED={}; history in {})\n{}",
            self.row.id,
            self.seed,
            history.display(),
            self.text()
        );
        panic!("{text}");
    }

    /// Every event, one a line.
    pub fn keep_history(&self) -> PathBuf {
        keep_history(self.row.id, self.seed, &self.outcome.events)
    }

    fn markdown(&self) -> String {
        let counts = &self.outcome.verdict.counts;
        let result = if self.failures.is_empty() { "passed" } else { "**failed**" };
        let mut happened = self.happened();
        for note in &self.outcome.notes {
            happened += &format!("; {note}");
        }
        format!(
            "| {} | {} | {happened} | {} | {} | {} | {} | {} | {} | {result} |\n",
            self.row.id,
            self.row.fault,
            counts.sent,
            counts.acked,
            counts.lost,
            counts.duplicated,
            seconds(self.outcome.recovery),
            self.seed,
        )
    }
}

/// Every event of a run, one a line.
pub fn keep_history(name: &str, seed: u64, events: &[Event]) -> PathBuf {
    let folder = repository("target/chaos");
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let path = folder.join(format!("{name}-{seed}.jsonl"));
    let lines: Vec<_> = events.iter().filter_map(|event| serde_json::to_string(event).ok()).collect();
    std::fs::write(&path, lines.join("\n")).expect("the file can be written");
    path
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "never".into(), |time| format!("{:.1} s", time.as_secs_f64()))
}

/// docs/reliability.md.
pub fn page(reports: &[Report], mutants: &[(String, Vec<Kind>)]) -> String {
    let Shape { sessions, plain, rooms, rate, .. } = Shape::USUAL;
    let rows: String = reports.iter().map(Report::markdown).collect();
    let mutants = mutants.iter().map(|(mutant, kinds)| {
        let kinds: Vec<_> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
        format!("| {mutant} | {} |\n", kinds.join(", "))
    });
    let values = [
        ("nodes", NODES.to_string()),
        ("clients", (sessions + plain).to_string()),
        ("sessions", sessions.to_string()),
        ("plain", plain.to_string()),
        ("rooms", rooms.to_string()),
        ("rate", rate.to_string()),
        ("acked", ENOUGH.0.to_string()),
        ("around", ENOUGH.1.to_string()),
        ("rows\n", rows),
        ("mutants\n", mutants.collect()),
    ];
    let page = include_str!("page.md").to_owned();
    values.iter().fold(page, |page, (name, value)| page.replace(&format!("@{name}"), value))
}
