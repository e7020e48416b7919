//! What a pod lives through, seen in what is counted anyway and told to the cluster.
//!
//! Looks once a second, so that nobody has to tell it anything: nothing of the chat waits for Kubernetes, or knows of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Cluster, ClusterEvent};
use crate::{
    limits::{Buckets, Rate},
    metrics::Metrics,
    protocol::ProblemCode,
};

const EVERY: Duration = Duration::from_secs(1);
/// Events of one reason in a minute: something that flaps is told now and then.
const EVENTS_PER_MINUTE: u32 = 4;
/// The least time between two looks at how many connections a pod would drop; up to half as much again, so that pods do not come at once.
const COST_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub struct Story {
    /// Who is told.
    pub cluster: Arc<Cluster>,
    /// What is looked at.
    pub metrics: Arc<Metrics>,
    /// Whether the pod's deletion cost is kept up to date.
    pub deletion_cost: bool,
}

/// What is counted, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    redis_up: bool,
    reloaded: u64,
    rejected: u64,
    refused: u64,
    limit: i64,
}

impl Seen {
    fn now(metrics: &Metrics) -> Self {
        Self {
            redis_up: metrics.redis_up.get() == 1,
            reloaded: metrics.config_reload(true).get(),
            rejected: metrics.config_reload(false).get(),
            refused: metrics.upgrade_failure(ProblemCode::Full).get(),
            limit: metrics.connections_limit.get(),
        }
    }

    /// What has happened since.
    fn changes(&self, now: &Self, was_up: bool) -> Vec<ClusterEvent> {
        let happened = [
            (self.redis_up && !now.redis_up, ClusterEvent::RedisLost),
            (was_up && !self.redis_up && now.redis_up, ClusterEvent::RedisRestored),
            (now.reloaded > self.reloaded, ClusterEvent::ConfigReloaded),
            (now.rejected > self.rejected, ClusterEvent::ConfigRejected),
            (now.refused > self.refused, ClusterEvent::ConnectionLimitReached { limit: now.limit }),
        ];
        happened.into_iter().filter_map(|(happened, event)| happened.then_some(event)).collect()
    }
}

impl Story {
    /// Looks and tells for ever.
    pub async fn tell(self) {
        tokio::join!(self.tell_events(), self.tell_cost());
    }

    async fn tell_events(&self) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Buckets::new(Rate::per_minute(EVENTS_PER_MINUTE));
        let mut seen = Seen::now(&self.metrics);
        let mut was_up = seen.redis_up;
        loop {
            tick.tick().await;
            let now = Seen::now(&self.metrics);
            for event in seen.changes(&now, was_up) {
                if told.take(&event.reason(), Instant::now()).is_ok() {
                    self.cluster.event(event).await;
                }
            }
            seen = now;
            was_up |= now.redis_up;
        }
    }

    async fn tell_cost(&self) {
        if !self.deletion_cost {
            return;
        }
        let mut told = None;
        loop {
            let cost = cost(self.metrics.connections.get());
            if told != Some(cost) && self.cluster.set_deletion_cost(cost).await {
                told = Some(cost);
            }
            sleep(COST_EVERY.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
        }
    }
}

/// Of so many connections: in powers of two, so that it seldom changes.
fn cost(connections: i64) -> i32 {
    let connections = u32::try_from(connections.max(0)).unwrap_or(u32::MAX);
    connections.checked_ilog2().map_or(0, |power| 1 << power.min(30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let calm = Seen { redis_up: true, reloaded: 1, rejected: 0, refused: 5, limit: 100 };
        assert!(calm.changes(&calm, true).is_empty());
        let lost = Seen { redis_up: false, ..calm };
        assert_eq!(calm.changes(&lost, true), [ClusterEvent::RedisLost]);
        assert!(lost.changes(&lost, true).is_empty());
        assert_eq!(lost.changes(&calm, true), [ClusterEvent::RedisRestored]);
        assert!(lost.changes(&calm, false).is_empty(), "the start is no return");
        let busy = Seen { reloaded: 2, rejected: 3, refused: 900, ..calm };
        let expected = [
            ClusterEvent::ConfigReloaded,
            ClusterEvent::ConfigRejected,
            ClusterEvent::ConnectionLimitReached { limit: 100 },
        ];
        assert_eq!(calm.changes(&busy, true), expected);
    }

    #[test]
    fn a_cost_changes_seldom_and_grows_with_the_connections() {
        assert_eq!([-1, 0, 1, 2, 3, 4, 1000, 1023, 1024].map(cost), [0, 0, 1, 2, 2, 4, 512, 512, 1024]);
        assert_eq!(cost(i64::MAX), 1 << 30);
    }
}
