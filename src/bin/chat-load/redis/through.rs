//! Messages through a node: how many commands reach Redis for them, and what they take there. Sockets in rooms of their own talk all at once.

use serde::Serialize;

use super::{
    Bed,
    call::{Call, Counted},
    metrics::Metrics,
    publish::{Cost, Measured, Plain},
    server::Server,
};
use crate::{
    crowd::{Count, Crowd, TEXT_BYTES},
    pairs::Leg,
    scenario::Scenario,
};

/// Each with one message under way: as many as go into one pipeline.
const ROOMS: usize = 64;

/// Commands for messages that clients sent.
#[derive(Debug, Serialize)]
pub(super) struct Commands {
    pub(super) messages: u64,
    /// Messages that a member has received.
    deliveries: u64,
    /// `FCALL`: one for each message, and the node's own once in a while.
    pub(super) functions: u64,
    /// `XADD` within these: messages that were stored.
    appended: u64,
    /// `PUBLISH` within these: messages, and the node to itself every 2 s.
    published: u64,
    /// Round trips in which they went.
    pub(super) pipelines: u64,
}

/// Counts the commands of messages, and measures Redis while it gets them.
pub(super) fn measure(bed: &Bed<'_>) -> anyhow::Result<(Commands, Cost)> {
    let mut server = bed.server(bed.cores.server)?;
    let mut plain = Plain::like(&Call::taken(bed, &mut server, Counted::ByNode)?, &server);
    let node = bed.node(Some(&server), bed.cores.client, &[])?;
    let scenario = Scenario::rooms(ROOMS, 1);
    let mut crowd = Crowd::connect(node.address, scenario, TEXT_BYTES)?;
    let pipelines = || anyhow::Ok(Metrics::of(&node)?.round_trips()?.get("publish").copied().unwrap_or(0));
    let (calls, trips) = (server.calls()?, pipelines()?);
    let (Count { messages, deliveries, .. }, _) = crowd.talk(bed.size.leg())?;
    let (later, later_trips) = (server.calls()?, pipelines()?);
    let since = |name| later.of(name) - calls.of(name);
    let commands = Commands {
        messages,
        deliveries,
        functions: since("fcall"),
        appended: since("xadd"),
        published: since("publish"),
        pipelines: later_trips - trips,
    };
    let pipeline = usize::try_from(commands.messages.div_ceil(commands.pipelines.max(1)))?;
    let candidate = |server: &mut Server| talk(server, &mut crowd, bed);
    let cost = Cost::measure("message through a node", pipeline, bed, &mut server, &mut plain, candidate)?;
    Ok((commands, cost))
}

fn talk(server: &mut Server, crowd: &mut Crowd, bed: &Bed<'_>) -> anyhow::Result<Leg> {
    let measured = Measured::begin(server)?;
    let (Count { messages, deliveries, bytes }, _) = crowd.talk(bed.size.leg())?;
    measured.end(messages, deliveries, bytes)
}
