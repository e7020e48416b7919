//! The management listener: probes and metrics.
//!
//! - `GET /livez`: the process answers; restarting it would help nothing else, so it looks at nothing else.
//! - `GET /startupz`: it has come up: the listeners accept.
//! - `GET /readyz`: it wants traffic; the reasons against are in the body.
//! - `GET /metrics`: Prometheus text format.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::{metrics::Metrics, shutdown::Readiness};

#[derive(Clone)]
struct Health {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
}

/// The routes of the management listener.
pub fn router(readiness: Arc<Readiness>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(|| async { Json(json!({ "status": "ok" })) }))
        .route("/startupz", get(startup))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Health { readiness, metrics })
}

async fn startup(State(health): State<Health>) -> Response {
    status(health.readiness.is_started(), &health.readiness)
}

async fn ready(State(health): State<Health>) -> Response {
    status(health.readiness.reasons().is_empty(), &health.readiness)
}

fn status(good: bool, readiness: &Readiness) -> Response {
    let (code, word) = if good { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    (code, Json(json!({ "status": word, "reasons": readiness.reasons() }))).into_response()
}

async fn metrics_text(State(health): State<Health>) -> Response {
    health.metrics.ready.set(i64::from(health.readiness.reasons().is_empty()));
    match health.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
