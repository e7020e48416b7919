//! Who may come in: the page's origin and the token, for sockets and requests alike.

use axum::http::{HeaderMap, StatusCode};

use super::{Problem, Service, origin};
use crate::{
    auth::{self, AuthError, Identity, Offer},
    protocol::RoomName,
};

/// Seconds that the issuer gets to be back.
const RETRY_AFTER_S: u64 = 5;

/// Checks both. `in_url` is a token in the query, for clients that can send it nowhere else.
pub(super) async fn check(
    service: &Service,
    headers: &HeaderMap,
    in_url: Option<&str>,
) -> Result<(Offer, Identity), Problem> {
    origin::check(headers, &service.origins())
        .map_err(|detail| Problem::new(StatusCode::FORBIDDEN, "origin", detail))?;
    let identify = async {
        if in_url.is_some() && !service.query_token {
            return Err(AuthError::InUrl);
        }
        let offer = auth::offer(headers, in_url)?;
        let identity = service.authenticator.identify(offer.token.as_deref()).await?;
        Ok((offer, identity))
    };
    identify.await.map_err(|error| refused(service, error))
}

fn refused(service: &Service, error: AuthError) -> Problem {
    service.metrics.auth_failure(error.reason()).inc();
    match error {
        AuthError::KeysAway => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string()).retry_after(RETRY_AFTER_S)
        }
        _ => Problem::new(StatusCode::UNAUTHORIZED, "auth", error.to_string()),
    }
}

/// The answer to a request that the token's permissions do not cover.
pub(super) fn forbidden(what: &str, room: &RoomName) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("you may not {what} `{room}`"))
}
