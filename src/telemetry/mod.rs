//! Log lines to standard output, and traces to a collector where one is configured.
//!
//! Owns the process's one subscriber. The spans themselves are in `trace`, the way out in `otlp`, the form of a line in `logs`. Logs follow
//! `log.filter`; spans do not, and never show up in the logs but for their ids.

mod logs;
mod otlp;
pub mod trace;

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
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

use self::trace::Tracing;
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
}

/// Takes over logging and tracing for the whole process, once; a second call is an error. Spans that do not reach the collector are counted
/// in `dropped`. Needs a Tokio runtime where traces are exported.
pub fn init(log: &Log, telemetry: &Telemetry, kubernetes: &Kubernetes, dropped: IntCounter) -> anyhow::Result<Guard> {
    let (dispatch, guard) = build(log, telemetry, kubernetes, dropped, logs::coloured(), std::io::stdout)?;
    tracing::dispatcher::set_global_default(dispatch).context("logging was set up already")?;
    if let (Some(url), true) = (telemetry.traces_url(), guard.provider.is_some()) {
        tracing::info!(url, sampler = ?telemetry.sampler, "exporting traces");
    }
    Ok(guard)
}

fn build<W>(
    log: &Log,
    telemetry: &Telemetry,
    kubernetes: &Kubernetes,
    dropped: IntCounter,
    ansi: bool,
    writer: W,
) -> anyhow::Result<(Dispatch, Guard)>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_filter(&log.filter)?);
    let logs = logs::layer(log.format, ansi, writer).with_filter(filter.and(filter_fn(is_event)));
    let tracing = Tracing::new(telemetry);
    let provider = match tracing.is_on() {
        true => otlp::provider(telemetry, resource(telemetry, kubernetes), dropped)?,
        false => None,
    };
    // A list rather than an `Option`, whose `None` would have spans made for nobody.
    let mut layers = vec![logs.boxed()];
    layers.extend(provider.as_ref().map(|provider| spans(provider).boxed()));
    Ok((Dispatch::new(Registry::default().with(layers)), Guard { filter: LogFilter(handle), tracing, provider }))
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

/// Who we are, beside what `OTEL_RESOURCE_ATTRIBUTES` says.
fn resource(telemetry: &Telemetry, kubernetes: &Kubernetes) -> Resource {
    let instance = kubernetes.pod_uid.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
    let pod = [
        ("k8s.namespace.name", &kubernetes.namespace),
        ("k8s.pod.name", &kubernetes.pod_name),
        ("k8s.pod.uid", &kubernetes.pod_uid),
        ("k8s.node.name", &kubernetes.node_name),
    ];
    let known = pod.into_iter().filter_map(|(key, value)| value.clone().map(|value| KeyValue::new(key, value)));
    Resource::builder()
        .with_service_name(telemetry.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .with_attributes(known)
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

    /// Sends the last spans to the collector; gives up after 2 seconds.
    pub async fn shutdown(self) {
        let Some(provider) = self.provider else { return };
        // Blocks for as long, so not on a thread that others need.
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_DEADLINE));
        match tokio::time::timeout(FLUSH_DEADLINE * 2, flush).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last spans did not reach the collector"),
            Ok(Err(error)) => tracing::warn!(%error, "flushing the last spans failed"),
            Err(_) => tracing::warn!("flushing the last spans took too long"),
        }
    }
}

#[cfg(test)]
mod tests;
