//! One figure: what it is, its target, and whether that holds.

use std::fmt;

use serde::Serialize;

use crate::pairs::{Pair, Spread, clean};

/// What a figure counts.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    /// Times the other.
    Ratio,
    /// Thousands of bytes.
    Kilobytes,
    Percent,
    Seconds,
    Milliseconds,
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Ratio => format!("{value:.2}"),
            Self::Kilobytes => format!("{value:.1} KB"),
            Self::Percent => format!("{value:.2} %"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Count => format!("{value:.0}"),
        }
    }
}

/// Whether a target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Holds,
    Above,
    /// Too few measurements were clean.
    Busy,
    /// There is no target.
    Reported,
}

/// See the module.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    pub(super) section: &'static str,
    pub(super) what: String,
    pub(super) unit: Unit,
    pub(super) value: Option<Spread>,
    /// The most that its median may be.
    pub(super) target: Option<f64>,
    /// No clock can spoil it.
    pub(super) exact: bool,
    /// Measurements that count, wanted, tried.
    pub(super) clean: usize,
    pub(super) wanted: usize,
    pub(super) tried: usize,
    /// What it is made of, for people.
    pub(super) figures: String,
}

impl Row {
    /// Some values, all of which count.
    pub(super) fn of(what: impl Into<String>, unit: Unit, values: &[f64]) -> Self {
        let tried = values.len();
        let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        Self {
            section: "",
            what: what.into(),
            unit,
            value: Spread::of(values.iter().copied()),
            target: None,
            exact: false,
            clean: values.len(),
            wanted: 1,
            tried,
            figures: String::new(),
        }
    }

    /// The ratio of the pairs that are clean, with their microseconds.
    pub(super) fn ratio(what: impl Into<String>, wanted: usize, pairs: &[Pair]) -> Self {
        let ratios: Vec<f64> = clean(pairs).map(|pair| pair.ratio).collect();
        let reference = clean(pairs).flat_map(|pair| pair.reference.map(|leg| leg.cpu_ns_per_delivery / 1e3));
        let candidate = clean(pairs).map(|pair| pair.candidate.cpu_ns_per_delivery / 1e3);
        let median = |spread: Option<Spread>| spread.map_or("–".to_owned(), |spread| micros(spread.median));
        let figures = format!("{} ÷ {}", median(Spread::of(candidate)), median(Spread::of(reference)));
        Self { wanted, tried: pairs.len(), figures, ..Self::of(what, Unit::Ratio, &ratios) }
    }

    pub(super) fn target(self, at_most: f64) -> Self {
        Self { target: Some(at_most), ..self }
    }

    /// Held to its target on any machine.
    pub(super) fn exact(self) -> Self {
        Self { exact: true, ..self }
    }

    pub(super) fn figures(self, figures: impl Into<String>) -> Self {
        Self { figures: figures.into(), ..self }
    }

    /// How many of the tried ones were wanted.
    pub(super) fn samples(self, wanted: usize, tried: usize) -> Self {
        Self { wanted, tried, ..self }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match (self.value, self.target) {
            (Some(value), target) if self.clean >= self.wanted => match target {
                None => Verdict::Reported,
                Some(target) if value.median <= target => Verdict::Holds,
                Some(_) => Verdict::Above,
            },
            _ => Verdict::Busy,
        }
    }

    fn value(&self) -> String {
        let Some(Spread { median, min, max }) = self.value else { return "–".to_owned() };
        let show = |value| self.unit.show(value);
        if self.clean < 2 {
            show(median)
        } else {
            format!("{} [{}–{}]", show(median), bare(&show(min)), bare(&show(max)))
        }
    }
}

/// Without its unit.
fn bare(shown: &str) -> &str {
    shown.split(' ').next().unwrap_or_default()
}

/// Microseconds with as many decimals as mean something.
pub(super) fn micros(value: f64) -> String {
    if value < 1.0 { format!("{value:.3} µs") } else { format!("{value:.1} µs") }
}

/// Of the tables.
pub(super) const HEAD: &str = "| | measured | target | | made of | counted |\n| --- | --- | --- | --- | --- | --- |";

/// A line of a table.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.map_or(String::new(), |target| format!("≤ {}", self.unit.show(target)));
        let verdict = match self.verdict() {
            Verdict::Holds => "holds",
            Verdict::Above => "**above**",
            Verdict::Busy => "too busy to tell",
            Verdict::Reported => "",
        };
        let Self { what, figures, clean, tried, .. } = self;
        write!(f, "| {what} | {} | {target} | {verdict} | {figures} | {clean} of {tried} |", self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_held_by_enough_measurements_alone() {
        let row = |values: &[f64]| Row::of("x", Unit::Ratio, values).samples(3, 5).target(1.1);
        assert_eq!(row(&[1.0, 1.1, 1.2]).verdict(), Verdict::Holds);
        assert_eq!(row(&[1.0, 1.11, 1.2]).verdict(), Verdict::Above);
        assert_eq!(row(&[1.0, 1.0]).verdict(), Verdict::Busy);
        assert_eq!(row(&[]).verdict(), Verdict::Busy);
        let free = Row { target: None, ..row(&[1.0, 2.0, 3.0]) };
        assert_eq!(free.verdict(), Verdict::Reported);
        assert_eq!(row(&[1.0, 1.1, 1.2]).to_string(), "| x | 1.10 [1.00–1.20] | ≤ 1.10 | holds |  | 3 of 5 |");
    }
}
