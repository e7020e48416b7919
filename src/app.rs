//! The composition root: builds everything from the configuration, runs it, and takes it down in order.
//!
//! The only module that knows all others.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use parking_lot::RwLock;
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::Authenticator,
    broadcaster::Prepared,
    cluster::{Cluster, ClusterEvent, Story},
    config::{self, Config},
    http::{
        self, FrameRates, Gate, Service, health,
        listener::{self, Patience},
    },
    hub::{ConnectionLimits, Drained, Hub},
    metrics::Metrics,
    protocol::ClientId,
    reload::{Reload, Stamps},
    revocation,
    shutdown::{Readiness, Signals, Tasks},
    telemetry::{LogFilter, trace::Tracing},
};

/// What each step of the end gets even when the drain has used up its time.
const LEAST_PATIENCE: Duration = Duration::from_millis(200);

/// A node, bound and connected but not serving yet.
pub struct App {
    config: Config,
    public: TcpListener,
    management: TcpListener,
    service: Arc<Service>,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    cluster: Option<Arc<Cluster>>,
    tasks: Tasks,
}

impl App {
    /// Binds both listeners and starts the broadcaster.
    pub async fn build(config: Config, metrics: Arc<Metrics>, tracing: Tracing) -> anyhow::Result<Self> {
        let bind =
            |key: &str, address| listener::bind(address).with_context(|| format!("{key}: cannot listen on {address}"));
        let public = bind("server.address", config.server.address)?;
        let management = bind("server.management_address", config.server.management_address)?;
        let tasks = Tasks::default();
        let readiness = Arc::new(Readiness::new(config.redis.url.is_some(), config.readiness.redis_grace));
        let authenticator = Authenticator::start(&config.auth, &tasks, &readiness, &metrics).context("auth")?;
        let broadcaster = Prepared::new(&config)?;
        broadcaster.check().await?;
        metrics.connections_limit.set(i64::try_from(config.limits.max_connections()).unwrap_or(i64::MAX));
        let hub = Hub::start(broadcaster, config.presence.clone(), tasks.clone(), readiness.clone(), metrics.clone());
        let service = Arc::new(Service {
            hub,
            authenticator,
            query_token: config.auth.query_token,
            origins: RwLock::new(Arc::new(config.server.origins.clone())),
            limits: ConnectionLimits::new(&config.limits),
            gate: Gate::new(&config.limits, metrics.clone()),
            trusted_proxies: config.server.trusted_proxies.iter().filter_map(|network| network.parse().ok()).collect(),
            frame_rates: FrameRates::new(&config.limits),
            rooms_max: config.limits.rooms,
            heartbeat: config.limits.heartbeat,
            node: config.kubernetes.pod_name.clone().unwrap_or_else(|| ClientId::random().to_string()),
            connections_max: usize::try_from(config.limits.max_connections()).unwrap_or(usize::MAX),
            accepting: AtomicBool::new(true),
            tasks: tasks.clone(),
            tracing,
            metrics: metrics.clone(),
        });
        warn_of_grace(&config);
        let cluster = Cluster::connect(&config.kubernetes, &metrics);
        Ok(Self { config, public, management, service, readiness, metrics, cluster, tasks })
    }

    /// Takes changes of its files over while it runs.
    pub fn reload(&self, file: Option<PathBuf>, seen: Stamps, filter: LogFilter) {
        let (config, service, metrics) = (self.config.clone(), self.service.clone(), self.metrics.clone());
        self.tasks.spawn_until_stopped(Reload { file, config, service, filter, metrics, seen }.watch());
    }

    /// Where clients connect.
    pub fn public_addr(&self) -> anyhow::Result<SocketAddr> {
        self.public.local_addr().context("server.address")
    }

    /// Where probes and Prometheus connect.
    pub fn management_addr(&self) -> anyhow::Result<SocketAddr> {
        self.management.local_addr().context("server.management_address")
    }

