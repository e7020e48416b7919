//! REST beside the sockets: who is in a room.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, Uri, header},
    response::{IntoResponse as _, Response},
};
use tokio::time::timeout;
use utoipa::IntoResponses;

use super::{
    Problem, Service, access,
    error::{Responses, responses},
    request::{Nothing, query, room_name},
    rooms::READ_DEADLINE,
};
use crate::protocol::{ProblemCode, Roster};

/// What it may be refused with.
struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> Responses {
        responses(&ProblemCode::OF_PRESENCE)
    }
}

/// See who is in a room.
///
/// Over all nodes; a user counts once, an anonymous socket by itself. Who has left still counts for a while (`presence.linger`).
#[utoipa::path(
    get,
    path = "/api/chat-api/rooms/{room}/presence",
    tag = "Rooms",
    params(("room" = String, Path, description = "The room", pattern = "^[A-Za-z0-9_.-]{1,128}$", example = "general")),
    responses(
        (status = 200, description = "Who is there, or how many", body = Roster, example = json!({"count": 2, "here": [{"from": "alice"}, {"client_id": "019346a7d8f27c3e8a51b2c3d4e5f607"}]})),
        Refusals,
    ),
    security((), ("bearer" = [])),
)]
pub(super) async fn presence(
    State(service): State<Arc<Service>>,
    room: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, identity) = access::check(&service, &headers, None).await?;
    let room = room_name(room)?;
    if !identity.permissions.sees(&room) {
        return Err(access::forbidden("see who is in", &room));
    }
    let Nothing {} = query(&uri)?;
    let unavailable = |detail: String| Problem::new(ProblemCode::Unavailable, detail);
    let roster = timeout(READ_DEADLINE, service.hub.presence(&room)).await;
    let roster = roster.map_err(|_| unavailable("Redis did not answer in time".into()))?;
    let roster = roster.ok_or_else(|| {
        let detail = "presence is not kept here: not for the lobby, and nowhere when `presence.enabled` is false";
        Problem::new(ProblemCode::NotFound, detail)
    })?;
    let roster = roster.map_err(|error| unavailable(error.to_string()))?;
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, Json(roster)).into_response())
}
