//! The issuer's key set, fetched from its address and kept fresh.
//!
//! One task fetches: at the start until it succeeds, then every few minutes, and in between when a token names a key that the set does not have.
//! However many such tokens come, that is once in 30 s; until then, what the last fetch did not bring does not exist. While the issuer is away,
//! its last set counts up to `auth.jwks_max_age`.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, StatusCode, Uri, header::ACCEPT};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout, timeout_at},
};

use super::key::{KeyId, KeySet, from_jwks};
use crate::{config::mask_url, https, metrics::Metrics, shutdown::Readiness};

/// How old a set may get before it is fetched again.
const REFRESH: Duration = Duration::from_secs(5 * 60);
/// The shortest time between two fetches that tokens ask for.
const DEMAND_INTERVAL: Duration = Duration::from_secs(30);
/// The longest that whoever brings a token waits for one.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest that a fetch may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The wait after a failed fetch: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The largest set that is read, in bytes.
const LARGEST: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Issuer {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    max_age: Duration,
    demand: Mutex<Option<Demand>>,
    demanded: Notify,
    /// Told after each fetch, whether it brought a set or not.
    fetched: watch::Sender<()>,
}

/// The last time that a token asked for a fetch.
#[derive(Debug)]
struct Demand {
    at: Instant,
    answered: bool,
}

impl Issuer {
    /// Fetches nothing yet.
    pub(super) fn new(url: &str, max_age: Duration) -> anyhow::Result<Self> {
        let url: Uri = url.parse()?;
        let connector = https::connector(url.scheme_str() == Some("https"))?;
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let (demand, demanded, fetched) = (Mutex::default(), Notify::new(), watch::Sender::new(()));
        Ok(Self { url, client, max_age, demand, demanded, fetched })
    }

    /// Fetches for ever.
    pub(super) async fn keep_fresh(&self, keys: &watch::Sender<Arc<KeySet>>, readiness: &Readiness, metrics: &Metrics) {
        let mut failures = 0;
        loop {
            let fetched = self.fetch().await;
            metrics.key_fetch(fetched.is_ok()).inc();
            match fetched {
                Ok(set) => {
                    failures = 0;
                    tell_changes(&keys.send_replace(Arc::new(set)), &keys.borrow());
                }
                Err(error) => {
                    failures += 1;
                    let (url, usable) = (mask_url(&self.url.to_string()), keys.borrow().is_usable());
                    tracing::warn!(
                        url,
                        error = format!("{error:#}"),
                        last_set_is_used = usable,
                        "cannot fetch the issuer's keys"
                    );
                }
            }
            readiness.keys(keys.borrow().is_usable());
            self.answer();
            let _ = timeout(self.pause(failures), self.demanded.notified()).await;
        }
    }

    /// Asks for a fetch, unless a token did so a short while ago, and waits for it. False: there was none, or it takes too long.
    pub(super) async fn ask(&self) -> bool {
        let mut fetched = self.fetched.subscribe();
        let until = {
            let demand = &mut *self.demand.lock();
            match demand {
                Some(Demand { at, answered }) if at.elapsed() < DEMAND_INTERVAL => {
                    if *answered {
                        return false;
                    }
                    *at + PATIENCE
                }
                _ => {
                    let at = Instant::now();
                    *demand = Some(Demand { at, answered: false });
                    self.demanded.notify_one();
                    at + PATIENCE
                }
            }
        };
        matches!(timeout_at(until, fetched.changed()).await, Ok(Ok(())))
    }

    /// Whoever waits for a fetch has it.
    fn answer(&self) {
        if let Some(demand) = &mut *self.demand.lock() {
            demand.answered = true;
            let _ = self.demanded.notified().now_or_never(); // also who asked while it was under way
        }
        self.fetched.send_replace(());
    }

    /// Until the next fetch. Nodes that started together do not ask together for long.
    fn pause(&self, failures: u32) -> Duration {
        let usual = match failures.checked_sub(1) {
            None => REFRESH,
            Some(doublings) => RETRY.1.min(RETRY.0 * (1 << doublings.min(5))),
        };
        usual.min(self.max_age / 3).mul_f64(0.8 + 0.2 * fastrand::f64())
    }

    async fn fetch(&self) -> anyhow::Result<KeySet> {
        let asked = Instant::now();
        let request = Request::get(self.url.clone()).header(ACCEPT, "application/jwk-set+json, application/json");
        let request = request.body(Empty::new())?;
        let exchange = async {
            let response = self.client.request(request).await?;
            let status = response.status(); // a redirect is not followed: the address is the one that is trusted
            ensure!(status == StatusCode::OK, "it answered {status}");
            let body = Limited::new(response.into_body(), LARGEST).collect().await;
            body.map_err(|error| anyhow!(error)).context("its answer cannot be read")
        };
        let text = timeout(DEADLINE, exchange).await.with_context(|| format!("no answer within {DEADLINE:?}"))??;
        // Whatever a set may hold at an address, secrets are none there.
        let keys =
            from_jwks(&text.to_bytes(), false).map_err(|problem| anyhow!("its answer is no key set: {problem}"))?;
        Ok(KeySet::new(keys, Some(asked + self.max_age)))
    }
}

fn tell_changes(before: &KeySet, after: &KeySet) {
    let count = |set: &KeySet, other: &KeySet| set.ids().filter(|id: &KeyId| !other.has(*id)).count();
    let (new, gone) = (count(after, before), count(before, after));
    if new + gone > 0 {
        tracing::info!(new, gone, "the issuer's keys have changed");
    }
}
