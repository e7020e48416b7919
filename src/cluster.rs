//! What the service does with the Kubernetes API: tells a pod's story as Events, and makes a Secret that is missing.
//!
//! Events are for people who read `kubectl describe pod`; nothing here depends on them. In a cluster only: a kubeconfig is never looked for,
//! so that a run on a laptop does not talk to whatever cluster that names.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Secret},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, Config, api::PostParams};
use tokio::time::timeout;
use uuid::Uuid;

use crate::config;

/// As which we act.
const CONTROLLER: &str = "chat-api";
/// For one Event, from beginning to end: a drain waits for nobody.
const EVENT_DEADLINE: Duration = Duration::from_secs(1);
/// For one call on behalf of a Job, which may take its time but should not hang.
const SECRET_DEADLINE: Duration = Duration::from_secs(10);
/// The longest `reportingInstance` that the API takes.
const INSTANCE_LEN: usize = 128;
/// The longest name of a Secret, and of a key in it.
const NAME_LEN: usize = 253;

/// What may not be lost on whoever looks at the pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ClusterEvent {
    /// The pod was asked to go.
    DrainStarted {
        /// Open then.
        connections: usize,
    },
    /// It is about to end.
    DrainCompleted {
        /// Connections that were closed in order.
        closed: usize,
        /// Connections that had to be cut.
        forced: usize,
        /// How long it took.
        seconds: f64,
    },
}

impl ClusterEvent {
    fn reason(self) -> &'static str {
        match self {
            Self::DrainStarted { .. } => "DrainStarted",
            Self::DrainCompleted { .. } => "DrainCompleted",
        }
    }

    /// The API knows only these two words.
    fn kind(self) -> &'static str {
        match self {
            Self::DrainCompleted { forced: 1.., .. } => "Warning",
            Self::DrainStarted { .. } | Self::DrainCompleted { .. } => "Normal",
        }
    }

    fn note(self) -> String {
        match self {
            Self::DrainStarted { connections } => format!("Draining {connections} connections"),
            Self::DrainCompleted { closed, forced, seconds } => {
                format!("Drained in {seconds:.1} s: {closed} connections closed, {forced} cut")
            }
        }
    }
}

/// The cluster, as this pod sees it.
#[derive(Debug)]
pub struct Cluster {
    events: Api<Event>,
    pod: ObjectReference,
    /// Whether a failure was logged: one is enough.
    complained: AtomicBool,
}

impl Cluster {
    /// Nothing unless `kubernetes.enabled`, nor where the API's address and this pod's token are missing: then with a warning, once.
    /// Does not talk to the API yet.
    pub async fn connect(kubernetes: &config::Kubernetes) -> Option<Self> {
        if !kubernetes.enabled {
            return None;
        }
        match client(EVENT_DEADLINE).and_then(|client| Self::new(client, kubernetes)) {
            Ok(cluster) => Some(cluster),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "no Events will be written; nothing else is affected");
                None
            }
        }
    }

    fn new(client: Client, kubernetes: &config::Kubernetes) -> anyhow::Result<Self> {
        let known = |key: &str, value: &Option<String>| {
            value.clone().with_context(|| format!("{key} is not set: fill it from the downward API"))
        };
        let namespace = known("kubernetes.namespace", &kubernetes.namespace)?;
        let pod = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(known("kubernetes.pod_name", &kubernetes.pod_name)?),
            namespace: Some(namespace.clone()),
            uid: kubernetes.pod_uid.clone(),
            ..ObjectReference::default()
        };
        Ok(Self { events: Api::namespaced(client, &namespace), pod, complained: AtomicBool::new(false) })
    }

    /// Writes an Event about this pod. Takes a second at most; a failure is logged once and is nobody's concern.
    pub async fn event(&self, event: ClusterEvent) {
        let (params, object) = (PostParams::default(), self.object(event));
        match timeout(EVENT_DEADLINE, self.events.create(&params, &object)).await {
            Ok(Ok(_)) => {}
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => self.complain(event, &self.missing_rule()),
            Ok(Err(error)) => self.complain(event, &format!("{:#}", anyhow::Error::from(error))),
            Err(_) => self.complain(event, &format!("the Kubernetes API did not answer within {EVENT_DEADLINE:?}")),
        }
    }

    fn object(&self, event: ClusterEvent) -> Event {
        let pod = self.pod.name.clone().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{pod}-")),
                namespace: self.pod.namespace.clone(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            action: Some("Drain".to_owned()),
            reason: Some(event.reason().to_owned()),
            type_: Some(event.kind().to_owned()),
            note: Some(event.note()),
            regarding: Some(self.pod.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(pod.chars().take(INSTANCE_LEN).collect()),
            ..Event::default()
        }
    }

    fn missing_rule(&self) -> String {
        let namespace = self.pod.namespace.as_deref().unwrap_or_default();
        format!(
            "forbidden: give this pod's ServiceAccount a Role in namespace {namespace} with the rule \
             {{apiGroups: [events.k8s.io], resources: [events], verbs: [create]}}, or set kubernetes.enabled to false"
        )
    }

    fn complain(&self, event: ClusterEvent, error: &str) {
        let event = event.reason();
        if self.complained.swap(true, Ordering::Relaxed) {
            tracing::debug!(event, error, "no Event was written");
        } else {
            tracing::warn!(
                event,
                error,
                "no Event was written; nothing else is affected, and it will not be said again"
            );
        }
    }
}

