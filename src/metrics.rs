//! What the service counts, in one struct over its own registry.
//!
//! Every label value is known here at the start and begins at 0; none comes from a user. Handles are looked up once, never per message.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

use crate::protocol::{Close, ErrorCode, ProblemCode};

/// Close codes that no close of ours has: gone (a page left), no close frame at all, and any other.
const PEER_CODES: [&str; 3] = ["1001", "1006", "other"];
/// How a resume was answered.
const RESUMES: [&str; 3] = ["recovered", "rollback", "reset"];
/// Why a token was refused.
pub(crate) const AUTH_FAILURES: [&str; 17] = [
    "missing",
    "malformed",
    "expired",
    "not_yet_valid",
    "too_old",
    "bad_signature",
    "unknown_key",
    "bad_issuer",
    "bad_audience",
    "bad_claims",
    "bad_permissions",
    "ambiguous",
    "in_url",
    "too_large",
    "another_user",
    "revoked",
    "keys_away",
];
/// What became of a changed configuration.
const RELOADS: [&str; 2] = ["applied", "refused"];
/// How a fetch of the issuer's keys ended.
const FETCHES: [&str; 2] = ["ok", "failed"];
/// What of the durability of Redis can be found out.
const DURABILITIES: [&str; 4] = ["none", "everysec", "always", "unknown"];
/// What a limit was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Frames of one connection, or messages of one user by request.
    Messages,
    /// Rooms that one session asked for.
    Subscribes,
    /// Messages to the lobby.
    Lobby,
    /// Rooms that one user opened.
    NewRooms,
    /// Connections of one user.
    UserConnections,
    /// Connections of one address.
    AddressConnections,
    /// Sockets opened on the node.
    Upgrades,
}

impl Limit {
    /// One of each.
    pub const ALL: [Self; 7] = [
        Self::Messages,
        Self::Subscribes,
        Self::Lobby,
        Self::NewRooms,
        Self::UserConnections,
        Self::AddressConnections,
        Self::Upgrades,
    ];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Subscribes => "subscribes",
            Self::Lobby => "lobby",
            Self::NewRooms => "new_rooms",
            Self::UserConnections => "user_connections",
            Self::AddressConnections => "address_connections",
            Self::Upgrades => "upgrades",
        }
    }
}

/// All metrics of one node. Help texts stand where a metric is made.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: Registry,
    /// Open connections.
    pub connections: IntGauge,
    /// Connections accepted since the start.
    pub opened: IntCounter,
    closed: IntCounterVec,
    upgrade_failures: IntCounterVec,
    refusals: IntCounterVec,
    limited: IntCounterVec,
    auth_failures: IntCounterVec,
    key_fetches: IntCounterVec,
    /// Messages received from clients.
    pub messages_in: IntCounter,
    /// Messages handed to sockets, one for each receiver.
    pub messages_out: IntCounter,
    /// Rooms with members on this node.
    pub rooms: IntGauge,
    /// Messages sent to Redis again as it did not answer.
    pub publish_retries: IntCounter,
    /// From receiving a message to the log having it.
    pub publish_seconds: Histogram,
    /// 1 while Redis answers.
    pub redis_up: IntGauge,
    /// 1 if Redis shows which history of its data it has.
    pub redis_fenced: IntGauge,
    durability: IntGaugeVec,
    /// Since what this node published last came back to it.
    pub canary_age: Gauge,
    /// Times that the subscriber connection was made anew.
    pub redis_reconnects: IntCounter,
    /// Rooms read again from the log because something may have been missed.
    pub repairs: IntCounter,
    /// Repairs that found the log to have lost the room's position.
    pub resets: IntCounter,
    /// Repairs that found the log to have lost its last messages.
    pub rollbacks: IntCounter,
    /// Entries from Redis that could not be decoded.
    pub invalid_entries: IntCounter,
    resumes: IntCounterVec,
    config_reloads: IntCounterVec,
    /// 1 from SIGTERM on.
    pub draining: IntGauge,
    /// Connections that had to be cut at the end of the drain.
    pub drain_forced: IntCounter,
    /// Finished spans that never reached the collector.
    pub spans_dropped: IntCounter,
}

impl Metrics {
    /// Registers everything.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("chat".into()), None)?;
        let process = Registry::new();
        process.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;

