//! Why Redis cannot be used at the moment.

use deadpool_redis::PoolError;
use redis::{ErrorKind, RedisError};

use super::{super::ReadError, function};

/// See the module. All but the first are answers: trying again is of no use until somebody changes something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Nobody answered.
    #[error("{0}")]
    Unreachable(String),
    /// It copies another server, which is the one to talk to.
    #[error("it is a replica, not the master")]
    Replica,
    /// It knows where the master is.
    #[error("it is a sentinel: list it in redis.sentinels, and name the master's set in redis.url")]
    Sentinel,
    /// One of many servers that share the keys.
    #[error("it is part of a Redis Cluster, which is not supported: use a standalone server, or Sentinel")]
    Cluster,
    /// Nobody has loaded our functions, and we may not.
    #[error(
        "the function library {} is missing, and this user may not load it: \
         chat-api redis-functions | redis-cli -x FUNCTION LOAD REPLACE",
        function::library()
    )]
    NoLibrary,
    /// An error of Redis' own.
    #[error("{0}")]
    Refused(String),
}

impl Trouble {
    /// Whether the server is there.
    pub(super) fn is_answer(&self) -> bool {
        !matches!(self, Self::Unreachable(_))
    }
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            _ if is_demoted(&error) => Self::Replica,
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed => {
                Self::Refused(error.to_string())
            }
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<PoolError> for Trouble {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) => error.into(),
            PoolError::Timeout(_) => Self::Unreachable("no answer in time".into()),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl From<Trouble> for ReadError {
    fn from(trouble: Trouble) -> Self {
        Self(trouble.to_string())
    }
}

/// Whether the server is a replica now.
pub(super) fn is_demoted(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
}
