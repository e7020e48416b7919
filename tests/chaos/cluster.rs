//! The load and the checker outside of a cluster, while somebody does things to what is in it. Run by `make e2e`: tests/e2e/run.sh.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    checker::{self, Promise},
    load::{self, Load, Shape, Ways},
    report::{keep_history, seed},
    rollout::Report,
};

/// Most of them listen most of the time: a message reaches about ninety.
const SHAPE: Shape =
    Shape { sessions: 1500, plain: 3600, rooms: 90, rate: 60, patience: Duration::from_secs(60), ..Shape::USUAL };
/// Longest wait for anything of the load, and for what is done to the cluster.
const PATIENCE: Duration = Duration::from_secs(120);
const LONGEST: Duration = Duration::from_secs(900);
/// Messages that are acknowledged before and after.
const ENOUGH: usize = 1000;
/// A drain, to come back soon.
const RESTART: u16 = 1012;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster: make e2e"]
async fn cluster() {
    let variable = |name: &str| std::env::var(name).expect(name);
    let door: SocketAddr = variable("E2E_ADDRESS").parse().expect("an address");
    let state = PathBuf::from(variable("E2E_STATE"));
    let (doors, seed) = ([door], seed());
    let load = Load::start(SHAPE, &Ways { doors: &doors, nap_doors: &doors, pass: &|_| None }, seed);
    assert!(load.joined(PATIENCE).await, "not everybody got into its rooms");
    assert!(load.acked_to(ENOUGH, PATIENCE).await, "messages do not flow");
    std::fs::write(state.join("flowing"), "").expect("the state folder");
    let start = Instant::now();
    while !state.join("done").exists() {
        assert!(start.elapsed() < LONGEST, "what is done to the cluster does not end");
        sleep(Duration::from_millis(100)).await;
    }
    let took = start.elapsed();
    let target = load.acked() + ENOUGH;
    assert!(load.acked_to(target, PATIENCE).await, "messages do not flow any more");
    let events = load.finish(PATIENCE).await;
    let verdict = checker::check(&events, &load::logs(&SHAPE, [door].into_iter(), None).await, Promise::default());
    let summary = verdict.summary();
    let (good, lost) = (verdict.violations.is_empty(), verdict.counts.lost + verdict.counts.duplicated);
    let report = Report::of(&events, verdict, Vec::new(), took);
    eprint!("{report}");
    if !good || lost > 0 || report.closes().any(|code| code != Some(RESTART)) {
        let history = keep_history("cluster", seed, &events);
        panic!("CHAOS_SEED={seed}; history in {}\n{summary}", history.display());
    }
}