        let make = Maker(&registry);
        let codes: Vec<String> = Close::ALL.iter().map(|close| close.code().to_string()).collect();
        let codes = codes.iter().map(String::as_str).chain(PEER_CODES);
        let build = IntGauge::with_opts(
            Opts::new("build_info", "Always 1; the version as a label.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        make.register(build)?;

        Ok(Self {
            connections: make.gauge("connections", "Open connections.")?,
            opened: make.counter("connections_opened_total", "Connections accepted.")?,
            closed: make.counters("connections_closed_total", "Connections ended, by close code.", "code", codes)?,
            upgrade_failures: make.counters(
                "upgrade_failures_total",
                "Upgrades refused, by reason.",
                "reason",
                ProblemCode::OF_UPGRADES.map(ProblemCode::as_str),
            )?,
            refusals: make.counters(
                "refusals_total",
                "Frames answered with an error, by its code.",
                "code",
                ErrorCode::ALL.map(ErrorCode::as_str),
            )?,
            limited: make.counters(
                "limited_total",
                "What was refused for a limit, by the limit.",
                "limit",
                Limit::ALL.map(Limit::as_str),
            )?,
            auth_failures: make.counters(
                "auth_failures_total",
                "Tokens refused, by reason, at upgrades, requests and refreshes.",
                "reason",
                AUTH_FAILURES,
            )?,
            key_fetches: make.counters(
                "jwks_fetches_total",
                "Times the issuer's key set was fetched, by how it ended.",
                "outcome",
                FETCHES,
            )?,
            messages_in: make.counter("messages_received_total", "Messages received from clients.")?,
            messages_out: make
                .counter("messages_delivered_total", "Messages handed to sockets, one for each receiver.")?,
            rooms: make.gauge("rooms", "Rooms with members on this node.")?,
            publish_retries: make
                .counter("publish_retries_total", "Messages sent to Redis again as it did not answer.")?,
            publish_seconds: make.seconds(
                "publish_duration_seconds",
                "From receiving a message to the log having it.",
                &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0],
            )?,
            redis_up: make.gauge("redis_up", "1 while Redis answers; always 0 where none is used.")?,
            redis_fenced: make
                .gauge("redis_fenced", "1 if Redis shows its replication id, so that lost messages are noticed.")?,
            durability: make.register(IntGaugeVec::new(
                Opts::new(
                    "redis_durability",
                    "1 for the durability that is declared and what Redis shows of it; absent before it was reached.",
                ),
                &["declared", "found"],
            )?)?,
            canary_age: make
                .float("redis_canary_age_seconds", "Since what this node published last came back to it.")?,
            redis_reconnects: make
                .counter("redis_reconnects_total", "Times the subscriber connection was made anew.")?,
            repairs: make
                .counter("repairs_total", "Rooms read again from the log as something may have been missed.")?,
            resets: make.counter("resets_total", "Repairs that found the log to have lost the room's position.")?,
            rollbacks: make.counter("rollbacks_total", "Repairs that found the log to have lost its last messages.")?,
            invalid_entries: make.counter("invalid_entries_total", "Entries from Redis that could not be decoded.")?,
            resumes: make.counters(
                "resumes_total",
                "Sockets that came with a position, by whether the log could continue exactly from it.",
                "outcome",
                RESUMES,
            )?,
            config_reloads: make.counters(
                "config_reloads_total",
                "Changed configurations, by whether they were taken over.",
                "outcome",
                RELOADS,
            )?,
            draining: make.gauge("draining", "1 from SIGTERM on.")?,
            drain_forced: make.counter("drain_forced_total", "Connections cut at the end of the drain.")?,
            spans_dropped: make.counter("spans_dropped_total", "Finished spans that never reached the collector.")?,
            registry,
            process,
        })
    }

    /// Says what is declared of Redis' durability and what was found.
    pub fn durability(&self, declared: &'static str, found: &'static str) {
        debug_assert!(DURABILITIES.contains(&declared) && DURABILITIES.contains(&found));
        for each in DURABILITIES {
            self.durability.with_label_values(&[declared, each]).set(i64::from(each == found));
        }
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

    /// Everything in the Prometheus text format.
    pub fn encode(&self) -> prometheus::Result<String> {
        let mut text = String::new();
        let mut families = self.registry.gather();
        families.extend(self.process.gather());
        TextEncoder::new().encode_utf8(&families, &mut text)?;
        Ok(text)
    }
}

/// Makes and registers.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    fn float(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::new(name, help)?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    fn seconds(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn counters<'v>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = &'v str>,
    ) -> prometheus::Result<IntCounterVec> {
        let family = self.register(IntCounterVec::new(Opts::new(name, help), &[label])?)?;
        for value in values {
            family.with_label_values(&[value]);
        }
        Ok(family)
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
