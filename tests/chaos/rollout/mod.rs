//! The chart's Deployment, rolled without anybody noticing.
//!
//! The production values as helm renders them, the binary started as the Deployment says, three of it over one Redis behind a real proxy without
//! affinity, under the load and the checker of the scorecard. Kubernetes' part is played here: the API server (`chart`), kubelet (`pod`), the
//! Deployment's controller and an ingress controller (`deployment`, `front`).

mod chart;
mod deployment;
mod front;
mod idle;
mod pod;
mod report;

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use serde_json::json;

pub use self::report::Report;
use self::{
    chart::Release,
    deployment::Deployment,
    front::{Front, Kind},
    pod::warnings,
};
use crate::{
    MACHINE, checker,
    checker::Promise,
    client::Pass,
    load::{self, Load, Shape, Ways},
    report::{keep_history, seed},
    support::{
        Redis, Signer,
        token::{SECRET, claims},
    },
};

const VALUES: &str = "charts/chat-api/ci/production-values.yaml";
/// A quicker rollout than production's. The delay has to be longer than HAProxy takes to see that a pod is not ready: two checks, a second apart.
/// And logs that keep everything, as the checker wants to see it.
const QUICKER: &[&str] = &[
    "config.drain.delay=3s",
    "config.drain.window=8s",
    "config.drain.flush=2s",
    "minReadySeconds=3",
    "config.history.messages=1000000",
];
/// Nobody comes near a limit: production's are in force. Who speaks last has two messages for each room within a second, of 40 that it may have.
const SHAPE: Shape = Shape { sessions: 130, plain: 70, rooms: 16, rate: 150, ..Shape::USUAL };
/// Longest wait for anything of the load.
const PATIENCE: Duration = Duration::from_secs(60);

/// The release that somebody has installed: the chart, and the two Secrets that it takes as given.
fn install(redis: &Redis, changes: &[&str]) -> Release {
    let mut release = Release::render(VALUES, changes);
    release.secret("chat-redis", "redis-url", &redis.url());
    release.secret("chat-auth", "hs256", SECRET);
    release
}

/// Passes of the issuer, the audience and the origin that the release asks for.
fn passes(release: &Release) -> impl Fn(usize) -> Option<Pass> + use<> {
    let config = release.config();
    let (issuer, audience) = (config["auth"]["issuer"].clone(), config["auth"]["audience"].clone());
    let origin = config["server"]["origins"][0].as_str().expect("an origin").to_owned();
    let signer = Signer::secret(Algorithm::HS256);
    move |number| {
        let mut claims = claims(&format!("user-{number}"));
        (claims["iss"], claims["aud"]) = (json!(issuer), json!(audience));
        Some(Pass { token: signer.token(&claims), origin: origin.clone() })
    }
}

async fn roll_behind(kind: Kind) {
    let _machine = MACHINE.lock().await;
    let (redis, seed) = (Redis::start().await, seed());
    eprintln!("the production values rolled behind {kind:?} (seed {seed})");
    let release = install(&redis, QUICKER);
    let pass = passes(&release);
    let mut deployment = Deployment::start(release).await;
    let endpoints = deployment.pods.iter().map(|pod| pod.node.public).collect();
    let mut front = Front::start(kind, &deployment.addresses(), endpoints).await;
    let doors = [front.address];
    let load = Load::start(SHAPE, &Ways { doors: &doors, nap_doors: &doors, pass: &pass }, seed);
    assert!(load.joined(PATIENCE).await, "not everybody got into its rooms");
    progress(&load).await;
    let start = Instant::now();
    let endings = deployment.roll(&mut front).await;
    let took = start.elapsed();
    progress(&load).await;
    let events = load.finish(PATIENCE).await;
    let nodes = deployment.pods.iter().map(|pod| pod.node.public);
    let logs = load::logs(&SHAPE, nodes, pass(0).as_ref()).await;
    let verdict = checker::check(&events, &logs, Promise::default());
    let report = Report::of(&events, verdict, endings, took);
    eprint!("{report}");
    let mut failures = report.failures();
    failures.extend(deployment.pods.iter().flat_map(|pod| warnings(&pod.node)));
    if !failures.is_empty() {
        let history = keep_history(&format!("rollout-{kind:?}"), seed, &events);
        panic!("CHAOS_SEED={seed}; history in {}\n{}\n{report}", history.display(), failures.join("\n"));
    }
}

/// So many messages more are acknowledged.
async fn progress(load: &Load) {
    let target = load.acked() + 300;
    assert!(load.acked_to(target, PATIENCE).await, "no progress: {} acknowledged, waited for {target}", load.acked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_behind_haproxy() {
    roll_behind(Kind::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_behind_nginx() {
    roll_behind(Kind::Nginx).await;
}
