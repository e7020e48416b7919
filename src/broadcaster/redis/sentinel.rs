//! Asks sentinels where the master is.
//!
//! All are asked at once, each on a connection that is kept. They learn of a failover one after the other, so the answer of the newest epoch counts;
//! an older one than was heard before counts only if most of them answer: then they have begun anew.

use std::{collections::HashMap, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use redis::{
    Client, ConnectionInfo, FromRedisValue as _, RedisConnectionInfo, RedisError, Value, aio::MultiplexedConnection,
};
use tokio::time::timeout;

use super::{
    certificates::Certificates,
    master::{at, driver_settings, secured},
    trouble::Trouble,
};
use crate::config;

/// How much longer the slowest are waited for once most have answered.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Sentinels {
    /// The master's name among those that they watch.
    set: String,
    members: Vec<Sentinel>,
    timeout: Duration,
    /// The newest epoch heard of.
    epoch: u64,
}

struct Sentinel {
    info: ConnectionInfo,
    connection: Option<MultiplexedConnection>,
}

/// What one says of the master.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    /// Goes up with each failover.
    epoch: u64,
    place: (String, u16),
}

impl Sentinels {
    /// Those of the configuration; reached like the servers, over TLS or not.
    pub(super) fn new(set: &str, servers: &ConnectionInfo, config: &config::Redis) -> anyhow::Result<Self> {
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &config.sentinel_user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &config.sentinel_password {
            settings = settings.set_password(password.expose());
        }
        let member = |place: &String| {
            let (host, port) =
                place_of(place).with_context(|| format!("redis.sentinels: {place:?} is not host:port"))?;
            Ok(Sentinel { info: at(servers, host, port).set_redis_settings(settings.clone()), connection: None })
        };
        let members = config.sentinels.iter().map(member).collect::<anyhow::Result<_>>()?;
        Ok(Self { set: set.to_owned(), members, timeout: config.timeout, epoch: 0 })
    }

    /// Where the master is.
    pub(super) async fn master(&mut self, certificates: &Certificates) -> Result<(String, u16), Trouble> {
        let most = self.members.len() / 2 + 1;
        let (set, limit) = (self.set.as_str(), self.timeout);
        let mut asking: FuturesUnordered<_> =
            self.members.iter_mut().map(|sentinel| sentinel.ask(set, certificates, limit)).collect();
        let (mut answers, mut trouble) = (Vec::new(), None);
        loop {
            let patience = if answers.len() >= most { STRAGGLERS } else { limit * 2 };
            match timeout(patience, asking.next()).await {
                Ok(Some(Ok(answer))) => answers.push(answer),
                Ok(Some(Err(error))) => trouble = Some(error),
                Ok(None) | Err(_) => break,
            }
        }
        drop(asking);
        let newest = newest(&answers, most, self.epoch).cloned();
        let answer = newest.ok_or_else(|| match trouble {
            Some(Trouble::Refused(error)) => Trouble::Refused(format!("a sentinel says: {error}")),
            _ if answers.is_empty() => Trouble::Unreachable("no sentinel answers".into()),
            _ => Trouble::Unreachable("most sentinels do not answer, and the others are behind".into()),
        })?;
        self.epoch = answer.epoch;
        Ok(answer.place)
    }
}

impl Sentinel {
    async fn ask(&mut self, set: &str, certificates: &Certificates, limit: Duration) -> Result<Answer, Trouble> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let client = Client::open(secured(self.info.clone(), certificates)?)?;
                client.get_multiplexed_async_connection_with_config(&driver_settings(limit)).await?
            }
        };
        let mut questions = redis::pipe();
        // The epoch first: a place that changes in between is believed less, never more.
        questions.cmd("SENTINEL").arg("MASTER").arg(set).cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(set);
        questions.ignore_errors();
        let replies: Vec<Result<Value, RedisError>> = questions.query_async(&mut connection).await?;
        self.connection = Some(connection);
        let mut replies = replies.into_iter();
        let mut reply = || replies.next().unwrap_or(Ok(Value::Nil));
        // A user that may only ask for the place is fine.
        let state = reply().and_then(|state| Ok(HashMap::<String, String>::from_redis_value(state)?));
        let epoch = state.ok().and_then(|state| state.get("config-epoch")?.parse().ok()).unwrap_or(0);
        let place = reply().and_then(|place| Ok(Option::<(String, u16)>::from_redis_value(place)?))?;
        let place = place.ok_or_else(|| Trouble::Refused(format!("it knows no master named {set:?}")))?;
        Ok(Answer { epoch, place })
    }
}

impl std::fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sentinel").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The answer that counts, if any does.
fn newest(answers: &[Answer], most: usize, known: u64) -> Option<&Answer> {
    let newest = answers.iter().max_by_key(|answer| answer.epoch)?;
    (newest.epoch >= known || answers.len() >= most).then_some(newest)
}

/// The host and port in `host:port`; an IPv6 address stands in brackets.
#[must_use]
pub fn place_of(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => host,
    };
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '/' | '@' | '?' | '#' | '[' | ']');
    let colons = bare.contains(':') && bare.len() == host.len();
    (!bare.is_empty() && !colons && bare.chars().all(plain)).then(|| (bare.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_epoch_counts_and_an_older_one_needs_most_of_them() {
        let answer = |epoch, host: &str| Answer { epoch, place: (host.to_owned(), 6379) };
        let answers = [answer(1, "old"), answer(2, "new")];
        assert_eq!(newest(&answers, 2, 1).map(|answer| answer.place.0.as_str()), Some("new"));
        assert_eq!(newest(&answers[..1], 2, 2), None, "the others may know better");
        assert_eq!(newest(&[answer(1, "old"), answer(1, "old")], 2, 2), Some(&answer(1, "old")), "set up anew");
        assert_eq!(newest(&[], 2, 0), None);
    }

    #[test]
    fn places_have_a_host_and_a_port() {
        let place = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(place_of("sentinel-0.redis:26379"), place("sentinel-0.redis", 26379));
        assert_eq!(place_of("[::1]:26379"), place("::1", 26379));
        for bad in ["", "h", ":1", "h:0", "h:99999", "h:x", "::1:26379", "[h]:1", "redis://h:1", "u@h:1", "a b:1"] {
            assert_eq!(place_of(bad), None, "{bad}");
        }
    }
}
