//! The chart as helm renders it: what the API server knows, and what kubelet makes of it for one pod.
//!
//! Owns no process. Only addresses and paths are changed, as all pods are on one machine here.

use std::{
    collections::{BTreeMap, HashMap},
    fs::Permissions,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Container, EnvVar, PodSpec, Probe, Volume},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::support::{repository, run, tool};

const NAMESPACE: &str = "chat";

/// Where a pod listens on this machine, in the place of the ports of its container.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub public: SocketAddr,
    pub management: SocketAddr,
}

/// What an API server has of one release of the chart.
pub struct Release {
    deployment: DeploymentSpec,
    /// As the Deployment says, or the fewest that its autoscaler leaves.
    pub replicas: usize,
    config_maps: HashMap<String, BTreeMap<String, String>>,
    secrets: HashMap<String, BTreeMap<String, String>>,
}

impl Release {
    /// With a values file of the repository, and changes to it as `--set` takes them.
    pub fn render(values: &str, changes: &[&str]) -> Self {
        let mut command = Command::new(tool("venv/bin/python"));
        command.env("HELM", tool("bin/helm")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(repository("tests/chart/objects.py")).arg("-f").arg(repository(values));
        changes.iter().for_each(|change| {
            command.args(["--set", change]);
        });
        let objects: Vec<Value> = serde_json::from_str(&run(&mut command)).expect("a list of objects");
        let deployment = all::<Deployment>(&objects, "Deployment").pop().expect("a Deployment");
        let deployment = deployment.spec.expect("a spec");
        let fewest = all::<HorizontalPodAutoscaler>(&objects, "HorizontalPodAutoscaler").pop();
        let fewest = fewest.and_then(|autoscaler| autoscaler.spec?.min_replicas);
        let replicas = deployment.replicas.or(fewest).expect("a number of replicas");
        let config_maps = all::<ConfigMap>(&objects, "ConfigMap").into_iter();
        let config_maps =
            config_maps.map(|map| (map.metadata.name.unwrap_or_default(), map.data.unwrap_or_default())).collect();
        Self { deployment, replicas: number(replicas) as usize, config_maps, secrets: HashMap::new() }
    }

    /// Adds a Secret that the chart takes as given.
    pub fn secret(&mut self, name: &str, key: &str, value: &str) {
        self.secrets.entry(name.into()).or_default().insert(key.into(), value.into());
    }

    /// The service's own settings.
    pub fn config(&self) -> toml::Table {
        let text = self.config_maps.values().find_map(|files| files.get("config.toml")).expect("a configuration");
        text.parse().expect("TOML")
    }

    fn pod(&self) -> &PodSpec {
        self.deployment.template.spec.as_ref().expect("a pod")
    }

    fn container(&self) -> &Container {
        let [container] = &self.pod().containers[..] else { panic!("more than one container in a pod") };
        container
    }

    /// How many pods may be beyond the wanted number in a rollout, and how many may be missing.
    pub fn steps(&self) -> (usize, usize) {
        let strategy = self.deployment.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let strategy = strategy.expect("the Deployment rolls");
        let share = |number_or_percent: &Option<IntOrString>, up: bool| match number_or_percent {
            Some(IntOrString::Int(count)) => *count as usize,
            Some(IntOrString::String(percent)) => {
                let percent: usize = percent.trim_end_matches('%').parse().expect("a percentage");
                let hundredths = self.replicas * percent;
                if up { hundredths.div_ceil(100) } else { hundredths / 100 }
            }
            None => panic!("the strategy leaves a step to Kubernetes' default"),
        };
        (share(&strategy.max_surge, true), share(&strategy.max_unavailable, false))
    }

    /// How long a pod has to be ready before it counts.
    pub fn min_ready(&self) -> Duration {
        Duration::from_secs(number(self.deployment.min_ready_seconds.unwrap_or_default()))
    }

    /// How long a pod has from the start of its end to the kill.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(number(self.pod().termination_grace_period_seconds.expect("a grace period")))
    }

    /// How long its hook sleeps before SIGTERM.
    pub fn pre_stop(&self) -> Duration {
        let hook = self.container().lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        Duration::from_secs(hook.and_then(|hook| hook.sleep.as_ref()).map_or(0, |sleep| number(sleep.seconds)))
    }

    /// The startup, liveness and readiness probe.
    pub fn probes(&self) -> [Probe; 3] {
        let Container { startup_probe, liveness_probe, readiness_probe, .. } = self.container();
        [startup_probe, liveness_probe, readiness_probe].map(|probe| probe.clone().expect("a probe"))
    }

