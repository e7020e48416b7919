//! Who may come in: the page's origin and the token, for sockets and requests alike.

use axum::http::{HeaderMap, StatusCode};

use super::{Problem, Service, origin};
use crate::auth::{self, Identity, Offer};

/// Checks both. The identity is absent where everybody is let in.
pub(super) fn check(service: &Service, headers: &HeaderMap) -> Result<(Offer, Option<Identity>), Problem> {
    origin::check(headers, &service.origins).map_err(|detail| Problem::new(StatusCode::FORBIDDEN, "origin", detail))?;
    let offer = auth::offer(headers).map_err(|error| unauthorized(&error.to_string()))?;
    let identity = authenticate(service, &offer)?;
    Ok((offer, identity))
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "auth", detail)
}

fn authenticate(service: &Service, offer: &Offer) -> Result<Option<Identity>, Problem> {
    let Some(authenticator) = &service.authenticator else { return Ok(None) };
    let token = offer.token.as_deref().ok_or_else(|| {
        unauthorized("no token: send `Authorization: Bearer <jwt>`, or the subprotocols `chat.v1, bearer.<jwt>`")
    })?;
    authenticator.verify(token).map(Some).map_err(|error| unauthorized(&error.to_string()))
}
