//! What a rollout was like, and what is wrong with it.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::pod::Ending;
use crate::{
    checker::Verdict,
    history::{Event, What},
    measure,
};

/// Acknowledged messages and sockets closed by drains that a run needs to count.
const ENOUGH: (usize, u64) = (1000, 100);
/// A drain, to come back soon.
const RESTART: u16 = 1012;

pub struct Report {
    verdict: Verdict,
    endings: Vec<Ending>,
    took: Duration,
    /// Sockets lost, by the code of the close frame; `None`: without one.
    closes: BTreeMap<Option<u16>, usize>,
    /// Upgrades that failed, by status; `None`: without an answer.
    refused: BTreeMap<Option<u16>, usize>,
    /// The most sockets that ended, and that were opened again, within one second.
    most_closed: usize,
    most_opened: usize,
    clients: usize,
}

impl Report {
    pub fn of(events: &[Event], verdict: Verdict, mut endings: Vec<Ending>, took: Duration) -> Self {
        endings.sort_by(|a, b| a.pod.cmp(&b.pod));
        let (mut closes, mut refused) = (BTreeMap::new(), BTreeMap::new());
        let (mut closed, mut opened) = (Vec::new(), Vec::new());
        for event in events {
            match event.what {
                What::Close { code } => {
                    *closes.entry(code).or_default() += 1;
                    closed.push(event.at);
                }
                What::Open if !closed.is_empty() => opened.push(event.at),
                What::Refused { status } => *refused.entry(status).or_default() += 1,
                _ => {}
            }
        }
        let clients = events.iter().map(|event| event.client + 1).max().unwrap_or(0);
        let (most_closed, most_opened) = (measure::most_in_a_second(&closed), measure::most_in_a_second(&opened));
        Self { verdict, endings, took, closes, refused, most_closed, most_opened, clients }
    }

    /// The codes that sockets ended with.
    pub fn closes(&self) -> impl Iterator<Item = Option<u16>> {
        self.closes.keys().copied()
    }

    /// Sockets that the drains closed.
    fn drained(&self) -> u64 {
        self.endings.iter().filter_map(|ending| ending.closed).sum()
    }

    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let mut wrong = |is: bool, text: String| {
            if is {
                failures.push(text);
            }
        };
        let counts = &self.verdict.counts;
        wrong(!self.verdict.violations.is_empty(), self.verdict.summary());
        wrong(counts.lost + counts.duplicated > 0, format!("{} lost, {} duplicated", counts.lost, counts.duplicated));
        for Ending { pod, status, closed, forced, warnings, .. } in &self.endings {
            wrong(
                !status.is_some_and(|status| status.success()),
                format!("{pod} ended with {status:?} (None: killed)"),
            );
            wrong(*forced != Some(0), format!("{pod} closed {closed:?} sockets and cut {forced:?}"));
            wrong(!warnings.is_empty(), format!("{pod} warned:\n{}", warnings.join("\n")));
        }
        wrong(self.closes.keys().any(|code| *code != Some(RESTART)), format!("sockets ended with {:?}", self.closes));
        wrong(!self.refused.is_empty(), format!("upgrades were refused: {:?}", self.refused));
        wrong(counts.refused > 0, format!("{} messages were refused", counts.refused));
        // All sockets of a pod at once would be as many in a second as it had.
        let herd = self.endings.iter().filter_map(|ending| ending.closed).max().unwrap_or(0);
        let most = self.most_closed;
        wrong(4 * most as u64 > 3 * herd, format!("{most} closes within a second, of the {herd} sockets of one pod"));
        let (acked, drained) = (counts.acked, self.drained());
        let counted = acked >= ENOUGH.0 && drained >= ENOUGH.1;
        wrong(!counted, format!("does not count: {acked} messages acknowledged, {drained} sockets closed by drains"));
        failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.verdict.counts;
        writeln!(
            to,
            "  {} messages, {} acknowledged, {} deliveries checked, {} lost, {} duplicated; {} refused, {} unknown, {} sent again, {} resumed",
            counts.sent,
            counts.acked,
            counts.received,
            counts.lost,
            counts.duplicated,
            counts.refused,
            counts.unknown,
            counts.resent,
            counts.recovered,
        )?;
        let codes: Vec<_> =
            self.closes.iter().map(|(code, count)| format!("{count} with {}", or_none(*code))).collect();
        let refused: Vec<_> =
            self.refused.iter().map(|(code, count)| format!("{count} with {}", or_none(*code))).collect();
        writeln!(
            to,
            "  rolled in {:.1} s; {} reconnects of {} clients ({:.2} each), at most {} closes and {} new sockets in a second; closes: {}; upgrades refused: {}",
            self.took.as_secs_f64(),
            counts.reconnects,
            self.clients,
            counts.reconnects as f64 / self.clients as f64,
            self.most_closed,
            self.most_opened,
            codes.join(", "),
            if refused.is_empty() { "none".into() } else { refused.join(", ") },
        )?;
        for Ending { pod, took, closed, forced, .. } in &self.endings {
            let (took, closed, forced) = (took.as_secs_f64(), closed.unwrap_or(0), forced.unwrap_or(0));
            writeln!(to, "  {pod} ended after {took:.1} s: {closed} sockets closed, {forced} cut")?;
        }
        Ok(())
    }
}

fn or_none(code: Option<u16>) -> String {
    code.map_or_else(|| "none".into(), |code| code.to_string())
}