    /// The port of a probe, as its number in the container.
    fn container_port(&self, port: &IntOrString) -> i32 {
        let mut ports = self.container().ports.iter().flatten();
        match port {
            IntOrString::Int(number) => *number,
            IntOrString::String(name) => {
                ports.find(|port| port.name.as_ref() == Some(name)).expect("the probe's port has a name").container_port
            }
        }
    }

    /// Where a probe goes.
    pub fn target(&self, probe: &Probe, addresses: &Addresses) -> (SocketAddr, String) {
        let get = probe.http_get.as_ref().expect("an HTTP probe");
        let address = match self.container_port(&get.port) {
            8080 => addresses.public,
            9090 => addresses.management,
            other => panic!("a probe goes to port {other}"),
        };
        (address, get.path.clone().unwrap_or_default())
    }

    /// The container's process, its volumes below `folder`.
    pub fn process(&self, name: &str, folder: &Path, addresses: &Addresses) -> Command {
        let container = self.container();
        assert!(container.command.is_none() && container.env_from.is_none(), "{container:?}");
        let mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
        let here = |path: &str| folder.join(path.trim_start_matches('/'));
        let local = |text: &str| {
            let text = text.replace("[::]:8080", &addresses.public.to_string());
            let text = text.replace("[::]:9090", &addresses.management.to_string());
            mounts.iter().fold(text, |text, mount| {
                text.replace(&mount.mount_path, &here(&mount.mount_path).display().to_string())
            })
        };
        for mount in &mounts {
            let volume = self.pod().volumes.iter().flatten().find(|volume| volume.name == mount.name);
            self.mount(volume.expect("a mount has a volume"), &here(&mount.mount_path), local);
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_chat-api"));
        command.env_clear().args(container.args.iter().flatten());
        for variable in container.env.iter().flatten() {
            command.env(&variable.name, local(&self.value(variable, name)));
        }
        command
    }

    fn value(&self, variable: &EnvVar, pod: &str) -> String {
        if let Some(value) = &variable.value {
            assert!(!value.contains("$("), "{value}: references are not resolved here");
            return value.clone();
        }
        let source = variable.value_from.as_ref().expect("a value, or where it comes from");
        if let Some(secret) = &source.secret_key_ref {
            return data("Secret", &self.secrets, &secret.name)[&secret.key].clone();
        }
        let field = source.field_ref.as_ref().map(|field| field.field_path.as_str());
        match field {
            Some("metadata.name") => pod.to_owned(),
            Some("metadata.namespace") => NAMESPACE.to_owned(),
            Some("metadata.uid") => uuid::Uuid::new_v4().to_string(),
            Some("spec.nodeName") => "node-1".to_owned(),
            other => panic!("{}: nobody here knows {other:?}", variable.name),
        }
    }

    /// Writes a volume the way kubelet does: the files in a folder of their own, behind two symbolic links.
    fn mount(&self, volume: &Volume, at: &Path, local: impl Fn(&str) -> String) {
        const WRITTEN: &str = "..2026_01_01_00_00_00.000000001";
        let (data, items, mode) = match (&volume.config_map, &volume.secret) {
            (Some(source), _) => {
                (data("ConfigMap", &self.config_maps, &source.name), &source.items, source.default_mode)
            }
            (_, Some(source)) => {
                let name = source.secret_name.as_deref().unwrap_or_default();
                (data("Secret", &self.secrets, name), &source.items, source.default_mode)
            }
            _ => panic!("volume {} is of a kind that this does not know", volume.name),
        };
        let files: Vec<(&String, &String)> = match items {
            Some(items) => items.iter().map(|item| (&item.path, &data[&item.key])).collect(),
            None => data.iter().collect(),
        };
        std::fs::create_dir_all(at.join(WRITTEN)).expect("a folder");
        symlink(WRITTEN, at.join("..data")).expect("a link");
        for (path, text) in files {
            let file = at.join(WRITTEN).join(path);
            std::fs::write(&file, local(text)).expect("written");
            let mode = Permissions::from_mode(mode.map_or(0o644, |mode| mode as u32));
            std::fs::set_permissions(&file, mode).expect("its mode is set");
            symlink(PathBuf::from("..data").join(path), at.join(path)).expect("a link");
        }
    }
}

fn all<T: DeserializeOwned>(objects: &[Value], kind: &str) -> Vec<T> {
    let objects = objects.iter().filter(|object| object["kind"] == kind);
    objects.map(|object| serde_json::from_value(object.clone()).expect(kind)).collect()
}

fn data<'a>(
    kind: &str,
    all: &'a HashMap<String, BTreeMap<String, String>>,
    name: &str,
) -> &'a BTreeMap<String, String> {
    all.get(name).unwrap_or_else(|| panic!("the pod needs the {kind} {name:?}"))
}

fn number(number: impl TryInto<u64>) -> u64 {
    number.try_into().ok().expect("a number, not below zero")
}
