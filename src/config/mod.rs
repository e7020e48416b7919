//! The configuration: every key, its unit, its meaning and its default.
//!
//! Layers: defaults, then a TOML file, then the environment. Owns the types; where values come from is `source`'s,
//! which values make sense is `validate`'s, how they are written is `value`'s. Read once, at the start; the process
//! environment is handed in.

mod alias;
mod auth;
mod limits;
mod source;
mod telemetry;
mod validate;
mod value;

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use auth::Auth;
pub use limits::Limits;
pub use source::{ConfigErrors, Mistake, environment, shadowed};
pub use telemetry::{OtlpProtocol, Sampler, Telemetry};
pub use value::{Secret, mask_url};

/// Everything that can be set, checked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Listeners and who may open a socket from a browser.
    pub server: Server,
    /// Whose tokens are accepted.
    pub auth: Auth,
    /// What one connection and one node may use.
    pub limits: Limits,
    /// What a room keeps.
    pub history: History,
    /// Who is in a room.
    pub presence: Presence,
    /// The log and bus between the nodes.
    pub redis: Redis,
    /// When the node stops asking for traffic.
    pub readiness: Readiness,
    /// How the node leaves.
    pub drain: Drain,
    /// Log lines.
    pub log: Log,
    /// Traces.
    pub telemetry: Telemetry,
    /// What the node knows of its pod.
    pub kubernetes: Kubernetes,
}

/// `[server]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// The public listener: chat, REST, page.
    #[serde(deserialize_with = "value::address")]
    pub address: SocketAddr,
    /// The management listener: probes and metrics; never exposed.
    #[serde(deserialize_with = "value::address")]
    pub management_address: SocketAddr,
    /// The longest a client may take to send a request's head.
    #[serde(with = "value::duration")]
    pub header_timeout: Duration,
    /// Networks (CIDR) of the proxies whose `X-Forwarded-For` is believed; empty: nobody's.
    #[serde(deserialize_with = "value::list")]
    pub trusted_proxies: Vec<String>,
    /// Origins (`scheme://host[:port]`, exact) whose pages may connect; empty: the page's own host only.
    #[serde(deserialize_with = "value::list")]
    pub origins: Vec<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080)),
            management_address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 9090)),
            header_timeout: Duration::from_secs(5),
            trusted_proxies: Vec::new(),
            origins: Vec::new(),
        }
    }
}

/// `[history]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Messages kept per room.
    pub messages: u64,
    /// How long a silent room keeps its messages.
    #[serde(with = "value::duration")]
    pub age: Duration,
    /// The bound over all rooms of a node without Redis.
    #[serde(with = "value::bytes")]
    pub local_bytes: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { messages: 1000, age: Duration::from_secs(24 * 60 * 60), local_bytes: 256 << 20 }
    }
}

/// `[presence]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Presence {
    /// Whether rooms keep who is there.
    pub enabled: bool,
    /// How long somebody who has left still counts as there, so that reconnects and rollouts show nobody leaving.
    #[serde(with = "value::duration")]
    pub linger: Duration,
    /// How long those of a node that is gone still count as there.
    #[serde(with = "value::duration")]
    pub lease: Duration,
    /// The most that are told by name; of more only their number.
    pub events_max: usize,
}

impl Default for Presence {
    fn default() -> Self {
        Self { enabled: true, linger: Duration::from_secs(15), lease: Duration::from_secs(60), events_max: 200 }
    }
}

