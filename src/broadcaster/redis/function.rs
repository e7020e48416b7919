//! The Redis function library: its name, its loading, calls to it.

use std::{
    sync::{Arc, LazyLock},
    time::Instant,
};

use deadpool_redis::Connection;
use redis::{Cmd, FromRedisValue, RedisError, ToRedisArgs, aio::ConnectionLike};

use super::{
    master::{Master, Site},
    trouble::Trouble,
};
use crate::metrics::Metrics;

const SOURCE: &str = concat!(include_str!("log.lua"), "\n", include_str!("presence.lua"));

/// `chat_<hash>`: two releases that share a Redis during a rollout each call their own.
static LIBRARY: LazyLock<String> = LazyLock::new(|| format!("chat_{:016x}", fnv1a(SOURCE.as_bytes())));

/// One of the library's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Publish,
    Ephemeral,
    Read,
    Fence,
    Canary,
    Tops,
    Attend,
    /// `attend` where nobody has come.
    Recede,
    /// `recede` of nobody, in many rooms.
    Renew,
    Roster,
}

impl Function {
    /// Its name without the library's; in metrics too.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Ephemeral => "ephemeral",
            Self::Read => "read",
            Self::Fence => "fence",
            Self::Canary => "canary",
            Self::Tops => "tops",
            Self::Attend => "attend",
            Self::Recede => "recede",
            Self::Renew => "renew",
            Self::Roster => "roster",
        }
    }

    /// A call of it, still without keys and arguments.
    pub(super) fn call(self) -> Call {
        let mut command = redis::cmd("FCALL");
        command.arg(format!("{}_{}", *LIBRARY, self.as_str()));
        Call { function: self, command }
    }
}

/// A call of a function.
pub(super) struct Call {
    function: Function,
    command: Cmd,
}

impl Call {
    /// The next key or argument; the first says how many keys there are.
    pub(super) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// For a pipeline.
    pub(super) fn into_command(self) -> Cmd {
        self.command
    }
}

/// FNV-1a: names a text, protects nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
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
    call: &Call,
) -> Result<T, Trouble> {
    match call.command.query_async(connection).await {
        Err(error) if is_missing(&error) => {
            load(connection).await?;
            Ok(call.command.query_async(connection).await?)
        }
        answer => Ok(answer?),
    }
}

/// Calls on pooled connections to the master, each of which holds one for a round trip. Timed.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    master: Arc<Master>,
    metrics: Arc<Metrics>,
}

impl Caller {
    pub(super) fn new(master: Arc<Master>, metrics: Arc<Metrics>) -> Self {
        Self { master, metrics }
    }

    /// See [`ask`].
    pub(super) async fn ask<T: FromRedisValue>(&self, call: &Call) -> Result<T, Trouble> {
        let site = self.master.site()?;
        let begun = Instant::now();
        // Boxed, as everybody who reads a log would carry it.
        let asked = site.stay_for(Box::pin(self.ask_at(&site, call))).await;
        let answer = asked.unwrap_or_else(|| Err(Trouble::Unreachable("the master is elsewhere now".into())));
        self.metrics.redis_command(call.function.as_str(), begun.elapsed(), answer.is_ok());
        answer
    }

    async fn ask_at<T: FromRedisValue>(&self, site: &Site, call: &Call) -> Result<T, Trouble> {
        let connection = match call.function {
            Function::Canary => site.canary().await,
            _ => site.reader().await,
        };
        let mut connection = connection.inspect_err(|_| self.master.look())?;
        let answer = ask(&mut connection, call).await;
        match &answer {
            // Late replies must not meet another caller.
            Err(Trouble::Unreachable(_)) => drop(Connection::take(connection)),
            Err(Trouble::Replica) => self.master.doubt(site),
            _ => {}
        }
        answer
    }
}
