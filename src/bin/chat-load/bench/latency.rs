//! How late a delivery is, by how many there are a second: messages are due by the clock, whether or not the last has arrived.

use std::time::Duration;

use super::{
    Bed,
    connect::quantile,
    contest::Server,
    peer,
    report::Report,
    row::{Row, Unit},
    watch::Watch,
};
use crate::{crowd::TEXT_BYTES, frames, pairs::Side, scenario::Scenario};

/// Messages that may be late at one time: more than are sent in all.
const SLOTS: usize = 4096;
/// Later than this at the median: more load tells nothing new.
const HOPELESS_MS: f64 = 500.0;
/// Talk before anything counts.
const WARM_UP: Duration = Duration::from_millis(200);
/// Tries of each load, until others leave both cores alone.
const TRIES: usize = 4;
/// Messages a second in the table.
const TABLE: u32 = 50;

/// Milliseconds.
#[derive(Debug, Clone, Copy)]
struct Late {
    p50: f64,
    p99: f64,
}

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let scenario = Scenario::room(bed.plan.members, SLOTS);
    let mut servers = vec![("chat-api", Server::Node), ("a bare `send`", Server::Bare { batch: 1 })];
    if let Some(program) = peer::present(bed)? {
        servers.extend(peer::FORMS.map(|(name, read_buffer)| (name, Server::Peer { program, read_buffer })));
    }
    let mut text_bytes = TEXT_BYTES;
    for (name, server) in servers {
        let mut side = server.start(bed, scenario)?;
        side.crowd.set_text_bytes(text_bytes);
        side.crowd.paced(f64::from(TABLE), WARM_UP)?;
        let count = side.crowd.count();
        if server == Server::Node {
            // The others pass on what they get.
            text_bytes = frames::text_bytes(usize::try_from(count.bytes / count.deliveries.max(1))?);
        }
        for rate in bed.plan.rates {
            let (late, tried) = at(bed, &mut side, *rate)?;
            let deliveries = f64::from(*rate) * bed.plan.members as f64;
            if let Some(Late { p50, p99 }) = late {
                report.charts.latency(name, deliveries, p50, p99);
            }
            if *rate == TABLE {
                let values: Vec<f64> = late.iter().map(|late| late.p99).collect();
                let figures = late.map_or("–".to_owned(), |late| format!("the median is {:.1} ms", late.p50));
                let what = format!("{name}: p99 of a delivery at {deliveries:.0} a second");
                report.add(Row::of(what, Unit::Milliseconds, &values).samples(1, tried).figures(figures))?;
            }
            if late.is_some_and(|late| late.p50 > HOPELESS_MS) {
                break;
            }
        }
    }
    Ok(())
}

/// None: others used the cores each time. Also, how often it was tried.
fn at(bed: &Bed, side: &mut Side, rate: u32) -> anyhow::Result<(Option<Late>, usize)> {
    let tries = if bed.plan.quick { 1 } else { TRIES };
    for tried in 1..=tries {
        let watch = Watch::begin(bed, &side.process)?;
        let mut late = side.crowd.paced(f64::from(rate), Duration::from_millis(bed.plan.rate_ms))?;
        if watch.quiet()? {
            let (p50, p99) = (quantile(&mut late, 0.5), quantile(&mut late, 0.99));
            return Ok((Some(Late { p50, p99 }), tried));
        }
    }
    Ok((None, tries))
}
