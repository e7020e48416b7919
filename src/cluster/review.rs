//! Which rights the pod has, asked of the API server itself: needs none.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

use super::{DEADLINE, client};
use crate::config;

/// Something that the service does in its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// Such as `create events.k8s.io/events`.
    pub what: String,
    /// Whether the pod's ServiceAccount may.
    pub allowed: bool,
}

/// What the configuration makes the service do, and whether it may.
///
/// # Errors
/// Outside of a cluster, and where the API does not answer.
pub async fn rights(kubernetes: &config::Kubernetes) -> anyhow::Result<Vec<Right>> {
    rights_with(client(DEADLINE)?, kubernetes).await
}

pub(super) async fn rights_with(client: kube::Client, kubernetes: &config::Kubernetes) -> anyhow::Result<Vec<Right>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    let mut needed = vec![("create", "events.k8s.io", "events", None)];
    if kubernetes.deletion_cost {
        needed.push(("patch", "", "pods", kubernetes.pod_name.clone()));
    }
    let mut rights = Vec::new();
    for (verb, group, resource, name) in needed {
        let attributes = ResourceAttributes {
            namespace: kubernetes.namespace.clone(),
            verb: Some(verb.to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            name,
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let review = reviews.create(&PostParams::default(), &review).await?;
        let what = format!("{verb} {}{resource}", if group.is_empty() { String::new() } else { format!("{group}/") });
        rights.push(Right { what, allowed: review.status.is_some_and(|status| status.allowed) });
    }
    Ok(rights)
}
