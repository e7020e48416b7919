//! REST beside the sockets: taking a user's access away.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode, Uri},
};
use tokio::time::timeout;
use utoipa::IntoResponses;

use super::{
    Problem, Service, access,
    error::{Responses, responses},
    request::{Nothing, query},
};
use crate::{
    protocol::{ProblemCode, UserId},
    revocation,
    telemetry::RECORD,
};

/// Longest that the log may take to have it.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);

/// What it may be refused with.
struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> Responses {
        responses(&ProblemCode::OF_REVOCATIONS)
    }
}

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
        Refusals,
    ),
    security(("bearer" = [])),
)]
pub(super) async fn revoke(
    State(service): State<Arc<Service>>,
    user: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let (_, identity) = access::check(&service, &headers, None).await?;
    let Nothing {} = query(&uri)?;
    let bad_request = |detail: String| Problem::new(ProblemCode::InvalidUser, detail);
    let unavailable = |detail: String| Problem::new(ProblemCode::Unavailable, detail);
    if !service.authenticator.asks_for_tokens() {
        return Err(bad_request("this service asks for no tokens: there are none to revoke".into()));
    }
    if !identity.permissions.is_admin() {
        let detail = "only an administrator's token (`admin` in its permissions) may do this";
        return Err(Problem::new(ProblemCode::Forbidden, detail));
    }
    let Path(user) = user.map_err(|rejection| bad_request(rejection.body_text()))?;
    let user = UserId::new(&user).map_err(|error| bad_request(error.to_string()))?;
    let by = identity.user.as_ref().map_or("-", UserId::as_str);
    tracing::info!(target: RECORD, user_id = %user, by, "revoking a user's tokens");
    let revoked = revocation::revoke(&service.hub, &service.authenticator, user, identity.user);
    let revoked = timeout(DEADLINE, revoked).await.map_err(|_| unavailable("Redis did not answer in time".into()))?;
    revoked.map_err(|error| unavailable(error.to_string()))?;
    Ok(StatusCode::NO_CONTENT)
}
