//! The scorecard as data: each fault, what it is done to, and what has to hold.

use std::{collections::HashMap, future::Future, pin::Pin, time::Duration};

use crate::{
    checker::Promise,
    faults,
    history::{Event, What},
    load::Shape,
    measure,
    rig::{Build, NODES, Outcome, Rig},
};

/// How long a row takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// A few seconds, at half the load. Times are told, not judged.
    Short,
    /// As the scorecard says.
    Long,
}

type Fault = for<'a> fn(&'a mut Rig, Scale) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

pub struct Row {
    pub id: &'static str,
    pub fault: &'static str,
    pub build: Build,
    pub promise: Promise,
    pub inject: Fault,
    /// Longest time from the end of the fault until all is well.
    pub recovery: Duration,
    /// What this row asks for beside the checker; what is wrong.
    pub judge: fn(&Outcome, Scale) -> Vec<String>,
}

/// What a row is where it does not say otherwise.
pub const ROW: Row = Row {
    id: "",
    fault: "",
    build: Build::USUAL,
    promise: Promise { log_lost: false, log_trimmed: false },
    inject: |_, _| Box::pin(async {}),
    recovery: Duration::from_secs(10),
    judge: |_, _| Vec::new(),
};

const LOST: Promise = Promise { log_lost: true, log_trimmed: false };

