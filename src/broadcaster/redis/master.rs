//! Where the master is, and pools of connections to it.
//!
//! A plain URL names it; otherwise sentinels are asked: whenever the subscriber connects, when somebody met a server that is no master, and twice a
//! second. A change takes effect at once. Calls under way at the old place are given up: an answer from there means nothing any more, since what
//! a demoted master takes is lost.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use deadpool_redis::{Connection, Manager, Pool, Runtime, Timeouts};
use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, PushInfo, RedisResult,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use socket2::TcpKeepalive;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{certificates::Certificates, sentinel::Sentinels, trouble::Trouble};
use crate::config::{self, Secret};

/// How often sentinels are asked while nobody misses the master.
const EVERY: Duration = Duration::from_millis(500);
/// Least time between two looks, whoever asks for them.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections for reads; each read holds one for a round trip.
const READERS: usize = 4;
/// A peer that is gone without a word: noticed by the kernel when nothing is under way, and when something is.
const KEEPALIVE: Duration = Duration::from_secs(5);
const GONE_AFTER: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Master {
    config: config::Redis,
    /// As the URL has it.
    info: ConnectionInfo,
    /// Held while they are asked.
    sentinels: AsyncMutex<Option<Sentinels>>,
    site: Mutex<Option<Arc<Site>>>,
    wanted: Notify,
}

impl Master {
    pub(super) fn new(url: &Secret, config: &config::Redis) -> anyhow::Result<Self> {
        let client = Client::open(url.expose()).context("redis.url is not valid")?;
        let info = client.get_connection_info().clone().set_tcp_settings(tcp_settings());
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        let info = info.set_redis_settings(settings);
        let sentinels = match info.addr() {
            ConnectionAddr::Tcp(name, _) | ConnectionAddr::TcpTls { host: name, .. }
                if !config.sentinels.is_empty() =>
            {
                Some(Sentinels::new(name, &info, config)?)
            }
            _ => None,
        };
        Ok(Self {
            config: config.clone(),
            info,
            sentinels: AsyncMutex::new(sentinels),
            site: Mutex::default(),
            wanted: Notify::new(),
        })
    }

    /// Where the master was when last looked for.
    pub(super) fn site(&self) -> Result<Arc<Site>, Trouble> {
        self.site.lock().clone().ok_or_else(|| Trouble::Unreachable("it has not been reached yet".into()))
    }

    /// Looks for the master, and goes there if it is another than before.
    pub(super) async fn find(&self) -> Result<Arc<Site>, Trouble> {
        let mut sentinels = self.sentinels.lock().await;
        let before = self.site.lock().clone();
        let certificates = self.certificates(before.as_deref())?;
        let info = match &mut *sentinels {
            None => self.info.clone(),
            Some(sentinels) => {
                let (host, port) = sentinels.master(&certificates).await?;
                at(&self.info, host, port)
            }
        };
        if let Some(site) = before.as_ref().filter(|site| site.is(&info, &certificates)) {
            return Ok(site.clone());
        }
        let site = Arc::new(Site::new(&info, certificates, &self.config)?);
        *self.site.lock() = Some(site.clone());
        if let Some(before) = before {
            before.leave();
            if before.info.addr() != info.addr() {
                tracing::warn!(before = %before.info.addr(), now = %info.addr(), "another Redis is the master");
            }
        }
        Ok(site)
    }

    /// Somebody could not connect to what counts as the master: have a look.
    pub(super) fn look(&self) {
        self.wanted.notify_one();
    }

    /// Somebody found that `site` is not the master: go away from there.
    pub(super) fn doubt(&self, site: &Site) {
        site.doubted.store(true, Ordering::Release);
        self.look();
    }

    /// Keeps looking for the master as the module says; for ever.
    pub(super) async fn keep_found(self: Arc<Self>) {
        let asks = self.sentinels.lock().await.is_some();
        let mut lost = false;
        loop {
            sleep(PAUSE).await;
            tokio::select! {
                () = self.wanted.notified() => {}
                () = sleep(EVERY - PAUSE), if asks => {}
            }
            let found = self.find().await;
            match &found {
                Ok(_) if lost => tracing::info!("the Redis master is known again"),
                Err(trouble) if !lost => tracing::warn!(%trouble, "cannot find out where the Redis master is"),
                _ => {}
            }
            lost = found.is_err();
        }
    }

