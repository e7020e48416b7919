//! Every metric: its name, what it counts, the question that it answers, and how finely.

use parking_lot::Mutex;
use prometheus::{IntGauge, Opts, Registry};

use super::{
    Metrics,
    catalogue::{About, Catalogue},
    labels::{
        AUTH_FAILURES, FETCHES, KUBERNETES_OUTCOMES, KubernetesCall, Limit, PEER_CODES, REDIS_COMMANDS, RELOADS,
        RESUMES, RepairCause,
    },
    runtime::Runtime,
};
use crate::protocol::{Close, ErrorCode, ProblemCode};

/// Which release it is.
const BUILD: About = ("build_info", "Always 1; the version as a label.", "which release is this?");
/// Of one write to all members of a room: seconds.
const DELIVER: [f64; 10] = [0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
/// Of a message's way to the log, or to its receivers: seconds.
const MESSAGE: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// Of a round trip to Redis: seconds.
const REDIS: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0];
/// Of a connection's life, from a failed start to a day: seconds.
const CONNECTION: [f64; 11] = [0.1, 1.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 28_800.0, 43_200.0, 86_400.0];
/// Of what waits for one reader: bytes.
const OUTBOX: [f64; 7] = [4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

impl Metrics {
    /// Registers everything.
    #[expect(clippy::too_many_lines, reason = "a list")]
    pub fn new() -> prometheus::Result<Self> {
        let process = Registry::new();
        process.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let mut make = Catalogue::new()?;
        let codes: Vec<String> = Close::ALL.iter().map(|close| close.code().to_string()).collect();
        let codes = codes.iter().map(String::as_str).chain(PEER_CODES);

        make.describe(BUILD, "gauge", &["version"]);
        let build = IntGauge::with_opts(Opts::new(BUILD.0, BUILD.1).const_label("version", env!("CARGO_PKG_VERSION")))?;
        build.set(1);
        make.register(build)?;
        Runtime::register(&mut make)?;

        Ok(Self {
            ready: make.gauge((
            "ready",
            "1 while it wants traffic.",
            "does this pod get connections? The reasons against it are at `/readyz`",
        ))?,
            connections: make.gauge((
            "connections",
            "Open connections.",
            "how many sockets does this pod hold? The HPA's metric",
        ))?,
            connections_limit: make.gauge((
            "connections_limit",
            "Most connections that this node takes.",
            "how near is it to refusing more?",
        ))?,
            opened: make.counter((
            "connections_opened_total",
            "Connections accepted.",
            "how much churn is there?",
        ))?,
            closed: make.counters(
            (
                "connections_closed_total",
                "Connections ended, by close code; 1006: without a close frame.",
                "why do sockets end? The codes of [protocol.md](protocol.md#close-codes)",
            ),
            "code",
            codes,
        )?,
            connection_seconds: make.histogram(
            (
                "connection_duration_seconds",
                "How long connections were open, from their upgrade to their end.",
                "do sockets live as long as they should, or does something cut them after a minute?",
            ),
            &CONNECTION,
        )?,
            slow_close_bytes: make.histogram(
            (
                "slow_close_bytes",
                "Bytes that waited for a reader as it was closed for being slow.",
                "how many readers are too slow (`_count`), by size or by age?",
            ),
            &OUTBOX,
        )?,
            upgrade_failures: make.counters(
            (
                "upgrade_failures_total",
                "Upgrades refused, by reason.",
                "who is refused before the upgrade, and why? The codes of [protocol.md](protocol.md#refusals)",
            ),
            "reason",
            ProblemCode::OF_UPGRADES.map(ProblemCode::as_str),
        )?,
            auth_failures: make.counters(
            (
                "auth_failures_total",
                "Tokens refused, by reason, at upgrades, requests and refreshes.",
                "which tokens are refused?",
            ),
            "reason",
            AUTH_FAILURES,
        )?,
            key_fetches: make.counters(
            (
                "jwks_fetches_total",
                "Times the issuer's key set was fetched, by how it ended.",
                "does the issuer hand out its keys?",
            ),
            "outcome",
            FETCHES,
        )?,
            messages_in: make.counter((
            "messages_received_total",
            "Messages received from clients, by socket or request.",
            "how much comes in?",
        ))?,
            bytes_in: make.counter((
            "received_bytes_total",
            "Bytes of the messages received from clients.",
            "how large is what comes in?",
        ))?,
            messages_out: make.counter((
            "messages_delivered_total",
            "Messages handed to sockets, one for each receiver.",
            "how much goes out? Divided by what comes in: the fan-out",
        ))?,
            bytes_out: make.counter((
            "delivered_bytes_total",
            "Bytes of the frames handed to sockets, for each receiver.",
            "how much of the network do we need?",
        ))?,
            refusals: make.counters(
            ("refusals_total", "Frames answered with an error, by its code.", "what do clients do wrong, or we?"),
            "code",
            ErrorCode::ALL.map(ErrorCode::as_str),
        )?,
            limited: make.counters(
            ("limited_total", "What was refused for a limit, by the limit.", "which limit do clients meet?"),
            "limit",
            Limit::ALL.map(Limit::as_str),
        )?,
            publish_seconds: make.histogram(
            (
                "publish_duration_seconds",
                "From receiving a message to the log having it, or not.",
                "how long do senders wait for their acknowledgement?",
            ),
            &MESSAGE,
        )?,
            latency_seconds: make.histogram(
            (
                "delivery_latency_seconds",
                "From receiving a message, on whichever node, to handing it to the sockets of this one: the oldest of each write. \
                 Between nodes it is as true as their clocks.",
                "how late are messages? After an outage of Redis, how late was what came then?",
            ),
            &MESSAGE,
        )?,
            deliver_seconds: make.histogram(
            (
                "deliver_duration_seconds",
                "One write to all members of a room on this node.",
                "how long does a room keep a worker?",
            ),
            &DELIVER,
        )?,
            rooms: make.gauge(("rooms", "Rooms with members on this node.", "how many rooms are busy here?"))?,
            subscriptions: make.gauge((
            "subscriptions",
            "Places of connections in rooms.",
            "in how many rooms are connections? Each plain socket has two with the lobby",
        ))?,
            resumes: make.counters(
            (
                "resumes_total",
                "Sockets that came with a position, by whether the log could continue exactly from it.",
                "do returning clients continue, or start over?",
            ),
            "outcome",
            RESUMES,
        )?,
            repairs: make.counters(
            (
                "repairs_total",
                "Rooms read again from the log as something may have been missed, by what said so.",
                "how often was something missed and read again?",
            ),
            "cause",
            RepairCause::ALL.map(RepairCause::as_str),
        )?,
            resets: make.counter((
            "resets_total",
            "Repairs that found the log to have lost the room's position.",
            "has Redis lost its data?",
        ))?,
            rollbacks: make.counter((
            "rollbacks_total",
            "Repairs that found the log to have lost its last messages.",
            "has a failover lost messages?",
        ))?,
            overruns: make.counter((
            "overruns_total",
            "Repairs that found more said meanwhile than the log keeps.",
            "is `history.messages` too small for what a node misses?",
        ))?,
            redis_up: make.gauge((
            "redis_up",
            "1 while Redis answers; always 0 where none is used.",
            "is Redis there?",
        ))?,
            redis_seconds: make.histograms(
            (
                "redis_command_duration_seconds",
                "Round trips to Redis, by function; `publish` are whole pipelines.",
                "is Redis slow, or the way to it?",
            ),
            "command",
            &REDIS_COMMANDS,
            &REDIS,
        )?,
            redis_failures: make.counters(
            (
                "redis_command_failures_total",
                "Round trips to Redis that failed, by function.",
                "what does Redis not answer, or refuse?",
            ),
            "command",
            REDIS_COMMANDS,
        )?,
            publish_retries: make.counter((
            "publish_retries_total",
            "Messages sent to Redis again as it did not answer.",
            "how often was an outcome unknown for a while?",
        ))?,
            redis_reconnects: make.counter((
            "redis_reconnects_total",
            "Times the subscriber connection was made anew.",
            "how often was Redis away, or the way to it?",
        ))?,
            canary_age: make.float((
            "redis_canary_age_seconds",
            "Since what this node published last came back to it.",
            "does what this node publishes come back to it? Over 6 s the connection is made anew",
        ))?,
            canary_heard: Mutex::default(),
            redis_fenced: make.gauge((
            "redis_fenced",
            "1 if Redis shows its replication id, so that lost messages are noticed.",
            "would lost messages be noticed?",
        ))?,
            durability: make.gauges(
            (
                "redis_durability",
                "1 for the durability that is declared and what Redis shows of it; absent before it was reached.",
                "does Redis keep what is declared?",
            ),
            &["declared", "found"],
        )?,
            invalid_entries: make.counter((
            "invalid_entries_total",
            "Entries from Redis that could not be decoded.",
            "does somebody else write into our keys, or a newer release?",
        ))?,
            config_reloads: make.counters(
            (
                "config_reloads_total",
                "Changed configurations, by whether they were taken over.",
                "was the last change of the configuration taken over?",
            ),
            "outcome",
            RELOADS,
        )?,
            draining: make.gauge(("draining", "1 from SIGTERM on.", "is this pod going?"))?,
            drain_forced: make.counter((
            "drain_forced_total",
            "Connections cut in the drain: they had not ended `drain.flush` after their close.",
            "did it have to cut anybody?",
        ))?,
            spans_dropped: make.counter((
            "spans_dropped_total",
            "Finished spans that never reached the collector.",
            "do traces reach the collector?",
        ))?,
            log_lines_suppressed: make.counter((
            "log_lines_suppressed_total",
            "Log lines that were not written: too many like them were, or nobody takes what is written.",
            "does something flood the log?",
        ))?,
            kubernetes_calls: make.pairs(
                (
                    "kubernetes_requests_total",
                    "Requests to the Kubernetes API, by what for and how they ended.",
                    "does the pod have the rights that its Events and its deletion cost need?",
                ),
                ["call", "outcome"],
                KubernetesCall::ALL.map(KubernetesCall::as_str),
                KUBERNETES_OUTCOMES,
            )?,
            described: make.described,
            registry: make.registry,
            process,
        })
    }
}
