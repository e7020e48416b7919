//! Small rooms in which everybody talks: what a message costs by itself, and what each of its deliveries does.
//!
//! A message to a room of k costs a share for itself and k shares for its deliveries. Rooms of one and rooms of five, with as many sockets
//! and in the same pair, tell the two apart: four deliveries more are what the second costs more.

use super::{
    Bed,
    contest::{Contest, Server},
    fanout,
    report::Report,
    row::{Row, Unit, micros},
};
use crate::{
    pairs::{Leg, Pair, Spread},
    scenario::Scenario,
};

/// Members of a room.
pub(super) const SMALL: usize = 5;

/// Nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Shares {
    message: f64,
    delivery: f64,
}

/// Ours, and the reference's.
type Both = (Shares, Shares);

impl Shares {
    /// From the CPU of a message in rooms of one, and in rooms of five.
    fn of(alone: f64, small: f64) -> Self {
        let delivery = (small - alone) / (SMALL - 1) as f64;
        Self { message: alone - delivery, delivery }
    }

    fn of_legs(alone: &Leg, small: &Leg) -> Self {
        Self::of(per_message(alone), per_message(small))
    }

    /// Of both references.
    fn of_references(alone: &Pair, small: &Pair) -> Self {
        let mean = |[first, second]: [Leg; 2]| f64::midpoint(per_message(&first), per_message(&second));
        Self::of(mean(alone.reference), mean(small.reference))
    }
}

fn per_message(leg: &Leg) -> f64 {
    leg.cpu_ns as f64 / leg.messages.max(1) as f64
}

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let sockets = bed.plan.rooms * SMALL;
    let (one, five) = (Scenario::rooms(sockets, 1), Scenario::rooms(bed.plan.rooms, SMALL));
    let start = |scenario| Contest::new(bed, Server::Bare { batch: 1 }, Server::Node, scenario);
    let (mut alone, mut small) = (start(one)?, start(five)?);
    alone.warm_up(bed)?;
    small.warm_up(bed)?;
    let mut both: Vec<(Pair, Pair)> = Vec::new();
    bed.rules.collect(|| {
        let (alone, mut small) = (alone.pair(bed)?, small.pair(bed)?);
        small.rejected = small.rejected.or(alone.rejected);
        both.push((alone, small));
        Ok(small)
    })?;
    let clean = || both.iter().filter(|(_, small)| small.rejected.is_none());
    let shares = |(alone, small): &(Pair, Pair)| -> Both {
        (Shares::of_legs(&alone.candidate, &small.candidate), Shares::of_references(alone, small))
    };
    let all: Vec<Both> = clean().map(shares).collect();
    let row = |what: &str, of: fn(Both) -> (f64, f64)| {
        let ratios: Vec<f64> = all.iter().copied().map(of).map(|(ours, bare)| ours / bare).collect();
        let median = |pick: &dyn Fn((f64, f64)) -> f64| {
            Spread::of(all.iter().copied().map(of).map(pick))
                .map_or("–".to_owned(), |spread| micros(spread.median / 1e3))
        };
        let figures = format!("{} ÷ {}", median(&|(ours, _)| ours), median(&|(_, bare)| bare));
        Row::of(what, Unit::Ratio, &ratios).samples(bed.rules.pairs, both.len()).figures(figures)
    };
    let rooms = bed.plan.rooms;
    report.add(
        row("a delivery, without its message's share ÷ a bare `send`", |(ours, bare)| (ours.delivery, bare.delivery))
            .target(1.15),
    )?;
    report.add(
        row("a message, without its deliveries ÷ a bare `send`", |(ours, bare)| (ours.message, bare.delivery))
            .target(1.5),
    )?;
    report.add(row("a message, without its deliveries ÷ the reference's", |(ours, bare)| {
        (ours.message, bare.message)
    }))?;
    let (alone, small): (Vec<Pair>, Vec<Pair>) = both.iter().copied().unzip();
    let what = format!("{rooms} rooms × {SMALL}, all talk: everything by the delivery ÷ the reference's");
    report.add(Row::ratio(&what, bed.rules.pairs, &small))?;
    report.keep(&what, Some(five), small);
    report.keep(&format!("{sockets} rooms × 1"), Some(one), alone);
    let what = format!("{rooms} rooms × {SMALL}, all talk, two workers, one of them beside the clients ÷ one worker");
    let pairs = Contest::new(bed, Server::Node, Server::TwoWorkers, five)?.measure(bed)?;
    fanout::add(bed, report, &what, None, (five, pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_add_up() {
        let Shares { message, delivery } = Shares::of(3.0 + 5.0, 3.0 + 25.0);
        assert!((message - 3.0).abs() < 1e-9 && (delivery - 5.0).abs() < 1e-9);
    }
}
