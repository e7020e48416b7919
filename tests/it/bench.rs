//! The benchmark runs and counts right. What it measures on a busy machine is nobody's concern here.

use std::process::Command;

use serde_json::Value;

use crate::support::run;

#[test]
fn the_benchmark_counts_every_delivery_and_holds_what_no_clock_can_spoil() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let json = folder.path().join("bench.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-load"));
    command.args(["bench", "--quick", "--chat-api", env!("CARGO_BIN_EXE_chat-api"), "--json"]).arg(&json);
    let printed = run(&mut command); // an exact target that does not hold is a failure
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("a report")).expect("JSON");
    let list = |name: &str| report[name].as_array().expect("a list").clone();
    let contests: Vec<Value> = list("contests").into_iter().filter(|contest| !contest["scenario"].is_null()).collect();
    assert!(contests.len() >= 9, "{printed}");
    for Contest { legs, candidate, members, lobby } in contests.iter().map(Contest::of) {
        let bytes_of = |leg: &Value| count(&leg["bytes"]) as f64 / count(&leg["deliveries"]) as f64;
        for leg in legs {
            assert!(count(&leg["messages"]) > 0 && count(&leg["cpu_ns"]) > 0, "{leg}");
            // Positions have become a digit longer meanwhile, at most.
            assert!(
                (bytes_of(&leg) - bytes_of(&candidate)).abs() <= 1.5,
                "frames of the same length: {leg} {candidate}"
            );
            // The lobby's reference is another room; a speaker on another node is no delivery of this one.
            let each = count(&leg["deliveries"]) / count(&leg["messages"]);
            assert!(lobby || each == members || each == members - 1, "{leg}: {members} members");
            assert_eq!(count(&leg["deliveries"]) % count(&leg["messages"]), 0, "{leg}");
        }
    }
    let exact: Vec<Value> = list("rows").into_iter().filter(|row| row["exact"] == true).collect();
    for what in ["commands to Redis", "resident memory", "upgrades that failed", "closed 1013", "the second"] {
        assert!(
            exact.iter().any(|row| row["what"].as_str().is_some_and(|row| row.contains(what))),
            "{what}: {printed}"
        );
    }
}

/// A pair of the report.
struct Contest {
    legs: [Value; 3],
    candidate: Value,
    members: u64,
    lobby: bool,
}

impl Contest {
    fn of(contest: &Value) -> Self {
        let (pair, scenario) = (&contest["pairs"][0], &contest["scenario"]);
        let candidate = pair["candidate"].clone();
        let legs = [pair["reference"][0].clone(), candidate.clone(), pair["reference"][1].clone()];
        Self { legs, candidate, members: count(&scenario["members"]), lobby: scenario["lobby"] == true }
    }
}

fn count(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

#[test]
fn what_redis_costs_is_counted() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let json = folder.path().join("redis.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-load"));
    command.args(["redis", "--short", "--chat-api", env!("CARGO_BIN_EXE_chat-api"), "--json"]).arg(&json);
    run(&mut command);
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("a report")).expect("JSON");
    let commands = &report["commands"];
    let messages = count(&commands["messages"]);
    assert!(messages > 0);
    for each in ["appended", "published", "deliveries"] {
        assert_eq!(count(&commands[each]), messages, "{each} once for each message: {commands}");
    }
    // The node's own canary is among the calls.
    assert!((messages..messages + 5).contains(&count(&commands["functions"])), "one call for each message: {commands}");
    assert!(count(&commands["pipelines"]) <= messages, "and no round trip more: {commands}");
    for row in report["publish"].as_array().expect("a list") {
        for pair in row["pairs"].as_array().expect("a list") {
            for leg in [&pair["reference"][0], &pair["candidate"], &pair["reference"][1]] {
                assert_eq!(count(&leg["deliveries"]), count(&leg["messages"]), "every one is stored: {leg}");
            }
        }
    }
    assert_eq!(report["idle"]["channels"].as_f64(), report["idle"]["rooms"].as_f64(), "one channel for each room");
}
