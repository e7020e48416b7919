//! A pod as kubelet runs it: its process, its probes at their own periods, and its end.

use std::{
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Probe;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use super::chart::{Addresses, Release};
use crate::support::{Node, NodeBuilder, http};

/// Two ports that stay nobody else's, before a pod listens on them and after.
pub struct Place {
    pub addresses: Addresses,
    _held: [Socket; 2],
}

impl Place {
    pub fn reserve() -> Self {
        // Bound and not listening: another socket that allows reuse may listen there, and the system gives the port to nobody.
        let (public, management) = (held(), held());
        let address =
            |socket: &Socket| socket.local_addr().ok().and_then(|address| address.as_socket()).expect("bound");
        let addresses = Addresses { public: address(&public), management: address(&management) };
        Self { addresses, _held: [public, management] }
    }
}

fn held() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option that all systems have");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket
}

/// What the probes have found.
#[derive(Debug, Clone, Copy, Default)]
struct Status {
    ready_since: Option<Instant>,
    /// The probe for which kubelet restarts the container.
    restart: Option<&'static str>,
}

pub struct Pod {
    pub name: String,
    pub node: Node,
    _volumes: TempDir,
    status: watch::Receiver<Status>,
    _probes: JoinSet<()>,
}

/// How a pod ended.
#[derive(Debug)]
pub struct Ending {
    pub pod: String,
    pub took: Duration,
    /// `None`: it had to be killed.
    pub status: Option<ExitStatus>,
    /// Sockets that its drain closed, and that it cut, as it says; `None`: it says nothing.
    pub closed: Option<u64>,
    pub forced: Option<u64>,
    /// What it warned of, from its start on.
    pub warnings: Vec<String>,
}

impl Pod {
    pub async fn start(release: &Arc<Release>, name: String, place: &Place) -> Self {
        let volumes = TempDir::new().expect("a folder");
        let process = release.process(&name, volumes.path(), &place.addresses);
        let node = NodeBuilder::of(process).launch().await;
        let (sender, status) = watch::channel(Status::default());
        let mut probes = JoinSet::new();
        probes.spawn(probe(release.clone(), place.addresses, sender));
        Self { name, node, _volumes: volumes, status, _probes: probes }
    }

    /// Ready, and for so long.
    pub fn is_ready(&self, since: Duration) -> bool {
        self.status.borrow().ready_since.is_some_and(|ready| ready.elapsed() >= since)
    }

    /// Why kubelet would restart it by now.
    pub fn restart(&self) -> Option<&'static str> {
        self.status.borrow().restart
    }

    /// The hook, SIGTERM, and SIGKILL once the grace period is over.
    pub async fn end(mut self, release: Arc<Release>) -> Ending {
        let start = Instant::now();
        sleep(release.pre_stop()).await;
        self.node.signal("TERM");
        while !self.node.exited() && start.elapsed() < release.grace() {
            sleep(Duration::from_millis(20)).await;
        }
        let took = start.elapsed();
        let killed = !self.node.exited();
        if killed {
            self.node.signal("KILL");
        }
        let status = self.node.wait(Duration::from_secs(10)).await;
        let drained = last_words(&self.node).await.unwrap_or_default();
        Ending {
            took,
            status: (!killed).then_some(status),
            closed: drained["closed"].as_u64(),
            forced: drained["forced"].as_u64(),
            warnings: warnings(&self.node),
            pod: self.name,
        }
    }
}

/// What it says of its drain. The log is read by another thread, which may be a little behind.
async fn last_words(node: &Node) -> Option<Value> {
    let drained = || node.line(|line| line["message"] == "drained");
    let start = Instant::now();
    while drained().is_none() && start.elapsed() < Duration::from_secs(5) {
        sleep(Duration::from_millis(20)).await;
    }
    drained()
}

/// Lines above the level of information, and those that are no log lines at all.
pub fn warnings(node: &Node) -> Vec<String> {
    let is_fine = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        matches!(line["level"].as_str(), Some("INFO" | "DEBUG" | "TRACE"))
    };
    node.log().into_iter().filter(|line| !is_fine(line)).collect()
}

/// First the startup probe, then the other two side by side.
async fn probe(release: Arc<Release>, addresses: Addresses, status: watch::Sender<Status>) {
    let [startup, liveness, readiness] = release.probes();
    let attempt = async |probe: &Probe| {
        let (address, path) = release.target(probe, &addresses);
        let answer = http::try_send(address, hyper::Method::GET, &path, &[], String::new());
        let limit = seconds(probe.timeout_seconds, 1);
        matches!(timeout(limit, answer).await, Ok(Ok(answer)) if (200..400).contains(&answer.status))
    };
    let until_failed = async |probe: &Probe, until_success: bool| {
        let mut ticks = interval(seconds(probe.period_seconds, 10));
        let mut failures = 0;
        while failures < probe.failure_threshold.unwrap_or(3) {
            ticks.tick().await;
            let succeeded = attempt(probe).await;
            if succeeded && until_success {
                return false;
            }
            failures = if succeeded { 0 } else { failures + 1 };
        }
        true
    };
    if until_failed(&startup, true).await {
        status.send_modify(|status| status.restart = Some("startup"));
        return;
    }
    let live = async {
        if until_failed(&liveness, false).await {
            status.send_modify(|status| status.restart = Some("liveness"));
        }
    };
    let ready = async {
        loop {
            if !until_failed(&readiness, true).await {
                status.send_modify(|status| status.ready_since = Some(Instant::now()));
                until_failed(&readiness, false).await;
            }
            status.send_modify(|status| status.ready_since = None);
        }
    };
    tokio::join!(live, ready);
}

fn seconds(given: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(given.map_or(default, |seconds| seconds.max(1) as u64))
}