/// `[redis]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    /// `redis://`, `rediss://` or `unix://`; unset or empty: this node is the whole chat.
    #[serde(deserialize_with = "value::optional", serialize_with = "value::masked_url")]
    pub url: Option<Secret>,
    /// An empty `url` is an error rather than a node of its own: where many run, each would be a chat for itself.
    pub required: bool,
    /// Sentinels (`host:port`) that know where the master is; the host of `url` is then the name of its set.
    #[serde(deserialize_with = "value::list")]
    pub sentinels: Vec<String>,
    /// Who the sentinels are told this is.
    #[serde(deserialize_with = "value::optional")]
    pub sentinel_user: Option<String>,
    /// The password for the sentinels; that of `url` is for the master.
    #[serde(deserialize_with = "value::optional")]
    pub sentinel_password: Option<Secret>,
    /// The authorities (PEM) whose certificates are trusted with `rediss://`; unset: the system's.
    #[serde(deserialize_with = "value::optional")]
    pub tls_ca_file: Option<PathBuf>,
    /// The certificate (PEM) that this node shows.
    #[serde(deserialize_with = "value::optional")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    #[serde(deserialize_with = "value::optional")]
    pub tls_key_file: Option<PathBuf>,
    /// What an acknowledged message is meant to survive in Redis; compared with what Redis says.
    pub durability: Durability,
    /// The longest one command or one connect may take.
    #[serde(with = "value::duration")]
    pub timeout: Duration,
    /// The longest a message whose fate is not known is tried again, under one counter, so that it is stored once.
    #[serde(with = "value::duration")]
    pub publish_deadline: Duration,
    /// Tasks that publish, each for its share of the rooms.
    pub publishers: usize,
    /// What every key and channel begins with: `^[A-Za-z0-9_.-]{1,64}$`. Two chats on one Redis need two.
    pub prefix: String,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: None,
            required: false,
            sentinels: Vec::new(),
            sentinel_user: None,
            sentinel_password: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            durability: Durability::Everysec,
            timeout: Duration::from_secs(2),
            publish_deadline: Duration::from_secs(10),
            publishers: 4,
            prefix: "chat".to_owned(),
        }
    }
}

/// What an acknowledged message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing: a restart of Redis may forget it.
    None,
    /// A crash of Redis, but for the last second or two (`appendfsync everysec`).
    Everysec,
    /// A crash of the machine too (`appendfsync always`).
    Always,
}

impl Durability {
    /// The word for it, in the configuration and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Everysec => "everysec",
            Self::Always => "always",
        }
    }
}

/// `[readiness]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Readiness {
    /// How long the node stays ready while Redis answers nobody.
    #[serde(with = "value::duration")]
    pub redis_grace: Duration,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { redis_grace: Duration::from_secs(60) }
    }
}

/// `[drain]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// Still accepting, already not ready: endpoints learn of it.
    #[serde(with = "value::duration")]
    pub delay: Duration,
    /// Over which the sockets are closed, evenly.
    #[serde(with = "value::duration")]
    pub window: Duration,
    /// For a socket to end after its close, before it is cut; and for publishes in flight and telemetry.
    #[serde(with = "value::duration")]
    pub flush: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), window: Duration::from_secs(40), flush: Duration::from_secs(5) }
    }
}

impl Drain {
    /// The whole of a drain: what a grace period must be longer than.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.delay.saturating_add(self.window).saturating_add(self.flush)
    }
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A level, or `target=level` directives with commas between them.
    pub filter: String,
    /// How a line is written.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[kubernetes]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// Whether the node writes Events about its own pod.
    pub enabled: bool,
    /// Whether it keeps its pod's deletion cost at its number of connections, so that a scale-in takes the emptiest.
    pub deletion_cost: bool,
    /// The pod's grace period; 0: not known. A drain that does not fit in is warned of.
    #[serde(with = "value::duration")]
    pub grace_period: Duration,
    /// The pod's namespace (downward API).
    #[serde(deserialize_with = "value::optional")]
    pub namespace: Option<String>,
    /// The pod's name (downward API).
    #[serde(deserialize_with = "value::optional")]
    pub pod_name: Option<String>,
    /// The pod's UID (downward API).
    #[serde(deserialize_with = "value::optional")]
    pub pod_uid: Option<String>,
    /// The machine the pod runs on (downward API).
    #[serde(deserialize_with = "value::optional")]
    pub node_name: Option<String>,
}
