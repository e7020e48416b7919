//! What there is to know of a Redis before the service relies on it. Changes nothing but that the function library is loaded.

use std::time::{Duration, Instant};

use redis::{RedisResult, aio::MultiplexedConnection};
use uuid::Uuid;

use super::{
    Settings,
    function::{self, Function},
    server::{self, Server},
    trouble::Trouble,
};
use crate::broadcaster::Stamp;

/// A Redis that the service can use, as far as it lets itself be looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Its release; absent where it does not tell.
    pub version: Option<String>,
    /// The name of the function library, which is there.
    pub library: &'static str,
    /// What is declared of its durability.
    pub declared: &'static str,
    /// What it shows of it.
    pub found: &'static str,
    /// Whether it shows which history of its data it has, so that lost messages are noticed.
    pub fenced: bool,
    /// By how much its clock is ahead of ours, in seconds; negative: behind.
    pub clock_ahead: f64,
    /// Of one call.
    pub round_trip: Duration,
}

impl Settings {
    /// Looks at the master as the service would.
    pub(in crate::broadcaster) async fn inspect(&self) -> anyhow::Result<Inspection> {
        let site = self.master.find().await?;
        let mut connection = site.subscriber(|_| Ok(())).await?;
        let server = Server::examine(&mut connection).await?;
        let mut canary = Function::Canary.call();
        canary.arg(1).arg(self.keys.canary(&Uuid::new_v4().simple().to_string()));
        let identity: String = function::ask(&mut connection, &canary).await?;
        let (clock_ahead, round_trip) = clock(&mut connection).await?;
        Ok(Inspection {
            version: version(&mut connection).await,
            library: function::library(),
            declared: self.durability.as_str(),
            found: server.durability(self.durability).as_str(),
            fenced: !identity.is_empty(),
            clock_ahead,
            round_trip,
        })
    }
}

async fn clock(connection: &mut MultiplexedConnection) -> Result<(f64, Duration), Trouble> {
    let (before, begun) = (Stamp::now(), Instant::now());
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    let took = begun.elapsed();
    let middle = before.seconds() + took.as_secs_f64() / 2.0;
    Ok((seconds as f64 + micros as f64 / 1e6 - middle, took))
}

async fn version(connection: &mut MultiplexedConnection) -> Option<String> {
    let info: RedisResult<String> = redis::cmd("INFO").arg("server").query_async(connection).await;
    let info = info.ok()?;
    // Valkey says which Redis it stands for, and then what it is.
    let of = |name: &str| server::line(&info, name).map(str::to_owned);
    of("valkey_version").map(|version| format!("Valkey {version}")).or_else(|| of("redis_version"))
}
