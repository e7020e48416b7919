//! An OpenTelemetry collector that keeps what it gets: OTLP over HTTP, binary.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{self as proto, span::SpanKind},
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{net::TcpListener, task::JoinSet};

/// A finished span.
#[derive(Debug, Clone)]
pub struct Span {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits; empty for the root of a trace.
    pub parent_span_id: String,
    pub name: String,
    pub kind: SpanKind,
    /// Which process made it.
    pub service_instance: String,
    /// All values as text.
    pub attributes: BTreeMap<String, String>,
}

/// Runs until dropped.
pub struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    _server: JoinSet<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let spans = Arc::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("the collector serves") });
        Self { url, spans, _server: server }
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All so far, in the order in which they came.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().clone()
    }
}

async fn take(State(spans): State<Arc<Mutex<Vec<Span>>>>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    spans.lock().extend(decode(request));
    // An empty body is an empty response message: everything was accepted.
    StatusCode::OK
}

/// Takes an export apart.
pub fn decode(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for group in request.resource_spans {
        let resource = texts(group.resource.map(|resource| resource.attributes).unwrap_or_default());
        let found = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(found.map(|span| Span::new(span, &resource)));
    }
    spans
}

impl Span {
    fn new(span: proto::Span, resource: &BTreeMap<String, String>) -> Self {
        Self {
            trace_id: hex(&span.trace_id),
            span_id: hex(&span.span_id),
            parent_span_id: hex(&span.parent_span_id),
            kind: span.kind(),
            name: span.name,
            service_instance: resource.get("service.instance.id").cloned().unwrap_or_default(),
            attributes: texts(span.attributes),
        }
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|attribute| (attribute.key, text(attribute.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
