//! Whether others left the machine alone, for what is timed without a reference beside it.

use super::Bed;
use crate::{
    cpu::{Cores, Snapshot},
    pairs::FOREIGN,
    process::Process,
};

/// Both cores, from a moment on.
pub(super) struct Watch {
    cores: Cores,
    server: u32,
    before: [Snapshot; 2],
    quick: bool,
}

impl Watch {
    pub(super) fn begin(bed: &Bed, server: &Process) -> anyhow::Result<Self> {
        let (cores, server) = (bed.cores, server.id());
        Ok(Self { cores, server, before: look(cores, server)?, quick: bed.plan.quick })
    }

    /// Nobody else used more than a little of either core since. A quick run does not ask.
    pub(super) fn quiet(&self) -> anyhow::Result<bool> {
        let after = look(self.cores, self.server)?;
        let foreign = self.before.iter().zip(&after).map(|(before, after)| before.until(after).foreign);
        Ok(self.quick || foreign.fold(0.0, f64::max) <= FOREIGN)
    }
}

fn look(cores: Cores, server: u32) -> anyhow::Result<[Snapshot; 2]> {
    Ok([Snapshot::take(std::process::id(), cores.client)?, Snapshot::take(server, cores.server)?])
}
