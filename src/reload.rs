//! What changes while the node runs: keys, origins and the log filter, taken over from changed files without dropping a socket.
//!
//! Looks at the files every 2 s rather than ask the system to tell: Kubernetes swaps a link above them, and not every volume tells. A configuration
//! with a mistake is refused as a whole; the old one stays in force.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    config::{self, Config},
    http::Service,
    metrics::Metrics,
    telemetry::LogFilter,
};

const EVERY: Duration = Duration::from_secs(2);
/// Keys that take effect at once.
const HOT: [&str; 6] =
    ["auth.secret_file", "auth.public_key", "auth.public_key_file", "auth.jwks_file", "server.origins", "log.filter"];

/// See the module.
pub struct Reload {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// What is in force.
    pub config: Config,
    /// Whose keys and origins change.
    pub service: Arc<Service>,
    /// Whose filter changes.
    pub filter: LogFilter,
    /// Where reloads are counted.
    pub metrics: Arc<Metrics>,
    /// The files as they were before anything was read from them.
    pub seen: Stamps,
}

/// What tells one state of some files from another; links are followed.
#[derive(Debug, PartialEq, Eq)]
pub struct Stamps(Vec<Option<(u64, i64, i64, u64)>>);

impl Stamps {
    /// Of the files that `config` names, and its own.
    #[must_use]
    pub fn now(file: Option<&Path>, auth: &config::Auth) -> Self {
        let keys = [&auth.secret_file, &auth.public_key_file, &auth.jwks_file];
        let files = file.into_iter().chain(keys.into_iter().flatten().map(PathBuf::as_path));
        let stamp = |file: &Path| {
            let data = std::fs::metadata(file).ok()?;
            Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
        };
        Self(files.map(stamp).collect())
    }
}

impl Reload {
    /// Looks for ever.
    pub async fn watch(mut self) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let (file, auth) = (self.file.clone(), self.config.auth.clone());
            // On a thread that may wait: a volume can hang.
            let now = tokio::task::spawn_blocking(move || Stamps::now(file.as_deref(), &auth)).await;
            if let Ok(now) = now
                && now != self.seen
            {
                self.seen = now;
                let reloaded = self.reload();
                self.metrics.config_reload(reloaded).inc();
            }
        }
    }

    /// False: refused.
    fn reload(&mut self) -> bool {
        let loaded = Config::load(self.file.as_deref(), config::environment());
        let config = match loaded {
            Ok(config) => config,
            Err(mistakes) => {
                tracing::error!(%mistakes, "the changed configuration is refused; the old one stays in force");
                return false;
            }
        };
        if let Err(error) = self.service.authenticator.replace_keys(&config.auth) {
            let key = error.key();
            tracing::error!(key, %error, "the changed keys are refused; the old ones stay in force");
            return false;
        }
        if let Err(error) = self.filter.set(&config.log.filter) {
            tracing::error!(%error, "the changed log filter is refused; the old one stays in force");
        }
        self.service.set_origins(config.server.origins.clone());
        let cold = cold_changes(&self.config, &config);
        if !cold.is_empty() {
            tracing::warn!(keys = cold.join(", "), "these keys have changed and take effect at the next start");
        }
        let shadowed = config::shadowed(self.file.as_deref(), config::environment());
        if !shadowed.is_empty() {
            tracing::warn!(
                keys = shadowed.join(", "),
                "these keys of the file have no effect: the environment sets them too"
            );
        }
        tracing::info!("the configuration was loaded anew");
        self.config = config;
        true
    }
}

/// Keys that differ and need a restart.
fn cold_changes(old: &Config, new: &Config) -> Vec<String> {
    let values = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let (old, new) = (values(old), values(new));
    let sections = new.as_object().into_iter().flatten();
    let keys = sections.flat_map(|(section, keys)| {
        let keys = keys.as_object().into_iter().flatten();
        keys.map(move |(key, value)| (section, key, value))
    });
    let differs = |(section, key, value): &(&String, &String, &Value)| {
        old.get(section).and_then(|keys| keys.get(key)) != Some(value)
    };
    let names = keys.filter(differs).map(|(section, key, _)| format!("{section}.{key}"));
    names.filter(|name| !HOT.contains(&name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_named() {
        let old = Config::default();
        let mut new = old.clone();
        new.server.origins = vec!["https://chat.example".into()];
        new.log.filter = "debug".into();
        assert!(cold_changes(&old, &new).is_empty());
        new.limits.rooms = 7;
        new.drain.window = Duration::from_secs(1);
        assert_eq!(cold_changes(&old, &new), ["drain.window", "limits.rooms"]);
    }
}
