//! Lines by the thousand: what one place in the code logs is held to a rate, and what was held back is counted.
//!
//! A client can cause some lines at will, and a failing Redis one for each room and message. `tracing` knows which place a line comes from, so
//! all of them are bounded here, and none has to think of it. Not held back are lines below `info`, as whoever turns them on wants
//! them all, and those for the [`RECORD`].

use std::{collections::HashMap, time::Instant};

use parking_lot::Mutex;
use prometheus::IntCounter;
use tracing::{Level, Metadata, callsite::Identifier};

use crate::limits::{Bucket, Rate};

/// The target of lines of which each one counts: who came, who went, whose access was taken away. Other limits bound them:
/// `limits.upgrades_per_second` the first two, and only administrators cause the third.
pub const RECORD: &str = "chat_api::record";

/// Lines of one place, a second and at once.
const RATE: (u32, u32) = (1, 10);

/// See the module.
#[derive(Debug)]
pub(super) struct Flood {
    rate: Rate,
    /// As many as there are in the code.
    seen: Mutex<HashMap<Identifier, Place>>,
    suppressed: IntCounter,
}

#[derive(Debug, Default)]
struct Place {
    bucket: Bucket,
    /// Since its last line.
    suppressed: u64,
}

impl Flood {
    /// Counts in `suppressed` what it holds back.
    pub(super) fn new(suppressed: IntCounter) -> Self {
        let (per_second, burst) = RATE;
        Self { rate: Rate::per_second(per_second, burst), seen: Mutex::default(), suppressed }
    }

    /// Whether a line may be written now: with how many like it were held back before; `None`: it is held back too.
    pub(super) fn admit(&self, line: &Metadata<'_>) -> Option<u64> {
        if !is_bounded(line) {
            return Some(0);
        }
        let mut seen = self.seen.lock();
        let place = seen.entry(line.callsite()).or_default();
        if place.bucket.take(self.rate, Instant::now()).is_ok() {
            return Some(std::mem::take(&mut place.suppressed));
        }
        place.suppressed += 1;
        self.suppressed.inc();
        None
    }
}

fn is_bounded(line: &Metadata<'_>) -> bool {
    *line.level() <= Level::INFO && line.target() != RECORD
}
