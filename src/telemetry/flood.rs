//! Lines by the thousand: what one place in the code logs is held to a rate, and what was held back is counted.
//!
//! A client can cause some lines at will, and a failing Redis one for each room and message. `tracing` knows which place a line comes from, so
//! all of them are bounded here, and none has to think of it. Not held back are lines below `info`, as whoever turns them on wants
//! them all, and those for the [`RECORD`].

use std::{collections::HashMap, sync::Arc, time::Instant};

use parking_lot::Mutex;
use prometheus::IntCounter;
use tracing::{Event, Level, Metadata, callsite::Identifier, subscriber::Interest};
use tracing_subscriber::layer::{Context, Filter};

use crate::limits::{Bucket, Rate};

/// The target of lines of which each one counts: who came, who went, whose access was taken away. Other limits bound them:
/// `limits.upgrades_per_second` the first two, and only administrators cause the third.
pub const RECORD: &str = "chat_api::record";

/// Lines of one place, a second and at once.
const RATE: (u32, u32) = (1, 10);

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Flood(Arc<Places>);

#[derive(Debug)]
struct Places {
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
        Self(Arc::new(Places { rate: Rate::per_second(per_second, burst), seen: Mutex::default(), suppressed }))
    }

    fn admit(&self, place: Identifier, now: Instant) -> bool {
        let mut seen = self.0.seen.lock();
        let place = seen.entry(place).or_default();
        let admitted = place.bucket.take(self.0.rate, now).is_ok();
        if !admitted {
            place.suppressed += 1;
            self.0.suppressed.inc();
        }
        admitted
    }

    /// How many lines of this place were held back before the one that is written now.
    pub(super) fn suppressed(&self, metadata: &Metadata<'_>) -> u64 {
        let mut seen = self.0.seen.lock();
        seen.get_mut(&metadata.callsite()).map_or(0, |place| std::mem::take(&mut place.suppressed))
    }
}

/// Whether lines like this are bounded here.
fn is_bounded(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && metadata.target() != RECORD
}

impl<S> Filter<S> for Flood {
    fn enabled(&self, _metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, _metadata: &'static Metadata<'static>) -> Interest {
        Interest::always()
    }

    fn event_enabled(&self, event: &Event<'_>, _context: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        !is_bounded(metadata) || self.admit(metadata.callsite(), Instant::now())
    }
}
