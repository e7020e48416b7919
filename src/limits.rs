//! How often something may happen: token buckets, alone and by key; and what has happened lately. Pure: the time is handed in.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::{Duration, Instant},
};

/// Keys below which none is looked at for being idle.
const FEW: usize = 1024;
/// Most keys that are remembered; beyond, all begin anew.
const MOST: usize = 100_000;

/// So many a second, and so many at once after a pause.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Absent: without limit.
    interval: Option<Duration>,
    burst: u32,
}

impl Rate {
    /// `per_second` in the long run, `burst` at once; 0 a second is no limit.
    #[must_use]
    pub fn per_second(per_second: u32, burst: u32) -> Self {
        let interval = (per_second > 0).then(|| Duration::from_secs(1) / per_second);
        Self { interval, burst }
    }

    /// The same in a minute, as many at once.
    #[must_use]
    pub fn per_minute(per_minute: u32) -> Self {
        let interval = (per_minute > 0).then(|| Duration::from_secs(60) / per_minute);
        Self { interval, burst: per_minute }
    }
}

/// What is left of a [`Rate`], as the moment when all of it is back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes one, or says how long until there is one again.
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let before = *self;
        match self.spend(1, rate, now) {
            Duration::ZERO => Ok(()),
            wait => {
                *self = before;
                Err(wait)
            }
        }
    }

    /// Takes `cost` in any case; how long until what was taken too much is paid back.
    pub fn spend(&mut self, cost: u32, rate: Rate, now: Instant) -> Duration {
        let Some(interval) = rate.interval else { return Duration::ZERO };
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now)) + interval * cost;
        self.full_at = Some(full_at);
        (full_at - now).saturating_sub(interval * rate.burst)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }
}

/// A bucket for each key, those that are full forgotten.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    buckets: HashMap<K, Bucket>,
    /// With so many the full ones are dropped.
    sweep_at: usize,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// All full.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, buckets: HashMap::new(), sweep_at: FEW }
    }

    /// Takes one from a key's bucket, or says how long until there is one again.
    pub fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        if let Some(bucket) = self.buckets.get_mut(key) {
            return bucket.take(self.rate, now);
        }
        if self.buckets.len() >= self.sweep_at {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() > MOST {
                self.buckets.clear();
            }
            self.sweep_at = (self.buckets.len() * 2).max(FEW);
        }
        self.buckets.entry(key.clone()).or_default().take(self.rate, now)
    }
}

/// The latest of a kind: so many at least, twice as many at most.
#[derive(Debug)]
pub struct Recent<T> {
    most: usize,
    young: HashSet<T>,
    old: HashSet<T>,
}

impl<T: Hash + Eq + Clone> Recent<T> {
    /// None yet.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, young: HashSet::new(), old: HashSet::new() }
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn has(&self, item: &T) -> bool {
        self.young.contains(item) || self.old.contains(item)
    }

    /// Makes it the latest.
    pub fn note(&mut self, item: &T) {
        if self.young.contains(item) {
            return;
        }
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(item.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_then_its_rate() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let rate = Rate::per_second(10, 3);
        let second = Duration::from_secs(1);
        assert_eq!([(); 4].map(|()| bucket.take(rate, start)), [Ok(()), Ok(()), Ok(()), Err(second / 10)]);
        assert_eq!(bucket.take(rate, start + second / 10), Ok(()), "what was refused cost nothing");
        assert!(bucket.take(rate, start + second / 10).is_err());
        assert_eq!(
            (0..99).filter(|_| bucket.take(rate, start + second * 9).is_ok()).count(),
            3,
            "no more than a burst"
        );
        assert!((0..10_000).all(|_| bucket.take(Rate::per_second(0, 0), start).is_ok()), "0: no limit");
    }

    #[test]
    fn bytes_may_be_owed() {
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        let rate = Rate::per_second(1000, 2000);
        assert_eq!(bucket.spend(2000, rate, start), Duration::ZERO);
        assert_eq!(bucket.spend(500, rate, start), Duration::from_millis(500));
        assert_eq!(bucket.spend(1, rate, start + Duration::from_millis(500)), Duration::from_millis(1));
    }

    #[test]
    fn the_latest_are_remembered() {
        let mut recent = Recent::new(10);
        for item in 0..100 {
            recent.note(&item);
            recent.note(&7);
            assert!(recent.has(&7) && recent.has(&item) && recent.has(&(item - 8).max(0)));
            assert!(recent.young.len() + recent.old.len() <= 20);
        }
        assert!(!recent.has(&50));
    }

    #[test]
    fn keys_have_their_own_and_do_not_pile_up() {
        let (mut buckets, start) = (Buckets::new(Rate::per_minute(2)), Instant::now());
        let minute = Duration::from_secs(60);
        assert!(buckets.take(&0, start).is_ok() && buckets.take(&0, start).is_ok() && buckets.take(&0, start).is_err());
        assert!(buckets.take(&1, start).is_ok());
        for key in 0..100_000 {
            let _ = buckets.take(&key, start + minute * (key / 100));
            assert!(buckets.buckets.len() <= FEW);
        }
        for key in 0..300_000 {
            let _ = buckets.take(&key, start + minute * 9999);
            assert!(buckets.buckets.len() <= 2 * MOST);
        }
    }
}
