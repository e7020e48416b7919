//! Sockets on which nothing happens: the memory of each, and the CPU of their heartbeats.

use std::time::{Duration, Instant};

use super::{
    Bed, peer,
    report::Report,
    row::{Row, Unit},
    watch::Watch,
};
use crate::{
    cpu::{Snapshot, Usage},
    process::Process,
    sockets::Sockets,
};

/// Sockets in a room.
const ROOM: usize = 5;
/// Until memory is read: what was opened last has to become quiet.
const QUIET: Duration = Duration::from_millis(300);
/// `limits.heartbeat` as it is by default: all sockets are pinged once in it.
const HEARTBEAT: Duration = Duration::from_secs(25);
/// The debug build's frames are larger, and a fixed part weighs more among few.
const QUICK_KB: f64 = 5.5;

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let steps = bed.plan.idle;
    let most = steps.last().copied().unwrap_or_default();
    let node = bed.node(&[])?;
    let (ours, mut sockets) = memory(&node, steps)?;
    report.charts.memory("chat-api", &ours);
    let each = each(&ours);
    let row = Row::of(format!("resident memory for each of {most} idle sockets"), Unit::Kilobytes, &[each]);
    report.add(row.target(if bed.plan.quick { QUICK_KB } else { 4.5 }).exact())?;
    heartbeats(bed, report, &node, &mut sockets)?;
    drop((sockets, node));
    let Some(program) = peer::present(bed)? else { return Ok(()) };
    for ((name, read_buffer), target) in peer::FORMS.into_iter().zip([Some(0.6), None]) {
        let peer = bed.peer(program, read_buffer)?;
        let few = |sockets: &usize| read_buffer.is_some() || *sockets <= bed.plan.idle_heavy;
        let steps: Vec<usize> = steps.iter().copied().filter(few).collect();
        let theirs = memory(&peer, &steps)?.0;
        report.charts.memory(name, &theirs);
        let their_each = self::each(&theirs);
        let figures = format!("{each:.1} KB ÷ {their_each:.1} KB");
        let row = Row::of(format!("the same ÷ {name}"), Unit::Ratio, &[each / their_each]).figures(figures);
        report.add(Row { target, ..row })?;
    }
    Ok(())
}

/// Resident bytes at each number of sockets; with the sockets.
fn memory(server: &Process, steps: &[usize]) -> anyhow::Result<(Vec<(usize, f64)>, Sockets)> {
    let mut sockets = Sockets::new(server.address)?;
    let mut points = Vec::new();
    for step in steps {
        sockets.open(step.saturating_sub(sockets.len()), |n| (format!("/idle-{}", n / ROOM), String::new()))?;
        anyhow::ensure!(sockets.failures().is_empty(), "not all sockets opened: {:?}", sockets.failures().first());
        sockets.join()?;
        sockets.hold(QUIET)?;
        points.push((*step, server.resident_bytes()?));
    }
    Ok((points, sockets))
}

/// Thousands of bytes for one more socket, from the first number to the last.
fn each(points: &[(usize, f64)]) -> f64 {
    match points {
        [first, .., last] => (last.1 - first.1) / (last.0 - first.0).max(1) as f64 / 1e3,
        _ => f64::NAN,
    }
}

/// Pings, their answers, and whatever else a node does for sockets that are quiet.
fn heartbeats(bed: &Bed, report: &mut Report, node: &Process, sockets: &mut Sockets) -> anyhow::Result<()> {
    let per = 10_000.0 / sockets.len().max(1) as f64;
    let mut percents = Vec::new();
    let (wanted, mut tried) = (bed.plan.heartbeats, 0);
    while percents.len() < wanted && tried < 2 * wanted {
        tried += 1;
        let watch = Watch::begin(bed, node)?;
        let (before, start) = (Snapshot::take(node.id(), bed.cores.server)?, Instant::now());
        sockets.hold(HEARTBEAT)?;
        let Usage { process, .. } = before.until(&Snapshot::take(node.id(), bed.cores.server)?);
        if watch.quiet()? {
            percents.push(process.div_duration_f64(start.elapsed()) * per * 100.0);
        }
    }
    if wanted == 0 {
        return Ok(());
    }
    let row = Row::of("CPU for 10,000 of them, heartbeats answered, of a core", Unit::Percent, &percents);
    report.add(row.samples(wanted, tried).target(0.5))
}