/// Of this pod's own cluster, as its ServiceAccount. No retries: by default there are fourteen.
fn client(limit: Duration) -> anyhow::Result<Client> {
    let mut config =
        Config::incluster().context("this is no pod with a ServiceAccount token (see automountServiceAccountToken)")?;
    (config.connect_timeout, config.read_timeout, config.write_timeout) = (Some(limit), Some(limit), Some(limit));
    config.default_retry = false;
    Client::try_from(config).context("the Kubernetes API's settings in this pod are of no use")
}

/// What became of a Secret that had to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnsureOutcome {
    /// It was not there; now it is, with a random value.
    Created,
    /// It was there and was left alone.
    Kept,
}

impl fmt::Display for EnsureOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created with a random value",
            Self::Kept => "exists; left as it is",
        })
    }
}

/// Creates the Secret `name` in this pod's namespace, with 64 random hex digits under `key`, unless it exists.
///
/// # Errors
/// Outside of a cluster, without the rights, and for a Secret that exists without that key.
pub async fn ensure_secret(name: &str, key: &str) -> anyhow::Result<EnsureOutcome> {
    ensure_secret_with(client(SECRET_DEADLINE)?, name, key).await
}

async fn ensure_secret_with(client: Client, name: &str, key: &str) -> anyhow::Result<EnsureOutcome> {
    check_names(name, key)?;
    let namespace = client.default_namespace().to_owned();
    let secrets: Api<Secret> = Api::default_namespaced(client);
    let explain = |error| explain(error, name, &namespace);
    if let Some(secret) = secrets.get_opt(name).await.map_err(explain)? {
        return keep(&secret, name, key);
    }
    match secrets.create(&PostParams::default(), &random_secret(name, key)).await {
        Ok(_) => Ok(EnsureOutcome::Created),
        // Someone else was faster.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let secret = secrets.get(name).await.map_err(explain)?;
            keep(&secret, name, key)
        }
        Err(error) => Err(explain(error)),
    }
}

/// Also keeps the name from being a path.
fn check_names(name: &str, key: &str) -> anyhow::Result<()> {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let edges = bytes.first().copied().is_some_and(edge) && bytes.last().copied().is_some_and(edge);
        edges && bytes.iter().all(|b| edge(*b) || *b == b'-')
    };
    let valid = name.len() <= NAME_LEN && name.split('.').all(label);
    ensure!(valid, "{name:?} cannot be a Secret's name: expected lower case letters, digits, `-` and `.`");
    let grammar = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let valid = (1..=NAME_LEN).contains(&key.len()) && key.bytes().all(grammar) && !matches!(key, "." | "..");
    ensure!(valid, "{key:?} cannot be a key in a Secret: expected letters, digits, `-`, `_` and `.`");
    Ok(())
}

fn random_secret(name: &str, key: &str) -> Secret {
    // 244 random bits of the operating system.
    let value = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), CONTROLLER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        string_data: Some([(key.to_owned(), value)].into()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

fn keep(secret: &Secret, name: &str, key: &str) -> anyhow::Result<EnsureOutcome> {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    match value {
        Some(value) if !value.0.is_empty() => Ok(EnsureOutcome::Kept),
        Some(_) => {
            bail!("secret {name} has nothing under {key}: put a value there, or delete the secret to get a random one")
        }
        None => bail!("secret {name} exists without the key {key}: add it, or delete the secret to get a random one"),
    }
}

fn explain(error: kube::Error, name: &str, namespace: &str) -> anyhow::Error {
    let forbidden = matches!(&error, kube::Error::Api(status) if status.is_forbidden());
    let error = anyhow::Error::from(error);
    if forbidden {
        return error.context(format!(
            "forbidden: give this pod's ServiceAccount a Role in namespace {namespace} with the rule \
             {{apiGroups: [\"\"], resources: [secrets], verbs: [get, create]}}"
        ));
    }
    error.context(format!("cannot read or create secret {name} in namespace {namespace}"))
}

#[cfg(test)]
mod tests;
