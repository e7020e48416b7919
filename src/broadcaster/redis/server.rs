//! What a server says of itself when it is connected to.
//!
//! A managed Redis may not let itself be asked; what it does not say counts as it should be.

use redis::{FromRedisValue as _, RedisError, Value, aio::MultiplexedConnection};

use super::trouble::Trouble;
use crate::config::Durability;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// Whether it writes its log to disk; how often it does not show.
    logs: Option<bool>,
    /// The policy by which it throws data away when it is full, if it does.
    evicts: Option<String>,
}

/// What was found of the durability that is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Known(Durability),
    Unknown,
}

impl Found {
    /// The word in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Known(durability) => durability.as_str(),
            Self::Unknown => "unknown",
        }
    }
}

impl Server {
    /// Asks it. An error if it is nothing to work with.
    pub(super) async fn examine(connection: &mut MultiplexedConnection) -> Result<Self, Trouble> {
        let mut questions = redis::pipe();
        questions.cmd("ROLE").cmd("INFO").ignore_errors();
        let replies: Vec<Result<Value, RedisError>> = questions.query_async(connection).await?;
        let [role, info] =
            replies.try_into().map_err(|_| Trouble::Unreachable("two questions, other replies".into()))?;
        match role.map(|role| first_word(&role)) {
            Ok(Some(role)) if role == "slave" => return Err(Trouble::Replica),
            Ok(Some(role)) if role == "sentinel" => return Err(Trouble::Sentinel),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "Redis does not tell its role; taken for the master"),
        }
        let info = info.and_then(|info| Ok(String::from_redis_value(info)?)).unwrap_or_else(|error| {
            tracing::debug!(%error, "Redis does not tell about itself");
            String::new()
        });
        if line(&info, "cluster_enabled") == Some("1") {
            return Err(Trouble::Cluster);
        }
        Ok(Self::of(&info))
    }

    fn of(info: &str) -> Self {
        let bounded = line(info, "maxmemory").is_some_and(|bytes| bytes != "0");
        let policy = line(info, "maxmemory_policy").filter(|policy| bounded && *policy != "noeviction");
        Self { logs: line(info, "aof_enabled").map(|enabled| enabled == "1"), evicts: policy.map(str::to_owned) }
    }

    /// What an acknowledged message survives here, as far as can be seen.
    pub(super) fn durability(&self, declared: Durability) -> Found {
        match (self.logs, declared) {
            _ if self.evicts.is_some() => Found::Known(Durability::None),
            (Some(false), _) => Found::Known(Durability::None),
            (Some(true), Durability::None | Durability::Everysec) => Found::Known(Durability::Everysec),
            (Some(true), Durability::Always) | (None, _) => Found::Unknown,
        }
    }

    /// Says, once for each server, how what it does relates to what is declared.
    pub(super) fn report(&self, declared: Durability) {
        let (declared, found) = (declared.as_str(), self.durability(declared));
        match (found, &self.evicts) {
            (Found::Known(Durability::None), Some(policy)) if declared != "none" => tracing::warn!(
                declared,
                policy,
                "Redis throws messages away when it is full: set maxmemory-policy noeviction, or redis.durability none"
            ),
            (Found::Known(Durability::None), None) if declared != "none" => tracing::warn!(
                declared,
                "a restart of Redis loses every message: set appendonly yes there, or redis.durability none"
            ),
            _ => tracing::info!(declared, found = found.as_str(), "durability of acknowledged messages"),
        }
    }
}

fn first_word(reply: &Value) -> Option<String> {
    let Value::Array(words) = reply else { return None };
    String::from_redis_value_ref(words.first()?).ok()
}

/// The value of one line of `INFO`.
pub(super) fn line<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_is_what_can_be_seen() {
        use Durability::{Always, Everysec, None};
        let found = |info: &str, declared| Server::of(info).durability(declared);
        let with = "maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n";
        assert_eq!(found(with, Everysec), Found::Known(Everysec), "without a bound nothing is thrown away");
        assert_eq!(found(with, Always), Found::Unknown);
        assert_eq!(found(&with.replace("y:0", "y:1000"), Everysec), Found::Known(None));
        assert_eq!(
            found("maxmemory:1000\r\nmaxmemory_policy:noeviction\r\naof_enabled:0\r\n", Always),
            Found::Known(None)
        );
        assert_eq!(found("", Everysec), Found::Unknown);
    }
}
