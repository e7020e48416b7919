//! What the service does with the Kubernetes API, all of it optional: tells a pod's story as Events, says how little a pod would be missed, and
//! makes a Secret that is missing.
//!
//! Events are for people who read `kubectl describe pod`; nothing here depends on them, and no answer is waited for by anybody else. In a
//! cluster only: a kubeconfig is never looked for, so that a run on a laptop does not talk to whatever cluster that names.

mod event;
mod review;
mod secret;
mod story;

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Pod},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Config,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::timeout;

pub use self::{
    event::ClusterEvent,
    review::{Right, rights},
    secret::{EnsureOutcome, ensure_secret},
    story::Story,
};
use crate::{
    config,
    metrics::{KubernetesCall, Metrics},
};

/// As which we act.
const CONTROLLER: &str = "chat-api";
/// For one call, from beginning to end: a drain waits for nobody.
const DEADLINE: Duration = Duration::from_secs(1);
/// The longest `reportingInstance` that the API takes.
const INSTANCE_LEN: usize = 128;
/// Where the controller of a ReplicaSet looks when it has to choose a pod: the lowest goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The cluster, as this pod sees it.
#[derive(Debug)]
pub struct Cluster {
    events: Api<Event>,
    pods: Api<Pod>,
    pod: ObjectReference,
    metrics: Arc<Metrics>,
    /// Whether a failure of an Event, and of a patch, was logged: one of each is enough.
    complained: [AtomicBool; 2],
}

impl Cluster {
    /// Nothing unless `kubernetes.enabled`, nor where the API's address and this pod's token are missing: then with a warning, once.
    /// Does not talk to the API yet.
    pub fn connect(kubernetes: &config::Kubernetes, metrics: &Arc<Metrics>) -> Option<Arc<Self>> {
        if !kubernetes.enabled {
            return None;
        }
        match client(DEADLINE).and_then(|client| Self::new(client, kubernetes, metrics.clone())) {
            Ok(cluster) => Some(Arc::new(cluster)),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "no Events will be written; nothing else is affected");
                None
            }
        }
    }

    fn new(client: Client, kubernetes: &config::Kubernetes, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
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
        let (events, pods) = (Api::namespaced(client.clone(), &namespace), Api::namespaced(client, &namespace));
        Ok(Self { events, pods, pod, metrics, complained: Default::default() })
    }

    /// Writes an Event about this pod. Takes a second at most; a failure is counted, logged once, and nobody's concern.
    pub async fn event(&self, event: ClusterEvent) {
        let (params, object) = (PostParams::default(), self.object(event));
        let call = self.events.create(&params, &object);
        self.note(KubernetesCall::Event, &event.reason(), call).await;
    }

    /// Says what the cluster would lose with this pod, next to others of its ReplicaSet. False: it does not know now.
    async fn set_deletion_cost(&self, cost: i32) -> bool {
        let Some(name) = self.pod.name.as_deref() else { return false };
        // With the UID, as a pod of the same name is not this one.
        let patch = Patch::Merge(json!({
            "metadata": { "uid": self.pod.uid, "annotations": { DELETION_COST: cost.to_string() } }
        }));
        let params = PatchParams { field_manager: Some(CONTROLLER.to_owned()), ..PatchParams::default() };
        let call = self.pods.patch_metadata(name, &params, &patch);
        self.note(KubernetesCall::DeletionCost, &cost, call).await
    }

    /// True: it succeeded.
    async fn note<T>(
        &self,
        what: KubernetesCall,
        about: &(impl fmt::Display + Sync),
        call: impl Future<Output = kube::Result<T>> + Send,
    ) -> bool {
        let error = match timeout(DEADLINE, call).await {
            Ok(Ok(_)) => None,
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => Some(("forbidden", self.missing_rule(what))),
            Ok(Err(error)) => Some(("failed", format!("{:#}", anyhow::Error::from(error)))),
            Err(_) => Some(("failed", format!("the Kubernetes API did not answer within {DEADLINE:?}"))),
        };
        self.metrics.kubernetes_call(what, error.as_ref().map_or("ok", |(outcome, _)| *outcome)).inc();
        if let Some((_, error)) = &error {
            self.complain(what, about, error);
        }
        error.is_none()
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
            action: Some(event.action().to_owned()),
            reason: Some(event.reason().to_owned()),
            type_: Some(event.kind().to_owned()),
            note: Some(event.note()),
            regarding: Some(self.pod.clone()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(pod.chars().take(INSTANCE_LEN).collect()),
            ..Event::default()
        }
    }

    fn missing_rule(&self, what: KubernetesCall) -> String {
        let namespace = self.pod.namespace.as_deref().unwrap_or_default();
        let (rule, key) = match what {
            KubernetesCall::Event => {
                ("{apiGroups: [events.k8s.io], resources: [events], verbs: [create]}", "kubernetes.enabled")
            }
            KubernetesCall::DeletionCost => {
                ("{apiGroups: [\"\"], resources: [pods], verbs: [patch]}", "kubernetes.deletion_cost")
            }
        };
        format!(
            "forbidden: give this pod's ServiceAccount a Role in namespace {namespace} with the rule {rule}, or set {key} to false"
        )
    }

    fn complain(&self, what: KubernetesCall, about: &impl fmt::Display, error: &str) {
        let [events, patches] = &self.complained;
        let complained = match what {
            KubernetesCall::Event => events,
            KubernetesCall::DeletionCost => patches,
        };
        let call = what.as_str();
        if complained.swap(true, Ordering::Relaxed) {
            tracing::debug!(call, %about, error, "the Kubernetes API did not take it");
        } else {
            tracing::warn!(
                call,
                %about,
                error,
                "the Kubernetes API did not take it; nothing else is affected, and it will not be said again"
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

#[cfg(test)]
mod tests;
