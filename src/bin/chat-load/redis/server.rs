//! The Redis that is measured: one of our own, or one that was named; asked what it has done and what that took.

use std::time::Duration;

use anyhow::Context as _;
use redis::{Client, Connection, Iter, io::tcp::TcpSettings};

use crate::{
    cpu::{Cores, Snapshot, Usage},
    crowd::PATIENCE,
    process::Process,
};

/// Keys looked at in one step of the cleaning.
const AT_ONCE: usize = 1000;

/// A server with a connection to it.
pub(crate) struct Server {
    /// None: somebody else's, wherever it runs.
    process: Option<Process>,
    core: usize,
    pub(crate) url: String,
    /// What our keys begin with: in a Redis that was named there are others'.
    pub(crate) prefix: String,
    pub(crate) connection: Connection,
}

impl Server {
    /// A new one on that core, with nothing on disk.
    pub(crate) fn own(core: usize, cores: Cores) -> anyhow::Result<Self> {
        let process = Process::redis(core, cores)?;
        let url = format!("redis://{}", process.address);
        Self::new(Some(process), core, url)
    }

    /// The one that was named; what is written there goes when this does.
    pub(crate) fn named(url: &str) -> anyhow::Result<Self> {
        Self::new(None, 0, url.to_owned())
    }

    fn new(process: Option<Process>, core: usize, url: String) -> anyhow::Result<Self> {
        let prefix = format!("chat-load-{:08x}", fastrand::u32(..));
        Ok(Self { process, core, prefix, connection: connect(&url)?, url })
    }

    /// One more connection.
    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        connect(&self.url)
    }

    /// Where a node finds it.
    pub(crate) fn settings(&self) -> [(&str, &str); 2] {
        [("REDIS_URL", &self.url), ("CHAT_REDIS__PREFIX", &self.prefix)]
    }

    /// CPU used so far. One moment; two of them tell what was used between.
    pub(crate) fn meter(&mut self) -> anyhow::Result<Meter> {
        let core = match &self.process {
            Some(process) => Some(Snapshot::take(process.id(), self.core)?),
            None => None,
        };
        let info = self.info("cpu")?;
        // In microseconds, of all its threads, in user space and in the kernel: getrusage(2).
        let seconds = info.number("used_cpu_user")? + info.number("used_cpu_sys")?;
        Ok(Meter { used: Duration::try_from_secs_f64(seconds)?, core })
    }

    /// Calls of each command so far, those within functions too.
    pub(crate) fn calls(&mut self) -> anyhow::Result<Calls> {
        Ok(Calls(self.info("commandstats")?))
    }

    /// Channels that somebody subscribes, and bytes of its data.
    pub(crate) fn size(&mut self) -> anyhow::Result<(f64, f64)> {
        Ok((self.info("stats")?.number("pubsub_channels")?, self.info("memory")?.number("used_memory")?))
    }

    fn info(&mut self, section: &str) -> anyhow::Result<Info> {
        Ok(Info(redis::cmd("INFO").arg(section).query(&mut self.connection)?))
    }

    fn clean(&mut self) -> anyhow::Result<()> {
        let mut scan = redis::cmd("SCAN");
        scan.cursor_arg(0).arg("MATCH").arg(format!("{{{}:*", self.prefix)).arg("COUNT").arg(AT_ONCE);
        let found: Iter<'_, Vec<u8>> = scan.iter(&mut self.connection)?;
        let keys: Vec<Vec<u8>> = found.collect::<Result<_, _>>()?;
        for some in keys.chunks(AT_ONCE) {
            let () = redis::cmd("UNLINK").arg(some).query(&mut self.connection)?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process.is_none() {
            let _ = self.clean(); // every key of ours expires, too
        }
    }
}

fn connect(url: &str) -> anyhow::Result<Connection> {
    let info = Client::open(url).context("--redis")?.get_connection_info().clone();
    let client = Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true)))?;
    let connection = client.get_connection_with_timeout(PATIENCE).context("Redis")?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// A part of `INFO`.
struct Info(String);

impl Info {
    fn line(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    fn number(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.line(name).with_context(|| format!("Redis does not tell {name}"))?;
        text.trim().parse().with_context(|| format!("{name}: {text}"))
    }
}

/// See [`Server::meter`].
pub(crate) struct Meter {
    used: Duration,
    /// Of what the core did: only where it is ours to see.
    core: Option<Snapshot>,
}

impl Meter {
    pub(crate) fn until(&self, later: &Self) -> Usage {
        let foreign = match (&self.core, &later.core) {
            (Some(before), Some(after)) => before.until(after).foreign,
            _ => 0.0,
        };
        Usage { process: later.used.saturating_sub(self.used), foreign }
    }
}

/// See [`Server::calls`].
pub(crate) struct Calls(Info);

impl Calls {
    pub(crate) fn of(&self, command: &str) -> u64 {
        let figures = self.0.line(&format!("cmdstat_{command}"));
        let calls = figures.and_then(|figures| figures.strip_prefix("calls=")?.split(',').next()?.parse().ok());
        calls.unwrap_or(0) // none yet
    }
}
