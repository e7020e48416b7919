//! Sockets on which nothing happens: the memory of each, and the CPU of their heartbeats.

use std::time::Duration;

use super::{
    Bed, peer,
    report::Report,
    row::{Row, Unit},
};
use crate::{
    pairs::{Leg, Pair, clean},
    process::Process,
    sockets::Sockets,
};

/// Sockets in a room.
const ROOM: usize = 5;
/// Until memory is read: what was opened last has to become quiet.
const QUIET: Duration = Duration::from_millis(300);
/// Heartbeats a second of 10,000 sockets: each has one in 25 s, the default of `limits.heartbeat`.
const USUAL: f64 = 10_000.0 / 25.0;
/// The debug build's frames are larger, and a fixed part weighs more among few.
const QUICK_KB: f64 = 5.5;

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let steps = bed.plan.idle;
    let most = steps.last().copied().unwrap_or_default();
    let node = bed.node(&[])?;
    let ours = memory(&node, steps)?;
    report.charts.memory("chat-api", &ours);
    let each = each(&ours);
    let row = Row::of(format!("resident memory for each of {most} idle sockets"), Unit::Kilobytes, &[each]);
    report.add(row.target(if bed.plan.quick { QUICK_KB } else { 4.5 }).exact())?;
    drop(node);
    heartbeats(bed, report)?;
    let Some(program) = peer::present(bed)? else { return Ok(()) };
    for ((name, read_buffer), target) in peer::FORMS.into_iter().zip([Some(0.6), None]) {
        let peer = bed.peer(program, read_buffer)?;
        let few = |sockets: &usize| read_buffer.is_some() || *sockets <= bed.plan.idle_heavy;
        let steps: Vec<usize> = steps.iter().copied().filter(few).collect();
        let theirs = memory(&peer, &steps)?;
        report.charts.memory(name, &theirs);
        let their_each = self::each(&theirs);
        let figures = format!("{each:.1} KB ÷ {their_each:.1} KB");
        let row = Row::of(format!("the same ÷ {name}"), Unit::Ratio, &[each / their_each]).figures(figures);
        report.add(Row { target, ..row })?;
    }
    Ok(())
}

/// Resident bytes at each number of sockets.
fn memory(server: &Process, steps: &[usize]) -> anyhow::Result<Vec<(usize, f64)>> {
    let mut sockets = Sockets::new(server.address)?;
    let mut points = Vec::new();
    for step in steps {
        let more = step.saturating_sub(sockets.len());
        open(&mut sockets, more)?;
        sockets.join()?;
        sockets.hold(QUIET)?;
        points.push((*step, server.resident_bytes()?));
    }
    Ok(points)
}

fn open(sockets: &mut Sockets, more: usize) -> anyhow::Result<()> {
    sockets.open(more, |n| (format!("/idle-{}", n / ROOM), String::new()))?;
    anyhow::ensure!(sockets.failures().is_empty(), "not all sockets opened: {:?}", sockets.failures().first());
    Ok(())
}

/// Thousands of bytes for one more socket, from the first number to the last.
fn each(points: &[(usize, f64)]) -> f64 {
    match points {
        [first, .., last] => (last.1 - first.1) / (last.0 - first.0).max(1) as f64 / 1e3,
        _ => f64::NAN,
    }
}

/// One heartbeat of each of so many quiet sockets. The server is there for this alone: another one's pings would wait for their answers meanwhile.
fn round(bed: &Bed, server: &Process) -> anyhow::Result<Leg> {
    let (sockets, round) = (bed.plan.heartbeats, Duration::from_millis(bed.plan.heartbeat_ms));
    let mut quiet = Sockets::new(server.address)?;
    open(&mut quiet, sockets)?;
    quiet.hold(round)?;
    let leg = Leg::of(server, bed.cores, || quiet.hold(round))?;
    let (answered, left) = (leg.deliveries, quiet.len());
    anyhow::ensure!(
        left == sockets && answered > 0,
        "{answered} heartbeats in {round:?}; of {sockets} sockets {left} are left"
    );
    Ok(leg)
}

/// Pings, their answers, and whatever else a node does for sockets that are quiet.
fn heartbeats(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let heartbeat = humantime::format_duration(Duration::from_millis(bed.plan.heartbeat_ms)).to_string();
    let bare = || round(bed, &Process::reference(["--heartbeat", &heartbeat], bed.cores)?);
    let ours = || round(bed, &bed.node(&[("CHAT_LIMITS__HEARTBEAT", &heartbeat)])?);
    let pairs = bed.rules.collect(|| Ok(Pair::new(bare()?, ours()?, bare()?)))?;
    let share = |leg: &Leg| leg.cpu_ns_per_delivery * USUAL / 1e9 * 100.0;
    let row =
        |what: &str, percents: Vec<f64>| Row::of(what, Unit::Percent, &percents).samples(bed.rules.pairs, pairs.len());
    report.add(
        row(
            "CPU for the heartbeats of 10,000 idle sockets, one in 25 s, of a core",
            clean(&pairs).map(|pair| share(&pair.candidate)).collect(),
        )
        .target(0.5),
    )?;
    let least = |pair: &Pair| pair.reference.iter().map(share).sum::<f64>() / pair.reference.len() as f64;
    let least = clean(&pairs).map(least).collect();
    report.add(row("the kernel's least for that: a bare `send`, a wait and a bare `read` for each", least))?;
    let what = "a heartbeat and its answer ÷ the kernel's least";
    report.add(Row::ratio(what, bed.rules.pairs, &pairs))?;
    report.keep(what, None, pairs);
    Ok(())
}
