//! The same load on a plain axum chat: what the usual design costs in the same minute.

use std::path::Path;

use super::{
    Bed,
    contest::{Contest, Server},
    fanout::{MANY, add},
    report::Report,
};
use crate::{report::say, scenario::Scenario};

/// A read buffer for messages of a chat, instead of axum's 128 KiB.
pub(super) const SMALL_BUFFER: usize = 4096;

/// The peer's two forms, and what they are called.
pub(super) const FORMS: [(&str, Option<usize>); 2] =
    [("axum, 4 KiB buffers", Some(SMALL_BUFFER)), ("axum, its own buffers", None)];

/// The peer, or a line that it is left out.
pub(super) fn present(bed: &Bed) -> anyhow::Result<Option<&Path>> {
    if bed.peer.is_none() {
        say(format_args!("without the peer: it is not built"))?;
    }
    Ok(bed.peer.as_deref())
}

pub(super) fn measure(bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
    let Some(program) = present(bed)? else { return Ok(()) };
    let members = bed.plan.members;
    let targets = [(1, [Some(0.85), None]), (MANY, [Some(0.5), None])];
    for (in_flight, targets) in targets {
        for ((name, read_buffer), target) in FORMS.into_iter().zip(targets) {
            let peer = Server::Peer { program, read_buffer };
            let scenario = Scenario::room(members, in_flight);
            let pairs = Contest::new(bed, peer, Server::Node, scenario)?.measure(bed)?;
            let what = format!("1 → {members}, {in_flight} under way ÷ {name}");
            report.charts.against_peer(in_flight, name, &pairs);
            add(bed, report, &what, target, (scenario, pairs))?;
        }
    }
    Ok(())
}