    /// Serves until `shutdown`, then drains. A second `shutdown` skips to the end. Returns what is left of the time for that.
    pub async fn run(self, signals: &mut Signals) -> anyhow::Result<Duration> {
        let Self { config, public, management, service, readiness, metrics, cluster, tasks } = self;
        let (stop, management_stop) = (CancellationToken::new(), CancellationToken::new());
        let hub = service.hub.clone();
        tasks.spawn_until_stopped(hub.clone().look_after(config.limits.heartbeat));
        tasks.spawn_until_stopped(hub.clone().keep_checked());
        tasks.spawn_until_stopped(revocation::follow(hub.clone(), service.authenticator.clone(), readiness.clone()));
        tasks.spawn_until_stopped(revocation::enforce_keys(hub.clone(), service.authenticator.clone()));
        tasks.spawn_until_stopped(hub.clone().keep_presence());
        if let Some(cluster) = &cluster {
            let (cluster, metrics, deletion_cost) = (cluster.clone(), metrics.clone(), config.kubernetes.deletion_cost);
            tasks.spawn_until_stopped(Story { cluster, metrics, deletion_cost }.tell());
        }
        let router = http::router(service.clone());
        let patience = Patience { head: config.server.header_timeout, answer: config.limits.outbox_age };
        let accepting = listener::serve(public, router, patience, tasks.clone(), stop.clone());
        let accepting = tasks.spawn(accepting);
        let probes = axum::serve(management, health::router(readiness.clone(), metrics.clone()))
            .with_graceful_shutdown(management_stop.clone().cancelled_owned());
        let probes = tasks.spawn(async move { probes.await });
        readiness.started();

        let signal = signals.next().await;
        readiness.draining();
        metrics.draining.set(1);
        let connections = hub.connection_count();
        tracing::info!(signal, connections, "draining");
        let start = Instant::now();
        let drain = async {
            let event = ClusterEvent::DrainStarted { connections };
            tokio::join!(announce(cluster.as_deref(), event), drain(&config.drain, &service)).1
        };
        let drained = tokio::select! {
            drained = drain => drained,
            signal = signals.next() => {
                tracing::warn!(signal, "second signal: ending at once");
                let left = hub.connection_count();
                metrics.drain_forced.inc_by(left as u64);
                Drained { closed: connections.saturating_sub(left), forced: left }
            }
        };
        let Drained { closed, forced } = drained;
        stop.cancel();
        let _ = accepting.await;
        // What is left of `drain.flush` is for everything that follows, so that the sum of the three holds.
        let end = start + config.drain.total();
        let left = || {
            end.saturating_duration_since(Instant::now()).clamp(LEAST_PATIENCE, config.drain.flush.max(LEAST_PATIENCE))
        };
        if timeout(left(), hub.leave_presence()).await.is_err() {
            tracing::warn!("presence ends with its lease");
        }
        if !hub.broadcaster().finish(left()).await {
            tracing::warn!("some publishes were still under way");
        }
        let seconds = start.elapsed().as_secs_f64();
        tracing::info!(closed, forced, seconds, "drained");
        announce(cluster.as_deref(), ClusterEvent::DrainCompleted { closed, forced, seconds }).await;
        management_stop.cancel();
        let _ = timeout(left(), probes).await;
        if !tasks.stop(left()).await {
            tracing::warn!("some tasks had to be left");
        }
        Ok(left())
    }
}

fn warn_of_grace(config: &Config) {
    let (needed, grace) = (config.drain.total(), config.kubernetes.grace_period);
    if !grace.is_zero() && grace < needed {
        tracing::warn!(
            ?needed,
            ?grace,
            "the pod is killed before its drain ends: raise terminationGracePeriodSeconds, or shorten drain.delay, drain.window or drain.flush"
        );
    }
}

/// Endpoints learn first that this node goes; then no new sockets; then the old ones, one after the other.
async fn drain(config: &config::Drain, service: &Service) -> Drained {
    sleep(config.delay).await;
    service.accepting.store(false, Ordering::Release);
    service.hub.drain(config.window, config.flush).await
}

async fn announce(cluster: Option<&Cluster>, event: ClusterEvent) {
    if let Some(cluster) = cluster {
        cluster.event(event).await;
    }
}
