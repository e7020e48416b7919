//! What a talker has said and still holds, by its count: docs/protocol.md, "Exactly once".

use std::collections::VecDeque;

use tokio::time::Instant;

/// Messages that a talker holds at most; what is due beyond waits.
const MOST: usize = 4096;

/// Messages `base`, `base` + 1, …, each with the time at which it was due.
#[derive(Debug)]
pub(super) struct Outbox {
    base: u64,
    held: VecDeque<u64>,
    /// Number of the one that is sent next.
    cursor: u64,
    /// Nothing is sent before.
    paused_until: Option<Instant>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { base: 1, held: VecDeque::new(), cursor: 1, paused_until: None }
    }
}

/// A message to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) n: u64,
    pub(super) base: u64,
    /// Scheduled, in nanoseconds.
    pub(super) at: u64,
}

impl Outbox {
    pub(super) fn has_room(&self) -> bool {
        self.held.len() < MOST
    }

    pub(super) fn push(&mut self, at: u64) {
        self.held.push_back(at);
    }

    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// What is to be sent now.
    pub(super) fn next(&mut self) -> Option<Due> {
        if let Some(until) = self.paused_until {
            if Instant::now() < until {
                return None;
            }
            self.paused_until = None;
        }
        let n = self.cursor;
        let at = *self.held.get(usize::try_from(n.checked_sub(self.base)?).ok()?)?;
        self.cursor += 1;
        Some(Due { n, base: self.base, at })
    }

    /// All up to `n` are stored; returns when they were due.
    pub(super) fn stored(&mut self, n: u64) -> impl Iterator<Item = u64> + '_ {
        let stored = (n + 1).saturating_sub(self.base).min(self.held.len() as u64);
        self.base += stored;
        self.cursor = self.cursor.max(self.base);
        self.held.drain(..usize::try_from(stored).unwrap_or(0))
    }

    /// Not stored: again from there, after a while.
    pub(super) fn refused(&mut self, n: u64, until: Instant) {
        self.cursor = self.cursor.min(n).max(self.base);
        self.paused_until = Some(until);
    }

    /// The log has nothing behind `last_n`: again from there. Returns how many it had acknowledged and has lost.
    pub(super) fn gap(&mut self, last_n: u64) -> u64 {
        self.cursor = self.cursor.min(last_n + 1).max(self.base);
        self.base.saturating_sub(last_n + 1)
    }

    /// A new socket: again all that is held.
    pub(super) fn restart(&mut self) {
        self.cursor = self.base;
        self.paused_until = None;
    }

    /// Gives up what is held; returns how many these were.
    pub(super) fn clear(&mut self) -> u64 {
        self.held.drain(..).len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outbox: &mut Outbox) -> Vec<u64> {
        std::iter::from_fn(|| outbox.next()).map(|due| due.n).collect()
    }

    #[test]
    fn holds_what_is_not_acknowledged_and_sends_it_again() {
        let mut outbox = Outbox::default();
        (10..14).for_each(|at| outbox.push(at));
        assert_eq!(sent(&mut outbox), [1, 2, 3, 4]);
        assert_eq!(outbox.stored(2).collect::<Vec<_>>(), [10, 11]);
        assert_eq!(outbox.stored(2).count(), 0, "acknowledged again");
        outbox.restart();
        assert_eq!(outbox.next(), Some(Due { n: 3, base: 3, at: 12 }));
        outbox.refused(3, Instant::now());
        assert_eq!(sent(&mut outbox), [3, 4]);
        assert_eq!(outbox.gap(2), 0);
        assert_eq!(sent(&mut outbox), [3, 4]);
        assert_eq!(outbox.gap(0), 2, "the log has lost two that it had acknowledged");
        assert_eq!(outbox.next(), Some(Due { n: 3, base: 3, at: 12 }), "they are not held any more");
        assert_eq!(outbox.clear(), 2);
    }
}
