//! The HTTP edge: two routers and what they share. Nothing outside knows a request.

mod access;
mod address;
pub mod asyncapi;
mod docs;
mod error;
mod files;
pub mod gate;
pub mod health;
mod joins;
pub mod listener;
pub mod openapi;
mod origin;
mod page;
mod presence;
mod request;
mod rooms;
mod socket;
mod timed;
mod users;
mod ws;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    response::IntoResponse as _,
    routing::{delete, get},
};
use http::request::Parts;
use ipnet::IpNet;
use parking_lot::RwLock;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};
use tracing::{Instrument as _, Span, field};

pub use self::{error::Problem, gate::Gate, socket::FrameRates};
use crate::{
    auth::Authenticator,
    broadcaster::{Draft, PublishError},
    hub::{ConnectionLimits, Hub},
    metrics::Metrics,
    protocol::{MessageId, ProblemCode},
    shutdown::Tasks,
    telemetry::trace::{self, Tracing},
};

/// What the public routes work with.
pub struct Service {
    /// Rooms and connections.
    pub hub: Arc<Hub>,
    /// Who comes in.
    pub authenticator: Arc<Authenticator>,
    /// Tokens are taken from the query too.
    pub query_token: bool,
    /// Pages that may connect; empty: those of the same host.
    pub origins: RwLock<Arc<Vec<String>>>,
    /// Of one connection.
    pub limits: Arc<ConnectionLimits>,
    /// Most rooms of one session.
    pub rooms_max: usize,
    /// Of the node, over its clients.
    pub gate: Arc<Gate>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Of one connection's frames, and the rooms that it asks for.
    pub frame_rates: FrameRates,
    /// How often connections are pinged.
    pub heartbeat: Duration,
    /// Who this is, for clients.
    pub node: String,
    /// Of the node.
    pub connections_max: usize,
    /// Upgrades are taken; false from the end of `drain.delay` on.
    pub accepting: AtomicBool,
    /// Where the sockets' tasks run.
    pub tasks: Tasks,
    /// Which messages are traced.
    pub tracing: Tracing,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Service {
    /// Pages that may connect at this moment.
    fn origins(&self) -> Arc<Vec<String>> {
        self.origins.read().clone()
    }

    /// Lets pages of these origins connect from now on.
    pub fn set_origins(&self, origins: Vec<String>) {
        *self.origins.write() = Arc::new(origins);
    }

    /// Sends a message on its way, whichever way it came in: timed and, if `received` is traced, inside a span of its own, which travels along.
    async fn publish(&self, received: &Span, draft: Draft) -> Result<Option<MessageId>, PublishError> {
        let (room, client_id) = (draft.room.clone(), draft.client);
        let span = trace::publish(received, &room, draft.payload.get().len(), self.hub.broadcaster().system());
        let draft = Draft { trace: trace::context_of(&span), ..draft };
        let timer = self.metrics.publish_seconds.start_timer();
        let result = self.hub.publish(draft).instrument(span.clone()).await;
        timer.observe_duration();
        span.in_scope(|| match &result {
            Ok(id) => tracing::debug!(%room, %client_id, id = id.map(field::display), "published"),
            Err(error @ PublishError::Gap { .. }) => tracing::debug!(%room, %client_id, %error, "not stored"),
            Err(error) => tracing::warn!(%room, %client_id, %error, "a message was not stored; its sender is told"),
        });
        match &result {
            Ok(Some(id)) => trace::published(&span, *id),
            Ok(None) => {}
            Err(error) => trace::failed(&span, error.outcome().as_str()),
        }
        result
    }
}

/// The routes of the public listener.
///
/// - `GET /api/chat-api/ws`, `GET /api/chat-api/ws/{room}`: sockets
/// - `POST`, `GET /api/chat-api/rooms/{room}/messages`: publish, history
/// - `GET /api/chat-api/rooms/{room}/presence`: who is there
/// - `DELETE /api/chat-api/users/{user}/connections`: take their access away
/// - `GET /api/chat-api/openapi.json`, `…/asyncapi.json`: all this, for programs
/// - `GET /api/chat-api/client.js`, `…/client.d.ts`: the client
/// - `GET /`, `GET /assets/…`: the page
/// - `GET /docs`: the two documents, for people
pub fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/api/chat-api/ws", get(ws::lobby))
        .route("/api/chat-api/ws/{room}", get(ws::room))
        .merge(rest(&service))
        .with_state(service)
        .merge(docs::router())
        .merge(page::router())
        .fallback(|| async { Problem::new(ProblemCode::NotFound, "there is nothing at this path") })
        .method_not_allowed_fallback(not_allowed)
        .layer(CatchPanicLayer::custom(|_| {
            Problem::new(ProblemCode::Bug, "the request met a fault of the server").into_response()
        }))
}

/// REST: answers that pages of the allowed origins may read.
fn rest(service: &Arc<Service>) -> Router<Arc<Service>> {
    let service = service.clone();
    let allowed = move |origin: &HeaderValue, _: &Parts| {
        service.origins().iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    };
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("traceparent"),
        ])
        .expose_headers([header::RETRY_AFTER]);
    Router::new()
        .route("/api/chat-api/rooms/{room}/messages", get(rooms::history).post(rooms::publish))
        .route("/api/chat-api/rooms/{room}/presence", get(presence::presence))
        .route("/api/chat-api/users/{user}/connections", delete(users::revoke))
        .merge(page::client())
        .method_not_allowed_fallback(not_allowed) // inside: what a browser asks first is answered by the layer
        .layer(cors)
}

async fn not_allowed() -> Problem {
    Problem::new(ProblemCode::Method, "this path does not take this method")
}