/// All rows that the scorecard has of this kind, in its order.
pub const ROWS: &[Row] = &[
    Row {
        id: "S1",
        fault: "`kill -9` of one node",
        inject: |rig, scale| Box::pin(faults::kill_a_node(rig, scale)),
        recovery: Duration::from_secs(5),
        ..ROW
    },
    Row {
        id: "S2",
        fault: "SIGTERM to all nodes, one after the other",
        build: Build { env: &[("CHAT_DRAIN__DELAY", "1s"), ("CHAT_DRAIN__WINDOW", "2s")], ..Build::USUAL },
        inject: |rig, scale| Box::pin(faults::roll_all_nodes(rig, scale)),
        judge: one_reconnect_a_restart,
        ..ROW
    },
    Row {
        id: "S3",
        fault: "SIGSTOP of one node for 10 s",
        build: Build { shape: Shape { patience: Duration::from_secs(3), ..Shape::USUAL }, ..Build::USUAL },
        inject: |rig, scale| Box::pin(faults::freeze_a_node(rig, scale)),
        ..ROW
    },
    Row {
        id: "S4",
        fault: "`kill -9` of Redis (AOF everysec), back after 3 s",
        inject: |rig, scale| Box::pin(faults::kill_redis(rig, scale)),
        ..ROW
    },
    Row {
        id: "S5",
        fault: "`kill -9` of Redis without persistence, back after 3 s",
        build: Build { redis: &["--appendonly", "no"], ..Build::USUAL },
        promise: LOST,
        inject: |rig, scale| Box::pin(faults::kill_redis(rig, scale)),
        judge: everybody_was_told,
        ..ROW
    },
    Row {
        id: "S6",
        fault: "SIGSTOP of Redis for 2 s, then for 10 s",
        inject: |rig, scale| Box::pin(faults::freeze_redis(rig, scale)),
        judge: no_reconnect_storm,
        ..ROW
    },
    Row {
        id: "S7",
        fault: "the replica is promoted while the master takes messages for 2 s more, then dies",
        build: Build { replica: true, ..Build::USUAL },
        promise: LOST,
        inject: |rig, scale| Box::pin(faults::fork(rig, scale)),
        judge: everybody_was_told,
        ..ROW
    },
    Row {
        id: "S8",
        fault: "the same fork, then fail-back to the same process",
        build: Build { replica: true, ..Build::USUAL },
        promise: LOST,
        inject: |rig, scale| Box::pin(faults::fail_back(rig, scale)),
        judge: everybody_was_told,
        ..ROW
    },
    Row {
        id: "S9",
        fault: "Sentinel failover whose announcement no node hears",
        build: Build { replica: true, sentinels: true, ..Build::USUAL },
        promise: LOST,
        inject: |rig, scale| Box::pin(faults::sentinel_failover(rig, scale)),
        recovery: Duration::from_secs(15),
        ..ROW
    },
    Row {
        id: "S10",
        fault: "`CLIENT KILL TYPE pubsub` every 500 ms for 30 s",
        inject: |rig, scale| Box::pin(faults::kill_subscriptions(rig, scale)),
        judge: it_was_repaired,
        ..ROW
    },
    Row {
        id: "S11",
        fault: "one node's subscription is blackholed for 30 s, TCP stays up",
        inject: |rig, scale| Box::pin(faults::blackhole_a_subscription(rig, scale)),
        judge: it_was_noticed,
        ..ROW
    },
    Row {
        id: "S12",
        fault: "one node's subscription gets 32 KiB/s, Redis drops it",
        build: Build { redis: &["--client-output-buffer-limit", "pubsub", "1mb", "512kb", "5"], ..Build::USUAL },
        inject: |rig, scale| Box::pin(faults::throttle_a_subscription(rig, scale)),
        ..ROW
    },
    Row {
        id: "S13",
        fault: "one node's subscription is at a detached replica",
        build: Build { replica: true, ..Build::USUAL },
        inject: |rig, scale| Box::pin(faults::detach_a_subscription(rig, scale)),
        judge: it_was_noticed,
        ..ROW
    },
    Row {
        id: "S14",
        fault: "Redis is at `maxmemory`, noeviction, for 5 s",
        inject: |rig, scale| Box::pin(faults::fill_redis(rig, scale)),
        ..ROW
    },
    Row {
        id: "S15",
        fault: "each publish connection is reset in the middle of a reply, for 20 s",
        inject: |rig, scale| Box::pin(faults::cut_replies(rig, scale)),
        ..ROW
    },
    Row {
        id: "S16",
        fault: "200 ms round trip + 100 ms jitter and single bytes, to Redis and to the clients",
        inject: |rig, scale| Box::pin(faults::slow_links(rig, scale)),
        judge: only_slower,
        ..ROW
    },
    Row {
        id: "S18",
        fault: "clients offline for longer than the log reaches back",
        build: Build {
            env: &[("CHAT_HISTORY__MESSAGES", "100")],
            shape: Shape { nappers: 12, ..Shape::USUAL },
            ..Build::USUAL
        },
        promise: Promise { log_lost: false, log_trimmed: true },
        inject: |rig, scale| Box::pin(faults::sleep_past_the_log(rig, scale)),
        judge: they_started_over,
        ..ROW
    },
    Row {
        id: "S19",
        fault: "2000 clients lose their sockets at once",
        build: Build {
            shape: Shape { sessions: 1500, plain: 500, rooms: 40, rooms_each: 1, rate: 100, ..Shape::USUAL },
            ..Build::USUAL
        },
        inject: |rig, scale| Box::pin(faults::cut_all_clients(rig, scale)),
        recovery: Duration::from_secs(30),
        ..ROW
    },
    Row {
        id: "S20",
        fault: "50 of 200 clients stop reading for 20 s",
        build: Build {
            shape: Shape { sessions: 100, plain: 100, nappers: 50, rate: 100, padding: 4096, ..Shape::USUAL },
            ..Build::USUAL
        },
        inject: |rig, scale| Box::pin(faults::stop_reading(rig, scale)),
        judge: slow_readers_are_closed,
        ..ROW
    },
    Row {
        id: "S31",
        fault: "garbage in Redis' channels and logs",
        inject: |rig, scale| Box::pin(faults::write_garbage(rig, scale)),
        judge: garbage_was_counted,
        ..ROW
    },
    Row {
        id: "S32",
        fault: "the clock of one node jumps an hour forward, then back",
        build: Build { clock: true, ..Build::USUAL },
        inject: |rig, scale| Box::pin(faults::jump_the_clock(rig, scale)),
        judge: the_clock_jumped,
        ..ROW
    },
];

fn wrong(is: bool, text: impl FnOnce() -> String) -> Vec<String> {
    if is { vec![text()] } else { Vec::new() }
}

