//! An OpenTelemetry collector that keeps what it gets, over either of OTLP's protocols.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{self as proto, span::SpanKind, status::StatusCode as Outcome},
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::NodeBuilder;

/// What a collector speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otlp {
    Grpc,
    Http,
}

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
    /// In nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub failed: bool,
    /// Of the process that made it. All values as text, here as there.
    pub resource: BTreeMap<String, String>,
    pub attributes: BTreeMap<String, String>,
    /// Events in it and links to others.
    pub extras: usize,
}

/// Runs until dropped.
pub struct Collector {
    otlp: Otlp,
    url: String,
    kept: Arc<Kept>,
    _server: JoinSet<()>,
}

struct Kept {
    otlp: Otlp,
    /// Takes requests and never answers.
    silent: bool,
    requests: AtomicUsize,
    spans: Mutex<Vec<Span>>,
    /// The requests as they came: heads and messages.
    raw: Mutex<Vec<(HeaderMap, Bytes)>>,
}

impl Collector {
    pub async fn start(otlp: Otlp) -> Self {
        Self::listen(otlp, false).await
    }

    /// One that takes everything and never answers.
    pub async fn silent(otlp: Otlp) -> Self {
        Self::listen(otlp, true).await
    }

    async fn listen(otlp: Otlp, silent: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (requests, spans, raw) = Default::default();
        let kept = Arc::new(Kept { otlp, silent, requests, spans, raw });
        let mut server = JoinSet::new();
        server.spawn(accept(listener, kept.clone()));
        Self { otlp, url, kept, _server: server }
    }

    /// Has a node export to it, and soon.
    pub fn configure(&self, node: NodeBuilder) -> NodeBuilder {
        let protocol = match self.otlp {
            Otlp::Grpc => "grpc",
            Otlp::Http => "http/protobuf",
        };
        node.env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.url)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
    }

    /// All so far, in the order in which they came.
    pub fn spans(&self) -> Vec<Span> {
        self.kept.spans.lock().clone()
    }

    /// Exports that were begun.
    pub fn requests(&self) -> usize {
        self.kept.requests.load(Ordering::Relaxed)
    }

    /// Whether some export holds a text, wherever in it.
    pub fn has_read(&self, text: &str) -> bool {
        self.kept.raw.lock().iter().any(|(_, body)| body.windows(text.len()).any(|part| part == text.as_bytes()))
    }

    /// What the exports had in a header.
    pub fn header(&self, name: &str) -> Vec<String> {
        let raw = self.kept.raw.lock();
        raw.iter().filter_map(|(head, _)| Some(head.get(name)?.to_str().expect("text").to_owned())).collect()
    }
}

async fn accept(listener: TcpListener, kept: Arc<Kept>) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, _) = listener.accept().await.expect("it listens");
        connections.spawn(serve(socket, kept.clone()));
    }
}

async fn serve(socket: TcpStream, kept: Arc<Kept>) {
    let socket = TokioIo::new(socket);
    let service = service_fn(|request| answer(kept.clone(), request));
    // However a connection ends: an exporter that is cut off tries again.
    let _ = match kept.otlp {
        Otlp::Grpc => http2::Builder::new(TokioExecutor::new()).serve_connection(socket, service).await,
        Otlp::Http => http1::Builder::new().serve_connection(socket, service).await,
    };
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(kept: Arc<Kept>, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    kept.requests.fetch_add(1, Ordering::Relaxed);
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if kept.silent {
        return pending().await;
    }
    let (path, mut message) = match kept.otlp {
        Otlp::Grpc => ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", unframe(&body)),
        Otlp::Http => ("/v1/traces", body),
    };
    let raw = (head.headers, message.clone());
    let Some(request) = ExportTraceServiceRequest::decode(&mut message).ok().filter(|_| head.uri.path() == path) else {
        let mut refusal = Response::new(Full::default().boxed());
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refusal);
    };
    kept.raw.lock().push(raw);
    kept.spans.lock().extend(decode(request));
    Ok(accepted(kept.otlp))
}

/// The one message of a call: a byte for its compression (none here), its length in four.
fn unframe(body: &Bytes) -> Bytes {
    body.slice(body.len().min(5)..)
}

/// An empty response message: everything was accepted.
fn accepted(otlp: Otlp) -> Answer {
    let (kind, body) = match otlp {
        Otlp::Http => ("application/x-protobuf", Full::default().boxed()),
        Otlp::Grpc => {
            let done = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
            let trailers = std::future::ready(Some(Ok(HeaderMap::from_iter([done]))));
            ("application/grpc", Full::from(&[0; 5][..]).with_trailers(trailers).boxed())
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Takes an export apart.
fn decode(request: ExportTraceServiceRequest) -> Vec<Span> {
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
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            failed: span.status.is_some_and(|status| status.code() == Outcome::Error),
            resource: resource.clone(),
            extras: span.events.len() + span.links.len(),
            name: span.name,
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
