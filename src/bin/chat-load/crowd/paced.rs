//! Talking by the clock: a message is due whether or not the last has arrived, and late from the moment when it was due.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{Crowd, EVENTS, PATIENCE};

/// When each message of a while was due, and how late each delivery of it was.
#[derive(Debug)]
pub(super) struct Schedule {
    start: Instant,
    interval: Duration,
    /// Number of the message that was due at the start.
    first: u64,
    late_ms: Vec<f64>,
}

impl Schedule {
    fn due(&self, number: u64) -> Instant {
        let nth = u32::try_from(number.saturating_sub(self.first)).unwrap_or(u32::MAX);
        self.start + self.interval.saturating_mul(nth)
    }

    pub(super) fn arrived(&mut self, number: u64) {
        let late = self.due(number).elapsed();
        self.late_ms.push(late.as_secs_f64() * 1e3);
    }
}

impl Crowd {
    /// Sends so many messages a second for so long into the only room, then waits until everything has arrived, and checks it as ever.
    /// Returns how late each delivery was, in milliseconds. The scenario's messages in flight are the most that may be late at one time.
    pub(crate) fn paced(&mut self, rate: f64, duration: Duration) -> anyhow::Result<Vec<f64>> {
        let room = self.rooms.first().context("a room")?;
        let first = room.sent;
        let interval = Duration::from_secs_f64(1.0 / rate);
        let messages = (duration.as_secs_f64() * rate).ceil().max(1.0) as u64;
        self.schedule = Some(Schedule { start: Instant::now(), interval, first, late_ms: Vec::new() });
        let sent = self.keep(first, messages);
        let late_ms = self.schedule.take().map(|schedule| schedule.late_ms);
        sent?;
        late_ms.context("a schedule")
    }

    fn keep(&mut self, first: u64, messages: u64) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut heard = Instant::now();
        loop {
            let (sent, complete) = self.rooms.first().map(|room| (room.sent, room.complete)).context("a room")?;
            if sent == first + messages && complete == sent {
                return Ok(());
            }
            let due = self.schedule.as_ref().is_some_and(|schedule| schedule.due(sent) <= Instant::now());
            if due && sent < first + messages {
                ensure!(
                    sent - complete < self.scenario.in_flight as u64,
                    "the server is too far behind: {sent} sent, {complete} arrived"
                );
                self.say(0, 1)?;
            }
            self.wait(&mut events)?;
            if events.is_empty() {
                ensure!(heard.elapsed() < PATIENCE, "{}", self.missing());
                std::thread::yield_now();
                continue;
            }
            heard = Instant::now();
            for event in events.drain(..) {
                self.read(usize::try_from(event.data.u64())?)?;
            }
        }
    }
}
