//! The harness: nodes, Redis servers and clients, each test with its own.

pub mod client;
pub mod collector;
pub mod http;
pub mod issuer;
pub mod node;
pub mod prometheus;
pub mod proxy;
pub mod redis;
pub mod script;
pub mod sentinel;
pub mod tls;
pub mod token;

use std::{future::Future, path::PathBuf, process::Command, time::Duration};

pub use self::{
    client::Client,
    issuer::Issuer,
    node::{Node, NodeBuilder},
    redis::Redis,
    script::Script,
    token::Signer,
};

/// Runs tests that take an [`Over`] over each broadcaster.
macro_rules! both {
    ($($test:ident),+ $(,)?) => {$(
        mod $test {
            use crate::support::Over;

            #[tokio::test]
            async fn over_local() {
                super::$test(Over::Local).await;
            }

            #[tokio::test]
            async fn over_redis() {
                super::$test(Over::Redis).await;
            }
        }
    )+};
}
pub(crate) use both;

/// Longest wait for anything. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One chat: a node alone, or two over one Redis.
pub struct Chat {
    pub nodes: Vec<Node>,
    pub redis: Option<Redis>,
}

/// Which broadcaster a test runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Local,
    Redis,
}

impl Chat {
    pub async fn start(over: Over) -> Self {
        Self::start_with(over, |node| node).await
    }

    pub async fn start_with(over: Over, configure: impl Fn(NodeBuilder) -> NodeBuilder) -> Self {
        match over {
            Over::Local => Self { nodes: vec![configure(Node::builder()).start().await], redis: None },
            Over::Redis => {
                let redis = Redis::start().await;
                let node = || configure(Node::builder()).env("REDIS_URL", &redis.url());
                let nodes = vec![node().start().await, node().start().await];
                Self { nodes, redis: Some(redis) }
            }
        }
    }

    /// The nth client, on the nodes in turn; joined to its rooms.
    pub async fn client(&self, n: usize, path: &str) -> Client {
        self.nodes[n % self.nodes.len()].client(path).await
    }
}

/// Waits until `check` holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let waiting = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

/// Says half a megabyte in a room, and leaves.
pub async fn fill(node: &Node, room: &str) {
    let mut client = node.client(&format!("/api/chat-api/ws/{room}")).await;
    for _ in 0..16 {
        client.publish(serde_json::json!("x".repeat(30_000))).await;
    }
    client.leave().await;
    node.wait_for_metric("chat_connections", 0.0).await;
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A tool that `tests/tools.sh` installs.
pub fn tool(path: &str) -> PathBuf {
    let tool = repository("target/tools").join(path);
    assert!(tool.exists(), "{} is missing: run `make tools`", tool.display());
    tool
}

/// The binary, in an environment without settings for it.
pub fn chat_api() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chat-api"));
    let keep = ["PATH", "LD_LIBRARY_PATH", "HOME"].map(|key| (key, std::env::var_os(key)));
    command.env_clear().envs(keep.into_iter().filter_map(|(key, value)| Some((key, value?))));
    command
}

/// A token for `user`, as `chat-api token` mints it.
pub fn mint(secret: &str, user: &str) -> String {
    let mut command = chat_api();
    command.args(["token", "--sub", user]).env("CHAT_AUTH__SECRET", secret);
    run(&mut command).trim().to_owned()
}

/// Runs a program to its end and returns what it printed; fails the test if it failed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}
