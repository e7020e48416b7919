//! Faults, and the proof that nothing was lost, doubled, reordered or leaked.
//!
//! Three nodes over one Redis under load; a fault; a checker that knows the wire alone. `cargo test` runs the short forms of some rows of the
//! scorecard; `make chaos` runs all of them in full and writes docs/reliability.md. `CHAOS_SEED` repeats a run, `CHAOS_ROWS` picks rows.
//! Beside them, under the same load and checker: a rollout of what the chart installs, behind real proxies.

#![expect(clippy::expect_used, clippy::panic, reason = "a test ends by panicking, its tasks with it")]
#![expect(unreachable_pub, reason = "this crate is one program")]

mod checker;
mod client;
mod cluster;
mod history;
mod load;
mod measure;
mod mutant;
mod rig;
mod rollout;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "the harness of tests/it, of which this needs a part")]
mod support;
mod witness;

mod faults;
mod report;
mod rows;
mod soak;

use std::time::Duration;

use self::{
    checker::{Kind, Promise},
    mutant::{Mutation, Plot},
    rig::{Build, Rig},
    rows::{ROWS, Row, Scale},
    soak::SOAK,
};

/// One run at a time: each takes the whole machine.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn row(id: &str) -> &'static Row {
    ROWS.iter().chain([&SOAK]).find(|row| row.id == id).expect("a row of the scorecard")
}

async fn short(id: &str) {
    let _machine = MACHINE.lock().await;
    report::run(row(id), Scale::Short).await.assert();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s1_kill_a_node() {
    short("S1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s2_roll_all_nodes() {
    short("S2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s4_kill_redis() {
    short("S4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_freeze_redis() {
    short("S6").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s7_fork() {
    short("S7").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s10_kill_subscriptions() {
    short("S10").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s15_cut_replies() {
    short("S15").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s33_soak() {
    short("S33").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s34_mutants() {
    let _machine = MACHINE.lock().await;
    mutants().await;
}

/// Servers that are broken on purpose: each is found out, under a name that fits.
async fn mutants() -> Vec<(String, Vec<Kind>)> {
    let mut found = Vec::new();
    for (mutation, names) in [
        (Mutation::Drop, &[Kind::Missed][..]),
        (Mutation::Duplicate, &[Kind::Duplicate]),
        (Mutation::Swap, &[Kind::Missed, Kind::Order]),
        (Mutation::Leak, &[Kind::Leak]),
    ] {
        let seed = report::seed();
        let victim = fastrand::Rng::with_seed(seed).usize(2000..8000);
        let plot = Plot::new(mutation, victim);
        let mut rig = Rig::start_tampered(Build::USUAL, seed, &plot).await;
        rig.warm_up(300).await;
        rig.begin();
        rig.heal();
        rig.until(|| plot.is_done()).await;
        rig.progress(300).await;
        let outcome = rig.finish(Promise::default()).await;
        let (kinds, counts) = (outcome.verdict.kinds(), &outcome.verdict.counts);
        eprintln!("S34: {mutation:?} of delivery {victim} (seed {seed}): {kinds:?} in {} deliveries", counts.received);
        assert!(plot.is_done() && outcome.failures.is_empty(), "{mutation:?}: {:?}", outcome.failures);
        let summary = outcome.verdict.summary();
        assert!(kinds.keys().any(|kind| names.contains(kind)), "{mutation:?} was not found as {names:?}: {summary}");
        // One change, and what follows from it: not a mess.
        assert!(outcome.verdict.violations.len() <= 3, "{mutation:?}: {summary}");
        found.push((format!("{mutation:?} one of {} deliveries", counts.received), kinds.into_keys().collect()));
    }
    found
}

/// The whole scorecard, in full; writes docs/reliability.md if no rows were picked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes ten minutes: make chaos"]
async fn scorecard() {
    let _machine = MACHINE.lock().await;
    let picked = std::env::var("CHAOS_ROWS").unwrap_or_default();
    let picked: Vec<_> = picked.split([' ', ',']).filter(|id| !id.is_empty()).collect();
    let mut reports = Vec::new();
    let soak = [&SOAK].into_iter().filter(|soak| picked.contains(&soak.id));
    let rows = ROWS.iter().filter(|row| picked.is_empty() || picked.contains(&row.id));
    for row in rows.chain(soak) {
        let report = report::run(row, Scale::Long).await;
        if !report.failures.is_empty() {
            eprintln!("  its history: {}", report.keep_history().display());
        }
        reports.push(report);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    if picked.is_empty() {
        let page = report::page(&reports, &mutants().await);
        std::fs::write(support::repository("docs/reliability.md"), page).expect("the file can be written");
    }
    let failed: Vec<_> =
        reports.iter().filter(|report| !report.failures.is_empty()).map(|report| report.row.id).collect();
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}
