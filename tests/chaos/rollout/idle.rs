//! A socket on which nobody speaks, behind nginx with its own timeouts of 60 s: the heartbeat keeps it.
//!
//! In real time, since what is shown is that these two numbers go together. It costs nothing but waiting, so it does not take the machine: it
//! runs beside the others.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::{
    VALUES,
    deployment::Deployment,
    front::{Front, Kind},
    install, passes,
};
use crate::support::{self, Redis, client::Offer};

/// What nginx waits for a server that says nothing.
const NGINX: Duration = Duration::from_secs(60);

/// The pods of a release with these changes to the production values, and a plain socket to one of them through nginx.
struct Idle {
    client: support::Client,
    since: Instant,
    _front: Front,
    _deployment: Deployment,
    _redis: Redis,
}

impl Idle {
    async fn open(changes: &[&str]) -> Self {
        let redis = Redis::start().await;
        let release = install(&redis, changes);
        let (name, value) = passes(&release)(0).expect("a pass").header();
        let deployment = Deployment::start(release).await;
        let endpoints = deployment.pods.iter().map(|pod| pod.node.public).collect();
        let front = Front::start(Kind::Nginx, &deployment.addresses(), endpoints).await;
        let offer = Offer::default().header(name, value);
        let opened = support::Client::open(front.address, "/api/chat-api/ws/quiet", offer).await;
        let mut client = opened.unwrap_or_else(|refused| panic!("{VALUES}: {refused:?}"));
        client.joined().await;
        Self { client, since: Instant::now(), _front: front, _deployment: deployment, _redis: redis }
    }

    /// Says nothing for so long, or until the end. The heartbeats that came, and when it ended if it did.
    async fn wait(&mut self, limit: Duration) -> (usize, Option<Duration>) {
        let mut heartbeats = 0;
        while let Some(left) = limit.checked_sub(self.since.elapsed()) {
            match timeout(left, self.client.socket.next()).await {
                Ok(Some(Ok(Message::Ping(_)))) => heartbeats += 1,
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return (heartbeats, Some(self.since.elapsed())),
                Ok(Some(Ok(other))) => panic!("somebody spoke: {other:?}"),
                Err(_) => {}
            }
        }
        (heartbeats, None)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heartbeat_keeps_an_idle_socket_behind_nginx() {
    let usual = ["minReadySeconds=1", "autoscaling.minReplicas=1"];
    // So rare that none comes at all: in a heartbeat all sockets have their turn, the first of them at its beginning.
    let silent = [&usual[..], &["config.limits.heartbeat=1h"]].concat();
    let (mut usual, mut silent) = tokio::join!(Idle::open(&usual), Idle::open(&silent));
    let limit = NGINX + Duration::from_secs(5);
    let (kept, cut) = tokio::join!(usual.wait(limit), silent.wait(limit * 2));
    eprintln!("an idle socket behind nginx: {kept:?} (heartbeats, end); without heartbeats: {cut:?}");
    assert!(kept.0 >= 2 && kept.1.is_none(), "{kept:?}");
    usual.client.publish(json!("still here")).await;
    // The same without the heartbeat: it is nginx that cuts.
    assert!(cut.0 == 0 && cut.1.is_some_and(|after| after >= NGINX - Duration::from_secs(1)), "{cut:?}");
}