    /// The files may have been renewed since; half-renewed ones are left for the next time.
    fn certificates(&self, before: Option<&Site>) -> Result<Certificates, Trouble> {
        if !matches!(self.info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Ok(Certificates::default());
        }
        match (Certificates::read(&self.config), before) {
            (Ok(certificates), _) => Ok(certificates),
            (Err(error), Some(site)) => {
                tracing::debug!(key = error.key, %error, "staying with the certificates that were read before");
                Ok(site.certificates.clone())
            }
            (Err(error), None) => Err(Trouble::Unreachable(format!("{}: {error}", error.key))),
        }
    }
}

/// A server that counts as the master.
#[derive(Debug)]
pub(super) struct Site {
    info: ConnectionInfo,
    certificates: Certificates,
    timeout: Duration,
    readers: Pool,
    writers: Pool,
    /// One connection, for the canary: it must not wait behind those who read.
    canary: Pool,
    doubted: AtomicBool,
    left: CancellationToken,
}

impl Site {
    fn new(info: &ConnectionInfo, certificates: Certificates, config: &config::Redis) -> Result<Self, Trouble> {
        let info = secured(info.clone(), &certificates)?;
        Ok(Self {
            readers: pool(&info, READERS, config.timeout)?,
            writers: pool(&info, config.publishers, config.timeout)?,
            canary: pool(&info, 1, config.timeout)?,
            info,
            certificates,
            timeout: config.timeout,
            doubted: AtomicBool::new(false),
            left: CancellationToken::new(),
        })
    }

    /// A connection for one read.
    pub(super) async fn reader(&self) -> Result<Connection, Trouble> {
        Ok(self.readers.get().await?)
    }

    /// A connection to ask whether Redis answers.
    pub(super) async fn canary(&self) -> Result<Connection, Trouble> {
        Ok(self.canary.get().await?)
    }

    /// A connection to publish on.
    pub(super) async fn writer(&self) -> Result<Connection, Trouble> {
        Ok(self.writers.get().await?)
    }

    /// A connection of one's own, on which `receive` takes what Redis pushes.
    pub(super) async fn subscriber(
        &self,
        receive: impl Fn(PushInfo) -> Result<(), Infallible> + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, Trouble> {
        let client = Client::open(self.info.clone())?;
        let settings = driver_settings(self.timeout).set_push_sender(receive);
        Ok(client.get_multiplexed_async_connection_with_config(&settings).await?)
    }

    /// Does something here; `None`: the master is elsewhere since.
    pub(super) async fn stay_for<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.left.run_until_cancelled(work).await
    }

    /// Returns once the master is elsewhere.
    pub(super) async fn left(&self) {
        self.left.cancelled().await;
    }

    /// Whether the master is elsewhere.
    pub(super) fn is_left(&self) -> bool {
        self.left.is_cancelled()
    }

    fn is(&self, info: &ConnectionInfo, certificates: &Certificates) -> bool {
        self.info.addr() == info.addr() && self.certificates == *certificates && !self.doubted.load(Ordering::Acquire)
    }

    fn leave(&self) {
        self.left.cancel();
        self.readers.close();
        self.writers.close();
        self.canary.close();
    }
}

/// Timeouts on everything: the driver's own response timeout is 500 ms, its pools wait for ever.
pub(super) fn driver_settings(timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
        .set_pipeline_buffer_size(1024)
}

/// The same place with what TLS needs, if it is spoken there.
pub(super) fn secured(info: ConnectionInfo, certificates: &Certificates) -> RedisResult<ConnectionInfo> {
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => {
            Ok(Client::build_with_tls(info, certificates.for_driver())?.get_connection_info().clone())
        }
        _ => Ok(info),
    }
}

/// The same server at another place.
pub(super) fn at(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let place = match info.addr() {
        ConnectionAddr::TcpTls { insecure, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: None }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(place)
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 2).with_retries(2);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(GONE_AFTER)
}

fn pool(info: &ConnectionInfo, size: usize, timeout: Duration) -> Result<Pool, Trouble> {
    let manager = Manager::new_with_config(info.clone(), driver_settings(timeout))?;
    let wait = Some(timeout);
    let timeouts = Timeouts { wait, create: wait, recycle: wait };
    let pool = Pool::builder(manager).max_size(size).timeouts(timeouts).runtime(Runtime::Tokio1).build();
    pool.map_err(|error| Trouble::Unreachable(error.to_string()))
}
