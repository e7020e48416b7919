//! Spans on their way to the collector: OTLP over gRPC or HTTP.
//!
//! A collector that is away or slow costs spans, never time: ending a span puts it into a bounded queue or drops it, and every export has a
//! deadline. What was dropped is counted, and logged at most once a minute. Which spans are made is `trace`'s.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _, tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor,
    },
};
use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::{runtime::Handle, time::timeout};

use crate::{
    config::{OtlpProtocol, Telemetry},
    https,
};

/// The most of a collector's answer that is read.
const ANSWER_BYTES: usize = 64 * 1024;
/// The shortest time between two complaints about the collector.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Makes the provider of a tracer whose spans go to the collector; `None` where none is configured. Needs a Tokio runtime, on which the
/// exports run.
pub(super) fn provider(
    telemetry: &Telemetry,
    resource: Resource,
    dropped: IntCounter,
) -> anyhow::Result<Option<SdkTracerProvider>> {
    let Some(url) = telemetry.traces_url() else { return Ok(None) };
    let runtime = Handle::try_current().context("exporting traces needs a Tokio runtime")?;
    let account = Arc::new(Account::new(url.clone(), telemetry.queue, dropped));
    let inner = exporter(telemetry, &url, &account).with_context(|| format!("cannot export traces to {url}"))?;
    let exporter = Deadlined { inner: Arc::new(inner), runtime, deadline: telemetry.timeout, account: account.clone() };
    let config = BatchConfigBuilder::default().with_max_queue_size(telemetry.queue).build();
    let inner = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        // What is not to be sampled never becomes a span.
        .with_sampler(Sampler::AlwaysOn)
        .with_span_processor(Counted { inner, account })
        .build();
    Ok(Some(provider))
}

fn exporter(
    telemetry: &Telemetry,
    url: &str,
    account: &Arc<Account>,
) -> anyhow::Result<opentelemetry_otlp::SpanExporter> {
    let tls = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let exporter = match telemetry.protocol {
        OtlpProtocol::Grpc => {
            let builder = builder.with_tonic().with_endpoint(url).with_timeout(telemetry.timeout);
            // Without this an https endpoint trusts nobody.
            let roots = || ClientTlsConfig::new().with_enabled_roots();
            if tls { builder.with_tls_config(roots()).build() } else { builder.build() }
        }
        OtlpProtocol::HttpProtobuf => {
            let client = Client::builder(TokioExecutor::new()).build(https::connector(tls)?);
            let client = Http { client, account: account.clone() };
            builder.with_http().with_http_client(client).with_endpoint(url).with_timeout(telemetry.timeout).build()
        }
    };
    Ok(exporter?)
}

/// The HTTP stack of everything else here, as the exporter wants it.
#[derive(Debug)]
struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    account: Arc<Account>,
}

#[async_trait::async_trait]
impl HttpClient for Http {
    /// No deadline of its own: [`Deadlined`] has one.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let (parts, body) = self.client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        // The SDK makes "network error" of whatever it gets.
        exchange.await.inspect_err(|error: &HttpError| self.account.outage.lock().cause = Some(causes(&**error)))
    }
}

/// An error with what caused it: hyper says only "client error" at first.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Exports on the runtime, since the thread that asks for it is none of the runtime's, and for a limited time.
#[derive(Debug)]
struct Deadlined<E> {
    inner: Arc<E>,
    runtime: Handle,
    deadline: Duration,
    account: Arc<Account>,
}

impl<E: SpanExporter + 'static> SpanExporter for Deadlined<E> {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let (inner, account, deadline, spans) = (self.inner.clone(), self.account.clone(), self.deadline, batch.len());
        account.leave(spans);
        // Waited for by the thread that exports, and that thread by the provider's shutdown.
        // The deadline too is made on the runtime, whose timer it needs.
        let task = self.runtime.spawn(async move { timeout(deadline, inner.export(batch)).await });
        async move {
            let result = match task.await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(OTelSdkError::Timeout(deadline)),
                Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
            };
            account.exported(&result);
            result
        }
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(limit)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called before the first export: nobody else has it yet.
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}

/// The SDK's queue, with its bound before it: what the SDK drops itself, it tells nobody.
#[derive(Debug)]
struct Counted<P> {
    inner: P,
    account: Arc<Account>,
}

impl<P: SpanProcessor> SpanProcessor for Counted<P> {
    fn on_start(&self, span: &mut Span, context: &opentelemetry::Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.account.enter() {
            self.inner.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        let result = self.inner.shutdown_with_timeout(limit);
        self.account.abandon();
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// What became of the spans.
#[derive(Debug)]
struct Account {
    url: String,
    /// Most that may wait.
    room: usize,
    /// In the queue.
    waiting: AtomicUsize,
    /// In the export that is under way: there is one at a time.
    leaving: AtomicUsize,
    dropped: IntCounter,
    outage: Mutex<Outage>,
}

#[derive(Debug, Default)]
struct Outage {
    complained: Option<Instant>,
    /// Whether the last export failed.
    failing: bool,
    /// Value of `dropped` at the last complaint.
    told: u64,
    /// What went wrong on the network last.
    cause: Option<String>,
}

impl Account {
    fn new(url: String, room: usize, dropped: IntCounter) -> Self {
        let (waiting, leaving) = Default::default();
        Self { url, room, waiting, leaving, dropped, outage: Mutex::default() }
    }

    /// A span ended. False: no room for it.
    fn enter(&self) -> bool {
        let room = |waiting| (waiting < self.room).then_some(waiting + 1);
        let entered = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        if !entered {
            self.dropped.inc();
        }
        entered
    }

    /// Spans were taken out of the queue, to be exported.
    fn leave(&self, spans: usize) {
        let rest = |waiting: usize| Some(waiting.saturating_sub(spans));
        let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest);
        self.leaving.store(spans, Ordering::Relaxed);
    }

    /// Nobody waits any longer for those in the queue and those under way.
    fn abandon(&self) {
        let spans = self.waiting.swap(0, Ordering::Relaxed) + self.leaving.swap(0, Ordering::Relaxed);
        self.dropped.inc_by(spans as u64);
        if spans > 0 {
            tracing::warn!(url = self.url, spans, "the last spans did not reach the collector in time");
        }
    }

    fn exported(&self, result: &OTelSdkResult) {
        let spans = self.leaving.swap(0, Ordering::Relaxed);
        let Err(error) = result else {
            if std::mem::take(&mut self.outage.lock().failing) {
                tracing::info!(url = self.url, "traces reach the collector again");
            }
            return;
        };
        self.dropped.inc_by(spans as u64);
        if let Some((spans, cause)) = self.complaint() {
            let (url, error) = (&self.url, error as &dyn std::error::Error);
            tracing::warn!(
                url,
                error,
                cause,
                spans,
                "cannot export traces; their spans are lost, nothing else is affected"
            );
        }
    }

    /// How many spans were lost since the last complaint, and why the last ones, if it is time for another.
    fn complaint(&self) -> Option<(u64, Option<String>)> {
        let mut outage = self.outage.lock();
        if outage.complained.is_some_and(|last| last.elapsed() < COMPLAINT_INTERVAL) {
            return None;
        }
        let dropped = self.dropped.get();
        let spans = dropped - std::mem::replace(&mut outage.told, dropped);
        (outage.complained, outage.failing) = (Some(Instant::now()), true);
        Some((spans, outage.cause.take()))
    }
}
