//! One message to many: the CPU of a delivery next to the kernel's least.

use super::{
    Bed,
    contest::{Contest, Server},
    report::Report,
    row::Row,
};
use crate::{pairs::Pair, scenario::Scenario};

/// Messages under way where many are.
pub(super) const MANY: usize = 64;

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let members = bed.plan.members;
    let one = against_bare(bed, Scenario::room(members, 1), Server::Node)?;
    report.charts.against_bare(1, &one.1);
    add(bed, report, &format!("1 → {members}, one message under way ÷ a bare `send`"), Some(1.1), one)?;
    let many = against_bare(bed, Scenario::room(members, MANY), Server::Node)?;
    report.charts.against_bare(MANY, &many.1);
    add(bed, report, &format!("1 → {members}, {MANY} under way ÷ one `send` of {MANY} joined"), Some(1.3), many)?;
    let two = against_bare(bed, Scenario::room(members, 1), Server::TwoWorkers)?;
    add(
        bed,
        report,
        &format!("1 → {members}, one under way, two workers, one of them beside the clients ÷ a bare `send`"),
        None,
        two,
    )?;
    let large = bed.plan.large_room;
    let room = against_bare(bed, Scenario::room(large, 1), Server::Node)?;
    add(bed, report, &format!("1 → {large}, one under way ÷ a bare `send`"), None, room)?;
    let lobby = Scenario { lobby: true, ..Scenario::room(bed.plan.lobby, 1) };
    // Both crowds are open at the same time, and the files of this process are few.
    let bare = (Server::Bare { batch: 1 }, Scenario::room(members, 1));
    let pairs = Contest::uneven(bed, bare, (Server::Node, lobby))?.measure(bed)?;
    let what = format!("the lobby, 1 → {}, one under way ÷ a bare `send` to each of {members}", bed.plan.lobby);
    add(bed, report, &what, None, (lobby, pairs))
}

/// A contest with the kernel's least.
pub(super) fn against_bare(
    bed: &Bed,
    scenario: Scenario,
    candidate: Server<'_>,
) -> anyhow::Result<(Scenario, Vec<Pair>)> {
    let bare = Server::Bare { batch: scenario.in_flight };
    Ok((scenario, Contest::new(bed, bare, candidate, scenario)?.measure(bed)?))
}

pub(super) fn add(
    bed: &Bed,
    report: &mut Report,
    what: &str,
    target: Option<f64>,
    (scenario, pairs): (Scenario, Vec<Pair>),
) -> anyhow::Result<()> {
    report.add(Row { target, ..Row::ratio(what, bed.rules.pairs, &pairs) })?;
    report.keep(what, Some(scenario), pairs);
    Ok(())
}
