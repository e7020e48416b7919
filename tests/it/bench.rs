//! The benchmark runs and counts right. What it measures on a busy machine is nobody's concern here.

use std::process::Command;

use serde_json::Value;

use crate::support::run;

#[test]
fn the_probe_counts_every_delivery() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let json = folder.path().join("probe.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-load"));
    command.args(["probe", "--short", "--chat-api", env!("CARGO_BIN_EXE_chat-api"), "--json"]).arg(&json);
    let printed = run(&mut command);
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("a report")).expect("JSON");
    let scenarios = report["scenarios"].as_array().expect("a list");
    let named = |scenario: &Value| format!("{} {}", scenario["name"], scenario["over"]).replace('"', "");
    let all =
        ["local", "redis"].map(|over| ["one-in-flight", "64-in-flight", "rooms"].map(|name| format!("{name} {over}")));
    assert_eq!(scenarios.iter().map(named).collect::<Vec<_>>(), all.concat(), "{printed}");
    for scenario in scenarios {
        let count = |value: &Value| value.as_u64().expect("a number");
        let pair = &scenario["pairs"][0];
        let bytes_of = |leg: &Value| count(&leg["bytes"]) as f64 / count(&leg["deliveries"]) as f64;
        for leg in [&pair["reference"][0], &pair["candidate"], &pair["reference"][1]] {
            assert!(count(&leg["messages"]) > 0 && count(&leg["cpu_ns"]) > 0, "{leg}");
            assert_eq!(count(&leg["deliveries"]), count(&leg["messages"]) * count(&scenario["members"]), "{leg}");
            // Positions have become a digit longer meanwhile, at most.
            assert!((bytes_of(leg) - bytes_of(&pair["candidate"])).abs() <= 1.5, "frames of the same length: {pair}");
        }
    }
}

#[test]
fn what_redis_costs_is_counted() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let json = folder.path().join("redis.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-load"));
    command.args(["redis", "--short", "--chat-api", env!("CARGO_BIN_EXE_chat-api"), "--json"]).arg(&json);
    run(&mut command);
    let report: Value = serde_json::from_slice(&std::fs::read(json).expect("a report")).expect("JSON");
    let count = |value: &Value| value.as_u64().expect("a number");
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