/// Nobody is closed more than once while one node goes.
fn one_reconnect_a_restart(outcome: &Outcome, _: Scale) -> Vec<String> {
    let mut failures = Vec::new();
    for (n, from) in outcome.marks.iter().enumerate() {
        let to = outcome.marks.get(n + 1).copied().unwrap_or(outcome.fault.1);
        let mut losses = HashMap::<usize, usize>::new();
        let lost = |event: &&Event| matches!(event.what, What::Close { .. });
        for event in outcome.events.iter().filter(lost).filter(|event| (*from..to).contains(&event.at)) {
            *losses.entry(event.client).or_default() += 1;
        }
        if let Some((client, losses)) = losses.into_iter().find(|(_, losses)| *losses > 1) {
            failures.push(format!("client {client} lost {losses} sockets in restart {n}"));
        }
    }
    failures
}

/// Who had what the log lost; the checker has seen to it that each of them was told.
fn everybody_was_told(outcome: &Outcome, _: Scale) -> Vec<String> {
    let counts = &outcome.verdict.counts;
    let mut failures = wrong(counts.affected == 0, || "nobody had anything that the log lost".into());
    failures.extend(wrong(counts.gaps == 0, || "no sender was asked for what the log lost".into()));
    failures
}

fn no_reconnect_storm(outcome: &Outcome, _: Scale) -> Vec<String> {
    let seconds = (outcome.fault.1 - outcome.fault.0).as_secs() + 5;
    let limit = seconds * NODES as u64;
    wrong(outcome.nodes.reconnects > limit, || {
        format!("{} reconnects to Redis in {seconds} s", outcome.nodes.reconnects)
    })
}

/// A subscription that is dead, though its connection lives.
fn it_was_noticed(outcome: &Outcome, scale: Scale) -> Vec<String> {
    let limit = Duration::from_secs(8).mul_f64(outcome.pace);
    match outcome.found {
        Some(found) if found < limit || scale == Scale::Short => Vec::new(),
        found => vec![format!("noticed after {found:?}, not within {limit:?}")],
    }
}

fn it_was_repaired(outcome: &Outcome, _: Scale) -> Vec<String> {
    wrong(outcome.nodes.repairs == 0, || "nothing was repaired".into())
}

/// A slow link is no fault: nothing is refused or unknown, no socket is lost.
fn only_slower(outcome: &Outcome, _: Scale) -> Vec<String> {
    let counts = &outcome.verdict.counts;
    let slowest = measure::slowest_acks(&outcome.events, outcome.fault);
    let mut failures = wrong(counts.unknown + counts.reconnects > 0, || {
        format!("{} unknown, {} sockets lost", counts.unknown, counts.reconnects)
    });
    failures.extend(wrong(slowest < Duration::from_millis(200), || format!("acks took {slowest:?}: nothing was slow")));
    failures
}

fn they_started_over(outcome: &Outcome, _: Scale) -> Vec<String> {
    wrong(outcome.verdict.counts.resets == 0, || "no session was told to start over".into())
}

fn slow_readers_are_closed(outcome: &Outcome, scale: Scale) -> Vec<String> {
    let (began, healed) = outcome.fault;
    let before = measure::slowest_acks(&outcome.events, (began.saturating_sub(healed - began), began));
    let during = measure::slowest_acks(&outcome.events, (began, healed));
    let mut failures = wrong(outcome.nodes.slow == 0, || "no slow reader was closed with 1013".into());
    let limit = (before * 2).max(Duration::from_millis(250).mul_f64(outcome.pace));
    failures.extend(wrong(scale == Scale::Long && during > limit, || {
        format!("the others' acks took {during:?} (p99), {before:?} before")
    }));
    failures
}

fn garbage_was_counted(outcome: &Outcome, _: Scale) -> Vec<String> {
    wrong(outcome.nodes.invalid == 0, || "no entry was found invalid".into())
}

fn the_clock_jumped(outcome: &Outcome, _: Scale) -> Vec<String> {
    wrong(outcome.traces == 0, || "no clock jumped".into())
}
