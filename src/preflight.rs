//! `chat-api preflight`: what is right and wrong with the place that the service is to run in, before anybody connects.
//!
//! Looks the way the service does, with its own parts; changes nothing but that Redis has the function library.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    auth::Authenticator,
    broadcaster::{Inspection, Prepared},
    cluster,
    config::Config,
    metrics::Metrics,
    shutdown::{Readiness, Tasks},
};

/// For each thing that is looked at.
const PATIENCE: Duration = Duration::from_secs(5);
/// Clocks further apart than this make latencies and logs hard to read.
const CLOCKS_APART: f64 = 1.0;

/// How good what was found is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// The service runs, though somebody should look at it.
    Warning,
    /// The service does not run, or not as configured.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found, and what to do if it is not good.
    pub found: String,
}

fn finding(what: &'static str, verdict: Verdict, found: impl Into<String>) -> Finding {
    Finding { what, verdict, found: found.into() }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "warning",
            Verdict::Bad => "BAD",
        };
        write!(f, "{word:<8} {:<12} {}", self.what, self.found)
    }
}

/// Looks at everything that the configuration names.
pub async fn look(config: &Config) -> Vec<Finding> {
    let (redis, auth, rights, traces) = tokio::join!(redis(config), auth(config), rights(config), traces(config));
    [vec![files(config), drain(config)], redis, auth, rights, traces].concat()
}

fn files(config: &Config) -> Finding {
    let wanted = config.limits.max_connections();
    match getrlimit(Resource::Nofile).maximum {
        Some(files) if files / 10 * 9 < wanted => finding(
            "files",
            Verdict::Bad,
            format!(
                "limits.connections is {wanted}, and the process may open {files} files: raise the limit, or lower it to {}",
                files / 10 * 9
            ),
        ),
        files => {
            let files = files.map_or("any number of".to_owned(), |files| files.to_string());
            finding("files", Verdict::Good, format!("{files} files, enough for {wanted} connections"))
        }
    }
}

fn drain(config: &Config) -> Finding {
    let (needed, grace) = (config.drain.total(), config.kubernetes.grace_period);
    let (verdict, found) = match grace {
        Duration::ZERO => (
            Verdict::Good,
            format!("{needed:?}; whether a grace period holds that is not known (kubernetes.grace_period)"),
        ),
        grace if grace < needed => (
            Verdict::Bad,
            format!("{needed:?} do not fit into the grace period of {grace:?}: raise terminationGracePeriodSeconds"),
        ),
        grace => (Verdict::Good, format!("{needed:?} fit into the grace period of {grace:?}")),
    };
    finding("drain", verdict, found)
}

async fn redis(config: &Config) -> Vec<Finding> {
    let prepared = match Prepared::new(config) {
        Ok(Prepared::Local(_)) => {
            return vec![finding("redis", Verdict::Good, "none: messages stay in this process, so one replica only")];
        }
        Ok(prepared) => prepared,
        Err(error) => return vec![finding("redis", Verdict::Bad, format!("{error:#}"))],
    };
    match in_time(prepared.inspect()).await {
        Ok(Some(inspection)) => of_redis(&inspection),
        Ok(None) => Vec::new(),
        Err(trouble) => vec![finding("redis", Verdict::Bad, trouble)],
    }
}

fn of_redis(redis: &Inspection) -> Vec<Finding> {
    let Inspection { version, library, declared, found, fenced, clock_ahead, round_trip } = redis;
    let version = version.as_deref().unwrap_or("of a release that it does not tell");
    let old = version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 7);
    let release = if old {
        finding("redis", Verdict::Bad, format!("{version}: functions need 7.0 or later"))
    } else {
        finding("redis", Verdict::Good, format!("{version}, the master, answers within {round_trip:.1?}"))
    };
    let durability = if found == declared || *declared == "none" {
        finding("durability", Verdict::Good, format!("{declared}, as declared"))
    } else if *found == "unknown" {
        finding("durability", Verdict::Warning, format!("{declared} is declared; Redis does not show what it does"))
    } else {
        let found = format!(
            "{declared} is declared, {found} is what Redis does: docs/operations.md, `What an acknowledgement survives`"
        );
        finding("durability", Verdict::Warning, found)
    };
    let history = if *fenced {
        finding("history", Verdict::Good, "Redis shows which history it has: lost messages are noticed")
    } else {
        finding(
            "history",
            Verdict::Warning,
            "Redis hides its replication id: messages that a failover loses are not noticed",
        )
    };
    let clock = if clock_ahead.abs() < CLOCKS_APART {
        finding("clock", Verdict::Good, format!("Redis' is {clock_ahead:+.3} s from ours"))
    } else {
        finding("clock", Verdict::Warning, format!("Redis' is {clock_ahead:+.1} s from ours: set both by NTP"))
    };
    vec![release, finding("functions", Verdict::Good, *library), durability, history, clock]
}

async fn auth(config: &Config) -> Vec<Finding> {
    if !config.auth.enabled {
        return vec![finding("auth", Verdict::Warning, "off: whoever reaches the service may connect, as anybody")];
    }
    let keys = async {
        let (tasks, readiness) = (Tasks::default(), Arc::new(Readiness::new(false, Duration::ZERO)));
        readiness.started();
        let metrics = Arc::new(Metrics::new().map_err(|error| error.to_string())?);
        let _authenticator =
            Authenticator::start(&config.auth, &tasks, &readiness, &metrics).map_err(|error| format!("{error:#}"))?;
        while !readiness.reasons().is_empty() {
            sleep(Duration::from_millis(50)).await;
        }
        tasks.stop(PATIENCE).await;
        Ok::<(), String>(())
    };
    match in_time(keys).await {
        Ok(()) => vec![finding("auth", Verdict::Good, "on, and there are keys to check tokens with")],
        Err(error) => vec![finding("auth", Verdict::Bad, error)],
    }
}

async fn rights(config: &Config) -> Vec<Finding> {
    if !config.kubernetes.enabled {
        return Vec::new();
    }
    match in_time(cluster::rights(&config.kubernetes)).await {
        Ok(rights) => rights
            .into_iter()
            .map(|right| match right.allowed {
                true => finding("rights", Verdict::Good, right.what),
                false => {
                    let found =
                        format!("{}: not allowed to this pod's ServiceAccount; nothing else is affected", right.what);
                    finding("rights", Verdict::Warning, found)
                }
            })
            .collect(),
        Err(error) => vec![finding("rights", Verdict::Warning, format!("{error}; Events will not be written"))],
    }
}

async fn traces(config: &Config) -> Vec<Finding> {
    let telemetry = &config.telemetry;
    let Some(endpoint) = telemetry.traces_endpoint.as_ref().or(telemetry.endpoint.as_ref()) else { return Vec::new() };
    let parsed = endpoint.parse::<http::Uri>().ok();
    let place = parsed.as_ref().and_then(|uri| {
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        Some((uri.host()?.trim_matches(['[', ']']).to_owned(), port))
    });
    let Some(place) = place else { return vec![finding("traces", Verdict::Bad, format!("{endpoint} is no address"))] };
    match in_time(TcpStream::connect(place)).await {
        Ok(_) => vec![finding("traces", Verdict::Good, format!("{endpoint} takes connections"))],
        Err(error) => {
            vec![finding(
                "traces",
                Verdict::Warning,
                format!("{endpoint}: {error}; traces are dropped, messages are not"),
            )]
        }
    }
}

async fn in_time<T, E: fmt::Display>(looking: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(PATIENCE, looking).await {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}
