//! Connecting and closing, again and again: memory must not grow with the rounds.

use std::time::Duration;

use anyhow::ensure;

use super::{
    Bed,
    report::Report,
    row::{Row, Unit},
};
use crate::{report::say, sockets::Sockets};

/// Sockets in a room.
const ROOM: usize = 5;
/// Until memory is read.
const QUIET: Duration = Duration::from_millis(300);

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    // Who left counts as there for a while (15 s), which would be memory that grows with the rounds.
    let node = bed.node(&[("CHAT_PRESENCE__LINGER", "100ms")])?;
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for _ in 0..bed.plan.rounds {
        let mut sockets = Sockets::new(node.address)?;
        sockets.open(bed.plan.round, |n| (format!("/churn-{}", n / ROOM), String::new()))?;
        ensure!(sockets.failures().is_empty(), "not all sockets opened: {:?}", sockets.failures().first());
        sockets.join()?;
        let opened = node.resident_bytes()?;
        sockets.close()?;
        std::thread::sleep(QUIET);
        let left = node.resident_bytes()?;
        say(format_args!("  {:.1} MB, {:.1} MB after they are closed", opened / 1e6, left / 1e6))?;
        open.push(opened);
        closed.push(left);
    }
    let (rounds, round) = (bed.plan.rounds, bed.plan.round);
    for (what, bytes) in [("while they are open", open), ("after they are closed", closed)] {
        let [first, second, .., last] = bytes.as_slice() else { anyhow::bail!("too few rounds") };
        let what = format!("{rounds} rounds of {round}: memory {what}, the last round ÷ the second");
        let mb = |bytes: &f64| format!("{:.1}", bytes / 1e6);
        let figures = format!("{} MB, {}, … {}", mb(first), mb(second), mb(last));
        report.add(Row::of(what, Unit::Ratio, &[last / second]).target(1.1).exact().figures(figures))?;
    }
    Ok(())
}
