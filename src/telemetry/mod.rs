//! Log lines to standard output, and traces to a collector where one is configured.
//!
//! Owns the process's one subscriber. The spans themselves are in `trace`, the way out in `otlp`, the form of a line in `logs`, how many of a
//! kind there may be in `flood`, who waits for standard output in `writer`. Logs follow `log.filter`; spans do not, and never show up in the logs but for their ids.

mod flood;
mod logs;
mod otlp;
pub mod trace;
mod writer;

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::SdkTracerProvider,
};
use prometheus::IntCounter;
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
};
use uuid::Uuid;

pub use self::flood::RECORD;
use self::{flood::Flood, trace::Tracing};
use crate::config::{Kubernetes, Log, Telemetry};

/// The longest that the last spans may take to the collector.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);

/// What is left to do with telemetry: change the filter, flush at the end.
#[derive(Debug)]
#[must_use = "the last spans are lost without `shutdown`"]
pub struct Guard {
    filter: LogFilter,
    tracing: Tracing,
    provider: Option<SdkTracerProvider>,
    /// The last lines are written when it goes.
    _lines: Option<writer::Flush>,
}

/// What is counted here.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Finished spans that never reached the collector.
    pub spans_dropped: IntCounter,
    /// Log lines that were not written, as too many like them were, or nobody took them.
    pub lines_suppressed: IntCounter,
}

/// Takes over logging and tracing for the whole process, once; a second call is an error. Needs a Tokio runtime where traces are exported.
pub fn init(log: &Log, telemetry: &Telemetry, kubernetes: &Kubernetes, counters: Counters) -> anyhow::Result<Guard> {
    let (dispatch, guard) = prepare(log, telemetry, kubernetes, counters)?;
    tracing::dispatcher::set_global_default(dispatch).context("logging was set up already")?;
    if let (Some(url), true) = (telemetry.traces_url(), guard.provider.is_some()) {
        tracing::info!(url, sampler = ?telemetry.sampler, "exporting traces");
    }
    Ok(guard)
}

/// The same, taking nothing over yet: the subscriber counts only where it is made the default.
pub fn prepare(
    log: &Log,
    telemetry: &Telemetry,
    kubernetes: &Kubernetes,
    counters: Counters,
) -> anyhow::Result<(Dispatch, Guard)> {
    let (lines, flush) =
        writer::start(std::io::stdout(), counters.lines_suppressed.clone()).context("the log's thread")?;
    let (dispatch, guard) = build(log, telemetry, kubernetes, counters, logs::coloured(), lines)?;
    Ok((dispatch, Guard { _lines: Some(flush), ..guard }))
}

fn build<W>(
    log: &Log,
    telemetry: &Telemetry,
    kubernetes: &Kubernetes,
    counters: Counters,
    ansi: bool,
    writer: W,
) -> anyhow::Result<(Dispatch, Guard)>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_filter(&log.filter)?);
    let flood = Flood::new(counters.lines_suppressed);
    let logs = logs::layer(log.format, ansi, flood, writer).with_filter(filter.and(filter_fn(is_event)));
    let tracing = Tracing::new(telemetry);
    let provider = match tracing.is_on() {
        true => otlp::provider(telemetry, resource(telemetry, kubernetes), counters.spans_dropped)?,
        false => None,
    };
    // A list rather than an `Option`, whose `None` would have spans made for nobody.
    let mut layers = vec![logs.boxed()];
    layers.extend(provider.as_ref().map(|provider| spans(provider).boxed()));
    Ok((
        Dispatch::new(Registry::default().with(layers)),
        Guard { filter: LogFilter(handle), tracing, provider, _lines: None },
    ))
}

fn is_event(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == trace::TARGET
}

fn parse_filter(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder().parse(filter).with_context(|| {
        format!("log.filter: {filter:?} is neither a level (error, warn, info, debug, trace) nor directives such as info,chat_api=debug")
    })
}

/// The layer that makes our spans, and no library's, into OpenTelemetry's.
fn spans<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
    // What none of these spans needs costs a third of making one.
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_ours))
}

/// Who we are: what the pod knows, then what `OTEL_RESOURCE_ATTRIBUTES` says, then the name that was given.
fn resource(telemetry: &Telemetry, kubernetes: &Kubernetes) -> Resource {
    let instance = kubernetes.pod_uid.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let own = [
        ("service.name", env!("CARGO_PKG_NAME").to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", instance),
    ];
    let pod = [
        ("k8s.namespace.name", &kubernetes.namespace),
        ("k8s.pod.name", &kubernetes.pod_name),
        ("k8s.pod.uid", &kubernetes.pod_uid),
        ("k8s.node.name", &kubernetes.node_name),
    ];
    let pod = pod.into_iter().filter_map(|(key, value)| value.clone().map(|value| (key, value)));
    let given = telemetry.service_name.clone().map(|name| KeyValue::new("service.name", name));
    Resource::builder_empty()
        .with_attributes(own.into_iter().chain(pod).map(|(key, value)| KeyValue::new(key, value)))
        .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())])
        .with_attributes(given)
        .build()
}

/// What is logged, changed while it runs.
#[derive(Debug, Clone)]
pub struct LogFilter(reload::Handle<EnvFilter, Registry>);

impl LogFilter {
    /// Logs by another filter from now on; a bad one changes nothing.
    pub fn set(&self, filter: &str) -> anyhow::Result<()> {
        self.0.reload(parse_filter(filter)?).context("the log filter cannot be changed any more")
    }
}

impl Guard {
    /// Which messages are traced.
    #[must_use]
    pub fn tracing(&self) -> Tracing {
        self.tracing.clone()
    }

    /// What is logged.
    #[must_use]
    pub fn log_filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// Sends the last spans to the collector. Gives up after `limit`, and in any case after 2 seconds.
    pub async fn shutdown(self, limit: Duration) {
        let Some(provider) = self.provider else { return };
        let limit = limit.min(FLUSH_DEADLINE);
        // Blocks for as long, so not on a thread that others need. What was lost, its processor tells.
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        if let Err(error) = flush.await {
            tracing::warn!(%error, "flushing the last spans failed");
        }
    }
}

#[cfg(test)]
mod tests;
