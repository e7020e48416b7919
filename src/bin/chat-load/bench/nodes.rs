//! Over Redis: what a message costs the node that it comes to from another one, and what each part of its way takes.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, ensure};

use super::{
    Bed,
    contest::{Contest, Server},
    fanout::{MANY, add, against_bare},
    report::Report,
    row::{Row, Unit},
};
use crate::{
    cpu::Snapshot,
    pairs::{SETTLE, Side, Spread},
    process::Process,
    redis::{metrics::Metrics, server},
    scenario::Scenario,
};

/// Messages whose commands are counted.
const COUNTED: u64 = 1000;
/// The nodes' own commands that may be under way at either end of that.
const SLACK: f64 = 0.005;
/// Measurements of each size of a room, for the plot.
const TIMES: usize = 3;

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    across(bed, report)?;
    parts(bed, report)?;
    let rooms = Scenario::rooms(bed.plan.rooms, super::rooms::SMALL);
    for (what, scenario) in [
        (
            format!("one node over Redis, 1 → {}, {MANY} under way ÷ one `send`", bed.plan.members),
            Scenario::room(bed.plan.members, MANY),
        ),
        (format!("one node over Redis, {} rooms × {}, all talk ÷ the reference", rooms.rooms, rooms.members), rooms),
    ] {
        let contest = against_bare(bed, scenario, Server::OverRedis)?;
        add(bed, report, &what, None, contest)?;
    }
    Ok(())
}

/// The speaker on A, everybody else on B.
fn across(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let members = bed.plan.members;
    let scenario = Scenario::room(members + 1, 1);
    let mut contest = Contest::new(bed, Server::Bare { batch: 1 }, Server::Across, scenario)?;
    let pairs = contest.measure(bed)?;
    let what = format!("published on A, {members} members on B: B's CPU by the delivery ÷ a bare `send`");
    add(bed, report, &what, Some(1.2), (scenario, pairs))?;
    let commands = commands(&mut contest.candidate)?;
    let row = Row::of("commands to Redis for a message", Unit::Ratio, &[commands]).target(1.0 + SLACK).exact();
    report.add(row.figures(format!("of {COUNTED} or more, the nodes' own taken off")))
}

/// Calls of functions for each message, and that each was stored and published once.
fn commands(side: &mut Side) -> anyhow::Result<f64> {
    let Side { crowd, process, beside, .. } = side;
    let [redis, first] = beside.as_slice() else { anyhow::bail!("Redis and the first node run beside it") };
    let mut redis = server::Server::named(&format!("redis://{}", redis.address))?;
    let own = || -> anyhow::Result<u64> {
        let of = |node: &Process| -> anyhow::Result<u64> {
            let trips = Metrics::of(node)?.round_trips()?;
            Ok(trips.iter().filter(|(function, _)| *function != "publish").map(|(_, count)| count).sum())
        };
        Ok(of(process)? + of(first)?)
    };
    let (before, own_before, mut messages) = (redis.calls()?, own()?, 0);
    while messages < COUNTED {
        messages += crowd.talk(Duration::from_millis(200))?.0.messages;
    }
    let (after, own_after) = (redis.calls()?, own()?);
    let since = |name| after.of(name) - before.of(name);
    let (stored, called) = (since("xadd"), since("fcall"));
    ensure!(stored == messages, "{messages} messages, and {stored} are stored");
    ensure!(since("publish") >= messages, "{messages} messages, and fewer are published");
    Ok((called as f64 - (own_after - own_before) as f64) / messages as f64)
}

/// CPU of each part for a message, by the size of its room.
fn parts(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    for members in bed.plan.across {
        let mut side = Server::Across.start(bed, Scenario::room(members + 1, 1))?;
        side.crowd.talk(bed.rules.leg())?;
        let mut parts: [Vec<f64>; 3] = Default::default();
        for _ in 0..TIMES {
            for (all, one) in parts.iter_mut().zip(message(bed, &mut side)?) {
                all.push(one);
            }
        }
        let medians = parts.map(|part| Spread::of(part.into_iter()).map_or(f64::NAN, |spread| spread.median));
        report.charts.across(*members, medians);
    }
    Ok(())
}

/// Microseconds of the speaker's node, of Redis, and of the members' node for a message.
fn message(bed: &Bed, side: &mut Side) -> anyhow::Result<[f64; 3]> {
    let Side { crowd, process, beside, .. } = side;
    let redis = beside.first().context("Redis")?;
    let first = beside.get(1).context("the first node")?;
    let look = || -> anyhow::Result<[Snapshot; 3]> {
        sleep(SETTLE);
        let take = |process: &Process, core| Snapshot::take(process.id(), core);
        Ok([take(first, bed.cores.client)?, take(redis, bed.cores.client)?, take(process, bed.cores.server)?])
    };
    let before = look()?;
    let messages = crowd.talk(bed.rules.leg())?.0.messages.max(1);
    let [a, redis, b] = look()?;
    let [from_a, from_redis, from_b] = &before;
    let micros = |from: &Snapshot, to: &Snapshot| from.until(to).process.as_secs_f64() * 1e6 / messages as f64;
    Ok([micros(from_a, &a), micros(from_redis, &redis), micros(from_b, &b)])
}
