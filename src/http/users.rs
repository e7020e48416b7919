//! REST beside the sockets: taking a user's access away.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
};
use tokio::time::timeout;

use super::{Problem, Service, access, rooms::unavailable};
use crate::{protocol::UserId, revocation};

/// Longest that the log may take to have it.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);

/// Revoke a user's tokens and close their connections.
///
/// On every node, within a second: connections are closed with 4401, and tokens that were issued up to now are refused. The user comes back with a
/// newer token, unless the issuer gives them none.
#[utoipa::path(
    delete,
    path = "/api/chat-api/users/{user}/connections",
    tag = "Users",
    params(("user" = String, Path, description = "The user's id, as in the `sub` of their tokens", example = "alice")),
    responses(
        (status = 204, description = "Done here; the other nodes follow within a second"),
        (status = 400, description = "No user id, or this service asks for no tokens", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "The token is missing or not valid", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The page's origin is not allowed, or the token is not an administrator's (`admin`)", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "It could not be said to the other nodes: try again", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn revoke(
    State(service): State<Arc<Service>>,
    user: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let (_, identity) = access::check(&service, &headers, None).await?;
    let bad_request = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "user", detail);
    if !service.authenticator.asks_for_tokens() {
        return Err(bad_request("this service asks for no tokens: there are none to revoke".into()));
    }
    if !identity.permissions.is_admin() {
        let detail = "only an administrator's token (`admin` in its permissions) may do this";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    let Path(user) = user.map_err(|rejection| bad_request(rejection.body_text()))?;
    let user = UserId::new(&user).map_err(|error| bad_request(error.to_string()))?;
    tracing::info!(user_id = %user, by = identity.user.as_ref().map_or("-", UserId::as_str), "revoking a user's tokens");
    let revoked = revocation::revoke(&service.hub, &service.authenticator, user, identity.user);
    let revoked = timeout(DEADLINE, revoked).await.map_err(|_| unavailable("Redis did not answer in time".into()))?;
    revoked.map_err(|error| unavailable(error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}
