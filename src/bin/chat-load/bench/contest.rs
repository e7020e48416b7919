//! Two servers with their crowds, ready to be compared: reference, candidate, reference.

use super::Bed;
use crate::{
    crowd::{Crowd, TEXT_BYTES},
    frames,
    pairs::{Leg, Pair, Side},
    process::Process,
    scenario::Scenario,
};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server<'a> {
    /// The least that the kernel takes: one `send` for each member, of so many messages joined.
    Bare { batch: usize },
    /// The plain axum chat, with a read buffer of so many bytes.
    Peer { program: &'a std::path::Path, read_buffer: Option<usize> },
    /// One node, without Redis.
    Node,
    /// The same with two workers on two cores, one of which is the clients'.
    TwoWorkers,
    /// One node over Redis.
    OverRedis,
    /// The second node over Redis: the speaker is on the first.
    Across,
}

impl Server<'_> {
    /// Starts it, with what it needs, and its crowd.
    pub(super) fn start(self, bed: &Bed, scenario: Scenario) -> anyhow::Result<Side> {
        let (mut beside, mut first) = (Vec::new(), None);
        if matches!(self, Self::OverRedis | Self::Across) {
            beside.push(Process::redis(bed.cores.client, bed.cores)?);
        }
        let url = beside.first().map(|redis| format!("redis://{}", redis.address)).unwrap_or_default();
        let settings = [("REDIS_URL", url.as_str())];
        let process = match self {
            Self::Bare { batch } => Process::reference(["--batch", &batch.to_string()], bed.cores)?,
            Self::Peer { program, read_buffer } => bed.peer(program, read_buffer)?,
            Self::TwoWorkers => {
                let both = [bed.cores.server, bed.cores.client];
                Process::chat_api_on(&bed.program, &settings, &both, bed.cores)?
            }
            Self::Node | Self::OverRedis | Self::Across => bed.node(&settings)?,
        };
        if self == Self::Across {
            let cores = crate::cpu::Cores { server: bed.cores.client, ..bed.cores };
            let node = Process::chat_api(&bed.program, &settings, cores)?;
            first = Some(node.address);
            beside.push(node);
        }
        let address = process.address;
        let crowd = Crowd::connect_apart(address, first.unwrap_or(address), scenario, TEXT_BYTES)?;
        Ok(Side { crowd, process, beside, on_both: self == Self::TwoWorkers })
    }
}

/// A crowd for a server that runs.
pub(super) fn side(process: Process, scenario: Scenario) -> anyhow::Result<Side> {
    let crowd = Crowd::connect(process.address, scenario, TEXT_BYTES)?;
    Ok(Side { crowd, process, beside: Vec::new(), on_both: false })
}

/// See the module. The candidate is a node; a reference that passes on what it gets, gets messages as long as the node's frames.
pub(super) struct Contest {
    reference: Side,
    passes_on: bool,
    pub(super) candidate: Side,
}

impl Contest {
    pub(super) fn new(
        bed: &Bed,
        reference: Server<'_>,
        candidate: Server<'_>,
        scenario: Scenario,
    ) -> anyhow::Result<Self> {
        Self::uneven(bed, (reference, scenario), (candidate, scenario))
    }

    /// With another shape of load for each: both are measured by the delivery.
    pub(super) fn uneven(
        bed: &Bed,
        reference: (Server<'_>, Scenario),
        candidate: (Server<'_>, Scenario),
    ) -> anyhow::Result<Self> {
        let candidate = candidate.0.start(bed, candidate.1)?;
        let passes_on = reference.0 != Server::Node;
        let reference = reference.0.start(bed, reference.1)?;
        Ok(Self { reference, passes_on, candidate })
    }

    /// Before the first pair.
    pub(super) fn warm_up(&mut self, bed: &Bed) -> anyhow::Result<()> {
        let leg = Leg::run(&mut self.candidate, bed.cores, bed.rules.leg())?;
        self.match_frames(&leg)
    }

    /// Pairs until enough of them are clean.
    pub(super) fn measure(&mut self, bed: &Bed) -> anyhow::Result<Vec<Pair>> {
        self.warm_up(bed)?;
        bed.rules.collect(|| self.pair(bed))
    }

    pub(super) fn pair(&mut self, bed: &Bed) -> anyhow::Result<Pair> {
        let leg = bed.rules.leg();
        let first = Leg::run(&mut self.reference, bed.cores, leg)?;
        let candidate = Leg::run(&mut self.candidate, bed.cores, leg)?;
        let second = Leg::run(&mut self.reference, bed.cores, leg)?;
        self.match_frames(&candidate)?;
        Ok(Pair::new(first, candidate, second))
    }

    fn match_frames(&mut self, candidate: &Leg) -> anyhow::Result<()> {
        if self.passes_on {
            let bytes = frames::text_bytes(usize::try_from(candidate.frame_bytes())?);
            self.reference.crowd.set_text_bytes(bytes);
        }
        Ok(())
    }
}
