//! Stopping: who asked for it, what must end before it, and whether the node wants traffic.
//!
//! Owns no order of things; that is `app`'s.

use std::{future::Future, time::Duration};

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// SIGTERM and SIGINT, as often as they come.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both signals over from their default, which is to die at once.
    pub fn new() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: take(SignalKind::terminate())?, interrupt: take(SignalKind::interrupt())? })
    }

    /// The next request to stop.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Everything spawned, so that the end can wait for it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Runs a task that ends by itself.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Runs a task until it ends or [`Tasks::stop`] is called.
    pub fn spawn_until_stopped<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move { stop.run_until_cancelled(task).await });
    }

    /// Cancelled by [`Tasks::stop`]; for tasks with something to finish first.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Ends what runs until stopped and waits for all tasks, at most `limit`. False: some were still running.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// Why this node should not get traffic, if it should not.
#[derive(Debug)]
pub struct Readiness {
    state: Mutex<State>,
    /// How long an unreachable Redis is everyone's fault rather than this node's.
    grace: Duration,
}

#[derive(Debug)]
struct State {
    started: bool,
    draining: bool,
    redis: Redis,
    /// Tokens cannot be checked.
    keys_away: bool,
    revocations_away: bool,
}

#[derive(Debug)]
enum Redis {
    NotNeeded,
    /// And what speaks against it, if it answers.
    NotYet(Option<String>),
    Up,
    Deaf,
    DownSince(Instant, Option<String>),
}

impl Readiness {
    /// Not ready until [`Readiness::started`], nor, where Redis is used, before it was reached once.
    #[must_use]
    pub fn new(uses_redis: bool, grace: Duration) -> Self {
        let redis = if uses_redis { Redis::NotYet(None) } else { Redis::NotNeeded };
        Self {
            state: Mutex::new(State {
                started: false,
                draining: false,
                redis,
                keys_away: false,
                revocations_away: false,
            }),
            grace,
        }
    }

    /// The listeners accept.
    pub fn started(&self) {
        self.state.lock().started = true;
    }

    /// The node is about to go away; there is no way back.
    pub fn draining(&self) {
        self.state.lock().draining = true;
    }

    /// A round trip through Redis, both ways, succeeded.
    pub fn redis_up(&self) {
        self.state.lock().redis = Redis::Up;
    }

    /// Redis answers, but what it publishes does not reach this node: the fault is here, so others should take its clients.
    pub fn redis_deaf(&self) {
        self.state.lock().redis = Redis::Deaf;
    }

    /// Redis does not answer, or does with what speaks against it.
    pub fn redis_down(&self, problem: Option<String>) {
        let redis = &mut self.state.lock().redis;
        match redis {
            Redis::NotYet(before) | Redis::DownSince(_, before) => *before = problem,
            Redis::Up => *redis = Redis::DownSince(Instant::now(), problem),
            Redis::NotNeeded | Redis::Deaf => {}
        }
    }

    /// Whether it is known whose tokens are revoked.
    pub fn revocations(&self, at_hand: bool) {
        self.state.lock().revocations_away = !at_hand;
    }

    /// Whether there are keys to check tokens with, where they come from the issuer.
    pub fn keys(&self, at_hand: bool) {
        self.state.lock().keys_away = !at_hand;
    }

    /// Whether the node has come up: its listeners accept. Redis does not count: a start without it waits, and a restart would not help.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.state.lock().started
    }

    /// Whether the node is going away.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.state.lock().draining
    }

    /// What speaks against traffic; empty: nothing.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut reasons = Vec::new();
        if !state.started {
            reasons.push("starting".to_owned());
        }
        if state.draining {
            reasons.push("draining".to_owned());
        }
        match &state.redis {
            Redis::NotYet(None) => reasons.push("redis: not reached yet".to_owned()),
            Redis::NotYet(Some(problem)) => reasons.push(format!("redis: {problem}")),
            Redis::DownSince(since, problem) if since.elapsed() >= self.grace => {
                let seconds = since.elapsed().as_secs();
                reasons.push(match problem {
                    None => format!("redis: unreachable for {seconds} s"),
                    Some(problem) => format!("redis: of no use for {seconds} s: {problem}"),
                });
            }
            Redis::Deaf => reasons.push("redis: what it publishes does not arrive here".to_owned()),
            Redis::DownSince(..) | Redis::Up | Redis::NotNeeded => {}
        }
        if state.revocations_away {
            reasons.push("auth: the revocations have not been read yet".to_owned());
        }
        if state.keys_away {
            reasons.push("auth: no keys from the issuer".to_owned());
        }
        reasons
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_redis_takes_readiness_only_after_the_grace() {
        for (grace, after_loss) in
            [(Duration::from_secs(3600), None), (Duration::ZERO, Some("redis: unreachable for 0 s"))]
        {
            let readiness = Readiness::new(true, grace);
            assert_eq!(readiness.reasons(), ["starting", "redis: not reached yet"]);
            readiness.started();
            readiness.redis_down(None);
            assert_eq!(readiness.reasons(), ["redis: not reached yet"], "never reached is not the same as lost");
            readiness.redis_down(Some("it is a replica".into()));
            assert_eq!(readiness.reasons(), ["redis: it is a replica"]);
            readiness.redis_up();
            assert!(readiness.is_started() && readiness.reasons().is_empty());
            readiness.redis_down(Some("LOADING".into()));
            readiness.redis_down(None);
            assert_eq!(readiness.reasons().first().map(String::as_str), after_loss);
            readiness.redis_up();
            assert!(readiness.reasons().is_empty());
            readiness.draining();
            assert_eq!(readiness.reasons(), ["draining"]);
        }
    }
}
