//! The Redis function library: its name, its loading, calls to it.

use std::sync::LazyLock;

use deadpool_redis::{Connection, Pool};
use redis::{Cmd, FromRedisValue, RedisError, RedisResult, aio::ConnectionLike};

use super::super::ReadError;

const SOURCE: &str = include_str!("../chat.lua");

/// `chat_<hash>`: two releases that share a Redis during a rollout each call their own.
static LIBRARY: LazyLock<String> = LazyLock::new(|| format!("chat_{:016x}", fnv1a(SOURCE.as_bytes())));
static PUBLISH: LazyLock<String> = LazyLock::new(|| format!("{}_publish", *LIBRARY));
static EPHEMERAL: LazyLock<String> = LazyLock::new(|| format!("{}_ephemeral", *LIBRARY));
static ATTEND: LazyLock<String> = LazyLock::new(|| format!("{}_attend", *LIBRARY));
static RECEDE: LazyLock<String> = LazyLock::new(|| format!("{}_recede", *LIBRARY));
static ROSTER: LazyLock<String> = LazyLock::new(|| format!("{}_roster", *LIBRARY));
static FENCE: LazyLock<String> = LazyLock::new(|| format!("{}_fence", *LIBRARY));
static CANARY: LazyLock<String> = LazyLock::new(|| format!("{}_canary", *LIBRARY));
static TOPS: LazyLock<String> = LazyLock::new(|| format!("{}_tops", *LIBRARY));
static READ: LazyLock<String> = LazyLock::new(|| format!("{}_read", *LIBRARY));

/// FNV-1a: names a text, protects nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A call of `publish` with room for its keys and arguments.
pub(super) fn publish() -> Cmd {
    call(&PUBLISH)
}

/// A call of `ephemeral`.
pub(super) fn ephemeral() -> Cmd {
    call(&EPHEMERAL)
}

/// A call of `read`.
pub(super) fn read() -> Cmd {
    call(&READ)
}

/// A call of `fence`.
pub(super) fn fence() -> Cmd {
    call(&FENCE)
}

/// A call of `canary`.
pub(super) fn canary() -> Cmd {
    call(&CANARY)
}

/// A call of `tops`.
pub(super) fn tops() -> Cmd {
    call(&TOPS)
}

/// A call of `attend`.
pub(super) fn attend() -> Cmd {
    call(&ATTEND)
}

/// The same where nobody has come.
pub(super) fn recede() -> Cmd {
    call(&RECEDE)
}

/// A call of `roster`.
pub(super) fn roster() -> Cmd {
    call(&ROSTER)
}

fn call(name: &str) -> Cmd {
    let mut command = redis::cmd("FCALL");
    command.arg(name);
    command
}

/// Whether a call failed as this Redis does not have the library yet, or any more. The call did nothing then.
pub(super) fn is_missing(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("Function not found"))
}

/// Loads the library; loading it again is harmless.
pub(super) async fn load(connection: &mut (impl ConnectionLike + Send)) -> RedisResult<()> {
    let source = SOURCE.replace("@LIBRARY@", &LIBRARY);
    let mut command = redis::cmd("FUNCTION");
    command.arg("LOAD").arg("REPLACE").arg(source);
    command.query_async(connection).await
}

/// Calls on pooled connections, each of which holds one for a round trip.
#[derive(Debug, Clone)]
pub(super) struct Caller(Pool);

impl Caller {
    pub(super) fn new(pool: Pool) -> Self {
        Self(pool)
    }

    /// One call; loads the library where it is missing.
    pub(super) async fn ask<T: FromRedisValue>(&self, call: &Cmd) -> Result<T, ReadError> {
        let mut connection = self.0.get().await.map_err(|error| ReadError(error.to_string()))?;
        let mut result = call.query_async(&mut connection).await;
        if let Err(error) = &result
            && is_missing(error)
        {
            load(&mut connection).await?;
            result = call.query_async(&mut connection).await;
        }
        if let Err(error) = &result
            && breaks_connection(error)
        {
            drop(Connection::take(connection));
        }
        Ok(result?)
    }
}

/// Whether a connection is of no use after `error`: its late replies, if any, must not meet another caller; nor is a server that is no master
/// any more.
fn breaks_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_timeout() || error.is_connection_dropped() || is_demoted(error)
}

/// Whether the server is a replica now.
pub(super) fn is_demoted(error: &RedisError) -> bool {
    error.code() == Some("READONLY")
}
