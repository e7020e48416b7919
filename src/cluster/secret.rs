//! Makes a Secret that is missing, for the Job that does so before the first install.

use std::{fmt, time::Duration};

use anyhow::{bail, ensure};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use uuid::Uuid;

use super::{CONTROLLER, client};

/// For one call on behalf of a Job, which may take its time but should not hang.
const SECRET_DEADLINE: Duration = Duration::from_secs(10);
/// The longest name of a Secret, and of a key in it.
const NAME_LEN: usize = 253;

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

pub(super) async fn ensure_secret_with(client: Client, name: &str, key: &str) -> anyhow::Result<EnsureOutcome> {
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
pub(super) fn check_names(name: &str, key: &str) -> anyhow::Result<()> {
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
