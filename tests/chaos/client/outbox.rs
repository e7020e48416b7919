//! The exactly-once side of a client: what it has sent to one room and still holds, as docs/protocol.md asks.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long an acknowledged message is kept: a log that lost it may still ask for it.
const KEEP: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Held {
    key: String,
    acked: Option<Instant>,
}

/// Messages `base` to `next - 1` of one sender to one room.
#[derive(Debug)]
pub struct Outbox {
    base: u64,
    held: VecDeque<Held>,
    /// The `n` to be sent next.
    cursor: u64,
    paused_until: Option<Instant>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { base: 1, held: VecDeque::new(), cursor: 1, paused_until: None }
    }
}

impl Outbox {
    pub fn push(&mut self, key: String) {
        self.held.push_back(Held { key, acked: None });
    }

    /// What is to be sent now: `n`, `base` and the key.
    pub fn next(&mut self, now: Instant) -> Option<(u64, u64, String)> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        while self.held.front().and_then(|held| held.acked).is_some_and(|acked| now - acked > KEEP) {
            self.held.pop_front();
            self.base += 1;
        }
        self.cursor = self.cursor.max(self.base);
        let n = self.cursor;
        let key = self.held.get((n - self.base) as usize)?.key.clone();
        self.cursor += 1;
        Some((n, self.base, key))
    }

    pub fn acked(&mut self, n: u64, now: Instant) {
        if let Some(held) = self.at(n) {
            held.acked = Some(now);
        }
    }

    /// Not stored, as far as is known: again from there, after a while.
    pub fn failed(&mut self, n: u64, until: Instant) {
        self.cursor = self.cursor.min(n);
        self.paused_until = Some(until);
    }

    /// The log has nothing behind `last_n`, whatever was acknowledged.
    pub fn gap(&mut self, last_n: u64) {
        self.cursor = self.cursor.min(last_n + 1);
        for n in last_n + 1..self.base + self.held.len() as u64 {
            if let Some(held) = self.at(n) {
                held.acked = None;
            }
        }
    }

    /// A new socket: again from the first that is not acknowledged.
    pub fn restart(&mut self) {
        let open = self.held.iter().position(|held| held.acked.is_none()).unwrap_or(self.held.len());
        self.cursor = self.base + open as u64;
        self.paused_until = None;
    }

    pub fn was_used(&self) -> bool {
        self.cursor > 1
    }

    /// Nothing is to be sent or waited for.
    pub fn is_settled(&self) -> bool {
        self.held.iter().all(|held| held.acked.is_some())
    }

    fn at(&mut self, n: u64) -> Option<&mut Held> {
        self.held.get_mut(n.checked_sub(self.base)? as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> (Outbox, Instant) {
        let mut outbox = Outbox::default();
        for key in ["a", "b", "c", "d"] {
            outbox.push(key.into());
        }
        (outbox, Instant::now())
    }

    fn sent(outbox: &mut Outbox, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| outbox.next(now)).map(|(n, ..)| n).collect()
    }

    #[test]
    fn what_failed_goes_again_with_all_behind_it() {
        let (mut outbox, now) = filled();
        assert_eq!(sent(&mut outbox, now), [1, 2, 3, 4]);
        outbox.acked(1, now);
        let later = now + Duration::from_secs(1);
        outbox.failed(2, later);
        outbox.gap(1);
        assert_eq!(sent(&mut outbox, now), [0; 0], "not before the pause is over");
        assert_eq!(sent(&mut outbox, later), [2, 3, 4]);
        (2..=4).for_each(|n| outbox.acked(n, later));
        assert!(outbox.is_settled());
        outbox.gap(0);
        assert!(!outbox.is_settled(), "a log that lost acknowledged ones gets them again");
        assert_eq!(sent(&mut outbox, later), [1, 2, 3, 4]);
    }

    #[test]
    fn a_new_socket_repeats_what_is_open() {
        let (mut outbox, now) = filled();
        sent(&mut outbox, now);
        outbox.acked(1, now);
        outbox.acked(2, now);
        outbox.restart();
        assert_eq!(outbox.next(now), Some((3, 1, "c".into())), "acknowledged ones are held a while");
        let late = now + KEEP + Duration::from_secs(1);
        assert_eq!(outbox.next(late), Some((4, 3, "d".into())));
    }
}
