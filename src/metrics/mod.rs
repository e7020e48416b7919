//! What the service counts, in one struct over its own registry.
//!
//! Every label value is known here at the start and begins at 0; none comes from a user. Handles are looked up once, never per delivery.
//! `definitions` lists all,
//! `catalogue` makes them and knows what they are for, `labels` holds the values of their labels.

mod catalogue;
mod definitions;
mod labels;
mod runtime;

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

pub(crate) use self::labels::AUTH_FAILURES;
use self::labels::{DURABILITIES, FETCHES, KUBERNETES_OUTCOMES, PEER_CODES, REDIS_COMMANDS, RESUMES};
pub use self::{
    catalogue::Described,
    labels::{KubernetesCall, Limit, RepairCause},
};
use crate::protocol::{Close, ErrorCode, ProblemCode};

/// What all our metrics' names begin with.
const PREFIX: &str = "chat";
/// All metrics of one node. What each means stands in `definitions`.
#[derive(Debug)]
#[expect(missing_docs, reason = "the texts are those of the metrics themselves")]
pub struct Metrics {
    registry: Registry,
    process: Registry,
    described: Vec<Described>,
    pub ready: IntGauge,
    pub connections: IntGauge,
    pub connections_limit: IntGauge,
    pub opened: IntCounter,
    pub connection_seconds: Histogram,
    closed: IntCounterVec,
    pub slow_close_bytes: Histogram,
    upgrade_failures: IntCounterVec,
    auth_failures: IntCounterVec,
    key_fetches: IntCounterVec,
    pub messages_in: IntCounter,
    pub bytes_in: IntCounter,
    pub messages_out: IntCounter,
    pub bytes_out: IntCounter,
    refusals: IntCounterVec,
    limited: IntCounterVec,
    pub publish_seconds: Histogram,
    pub latency_seconds: Histogram,
    pub deliver_seconds: Histogram,
    pub rooms: IntGauge,
    pub subscriptions: IntGauge,
    resumes: IntCounterVec,
    repairs: IntCounterVec,
    pub resets: IntCounter,
    pub rollbacks: IntCounter,
    pub overruns: IntCounter,
    pub redis_up: IntGauge,
    redis_seconds: HistogramVec,
    redis_failures: IntCounterVec,
    pub publish_retries: IntCounter,
    pub redis_reconnects: IntCounter,
    canary_age: Gauge,
    canary_heard: Mutex<Option<Instant>>,
    pub redis_fenced: IntGauge,
    durability: IntGaugeVec,
    pub invalid_entries: IntCounter,
    config_reloads: IntCounterVec,
    pub draining: IntGauge,
    pub drain_forced: IntCounter,
    pub spans_dropped: IntCounter,
    pub log_lines_suppressed: IntCounter,
    kubernetes_calls: IntCounterVec,
}

impl Metrics {
    /// All of them, in the order of the reference.
    #[must_use]
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// Says what is declared of Redis' durability and what was found.
    pub fn durability(&self, declared: &'static str, found: &'static str) {
        debug_assert!(DURABILITIES.contains(&declared) && DURABILITIES.contains(&found));
        for each in DURABILITIES {
            self.durability.with_label_values(&[declared, each]).set(i64::from(each == found));
        }
    }

    /// A round trip to Redis has ended.
    pub fn redis_command(&self, command: &'static str, took: Duration, succeeded: bool) {
        debug_assert!(REDIS_COMMANDS.contains(&command));
        self.redis_seconds.with_label_values(&[command]).observe(took.as_secs_f64());
        if !succeeded {
            self.redis_failures.with_label_values(&[command]).inc();
        }
    }

    /// The counter of calls of the Kubernetes API that ended so.
    #[must_use]
    pub fn kubernetes_call(&self, call: KubernetesCall, outcome: &'static str) -> IntCounter {
        debug_assert!(KUBERNETES_OUTCOMES.contains(&outcome));
        self.kubernetes_calls.with_label_values(&[call.as_str(), outcome])
    }

    /// The counter of rooms that read their log again for this reason.
    #[must_use]
    pub fn repair(&self, cause: RepairCause) -> IntCounter {
        self.repairs.with_label_values(&[cause.as_str()])
    }

    /// The counter of connections ended with `code`.
    #[must_use]
    pub fn closed(&self, code: u16) -> IntCounter {
        let text = code.to_string();
        let known = Close::ALL.iter().any(|close| close.code() == code) || PEER_CODES.contains(&text.as_str());
        self.closed.with_label_values(&[if known { text.as_str() } else { "other" }])
    }

    /// The counter of upgrades refused for `reason`.
    #[must_use]
    pub fn upgrade_failure(&self, reason: ProblemCode) -> IntCounter {
        debug_assert!(ProblemCode::OF_UPGRADES.contains(&reason));
        self.upgrade_failures.with_label_values(&[reason.as_str()])
    }

    /// The counter of changed configurations, taken over or refused.
    #[must_use]
    pub fn config_reload(&self, applied: bool) -> IntCounter {
        self.config_reloads.with_label_values(&[if applied { "applied" } else { "refused" }])
    }

    /// The counter of what was refused for `limit`.
    #[must_use]
    pub fn limited(&self, limit: Limit) -> IntCounter {
        self.limited.with_label_values(&[limit.as_str()])
    }

    /// The counter of frames answered with `code`.
    #[must_use]
    pub fn refusal(&self, code: ErrorCode) -> IntCounter {
        self.refusals.with_label_values(&[code.as_str()])
    }

    /// The counter of tokens refused for this reason.
    #[must_use]
    pub fn auth_failure(&self, reason: &'static str) -> IntCounter {
        debug_assert!(AUTH_FAILURES.contains(&reason));
        self.auth_failures.with_label_values(&[reason])
    }

    /// The counter of fetches of the issuer's keys.
    #[must_use]
    pub fn key_fetch(&self, succeeded: bool) -> IntCounter {
        self.key_fetches.with_label_values(&[FETCHES[usize::from(!succeeded)]])
    }

    /// The counter of resumes: continued exactly from the position asked for, or the log no longer had it.
    #[must_use]
    pub fn resume(&self, outcome: &'static str) -> IntCounter {
        debug_assert!(RESUMES.contains(&outcome));
        self.resumes.with_label_values(&[outcome])
    }

    /// What this node published has come back to it.
    pub fn canary_heard(&self) {
        *self.canary_heard.lock() = Some(Instant::now());
    }

    /// Everything in the Prometheus text format.
    pub fn encode(&self) -> prometheus::Result<String> {
        if let Some(heard) = *self.canary_heard.lock() {
            self.canary_age.set(heard.elapsed().as_secs_f64());
        }
        let mut text = String::new();
        let mut families = self.registry.gather();
        families.extend(self.process.gather());
        TextEncoder::new().encode_utf8(&families, &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_start_at_zero_and_stay_within_their_set() {
        let metrics = Metrics::new().unwrap();
        metrics.closed(1006).inc();
        metrics.closed(1012).inc();
        metrics.closed(4999).inc();
        let text = metrics.encode().unwrap();
        for line in [
            r#"chat_connections_closed_total{code="1006"} 1"#,
            r#"chat_connections_closed_total{code="1012"} 1"#,
            r#"chat_connections_closed_total{code="1013"} 0"#,
            r#"chat_connections_closed_total{code="other"} 1"#,
            r#"chat_refusals_total{code="unavailable"} 0"#,
            r#"chat_upgrade_failures_total{reason="auth"} 0"#,
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert!(!text.contains("4999") && text.contains("process_open_fds"));
    }
}
