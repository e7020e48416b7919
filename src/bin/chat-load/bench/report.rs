//! All that was measured: as tables for people, as JSON for later comparison, and as an exit code.

use std::{fs, path::Path, process::ExitCode};

use anyhow::Context as _;
use serde::Serialize;

use super::{
    Bed,
    charts::Charts,
    plan::Plan,
    row::{HEAD, Row, Verdict},
};
use crate::{
    pairs::{Pair, Rules},
    report::{ABOVE_GOAL, Machine, TOO_FEW, say},
    scenario::Scenario,
};

/// A ratio's pairs, whole.
#[derive(Debug, Serialize)]
struct Measured {
    section: &'static str,
    what: String,
    scenario: Option<Scenario>,
    pairs: Vec<Pair>,
}

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    plan: Plan,
    rules: Rules,
    /// The one that is being measured.
    #[serde(skip)]
    pub(super) section: &'static str,
    pub(super) rows: Vec<Row>,
    pub(super) charts: Charts,
    contests: Vec<Measured>,
}

impl Report {
    pub(super) fn new(bed: &Bed) -> anyhow::Result<Self> {
        let (rows, contests, charts) = Default::default();
        let (plan, rules) = (bed.plan, bed.rules);
        Ok(Self { machine: Machine::this()?, plan, rules, section: "", rows, charts, contests })
    }

    pub(super) fn add(&mut self, row: Row) -> anyhow::Result<()> {
        let row = Row { section: self.section, ..row };
        say(format_args!("{row}"))?;
        self.rows.push(row);
        Ok(())
    }

    /// Keeps the pairs behind a row.
    pub(super) fn keep(&mut self, what: &str, scenario: Option<Scenario>, pairs: Vec<Pair>) {
        self.contests.push(Measured { section: self.section, what: what.to_owned(), scenario, pairs });
    }

    /// Of that section.
    pub(super) fn table(&self, section: &str) -> Option<String> {
        let rows: Vec<String> =
            self.rows.iter().filter(|row| row.section == section).map(ToString::to_string).collect();
        (!rows.is_empty()).then(|| format!("{HEAD}\n{}", rows.join("\n")))
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        say(format_args!("\n{}; median [min–max]\n\n{HEAD}", self.machine))?;
        self.rows.iter().try_for_each(|row| say(format_args!("{row}")))?;
        say(format_args!(""))
    }

    pub(super) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let file = fs::File::create(path).with_context(|| path.display().to_string())?;
        Ok(serde_json::to_writer_pretty(file, self)?)
    }

    /// Rows that nobody can tell about.
    pub(super) fn busy(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.verdict() == Verdict::Busy)
    }

    /// What is above its target weighs more than what could not be had.
    pub(super) fn verdict(&self) -> anyhow::Result<ExitCode> {
        let held = |row: &&Row| row.exact || !self.plan.quick;
        let above: Vec<&Row> = self.rows.iter().filter(held).filter(|row| row.verdict() == Verdict::Above).collect();
        let busy: Vec<&Row> = self.busy().filter(held).collect();
        for Row { section, what, .. } in &above {
            say(format_args!("above its target: {section}: {what}"))?;
        }
        for Row { section, what, clean, tried, wanted, .. } in &busy {
            say(format_args!("too busy to tell: {section}: {what}: {clean} of {tried} count, {wanted} are needed"))?;
        }
        if self.plan.quick {
            say(format_args!("quick: counts and memory are held to their targets; ratios of time mean nothing"))?;
        }
        Ok(match (above.is_empty(), busy.is_empty()) {
            (false, _) => ExitCode::from(ABOVE_GOAL),
            (true, false) => ExitCode::from(TOO_FEW),
            (true, true) => {
                say(format_args!("every target holds"))?;
                ExitCode::SUCCESS
            }
        })
    }
}
