//! The Redis function library: its name, its loading, calls to it.

use std::sync::{Arc, LazyLock};

use deadpool_redis::Connection;
use redis::{Cmd, FromRedisValue, RedisError, aio::ConnectionLike};

use super::{
    master::{Master, Site},
    trouble::Trouble,
};

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

/// The library's name.
pub(super) fn library() -> &'static str {
    &LIBRARY
}

/// The library's text, ready to be loaded.
pub(super) fn source() -> String {
    SOURCE.replace("@LIBRARY@", &LIBRARY)
}

/// Loads the library; loading it again is harmless.
pub(super) async fn load(connection: &mut (impl ConnectionLike + Send)) -> Result<(), Trouble> {
    let mut command = redis::cmd("FUNCTION");
    command.arg("LOAD").arg("REPLACE").arg(source());
    let loaded: Result<(), RedisError> = command.query_async(connection).await;
    loaded.map_err(|error| if error.code() == Some("NOPERM") { Trouble::NoLibrary } else { error.into() })
}

/// One call; loads the library where it is missing.
pub(super) async fn ask<T: FromRedisValue>(
    connection: &mut (impl ConnectionLike + Send),
    call: &Cmd,
) -> Result<T, Trouble> {
    match call.query_async(connection).await {
        Err(error) if is_missing(&error) => {
            load(connection).await?;
            Ok(call.query_async(connection).await?)
        }
        answer => Ok(answer?),
    }
}

/// Calls on pooled connections to the master, each of which holds one for a round trip.
#[derive(Debug, Clone)]
pub(super) struct Caller(Arc<Master>);

impl Caller {
    pub(super) fn new(master: Arc<Master>) -> Self {
        Self(master)
    }

    /// See [`ask`].
    pub(super) async fn ask<T: FromRedisValue>(&self, call: &Cmd) -> Result<T, Trouble> {
        let site = self.0.site()?;
        // Boxed, as everybody who reads a log would carry it.
        let asked = site.stay_for(Box::pin(self.ask_at(&site, call))).await;
        asked.unwrap_or_else(|| Err(Trouble::Unreachable("the master is elsewhere now".into())))
    }

    async fn ask_at<T: FromRedisValue>(&self, site: &Site, call: &Cmd) -> Result<T, Trouble> {
        let mut connection = site.reader().await.inspect_err(|_| self.0.look())?;
        let answer = ask(&mut connection, call).await;
        match &answer {
            // Late replies must not meet another caller.
            Err(Trouble::Unreachable(_)) => drop(Connection::take(connection)),
            Err(Trouble::Replica) => self.0.doubt(site),
            _ => {}
        }
        answer
    }
}
