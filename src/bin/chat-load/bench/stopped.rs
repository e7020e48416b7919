//! Some readers stop: what the others feel of it, what is kept for the stopped ones, and when they are closed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{
    Bed,
    connect::quantile,
    contest::side,
    report::Report,
    row::{Row, Unit},
    watch::Watch,
};
use crate::{pairs::Side, process::Process, redis::metrics::Metrics, scenario::Scenario, sockets::Sockets};

/// Messages a second: a third of what one core sends to a thousand.
const RATE: f64 = 50.0;
/// Length of each: what is meant for a stopped reader fills its socket within a second or two.
const TEXT_BYTES: usize = 1000;
/// Messages that may be late at one time.
const SLOTS: usize = 4096;
/// One look at the node.
const SLICE: Duration = Duration::from_millis(250);
/// Looks without stopped readers, before and after.
const SLICES: usize = 12;
/// Until a stopped reader's socket is full, and the node's own rhythm of looking.
const SLACK_S: f64 = 4.0;
/// Most that may be kept for one: `limits.outbox_bytes` twice.
const MOST_KB: f64 = 512.0;
const CLOSED: &str = "chat_connections_closed_total{code=\"1013\"}";

/// What came of one time.
struct Stop {
    p99_ms: f64,
    /// Of the p99 without stopped readers; none: others used the cores.
    ratio: Option<f64>,
    closed_s: f64,
    /// Of the node, for each stopped reader.
    kb: f64,
}

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let age = format!("{}s", bed.plan.outbox_age_s);
    // The log is full from the start, so that what grows is what waits.
    let node = bed.node(&[("CHAT_LIMITS__OUTBOX_AGE", &age), ("CHAT_HISTORY__MESSAGES", "20")])?;
    let mut side = side(node, Scenario::room(bed.plan.members, SLOTS))?;
    side.crowd.set_text_bytes(TEXT_BYTES);
    side.crowd.paced(RATE, SLICE * 4)?;
    let stopped = (bed.plan.members / 100).max(1);
    let stops = (0..bed.plan.stops).map(|_| stop(bed, &mut side, stopped)).collect::<anyhow::Result<Vec<_>>>()?;
    let column = |of: fn(&Stop) -> f64| stops.iter().map(of).collect::<Vec<_>>();
    let rest = format!("p99 of the others, {stopped} of {} stopped ÷ without", bed.plan.members);
    let p99 = column(|stop| stop.p99_ms);
    let figures = format!("{:.1} ms; {RATE} messages of 1 KB a second", p99.iter().copied().fold(f64::NAN, f64::max));
    let ratios: Vec<f64> = stops.iter().filter_map(|stop| stop.ratio).collect();
    report.add(Row::of(rest, Unit::Ratio, &ratios).samples(1, stops.len()).figures(figures))?;
    let last = Row::of("from the stop until the last one is closed 1013", Unit::Seconds, &column(|stop| stop.closed_s));
    let age = bed.plan.outbox_age_s as f64;
    report.add(last.target(age + SLACK_S).exact().figures(format!("`limits.outbox_age` is {age} s")))?;
    let kept = Row::of("most memory for each stopped one", Unit::Kilobytes, &column(|stop| stop.kb));
    report.add(kept.target(MOST_KB).exact())
}

fn stop(bed: &Bed, side: &mut Side, stopped: usize) -> anyhow::Result<Stop> {
    let watch = Watch::begin(bed, &side.process)?;
    let mut without = Vec::new();
    for _ in 0..SLICES {
        without.extend(side.crowd.paced(RATE, SLICE)?);
    }
    let before = closed(&side.process)?;
    let resident = side.process.resident_bytes()?;
    // Members of the crowd's room that read nothing.
    let mut sockets = Sockets::new(side.process.address)?.small();
    sockets.open(stopped, |_| (Scenario::room(1, 1).path(0), String::new()))?;
    sockets.join()?;
    let (start, mut with, mut most) = (Instant::now(), Vec::new(), resident);
    let patience = Duration::from_secs(bed.plan.outbox_age_s) + crate::crowd::PATIENCE;
    loop {
        with.extend(side.crowd.paced(RATE, SLICE)?);
        most = most.max(side.process.resident_bytes()?);
        if closed(&side.process)? - before >= stopped as f64 {
            break;
        }
        ensure!(start.elapsed() < patience, "stopped readers are not closed after {patience:?}");
    }
    let closed_s = start.elapsed().as_secs_f64();
    let (p99_ms, p99_without) = (quantile(&mut with, 0.99), quantile(&mut without, 0.99));
    let kb = (most - resident).max(0.0) / stopped as f64 / 1e3;
    let ratio = watch.quiet()?.then(|| p99_ms / p99_without);
    Ok(Stop { p99_ms, ratio, closed_s, kb })
}

/// Sockets that the node has closed because they read too slowly.
fn closed(node: &Process) -> anyhow::Result<f64> {
    let metrics = Metrics::of(node).context("the node's metrics")?;
    Ok(metrics.sample(CLOSED)?.unwrap_or_default())
}
